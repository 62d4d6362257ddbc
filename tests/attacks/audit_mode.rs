//! Audit mode: two keys, a short time, every use recorded, guards on; and what is learnt from it is enough.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::time::Duration;

use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::http::{self, Answer};
use portcullis_tests::processes::holds_within;
use portcullis_tests::server::Server;
use portcullis_tests::site::Site;
use serde_json::Value;

const SOON: Duration = portcullis_tests::patience::LONG;
const NOBODY: &str = "callers = [\"spiffe://test.example/ns/test/sa/nobody\"]";

/// `identity` and `greeter` may be linked and nothing else; the configuration lets both be in audit mode, and one that does not run.
fn site() -> Site {
    let mut site = Site::new();
    site.component("identity", &guests::ours("identity"), &format!("{NOBODY}\nlink = [\"portcullis:identity/*\"]"));
    let links = "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\", \"wasi:http/*\"]";
    site.component("greeter", &guests::ours("greeter"), &format!("{NOBODY}\n{links}"));
    site.guest("hello", "");
    site.policy("audit_mode = [\"test:identity\", \"test:greeter\", \"test:absent\"]\n");
    site
}

fn get(host: &Host, path: &str) -> Answer {
    http::get(host.http(), path, &[])
}

fn records(host: &Host, kind: &str) -> Vec<Value> {
    host.audit().into_iter().filter(|record| record["kind"] == kind).collect()
}

fn actions(host: &Host) -> Vec<String> {
    records(host, "let-through").iter().map(|record| record["denial"]["action"].as_str().unwrap().to_owned()).collect()
}

fn audit(host: &Host, arguments: &[&str]) -> portcullis_tests::site::Ended {
    host.run(["policy", "audit"].iter().chain(arguments))
}

fn fetch(host: &Host, url: &str) -> Answer {
    let encoded: String = url.bytes().map(|byte| format!("%{byte:02x}")).collect();
    get(host, &format!("/greeter/fetch?url={encoded}"))
}

// gate: AuditMode
#[test]
fn without_both_keys_or_with_a_bad_time_nothing_changes() {
    let host = Host::ready(site());
    for (arguments, exit, code) in [
        (&["test:hello", "--for", "1h"][..], 20, "policy.audit-not-configured"),
        (&["*", "--for", "1h"], 20, "policy.audit-not-configured"),
        (&["test:absent", "--for", "1h"], 2, "policy.audit-not-running"),
        (&["test:identity", "--for", "25h"], 2, "policy.audit-time"),
        (&["test:identity", "--for", "86401s"], 2, "policy.audit-time"),
        (&["test:identity", "--off"], 2, "policy.audit-not-on"),
        (&["test:identity", "--for", "0s"], 2, ""),
        (&["test:identity", "--for", "-1h"], 2, ""),
        (&["test:identity", "--for", "always"], 2, ""),
        (&["test:identity"], 2, ""),
        (&["test:identity", "--for", "1h", "--off"], 2, ""),
    ] {
        let ended = audit(&host, arguments);
        assert_eq!((ended.exit, ended.code().as_str()), (exit, code), "{arguments:?}: {}{}", ended.out, ended.err);
    }
    assert_eq!(host.ask_status(0)["audited"], serde_json::json!([]));
    assert_eq!(records(&host, "audit-mode").len(), 0);
    assert_eq!(get(&host, "/identity/id").status, 403);
}

#[test]
fn what_nobody_granted_is_let_through_recorded_and_over_at_a_word() {
    let host = Host::ready(site());
    assert_eq!(get(&host, "/identity/id").status, 403);
    audit(&host, &["test:identity", "--for", "4h"]).ok();
    for path in ["id", "jwt?aud=bank", "chain", "bundle", "domains", "caller"] {
        let answer = get(&host, &format!("/identity/{path}"));
        assert_eq!(answer.status, 200, "{path}: {}\n{}", answer.text(), host.log());
    }
    let sign = http::post(host.http(), "/identity/sign?purpose=invoice", b"data");
    assert_eq!(sign.status, 200, "{}", sign.text());
    let wanted = ["call", "identity.read", "svid.jwt", "svid.x509", "bundle.read", "peer.read", "svid.sign"];
    let all = || wanted.iter().all(|action| actions(&host).iter().any(|seen| seen == action));
    assert!(holds_within(SOON, all), "{:?}", actions(&host));
    // A token is not kept: each use is one record.
    let tokens = || actions(&host).iter().filter(|action| *action == "svid.jwt").count();
    let before = tokens();
    assert_eq!(get(&host, "/identity/jwt?aud=bank").status, 200);
    assert!(holds_within(SOON, || tokens() == before + 1));
    // Loud, and ready all the same.
    let status = host.ask_status(0);
    assert_eq!((&status["ready"], &status["audited"][0]["component"]), (&Value::Bool(true), &"test:identity".into()));
    let text = host.site().run(["status", "--config", "portcullis.toml"]).out;
    assert!(text.contains("AUDIT MODE: test:identity until 20"), "{text}");
    assert!(host.log().contains("AUDIT MODE"), "{}", host.log());
    // Nobody else is in it.
    assert_eq!(get(&host, "/greeter/mint?aud=bank").status, 403);
    // What was let through explains itself.
    let one = records(&host, "let-through").pop().unwrap();
    let explained = host.site().run(["policy", "explain", one["ref"].as_str().unwrap(), "--config", "portcullis.toml"]);
    assert!(explained.ok().out.starts_with("let through by audit mode"), "{one:#}");

    audit(&host, &["test:identity", "--off"]).ok();
    assert_eq!(get(&host, "/identity/id").status, 403);
    assert_eq!(host.ask_status(0)["audited"], serde_json::json!([]));
    let events: Vec<_> = records(&host, "audit-mode").iter().map(|record| record["event"].clone()).collect();
    assert_eq!(events, ["begin", "end"]);
}

#[test]
fn guards_hold_in_audit_mode_and_say_so() {
    let host = Host::ready(site());
    audit(&host, &["test:greeter", "--for", "1h"]).ok();
    for url in ["http://169.254.169.254/latest/", "http://2852039166/", "http://[::ffff:169.254.169.254]/"] {
        let answer = fetch(&host, url);
        assert_eq!((answer.status, &answer.json()["error"]), (403, &"HTTP-request-denied".into()), "{}", answer.text());
    }
    let guarded =
        || records(&host, "denial").iter().any(|r| r["code"].as_str().is_some_and(|code| code.starts_with("N03")));
    assert!(holds_within(SOON, guarded), "{:#?}", records(&host, "denial"));
    assert!(!actions(&host).iter().any(|action| action.starts_with("http.")), "{:?}", actions(&host));
}

#[test]
fn it_ends_in_time_where_the_supervisor_says_nothing() {
    let host = Host::ready(site());
    assert_eq!(get(&host, "/identity/id").status, 403);
    // Where this machine is busy, a short time is over before it is used.
    let mut seen = (403, 403);
    for seconds in [2, 10, 40] {
        audit(&host, &["test:identity", "--for", &format!("{seconds}s")]).ok();
        Host::signal(host.supervisor(), "STOP");
        let let_through = get(&host, "/identity/id").status;
        std::thread::sleep(Duration::from_millis(seconds * 1_000 + 1_500));
        seen = (let_through, get(&host, "/identity/id").status);
        Host::signal(host.supervisor(), "CONT");
        if seen.0 == 200 {
            break;
        }
    }
    assert_eq!(seen, (200, 403));
    // And the supervisor, once it can, says so too.
    assert!(holds_within(SOON, || records(&host, "audit-mode").iter().any(|record| record["why"] == "time")));
    assert!(holds_within(SOON, || host.ask_status(0)["ready"] == true), "{:#}", host.ask_status(0));
    assert_eq!(host.ask_status(0)["audited"], serde_json::json!([]));
}

#[test]
fn a_restart_of_the_runtime_keeps_it_and_one_of_the_host_ends_it() {
    let host = Host::ready(site());
    audit(&host, &["test:identity", "--for", "1h"]).ok();
    let runtime = host.pid("runtime").unwrap();
    Host::signal(runtime, "KILL");
    assert!(holds_within(SOON, || host.pid("runtime").is_some_and(|pid| pid != runtime)));
    assert!(host.ask_status(SOON.as_secs())["ready"] == true);
    assert_eq!(get(&host, "/identity/id").status, 200);
    let host = Host::ready(host.stop());
    assert_eq!(get(&host, "/identity/id").status, 403);
    assert_eq!(host.ask_status(0)["audited"], serde_json::json!([]));
}

/// A link is decided when a component is admitted and whenever policy changes: in audit mode it is let through there, on record.
#[test]
fn a_link_that_nobody_granted_is_let_through_at_admission_and_at_a_change_of_policy() {
    let host = Host::ready(site());
    let grants = host.site().file("grants.toml");
    let granted = std::fs::read_to_string(&grants).unwrap();
    let linked = "link = [\"portcullis:identity/*\"]\n";
    let (before, after) = granted.split_once(linked).unwrap();
    let without = format!("{before}{after}");
    assert_ne!(granted, without);
    audit(&host, &["test:identity", "--for", "1h"]).ok();
    let links = || actions(&host).iter().filter(|action| *action == "link").count();
    assert_eq!(links(), 0);
    // Taken away while it runs: it goes on, and that is on record.
    std::fs::write(&grants, &without).unwrap();
    host.run(["reload"]).ok();
    assert_eq!(get(&host, "/identity/id").status, 200, "{}", host.log());
    assert!(holds_within(SOON, || links() > 0), "{:?}", actions(&host));
    // Started anew without the grant: on disk before it runs.
    let so_far = links();
    host.run(["stop", "test:identity"]).ok();
    host.run(["start", "identity.wasm", "--route", "/identity"]).ok();
    let all = links();
    assert!(all > so_far, "{:?}", actions(&host));
    let started = host.audit().iter().rposition(|record| record["kind"] == "start");
    let through = host.audit().iter().rposition(|r| r["kind"] == "let-through" && r["denial"]["action"] == "link");
    assert!(through.is_some() && through < started, "{through:?} {started:?} {:#?}", host.audit());
    assert_eq!(get(&host, "/identity/id").status, 200);
    // An admission itself is not let through, and without audit mode neither is the link.
    audit(&host, &["test:identity", "--off"]).ok();
    assert_eq!(get(&host, "/identity/id").status, 403);
    host.run(["stop", "test:identity"]).ok();
    let refused = host.run(["start", "identity.wasm", "--route", "/identity"]);
    assert_eq!(refused.exit, 20, "{}{}", refused.out, refused.err);
    assert!(records(&host, "denial").iter().any(|record| record["code"] == "L0201"), "{:#?}", host.audit());
}

#[test]
fn what_is_learnt_from_it_allows_the_same_without_it() {
    let server = Server::saying("hello");
    let url = format!("http://127.0.0.1:{}/", server.port());
    let host = Host::ready(site());
    audit(&host, &["test:greeter", "--for", "1h"]).ok();
    let uses = |host: &Host| [fetch(host, &url).status, get(host, "/greeter/mint?aud=bank").status];
    assert_eq!(uses(&host), [200, 200], "{}", host.log());
    let wanted = ["call", "http.send", "http.connect", "svid.jwt"];
    let all = || wanted.iter().all(|action| actions(&host).iter().any(|seen| seen == action));
    assert!(holds_within(SOON, all), "{:?}", actions(&host));
    let learned = host.run(["policy", "learn", "state/audit/audit.jsonl", "--component", "test:greeter"]).ok().json();
    let toml = learned["toml"].as_str().unwrap().to_owned();
    audit(&host, &["test:greeter", "--off"]).ok();
    assert_eq!(uses(&host)[0], 403, "strict again");
    // Beside the grants that there are, under one `version`.
    let learnt = toml.replacen("version = 1", "", 1);
    let grants = std::fs::read_to_string(host.site().file("grants.toml")).unwrap();
    std::fs::write(host.site().file("grants.toml"), format!("{grants}\n{learnt}")).unwrap();
    host.run(["reload"]).ok();
    let before = actions(&host).len();
    assert_eq!(uses(&host), [200, 200], "{toml}\n{}", host.log());
    assert_eq!(actions(&host).len(), before, "nothing was let through");
}
