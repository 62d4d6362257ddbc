//! nkeys of users (`U...`, `SU...`): who signs statements without an SVID.

use std::fmt;
use std::str::FromStr;

use portcullis_nkey::{KeyPair, Kind, PublicKey};

/// A public user key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserKey(PublicKey);

/// A seed, that is: the private key. It has no text and no copy, and is wiped.
pub struct UserSeed(KeyPair);

/// The text is no nkey of a user. Whoever wrote it erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UserKeyError {
    /// Not `U` and 55 further characters with the right checksum.
    #[error("this is no public nkey of a user (U..., 56 characters)")]
    Public,
    /// Not `SU` and 56 further characters with the right checksum.
    #[error("this is no seed of a user's nkey (SU..., 58 characters)")]
    Seed,
}

impl UserKeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Public => "`portcullis keys show FILE` prints the public key; it begins with U",
            Self::Seed => "the file holds the seed and nothing else; `portcullis keys generate --kind user` makes one",
        }
    }
}

impl UserKey {
    /// Whether the signature of the message is by this key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verifies(message, signature)
    }
}

impl UserSeed {
    /// The seed in this text, without a line's end.
    pub fn parse(text: &str) -> Result<Self, UserKeyError> {
        if text.trim_ascii() != text {
            return Err(UserKeyError::Seed);
        }
        KeyPair::from_seed_of(text, Kind::User).map(Self).map_err(|_| UserKeyError::Seed)
    }

    /// Its public half.
    pub fn public(&self) -> UserKey {
        UserKey(self.0.public())
    }

    /// Signs the input of a statement. A seed that was read signs; were it not so, an empty signature is nobody's.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).map(|signature| signature.to_vec()).unwrap_or_default()
    }
}

impl FromStr for UserKey {
    type Err = UserKeyError;

    fn from_str(text: &str) -> Result<Self, UserKeyError> {
        PublicKey::parse(text, Kind::User).map(Self).map_err(|_| UserKeyError::Public)
    }
}

impl fmt::Display for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for UserSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserSeed(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_reference_implementation() {
        for _ in 0..20 {
            let reference = nkeys::KeyPair::new_user();
            let seed = UserSeed::parse(&reference.seed().unwrap()).unwrap();
            assert_eq!(seed.public().to_string(), reference.public_key());
            assert_eq!(reference.public_key().parse(), Ok(seed.public()));
            assert!(reference.verify(b"input", &seed.sign(b"input")).is_ok());
            assert!(seed.public().verifies(b"input", &reference.sign(b"input").unwrap()));
            assert!(!seed.public().verifies(b"Input", &reference.sign(b"input").unwrap()));
        }
    }

    #[test]
    fn keys_of_other_kinds_and_texts_that_are_none_are_refused() {
        let account = nkeys::KeyPair::new_account();
        assert!(account.public_key().parse::<UserKey>().is_err());
        assert!(UserSeed::parse(&account.seed().unwrap()).is_err());
        let user = nkeys::KeyPair::new_user();
        for text in [
            String::new(),
            user.public_key().to_lowercase(),
            user.public_key().replace('U', "V"),
            format!("{} ", user.public_key()),
            user.seed().unwrap(),
        ] {
            assert!(text.parse::<UserKey>().is_err(), "{text}");
        }
        for text in [String::new(), user.public_key(), format!("{}\n", user.seed().unwrap())] {
            assert!(UserSeed::parse(&text).is_err());
        }
        assert_eq!(format!("{:?}", UserSeed::parse(&user.seed().unwrap()).unwrap()), "UserSeed(..)");
    }

    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        // The neutral point: with it, R = B and S = 1 would be a signature of every message.
        let mut point = [0; 32];
        point[0] = 1;
        let weak: UserKey = portcullis_nkey::encode_public(Kind::User, &point).parse().unwrap();
        let base = [0x58].into_iter().chain([0x66; 31]);
        let forged: Vec<u8> = base.chain([1]).chain([0; 31]).collect();
        assert!(!weak.verifies(b"anything", &forged));
    }
}
