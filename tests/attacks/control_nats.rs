//! The control plane over NATS: a subject, a connection and a header prove nothing, an answer is believed when the host signed it to this
//! request, and what is too much is said. Against real hosts and a real nats-server; the attackers speak the wire themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_identity::statement::{Draft, HEADER, Jti, SvidKey, UserSeed};
use portcullis_tests::host::Host;
use portcullis_tests::nats::pki::{Authority, replace};
use portcullis_tests::nats::{NatsServer, folder};
use portcullis_tests::patience::{LONG, ROUNDS};
use portcullis_tests::site::{Site, portcullis};
use prost::Message as _;
use serde_json::{Value, json};

use crate::operators::{ANN, Answer, LIFE, Target, code, jti};

#[path = "../operators.rs"]
mod operators;

/// How somebody answers: a name, the key, audience, place, whether it answers this request, whether the payload is the signed one.
type Case<'a> = (&'a str, Option<SvidKey>, &'a str, &'static str, bool, bool);

/// A nats-server with a user for hosts and one for operators, without TLS on loopback.
struct Bus {
    server: NatsServer,
    host: nkeys::KeyPair,
    operator: nkeys::KeyPair,
}

impl Bus {
    fn start(test: &str) -> Option<Self> {
        Self::with(test, "")
    }

    /// The same with more lines of the server's configuration.
    fn with(test: &str, more: &str) -> Option<Self> {
        let (host, operator) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
        let config = format!(
            "accounts {{ CTL {{ users: [ {{ nkey: {} }}, {{ nkey: {} }} ] }} }}\n",
            host.public_key(),
            operator.public_key()
        );
        let server = NatsServer::start_in(test, folder(), &(config + more))?;
        Some(Self { server, host, operator })
    }

    async fn connect(&self) -> async_nats::Client {
        async_nats::ConnectOptions::with_nkey(self.operator.seed().unwrap()).connect(self.server.url()).await.unwrap()
    }

    fn section(&self, nkey: &str) -> String {
        format!(
            "[nats]\nservers = [\"{}\"]\naccount = \"CTL\"\ndanger_plaintext = true\nauth.nkey = \"{nkey}\"\n",
            self.server.url()
        )
    }

    /// An operator file for hosts of this authority; gives the folder.
    fn operator_file(&self, place: &Path, signer: &nkeys::KeyPair, bundle: &str) -> PathBuf {
        replace(place, "nats.nk", &self.operator.seed().unwrap());
        replace(place, "signer.nk", &signer.seed().unwrap());
        std::fs::write(place.join("bundle.json"), bundle).unwrap();
        let text = format!(
            "version = 1\ntrust_domain = \"test.example\"\nbundle = \"bundle.json\"\ncluster = \"test\"\n[key]\nnkey = \"signer.nk\"\n{}",
            self.section("nats.nk")
        );
        std::fs::write(place.join("operator.toml"), text).unwrap();
        place.join("operator.toml")
    }
}

const H1: &str = "spiffe://test.example/portcullis/host/h1";

/// A host `h1` on this server, with this operator for these actions. There are no buckets: it is never ready.
fn clustered_host(bus: &Bus, signer: &nkeys::KeyPair, actions: &str) -> Host {
    let mut site = Site::new();
    site.grants(&format!(
        "[[operator]]\nid = \"ops\"\nreason = \"r\"\nowner = \"o\"\nwho = \"{}\"\nhosts = [\"h1\"]\ncomponents = [\"*\"]\n\
         actions = [{actions}]\n\n",
        signer.public_key()
    ));
    replace(site.path(), "host.nk", &bus.host.seed().unwrap());
    site.config(&bus.section("host.nk"));
    let text = std::fs::read_to_string(site.write()).unwrap();
    let text = text.replace("cluster = \"test\"\n", "") + "\n[cluster]\nname = \"test\"\nhost = \"h1\"\n";
    site.damage("portcullis.toml", Some(text.as_bytes()));
    Host::start(site)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_somebody_else_is_not_believed() {
    const TEST: &str = "an_answer_of_somebody_else_is_not_believed";
    let Some(bus) = Bus::start(TEST) else { return };
    let (place, signer) = (tempfile::tempdir().unwrap(), nkeys::KeyPair::new_user());
    let authority = Authority::of_trust_domain("test.example");
    let bundle = json!({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(authority.der())]}]});
    let file = bus.operator_file(place.path(), &signer, &bundle.to_string());
    let svid = |id: &str| {
        let leaf = authority.spiffe(id);
        SvidKey::parse(leaf.certificate.as_bytes(), leaf.key.as_bytes()).unwrap()
    };
    let client = bus.connect().await;
    let me = signer.public_key();
    let h1 = "spiffe://test.example/portcullis/host/h1";
    // What the one who answers does: key, audience, place, whether it answers this request, whether the payload is the signed one.
    let cases: [Case<'_>; 8] = [
        ("honest", Some(svid(h1)), &me, "control/list/reply", true, true),
        ("unsigned", None, &me, "control/list/reply", true, true),
        ("another host", Some(svid("spiffe://test.example/portcullis/host/h2")), &me, "control/list/reply", true, true),
        ("a component", Some(svid("spiffe://test.example/ns/shop/sa/cart")), &me, "control/list/reply", true, true),
        ("for somebody else", Some(svid(h1)), ANN, "control/list/reply", true, true),
        ("for another method", Some(svid(h1)), &me, "control/status/reply", true, true),
        ("to another request", Some(svid(h1)), &me, "control/list/reply", false, true),
        ("changed on the way", Some(svid(h1)), &me, "control/list/reply", true, false),
    ];
    for (name, key, audience, place, binds, intact) in cases {
        let mut requests = client.subscribe("portcullis.test.ctl.h1.list").await.unwrap();
        client.flush().await.unwrap();
        let (answering, audience) = (client.clone(), audience.to_owned());
        let responder = tokio::spawn(async move {
            use futures::StreamExt as _;
            let message = requests.next().await.unwrap();
            let request = message.headers.as_ref().unwrap().get(HEADER).unwrap().as_str().to_owned();
            let claims = request.split('.').nth(1).unwrap().to_owned();
            let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
            let claims: Value = serde_json::from_slice(&claims).unwrap();
            let asked: Jti = claims["jti"].as_str().unwrap().parse().unwrap();
            // CONTROL_REQUEST_LIFE: whoever keeps it back has it for nothing soon.
            let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
            assert_eq!(life, 30, "{claims}");
            let payload = Answer { reply: Some(Vec::new()), refused: None }.encode_to_vec();
            let mut headers = async_nats::HeaderMap::new();
            if let Some(key) = key {
                let about: &[u8] = if intact { &payload } else { b"other" };
                let draft = Draft::by_svid(key.signer(), &audience, place, jti(), LIFE, about).unwrap();
                let draft = draft.answering(if binds { asked } else { jti() });
                headers.insert(HEADER, key.sign_statement(&draft).unwrap());
            }
            answering.publish_with_headers(message.reply.unwrap(), headers, payload.into()).await.unwrap();
            answering.flush().await.unwrap();
        });
        let file = file.display().to_string();
        let asked =
            tokio::task::spawn_blocking(move || portcullis(["list", "--operator", &file, "--host", "h1", "--json"]));
        let ended = asked.await.unwrap();
        responder.await.unwrap();
        match name {
            "honest" => assert_eq!(ended.ok().json(), json!([])),
            _ => assert_eq!(
                (ended.exit, ended.code().as_str()),
                (11, "host.unproven"),
                "{name}: {}{}",
                ended.out,
                ended.err
            ),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_nats_a_subject_proves_nothing_and_a_message_is_for_one_host() {
    const TEST: &str = "over_nats_a_subject_proves_nothing_and_a_message_is_for_one_host";
    let Some(bus) = Bus::start(TEST) else { return };
    let signer = nkeys::KeyPair::new_user();
    let host = clustered_host(&bus, &signer, "\"list\", \"stop\", \"logs\"");
    let bundle = host.run(["identity", "bundle"]).ok().out;
    let place = tempfile::tempdir().unwrap();
    let file = bus.operator_file(place.path(), &signer, &bundle).display().to_string();
    let ask = |command: &[&str]| {
        let more = ["--operator", &file, "--host", "h1", "--json"];
        portcullis(command.iter().copied().chain(more))
    };
    let until = Instant::now() + LONG;
    let mut listed = ask(&["list"]);
    while listed.exit != 0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(200)).await;
        listed = ask(&["list"]);
    }
    assert_eq!(listed.ok().json(), json!([]), "{}", host.log());
    let refused = ask(&["status"]);
    assert_eq!((refused.exit, refused.code().as_str()), (20, "C0202"), "{}{}", refused.out, refused.err);
    let nothing = ask(&["stop", "test:hello"]);
    assert_eq!(nothing.exit, 2, "{}{}", nothing.out, nothing.err);

    // The attacker may publish to the subject of the host, as every user of the account may.
    let client = bus.connect().await;
    let seed = UserSeed::parse(&signer.seed().unwrap()).unwrap();
    let payload = Target { target: "test:hello".to_owned() }.encode_to_vec();
    let statement = |audience: &str, place: &str| {
        let draft = Draft::by_nkey(seed.public(), audience, place, jti(), LIFE, &payload).unwrap();
        draft.token(&seed.sign(draft.signing_input().as_bytes()))
    };
    let send = |subject: &str, statement: Option<&str>| {
        let (client, payload, subject) = (client.clone(), payload.clone(), subject.to_owned());
        let headers = statement.map(|statement| {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert(HEADER, statement);
            headers.insert("Nats-Request-Info", r#"{"acc":"CTL","user":"spiffe://test.example/ops/ann"}"#);
            headers
        });
        async move {
            let request = async_nats::Request::new().payload(payload.into()).timeout(Some(LONG));
            let request = match headers {
                Some(headers) => request.headers(headers),
                None => request,
            };
            Answer::decode(client.send_request(subject, request).await.unwrap().payload).unwrap()
        }
    };
    let (h1, h2) = ("spiffe://test.example/portcullis/host/h1", "spiffe://test.example/portcullis/host/h2");
    let subject = "portcullis.test.ctl.h1.stop";
    assert_eq!(code(&send(subject, None).await), "statement.missing");
    assert_eq!(code(&send(subject, Some(&statement(h2, "control/stop"))).await), "statement.audience");
    assert_eq!(code(&send(subject, Some(&statement(h1, "control/list"))).await), "statement.place");
    let good = statement(h1, "control/stop");
    assert_eq!(code(&send(subject, Some(&good)).await), "");
    assert_eq!(code(&send(subject, Some(&good)).await), "statement.replayed");
    let stranger = UserSeed::parse(&bus.operator.seed().unwrap()).unwrap();
    let draft = Draft::by_nkey(stranger.public(), h1, "control/stop", jti(), LIFE, &payload).unwrap();
    let forged = draft.token(&stranger.sign(draft.signing_input().as_bytes()));
    assert_eq!(code(&send(subject, Some(&forged)).await), "statement.unknown-key");
    assert_eq!(host.record(&[("kind", "control"), ("action", "stop")])["over"], "nats");
}

/// What does not fit through the server is said at both ends, and does not vanish.
#[tokio::test(flavor = "multi_thread")]
async fn over_nats_what_is_larger_than_the_server_takes_is_said() {
    const TEST: &str = "over_nats_what_is_larger_than_the_server_takes_is_said";
    let Some(bus) = Bus::with(TEST, "max_payload: 40000\n") else { return };
    let signer = nkeys::KeyPair::new_user();
    let host = clustered_host(&bus, &signer, "\"list\", \"logs\", \"start\"");
    let bundle = host.run(["identity", "bundle"]).ok().out;
    let place = tempfile::tempdir().unwrap();
    let file = bus.operator_file(place.path(), &signer, &bundle).display().to_string();
    let ask = |command: &[&str]| {
        let more = ["--operator", &file, "--host", "h1", "--json"];
        portcullis(command.iter().copied().chain(more))
    };
    let until = Instant::now() + LONG;
    while ask(&["list"]).exit != 0 {
        assert!(Instant::now() < until, "{}", host.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // An answer: lines about starts that failed, with long names.
    let missing = format!("/{}/missing.wasm", "x".repeat(200));
    for n in 0..60 {
        assert_ne!(host.run(["start", &format!("{missing}{n}")]).exit, 0);
    }
    assert_eq!(ask(&["logs", "--lines", "2"]).ok().json().as_array().unwrap().len(), 2);
    let refused = ask(&["logs", "--lines", "2000"]);
    assert_eq!(
        (refused.exit, refused.code().as_str()),
        (20, "control.answer-too-large"),
        "{}{}",
        refused.out,
        refused.err
    );
    assert!(refused.err.contains("--lines"), "{}", refused.err);
    // A request: evidence.
    std::fs::write(place.path().join("large.json"), vec![b'x'; 50_000]).unwrap();
    let evidence = place.path().join("large.json").display().to_string();
    let digest = format!("sha256:{}", "0".repeat(64));
    let refused = ask(&["start", "--name", "test:late", "--digest", &digest, "--bundle", &evidence]);
    assert_eq!((refused.exit, refused.code().as_str()), (2, "usage"), "{}{}", refused.out, refused.err);
    assert!(refused.err.contains("max_payload"), "{}", refused.err);
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(uint64, tag = "1")]
    wait_ready_ms: u64,
}

/// CONTROL_CALLS: requests over the network at work.
#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_those_that_may_be_at_work_are_refused_at_once_and_the_others_go_on() {
    const TEST: &str = "requests_beyond_those_that_may_be_at_work_are_refused_at_once_and_the_others_go_on";
    let Some(bus) = Bus::start(TEST) else { return };
    let signer = nkeys::KeyPair::new_user();
    // There are no buckets, so the host is never ready: a status that waits for that is at work for five seconds.
    let host = clustered_host(&bus, &signer, "\"status\"");
    let client = bus.connect().await;
    let seed = UserSeed::parse(&signer.seed().unwrap()).unwrap();
    let ask = |wait_ready_ms: u64| {
        let payload = Status { wait_ready_ms }.encode_to_vec();
        let draft = Draft::by_nkey(seed.public(), H1, "control/status", jti(), LIFE, &payload).unwrap();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(HEADER, draft.token(&seed.sign(draft.signing_input().as_bytes())));
        let client = client.clone();
        async move {
            let request = async_nats::Request::new().payload(payload.into()).headers(headers);
            let request = request.timeout(Some(LONG));
            let answered = client.send_request("portcullis.test.ctl.h1.status", request).await;
            answered.ok().map(|message| Answer::decode(message.payload).unwrap())
        }
    };
    let until = Instant::now() + LONG;
    while ask(0).await.is_none_or(|answer| answer.reply.is_none()) {
        assert!(Instant::now() < until, "{}", host.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut counted = (0, 0);
    for _ in 0..ROUNDS {
        let answers = futures::future::join_all((0..80).map(|_| ask(5_000))).await;
        let busy = answers.iter().flatten().filter(|answer| code(answer) == "control.busy").count();
        let served = answers.iter().flatten().filter(|answer| answer.reply.is_some()).count();
        counted = (busy, served);
        assert!(served >= 64, "64 at once; {counted:?} {}", host.log());
        // Where this machine is busy, the first may be done before the last has come.
        if busy == 16 {
            break;
        }
    }
    assert_eq!(counted, (16, 64), "64 at once; {}", host.log());
    assert!(ask(0).await.unwrap().reply.is_some(), "and then it is served again");
}
