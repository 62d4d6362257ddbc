//! What an operator does about identities on a running host: rotation, taint, revocation, metrics; and what must not come back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::http::{self, Answer};
use portcullis_tests::site::Site;
use serde_json::Value;

const VAULT: &str = "vault.test.internal";
const GREETER: &str = "spiffe://test.example/ns/demo/sa/greeter";
/// What is promised within a second is waited for this long: tests share a machine.
const SOON: Duration = portcullis_tests::patience::LONG;

/// Greeter, which calls the vault by mTLS as itself, and the vault, which welcomes nobody else.
fn site(more: &str) -> Site {
    let port = portcullis_tests::port::reserved();
    let mut site = Site::new();
    let may = "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\"]\nidentity = [\"read\", \"x509\"]\naudiences = [\"vault\"]";
    site.component("greeter", &guests::ours("greeter"), may);
    site.grants(&format!(
        "\n[[grant]]\nid = \"greeter-vault\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:greeter\"\n\
         http = [\"https://{VAULT}:{port}\"]\npeer = \"spiffe://test.example/ns/test/sa/vault\"\naddresses = [\"loopback\"]\n"
    ));
    site.sign_as("greeter", &guests::ours("greeter"), "ns/demo/sa/greeter");
    let welcome = format!(
        "link = [\"portcullis:identity/*\"]\nidentity = [\"read\", \"x509\", \"validate\", \"peer\"]\ncallers = [\"{GREETER}\"]"
    );
    site.guest("vault", &welcome);
    site.config(&format!(
        "[[route]]\nhost = \"{VAULT}\"\ncomponent = \"test:vault\"\n\n[[route]]\npath = \"/secret\"\ncomponent = \"test:vault\"\n\n\
         [names]\n\"{VAULT}\" = [\"127.0.0.1\"]\n\n\
         [listen]\nhttp = \"127.0.0.1:0\"\nmtls = \"127.0.0.1:{port}\"\nmetrics = \"127.0.0.1:0\"\n{more}"
    ));
    site
}

/// The end of the host's log.
fn log(host: &Host) -> String {
    let log = host.log();
    log.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn greet(host: &Host) -> Answer {
    let request = format!(
        "GET /greeter HTTP/1.1\r\nhost: test.example\r\nx-vault-url: https://{VAULT}:{}/secret\r\nconnection: close\r\n\r\n",
        host.mtls().port()
    );
    http::raw(host.http(), request.as_bytes())
}

fn greeted(host: &Host) -> bool {
    let answer = greet(host);
    answer.status == 200 && answer.json()["vault_status"] == 200
}

fn mint(host: &Host) -> Answer {
    http::get(host.http(), "/greeter/mint?aud=vault", &[])
}

fn token(host: &Host) -> String {
    let answer = mint(host);
    answer.json()["token"].as_str().unwrap_or_else(|| panic!("no token: {answer:?}\n{}", log(host))).to_owned()
}

fn kid(token: &str) -> String {
    let header = token.split('.').next().unwrap();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
}

fn show(host: &Host) -> Value {
    host.run(["identity", "show"]).ok().json()
}

fn bundle(host: &Host) -> Value {
    host.run(["identity", "bundle"]).ok().json()
}

fn key_ids(bundle: &Value) -> BTreeSet<String> {
    let keys = bundle["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().map_or_else(|| key["x5c"][0].to_string(), str::to_owned)).collect()
}

fn identity<'a>(shown: &'a Value, component: &str) -> &'a Value {
    let all = shown["identities"].as_array().unwrap();
    all.iter().find(|one| one["component"] == component).unwrap_or_else(|| panic!("{component} is not in {shown:#}"))
}

fn active(shown: &Value, kind: &str) -> String {
    let all = shown["authorities"].as_array().unwrap();
    let found = all.iter().find(|one| one["kind"] == kind && one["state"] == "active").expect("one is active");
    found["id"].as_str().unwrap().to_owned()
}

/// How long it takes until something is so.
fn until(what: &str, host: &Host, mut so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < SOON, "{what}: not within {SOON:?}\n{}", log(host));
        std::thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}

#[test]
fn an_operator_sees_rotates_and_distrusts_what_signs() {
    let host = Host::ready(site(""));
    assert!(greeted(&host), "{}\n{}", greet(&host).text(), log(&host));
    show_names_authorities_their_slots_and_ends_and_who_has_an_identity(&host);
    every_svid_is_replaced_and_recorded_and_calls_go_on(&host);
    a_forced_rotation_signs_with_new_keys_and_keeps_the_old_ones_published(&host);
    a_tainted_authority_is_trusted_by_nobody_any_more(&host);
    operations_are_recorded_with_what_was_asked(&host);
    bad_input_is_refused_with_a_hint(&host);
    metrics_are_served_and_tell_no_names(&host);
    idle_connections_do_not_keep_metrics_from_others_for_long(&host);
    the_bundle_map_names_each_trust_domain(&host);
    the_audit_chain_holds(&host);
}

fn show_names_authorities_their_slots_and_ends_and_who_has_an_identity(host: &Host) {
    let shown = show(host);
    assert_eq!(shown["trust_domain"], "test.example");
    for kind in ["x509", "jwt"] {
        let all = shown["authorities"].as_array().unwrap();
        let one: Vec<_> = all.iter().filter(|one| one["kind"] == kind).collect();
        assert_eq!(one.len(), 1, "{shown:#}");
        assert_eq!(
            (&one[0]["slot"], &one[0]["state"], &one[0]["key_place"]),
            (&"A".into(), &"active".into(), &"file".into())
        );
        assert!(one[0]["not_after"].as_i64() > one[0]["activated_at"].as_i64());
        let next = shown["next"].as_array().unwrap();
        assert!(next.iter().any(|next| next["kind"] == kind && next["action"] == "prepare"), "{shown:#}");
    }
    let greeter = identity(&shown, "test:greeter");
    assert_eq!((&greeter["spiffe_id"], &greeter["revoked"]), (&GREETER.into(), &false.into()));
    assert!(greeter["x509_minted"].as_u64() >= Some(1) && greeter["x509_not_after"].is_i64(), "{greeter}");
    let text = host.site().run(["identity", "show", "--config", "portcullis.toml"]).ok().out;
    for word in ["KIND", "SLOT", "active", GREETER, "prepare"] {
        assert!(text.contains(word), "{word} is missing in\n{text}");
    }
}

fn every_svid_is_replaced_and_recorded_and_calls_go_on(host: &Host) {
    let before = greet(host).json()["certificate"].as_str().unwrap().to_owned();
    let minted = identity(&show(host), "test:greeter")["x509_minted"].as_u64().unwrap();
    let report = host.run(["identity", "rotate", "--svids"]).ok().json();
    assert_eq!((&report["x509_svids"], &report["x509_failed"]), (&2.into(), &0.into()), "{report:#}");
    until("a new certificate", host, || {
        let answer = greet(host);
        assert_eq!(answer.status, 200, "a call failed: {}\n{}", answer.text(), log(host));
        answer.json()["certificate"] != before.as_str()
    });
    assert!(identity(&show(host), "test:greeter")["x509_minted"].as_u64() > Some(minted));
    let record = host.record(&[("kind", "authority"), ("change", "svids-replaced")]);
    assert_eq!((&record["by"], &record["x509_svids"]), (&"identity".into(), &2.into()));
}

fn a_forced_rotation_signs_with_new_keys_and_keeps_the_old_ones_published(host: &Host) {
    let (old, before) = (token(host), bundle(host));
    let report = host.run(["identity", "rotate", "--x509", "--jwt"]).ok().json();
    let activated = report["authorities"].as_array().unwrap().iter().filter(|one| one["change"] == "activated").count();
    assert_eq!(activated, 2, "{report:#}");
    until("a token of the new key", host, || kid(&token(host)) != kid(&old));
    let after = bundle(host);
    assert!(key_ids(&after).is_superset(&key_ids(&before)), "an old key is gone: {after:#}");
    assert_eq!(key_ids(&after).len(), key_ids(&before).len() + 2);
    assert!(after["spiffe_sequence"].as_u64() > before["spiffe_sequence"].as_u64());
    assert_eq!(kid(&token(host)), active(&show(host), "jwt"));
    assert!(greeted(host), "{}", log(host));
}

fn a_tainted_authority_is_trusted_by_nobody_any_more(host: &Host) {
    for kind in ["jwt", "x509"] {
        let authority = active(&show(host), kind);
        let before = key_ids(&bundle(host));
        host.run(["identity", "taint", &authority]).ok();
        let (shown, after) = (show(host), key_ids(&bundle(host)));
        assert!(!before.is_subset(&after), "{kind}: it is still in the bundle");
        assert_ne!(active(&shown, kind), authority);
        let state = shown["authorities"].as_array().unwrap().iter().find(|one| one["id"] == authority.as_str());
        assert!(state.is_none_or(|one| one["state"] == "tainted" && one["key_place"] == "none"), "{shown:#}");
        host.record(&[("kind", "authority"), ("change", "tainted"), ("authority", &authority)]);
        until("calls by new SVIDs", host, || greeted(host));
        assert_eq!(kid(&token(host)), active(&show(host), "jwt"));
        assert_eq!(host.run(["identity", "taint", &authority]).exit, 2, "it cannot be tainted twice");
    }
}

fn operations_are_recorded_with_what_was_asked(host: &Host) {
    for what in ["identity.rotate", "identity.taint"] {
        let record = host.record(&[("kind", "control"), ("what_was_asked", what)]);
        assert_eq!(record["by"], "operator");
    }
}

// gate: IdentityRotate, IdentityTaint, IdentityRevoke
fn bad_input_is_refused_with_a_hint(host: &Host) {
    let long = "a".repeat(4096);
    for arguments in [
        ["identity", "taint", "nobody"],
        ["identity", "taint", ""],
        ["identity", "taint", "\u{1b}[2J"],
        ["identity", "taint", &long],
        ["identity", "revoke", "01JZZZZZZZZZZZZZZZZZZZZZZZ"],
        ["identity", "revoke", ""],
        ["identity", "revoke", "spiffe://"],
        ["identity", "revoke", "spiffe://test.example/../a"],
        ["identity", "revoke", "\u{1b}[2J"],
        ["identity", "rotate", "--wit"],
    ] {
        let ended = host.run(arguments);
        assert_eq!(ended.exit, 2, "{arguments:?}: {}{}", ended.out, ended.err);
        assert!(
            ended.err.contains("hint:") && !ended.err.contains('\u{1b}') && ended.err.len() < 2048,
            "{}",
            ended.err
        );
    }
    assert!(greeted(host));
}

fn metrics_are_served_and_tell_no_names(host: &Host) {
    let status = host.ask_status(SOON.as_secs());
    let address: SocketAddr =
        status["listening"]["metrics"].as_str().expect("metrics are listened for").parse().unwrap();
    let answer = http::get(address, "/metrics", &[]);
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    let text = answer.text();
    for line in [
        "portcullis_ready 1",
        "portcullis_process_up{process=\"identity\"} 1",
        "portcullis_components{state=\"running\"} 2",
    ] {
        assert!(text.lines().any(|has| has == line), "{line} is missing in\n{text}");
    }
    for family in [
        "portcullis_identity_svids_minted_total{kind=\"jwt\"}",
        "portcullis_identity_signatures_total{kind=\"handshake\"}",
        "portcullis_identity_authority_expiry_timestamp_seconds{kind=\"x509\"}",
        "portcullis_identity_x509_svid_expiry_timestamp_seconds",
        "portcullis_identity_request_seconds_bucket{call=\"jwt\",le=\"+Inf\"}",
    ] {
        let line = text
            .lines()
            .find(|line| line.starts_with(family))
            .unwrap_or_else(|| panic!("{family} is missing in\n{text}"));
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value > 0.0, "{line}");
    }
    assert!(!text.contains("spiffe://") && !text.contains("test:greeter"), "{text}");
    // Each line is a comment or a sample, and no family comes twice.
    let mut families = BTreeSet::new();
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(family) => assert!(families.insert(family.to_owned()), "{family} comes twice"),
            None => assert!(line.starts_with("# HELP portcullis_") || line.starts_with("portcullis_"), "{line}"),
        }
    }
    assert_eq!(http::get(address, "/", &[]).status, 404);
    assert_eq!(http::raw(address, b"POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").status, 405);
}

/// Connections that say nothing take up the places for ten seconds and no longer.
fn idle_connections_do_not_keep_metrics_from_others_for_long(host: &Host) {
    let address: SocketAddr =
        host.ask_status(SOON.as_secs())["listening"]["metrics"].as_str().unwrap().parse().unwrap();
    let idle: Vec<_> = (0..16).map(|_| http::connect(address)).collect();
    until("all places are taken", host, || http::get(address, "/metrics", &[]).status == 0);
    let began = Instant::now();
    while http::get(address, "/metrics", &[]).status != 200 {
        assert!(began.elapsed() < SOON, "idle connections are kept");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(idle);
}

fn the_bundle_map_names_each_trust_domain(host: &Host) {
    let map = host.run(["identity", "bundle", "--federated"]).ok().json();
    let domains = map["trust_domains"].as_object().unwrap();
    assert_eq!(domains.keys().collect::<Vec<_>>(), ["test.example"]);
    assert_eq!(domains["test.example"]["keys"], bundle(host)["keys"]);
}

fn the_audit_chain_holds(host: &Host) {
    host.site().run(["audit", "verify", host.audit_path().to_str().unwrap()]).ok();
}

#[test]
fn a_revoked_identity_is_cut_off_at_once_and_does_not_come_back() {
    let host = Host::ready(site(""));
    assert!(greeted(&host), "{}\n{}", greet(&host).text(), log(&host));
    let greeter = identity(&show(&host), "test:greeter")["instance"].as_str().unwrap().to_owned();
    an_instance_that_is_revoked_runs_on_without_an_identity(&host, &greeter);
    it_stays_so_when_the_identity_process_is_started_again(&host);
    a_new_instance_has_an_identity(&host, &greeter);
    let host = an_id_stays_revoked_over_a_restart_of_the_host(host);
    an_id_that_is_given_back_can_be_used_again(&host);
}

fn an_instance_that_is_revoked_runs_on_without_an_identity(host: &Host, greeter: &str) {
    token(host);
    let report = host.run(["identity", "revoke", greeter]).ok().json();
    assert_eq!(report["instances"], serde_json::json!([greeter]));
    let took = until("no token any more, cached or new", host, || mint(host).status >= 400);
    println!("revoked: no token after {took:?}");
    until("no mTLS any more", host, || !greeted(host));
    assert_eq!(identity(&show(host), "test:greeter")["revoked"], true);
    assert_eq!(identity(&show(host), "test:vault")["revoked"], false);
    host.record(&[("kind", "control"), ("what_was_asked", "identity.revoke"), ("target", greeter)]);
    let seen = host.audit().len();
    for _ in 0..20 {
        assert!(mint(host).status >= 400 && !greeted(host));
    }
    let issued = |record: &Value| record["kind"] == "issuance" && record["instance"] == greeter;
    assert!(!host.audit()[seen..].iter().any(issued), "something was issued to a revoked instance");
}

fn it_stays_so_when_the_identity_process_is_started_again(host: &Host) {
    let identity_process = host.pid("identity").unwrap();
    Host::signal(identity_process, "KILL");
    until("another identity process", host, || host.pid("identity").is_some_and(|pid| pid != identity_process));
    assert_eq!(host.ask_status(SOON.as_secs())["ready"], true);
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        assert!(mint(host).status >= 400 && !greeted(host), "a restart gave the identity back");
    }
    assert_eq!(identity(&show(host), "test:greeter")["revoked"], true);
}

fn a_new_instance_has_an_identity(host: &Host, old: &str) {
    host.run(["stop", "test:greeter"]).ok();
    host.run(["start", "greeter.wasm"]).ok();
    until("calls by the new instance", host, || greeted(host));
    assert_ne!(identity(&show(host), "test:greeter")["instance"], old);
    assert_eq!(host.run(["identity", "revoke", old]).exit, 2, "the old instance is gone");
}

fn an_id_stays_revoked_over_a_restart_of_the_host(host: Host) -> Host {
    host.run(["identity", "revoke", GREETER]).ok();
    until("no token any more", &host, || mint(&host).status >= 400);
    host.run(["stop", "test:greeter"]).ok();
    let refused = host.run(["start", "greeter.wasm"]);
    assert_eq!((refused.exit, refused.code().as_str()), (16, "identity.revoked"), "{}", refused.err);
    assert!(refused.err.contains("identity revoke --lift"), "{}", refused.err);
    host.record(&[("kind", "denial"), ("code", "identity.revoked")]);
    let host = Host::start(host.stop());
    let status = host.ask_status(0);
    assert!(status["problems"].to_string().contains("identity.revoked"), "{status:#}");
    assert!(mint(&host).status >= 400);
    assert_eq!(show(&host)["revoked"], serde_json::json!([GREETER]));
    host
}

fn an_id_that_is_given_back_can_be_used_again(host: &Host) {
    assert_eq!(host.run(["identity", "revoke", "--lift", "spiffe://test.example/ns/test/sa/other"]).exit, 2);
    host.run(["identity", "revoke", "--lift", GREETER]).ok();
    assert_eq!(show(host)["revoked"], serde_json::json!([]));
    host.run(["start", "greeter.wasm"]).ok();
    until("calls by an ID that was given back", host, || greeted(host));
}

/// The process that compiles a component for this host now, if there is one.
fn compiler(host: &Host) -> Option<u32> {
    let known = [host.pid("identity"), host.pid("runtime")];
    let supervisor = host.supervisor().to_string();
    let mut processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.find(|pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1).map(str::to_owned));
        parent.as_deref() == Some(supervisor.as_str()) && !known.contains(&Some(*pid))
    })
}

#[test]
fn a_revocation_does_not_wait_for_a_component_that_is_being_started() {
    let host = Host::ready(site(""));
    assert!(greeted(&host), "{}\n{}", greet(&host).text(), log(&host));
    // The same with a custom section: bytes that were never compiled.
    let mut bytes = guests::ours("greeter").to_vec();
    bytes.extend([0, 2, 1, b'x']);
    host.site().sign_as("greeter", &bytes, "ns/demo/sa/greeter");
    std::thread::scope(|scope| {
        let start = scope.spawn(|| host.run(["start", "greeter.wasm"]));
        let mut compiling = None;
        until("the component is compiled", &host, || {
            compiling = compiler(&host);
            compiling.is_some()
        });
        Host::signal(compiling.unwrap(), "STOP");
        let revoked =
            host.site().run_within(60, ["identity", "revoke", GREETER, "--config", "portcullis.toml", "--json"]);
        let waited = start.is_finished();
        Host::signal(compiling.unwrap(), "CONT");
        let report = revoked.ok().json();
        assert!(!waited && report["instances"].as_array().unwrap().len() == 1, "{report:#}");
        until("no token any more", &host, || mint(&host).status >= 400);
        // Who was being started comes up, if at all, without the identity.
        start.join().unwrap();
        assert!(mint(&host).status >= 400 && !greeted(&host), "the identity came back by a start");
    });
}

#[test]
fn a_stop_takes_hold_while_a_component_is_being_started() {
    let host = Host::ready(site(""));
    assert!(greeted(&host), "{}\n{}", greet(&host).text(), log(&host));
    let mut bytes = guests::ours("greeter").to_vec();
    bytes.extend([0, 2, 1, b'x']);
    host.site().sign_as("greeter", &bytes, "ns/demo/sa/greeter");
    std::thread::scope(|scope| {
        let start = scope.spawn(|| host.run(["start", "greeter.wasm"]));
        let mut compiling = None;
        until("the component is compiled", &host, || {
            compiling = compiler(&host);
            compiling.is_some()
        });
        Host::signal(compiling.unwrap(), "STOP");
        // The command itself waits for the start, to stop that one, too; what runs does not.
        let stop = scope.spawn(|| host.run(["stop", "test:greeter"]));
        let ended = portcullis_tests::processes::holds_within(SOON, || mint(&host).status >= 400);
        let waited = start.is_finished();
        Host::signal(compiling.unwrap(), "CONT");
        assert!(ended && !waited, "the stop waited for a compilation\n{}", log(&host));
        start.join().unwrap();
        stop.join().unwrap().ok();
        assert!(mint(&host).status >= 400 && !greeted(&host), "the component came back by the start");
    });
}

/// Authorities of 72 s: the next ones are prepared after 36 s and used after 60 s, under calls that never stop.
#[test]
fn a_rotation_by_the_schedule_drops_no_call() {
    let host = Arc::new(Host::ready(site("[identity]\nauthority_ttl = 72\nx509_ttl = 12\njwt_ttl = 12\n")));
    let (over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let caller = std::thread::spawn({
        let (host, over, calls) = (Arc::clone(&host), Arc::clone(&over), Arc::clone(&calls));
        move || {
            while !over.load(Ordering::Acquire) {
                let answer = greet(&host);
                assert!(
                    answer.status == 200 && answer.json()["vault_status"] == 200,
                    "call {calls:?}: {}\n{}",
                    answer.text(),
                    log(&host)
                );
                calls.fetch_add(1, Ordering::AcqRel);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let before = show(&host);
    let old: Vec<_> = ["x509", "jwt"].map(|kind| active(&before, kind)).to_vec();
    let end = Instant::now() + Duration::from_secs(240);
    loop {
        let shown = show(&host);
        let new: Vec<_> = ["x509", "jwt"].map(|kind| active(&shown, kind)).to_vec();
        if new.iter().zip(&old).all(|(new, old)| new != old) {
            break;
        }
        assert!(
            Instant::now() < end && !caller.is_finished(),
            "no rotation, or a call failed: {shown:#}\n{}",
            log(&host)
        );
        std::thread::sleep(Duration::from_millis(500));
    }
    std::thread::sleep(Duration::from_secs(5));
    over.store(true, Ordering::Release);
    caller.join().expect("no call failed");
    assert!(calls.load(Ordering::Acquire) > 100);
    for change in ["prepared", "activated", "retired"] {
        for kind in ["x509", "jwt"] {
            host.record(&[("kind", "authority"), ("change", change), ("authority_kind", kind), ("cause", "schedule")]);
        }
    }
}

/// Each call is a handshake: an answer from before is never taken.
#[test]
fn a_guest_that_asks_in_a_loop_is_stopped_by_its_rate_and_leaves_few_records() {
    let host = Host::ready(site(""));
    let began = Instant::now();
    let limited = std::sync::atomic::AtomicU32::new(0);
    let ask = |caller: usize| {
        for n in 0..1_000 {
            let answer = http::get(host.http(), &format!("/greeter/mint?aud=denied-{caller}-{n}"), &[]);
            assert!(answer.status >= 400);
            let counts = u32::from(answer.json()["code"] != "I0201");
            if limited.fetch_add(counts, std::sync::atomic::Ordering::Relaxed) >= 100 {
                return;
            }
        }
    };
    let ask = &ask;
    std::thread::scope(|scope| {
        for caller in 0..4 {
            scope.spawn(move || ask(caller));
        }
    });
    let limited = limited.into_inner();
    // On a machine so slow that a hundred a second are not reached there is nothing to limit.
    if limited == 0 {
        return portcullis_tests::skip(
            "a_guest_that_asks_in_a_loop",
            &format!("4000 calls took {:?}", began.elapsed()),
            true,
        );
    }
    let record = host.record(&[("kind", "denial"), ("code", "identity.rate-limited")]);
    assert_eq!((&record["component"], &record["what"]), (&"test:greeter".into(), &"mint".into()), "{record}");
    let records = host.audit().iter().filter(|record| record["code"] == "identity.rate-limited").count();
    assert!(records <= 5, "{records} records");
    until("calls again", &host, || greeted(&host));
}
