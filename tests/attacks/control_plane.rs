//! The control plane over HTTPS and NATS: operators get what they were granted, and whoever forges, repeats, reorders, redirects or
//! changes a message gets nothing. Against real hosts and a real nats-server; the attackers speak the wire themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_identity::mtls::connector;
use portcullis_identity::statement::{Draft, HEADER, Jti, SvidKey, UserSeed};
use portcullis_identity::workload_api::pb::X509svidRequest;
use portcullis_identity::workload_api::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use portcullis_identity::{SpiffeId, TrustBundle};
use portcullis_tests::host::Host;
use portcullis_tests::http::get;
use portcullis_tests::nats::pki::{Authority, replace};
use portcullis_tests::nats::{NatsServer, folder};
use portcullis_tests::site::{Ended, Site, portcullis};
use portcullis_tests::workload;
use prost::Message as _;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[path = "../workload_client.rs"]
mod workload_client;

const ANN: &str = "spiffe://test.example/ns/test/sa/ann";
const LOCAL: &str = "spiffe://test.example/portcullis/host";

/// The parts of the control service's messages that are needed here, as docs/control-plane.md has them.
#[derive(Clone, PartialEq, prost::Message)]
struct Target {
    #[prost(string, tag = "1")]
    target: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(bytes = "vec", optional, tag = "1")]
    reply: Option<Vec<u8>>,
    #[prost(message, optional, tag = "2")]
    refused: Option<Refused>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Refused {
    #[prost(uint32, tag = "1")]
    exit: u32,
    #[prost(string, tag = "2")]
    code: String,
    #[prost(string, tag = "3")]
    message: String,
}

fn operators() -> String {
    format!(
        "[[operator]]\nid = \"ann\"\nreason = \"r\"\nowner = \"o\"\nwho = \"{ANN}\"\nhosts = [\"local\"]\n\
         components = [\"test:hello\", \"test:late\"]\nactions = [\"status\", \"list\", \"start\", \"stop\", \"logs\"]\n\n"
    )
}

/// A host with HTTPS control, whose Workload API gives this test the identities of ann, who is an operator, and of eve, who is not.
fn https_host(change: impl FnOnce(&mut Site)) -> Host {
    let eve = format!(
        "[[workload]]\nname = \"eve\"\nspiffe_path = \"/ns/test/sa/eve\"\nuid = {}\nsha256 = \"{}\"\n",
        workload::uid_of_tests(),
        workload::sha256(&std::env::current_exe().unwrap())
    );
    let mut site = workload::site("", &(workload::own_entry("ann", "") + &eve));
    site.config("\n[control]\nhttps = \"127.0.0.1:0\"\n");
    site.guest("hello", "");
    site.guest("chatty", "");
    site.grants(&operators());
    change(&mut site);
    Host::ready(site)
}

/// Writes the identities, the bundle and an operator file for each of them; gives the address of the control plane.
async fn operator_files(host: &Host) -> String {
    let mut client = SpiffeWorkloadApiClient::new(workload_client::channel(&workload::socket(host)).await);
    let mut stream = client.fetch_x509svid(workload_client::call(X509svidRequest {})).await.unwrap().into_inner();
    let svids = stream.message().await.unwrap().unwrap().svids;
    std::fs::write(host.site().file("bundle.json"), host.run(["identity", "bundle"]).ok().out).unwrap();
    let address = host.ask_status(0)["listening"]["control"].as_str().unwrap().to_owned();
    for svid in svids {
        let name = svid.spiffe_id.rsplit('/').next().unwrap().to_owned();
        let folder = host.site().path();
        replace(folder, &format!("{name}.pem"), &pem("CERTIFICATE", &svid.x509_svid));
        replace(folder, &format!("{name}.key"), &pem("PRIVATE KEY", &svid.x509_svid_key));
        let text = format!(
            "version = 1\ntrust_domain = \"test.example\"\nbundle = \"bundle.json\"\n[key]\nsvid = \"{name}.pem\"\n\
             svid_key = \"{name}.key\"\n[https]\nlocal = \"{address}\"\n"
        );
        std::fs::write(host.site().file(&format!("{name}.toml")), text).unwrap();
    }
    address
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn key(host: &Host, name: &str) -> SvidKey {
    let read = |end: &str| std::fs::read(host.site().file(&format!("{name}.{end}"))).unwrap();
    SvidKey::parse(&read("pem"), &read("key")).unwrap()
}

fn asks(host: &Host, who: &str, command: &[&str]) -> Ended {
    let file = format!("{who}.toml");
    let more = ["--operator", &file, "--host", "local", "--json"];
    host.site().run(command.iter().chain(&more))
}

/// One request on a connection of its own, as the wire has it.
async fn post(
    host: &Host,
    address: &str,
    who: &str,
    method: &str,
    statements: &[&str],
    payload: &[u8],
) -> (Option<String>, Answer) {
    let bundle = std::fs::read(host.site().file("bundle.json")).unwrap();
    let bundle = TrustBundle::from_json(&"test.example".parse().unwrap(), &bundle).unwrap();
    let key = std::sync::Arc::new(key(host, who));
    let peer: SpiffeId = LOCAL.parse().unwrap();
    let connector = connector(&key.svid().clone(), key, &bundle, &peer).unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut stream, _) = connector.connect("control", stream).await.unwrap();
    let mut head = format!(
        "POST /control/{method} HTTP/1.1\r\nhost: c\r\nconnection: close\r\ncontent-length: {}\r\n",
        payload.len()
    );
    for statement in statements {
        let _ = write!(head, "{HEADER}: {statement}\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(&[head.as_bytes(), payload].concat()).await.unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&all[..end]).to_string();
    let statement = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(HEADER).then(|| value.trim().to_owned())
    });
    (statement, Answer::decode(&all[end + 4..]).unwrap())
}

fn jti() -> Jti {
    at(OffsetDateTime::now_utc())
}

fn at(moment: OffsetDateTime) -> Jti {
    use ring::rand::SecureRandom as _;
    let mut random = [0; 10];
    ring::rand::SystemRandom::new().fill(&mut random).unwrap();
    Jti::new(moment, random)
}

const LIFE: Duration = Duration::from_secs(30);

fn signed(key: &SvidKey, audience: &str, place: &str, jti: Jti, payload: &[u8]) -> String {
    key.sign_statement(&Draft::by_svid(key.signer(), audience, place, jti, LIFE, payload).unwrap()).unwrap()
}

fn code(answer: &Answer) -> &str {
    answer.refused.as_ref().map_or("", |refused| refused.code.as_str())
}

/// Puts a component that was signed on this site into the store of the host, as a fetch would; gives its digest.
fn stored(host: &Host, name: &str) -> String {
    let component = host.site().file(&format!("{name}.wasm"));
    let hex = workload::sha256(&component);
    let folder = host.site().file(&format!("state/components/{hex}"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(&component, folder.join("component.wasm")).unwrap();
    let evidence = host.site().file(&format!("{name}.wasm.sigstore.json"));
    std::fs::copy(evidence, folder.join("component.wasm.sigstore.json")).unwrap();
    format!("sha256:{hex}")
}

/// What could have been accepted before the host was started changes nothing: wait until that is over.
async fn settled() {
    tokio::time::sleep(Duration::from_secs(7)).await;
}

// gate: List, Logs
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_controls_a_host_over_https_as_granted_and_nobody_else_does() {
    let mut late = None;
    let host = https_host(|site| {
        late = Some(site.sign("late", &portcullis_tests::guests::ours("hello")));
    });
    operator_files(&host).await;
    let status = asks(&host, "ann", &["status"]).ok().json();
    assert_eq!(status["ready"], true, "{status:#}");
    let names = |list: &Value| {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&asks(&host, "ann", &["list"]).ok().json()), ["test:hello"], "chatty is not ann's");
    assert_eq!(host.run(["list"]).ok().json().as_array().unwrap().len(), 2);

    for command in [&["status"][..], &["list"], &["stop", "test:hello"], &["logs", "test:hello"]] {
        let refused = asks(&host, "eve", command);
        assert_eq!(
            (refused.exit, refused.code().as_str()),
            (20, "C0202"),
            "{command:?}: {}{}",
            refused.out,
            refused.err
        );
        assert!(refused.err.contains("grants operator --config"), "{}", refused.err);
    }
    let refused = asks(&host, "ann", &["stop", "test:chatty"]);
    assert_eq!((refused.exit, refused.code().as_str()), (20, "C0202"), "{}", refused.err);
    assert!(refused.err.contains("nearest  ann"), "{}", refused.err);
    assert_eq!(host.record(&[("kind", "denial"), ("code", "C0202")])["action"], "control");

    settled().await;
    let digest = stored(&host, "late");
    let wrong = asks(&host, "ann", &["start", "--name", "test:hello", "--digest", &digest]);
    assert_ne!(wrong.exit, 0, "{}{}", wrong.out, wrong.err);
    let missing = format!("sha256:{}", "0".repeat(64));
    let missing = asks(&host, "ann", &["start", "--name", "test:late", "--digest", &missing]);
    assert_eq!(missing.code(), "start.not-stored", "{}{}", missing.out, missing.err);
    let listed = asks(&host, "ann", &["list"]).ok().json();
    let failed =
        listed.as_array().unwrap().iter().find(|one| one["name"] == "test:late").expect("a failed start is listed");
    assert_eq!(failed["state"], "refused");
    assert!(failed["detail"].as_str().unwrap().contains("start.not-stored"), "{listed:#}");
    let logs = asks(&host, "ann", &["logs", "test:late"]).ok().json();
    assert!(logs.to_string().contains("start.not-stored"), "{logs:#}");

    // Nobody granted that it may be loaded: the chain of admission holds for operators, too.
    let refused = asks(&host, "ann", &["start", "--name", "test:late", "--digest", &digest]);
    assert_eq!((refused.exit, refused.code().as_str()), (20, "A0201"), "{}{}", refused.out, refused.err);
    host.run(["grants", "add", "test:late", "--load", "--caller", "anonymous"]).ok();
    let started =
        asks(&host, "ann", &["start", "--name", "test:late", "--digest", &digest, "--route", "/late"]).ok().json();
    assert_eq!(started["state"], "running");
    assert_eq!(get(host.http(), "/late", &[]).status, 200);
    assert!(asks(&host, "ann", &["list"]).ok().json().to_string().contains("test:late"));
    let record = host.record(&[("kind", "control"), ("action", "start"), ("who", ANN)]);
    assert_eq!((record["over"].as_str(), record["statement"].as_str().map(str::len)), (Some("https"), Some(26)));
    asks(&host, "ann", &["stop", "test:late"]).ok();
    assert_ne!(get(host.http(), "/late", &[]).status, 200);

    get(host.http(), "/chatty", &[]);
    let lines = host.run(["logs", "test:chatty"]).ok().json();
    let streams: Vec<&str> = lines.as_array().unwrap().iter().filter_map(|line| line["stream"].as_str()).collect();
    assert!(streams.contains(&"stdout") || streams.contains(&"stderr"), "{lines:#}");
    assert!(!asks(&host, "ann", &["logs"]).ok().json().to_string().contains("test:chatty"), "not ann's to read");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_every_wrong_message_is_refused_and_changes_nothing() {
    let host = https_host(|_| {});
    let address = operator_files(&host).await;
    let (ann, eve) = (key(&host, "ann"), key(&host, "eve"));
    let payload = Target { target: "test:hello".to_owned() }.encode_to_vec();
    let stop = |jti| signed(&ann, LOCAL, "control/stop", jti, &payload);

    // From before this host remembers: it could have been used already.
    let (_, answer) = post(&host, &address, "ann", "stop", &[&stop(jti())], &payload).await;
    assert_eq!(code(&answer), "statement.before-window", "{answer:?}");
    settled().await;
    let now = OffsetDateTime::now_utc();
    let other = Authority::of_trust_domain("test.example").spiffe(ANN);
    let forger = SvidKey::parse(other.certificate.as_bytes(), other.key.as_bytes()).unwrap();
    let nkey = UserSeed::parse(&nkeys::KeyPair::new_user().seed().unwrap()).unwrap();
    let by_nkey = Draft::by_nkey(nkey.public(), LOCAL, "control/stop", jti(), LIFE, &payload).unwrap();
    let by_nkey = by_nkey.token(&nkey.sign(by_nkey.signing_input().as_bytes()));
    let swapped = {
        let good = stop(jti());
        let (head, _) = good.rsplit_once('.').unwrap();
        format!("{head}.{}", stop(jti()).rsplit('.').next().unwrap())
    };
    let good = stop(jti());
    let wrong: Vec<(&str, Vec<&str>, String)> = vec![
        ("statement.missing", vec![], String::new()),
        ("statement.missing", vec!["one", "two"], String::new()),
        ("statement.malformed", vec!["x"], String::new()),
        ("statement.chain", vec!["x"], signed(&forger, LOCAL, "control/stop", jti(), &payload)),
        ("statement.unknown-key", vec!["x"], by_nkey),
        ("statement.signature", vec!["x"], swapped),
        (
            "statement.audience",
            vec!["x"],
            signed(&ann, "spiffe://test.example/portcullis/host/h2", "control/stop", jti(), &payload),
        ),
        ("statement.audience", vec!["x"], signed(&ann, "cluster:test", "control/stop", jti(), &payload)),
        ("statement.place", vec!["x"], signed(&ann, LOCAL, "control/start", jti(), &payload)),
        ("statement.place", vec!["x"], signed(&ann, LOCAL, "control/stop/reply", jti(), &payload)),
        ("statement.payload", vec!["x"], signed(&ann, LOCAL, "control/stop", jti(), b"another")),
        ("statement.expired", vec!["x"], stop(at(now - Duration::from_secs(120)))),
        ("statement.not-yet-valid", vec!["x"], stop(at(now + Duration::from_secs(120)))),
        ("statement.other-peer", vec!["x"], signed(&eve, LOCAL, "control/stop", jti(), &payload)),
    ];
    for (expected, statements, statement) in &wrong {
        let statements: Vec<&str> = if statement.is_empty() { statements.clone() } else { vec![statement] };
        let (signed, answer) = post(&host, &address, "ann", "stop", &statements, &payload).await;
        assert_eq!(code(&answer), *expected, "{answer:?}");
        assert_eq!(signed, None, "what is not believed gets no signature of the host: {expected}");
    }
    let (_, answer) = post(&host, &address, "ann", "reload", &[&good], &payload).await;
    assert_eq!(code(&answer), "control.method");
    let list = host.run(["list"]).ok().json();
    assert!(list.to_string().contains("test:hello"), "nothing was stopped: {list:#}");

    // In order and once.
    let (earlier, later) = (stop(jti()), stop(at(OffsetDateTime::now_utc() + Duration::from_millis(5))));
    let (signed_by_host, answer) = post(&host, &address, "ann", "stop", &[&later], &payload).await;
    assert!(answer.refused.is_none() && signed_by_host.is_some(), "{answer:?}");
    let (_, answer) = post(&host, &address, "ann", "stop", &[&later], &payload).await;
    assert_eq!(code(&answer), "statement.replayed");
    let (_, answer) = post(&host, &address, "ann", "stop", &[&earlier], &payload).await;
    assert_eq!(code(&answer), "statement.reordered");
    let log = host.log();
    assert!(log.contains("a control message was not believed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_of_a_trusted_domain_there_is_no_connection() {
    let host = https_host(|_| {});
    let address = operator_files(&host).await;
    let stranger = Authority::of_trust_domain("test.example").spiffe(ANN);
    replace(host.site().path(), "ann.pem", &stranger.certificate);
    replace(host.site().path(), "ann.key", &stranger.key);
    let refused = asks(&host, "ann", &["list"]);
    assert_eq!(
        (refused.exit, refused.code().as_str()),
        (18, "host.unreachable"),
        "{address}: {}{}",
        refused.out,
        refused.err
    );
    // A key that others can read is nobody's.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(host.site().file("eve.key"), PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(asks(&host, "eve", &["list"]).code(), "operator.key-open");
}

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
        let (host, operator) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
        let config = format!(
            "accounts {{ CTL {{ users: [ {{ nkey: {} }}, {{ nkey: {} }} ] }} }}\n",
            host.public_key(),
            operator.public_key()
        );
        let server = NatsServer::start_in(test, folder(), &config)?;
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
    let mut site = Site::new();
    site.grants(&format!(
        "[[operator]]\nid = \"ops\"\nreason = \"r\"\nowner = \"o\"\nwho = \"{}\"\nhosts = [\"h1\"]\ncomponents = [\"*\"]\n\
         actions = [\"list\", \"stop\", \"logs\"]\n\n",
        signer.public_key()
    ));
    replace(site.path(), "host.nk", &bus.host.seed().unwrap());
    site.config(&bus.section("host.nk"));
    let text = std::fs::read_to_string(site.write()).unwrap();
    let text = text.replace("cluster = \"test\"\n", "") + "\n[cluster]\nname = \"test\"\nhost = \"h1\"\n";
    site.damage("portcullis.toml", Some(text.as_bytes()));
    let host = Host::start(site);
    let bundle = host.run(["identity", "bundle"]).ok().out;
    let place = tempfile::tempdir().unwrap();
    let file = bus.operator_file(place.path(), &signer, &bundle).display().to_string();
    let ask = |command: &[&str]| {
        let more = ["--operator", &file, "--host", "h1", "--json"];
        portcullis(command.iter().copied().chain(more))
    };
    let until = Instant::now() + Duration::from_secs(30);
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
            let request = async_nats::Request::new().payload(payload.into()).timeout(Some(Duration::from_secs(5)));
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

/// How long from the start command to the first answer of the component, on a host that has its native code already.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: run with --ignored --nocapture"]
async fn measure_start_to_serving() {
    let host = https_host(|site| {
        site.sign("late", &portcullis_tests::guests::ours("hello"));
        site.grants("[[grant]]\nid = \"late\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"test:late\"\nload = true\ncallers = [\"anonymous\"]\n\n");
    });
    let address = operator_files(&host).await;
    settled().await;
    let digest = stored(&host, "late");
    #[derive(Clone, PartialEq, prost::Message)]
    struct Start {
        #[prost(string, tag = "4")]
        route_path: String,
        #[prost(string, tag = "5")]
        component: String,
        #[prost(string, tag = "6")]
        digest: String,
    }
    let start = Start { route_path: "/late".to_owned(), component: "test:late".to_owned(), digest };
    let (start, stop) = (start.encode_to_vec(), Target { target: "test:late".to_owned() }.encode_to_vec());
    let ann = key(&host, "ann");
    let mut took = Vec::new();
    for n in 0..41 {
        let begun = Instant::now();
        let statement = signed(&ann, LOCAL, "control/start", jti(), &start);
        let (_, answer) = post(&host, &address, "ann", "start", &[&statement], &start).await;
        assert!(answer.refused.is_none(), "{answer:?}");
        while get(host.http(), "/late", &[]).status != 200 {
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", host.log());
        }
        // The first one compiles.
        if n > 0 {
            took.push(begun.elapsed());
        }
        let statement = signed(&ann, LOCAL, "control/stop", jti(), &stop);
        post(&host, &address, "ann", "stop", &[&statement], &stop).await;
    }
    took.sort();
    println!(
        "start to serving, warm, HTTPS with a new connection each: p50 {:?}, p99 {:?}, {} starts",
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        took.len()
    );
}
