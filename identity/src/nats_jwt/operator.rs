//! The token of an operator: the root of trust of servers in operator mode.

use portcullis_nkey::{KeyPair, Kind, PublicKey};
use serde_json::{Map, json};
use time::OffsetDateTime;

use super::names::AccountName;
use super::signer::SignerError;
use super::token::{NatsJwtError, TokenType};
use super::unsigned::Unsigned;
use crate::limits::MAX_NATS_SIGNING_KEYS;

/// An operator's token to be made, signed by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorToken {
    name: AccountName,
    system_account: PublicKey,
    signing_keys: Vec<PublicKey>,
}

impl OperatorToken {
    /// The operator of servers whose system account this is.
    pub fn new(name: AccountName, system_account: PublicKey) -> Result<Self, NatsJwtError> {
        let system_account = system_account.require(Kind::Account).map_err(|_| SignerError::Kind)?;
        Ok(Self { name, system_account, signing_keys: Vec::new() })
    }

    /// With keys that sign accounts in its place, so that its own can be kept offline.
    pub fn signing_keys(mut self, keys: Vec<PublicKey>) -> Result<Self, NatsJwtError> {
        if keys.len() > MAX_NATS_SIGNING_KEYS || keys.iter().any(|key| key.kind() != Kind::Operator) {
            return Err(SignerError::Kind.into());
        }
        self.signing_keys = keys;
        Ok(self)
    }

    /// The token. `strict`: accounts and users must be signed by signing keys, never by an account's or operator's own key.
    pub fn sign(self, operator: &KeyPair, strict: bool, now: OffsetDateTime) -> Result<String, NatsJwtError> {
        let mut nats = Map::new();
        nats.insert("system_account".to_owned(), json!(self.system_account.to_string()));
        if !self.signing_keys.is_empty() {
            let keys: Vec<_> = self.signing_keys.iter().map(ToString::to_string).collect();
            nats.insert("signing_keys".to_owned(), json!(keys));
        }
        if strict {
            nats.insert("strict_signing_key_usage".to_owned(), json!(true));
        }
        let (kind, name) = (TokenType::Operator, Some(self.name.as_str()));
        Unsigned { kind, subject: operator.public(), audience: None, name, expires_at: None, nats }.sign(operator, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats_jwt::Verified;

    #[test]
    fn an_operator_signs_itself_and_names_the_system_account() {
        let operator = KeyPair::generate(Kind::Operator).unwrap();
        let (system, signing) = (PublicKey::new(Kind::Account, [1; 32]), PublicKey::new(Kind::Operator, [2; 32]));
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let token = OperatorToken::new("site".parse().unwrap(), system).unwrap().signing_keys(vec![signing]).unwrap();
        let read = Verified::parse(&token.clone().sign(&operator, true, now).unwrap(), TokenType::Operator).unwrap();
        assert_eq!((read.issuer(), read.subject(), read.name()), (operator.public(), operator.public(), Some("site")));
        assert_eq!(read.nats().get("system_account"), Some(&json!(system.to_string())));
        assert_eq!(read.nats().get("signing_keys"), Some(&json!([signing.to_string()])));
        assert_eq!(read.nats().get("strict_signing_key_usage"), Some(&json!(true)));
        assert!(token.sign(&KeyPair::generate(Kind::Account).unwrap(), false, now).is_err());
    }

    #[test]
    fn keys_of_other_kinds_are_refused_and_signing_keys_are_few() {
        assert!(OperatorToken::new("site".parse().unwrap(), PublicKey::new(Kind::User, [1; 32])).is_err());
        let token = || OperatorToken::new("site".parse().unwrap(), PublicKey::new(Kind::Account, [1; 32])).unwrap();
        assert!(token().signing_keys(vec![PublicKey::new(Kind::Account, [2; 32])]).is_err());
        let many = |count| vec![PublicKey::new(Kind::Operator, [2; 32]); count];
        assert!(token().signing_keys(many(MAX_NATS_SIGNING_KEYS)).is_ok());
        assert!(token().signing_keys(many(MAX_NATS_SIGNING_KEYS + 1)).is_err());
    }
}
