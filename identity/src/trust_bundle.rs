//! The X.509 authorities that peers are verified with, read from SPIFFE bundle documents, each kept under its own trust
//! domain and never mixed (SPIFFE_Trust_Domain_and_Bundle sections 3 to 5).
//!
//! Ignores, as the specification says, keys of an unknown type or use and entries without `x5c`. Refuses the whole document
//! when an entry that it would use is broken: half a bundle is not a bundle.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;

use crate::authority_certificate::AuthorityCertificate;
use crate::excerpt::Excerpt;
use crate::limits::{MAX_BUNDLE_BYTES, MAX_BUNDLE_KEYS, MAX_TRUST_DOMAINS};
use crate::trust_domain::TrustDomain;

/// Trust domains and their X.509 authorities.
#[derive(Debug, Clone, Default)]
pub struct TrustBundle {
    domains: BTreeMap<TrustDomain, Authorities>,
}

#[derive(Debug, Clone)]
struct Authorities {
    der: Vec<Vec<u8>>,
    roots: Arc<RootCertStore>,
    sequence: Option<u64>,
}

/// Why a document is no bundle. Whoever made it erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Over [`MAX_BUNDLE_BYTES`] or [`MAX_BUNDLE_KEYS`].
    #[error("the bundle is larger than {MAX_BUNDLE_BYTES} bytes or {MAX_BUNDLE_KEYS} keys")]
    TooLarge,
    /// Over [`MAX_TRUST_DOMAINS`].
    #[error("there are more than {MAX_TRUST_DOMAINS} trust domains")]
    TooManyDomains,
    /// No JSON, no `keys`, or a sequence or hint that is no number.
    #[error("the bundle is no SPIFFE bundle document: {0}")]
    Malformed(Excerpt),
    /// An x509-svid entry that cannot be used.
    #[error("entry {index} of the bundle: {reason}")]
    Entry {
        /// Which, from 0.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

impl BundleError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "give the trust domain's SPIFFE bundle document: {\"keys\": [{\"use\": \"x509-svid\", \"kty\": .., \"x5c\": [..]}], ..}"
    }
}

impl TrustBundle {
    /// Trusts nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bundle of one trust domain.
    pub fn from_json(trust_domain: &TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        let mut bundle = Self::new();
        bundle.insert(trust_domain, json)?;
        Ok(bundle)
    }

    /// Takes the document as the authorities of this trust domain, in place of those that it had. On an error nothing changes.
    pub fn insert(&mut self, trust_domain: &TrustDomain, json: &[u8]) -> Result<(), BundleError> {
        if self.domains.len() >= MAX_TRUST_DOMAINS && !self.domains.contains_key(trust_domain) {
            return Err(BundleError::TooManyDomains);
        }
        self.domains.insert(trust_domain.clone(), parse(trust_domain, json)?);
        Ok(())
    }

    /// The authorities of this trust domain, DER; `None` if it is not in the bundle at all.
    pub fn authorities(&self, trust_domain: &TrustDomain) -> Option<&[Vec<u8>]> {
        self.domains.get(trust_domain).map(|authorities| authorities.der.as_slice())
    }

    /// The sequence of this trust domain's document, if it had one.
    pub fn sequence(&self, trust_domain: &TrustDomain) -> Option<u64> {
        self.domains.get(trust_domain)?.sequence
    }

    /// The roots to verify a member of this trust domain with; `None` if there is none.
    pub(crate) fn roots(&self, trust_domain: &TrustDomain) -> Option<Arc<RootCertStore>> {
        self.domains.get(trust_domain).map(|found| &found.roots).filter(|roots| !roots.is_empty()).cloned()
    }
}

fn parse(trust_domain: &TrustDomain, json: &[u8]) -> Result<Authorities, BundleError> {
    if json.len() > MAX_BUNDLE_BYTES {
        return Err(BundleError::TooLarge);
    }
    let document: Document =
        serde_json::from_slice(json).map_err(|error| BundleError::Malformed(Excerpt::new(&error.to_string())))?;
    if document.keys.len() > MAX_BUNDLE_KEYS {
        return Err(BundleError::TooLarge);
    }
    let mut authorities = Vec::new();
    let mut roots = RootCertStore::empty();
    for (index, key) in document.keys.iter().enumerate() {
        let entry = |reason| BundleError::Entry { index, reason };
        if let Some(der) = authority(key, trust_domain).map_err(entry)? {
            roots
                .add(CertificateDer::from(der.clone()))
                .map_err(|_| entry("its certificate is not usable as a trust anchor"))?;
            authorities.push(der);
        }
    }
    Ok(Authorities { der: authorities, roots: Arc::new(roots), sequence: document.spiffe_sequence })
}

/// The authority of an entry, or `None` for entries that are to be ignored.
fn authority(key: &Jwk, trust_domain: &TrustDomain) -> Result<Option<Vec<u8>>, &'static str> {
    if key.usage.as_deref() != Some("x509-svid") || !matches!(key.kty.as_deref(), Some("EC" | "RSA" | "OKP")) {
        return Ok(None);
    }
    // X509-SVID section 6: the first value is the authority, further ones are ignored, as is an entry without any.
    let Some(first) = key.x5c.as_ref().and_then(|values| values.first()) else {
        return Ok(None);
    };
    let der = STANDARD.decode(first).map_err(|_| "its x5c is not base64")?;
    AuthorityCertificate::parse(&der, trust_domain).map(|authority| Some(authority.der))
}

/// Unknown members are ignored: nobody may require others to know them.
#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
    spiffe_sequence: Option<u64>,
    #[serde(rename = "spiffe_refresh_hint")]
    _spiffe_refresh_hint: Option<u64>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    x5c: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
    use serde_json::{Value, json};

    use super::*;

    fn domain() -> TrustDomain {
        "example.org".parse().unwrap()
    }

    fn ca(change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI("spiffe://example.org".try_into().unwrap())];
        change(&mut params);
        STANDARD.encode(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    fn read(document: Value) -> Result<TrustBundle, BundleError> {
        TrustBundle::from_json(&domain(), document.to_string().as_bytes())
    }

    fn count(document: Value) -> usize {
        read(document).unwrap().authorities(&domain()).unwrap().len()
    }

    fn entry(x5c: &str) -> Value {
        json!({"kty": "EC", "use": "x509-svid", "crv": "P-256", "x": "x", "y": "y", "x5c": [x5c]})
    }

    #[test]
    fn tb_01_no_keys_means_that_nobody_is_valid() {
        let bundle = read(json!({"keys": []})).unwrap();
        assert_eq!(bundle.authorities(&domain()), Some(&[][..]));
        assert!(bundle.roots(&domain()).is_none());
        assert!(bundle.authorities(&"example.com".parse().unwrap()).is_none());
        assert!(matches!(read(json!({})), Err(BundleError::Malformed(_))));
        assert!(matches!(read(json!({"keys": {}})), Err(BundleError::Malformed(_))));
    }

    #[test]
    fn tb_02_and_tb_03_sequence_and_hint_are_numbers() {
        assert_eq!(read(json!({"keys": [], "spiffe_sequence": u64::MAX})).unwrap().sequence(&domain()), Some(u64::MAX));
        assert_eq!(read(json!({"keys": []})).unwrap().sequence(&domain()), None);
        for name in ["spiffe_sequence", "spiffe_refresh_hint"] {
            for value in [json!("1"), json!(-1), json!(1.5)] {
                assert!(read(json!({"keys": [], name: value})).is_err());
            }
        }
    }

    #[test]
    fn tb_04_keys_of_unknown_type_or_use_are_ignored() {
        let good = ca(|_| ());
        assert_eq!(count(json!({"keys": [entry(&good)]})), 1);
        for (name, value) in [
            ("use", json!("jwt-svid")),
            ("use", json!("wit-svid")),
            ("use", json!("X509-SVID")),
            ("use", json!("sig")),
            ("use", Value::Null),
            ("kty", json!("oct")),
            ("kty", json!("ec")),
            ("kty", Value::Null),
        ] {
            let mut other = entry(&good);
            other[name] = value.clone();
            assert_eq!(count(json!({"keys": [other]})), 0, "{name} {value}");
        }
    }

    #[test]
    fn tb_05_unknown_members_are_ignored() {
        let mut known = entry(&ca(|_| ()));
        known["extra"] = json!(1);
        assert_eq!(count(json!({"keys": [known], "other": {}})), 1);
    }

    #[test]
    fn tb_06_domains_are_kept_apart() {
        let mut bundle = read(json!({"keys": [entry(&ca(|_| ()))]})).unwrap();
        let other: TrustDomain = "example.com".parse().unwrap();
        let foreign = ca(|p| p.subject_alt_names = vec![SanType::URI("spiffe://example.com".try_into().unwrap())]);
        bundle.insert(&other, json!({"keys": [entry(&foreign)]}).to_string().as_bytes()).unwrap();
        assert_ne!(bundle.authorities(&domain()), bundle.authorities(&other));
        let wrong = bundle.insert(&other, json!({"keys": [entry(&ca(|_| ()))]}).to_string().as_bytes());
        assert!(matches!(wrong, Err(BundleError::Entry { index: 0, .. })));
        assert_eq!(bundle.authorities(&other).unwrap().len(), 1, "an error changes nothing");
    }

    #[test]
    fn x5_11_an_entry_without_x5c_is_ignored_and_only_the_first_value_counts() {
        let mut none = entry("");
        none.as_object_mut().unwrap().remove("x5c");
        assert_eq!(count(json!({"keys": [none]})), 0);
        let mut two = entry(&ca(|_| ()));
        two["x5c"].as_array_mut().unwrap().push(json!("not base64!"));
        assert_eq!(count(json!({"keys": [two]})), 1);
    }

    #[test]
    fn one_broken_entry_spoils_the_document() {
        let good = ca(|_| ());
        let url_safe = good.replace('+', "-").replace('/', "_") + "!";
        for bad in [
            String::new(),
            "AAAA".to_owned(),
            url_safe,
            ca(|p| p.is_ca = IsCa::ExplicitNoCa),
            ca(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
            ca(|p| p.subject_alt_names = vec![SanType::URI("spiffe://example.org/a".try_into().unwrap())]),
            ca(|p| p.subject_alt_names = vec![SanType::URI("spiffe://example.com".try_into().unwrap())]),
        ] {
            let refused = read(json!({"keys": [entry(&good), entry(&bad)]}));
            assert!(matches!(refused, Err(BundleError::Entry { index: 1, .. })), "{bad}");
        }
        assert_eq!(count(json!({"keys": [entry(&ca(|p| p.subject_alt_names.clear()))]})), 1);
    }

    #[test]
    fn every_cut_document_is_refused() {
        let text = json!({"keys": [entry(&ca(|_| ()))]}).to_string();
        for end in 0..text.len() {
            assert!(TrustBundle::from_json(&domain(), &text.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn documents_and_domains_beyond_the_limits_are_refused() {
        let keys = |count| json!({"keys": vec![json!({}); count]});
        assert_eq!(count(keys(MAX_BUNDLE_KEYS)), 0);
        assert_eq!(read(keys(MAX_BUNDLE_KEYS + 1)).err(), Some(BundleError::TooLarge));
        let padded = |len: usize| r#"{"keys": []}"#.to_owned() + &" ".repeat(len - 12);
        assert!(TrustBundle::from_json(&domain(), padded(MAX_BUNDLE_BYTES).as_bytes()).is_ok());
        let over = TrustBundle::from_json(&domain(), padded(MAX_BUNDLE_BYTES + 1).as_bytes());
        assert_eq!(over.err(), Some(BundleError::TooLarge));
        let mut bundle = TrustBundle::new();
        for i in 0..MAX_TRUST_DOMAINS {
            bundle.insert(&format!("d{i}").parse().unwrap(), b"{\"keys\":[]}").unwrap();
        }
        assert_eq!(bundle.insert(&domain(), b"{\"keys\":[]}"), Err(BundleError::TooManyDomains));
        assert_eq!(bundle.insert(&"d0".parse().unwrap(), b"{\"keys\":[]}"), Ok(()));
    }
}
