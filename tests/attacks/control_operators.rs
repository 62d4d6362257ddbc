//! Operators of other trust domains, and too much of everything: whoever comes over HTTPS gets what an entry grants to exactly that
//! SPIFFE ID, proven by the authority of its own trust domain, and cannot use up what others need.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::io::Read as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_tests::host::Host;
use portcullis_tests::nats::pki::{Authority, replace};
use portcullis_tests::patience::{LONG, promised};
use prost::Message as _;
use serde_json::json;

use crate::operators::{
    ANN, LOCAL, asks, code, https_host, jti, key, operator_file, operator_files, operators, post, post_each, settled,
    signed, stored,
};

#[path = "../operators.rs"]
mod operators;

const BOB: &str = "spiffe://partner.example/ops/bob";

/// A host that federates with `partner.example`, whose only authority this is, and knows an operator of it.
fn federated_host(partner: &Authority) -> Host {
    let bundle = json!({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(partner.der())]}]});
    https_host(|site| {
        std::fs::write(site.file("partner.json"), bundle.to_string()).unwrap();
        site.config(
            "\n[[federation.peer]]\ntrust_domain = \"partner.example\"\nurl = \"https://127.0.0.1:9/\"\nprofile = \"https_spiffe\"\n\
             endpoint_spiffe_id = \"spiffe://partner.example/server\"\nbootstrap = \"partner.json\"\n",
        );
        site.grants(&operators().replace("id = \"ann\"", "id = \"bob\"").replace(ANN, BOB));
    })
}

/// An operator whose SVID says `id`, issued by this authority.
fn enrol(host: &Host, who: &str, authority: &Authority, id: &str, address: &str) {
    let leaf = authority.spiffe(id);
    replace(host.site().path(), &format!("{who}.pem"), &leaf.certificate);
    replace(host.site().path(), &format!("{who}.key"), &leaf.key);
    operator_file(host, who, address);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_a_federated_trust_domain_gets_what_is_granted_to_it_and_its_authority_makes_nobody_of_ours() {
    let partner = Authority::of_trust_domain("partner.example");
    let host = federated_host(&partner);
    let address = operator_files(&host).await;
    enrol(&host, "bob", &partner, BOB, &address);
    let listed = asks(&host, "bob", &["list"]).ok().json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "bob's entry names one component that runs: {listed:#}");
    assert_eq!(listed[0]["name"], "test:hello");
    settled().await;
    assert_eq!(asks(&host, "bob", &["stop", "test:hello"]).ok().json()["stopped"], 1);
    assert_eq!(host.record(&[("kind", "control"), ("action", "stop"), ("who", BOB)])["over"], "https");

    // Another ID of that trust domain is known, and nobody granted it anything.
    enrol(&host, "carol", &partner, "spiffe://partner.example/ops/carol", &address);
    let refused = asks(&host, "carol", &["list"]);
    assert_eq!((refused.exit, refused.code().as_str()), (20, "C0202"), "{}{}", refused.out, refused.err);

    // Its authority has no say about our trust domain, nor has ours about it, nor has one that calls itself by its name.
    let impostor = Authority::of_trust_domain("partner.example");
    for (who, authority, id) in [("ours", &partner, ANN), ("impostor", &impostor, BOB)] {
        enrol(&host, who, authority, id, &address);
        let refused = asks(&host, who, &["list"]);
        assert_eq!(
            (refused.exit, refused.code().as_str()),
            (18, "host.unreachable"),
            "{who}: {}{}",
            refused.out,
            refused.err
        );
    }
    // The same statements on a connection that is bob's own: the chain of each is checked with the bundle of the ID in it.
    for who in ["ours", "impostor"] {
        let statement = signed(&key(&host, who), LOCAL, "control/list", jti(), b"");
        let (proof, answer) = post(&host, &address, "bob", "list", &[&statement], b"").await;
        assert_eq!((code(&answer), proof), ("statement.chain", None), "{who}: {answer:?}");
    }
    // Who is revoked here is so wherever it comes from.
    host.run(["identity", "revoke", BOB]).ok();
    let refused = asks(&host, "bob", &["list"]);
    assert_ne!(refused.exit, 0, "{}{}", refused.out, refused.err);
    host.run(["identity", "revoke", "--lift", BOB]).ok();
    asks(&host, "bob", &["list"]).ok();
}

#[derive(Clone, PartialEq, prost::Message)]
struct Start {
    #[prost(string, tag = "5")]
    component: String,
    #[prost(string, tag = "6")]
    digest: String,
    #[prost(bytes = "vec", repeated, tag = "8")]
    evidence: Vec<Vec<u8>>,
}

/// CONTROL_REQUEST_BYTES, CONTROL_EVIDENCE.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_or_brings_too_much_is_refused() {
    let host = https_host(|site| {
        site.sign("late", &portcullis_tests::guests::ours("hello"));
    });
    let address = operator_files(&host).await;
    let digest = stored(&host, "late");
    settled().await;
    let ann = key(&host, "ann");
    let start = |evidence: Vec<Vec<u8>>| {
        Start { component: "test:late".to_owned(), digest: digest.clone(), evidence }.encode_to_vec()
    };
    for (evidence, expected) in [
        (vec![vec![b'x'; 1 << 20]; 3], "evidence.malformed"),
        (vec![vec![b'x'; (1 << 20) + 1]], "start.evidence"),
        (vec![vec![b'x'; 9]; 8], "evidence.malformed"),
        (vec![vec![b'x'; 9]; 9], "start.evidence"),
    ] {
        let payload = start(evidence);
        let statement = signed(&ann, LOCAL, "control/start", jti(), &payload);
        let (proof, answer) = post(&host, &address, "ann", "start", &[&statement], &payload).await;
        assert!(proof.is_some(), "it was believed: {answer:?}");
        // A refused start is a reply that says so.
        let reply = answer.reply.unwrap_or_default();
        let said = String::from_utf8_lossy(&reply).into_owned();
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let payload = vec![0; (4 << 20) + 1];
    let statement = signed(&ann, LOCAL, "control/start", jti(), &payload);
    let (proof, answer) = post(&host, &address, "ann", "start", &[&statement], &payload).await;
    assert_eq!((proof, answer), (None, operators::Answer::default()), "413, without a word");
    asks(&host, "ann", &["list"]).ok();
}

/// CONTROL_CONNECTIONS, CONTROL_HEAD.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_are_ended_and_make_room() {
    let host = https_host(|_| {});
    let address = operator_files(&host).await;
    let began = Instant::now();
    let mut silent: Vec<TcpStream> = (0..128).map(|_| TcpStream::connect(&address).unwrap()).collect();
    // All places are taken: an honest request waits until they are given up.
    let late = tokio::time::timeout(Duration::from_secs(3), {
        let statement = signed(&key(&host, "ann"), LOCAL, "control/list", jti(), b"");
        let (host, address) = (&host, &address);
        async move { post(host, address, "ann", "list", &[&statement], b"").await }
    })
    .await;
    assert!(late.is_err(), "128 places are taken");
    let mut first = silent.remove(0);
    first.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(first.read(&mut [0; 16]).unwrap_or(0), 0, "it is ended, and told nothing");
    let took = began.elapsed();
    assert!((Duration::from_secs(8)..promised(Duration::from_secs(16))).contains(&took), "{took:?}");
    asks(&host, "ann", &["list"]).ok();
}

/// CONTROL_STRANGERS: refusals of nobody's that are recorded in a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_somebody_who_has_no_entry_fills_no_log() {
    let host = https_host(|_| {});
    let address = operator_files(&host).await;
    let eve = key(&host, "eve");
    let began = Instant::now();
    let statements: Vec<String> = (0..150).map(|_| signed(&eve, LOCAL, "control/list", jti(), b"")).collect();
    let answers = post_each(&host, &address, "eve", "list", &statements).await;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    assert!(answers.iter().all(|answer| code(answer) == "C0202"), "{answers:?}");
    let refused = answers.len();
    let recorded = host.audit().into_iter().filter(|record| record["code"] == "C0202").count();
    assert!(recorded >= 1 && recorded <= 10 * seconds, "{recorded} of {refused} recorded in {seconds} s");
}

/// CONTROL_WAIT: the command line does not wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_never_answers_is_given_up() {
    let host = https_host(|_| {});
    operator_files(&host).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    operator_file(&host, "ann", &nobody.local_addr().unwrap().to_string());
    let began = Instant::now();
    let given_up = asks(&host, "ann", &["list"]);
    assert_eq!((given_up.exit, given_up.code().as_str()), (18, "host.unreachable"), "{}{}", given_up.out, given_up.err);
    assert!(began.elapsed() < promised(Duration::from_secs(20)), "{:?}", began.elapsed());
}
