//! Federation: two running hosts that follow each other's bundles, one by each profile, and what of it crosses their borders.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::fmt::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::http;
use portcullis_tests::site::Site;
use portcullis_tests::web_pki::WebPki;
use serde_json::Value;

const A: &str = "a.example";
const B: &str = "b.example";
const VAULT: &str = "vault.b.internal";

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Waits for up to 30 s for what comes of polls each second.
fn wait_for<T>(what: &str, host: &Host, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what} did not come:\n{}\n{}", host.run(["identity", "show"]).out, host.log());
}

fn bundle(host: &Host) -> Value {
    host.run(["identity", "bundle"]).ok().json()
}

/// The bundle of a foreign domain as this host has it in force.
fn foreign(host: &Host, domain: &str) -> Option<Value> {
    host.run(["identity", "bundle", "--federated"]).ok().json()["trust_domains"].get(domain).cloned()
}

fn peer_report(host: &Host, domain: &str) -> Value {
    let shown = host.run(["identity", "show"]).ok().json();
    let peers = shown["peers"].as_array().unwrap_or_else(|| panic!("no peers in {shown:#}")).clone();
    peers.into_iter().find(|peer| peer["trust_domain"] == domain).unwrap_or_default()
}

/// A site in a trust domain whose one peer is another, polled each second. `more` is more TOML of the peer.
fn site(domain: &str, peer: &str, url: &str, more: &str) -> Site {
    let mut site = Site::new();
    site.trust_domain(domain);
    let mut text = format!("[[federation.peer]]\ntrust_domain = \"{peer}\"\nurl = \"{url}\"\npoll_seconds = 1\n");
    let _ = write!(text, "{more}\n\n");
    site.config(&text);
    site
}

fn spiffe(domain: &str) -> String {
    format!(
        "profile = \"https_spiffe\"\nendpoint_spiffe_id = \"spiffe://{domain}/portcullis/host\"\nbootstrap = \"bootstrap.json\""
    )
}

fn web(pki: &WebPki) -> String {
    format!("profile = \"https_web\"\nca = \"{}\"", pki.ca().display())
}

fn serve_web(port: u16, pki: &WebPki) -> String {
    format!(
        "[federation.https_web]\nlisten = \"127.0.0.1:{port}\"\ncertificate = \"{}\"\nkey = \"{}\"\n\n",
        pki.certificate().display(),
        pki.key().display()
    )
}

fn serve_spiffe(port: u16) -> String {
    format!("[federation.https_spiffe]\nlisten = \"127.0.0.1:{port}\"\n\n")
}

/// What an endpoint serves to a client that others wrote.
fn curl(url: &str, more: &[&str]) -> std::process::Output {
    Command::new("curl").args(["-sS", "--max-time", "10", "-i", url]).args(more).output().expect("curl starts")
}

/// Two hosts: `a` serves with its X.509-SVID and follows `b` by the Web; `b` the other way round. Greeter of `a` may call the
/// vault of `b`.
struct Two {
    a: Host,
    b: Host,
    a_port: u16,
    b_port: u16,
    pki: WebPki,
}

fn two() -> Two {
    let (a_port, b_port, vault, pki) = (free_port(), free_port(), free_port(), WebPki::new());
    let mut a = site(A, B, &format!("https://localhost:{b_port}/"), &web(&pki));
    let may = "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\"]\nidentity = [\"read\", \"x509\"]\naudiences = [\"vault\"]";
    a.component("greeter", &guests::ours("greeter"), may);
    a.grants(&format!(
        "\n[[grant]]\nid = \"to-vault\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:greeter\"\nhttp = [\"https://{VAULT}:{vault}\"]\n\
         peer = \"spiffe://{B}/ns/test/sa/vault\"\naddresses = [\"loopback\"]\n"
    ));
    a.sign_as("greeter", &guests::ours("greeter"), "ns/demo/sa/greeter");
    a.config(&serve_spiffe(a_port));
    a.config(&format!("[names]\n\"{VAULT}\" = [\"127.0.0.1\"]\n\n"));
    let a = Host::ready(a);

    let mut b = site(B, A, &format!("https://localhost:{a_port}/"), &spiffe(A));
    std::fs::write(b.file("bootstrap.json"), bundle(&a).to_string()).unwrap();
    b.guest(
        "vault",
        &format!(
            "link = [\"portcullis:identity/*\"]\nidentity = [\"read\", \"peer\", \"x509\", \"validate\"]\ncallers = [\"spiffe://{A}/ns/demo/sa/greeter\"]"
        ),
    );
    b.config(&serve_web(b_port, &pki));
    b.config(&format!(
        "[[route]]\nhost = \"{VAULT}\"\ncomponent = \"test:vault\"\n\n[listen]\nhttp = \"127.0.0.1:0\"\nmtls = \"127.0.0.1:{vault}\"\n\n"
    ));
    Two { a, b: Host::ready(b), a_port, b_port, pki }
}

#[test]
fn two_hosts_federate_by_both_profiles() {
    let two = two();
    each_has_the_others_bundle_and_its_own_is_apart(&two);
    curl_gets_the_same_document_from_the_web_endpoint(&two);
    openssl_sees_the_hosts_svid_at_the_spiffe_endpoint(&two);
    a_component_calls_one_of_the_other_domain(&two);
    a_rotation_on_one_side_is_followed_by_the_other(&two);
    calls_go_on_after_the_rotation(&two);
    a_renewed_certificate_is_served_without_a_restart(&two);
    what_was_fetched_survives_a_restart_without_the_peer(two);
}

fn each_has_the_others_bundle_and_its_own_is_apart(two: &Two) {
    for (here, there, domain) in [(&two.a, &two.b, B), (&two.b, &two.a, A)] {
        let sequence = bundle(there)["spiffe_sequence"].clone();
        let held = wait_for("the other's bundle", here, || {
            foreign(here, domain).filter(|held| held["spiffe_sequence"] == sequence)
        });
        assert_eq!(held["keys"], bundle(there)["keys"]);
        assert_ne!(bundle(here)["keys"], held["keys"], "never merged");
        let peer = wait_for("a report without a problem", here, || {
            Some(peer_report(here, domain)).filter(|peer| peer["problem"].is_null())
        });
        assert_eq!(peer["sequence"], sequence);
        assert!(peer["fetched_at"].as_i64() > Some(0) && peer["next_at"].as_i64() > Some(0), "{peer}");
    }
    // A host that begins without a bundle records the one that comes into force; one with a bootstrap bundle has it already.
    let record = two.a.record(&[("kind", "federation")]);
    assert_eq!((record["trust_domain"].as_str(), record["profile"].as_str()), (Some(B), Some("https_web")));
}

fn curl_gets_the_same_document_from_the_web_endpoint(two: &Two) {
    let ca = two.pki.ca().display().to_string();
    let url = format!("https://localhost:{}/", two.b_port);
    let answer = curl(&url, &["--cacert", &ca]);
    let text = String::from_utf8_lossy(&answer.stdout).to_string();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}{}", String::from_utf8_lossy(&answer.stderr));
    assert!(text.to_ascii_lowercase().contains("content-type: application/json"));
    let (_, document) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(serde_json::from_str::<Value>(document).unwrap(), bundle(&two.b));
    for (arguments, status) in [(&["-X", "POST"][..], "405"), (&["-X", "DELETE"], "405"), (&["--path-as-is"], "404")] {
        let url = if status == "404" { format!("{url}../other") } else { url.clone() };
        let answer = curl(&url, &[&["--cacert", &ca], arguments].concat());
        let text = String::from_utf8_lossy(&answer.stdout).to_string();
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{arguments:?}: {text}");
    }
    assert!(!curl(&url, &[]).status.success(), "without its authority the server is not trusted");
    for version in ["--tls-max 1.1", "--tls-max 1.2"] {
        let (flag, most) = version.split_once(' ').unwrap();
        let answer = curl(&url, &["--cacert", &ca, flag, most]);
        assert_eq!(answer.status.success(), most == "1.2", "{version}");
    }
}

fn openssl_sees_the_hosts_svid_at_the_spiffe_endpoint(two: &Two) {
    let address = format!("127.0.0.1:{}", two.a_port);
    let script = format!(
        "openssl s_client -connect {address} -showcerts </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName"
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).to_string();
    assert!(text.contains(&format!("URI:spiffe://{A}/portcullis/host")), "{text}");
}

fn call(two: &Two) -> http::Answer {
    let port = two.b.mtls().port();
    let head = format!(
        "GET /greeter HTTP/1.1\r\nhost: x\r\nx-vault-url: https://{VAULT}:{port}/secret\r\nconnection: close\r\n\r\n"
    );
    http::raw(two.a.http(), head.as_bytes())
}

fn a_component_calls_one_of_the_other_domain(two: &Two) {
    let answer = call(two);
    let json = answer.json();
    assert_eq!(
        (answer.status, &json["vault_status"]),
        (200, &200.into()),
        "{}\n{}\n{}",
        answer.text(),
        two.a.log(),
        two.b.log()
    );
    let greeter = format!("spiffe://{A}/ns/demo/sa/greeter");
    for pointer in ["/spiffe_id", "/vault/caller", "/vault/token_subject"] {
        assert_eq!(json.pointer(pointer).and_then(Value::as_str), Some(greeter.as_str()), "{pointer}: {json:#}");
    }
}

fn a_rotation_on_one_side_is_followed_by_the_other(two: &Two) {
    for (here, there, domain) in [(&two.a, &two.b, B), (&two.b, &two.a, A)] {
        let before = bundle(there);
        for kind in ["--x509", "--jwt"] {
            there.run(["identity", "rotate", kind]).ok();
        }
        let after = bundle(there);
        assert!(after["spiffe_sequence"].as_u64() > before["spiffe_sequence"].as_u64());
        let held = wait_for("the rotated bundle", here, || {
            foreign(here, domain).filter(|held| held["spiffe_sequence"] == after["spiffe_sequence"])
        });
        assert_eq!(held["keys"], after["keys"]);
    }
}

fn calls_go_on_after_the_rotation(two: &Two) {
    wait_for("a call with the new authorities", &two.b, || Some(call(two)).filter(|answer| answer.status == 200));
}

fn a_renewed_certificate_is_served_without_a_restart(two: &Two) {
    let serial = || {
        let script = format!(
            "openssl s_client -connect 127.0.0.1:{} </dev/null 2>/dev/null | openssl x509 -noout -serial",
            two.b_port
        );
        String::from_utf8(Command::new("sh").args(["-c", &script]).output().unwrap().stdout).unwrap()
    };
    let before = serial();
    assert!(before.starts_with("serial="), "{before}");
    two.pki.renew();
    wait_for("the renewed certificate", &two.b, || {
        Some(serial()).filter(|now| *now != before && now.starts_with("serial="))
    });
}

fn what_was_fetched_survives_a_restart_without_the_peer(two: Two) {
    let Two { a, b, .. } = two;
    let held = foreign(&b, A).unwrap();
    drop(a);
    let site = b.stop();
    // The bootstrap bundle is older than what was fetched, and is not taken again.
    let b = Host::ready(site);
    assert_eq!(foreign(&b, A), Some(held));
    wait_for("the problem", &b, || peer_report(&b, A)["problem"].as_str().map(str::to_owned));
    assert!(foreign(&b, A).is_some(), "the old one stays while the peer is away");
}

#[test]
fn an_endpoint_that_is_not_the_pinned_one_is_refused_and_nothing_is_trusted() {
    let (port, pki) = (free_port(), WebPki::new());
    let mut server = Site::new();
    server.trust_domain(B);
    server.config(&serve_spiffe(port));
    let server = Host::ready(server);

    // Another ID of the right domain, under the right authority.
    let other = spiffe(B).replace("/portcullis/host", "/portcullis/other");
    let wrong_id = site(A, B, &format!("https://localhost:{port}/"), &other);
    std::fs::write(wrong_id.file("bootstrap.json"), bundle(&server).to_string()).unwrap();
    refused(wrong_id, "is spiffe://b.example/portcullis/host, not spiffe://b.example/portcullis/other", true);

    // An X.509-SVID where a certificate of the Web is due.
    refused(site(A, B, &format!("https://localhost:{port}/"), &web(&pki)), "is not trusted", false);

    // A bootstrap bundle without the server's authority.
    let no_authority = site(A, B, &format!("https://localhost:{port}/"), &spiffe(B));
    std::fs::write(no_authority.file("bootstrap.json"), "{\"keys\": []}").unwrap();
    refused(no_authority, "no X.509 authority", true);
}

/// Runs a host on the site until its peer's problem shows; what it holds is at most its bootstrap bundle.
fn refused(site: Site, why: &str, bootstrap: bool) {
    let host = Host::ready(site);
    let problem = wait_for("the problem", &host, || peer_report(&host, B)["problem"].as_str().map(str::to_owned));
    assert!(problem.contains(why), "{problem}");
    assert_eq!(foreign(&host, B).is_some(), bootstrap);
    assert!(!host.audit().iter().any(|record| record["kind"] == "federation"));
}

#[test]
fn the_bundle_of_a_peer_that_was_removed_goes_with_it() {
    let (port, pki) = (free_port(), WebPki::new());
    let mut server = Site::new();
    server.trust_domain(B);
    server.config(&serve_web(port, &pki));
    let server = Host::ready(server);
    let host = Host::ready(site(A, B, &format!("https://localhost:{port}/"), &web(&pki)));
    wait_for("the bundle", &host, || foreign(&host, B));
    let stored = |site: &Site| stored_bundles(&site.file("state/identity/federation"));
    assert_eq!(stored(host.site()), 1);
    let mut site = host.stop();
    site.forget_config();
    let host = Host::ready(site);
    assert_eq!(foreign(&host, B), None);
    assert_eq!(stored(host.site()), 0);
    drop(server);
}

fn stored_bundles(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().filter_map(Result::ok);
    names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".bundle")).count()
}
