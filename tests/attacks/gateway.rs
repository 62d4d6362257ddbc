//! The HTTP gateway against guests that mean harm: each costs its own request and nothing else. And where requests go.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_tests::host::Host;
use portcullis_tests::http::{self, Answer};
use portcullis_tests::patience::{LONG, promised};
use portcullis_tests::site::Site;
use portcullis_tests::{guests, http::get};

/// A host with every hostile guest and small limits.
static OPEN: LazyLock<Host> = LazyLock::new(|| {
    let mut site = Site::new();
    for guest in ["hello", "echo", "trap", "balloon", "silent", "late", "tables", "headers"] {
        site.guest(guest, "");
    }
    site.component("guarded", &guests::ours("hello"), "callers = [\"spiffe://test.example/ns/test/sa/somebody\"]");
    for (path, guest) in [
        ("/hang", "silent"),
        ("/stack", "trap"),
        ("/bounds", "trap"),
        ("/panic", "trap"),
        ("/timers", "tables"),
        ("/abort", "balloon"),
    ] {
        site.config(&format!("[[route]]\npath = \"{path}\"\ncomponent = \"test:{guest}\"\n\n"));
    }
    site.config("[[route]]\nhost = \"named.example\"\ncomponent = \"test:hello\"\n\n");
    site.config(
        "[limits]\nrequest_ms = 4000\nmemory_mib = 32\nbody_bytes = 65536\nheader_bytes = 8192\nheaders = 32\nhead_ms = 1000\n",
    );
    Host::ready(site)
});

/// A host where requests may take long and guests may compute for a moment only: on a busy machine, too, it is the processor
/// time that ends them.
static BUSY: LazyLock<Host> = LazyLock::new(|| {
    let mut site = Site::new();
    for guest in ["hello", "spin", "chatty"] {
        site.guest(guest, "");
    }
    site.config("[limits]\nrequest_ms = 120000\ncpu_ms = 1000\n");
    Host::ready(site)
});

/// Its tests take turns: what one guest computes is not to be taken for another's.
static TURN: Mutex<()> = Mutex::new(());

fn busy() -> (&'static Host, MutexGuard<'static, ()>) {
    (&BUSY, TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Asks for `path` while hello is asked again and again; gives the answer to the former.
fn beside_hello(host: &Host, path: &str) -> Answer {
    let runtime = host.pid("runtime").expect("a runtime process");
    let done = AtomicBool::new(false);
    let answer = std::thread::scope(|scope| {
        let polite = scope.spawn(|| {
            let mut answered = 0;
            while !done.load(Ordering::Relaxed) || answered == 0 {
                greeted(host.http());
                answered += 1;
            }
        });
        let answer = get(host.http(), path, &[]);
        done.store(true, Ordering::Relaxed);
        polite.join().unwrap();
        answer
    });
    greeted(host.http());
    assert_eq!(host.pid("runtime"), Some(runtime), "{path} cost the runtime process");
    answer
}

/// Hello answers, soon.
fn greeted(address: SocketAddr) {
    let asked = Instant::now();
    let answer = get(address, "/hello", &[]);
    assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, "Hello, world!\n", true), "{answer:?}");
    assert!(asked.elapsed() < promised(Duration::from_secs(10)), "hello took {:?}", asked.elapsed());
}

fn failures(host: &Host) -> u64 {
    host.ask_status(0)["guest_failures"].as_u64().unwrap()
}

/// The request is lost with this status, is counted, and is in the audit log as a failure of this kind.
fn spoils_only_itself(host: &Host, path: &str, status: u16, guest: &str, kind: &str) {
    let before = failures(host);
    let answer = beside_hello(host, path);
    assert_eq!((answer.status, answer.complete), (status, true), "{path}: {answer:?}\n{}", host.log());
    let text = answer.text();
    assert!(
        !text.contains("wasm") && !text.contains("unreachable") && text.len() < 100,
        "{path} shows the inside: {text}"
    );
    assert!(failures(host) > before, "{path} was not counted");
    host.record(&[("kind", "failure"), ("component", &format!("test:{guest}")), ("kind_of_failure", kind)]);
}

#[test]
fn a_trap_costs_its_own_request() {
    for path in ["/trap", "/stack", "/bounds", "/panic"] {
        spoils_only_itself(&OPEN, path, 500, "trap", "trap");
    }
}

#[test]
fn an_endless_loop_is_ended_by_its_processor_time() {
    let (host, _turn) = busy();
    for path in ["/spin", "/spin/calls"] {
        spoils_only_itself(host, path, 504, "spin", "cpu-time");
    }
}

#[test]
fn a_loop_behind_the_head_of_the_answer_ends_the_body_as_broken() {
    let (host, _turn) = busy();
    let before = failures(host);
    let answer = beside_hello(host, "/spin/body");
    assert_eq!((answer.status, answer.complete), (200, false), "{answer:?}");
    assert!(failures(host) > before);
}

#[test]
fn four_endless_loops_at_once_leave_room_for_hello() {
    let (host, _turn) = busy();
    let runtime = host.pid("runtime");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let spinners: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(get(host.http(), "/spin", &[]).status, 504);
                    }
                })
            })
            .collect();
        (0..20).for_each(|_| greeted(host.http()));
        done.store(true, Ordering::Relaxed);
        spinners.into_iter().for_each(|spinner| spinner.join().unwrap());
    });
    assert_eq!(host.pid("runtime"), runtime);
}

#[test]
fn a_guest_gets_no_more_memory_than_its_limit() {
    let answer = beside_hello(&OPEN, "/balloon");
    let got = answer.json()["mebibytes"].as_u64().unwrap_or_else(|| panic!("{answer:?}"));
    assert!((16..32).contains(&got), "it got {got} MiB of 32");
    spoils_only_itself(&OPEN, "/abort", 500, "balloon", "trap");
}

#[test]
fn a_guest_that_never_answers_is_given_up() {
    spoils_only_itself(&OPEN, "/silent", 500, "silent", "trap");
    spoils_only_itself(&OPEN, "/hang", 504, "silent", "trap");
}

#[test]
fn a_trap_in_the_middle_of_the_body_ends_it_as_broken() {
    let before = failures(&OPEN);
    for pieces in [0, 1, 2, 10, 100, 300] {
        let answer = beside_hello(&OPEN, &format!("/late?n={pieces}"));
        assert!(
            !answer.complete || answer.status >= 500,
            "{pieces} pieces: status {}, {} bytes",
            answer.status,
            answer.body.len()
        );
    }
    assert!(failures(&OPEN) >= before + 6);
    OPEN.record(&[("kind", "failure"), ("component", "test:late")]);
}

#[test]
fn what_a_guest_writes_to_its_streams_can_neither_steer_a_terminal_nor_flood_or_forge_the_log() {
    let (host, _turn) = busy();
    let before = host.log().len();
    let answer = beside_hello(host, "/chatty?lines=100");
    assert_eq!(answer.status, 200, "{answer:?}");
    until("the guest's lines are in the log", || host.log().contains("screen cleared"));
    let log = host.log();
    assert!(log.len() - before < 256 << 10, "one request wrote {} bytes to the log", log.len() - before);
    let bad = log
        .chars()
        .find(|c| (c.is_control() && *c != '\n') || ('\u{202a}'..='\u{202e}').contains(c) || *c == '\u{2028}');
    assert_eq!(bad, None, "the log has {bad:?} in it");
    assert!(log.lines().all(|line| line.len() < 4096), "a line of the log is longer than 4 KiB");
    assert!(!log.lines().any(|line| line.starts_with("{\"level\"")), "a guest forged a record");
    assert!(host.audit().iter().all(|record| !record.to_string().contains("forged")));
}

#[test]
fn a_guest_holds_no_more_handles_than_its_limit() {
    for path in ["/tables", "/timers"] {
        spoils_only_itself(&OPEN, path, 500, "tables", "trap");
    }
    let answer = get(OPEN.http(), "/tables?n=100", &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_guest_adds_no_more_headers_than_fit() {
    let answer = beside_hello(&OPEN, "/headers?n=100000");
    let refused = answer.status == 200
        && answer.json()["added"].as_u64().is_some_and(|added| added < 5_000)
        && answer.head.len() < 256 << 10;
    assert!(refused || answer.status == 500, "status {}, head of {} bytes", answer.status, answer.head.len());
    assert_eq!(get(OPEN.http(), "/headers?n=10", &[]).status, 200);
}

#[test]
fn guests_cannot_set_headers_of_the_connection() {
    for name in [
        "connection",
        "transfer-encoding",
        "upgrade",
        "keep-alive",
        "proxy-authenticate",
        "x-portcullis-refusal",
        "x-forwarded-client-cert",
    ] {
        let answer = get(OPEN.http(), &format!("/headers?n=1&name={name}"), &[]);
        assert_eq!((answer.status, &answer.json()["refused"]), (200, &"forbidden".into()), "{name}: {answer:?}");
        assert_ne!(answer.header(name), Some("vvvvvvvv"), "{name}");
    }
}

#[test]
fn routes_match_on_whole_segments_and_nothing_else_is_served() {
    for path in [
        "/",
        "/hellox",
        "/Hello",
        "/hell",
        "/nothing",
        "//hello",
        "/./hello",
        "/x/../hello",
        "/%68ello",
        "/hello%2f",
        "*",
    ] {
        let answer = get(OPEN.http(), path, &[]);
        assert!([404, 400].contains(&answer.status) && !answer.text().contains("Hello"), "{path}: {answer:?}");
    }
    for path in ["/hello", "/hello/", "/hello/x", "/hello?x"] {
        assert_eq!(get(OPEN.http(), path, &[]).status, 200, "{path}");
    }
    let named = http::raw(OPEN.http(), b"GET /any/path HTTP/1.1\r\nhost: Named.example:1\r\nconnection: close\r\n\r\n");
    assert_eq!(named.status, 200, "{named:?}");
}

#[test]
fn headers_that_assert_an_identity_do_not_reach_a_guest() {
    let count = |headers: &[(&str, &str)]| {
        get(OPEN.http(), "/echo", headers).header("x-headers").unwrap().parse::<u32>().unwrap()
    };
    let plain = count(&[("accept", "*/*")]);
    let asserted = [
        ("accept", "*/*"),
        ("X-Forwarded-Client-Cert", "URI=spiffe://test.example/ns/demo/sa/greeter"),
        ("x-portcullis-caller", "spiffe://test.example/ns/demo/sa/greeter"),
        ("X-PORTCULLIS-REFUSAL", "none"),
    ];
    assert_eq!(count(&asserted), plain);
    assert_eq!(count(&[("accept", "*/*"), ("x-other", "1")]), plain + 1, "the count counts");
}

#[test]
fn a_caller_that_no_grant_names_is_refused_and_the_refusal_can_be_explained() {
    let answer =
        get(OPEN.http(), "/guarded", &[("x-forwarded-client-cert", "URI=spiffe://test.example/ns/test/sa/somebody")]);
    assert_eq!(answer.status, 403, "{answer:?}");
    let refusal = answer.header("x-portcullis-refusal").expect("a refusal has a reference").to_owned();
    let (code, reference) = refusal.split_once(' ').unwrap();
    assert_eq!(code, "C0201");
    assert!(!answer.text().contains("spiffe"), "the caller learns who may: {}", answer.text());
    let record = OPEN.record(&[("kind", "denial"), ("ref", reference)]);
    assert_eq!((&record["by"], &record["code"]), (&"runtime".into(), &"C0201".into()), "{record}");
    let explained = OPEN.run(["policy", "explain", reference]).ok().json();
    let text = explained["text"].as_str().unwrap();
    for word in ["who ", "what ", "why ", "fix ", "test:guarded", "anonymous", "grants add"] {
        assert!(text.contains(word), "no {word} in:\n{text}");
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
