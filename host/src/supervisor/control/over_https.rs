//! The way in over HTTPS with mTLS: `POST /control/METHOD` on `[control] https`.
//!
//! The server is the host, with its own X.509-SVID whose key stays in the identity process. Clients show an X.509-SVID that is
//! checked with the bundle of its own trust domain; the statement of each request is demanded besides and must be of the same
//! identity.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_identity::SpiffeId;
use portcullis_identity::mtls::{Acceptor, acceptor};
use portcullis_identity::statement::HEADER;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::remote::{LOOK, Over, Remote};
use crate::limits::{CONTROL_CONNECTIONS, CONTROL_HEAD, CONTROL_LIFE, CONTROL_REQUEST_BYTES};
use crate::supervisor::Host;

/// Serves on a socket that listens, for as long as the host runs.
pub async fn serve(host: Arc<Host>, listener: std::net::TcpListener, remote: Arc<Remote>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let (server, trust) = (Arc::clone(&host), Arc::clone(&host));
    let acceptor = acceptor(Arc::new(move |_| server.served()), Arc::new(move || trust.own().trust()));
    let acceptor = acceptor.map_err(io::Error::other)?.with_protocols(&[b"http/1.1"]);
    let room = Arc::new(Semaphore::new(CONTROL_CONNECTIONS));
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        if host.is_stopping() {
            return Ok(());
        }
        match listener.accept().await {
            Ok((stream, from)) => {
                let (acceptor, remote) = (acceptor.clone(), Arc::clone(&remote));
                tokio::spawn(async move {
                    let life = tokio::time::timeout(CONTROL_LIFE, connection(stream, &acceptor, &remote)).await;
                    if let Ok(Err(why)) = life {
                        tracing::warn!(%from, why, "a connection to the control plane ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the control plane failed");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
    Ok(())
}

async fn connection(stream: TcpStream, acceptor: &Acceptor, remote: &Arc<Remote>) -> Result<(), String> {
    // An answer right after the handshake would otherwise wait for the client's acknowledgement of it, some 40 ms.
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let handshake = tokio::time::timeout(CONTROL_HEAD, acceptor.accept(stream)).await;
    let (stream, peer) =
        handshake.map_err(|_| "no handshake in time".to_owned())?.map_err(|error| error.to_string())?;
    let id = peer.spiffe_id().clone();
    let service = service_fn(|request| {
        let (remote, id) = (Arc::clone(remote), id.clone());
        async move { Ok::<_, Infallible>(answer(request, &remote, &id).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(CONTROL_HEAD).max_buf_size(HEAD_BYTES);
    server.serve_connection(TokioIo::new(stream), service).await.map_err(|error| error.to_string())
}

async fn answer(request: Request<Incoming>, remote: &Remote, peer: &SpiffeId) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let method = head.uri.path().strip_prefix(PREFIX).map(ToOwned::to_owned);
    let (Some(method), Method::POST) = (method, head.method) else { return plain(StatusCode::NOT_FOUND) };
    // Twice means nothing: no statement then.
    let mut statements = head.headers.get_all(HEADER).iter();
    let statement = match (statements.next(), statements.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    };
    let body = tokio::time::timeout(CONTROL_HEAD, Limited::new(body, CONTROL_REQUEST_BYTES).collect()).await;
    let Ok(Ok(body)) = body else { return plain(StatusCode::PAYLOAD_TOO_LARGE) };
    let answered = remote.answer(&method, statement, &body.to_bytes(), Over::Https(peer)).await;
    let mut response = Response::new(Full::new(Bytes::from(answered.payload)));
    if let Some(value) = answered.statement.and_then(|statement| HeaderValue::try_from(statement).ok()) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

const PREFIX: &str = "/control/";
/// Largest head of a request: a statement with its chain, and some.
const HEAD_BYTES: usize = 64 << 10;
