//! A private key in a PKCS#11 token, named by its label. Writes the token's ECDSA signatures in the form that is wanted.

use std::sync::Arc;

use crate::authority_key::KeyAlgorithm;
use crate::issuer_error::IssuerError;
use crate::p256_key::{KeyError, SignatureForm};
use crate::pkcs11::Token;
use crate::public_key::PublicKey;

/// The key of an authority.
#[derive(Debug)]
pub(crate) struct TokenKey {
    token: Arc<Token>,
    label: String,
    algorithm: KeyAlgorithm,
    form: SignatureForm,
    public: PublicKey,
}

impl TokenKey {
    /// A new key in the token.
    pub(crate) fn generate(
        token: &Arc<Token>,
        label: &str,
        algorithm: KeyAlgorithm,
        form: SignatureForm,
    ) -> Result<Self, IssuerError> {
        let public = token.generate(label, algorithm)?;
        Ok(Self { token: Arc::clone(token), label: label.to_owned(), algorithm, form, public })
    }

    /// The key of this label, if it is there; it must be the private half of this public key.
    pub(crate) fn find(
        token: &Arc<Token>,
        label: &str,
        algorithm: KeyAlgorithm,
        form: SignatureForm,
        public: &PublicKey,
    ) -> Result<Option<Self>, IssuerError> {
        if token.find(label)?.is_none() {
            return Ok(None);
        }
        let challenge = b"portcullis: is this the key?";
        let signature = token.sign(label, algorithm, challenge)?;
        if !public.verifies(algorithm.jws(), challenge, &signature) {
            return Err(IssuerError::Creation("the key in the token is another one than the journal says"));
        }
        let (token, public) = (Arc::clone(token), public.clone());
        Ok(Some(Self { token, label: label.to_owned(), algorithm, form, public }))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.token.sign(&self.label, self.algorithm, message).map_err(|error| {
            tracing::warn!(%error, "the PKCS#11 token did not sign");
            KeyError
        })?;
        match (self.algorithm, self.form) {
            (KeyAlgorithm::Es256, SignatureForm::Asn1) => ecdsa_der(&signature).ok_or(KeyError),
            (KeyAlgorithm::Es256, SignatureForm::Fixed) | (KeyAlgorithm::Rs256, _) => Ok(signature),
        }
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The point of a P-256 key; nothing for another.
    pub(crate) fn point(&self) -> &[u8] {
        match &self.public {
            PublicKey::P256(point) => point,
            PublicKey::P384(_) | PublicKey::Rsa { .. } => &[],
        }
    }

    pub(crate) fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    pub(crate) fn form(&self) -> SignatureForm {
        self.form
    }

    pub(crate) fn is_away(&self) -> bool {
        self.token.is_away()
    }
}

/// `r || s` as the ASN.1 sequence of two integers (RFC 3279 section 2.2.3).
fn ecdsa_der(fixed: &[u8]) -> Option<Vec<u8>> {
    if fixed.len() != 64 {
        return None;
    }
    let (r, s) = fixed.split_at(32);
    let body = [integer(r)?, integer(s)?].concat();
    Some([&[0x30, u8::try_from(body.len()).ok()?], body.as_slice()].concat())
}

fn integer(number: &[u8]) -> Option<Vec<u8>> {
    let mut bytes: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
    if bytes.first().is_none_or(|top| top & 0x80 != 0) {
        bytes.insert(0, 0);
    }
    Some([&[0x02, u8::try_from(bytes.len()).ok()?], bytes.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_shortest_and_positive() {
        let mut fixed = [0u8; 64];
        fixed[31] = 0x7f;
        fixed[32] = 0x80;
        let der = ecdsa_der(&fixed).unwrap();
        assert_eq!(der.get(..5), Some(&[0x30, 38, 0x02, 1, 0x7f][..]));
        assert_eq!(der.get(5..9), Some(&[0x02, 33, 0, 0x80][..]));
        assert_eq!(ecdsa_der(&[0; 64]), Some(vec![0x30, 6, 2, 1, 0, 2, 1, 0]));
        assert_eq!(ecdsa_der(&[0; 63]), None);
    }

    #[test]
    fn a_converted_signature_verifies() {
        let key = crate::p256_key::P256Key::generate(SignatureForm::Fixed).unwrap();
        for message in 0..64u8 {
            let der = ecdsa_der(&key.sign(&[message]).unwrap()).unwrap();
            ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_ASN1, key.public())
                .verify(&[message], &der)
                .unwrap();
        }
    }
}
