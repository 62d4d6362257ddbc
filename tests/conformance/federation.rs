//! Federation: two running hosts that follow each other's bundles, one by each profile, and what of it crosses their borders.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::fmt::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::http;
use portcullis_tests::port::reserved as free_port;
use portcullis_tests::site::Site;
use portcullis_tests::spire::{Settings, Spire};
use portcullis_tests::web_pki::WebPki;
use serde_json::{Value, json};

const A: &str = "a.example";
const B: &str = "b.example";
const VAULT: &str = "vault.b.internal";

/// Waits for what comes of polls each second.
fn wait_for<T>(what: &str, host: &Host, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + portcullis_tests::patience::LONG;
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
    // Whatever comes into force is recorded: what was fetched, and what the operator gave to begin with.
    let first = two.b.record(&[("kind", "federation"), ("change", "bootstrap")]);
    assert_eq!(first["trust_domain"].as_str(), Some(A));
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
    // What the operator gave to begin with is all that ever came into force.
    assert!(!host.audit().iter().any(|record| record["kind"] == "federation" && record["change"] != "bootstrap"));
}

/// A server of the Web that others wrote, serving a file as it is, head and all.
struct Liar {
    child: Child,
    port: u16,
    pki: WebPki,
}

impl Liar {
    fn start(answer: &str) -> Self {
        let (port, pki) = (free_port(), WebPki::new());
        let mut command = Command::new("openssl");
        command.current_dir(pki.folder()).args(["s_server", "-quiet", "-HTTP", "-accept", &port.to_string()]);
        command.args(["-cert", "server.pem", "-key", "server.key"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let liar = Self { child, port, pki };
        liar.say(answer);
        liar
    }

    fn say(&self, answer: &str) {
        let new = self.pki.folder().join("new");
        std::fs::write(&new, answer).unwrap();
        std::fs::rename(new, self.pki.folder().join("bundle")).unwrap();
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn document(value: &Value) -> String {
    format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{value}")
}

#[test]
fn a_peer_that_lies_changes_nothing() {
    // Keys of the right shape: those of a host that runs for a moment.
    let keys = |domain: &str| {
        let mut site = Site::new();
        site.trust_domain(domain);
        bundle(&Host::ready(site))["keys"].clone()
    };
    let (theirs, others, ours) = (keys(B), keys(B), keys(A));
    let said = |keys: &Value, sequence: u64| document(&json!({"keys": keys, "spiffe_sequence": sequence}));
    let liar = Liar::start(&said(&theirs, 5));
    let host = Host::ready(site(A, B, &format!("https://localhost:{}/bundle", liar.port), &web(&liar.pki)));
    wait_for("the first bundle", &host, || foreign(&host, B).filter(|held| held["spiffe_sequence"] == 5));
    for (answer, why) in [
        (said(&others, 4), "its sequence 4 is lower than 5"),
        (said(&others, 5), "its sequence is 5, as before, but its keys are others"),
        (document(&json!({"keys": others})), "it has no sequence"),
        (said(&ours, 6), "names another trust domain"),
        (document(&json!({"keys": {}})), "no SPIFFE bundle document"),
        (said(&theirs, 6).replace("\"keys\"", "\"keys\":[],\"keys\""), "duplicate field"),
        (
            "HTTP/1.0 302 Found\r\nlocation: https://127.0.0.1:1/\r\n\r\n".to_owned(),
            "redirects to https://127.0.0.1:1/",
        ),
        (format!("HTTP/1.0 302 Found\r\nlocation: http://localhost:{}/bundle\r\n\r\n", liar.port), "no bundle URL"),
        ("HTTP/1.0 301 Moved\r\nlocation: /bundle\r\n\r\n".to_owned(), "redirects for good"),
        ("HTTP/1.0 307 Here\r\nlocation: /bundle\r\n\r\n".to_owned(), "redirects more than"),
        ("HTTP/1.0 404 Gone\r\n\r\n".to_owned(), "404"),
        (document(&json!("x".repeat(2 << 20))), "is larger than"),
    ] {
        liar.say(&answer);
        let seen =
            || peer_report(&host, B)["problem"].as_str().filter(|problem| problem.contains(why)).map(str::to_owned);
        wait_for(why, &host, seen);
        let held = foreign(&host, B).expect("the old bundle stays in force");
        assert_eq!((&held["keys"], &held["spiffe_sequence"]), (&theirs, &json!(5)), "{why}");
        assert_eq!(bundle(&host)["keys"].as_array().unwrap().len(), 2, "our own is untouched");
    }
    liar.say(&said(&others, 6));
    let held = wait_for("the honest bundle", &host, || foreign(&host, B).filter(|held| held["spiffe_sequence"] == 6));
    assert_eq!(held["keys"], others);
    // Nobody's SVIDs are valid any more (section 4.1): that is said by a bundle without keys, and is followed.
    liar.say(&said(&json!([]), 7));
    wait_for("the empty bundle", &host, || foreign(&host, B).filter(|held| held["keys"] == json!([])));
}

#[test]
fn a_bootstrap_bundle_that_the_operator_exchanged_begins_anew() {
    let port = free_port();
    let url = format!("https://localhost:{port}/");
    let site = site(A, B, &url, &spiffe(B));
    let write = |sequence: u64| json!({"keys": [], "spiffe_sequence": sequence}).to_string();
    std::fs::write(site.file("bootstrap.json"), write(9)).unwrap();
    let host = Host::ready(site);
    assert_eq!(foreign(&host, B).unwrap()["spiffe_sequence"], 9);
    let site = host.stop();
    std::fs::write(site.file("bootstrap.json"), write(1)).unwrap();
    let host = Host::ready(site);
    assert_eq!(foreign(&host, B).unwrap()["spiffe_sequence"], 1);
}

#[test]
fn spire_and_a_host_federate_with_each_other() {
    let (theirs, ours) = (free_port(), free_port());
    let settings = Settings { bundle_endpoint: Some(theirs), ..Settings::default() };
    let Some(spire) = Spire::start_with("federation", settings) else { return };
    let domain = portcullis_tests::spire::TRUST_DOMAIN;
    let shown = || spire.server_says(["bundle", "show", "-format", "spiffe"]);
    let endpoint = spiffe(domain).replace("/portcullis/host", "/spire/server");
    let mut site = site(A, domain, &format!("https://127.0.0.1:{theirs}/"), &endpoint);
    std::fs::write(site.file("bootstrap.json"), shown().to_string()).unwrap();
    site.config(&serve_spiffe(ours));
    let host = Host::ready(site);

    // This host follows SPIRE.
    wait_for("a fetch from SPIRE", &host, || Some(peer_report(&host, domain)).filter(|peer| peer["problem"].is_null()));
    assert_eq!(foreign(&host, domain).unwrap()["keys"], shown()["keys"]);
    spire.rotate_x509_authority();
    let rotated = shown();
    let held =
        wait_for("SPIRE's rotation", &host, || foreign(&host, domain).filter(|held| held["keys"] == rotated["keys"]));
    assert_eq!(held["spiffe_sequence"], rotated["spiffe_sequence"]);

    // SPIRE follows this host.
    let path = host.site().file("ours.json");
    std::fs::write(&path, bundle(&host).to_string()).unwrap();
    let (url, id) = (format!("https://127.0.0.1:{ours}/"), format!("spiffe://{A}/portcullis/host"));
    spire.server_says([
        "federation",
        "create",
        "-trustDomain",
        A,
        "-bundleEndpointURL",
        &url,
        "-bundleEndpointProfile",
        "https_spiffe",
        "-endpointSpiffeID",
        &id,
        "-trustDomainBundlePath",
        path.to_str().unwrap(),
        "-trustDomainBundleFormat",
        "spiffe",
    ]);
    for kind in ["--x509", "--jwt"] {
        host.run(["identity", "rotate", kind]).ok();
    }
    let own = format!("spiffe://{A}");
    wait_for("our rotation in SPIRE", &host, || {
        spire.server_says(["federation", "refresh", "-id", A]);
        let held = spire.server_says(["bundle", "list", "-format", "spiffe", "-id", &own]);
        let (held, now) = (key_names(&held), key_names(&bundle(&host)));
        (held == now && !held.is_empty()).then_some(())
    });
}

/// The certificates and key ids of a bundle, in order of themselves.
fn key_names(bundle: &Value) -> Vec<String> {
    let keys = bundle["keys"].as_array().cloned().unwrap_or_default();
    let name = |key: &Value| key["kid"].as_str().or(key["x5c"][0].as_str()).unwrap_or_default().to_owned();
    let mut names: Vec<_> = keys.iter().map(name).collect();
    names.sort();
    names
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
