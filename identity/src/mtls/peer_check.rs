//! Decides whether a peer is who it must be: an X.509-SVID in shape (X509-SVID section 5.2), of the pinned ID where one is
//! pinned, with a valid path to an authority of its own trust domain and of no other. Path validation is webpki's, at the
//! time that `rustls` gives.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};

use crate::bundle_document::BundleDocument;
use crate::leaf::{Leaf, LeafError};
use crate::limits::MAX_CHAIN_CERTIFICATES;
use crate::spiffe_id::SpiffeId;
use crate::trust_bundle::TrustBundle;
use crate::trust_domain::TrustDomain;

/// Why a peer's certificate was refused. The peer erred, or trust is configured otherwise than meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No X.509-SVID.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// Another workload than the pinned one.
    #[error("the peer is {found}, not {expected}")]
    WrongPeer {
        /// Who was expected.
        expected: SpiffeId,
        /// Who is there.
        found: SpiffeId,
    },
    /// The bundle has no authority for the peer's trust domain, or none that has not ended.
    #[error("the peer's trust domain {0} is not trusted")]
    UnknownTrustDomain(TrustDomain),
    /// Over [`MAX_CHAIN_CERTIFICATES`].
    #[error("the peer presented more than {MAX_CHAIN_CERTIFICATES} certificates")]
    LongChain,
    /// It showed nothing.
    #[error("the peer presented no certificates")]
    NoChain,
    /// An authority in the path has name constraints of the URI kind. X509-SVID section 4.2 warns of them: the library does
    /// not evaluate them and treats each as violated.
    #[error("the peer's chain has name constraints, which are not supported")]
    NameConstraints,
    /// No valid path: expired, wrong authority.
    #[error("the peer's chain is not valid: {0}")]
    Path(String),
}

impl PeerError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Leaf(error) => error.hint(),
            Self::WrongPeer { .. } => {
                "if this peer is meant, pin its SPIFFE ID; if not, somebody else answers at this address"
            }
            Self::UnknownTrustDomain(_) => "federate with the peer's trust domain by adding its bundle",
            Self::LongChain => "the peer must present its leaf and the intermediates, not its roots",
            Self::NoChain => "the peer must present its X.509-SVID",
            Self::NameConstraints => {
                "issue the peer's authority without name constraints: URI name constraints are not supported, and one trust domain is fenced from another by its bundle"
            }
            Self::Path(_) => "see that the peer's SVID has not expired and that the bundle is current",
        }
    }
}

/// Accepts exactly one server.
#[derive(Debug)]
pub(crate) struct PinnedServer {
    pub(crate) peer: SpiffeId,
    pub(crate) authorities: Authorities,
    pub(crate) provider: Arc<CryptoProvider>,
}

/// Accepts clients of every trust domain in the bundle as it is at the time of the handshake.
pub(super) struct AnyClient {
    pub(super) bundle: Arc<dyn Fn() -> Arc<TrustBundle> + Send + Sync>,
    pub(super) provider: Arc<CryptoProvider>,
}

/// Under which authorities a pinned server's certificate must be.
#[derive(Debug)]
pub(crate) enum Authorities {
    /// Those of the bundle of its trust domain that have not ended.
    Bundle(Arc<BundleDocument>),
    /// Those that a site's file names.
    File(Arc<RootCertStore>),
}

impl Authorities {
    fn roots(&self, now: UnixTime) -> Option<Arc<RootCertStore>> {
        match self {
            Self::Bundle(document) => document.roots(now),
            Self::File(roots) => Some(Arc::clone(roots)),
        }
    }
}

impl PinnedServer {
    fn check(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<(), PeerError> {
        let found = shape(leaf, rest)?;
        if found != self.peer {
            return Err(PeerError::WrongPeer { expected: self.peer.clone(), found });
        }
        let unknown = || PeerError::UnknownTrustDomain(found.trust_domain().clone());
        let roots = self.authorities.roots(now).ok_or_else(unknown)?;
        server_path(leaf, rest, &roots, now, &self.provider)
    }
}

impl AnyClient {
    fn check(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<(), PeerError> {
        let found = shape(leaf, rest)?;
        // X509-SVID section 5.1: only the authorities of the SVID's own trust domain count.
        let domain = found.trust_domain();
        let roots = (self.bundle)().roots(domain, now).ok_or_else(|| PeerError::UnknownTrustDomain(domain.clone()))?;
        client_path(leaf, rest, roots, now, &self.provider)
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now).map_err(refusal)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, now).map_err(refusal)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl std::fmt::Debug for AnyClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnyClient")
    }
}

/// A valid path from a server's leaf to one of these roots.
pub(super) fn server_path(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), PeerError> {
    let parsed = ParsedCertificate::try_from(leaf).map_err(|e| path_error(&e))?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, rest, now, algorithms).map_err(|e| path_error(&e))
}

/// A valid path from a client's leaf to one of these roots.
pub(super) fn client_path(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    roots: Arc<RootCertStore>,
    now: UnixTime,
    provider: &Arc<CryptoProvider>,
) -> Result<(), PeerError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map_err(|e| PeerError::Path(e.to_string()))?;
    verifier.verify_client_cert(leaf, rest, now).map(|_| ()).map_err(|e| path_error(&e))
}

/// The ID of a leaf in the shape of an X.509-SVID, in a chain that is not too long.
pub(super) fn shape(leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<SpiffeId, PeerError> {
    if rest.len() >= MAX_CHAIN_CERTIFICATES {
        return Err(PeerError::LongChain);
    }
    Ok(Leaf::parse(leaf)?.spiffe_id)
}

fn path_error(error: &Error) -> PeerError {
    match error {
        Error::InvalidCertificate(reason) => match format!("{reason:?}") {
            text if text.contains(NAME_CONSTRAINTS) => PeerError::NameConstraints,
            text => PeerError::Path(text),
        },
        other => PeerError::Path(other.to_string()),
    }
}

fn refusal(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// What `rustls` says of a violated name constraint; a test pins it.
const NAME_CONSTRAINTS: &str = "NameConstraintViolation";
