//! The public keys that tokens of one trust domain are verified with, each under its `kid`. Our own come from the issuer, foreign
//! ones from a bundle document; a set belongs to exactly one trust domain (JWT-SVID section 4) and is never merged.

use serde_json::{Map, Value};

use crate::jws_algorithm::JwsAlgorithm;
use crate::limits::{MAX_BUNDLE_KEYS, MAX_KEY_ID_BYTES};
use crate::public_key::PublicKey;
use crate::trust_domain::TrustDomain;

/// A public key with its name and, if it is bound to one, its algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKey {
    kid: String,
    public: PublicKey,
    algorithm: Option<JwsAlgorithm>,
}

/// The keys of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKeys {
    trust_domain: TrustDomain,
    keys: Vec<JwtKey>,
}

impl JwtKey {
    /// The key of a JWK of a bundle (JWT-SVID section 5: `kid` is there). Its `use` is the caller's to look at. A JWK with
    /// `alg` verifies nothing but that; one without, whatever fits its type. The error says what is wrong with it.
    pub fn from_jwk(jwk: &Value) -> Result<Self, &'static str> {
        let jwk = jwk.as_object().ok_or("it is no JSON object")?;
        let kid = match jwk.get("kid").and_then(Value::as_str) {
            Some(kid) if !kid.is_empty() && kid.len() <= MAX_KEY_ID_BYTES => kid.to_owned(),
            Some(_) => return Err("its kid is empty or too long"),
            None => return Err("it has no kid"),
        };
        let public = PublicKey::from_jwk(jwk)?;
        let algorithm = match jwk.get("alg") {
            None => None,
            Some(name) => {
                let algorithm = name.as_str().and_then(JwsAlgorithm::named).ok_or("its alg is not one of JWT-SVID")?;
                Some(algorithm)
                    .filter(|algorithm| public.fits(*algorithm))
                    .ok_or("its alg is for another type of key")?;
                Some(algorithm)
            }
        };
        Ok(Self { kid, public, algorithm })
    }

    /// One of our own keys: named by its thumbprint, bound to one algorithm.
    pub(crate) fn own(public: PublicKey, algorithm: JwsAlgorithm) -> Self {
        Self { kid: public.thumbprint(), public, algorithm: Some(algorithm) }
    }

    /// Names the key in a token's header.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The JWK with this `use` (`jwt-svid` and `wit-svid` in SPIFFE bundles, `sig` for OIDC).
    pub fn to_jwk(&self, usage: &str) -> Value {
        let mut members = self.public.members();
        members.sort_by_key(|(name, _)| if *name == "kty" { (0, *name) } else { (1, *name) });
        let mut jwk = Map::new();
        for (name, text) in members {
            jwk.insert(name.to_owned(), Value::String(text));
            if name == "kty" {
                jwk.insert("use".to_owned(), Value::String(usage.to_owned()));
                jwk.insert("kid".to_owned(), Value::String(self.kid.clone()));
            }
        }
        Value::Object(jwk)
    }

    /// The algorithm that the key is bound to, if it is bound to one.
    pub fn algorithm(&self) -> Option<&'static str> {
        self.algorithm.map(JwsAlgorithm::name)
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Whether tokens may be signed so with this key.
    pub(crate) fn allows(&self, algorithm: JwsAlgorithm) -> bool {
        self.algorithm.map_or_else(|| self.public.fits(algorithm), |bound| bound == algorithm)
    }
}

impl JwtKeys {
    /// These keys; of two with one `kid` the first. More than [`MAX_BUNDLE_KEYS`] are cut off: a token under one of them is
    /// refused.
    pub fn new(trust_domain: TrustDomain, keys: Vec<JwtKey>) -> Self {
        let mut kept: Vec<JwtKey> = Vec::with_capacity(keys.len().min(MAX_BUNDLE_KEYS));
        for key in keys {
            if kept.len() < MAX_BUNDLE_KEYS && kept.iter().all(|other| other.kid != key.kid) {
                kept.push(key);
            }
        }
        Self { trust_domain, keys: kept }
    }

    /// Whose keys these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The keys.
    pub fn keys(&self) -> &[JwtKey] {
        &self.keys
    }

    pub(crate) fn named(&self, kid: &str) -> Option<&JwtKey> {
        self.keys.iter().find(|key| key.kid == kid)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn jwk() -> Value {
        json!({"kty": "EC", "use": "jwt-svid", "kid": "k", "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"})
    }

    fn domain() -> TrustDomain {
        "example.org".parse().unwrap()
    }

    #[test]
    fn a_jwk_comes_back_as_it_was_read() {
        assert_eq!(JwtKey::from_jwk(&jwk()).unwrap().to_jwk("jwt-svid").to_string(), jwk().to_string());
    }

    #[test]
    fn a_key_without_kid_or_with_a_wrong_algorithm_is_refused() {
        for (name, value) in [
            ("kid", Value::Null),
            ("kid", json!("")),
            ("kid", json!("k".repeat(MAX_KEY_ID_BYTES + 1))),
            ("alg", json!("RS256")),
            ("alg", json!("ES384")),
            ("alg", json!("none")),
            ("alg", Value::Null),
        ] {
            let mut jwk = jwk();
            jwk[name] = value.clone();
            assert!(JwtKey::from_jwk(&jwk).is_err(), "{name} {value}");
        }
        assert!(JwtKey::from_jwk(&json!([])).is_err());
        let mut bound = jwk();
        bound["alg"] = json!("ES256");
        bound["kid"] = json!("k".repeat(MAX_KEY_ID_BYTES));
        assert!(JwtKey::from_jwk(&bound).is_ok());
    }

    #[test]
    fn of_two_keys_with_one_name_the_first_counts_and_a_set_is_bounded() {
        let mut second = jwk();
        second["alg"] = json!("ES256");
        let (first, second) = (JwtKey::from_jwk(&jwk()).unwrap(), JwtKey::from_jwk(&second).unwrap());
        let keys = JwtKeys::new(domain(), vec![first.clone(), second]);
        assert_eq!(keys.keys(), [first]);
        let many = (0..=MAX_BUNDLE_KEYS).map(|i| {
            let mut jwk = jwk();
            jwk["kid"] = json!(i.to_string());
            JwtKey::from_jwk(&jwk).unwrap()
        });
        let keys = JwtKeys::new(domain(), many.collect());
        assert_eq!(keys.keys().len(), MAX_BUNDLE_KEYS);
        assert!(keys.named("0").is_some() && keys.named(&MAX_BUNDLE_KEYS.to_string()).is_none());
    }
}
