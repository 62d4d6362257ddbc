//! Policy files that change while a host runs: taken up without being asked, or refused with the place, never half.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use portcullis_tests::host::Host;
use portcullis_tests::http;
use portcullis_tests::processes::holds_within;
use portcullis_tests::site::Site;

/// Generous: a change is to be in force within a second, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(10);
/// What is promised within a second, on a machine that may be busy; what is waited for would come much later.
const PROMPTLY: Duration = Duration::from_secs(6);

fn site() -> Site {
    let mut site = Site::new();
    site.guest("hello", "");
    site
}

fn status(host: &Host) -> u16 {
    http::get(host.http(), "/hello", &[]).status
}

fn problems(host: &Host) -> String {
    host.ask_status(0)["problems"].to_string()
}

/// Writes beside and renames, as editors and deployment tools do.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

#[test]
fn a_changed_grants_file_is_in_force_without_a_reload() {
    let host = Host::ready(site());
    assert_eq!(status(&host), 200);
    let path = host.site().file("grants.toml");
    let granted = std::fs::read_to_string(&path).unwrap();
    // In place, by a rename, and back: three generations.
    std::fs::write(&path, granted.replace("callers = [\"anonymous\"]\n", "")).unwrap();
    assert!(holds_within(SOON, || status(&host) == 403), "{}", host.log());
    replace(&path, &granted);
    assert!(holds_within(SOON, || status(&host) == 200), "{}", host.log());
    let generation = host.record(&[("kind", "policy")]);
    assert!(generation["generation"].as_u64() >= Some(2), "{generation}");
}

#[test]
fn a_bad_file_keeps_the_policy_names_the_place_and_is_mended_without_a_reload() {
    let host = Host::ready(site());
    let path = host.site().file("grants.toml");
    let granted = std::fs::read_to_string(&path).unwrap();
    for (bad, said) in [
        (format!("{granted}\nx = = 1\n"), "grants.toml:"),
        (granted.replace("load = true", "laod = true"), "unknown key `laod`"),
        (granted.replace("version = 1", "version = 9"), "version 1 of the format"),
    ] {
        std::fs::write(&path, &bad).unwrap();
        assert!(holds_within(SOON, || problems(&host).contains(said)), "{said}: {}", problems(&host));
        assert_eq!(status(&host), 200, "the policy before stays in force");
        assert_eq!(host.ask_status(0)["ready"], false);
    }
    let refused = host.record(&[("kind", "policy")]);
    assert!(refused["refused"].to_string().contains("grants.toml"), "{refused}");
    std::fs::write(&path, &granted).unwrap();
    assert!(holds_within(SOON, || host.ask_status(0)["ready"] == true), "{}", problems(&host));
}

#[test]
fn a_file_that_is_taken_away_keeps_the_policy_and_says_so() {
    let host = Host::ready(site());
    std::fs::remove_file(host.site().file("grants.toml")).unwrap();
    assert!(holds_within(SOON, || problems(&host).contains("grants.toml")), "{}", problems(&host));
    assert_eq!(status(&host), 200);
}

#[test]
fn without_a_policy_at_its_start_a_host_is_up_denies_everything_and_is_not_ready() {
    for (bytes, said) in [
        (None, "grants.toml"),
        (Some(&b""[..]), "is empty"),
        (Some(b"version = 1\n"), "grant nothing"),
        (Some(b"version = ["), "grants.toml:"),
    ] {
        let mut site = site();
        site.damage("grants.toml", bytes);
        let host = Host::start(site);
        assert_eq!(host.ask_status(0)["ready"], false);
        assert!(problems(&host).contains(said), "{said}: {}", problems(&host));
        assert_ne!(status(&host), 200);
        assert!(host.record(&[("kind", "denial")])["code"].as_str().is_some());
    }
}

#[test]
fn fifty_changes_in_a_row_end_with_the_last() {
    let host = Host::ready(site());
    let path = host.site().file("grants.toml");
    let granted = std::fs::read_to_string(&path).unwrap();
    for n in 0..50 {
        let closed = granted.replace("callers = [\"anonymous\"]\n", "");
        let text = if n % 2 == 0 { &closed } else { &granted };
        replace(&path, &format!("{text}\n# change {n}\n"));
        let now = status(&host);
        assert!(now == 200 || now == 403, "{now} while policies change");
    }
    assert!(holds_within(SOON, || host.ask_status(0)["ready"] == true && status(&host) == 200), "{}", problems(&host));
}

/// Reads until these bytes came; gives all that came.
fn read_until(stream: &mut TcpStream, wanted: &[u8]) -> Vec<u8> {
    let (mut seen, mut piece) = (Vec::new(), [0; 1024]);
    while !seen.windows(wanted.len()).any(|window| window == wanted) {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "it closed after: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..count]);
    }
    seen
}

/// The records of what was ended, by action.
fn ended(host: &Host, action: &str) -> usize {
    let is = |record: &serde_json::Value| record["ended"] == true && record["denial"]["action"] == action;
    host.audit().iter().filter(|record| is(record)).count()
}

#[test]
fn a_request_and_a_stream_at_work_end_when_their_caller_may_not_call_any_more() {
    let mut site = Site::new();
    site.guest("identity", "link = [\"portcullis:identity/*\"]");
    let host = Host::ready(site);
    let mut streaming = http::connect(host.http());
    streaming.write_all(b"GET /identity/hold?ms=20000 HTTP/1.1\r\nhost: test.example\r\n\r\n").unwrap();
    read_until(&mut streaming, b"first");
    let path = host.site().file("grants.toml");
    let granted = std::fs::read_to_string(&path).unwrap();
    // A change that leaves them what they have ends nothing.
    std::fs::write(&path, granted.replace("a test", "another reason")).unwrap();
    host.run(["reload"]).ok();
    streaming.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    assert!(streaming.read(&mut [0; 16]).is_err(), "it is still there, and silent");
    streaming.set_read_timeout(Some(SOON)).unwrap();

    std::fs::write(&path, granted.replace("callers = [\"anonymous\"]\n", "")).unwrap();
    let began = Instant::now();
    host.run(["reload"]).ok();
    let mut rest = Vec::new();
    // Reset or closed: over, and without the end of the body.
    let _ = streaming.read_to_end(&mut rest);
    assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
    assert!(!rest.windows(4).any(|window| window == b"last" || window == b"0\r\n\r"), "{rest:?}");
    assert!(holds_within(SOON, || ended(&host, "call") == 1), "{:#?}", host.audit());
    assert_eq!(host.ask_status(0)["guest_failures"], 0, "the guest did nothing wrong");
}

#[test]
fn an_answer_that_is_still_coming_ends_when_its_destination_is_not_granted_any_more() {
    let far = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = far.local_addr().unwrap().port();
    let mut site = Site::new();
    site.guest("greeter", "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\", \"wasi:http/*\"]");
    site.grants(&format!(
        "\n[[grant]]\nid = \"far\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:greeter\"\n\
         http = [\"http://127.0.0.1:{port}\"]\naddresses = [\"loopback\"]\n"
    ));
    let host = Host::ready(site);
    let path = host.site().file("grants.toml");
    let granted = std::fs::read_to_string(&path).unwrap();
    let without = granted.split("\n[[grant]]\nid = \"far\"").next().unwrap().to_owned();
    // While its head is awaited, and while its body comes.
    for (answer, times) in [(&b""[..], 1), (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", 2)] {
        std::fs::write(&path, &granted).unwrap();
        host.run(["reload"]).ok();
        let address = host.http();
        let asked = std::thread::spawn(move || {
            http::get(address, &format!("/greeter/fetch?url=http%3a%2f%2f127.0.0.1%3a{port}%2f"), &[])
        });
        let (mut stream, _) = far.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        read_until(&mut stream, b"\r\n\r\n");
        stream.write_all(answer).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        std::fs::write(&path, &without).unwrap();
        let began = Instant::now();
        host.run(["reload"]).ok();
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0, "the far end sees it close");
        let answered = asked.join().unwrap();
        assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
        assert_ne!(answered.status, 200, "{}", answered.text());
        assert!(holds_within(SOON, || ended(&host, "http.send") == times), "{:#?}", host.audit());
    }
}

#[test]
fn what_is_linked_and_not_granted_any_more_is_not_called() {
    let mut site = Site::new();
    site.guest("identity", "link = [\"portcullis:identity/*\"]\nidentity = [\"read\"]");
    let host = Host::ready(site);
    assert_eq!(http::get(host.http(), "/identity/id", &[]).status, 200);
    let path = host.site().file("grants.toml");
    let granted = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, granted.replace("link = [\"portcullis:identity/*\"]\n", "")).unwrap();
    host.run(["reload"]).ok();
    let refused = http::get(host.http(), "/identity/id", &[]);
    let code = refused.header("x-portcullis-refusal").unwrap_or_default().to_owned();
    // `identity = ["read"]` brings the link of what it needs, and no more.
    assert!(refused.status == 403 && code.starts_with("L02"), "{} {code}", refused.status);
    std::fs::write(&path, &granted).unwrap();
    host.run(["reload"]).ok();
    assert_eq!(http::get(host.http(), "/identity/id", &[]).status, 200);
}

/// Whether a component runs, as `list` has it.
fn runs(host: &Host, name: &str) -> bool {
    let list = host.run(["list"]).ok().json();
    list.as_array().unwrap().iter().any(|component| component["name"] == name && component["state"] == "running")
}

/// A start takes its time on a machine that compiles.
const STARTED: Duration = Duration::from_secs(120);

#[test]
fn a_configured_component_that_policy_refused_starts_with_the_policy_that_grants_it() {
    let mut site = site();
    site.damage("grants.toml", Some(b"version = 1\n"));
    let host = Host::start(site);
    let said = problems(&host);
    assert!(said.contains("A0201") && !runs(&host, "test:hello"), "{said}");
    // How to replay it is said as well, and works.
    let reference = host.record(&[("kind", "denial"), ("action", "start")])["ref"].as_str().unwrap().to_owned();
    assert!(said.contains("policy explain --config") && said.contains(&reference), "{said}");
    assert_eq!(host.run(["policy", "explain", &reference]).ok().json()["code"], "A0201");
    host.run(["grants", "add", "test:hello", "--load", "--caller", "anonymous"]).ok();
    assert!(holds_within(STARTED, || host.ask_status(0)["ready"] == true), "{}", problems(&host));
    assert_eq!(status(&host), 200);
}

#[test]
fn a_configured_component_that_an_operator_stopped_is_not_started_by_a_later_policy() {
    let mut site = site();
    site.guest("echo", "");
    site.damage("grants.toml", Some(b"version = 1\n"));
    let host = Host::start(site);
    let none = host.run(["stop", "test:hello"]);
    assert_eq!(none.exit, 2, "it does not run: {}", none.out);
    host.run(["grants", "add", "test:hello", "--load"]).ok();
    host.run(["grants", "add", "test:echo", "--load"]).ok();
    // They are tried in the order of the configuration: where the second one runs, the first one was passed over.
    assert!(holds_within(STARTED, || runs(&host, "test:echo")), "{}", problems(&host));
    assert!(!runs(&host, "test:hello"));
    // By hand it starts; and once it was stopped after that, no policy starts it.
    host.run(["start", "hello.wasm"]).ok();
    host.run(["stop", "test:hello"]).ok();
    host.run(["stop", "test:echo"]).ok();
    host.run(["grants", "add", "test:hello", "--caller", "anonymous"]).ok();
    assert!(holds_within(SOON, || host.ask_status(0)["ready"] == true), "{}", problems(&host));
    assert!(!runs(&host, "test:hello") && !runs(&host, "test:echo"));
}

#[test]
fn a_policy_that_cannot_be_used_is_what_refuses_a_start_and_once_mended_it_starts() {
    let mut site = site();
    site.guest("echo", "");
    site.write();
    let granted = std::fs::read_to_string(site.file("grants.toml")).unwrap();
    site.damage("grants.toml", Some(b"version = 1\n[[grant]\n"));
    let host = Host::start(site);
    let refused: Vec<_> = host.audit().into_iter().filter(|record| record["kind"] == "denial").collect();
    assert_eq!(refused.len(), 2, "one for each component: {refused:#?}");
    for record in &refused {
        let text = record["text"].as_str().unwrap();
        assert_eq!(record["code"], "A0103", "{text}");
        assert!(text.contains("grants.toml:2:") && text.lines().count() == 1, "{text}");
        assert!(
            record["fix"].as_array().unwrap().is_empty() && !record["hint"].as_str().unwrap().contains("grants add")
        );
    }
    assert!(!problems(&host).contains("no grant matches"), "{}", problems(&host));
    // Still nothing is allowed, and one document says so.
    let ended = host.run(["status"]);
    assert_eq!((ended.exit, &ended.json()["ready"]), (1, &false.into()), "{}", ended.out);
    assert_ne!(status(&host), 200);
    replace(&host.site().file("grants.toml"), &granted);
    assert!(holds_within(STARTED, || host.ask_status(0)["ready"] == true), "{}", problems(&host));
    assert_eq!(status(&host), 200);
}

#[test]
fn a_configured_component_that_trust_refused_starts_once_trust_is_mended() {
    let mut site = site();
    site.write();
    let trusted = std::fs::read_to_string(site.file("trust.signed.json")).unwrap();
    site.damage("trust.signed.json", Some(b"{}"));
    let host = Host::start(site);
    assert!(host.ask_status(0)["ready"] == false && !runs(&host, "test:hello"));
    replace(&host.site().file("trust.signed.json"), &trusted);
    assert!(holds_within(STARTED, || host.ask_status(0)["ready"] == true), "{}", problems(&host));
    assert_eq!(status(&host), 200);
}
