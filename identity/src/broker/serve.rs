//! Serves the Broker API and gRPC reflection on one connected socket: mutual TLS first, then gRPC, until the broker goes, its
//! SVID ends or is no longer verified, or the server ends.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::service::Routes;

use super::allowed::AllowList;
use super::brokered::Brokered;
use super::follow::Wakers;
use super::pb::api_server::ApiServer;
use super::service::Service;
use crate::limits::{BROKER_HANDSHAKE, BROKER_KEEPALIVE, BROKER_REQUEST_BYTES, BROKER_STREAMS};
use crate::mtls::{Acceptor, Peer, TlsError};
use crate::spiffe_id::SpiffeId;
use crate::upstream::Clock;
use crate::workload_api::AuthorityShim;

/// What gRPC reflection tells of the service: the compiled `.proto`.
const DESCRIPTORS: &[u8] = include_bytes!("../generated/broker.bin");

/// The server, as it is for every connection.
pub struct BrokerServer<B> {
    /// Demands the broker's X.509-SVID and shows the host's; must offer `h2`.
    pub acceptor: Acceptor,
    /// Who the host is: what references must name.
    pub host: SpiffeId,
    /// Who may ask.
    pub allowed: Arc<AllowList>,
    /// The components.
    pub brokered: Arc<B>,
    /// Reads the time.
    pub clock: Clock,
}

/// Serves one connection; gives the broker's ID when it is over. `still_trusted` is asked again after each change.
pub async fn serve<T, B>(
    server: BrokerServer<B>,
    io: T,
    mut stopping: watch::Receiver<bool>,
    still_trusted: impl Fn(&Peer) -> bool,
) -> Result<SpiffeId, TlsError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: Brokered,
{
    let BrokerServer { acceptor, host, allowed, brokered, clock } = server;
    let accepted = tokio::time::timeout(BROKER_HANDSHAKE, acceptor.accept(io)).await;
    let late = || TlsError::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the handshake took too long"));
    let (stream, peer) = accepted.map_err(|_| late())??;
    // A broker that is not listed gets an answer, too: each call says that it is not allowed.
    let broker = allowed.get(peer.spiffe_id()).cloned().map(Arc::new);
    let mut changes = brokered.changes();
    let wakers = Wakers { changes: changes.clone(), stopping: stopping.clone() };
    let service =
        ApiServer::new(Service { broker, host, brokered, wakers }).max_decoding_message_size(BROKER_REQUEST_BYTES);
    let routes = REFLECTION.clone().add_service(service);
    let mut connection = std::pin::pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(BROKER_KEEPALIVE)
            .keep_alive_timeout(BROKER_KEEPALIVE)
            .max_concurrent_streams(BROKER_STREAMS)
            .max_header_list_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(AuthorityShim::new(stream)), TowerToHyperService::new(routes))
    );
    let left = Duration::try_from(peer.not_after() - clock()).unwrap_or_default();
    let mut ended = std::pin::pin!(tokio::time::sleep(left));
    loop {
        tokio::select! {
            biased;
            // The broker's own SVID ended: it must come again with a new one.
            () = &mut ended => break,
            () = ended_by(&mut stopping) => {
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(DRAIN, connection).await;
                break;
            }
            changed = changes.changed() => {
                if changed.is_err() || !still_trusted(&peer) {
                    break;
                }
            }
            served = &mut connection => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection of the Broker API ended");
                }
                break;
            }
        }
    }
    Ok(peer.spiffe_id().clone())
}

async fn ended_by(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

impl<B> Clone for BrokerServer<B> {
    fn clone(&self) -> Self {
        Self {
            acceptor: self.acceptor.clone(),
            host: self.host.clone(),
            allowed: Arc::clone(&self.allowed),
            brokered: Arc::clone(&self.brokered),
            clock: Arc::clone(&self.clock),
        }
    }
}

impl<B> std::fmt::Debug for BrokerServer<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerServer").field("host", &self.host).finish_non_exhaustive()
    }
}

/// gRPC reflection in both of its versions. Tells nothing but the public `.proto`.
static REFLECTION: LazyLock<Routes> = LazyLock::new(|| {
    let builder = || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    let routes = Routes::default();
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => routes.add_service(v1).add_service(v1alpha),
        // A broken build: a test asks for both.
        _ => routes,
    }
});

const HEADER_BYTES: u32 = 16 * 1024;
const DRAIN: Duration = Duration::from_secs(1);
