//! Serves the Workload API and gRPC reflection on one connected socket, until the client goes, its right to be here ends, or
//! the server does.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};

use super::authority_shim::AuthorityShim;
use super::entitlement::Entitlement;
use super::following::Wakers;
use super::pb::DESCRIPTORS;
use super::pb::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use super::refusal::Refusal;
use super::service::Service;
use crate::limits::{
    WORKLOAD_DRAIN, WORKLOAD_HEADER_BYTES, WORKLOAD_KEEPALIVE, WORKLOAD_KEEPALIVE_TIMEOUT, WORKLOAD_PREFACE,
    WORKLOAD_REQUEST_BYTES, WORKLOAD_STREAMS,
};

/// Serves one caller. When `cut` is ready the connection is dropped as it is; when `stopping` turns true its streams end with
/// `Unavailable` first.
pub async fn serve<T, E>(io: T, entitlement: Arc<E>, mut stopping: watch::Receiver<bool>, cut: impl Future<Output = ()>)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    E: Entitlement,
{
    let wakers = Wakers { changes: entitlement.changes(), stopping: stopping.clone() };
    let service = SpiffeWorkloadApiServer::new(Service::new(entitlement, wakers))
        .max_decoding_message_size(WORKLOAD_REQUEST_BYTES);
    let routes = REFLECTION.clone().add_service(InterceptedService::new(service, security_header));
    let io = AuthorityShim::new(io);
    let begun = io.begun();
    // Pings begin with the connection, so a client that says nothing at all is waited for apart from them.
    let silent = async move {
        tokio::time::sleep(WORKLOAD_PREFACE).await;
        if begun.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    let mut connection = std::pin::pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(WORKLOAD_KEEPALIVE)
            .keep_alive_timeout(WORKLOAD_KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(WORKLOAD_STREAMS)
            .max_header_list_size(WORKLOAD_HEADER_BYTES)
            .serve_connection(TokioIo::new(io), TowerToHyperService::new(routes))
    );
    let mut cut = std::pin::pin!(cut);
    tokio::select! {
        biased;
        () = &mut cut => return,
        () = silent => return,
        served = &mut connection => {
            if let Err(error) = served {
                tracing::debug!(%error, "a connection of the Workload API ended");
            }
            return;
        }
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        () = cut => {}
        _ = tokio::time::timeout(WORKLOAD_DRAIN, connection) => {}
    }
}

/// SPIFFE_Workload_Endpoint section 4.1: no call without this header, so that nobody can be tricked into making one for
/// somebody else.
fn security_header(request: Request<()>) -> Result<Request<()>, Status> {
    let mut values = request.metadata().get_all("workload.spiffe.io").iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.as_encoded_bytes() == b"true" => Ok(request),
        _ => Err(Refusal::SecurityHeader.status()),
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
