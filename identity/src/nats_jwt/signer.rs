//! The key that an account's tokens are signed with: the account's own, or one of its signing keys.

use portcullis_nkey::{KeyPair, Kind, PublicKey};

/// Signs for an account.
#[derive(Debug)]
pub struct AccountSigner {
    key: KeyPair,
    account: PublicKey,
}

/// Why a key does not sign for an account. Configuration erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// Of another kind than is needed.
    #[error("the key is not of the kind that is needed here")]
    Kind,
    /// The account's own key where a signing key is needed.
    #[error("this is the account's own key, needed is one of its signing keys")]
    OwnKey,
    /// A signing key where the account's own is needed.
    #[error("this is a signing key, needed is the account's own key")]
    SigningKey,
}

impl SignerError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Kind => {
                "accounts and their signing keys begin with A (seeds with SA), operators with O (seeds with SO)"
            }
            Self::OwnKey => {
                "name a scoped signing key of the account: a key of its own, with a template in the account's JWT"
            }
            Self::SigningKey => "in accounts mode the server knows one issuer key and no signing keys: name that one",
        }
    }
}

impl AccountSigner {
    /// The account's own key.
    pub fn account(key: KeyPair) -> Result<Self, SignerError> {
        let account = key.public().require(Kind::Account).map_err(|_| SignerError::Kind)?;
        Ok(Self { key, account })
    }

    /// One of the signing keys of an account.
    pub fn signing_key(key: KeyPair, account: PublicKey) -> Result<Self, SignerError> {
        let public = key.public().require(Kind::Account).map_err(|_| SignerError::Kind)?;
        let account = account.require(Kind::Account).map_err(|_| SignerError::Kind)?;
        if public == account { Err(SignerError::OwnKey) } else { Ok(Self { key, account }) }
    }

    /// The account that it signs for.
    pub fn of_account(&self) -> PublicKey {
        self.account
    }

    /// The public half of the key that signs.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Whether it is a signing key rather than the account's own.
    pub fn is_signing_key(&self) -> bool {
        self.key.public() != self.account
    }

    pub(super) fn key(&self) -> &KeyPair {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_account_keys_sign_for_accounts() {
        let pair = |kind| KeyPair::generate(kind).unwrap();
        assert_eq!(AccountSigner::account(pair(Kind::User)).err(), Some(SignerError::Kind));
        assert_eq!(AccountSigner::account(pair(Kind::Operator)).err(), Some(SignerError::Kind));
        let account = pair(Kind::Account).public();
        assert_eq!(AccountSigner::signing_key(pair(Kind::User), account).err(), Some(SignerError::Kind));
        let user = pair(Kind::User).public();
        assert_eq!(AccountSigner::signing_key(pair(Kind::Account), user).err(), Some(SignerError::Kind));
        let signer = AccountSigner::signing_key(pair(Kind::Account), account).unwrap();
        assert!(signer.is_signing_key() && signer.of_account() == account && signer.public() != account);
        let own = AccountSigner::account(pair(Kind::Account)).unwrap();
        assert!(!own.is_signing_key() && own.of_account() == own.public());
    }

    #[test]
    fn an_accounts_own_key_is_no_signing_key() {
        let own = KeyPair::generate(Kind::Account).unwrap();
        let account = own.public();
        assert_eq!(AccountSigner::signing_key(own, account).err(), Some(SignerError::OwnKey));
    }
}
