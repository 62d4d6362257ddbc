//! What a host does when its trust changes under it: the deny list, the trust policy, root keys, claims that run out.

use std::process::Command;
use std::time::{Duration, Instant};

use portcullis_tests::forge::{self, Evidence};
use portcullis_tests::host::Host;
use portcullis_tests::patience::{promised, until};
use portcullis_tests::site::Site;
use portcullis_tests::{guests, http};
use serde_json::{Value, json};

/// A site with `hello`, whose trust policy demands a deny list by the root key, and a configuration that names it.
fn listed() -> Site {
    let mut site = Site::new();
    site.guest("hello", "");
    let root = site.public("root.key");
    site.run(["trust", "demand-deny-list", "trust.json", "--author", &root, "--max-age", "1h"]).ok();
    site.run(["trust", "sign", "trust.json", "--key", "root.key", "--out", "trust.signed.json"]).ok();
    site.run(["trust", "deny", "deny.json", "--key", "root.key"]).ok();
    site.trust("deny_list = \"deny.json\"\n");
    site
}

fn answers(host: &Host) -> bool {
    http::get(host.http(), "/hello", &[]).status == 200
}

fn running(host: &Host) -> usize {
    host.run(["list"]).ok().json().as_array().map_or(0, Vec::len)
}

fn digest(site: &Site, name: &str) -> String {
    let bytes = std::fs::read(site.file(name)).unwrap();
    portcullis_signing::Digest::of(&bytes).to_string()
}

fn ready(host: &Host) -> bool {
    host.ask_status(0).get("ready") == Some(&Value::Bool(true))
}

fn problems(host: &Host) -> String {
    host.ask_status(0).get("problems").map(ToString::to_string).unwrap_or_default()
}

/// How long it took until `done`.
fn takes(done: impl FnMut() -> bool) -> Duration {
    until("it did not happen at all", done, String::new)
}

#[test]
fn a_deny_list_stops_what_runs_within_a_second_of_its_change_and_its_identity_with_it() {
    let host = Host::start(listed());
    assert!(ready(&host), "{}", problems(&host));
    assert!(answers(&host));
    let digest = digest(host.site(), "hello.wasm");
    host.site().run(["trust", "deny", "deny.json", "--key", "root.key", "--digest", &digest]).ok();
    let took = takes(|| !answers(&host));
    assert!(took < promised(Duration::from_secs(1)), "it took {took:?}");
    assert_eq!(running(&host), 0);
    let stop = host.record(&[("kind", "stop"), ("why", "revoked")]);
    assert_eq!(stop["digest"], digest.as_str(), "{stop}");
    // The identity process took it: else it would have been started again without it, and the log would say so.
    assert!(!host.log().contains("did not end an identity"), "{}", host.log());
    let again = host.run(["start", "hello.wasm"]);
    assert_eq!((again.exit, again.code().as_str()), (16, "revoked"), "{again:?}");
    assert!(ready(&host), "a revocation is no fault of the host: {}", problems(&host));
}

#[test]
fn a_deny_list_that_cannot_be_used_refuses_new_loads_and_stops_nothing() {
    let host = Host::start(listed());
    assert!(answers(&host));
    let list = host.site().file("deny.json");
    let good = std::fs::read(&list).unwrap();
    let stale = {
        let root = forge::key(&host.site().file("root.key"));
        let document = json!({ "version": 9, "issuedAt": forge::at(-3700), "deny": [] }).to_string();
        let document = portcullis_signing::trust::DenyListDocument::parse(document.as_bytes()).unwrap();
        document.sign(None, &root).unwrap()
    };
    let cases: [(&str, Option<Vec<u8>>); 4] = [
        ("deny-list.missing", None),
        ("deny-list.invalid", Some(b"{}".to_vec())),
        (
            "deny-list.unsigned",
            Some(String::from_utf8(good.clone()).unwrap().replacen("\"sig\": \"", "\"sig\": \"AAAA", 1).into_bytes()),
        ),
        ("deny-list.stale", Some(stale)),
    ];
    for (code, bytes) in cases {
        match bytes {
            Some(bytes) => std::fs::write(&list, bytes).unwrap(),
            None => std::fs::remove_file(&list).unwrap(),
        }
        takes(|| problems(&host).contains(code));
        assert!(!ready(&host) && answers(&host), "{code}");
        let refused = host.run(["start", "hello.wasm"]);
        assert_eq!((refused.exit, refused.code().as_str()), (17, code), "{refused:?}");
    }
    // The highest version that was in force stays a mark: the first list is an older one now.
    std::fs::write(&list, good).unwrap();
    takes(|| problems(&host).contains("deny-list.rolled-back"));
    for _ in 0..9 {
        host.site().run(["trust", "deny", "deny.json", "--key", "root.key"]).ok();
    }
    takes(|| ready(&host));
}

#[test]
fn what_somebody_else_put_into_a_deny_list_is_not_signed_anew() {
    let site = listed();
    let digest = digest(&site, "hello.wasm");
    site.run(["trust", "deny", "deny.json", "--key", "root.key", "--digest", &digest]).ok();
    // Emptied, by somebody with another key.
    site.run(["keys", "generate", "--kind", "root", "--out", "other.key"]).ok();
    let other = forge::key(&site.file("other.key"));
    let emptied = json!({ "version": 2, "issuedAt": forge::at(-10), "deny": [] }).to_string();
    let emptied = portcullis_signing::trust::DenyListDocument::parse(emptied.as_bytes()).unwrap();
    let emptied = emptied.sign(None, &other).unwrap();
    std::fs::write(site.file("deny.json"), &emptied).unwrap();
    let again = ["trust", "deny", "deny.json", "--key", "root.key", "--json"];
    let refused = site.run(again);
    assert_eq!((refused.exit, refused.code().as_str()), (17, "deny-list.unsigned"), "{refused:?}");
    assert_eq!(std::fs::read(site.file("deny.json")).unwrap(), emptied, "nothing was written");
    // Unless the operator says that this is an author.
    let author = site.public("other.key");
    site.run([&again[..], &["--author", &author]].concat()).ok();
}

#[test]
fn several_authors_sign_one_deny_list_one_after_the_other() {
    let mut site = Site::new();
    site.guest("hello", "");
    site.run(["keys", "generate", "--kind", "root", "--out", "second.key"]).ok();
    let (root, second) = (site.public("root.key"), site.public("second.key"));
    let demand = ["trust", "demand-deny-list", "trust.json", "--author", &root, "--author", &second];
    site.run([&demand[..], &["--threshold", "2", "--max-age", "1h"]].concat()).ok();
    site.run(["trust", "sign", "trust.json", "--key", "root.key", "--out", "trust.signed.json"]).ok();
    site.trust("deny_list = \"deny.json\"\n");
    site.write();
    let verify = || site.run(["verify", "hello.wasm", "--config", "portcullis.toml", "--json"]);
    site.run(["trust", "deny", "deny.json", "--key", "root.key"]).ok();
    assert_eq!(verify().code(), "deny-list.unsigned");
    site.run(["trust", "deny", "deny.json", "--key", "second.key", "--author", &root, "--co-sign"]).ok();
    verify().ok();
    // A change wants both again.
    let digest = digest(&site, "hello.wasm");
    site.run(["trust", "deny", "deny.json", "--key", "second.key", "--digest", &digest]).ok();
    assert_eq!(verify().code(), "deny-list.unsigned");
    site.run(["trust", "deny", "deny.json", "--key", "root.key", "--author", &second, "--co-sign"]).ok();
    assert_eq!(verify().code(), "revoked");
}

#[test]
fn a_trust_policy_without_the_signer_stops_what_it_signed() {
    let mut site = Site::new();
    site.guest("hello", "");
    let host = Host::ready(site);
    assert!(answers(&host));
    let root = forge::key(&host.site().file("root.key"));
    let mut trust = forge::trust_document(host.site());
    trust["version"] = json!(99);
    trust["signers"] = json!([]);
    std::fs::write(host.site().file("trust.signed.json"), forge::trust(&trust, &[&root]).to_string()).unwrap();
    let took = takes(|| !answers(&host));
    assert!(took < promised(Duration::from_secs(1)), "it took {took:?}");
    host.record(&[("kind", "stop"), ("why", "signer.unknown")]);
    // Damage afterwards revives nothing and is said.
    std::fs::write(host.site().file("trust.signed.json"), "{").unwrap();
    takes(|| problems(&host).contains("trust.invalid"));
    assert_eq!(running(&host), 0);
}

#[test]
fn a_damaged_or_older_trust_policy_stops_nothing_and_admits_nothing() {
    let mut site = Site::new();
    site.guest("hello", "");
    let host = Host::ready(site);
    let root = forge::key(&host.site().file("root.key"));
    let file = host.site().file("trust.signed.json");
    let mut older = forge::trust_document(host.site());
    older["version"] = json!(1);
    let mut expired = forge::trust_document(host.site());
    expired["version"] = json!(50);
    expired["issuedAt"] = json!(forge::at(-100));
    expired["expiresAt"] = json!(forge::at(-10));
    let mut unknown = forge::trust_document(host.site());
    unknown["version"] = json!(51);
    unknown["surprise"] = json!(true);
    let stranger = forge::new_key(portcullis_signing::KeyKind::Root);
    let signed = |document: &Value, key| forge::trust(document, &[key]).to_string();
    for (code, bytes) in [
        ("trust.unreadable", String::new()),
        ("trust.rolled-back", signed(&older, &root)),
        ("trust.stale", signed(&expired, &root)),
        ("trust.invalid", signed(&unknown, &root)),
        ("trust.unsigned", signed(&forge::trust_document(host.site()), &stranger)),
    ] {
        std::fs::write(&file, bytes).unwrap();
        takes(|| problems(&host).contains(code));
        assert!(!ready(&host) && answers(&host), "{code}");
        let refused = host.run(["start", "hello.wasm"]);
        assert_eq!((refused.exit, refused.code().as_str()), (17, code), "{refused:?}");
    }
    std::fs::remove_file(&file).unwrap();
    takes(|| problems(&host).contains("trust.unreadable"));
    assert!(answers(&host));
}

/// A host on which `hello` runs with claims that end soon, and when: in a few seconds, or in more where this machine is so busy that
/// they would be over before the host is up.
fn expiring(on_expiry: &str) -> (Host, Instant) {
    for life in [12, 40, 120] {
        let ends = Instant::now() + Duration::from_secs(life);
        let host = Host::start(with_life(on_expiry, i64::try_from(life).unwrap()));
        if answers(&host) {
            return (host, ends);
        }
    }
    panic!("the claims were over before the host was up");
}

fn with_life(on_expiry: &str, life: i64) -> Site {
    let mut site = Site::new();
    site.guest("hello", "");
    let bytes = guests::ours("hello");
    let mut trust = forge::trust_document(&site);
    trust["onExpiry"] = json!(on_expiry);
    let root = forge::key(&site.file("root.key"));
    std::fs::write(site.file("trust.signed.json"), forge::trust(&trust, &[&root]).to_string()).unwrap();
    let mut evidence = Evidence::honest("hello", &bytes);
    evidence.claims["expiresAt"] = json!(forge::at(life));
    let signer = forge::key(&site.file("signer.key"));
    std::fs::write(site.file("hello.wasm.sigstore.json"), evidence.sign(&signer).to_string()).unwrap();
    site
}

/// Waits until it does not answer any more, after this moment.
fn silent_after(host: &Host, ends: Instant) {
    while answers(host) && Instant::now() < ends {
        std::thread::sleep(Duration::from_millis(50));
    }
    until("it answers still", || !answers(host), || host.log());
}

#[test]
fn claims_that_expire_while_running_end_it_as_the_policy_says() {
    let (host, ends) = expiring("stop");
    silent_after(&host, ends);
    host.record(&[("kind", "stop"), ("why", "time.expired")]);
    let again = host.run(["start", "hello.wasm"]);
    assert_eq!((again.exit, again.code().as_str()), (14, "time.expired"), "{again:?}");
}

#[test]
fn claims_that_expire_while_running_drain_it_or_keep_it_as_the_policy_says() {
    let (drained, ends) = expiring("drain");
    silent_after(&drained, ends);
    drained.record(&[("kind", "drain"), ("why", "time.expired")]);
    // It takes no new requests, and is there for those under way.
    assert_eq!(running(&drained), 1);
    drop(drained);
    let (kept, ends) = expiring("keep");
    std::thread::sleep(ends.saturating_duration_since(Instant::now()) + Duration::from_secs(2));
    assert!(answers(&kept));
    let again = kept.run(["start", "hello.wasm"]);
    assert_eq!((again.exit, again.code().as_str()), (14, "time.expired"), "{again:?}");
}

#[test]
fn root_keys_are_replaced_under_a_running_host_and_the_old_ones_are_worth_nothing_afterwards() {
    let mut site = Site::new();
    site.guest("hello", "");
    let host = Host::ready(site);
    let site = host.site();
    site.run(["keys", "generate", "--kind", "root", "--out", "new.key"]).ok();
    let new = site.public("new.key");
    let mut forged = forge::trust_document(site);
    for key in ["root.key", "new.key"] {
        site.run(["trust", "rotate", "change.json", "--root", &new, "--key", key]).ok();
    }
    site.run(["trust", "rotate", "change.json", "--apply", "trust.json"]).ok();
    site.run(["trust", "sign", "trust.json", "--key", "new.key", "--out", "next.json"]).ok();
    std::fs::rename(site.file("next.json"), site.file("trust.signed.json")).unwrap();
    let version = |host: &Host| host.ask_status(0).get("trust_version").and_then(Value::as_u64);
    let before = version(&host);
    takes(|| version(&host) != before || before >= Some(3));
    assert!(ready(&host) && answers(&host), "{}", problems(&host));
    // Whoever has the old key makes a higher version without the change in it.
    let old = forge::key(&site.file("root.key"));
    forged["version"] = json!(1000);
    std::fs::write(site.file("trust.signed.json"), forge::trust(&forged, &[&old]).to_string()).unwrap();
    takes(|| problems(&host).contains("trust.unsigned"));
    // Also after a restart: the state remembers.
    let host = Host::start(host.stop());
    assert!(problems(&host).contains("trust.unsigned"), "{}", problems(&host));
}

#[test]
fn marks_survive_a_host_that_is_killed_at_any_moment() {
    let mut site = Site::new();
    site.guest("hello", "");
    let signer = forge::key(&site.file("signer.key"));
    let bytes = guests::ours("hello");
    let mut highest = 0;
    for round in 0..6_u64 {
        let host = Host::ready(site);
        let child = host.supervisor();
        // Killed a little later each time, while ever higher revisions are started.
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30 + 70 * round));
            let _ = Command::new("kill").args(["-KILL", &child.to_string()]).status();
        });
        for revision in highest + 1..highest + 40 {
            let mut evidence = Evidence::honest("hello", &bytes);
            evidence.claims["component"]["revision"] = json!(revision);
            std::fs::write(host.site().file("hello.wasm.sigstore.json"), evidence.sign(&signer).to_string()).unwrap();
            if host.run(["start", "hello.wasm"]).exit != 0 {
                break;
            }
            highest = revision;
        }
        killer.join().unwrap();
        site = host.killed();
        let marks = std::fs::read_to_string(site.file("state/high-water.json")).unwrap();
        let marks: Value = serde_json::from_str(&marks).expect("the marks are whole");
        let mark = marks["revisions"]["test"]["test:hello"].as_u64().unwrap_or_default();
        assert!(mark >= highest, "revision {highest} was started, {mark} is remembered");
        highest = mark;
        // What is older does not come back.
        let mut evidence = Evidence::honest("hello", &bytes);
        evidence.claims["component"]["revision"] = json!(highest);
        std::fs::write(site.file("hello.wasm.sigstore.json"), evidence.sign(&signer).to_string()).unwrap();
    }
    let host = Host::ready(site);
    let mut evidence = Evidence::honest("hello", &bytes);
    evidence.claims["component"]["revision"] = json!(highest.saturating_sub(1));
    std::fs::write(host.site().file("hello.wasm.sigstore.json"), evidence.sign(&signer).to_string()).unwrap();
    let refused = host.run(["start", "hello.wasm"]);
    assert_eq!((refused.exit, refused.code().as_str()), (15, "revision.rolled-back"), "{refused:?}");
}
