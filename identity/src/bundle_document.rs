//! Reads the SPIFFE bundle document of one trust domain (SPIFFE_Trust_Domain_and_Bundle section 4): its X.509 authorities,
//! its JWT keys, its sequence and its refresh hint.
//!
//! Ignores, as the specification says, keys of an unknown type or use, `x509-svid` entries without `x5c` and members that are
//! not known. Refuses the whole document when an entry that it would use is broken: half a bundle is not a bundle. Refuses a
//! certificate that names another trust domain and a `kid` that stands for two keys, so that a document says one thing only.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::authority_certificate::AuthorityCertificate;
use crate::excerpt::Excerpt;
use crate::jwt_key::{JwtKey, JwtKeys};
use crate::limits::{MAX_BUNDLE_BYTES, MAX_BUNDLE_KEYS, MAX_TRUST_DOMAINS};
use crate::trust_domain::TrustDomain;

/// The public keys of one trust domain, as its document had them.
#[derive(Debug, Clone)]
pub struct BundleDocument {
    trust_domain: TrustDomain,
    sequence: Option<u64>,
    refresh_hint: Option<Duration>,
    x509: Vec<Vec<u8>>,
    roots: Arc<RootCertStore>,
    /// When each of the roots ends, in their order, as seconds since 1970.
    ends: Vec<i64>,
    jwt: Arc<JwtKeys>,
    json: Arc<str>,
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
    /// An entry that cannot be used.
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

impl BundleDocument {
    /// The bundle in these bytes, which somebody gave for this trust domain. The document does not say whose it is.
    pub fn parse(trust_domain: &TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        if json.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge);
        }
        let malformed = |text: &str| BundleError::Malformed(Excerpt::new(text));
        let text = std::str::from_utf8(json).map_err(|_| malformed("not UTF-8"))?;
        let document: Document = serde_json::from_str(text).map_err(|error| malformed(&error.to_string()))?;
        if document.keys.len() > MAX_BUNDLE_KEYS {
            return Err(BundleError::TooLarge);
        }
        let mut bundle = Self {
            trust_domain: trust_domain.clone(),
            sequence: document.spiffe_sequence,
            refresh_hint: document.spiffe_refresh_hint.map(Duration::from_secs),
            x509: Vec::new(),
            roots: Arc::new(RootCertStore::empty()),
            ends: Vec::new(),
            jwt: Arc::new(JwtKeys::new(trust_domain.clone(), Vec::new())),
            json: Arc::from(text),
        };
        let mut roots = RootCertStore::empty();
        let mut jwt: Vec<JwtKey> = Vec::new();
        for (index, key) in document.keys.into_iter().enumerate() {
            let entry = |reason| BundleError::Entry { index, reason };
            match key.usage.as_deref() {
                Some(X509_USE) => {
                    if let Some(authority) = key.authority(trust_domain, &mut roots).map_err(entry)? {
                        bundle.ends.push(authority.not_after.unix_timestamp());
                        bundle.x509.push(authority.der);
                    }
                }
                Some(JWT_USE) => {
                    let key = key.token_key().map_err(entry)?;
                    if key.as_ref().is_some_and(|new| jwt.iter().any(|other| other.kid() == new.kid())) {
                        return Err(entry("its kid is that of an entry before it"));
                    }
                    jwt.extend(key);
                }
                _ => {}
            }
        }
        bundle.jwt = Arc::new(JwtKeys::new(trust_domain.clone(), jwt));
        bundle.roots = Arc::new(roots);
        Ok(bundle)
    }

    /// Whose keys these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The sequence, if the document had one.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// How often its maker wants it to be fetched, if it says so.
    pub fn refresh_hint(&self) -> Option<Duration> {
        self.refresh_hint
    }

    /// The certificates of the X.509 authorities, DER.
    pub fn x509_authorities(&self) -> &[Vec<u8>] {
        &self.x509
    }

    /// The keys that tokens of this trust domain are checked with.
    pub fn jwt_keys(&self) -> &Arc<JwtKeys> {
        &self.jwt
    }

    /// The document as it was given.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The JWT authorities alone, as a JWK Set: what the Workload API gives out (SPIFFE_Workload_API section 6.2.2).
    pub fn jwks(&self) -> String {
        let keys: Vec<_> = self.jwt.keys().iter().map(|key| key.to_jwk(JWT_USE)).collect();
        serde_json::json!({ "keys": keys }).to_string()
    }

    /// Whether both hold the same keys, whatever their sequence, hint and layout.
    pub fn same_keys(&self, other: &Self) -> bool {
        self.trust_domain == other.trust_domain && self.x509 == other.x509 && self.jwt == other.jwt
    }

    /// The roots to verify a member of this trust domain with at this time; `None` if there is none. An authority whose
    /// certificate has ended is none, also where its trust domain leaves it in its bundle: path validation looks at the times
    /// of no trust anchor.
    pub(crate) fn roots(&self, now: UnixTime) -> Option<Arc<RootCertStore>> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let roots = if self.ends.iter().all(|end| now <= *end) {
            Arc::clone(&self.roots)
        } else {
            let lasting = self.roots.roots.iter().zip(&self.ends).filter(|(_, end)| now <= **end);
            Arc::new(RootCertStore { roots: lasting.map(|(root, _)| root.clone()).collect() })
        };
        Some(roots).filter(|roots| !roots.is_empty())
    }
}

/// Unknown members are ignored: nobody may require others to know them. A known one that is there twice is refused.
#[derive(Deserialize)]
struct Document {
    keys: Vec<Jwk>,
    #[serde(default, deserialize_with = "present")]
    spiffe_sequence: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    spiffe_refresh_hint: Option<u64>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    x5c: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl Jwk {
    /// The authority of an `x509-svid` entry, or `None` for an entry that is to be ignored.
    fn authority(
        &self,
        trust_domain: &TrustDomain,
        roots: &mut RootCertStore,
    ) -> Result<Option<AuthorityCertificate>, &'static str> {
        if !matches!(self.kty.as_deref(), Some("EC" | "RSA" | "OKP")) {
            return Ok(None);
        }
        // X509-SVID section 6: the first value is the authority, further ones are ignored, as is an entry without any.
        let Some(first) = self.x5c.as_ref().and_then(|values| values.first()) else {
            return Ok(None);
        };
        let der = STANDARD.decode(first).map_err(|_| "its x5c is not base64")?;
        let authority = AuthorityCertificate::parse(&der, trust_domain)?;
        let der = CertificateDer::from(authority.der.clone());
        roots.add(der).map_err(|_| "its certificate is not usable as a trust anchor")?;
        Ok(Some(authority))
    }

    /// The key of a `jwt-svid` entry, or `None` for one that no algorithm of ours can use: its tokens are refused.
    fn token_key(&self) -> Result<Option<JwtKey>, &'static str> {
        match (self.kty.as_deref(), self.crv.as_deref()) {
            (Some("EC"), Some("P-521" | "secp256k1")) => return Ok(None),
            (Some("EC" | "RSA"), _) => {}
            _ => return Ok(None),
        }
        let members = [
            ("kty", &self.kty),
            ("kid", &self.kid),
            ("alg", &self.alg),
            ("crv", &self.crv),
            ("x", &self.x),
            ("y", &self.y),
            ("n", &self.n),
            ("e", &self.e),
        ];
        let members = members.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.clone()?.into())));
        JwtKey::from_jwk(&Value::Object(members.collect())).map(Some)
    }
}

/// A member that is there has a value: `null` is not the same as absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    u64::deserialize(deserializer).map(Some)
}

const X509_USE: &str = "x509-svid";
const JWT_USE: &str = "jwt-svid";

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
    use serde_json::json;

    use super::*;
    use crate::limits::MAX_KEY_ID_BYTES;

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

    fn read(document: Value) -> Result<BundleDocument, BundleError> {
        BundleDocument::parse(&domain(), document.to_string().as_bytes())
    }

    fn count(document: Value) -> usize {
        read(document).unwrap().x509_authorities().len()
    }

    fn entry(x5c: &str) -> Value {
        json!({"kty": "EC", "use": "x509-svid", "crv": "P-256", "x": "x", "y": "y", "x5c": [x5c]})
    }

    fn jwt(kid: &str) -> Value {
        json!({"kty": "EC", "use": "jwt-svid", "kid": kid, "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"})
    }

    #[test]
    fn tb_01_no_keys_means_that_nobody_is_valid() {
        let bundle = read(json!({"keys": []})).unwrap();
        assert!(bundle.x509_authorities().is_empty() && bundle.roots(UnixTime::now()).is_none());
        assert!(matches!(read(json!({})), Err(BundleError::Malformed(_))));
        assert!(matches!(read(json!({"keys": {}})), Err(BundleError::Malformed(_))));
    }

    #[test]
    fn tb_02_and_tb_03_sequence_and_hint_are_numbers() {
        assert_eq!(read(json!({"keys": [], "spiffe_sequence": u64::MAX})).unwrap().sequence(), Some(u64::MAX));
        assert_eq!(read(json!({"keys": []})).unwrap().sequence(), None);
        for name in ["spiffe_sequence", "spiffe_refresh_hint"] {
            for value in [json!("1"), json!(-1), json!(1.5), Value::Null] {
                assert!(read(json!({"keys": [], name: value})).is_err());
            }
        }
    }

    #[test]
    fn tb_04_keys_of_unknown_type_or_use_are_ignored() {
        let good = ca(|_| ());
        assert_eq!(count(json!({"keys": [entry(&good)]})), 1);
        for (name, value) in [
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
            assert!(BundleDocument::parse(&domain(), &text.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn documents_beyond_the_limits_are_refused() {
        let keys = |count| json!({"keys": vec![json!({}); count]});
        assert_eq!(count(keys(MAX_BUNDLE_KEYS)), 0);
        assert_eq!(read(keys(MAX_BUNDLE_KEYS + 1)).err(), Some(BundleError::TooLarge));
        let padded = |len: usize| r#"{"keys": []}"#.to_owned() + &" ".repeat(len - 12);
        assert!(BundleDocument::parse(&domain(), padded(MAX_BUNDLE_BYTES).as_bytes()).is_ok());
        let over = BundleDocument::parse(&domain(), padded(MAX_BUNDLE_BYTES + 1).as_bytes());
        assert_eq!(over.err(), Some(BundleError::TooLarge));
    }

    #[test]
    fn jw_08_only_jwt_svid_entries_are_jwt_keys_and_each_has_its_kid() {
        let mut wit = jwt("w");
        wit["use"] = json!("wit-svid");
        let bundle = read(json!({"keys": [jwt("a"), entry(&ca(|_| ())), wit, jwt("b")]})).unwrap();
        assert_eq!(bundle.jwt_keys().keys().iter().map(JwtKey::kid).collect::<Vec<_>>(), ["a", "b"]);
        let jwks: Value = serde_json::from_str(&bundle.jwks()).unwrap();
        let keys = jwks["keys"].as_array().unwrap();
        assert!(keys.len() == 2 && keys.iter().all(|key| key["use"] == "jwt-svid" && key.get("x5c").is_none()));
        for (name, value) in [("kid", Value::Null), ("kid", json!("")), ("x", Value::Null), ("crv", Value::Null)] {
            let mut broken = jwt("a");
            broken[name] = value;
            assert!(matches!(read(json!({"keys": [broken]})), Err(BundleError::Entry { index: 0, .. })), "{name}");
        }
    }

    #[test]
    fn jw_02_keys_for_which_there_is_no_algorithm_here_are_left_out() {
        for (name, value) in [("crv", json!("P-521")), ("kty", json!("OKP")), ("kty", json!("oct"))] {
            let mut other = jwt("a");
            other[name] = value;
            assert!(read(json!({"keys": [other]})).unwrap().jwt_keys().keys().is_empty());
        }
    }

    #[test]
    fn a_kid_that_stands_for_two_keys_is_refused_and_so_is_a_member_that_is_there_twice() {
        assert!(matches!(read(json!({"keys": [jwt("a"), jwt("a")]})), Err(BundleError::Entry { index: 1, .. })));
        for text in [
            r#"{"keys": [], "keys": []}"#,
            r#"{"keys": [], "spiffe_sequence": 1, "spiffe_sequence": 2}"#,
            r#"{"keys": [{"use": "jwt-svid", "use": "x509-svid"}]}"#,
        ] {
            assert!(BundleDocument::parse(&domain(), text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_kid_of_the_longest_length_passes_and_one_more_byte_is_refused() {
        assert!(read(json!({"keys": [jwt(&"k".repeat(MAX_KEY_ID_BYTES))]})).is_ok());
        assert!(read(json!({"keys": [jwt(&"k".repeat(MAX_KEY_ID_BYTES + 1))]})).is_err());
    }

    #[test]
    fn the_same_keys_under_another_sequence_are_the_same_keys() {
        let authority = entry(&ca(|_| ()));
        let first = read(json!({"keys": [authority, jwt("a")], "spiffe_sequence": 1})).unwrap();
        let later = read(json!({"spiffe_sequence": 2, "keys": [authority, jwt("a")], "x": 1})).unwrap();
        let other = read(json!({"keys": [authority, jwt("b")]})).unwrap();
        assert!(first.same_keys(&later) && !first.same_keys(&other));
    }

    #[test]
    fn an_authority_that_has_ended_verifies_nobody_whether_or_not_the_bundle_still_has_it() {
        let authority = |not_after: time::OffsetDateTime| {
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
            params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
            params.not_after = not_after;
            STANDARD.encode(params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der())
        };
        let at = |seconds: i64| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let keys: Vec<_> = [at(1_000), at(2_000)]
            .map(|end| serde_json::json!({"kty": "EC", "use": "x509-svid", "x5c": [authority(end)]}))
            .into();
        let text = serde_json::json!({ "keys": keys }).to_string();
        let bundle = BundleDocument::parse(&"example.org".parse().unwrap(), text.as_bytes()).unwrap();
        let roots = |seconds: u64| {
            bundle.roots(UnixTime::since_unix_epoch(Duration::from_secs(seconds))).map_or(0, |roots| roots.len())
        };
        assert_eq!([roots(1_000), roots(1_001), roots(2_000), roots(2_001)], [2, 1, 1, 0]);
        assert_eq!(bundle.x509_authorities().len(), 2, "the document stays what it is");
    }
}
