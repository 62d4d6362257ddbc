//! A host that is never left alone: requests without a pause while policies are reloaded, components come and go, and every
//! SVID is issued anew. Nothing may fail, and nothing may pile up: memory, descriptors, threads, the folders of the state.
//!
//! `PORTCULLIS_SOAK_SECONDS` makes it longer than the half minute that it takes among the other tests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_tests::host::Host;
use portcullis_tests::processes::holds_within;
use portcullis_tests::site::Site;
use portcullis_tests::{guests, http};

const ROLES: [&str; 2] = ["identity", "runtime"];
/// What may be more at the end than after warming up: allocators keep what they once had, and give it to nobody.
const MEMORY_SLACK_KB: u64 = 48 * 1024;
const DESCRIPTOR_SLACK: u64 = 16;
const THREAD_SLACK: u64 = 4;

/// What one process has now.
#[derive(Debug, Clone, Copy)]
struct Holds {
    memory_kb: u64,
    descriptors: u64,
    threads: u64,
}

#[test]
fn a_host_under_load_and_change_fails_no_request_and_keeps_nothing() {
    let seconds = std::env::var("PORTCULLIS_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let mut site = Site::new();
    site.guest("hello", "");
    site.guest(
        "identity",
        "link = [\"portcullis:identity/*\"]\nidentity = [\"read\", \"x509\"]\naudiences = [\"vault\"]\n",
    );
    site.config(
        "[audit]\npart_mib = 1\nkeep_parts = 3\n\n[listen]\nhttp = \"127.0.0.1:0\"\nmtls = \"127.0.0.1:0\"\n\n",
    );
    site.sign("echo", &guests::ours("echo"));
    site.grants("\n[[grant]]\nid = \"echo\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:echo\"\nload = true\ncallers = [\"anonymous\"]\n");
    let host = Host::ready(site);
    let address = host.http();
    assert!(holds_within(Duration::from_secs(10), || served(address)));
    let (stop, answers, failures) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let counter = if served(address) { &answers } else { &failures };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Half of the time warms up: pools, caches and allocators reach the size that this load needs.
        let began = Instant::now();
        let half = Duration::from_secs(seconds) / 2;
        change(&host, began + half);
        let before = held(&host);
        change(&host, began + 2 * half);
        let after = held(&host);
        stop.store(true, Ordering::Relaxed);
        for ((name, before), (_, after)) in before.iter().zip(&after) {
            let grew = |now: u64, then: u64, slack: u64| now > then + slack;
            assert!(!grew(after.memory_kb, before.memory_kb, MEMORY_SLACK_KB), "{name}: {before:?}, then {after:?}");
            assert!(
                !grew(after.descriptors, before.descriptors, DESCRIPTOR_SLACK),
                "{name}: {before:?}, then {after:?}"
            );
            assert!(!grew(after.threads, before.threads, THREAD_SLACK), "{name}: {before:?}, then {after:?}");
        }
    });
    let (answers, failures) = (answers.into_inner(), failures.into_inner());
    assert_eq!(failures, 0, "of {} requests\n{}", answers + failures, host.log());
    assert!(answers > 100, "there was no load: {answers}");
    host.run(["audit", "verify"]).ok();
    let kept = std::fs::read_dir(host.site().file("state/audit")).unwrap().count();
    assert!(kept <= 4, "{kept} files of the audit log");
    println!("{answers} requests in {seconds} s, none failed");
}

/// A reload, a component that comes and goes, and new SVIDs, in turn until the time is over.
fn change(host: &Host, until: Instant) {
    let mut grants = std::fs::read_to_string(host.site().file("grants.toml")).unwrap();
    let mut round = 0_u32;
    while Instant::now() < until {
        round += 1;
        grants.push_str(&format!("# round {round}\n"));
        std::fs::write(host.site().file("grants.toml"), &grants).unwrap();
        host.run(["reload"]).ok();
        host.run(["start", "echo.wasm", "--route", "/echo"]).ok();
        assert_eq!(http::post(host.http(), "/echo", b"ping").text(), "ping", "{}", host.log());
        host.run(["stop", "test:echo"]).ok();
        host.run(["identity", "rotate", "--svids"]).ok();
    }
    assert!(round > 0);
}

/// Whether the plain guest answers and the other one has its identity.
fn served(address: SocketAddr) -> bool {
    http::get(address, "/hello", &[]).status == 200 && http::get(address, "/identity/jwt?aud=vault", &[]).status == 200
}

fn held(host: &Host) -> Vec<(String, Holds)> {
    let children = ROLES.map(|role| (role.to_owned(), host.pid(role).expect("the process runs")));
    let all = children.into_iter().chain([("supervisor".to_owned(), host.supervisor())]);
    all.map(|(name, pid)| (name, holds(pid))).collect()
}

fn holds(pid: u32) -> Holds {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of proc_pid_status(5)");
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number")
    };
    // The descriptors of a process that nobody may look into are not shown to those who are not root.
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64);
    Holds { memory_kb: number("VmRSS:"), threads: number("Threads:"), descriptors }
}
