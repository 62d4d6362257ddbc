//! The JWT authority of the trust domain: an ES256 key of its own that signs JWT-SVIDs and nothing else, and every token that
//! it mints, read back by the strict parser before it leaves.
//!
//! The few lines of JWS are written here over `ring`, not taken from a JWT library: so the key stays in the one type that
//! holds keys (a library's own key type would be a second copy of it), the header has exactly the three members that
//! JWT-SVID section 2 allows, and there is no default to forget (`nbf`, clock tolerance, optional `exp`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use serde::Serialize;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::audience::Audience;
use crate::hex::hex;
use crate::jwk::EcCoordinates;
use crate::jwt_check::{ALGORITHM, TokenKey};
use crate::jwt_svid::JwtSvid;
use crate::p256_key::{P256Key, SignatureForm};
use crate::secret::Secret;
use crate::spiffe_id::SpiffeId;
use crate::stored_key::{KeyKind, StoredKey};
use crate::trust_domain::TrustDomain;

/// The key that signs JWT-SVIDs.
#[derive(Debug)]
pub(crate) struct JwtAuthority {
    key: P256Key,
    coordinates: EcCoordinates,
    kid: String,
    not_after: OffsetDateTime,
    trust_domain: TrustDomain,
}

impl JwtAuthority {
    /// A new authority.
    pub(crate) fn create(trust_domain: &TrustDomain, not_after: OffsetDateTime) -> Result<Self, &'static str> {
        let key = P256Key::generate(SignatureForm::Fixed).map_err(|_| "no key")?;
        Ok(Self::from_parts(key, trust_domain, not_after))
    }

    /// The authority of this file, if all of it fits together; the error says what does not.
    pub(crate) fn load(stored: &StoredKey) -> Result<Self, &'static str> {
        let key = P256Key::from_parts(SignatureForm::Fixed, stored.secret.expose(), &stored.public)
            .map_err(|_| "its private and public key do not belong together")?;
        Ok(Self::from_parts(key, &stored.trust_domain, stored.not_after.ok_or("it does not say when it ends")?))
    }

    fn from_parts(key: P256Key, trust_domain: &TrustDomain, not_after: OffsetDateTime) -> Self {
        let coordinates = EcCoordinates::of(key.public());
        let kid = coordinates.thumbprint();
        Self { key, coordinates, kid, not_after, trust_domain: trust_domain.clone() }
    }

    /// What goes to disk.
    pub(crate) fn stored(&self, created_at: OffsetDateTime) -> Option<StoredKey> {
        Some(StoredKey {
            kind: KeyKind::JwtAuthority,
            trust_domain: self.trust_domain.clone(),
            created_at,
            not_after: Some(self.not_after),
            secret: Secret::copied(self.key.scalar().expose())?,
            public: self.key.public().to_vec(),
            certificate: Vec::new(),
        })
    }

    /// A token. Times are whole seconds; audiences are not empty.
    pub(crate) fn mint(
        &self,
        id: &SpiffeId,
        audiences: &[Audience],
        issued_at: OffsetDateTime,
        expires_at: OffsetDateTime,
    ) -> Result<JwtSvid, &'static str> {
        let jti = Secret::<16>::random(&SystemRandom::new()).map(|id| hex(id.expose())).ok_or("no randomness")?;
        let header = Header { alg: ALGORITHM, kid: &self.kid, typ: "JWT" };
        let payload = Payload {
            sub: id,
            aud: audiences.iter().map(Audience::as_str).collect(),
            exp: expires_at.unix_timestamp(),
            iat: issued_at.unix_timestamp(),
            jti: &jti,
        };
        let signed = format!("{}.{}", encode(&header)?, encode(&payload)?);
        let signature = self.key.sign(signed.as_bytes()).map_err(|_| "no signature")?;
        let token = Zeroizing::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)));
        // Reads back what was made: a token that does not say exactly what was meant does not leave.
        let first = audiences.first().ok_or("no audience")?;
        let claims =
            self.token_key().check(&token, first.as_str(), issued_at).map_err(|_| "the token made does not verify")?;
        let as_meant = claims.spiffe_id == *id
            && claims.audiences == audiences
            && claims.expires_at == expires_at
            && claims.issued_at == Some(issued_at)
            && claims.jti.as_deref() == Some(jti.as_str());
        if !as_meant {
            return Err("the token made is not as meant");
        }
        Ok(JwtSvid { token, claims })
    }

    /// The public part that tokens are checked with.
    pub(crate) fn token_key(&self) -> TokenKey<'_> {
        TokenKey { trust_domain: &self.trust_domain, kid: &self.kid, public: self.key.public() }
    }

    /// RFC 7638 thumbprint of the key.
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key for the bundle.
    pub(crate) fn coordinates(&self) -> &EcCoordinates {
        &self.coordinates
    }

    /// No token lives longer.
    pub(crate) fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The private key, for the search in memory.
    pub(crate) fn key(&self) -> &P256Key {
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
}

fn encode(part: &impl Serialize) -> Result<String, &'static str> {
    serde_json::to_vec(part).map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|_| "no JSON")
}
