//! A client certificate with its private key, from two PEM files: for the process that holds keys.
//!
//! The pair is taken only if the key is the certificate's. It signs the content of a client's TLS 1.3 CertificateVerify and
//! nothing else, with the one scheme of its key.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::handshake_message::check_client_certificate_verify;
use crate::hex::hex;
use crate::limits::MAX_CHAIN_CERTIFICATES;

/// Why a certificate and its key cannot be used. Whoever wrote the files erred, except where it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NatsKeyError {
    /// No certificates, or too many.
    #[error("the certificate file has no certificate chain of 1 to {MAX_CHAIN_CERTIFICATES} certificates")]
    Chain,
    /// No key.
    #[error("the key file has no private key that can be used")]
    Key,
    /// They do not belong together.
    #[error("the key is not that of the certificate")]
    Mismatch,
    /// Not valid any more.
    #[error("the client certificate ended at {0}")]
    Expired(OffsetDateTime),
    /// Not valid yet.
    #[error("the client certificate is not valid before {0}")]
    TooEarly(OffsetDateTime),
    /// Something else was to be signed. The caller erred, or means ill.
    #[error("only a client's handshakes are signed")]
    Message,
    /// The key did not sign. Our error.
    #[error("the key did not sign")]
    NotSigned,
}

impl NatsKeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Chain => "give a PEM file with the client's certificate first, then its intermediates",
            Self::Key => "give an unencrypted PEM file with a PKCS#8, SEC1 or PKCS#1 key: P-256, P-384, Ed25519 or RSA",
            Self::Mismatch => "replace both files together, the certificate last",
            Self::Expired(_) => "put a new certificate and its key in place of the files",
            Self::TooEarly(_) => "see that the clocks of this machine and of the issuer agree",
            Self::Message | Self::NotSigned => "see the log of the identity process",
        }
    }
}

/// A chain and its key.
pub struct NatsKey {
    chain: Vec<Vec<u8>>,
    key: Arc<dyn SigningKey>,
    key_id: String,
    scheme: SignatureScheme,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl NatsKey {
    /// Reads a chain and its key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, NatsKeyError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain: Vec<CertificateDer<'static>> = chain.map_err(|_| NatsKeyError::Chain)?;
        let leaf = chain.first().filter(|_| chain.len() <= MAX_CHAIN_CERTIFICATES).ok_or(NatsKeyError::Chain)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| NatsKeyError::Chain)?;
        let (not_before, not_after) =
            (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime());
        let key_id = hex(digest(&SHA256, leaf).as_ref());
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| NatsKeyError::Key)?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| NatsKeyError::Key)?;
        let scheme = SCHEMES.into_iter().find(|scheme| key.choose_scheme(&[*scheme]).is_some());
        let scheme = scheme.ok_or(NatsKeyError::Key)?;
        CertifiedKey::new(chain.clone(), Arc::clone(&key)).keys_match().map_err(|_| NatsKeyError::Mismatch)?;
        let chain = chain.iter().map(|der| der.to_vec()).collect();
        Ok(Self { chain, key, key_id, scheme, not_before, not_after })
    }

    /// Whether it may be shown now.
    pub fn check(&self, now: OffsetDateTime) -> Result<(), NatsKeyError> {
        if now >= self.not_after {
            return Err(NatsKeyError::Expired(self.not_after));
        }
        if now < self.not_before { Err(NatsKeyError::TooEarly(self.not_before)) } else { Ok(()) }
    }

    /// DER, leaf first.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The SHA-256 of the leaf, in hexadecimal.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// How it signs (RFC 8446 section 4.2.3).
    pub fn scheme(&self) -> u16 {
        self.scheme.into()
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Signs the content of a client's CertificateVerify.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NatsKeyError> {
        check_client_certificate_verify(message).map_err(|_| NatsKeyError::Message)?;
        let signer = self.key.choose_scheme(&[self.scheme]).ok_or(NatsKeyError::NotSigned)?;
        signer.sign(message).map_err(|_| NatsKeyError::NotSigned)
    }
}

/// Whether this is the content of a client's TLS 1.3 CertificateVerify.
pub fn is_client_handshake(message: &[u8]) -> bool {
    check_client_certificate_verify(message).is_ok()
}

impl fmt::Debug for NatsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Schemes of TLS 1.3, one for each kind of key.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use time::Duration;

    use super::*;

    fn pair(key: &KeyPair, from: Duration, to: Duration) -> String {
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now + from, now + to);
        params.self_signed(key).unwrap().pem()
    }

    fn message(side: &str) -> Vec<u8> {
        [&[0x20; 64][..], format!("TLS 1.3, {side} CertificateVerify\0").as_bytes(), &[7; 32]].concat()
    }

    #[test]
    fn keys_of_each_kind_sign_a_clients_handshake_and_nothing_else() {
        let keys = [
            (KeyPair::generate().unwrap(), SignatureScheme::ECDSA_NISTP256_SHA256),
            (KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(), SignatureScheme::ECDSA_NISTP384_SHA384),
            (KeyPair::generate_for(&PKCS_ED25519).unwrap(), SignatureScheme::ED25519),
        ];
        for (key, scheme) in keys {
            let pem = pair(&key, Duration::hours(-1), Duration::hours(1));
            let read = NatsKey::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
            assert_eq!(read.scheme(), u16::from(scheme));
            assert_eq!(read.check(OffsetDateTime::now_utc()), Ok(()));
            assert!(!read.sign(&message("client")).unwrap().is_empty());
            for other in [message("server"), Vec::new(), b"eyJhbGciOiJFUzI1NiJ9.e30".to_vec()] {
                assert_eq!(read.sign(&other), Err(NatsKeyError::Message));
            }
        }
    }

    #[test]
    fn what_does_not_belong_together_or_is_no_pair_is_refused() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let pem = pair(&key, Duration::hours(-1), Duration::hours(1));
        let read = |chain: &str, key: &str| NatsKey::from_pem(chain.as_bytes(), key.as_bytes()).err();
        assert_eq!(read(&pem, &other.serialize_pem()), Some(NatsKeyError::Mismatch));
        assert_eq!(read(&pem, &pem), Some(NatsKeyError::Key));
        assert_eq!(read("", &key.serialize_pem()), Some(NatsKeyError::Chain));
        assert_eq!(read(&key.serialize_pem(), &key.serialize_pem()), Some(NatsKeyError::Chain));
        assert_eq!(read(&pem.repeat(MAX_CHAIN_CERTIFICATES + 1), &key.serialize_pem()), Some(NatsKeyError::Chain));
        assert_eq!(read(&pem.replace('A', "!"), &key.serialize_pem()), Some(NatsKeyError::Chain));
        assert_eq!(read(&pem.repeat(MAX_CHAIN_CERTIFICATES), &key.serialize_pem()), None);
    }

    #[test]
    fn a_certificate_is_shown_within_its_life_alone() {
        let key = KeyPair::generate().unwrap();
        let now = OffsetDateTime::now_utc();
        let old = pair(&key, Duration::hours(-2), Duration::hours(-1));
        let old = NatsKey::from_pem(old.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        assert!(matches!(old.check(now), Err(NatsKeyError::Expired(_))));
        let early = pair(&key, Duration::hours(1), Duration::hours(2));
        let early = NatsKey::from_pem(early.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        assert!(matches!(early.check(now), Err(NatsKeyError::TooEarly(_))));
    }
}
