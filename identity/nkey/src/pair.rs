//! A key with its secret half. The seed is wiped when it is dropped and has no text but the one that [`KeyPair::seed`] gives.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use crate::error::NkeyError;
use crate::kind::Kind;
use crate::public::{PublicKey, SIGNATURE_BYTES};
use crate::text::{KEY_BYTES, decode_public, decode_seed, encode_seed};

/// An Ed25519 key that signs. No `Clone`, no `Serialize`, no content in `Debug`.
///
/// Signed by ed25519-dalek, which wipes what it works out of a seed, and works out the public half once rather than at each
/// signature; signatures are checked by ring, as everywhere.
pub struct KeyPair {
    /// In a box: what is moved leaves a copy behind that nobody wipes.
    key: Box<SigningKey>,
    public: PublicKey,
}

impl KeyPair {
    /// A new key of this kind, which is not [`Kind::Curve`].
    pub fn generate(kind: Kind) -> Result<Self, NkeyError> {
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(seed.as_mut_slice()).map_err(|_| NkeyError::NoRandom)?;
        Self::new(kind, &seed)
    }

    /// The key of a seed's text. White space around it is left out, as files end with a line's end.
    pub fn from_seed(text: &str) -> Result<Self, NkeyError> {
        let text = text.trim_ascii();
        let Some((kind, bytes)) = decode_seed(text) else {
            let public = decode_public(text).is_some();
            return Err(if public { NkeyError::PublicGiven } else { NkeyError::NotSeed });
        };
        Self::new(kind, &bytes)
    }

    /// The key of a seed's text, which must be of this kind.
    pub fn from_seed_of(text: &str, needed: Kind) -> Result<Self, NkeyError> {
        match decode_seed(text.trim_ascii()) {
            Some((found, _)) if found != needed => Err(NkeyError::WrongKind { needed, found }),
            _ => Self::from_seed(text),
        }
    }

    /// Its seed's text: `S`, the letter of its kind and 56 more.
    pub fn seed(&self) -> Zeroizing<String> {
        encode_seed(self.public.kind(), self.key.as_bytes())
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        self.public.kind()
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Its signature of a message. Deterministic.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], NkeyError> {
        self.key.try_sign(message).map(|signature| signature.to_bytes()).map_err(|_| NkeyError::NotSeed)
    }

    fn new(kind: Kind, seed: &[u8; KEY_BYTES]) -> Result<Self, NkeyError> {
        if kind == Kind::Curve {
            // An X25519 secret is no seed of Ed25519.
            return Err(NkeyError::WrongKind { needed: Kind::User, found: kind });
        }
        let key = Box::new(SigningKey::from_bytes(seed));
        let public = PublicKey::new(kind, key.verifying_key().to_bytes());
        Ok(Self { key, public })
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair(of {})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing() -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| *kind != Kind::Curve)
    }

    #[test]
    fn a_key_survives_its_seed_in_every_kind_that_signs() {
        for kind in signing() {
            let pair = KeyPair::generate(kind).unwrap();
            let again = KeyPair::from_seed(&format!("{}\n", *pair.seed())).unwrap();
            assert_eq!((again.public(), again.kind()), (pair.public(), kind));
            assert!(again.public().verifies(b"m", &pair.sign(b"m").unwrap()));
            assert!(!again.public().verifies(b"n", &pair.sign(b"m").unwrap()));
        }
    }

    #[test]
    fn signatures_are_those_of_the_reference_implementation() {
        let pair = KeyPair::generate(Kind::User).unwrap();
        let reference = nkeys::KeyPair::from_seed(&pair.seed()).unwrap();
        assert_eq!(reference.public_key(), pair.public().to_string());
        assert_eq!(reference.sign(b"nonce").unwrap(), pair.sign(b"nonce").unwrap());
    }

    #[test]
    fn seeds_of_another_kind_public_keys_and_noise_are_refused() {
        let user = KeyPair::generate(Kind::User).unwrap();
        let refused = KeyPair::from_seed_of(&user.seed(), Kind::Account).err();
        assert_eq!(refused, Some(NkeyError::WrongKind { needed: Kind::Account, found: Kind::User }));
        assert!(KeyPair::from_seed_of(&user.seed(), Kind::User).is_ok());
        assert_eq!(KeyPair::from_seed(&user.public().to_string()).err(), Some(NkeyError::PublicGiven));
        assert_eq!(KeyPair::from_seed("SUAA").err(), Some(NkeyError::NotSeed));
        assert_eq!(KeyPair::from_seed_of("SUAA", Kind::User).err(), Some(NkeyError::NotSeed));
    }

    #[test]
    fn a_curve_seed_signs_nothing() {
        let seed = encode_seed(Kind::Curve, &[3; 32]);
        assert!(matches!(KeyPair::from_seed(&seed), Err(NkeyError::WrongKind { found: Kind::Curve, .. })));
        assert!(KeyPair::generate(Kind::Curve).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let pair = KeyPair::generate(Kind::Operator).unwrap();
        assert_eq!(format!("{pair:?}"), format!("KeyPair(of {})", pair.public()));
    }
}
