//! Three hosts behind a callout that `callout init` set up: the nats-server, a host and both callouts die in turn, and nothing is
//! lost. Whoever has to log in meanwhile is refused and says so, serves what it runs, and is let in when a callout is there again.

use std::time::Duration;

use portcullis_tests::cluster::listener::Listener;
use portcullis_tests::cluster::{Lattice, Plan, guarded};
use portcullis_tests::host::Host;
use portcullis_tests::patience::LONG;

use crate::Clients;

fn all_in(lattice: &Lattice) -> bool {
    let status = lattice.status();
    status["hosts"]
        .as_array()
        .is_some_and(|hosts| hosts.len() == 3 && hosts.iter().all(|host| host["accepting"] == true))
}

#[test]
fn nothing_is_lost_when_the_server_a_host_and_the_callouts_die_in_turn() {
    let Some(mut lattice) = Lattice::start("three hosts and a callout", &Plan::guarded(3)) else { return };
    they_were_let_in_by_what_they_showed(&lattice);
    let listener = Listener::start(&lattice, "early");
    lattice.deploy(2, "").ok();
    lattice.wait("two replicas", |lattice| lattice.running("test:hello").len() == 2);
    let on = lattice.running("test:hello");
    let clients = Clients::of(&lattice);

    // The server dies, and one callout with it: the other one lets everybody in again, and nobody moves.
    lattice.server.kill();
    lattice.guard.as_mut().unwrap().kill(0);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(lattice.answering(), on, "what ran goes on\n{}", lattice.logs());
    lattice.server.restart();
    lattice.wait("one callout lets all hosts in", all_in);
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
    let on = lattice.running("test:hello");

    // No callout is left: who is connected stays so, goes on and is heard; who comes is refused, and says why.
    lattice.guard.as_mut().unwrap().kill(1);
    let back = Host::start(site);
    let taken = |host: &Host| host.audit().iter().filter(|record| record["kind"] == "cluster").count();
    let before = taken(&back);
    let why = refused(&back);
    assert_eq!(taken(&back), before, "it takes nothing from anywhere");
    lattice.hosts.insert(dead.clone(), back);
    for host in &on {
        let status = lattice.hosts[host].ask_status(0);
        assert!(status["nats"].as_str().is_some_and(|nats| nats.contains(host.as_str())), "connected: {status:#}");
    }
    eprintln!("without a callout: {why}");
    // The server too: nobody gets in any more, and what runs goes on all the same.
    lattice.server.restart();
    for host in &on {
        let why = refused(&lattice.hosts[host]);
        eprintln!("{host}, which was connected: {why}");
    }
    assert!(lattice.cli(["cluster", "status", "--operator", "operator.toml"]).exit != 0, "nor does the operator");
    std::thread::sleep(Duration::from_secs(3));
    let serving = |lattice: &Lattice| -> Vec<String> {
        lattice.answering().into_iter().filter(|host| on.contains(host)).collect()
    };
    assert_eq!(serving(&lattice), on, "{}", lattice.logs());

    // One callout is there again: all are let in by themselves.
    lattice.guard.as_mut().unwrap().start(1);
    let took = lattice.wait("all hosts are let in by themselves", all_in);
    eprintln!("all hosts were in {took:?} after the callout came");
    lattice.wait("two replicas, not three", |lattice| lattice.running("test:hello").len() == 2);
    let (asked, lost) = clients.end();
    eprintln!("{asked} requests, {lost} without an answer of any host");
    assert!(asked > 100);
    assert_eq!(lost, 0, "of {asked} requests\n{}", lattice.logs());

    // What is said now is done everywhere.
    lattice.guard.as_mut().unwrap().start(0);
    let late = Listener::listening(&lattice, "late", 2);
    lattice.deploy(3, "").ok();
    lattice
        .wait("three replicas", |lattice| lattice.answering().len() == 3 && lattice.running("test:hello").len() == 3);
    let digest = lattice.digest("hello.wasm");
    lattice.cli(["cluster", "revoke", "--digest", &digest, "--operator", "operator.toml"]).ok();
    lattice.wait("it is revoked everywhere", |lattice| lattice.answering().is_empty());
    for host in lattice.hosts.keys() {
        lattice.hosts[host].record(&[("kind", "stop"), ("why", "cluster.revoked")]);
        lattice.wait("each host's last word is heard", |_| late.heard(host, "component.revoked"));
    }
    let events = listener.events().len() + late.events().len();
    assert!(listener.heard(&on[0], "component.started") && events >= 6, "{events} events");
    for listener in [listener, late] {
        let errors = listener.errors();
        assert!(!errors.contains("not believed"), "an event was not verified: {errors}");
    }
    every_audit_log_is_whole(&lattice);
}

fn they_were_let_in_by_what_they_showed(lattice: &Lattice) {
    let guard = lattice.guard.as_ref().unwrap();
    for host in lattice.hosts.keys() {
        let id = format!("spiffe://test.example/portcullis/host/{host}");
        assert!(guard.recorded(&id) > 0, "{host} was let in by a callout");
    }
    let jwt: Vec<_> = lattice.hosts["h3"].audit().into_iter().filter(|record| record["svid"] == "jwt").collect();
    let audiences = jwt[0]["audiences"].as_array().unwrap();
    assert_eq!(audiences[0], guarded::CALLOUT);
    assert!(audiences[1].as_str().unwrap().starts_with("nkey:U"), "the token is bound to the key: {audiences:?}");
}

/// Waits until a host says that it is not let in; gives its words.
fn refused(host: &Host) -> String {
    let end = std::time::Instant::now() + LONG;
    loop {
        let status = host.ask_status(0);
        let said =
            ["problems", "warnings"].into_iter().flat_map(|list| status[list].as_array().cloned().unwrap_or_default());
        let mut said = said.filter_map(|line| line.as_str().map(str::to_owned));
        let why = said.find(|line| line.starts_with("nats: ") && line.contains("hint:"));
        if let Some(why) = why.filter(|why| why.contains("refused") || why.contains("let") || why.contains("decide")) {
            return why;
        }
        assert!(std::time::Instant::now() < end, "it does not say that it is refused: {status:#}\n{}", host.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn every_audit_log_is_whole(lattice: &Lattice) {
    let of_hosts = lattice.hosts.values().map(Host::audit_path);
    for log in of_hosts.chain(lattice.guard.as_ref().unwrap().audit_logs()) {
        let verified =
            portcullis_tests::site::portcullis(["audit".into(), "verify".into(), log.clone().into_os_string()]);
        assert_eq!(verified.exit, 0, "{}: {}{}", log.display(), verified.out, verified.err);
    }
}
