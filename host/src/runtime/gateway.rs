//! The HTTP gateway: two listeners, one routing table, a place for each request or 503 before anything is made for it.
//!
//! It takes nothing ambiguous (two Host values, an absolute target that disagrees with Host), strips headers by which a
//! proxy would assert an identity, asks policy who may call, and runs a fresh instance for each request. Whatever a guest
//! does wrong costs that request alone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode, Uri};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use portcullis_identity::SpiffeId;
use portcullis_policies::Caller;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error, WasiHttpView};

use super::body::{BodyError, GuestBody, Idle, ResponseBody};
use super::component::{Loaded, Shared};
use super::context::Ctx;
use super::egress::is_asserted_identity;
use super::guest::{GuestCall, GuestFailure, Meter};
use super::routes::Routes;
use super::slow::WriteDeadline;
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::rpc::runtime::{Call, Failure, event::What};

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

/// What is known of the connection that a request came on.
#[derive(Debug, Clone)]
struct Side {
    scheme: fn() -> Scheme,
    caller: Option<SpiffeId>,
    /// The host name of the TLS handshake: the request must be for it.
    server: Option<Arc<str>>,
}

type Answer = Response<ResponseBody>;
type Head = Result<Response<HyperOutgoingBody>, ErrorCode>;

impl Gateway {
    /// A gateway without routes.
    pub fn new(shared: Arc<Shared>, http2: bool) -> Arc<Self> {
        let count = |n: u32| Arc::new(Semaphore::new(usize::try_from(n).unwrap_or(usize::MAX >> 4)));
        Arc::new(Self {
            places: count(shared.limits.concurrent_requests),
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
        let side = Side { scheme: || Scheme::Http, caller: None, server: None };
        self.accept(listener, move |gateway, stream, place| {
            let side = side.clone();
            async move { gateway.connection(stream, side, place).await }
        })
        .await;
    }

    /// Serves mTLS on a listener until drained: both sides show X.509-SVIDs.
    pub async fn serve_mtls(self: Arc<Self>, listener: TcpListener, acceptor: portcullis_identity::mtls::Acceptor) {
        let acceptor = Arc::new(acceptor);
        self.accept(listener, move |gateway, stream, place| {
            let acceptor = Arc::clone(&acceptor);
            async move {
                let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
                let (stream, peer) = match accepted {
                    Ok(Ok(accepted)) => accepted,
                    Ok(Err(error)) => {
                        let what = What::Failure(Failure { kind: "mtls".to_owned(), detail: error.to_string() });
                        gateway.shared.events.report("", 0, "C0301", what);
                        return;
                    }
                    Err(_) => return,
                };
                let server = peer.server_name().map(Arc::from);
                let side = Side { scheme: || Scheme::Https, caller: Some(peer.spiffe_id().clone()), server };
                gateway.connection(stream, side, place).await;
            }
        })
        .await;
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
        let io = TokioIo::new(WriteDeadline::new(stream, limits.body_idle()));
        let gateway = Arc::clone(&self);
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let service = hyper::service::service_fn(move |request| {
            begins.store(true, Ordering::Relaxed);
            let (gateway, side) = (Arc::clone(&gateway), side.clone());
            async move { Ok::<_, std::convert::Infallible>(gateway.answer(request, &side).await) }
        });
        let mut draining = self.draining.subscribe();
        let drained = async move {
            let _ = draining.wait_for(|draining| *draining).await;
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
        if side.server.as_deref().is_some_and(|server| server != host) {
            return text(StatusCode::MISDIRECTED_REQUEST, "the request is not for the host of its TLS handshake");
        }
        let routes = self.routes.load();
        let Some(who) = routes.find(&host, request.uri().path()) else {
            return text(StatusCode::NOT_FOUND, "no component is routed here");
        };
        let limits = &self.shared.limits;
        if request.body().size_hint().lower() > limits.body_bytes {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this host takes");
        }
        if who.is_stopped() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the component was stopped");
        }
        if let Err(refused) = may_call(who, side.caller.as_ref()) {
            return refused;
        }
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
        run(who, request, side, place).await
    }
}

/// Runs one request in a fresh instance: inline until the head of the response is there, then the body goes on.
async fn run<B>(who: &Arc<Loaded>, request: Request<B>, side: &Side, place: OwnedSemaphorePermit) -> Answer
where
    B: Body<Data = Bytes, Error = Error> + Send + 'static,
{
    let shared = who.shared();
    let mut deadline = Box::pin(tokio::time::sleep(shared.limits.request()));
    let (mut call, mut head) = match start(who, request, side) {
        Ok(started) => started,
        Err(error) => {
            tracing::warn!(component = who.name(), %error, "a request could not be started");
            return text(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be started");
        }
    };
    let (mut running, mut silent) = (true, false);
    let outcome = std::future::poll_fn(|cx| {
        let mut done = Ok(());
        if running && let Poll::Ready(ended) = Pin::new(&mut call).poll(cx) {
            running = false;
            done = ended;
        }
        // A guest that ends on another thread drops its sender before its own end is seen here.
        if !silent {
            match Pin::new(&mut head).poll(cx) {
                Poll::Ready(Ok(head)) => return Poll::Ready(Ok((head, done))),
                Poll::Ready(Err(_)) => silent = true,
                Poll::Pending => {}
            }
        }
        if !running {
            return Poll::Ready(Err(done.err()));
        }
        deadline.as_mut().poll(cx).map(|()| Err(Some(GuestFailure::Trap(NO_ANSWER.to_owned()))))
    })
    .await;
    match outcome {
        Ok((Ok(response), done)) => {
            let call = running.then_some(call);
            let on_failure = failure_report(who);
            if let Err(failure) = done {
                on_failure(&failure);
                return text(StatusCode::INTERNAL_SERVER_ERROR, "the component failed");
            }
            response.map(|body| {
                ResponseBody::Guest(Box::new(GuestBody::new(body, call, deadline, on_failure, Box::new(place))))
            })
        }
        Ok((Err(code), _)) => {
            tracing::info!(component = who.name(), ?code, "the component answered with an error");
            text(StatusCode::BAD_GATEWAY, "the component answered with an error")
        }
        Err(failure) => {
            let failure = failure.unwrap_or_else(|| GuestFailure::Trap("it ended without an answer".to_owned()));
            let late = matches!(&failure, GuestFailure::Trap(why) if why == NO_ANSWER);
            failure_report(who)(&failure);
            match (late, &failure) {
                (true, _) | (_, GuestFailure::CpuTime) => {
                    text(StatusCode::GATEWAY_TIMEOUT, "the component did not answer in time")
                }
                _ => text(StatusCode::INTERNAL_SERVER_ERROR, "the component failed"),
            }
        }
    }
}

fn start<B>(
    who: &Arc<Loaded>,
    request: Request<B>,
    side: &Side,
) -> wasmtime::Result<(GuestCall, oneshot::Receiver<Head>)>
where
    B: Body<Data = Bytes, Error = Error> + Send + 'static,
{
    let shared = who.shared();
    let mut store = Store::new(&shared.engine, Ctx::new(who, side.caller.clone()));
    store.limiter(Ctx::limits);
    store.set_hostcall_fuel(usize::try_from(shared.limits.hostcall_bytes).unwrap_or(usize::MAX));
    store.set_max_component_handles(usize::try_from(shared.limits.handles).unwrap_or(usize::MAX));
    let meter = Arc::new(Meter::default());
    meter.arm(&mut store, shared.limits.cpu_ticks());
    let (tell, head) = oneshot::channel();
    let request = store.data_mut().http().new_incoming_request((side.scheme)(), request)?;
    let outparam = store.data_mut().http().new_response_outparam(tell)?;
    let pre = who.pre().clone();
    let ending = meter.ending();
    let future = Box::pin(async move {
        let mut store = store;
        let _ending = ending;
        let proxy = pre.instantiate_async(&mut store).await?;
        proxy.wasi_http_incoming_handler().call_handle(&mut store, request, outparam).await
    });
    Ok((GuestCall::new(future, meter, Arc::clone(&shared.lanes)), head))
}

fn failure_report(who: &Arc<Loaded>) -> Box<dyn FnOnce(&GuestFailure) + Send> {
    let who = Arc::clone(who);
    Box::new(move |failure| {
        let shared = who.shared();
        shared.guest_failures.fetch_add(1, Ordering::Relaxed);
        let what = What::Failure(Failure { kind: failure.kind().to_owned(), detail: failure.to_string() });
        let reference = shared.events.report(who.instance(), who.slice().generation(), "R0301", what);
        tracing::warn!(component = who.name(), instance = who.instance(), reference, %failure, "a request was lost");
    })
}

fn may_call(who: &Arc<Loaded>, caller: Option<&SpiffeId>) -> Result<(), Answer> {
    let in_force = who.in_force();
    let slice = in_force.slice();
    let decided = match caller {
        None => slice.call(&Caller::Anonymous),
        Some(id) => slice.call(&Caller::Workload(id.to_string())),
    };
    let Err(denial) = decided else { return Ok(()) };
    let what = What::Call(Call { caller: caller.map(ToString::to_string).unwrap_or_default() });
    let code = denial.code().to_string();
    let reference = who.shared().events.report(who.instance(), slice.generation(), &code, what);
    let mut refused = text(StatusCode::FORBIDDEN, "policy does not let you call this component");
    if let Ok(value) = HeaderValue::from_str(&format!("{code} {reference}")) {
        refused.headers_mut().insert("x-portcullis-refusal", value);
    }
    Err(refused)
}

/// The host that a request is for: one Host value, and no target that says otherwise.
fn host_of<B>(request: &Request<B>) -> Result<String, &'static str> {
    let mut values = request.headers().get_all(HOST).iter();
    let header = values.next();
    if values.next().is_some() {
        return Err("more than one Host value");
    }
    let named = match header {
        Some(value) => Some(value.to_str().ok().and_then(host_without_port).ok_or("a malformed Host value")?),
        None => None,
    };
    let target = match request.uri().authority() {
        Some(authority) => Some(host_without_port(authority.as_str()).ok_or("a malformed target")?),
        None => None,
    };
    match (named, target) {
        (Some(named), Some(target)) if named != target => Err("the target and the Host value disagree"),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err("no Host value"),
    }
}

fn host_without_port(authority: &str) -> Option<String> {
    let uri: Uri = format!("http://{authority}/").parse().ok()?;
    let parsed = uri.authority()?;
    if parsed.as_str() != authority || authority.contains('@') {
        return None;
    }
    let host = parsed.host().trim_end_matches('.');
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

fn strip_asserted_identity(headers: &mut HeaderMap) {
    if headers.keys().any(is_asserted_identity) {
        let names: Vec<_> = headers.keys().filter(|name| is_asserted_identity(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

fn text(status: StatusCode, words: &'static str) -> Answer {
    let mut response = Response::new(ResponseBody::Text(Some(Bytes::from_static(words.as_bytes()))));
    *response.status_mut() = status;
    response
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

/// The word by which a time-out is told from a trap.
const NO_ANSWER: &str = "it did not answer in time";
/// Streams of one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 100;
/// Pause after a failed accept (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, hosts: &[&str]) -> Request<()> {
        let mut builder = Request::builder().uri(target);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn one_unambiguous_host_is_taken_in_canonical_form() {
        for (target, hosts) in
            [("/", &["A.example:80"][..]), ("http://a.example/", &[]), ("http://a.example/", &["a.example."])]
        {
            assert_eq!(host_of(&request(target, hosts)).unwrap(), "a.example");
        }
    }

    #[test]
    fn an_ambiguous_or_malformed_host_is_refused() {
        for (target, hosts) in [
            ("/", &[][..]),
            ("/", &["a", "a"]),
            ("/", &["a", "b"]),
            ("http://b/", &["a"]),
            ("/", &["u@a"]),
            ("/", &["a/b"]),
            ("/", &[""]),
            ("/", &["a b"]),
        ] {
            assert!(host_of(&request(target, hosts)).is_err(), "{target} {hosts:?} passed");
        }
    }

    #[test]
    fn headers_that_assert_an_identity_are_stripped() {
        let mut headers = HeaderMap::new();
        for name in ["x-forwarded-client-cert", "x-portcullis-caller", "accept"] {
            headers.append(http::HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        strip_asserted_identity(&mut headers);
        assert_eq!(headers.keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
