//! A public key, parsed once, and what it verifies.

use std::fmt;
use std::str::FromStr;

use ring::signature::{ED25519, UnparsedPublicKey};

use crate::error::NkeyError;
use crate::kind::Kind;
use crate::small_order::is_small_order_ed25519;
use crate::text::{KEY_BYTES, decode_public, encode_public};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// A public key of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey {
    kind: Kind,
    bytes: [u8; KEY_BYTES],
}

impl PublicKey {
    /// The key of these bytes.
    pub fn new(kind: Kind, bytes: [u8; KEY_BYTES]) -> Self {
        Self { kind, bytes }
    }

    /// The key in a text, which must be of this kind.
    pub fn parse(text: &str, needed: Kind) -> Result<Self, NkeyError> {
        text.parse::<Self>()?.require(needed)
    }

    /// Itself, if it is of this kind.
    pub fn require(self, needed: Kind) -> Result<Self, NkeyError> {
        if self.kind == needed { Ok(self) } else { Err(NkeyError::WrongKind { needed, found: self.kind }) }
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// Whether `signature` is this key's over `message`. Strict: one form of each signature (RFC 8032 section 5.1.7, without
    /// the cofactor), no keys of small order. A curve key verifies nothing.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.kind != Kind::Curve
            && !is_small_order_ed25519(&self.bytes)
            && UnparsedPublicKey::new(&ED25519, &self.bytes).verify(message, signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = NkeyError;

    fn from_str(text: &str) -> Result<Self, NkeyError> {
        match decode_public(text) {
            Some((kind, bytes)) => Ok(Self { kind, bytes }),
            // Even a mistyped secret is not called something else.
            None if text.trim_start().starts_with(['S', 's', 'P', 'p']) => Err(NkeyError::SecretGiven),
            None => Err(NkeyError::NotPublic),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_public(self.kind, &self.bytes))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::KeyPair;

    #[test]
    fn a_key_of_another_kind_is_refused() {
        for kind in Kind::ALL {
            let text = PublicKey::new(kind, [7; 32]).to_string();
            for needed in Kind::ALL {
                let expected = if kind == needed {
                    Ok(PublicKey::new(kind, [7; 32]))
                } else {
                    Err(NkeyError::WrongKind { needed, found: kind })
                };
                assert_eq!(PublicKey::parse(&text, needed), expected);
            }
        }
    }

    #[test]
    fn something_secret_is_named_as_such_and_not_repeated() {
        let seed = KeyPair::generate(Kind::User).unwrap().seed();
        for text in [seed.to_string(), format!(" {}", *seed), seed.get(..40).unwrap().to_owned(), "PAAAA".to_owned()] {
            let error = text.parse::<PublicKey>().unwrap_err();
            assert_eq!(error, NkeyError::SecretGiven);
            assert!(!error.to_string().contains(&text) && !error.hint().contains(&text));
        }
    }

    #[test]
    fn other_texts_are_no_keys() {
        let text = PublicKey::new(Kind::User, [7; 32]).to_string();
        for other in
            ["", "U", text.get(1..).unwrap(), &text.to_lowercase(), &format!("{text} "), &format!("{text}="), "Ü"]
        {
            assert_eq!(other.parse::<PublicKey>(), Err(NkeyError::NotPublic), "{other}");
        }
    }

    #[test]
    fn a_signature_with_a_scalar_beyond_the_order_is_refused() {
        // Malleability: adding the group's order to the second half gives the same equation.
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let pair = KeyPair::generate(Kind::Server).unwrap();
        let mut signature = pair.sign(b"message").unwrap();
        assert!(pair.public().verifies(b"message", &signature));
        let mut carry = 0_u16;
        for (byte, more) in signature[32..].iter_mut().zip(ORDER) {
            carry += u16::from(*byte) + u16::from(more);
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        assert!(!pair.public().verifies(b"message", &signature));
    }

    #[test]
    fn a_curve_key_verifies_nothing() {
        let pair = KeyPair::generate(Kind::User).unwrap();
        let signature = pair.sign(b"m").unwrap();
        assert!(!PublicKey::new(Kind::Curve, *pair.public().as_bytes()).verifies(b"m", &signature));
    }
}
