//! WIT-SVIDs (SPIFFE WIT-SVID, incubating, revision 665a28f of github.com/spiffe/spiffe; a profile of WIMSE's workload identity
//! token): a token that names a workload and the public key whose private half it must prove to have. No bearer credential.
//!
//! Refuses what is not of type `wit+jwt`, tokens with an audience, with a private key in them, or without a key to confirm.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::hex::hex;
use crate::jws_algorithm::JwsAlgorithm;
use crate::jwt_authority::JwtAuthority;
use crate::jwt_check::{TokenError, verified_payload};
use crate::jwt_key::JwtKeys;
use crate::limits::JWT_CLOCK_SKEW;
use crate::p256_key::{P256Key, SignatureForm};
use crate::public_key::PublicKey;
use crate::secret::Secret;
use crate::spiffe_id::SpiffeId;

/// A minted WIT-SVID with the private key that it is bound to.
#[derive(Clone)]
pub struct WitSvid {
    token: Zeroizing<String>,
    key: Zeroizing<String>,
    claims: WitClaims,
}

/// What a valid WIT-SVID says. Comes only out of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitClaims {
    spiffe_id: SpiffeId,
    expires_at: OffsetDateTime,
    issued_at: Option<OffsetDateTime>,
    jti: Option<String>,
    confirmation: Map<String, Value>,
}

impl WitSvid {
    /// A token of this authority for a new key. Times are whole seconds.
    pub(crate) fn mint(
        authority: &JwtAuthority,
        id: &SpiffeId,
        issued_at: OffsetDateTime,
        expires_at: OffsetDateTime,
    ) -> Result<Self, &'static str> {
        let jti = Secret::<16>::random(&SystemRandom::new()).map(|id| hex(id.expose())).ok_or("no randomness")?;
        let key = P256Key::generate(SignatureForm::Fixed).map_err(|_| "no key")?;
        let jwk = public_jwk(&key);
        let payload = Payload {
            sub: id,
            exp: expires_at.unix_timestamp(),
            iat: issued_at.unix_timestamp(),
            jti: &jti,
            cnf: Confirmation { jwk: jwk.clone() },
        };
        let token = authority.sign(TYPE, &payload)?;
        // Reads back what was made: a token that does not say exactly what was meant does not leave.
        let claims =
            check_wit(&token, authority.verifier(), issued_at).map_err(|_| "the token made does not verify")?;
        let as_meant = claims.spiffe_id == *id
            && claims.expires_at == expires_at
            && claims.issued_at == Some(issued_at)
            && claims.jti.as_deref() == Some(jti.as_str())
            && claims.confirmation == jwk;
        if !as_meant {
            return Err("the token made is not as meant");
        }
        Ok(Self { token, key: private_jwk(&key), claims })
    }

    /// The token in compact serialisation.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The private key that it is bound to, a JWK as text. Hand it to its owner only.
    pub fn key_jwk(&self) -> &str {
        &self.key
    }

    /// What it says.
    pub fn claims(&self) -> &WitClaims {
        &self.claims
    }

    /// Its subject.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.claims.spiffe_id
    }

    /// When it ends.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.claims.expires_at
    }

    /// Its id, for the audit.
    pub fn jti(&self) -> &str {
        self.claims.jti.as_deref().unwrap_or_default()
    }
}

impl WitClaims {
    /// The subject.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// When it ends.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }

    /// Its id, if it has one.
    pub fn jti(&self) -> Option<&str> {
        self.jti.as_deref()
    }

    /// The public key whose private half the sender must prove to have (RFC 7800), a JWK. Nobody who has not proven that is
    /// the subject.
    pub fn confirmation(&self) -> &Map<String, Value> {
        &self.confirmation
    }

    /// When it was made, if it says.
    pub fn issued_at(&self) -> Option<OffsetDateTime> {
        self.issued_at
    }
}

impl fmt::Debug for WitSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WitSvid").field("claims", &self.claims).finish_non_exhaustive()
    }
}

/// The claims of a WIT-SVID that is valid now, by the keys of one trust domain.
pub fn check_wit(token: &str, keys: &JwtKeys, now: OffsetDateTime) -> Result<WitClaims, TokenError> {
    let payload = verified_payload(token, keys, &[TYPE], false)?;
    let claims: Claims = serde_json::from_slice(&payload)
        .map_err(|_| TokenError::Claims("sub, exp and cnf.jwk must be there, and aud must not"))?;
    let at = |seconds| {
        OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| TokenError::Claims("a time is out of range"))
    };
    let spiffe_id: SpiffeId = claims.sub.parse().map_err(|_| TokenError::Claims("sub is no SPIFFE ID"))?;
    if !spiffe_id.has_path() {
        return Err(TokenError::Claims("sub names a trust domain, not a workload"));
    }
    if spiffe_id.trust_domain() != keys.trust_domain() {
        return Err(TokenError::ForeignSubject(spiffe_id));
    }
    if claims.aud.is_some() {
        return Err(TokenError::Claims("a WIT-SVID has no aud"));
    }
    let expires_at = at(claims.exp)?;
    if now >= expires_at + JWT_CLOCK_SKEW {
        return Err(TokenError::Expired);
    }
    if claims.nbf.map(at).transpose()?.is_some_and(|not_before| now < not_before) {
        return Err(TokenError::NotYetValid);
    }
    let confirmation = claims.cnf.jwk;
    if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|private| confirmation.contains_key(*private)) {
        return Err(TokenError::Claims("cnf.jwk is a private key"));
    }
    let public = PublicKey::from_jwk(&confirmation).map_err(TokenError::Claims)?;
    let algorithm = confirmation.get("alg").and_then(Value::as_str).and_then(JwsAlgorithm::named);
    if !algorithm.is_some_and(|algorithm| public.fits(algorithm)) {
        return Err(TokenError::Claims("cnf.jwk.alg is missing or does not fit its key"));
    }
    let issued_at = claims.iat.map(at).transpose()?;
    Ok(WitClaims { spiffe_id, expires_at, issued_at, jti: claims.jti, confirmation })
}

fn public_jwk(key: &P256Key) -> Map<String, Value> {
    let mut jwk = Map::new();
    for (name, text) in PublicKey::P256(*key.public()).members() {
        jwk.insert(name.to_owned(), Value::String(text));
    }
    jwk.insert("alg".to_owned(), Value::String(JwsAlgorithm::Es256.name().to_owned()));
    jwk
}

fn private_jwk(key: &P256Key) -> Zeroizing<String> {
    let scalar = Zeroizing::new(URL_SAFE_NO_PAD.encode(key.scalar().expose()));
    let public = serde_json::to_string(&public_jwk(key)).unwrap_or_default();
    // One allocation, so that no copy of the key is left behind by growth.
    let mut jwk = Zeroizing::new(String::with_capacity(public.len() + scalar.len() + 8));
    jwk.push_str(public.trim_end_matches('}'));
    jwk.push_str(r#","d":""#);
    jwk.push_str(&scalar);
    jwk.push_str(r#""}"#);
    jwk
}

#[derive(Serialize)]
struct Payload<'a> {
    sub: &'a SpiffeId,
    exp: i64,
    iat: i64,
    jti: &'a str,
    cnf: Confirmation,
}

/// RFC 7800: the key, and no other way to name one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    jwk: Map<String, Value>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    cnf: Confirmation,
    aud: Option<Value>,
    nbf: Option<i64>,
    iat: Option<i64>,
    jti: Option<String>,
}

const TYPE: &str = "wit+jwt";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authority_key::{AuthorityKey, KeyAlgorithm};
    use crate::jwt_check::check_jwt;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn authority() -> JwtAuthority {
        let key = AuthorityKey::generate(KeyAlgorithm::Es256, SignatureForm::Fixed).unwrap();
        JwtAuthority::new(key, &"example.org".parse().unwrap())
    }

    fn minted(authority: &JwtAuthority) -> WitSvid {
        let id = "spiffe://example.org/a".parse().unwrap();
        WitSvid::mint(authority, &id, now(), now() + std::time::Duration::from_secs(60)).unwrap()
    }

    fn payload() -> Value {
        let key = P256Key::generate(SignatureForm::Fixed).unwrap();
        json!({"sub": "spiffe://example.org/a", "exp": 1_800_000_060, "cnf": {"jwk": public_jwk(&key)}})
    }

    fn check(authority: &JwtAuthority, change: impl FnOnce(&mut Value)) -> Result<WitClaims, TokenError> {
        let mut payload = payload();
        change(&mut payload);
        check_wit(&authority.sign(TYPE, &payload).unwrap(), authority.verifier(), now())
    }

    #[test]
    fn wi_01_and_wi_02_the_token_is_typed_and_bound_to_its_key() {
        let authority = authority();
        let svid = minted(&authority);
        let part = |at| -> Value {
            let part = svid.token().split('.').nth(at).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!((part(0)["typ"].as_str(), part(0)["alg"].as_str()), (Some("wit+jwt"), Some("ES256")));
        assert_eq!(part(0).as_object().unwrap().len(), 3);
        assert!(part(1).get("aud").is_none() && part(1).get("iss").is_none());
        let mut private: Value = serde_json::from_str(svid.key_jwk()).unwrap();
        let scalar = URL_SAFE_NO_PAD.decode(private["d"].as_str().unwrap()).unwrap();
        private.as_object_mut().unwrap().remove("d");
        assert_eq!(part(1)["cnf"]["jwk"], private);
        let PublicKey::P256(point) = PublicKey::from_jwk(private.as_object().unwrap()).unwrap() else { panic!() };
        assert!(P256Key::from_parts(SignatureForm::Fixed, &scalar, &point).is_ok(), "one key pair");
        assert!(!format!("{svid:?}").contains(svid.token()) && !format!("{svid:?}").contains("\"d\""));
    }

    #[test]
    fn wi_04_expired_early_unbound_and_broken_tokens_are_refused() {
        let authority = authority();
        assert!(check(&authority, |_| ()).is_ok());
        assert_eq!(check(&authority, |p| p["exp"] = json!(1_800_000_000)), Err(TokenError::Expired));
        assert_eq!(check(&authority, |p| p["nbf"] = json!(1_800_000_001)), Err(TokenError::NotYetValid));
        assert!(matches!(
            check(&authority, |p| p["sub"] = json!("spiffe://example.com/a")),
            Err(TokenError::ForeignSubject(_))
        ));
        for name in ["sub", "exp", "cnf"] {
            let missing = check(&authority, |p| drop(p.as_object_mut().unwrap().remove(name)));
            assert!(matches!(missing, Err(TokenError::Claims(_))), "{name}");
        }
        for (name, value) in [
            ("d", json!("AA")),
            ("k", json!("AA")),
            ("alg", json!("none")),
            ("alg", json!("RS256")),
            ("x", json!("AA")),
        ] {
            let refused = check(&authority, |p| p["cnf"]["jwk"][name] = value.clone());
            assert!(matches!(refused, Err(TokenError::Claims(_))), "{name}");
        }
        for change in [json!({"aud": "vault"}), json!({"sub": "spiffe://example.org"}), json!({"cnf": {"kid": "a"}})] {
            let refused = check(&authority, |p| p.as_object_mut().unwrap().extend(change.as_object().unwrap().clone()));
            assert!(matches!(refused, Err(TokenError::Claims(_))), "{change}");
        }
    }

    #[test]
    fn a_wit_is_no_jwt_svid_and_a_jwt_svid_no_wit() {
        let authority = authority();
        let svid = minted(&authority);
        let as_jwt = check_jwt(svid.token(), "vault", authority.verifier(), now());
        assert!(matches!(as_jwt, Err(TokenError::Type(_))));
        for typ in ["JWT", "JOSE"] {
            let jwt = authority.sign(typ, &payload()).unwrap();
            assert!(matches!(check_wit(&jwt, authority.verifier(), now()), Err(TokenError::Type(_))));
        }
    }
}
