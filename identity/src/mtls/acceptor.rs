//! Inbound: presents the SVID of the component that the client asks for by server name, and demands the client's.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, TlsStream};

use super::peer::Side;
use super::peer_check::AnyClient;
use super::remote_key::certified;
use super::{HandshakeSigner, Peer, Svid, TlsError, provider};
use crate::trust_bundle::TrustBundle;

/// Whom to be for a server name (lower case), or nobody.
pub type Resolve = dyn Fn(Option<&str>) -> Option<ServedIdentity> + Send + Sync;

/// An identity that is served.
#[derive(Debug, Clone)]
pub struct ServedIdentity {
    /// What is presented.
    pub svid: Arc<Svid>,
    /// Who signs for it.
    pub signer: Arc<dyn HandshakeSigner>,
}

/// Accepts clients that present an X.509-SVID of a trusted domain.
#[derive(Clone)]
pub struct Acceptor {
    base: Arc<ServerConfig>,
    resolve: Arc<Resolve>,
}

/// An acceptor. Both closures are asked anew in each handshake, so rotation of SVIDs and bundles needs nothing more for new
/// connections; a live one can be verified again through its [`Peer`].
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
        .with_cert_resolver(Arc::new(One(None)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Acceptor { base: Arc::new(config), resolve })
}

impl Acceptor {
    /// The same, choosing the first of these protocols that the client offers (ALPN); clients that offer none of them are
    /// refused, those that offer nothing are not.
    #[must_use]
    pub fn with_protocols(self, protocols: &[&[u8]]) -> Self {
        let mut config = ServerConfig::clone(&self.base);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self { base: Arc::new(config), ..self }
    }

    /// The handshake over this stream. Returns who the client is.
    pub async fn accept<IO>(&self, io: IO) -> Result<(TlsStream<IO>, Peer), TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io);
        let start = start.await.map_err(TlsError::of_handshake)?;
        let name = start.client_hello().server_name().map(str::to_ascii_lowercase);
        let served = (self.resolve)(name.as_deref());
        // Each connection knows what it presented. An SVID that cannot be used is like none: the handshake is refused.
        let key = served.as_ref().and_then(|served| certified(&served.svid, Arc::clone(&served.signer)).ok());
        let mut config = ServerConfig::clone(&self.base);
        config.cert_resolver = Arc::new(One(key));
        let stream = start.into_stream(Arc::new(config)).await.map_err(TlsError::of_handshake)?;
        let presented = served.ok_or(TlsError::NotServed)?.svid;
        let certificates = stream.get_ref().1.peer_certificates();
        let peer = Peer::shown(certificates, Side::Client, name, presented)?;
        Ok((TlsStream::Server(stream), peer))
    }
}

/// What one connection presents; with nothing to present its handshake is refused.
#[derive(Debug)]
struct One(Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for One {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}
