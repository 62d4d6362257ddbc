//! Three hosts and a nats-server with TLS and static permissions: the server dies, a host dies, and nothing is lost. And
//! how fast a revocation takes hold.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a broken test must stop"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_tests::cluster::{Lattice, Plan};
use portcullis_tests::http;

#[path = "cluster_callout.rs"]
mod cluster_callout;
#[path = "cluster_disk.rs"]
mod cluster_disk;
#[path = "cluster_offline.rs"]
mod cluster_offline;

/// Asks hosts in turn, as a load balancer would that tries the next one where one does not answer, until it is told to end.
struct Clients {
    end: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Clients {
    fn of(lattice: &Lattice) -> Self {
        let hosts: Vec<_> = lattice.hosts.values().map(portcullis_tests::host::Host::http).collect();
        let end: Arc<AtomicBool> = Arc::default();
        let (asked, lost): (Arc<AtomicU64>, Arc<AtomicU64>) = (Arc::default(), Arc::default());
        let (ends, asks, loses) = (Arc::clone(&end), Arc::clone(&asked), Arc::clone(&lost));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Acquire) {
                let answered = hosts.iter().any(|host| {
                    std::net::TcpStream::connect_timeout(host, Duration::from_millis(500)).is_ok()
                        && std::panic::catch_unwind(|| http::get(*host, "/hello", &[]).status == 200).unwrap_or(false)
                });
                asks.fetch_add(1, Ordering::Relaxed);
                if !answered {
                    loses.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { end, asked, lost, thread: Some(thread) }
    }

    fn end(mut self) -> (u64, u64) {
        self.end.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap();
        (self.asked.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }
}

#[test]
fn nothing_is_lost_when_the_server_and_a_host_die_in_turn() {
    let Some(mut lattice) = Lattice::start("three hosts", &Plan::of(3)) else { return };
    lattice.deploy(2, "").ok();
    lattice.wait("two replicas", |lattice| lattice.running("test:hello").len() == 2);
    let on = lattice.running("test:hello");
    let clients = Clients::of(&lattice);

    // The server dies: what runs goes on, nothing new is started, and nobody believes to be alone.
    lattice.server.kill();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(lattice.answering(), on, "what ran goes on, on the same hosts alone\n{}", lattice.logs());
    lattice.server.restart();
    lattice.wait("the cluster is whole again", |lattice| {
        lattice.status()["hosts"].as_array().is_some_and(|hosts| hosts.len() == 3)
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lattice.answering(), on, "nobody moved for it\n{}", lattice.logs());

    // A host dies: the third one takes over.
    let dead = on[0].clone();
    let site = lattice.hosts.remove(&dead).unwrap().killed();
    let took = lattice.wait("another host takes over", |lattice| lattice.answering().len() == 2);
    eprintln!("{dead} was replaced within {took:?}");
    lattice.wait("it is said so", |lattice| {
        let running = lattice.running("test:hello");
        running.len() == 2 && !running.contains(&dead)
    });

    // It comes back, knows what it has seen, and there are two replicas again, not three.
    lattice.hosts.insert(dead.clone(), portcullis_tests::host::Host::start(site));
    lattice.exchange_bundles();
    lattice.wait("two replicas on three hosts", |lattice| {
        let status = lattice.status();
        status["hosts"].as_array().is_some_and(|hosts| hosts.len() == 3) && lattice.answering().len() == 2
    });

    let (asked, lost) = clients.end();
    eprintln!("{asked} requests, {lost} without an answer of any host");
    assert!(asked > 100);
    assert_eq!(lost, 0, "of {asked} requests\n{}", lattice.logs());
}

#[test]
fn a_host_that_is_cut_off_keeps_what_runs_and_past_the_limit_starts_nothing() {
    let mut plan = Plan::of(1);
    plan.section = "heartbeat_ms = 300\nread_ms = 500\nstale_seconds = 3\n".to_owned();
    let Some(mut lattice) = Lattice::start("cut off", &plan) else { return };
    lattice.deploy(1, "").ok();
    lattice.wait("it runs", |lattice| lattice.answering() == ["h1"]);
    lattice.server.freeze();
    let host = &lattice.hosts["h1"];
    let began = Instant::now();
    // It serves what it served: that is a warning, and no reason to send its requests elsewhere.
    while !host.ask_status(0)["warnings"].to_string().contains("cluster.stale") {
        assert!(began.elapsed() < Duration::from_secs(30), "{:#}", host.ask_status(0));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(lattice.answering(), ["h1"], "what runs goes on");
    assert_eq!(host.ask_status(0)["ready"], true);
    host.run(["stop", "test:hello"]);
    let refused = host.run(["start", "apps/hello.wasm"]);
    assert_eq!((refused.exit, refused.code().as_str()), (17, "cluster.stale"), "{refused:?}");
    lattice.server.thaw();
    lattice.wait("it comes back by itself", |lattice| lattice.answering() == ["h1"]);
    // A revocation holds over a restart without the server.
    let digest = lattice.digest("hello.wasm");
    lattice.cli(["cluster", "revoke", "--digest", &digest, "--operator", "operator.toml"]).ok();
    lattice.wait("it is stopped", |lattice| lattice.answering().is_empty());
    let site = lattice.hosts.remove("h1").unwrap().stop();
    lattice.server.kill();
    let host = portcullis_tests::host::Host::start(site);
    let refused = host.run(["start", "apps/hello.wasm"]);
    assert!(matches!(refused.code().as_str(), "cluster.revoked" | "cluster.stale"), "{refused:?}");
    lattice.server.restart();
    lattice.hosts.insert("h1".to_owned(), host);
    let host = &lattice.hosts["h1"];
    let began = Instant::now();
    loop {
        let refused = host.run(["start", "apps/hello.wasm"]);
        if (refused.exit, refused.code().as_str()) == (16, "cluster.revoked") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{refused:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    // A host that is told to stop does not wait for a server that is gone.
    lattice.server.kill();
    let mut host = lattice.hosts.remove("h1").unwrap();
    portcullis_tests::host::Host::signal(host.supervisor(), "TERM");
    assert_eq!(host.wait(Duration::from_secs(15)), Some(0), "{}", host.log());
}

#[test]
fn a_revocation_stops_a_component_on_three_hosts_within_a_second() {
    let Some(lattice) = Lattice::start("revocation", &Plan::of(3)) else { return };
    let mut took = revocations(&lattice, 3);
    took.sort();
    eprintln!("revocation published to stopped on 3 hosts: {took:?}");
    assert!(took[0] < Duration::from_secs(1), "{took:?}\n{}", lattice.logs());
}

/// `cargo test --workspace --test cluster_hosts -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn revocation_published_to_stopped_on_three_hosts() {
    let rounds = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let Some(lattice) = Lattice::start("revocation bench", &Plan::of(3)) else { return };
    let mut took = revocations(&lattice, rounds);
    took.sort();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    eprintln!("{rounds} rounds: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.9), at(0.99), at(1.0));
}

/// How long each revocation took, from its publication until no host answered any more; by each host's own record of the stop.
fn revocations(lattice: &Lattice, rounds: usize) -> Vec<Duration> {
    let digest = lattice.digest("hello.wasm");
    let mut all = Vec::new();
    lattice.deploy(3, "").ok();
    for _ in 0..rounds {
        lattice.wait("three replicas", |lattice| lattice.answering().len() == 3);
        let (asked, published) = publish(lattice, &digest);
        // The first stop on each host since it was asked for; zero: none yet. Records have whole milliseconds.
        let stops = |lattice: &Lattice| -> Vec<f64> {
            let times = lattice.hosts.values().map(|host| {
                let audit = host.audit();
                let stops =
                    audit.iter().filter(|record| record["kind"] == "stop" && record["why"] == "cluster.revoked");
                let mut stops = stops.map(|record| seconds(record["ts"].as_str().unwrap_or_default()));
                stops.find(|at| *at > asked - 0.002).unwrap_or_default()
            });
            times.collect()
        };
        lattice.wait("no host answers", |lattice| lattice.answering().is_empty());
        lattice.wait("all recorded it", |lattice| stops(lattice).iter().all(|at| *at > 0.0));
        let last = stops(lattice).into_iter().fold(0.0_f64, f64::max);
        all.push(Duration::from_secs_f64((last - published).max(0.0)));
        lattice.cli(["cluster", "revoke", "--lift", "--digest", &digest, "--operator", "operator.toml"]).ok();
        // Another version: what failed while it was revoked is tried at once.
        lattice.deploy(3, "").ok();
    }
    all
}

/// Publishes the revocation by the command; gives when that began, and when others heard of it, in seconds since 1970.
fn publish(lattice: &Lattice, digest: &str) -> (f64, f64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        use futures::StreamExt as _;
        let mut heard = lattice.connect("h1").await.subscribe("portcullis.test.kv.revoked.>").await.unwrap();
        let revoke = async {
            tokio::task::block_in_place(|| {
                lattice.cli(["cluster", "revoke", "--digest", digest, "--operator", "operator.toml"]).ok()
            })
        };
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let listen = tokio::spawn(async move {
            let _ = heard.next().await;
            now()
        });
        let asked = now();
        revoke.await;
        (asked, listen.await.unwrap())
    })
}

fn seconds(text: &str) -> f64 {
    let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
    at.map(|at| at.unix_timestamp_nanos() as f64 / 1e9).unwrap_or_default()
}
