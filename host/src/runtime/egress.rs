//! Outgoing HTTP of guests: canonicalised once, decided by name, resolved, decided by address, and that address dialled.
//!
//! The request that goes out is built anew from what was decided on: the `host` header, the form of the target and the
//! framing of the body are ours, not the guest's. Redirects are answers like any other; nothing is followed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Request, Response, Uri, Version};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use portcullis_policies::{Destination, Grant, HttpConnect, HttpSend, Scheme};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpHooks,
};

use tokio::sync::Semaphore;

use super::asserted::is_asserted_identity;
use super::body::Idle;
use super::component::Loaded;
use super::dial::{self, Connection, DialError};
use super::resolve::ResolveError;
use super::standing::{Granted, Standing};
use crate::limits::OUTGOING_PER_REQUEST;
use crate::rpc::runtime::{Failure, HttpConnect as ConnectEvent, HttpSend as SendEvent, event::What};

/// The gate that one request's guest sends through.
#[derive(Debug)]
pub struct Egress {
    who: Arc<Loaded>,
    /// Places of this request, made when the first is taken.
    places: Option<Arc<Semaphore>>,
}

type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl Egress {
    /// A gate for `who`.
    pub fn new(who: Arc<Loaded>) -> Self {
        Self { who, places: None }
    }

    /// The component behind it.
    pub fn who(&self) -> &Arc<Loaded> {
        &self.who
    }
}

impl WasiHttpHooks for Egress {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(is_forbidden)
    }

    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let who = Arc::clone(&self.who);
        let places = self.places.get_or_insert_with(|| Arc::new(Semaphore::new(OUTGOING_PER_REQUEST)));
        let own = Arc::clone(places).try_acquire_owned();
        let shared = Arc::clone(&who.shared().outgoing).try_acquire_owned();
        let (Ok(own), Ok(shared)) = (own, shared) else {
            return Box::new(std::future::ready(Err(Error::ConnectionLimitReached)));
        };
        Box::new(async move {
            let (response, rest) = send(&who, request, options.unwrap_or_default()).await?;
            let rest: Box<dyn Future<Output = Result<(), Error>> + Send> = Box::new(async move {
                let _places = (own, shared);
                Pin::from(rest).await
            });
            Ok((response, rest))
        })
    }
}

fn is_forbidden(name: &HeaderName) -> bool {
    DEFAULT_FORBIDDEN_HEADERS.contains(name) || *name == PROXY_AUTHORIZATION || is_asserted_identity(name)
}

async fn send(who: &Arc<Loaded>, request: Request<WasiBody>, options: RequestOptions) -> Sent {
    if who.is_stopped() {
        return Err(Error::HttpRequestDenied);
    }
    let destination = destination(request.uri())?;
    let method = request.method().clone();
    if method == Method::CONNECT {
        return Err(Error::HttpRequestMethodInvalid);
    }
    let change = who.change();
    let send = by_name(who, &destination, &method)?;
    let (connect, stream) = reach(who, &destination, &method, &send, &options).await?;
    let connection = secure(who, &destination, &send, &connect, stream).await?;
    let standing = Standing::new(who, change, Granted::Http(send, connect.address()));
    exchange(connection, outgoing(request, &destination)?, &options, standing).await
}

fn destination(uri: &Uri) -> Result<Destination, Error> {
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Error::HttpRequestUriInvalid);
    };
    Destination::from_parts(scheme, authority.as_str()).map_err(|_| Error::HttpRequestUriInvalid)
}

fn by_name(who: &Arc<Loaded>, destination: &Destination, method: &Method) -> Result<Grant<HttpSend>, Error> {
    let slice = who.slice();
    let what = || What::HttpSend(SendEvent { destination: destination.to_string(), method: shown(method) });
    let grant = slice.http_send(destination, method.as_str()).map_err(|denial| {
        who.shared().events.report(who.instance(), slice.generation(), &denial.code().to_string(), what());
        Error::HttpRequestDenied
    })?;
    who.note(&grant, what);
    Ok(grant)
}

/// Resolves, decides on each address, and dials the first that is allowed and answers.
async fn reach(
    who: &Arc<Loaded>,
    destination: &Destination,
    method: &Method,
    send: &Grant<HttpSend>,
    options: &RequestOptions,
) -> Result<(Grant<HttpConnect>, tokio::net::TcpStream), Error> {
    let addresses = who.shared().resolver.resolve(destination).await.map_err(|error| {
        tracing::info!(component = who.name(), %error, "a destination has no address");
        match error {
            ResolveError::Failed(..) => Error::DnsError { rcode: None, info_code: None },
            ResolveError::Timeout(_) => Error::DnsTimeout,
        }
    })?;
    let mut last = Error::DestinationNotFound;
    for address in addresses {
        let slice = who.slice();
        let what = || {
            let (destination, method) = (destination.to_string(), shown(method));
            What::HttpConnect(ConnectEvent { destination, method, address: address.to_string() })
        };
        let grant = match slice.http_connect(send, address) {
            Ok(grant) => grant,
            Err(denial) => {
                who.shared().events.report(who.instance(), slice.generation(), &denial.code().to_string(), what());
                last = Error::DestinationIpProhibited;
                continue;
            }
        };
        who.note(&grant, what);
        match dial::plain(&grant, options.connect_timeout.unwrap_or(TIMEOUT).min(TIMEOUT)).await {
            Ok(stream) => return Ok((grant, stream)),
            Err(error) => last = dial_error(who, destination, error),
        }
    }
    Err(last)
}

async fn secure(
    who: &Arc<Loaded>,
    destination: &Destination,
    send: &Grant<HttpSend>,
    _connect: &Grant<HttpConnect>,
    stream: tokio::net::TcpStream,
) -> Result<Connection, Error> {
    match (destination.scheme(), send.peer()) {
        (Scheme::Http, None) => Ok(Connection::Plain(stream)),
        (Scheme::Https, Some(peer)) => {
            let peer = peer.parse().map_err(|_| Error::ConfigurationError)?;
            let signer = &who.shared().signer;
            let name = destination.host().to_string();
            let secured = dial::mtls(who, signer, stream, &name, &peer).await;
            secured.map_err(|error| dial_error(who, destination, error))
        }
        (Scheme::Https, None) => {
            let secured = dial::web(who, stream, &destination.host().to_string()).await;
            secured.map_err(|error| dial_error(who, destination, error))
        }
        (Scheme::Http, Some(_)) => Err(Error::ConfigurationError),
    }
}

fn dial_error(who: &Arc<Loaded>, destination: &Destination, error: DialError) -> Error {
    let detail = format!("{destination}: {error}");
    tracing::warn!(component = who.name(), detail, "an outgoing request failed");
    match error {
        DialError::Timeout => Error::ConnectionTimeout,
        DialError::Connect(_) => Error::ConnectionRefused,
        DialError::Identity(_) | DialError::Tls(_) => {
            let what = What::Failure(Failure { kind: "tls".to_owned(), detail });
            who.shared().events.report(who.instance(), who.slice().generation(), "N0401", what);
            Error::TlsCertificateError
        }
    }
}

/// The request as it goes out: origin form, our own host header, no hop-by-hop headers.
fn outgoing(request: Request<WasiBody>, destination: &Destination) -> Result<Request<WasiBody>, Error> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    parts.uri = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    parts.version = Version::HTTP_11;
    for name in [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHORIZATION] {
        parts.headers.remove(name);
    }
    let host = HeaderValue::from_str(&destination.authority()).map_err(|_| Error::HttpRequestUriInvalid)?;
    parts.headers.insert(HOST, host);
    Ok(Request::from_parts(parts, body))
}

/// The exchange ends when policy does not grant it any more: dropping the driver closes the connection.
async fn exchange(
    connection: Connection,
    request: Request<WasiBody>,
    options: &RequestOptions,
    mut standing: Standing,
) -> Sent {
    let (mut sender, driver) =
        hyper::client::conn::http1::Builder::new().max_headers(MAX_HEADERS).handshake(TokioIo::new(connection)).await?;
    let first = options.first_byte_timeout.unwrap_or(TIMEOUT).min(TIMEOUT);
    let between = options.between_bytes_timeout.unwrap_or(TIMEOUT).min(TIMEOUT);
    let mut driver = Driver::Running(Box::pin(driver));
    let response = {
        let asked = tokio::time::timeout(first, sender.send_request(request));
        tokio::pin!(asked);
        std::future::poll_fn(|cx| {
            driver.poll(cx);
            if standing.poll_over(cx).is_ready() {
                return Poll::Ready(Err(Error::HttpRequestDenied));
            }
            asked.as_mut().poll(cx).map(|asked| match asked {
                Ok(answered) => answered.map_err(Error::from),
                Err(_) => Err(Error::HttpResponseTimeout),
            })
        })
        .await?
    };
    let response = response.map(|body| Idle::new(body, between).map_err(into_error).boxed_unsync());
    let rest = async move {
        tokio::select! {
            biased;
            _over = standing.over() => Err(Error::HttpRequestDenied),
            ended = driver.finish() => ended,
        }
    };
    Ok((response, Box::new(rest)))
}

/// The task behind a client connection, polled together with what waits for it.
enum Driver {
    Running(Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>),
    Ended(hyper::Result<()>),
}

impl Driver {
    fn poll(&mut self, cx: &mut std::task::Context<'_>) {
        if let Driver::Running(connection) = self
            && let Poll::Ready(ended) = connection.as_mut().poll(cx)
        {
            *self = Driver::Ended(ended);
        }
    }

    async fn finish(self) -> Result<(), Error> {
        match self {
            Driver::Running(connection) => connection.await.map_err(Error::from),
            Driver::Ended(ended) => ended.map_err(Error::from),
        }
    }
}

fn into_error(error: super::body::BodyError) -> Error {
    match error {
        super::body::BodyError::Idle => Error::ConnectionReadTimeout,
        super::body::BodyError::TooLarge(most) => Error::HttpResponseBodySize(Some(most)),
        super::body::BodyError::Hyper(error) => Error::Hyper(error),
    }
}

fn shown(method: &Method) -> String {
    method.as_str().chars().take(32).collect()
}

/// Longest wait for a connection, for the head of a response, and between two pieces of its body.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Headers of a response.
const MAX_HEADERS: usize = 100;
