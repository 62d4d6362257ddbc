//! Outbound: presents a workload's SVID to exactly one peer.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, TlsStream};

use super::peer_check::PinnedServer;
use super::remote_key::{OneCertificate, certified};
use super::{HandshakeSigner, Svid, TlsError, provider};
use crate::excerpt::Excerpt;
use crate::leaf::Leaf;
use crate::spiffe_id::SpiffeId;
use crate::trust_bundle::TrustBundle;

/// Connects as one workload to one peer.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    peer: SpiffeId,
}

/// A connector that presents this SVID and accepts no server but this peer, verified by the bundle of the peer's trust domain.
/// The SVID and the bundle are taken as they are now: make a new connector when either changes.
pub fn connector(
    svid: &Svid,
    signer: Arc<dyn HandshakeSigner>,
    bundle: &TrustBundle,
    peer: &SpiffeId,
) -> Result<Connector, TlsError> {
    if !peer.has_path() {
        return Err(TlsError::PinnedTrustDomain(peer.clone()));
    }
    let domain = peer.trust_domain();
    let roots = bundle.roots(domain).ok_or_else(|| TlsError::NoAuthority(domain.clone()))?;
    let certificate = OneCertificate(certified(svid, signer)?);
    let provider = provider();
    let verifier = PinnedServer { peer: peer.clone(), roots, provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| TlsError::Handshake(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(certificate));
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Connector { tls: TlsConnector::from(Arc::new(config)), peer: peer.clone() })
}

impl Connector {
    /// The handshake over this stream. The server name tells the server which identity to present and is not checked
    /// against its certificate. Returns the peer's verified ID.
    pub async fn connect<IO>(&self, server_name: &str, io: IO) -> Result<(TlsStream<IO>, SpiffeId), TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| TlsError::ServerName(Excerpt::new(server_name)))?;
        let stream = self.tls.connect(name, io).await.map_err(TlsError::of_handshake)?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let leaf = certificates.first().ok_or(TlsError::NoCertificate)?;
        let found = Leaf::parse(leaf).map_err(super::PeerError::Leaf)?.spiffe_id;
        if found != self.peer {
            return Err(super::PeerError::WrongPeer { expected: self.peer.clone(), found }.into());
        }
        Ok((TlsStream::Client(stream), found))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("peer", &self.peer).finish_non_exhaustive()
    }
}
