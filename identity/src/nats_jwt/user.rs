//! The token of a user: who it is for, what it may do, until when.

use portcullis_nkey::{Kind, PublicKey};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::names::{AccountName, NameError, Tag, UserName};
use super::permissions::Permissions;
use super::signer::{AccountSigner, SignerError};
use super::token::{NatsJwtError, TokenType};
use super::unsigned::Unsigned;
use crate::limits::MAX_NATS_TAGS;

/// What a user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    /// Exactly this.
    Explicit(Permissions),
    /// What the template of a scoped signing key says, with its places filled from these tags. The token itself says nothing:
    /// servers refuse one that adds to the template.
    Scoped(Vec<Tag>),
}

/// A user's token to be made. There is none without an end, nor without [`Rights`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserToken {
    user: PublicKey,
    name: UserName,
    rights: Rights,
    expires_at: OffsetDateTime,
    account: Option<AccountName>,
    bearer: bool,
}

impl UserToken {
    /// A token for the holder of this user key.
    pub fn new(
        user: PublicKey,
        name: UserName,
        rights: Rights,
        expires_at: OffsetDateTime,
    ) -> Result<Self, NatsJwtError> {
        let user = user.require(Kind::User).map_err(|_| SignerError::Kind)?;
        if let Rights::Scoped(tags) = &rights {
            let twice = tags.iter().enumerate().any(|(at, tag)| tags.iter().take(at).any(|one| one.key() == tag.key()));
            // Of two values for one place a server makes two subjects.
            if twice || tags.len() > MAX_NATS_TAGS {
                return Err(NatsJwtError::Name(NameError::Tag));
            }
        }
        Ok(Self { user, name, rights, expires_at, account: None, bearer: false })
    }

    /// Names the account to be placed in: where a server's configuration knows accounts by name.
    pub fn in_account(mut self, account: AccountName) -> Self {
        self.account = Some(account);
        self
    }

    /// Good without the user's key: whoever has the token may use it. For a sentinel that may do nothing.
    pub fn danger_bearer(mut self) -> Self {
        self.bearer = true;
        self
    }

    /// When it ends.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }

    /// The token, signed for the signer's account.
    pub fn sign(self, signer: &AccountSigner, now: OffsetDateTime) -> Result<String, NatsJwtError> {
        let mut nats = Map::new();
        match (&self.rights, signer.is_signing_key()) {
            (Rights::Explicit(permissions), _) => {
                permissions.write(&mut nats);
                // Absent, these would be 0.
                for limit in ["subs", "data", "payload"] {
                    nats.insert(limit.to_owned(), json!(-1));
                }
            }
            // Without a template it would be a token without permissions: everything.
            (Rights::Scoped(_), false) => return Err(SignerError::OwnKey.into()),
            (Rights::Scoped(tags), true) => {
                if !tags.is_empty() {
                    let tags: Vec<Value> = tags.iter().map(|tag| json!(tag.to_string())).collect();
                    nats.insert("tags".to_owned(), Value::Array(tags));
                }
            }
        }
        if signer.is_signing_key() {
            if self.account.is_some() {
                return Err(SignerError::SigningKey.into());
            }
            nats.insert("issuer_account".to_owned(), json!(signer.of_account().to_string()));
        }
        if self.bearer {
            if matches!(self.rights, Rights::Scoped(_)) {
                return Err(NatsJwtError::Claims("a bearer token has explicit permissions"));
            }
            nats.insert("bearer_token".to_owned(), json!(true));
        }
        let token = Unsigned {
            kind: TokenType::User,
            subject: self.user,
            audience: self.account.as_ref().map(AccountName::as_str),
            name: Some(self.name.as_str()),
            expires_at: Some(self.expires_at),
            nats,
        };
        token.sign(signer.key(), now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_nkey::KeyPair;

    use super::*;
    use crate::nats_jwt::{Subscription, Verified};

    const NOW: i64 = 1_800_000_000;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(NOW).unwrap()
    }

    fn pair(kind: Kind) -> KeyPair {
        KeyPair::generate(kind).unwrap()
    }

    fn token(user: PublicKey, rights: Rights) -> UserToken {
        let name = "spiffe://example.org/host/h1".parse().unwrap();
        UserToken::new(user, name, rights, now() + Duration::from_millis(60_900)).unwrap()
    }

    fn explicit() -> Rights {
        let subscription = Subscription { subject: "b.>".parse().unwrap(), queue: None };
        Rights::Explicit(Permissions::new(vec!["a".parse().unwrap()], vec![subscription], None).unwrap())
    }

    #[test]
    fn a_user_is_placed_by_name_with_exactly_its_rights_and_an_end() {
        let (account, user) = (pair(Kind::Account), pair(Kind::User).public());
        let issuer = account.public();
        let signer = AccountSigner::account(account).unwrap();
        let text = token(user, explicit()).in_account("APP".parse().unwrap()).sign(&signer, now()).unwrap();
        let read = Verified::parse(&text, TokenType::User).unwrap();
        assert_eq!((read.issuer(), read.subject(), read.audience()), (issuer, user, Some("APP")));
        assert_eq!(read.name(), Some("spiffe://example.org/host/h1"));
        assert_eq!(read.expires_at().unwrap().unix_timestamp(), NOW + 60, "whole seconds, never later");
        assert_eq!(read.issuer_account(), Ok(issuer));
        let wanted = json!({"pub": {"allow": ["a"]}, "sub": {"allow": ["b.>"]}, "subs": -1, "data": -1, "payload": -1,
            "type": "user", "version": 2});
        assert_eq!(Value::Object(read.nats().clone()), wanted);
    }

    #[test]
    fn a_signing_key_names_its_account() {
        let (account, user) = (pair(Kind::Account).public(), pair(Kind::User).public());
        let signer = AccountSigner::signing_key(pair(Kind::Account), account).unwrap();
        let text = token(user, explicit()).sign(&signer, now()).unwrap();
        let read = Verified::parse(&text, TokenType::User).unwrap();
        assert_eq!((read.issuer(), read.issuer_account()), (signer.public(), Ok(account)));
        let placed = token(user, explicit()).in_account("APP".parse().unwrap()).sign(&signer, now());
        assert_eq!(placed, Err(SignerError::SigningKey.into()));
    }

    #[test]
    fn a_scoped_token_says_nothing_but_its_tags() {
        let (account, user) = (pair(Kind::Account), pair(Kind::User).public());
        let signer = AccountSigner::signing_key(pair(Kind::Account), account.public()).unwrap();
        let scoped = || Rights::Scoped(vec![Tag::new("host", "h1").unwrap()]);
        let text = token(user, scoped()).sign(&signer, now()).unwrap();
        let read = Verified::parse(&text, TokenType::User).unwrap();
        let wanted =
            json!({"tags": ["host:h1"], "issuer_account": account.public().to_string(), "type": "user", "version": 2});
        assert_eq!(Value::Object(read.nats().clone()), wanted);
        let own = AccountSigner::account(account).unwrap();
        assert_eq!(token(user, scoped()).sign(&own, now()), Err(SignerError::OwnKey.into()));
        assert!(token(user, scoped()).danger_bearer().sign(&signer, now()).is_err());
    }

    #[test]
    fn one_place_has_one_value_and_tags_are_few() {
        let user = pair(Kind::User).public();
        let with = |tags| UserToken::new(user, "a".parse().unwrap(), Rights::Scoped(tags), now());
        let tag = |key: &str, value: &str| Tag::new(key, value).unwrap();
        assert!(with(vec![tag("host", "h1"), tag("host", "h2")]).is_err());
        let many = |count: usize| (0..count).map(|i| tag(&format!("k{i}"), "v")).collect::<Vec<_>>();
        assert!(with(many(MAX_NATS_TAGS)).is_ok());
        assert!(with(many(MAX_NATS_TAGS + 1)).is_err());
    }

    #[test]
    fn a_token_that_is_over_or_for_no_user_is_not_made() {
        let signer = AccountSigner::account(pair(Kind::Account)).unwrap();
        let over = UserToken::new(pair(Kind::User).public(), "a".parse().unwrap(), explicit(), now()).unwrap();
        assert_eq!(over.sign(&signer, now()), Err(NatsJwtError::AlreadyOver));
        for kind in [Kind::Account, Kind::Server, Kind::Curve] {
            let key = PublicKey::new(kind, [7; 32]);
            assert!(UserToken::new(key, "a".parse().unwrap(), explicit(), now()).is_err());
        }
    }
}
