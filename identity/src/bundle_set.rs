//! Every bundle that a process knows: that of its own trust domain and those of the domains it federates with, each under its
//! trust domain, never merged (SPIFFE_Trust_Domain_and_Bundle section 3).
//!
//! Whatever is checked is checked with the bundle of the trust domain that it names itself, and with no other: a federated
//! bundle can never vouch for one of our IDs, because a foreign document for our own domain cannot be put in at all.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::bundle_document::{BundleDocument, BundleError};
use crate::jwt_check::{TokenError, check_jwt, jwt_subject_domain};
use crate::jwt_svid::JwtClaims;
use crate::trust_bundle::TrustBundle;
use crate::trust_domain::TrustDomain;

/// Our own bundle and the foreign ones. Made anew for each change and shared by `Arc`.
#[derive(Debug, Clone)]
pub struct BundleSet {
    own: Arc<BundleDocument>,
    all: Arc<TrustBundle>,
}

/// Why a set of bundles is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleSetError {
    /// Somebody else's document for our own trust domain. Configuration, or a peer that lies.
    #[error("a federated bundle is named {0}, our own trust domain")]
    OwnDomain(TrustDomain),
    /// Two documents for one trust domain. Whoever put the set together erred.
    #[error("there are two bundles for the trust domain {0}")]
    Twice(TrustDomain),
    /// A document is no bundle, or there are too many.
    #[error("the bundle of {trust_domain}: {why}")]
    Bundle {
        /// Whose it was to be.
        trust_domain: TrustDomain,
        /// What is wrong with it.
        why: BundleError,
    },
}

impl BundleSetError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OwnDomain(_) => {
                "federate with other trust domains only; our own bundle comes from our own authorities"
            }
            Self::Twice(_) => "name each trust domain once",
            Self::Bundle { why, .. } => why.hint(),
        }
    }
}

impl BundleSet {
    /// Our own bundle alone.
    pub fn new(own: Arc<BundleDocument>) -> Self {
        let mut all = TrustBundle::new();
        // INVARIANT: the first document always fits.
        let _ = all.put(Arc::clone(&own));
        Self { own, all: Arc::new(all) }
    }

    /// Our own bundle and these foreign ones.
    pub fn with_foreign(
        own: Arc<BundleDocument>,
        foreign: impl IntoIterator<Item = Arc<BundleDocument>>,
    ) -> Result<Self, BundleSetError> {
        let mut all = TrustBundle::new();
        let named = |trust_domain: &TrustDomain| {
            let trust_domain = trust_domain.clone();
            |why| BundleSetError::Bundle { trust_domain, why }
        };
        all.put(Arc::clone(&own)).map_err(named(own.trust_domain()))?;
        for document in foreign {
            let domain = document.trust_domain().clone();
            if domain == *own.trust_domain() {
                return Err(BundleSetError::OwnDomain(domain));
            }
            if all.get(&domain).is_some() {
                return Err(BundleSetError::Twice(domain));
            }
            all.put(document).map_err(named(&domain))?;
        }
        Ok(Self { own, all: Arc::new(all) })
    }

    /// The set in these documents: ours, and the foreign ones with the trust domains that they are for.
    pub fn parse<'a>(
        own: &TrustDomain,
        own_json: &[u8],
        foreign: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, BundleSetError> {
        let read = |domain: &TrustDomain, json: &[u8]| {
            let document = BundleDocument::parse(domain, json);
            document.map(Arc::new).map_err(|why| BundleSetError::Bundle { trust_domain: domain.clone(), why })
        };
        let ours = read(own, own_json)?;
        let mut documents = Vec::new();
        for (name, json) in foreign {
            let domain = name.parse::<TrustDomain>().map_err(|error| BundleSetError::Bundle {
                trust_domain: own.clone(),
                why: BundleError::Malformed(crate::excerpt::Excerpt::new(&error.to_string())),
            })?;
            documents.push(read(&domain, json)?);
        }
        Self::with_foreign(ours, documents)
    }

    /// Our own trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.own.trust_domain()
    }

    /// Our own bundle.
    pub fn own(&self) -> &Arc<BundleDocument> {
        &self.own
    }

    /// The foreign bundles, by trust domain.
    pub fn foreign(&self) -> impl Iterator<Item = &Arc<BundleDocument>> {
        self.all.documents().filter(|document| document.trust_domain() != self.own.trust_domain())
    }

    /// The bundle of this trust domain, ours or a foreign one; `None`: nobody of it is trusted.
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Arc<BundleDocument>> {
        self.all.get(trust_domain)
    }

    /// All of them, for TLS: a peer is verified with the authorities of the trust domain that its SVID names.
    pub fn trust(&self) -> &Arc<TrustBundle> {
        &self.all
    }

    /// The claims of a JWT-SVID that is valid now and for this audience, by the keys of the trust domain of its subject and by
    /// no others (JWT-SVID section 4).
    pub fn check_jwt(&self, token: &str, audience: &str, now: OffsetDateTime) -> Result<JwtClaims, TokenError> {
        let domain = jwt_subject_domain(token)?;
        let document = self.get(&domain).ok_or(TokenError::UntrustedDomain(domain))?;
        check_jwt(token, audience, document.jwt_keys(), now)
    }

    /// Whether both trust the same keys for the same domains, whatever their sequences.
    pub fn same_keys(&self, other: &Self) -> bool {
        self.own.same_keys(&other.own)
            && self.foreign().count() == other.foreign().count()
            && self.foreign().all(|one| other.get(one.trust_domain()).is_some_and(|two| one.same_keys(two)))
    }

    /// All of them as a SPIFFE bundle map (SPIFFE_Trust_Domain_and_Bundle section 5), without refresh hints, as it asks.
    pub fn to_bundle_map(&self) -> String {
        let mut trust_domains = Map::new();
        for document in self.all.documents() {
            // INVARIANT: it was read as JSON before.
            if let Ok(Value::Object(mut members)) = serde_json::from_str(document.json()) {
                members.remove("spiffe_refresh_hint");
                trust_domains.insert(document.trust_domain().to_string(), Value::Object(members));
            }
        }
        json!({ "trust_domains": trust_domains }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &[u8] = br#"{"keys": [], "spiffe_refresh_hint": 60}"#;

    fn domain(name: &str) -> TrustDomain {
        name.parse().unwrap()
    }

    fn document(name: &str, kid: &str) -> Arc<BundleDocument> {
        let json = json!({"keys": [{"kty": "EC", "use": "jwt-svid", "kid": kid, "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]});
        Arc::new(BundleDocument::parse(&domain(name), json.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_foreign_bundle_for_our_own_domain_is_refused() {
        let refused = BundleSet::with_foreign(document("example.org", "a"), [document("example.org", "b")]);
        assert_eq!(refused.err(), Some(BundleSetError::OwnDomain(domain("example.org"))));
        let refused = BundleSet::parse(&domain("example.org"), EMPTY, [("EXAMPLE.org", EMPTY)]);
        assert!(matches!(refused, Err(BundleSetError::OwnDomain(_))));
    }

    #[test]
    fn two_bundles_for_one_domain_are_refused() {
        let refused = BundleSet::parse(&domain("example.org"), EMPTY, [("example.com", EMPTY), ("Example.com", EMPTY)]);
        assert_eq!(refused.err(), Some(BundleSetError::Twice(domain("example.com"))));
    }

    #[test]
    fn each_domain_is_looked_up_by_its_own_name_and_others_are_unknown() {
        let set = BundleSet::with_foreign(document("example.org", "a"), [document("example.com", "b")]).unwrap();
        let kid = |name: &str| set.get(&domain(name)).map(|found| found.jwt_keys().keys()[0].kid().to_owned());
        assert_eq!(kid("example.org").as_deref(), Some("a"));
        assert_eq!(kid("example.com").as_deref(), Some("b"));
        assert_eq!(kid("example.net"), None);
        assert_eq!(set.own().jwt_keys().keys()[0].kid(), "a");
        assert_eq!(set.foreign().map(|one| one.trust_domain().as_str()).collect::<Vec<_>>(), ["example.com"]);
    }

    #[test]
    fn jw_08_a_token_is_checked_with_the_keys_of_its_subjects_domain_only() {
        use crate::p256_key::{P256Key, SignatureForm};
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let key = P256Key::generate(SignatureForm::Fixed).unwrap();
        let half = |range| URL_SAFE_NO_PAD.encode(&key.public()[range]);
        let json = json!({"keys": [{"kty": "EC", "use": "jwt-svid", "kid": "k", "crv": "P-256", "x": half(1..33), "y": half(33..65)}]});
        let theirs = Arc::new(BundleDocument::parse(&domain("example.com"), json.to_string().as_bytes()).unwrap());
        let set = BundleSet::with_foreign(document("example.org", "k"), [theirs]).unwrap();
        let token = |sub: &str| {
            let text = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let claims = json!({"sub": sub, "aud": ["us"], "exp": 2_000_000_000});
            let signed = format!("{}.{}", text(json!({"alg": "ES256", "kid": "k"})), text(claims));
            let signature = key.sign(signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        };
        let now = OffsetDateTime::from_unix_timestamp(1_900_000_000).unwrap();
        let check = |sub: &str| set.check_jwt(&token(sub), "us", now);
        assert_eq!(check("spiffe://example.com/a").unwrap().spiffe_id().to_string(), "spiffe://example.com/a");
        // The federated key, with our kid, for one of our IDs: our own bundle is asked, and it does not know that key.
        assert_eq!(check("spiffe://example.org/a"), Err(TokenError::Signature));
        assert_eq!(check("spiffe://example.net/a"), Err(TokenError::UntrustedDomain(domain("example.net"))));
        assert!(check("example.com/a").is_err());
    }

    #[test]
    fn a_broken_foreign_document_names_its_domain_and_spoils_the_set() {
        let refused = BundleSet::parse(&domain("example.org"), EMPTY, [("example.com", &b"{}"[..])]);
        assert!(
            matches!(refused, Err(BundleSetError::Bundle { trust_domain, .. }) if trust_domain == domain("example.com"))
        );
        assert!(BundleSet::parse(&domain("example.org"), EMPTY, [("user@example.com", EMPTY)]).is_err());
    }

    #[test]
    fn bm_01_the_bundle_map_has_each_domain_once_and_no_refresh_hints() {
        let set = BundleSet::parse(&domain("example.org"), EMPTY, [("example.com", EMPTY)]).unwrap();
        let map: Value = serde_json::from_str(&set.to_bundle_map()).unwrap();
        assert_eq!(map, json!({"trust_domains": {"example.com": {"keys": []}, "example.org": {"keys": []}}}));
    }

    #[test]
    fn sets_with_the_same_keys_are_the_same_and_one_domain_less_is_not() {
        let both = || BundleSet::with_foreign(document("a", "k"), [document("b", "k")]).unwrap();
        let one = BundleSet::new(document("a", "k"));
        let changed = BundleSet::with_foreign(document("a", "k"), [document("b", "other")]).unwrap();
        assert!(both().same_keys(&both()));
        assert!(!both().same_keys(&one) && !one.same_keys(&both()) && !both().same_keys(&changed));
    }
}
