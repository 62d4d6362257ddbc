//! A P-256 private key: made by `ring` from the system's randomness, used for one purpose, wiped when dropped.
//!
//! `ring` keeps the scalar inside its key pair and does not wipe it; so the pair is made when the key signs for the first time,
//! and lives in a box that is overwritten in place with a public dummy key before it is freed. What `ring` leaves on the stack while it makes or uses a key is beyond reach:
//! the boundary that holds is the process.

use std::fmt;
use std::hint::black_box;
use std::sync::OnceLock;

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
};

use zeroize::Zeroizing;

use crate::secret::Secret;

/// How signatures are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignatureForm {
    /// ASN.1 DER: X.509 and TLS.
    Asn1,
    /// `r || s`, 64 bytes: JWS (RFC 7518 section 3.4).
    Fixed,
}

/// A private key with its public part.
pub(crate) struct P256Key {
    /// Made at the first signature: most keys of leaves wait long for theirs, or never make one.
    pair: OnceLock<Box<EcdsaKeyPair>>,
    scalar: Secret<SCALAR_BYTES>,
    public: [u8; POINT_BYTES],
    form: SignatureForm,
}

/// The system gave no randomness, or the key is no P-256 key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key could not be made or used")]
pub(crate) struct KeyError;

impl P256Key {
    /// A new key.
    pub(crate) fn generate(form: SignatureForm) -> Result<Self, KeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(form.algorithm(), &SystemRandom::new()).map_err(|_| KeyError)?;
        // ring's document is the same template as ours: both parts lie at fixed places.
        let rest = document.as_ref().strip_prefix(&PKCS8_HEAD).ok_or(KeyError)?;
        let (scalar, rest) = rest.split_at_checked(SCALAR_BYTES).ok_or(KeyError)?;
        let public = rest.strip_prefix(&PKCS8_POINT).ok_or(KeyError)?;
        let scalar = Secret::copied(scalar).ok_or(KeyError)?;
        let public = public.try_into().map_err(|_| KeyError)?;
        Ok(Self { pair: OnceLock::new(), scalar, public, form })
    }

    /// The key with this scalar (big-endian) and uncompressed public point, if the one belongs to the other.
    pub(crate) fn from_parts(form: SignatureForm, scalar: &[u8], public: &[u8]) -> Result<Self, KeyError> {
        let pair = OnceLock::from(Box::new(key_pair(form, scalar, public)?));
        let scalar = Secret::copied(scalar).ok_or(KeyError)?;
        let public = public.try_into().map_err(|_| KeyError)?;
        Ok(Self { pair, scalar, public, form })
    }

    /// Signs the SHA-256 of the message.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair()?.sign(&SystemRandom::new(), message).map_err(|_| KeyError)?;
        Ok(signature.as_ref().to_vec())
    }

    /// Signs the SHA-256 of the message in the form of JWS, whatever the form of this key is.
    pub(crate) fn sign_fixed(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self.form {
            SignatureForm::Fixed => self.sign(message),
            SignatureForm::Asn1 => {
                Self::from_parts(SignatureForm::Fixed, self.scalar.expose(), &self.public)?.sign(message)
            }
        }
    }

    fn pair(&self) -> Result<&EcdsaKeyPair, KeyError> {
        if self.pair.get().is_none() {
            let made = key_pair(self.form, self.scalar.expose(), &self.public)?;
            if let Err(mut second) = self.pair.set(Box::new(made)) {
                wipe(self.form, &mut second);
            }
        }
        self.pair.get().map(Box::as_ref).ok_or(KeyError)
    }

    /// The uncompressed public point: 0x04, x, y.
    pub(crate) fn public(&self) -> &[u8; POINT_BYTES] {
        &self.public
    }

    /// The key as an unencrypted PKCS#8 document (RFC 5958, RFC 5915), for the one who is given the key itself.
    pub(crate) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        // One allocation, so that no copy of the key is left behind by growth.
        let mut document =
            Zeroizing::new(Vec::with_capacity(PKCS8_HEAD.len() + SCALAR_BYTES + PKCS8_POINT.len() + POINT_BYTES));
        document.extend_from_slice(&PKCS8_HEAD);
        document.extend_from_slice(self.scalar.expose());
        document.extend_from_slice(&PKCS8_POINT);
        document.extend_from_slice(&self.public);
        document
    }

    /// The private scalar, big-endian: to store the key and to look for it in memory.
    pub(crate) fn scalar(&self) -> &Secret<SCALAR_BYTES> {
        &self.scalar
    }
}

impl SignatureForm {
    fn algorithm(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::Asn1 => &ECDSA_P256_SHA256_ASN1_SIGNING,
            Self::Fixed => &ECDSA_P256_SHA256_FIXED_SIGNING,
        }
    }
}

impl P256Key {
    fn wipe(&mut self) {
        if let Some(pair) = self.pair.get_mut() {
            wipe(self.form, pair);
        }
    }
}

impl Drop for P256Key {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Key(..)")
    }
}

impl rcgen::PublicKeyData for P256Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for P256Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match self.form {
            SignatureForm::Asn1 => P256Key::sign(self, message).map_err(|_| rcgen::Error::RingUnspecified),
            // A JWT key signs no certificate: one key, one purpose.
            SignatureForm::Fixed => Err(rcgen::Error::UnsupportedSignatureAlgorithm),
        }
    }
}

/// Overwrites the pair in place with one that everybody knows.
fn wipe(form: SignatureForm, pair: &mut Box<EcdsaKeyPair>) {
    if let Ok(dummy) = key_pair(form, &DUMMY_SCALAR, &DUMMY_POINT) {
        **pair = dummy;
        black_box(pair);
    }
}

fn key_pair(form: SignatureForm, scalar: &[u8], public: &[u8]) -> Result<EcdsaKeyPair, KeyError> {
    EcdsaKeyPair::from_private_key_and_public_key(form.algorithm(), scalar, public, &SystemRandom::new())
        .map_err(|_| KeyError)
}

/// PKCS#8 of a P-256 key up to the scalar, and from there to the point.
const PKCS8_HEAD: [u8; 36] = [
    0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
    0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20,
];
const PKCS8_POINT: [u8; 5] = [0xa1, 0x44, 0x03, 0x42, 0x00];

/// Bytes of a private scalar.
pub(crate) const SCALAR_BYTES: usize = 32;
/// Bytes of an uncompressed point.
pub(crate) const POINT_BYTES: usize = 65;

/// The scalar 1 and its point, the generator of P-256 (FIPS 186-4, D.1.2.3): a key pair that everybody knows.
const DUMMY_SCALAR: [u8; SCALAR_BYTES] =
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const DUMMY_POINT: [u8; POINT_BYTES] = [
    0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77, 0x03,
    0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe,
    0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce,
    0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];

#[cfg(test)]
mod tests {
    use ring::signature::KeyPair;

    use super::*;

    #[test]
    fn a_key_made_from_its_parts_signs_alike() {
        let key = P256Key::generate(SignatureForm::Fixed).unwrap();
        let again = P256Key::from_parts(SignatureForm::Fixed, key.scalar().expose(), key.public()).unwrap();
        let signature = again.sign(b"message").unwrap();
        ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, key.public())
            .verify(b"message", &signature)
            .unwrap();
    }

    #[test]
    fn the_pkcs8_document_is_the_same_key_to_other_readers() {
        let key = P256Key::generate(SignatureForm::Asn1).unwrap();
        let read = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.to_pkcs8(), &SystemRandom::new());
        assert_eq!(read.unwrap().public_key().as_ref(), key.public());
        let read = rcgen::KeyPair::try_from(key.to_pkcs8().as_slice()).unwrap();
        assert_eq!(read.public_key_raw(), key.public());
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let (one, two) =
            (P256Key::generate(SignatureForm::Asn1).unwrap(), P256Key::generate(SignatureForm::Asn1).unwrap());
        assert_eq!(P256Key::from_parts(SignatureForm::Asn1, one.scalar().expose(), two.public()).err(), Some(KeyError));
        assert_eq!(P256Key::from_parts(SignatureForm::Asn1, &[0; 32], one.public()).err(), Some(KeyError));
        assert_eq!(P256Key::from_parts(SignatureForm::Asn1, &[1; 31], one.public()).err(), Some(KeyError));
    }

    #[test]
    fn the_dummy_key_is_a_valid_pair() {
        for form in [SignatureForm::Asn1, SignatureForm::Fixed] {
            assert!(key_pair(form, &DUMMY_SCALAR, &DUMMY_POINT).is_ok());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_ring_holds_is_found_by_the_scan_and_gone_after_the_wipe() {
        use std::os::unix::fs::FileExt;

        use crate::key_scan::KeyScan;

        let mut key = P256Key::generate(SignatureForm::Asn1).unwrap();
        let scan = KeyScan::new([key.scalar()].into_iter(), std::iter::empty());
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let pair = key.pair().unwrap();
        let (at, len) = (std::ptr::from_ref(pair).addr(), size_of_val(pair));
        let found = || {
            let mut bytes = vec![0u8; len];
            memory.read_exact_at(&mut bytes, at as u64).unwrap();
            scan.count(&bytes)
        };
        assert_eq!(found(), 1);
        key.wipe();
        assert_eq!(found(), 0);
    }

    #[test]
    fn a_key_for_jwt_signs_no_certificate() {
        let key = P256Key::generate(SignatureForm::Fixed).unwrap();
        assert!(rcgen::SigningKey::sign(&key, b"tbs").is_err());
    }
}
