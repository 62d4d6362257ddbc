//! Whoever can reach the buckets, or the subjects, of a cluster: what they write is worth nothing without an operator's signature
//! for exactly that key and a version that is higher than any that was seen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a broken test must stop"
)]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures::StreamExt as _;
use nkeys::KeyPair;
use portcullis_tests::cluster::{Lattice, Plan, inbox_of, user};
use portcullis_tests::patience::LONG;
use portcullis_tests::site::{CLUSTER, portcullis};
use serde_json::{Value, json};

const KEY: &str = "$KV.portcullis-test-desired.app.test.hello";
const REVOKED: &str = "$KV.portcullis-test-revoked.list";

fn payload(lattice: &Lattice, version: u64, replicas: u32) -> Vec<u8> {
    let digest = lattice.digest("hello.wasm");
    let manifest = json!({
        "component": "test:hello", "digest": digest, "source": {"file": "hello.wasm"}, "replicas": replicas,
        "route": [{"path": "/hello"}],
    });
    json!({ "format": 1, "version": version, "manifest": manifest }).to_string().into_bytes()
}

/// A value, put together apart from the product; `change` is merged into its claims.
fn value(key: &KeyPair, sub: &str, version: u64, payload: &[u8], change: Value) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seconds = now.as_secs();
    let jti = ulid(u64::try_from(now.as_millis()).unwrap());
    let id = key.public_key();
    let header = json!({ "alg": "EdDSA", "typ": "portcullis-statement+jwt", "kid": id });
    let sha256 = portcullis_signing::Digest::of(payload).hex();
    let mut claims = json!({
        "iss": id, "aud": "cluster:test", "sub": sub, "jti": jti, "iat": seconds, "exp": seconds + 3600,
        "sha256": sha256, "ver": version,
    });
    for (name, value) in change.as_object().cloned().unwrap_or_default() {
        claims[name] = value;
    }
    let input =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes()).unwrap()));
    json!({ "statement": token, "payload": STANDARD.encode(payload) }).to_string().into_bytes()
}

/// A ULID of this moment, Crockford's base32.
fn ulid(millis: u64) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let random = u128::from(std::process::id()) << 40 | u128::from(millis.wrapping_mul(2_654_435_761));
    let value = u128::from(millis) << 80 | (random & ((1 << 80) - 1));
    (0..26).rev().map(|digit| char::from(DIGITS[(value >> (5 * digit)) as usize & 31])).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

fn refused(lattice: &Lattice, code: &str) {
    lattice.hosts["h1"].record(&[("kind", "denial"), ("action", "cluster"), ("code", code)]);
}

#[test]
fn values_that_no_operator_signed_for_their_key_start_nothing_and_stop_nothing() {
    let Some(lattice) = Lattice::start("cluster attacks", &Plan::of(1)) else { return };
    let runtime = runtime();
    let client = runtime.block_on(lattice.connect("operator"));
    let put = |subject: &str, bytes: Vec<u8>| {
        runtime.block_on(async {
            client.publish(subject.to_owned(), bytes.into()).await.unwrap();
            client.flush().await.unwrap();
        });
    };
    let stranger = KeyPair::new_user();
    let place = "desired/app.test.hello";
    let good = payload(&lattice, 1, 1);
    let ours = &lattice.operator;
    let mut tampered: Value = serde_json::from_slice(&value(ours, place, 1, &good, json!({}))).unwrap();
    tampered["payload"] = STANDARD.encode(payload(&lattice, 1, 2)).into();
    for (what, bytes, code) in [
        ("nothing of ours", b"hello".to_vec(), "statement.malformed"),
        ("a payload alone", good.clone(), "statement.malformed"),
        ("a stranger's", value(&stranger, place, 1, &good, json!({})), "statement.unknown-key"),
        ("another payload", tampered.to_string().into_bytes(), "statement.payload"),
        ("for another component", value(ours, "desired/app.test.other", 1, &good, json!({})), "statement.place"),
        ("for the revocations", value(ours, "revoked/list", 1, &good, json!({})), "statement.place"),
        ("for another cluster", value(ours, place, 1, &good, json!({"aud": "cluster:prod"})), "statement.audience"),
        (
            "for a host",
            value(ours, place, 1, &good, json!({"aud": "spiffe://test.example/portcullis/host/h1"})),
            "statement.audience",
        ),
        ("expired", value(ours, place, 1, &good, json!({"exp": 1})), "statement."),
        ("of another version", value(ours, place, 2, &good, json!({})), "cluster.mismatch"),
        ("without a version", value(ours, place, 1, &good, json!({"ver": null})), "statement.claims"),
    ] {
        put(KEY, bytes);
        eprintln!("{what}");
        refused(&lattice, code);
    }
    assert!(lattice.answering().is_empty(), "{}", lattice.logs());
    assert!(lattice.running("test:hello").is_empty());

    // What is no value of that place is counted from by nobody: the operator is told, and names the version.
    let told = lattice.deploy(1, "");
    assert_eq!((told.exit, told.code().as_str()), (11, "statement.claims"), "{}{}", told.out, told.err);
    lattice.cli(["cluster", "deploy", "hello.toml", "--operator", "operator.toml", "--version", "1"]).ok();
    // A revocation list of a stranger stops nothing, and leaves the host without a look that counts.
    lattice.wait("it runs", |lattice| lattice.answering() == ["h1"]);
    let list = json!({ "format": 1, "epoch": 9, "digests": [lattice.digest("hello.wasm")] }).to_string().into_bytes();
    put(REVOKED, value(&stranger, "revoked/list", 9, &list, json!({})));
    lattice.hosts["h1"].record(&[("kind", "denial"), ("place", "revoked/list"), ("code", "statement.unknown-key")]);
    assert_eq!(lattice.answering(), ["h1"]);

    // A lower version, as whoever kept an older value would put it back; and one that says something else than it did.
    let status = lattice.status();
    let version = status["components"][0]["version"].as_u64().unwrap();
    let next = payload(&lattice, version + 5, 1);
    put(KEY, value(ours, place, version + 5, &next, json!({})));
    lattice.wait("the higher one is taken", |lattice| {
        lattice.status()["hosts"][0]["replicas"][0]["version"] == version + 5
    });
    let older = payload(&lattice, version, 0);
    put(KEY, value(ours, place, version, &older, json!({})));
    refused(&lattice, "cluster.rolled-back");
    let reused = payload(&lattice, version + 5, 0);
    put(KEY, value(ours, place, version + 5, &reused, json!({})));
    refused(&lattice, "cluster.version-reused");
    // What is deleted is not undeployed.
    runtime.block_on(async {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("KV-Operation", "DEL");
        client.publish_with_headers(KEY, headers, "".into()).await.unwrap();
        client.flush().await.unwrap();
    });
    refused(&lattice, "cluster.missing");
    assert_eq!(lattice.answering(), ["h1"], "{}", lattice.logs());
    it_is_the_same_after_a_restart(lattice, &older, version);
}

fn it_is_the_same_after_a_restart(mut lattice: Lattice, older: &[u8], version: u64) {
    let runtime = runtime();
    let client = runtime.block_on(lattice.connect("operator"));
    let site = lattice.hosts.remove("h1").unwrap().stop();
    runtime.block_on(async {
        let bytes = value(&lattice.operator, "desired/app.test.hello", version, older, json!({}));
        client.publish(KEY, bytes.into()).await.unwrap();
        client.flush().await.unwrap();
    });
    lattice.hosts.insert("h1".to_owned(), portcullis_tests::host::Host::start(site));
    lattice.wait("the restarted host refuses it too", |lattice| {
        lattice.hosts["h1"].audit().iter().filter(|record| record["code"] == "cluster.rolled-back").count() >= 2
    });
}

/// The confused deputy: with the right to make consumers, one host has the server deliver stored bytes to any subject.
#[test]
fn a_push_consumer_delivers_forged_values_only_where_its_maker_may_make_one_and_no_host_acts_on_them() {
    for wide in [true, false] {
        let mut plan = Plan::of(2);
        plan.danger_consumers = wide;
        let Some(lattice) = Lattice::start("cluster deputy", &plan) else { return };
        let runtime = runtime();
        runtime.block_on(deputy(&lattice, wide));
        lattice.deploy(2, "").ok();
        lattice.wait("what the operator says runs", |lattice| lattice.running("test:hello").len() == 2);
    }
}

async fn deputy(lattice: &Lattice, wide: bool) {
    // Something is stored that host h1 would like h2 to take for a manifest of another component.
    let operator = lattice.connect("operator").await;
    let payload = payload(lattice, 1, 2);
    let stored = value(&lattice.operator, "desired/app.test.other", 1, &payload, json!({}));
    operator.publish("$KV.portcullis-test-desired.app.test.other", stored.into()).await.unwrap();
    operator.flush().await.unwrap();
    // What h2 would be sent, heard by whoever may hear it.
    let forged = "portcullis.test.kv.desired.app.test.hello";
    let victim = lattice.connect("h2").await;
    let mut heard = victim.subscribe(forged).await.unwrap();
    victim.flush().await.unwrap();
    let thief = lattice.connect("h1").await;
    let stream = "KV_portcullis-test-desired";
    let config = json!({
        "stream_name": stream,
        "config": {
            "deliver_subject": forged, "deliver_policy": "all", "ack_policy": "none", "replay_policy": "instant",
            "filter_subject": "$KV.portcullis-test-desired.app.test.other", "name": "deputy", "inactive_threshold": 30_000_000_000_u64,
        },
    });
    let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.deputy.$KV.portcullis-test-desired.app.test.other");
    let asked = thief.request(subject, config.to_string().into());
    // What comes is waited for; that nothing comes shows in a while.
    let most = if wide { LONG } else { Duration::from_secs(3) };
    let made = tokio::time::timeout(most, asked).await;
    let delivered = tokio::time::timeout(most, heard.next()).await;
    if wide {
        let made: Value = serde_json::from_slice(&made.unwrap().unwrap().payload).unwrap();
        assert!(made["error"].is_null(), "the attack works on a server with the wide grant: {made}");
        assert!(delivered.is_ok(), "h2 was sent what h1 chose");
        lattice.hosts["h2"].record(&[
            ("kind", "denial"),
            ("place", "desired/app.test.other"),
            ("code", "cluster.mismatch"),
        ]);
    } else {
        assert!(!matches!(made, Ok(Ok(_))), "a host with the printed permissions makes no consumer: {made:?}");
        assert!(delivered.is_err(), "nothing was delivered");
    }
    assert!(lattice.answering().is_empty(), "nobody acted on it");
}

#[test]
fn a_heartbeat_is_believed_of_its_own_host_alone() {
    let mut plan = Plan::of(2);
    plan.users = "    { user: \"mallory\", password: \"password of mallory\" }\n".to_owned();
    let Some(lattice) = Lattice::start("cluster heartbeats", &plan) else { return };
    let runtime = runtime();
    let (kept, subject) = runtime.block_on(async {
        let mallory = lattice.connect("mallory").await;
        let mut heard = mallory.subscribe("portcullis.test.hb.h1").await.unwrap();
        let message = heard.next().await.unwrap();
        (message, "portcullis.test.hb.h9")
    });
    runtime.block_on(async {
        let mallory = lattice.connect("mallory").await;
        // One of h1, as if it were of a host h9; and unsigned ones.
        let headers = kept.headers.clone().unwrap();
        for _ in 0..3 {
            mallory.publish_with_headers(subject, headers.clone(), kept.payload.clone()).await.unwrap();
            mallory.publish(subject, kept.payload.clone()).await.unwrap();
            mallory.publish("portcullis.test.hb.h1", "{}".into()).await.unwrap();
        }
        mallory.flush().await.unwrap();
    });
    let log = |host: &str| lattice.hosts[host].log();
    lattice.wait("h2 says that it does not believe it", |_| log("h2").contains("a heartbeat is not believed"));
    let status = lattice.status();
    let third = status["hosts"].as_array().unwrap().iter().find(|host| host["host"] != "h1" && host["host"] != "h2");
    assert!(third.is_none(), "nobody made a third host: {status:#}");
}

/// Two operators with the permissions that are printed for them: neither hears what the other is told.
#[test]
fn an_operator_hears_no_answer_to_another() {
    let eve = "operator-eve";
    let print = ["cluster", "init", "--print", "--cluster", CLUSTER, "--login", eve, "--json"];
    let printed = portcullis(print).ok().json();
    let plan = Plan { users: user(eve, &printed["operators"][eve]), ..Plan::of(1) };
    let Some(lattice) = Lattice::start("cluster inboxes", &plan) else { return };
    let runtime = runtime();
    let mut heard = runtime.block_on(async {
        let client = lattice.connect(eve).await;
        let mut all = Vec::new();
        for prefix in [inbox_of("operator"), "_INBOX_operator".to_owned(), "_INBOX".to_owned(), "*".to_owned()] {
            all.push(client.subscribe(format!("{prefix}.>")).await.unwrap());
        }
        client.flush().await.unwrap();
        // Her own answers reach her.
        let answer = client.request("$SYS.REQ.USER.INFO", Vec::new().into()).await.unwrap();
        assert!(!answer.payload.is_empty());
        futures::stream::select_all(all)
    });
    for _ in 0..3 {
        lattice.cli(["list", "--operator", "operator.toml", "--host", "h1"]).ok();
    }
    let first = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), heard.next()).await });
    assert!(!matches!(first, Ok(Some(_))), "{first:?}");
    let denied = lattice.server.log();
    let inbox = inbox_of("operator");
    assert!(denied.contains("Subscription Violation") && denied.contains(&inbox), "{inbox}: {denied}");
}
