//! Serving one request: a fresh store and instance, the guest driven inline, its answer or its failure.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response, StatusCode};
use hyper::body::Body;
use portcullis_identity::SpiffeId;
use portcullis_policies::{Call, Grant};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error, WasiHttpView};

use super::body::{GuestBody, ResponseBody};
use super::component::Loaded;
use super::context::Ctx;
use super::guest::{GuestCall, GuestFailure, Meter};
use super::standing::{Over, Standing};
use crate::rpc::runtime::{Failure, event::What};

/// What is known of the connection that a request came on.
#[derive(Debug, Clone)]
pub struct Side {
    /// `http` or `https`.
    pub scheme: fn() -> Scheme,
    /// The caller, where mTLS proved one.
    pub caller: Option<Caller>,
    /// What the TLS handshake settled; the request must be for it.
    pub handshake: Option<Arc<Handshake>>,
}

/// A caller that proved who it is.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The SPIFFE ID in its certificate.
    pub spiffe_id: SpiffeId,
    /// The end of its certificate: from then on it proves nothing.
    pub until: OffsetDateTime,
}

/// What a TLS handshake settled for all requests on its connection.
#[derive(Debug)]
pub struct Handshake {
    /// The host name that was asked for.
    pub server_name: String,
    /// The SPIFFE ID that was shown: only the component that has it may answer.
    pub shown: SpiffeId,
    /// When the first of the two certificates ends: the connection takes no request after that.
    pub until: OffsetDateTime,
}

/// What a client gets.
pub type Answer = Response<ResponseBody>;
/// Why there is no answer of the guest.
enum Lost {
    /// It failed, or ended silently.
    Failed(Option<GuestFailure>),
    /// Policy changed.
    Over(Over),
}

type Head = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// Runs one request in a fresh instance: inline until the head of the response is there, then the body goes on.
///
/// The grant is the proof that this caller may call; without one there is no way to run a guest. The call ends when policy
/// does not grant it any more.
pub async fn serve<B>(
    who: &Arc<Loaded>,
    _grant: Grant<Call>,
    mut standing: Standing,
    request: Request<B>,
    side: &Side,
    place: OwnedSemaphorePermit,
) -> Answer
where
    B: Body<Data = Bytes, Error = Error> + Send + 'static,
{
    let shared = who.shared();
    let mut deadline = Box::pin(tokio::time::sleep(shared.limits.request()));
    let (mut call, mut head) = match start(who, request, side, place) {
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
            return Poll::Ready(Err(Lost::Failed(done.err())));
        }
        if let Poll::Ready(over) = standing.poll_over(cx) {
            return Poll::Ready(Err(Lost::Over(over)));
        }
        deadline.as_mut().poll(cx).map(|()| Err(Lost::Failed(Some(GuestFailure::Late))))
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
            response
                .map(|body| ResponseBody::Guest(Box::new(GuestBody::new(body, call, deadline, standing, on_failure))))
        }
        Ok((Err(code), _)) => {
            tracing::info!(component = who.name(), ?code, "the component answered with an error");
            text(StatusCode::BAD_GATEWAY, "the component answered with an error")
        }
        Err(Lost::Over(over)) => {
            refused("policy does not let you call this component any more", &over.code, &over.reference)
        }
        Err(Lost::Failed(failure)) => {
            let failure = failure.unwrap_or_else(|| GuestFailure::Trap("it ended without an answer".to_owned()));
            failure_report(who)(&failure);
            match failure {
                GuestFailure::Late | GuestFailure::CpuTime => {
                    text(StatusCode::GATEWAY_TIMEOUT, "the component did not answer in time")
                }
                GuestFailure::Trap(_) | GuestFailure::Panic(_) | GuestFailure::Cancelled => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, "the component failed")
                }
            }
        }
    }
}

fn start<B>(
    who: &Arc<Loaded>,
    request: Request<B>,
    side: &Side,
    place: OwnedSemaphorePermit,
) -> wasmtime::Result<(GuestCall, oneshot::Receiver<Head>)>
where
    B: Body<Data = Bytes, Error = Error> + Send + 'static,
{
    let shared = who.shared();
    let pre = who.http().ok_or_else(|| wasmtime::Error::msg("it serves no HTTP"))?.clone();
    let (mut store, meter) = store(who, Ctx::new(who, side.caller.clone()));
    let (tell, head) = oneshot::channel();
    let request = store.data_mut().http().new_incoming_request((side.scheme)(), request)?;
    let outparam = store.data_mut().http().new_response_outparam(tell)?;
    let ending = meter.ending();
    let future = Box::pin(async move {
        // Dropped from below: the end is marked, then the store goes, and only then its place is free for another.
        let _place = place;
        let mut store = store;
        let _ending = ending;
        let proxy = pre.instantiate_async(&mut store).await?;
        proxy.wasi_http_incoming_handler().call_handle(&mut store, request, outparam).await
    });
    Ok((GuestCall::new(future, meter, Arc::clone(&shared.lanes)), head))
}

/// A store for one call, with the limits that each has.
pub fn store(who: &Arc<Loaded>, context: Ctx) -> (Store<Ctx>, Arc<Meter>) {
    let shared = who.shared();
    let mut store = Store::new(&shared.engine, context);
    store.limiter(Ctx::budget);
    store.set_hostcall_fuel(usize::try_from(shared.limits.hostcall_bytes).unwrap_or(usize::MAX));
    store.set_max_component_handles(usize::try_from(shared.limits.handles).unwrap_or(usize::MAX));
    let meter = Arc::new(Meter::default());
    meter.arm(&mut store, shared.limits.cpu());
    (store, meter)
}

/// Reports that a guest spoilt what it was to do.
pub fn failure_report(who: &Arc<Loaded>) -> Box<dyn FnOnce(&GuestFailure) + Send> {
    let who = Arc::clone(who);
    Box::new(move |failure| {
        let shared = who.shared();
        shared.guest_failures.fetch_add(1, Ordering::Relaxed);
        let what = What::Failure(Failure { kind: failure.kind().to_owned(), detail: failure.to_string() });
        let reference = shared.events.report(who.instance(), who.slice().generation(), "R0301", what);
        tracing::warn!(component = who.name(), instance = who.instance(), reference, %failure, "a request was lost");
    })
}

/// A refusal by policy, with the code and the reference for the operator.
pub fn refused(words: &'static str, code: &str, reference: &str) -> Answer {
    let mut refused = text(StatusCode::FORBIDDEN, words);
    if let Ok(value) = HeaderValue::from_str(&format!("{code} {reference}")) {
        refused.headers_mut().insert("x-portcullis-refusal", value);
    }
    refused
}

/// An answer of the host's own.
pub fn text(status: StatusCode, words: &'static str) -> Answer {
    let mut response = Response::new(ResponseBody::Text(Some(Bytes::from_static(words.as_bytes()))));
    *response.status_mut() = status;
    response
}
