//! What the issuer makes, read by other code: x509-parser, the crate `spiffe`, and openssl where it is installed. Test names
//! carry the numbers of the SPIFFE requirements they hold up.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr, reason = "tests")]

use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis_identity::{
    Audience, InstanceId, Issuer, IssuerOptions, JwtAlgorithm, Lifetimes, TokenError, TrustBundle, Workload, X509Svid,
};
use serde_json::Value;
use spiffe::{JwtBundle, JwtBundleSet, X509Bundle};
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

const ID: &str = "spiffe://example.org/ns/shop/sa/cart";
const HOUR: Duration = Duration::from_secs(3600);

struct Site {
    issuer: Issuer,
    instance: InstanceId,
    now: OffsetDateTime,
    _dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self::with(IssuerOptions::new(Lifetimes::default()))
    }

    fn with(options: IssuerOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let domain = "example.org".parse().unwrap();
        let mut issuer = Issuer::open_with(&dir.path().join("state"), &domain, options, now).unwrap();
        let instance: InstanceId = "one".parse().unwrap();
        issuer
            .admit(Workload {
                instance: instance.clone(),
                spiffe_id: ID.parse().unwrap(),
                digest: "sha256:00".into(),
                component: "cart".into(),
                exportable: false,
            })
            .unwrap();
        Self { issuer, instance, now, _dir: dir }
    }

    fn x509(&mut self) -> X509Svid {
        self.issuer.x509_svid(&self.instance, HOUR, self.now).unwrap().svid
    }

    fn token(&mut self, audiences: &[&str]) -> String {
        let audiences: Vec<Audience> = audiences.iter().map(|name| name.parse().unwrap()).collect();
        let minted = self.issuer.jwt_svid(&self.instance, &audiences, Duration::from_secs(300), self.now).unwrap();
        minted.svid.token().to_owned()
    }

    fn ca(&self) -> Vec<u8> {
        self.issuer.bundle().x509_authorities()[0].to_vec()
    }

    fn document(&self) -> Value {
        serde_json::from_str(&self.issuer.bundle().to_json()).unwrap()
    }
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => uri.to_string(),
        other => panic!("a name that is no URI: {other:?}"),
    };
    names.value.general_names.iter().map(uri).collect()
}

fn part(token: &str, at: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
}

#[test]
fn id_07_the_authority_carries_the_id_of_its_trust_domain() {
    let site = Site::new();
    assert_eq!(uris(&parse(&site.ca())), ["spiffe://example.org"]);
}

#[test]
fn x5_01_and_x5_03_a_leaf_has_one_uri_name_which_is_critical_as_there_is_no_subject() {
    let mut site = Site::new();
    let svid = site.x509();
    let leaf = parse(&svid.chain[0]);
    assert_eq!(svid.chain.len(), 1);
    assert_eq!(uris(&leaf), [ID]);
    assert_eq!(leaf.subject().iter().count(), 0);
    assert!(leaf.subject_alternative_name().unwrap().unwrap().critical);
}

#[test]
fn x5_04_a_leaf_says_that_it_is_no_authority_and_the_authority_that_it_signs_leaves_only() {
    let mut site = Site::new();
    let svid = site.x509();
    assert!(!parse(&svid.chain[0]).basic_constraints().unwrap().unwrap().value.ca);
    let ca = site.ca();
    let ca = parse(&ca);
    let constraints = ca.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
}

#[test]
fn x5_05_key_usage_is_critical_and_for_one_thing() {
    let mut site = Site::new();
    let svid = site.x509();
    let leaf = parse(&svid.chain[0]);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature alone");
    let ca = site.ca();
    let ca = parse(&ca);
    let usage = ca.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1 << 5, "keyCertSign alone");
}

#[test]
fn x5_06_extended_key_usage_is_for_both_sides() {
    let mut site = Site::new();
    let svid = site.x509();
    let leaf = parse(&svid.chain[0]);
    let usage = leaf.extended_key_usage().unwrap().unwrap();
    assert!(usage.value.server_auth && usage.value.client_auth && !usage.value.any && usage.value.other.is_empty());
}

#[test]
fn x5_08_no_name_constraints_are_made() {
    let mut site = Site::new();
    let svid = site.x509();
    for der in [&svid.chain[0], &site.ca()] {
        let certificate = parse(der);
        let constrained = |ext: &&x509_parser::extensions::X509Extension<'_>| {
            matches!(ext.parsed_extension(), ParsedExtension::NameConstraints(_))
        };
        assert!(certificate.extensions().iter().find(constrained).is_none());
    }
}

#[test]
fn a_leaf_names_its_authority_by_key_and_is_signed_by_it() {
    let mut site = Site::new();
    let svid = site.x509();
    let (ca, leaf) = (site.ca(), parse(&svid.chain[0]));
    let ca = parse(&ca);
    leaf.verify_signature(Some(ca.public_key())).unwrap();
    ca.verify_signature(None).unwrap();
    let find = |certificate: &X509Certificate<'_>, wanted: fn(&ParsedExtension<'_>) -> Option<Vec<u8>>| {
        certificate.extensions().iter().find_map(|ext| wanted(ext.parsed_extension())).unwrap()
    };
    let subject = |ext: &ParsedExtension<'_>| match ext {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    };
    let authority = |ext: &ParsedExtension<'_>| match ext {
        ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref().unwrap().0.to_vec()),
        _ => None,
    };
    assert_eq!(find(&leaf, authority), find(&ca, subject));
    assert_ne!(find(&leaf, subject), find(&ca, subject));
}

#[test]
fn serials_are_positive_random_and_not_derived_from_the_key() {
    let mut serials = std::collections::HashSet::new();
    for _ in 0..8 {
        let mut site = Site::new();
        let svid = site.x509();
        for der in [&svid.chain[0], &site.ca()] {
            let certificate = parse(der);
            let raw = certificate.raw_serial();
            assert!(raw[0] < 0x80 && raw.len() <= 17 && raw.len() > 8, "{raw:?}");
            assert!(serials.insert(raw.to_vec()));
        }
        let recorded = svid.serial.clone();
        let raw: String = parse(&svid.chain[0]).raw_serial().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(recorded, raw);
    }
}

#[test]
fn validity_is_backdated_by_30_seconds_and_in_whole_seconds() {
    let mut site = Site::new();
    let svid = site.x509();
    let leaf = parse(&svid.chain[0]);
    let now = site.now.replace_nanosecond(0).unwrap();
    assert_eq!(leaf.validity().not_before.to_datetime(), now - Duration::from_secs(30));
    let end = leaf.validity().not_after.to_datetime();
    assert!(end <= now + HOUR && end >= now + HOUR * 9 / 10, "an hour, less up to a tenth at random");
    assert_eq!((svid.not_before, svid.not_after), (now - Duration::from_secs(30), end));
}

#[test]
fn authorities_have_different_names() {
    let names: Vec<_> = (0..2).map(|_| parse(&Site::new().ca()).subject().to_string()).collect();
    assert!(names[0].starts_with("CN=Portcullis X.509 authority "), "{}", names[0]);
    assert_ne!(names[0], names[1]);
}

#[test]
fn x5_10_a_bundle_entry_has_one_certificate_and_no_kid() {
    let site = Site::new();
    let document = site.document();
    let keys = document["keys"].as_array().unwrap();
    let x509: Vec<_> = keys.iter().filter(|key| key["use"] == "x509-svid").collect();
    assert_eq!(x509.len(), 1);
    assert!(x509[0].get("kid").is_none());
    assert_eq!(x509[0]["kty"], "EC");
    let values = x509[0]["x5c"].as_array().unwrap();
    assert_eq!(values.len(), 1);
    let der = STANDARD.decode(values[0].as_str().unwrap()).unwrap();
    assert_eq!(der, site.ca());
    let point = [
        &[4][..],
        &URL_SAFE_NO_PAD.decode(x509[0]["x"].as_str().unwrap()).unwrap(),
        &URL_SAFE_NO_PAD.decode(x509[0]["y"].as_str().unwrap()).unwrap(),
    ]
    .concat();
    assert_eq!(point, parse(&der).public_key().subject_public_key.data.as_ref());
}

/// The names of an object's members, sorted: their order means nothing.
fn members(object: &serde_json::Value) -> Vec<String> {
    let mut members: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
    members.sort();
    members
}

#[test]
fn tb_01_to_tb_05_the_document_has_keys_sequence_and_hint_and_no_undefined_parameters() {
    let document = Site::new().document();
    assert_eq!(members(&document), ["keys", "spiffe_refresh_hint", "spiffe_sequence"]);
    assert_eq!(document["spiffe_refresh_hint"], 300);
    assert!(document["spiffe_sequence"].as_u64().unwrap() > 1_700_000_000);
    for key in document["keys"].as_array().unwrap() {
        for name in key.as_object().unwrap().keys() {
            assert!(["kty", "use", "kid", "crv", "x", "y", "x5c"].contains(&name.as_str()), "{name}");
        }
    }
}

#[test]
fn our_own_reader_takes_our_bundle() {
    let site = Site::new();
    let domain = "example.org".parse().unwrap();
    let bundle = TrustBundle::from_json(&domain, site.issuer.bundle().to_json().as_bytes()).unwrap();
    assert_eq!(bundle.authorities(&domain).unwrap(), [site.ca()]);
    assert_eq!(bundle.sequence(&domain), Some(site.issuer.bundle().sequence()));
}

#[test]
fn jw_01_to_jw_04_the_header_has_alg_kid_and_typ_only() {
    let mut site = Site::new();
    let token = site.token(&["vault"]);
    let header = part(&token, 0);
    let kid = site.issuer.bundle().jwt_authorities()[0].kid().to_owned();
    assert_eq!(header, serde_json::json!({"alg": "ES256", "kid": kid, "typ": "JWT"}));
}

#[test]
fn jw_05_and_jw_06_the_claims_are_sub_aud_exp_iat_and_jti_only() {
    let mut site = Site::new();
    let token = site.token(&["vault"]);
    let claims = part(&token, 1);
    assert_eq!(
        members(&claims),
        ["aud", "exp", "iat", "jti", "sub"],
        "no nbf: validators without tolerance would refuse"
    );
    assert_eq!(claims["sub"], ID);
    assert_eq!(claims["aud"], serde_json::json!(["vault"]));
    assert_eq!(claims["iat"].as_i64().unwrap(), site.now.unix_timestamp());
    assert_eq!(claims["exp"].as_i64().unwrap(), site.now.unix_timestamp() + 300);
    assert_eq!(claims["jti"].as_str().unwrap().len(), 32);
}

#[test]
fn jw_08_the_bundle_entry_has_use_and_the_thumbprint_as_kid() {
    let site = Site::new();
    let document = site.document();
    let keys = document["keys"].as_array().unwrap();
    let jwt: Vec<_> = keys.iter().filter(|key| key["use"] == "jwt-svid").collect();
    assert_eq!(jwt.len(), 1);
    assert!(jwt[0].get("x5c").is_none());
    let (x, y) = (jwt[0]["x"].as_str().unwrap(), jwt[0]["y"].as_str().unwrap());
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let digest = ring::digest::digest(&ring::digest::SHA256, canonical.as_bytes());
    assert_eq!(jwt[0]["kid"], URL_SAFE_NO_PAD.encode(digest));
    assert_ne!(x, keys.iter().find(|key| key["use"] == "x509-svid").unwrap()["x"], "keys of their own");
}

#[test]
fn the_issuer_validates_its_own_token_for_its_audience_and_time() {
    let mut site = Site::new();
    let token = site.token(&["vault", "store"]);
    let claims = site.issuer.validate_jwt(&token, "store", site.now).unwrap();
    assert_eq!(claims.spiffe_id().to_string(), ID);
    assert!(matches!(site.issuer.validate_jwt(&token, "other", site.now), Err(TokenError::Audience(_))));
    let late = site.now + Duration::from_secs(300);
    assert_eq!(site.issuer.validate_jwt(&token, "vault", late), Err(TokenError::Expired));
    let other = Site::new();
    assert!(matches!(other.issuer.validate_jwt(&token, "vault", site.now), Err(TokenError::UnknownKey(_))));
}

#[test]
fn the_crate_spiffe_takes_our_x509_svid_and_authority() {
    let mut site = Site::new();
    let svid = site.x509();
    // Its parser wants a private key beside the chain but does not compare the two; ours never leaves.
    let unrelated = rcgen::KeyPair::generate().unwrap().serialize_der();
    let parsed = spiffe::X509Svid::parse_from_der(&svid.chain[0], &unrelated).unwrap();
    assert_eq!(parsed.spiffe_id().to_string(), ID);
    let domain = spiffe::TrustDomain::new("example.org").unwrap();
    assert_eq!(X509Bundle::parse_from_der(domain, &site.ca()).unwrap().authorities().len(), 1);
}

#[test]
fn the_crate_spiffe_verifies_our_token_against_our_bundle() {
    let mut site = Site::new();
    let token = site.token(&["vault"]);
    let mut document = site.document();
    // It reads JWT bundles as the Workload API sends them: JWT keys only.
    document["keys"].as_array_mut().unwrap().retain(|key| key["use"] == "jwt-svid");
    let domain = spiffe::TrustDomain::new("example.org").unwrap();
    let bundle = JwtBundle::from_jwt_authorities(domain, document.to_string().as_bytes()).unwrap();
    let mut bundles = JwtBundleSet::default();
    bundles.add_bundle(bundle);
    let svid = spiffe::JwtSvid::parse_and_validate(&token, &bundles, &["vault"]).unwrap();
    assert_eq!(svid.spiffe_id().to_string(), ID);
    assert!(spiffe::JwtSvid::parse_and_validate(&token, &bundles, &["other"]).is_err());
    let mut changed = token.into_bytes();
    let middle = changed.len() / 2;
    changed[middle] = if changed[middle] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    assert!(spiffe::JwtSvid::parse_and_validate(&changed, &bundles, &["vault"]).is_err());
}

#[test]
fn the_crate_spiffe_verifies_our_rs256_token_against_our_bundle() {
    let mut options = IssuerOptions::new(Lifetimes::default());
    options.jwt_algorithm = JwtAlgorithm::Rs256;
    let mut site = Site::with(options);
    let token = site.token(&["vault"]);
    assert_eq!(part(&token, 0)["alg"], "RS256");
    let mut document = site.document();
    document["keys"].as_array_mut().unwrap().retain(|key| key["use"] == "jwt-svid");
    let domain = spiffe::TrustDomain::new("example.org").unwrap();
    let bundle = JwtBundle::from_jwt_authorities(domain, document.to_string().as_bytes()).unwrap();
    let mut bundles = JwtBundleSet::default();
    bundles.add_bundle(bundle);
    let svid = spiffe::JwtSvid::parse_and_validate(&token, &bundles, &["vault"]).unwrap();
    assert_eq!(svid.spiffe_id().to_string(), ID);
}

#[test]
fn openssl_verifies_our_chain_for_both_purposes() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("SKIPPED: openssl is not installed here");
        return;
    }
    let mut site = Site::new();
    let svid = site.x509();
    let dir = tempfile::tempdir().unwrap();
    let pem = |der: &[u8]| {
        let text = STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    let (ca, leaf) = (dir.path().join("ca.pem"), dir.path().join("leaf.pem"));
    std::fs::write(&ca, pem(&site.ca())).unwrap();
    std::fs::write(&leaf, pem(&svid.chain[0])).unwrap();
    for purpose in ["sslserver", "sslclient"] {
        let mut command = Command::new("openssl");
        command.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]).arg(&ca).arg(&leaf);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
