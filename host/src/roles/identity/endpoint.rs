//! Serves public documents to everybody: our bundle, the OIDC documents. The listening sockets come from the supervisor.
//!
//! A client shows nothing and is asked nothing. Connections, their heads and their lives are bounded; what is answered is
//! decided in `portcullis_identity::Documents`.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_identity::Documents;
use portcullis_identity::federation::{EndpointAcceptor, spiffe_endpoint, web_endpoint};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Boot;
use super::certificate_files::CertificateFiles;
use super::keeper::Keeper;
use super::own::OwnIdentity;
use crate::limits::{ENDPOINT_CONNECTIONS, ENDPOINT_HEAD, ENDPOINT_LIFE, HANDSHAKE_TIMEOUT};
use crate::process::handover::Packet;

/// What a listening socket is for: the payload of its handover packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The bundle endpoint of profile `https_web`.
    BundleWeb,
    /// The bundle endpoint of profile `https_spiffe`.
    BundleSpiffe,
    /// OIDC discovery and keys.
    Oidc,
}

impl Kind {
    /// How `status` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BundleWeb => "bundle-web",
            Self::BundleSpiffe => "bundle-spiffe",
            Self::Oidc => "oidc",
        }
    }
}

struct Endpoint {
    keeper: Arc<Keeper>,
    documents: Documents,
    /// `None`: plain HTTP on the loopback, for a proxy.
    tls: Option<EndpointAcceptor>,
}

/// Serves on a listening socket that was handed down.
pub(super) fn take(packet: Packet, keeper: &Arc<Keeper>, boot: &Boot) {
    let kind = serde_json::from_value::<Kind>(packet.payload).map_err(|error| error.to_string());
    let listener = packet.fds.into_iter().next().ok_or_else(|| "no socket".to_owned());
    let started = kind.and_then(|kind| start(kind, listener?, keeper, boot));
    if let Err(why) = started {
        tracing::error!(why, "an endpoint is not served");
    }
}

/// Serves until the process ends.
fn start(kind: Kind, listener: OwnedFd, keeper: &Arc<Keeper>, boot: &Boot) -> Result<(), String> {
    let endpoint = Arc::new(endpoint(kind, keeper, boot)?);
    let listener = StdListener::from(listener);
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    let listener = TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    tokio::spawn(accept(listener, endpoint));
    Ok(())
}

fn endpoint(kind: Kind, keeper: &Arc<Keeper>, boot: &Boot) -> Result<Endpoint, String> {
    let missing = || format!("{kind:?} is not configured");
    let web = |files: CertificateFiles| web_endpoint(move || files.current()).map_err(|error| error.to_string());
    let (documents, tls) = match kind {
        Kind::BundleWeb => {
            let config = boot.federation.https_web.as_ref().ok_or_else(missing)?;
            let files = CertificateFiles::new(&config.certificate, &config.key);
            (Documents::Bundle { path: config.path.clone() }, Some(web(files)?))
        }
        Kind::BundleSpiffe => {
            let config = boot.federation.https_spiffe.as_ref().ok_or_else(missing)?;
            let own = OwnIdentity::start(keeper)?;
            let tls = spiffe_endpoint(move || own.served()).map_err(|error| error.to_string())?;
            (Documents::Bundle { path: config.path.clone() }, Some(tls))
        }
        Kind::Oidc => {
            let config = boot.oidc.as_ref().ok_or_else(missing)?;
            let tls = match (&config.certificate, &config.key) {
                (Some(certificate), Some(key)) => Some(web(CertificateFiles::new(certificate, key))?),
                _ => None,
            };
            (Documents::Oidc { issuer: config.issuer.clone() }, tls)
        }
    };
    Ok(Endpoint { keeper: Arc::clone(keeper), documents, tls })
}

async fn accept(listener: TcpListener, endpoint: Arc<Endpoint>) {
    let room = Arc::new(Semaphore::new(ENDPOINT_CONNECTIONS));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let endpoint = Arc::clone(&endpoint);
                tokio::spawn(async move {
                    if let Ok(Err(error)) = tokio::time::timeout(ENDPOINT_LIFE, endpoint.connection(stream)).await {
                        tracing::debug!(%error, "a client of an endpoint");
                    }
                    drop(permit);
                });
            }
            // No file descriptor left, or the supervisor closed the socket: not at full speed.
            Err(error) => {
                tracing::debug!(%error, "an endpoint does not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Endpoint {
    async fn connection(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => {
                let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await;
                self.requests(handshake.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??).await
            }
            None => self.requests(stream).await,
        }
    }

    async fn requests<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<()> {
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            let published = self.keeper.now_published();
            let answer = self.documents.answer(request.method(), request.uri().path(), published.bundles.own());
            std::future::ready(Ok::<_, Infallible>(answer.map(|text| Full::new(Bytes::from(text)))))
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(ENDPOINT_HEAD).max_buf_size(HEAD_BYTES);
        server.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
    }
}

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
/// Largest head of a request.
const HEAD_BYTES: usize = 16 << 10;
