//! The HTTP gateway: two listeners, one routing table, a place for each request or 503 before anything is made for it.
//!
//! It takes nothing ambiguous (two Host values, an absolute target that disagrees with Host), strips headers by which a
//! proxy would assert an identity, asks policy who may call, and runs a fresh instance for each request. Whatever a guest
//! does wrong costs that request alone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use http::{Request, StatusCode};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use portcullis_identity::mtls::Peer;
use portcullis_policies::{self as policies, Call, Grant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use super::asserted::strip_asserted_identity;
use super::body::{BodyError, Idle};
use super::component::{Loaded, Shared};
use super::identity::trust::{Trust, Unfit};
use super::live::left;
use super::request::host_of;
use super::routes::Routes;
use super::serving::{self, Answer, Caller, Handshake, Side, text};
use super::slow::WriteDeadline;
use super::standing::{Granted, Standing, called, linked};
use crate::limits::{HANDSHAKE_TIMEOUT, HANDSHAKES};
use crate::rpc::runtime::{Failure, event::What};

/// The gateway of a runtime process.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    routes: ArcSwap<Routes>,
    places: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    draining: watch::Sender<bool>,
    http2: bool,
}

impl Gateway {
    /// A gateway without routes.
    pub fn new(shared: Arc<Shared>, http2: bool) -> Arc<Self> {
        let count = |n: u32| Arc::new(Semaphore::new(usize::try_from(n).unwrap_or(usize::MAX >> 4)));
        Arc::new(Self {
            places: Arc::clone(&shared.places),
            connections: count(shared.limits.connections),
            routes: ArcSwap::default(),
            draining: watch::Sender::new(false),
            shared,
            http2,
        })
    }

    /// Replaces the routing table.
    pub fn set_routes(&self, routes: Routes) {
        self.routes.store(Arc::new(routes));
    }

    /// The instance that a TLS server name stands for.
    pub fn server(&self, name: &str) -> Option<Arc<Loaded>> {
        self.routes.load().server(name).cloned()
    }

    /// Requests at work.
    pub fn in_flight(&self) -> u64 {
        let places = usize::try_from(self.shared.limits.concurrent_requests).unwrap_or_default();
        u64::try_from(places.saturating_sub(self.places.available_permits())).unwrap_or_default()
    }

    /// Stops accepting and lets requests finish; returns how many did not within the time.
    pub async fn drain(&self, within: Duration) -> u64 {
        self.draining.send_replace(true);
        let (places, connections) = (self.shared.limits.concurrent_requests, self.shared.limits.connections);
        let done = async {
            let _places = self.places.acquire_many(places).await;
            // The end of an answer may still be on its way when its guest is done.
            let _connections = self.connections.acquire_many(connections).await;
        };
        match tokio::time::timeout(within, done).await {
            Ok(()) => 0,
            Err(_) => self.in_flight(),
        }
    }

    /// Serves plain HTTP on a listener until drained.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let side = Side { scheme: || Scheme::Http, caller: None, handshake: None };
        self.accept(listener, move |gateway, stream, place| {
            let side = side.clone();
            async move { gateway.connection(stream, side, place).await }
        })
        .await;
    }

    /// Serves mTLS on a listener until drained: both sides show X.509-SVIDs.
    pub async fn serve_mtls(self: Arc<Self>, listener: TcpListener, acceptor: portcullis_identity::mtls::Acceptor) {
        let (acceptor, handshakes) = (Arc::new(acceptor), Arc::new(Semaphore::new(HANDSHAKES)));
        self.accept(listener, move |gateway, stream, place| {
            let (acceptor, turn) = (Arc::clone(&acceptor), Arc::clone(&handshakes).try_acquire_owned());
            async move {
                // Each costs a call to the identity process, before the client has shown anything.
                let Ok(turn) = turn else { return };
                let seen = gateway.shared.identity.trust();
                let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
                let (stream, peer) = match accepted {
                    Ok(Ok(accepted)) => accepted,
                    Ok(Err(error)) => return gateway.handshake_failed("", error.to_string()),
                    Err(_) => return,
                };
                drop(turn);
                let Some((who, handshake)) = gateway.handshake(&peer) else { return };
                let change = who.change();
                // In the table first: from then on a change finds it, and a change before that is found here.
                let mut live = gateway.shared.live.enter(who.instance(), &peer);
                if let Err(why) = gateway.may_begin(&who, seen.as_ref(), &peer) {
                    return gateway.handshake_failed(who.instance(), format!("{}: {why}", peer.spiffe_id()));
                }
                let caller = Some(Caller { spiffe_id: peer.spiffe_id().clone(), until: peer.not_after() });
                let mut standing = Standing::new(&who, change, Granted::Call(policy_caller(caller.as_ref())));
                let side = Side { scheme: || Scheme::Https, caller, handshake: Some(Arc::new(handshake)) };
                tokio::select! {
                    biased;
                    // Whoever cut it reports it. All that is at work on the connection ends with it.
                    _why = live.cut() => {}
                    // A change of policy: this caller may not call any more.
                    _over = standing.over() => {}
                    () = gateway.connection(stream, side, place) => {}
                }
            }
        })
        .await;
    }

    /// What a handshake settled: whose identity was shown, and until when both hold.
    fn handshake(&self, peer: &Peer) -> Option<(Arc<Loaded>, Handshake)> {
        let server_name = peer.server_name()?.to_owned();
        let shown = peer.presented().spiffe_id.clone();
        // Routes may have changed within the handshake.
        let who = self.server(&server_name).filter(|who| *who.spiffe_id() == shown)?;
        let until = peer.not_after().min(peer.presented().not_after);
        Some((who, Handshake { server_name, shown, until }))
    }

    fn may_begin(&self, who: &Loaded, seen: Option<&Arc<Trust>>, peer: &Peer) -> Result<(), Unfit> {
        if who.is_stopped() {
            return Err(Unfit::Stopped);
        }
        self.shared.identity.may_begin(seen, who.instance(), peer)
    }

    fn handshake_failed(&self, instance: &str, detail: String) {
        self.shared.events.report(instance, 0, "C0301", What::Failure(Failure { kind: "mtls".to_owned(), detail }));
    }

    async fn accept<F, R>(self: Arc<Self>, listener: TcpListener, handle: F)
    where
        F: Fn(Arc<Self>, TcpStream, OwnedSemaphorePermit) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        let mut draining = self.draining.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return,
                accepted = next(&listener, &self.connections) => accepted,
            };
            if let Some((stream, place)) = accepted {
                tokio::spawn(handle(Arc::clone(&self), stream, place));
            }
        }
    }

    async fn connection<S>(self: Arc<Self>, stream: S, side: Side, place: OwnedSemaphorePermit)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let _place = place;
        let limits = &self.shared.limits;
        let io = TokioIo::new(WriteDeadline::new(stream, limits.body_idle(), limits.request()));
        let gateway = Arc::clone(&self);
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let sides = side.clone();
        let service = hyper::service::service_fn(move |request| {
            begins.store(true, Ordering::Relaxed);
            let (gateway, side) = (Arc::clone(&gateway), sides.clone());
            async move { Ok::<_, std::convert::Infallible>(gateway.answer(request, &side).await) }
        });
        let mut draining = self.draining.subscribe();
        let until = side.handshake.as_ref().map(|handshake| handshake.until);
        let drained = async move {
            let expired = async {
                match until {
                    Some(until) => tokio::time::sleep(left(until)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = draining.wait_for(|draining| *draining) => {}
                () = expired => {}
            }
        };
        let ended = if self.http2 {
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.head())
                .max_headers(usize::try_from(limits.headers).unwrap_or(100))
                .max_buf_size(usize::try_from(limits.header_bytes).unwrap_or(32 << 10));
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(HTTP2_STREAMS)
                .max_header_list_size(limits.header_bytes)
                .keep_alive_interval(Some(limits.head()));
            let served =
                graceful(builder.serve_connection(io, service), drained, |connection| connection.graceful_shutdown());
            tokio::pin!(served);
            // The builder waits without a limit for the bytes that tell the two versions apart.
            tokio::select! {
                biased;
                ended = &mut served => ended,
                () = tokio::time::sleep(limits.head()) => match begun.load(Ordering::Relaxed) {
                    true => served.await,
                    false => return,
                },
            }
        } else {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.head())
                .max_headers(usize::try_from(limits.headers).unwrap_or(100))
                .max_buf_size(usize::try_from(limits.header_bytes).unwrap_or(32 << 10))
                .serve_connection(io, service);
            let ended = graceful(connection, drained, |connection| connection.graceful_shutdown()).await;
            ended.map_err(Into::into)
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended with an error");
        }
    }

    async fn answer(&self, mut request: Request<Incoming>, side: &Side) -> Answer {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        let host = match host_of(&request) {
            Ok(host) => host,
            Err(why) => return text(StatusCode::BAD_REQUEST, why),
        };
        if side.handshake.as_ref().is_some_and(|handshake| handshake.server_name != host) {
            return text(StatusCode::MISDIRECTED_REQUEST, "the request is not for the host of its TLS handshake");
        }
        let Some(who) = self.routes.load().find(&host, request.uri().path()).cloned() else {
            return text(StatusCode::NOT_FOUND, "no component is routed here");
        };
        let who = &who;
        if who.http().is_none() {
            return text(StatusCode::NOT_FOUND, "the component that is routed here serves no HTTP");
        }
        if let Some(handshake) = &side.handshake {
            if handshake.shown != *who.spiffe_id() {
                return text(
                    StatusCode::MISDIRECTED_REQUEST,
                    "another component than the one that proved its identity",
                );
            }
            if side.caller.as_ref().is_none_or(|caller| crate::clock::now() >= caller.until) {
                let mut expired = text(StatusCode::FORBIDDEN, "the certificate of the caller has expired");
                expired.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                return expired;
            }
        }
        let limits = &self.shared.limits;
        if request.body().size_hint().lower() > limits.body_bytes {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this host takes");
        }
        if who.is_stopped() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the component was stopped");
        }
        let (grant, standing) = match may_call(who, side.caller.as_ref()) {
            Ok(granted) => granted,
            Err(refused) => return refused,
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.shared.refused_busy.fetch_add(1, Ordering::Relaxed);
            let mut busy = text(StatusCode::SERVICE_UNAVAILABLE, "this host has no place for another request");
            busy.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return busy;
        };
        strip_asserted_identity(request.headers_mut());
        let request = request.map(|body| {
            let capped = Idle::capped(body, limits.body_idle(), limits.body_bytes);
            http_body_util::BodyExt::map_err(capped, into_error)
        });
        serving::serve(who, grant, standing, request, side, place).await
    }
}

/// Asks policy whether this caller may call this component, and whether that may still do all that it is linked with.
fn may_call(who: &Arc<Loaded>, caller: Option<&Caller>) -> Result<(Grant<Call>, Standing), Answer> {
    let change = who.change();
    let in_force = who.in_force();
    let slice = in_force.slice();
    let caller = policy_caller(caller);
    let (denial, what) = match (slice.call(&caller), in_force.links()) {
        (Ok(grant), Ok(())) => {
            who.note(&grant, || called(&caller));
            return Ok((grant, Standing::new(who, change, Granted::Call(caller))));
        }
        (Err(denial), _) => (denial, called(&caller)),
        (Ok(_), Err((interface, denial))) => (denial.clone(), linked(interface)),
    };
    let code = denial.code().to_string();
    let reference = who.shared().events.report(who.instance(), slice.generation(), &code, what);
    Err(serving::refused("policy does not let you call this component", &code, &reference))
}

fn policy_caller(caller: Option<&Caller>) -> policies::Caller {
    match caller {
        None => policies::Caller::Anonymous,
        Some(caller) => policies::Caller::Workload(caller.spiffe_id.to_string()),
    }
}

fn into_error(error: BodyError) -> Error {
    match error {
        BodyError::Idle => Error::ConnectionReadTimeout,
        BodyError::TooLarge(most) => Error::HttpRequestBodySize(Some(most)),
        BodyError::Hyper(error) => Error::Hyper(error),
    }
}

async fn next(listener: &TcpListener, connections: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => stream.set_nodelay(true).ok().map(|()| (stream, place)),
        // Draining: the supervisor shut the listener, so that new connections are refused at once.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Serves a connection; once drained, it is told to end after the request it has.
async fn graceful<C: Future>(
    connection: C,
    drained: impl Future<Output = ()>,
    stop: impl Fn(Pin<&mut C>),
) -> C::Output {
    tokio::pin!(connection, drained);
    let mut asked = false;
    std::future::poll_fn(|cx| {
        if !asked && drained.as_mut().poll(cx).is_ready() {
            asked = true;
            stop(connection.as_mut());
        }
        connection.as_mut().poll(cx)
    })
    .await
}

/// Streams of one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 100;
/// Pause after a failed accept (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
