//! Connections that stand while trust changes: rotation leaves them alone, whatever takes the proof away cuts them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use portcullis_tests::http;
use portcullis_tests::patience::{LONG, promised};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::partner::Partner;
use crate::tls::{self, Client};
use crate::{Federated, INNER, LEDGER, federated};

/// What is promised is a second. The command itself is a process, and a debug build.
const CUT: Duration = Duration::from_secs(3);

/// A connection of the ledger that is in the middle of an answer.
fn held(site: &Federated) -> Client {
    let mut client = Client::connect(site.host.mtls(), INNER, Some(site.partner.leaf(LEDGER, |_| ()))).unwrap();
    client.send(&format!("GET /inner/hold?ms=300000 HTTP/1.1\r\nhost: {INNER}"), b"").unwrap();
    client.read_until("first").unwrap();
    client
}

/// Has an operation done and waits for the end of the connection, which must come soon after.
fn cut(client: &mut Client, what: &str, site: &Federated, operation: &[&str]) {
    let began = Instant::now();
    site.host.run(operation).ok();
    let (told, ended) = (began.elapsed(), client.ended_within(LONG));
    let soon = ended.is_some_and(|took| took < promised(CUT));
    assert!(soon, "{what}: not cut within {CUT:?}, {ended:?}\n{}", site.host.log());
    eprintln!("{what}: cut {:?} after the command began, which took {told:?}", began.elapsed());
}

/// A call of our greeter to `inner` over mTLS.
fn greeter_calls(site: &Federated) -> http::Answer {
    let url = format!("https%3A%2F%2F{INNER}%3A{}%2Finner%2Fcaller", site.host.mtls().port());
    http::get(site.host.http(), &format!("/greeter/fetch?url={url}"), &[])
}

#[test]
fn rotation_cuts_nothing_and_every_loss_of_proof_cuts_at_once() {
    let partner = Partner::new("partner.example");
    let serving = tls::hold(partner.leaf(LEDGER, |_| ()));
    let site = federated(&[], Some(serving.port), partner);
    rotation_leaves_live_connections_alone_and_loses_no_request(&site);
    an_expired_caller_loses_its_connection(&site);
    a_revoked_peer_is_cut_and_refused_until_that_is_lifted(&site);
    an_outgoing_connection_ends_with_the_peers_identity(&site, &serving);
    a_tainted_authority_takes_its_connections_with_it(&site);
    a_revoked_instance_loses_its_connections_and_its_tokens(&site);
    a_stopped_component_loses_its_connections(&site);
}

fn rotation_leaves_live_connections_alone_and_loses_no_request(site: &Federated) {
    let mut client = Client::connect(site.host.mtls(), INNER, Some(site.partner.leaf(LEDGER, |_| ()))).unwrap();
    client.send(&format!("GET /inner/hold?ms=4000 HTTP/1.1\r\nhost: {INNER}"), b"").unwrap();
    client.read_until("first").unwrap();
    let (done, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let answer = greeter_calls(site);
                    assert_eq!(
                        (answer.status, &answer.json()["status"]),
                        (200, &200.into()),
                        "{}\n{}",
                        answer.text(),
                        site.host.log()
                    );
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let rotated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..12 {
                let how = ["--svids", "--x509", "--jwt"][round % 3];
                site.host.run(["identity", "rotate", how]).ok();
                std::thread::sleep(Duration::from_millis(100));
            }
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = rotated {
            std::panic::resume_unwind(panic);
        }
    });
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered >= 10, "only {answered} requests went through the rotations");
    client.read_until("last\n\r\n0\r\n\r\n").expect("the connection lived through the rotations");
    assert_eq!(
        client.ask(&format!("GET /inner/id HTTP/1.1\r\nhost: {INNER}"), b"").unwrap().status,
        200,
        "and goes on"
    );
}

fn an_expired_caller_loses_its_connection(site: &Federated) {
    let ask = format!("GET /inner/caller HTTP/1.1\r\nhost: {INNER}");
    // Where this machine is busy, a short one is over before it is used.
    for life in [6, 20, 60].map(Duration::from_secs) {
        let until = OffsetDateTime::now_utc() + life;
        let brief = site.partner.leaf(LEDGER, |p| p.not_after = until);
        let client = Client::connect(site.host.mtls(), INNER, Some(brief));
        let Ok(mut client) = client else { continue };
        let Ok(answer) = client.ask(&ask, b"") else { continue };
        assert_eq!(answer.status, 200);
        let took = client.ended_within(life + LONG).expect("an idle connection ends with its certificate");
        let late = OffsetDateTime::now_utc() - until;
        assert!(late >= -time::Duration::SECOND, "it ended early, after {took:?}");
        assert!(late < promised(Duration::from_secs(9)), "it ended {late} late");
        return assert!(client.ask(&ask, b"").is_err());
    }
    panic!("each certificate was over before it was used");
}

fn a_revoked_peer_is_cut_and_refused_until_that_is_lifted(site: &Federated) {
    let mut client = held(site);
    let id = site.partner.id(LEDGER);
    cut(&mut client, "a revoked peer", site, &["identity", "revoke", &id]);
    let record = site.host.record(&[("kind", "failure"), ("kind_of_failure", "mtls-cut")]);
    assert!(record["detail"].as_str().unwrap().contains(&id), "{record}");
    assert!(site.caller(site.partner.leaf(LEDGER, |_| ())).unwrap_err().starts_with("refused in the handshake"));
    let token = site.partner.token(&Partner::header(), &site.partner.claims(LEDGER, "orders"));
    let refused = http::post(site.host.http(), "/inner/validate?aud=orders", token.as_bytes());
    assert_eq!((refused.status, &refused.json()["error"]), (422, &"invalid-token".into()), "{}", refused.text());
    site.host.run(["identity", "revoke", "--lift", &id]).ok();
    let end = Instant::now() + LONG;
    while site.caller(site.partner.leaf(LEDGER, |_| ())).is_err() {
        assert!(Instant::now() < end, "the revocation was lifted");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn an_outgoing_connection_ends_with_the_peers_identity(site: &Federated, serving: &tls::Holding) {
    let url = format!("https%3A%2F%2Fledger.example%3A{}%2Fx", serving.port);
    let id = site.partner.id(LEDGER);
    std::thread::scope(|threads| {
        let asked = threads.spawn(|| http::get(site.host.http(), &format!("/greeter/fetch?url={url}"), &[]));
        let event = serving.events.recv_timeout(LONG);
        assert_eq!(event, Ok("asked"), "the ledger of the partner is reached with mTLS\n{}", site.host.log());
        site.host.run(["identity", "revoke", &id]).ok();
        let began = Instant::now();
        assert_eq!(serving.events.recv_timeout(LONG), Ok("ended"), "not cut\n{}", site.host.log());
        assert!(began.elapsed() < promised(CUT), "cut after {:?}", began.elapsed());
        eprintln!("an outgoing connection: cut after {:?}", began.elapsed());
        let answer = asked.join().unwrap();
        assert_ne!(answer.status, 200, "half an answer is none: {}", answer.text());
    });
    let again = http::get(site.host.http(), &format!("/greeter/fetch?url={url}"), &[]);
    assert_eq!(again.status, 502, "{}", again.text());
    site.host.run(["identity", "revoke", "--lift", &id]).ok();
}

/// The key id of the authority that signed what `inner` shows.
fn signed_by(site: &Federated) -> String {
    let chain = http::get(site.host.http(), "/inner/chain", &[]).json();
    let text = chain["certificates"][0].as_str().unwrap();
    let der: Vec<u8> =
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
    let leaf = X509Certificate::from_der(&der).unwrap().1;
    let id = leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref(),
        _ => None,
    });
    id.unwrap().0.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn a_tainted_authority_takes_its_connections_with_it(site: &Federated) {
    let shown = site.host.run(["identity", "show"]).ok().json();
    let authorities = shown["authorities"].as_array().unwrap();
    let active = authorities
        .iter()
        .find(|authority| authority["kind"] == "x509" && authority["state"] == "active")
        .unwrap_or_else(|| panic!("{shown:#}"));
    // What is shown is of that authority only from the next SVID on.
    let active = active["id"].as_str().unwrap();
    site.host.run(["identity", "rotate", "--svids"]).ok();
    let end = Instant::now() + LONG;
    while signed_by(site) != active {
        assert!(Instant::now() < end, "no SVID of the active authority {active}: {}", signed_by(site));
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut client = held(site);
    cut(&mut client, "a tainted authority", site, &["identity", "taint", active]);
    let end = Instant::now() + LONG;
    loop {
        let answer = greeter_calls(site);
        if answer.status == 200 && answer.json()["status"] == 200 {
            break;
        }
        assert!(Instant::now() < end, "no new SVIDs after the taint: {}\n{}", answer.text(), site.host.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn instance(site: &Federated, name: &str) -> String {
    let list = site.host.run(["list"]).ok().json();
    let component = list.as_array().unwrap().iter().find(|component| component["name"] == name).unwrap().clone();
    component["instance"].as_str().unwrap().to_owned()
}

fn a_revoked_instance_loses_its_connections_and_its_tokens(site: &Federated) {
    let mint = || http::get(site.host.http(), "/greeter/mint?aud=vault", &[]);
    assert_eq!(mint().status, 200, "{}", mint().text());
    let mut client = held(site);
    cut(&mut client, "a revoked instance", site, &["identity", "revoke", &instance(site, "test:inner")]);
    assert!(site.caller(site.partner.leaf(LEDGER, |_| ())).is_err());
    site.host.run(["identity", "revoke", &instance(site, "test:greeter")]).ok();
    let began = Instant::now();
    while mint().status == 200 {
        assert!(began.elapsed() < promised(CUT), "a revoked instance still gets a token that was kept");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn a_stopped_component_loses_its_connections(site: &Federated) {
    let leaf = || Some(site.partner.leaf(LEDGER, |_| ()));
    let mut client = Client::connect(site.host.mtls(), "other.example", leaf()).unwrap();
    client.send("GET /other/hold?ms=300000 HTTP/1.1\r\nhost: other.example", b"").unwrap();
    client.read_until("first").unwrap();
    cut(&mut client, "a stopped component", site, &["stop", "test:other"]);
    assert!(tls::get(site.host.mtls(), "other.example", "/other/id", leaf()).is_err());
}
