//! Identities: what is issued to whom, who is believed, and what is left of an identity when its component or process ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::http::{self, Answer};
use portcullis_tests::patience::{LONG, promised};
use portcullis_tests::site::Site;
use serde_json::Value;

/// Greeter, which the vault welcomes, and a second caller with an SVID of its own; both may send to the vault.
fn site() -> Site {
    let port = portcullis_tests::port::reserved();
    let mut site = Site::new();
    let may = "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\"]\nidentity = [\"read\", \"x509\"]\naudiences = [\"vault\"]";
    for name in ["greeter", "other"] {
        site.component(name, &guests::ours("greeter"), may);
        site.grants(&format!(
            "\n[[grant]]\nid = \"{name}-vault\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:{name}\"\nhttp = [\"https://{VAULT}:{port}\"]\n\
             peer = \"spiffe://test.example/ns/test/sa/vault\"\naddresses = [\"loopback\"]\n"
        ));
    }
    site.sign_as("greeter", &guests::ours("greeter"), "ns/demo/sa/greeter");
    site.guest("vault", "link = [\"portcullis:identity/*\"]\nidentity = [\"read\", \"peer\", \"x509\", \"validate\"]\ncallers = [\"spiffe://test.example/ns/demo/sa/greeter\"]");
    site.config(&format!(
        "[[route]]\nhost = \"{VAULT}\"\ncomponent = \"test:vault\"\n\n[[route]]\nhost = \"other.example\"\ncomponent = \"test:other\"\n\n\
         [[route]]\npath = \"/secret\"\ncomponent = \"test:vault\"\n\n[names]\n\"{VAULT}\" = [\"127.0.0.1\"]\n\n\
         [listen]\nhttp = \"127.0.0.1:0\"\nmtls = \"127.0.0.1:{port}\"\n"
    ));
    site
}

const VAULT: &str = "vault.test.internal";

fn greet(host: &Host, at: &str) -> Answer {
    let request = format!(
        "GET /greeter HTTP/1.1\r\nhost: {at}\r\nx-vault-url: https://{VAULT}:{}/secret\r\nconnection: close\r\n\r\n",
        host.mtls().port()
    );
    http::raw(host.http(), request.as_bytes())
}

fn part(token: &str, index: usize) -> Value {
    let text = token.split('.').nth(index).unwrap_or_else(|| panic!("not a token: {token}"));
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn only_who_is_granted_gets_an_identity_and_only_who_is_welcome_gets_in() {
    let host = Host::ready(site());
    the_welcome_caller_gets_in(&host);
    a_token_for_an_audience_that_is_not_granted_is_denied(&host);
    wasmclouds_interface_denies_the_same(&host);
    an_issuance_is_on_disk_before_the_token_leaves(&host);
    a_caller_with_another_identity_is_refused_by_policy(&host);
    the_vault_does_not_answer_over_plain_http(&host);
    the_mtls_port_answers_nobody_without_a_certificate(&host);
    a_stopped_component_has_no_identity_any_more(&host);
}

fn the_welcome_caller_gets_in(host: &Host) {
    let answer = greet(host, "test.example");
    let json = answer.json();
    assert_eq!((answer.status, &json["vault_status"]), (200, &200.into()), "{}\n{}", answer.text(), host.log());
    let greeter = "spiffe://test.example/ns/demo/sa/greeter";
    for pointer in ["/spiffe_id", "/vault/caller", "/vault/token_subject"] {
        assert_eq!(json.pointer(pointer), Some(&greeter.into()), "{pointer}");
    }
    assert_eq!(json["wasmcloud_token"], true);
}

fn a_token_for_an_audience_that_is_not_granted_is_denied(host: &Host) {
    for audience in ["bank", "vaul", "vault2", "VAULT", "spiffe%3a%2f%2ftest.example%2fns%2ftest%2fsa%2fvault"] {
        let answer = http::get(host.http(), &format!("/greeter/mint?aud={audience}"), &[]);
        let json = answer.json();
        assert_eq!((answer.status, &json["code"]), (403, &"I0201".into()), "{audience}: {}", answer.text());
        // The record is on disk before the guest hears of it.
        let records = host.audit();
        let record = records.iter().find(|record| record["ref"] == json["reference"]).expect("a denial is recorded");
        assert_eq!(
            (&record["kind"], &record["by"], &record["code"]),
            (&"denial".into(), &"identity".into(), &"I0201".into()),
            "{record}"
        );
        assert_eq!(record["component"], "test:greeter");
        assert!(record["text"].as_str().unwrap().contains("grants add"), "{record}");
    }
    let empty = http::get(host.http(), "/greeter/mint?aud=", &[]);
    assert!([400, 403].contains(&empty.status), "{empty:?}");
}

// gate: wasmcloud:identity/store.get
fn wasmclouds_interface_denies_the_same(host: &Host) {
    let ask = |audience: &str| http::get(host.http(), &format!("/greeter/store?aud={audience}"), &[]);
    let granted = ask("vault");
    assert_eq!(granted.status, 200, "{}", granted.text());
    assert_eq!(part(granted.json()["token"].as_str().unwrap(), 1)["aud"], serde_json::json!(["vault"]));
    for audience in ["bank", "vaul", "VAULT"] {
        let before = host.audit().len();
        let refused = ask(audience);
        assert_eq!(refused.status, 502, "{audience}: {}", refused.text());
        let said = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(said.starts_with("store.get: other") && said.contains("I0201"), "{audience}: {said}");
        let record = host.audit().into_iter().skip(before).find(|record| record["kind"] == "denial");
        let record = record.expect("a denial is recorded before the guest hears of it");
        assert_eq!((&record["code"], &record["by"]), (&"I0201".into(), &"identity".into()), "{record}");
    }
    // What is no audience is not even asked about.
    assert_eq!(ask("").status, 502);
}

fn an_issuance_is_on_disk_before_the_token_leaves(host: &Host) {
    let answer = http::get(host.http(), "/greeter/mint?aud=vault", &[]);
    let records = host.audit();
    let token = answer.json()["token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned();
    let claims = part(&token, 1);
    let record = records
        .iter()
        .find(|record| record["kind"] == "issuance" && record["jti"] == claims["jti"])
        .expect("an issuance is recorded");
    assert!(claims["jti"].as_str().is_some_and(|jti| jti.len() >= 16), "{claims}");
    assert_eq!((&record["spiffe_id"], &record["expires_at"]), (&claims["sub"], &claims["exp"]), "{record}");
    assert_eq!((&record["by"], &record["component"]), (&"identity".into(), &"test:greeter".into()));
    assert_eq!(claims["aud"], serde_json::json!(["vault"]));
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((1..=300).contains(&life), "a JWT-SVID lives {life} s");
    let whole = std::fs::read_to_string(host.audit_path()).unwrap();
    let signature = token.rsplit('.').next().unwrap();
    assert!(!whole.contains(signature) && !host.log().contains(signature), "the token itself is written down");
}

fn a_caller_with_another_identity_is_refused_by_policy(host: &Host) {
    // The gateway refuses before the vault runs, so what comes is not the vault's JSON.
    let answer = greet(host, "other.example");
    assert_eq!((answer.status, &answer.json()["step"]), (502, &"vault".into()), "{}\n{}", answer.text(), host.log());
    assert!(answer.text().contains("status 403"), "{}", answer.text());
    assert!(!answer.text().contains("portcullis is down"), "the secret got out");
    let record = host.record(&[("kind", "denial"), ("by", "runtime"), ("code", "C0201")]);
    assert!(record["text"].as_str().unwrap().contains("spiffe://test.example/ns/test/sa/other"), "{record}");
}

fn the_vault_does_not_answer_over_plain_http(host: &Host) {
    for name in [VAULT, "test.example"] {
        let forged = "x-forwarded-client-cert: URI=spiffe://test.example/ns/demo/sa/greeter\r\n";
        let answer = http::raw(
            host.http(),
            format!("GET /secret HTTP/1.1\r\nhost: {name}\r\n{forged}connection: close\r\n\r\n").as_bytes(),
        );
        assert_eq!(answer.status, 403, "{name}: {answer:?}");
        assert!(
            answer.header("x-portcullis-refusal").is_some_and(|refusal| refusal.starts_with("C0201 ")),
            "{answer:?}"
        );
    }
}

fn the_mtls_port_answers_nobody_without_a_certificate(host: &Host) {
    let plain = http::raw(
        host.mtls(),
        format!("GET /secret HTTP/1.1\r\nhost: {VAULT}\r\nconnection: close\r\n\r\n").as_bytes(),
    );
    assert_eq!(plain.status, 0, "{plain:?}");
    let mut silent = http::connect(host.mtls());
    let began = Instant::now();
    let _ = silent.read_to_end(&mut Vec::new());
    assert!(
        began.elapsed() < promised(Duration::from_secs(20)),
        "a handshake that never begins was waited for {:?}",
        began.elapsed()
    );
    let request = format!("GET /secret HTTP/1.1\r\nhost: {VAULT}\r\nconnection: close\r\n\r\n");
    let port = host.mtls().port();
    let connect = format!("127.0.0.1:{port}");
    let Ok(mut tls) = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &connect, "-servername", VAULT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        return portcullis_tests::skip(
            "the_mtls_port_answers_nobody_without_a_certificate",
            "there is no openssl",
            false,
        );
    };
    let mut stdin = tls.stdin.take().unwrap();
    let _ = stdin.write_all(request.as_bytes());
    let answered = tls.wait_with_output().unwrap();
    drop(stdin);
    let (out, err) = (String::from_utf8_lossy(&answered.stdout), String::from_utf8_lossy(&answered.stderr));
    assert!(!out.contains("HTTP/1.1") && !answered.status.success(), "{out}\n{err}");
    assert!(err.to_ascii_lowercase().contains("certificate required"), "{out}\n{err}");
    host.record(&[("kind", "failure"), ("kind_of_failure", "mtls")]);
}

// gate: Stop
fn a_stopped_component_has_no_identity_any_more(host: &Host) {
    let instance = |name: &str| {
        let list = host.run(["list"]).ok().json();
        list.as_array()
            .unwrap()
            .iter()
            .find(|component| component["name"] == name)
            .map(|component| component["instance"].as_str().unwrap().to_owned())
    };
    let greeter = instance("test:greeter").expect("greeter runs");
    host.run(["stop", "test:greeter"]).ok();
    assert_eq!(instance("test:greeter"), None);
    host.record(&[("kind", "stop"), ("instance", &greeter)]);
    let answer = http::get(host.http(), "/greeter/mint?aud=vault", &[]);
    assert!(answer.status >= 400 && answer.json()["token"].is_null(), "{answer:?}");
    let seen = host.audit().len();
    let other = b"GET /greeter/mint?aud=vault HTTP/1.1\r\nhost: other.example\r\nconnection: close\r\n\r\n";
    assert_eq!(http::raw(host.http(), other).status, 200, "others go on");
    let issued = |record: &Value| record["kind"] == "issuance" && record["instance"] == greeter.as_str();
    assert!(!host.audit()[seen..].iter().any(issued), "something was issued to a stopped instance");
    assert_eq!(host.run(["stop", "test:greeter"]).exit, 2, "it cannot be stopped twice");
    host.run(["start", "greeter.wasm"]).ok();
    let again = instance("test:greeter").expect("greeter runs again");
    assert_ne!(again, greeter, "an instance id is never used again");
    let answer = greet(host, "test.example");
    assert_eq!((answer.status, &answer.json()["vault_status"]), (200, &200.into()), "{}", answer.text());
}

#[test]
fn the_identity_process_comes_back_with_the_same_authority() {
    let host = Host::ready(site());
    let bundle = || host.run(["identity", "bundle"]).ok().json();
    let (before, runtime, identity) = (bundle(), host.pid("runtime"), host.pid("identity").unwrap());
    let old = http::get(host.http(), "/greeter/mint?aud=vault", &[]).json()["token"].as_str().unwrap().to_owned();
    Host::signal(identity, "KILL");
    let end = Instant::now() + LONG;
    loop {
        let answer = greet(&host, "test.example");
        if answer.status == 200 && answer.json()["vault_status"] == 200 {
            break;
        }
        assert!(Instant::now() < end, "it did not recover: {}\n{}", answer.text(), host.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(host.ask_status(LONG.as_secs())["ready"], true);
    assert_ne!(host.pid("identity"), Some(identity));
    assert_eq!(host.pid("runtime"), runtime, "the runtime was touched");
    assert_eq!(bundle()["keys"], before["keys"], "another authority");
    let new = http::get(host.http(), "/greeter/mint?aud=vault", &[]).json()["token"].as_str().unwrap().to_owned();
    assert_eq!(part(&old, 0)["kid"], part(&new, 0)["kid"]);
    host.record(&[("kind", "restart"), ("process", "identity")]);
}
