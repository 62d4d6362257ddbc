//! Reads a key and a JWT-SVID or WIT-SVID under it: a line with a JWK, then the token. Whatever passes says what its reader will
//! rely on, and a key that is read comes back as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_identity::{JwtKey, JwtKeys, TrustDomain, check_jwt, check_wit, jwt_subject_domain};
use time::OffsetDateTime;

fuzz_target!(|bytes: &[u8]| {
    let (Ok(domain), Ok(now)) = ("example.org".parse::<TrustDomain>(), OffsetDateTime::from_unix_timestamp(NOW)) else {
        unreachable!("a trust domain and a time")
    };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (jwk, token) = text.split_once('\n').unwrap_or(("", text));
    let token = token.trim_end();
    let key = serde_json::from_str(jwk).ok().and_then(|jwk| JwtKey::from_jwk(&jwk).ok());
    if let Some(key) = &key {
        assert_eq!(JwtKey::from_jwk(&key.to_jwk("jwt-svid")).as_ref().map(JwtKey::kid), Ok(key.kid()));
    }
    let keys = JwtKeys::new(domain.clone(), key.into_iter().collect());
    if let Ok(claims) = check_jwt(token, "vault", &keys, now) {
        assert!(claims.audiences().iter().any(|audience| audience.as_str() == "vault"));
        assert!(claims.expires_at() > now);
        assert_eq!(claims.spiffe_id().trust_domain(), &domain);
        assert_eq!(jwt_subject_domain(token), Ok(domain.clone()));
        assert!(check_wit(token, &keys, now).is_err(), "one token, two types");
    }
    if let Ok(claims) = check_wit(token, &keys, now) {
        assert!(claims.expires_at() > now);
        assert_eq!(claims.spiffe_id().trust_domain(), &domain);
        assert!(!claims.confirmation().contains_key("d"));
    }
});

/// When the seeds are valid.
const NOW: i64 = 1_800_000_000;
