//! An X.509-SVID with its key from PEM files, such as spiffe-helper writes them: who signs with it, and who shows it in TLS.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::draft::{Draft, DraftError, SvidSigner};
use super::signers::Signer;
use crate::leaf::Leaf;
use crate::limits::MAX_CHAIN_CERTIFICATES;
use crate::mtls::{HandshakeSigner, Svid};
use crate::p256_key::{P256Key, SignatureForm};
use crate::pkcs8::p256_scalar;

/// The key of an X.509-SVID, with its chain. Wiped when dropped.
pub struct SvidKey {
    key: P256Key,
    signer: SvidSigner,
    svid: Arc<Svid>,
}

/// Why the files are no SVID. Whoever wrote them, or named them, erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidKeyError {
    /// No certificates in PEM, or too many.
    #[error("the file of the certificates holds no chain in PEM")]
    Chain,
    /// Not the leaf of a workload, or its key is not of P-256.
    #[error(transparent)]
    Svid(#[from] DraftError),
    /// No unencrypted PKCS#8 key of P-256 in PEM.
    #[error("the file of the key holds no unencrypted P-256 key (PEM, PKCS#8)")]
    Key,
    /// Two files that do not belong together.
    #[error("the key is not that of the certificate")]
    Mismatch,
}

impl SvidKeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Chain | Self::Svid(_) => {
                "name the files that spiffe-helper writes (svid_file_name, svid_key_file_name)"
            }
            Self::Key => "have the SVID issued with an EC P-256 key, which is what SPIRE does by default",
            Self::Mismatch => "read both files again: they may have been replaced in between",
        }
    }
}

impl SvidKey {
    /// The SVID in these PEM texts.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, SvidKeyError> {
        let certificates = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|_| SvidKeyError::Chain)?;
        if certificates.is_empty() || certificates.len() > MAX_CHAIN_CERTIFICATES {
            return Err(SvidKeyError::Chain);
        }
        let chain: Vec<Vec<u8>> = certificates.iter().map(|der| der.to_vec()).collect();
        let signer = SvidSigner::new(chain.clone())?;
        let leaf = chain.first().map(|der| Leaf::parse(der)).ok_or(SvidKeyError::Chain)?.map_err(DraftError::from)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(key).map_err(|_| SvidKeyError::Key)?;
        let scalar = p256_scalar(key.secret_pkcs8_der()).map_err(|_| SvidKeyError::Key)?;
        let key = P256Key::from_parts(SignatureForm::Asn1, scalar.as_slice(), &leaf.public_key)
            .map_err(|_| SvidKeyError::Mismatch)?;
        let (spiffe_id, not_after) = (leaf.spiffe_id, leaf.not_after);
        let svid = Arc::new(Svid { spiffe_id, chain, key_id: "file".to_owned(), not_after });
        Ok(Self { key, signer, svid })
    }

    /// Its public part, to draft statements with.
    pub fn signer(&self) -> &SvidSigner {
        &self.signer
    }

    /// Its public part, to show in TLS.
    pub fn svid(&self) -> &Arc<Svid> {
        &self.svid
    }

    /// The token of a draft of this SVID's holder; `None`: it is somebody else's draft, or there is no randomness.
    pub fn sign_statement(&self, draft: &Draft) -> Option<String> {
        if draft.signer() != &Signer::Svid(self.svid.spiffe_id.clone()) {
            return None;
        }
        let signature = self.key.sign_fixed(draft.signing_input().as_bytes()).ok()?;
        Some(draft.token(&signature))
    }
}

impl HandshakeSigner for SvidKey {
    fn sign(&self, _: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        self.key.sign(message).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for SvidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SvidKey({})", self.svid.spiffe_id)
    }
}
