//! Opening connections: only to an address that policy allowed, with the grant in hand.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use portcullis_identity::SpiffeId;
use portcullis_identity::mtls;
use portcullis_policies::{Grant, HttpConnect};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::component::Loaded;
use super::handshake::{RemoteSigner, SignerThread};
use super::identity::trust::Unfit;
use crate::limits::HANDSHAKE_TIMEOUT;

/// A connection to a destination, plain or mTLS.
pub enum Connection {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS: with SVIDs on both sides, or as on the Web.
    Tls(Box<dyn Stream>),
}

/// Both directions of a byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address did not answer in time.
    #[error("no connection in time")]
    Timeout,
    /// The system refused.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// The identity process gave no SVID.
    #[error("no SVID to connect with: {0}")]
    Identity(String),
    /// The peer did not prove the identity that the grant names, or the handshake failed.
    #[error("TLS failed: {0}")]
    Tls(String),
}

/// Dials the address of the grant. This is the one place that opens connections for guests.
pub async fn plain(grant: &Grant<HttpConnect>, timeout: Duration) -> Result<TcpStream, DialError> {
    let stream = tokio::time::timeout(timeout, TcpStream::connect(grant.address())).await;
    let stream = stream.map_err(|_| DialError::Timeout)?.map_err(DialError::Connect)?;
    stream.set_nodelay(true).map_err(DialError::Connect)?;
    Ok(stream)
}

/// mTLS over a connection: shows the component's X.509-SVID, takes only a server that proves to be `peer`.
pub async fn mtls(
    who: &Arc<Loaded>,
    signer: &SignerThread,
    stream: TcpStream,
    server_name: &str,
    peer: &SpiffeId,
) -> Result<Connection, DialError> {
    let shared = who.shared();
    let svid = shared.identity.svid(who.instance()).await.map_err(|error| DialError::Identity(error.to_string()))?;
    let seen = shared.identity.trust().ok_or_else(|| DialError::Identity("no trust bundle yet".to_owned()))?;
    let signer = Arc::new(RemoteSigner::new(who.instance(), shared, signer));
    let connector = mtls::connector(&svid, signer, seen.bundles().trust(), peer)
        .map_err(|error| DialError::Tls(error.to_string()))?;
    let connected = tokio::time::timeout(HANDSHAKE_TIMEOUT, connector.connect(server_name, stream)).await;
    let (stream, peer) =
        connected.map_err(|_| DialError::Timeout)?.map_err(|error| DialError::Tls(error.to_string()))?;
    // In the table first: from then on a change finds it, and a change before that is found here.
    let live = shared.live.enter(who.instance(), &peer);
    let may_begin = match who.is_stopped() {
        true => Err(Unfit::Stopped),
        false => shared.identity.may_begin(Some(&seen), who.instance(), &peer),
    };
    may_begin.map_err(|why| DialError::Tls(why.to_string()))?;
    Ok(Connection::Tls(Box::new(live.guard(stream))))
}

/// TLS over a connection to a server of the Web: a chain to the system's roots for the name in the destination.
pub async fn web(who: &Arc<Loaded>, stream: TcpStream, server_name: &str) -> Result<Connection, DialError> {
    let connector = who.shared().web.as_ref().map_err(|why| DialError::Tls(why.clone()))?;
    let connected = tokio::time::timeout(HANDSHAKE_TIMEOUT, connector.connect(server_name, stream)).await;
    let stream = connected.map_err(|_| DialError::Timeout)?.map_err(|error| DialError::Tls(error.to_string()))?;
    Ok(Connection::Tls(Box::new(stream)))
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Connection::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Connection::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Connection::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Connection::Plain(_) => "Connection::Plain",
            Connection::Tls(_) => "Connection::Tls",
        })
    }
}
