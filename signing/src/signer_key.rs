//! The public key of a signer: Ed25519 (an nkey `A...`) or ECDSA P-256 (`p256:` and the base64 of its SubjectPublicKeyInfo).
//!
//! Signatures of P-256 are ASN.1 DER over SHA-256, as Sigstore, cosign and key services make them. No other curve, no other
//! hash, no other encoding: an algorithm is a property of the key in the trust policy, never of the evidence.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use crate::excerpt::{Excerpt, serde_as_text};
use crate::key::{KeyError, KeyKind, PublicKey};

/// Bytes of an uncompressed point of P-256: 4, x, y.
const POINT_BYTES: usize = 65;
/// RFC 5480: SubjectPublicKeyInfo of id-ecPublicKey with secp256r1, up to the point.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// RFC 8410: SubjectPublicKeyInfo of id-Ed25519, up to the key.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256_PREFIX: &str = "p256:";

/// The public key of a signer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SignerKey {
    /// An Ed25519 key of the kind [`KeyKind::Signer`].
    Ed25519(PublicKey),
    /// An ECDSA P-256 key.
    P256(P256Key),
}

/// An ECDSA P-256 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct P256Key([u8; POINT_BYTES]);

/// Why a text or file is not the public key of a signer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignerKeyError {
    /// Not a key of a signer.
    #[error(transparent)]
    Ed25519(#[from] KeyError),
    /// Not an ECDSA P-256 key.
    #[error("`{0}` is not a P-256 public key")]
    P256(String),
    /// Not a SubjectPublicKeyInfo of a key that is supported.
    #[error("this is not the SubjectPublicKeyInfo of an Ed25519 or ECDSA P-256 key")]
    Spki,
    /// Not PEM of a public key.
    #[error("this is not a public key in PEM")]
    Pem,
    /// PEM of something secret.
    #[error("this is a private key, not a public one")]
    SecretGiven,
}

impl SignerKeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            SignerKeyError::Ed25519(error) => error.hint(),
            SignerKeyError::P256(_) => {
                "p256: is followed by the base64 of the key's SubjectPublicKeyInfo: the one line of its PEM"
            }
            SignerKeyError::Spki => "other algorithms are not supported; make an Ed25519 or ECDSA P-256 key",
            SignerKeyError::Pem => {
                "a public key begins with -----BEGIN PUBLIC KEY-----; `openssl pkey -pubout` and `cosign public-key` write it"
            }
            SignerKeyError::SecretGiven => "keep it secret; `openssl pkey -pubout` writes its public half",
        }
    }
}

impl SignerKey {
    /// A key from the DER of its SubjectPublicKeyInfo.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, SignerKeyError> {
        if let Some(key) = der.strip_prefix(ED25519_SPKI.as_slice()) {
            let bytes = key.try_into().map_err(|_| SignerKeyError::Spki)?;
            return Ok(Self::Ed25519(PublicKey::from_bytes(KeyKind::Signer, bytes)));
        }
        P256Key::from_spki_der(der).map(Self::P256).ok_or(SignerKeyError::Spki)
    }

    /// A key from the PEM of its SubjectPublicKeyInfo.
    pub fn from_pem(text: &str) -> Result<Self, SignerKeyError> {
        if text.contains("PRIVATE KEY") {
            return Err(SignerKeyError::SecretGiven);
        }
        let body = text
            .trim()
            .strip_prefix("-----BEGIN PUBLIC KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
            .ok_or(SignerKeyError::Pem)?;
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        Self::from_spki_der(&STANDARD.decode(body).map_err(|_| SignerKeyError::Pem)?)
    }

    /// The DER of its SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> Vec<u8> {
        match self {
            SignerKey::Ed25519(key) => [ED25519_SPKI.as_slice(), key.as_bytes()].concat(),
            SignerKey::P256(key) => [P256_SPKI.as_slice(), &key.0].concat(),
        }
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            SignerKey::Ed25519(key) => key.verify(message, signature),
            SignerKey::P256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &key.0).verify(message, signature).is_ok()
            }
        }
    }

    /// Whether a bundle's hint may mean this key: its text, or as cosign writes it the base64 of the SHA-256 of its
    /// SubjectPublicKeyInfo. A hint selects, it proves nothing.
    pub fn matches_hint(&self, hint: &str) -> bool {
        hint == self.to_string() || {
            let digest = ring::digest::digest(&ring::digest::SHA256, &self.spki_der());
            hint == STANDARD.encode(digest.as_ref())
        }
    }

    /// Refuses a root key, which never signs claims.
    pub(crate) fn checked(self) -> Result<Self, SignerKeyError> {
        match self {
            SignerKey::Ed25519(key) => Ok(Self::Ed25519(key.require(KeyKind::Signer)?)),
            SignerKey::P256(_) => Ok(self),
        }
    }
}

impl P256Key {
    fn from_spki_der(der: &[u8]) -> Option<Self> {
        let point: [u8; POINT_BYTES] = der.strip_prefix(P256_SPKI.as_slice())?.try_into().ok()?;
        // Whether it lies on the curve is checked at each use; a point that does not verifies nothing.
        (point.first() == Some(&4)).then_some(Self(point))
    }
}

impl From<PublicKey> for SignerKey {
    fn from(key: PublicKey) -> Self {
        SignerKey::Ed25519(key)
    }
}

impl fmt::Display for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignerKey::Ed25519(key) => fmt::Display::fmt(key, f),
            SignerKey::P256(_) => write!(f, "{P256_PREFIX}{}", STANDARD.encode(self.spki_der())),
        }
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&SignerKey::P256(*self), f)
    }
}

impl FromStr for SignerKey {
    type Err = SignerKeyError;

    fn from_str(text: &str) -> Result<Self, SignerKeyError> {
        let Some(spki) = text.strip_prefix(P256_PREFIX) else {
            return Ok(Self::Ed25519(text.parse()?));
        };
        let der = STANDARD.decode(spki).ok();
        der.and_then(|der| P256Key::from_spki_der(&der))
            .map(Self::P256)
            .ok_or_else(|| SignerKeyError::P256(Excerpt(text).to_string()))
    }
}

serde_as_text!(SignerKey);

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::*;
    use crate::key::SecretKey;

    fn p256() -> (EcdsaKeyPair, SignerKey) {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let key = SignerKey::P256(P256Key(pair.public_key().as_ref().try_into().unwrap()));
        (pair, key)
    }

    #[test]
    fn both_algorithms_verify_their_own_signatures_only() {
        let (pair, p256) = p256();
        let secret = SecretKey::generate(KeyKind::Signer).unwrap();
        let ed25519 = SignerKey::from(secret.public());
        let signature = pair.sign(&SystemRandom::new(), b"m").unwrap();
        assert!(p256.verify(b"m", signature.as_ref()) && !p256.verify(b"n", signature.as_ref()));
        assert!(ed25519.verify(b"m", &secret.sign(b"m")));
        assert!(!ed25519.verify(b"m", signature.as_ref()) && !p256.verify(b"m", &secret.sign(b"m")));
    }

    #[test]
    fn a_key_survives_its_text_its_der_and_its_pem() {
        let (_, p256) = p256();
        let ed25519 = SignerKey::from(SecretKey::generate(KeyKind::Signer).unwrap().public());
        for key in [p256, ed25519] {
            assert_eq!(key.to_string().parse(), Ok(key));
            assert_eq!(SignerKey::from_spki_der(&key.spki_der()), Ok(key));
            let pem =
                format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(key.spki_der()));
            assert_eq!(SignerKey::from_pem(&pem), Ok(key));
            assert!(key.matches_hint(&key.to_string()) && !key.matches_hint(""));
            let digest = ring::digest::digest(&ring::digest::SHA256, &key.spki_der());
            assert!(key.matches_hint(&STANDARD.encode(digest.as_ref())));
        }
    }

    #[test]
    fn other_keys_are_refused() {
        let (_, p256) = p256();
        let der = p256.spki_der();
        let mut compressed = der.clone();
        compressed[26] = 2;
        for other in [&der[..90], &[der.as_slice(), &[0]].concat(), &compressed, &[]] {
            assert_eq!(SignerKey::from_spki_der(other), Err(SignerKeyError::Spki));
        }
        for text in ["p256:", "p256:AAAA", "p384:x", &format!("{p256} "), &p256.to_string().replace("p256:", "P256:")] {
            assert!(text.parse::<SignerKey>().is_err(), "{text}");
        }
        for pem in ["", "-----BEGIN PUBLIC KEY-----", "-----BEGIN PUBLIC KEY----------END PUBLIC KEY-----"] {
            assert!(SignerKey::from_pem(pem).is_err(), "{pem}");
        }
        assert_eq!(SignerKey::from_pem("-----BEGIN EC PRIVATE KEY-----"), Err(SignerKeyError::SecretGiven));
    }

    #[test]
    fn a_root_key_is_no_signer() {
        let root = SecretKey::generate(KeyKind::Root).unwrap().public();
        assert!(SignerKey::from(root).checked().is_err());
    }
}
