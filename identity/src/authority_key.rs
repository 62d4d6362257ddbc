//! The private key of an authority, wherever it lies: a file of the key directory or a PKCS#11 token. Signs with the one
//! algorithm that it was made for.

use crate::jws_algorithm::JwsAlgorithm;
use crate::p256_key::{KeyError, P256Key, SignatureForm};
use crate::public_key::PublicKey;
use crate::rsa_key::RsaKey;
use crate::secret::Secret;
#[cfg(feature = "pkcs11")]
use crate::token_key::TokenKey;

/// What an authority signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum KeyAlgorithm {
    /// ECDSA with P-256 and SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 bits.
    #[serde(rename = "RS256")]
    Rs256,
}

/// A private key.
#[derive(Debug)]
pub(crate) enum AuthorityKey {
    P256(P256Key),
    Rsa(Box<RsaKey>),
    #[cfg(feature = "pkcs11")]
    Token(Box<TokenKey>),
}

impl KeyAlgorithm {
    pub(crate) fn jws(self) -> JwsAlgorithm {
        match self {
            Self::Es256 => JwsAlgorithm::Es256,
            Self::Rs256 => JwsAlgorithm::Rs256,
        }
    }
}

impl AuthorityKey {
    /// A new key in memory.
    pub(crate) fn generate(algorithm: KeyAlgorithm, form: SignatureForm) -> Result<Self, KeyError> {
        match algorithm {
            KeyAlgorithm::Es256 => P256Key::generate(form).map(Self::P256),
            KeyAlgorithm::Rs256 => RsaKey::generate().map(|key| Self::Rsa(Box::new(key))),
        }
    }

    /// Signs the SHA-256 of the message.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::P256(key) => key.sign(message),
            Self::Rsa(key) => key.sign(message),
            #[cfg(feature = "pkcs11")]
            Self::Token(key) => key.sign(message),
        }
    }

    pub(crate) fn public(&self) -> PublicKey {
        match self {
            Self::P256(key) => PublicKey::P256(*key.public()),
            Self::Rsa(key) => key.public().clone(),
            #[cfg(feature = "pkcs11")]
            Self::Token(key) => key.public().clone(),
        }
    }

    pub(crate) fn algorithm(&self) -> KeyAlgorithm {
        match self {
            Self::P256(_) => KeyAlgorithm::Es256,
            Self::Rsa(_) => KeyAlgorithm::Rs256,
            #[cfg(feature = "pkcs11")]
            Self::Token(key) => key.algorithm(),
        }
    }

    /// Whether it lies in a token that is away now.
    pub(crate) fn is_away(&self) -> bool {
        match self {
            Self::P256(_) | Self::Rsa(_) => false,
            #[cfg(feature = "pkcs11")]
            Self::Token(key) => key.is_away(),
        }
    }

    /// The scalar, where the key is one of P-256 in memory: for the search.
    pub(crate) fn scalar(&self) -> Option<&Secret<32>> {
        match self {
            Self::P256(key) => Some(key.scalar()),
            Self::Rsa(_) => None,
            #[cfg(feature = "pkcs11")]
            Self::Token(_) => None,
        }
    }

    /// Other secret pieces in memory, for the search.
    pub(crate) fn traces(&self) -> &[Secret<32>] {
        match self {
            Self::Rsa(key) => key.traces(),
            Self::P256(_) => &[],
            #[cfg(feature = "pkcs11")]
            Self::Token(_) => &[],
        }
    }
}

impl rcgen::PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::P256(key) => key.public(),
            #[cfg(feature = "pkcs11")]
            Self::Token(key) => key.point(),
            // INVARIANT: certificates are made for P-256 only; rcgen refuses the empty key, and so does the self-check.
            Self::Rsa(_) => &[],
        }
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match self {
            Self::P256(key) => rcgen::SigningKey::sign(key, message),
            #[cfg(feature = "pkcs11")]
            Self::Token(key) if key.form() == SignatureForm::Asn1 => {
                key.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
            }
            // A token authority's key signs no certificate: one key, one purpose.
            #[cfg(feature = "pkcs11")]
            Self::Token(_) => Err(rcgen::Error::UnsupportedSignatureAlgorithm),
            Self::Rsa(_) => Err(rcgen::Error::UnsupportedSignatureAlgorithm),
        }
    }
}
