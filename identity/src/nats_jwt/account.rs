//! The token of an account: who may sign for it, whose logins an auth callout decides. Users for whom nothing is said get
//! nothing.

use portcullis_nkey::{KeyPair, Kind, PublicKey};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::names::{AccountName, NameError, is_name};
use super::permissions::Permissions;
use super::signer::SignerError;
use super::subject::SubjectTemplate;
use super::token::{NatsJwtError, TokenType};
use super::unsigned::Unsigned;
use crate::limits::MAX_NATS_SIGNING_KEYS;

/// An account's token to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountToken {
    account: PublicKey,
    name: AccountName,
    signing_keys: Vec<SigningKey>,
    callout: Option<CalloutBlock>,
    jetstream: Option<JetStreamLimits>,
    expires_at: Option<OffsetDateTime>,
}

/// A key that signs users of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SigningKey {
    /// With whatever permissions it writes.
    Unscoped(PublicKey),
    /// With exactly those of a template.
    Scoped {
        /// The key.
        key: PublicKey,
        /// What it is for.
        role: String,
        /// What its users may do, with places for their tags.
        template: Permissions<SubjectTemplate>,
    },
}

/// Makes the logins of an account the affair of an auth callout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalloutBlock {
    /// The callout's own users.
    pub auth_users: Vec<PublicKey>,
    /// The accounts that it may place into. None: none but its own.
    pub allowed_accounts: Vec<PublicKey>,
    /// The callout's key for boxes.
    pub xkey: Option<PublicKey>,
}

/// How much of JetStream an account may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JetStreamLimits {
    /// Bytes in memory.
    pub memory: u64,
    /// Bytes on disk.
    pub disk: u64,
    /// Streams.
    pub streams: u32,
    /// Consumers.
    pub consumers: u32,
}

impl AccountToken {
    /// An account without JetStream and without signing keys.
    pub fn new(account: PublicKey, name: AccountName) -> Result<Self, NatsJwtError> {
        let account = account.require(Kind::Account).map_err(|_| SignerError::Kind)?;
        Ok(Self { account, name, signing_keys: Vec::new(), callout: None, jetstream: None, expires_at: None })
    }

    /// With these signing keys.
    pub fn signing_keys(mut self, keys: Vec<SigningKey>) -> Result<Self, NatsJwtError> {
        let public = |key: &SigningKey| match key {
            SigningKey::Unscoped(key) | SigningKey::Scoped { key, .. } => *key,
        };
        for (at, key) in keys.iter().enumerate() {
            let wrong = public(key).kind() != Kind::Account || public(key) == self.account;
            let twice = keys.iter().take(at).any(|other| public(other) == public(key));
            if wrong || twice {
                return Err(SignerError::Kind.into());
            }
            if matches!(key, SigningKey::Scoped { role, .. } if !is_name(role)) {
                return Err(NameError::Name.into());
            }
        }
        if keys.len() > MAX_NATS_SIGNING_KEYS {
            return Err(NatsJwtError::Claims("too many signing keys"));
        }
        self.signing_keys = keys;
        Ok(self)
    }

    /// With an auth callout.
    pub fn callout(mut self, callout: CalloutBlock) -> Result<Self, NatsJwtError> {
        let all = |keys: &[PublicKey], kind| keys.iter().all(|key| key.kind() == kind);
        let right = all(&callout.auth_users, Kind::User)
            && all(&callout.allowed_accounts, Kind::Account)
            && callout.xkey.is_none_or(|key| key.kind() == Kind::Curve);
        if callout.auth_users.is_empty() || !right {
            return Err(SignerError::Kind.into());
        }
        self.callout = Some(callout);
        Ok(self)
    }

    /// With JetStream.
    pub fn jetstream(mut self, limits: JetStreamLimits) -> Self {
        self.jetstream = Some(limits);
        self
    }

    /// With an end.
    pub fn expires_at(mut self, end: OffsetDateTime) -> Self {
        self.expires_at = Some(end);
        self
    }

    /// The token, signed by the operator or one of its signing keys.
    pub fn sign(self, operator: &KeyPair, now: OffsetDateTime) -> Result<String, NatsJwtError> {
        let mut limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1});
        if let (Some(jetstream), Some(limits)) = (self.jetstream, limits.as_object_mut()) {
            limits.insert("mem_storage".to_owned(), json!(jetstream.memory));
            limits.insert("disk_storage".to_owned(), json!(jetstream.disk));
            limits.insert("streams".to_owned(), json!(jetstream.streams));
            limits.insert("consumer".to_owned(), json!(jetstream.consumers));
        }
        let mut nothing = Map::new();
        Permissions::<SubjectTemplate>::none().write(&mut nothing);
        let mut nats = Map::new();
        nats.insert("limits".to_owned(), limits);
        nats.insert("default_permissions".to_owned(), Value::Object(nothing));
        if !self.signing_keys.is_empty() {
            nats.insert("signing_keys".to_owned(), self.signing_keys.iter().map(SigningKey::to_json).collect());
        }
        if let Some(callout) = &self.callout {
            nats.insert("authorization".to_owned(), callout.to_json());
        }
        let token = Unsigned {
            kind: TokenType::Account,
            subject: self.account,
            audience: None,
            name: Some(self.name.as_str()),
            expires_at: self.expires_at,
            nats,
        };
        token.sign(operator, now)
    }
}

impl SigningKey {
    fn to_json(&self) -> Value {
        match self {
            Self::Unscoped(key) => json!(key.to_string()),
            Self::Scoped { key, role, template } => {
                let mut written = Map::new();
                template.write(&mut written);
                for limit in ["subs", "data", "payload"] {
                    written.insert(limit.to_owned(), json!(-1));
                }
                json!({"kind": "user_scope", "key": key.to_string(), "role": role, "template": written})
            }
        }
    }
}

impl CalloutBlock {
    fn to_json(&self) -> Value {
        let texts = |keys: &[PublicKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut block = Map::new();
        block.insert("auth_users".to_owned(), json!(texts(&self.auth_users)));
        if !self.allowed_accounts.is_empty() {
            block.insert("allowed_accounts".to_owned(), json!(texts(&self.allowed_accounts)));
        }
        if let Some(xkey) = self.xkey {
            block.insert("xkey".to_owned(), json!(xkey.to_string()));
        }
        Value::Object(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats_jwt::{Subscription, Verified};

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn key(kind: Kind) -> PublicKey {
        KeyPair::generate(kind).unwrap().public()
    }

    fn account() -> AccountToken {
        AccountToken::new(key(Kind::Account), "APP".parse().unwrap()).unwrap()
    }

    #[test]
    fn an_account_says_who_signs_for_it_and_gives_nothing_by_default() {
        let operator = KeyPair::generate(Kind::Operator).unwrap();
        let (signing, user, xkey) = (key(Kind::Account), key(Kind::User), PublicKey::new(Kind::Curve, [9; 32]));
        let subscription = Subscription { subject: "lat.{{tag(host)}}.>".parse().unwrap(), queue: None };
        let template = Permissions::new(vec![], vec![subscription], None).unwrap();
        let scoped = SigningKey::Scoped { key: signing, role: "host".to_owned(), template };
        let callout = CalloutBlock { auth_users: vec![user], allowed_accounts: vec![signing], xkey: Some(xkey) };
        let made = account().signing_keys(vec![scoped]).unwrap().callout(callout).unwrap();
        let read = Verified::parse(&made.sign(&operator, now()).unwrap(), TokenType::Account).unwrap();
        assert_eq!((read.issuer(), read.name(), read.expires_at()), (operator.public(), Some("APP"), None));
        let nothing = json!({"pub": {"deny": [">"]}, "sub": {"deny": [">"]}});
        assert_eq!(read.nats().get("default_permissions"), Some(&nothing));
        let template = json!({"pub": {"deny": [">"]}, "sub": {"allow": ["lat.{{tag(host)}}.>"]}, "subs": -1, "data": -1, "payload": -1});
        let wanted = json!([{"kind": "user_scope", "key": signing.to_string(), "role": "host", "template": template}]);
        assert_eq!(read.nats().get("signing_keys"), Some(&wanted));
        let wanted = json!({"auth_users": [user.to_string()], "allowed_accounts": [signing.to_string()], "xkey": xkey.to_string()});
        assert_eq!(read.nats().get("authorization"), Some(&wanted));
    }

    #[test]
    fn keys_of_other_kinds_the_accounts_own_and_one_twice_are_no_signing_keys() {
        let token = account();
        let own = token.account;
        let one = key(Kind::Account);
        for keys in [vec![key(Kind::User)], vec![own], vec![one, one]] {
            let keys = keys.into_iter().map(SigningKey::Unscoped).collect();
            assert!(
                account().signing_keys(keys).is_err()
                    || token.clone().signing_keys(vec![SigningKey::Unscoped(own)]).is_err()
            );
        }
        let many = |count| (0..count).map(|_| SigningKey::Unscoped(key(Kind::Account))).collect::<Vec<_>>();
        assert!(account().signing_keys(many(MAX_NATS_SIGNING_KEYS)).is_ok());
        assert!(account().signing_keys(many(MAX_NATS_SIGNING_KEYS + 1)).is_err());
        let role = SigningKey::Scoped { key: one, role: "a b".to_owned(), template: Permissions::none() };
        assert!(account().signing_keys(vec![role]).is_err());
    }

    #[test]
    fn a_callout_without_its_own_user_or_with_wrong_keys_is_refused() {
        let right = CalloutBlock { auth_users: vec![key(Kind::User)], allowed_accounts: vec![], xkey: None };
        assert!(account().callout(right.clone()).is_ok());
        for wrong in [
            CalloutBlock { auth_users: vec![], ..right.clone() },
            CalloutBlock { auth_users: vec![key(Kind::Account)], ..right.clone() },
            CalloutBlock { allowed_accounts: vec![key(Kind::User)], ..right.clone() },
            CalloutBlock { xkey: Some(key(Kind::User)), ..right },
        ] {
            assert!(account().callout(wrong).is_err());
        }
    }

    #[test]
    fn only_an_operator_signs_accounts() {
        assert!(account().sign(&KeyPair::generate(Kind::Account).unwrap(), now()).is_err());
        assert!(AccountToken::new(key(Kind::User), "APP".parse().unwrap()).is_err());
    }
}
