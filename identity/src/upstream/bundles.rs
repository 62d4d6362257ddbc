//! Makes SPIFFE bundle documents of what an upstream says: DER certificates and JWK Sets by trust domain. Pure.
//!
//! Refuses a name that is no trust domain, certificates that cannot be told apart, and, through the reader of documents,
//! whatever is no X.509 authority of its trust domain. JWKs that are no JWT-SVID keys are left out (JW-08).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use time::OffsetDateTime;
use x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::wire::ByDomain;
use crate::bundle_document::BundleDocument;
use crate::bundle_set::BundleSet;
use crate::jwt_key::JwtKey;
use crate::limits::{MAX_BUNDLE_BYTES, MAX_BUNDLE_KEYS, MAX_TRUST_DOMAINS, UPSTREAM_BUNDLE_AGE};
use crate::trust_domain::TrustDomain;

/// The two kinds of bundles.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    X509,
    Jwt,
}

/// Both kinds of bundles, as last heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) x509: Option<ByDomain>,
    pub(super) jwt: Option<ByDomain>,
    /// When each was known to be the upstream's word last.
    confirmed: [Option<OffsetDateTime>; 2],
    /// What it said last could not be used: what is in force is not its word any more.
    pub(super) spoilt: bool,
    /// Whether the stream of each kind is open: what came over it is the upstream's word for as long as it says nothing else.
    pub(super) open: [bool; 2],
}

impl Heard {
    /// The stream of a kind is open, or is not any more.
    pub(super) fn opened(&mut self, kind: Kind, open: bool) {
        let [x509, jwt] = &mut self.open;
        match kind {
            Kind::X509 => *x509 = open,
            Kind::Jwt => *jwt = open,
        }
    }

    /// At this time what was heard last of this kind was the upstream's word.
    pub(super) fn confirm(&mut self, kind: Kind, now: OffsetDateTime) {
        let [x509, jwt] = &mut self.confirmed;
        match kind {
            _ if self.spoilt => {}
            Kind::X509 if self.x509.is_some() => *x509 = Some(now),
            Kind::Jwt if self.jwt.is_some() => *jwt = Some(now),
            Kind::X509 | Kind::Jwt => {}
        }
    }

    /// Forgets what nobody has confirmed for too long; whether there was such.
    pub(super) fn forget_old(&mut self, now: OffsetDateTime) -> bool {
        let mut old = self.confirmed.map(|at| at.is_some_and(|at| now - at >= UPSTREAM_BUNDLE_AGE));
        for (old, open) in old.iter_mut().zip(self.open) {
            // An open stream that could not be used is no word of the upstream's either.
            *old &= !open || self.spoilt;
        }
        if let [true, _] = old {
            self.x509 = None;
        }
        if let [_, true] = old {
            self.jwt = None;
        }
        for (at, old) in self.confirmed.iter_mut().zip(old) {
            at.take_if(|_| old);
        }
        old.contains(&true)
    }

    /// The bundles that were heard; `None` until X.509 authorities of our own trust domain were.
    pub(super) fn read(&self, own: &TrustDomain, sequence: u64) -> Result<Option<BundleSet>, String> {
        let Some(x509) = &self.x509 else { return Ok(None) };
        if x509.len() > MAX_TRUST_DOMAINS {
            return Err("it knows too many trust domains".to_owned());
        }
        let nothing = ByDomain::new();
        let jwt = self.jwt.as_ref().unwrap_or(&nothing);
        let (mut ours, mut foreign) = (None, Vec::new());
        for (name, certificates) in x509 {
            let domain = domain(name)?;
            let mut keys: Vec<Value> = split(certificates)?.iter().map(|der| entry(der)).collect::<Result<_, _>>()?;
            if domain == *own && keys.is_empty() {
                return Err("its bundle has no X.509 authority of this trust domain".to_owned());
            }
            keys.extend(tokens(jwt.get(name).map(Vec::as_slice)).iter().map(|key| key.to_jwk("jwt-svid")));
            let text = json!({"keys": keys, "spiffe_sequence": sequence}).to_string();
            let document = BundleDocument::parse(&domain, text.as_bytes()).map_err(|error| error.to_string())?;
            if domain == *own { ours = Some(Arc::new(document)) } else { foreign.push(Arc::new(document)) }
        }
        let set = ours.map(|ours| BundleSet::with_foreign(ours, foreign)).transpose();
        set.map_err(|error| error.to_string())
    }
}

/// Splits certificates that lie one behind the other.
pub(crate) fn split(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    if bytes.len() > MAX_BUNDLE_BYTES {
        return Err("its certificates are too large");
    }
    let mut certificates = Vec::new();
    while !bytes.is_empty() {
        let (rest, _) = X509Certificate::from_der(bytes).map_err(|_| "its certificates cannot be parsed")?;
        let length = bytes.len() - rest.len();
        certificates.push(bytes.get(..length).unwrap_or_default().to_vec());
        if certificates.len() > MAX_BUNDLE_KEYS {
            return Err("it has too many certificates");
        }
        bytes = rest;
    }
    Ok(certificates)
}

fn domain(name: &str) -> Result<TrustDomain, &'static str> {
    let name = name.strip_prefix("spiffe://").ok_or("a bundle is not named by a trust domain")?;
    name.parse().map_err(|_| "a bundle is not named by a trust domain")
}

fn entry(der: &[u8]) -> Result<Value, &'static str> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "its certificates cannot be parsed")?;
    let rsa = certificate.public_key().algorithm.algorithm == OID_PKCS1_RSAENCRYPTION;
    let kty = if rsa { "RSA" } else { "EC" };
    Ok(json!({"kty": kty, "use": "x509-svid", "x5c": [STANDARD.encode(der)]}))
}

/// SPIRE leaves `use` out of the JWK Sets that it hands to workloads: there they hold nothing but JWT-SVID keys.
fn tokens(document: Option<&[u8]>) -> Vec<JwtKey> {
    let document = document.filter(|bytes| bytes.len() <= MAX_BUNDLE_BYTES);
    let document: Value = document.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
    let keys = document.get("keys").and_then(Value::as_array).into_iter().flatten().take(MAX_BUNDLE_KEYS);
    let for_tokens = keys.filter(|key| matches!(key.get("use").map(Value::as_str), None | Some(Some("jwt-svid"))));
    for_tokens.filter_map(|key| JwtKey::from_jwk(key).ok()).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn own() -> TrustDomain {
        "example.org".parse().unwrap()
    }

    fn authority(id: &str) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn heard(x509: &[(&str, Vec<u8>)], jwt: &[(&str, Value)]) -> Heard {
        let x509 = x509.iter().map(|(name, der)| ((*name).to_owned(), der.clone())).collect();
        let jwt = jwt.iter().map(|(name, keys)| ((*name).to_owned(), keys.to_string().into_bytes())).collect();
        Heard { x509: Some(x509), jwt: Some(jwt), ..Heard::default() }
    }

    fn jwk(usage: Option<&str>, kid: &str) -> Value {
        let mut key = json!({"kty": "EC", "kid": kid, "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"});
        if let Some(usage) = usage {
            key["use"] = json!(usage);
        }
        key
    }

    #[test]
    fn each_trust_domain_gets_a_document_of_its_own() {
        let (one, two) = (authority("spiffe://example.org"), authority("spiffe://example.org"));
        let other = authority("spiffe://other.example");
        let x509 = [("spiffe://example.org", [one.clone(), two].concat()), ("spiffe://other.example", other.clone())];
        let keys = json!({"keys": [jwk(None, "a"), jwk(Some("jwt-svid"), "b"), jwk(Some("wit-svid"), "c"), 3]});
        let heard = heard(&x509, &[("spiffe://example.org", keys)]);
        let bundles = heard.read(&own(), 7).unwrap().unwrap();
        assert_eq!(bundles.own().x509_authorities().len(), 2);
        assert_eq!(bundles.own().sequence(), Some(7));
        let foreign = bundles.get(&"other.example".parse().unwrap()).unwrap();
        assert_eq!(foreign.x509_authorities(), [other]);
        assert!(foreign.jwt_keys().keys().is_empty());
        let kids: Vec<&str> = bundles.own().jwt_keys().keys().iter().map(JwtKey::kid).collect();
        assert_eq!(kids, ["a", "b"]);
        assert!(bundles.same_keys(&heard.read(&own(), 8).unwrap().unwrap()));
        let fewer = Heard { jwt: None, ..heard };
        assert!(!bundles.same_keys(&fewer.read(&own(), 8).unwrap().unwrap()));
    }

    #[test]
    fn nothing_is_published_without_our_own_trust_domain() {
        assert!(Heard::default().read(&own(), 1).unwrap().is_none());
        let other = heard(&[("spiffe://other.example", authority("spiffe://other.example"))], &[]);
        assert!(other.read(&own(), 1).unwrap().is_none());
        assert!(heard(&[("spiffe://example.org", Vec::new())], &[]).read(&own(), 1).is_err());
    }

    #[test]
    fn names_that_are_no_trust_domains_and_broken_certificates_are_refused() {
        let good = authority("spiffe://example.org");
        for name in ["example.org", "spiffe://example.org/a", "spiffe://", "https://example.org", ""] {
            assert!(heard(&[(name, good.clone())], &[]).read(&own(), 1).is_err(), "{name}");
        }
        for end in 1..good.len() {
            assert!(split(&good[..end]).is_err(), "cut at {end}");
        }
        assert!(split(&[good.as_slice(), &[0]].concat()).is_err());
        assert_eq!(split(&good.repeat(MAX_BUNDLE_KEYS)).unwrap().len(), MAX_BUNDLE_KEYS);
        assert!(split(&good.repeat(MAX_BUNDLE_KEYS + 1)).is_err());
        assert!(split(&vec![0x30; MAX_BUNDLE_BYTES + 1]).is_err());
    }
}
