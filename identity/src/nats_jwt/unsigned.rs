//! Making the compact form: claims in one order, an id that is their digest, a signature by a key of the kind that the type demands.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_nkey::{KeyPair, PublicKey, base32};
use ring::digest::{SHA512_256, digest};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::signer::SignerError;
use super::token::{HEADER, NatsJwtError, TokenType};
use crate::limits::MAX_NATS_JWT_BYTES;

/// A token to be made.
pub(super) struct Unsigned<'a> {
    pub(super) kind: TokenType,
    pub(super) subject: PublicKey,
    pub(super) audience: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    pub(super) expires_at: Option<OffsetDateTime>,
    /// Without `type` and `version`.
    pub(super) nats: Map<String, Value>,
}

impl Unsigned<'_> {
    /// The token, signed by this key.
    pub(super) fn sign(mut self, key: &KeyPair, now: OffsetDateTime) -> Result<String, NatsJwtError> {
        let wrong = |_| NatsJwtError::Signer(SignerError::Kind);
        key.public().require(self.kind.issuer()).map_err(wrong)?;
        self.subject.require(self.kind.subject()).map_err(wrong)?;
        let issued_at = now.unix_timestamp();
        let mut claims = Map::new();
        if let Some(audience) = self.audience {
            claims.insert("aud".to_owned(), json!(audience));
        }
        if let Some(expires_at) = self.expires_at {
            // Whole seconds, never later than meant.
            let expires_at = expires_at.unix_timestamp();
            if expires_at <= issued_at {
                return Err(NatsJwtError::AlreadyOver);
            }
            claims.insert("exp".to_owned(), json!(expires_at));
        }
        claims.insert("iat".to_owned(), json!(issued_at));
        claims.insert("iss".to_owned(), json!(key.public().to_string()));
        if let Some(name) = self.name {
            claims.insert("name".to_owned(), json!(name));
        }
        claims.insert("sub".to_owned(), json!(self.subject.to_string()));
        self.nats.insert("type".to_owned(), json!(self.kind.name()));
        self.nats.insert("version".to_owned(), json!(2));
        claims.insert("nats".to_owned(), Value::Object(self.nats));
        let defect = |_| NatsJwtError::Defect("its claims cannot be written");
        // The id is a digest of everything else.
        let without_id = serde_json::to_vec(&claims).map_err(defect)?;
        claims.insert("jti".to_owned(), json!(base32(digest(&SHA512_256, &without_id).as_ref())));
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).map_err(defect)?);
        let signed = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(HEADER));
        let signature = key.sign(signed.as_bytes()).map_err(|_| NatsJwtError::Defect("its key does not sign"))?;
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        if token.len() > MAX_NATS_JWT_BYTES {
            return Err(NatsJwtError::TooLarge);
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use portcullis_nkey::Kind;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_tokens_id_is_the_digest_of_everything_else() {
        let key = KeyPair::generate(Kind::Account).unwrap();
        let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
        let made = |name| {
            let subject = PublicKey::new(Kind::User, [7; 32]);
            let token = Unsigned {
                kind: TokenType::User,
                subject,
                audience: None,
                name: Some(name),
                expires_at: None,
                nats: Map::new(),
            };
            let token = token.sign(&key, now).unwrap();
            let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
            let claims: Value = serde_json::from_slice(&payload).unwrap();
            claims["jti"].as_str().unwrap().to_owned()
        };
        assert_eq!((made("a").len(), made("a")), (52, made("a")));
        assert_ne!(made("a"), made("b"));
    }
}
