//! The JWT authority of the trust domain: a key of its own that signs JWT-SVIDs and nothing else, and every token that it mints,
//! read back by the strict parser before it leaves.
//!
//! The few lines of JWS are written here, not taken from a JWT library: so the key stays in the one type that holds keys (a
//! library's own key type would be a second copy of it, and could not be one in a token), the header has exactly the three
//! members that JWT-SVID section 2 allows, and there is no default to forget (`nbf`, clock tolerance, optional `exp`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use serde::Serialize;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::audience::Audience;
use crate::authority::AuthorityId;
use crate::authority_key::AuthorityKey;
use crate::hex::hex;
use crate::jwt_check::check_jwt;
use crate::jwt_issuer::JwtIssuer;
use crate::jwt_key::{JwtKey, JwtKeys};
use crate::jwt_svid::JwtSvid;
use crate::secret::Secret;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// The key that signs JWT-SVIDs.
#[derive(Debug)]
pub(crate) struct JwtAuthority {
    key: AuthorityKey,
    algorithm: &'static str,
    kid: String,
    /// Its own public key only.
    verifier: JwtKeys,
}

impl JwtAuthority {
    /// The authority of this key.
    pub(crate) fn new(key: AuthorityKey, trust_domain: &TrustDomain) -> Self {
        let algorithm = key.algorithm().jws();
        let public = JwtKey::own(key.public(), algorithm);
        let kid = public.kid().to_owned();
        let verifier = JwtKeys::new(trust_domain.clone(), vec![public]);
        Self { key, algorithm: algorithm.name(), kid, verifier }
    }

    /// Its `kid`.
    pub(crate) fn id(&self) -> Result<AuthorityId, &'static str> {
        self.kid.parse().map_err(|_| "its kid is malformed")
    }

    /// A token. Times are whole seconds; audiences are not empty.
    pub(crate) fn mint(
        &self,
        id: &SpiffeId,
        audiences: &[Audience],
        issued_at: OffsetDateTime,
        expires_at: OffsetDateTime,
        issuer: Option<&JwtIssuer>,
    ) -> Result<JwtSvid, &'static str> {
        let jti = Secret::<16>::random(&SystemRandom::new()).map(|id| hex(id.expose())).ok_or("no randomness")?;

        let payload = Payload {
            sub: id,
            aud: audiences.iter().map(Audience::as_str).collect(),
            exp: expires_at.unix_timestamp(),
            iat: issued_at.unix_timestamp(),
            jti: &jti,
            iss: issuer.map(JwtIssuer::as_str),
        };
        let token = self.sign("JWT", &payload)?;
        // Reads back what was made: a token that does not say exactly what was meant does not leave.
        let first = audiences.first().ok_or("no audience")?;
        let claims = check_jwt(&token, first.as_str(), &self.verifier, issued_at)
            .map_err(|_| "the token made does not verify")?;
        let as_meant = claims.spiffe_id == *id
            && claims.audiences == audiences
            && claims.expires_at == expires_at
            && claims.issued_at == Some(issued_at)
            && claims.jti.as_deref() == Some(jti.as_str())
            && claims.issuer.as_deref() == issuer.map(JwtIssuer::as_str);
        if !as_meant {
            return Err("the token made is not as meant");
        }
        Ok(JwtSvid { token, claims })
    }

    /// A compact JWS over these claims.
    pub(crate) fn sign(&self, typ: &str, payload: &impl Serialize) -> Result<Zeroizing<String>, &'static str> {
        let header = Header { alg: self.algorithm, kid: &self.kid, typ };
        let signed = format!("{}.{}", encode(&header)?, encode(payload)?);
        let signature = self.key.sign(signed.as_bytes()).map_err(|_| "no signature")?;
        Ok(Zeroizing::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }

    /// What its own tokens are checked with.
    pub(crate) fn verifier(&self) -> &JwtKeys {
        &self.verifier
    }

    /// The private key.
    pub(crate) fn key(&self) -> &AuthorityKey {
        &self.key
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

#[derive(Serialize)]
struct Payload<'a> {
    sub: &'a SpiffeId,
    aud: Vec<&'a str>,
    exp: i64,
    iat: i64,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

fn encode(part: &impl Serialize) -> Result<String, &'static str> {
    serde_json::to_vec(part).map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|_| "no JSON")
}
