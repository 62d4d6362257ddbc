//! Outbound: presents a workload's SVID to exactly one peer.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, TlsStream};

use super::peer::Side;
use super::peer_check::{Authorities, PinnedServer};
use super::remote_key::{OneCertificate, certified};
use super::{HandshakeSigner, Peer, PeerError, Svid, TlsError, provider};
use crate::excerpt::Excerpt;
use crate::spiffe_id::SpiffeId;
use crate::trust_bundle::TrustBundle;

/// Connects as one workload to one peer.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    peer: SpiffeId,
    svid: Arc<Svid>,
}

/// A connector that presents this SVID and accepts no server but this peer, verified by the bundle of the peer's trust domain.
/// The SVID and the bundle are taken as they are now: make a new connector when either changes.
pub fn connector(
    svid: &Arc<Svid>,
    signer: Arc<dyn HandshakeSigner>,
    bundle: &TrustBundle,
    peer: &SpiffeId,
) -> Result<Connector, TlsError> {
    if !peer.has_path() {
        return Err(TlsError::PinnedTrustDomain(peer.clone()));
    }
    let domain = peer.trust_domain();
    let authorities = bundle.get(domain).filter(|document| !document.x509_authorities().is_empty());
    let document = authorities.cloned().ok_or_else(|| TlsError::NoAuthority(domain.clone()))?;
    let certificate = OneCertificate(certified(svid, signer)?);
    let provider = provider();
    let verifier = PinnedServer {
        peer: peer.clone(),
        authorities: Authorities::Bundle(document),
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| TlsError::Handshake(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(certificate));
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Connector { tls: TlsConnector::from(Arc::new(config)), peer: peer.clone(), svid: Arc::clone(svid) })
}

impl Connector {
    /// The same, offering these protocols (ALPN).
    #[must_use]
    pub fn with_protocols(self, protocols: &[&[u8]]) -> Self {
        let mut config = ClientConfig::clone(self.tls.config());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self { tls: TlsConnector::from(Arc::new(config)), ..self }
    }

    /// The handshake over this stream. The server name tells the server which identity to present and is not checked
    /// against its certificate. Returns the verified peer.
    pub async fn connect<IO>(&self, server_name: &str, io: IO) -> Result<(TlsStream<IO>, Peer), TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| TlsError::ServerName(Excerpt::new(server_name)))?;
        let stream = self.tls.connect(name, io).await.map_err(TlsError::of_handshake)?;
        let peer = Peer::shown(stream.get_ref().1.peer_certificates(), Side::Server, None, Arc::clone(&self.svid))?;
        if *peer.spiffe_id() != self.peer {
            let found = peer.spiffe_id().clone();
            return Err(PeerError::WrongPeer { expected: self.peer.clone(), found }.into());
        }
        Ok((TlsStream::Client(stream), peer))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("peer", &self.peer).finish_non_exhaustive()
    }
}
