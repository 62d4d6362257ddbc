//! Ed25519 keys: who signs claims (signer, nkey `A...`) and who signs trust policies (root, nkey `O...`).
//!
//! A signer key where a root key is demanded is refused, and the other way round. The secret half has no text but its
//! seed, which is wiped when dropped.

use std::fmt;
use std::str::FromStr;

use portcullis_nkey::{self as nkey, KEY_BYTES, Kind};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::excerpt::{Excerpt, serde_as_text};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    /// Signs component claims: an account nkey, public `A...`, seed `SA...`.
    Signer,
    /// Signs trust policies: an operator nkey, public `O...`, seed `SO...`.
    Root,
}

/// A public key. As text: an nkey.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey {
    kind: KeyKind,
    bytes: [u8; KEY_BYTES],
}

/// A secret key. No `Debug` of its content, no `Clone`, no `Serialize`; wiped when dropped.
pub struct SecretKey {
    kind: KeyKind,
    seed: Zeroizing<[u8; KEY_BYTES]>,
    public: PublicKey,
}

/// Why a key was not taken. Never repeats what may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a public key.
    #[error("`{text}` is not a public key")]
    NotPublic {
        /// What was given, escaped and cut.
        text: String,
    },
    /// A secret where a public key was expected.
    #[error("this is a secret seed, not a public key")]
    SecretGiven,
    /// Not a seed.
    #[error("this is not the seed of a signer or root key")]
    NotSeed,
    /// A public key where a secret was expected.
    #[error("this is a public key, not a secret seed")]
    PublicGiven,
    /// A key of the other kind.
    #[error("{key} is a {} key, a {} key is needed here", key.kind, needed)]
    WrongKind {
        /// The key given.
        key: PublicKey,
        /// The kind that is needed.
        needed: KeyKind,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandom,
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            KeyError::NotPublic { .. } => "a signer's public key has 56 characters and begins with A, a root's with O",
            KeyError::SecretGiven => "keep it secret; `portcullis keys show FILE` prints the public key",
            KeyError::NotSeed => {
                "a seed has 58 characters and begins with SA (signer) or SO (root); make one with `portcullis keys generate`"
            }
            KeyError::PublicGiven => "name the file that `portcullis keys generate` wrote",
            KeyError::WrongKind { needed: KeyKind::Signer, .. } => {
                "signer keys begin with A; make one with `portcullis keys generate --kind signer`"
            }
            KeyError::WrongKind { needed: KeyKind::Root, .. } => {
                "root keys begin with O; make one with `portcullis keys generate --kind root`"
            }
            KeyError::NoRandom => "check that the kernel's random number generator is up",
        }
    }
}

impl KeyKind {
    fn nkey(self) -> Kind {
        match self {
            KeyKind::Signer => Kind::Account,
            KeyKind::Root => Kind::Operator,
        }
    }

    fn of(nkey: Kind) -> Option<Self> {
        [KeyKind::Signer, KeyKind::Root].into_iter().find(|kind| kind.nkey() == nkey)
    }

    /// `signer` or `root`.
    pub fn name(self) -> &'static str {
        match self {
            KeyKind::Signer => "signer",
            KeyKind::Root => "root",
        }
    }
}

impl PublicKey {
    /// A key from its 32 bytes.
    pub fn from_bytes(kind: KeyKind, bytes: [u8; KEY_BYTES]) -> Self {
        Self { kind, bytes }
    }

    /// What it is for.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// Refuses a key of the other kind.
    pub fn require(self, needed: KeyKind) -> Result<Self, KeyError> {
        if self.kind == needed { Ok(self) } else { Err(KeyError::WrongKind { key: self, needed }) }
    }

    /// Whether `signature` is this key's over `message` (RFC 8032; no malleable encodings).
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        signature.len() == SIGNATURE_BYTES
            && UnparsedPublicKey::new(&ED25519, &self.bytes).verify(message, signature).is_ok()
    }
}

impl SecretKey {
    /// A new key from the operating system's random numbers.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(seed.as_mut_slice()).map_err(|_| KeyError::NoRandom)?;
        Self::new(kind, seed)
    }

    /// Reads `SA...` or `SO...`.
    pub fn from_seed(text: &str) -> Result<Self, KeyError> {
        let Some((kind, seed)) = nkey::decode_seed(text) else {
            return Err(if nkey::decode_public(text).is_some() { KeyError::PublicGiven } else { KeyError::NotSeed });
        };
        Self::new(KeyKind::of(kind).ok_or(KeyError::NotSeed)?, seed)
    }

    /// The seed as text, to be stored.
    pub fn seed(&self) -> Zeroizing<String> {
        nkey::encode_seed(self.kind.nkey(), &self.seed)
    }

    /// What it is for.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs `message`. Deterministic.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut bytes = [0; SIGNATURE_BYTES];
        // INVARIANT: `new` made a pair from this very seed, and an Ed25519 signature has 64 bytes.
        if let Ok(pair) = Ed25519KeyPair::from_seed_unchecked(self.seed.as_slice()) {
            for (to, from) in bytes.iter_mut().zip(pair.sign(message).as_ref()) {
                *to = *from;
            }
        }
        bytes
    }

    fn new(kind: KeyKind, seed: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(|_| KeyError::NotSeed)?;
        let bytes = pair.public_key().as_ref().try_into().map_err(|_| KeyError::NotSeed)?;
        Ok(Self { kind, seed, public: PublicKey { kind, bytes } })
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&nkey::encode_public(self.kind.nkey(), &self.bytes))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let found = nkey::decode_public(text).and_then(|(kind, bytes)| Some(Self { kind: KeyKind::of(kind)?, bytes }));
        match found {
            Some(key) => Ok(key),
            // Even a mistyped seed is not repeated.
            None if text.trim_start().starts_with(['S', 's']) => Err(KeyError::SecretGiven),
            None => Err(KeyError::NotPublic { text: Excerpt(text).to_string() }),
        }
    }
}

serde_as_text!(PublicKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_verifies_and_any_change_does_not() {
        let key = SecretKey::generate(KeyKind::Signer).unwrap();
        let signature = key.sign(b"message");
        assert!(key.public().verify(b"message", &signature));
        assert!(!key.public().verify(b"messagf", &signature));
        assert!(!key.public().verify(b"message", &signature[..63]));
        for position in 0..signature.len() {
            let mut changed = signature;
            changed[position] ^= 1;
            assert!(!key.public().verify(b"message", &changed));
        }
    }

    #[test]
    fn a_key_survives_its_text_in_both_kinds() {
        for (kind, public, seed) in [(KeyKind::Signer, "A", "SA"), (KeyKind::Root, "O", "SO")] {
            let key = SecretKey::generate(kind).unwrap();
            assert!(key.public().to_string().starts_with(public) && key.seed().starts_with(seed));
            let again = SecretKey::from_seed(&key.seed()).unwrap();
            assert_eq!((again.public(), again.kind()), (key.public(), kind));
            assert_eq!(key.public().to_string().parse(), Ok(key.public()));
        }
    }

    #[test]
    fn the_two_kinds_do_not_stand_in_for_each_other() {
        let signer = SecretKey::generate(KeyKind::Signer).unwrap().public();
        assert_eq!(signer.require(KeyKind::Signer), Ok(signer));
        assert!(matches!(signer.require(KeyKind::Root), Err(KeyError::WrongKind { needed: KeyKind::Root, .. })));
    }

    #[test]
    fn other_nkeys_are_refused() {
        for pair in [nkeys::KeyPair::new_user(), nkeys::KeyPair::new_module(), nkeys::KeyPair::new_server()] {
            assert!(pair.public_key().parse::<PublicKey>().is_err());
            assert!(matches!(SecretKey::from_seed(&pair.seed().unwrap()), Err(KeyError::NotSeed)));
        }
    }

    #[test]
    fn a_secret_given_as_a_public_key_is_not_repeated() {
        let seed = SecretKey::generate(KeyKind::Signer).unwrap().seed();
        for text in [seed.to_string(), format!(" {}", *seed), seed.get(..40).unwrap().to_owned()] {
            let error = text.parse::<PublicKey>().unwrap_err();
            assert_eq!(error, KeyError::SecretGiven);
            assert!(!error.to_string().contains(seed.get(2..20).unwrap()));
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = SecretKey::generate(KeyKind::Root).unwrap();
        assert_eq!(format!("{key:?}"), format!("SecretKey(of {})", key.public()));
    }
}
