//! The Workload API server over a socket pair: what it takes, how many, how long. What real clients and a real host make of it is
//! in `tests/`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use hyper_util::rt::TokioIo;
use portcullis_identity::limits::{
    WORKLOAD_DRAIN, WORKLOAD_HEADER_BYTES, WORKLOAD_KEEPALIVE, WORKLOAD_KEEPALIVE_TIMEOUT, WORKLOAD_PREFACE,
    WORKLOAD_REQUEST_BYTES, WORKLOAD_STREAMS,
};
use portcullis_identity::workload_api::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_identity::workload_api::pb::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svidRequest,
};
use portcullis_identity::workload_api::{
    Due, Entitlement, KeyedX509, ProofToken, Refusal, Refusing, Token, X509Svids, serve,
};
use portcullis_identity::{Audience, SpiffeId, TrustDomain};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use zeroize::Zeroizing;

/// Entitled to one identity, or as many as the hints say.
struct Entitled {
    changes: watch::Sender<u64>,
    hints: Vec<&'static str>,
    asked: Mutex<Vec<(Vec<Audience>, Option<SpiffeId>)>>,
}

#[tonic::async_trait]
impl Entitlement for Entitled {
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn x509_svids(&self) -> Result<Due<X509Svids>, Refusal> {
        let svid = |hint: &&str| KeyedX509 {
            spiffe_id: "spiffe://example.org/a".parse().unwrap(),
            chain: vec![vec![1], vec![2]],
            key: Zeroizing::new(vec![3]),
            authorities: vec![vec![4], vec![5]],
            hint: (*hint).to_owned(),
        };
        let federated = BTreeMap::from([("example.com".parse().unwrap(), vec![vec![6], vec![7]])]);
        Ok(Due { answer: X509Svids { svids: self.hints.iter().map(svid).collect(), federated }, again: None })
    }

    async fn x509_bundles(&self) -> Result<BTreeMap<TrustDomain, Vec<Vec<u8>>>, Refusal> {
        Ok(BTreeMap::from([("example.org".parse().unwrap(), vec![vec![4], vec![5]])]))
    }

    async fn jwt_svids(&self, audiences: Vec<Audience>, only: Option<SpiffeId>) -> Result<Vec<Token>, Refusal> {
        self.asked.lock().unwrap().push((audiences, only));
        Ok(Vec::new())
    }

    async fn jwt_bundles(&self) -> Result<BTreeMap<TrustDomain, String>, Refusal> {
        Ok(BTreeMap::new())
    }

    async fn validate_jwt(&self, _: &str, _: &Audience) -> Result<SpiffeId, Refusal> {
        Err(Refusal::NoIdentity)
    }

    async fn wit_svids(&self, _: Option<SpiffeId>) -> Result<Due<Vec<ProofToken>>, Refusal> {
        Err(Refusal::WitDisabled)
    }

    async fn wit_bundles(&self) -> Result<BTreeMap<TrustDomain, String>, Refusal> {
        Err(Refusal::WitDisabled)
    }
}

fn entitled(hints: &[&'static str]) -> Arc<Entitled> {
    Arc::new(Entitled { changes: watch::Sender::new(0), hints: hints.to_vec(), asked: Mutex::default() })
}

type Client = SpiffeWorkloadApiClient<Channel>;

async fn client<E: Entitlement>(entitlement: Arc<E>) -> (Client, watch::Sender<bool>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let stopping = watch::Sender::new(false);
    tokio::spawn(serve(theirs, entitlement, stopping.subscribe(), pending()));
    let slot = Mutex::new(Some(ours));
    let connect = tower::service_fn(move |_| {
        let taken = slot.lock().unwrap().take();
        async move { taken.map(TokioIo::new).ok_or_else(|| std::io::Error::other("there is one connection")) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap();
    (SpiffeWorkloadApiClient::new(channel), stopping)
}

fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

#[tokio::test]
async fn certificates_are_concatenated_and_a_hint_is_there_once() {
    let (mut client, _stopping) = client(entitled(&["a", "b", "a", ""])).await;
    let mut stream = client.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let message = stream.next().await.unwrap().unwrap();
    let hints: Vec<&str> = message.svids.iter().map(|svid| svid.hint.as_str()).collect();
    assert_eq!(hints, ["a", "b", "", ""], "the first keeps it");
    let svid = &message.svids[0];
    assert_eq!((&svid.x509_svid[..], &svid.x509_svid_key[..], &svid.bundle[..]), (&[1, 2][..], &[3][..], &[4, 5][..]));
    assert_eq!(message.federated_bundles["spiffe://example.com"], [6, 7]);
    assert!(!format!("{message:?}").contains("x509_svid_key: [3]"), "a key in a debug text");
}

#[tokio::test]
async fn no_svid_at_all_is_a_refusal_and_not_an_empty_answer() {
    let (mut client, _stopping) = client(entitled(&[])).await;
    let mut stream = client.fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
    assert!(stream.next().await.is_none());
    let request = JwtsvidRequest { audience: vec!["a".to_owned()], spiffe_id: String::new() };
    let status = client.fetch_jwtsvid(call(request)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
}

#[tokio::test]
async fn malformed_fields_never_get_to_the_entitlement() {
    let entitlement = entitled(&["a"]);
    let (mut client, _stopping) = client(Arc::clone(&entitlement)).await;
    for (audience, spiffe_id) in [
        (&[][..], ""),
        (&[""], ""),
        (&["a", ""], ""),
        (&["a b"], ""),
        (&["a"; 9], ""),
        (&["a"], "a"),
        (&["a"], "spiffe://"),
        (&["a"], "spiffe://example.org/../a"),
        (&["a"], "spiffe://example.org/a?b"),
    ] {
        let audience = audience.iter().map(|&text| text.to_owned()).collect();
        let request = JwtsvidRequest { audience, spiffe_id: spiffe_id.to_owned() };
        let status = client.fetch_jwtsvid(call(request.clone())).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{request:?}");
    }
    for (audience, svid) in [("", "a.b.c"), ("a", ""), ("a b", "a.b.c")] {
        let request = ValidateJwtsvidRequest { audience: audience.to_owned(), svid: svid.to_owned() };
        assert_eq!(client.validate_jwtsvid(call(request)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(entitlement.asked.lock().unwrap().is_empty());
    let request = JwtsvidRequest { audience: vec!["a".to_owned()], spiffe_id: "spiffe://example.org/a".to_owned() };
    client.fetch_jwtsvid(call(request)).await.unwrap_err();
    assert_eq!(entitlement.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_caller_that_is_refused_is_told_so_by_each_call() {
    for (refusal, code) in [(Refusal::NoIdentity, Code::PermissionDenied), (Refusal::TooManyCalls, Code::Unavailable)] {
        let (mut client, _stopping) = client(Arc::new(Refusing::new(refusal))).await;
        let mut stream = client.fetch_jwt_bundles(call(JwtBundlesRequest {})).await.unwrap().into_inner();
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), code);
        let request = JwtsvidRequest { audience: vec!["a".to_owned()], spiffe_id: String::new() };
        assert_eq!(client.fetch_jwtsvid(call(request)).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn requests_and_headers_over_the_limits_are_refused() {
    let (mut client, _stopping) = client(entitled(&["a"])).await;
    let request = |len: usize| ValidateJwtsvidRequest { audience: "a".to_owned(), svid: "x".repeat(len) };
    let status = client.validate_jwtsvid(call(request(WORKLOAD_REQUEST_BYTES - 64))).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "as large as may be: {status}");
    let status = client.validate_jwtsvid(call(request(WORKLOAD_REQUEST_BYTES + 1))).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let mut large = call(request(1));
    let value = "x".repeat(usize::try_from(WORKLOAD_HEADER_BYTES).unwrap());
    large.metadata_mut().insert("large", value.parse().unwrap());
    client.validate_jwtsvid(large).await.unwrap_err();
    let status = client.validate_jwtsvid(call(request(1))).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "the connection goes on: {status}");
}

#[tokio::test]
async fn more_streams_than_the_limit_wait_until_one_ends() {
    let (client, _stopping) = client(entitled(&["a"])).await;
    let mut streams = Vec::new();
    for _ in 0..WORKLOAD_STREAMS {
        let mut client = client.clone();
        let mut stream = client.fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
        stream.next().await.unwrap().unwrap();
        streams.push(stream);
    }
    let mut over = client.clone();
    let mut waiting = tokio::spawn(async move { over.fetch_x509_bundles(call(X509BundlesRequest {})).await });
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err(), "one more than may be");
    streams.pop();
    tokio::time::timeout(Duration::from_secs(90), waiting).await.unwrap().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_given_up() {
    let (_silent, theirs) = UnixStream::pair().unwrap();
    let stopping = watch::Sender::new(false);
    let from = tokio::time::Instant::now();
    serve(theirs, entitled(&["a"]), stopping.subscribe(), pending()).await;
    assert_eq!(from.elapsed().as_secs(), WORKLOAD_PREFACE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_pings_is_given_up() {
    let (mut deaf, theirs) = UnixStream::pair().unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    tokio::io::AsyncWriteExt::write_all(&mut deaf, preface).await.unwrap();
    let stopping = watch::Sender::new(false);
    let from = tokio::time::Instant::now();
    serve(theirs, entitled(&["a"]), stopping.subscribe(), pending()).await;
    let (lasted, most) = (from.elapsed(), WORKLOAD_KEEPALIVE + WORKLOAD_KEEPALIVE_TIMEOUT);
    assert!(lasted >= WORKLOAD_KEEPALIVE && lasted <= most + Duration::from_secs(1), "{lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_go_holds_nobody_up() {
    let (_silent, theirs) = UnixStream::pair().unwrap();
    let stopping = watch::Sender::new(false);
    let server = tokio::spawn(serve(theirs, entitled(&["a"]), stopping.subscribe(), pending()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let from = tokio::time::Instant::now();
    stopping.send_replace(true);
    server.await.unwrap();
    assert!(from.elapsed() <= WORKLOAD_DRAIN + Duration::from_millis(100), "{:?}", from.elapsed());
}

#[tokio::test]
async fn a_connection_is_dropped_as_it_is_when_it_is_cut() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let stopping = watch::Sender::new(false);
    let (cut, when) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(theirs, entitled(&["a"]), stopping.subscribe(), async {
        let _ = when.await;
    }));
    cut.send(()).unwrap();
    server.await.unwrap();
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut ours, &mut rest).await.unwrap();
}
