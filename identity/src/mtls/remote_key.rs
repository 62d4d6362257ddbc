//! A `rustls` key without a key: it passes what is to be signed to a [`HandshakeSigner`].

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{Error, OtherError, SignatureAlgorithm, SignatureScheme};

use super::{HandshakeSigner, Svid, TlsError};
use crate::excerpt::Excerpt;
use crate::leaf::Leaf;

/// The signer gave no signature.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct SignerError(pub(super) Excerpt);

/// Presents this SVID.
pub(crate) fn certified(svid: &Svid, signer: Arc<dyn HandshakeSigner>) -> Result<Arc<CertifiedKey>, TlsError> {
    let leaf = svid.chain.first().ok_or(TlsError::OwnSvid("it has no certificate"))?;
    let leaf = Leaf::parse(leaf).map_err(|_| TlsError::OwnSvid("its leaf is no X.509-SVID"))?;
    if leaf.spiffe_id != svid.spiffe_id {
        return Err(TlsError::OwnSvid("its leaf names somebody else"));
    }
    let chain = svid.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = RemoteKey { key_id: Arc::from(svid.key_id.as_str()), signer };
    Ok(Arc::new(CertifiedKey::new(chain, Arc::new(key))))
}

/// Always the same client certificate, whatever hints the server gives.
#[derive(Debug)]
pub(super) struct OneCertificate(pub(super) Arc<CertifiedKey>);

impl ResolvesClientCert for OneCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug, Clone)]
struct RemoteKey {
    key_id: Arc<str>,
    signer: Arc<dyn HandshakeSigner>,
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SCHEME).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for RemoteKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.signer
            .sign(&self.key_id, message)
            .map_err(|reason| Error::Other(OtherError(Arc::new(SignerError(Excerpt::new(&reason))))))
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}

const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
