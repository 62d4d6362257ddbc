//! How the way to an upstream is opened. Who may open sockets is the process's business, so it comes in from outside.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Opens connections to one upstream.
#[async_trait]
pub trait Dial: Send + Sync + fmt::Debug {
    /// A new connection.
    async fn dial(&self) -> io::Result<UnixStream>;
}

/// A Unix socket by its path.
#[derive(Debug, Clone)]
pub struct SocketPath(pub PathBuf);

#[async_trait]
impl Dial for SocketPath {
    async fn dial(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.0)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.0.display())))
    }
}

/// A channel that dials when it is used and again when the connection is lost.
pub(crate) fn channel(dial: Arc<dyn Dial>) -> Channel {
    Endpoint::from_static("http://localhost").connect_timeout(crate::limits::UPSTREAM_CALL).connect_with_connector_lazy(
        tower::service_fn(move |_: Uri| {
            let dial = Arc::clone(&dial);
            async move { dial.dial().await.map(TokioIo::new) }
        }),
    )
}
