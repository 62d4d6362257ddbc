//! The TLS of bundle endpoints, on both sides (SPIFFE_Federation section 5.2): the server alone shows a certificate, nobody asks
//! for the client's. TLS 1.2 and 1.3 with forward secrecy and AEAD only, which is Mozilla's intermediate level. No session is
//! resumed: a resumed one would skip the check of the server's chain.
//!
//! `https_web`: the operator's certificate and key, read here and nowhere else. `https_spiffe`: an X.509-SVID whose key stays
//! with the issuer.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::excerpt::Excerpt;
use crate::limits::{MAX_CHAIN_CERTIFICATES, MAX_WEB_CERTIFICATE_BYTES};
use crate::mtls::{Authorities, PinnedServer, ServedIdentity, TlsError, certified, provider};
use crate::spiffe_id::SpiffeId;
use crate::trust_bundle::TrustBundle;

/// Takes connections of clients that show nothing.
#[derive(Clone)]
pub struct EndpointAcceptor {
    tls: TlsAcceptor,
}

/// A certificate chain of the Web with its private key.
#[derive(Clone)]
pub struct WebCertificate(Arc<CertifiedKey>);

/// Why a certificate and key cannot be used. The configuration erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Over [`MAX_WEB_CERTIFICATE_BYTES`] or [`MAX_CHAIN_CERTIFICATES`].
    #[error("the certificate or key file is too large")]
    TooLarge,
    /// No certificate in it.
    #[error("there is no PEM certificate in the certificate file")]
    NoCertificate,
    /// No key in it.
    #[error("there is no PEM private key in the key file")]
    NoKey,
    /// A key that cannot be used.
    #[error("the private key cannot be used: {0}")]
    Key(Excerpt),
    /// Two different things.
    #[error("the private key is not that of the first certificate")]
    Mismatch,
}

impl CertificateError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Mismatch => {
                "put the server's own certificate first, then its intermediates, and the key that belongs to it"
            }
            _ => {
                "give a PEM file with the server's certificate chain and one with its unencrypted key (PKCS#8, SEC 1 or PKCS#1)"
            }
        }
    }
}

impl WebCertificate {
    /// The chain and the key in these PEM texts.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        if chain.len() > MAX_WEB_CERTIFICATE_BYTES || key.len() > MAX_WEB_CERTIFICATE_BYTES {
            return Err(CertificateError::TooLarge);
        }
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::NoCertificate)?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        if chain.len() > MAX_CHAIN_CERTIFICATES {
            return Err(CertificateError::TooLarge);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|error| CertificateError::Key(Excerpt::new(&error.to_string())))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| CertificateError::Mismatch)?;
        Ok(Self(Arc::new(certified)))
    }
}

/// The certificates in a PEM text, DER: whom to trust in place of the system's roots.
pub fn ca_certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, CertificateError> {
    if pem.len() > MAX_WEB_CERTIFICATE_BYTES {
        return Err(CertificateError::TooLarge);
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).map(|der| der.map(|der| der.to_vec())).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or(CertificateError::NoCertificate)
}

/// An endpoint of the Web. The closure is asked in each handshake, so a certificate that was renewed needs nothing more.
pub fn web_endpoint(
    certificate: impl Fn() -> Option<WebCertificate> + Send + Sync + 'static,
) -> Result<EndpointAcceptor, TlsError> {
    endpoint(&[&TLS13, &TLS12], Resolver(Box::new(move || certificate().map(|found| found.0))))
}

/// An endpoint that shows an X.509-SVID. The closure is asked in each handshake, so rotation needs nothing more. TLS 1.3 only: the
/// issuer signs the content of a TLS 1.3 CertificateVerify and nothing else.
pub fn spiffe_endpoint(
    identity: impl Fn() -> Option<ServedIdentity> + Send + Sync + 'static,
) -> Result<EndpointAcceptor, TlsError> {
    // An SVID that cannot be used is like none: the handshake is refused.
    endpoint(
        &[&TLS13],
        Resolver(Box::new(move || {
            let identity = identity()?;
            certified(&identity.svid, identity.signer).ok()
        })),
    )
}

fn endpoint(versions: &[&'static SupportedProtocolVersion], resolver: Resolver) -> Result<EndpointAcceptor, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|error| TlsError::Handshake(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(EndpointAcceptor { tls: TlsAcceptor::from(Arc::new(config)) })
}

impl EndpointAcceptor {
    /// The handshake over this stream. Bound its time.
    pub async fn accept<IO>(&self, io: IO) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.tls.accept(io).await.map(TlsStream::Server)
    }
}

/// A server that must present one X.509-SVID, to a client that shows none.
pub(super) struct SpiffeServer {
    tls: TlsConnector,
}

impl SpiffeServer {
    pub(super) fn new(trust: &TrustBundle, endpoint: &SpiffeId) -> Result<Self, TlsError> {
        let domain = endpoint.trust_domain();
        let authorities = trust.get(domain).filter(|document| !document.x509_authorities().is_empty());
        let document = authorities.cloned().ok_or_else(|| TlsError::NoAuthority(domain.clone()))?;
        let provider = provider();
        let authorities = Authorities::Bundle(document);
        let pinned = PinnedServer { peer: endpoint.clone(), authorities, provider: Arc::clone(&provider) };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Handshake(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedEndpoint { pinned, provider }))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// The handshake over this stream. The name tells the server whom we want and is not checked against its certificate.
    pub(super) async fn connect<IO>(&self, host: &str, io: IO) -> Result<TlsStream<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| TlsError::ServerName(Excerpt::new(host)))?;
        self.tls.connect(name, io).await.map(TlsStream::Client).map_err(TlsError::of_handshake)
    }
}

/// [`PinnedServer`] for TLS 1.2 as well, which Mozilla's intermediate level has.
#[derive(Debug)]
struct PinnedEndpoint {
    pinned: PinnedServer,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedEndpoint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.pinned.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
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

struct Resolver(Box<dyn Fn() -> Option<Arc<CertifiedKey>> + Send + Sync>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        (self.0)()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl fmt::Debug for EndpointAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointAcceptor")
    }
}

impl fmt::Debug for WebCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebCertificate")
    }
}
