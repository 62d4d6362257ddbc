//! X509-SVID: the certificates that were handed out, by x509-parser and by openssl.

use std::collections::BTreeMap;

use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::X509Certificate;

use crate::evidence::{Evidence, openssl, pem_files};
use crate::item::Outcome;

/// The URI SANs of a certificate.
pub fn uris(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = parse_x509_certificate(der) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}

fn leaves(evidence: &Evidence, wrong: impl Fn(&X509Certificate<'_>) -> Option<String>) -> Outcome {
    judge(evidence.chains().iter().filter_map(|chain| chain.first()), wrong)
}

fn authorities(evidence: &Evidence, wrong: impl Fn(&X509Certificate<'_>) -> Option<String>) -> Outcome {
    let chains = evidence.chains();
    let own = evidence.authorities();
    judge(chains.iter().flat_map(|chain| chain.iter().skip(1)).chain(own.iter()), wrong)
}

fn judge<'a>(
    ders: impl Iterator<Item = &'a Vec<u8>>,
    wrong: impl Fn(&X509Certificate<'_>) -> Option<String>,
) -> Outcome {
    let (mut against, mut seen) = (Vec::new(), 0);
    for der in ders {
        seen += 1;
        match parse_x509_certificate(der) {
            Ok(([], certificate)) => against.extend(wrong(&certificate)),
            _ => against.push("not DER".to_owned()),
        }
    }
    if seen == 0 { Outcome::Fail("no certificate was handed out".to_owned()) } else { Outcome::unless(against) }
}

fn both(one: Outcome, other: Outcome) -> Outcome {
    if one == Outcome::Pass { other } else { one }
}

pub fn id_08(evidence: &Evidence) -> Outcome {
    // The names and the key are in the part that openssl checks the signature of: x5_09 verifies it.
    let certified = leaves(evidence, |leaf| {
        let id = uris(leaf.as_raw());
        (id.len() != 1).then(|| format!("{id:?} in the signed part"))
    });
    both(certified, x5_09(evidence))
}

pub fn x5_01(evidence: &Evidence) -> Outcome {
    let named: Vec<&String> =
        evidence.x509.iter().flat_map(|answer| &answer.svids).map(|svid| &svid.spiffe_id).collect();
    let mut against = Vec::new();
    for (chain, id) in evidence.chains().iter().zip(named) {
        let uris = chain.first().map(|leaf| uris(leaf)).unwrap_or_default();
        if uris != [id.clone()] {
            against.push(format!("{id}: URI SANs {uris:?}"));
        }
    }
    both(leaves(evidence, |_| None), Outcome::unless(against))
}

pub fn x5_02(evidence: &Evidence) -> Outcome {
    let root = format!("spiffe://{}", evidence.trust_domain);
    leaves(evidence, |leaf| {
        let id = uris(leaf.as_raw()).pop().unwrap_or_default();
        let path = id.strip_prefix(&root).unwrap_or_default();
        (path.len() < 2 || !path.starts_with('/')).then(|| format!("{id} has no path in {root}"))
    })
}

pub fn x5_03(evidence: &Evidence) -> Outcome {
    leaves(evidence, |leaf| {
        let critical = leaf
            .get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME)
            .ok()
            .flatten()
            .is_some_and(|extension| extension.critical);
        let subject = leaf.subject().iter().count();
        (subject == 0 && !critical).then(|| "an empty subject and a SAN that is not critical".to_owned())
    })
}

pub fn x5_04(evidence: &Evidence) -> Outcome {
    let leaf = leaves(evidence, |leaf| leaf.is_ca().then(|| "a leaf with cA=TRUE".to_owned()));
    both(leaf, authorities(evidence, |ca| (!ca.is_ca()).then(|| "an authority with cA=FALSE".to_owned())))
}

pub fn x5_05(evidence: &Evidence) -> Outcome {
    let usage = |certificate: &X509Certificate<'_>| {
        let extension = certificate.get_extension_unique(&OID_X509_EXT_KEY_USAGE).ok().flatten()?;
        match extension.parsed_extension() {
            ParsedExtension::KeyUsage(usage) if extension.critical => Some(*usage),
            _ => None,
        }
    };
    let leaf = leaves(evidence, |leaf| match usage(leaf) {
        None => Some("no critical key usage on a leaf".to_owned()),
        Some(usage) if !usage.digital_signature() => Some("a leaf without digitalSignature".to_owned()),
        Some(usage) if usage.key_cert_sign() || usage.crl_sign() => Some("a leaf that may sign".to_owned()),
        Some(_) => None,
    });
    both(
        leaf,
        authorities(evidence, |ca| match usage(ca) {
            None => Some("no critical key usage on an authority".to_owned()),
            Some(usage) if !usage.key_cert_sign() => Some("an authority without keyCertSign".to_owned()),
            Some(_) => None,
        }),
    )
}

pub fn x5_06(evidence: &Evidence) -> Outcome {
    leaves(evidence, |leaf| {
        let extension = leaf.get_extension_unique(&OID_X509_EXT_EXTENDED_KEY_USAGE).ok().flatten();
        match extension.map(|extension| extension.parsed_extension()) {
            Some(ParsedExtension::ExtendedKeyUsage(usage)) if usage.server_auth && usage.client_auth => None,
            Some(_) => Some("an extended key usage without serverAuth and clientAuth".to_owned()),
            None => Some("no extended key usage".to_owned()),
        }
    })
}

pub fn x5_07(evidence: &Evidence) -> Outcome {
    let own = format!("spiffe://{}", evidence.trust_domain);
    authorities(evidence, |ca| {
        let ids = uris(ca.as_raw());
        (ids.iter().any(|id| *id != own) || ids.len() > 1).then(|| format!("an authority named {ids:?}"))
    })
}

pub fn x5_08(evidence: &Evidence) -> Outcome {
    authorities(evidence, |ca| {
        let constrained = ca.get_extension_unique(&OID_X509_EXT_NAME_CONSTRAINTS).ok().flatten().is_some();
        constrained.then(|| "name constraints, which many validators refuse".to_owned())
    })
}

/// RFC 5280 path validation by openssl, with the bundle of the trust domain and nothing else.
pub fn x5_09(evidence: &Evidence) -> Outcome {
    let authorities = evidence.authorities();
    let mut against = Vec::new();
    for chain in evidence.chains() {
        let (leaf, rest) = chain.split_at(1.min(chain.len()));
        let files = BTreeMap::from([
            ("roots.pem", authorities.clone()),
            ("leaf.pem", leaf.to_vec()),
            ("chain.pem", rest.to_vec()),
        ]);
        let folder = pem_files(&files);
        let mut arguments = vec!["verify", "-x509_strict", "-purpose", "sslclient", "-no-CApath", "-no-CAstore"];
        arguments.extend(["-partial_chain", "-CAfile", "roots.pem"]);
        if !rest.is_empty() {
            arguments.extend(["-untrusted", "chain.pem"]);
        }
        arguments.push("leaf.pem");
        let (fine, said) = openssl(folder.path(), &arguments);
        if !fine {
            against.push(format!("openssl verify: {}", said.trim()));
        }
    }
    if authorities.is_empty() { Outcome::Fail("no authorities".to_owned()) } else { Outcome::unless(against) }
}

/// The key that came with the SVID is the key in it.
pub fn x5_key(evidence: &Evidence) -> Outcome {
    let mut against = Vec::new();
    let keys: Vec<Vec<u8>> =
        evidence.x509.iter().flat_map(|answer| &answer.svids).map(|svid| svid.x509_svid_key.clone()).collect();
    if keys.is_empty() {
        return Outcome::Fail("no key was handed out".to_owned());
    }
    for (chain, key) in evidence.chains().iter().zip(keys) {
        let folder = pem_files(&BTreeMap::from([("leaf.pem", chain[..1].to_vec())]));
        std::fs::write(folder.path().join("key.der"), key).unwrap();
        let (parsed, public) = openssl(folder.path(), &["pkey", "-inform", "DER", "-in", "key.der", "-pubout"]);
        let (_, certified) = openssl(folder.path(), &["x509", "-in", "leaf.pem", "-noout", "-pubkey"]);
        if !parsed || public != certified {
            against.push("the key is not unencrypted PKCS#8 DER, or not the certified one".to_owned());
        }
    }
    Outcome::unless(against)
}

pub fn x5_basic(evidence: &Evidence) -> Outcome {
    leaves(evidence, |leaf| {
        let there = leaf.get_extension_unique(&OID_X509_EXT_BASIC_CONSTRAINTS).ok().flatten().is_some();
        (!there).then(|| "a leaf without basic constraints, which clients in the field refuse".to_owned())
    })
}

pub fn x5_serial(evidence: &Evidence) -> Outcome {
    leaves(evidence, |leaf| {
        let serial = leaf.raw_serial();
        let fine = serial.len() >= 8 && serial.len() <= 20 && serial.first().is_some_and(|byte| *byte < 0x80);
        (!fine).then(|| format!("a serial of {} bytes, beginning {:02x?}", serial.len(), serial.first()))
    })
}
