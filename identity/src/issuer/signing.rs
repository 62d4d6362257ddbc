//! Signatures with the keys of X.509-SVIDs, which never leave: TLS 1.3 handshakes, and data for a purpose.
//!
//! The two can never be taken for one another, nor for a certificate or a token: what is signed for a purpose begins with a
//! text of its own, a CertificateVerify with 64 spaces, a certificate with an ASN.1 sequence, a token with base64url.

use super::Issuer;
use crate::handshake_message::check_certificate_verify;
use crate::limits::MAX_PURPOSE_BYTES;
use crate::statement::{Draft, Signer};
use crate::workload::InstanceId;

/// Why something was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Never admitted, or stopped.
    #[error("the instance {0} has no identity on this host")]
    UnknownInstance(InstanceId),
    /// Not a key of this instance, or of an SVID that was replaced long ago.
    #[error("the instance has no key of this id")]
    UnknownKey,
    /// Not the content of a TLS 1.3 CertificateVerify.
    #[error("only the content of a TLS 1.3 CertificateVerify is signed")]
    NotAHandshake,
    /// Not a purpose. The caller erred.
    #[error("a purpose has 1 to {MAX_PURPOSE_BYTES} characters of a-z, 0-9, '.', '_', '/', ':' and '-'")]
    Purpose,
    /// No randomness: our own error.
    #[error("the signature could not be made")]
    Signing,
}

impl SignError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::UnknownInstance(_) => "an identity exists from admission to stop: start the component again",
            Self::UnknownKey => "fetch the X.509-SVID again and use its key id",
            Self::NotAHandshake => "keys of X.509-SVIDs authenticate TLS 1.3 handshakes and sign nothing else this way",
            Self::Purpose => "name what the signature is for, such as receipts or orders/v1",
            Self::Signing => "see that the system's random source works",
        }
    }
}

impl Issuer {
    /// Signs the content of a TLS 1.3 CertificateVerify (ECDSA P-256, SHA-256, ASN.1 DER) and refuses every other message.
    pub fn sign_handshake(&self, instance: &InstanceId, key_id: &str, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let registration = self.registry.get(instance).ok_or_else(|| SignError::UnknownInstance(instance.clone()))?;
        let held = registration.x509_key(key_id).ok_or(SignError::UnknownKey)?;
        check_certificate_verify(message).map_err(|_| SignError::NotAHandshake)?;
        held.key.sign(message).map_err(|_| SignError::Signing)
    }

    /// Signs data for a purpose: ECDSA P-256, SHA-256, ASN.1 DER over [`signed_message`].
    pub fn sign(&self, instance: &InstanceId, key_id: &str, purpose: &str, data: &[u8]) -> Result<Vec<u8>, SignError> {
        let registration = self.registry.get(instance).ok_or_else(|| SignError::UnknownInstance(instance.clone()))?;
        let held = registration.x509_key(key_id).ok_or(SignError::UnknownKey)?;
        held.key.sign(&signed_message(purpose, data)?).map_err(|_| SignError::Signing)
    }

    /// Signs a statement (ES256) with a key of the instance that the statement says it is by: its token.
    pub fn sign_statement(&self, instance: &InstanceId, key_id: &str, draft: &Draft) -> Result<String, SignError> {
        let registration = self.registry.get(instance).ok_or_else(|| SignError::UnknownInstance(instance.clone()))?;
        let held = registration.x509_key(key_id).ok_or(SignError::UnknownKey)?;
        if draft.signer() != &Signer::Svid(held.svid.spiffe_id.clone()) {
            return Err(SignError::UnknownKey);
        }
        let signature = held.key.sign_fixed(draft.signing_input().as_bytes()).map_err(|_| SignError::Signing)?;
        Ok(draft.token(&signature))
    }
}

/// What is signed for a purpose, and what a verifier checks the signature of: `portcullis signature v1`, a zero byte, the
/// purpose, a zero byte, the data. A purpose has no zero byte, so no two pairs of purpose and data have one message.
pub fn signed_message(purpose: &str, data: &[u8]) -> Result<Vec<u8>, SignError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'/' | b':' | b'-');
    if purpose.is_empty() || purpose.len() > MAX_PURPOSE_BYTES || !purpose.bytes().all(plain) {
        return Err(SignError::Purpose);
    }
    Ok([DOMAIN, purpose.as_bytes(), b"\0", data].concat())
}

const DOMAIN: &[u8] = b"portcullis signature v1\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_for_a_purpose_is_no_handshake_whatever_the_data() {
        let handshake = [&[0x20; 64][..], b"TLS 1.3, client CertificateVerify\0", &[7; 32]].concat();
        assert!(check_certificate_verify(&handshake).is_ok());
        for data in [&b""[..], &handshake, &[0x20; 64]] {
            assert!(check_certificate_verify(&signed_message("receipts", data).unwrap()).is_err());
        }
    }

    #[test]
    fn two_pairs_of_purpose_and_data_never_have_one_message() {
        assert_ne!(signed_message("a", b"b\0c").unwrap(), signed_message("a/b", b"c").unwrap());
        assert_ne!(signed_message("a", b"bc").unwrap(), signed_message("ab", b"c").unwrap());
    }

    #[test]
    fn a_purpose_is_a_short_plain_name() {
        assert!(signed_message(&"a".repeat(MAX_PURPOSE_BYTES), b"").is_ok());
        for purpose in ["", "A", "a b", "a\0b", "\u{e4}", &"a".repeat(MAX_PURPOSE_BYTES + 1)] {
            assert_eq!(signed_message(purpose, b""), Err(SignError::Purpose), "{purpose:?}");
        }
    }
}
