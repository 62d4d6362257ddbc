//! Components in real registries: one without the referrers API, one with it. Pushed, found again by tag and digest, verified,
//! inspected and started from there.

use std::os::unix::fs::PermissionsExt;

use portcullis_tests::host::Host;
use portcullis_tests::registry::{Kind, PASSWORD, Registry, USER};
use portcullis_tests::site::{CLUSTER, Site};
use portcullis_tests::{guests, http, skip};
use serde_json::{Value, json};

#[test]
fn a_component_and_its_evidence_survive_a_registry_without_the_referrers_api() {
    survives(Kind::Fallback, "a_component_and_its_evidence_survive_a_registry_without_the_referrers_api");
}

#[test]
fn a_component_and_its_evidence_survive_a_registry_with_the_referrers_api() {
    survives(Kind::Referrers, "a_component_and_its_evidence_survive_a_registry_with_the_referrers_api");
}

fn survives(kind: Kind, test: &str) {
    let Some(registry) = started(kind, test) else { return };
    let site = signed();
    let tag = registry.reference("acme/hello:1.0.0");
    let pushed = site.run(["push", "hello.wasm", &tag, "--json"]).ok().json();
    assert_eq!(pushed["referrersApi"], json!(kind == Kind::Referrers));
    assert_eq!(pushed["attachments"].as_array().map(Vec::len), Some(1));
    let by_digest = text(&pushed, "reference").to_owned();
    assert!(by_digest.starts_with(&format!("{tag}@sha256:")), "{by_digest}");

    // Again: nothing changes, and nothing is listed twice.
    let again = site.run(["push", "hello.wasm", &tag, "--json"]).ok().json();
    assert_eq!(again, pushed);

    for reference in [&tag, &by_digest] {
        let pulled = site.run(["pull", reference, "--out", "pulled.wasm", "--force", "--json"]).ok().json();
        assert_eq!(text(&pulled, "reference"), by_digest);
        assert_eq!(read(&site, "pulled.wasm"), read(&site, "hello.wasm"));
        assert_eq!(read(&site, "pulled.wasm.sigstore.json"), read(&site, "hello.wasm.sigstore.json"));
        assert_eq!(pulled["verified"], json!(false));
        let verified = site.run(verify(reference, &site)).ok().json();
        assert_eq!(text(&verified, "verdict"), "verified");
    }
    let inspected = site.run(["inspect", &tag, "--json"]).ok().json();
    assert_eq!(inspected.pointer("/evidence/0/claims/component/name"), Some(&json!("test:hello")));
    // What was pulled is what a host takes.
    let mut host_site = site;
    host_site.grants(HELLO_GRANT);
    host_site.config("[[route]]\npath = \"/hello\"\ncomponent = \"test:hello\"\n");
    let host = Host::ready(host_site);
    host.run(["start", &tag]).ok();
    let answer = http::get(host.http(), "/hello", &[]);
    assert_eq!(answer.status, 200, "{} {}\n{}", answer.head, answer.text(), host.log());
}

#[test]
fn a_moved_tag_brings_other_evidence_and_a_digest_stays() {
    let test = "a_moved_tag_brings_other_evidence_and_a_digest_stays";
    let Some(registry) = started(Kind::Fallback, test) else { return };
    let site = signed();
    let tag = registry.reference("acme/hello:stable");
    let first = site.run(["push", "hello.wasm", &tag, "--json"]).ok().json();
    let first = text(&first, "reference").to_owned();
    guests::put(site.path(), "other.wasm", &guests::ours("echo"));
    let unsigned = site.run(["push", "other.wasm", &tag, "--json"]);
    assert_eq!(
        (unsigned.exit, unsigned.code().as_str()),
        (10, "evidence.none"),
        "nothing unsigned is pushed by mistake"
    );
    site.run(["push", "other.wasm", &tag, "--without-evidence"]).ok();

    let refused = site.run(verify(&tag, &site));
    assert_eq!((refused.exit, refused.code().as_str()), (10, "evidence.none"), "{refused:?}");
    assert_eq!(text(&site.run(verify(&first, &site)).ok().json(), "verdict"), "verified");
    // A reference of the moved tag with the old digest is the old component: the digest decides.
    site.run(["pull", &first, "--out", "first.wasm"]).ok();
    assert_eq!(read(&site, "first.wasm"), read(&site, "hello.wasm"));
}

#[test]
fn evidence_of_another_component_is_not_pushed_with_this_one() {
    let test = "evidence_of_another_component_is_not_pushed_with_this_one";
    let Some(registry) = started(Kind::Fallback, test) else { return };
    let site = signed();
    guests::put(site.path(), "other.wasm", &guests::ours("echo"));
    let tag = registry.reference("acme/other:1");
    let refused = site.run(["push", "other.wasm", &tag, "--bundle", "hello.wasm.sigstore.json", "--json"]);
    assert_eq!((refused.exit, refused.code().as_str()), (13, "claims.digest"));
    let missing = site.run(["pull", &tag, "--out", "pulled.wasm", "--json"]);
    assert_eq!((missing.exit, missing.code().as_str()), (18, "registry.missing"), "nothing was pushed: {missing:?}");
}

#[test]
fn a_pull_that_broke_off_is_taken_up_again_and_other_bytes_are_not_believed() {
    let test = "a_pull_that_broke_off_is_taken_up_again_and_other_bytes_are_not_believed";
    let Some(registry) = started(Kind::Fallback, test) else { return };
    let site = signed();
    let tag = registry.reference("acme/hello:1");
    site.run(["push", "hello.wasm", &tag]).ok();
    let bytes = read(&site, "hello.wasm");
    let digest = site.run(["inspect", "hello.wasm", "--json"]).ok().json();
    let digest = text(&digest, "digest").replace("sha256:", "");
    let part = site.file(&format!(".portcullis-{digest}.part"));
    let (half, wrong, long) =
        (bytes[..bytes.len() / 2].to_vec(), vec![b'x'; bytes.len() / 2], vec![b'x'; bytes.len() + 9]);
    for kept in [half, wrong, long, Vec::new(), bytes.clone()] {
        std::fs::write(&part, &kept).unwrap();
        site.run(["pull", &tag, "--out", "pulled.wasm", "--force"]).ok();
        assert_eq!(read(&site, "pulled.wasm"), bytes);
        assert!(!part.exists(), "what is finished is not kept twice");
    }
    // Nothing is written through a link that somebody left there.
    let victim = site.file("victim");
    std::fs::write(&victim, "mine").unwrap();
    std::os::unix::fs::symlink(&victim, &part).unwrap();
    let refused = site.run(["pull", &tag, "--out", "linked.wasm", "--json"]);
    assert_eq!(refused.exit, 2, "{refused:?}");
    assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    assert!(!site.file("linked.wasm").exists());
}

#[test]
fn a_pull_with_trust_writes_nothing_that_is_refused() {
    let test = "a_pull_with_trust_writes_nothing_that_is_refused";
    let Some(registry) = started(Kind::Fallback, test) else { return };
    let (site, stranger) = (signed(), Site::new());
    let tag = registry.reference("acme/hello:1");
    site.run(["push", "hello.wasm", &tag]).ok();
    let arguments = |site: &Site| {
        let root = site.public("root.key");
        [
            "pull",
            &tag,
            "--out",
            "pulled.wasm",
            "--trust",
            "trust.signed.json",
            "--root",
            &root,
            "--audience",
            CLUSTER,
            "--json",
        ]
        .map(ToOwned::to_owned)
    };
    let refused = stranger.run(arguments(&stranger));
    assert_eq!((refused.exit, refused.code().as_str()), (12, "signer.unknown"), "{refused:?}");
    assert!(!stranger.file("pulled.wasm").exists() && !stranger.file("pulled.wasm.sigstore.json").exists());
    assert_eq!(site.run(arguments(&site)).ok().json()["verified"], json!(true));
}

#[test]
fn credentials_come_from_the_docker_config_and_its_helpers() {
    let test = "credentials_come_from_the_docker_config_and_its_helpers";
    for kind in [Kind::Login, Kind::Token] {
        let Some(registry) = started(kind, test) else { return };
        let site = signed();
        let tag = registry.reference("acme/hello:1");
        let folder = site.path().to_str().unwrap().to_owned();
        let push = |config: &Value| {
            std::fs::write(site.file("config.json"), config.to_string()).unwrap();
            let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
            site.run_with(&[("DOCKER_CONFIG", &folder), ("PATH", &path)], ["push", "hello.wasm", &tag, "--json"])
        };
        let anonymous = push(&json!({}));
        assert_eq!(
            (anonymous.exit, anonymous.code().as_str()),
            (18, "registry.unauthorized"),
            "{kind:?} {anonymous:?}"
        );
        assert!(anonymous.err.contains("docker login"), "{}", anonymous.err);

        let auth = |password: &str| base64(&format!("{USER}:{password}"));
        let wrong = push(&json!({ "auths": { registry.address(): { "auth": auth("wrong") } } }));
        assert_eq!((wrong.exit, wrong.code().as_str()), (18, "registry.unauthorized"), "{kind:?} {wrong:?}");
        assert!(!wrong.err.contains("wrong") && !wrong.err.contains(&auth("wrong")), "{}", wrong.err);
        push(&json!({ "auths": { registry.address(): { "auth": auth(PASSWORD) } } })).ok();

        let helper = |name: &str, script: &str| {
            let path = site.file(&format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            json!({ "credHelpers": { registry.address(): name } })
        };
        let answer = format!(r#"cat >asked; echo '{{"ServerURL":"x","Username":"{USER}","Secret":"{PASSWORD}"}}'"#);
        push(&helper("works", &answer)).ok();
        assert_eq!(std::fs::read_to_string(site.file("asked")).unwrap(), registry.address());
        let failed = push(&helper("fails", "echo a-secret; echo a-secret >&2; exit 1"));
        assert_eq!((failed.exit, failed.code().as_str()), (2, "registry.credentials"), "{kind:?} {failed:?}");
        assert!(!failed.err.contains("a-secret"), "what a helper says is not repeated: {}", failed.err);
        let broken = push(&helper("missing-altogether", ""));
        assert!(broken.exit != 0, "{broken:?}");
    }
}

#[test]
fn a_registry_with_tls_must_show_a_certificate_of_the_ca_that_was_named() {
    let test = "a_registry_with_tls_must_show_a_certificate_of_the_ca_that_was_named";
    let (Some(registry), Some(other)) = (started(Kind::Tls, test), started(Kind::Tls, test)) else { return };
    let site = signed();
    let tag = registry.reference("acme/hello:1");
    let push = |certificate: &std::path::Path| {
        site.run(["push", "hello.wasm", &tag, "--json", "--ca", certificate.to_str().unwrap()])
    };
    let wrong = push(&other.certificate());
    assert_eq!((wrong.exit, wrong.code().as_str()), (18, "registry.unreachable"), "{wrong:?}");
    push(&registry.certificate()).ok();
    let ca = registry.certificate();
    site.run(["pull", &tag, "--out", "pulled.wasm", "--ca", ca.to_str().unwrap()]).ok();
    assert_eq!(read(&site, "pulled.wasm"), read(&site, "hello.wasm"));
    let plain = site.run(["pull", &tag, "--out", "plain.wasm", "--json"]);
    assert_eq!(plain.exit, 18, "{plain:?}");
}

#[test]
fn a_registry_that_is_not_there_and_one_that_has_nothing_are_told_apart() {
    let test = "a_registry_that_is_not_there_and_one_that_has_nothing_are_told_apart";
    let Some(registry) = started(Kind::Referrers, test) else { return };
    let site = signed();
    let missing = site.run(verify(&registry.reference("acme/nothing:1"), &site));
    assert_eq!((missing.exit, missing.code().as_str()), (18, "registry.missing"), "{missing:?}");
    let nowhere = site.run(verify("oci://127.0.0.1:1/acme/hello:1", &site));
    assert_eq!((nowhere.exit, nowhere.code().as_str()), (18, "registry.unreachable"), "{nowhere:?}");
    let bad = site.run(verify("oci://acme/hello", &site));
    assert_eq!(bad.exit, 2, "{bad:?}");
}

fn started(kind: Kind, test: &str) -> Option<Registry> {
    match Registry::start(kind) {
        Ok(registry) => Some(registry),
        Err(why) => {
            skip(test, &why, false);
            None
        }
    }
}

/// A site with a signed `hello.wasm`.
fn signed() -> Site {
    let site = Site::new();
    site.sign("hello", &guests::ours("hello"));
    site
}

fn verify(reference: &str, site: &Site) -> Vec<String> {
    let root = site.public("root.key");
    ["verify", reference, "--trust", "trust.signed.json", "--root", &root, "--audience", CLUSTER, "--json"]
        .map(ToOwned::to_owned)
        .to_vec()
}

fn read(site: &Site, name: &str) -> Vec<u8> {
    std::fs::read(site.file(name)).unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

const HELLO_GRANT: &str = "\n[[grant]]\nid = \"hello\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:hello\"\nload = true\ncallers = [\"anonymous\"]\n";
