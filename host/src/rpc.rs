//! gRPC between the processes of one host, over inherited socket pairs and one owner-only Unix socket.
//!
//! The messages are generated from `proto/` and checked in; a test generates them again and compares.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};

use crate::limits::CHILD_CALL;

/// The authority of calls over a socket: there is nobody to name.
const NOBODY: &str = "http://portcullis.internal";

/// Generated from `proto/portcullis/audit/v1/audit.proto`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod audit {
    include!("generated/portcullis.audit.v1.rs");
}
/// Generated from `proto/portcullis/control/v1/control.proto`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod control {
    include!("generated/portcullis.control.v1.rs");
}
/// Generated from `proto/portcullis/runtime/v1/runtime.proto`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod runtime {
    include!("generated/portcullis.runtime.v1.rs");
}

/// A connected pair of stream sockets.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = StdUnixStream::pair()?;
    Ok((a.into(), b.into()))
}

/// A client over one connected socket to another process of this host. There is no reconnecting: a broken socket means that
/// the process behind it is gone. No call waits longer than [`CHILD_CALL`] for the head of its answer.
pub async fn client(fd: OwnedFd) -> io::Result<Channel> {
    over(stream(fd)?, Endpoint::from_static(NOBODY).timeout(CHILD_CALL)).await
}

/// A client over a listening Unix socket in the file system.
pub async fn client_at(path: &std::path::Path) -> io::Result<Channel> {
    over(UnixStream::connect(path).await?, Endpoint::from_static(NOBODY)).await
}

async fn over(io: UnixStream, endpoint: Endpoint) -> io::Result<Channel> {
    let slot = Arc::new(Mutex::new(Some(io)));
    let connect = tower::service_fn(move |_| {
        let taken = slot.lock().ok().and_then(|mut slot| slot.take());
        async move {
            match taken {
                Some(io) => Ok(TokioIo::new(io)),
                None => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the process at the other end is gone")),
            }
        }
    });
    endpoint.connect_with_connector(connect).await.map_err(io::Error::other)
}

/// Serves `routes` on one connected socket until it breaks.
pub async fn serve(fd: OwnedFd, routes: tonic::service::Routes) -> io::Result<()> {
    let incoming = tokio_stream::once(Ok::<_, io::Error>(stream(fd)?)).chain(tokio_stream::pending());
    tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming).await.map_err(io::Error::other)
}

/// The connected stream socket behind a file descriptor, registered with the reactor.
pub fn stream(fd: OwnedFd) -> io::Result<UnixStream> {
    let socket = StdUnixStream::from(fd);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}
