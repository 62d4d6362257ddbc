//! mTLS connections that stand while policy changes: one that is not granted any more ends within a second, though nothing is
//! asked on it; one that still is goes on.

use std::time::{Duration, Instant};

use portcullis_tests::http;
use portcullis_tests::patience::{LONG, promised};

use crate::partner::Partner;
use crate::tls::{self, Client};
use crate::{Federated, INNER, LEDGER, federated};

/// What is promised is a second. The command itself is a process, and a debug build.
const CUT: Duration = Duration::from_secs(3);
const ASK: &str = "GET /inner/caller HTTP/1.1\r\nhost: inner.example";

fn connect(site: &Federated, path: &str) -> Client {
    Client::connect(site.host.mtls(), INNER, Some(site.partner.leaf(path, |_| ()))).unwrap()
}

/// Puts a policy in force and gives the time at which that was asked for.
fn change(site: &Federated, grants: &str) -> Instant {
    std::fs::write(site.host.site().file("grants.toml"), grants).unwrap();
    let began = Instant::now();
    site.host.run(["reload"]).ok();
    began
}

fn ended(site: &Federated, action: &str) -> usize {
    let is = |record: &serde_json::Value| record["ended"] == true && record["denial"]["action"] == action;
    site.host.audit().iter().filter(|record| is(record)).count()
}

#[test]
fn idle_connections_and_exchanges_end_with_their_grants() {
    let partner = Partner::new("partner.example");
    let serving = tls::hold(partner.leaf(LEDGER, |_| ()));
    let site = federated(&[], Some(serving.port), partner);
    let granted = std::fs::read_to_string(site.host.site().file("grants.toml")).unwrap();
    let ledger = site.partner.id(LEDGER);
    let auditor = "ns/pay/sa/auditor";
    // Among the callers alone: as a peer it has no comma behind it.
    let both =
        granted.replace(&format!("\"{ledger}\", "), &format!("\"{ledger}\", \"{}\", ", site.partner.id(auditor)));
    assert_ne!(both, granted);
    change(&site, &both);
    idle_connections_end_and_others_go_on(&site, auditor, &both);
    an_exchange_with_a_peer_ends(&site, &serving, &both);
}

fn idle_connections_end_and_others_go_on(site: &Federated, auditor: &str, both: &str) {
    // One that has asked and is idle, one that never asked, and one of somebody else.
    let (mut asked, mut silent, mut other) = (connect(site, LEDGER), connect(site, LEDGER), connect(site, auditor));
    assert_eq!(asked.ask(ASK, b"").unwrap().status, 200);
    assert_eq!(other.ask(ASK, b"").unwrap().status, 200);
    // A change that leaves them what they have ends none of them.
    change(site, &both.replace("a test", "another reason"));
    assert_eq!(asked.ended_within(Duration::from_millis(600)), None);
    assert_eq!(silent.ended_within(Duration::from_millis(100)), None);
    let before = ended(site, "call");
    let began = change(site, &both.replace(&format!("\"{}\", ", site.partner.id(LEDGER)), ""));
    for (client, which) in [(&mut asked, "one that had asked"), (&mut silent, "one that never had")] {
        assert!(client.ended_within(LONG).is_some(), "{which} stands {:?} later\n{}", began.elapsed(), site.host.log());
    }
    assert!(began.elapsed() < promised(CUT), "{:?}", began.elapsed());
    eprintln!("idle connections: cut {:?} after the change was asked for", began.elapsed());
    other.ended_within(Duration::from_millis(300));
    assert_eq!(other.ask(ASK, b"").unwrap().status, 200, "whoever is granted still has its connection");
    let end = Instant::now() + LONG;
    while ended(site, "call") < before + 2 {
        assert!(Instant::now() < end, "both ends are on record: {:#?}", site.host.audit().last());
        std::thread::sleep(Duration::from_millis(20));
    }
    let refused = connect(site, LEDGER).ask(ASK, b"").unwrap();
    assert_eq!(refused.status, 403, "{}", refused.text());
    change(site, both);
    assert_eq!(connect(site, LEDGER).ask(ASK, b"").unwrap().status, 200);
}

fn an_exchange_with_a_peer_ends(site: &Federated, serving: &tls::Holding, both: &str) {
    let url = format!("https%3A%2F%2Fledger.example%3A{}%2Fx", serving.port);
    let elsewhere = site.partner.id("ns/pay/sa/elsewhere");
    let (from, to) = both.split_once("id = \"greeter-ledger\"").unwrap();
    // Another peer for the same destination: what was proven on this connection is not what is demanded now.
    let repinned = format!("{from}id = \"greeter-ledger\"{}", to.replace(&site.partner.id(LEDGER), &elsewhere));
    for grants in [&from[..from.rfind("[[grant]]").unwrap()], &repinned] {
        std::thread::scope(|threads| {
            let asked = threads.spawn(|| http::get(site.host.http(), &format!("/greeter/fetch?url={url}"), &[]));
            let event = serving.events.recv_timeout(LONG);
            assert_eq!(event, Ok("asked"), "{}", site.host.log());
            let began = change(site, grants);
            assert_eq!(serving.events.recv_timeout(LONG), Ok("ended"), "not cut\n{}", site.host.log());
            assert!(began.elapsed() < promised(CUT), "cut after {:?}", began.elapsed());
            eprintln!("an exchange with a peer: cut {:?} after the change was asked for", began.elapsed());
            let answer = asked.join().unwrap();
            assert_ne!(answer.status, 200, "half an answer is none: {}", answer.text());
        });
        change(site, both);
    }
}
