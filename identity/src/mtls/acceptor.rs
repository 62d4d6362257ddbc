//! Inbound: presents the SVID of the component that the client asks for by server name, and demands the client's.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::peer_check::AnyClient;
use super::remote_key::certified;
use super::{HandshakeSigner, PeerError, Svid, TlsError, provider};
use crate::leaf::Leaf;
use crate::spiffe_id::SpiffeId;
use crate::trust_bundle::TrustBundle;

/// Whom to be for a server name (lower case), or nobody.
pub type Resolve = dyn Fn(Option<&str>) -> Option<ServedIdentity> + Send + Sync;

/// An identity that is served.
#[derive(Debug, Clone)]
pub struct ServedIdentity {
    /// What is presented.
    pub svid: Svid,
    /// Who signs for it.
    pub signer: Arc<dyn HandshakeSigner>,
}

/// A client whose certificate was verified. Comes only out of [`Acceptor::accept`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    spiffe_id: SpiffeId,
    not_after: OffsetDateTime,
    server_name: Option<String>,
}

/// Accepts clients that present an X.509-SVID of a trusted domain.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
}

/// An acceptor. Both closures are asked anew in each handshake, so rotation of SVIDs and bundles needs nothing more.
pub fn acceptor(
    resolve: Arc<Resolve>,
    bundle: Arc<dyn Fn() -> Arc<TrustBundle> + Send + Sync>,
) -> Result<Acceptor, TlsError> {
    let provider = provider();
    let verifier = AnyClient { bundle, provider: Arc::clone(&provider) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| TlsError::Handshake(e.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(ByServerName(resolve)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Acceptor { tls: TlsAcceptor::from(Arc::new(config)) })
}

impl Acceptor {
    /// The handshake over this stream. Returns who the client is.
    pub async fn accept<IO>(&self, io: IO) -> Result<(TlsStream<IO>, Peer), TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.tls.accept(io).await.map_err(TlsError::of_handshake)?;
        let connection = stream.get_ref().1;
        let leaf = connection.peer_certificates().unwrap_or_default().first().ok_or(TlsError::NoCertificate)?;
        let leaf = Leaf::parse(leaf).map_err(PeerError::Leaf)?;
        let server_name = connection.server_name().map(str::to_ascii_lowercase);
        let peer = Peer { spiffe_id: leaf.spiffe_id, not_after: leaf.not_after, server_name };
        Ok((TlsStream::Server(stream), peer))
    }
}

impl Peer {
    /// Who it is.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// When its SVID ends; the connection should not outlive it by much.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// What it asked for (lower case): the identity that was presented to it. A request for another name must not pass.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }
}

struct ByServerName(Arc<Resolve>);

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let served = (self.0)(name.as_deref())?;
        // An SVID that cannot be used is like none: the handshake is refused.
        certified(&served.svid, served.signer).ok()
    }
}

impl std::fmt::Debug for ByServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByServerName")
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}
