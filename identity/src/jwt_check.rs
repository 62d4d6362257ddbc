//! Checks a JWT-SVID (JWT-SVID sections 2 to 4). Trusts the keys of one trust domain: the signature is verified before a claim
//! is read.
//!
//! Refuses whatever is not compact JWS with exactly `alg`, `kid` and perhaps `typ` in its header; every algorithm that the
//! key does not allow (so `none`, HMAC and EdDSA can never be chosen by the token); a missing `exp`, `aud`, `kid` or `sub`;
//! subjects of another trust domain than the keys'. No clock skew: issuer and validator share a clock.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::audience::Audience;
use crate::excerpt::Excerpt;
use crate::jws_algorithm::JwsAlgorithm;
use crate::jwt_key::JwtKeys;
use crate::jwt_svid::JwtClaims;
use crate::limits::{JWT_CLOCK_SKEW, MAX_AUDIENCES, MAX_TOKEN_BYTES};
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// Why a token is no valid JWT-SVID for its reader. The sender of the token erred, or is somebody else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Over [`MAX_TOKEN_BYTES`].
    #[error("the token is larger than {MAX_TOKEN_BYTES} bytes")]
    TooLarge,
    /// JWS in its JSON serialisation, which JWT-SVID section 2 forbids.
    #[error("the token is in JSON serialisation, not in the compact one")]
    JsonSerialization,
    /// Not three parts of base64url, or JSON that is none.
    #[error("the token cannot be parsed: {0}")]
    Malformed(&'static str),
    /// A header parameter besides `alg`, `kid`, `typ`, or one of them missing or twice.
    #[error("the token's header must have alg and kid, may have typ, and nothing else")]
    Header,
    /// None of JWT-SVID's algorithms, or not that of the key that it names.
    #[error("the token is signed with {0}, which its key does not allow")]
    Algorithm(Excerpt),
    /// JWT-SVID section 2.3.
    #[error("the token is of the wrong type: {0}")]
    Type(Excerpt),
    /// Signed by a key that is not in the bundle.
    #[error("the token names the unknown key {0}")]
    UnknownKey(Excerpt),
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// `sub`, `aud` or `exp` is missing or no such thing.
    #[error("the token's claims are malformed: {0}")]
    Claims(&'static str),
    /// The subject belongs to another trust domain.
    #[error("the token's subject {0} is of another trust domain")]
    ForeignSubject(SpiffeId),
    /// There is no bundle for the subject's trust domain.
    #[error("the token's subject is of the trust domain {0}, which is not trusted here")]
    UntrustedDomain(TrustDomain),
    /// Too late.
    #[error("the token expired")]
    Expired,
    /// Too early.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// For somebody else.
    #[error("the token is for another audience than {0}")]
    Audience(Excerpt),
}

impl TokenError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Expired | Self::NotYetValid => "the sender must fetch a new JWT-SVID; see that both clocks are right",
            Self::Audience(_) => "the sender must fetch a JWT-SVID for exactly this audience",
            Self::UntrustedDomain(_) => "federate with the subject's trust domain, if its tokens are to be accepted",
            Self::UnknownKey(_) | Self::ForeignSubject(_) => {
                "the sender must fetch a new token: only keys in the current bundle of the subject's own trust domain are accepted"
            }
            _ => "the sender must present a JWT-SVID: compact JWS, header alg, kid and typ, claims sub, aud and exp",
        }
    }
}

/// The claims of a token that is valid now and for this audience, by the keys of one trust domain.
pub fn check_jwt(token: &str, audience: &str, keys: &JwtKeys, now: OffsetDateTime) -> Result<JwtClaims, TokenError> {
    let payload = verified_payload(token, keys, &["JWT", "JOSE"], true)?;
    check_claims(&payload, keys.trust_domain(), audience, now)
}

/// The trust domain that the token's subject names: which keys to check it with, and nothing more, for nothing is verified yet.
pub fn jwt_subject_domain(token: &str) -> Result<TrustDomain, TokenError> {
    #[derive(Deserialize)]
    struct Subject {
        sub: String,
    }
    let [_, payload, _] = parts(token)?;
    let subject: Subject =
        serde_json::from_slice(&decode(payload)?).map_err(|_| TokenError::Claims("sub must be there"))?;
    let id: SpiffeId = subject.sub.parse().map_err(|_| TokenError::Claims("sub is no SPIFFE ID"))?;
    Ok(id.trust_domain().clone())
}

/// What is signed in a compact JWS whose header has exactly the allowed members, is of one of these types (or of none, where
/// that is allowed), and whose signature is by one of these keys with an algorithm that the key allows.
pub(crate) fn verified_payload(
    token: &str,
    keys: &JwtKeys,
    types: &[&str],
    untyped: bool,
) -> Result<Vec<u8>, TokenError> {
    let [header, payload, signature] = parts(token)?;
    let signed = token.get(..header.len() + 1 + payload.len()).ok_or(TokenError::Malformed("its parts"))?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Header)?;
    let algorithm = JwsAlgorithm::named(&header.alg).ok_or_else(|| TokenError::Algorithm(Excerpt::new(&header.alg)))?;
    match header.typ.as_deref() {
        None if untyped => {}
        Some(typ) if types.contains(&typ) => {}
        other => return Err(TokenError::Type(Excerpt::new(other.unwrap_or("none")))),
    }
    let key = keys.named(&header.kid).ok_or_else(|| TokenError::UnknownKey(Excerpt::new(&header.kid)))?;
    if !key.allows(algorithm) {
        return Err(TokenError::Algorithm(Excerpt::new(&header.alg)));
    }
    if !key.public().verifies(algorithm, signed.as_bytes(), &decode(signature)?) {
        return Err(TokenError::Signature);
    }
    decode(payload)
}

fn parts(token: &str) -> Result<[&str; 3], TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::TooLarge);
    }
    if token.trim_start().starts_with('{') {
        return Err(TokenError::JsonSerialization);
    }
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(payload), Some(signature), None) => Ok([header, payload, signature]),
        _ => Err(TokenError::Malformed("it does not have three parts")),
    }
}

fn check_claims(
    payload: &[u8],
    trust_domain: &TrustDomain,
    audience: &str,
    now: OffsetDateTime,
) -> Result<JwtClaims, TokenError> {
    let claims: Claims = serde_json::from_slice(payload)
        .map_err(|_| TokenError::Claims("sub, aud and exp must be there and of the right type"))?;
    let at = |seconds| {
        OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| TokenError::Claims("a time is out of range"))
    };
    let spiffe_id: SpiffeId = claims.sub.parse().map_err(|_| TokenError::Claims("sub is no SPIFFE ID"))?;
    if !spiffe_id.has_path() {
        return Err(TokenError::Claims("sub names a trust domain, not a workload"));
    }
    if spiffe_id.trust_domain() != trust_domain {
        return Err(TokenError::ForeignSubject(spiffe_id));
    }
    let named = match claims.aud {
        AudienceClaim::One(one) => vec![one],
        AudienceClaim::Many(many) => many,
    };
    if named.is_empty() || named.len() > MAX_AUDIENCES {
        return Err(TokenError::Claims("aud is empty or has too many values"));
    }
    let audiences = named
        .iter()
        .map(|text| text.parse::<Audience>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TokenError::Claims("a value of aud is malformed"))?;
    let expires_at = at(claims.exp)?;
    if now >= expires_at + JWT_CLOCK_SKEW {
        return Err(TokenError::Expired);
    }
    if let Some(not_before) = claims.nbf
        && now < at(not_before)? - JWT_CLOCK_SKEW
    {
        return Err(TokenError::NotYetValid);
    }
    if !audiences.iter().any(|one| one.as_str() == audience) {
        return Err(TokenError::Audience(Excerpt::new(audience)));
    }
    let issued_at = claims.iat.map(at).transpose()?;
    Ok(JwtClaims { spiffe_id, audiences, expires_at, issued_at, jti: claims.jti, issuer: claims.iss })
}

/// JWT-SVID section 2: these parameters and no other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
}

/// RFC 7519 section 4: claims that are not understood are ignored; one of these twice is refused.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: AudienceClaim,
    exp: i64,
    #[serde(default, deserialize_with = "present")]
    iat: Option<i64>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<i64>,
    #[serde(default, deserialize_with = "present")]
    jti: Option<String>,
    #[serde(default, deserialize_with = "present")]
    iss: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AudienceClaim {
    One(String),
    Many(Vec<String>),
}

/// A member that is there has a value: `null` is not the same as absent.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("a part is not base64url without padding"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::jwt_key::JwtKey;
    use crate::limits::MAX_AUDIENCE_BYTES;
    use crate::p256_key::{P256Key, SignatureForm};
    use crate::public_key::PublicKey;

    const NOW: i64 = 1_800_000_000;

    /// An authority whose key signs whatever a test wants.
    struct Forge {
        domain: TrustDomain,
        key: P256Key,
        kid: String,
    }

    impl Forge {
        fn new() -> Self {
            let key = P256Key::generate(SignatureForm::Fixed).unwrap();
            let kid = PublicKey::P256(*key.public()).thumbprint();
            Self { domain: "example.org".parse().unwrap(), key, kid }
        }

        fn header(&self) -> Value {
            json!({"alg": "ES256", "kid": self.kid, "typ": "JWT"})
        }

        fn sign_text(&self, header: &str, payload: &str) -> String {
            let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
            let signature = self.key.sign(signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }

        fn sign(&self, header: &Value, payload: &Value) -> String {
            self.sign_text(&header.to_string(), &payload.to_string())
        }

        fn check(&self, token: &str) -> Result<JwtClaims, TokenError> {
            let key = JwtKey::own(PublicKey::P256(*self.key.public()), JwsAlgorithm::Es256);
            let keys = JwtKeys::new(self.domain.clone(), vec![key]);
            check_jwt(token, "vault", &keys, OffsetDateTime::from_unix_timestamp(NOW).unwrap())
        }

        fn check_header(&self, header: Value) -> Result<JwtClaims, TokenError> {
            self.check(&self.sign(&header, &payload()))
        }

        fn check_payload(&self, change: impl FnOnce(&mut Value)) -> Result<JwtClaims, TokenError> {
            let mut payload = payload();
            change(&mut payload);
            self.check(&self.sign(&self.header(), &payload))
        }
    }

    fn payload() -> Value {
        json!({"sub": "spiffe://example.org/a", "aud": ["vault"], "exp": NOW + 60})
    }

    #[test]
    fn a_token_with_just_the_demanded_claims_passes() {
        let forge = Forge::new();
        let claims = forge.check_payload(|_| ()).unwrap();
        assert_eq!(claims.spiffe_id().to_string(), "spiffe://example.org/a");
        assert_eq!((claims.issued_at(), claims.jti()), (None, None));
        assert!(forge.check_payload(|p| p["aud"] = json!("vault")).is_ok());
        assert!(forge.check_payload(|p| p["other"] = json!({"x": 1})).is_ok());
    }

    #[test]
    fn jw_01_any_other_header_parameter_is_refused() {
        let forge = Forge::new();
        for name in ["jku", "jwk", "x5u", "x5c", "x5t", "cty", "crit", "zip", "b64", "extra"] {
            let mut header = forge.header();
            header[name] = json!("x");
            assert_eq!(forge.check_header(header), Err(TokenError::Header), "{name}");
        }
        let twice = format!(r#"{{"alg":"ES256","alg":"ES256","kid":"{}"}}"#, forge.kid);
        assert_eq!(forge.check(&forge.sign_text(&twice, &payload().to_string())), Err(TokenError::Header));
    }

    #[test]
    fn jw_01_json_serialisation_is_refused() {
        let forge = Forge::new();
        let token = forge.sign(&forge.header(), &payload());
        let parts: Vec<_> = token.split('.').collect();
        let json = json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string();
        assert_eq!(forge.check(&json), Err(TokenError::JsonSerialization));
        assert_eq!(forge.check(&format!(" \n{json}")), Err(TokenError::JsonSerialization));
    }

    #[test]
    fn jw_02_other_algorithms_are_refused() {
        let forge = Forge::new();
        for alg in ["none", "None", "HS256", "HS512", "EdDSA", "ES384", "RS256", "PS256", "es256", "ES256K", ""] {
            let mut header = forge.header();
            header["alg"] = json!(alg);
            assert!(matches!(forge.check_header(header), Err(TokenError::Algorithm(_))), "{alg}");
        }
        let unsigned = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": forge.kid}).to_string()),
            URL_SAFE_NO_PAD.encode(payload().to_string())
        );
        assert!(matches!(forge.check(&unsigned), Err(TokenError::Algorithm(_))));
    }

    #[test]
    fn jw_02_an_hmac_with_the_public_key_is_refused() {
        let forge = Forge::new();
        for alg in ["HS256", "ES256"] {
            let header = json!({"alg": alg, "kid": forge.kid, "typ": "JWT"}).to_string();
            let signed =
                format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload().to_string()));
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, forge.key.public());
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes())));
            assert!(matches!(forge.check(&token), Err(TokenError::Algorithm(_) | TokenError::Signature)), "{alg}");
        }
    }

    #[test]
    fn jw_03_type_is_absent_jwt_or_jose() {
        let forge = Forge::new();
        for typ in ["JWT", "JOSE"] {
            assert!(forge.check_header(json!({"alg": "ES256", "kid": forge.kid, "typ": typ})).is_ok());
        }
        assert!(forge.check_header(json!({"alg": "ES256", "kid": forge.kid})).is_ok());
        for typ in ["jwt", "wit+jwt", "at+jwt", ""] {
            let refused = forge.check_header(json!({"alg": "ES256", "kid": forge.kid, "typ": typ}));
            assert!(matches!(refused, Err(TokenError::Type(_))), "{typ}");
        }
        assert_eq!(forge.check_header(json!({"alg": "ES256", "kid": forge.kid, "typ": null})), Err(TokenError::Header));
    }

    #[test]
    fn jw_04_a_missing_or_unknown_kid_is_refused() {
        let forge = Forge::new();
        assert_eq!(forge.check_header(json!({"alg": "ES256", "typ": "JWT"})), Err(TokenError::Header));
        let other = forge.check_header(json!({"alg": "ES256", "kid": "other"}));
        assert!(matches!(other, Err(TokenError::UnknownKey(_))));
    }

    #[test]
    fn jw_05_missing_or_malformed_claims_are_refused() {
        let forge = Forge::new();
        for name in ["sub", "aud", "exp"] {
            let missing = forge.check_payload(|p| drop(p.as_object_mut().unwrap().remove(name)));
            assert!(matches!(missing, Err(TokenError::Claims(_))), "{name}");
            let null = forge.check_payload(|p| p[name] = Value::Null);
            assert!(matches!(null, Err(TokenError::Claims(_))), "{name}");
        }
        for (name, value) in [
            ("aud", json!([])),
            ("aud", json!([1])),
            ("aud", json!({"vault": 1})),
            ("exp", json!("1800000060")),
            ("exp", json!(1_800_000_060.5)),
            ("exp", json!(i64::MAX)),
            ("nbf", json!("x")),
            ("nbf", Value::Null),
            ("iat", json!(i64::MIN)),
            ("jti", json!(7)),
            ("sub", json!("example.org/a")),
            ("sub", json!("spiffe://example.org")),
            ("sub", json!("spiffe://example.org/a/../b")),
        ] {
            let refused = forge.check_payload(|p| p[name] = value.clone());
            assert!(matches!(refused, Err(TokenError::Claims(_))), "{name} {value}");
        }
        let twice = format!(r#"{{"sub":"spiffe://example.org/a","aud":"vault","exp":{NOW},"exp":{}}}"#, NOW + 60);
        let refused = forge.check(&forge.sign_text(&forge.header().to_string(), &twice));
        assert!(matches!(refused, Err(TokenError::Claims(_))));
    }

    #[test]
    fn jw_05_times_have_no_tolerance() {
        let forge = Forge::new();
        assert!(forge.check_payload(|p| p["exp"] = json!(NOW + 1)).is_ok());
        assert_eq!(forge.check_payload(|p| p["exp"] = json!(NOW)), Err(TokenError::Expired));
        assert_eq!(forge.check_payload(|p| p["exp"] = json!(-1)), Err(TokenError::Expired));
        assert!(forge.check_payload(|p| p["nbf"] = json!(NOW)).is_ok());
        assert_eq!(forge.check_payload(|p| p["nbf"] = json!(NOW + 1)), Err(TokenError::NotYetValid));
    }

    #[test]
    fn jw_05_another_audience_is_refused() {
        let forge = Forge::new();
        for aud in [json!("Vault"), json!(["vaul"]), json!(["vault2", "https://vault"])] {
            let refused = forge.check_payload(|p| p["aud"] = aud.clone());
            assert!(matches!(refused, Err(TokenError::Audience(_))), "{aud}");
        }
        assert!(forge.check_payload(|p| p["aud"] = json!(["other", "vault"])).is_ok());
    }

    #[test]
    fn jw_08_a_subject_of_another_trust_domain_is_refused() {
        let forge = Forge::new();
        let refused = forge.check_payload(|p| p["sub"] = json!("spiffe://example.com/a"));
        assert!(matches!(refused, Err(TokenError::ForeignSubject(_))));
    }

    #[test]
    fn another_key_under_our_kid_is_refused() {
        let (forge, other) = (Forge::new(), Forge::new());
        assert_eq!(forge.check(&other.sign(&forge.header(), &payload())), Err(TokenError::Signature));
    }

    #[test]
    fn every_changed_character_is_refused() {
        let forge = Forge::new();
        let token = forge.sign(&forge.header(), &payload());
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(forge.check(std::str::from_utf8(&changed).unwrap()).is_err(), "changed at {at}");
        }
        for end in 0..token.len() {
            assert!(forge.check(token.get(..end).unwrap()).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn texts_that_are_no_token_are_refused() {
        let forge = Forge::new();
        let token = forge.sign(&forge.header(), &payload());
        for text in [
            "",
            ".",
            "..",
            "...",
            "a.b.c",
            "ä.ä.ä",
            "\0",
            &format!("{token}.x"),
            &format!("{token}="),
            &format!("{token} "),
        ] {
            assert!(forge.check(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_token_of_8_kib_is_looked_at_and_one_more_byte_is_not() {
        let forge = Forge::new();
        let padded = |bytes: usize| {
            let mut payload = payload();
            payload["pad"] = json!("x".repeat(bytes));
            forge.sign(&forge.header(), &payload)
        };
        // Base64 makes four characters of three bytes.
        let room = (MAX_TOKEN_BYTES - padded(0).len()) / 4 * 3;
        let fits = padded(room);
        assert!(fits.len() > MAX_TOKEN_BYTES - 4 && fits.len() <= MAX_TOKEN_BYTES);
        assert!(forge.check(&fits).is_ok());
        assert_eq!(forge.check(&"x".repeat(MAX_TOKEN_BYTES + 1)), Err(TokenError::TooLarge));
        assert_eq!(forge.check(&padded(MAX_TOKEN_BYTES)), Err(TokenError::TooLarge));
    }

    #[test]
    fn the_largest_audiences_pass_and_one_more_is_refused() {
        let forge = Forge::new();
        let mut aud: Vec<_> = (1..MAX_AUDIENCES).map(|i| format!("{i:0>width$}", width = MAX_AUDIENCE_BYTES)).collect();
        aud.push("vault".to_owned());
        assert!(forge.check_payload(|p| p["aud"] = json!(aud)).is_ok());
        aud.push("more".to_owned());
        assert!(matches!(forge.check_payload(|p| p["aud"] = json!(aud)), Err(TokenError::Claims(_))));
        let long = "a".repeat(MAX_AUDIENCE_BYTES + 1);
        assert!(matches!(forge.check_payload(|p| p["aud"] = json!(["vault", long])), Err(TokenError::Claims(_))));
    }
}
