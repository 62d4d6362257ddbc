//! nkeys of users (`U...`, `SU...`): who signs statements without an SVID. Ed25519, by `ring`.

use std::fmt;
use std::str::FromStr;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

/// A public user key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserKey([u8; 32]);

/// A seed, that is: the private key. It has no text and no copy, and is wiped.
pub struct UserSeed {
    pair: Ed25519KeyPair,
    public: UserKey,
}

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
            Self::Public => "`nsc list keys` or `nk -inkey FILE -pubout` prints the public key; it begins with U",
            Self::Seed => "the file holds the seed and nothing else; `nk -gen user` makes one",
        }
    }
}

impl UserKey {
    /// Whether the signature of the message is by this key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl UserSeed {
    /// The seed in this text, without a line's end.
    pub fn parse(text: &str) -> Result<Self, UserKeyError> {
        let (kind, seed) = nkeys::decode_seed(text).map_err(|_| UserKeyError::Seed)?;
        let seed = Zeroizing::new(seed);
        if kind != USER {
            return Err(UserKeyError::Seed);
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(|_| UserKeyError::Seed)?;
        let public = pair.public_key().as_ref().try_into().map(UserKey).map_err(|_| UserKeyError::Seed)?;
        Ok(Self { pair, public })
    }

    /// Its public half.
    pub fn public(&self) -> UserKey {
        self.public
    }

    /// Signs the input of a statement.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl FromStr for UserKey {
    type Err = UserKeyError;

    fn from_str(text: &str) -> Result<Self, UserKeyError> {
        match nkeys::from_public_key(text) {
            // One key, one text.
            Ok((USER, key)) if Self(key).to_string() == text => Ok(Self(key)),
            _ => Err(UserKeyError::Public),
        }
    }
}

impl fmt::Display for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut raw = Vec::with_capacity(35);
        raw.push(USER);
        raw.extend_from_slice(&self.0);
        raw.extend_from_slice(&crc16(&raw).to_le_bytes());
        let bits = raw.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect::<Vec<_>>();
        bits.chunks(5).try_for_each(|five| {
            let value =
                five.iter().chain(std::iter::repeat(&0)).take(5).fold(0_usize, |v, bit| v << 1 | usize::from(*bit));
            fmt::Write::write_char(f, ALPHABET.get(value).copied().map_or('A', char::from))
        })
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

/// CRC-16/XMODEM.
fn crc16(data: &[u8]) -> u16 {
    data.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// The prefix of user keys.
const USER: u8 = 20 << 3;

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
}
