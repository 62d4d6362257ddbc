//! A cluster of real hosts on a real nats-server with TLS: what an operator deploys runs, and is seen; what does not start says why.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a broken test must stop"
)]

use std::time::{Duration, Instant};

use portcullis_tests::cluster::{Lattice, Plan};
use serde_json::Value;

#[path = "cluster_members.rs"]
mod cluster_members;
#[path = "cluster_refusals.rs"]
mod cluster_refusals;
#[path = "cluster_sources.rs"]
mod cluster_sources;

#[test]
fn what_is_deployed_runs_on_as_many_hosts_as_are_wanted_and_stops_when_it_is_not() {
    let Some(lattice) = Lattice::start("cluster", &Plan::of(2)) else { return };
    a_component_runs_on_one_host_then_on_two(&lattice);
    events_are_signed_cloudevents(&lattice);
    a_component_that_does_not_start_says_why_and_the_old_one_goes_on(&lattice);
    policies_of_the_cluster_are_in_force_where_they_are_taken(&lattice);
    a_component_that_is_undeployed_stops_everywhere(&lattice);
    bad_input_of_the_operator_is_refused(&lattice);
    a_version_that_is_not_above_the_stored_one_is_refused(&lattice);
    what_cannot_match_is_not_revoked_and_what_is_not_revoked_not_lifted(&lattice);
    an_operator_with_an_old_bundle_is_told_so(&lattice);
}

fn a_component_runs_on_one_host_then_on_two(lattice: &Lattice) {
    let deployed = lattice.deploy(1, "").ok().json();
    assert_eq!(deployed["version"], 1);
    lattice.wait("one replica", |lattice| lattice.running("test:hello").len() == 1);
    let on = lattice.running("test:hello");
    assert_eq!(lattice.answering(), on, "it answers where it says that it runs");
    assert_eq!(lattice.deploy(2, "").ok().json()["version"], 2);
    lattice.wait("two replicas", |lattice| lattice.running("test:hello").len() == 2);
    assert_eq!(lattice.answering(), ["h1", "h2"]);
    let host = &lattice.hosts[&on[0]];
    assert_eq!(
        host.audit().iter().filter(|record| record["kind"] == "admission").count(),
        1,
        "the same bytes under a higher version go on running"
    );
    host.record(&[("kind", "cluster"), ("place", "desired/app.test.hello")]);
    // Every start went the whole way.
    host.record(&[("kind", "admission"), ("component", "test:hello")]);
    assert_eq!(
        lattice.cli(["cluster", "status", "--operator", "operator.toml"]).ok().json()["components"][0]["running"],
        2
    );
}

fn events_are_signed_cloudevents(lattice: &Lattice) {
    let folder = lattice.folder().to_path_buf();
    let listening = std::thread::spawn(move || {
        std::process::Command::new(portcullis_tests::binary())
            .current_dir(folder)
            .args(["cluster", "events", "--operator", "operator.toml", "--json", "--seconds", "10", "--count", "2"])
            .output()
            .unwrap()
    });
    // The listener needs a moment to be there.
    std::thread::sleep(Duration::from_secs(2));
    lattice.deploy(1, "").ok();
    let output = listening.join().unwrap();
    let events: Vec<Value> =
        serde_json::Deserializer::from_slice(&output.stdout).into_iter().map_while(Result::ok).collect();
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(events.len(), 2, "{output:?}\n{}", lattice.logs());
    assert!(
        kinds.contains(&"dev.portcullis.component.started.v1"),
        "the one that stays runs by the new version: {kinds:?}"
    );
    assert!(kinds.contains(&"dev.portcullis.component.stopped.v1"), "{kinds:?}");
    for event in &events {
        assert_eq!((&event["specversion"], &event["subject"]), (&"1.0".into(), &"test:hello".into()));
        assert!(event["source"].as_str().unwrap().starts_with("spiffe://test.example/portcullis/host/h"));
    }
    lattice.wait("one replica", |lattice| lattice.running("test:hello").len() == 1);
    lattice.deploy(2, "").ok();
    lattice.wait("two replicas", |lattice| lattice.running("test:hello").len() == 2);
}

fn a_component_that_does_not_start_says_why_and_the_old_one_goes_on(lattice: &Lattice) {
    // Bytes that nobody signed lie on every host, and the manifest names them.
    let other = portcullis_tests::guests::ours("echo");
    for host in lattice.hosts.values() {
        std::fs::write(host.site().file("apps/unsigned.wasm"), &other).unwrap();
    }
    let text = std::fs::read_to_string(lattice.folder().join("hello.toml")).unwrap();
    let digest = portcullis_signing::Digest::of(&other).to_string();
    let text = text.replace(&lattice.digest("hello.wasm"), &digest).replace("hello.wasm", "unsigned.wasm");
    std::fs::write(lattice.folder().join("bad.toml"), text).unwrap();
    lattice.cli(["cluster", "deploy", "bad.toml", "--operator", "operator.toml"]).ok();
    lattice.wait("both hosts say why", |lattice| {
        let status = lattice.status();
        let hosts = status["hosts"].as_array().cloned().unwrap_or_default();
        hosts.len() == 2 && hosts.iter().all(|host| host["failed"][0]["code"] == "evidence.none")
    });
    assert_eq!(lattice.answering(), ["h1", "h2"], "the version before goes on");
    let ended = lattice.cli(["cluster", "status", "--operator", "operator.toml"]);
    assert_eq!(ended.exit, 1, "{}", ended.err);
    let host = &lattice.hosts["h1"];
    let shown = host.ask_status(0);
    assert!(shown["components"].to_string().contains("evidence.none"), "{shown:#}");
    assert_eq!(shown["ready"], true, "one bad manifest takes no host away: {shown:#}");
    lattice.deploy(2, "").ok();
    lattice.wait("the good one again", |lattice| lattice.running("test:hello").len() == 2);
}

fn policies_of_the_cluster_are_in_force_where_they_are_taken(lattice: &Lattice) {
    // Neither host takes them by configuration: nothing changes.
    let before = lattice.hosts["h1"].ask_status(0)["policy_generation"].clone();
    std::fs::write(lattice.folder().join("more.toml"), "version = 1\n").unwrap();
    lattice.cli(["cluster", "policies", "--grants", "more.toml", "--operator", "operator.toml"]).ok();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(lattice.hosts["h1"].ask_status(0)["policy_generation"], before);
    std::fs::write(lattice.folder().join("op.toml"), "version = 1\n[[operator]]\nid = \"x\"\n").unwrap();
    let refused = lattice.cli(["cluster", "policies", "--grants", "op.toml", "--operator", "operator.toml"]);
    assert_eq!((refused.exit, refused.code().as_str()), (64, "cluster.operators"));
}

fn a_component_that_is_undeployed_stops_everywhere(lattice: &Lattice) {
    lattice.cli(["cluster", "undeploy", "test:hello", "--operator", "operator.toml"]).ok();
    lattice.wait("it runs nowhere", |lattice| lattice.answering().is_empty());
    assert!(lattice.running("test:hello").is_empty());
    lattice.hosts["h1"].record(&[("kind", "stop"), ("why", "cluster.unwanted")]);
}

fn bad_input_of_the_operator_is_refused(lattice: &Lattice) {
    for (name, text) in [("a.toml", "component = \"test\""), ("b.toml", "x = 1"), ("c.json", "{}"), ("d.toml", "")] {
        std::fs::write(lattice.folder().join(name), text).unwrap();
        let ended = lattice.cli(["cluster", "deploy", name, "--operator", "operator.toml"]);
        assert_eq!(ended.exit, 2, "{name}: {}{}", ended.out, ended.err);
        assert!(ended.err.contains("hint:"), "{name}: {}", ended.err);
    }
    for arguments in [
        vec!["cluster", "undeploy", "test:other", "--operator", "operator.toml"],
        vec!["cluster", "revoke", "--operator", "operator.toml"],
        vec!["cluster", "revoke", "--refresh", "--instance", "x", "--operator", "operator.toml"],
    ] {
        let ended = lattice.cli(arguments.clone());
        assert_eq!(ended.exit, 2, "{arguments:?}: {}{}", ended.out, ended.err);
    }
}

fn a_version_that_is_not_above_the_stored_one_is_refused(lattice: &Lattice) {
    let deploy = |version: &str| {
        lattice.cli(["cluster", "deploy", "hello.toml", "--operator", "operator.toml", "--version", version])
    };
    assert_eq!(deploy("90").ok().json()["version"], 90);
    for low in ["2", "90", "0"] {
        let ended = deploy(low);
        assert_eq!(ended.exit, 2, "{low}: {}{}", ended.out, ended.err);
        assert!(ended.err.contains("is not above 90") && ended.err.contains("hint:"), "{low}: {}", ended.err);
    }
    let next = lattice.cli(["cluster", "deploy", "hello.toml", "--operator", "operator.toml"]);
    assert_eq!(next.ok().json()["version"], 91, "the next one is counted from what is stored");
    let low = ["cluster", "policies", "--grants", "more.toml", "--operator", "operator.toml", "--version", "1"];
    let ended = lattice.cli(low);
    assert!(ended.exit == 2 && ended.err.contains("is not above"), "{}{}", ended.out, ended.err);
}

fn what_cannot_match_is_not_revoked_and_what_is_not_revoked_not_lifted(lattice: &Lattice) {
    let revoke = |more: &[&str]| {
        let first = ["cluster", "revoke", "--operator", "operator.toml"];
        lattice.cli(first.iter().chain(more))
    };
    for bad in [["--instance", "foo"], ["--signer", "foo"], ["--signer", "spiffe://test.example/ci/*"]] {
        let ended = revoke(&bad);
        assert!(ended.exit == 2 && ended.err.contains("hint:"), "{bad:?}: {}{}", ended.out, ended.err);
    }
    assert!(lattice.status()["revocations"].is_null(), "nothing was published");
    let signer = ["--signer", "spiffe://test.example/ci/a"];
    let published = revoke(&[&signer[..], &["--epoch", "7"]].concat()).ok().json();
    assert_eq!((&published["epoch"], &published["revoked"]), (&7.into(), &1.into()));
    for epoch in ["3", "7"] {
        let ended = revoke(&["--refresh", "--epoch", epoch]);
        assert!(ended.exit == 2 && ended.err.contains("is not above 7"), "{}{}", ended.out, ended.err);
    }
    let ended = revoke(&["--lift", "--signer", "spiffe://test.example/ci/b"]);
    assert!(ended.exit == 2 && ended.err.contains("the list has 1: spiffe://test.example/ci/a"), "{}", ended.err);
    assert_eq!(lattice.status()["revocations"], 7);
    let lifted = revoke(&[&["--lift"], &signer[..]].concat()).ok().json();
    assert_eq!((&lifted["epoch"], &lifted["revoked"]), (&8.into(), &0.into()));
}

fn an_operator_with_an_old_bundle_is_told_so(lattice: &Lattice) {
    let bundle = lattice.folder().join("hosts.json");
    let good = std::fs::read(&bundle).unwrap();
    std::fs::write(&bundle, r#"{"keys":[]}"#).unwrap();
    let status = lattice.status();
    assert_eq!(status["hosts"].as_array().map(Vec::len), Some(0), "{status:#}");
    let unbelieved = status["unbelieved"].as_array().unwrap();
    let hosts: Vec<_> = unbelieved.iter().map(|one| one["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["h1", "h2"], "{status:#}");
    for one in unbelieved {
        assert_eq!(one["code"], "statement.chain", "{one:#}");
        assert!(one["heartbeats"].as_u64().unwrap() >= 1, "{one:#}");
    }
    lattice.cli(["cluster", "deploy", "hello.toml", "--operator", "operator.toml"]).ok();
    let output = std::process::Command::new(portcullis_tests::binary())
        .current_dir(lattice.folder())
        .args(["cluster", "status", "--operator", "operator.toml", "--listen", "0.8"])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert!(out.contains("of h1 not believed: the statement's signer is not proven"), "{out}");
    assert!(err.contains("h1, h2 not") && err.contains("hosts.json"), "{err}");
    std::fs::write(&bundle, good).unwrap();
    let status = lattice.status();
    assert_eq!(status["hosts"].as_array().map(Vec::len), Some(2), "{status:#}");
    assert_eq!(status["unbelieved"], serde_json::json!([]));
}

#[test]
fn a_bad_set_of_policies_keeps_the_old_one_and_the_host_says_so() {
    let mut plan = Plan::of(1);
    plan.section.push_str("policies = true\n");
    let Some(lattice) = Lattice::start("cluster policies", &plan) else { return };
    let host = &lattice.hosts["h1"];
    std::fs::write(lattice.folder().join("more.toml"), "version = 1\n\n[[grant]]\nid = \"more\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:more\"\nload = true\n").unwrap();
    lattice.cli(["cluster", "policies", "--grants", "more.toml", "--operator", "operator.toml"]).ok();
    lattice.wait("the set is in force", |lattice| lattice.status()["hosts"][0]["policy"] == 1);
    assert!(host.ask_status(5)["ready"] == true, "{}", host.ask_status(0));
    // Two grants with one id: each set is good by itself, both together are not.
    std::fs::write(lattice.folder().join("bad.toml"), "version = 1\n\n[[grant]]\nid = \"hello\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:more\"\nload = true\n").unwrap();
    lattice.cli(["cluster", "policies", "--grants", "bad.toml", "--operator", "operator.toml"]).ok();
    let began = Instant::now();
    while !host.ask_status(0)["problems"].to_string().contains("cannot be used") {
        assert!(began.elapsed() < Duration::from_secs(20), "{:#}\n{}", host.ask_status(0), host.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(lattice.status()["hosts"][0]["policy"], 1, "the one before stays in force");
    lattice.deploy(1, "").ok();
    lattice.wait("what was granted before still runs", |lattice| lattice.answering() == ["h1"]);
    lattice.cli(["cluster", "policies", "--grants", "more.toml", "--operator", "operator.toml"]).ok();
    lattice.wait("a good one mends it", |lattice| lattice.status()["hosts"][0]["policy"] == 3);
    assert!(host.ask_status(5)["ready"] == true, "{}", host.ask_status(0));
}

/// More than a page, and more than the server gives at once: both ways of a look at a bucket.
#[test]
fn a_bucket_is_read_whole_however_many_values_it_has() {
    use base64::Engine as _;
    let Some(lattice) = Lattice::start("cluster pages", &Plan::of(0)) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let digest = lattice.digest("hello.wasm");
    let store = |from: usize, to: usize| {
        runtime.block_on(async {
            let operator = lattice.connect("operator").await;
            for n in from..to {
                let manifest = serde_json::json!({
                    "format": 1, "version": 1,
                    "manifest": { "component": format!("test:c{n}"), "digest": digest, "source": { "store": "digest" }, "replicas": 0 },
                });
                let payload = base64::engine::general_purpose::STANDARD.encode(manifest.to_string());
                let value = serde_json::json!({ "statement": "none", "payload": payload }).to_string();
                operator.publish(format!("$KV.portcullis-test-desired.app.test.c{n}"), value.into()).await.unwrap();
            }
            operator.flush().await.unwrap();
        });
    };
    let stored = |lattice: &Lattice| lattice.status()["components"].as_array().map_or(0, Vec::len);
    store(0, 600);
    lattice.wait("600 values in pages", |lattice| stored(lattice) == 600);
    store(600, 1_100);
    lattice.wait("1100 values, one after the other", |lattice| stored(lattice) == 1_100);
}
