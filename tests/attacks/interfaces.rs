//! The identity interfaces that guests see: each function where it is granted, where it is not, and with arguments that are wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::time::{Duration, Instant};

use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::http::{self, Answer};
use portcullis_tests::site::Site;
use ring::signature::{ECDSA_P256_SHA256_ASN1, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

const ALL: &str = "identity = [\"read\", \"bundles\", \"peer\", \"x509\", \"validate\"]\naudiences = [\"vault\", \"bank\"]\npurposes = [\"receipts\"]";

/// `full` may do everything but export, `none` may only be linked and called; three exporters, of which one has all that it takes.
fn site() -> Site {
    let mut site = Site::new();
    let link = "link = [\"portcullis:identity/*\"]\n";
    site.component("full", &guests::ours("identity"), &format!("{link}{ALL}"));
    site.component("none", &guests::ours("identity"), link);
    site.component("exporter", &guests::ours("exporter"), "identity = [\"export\", \"x509\"]");
    site.component("unnamed", &guests::ours("exporter"), "identity = [\"export\", \"x509\"]");
    site.component("ungranted", &guests::ours("exporter"), "link = [\"portcullis:identity/*\"]\nidentity = [\"x509\"]");
    site.top("danger_exportable_keys = [\"test:exporter\", \"test:ungranted\"]\n");
    site
}

fn ask(host: &Host, path: &str) -> Answer {
    http::get(host.http(), path, &[])
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap_or_else(|| panic!("not a text: {text}"));
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The public key of the leaf in an answer.
fn leaf_key(answer: &Value) -> Vec<u8> {
    let der = hex(&answer["certificates"][0]);
    X509Certificate::from_der(&der).unwrap().1.public_key().subject_public_key.data.to_vec()
}

#[test]
fn each_function_does_what_it_says_where_it_is_granted_and_is_refused_by_its_own_code_where_it_is_not() {
    let host = Host::ready(site());
    the_own_id_and_no_caller(&host);
    a_token_for_one_audience_or_more_and_no_other(&host);
    a_token_that_was_fetched_is_given_again_without_another_issuance(&host);
    the_chain_is_the_components_own(&host);
    a_signature_holds_for_its_purpose_and_data_alone(&host);
    every_signature_is_recorded(&host);
    arguments_over_their_limits_are_errors_with_a_type(&host);
    what_is_not_granted_is_denied_with_its_code_and_a_fix(&host);
    a_guest_that_asks_in_a_loop_is_limited_and_others_are_not(&host);
    the_private_key_takes_the_grant_and_the_configuration(&host);
    a_token_that_is_kept_is_not_given_under_another_policy(&host);
    a_stopped_component_gets_nothing(&host);
}

fn the_own_id_and_no_caller(host: &Host) {
    let answer = ask(host, "/full/id");
    assert_eq!(
        answer.json()["spiffe_id"],
        "spiffe://test.example/ns/test/sa/full",
        "{}\n{}",
        answer.text(),
        host.log()
    );
    let caller = ask(host, "/full/caller");
    assert_eq!((caller.status, caller.json()), (200, Value::Null), "{}", caller.text());
    assert_eq!(ask(host, "/full/domains").json()["trust_domains"], serde_json::json!(["test.example"]));
}

fn a_token_for_one_audience_or_more_and_no_other(host: &Host) {
    let both = ask(host, "/full/jwt?aud=vault,bank").json();
    let token = both["token"].as_str().unwrap();
    let checked = http::post(host.http(), "/full/validate?aud=bank", token.as_bytes()).json();
    assert_eq!(checked["spiffe_id"], "spiffe://test.example/ns/test/sa/full");
    assert_eq!(checked["audiences"], serde_json::json!(["bank", "vault"]));
    assert_eq!(checked["expires_at"], both["expires_at"]);
    let one = ask(host, "/full/jwt?aud=vault").json();
    assert_ne!(one["token"], both["token"], "a narrower token is another one");
    let wider = ask(host, "/full/jwt?aud=vault,till");
    assert_eq!(
        (wider.status, &wider.json()["code"]),
        (403, &"I0201".into()),
        "one audience too many: {}",
        wider.text()
    );
    let other = http::post(host.http(), "/full/validate?aud=till", token.as_bytes());
    assert_eq!((other.status, &other.json()["error"]), (422, &"invalid-token".into()));
}

fn a_token_that_was_fetched_is_given_again_without_another_issuance(host: &Host) {
    let first = ask(host, "/full/jwt?aud=bank").json()["token"].clone();
    let issued = |host: &Host| host.audit().iter().filter(|record| record["svid"] == "jwt").count();
    let before = issued(host);
    let began = Instant::now();
    let again = ask(host, "/full/jwt?aud=bank&times=5000").json();
    let took = began.elapsed();
    assert_eq!(again["token"], first, "{again}");
    assert_eq!(issued(host), before, "something was issued anew");
    // Far more than the rate limit lets through to the identity process: these were answered beside the guest.
    assert!(took < portcullis_tests::patience::promised(Duration::from_secs(20)), "5000 tokens took {took:?}");
    eprintln!("a token that is kept: {:?} each, in this build", took / 5000);
}

fn the_chain_is_the_components_own(host: &Host) {
    let chain = ask(host, "/full/chain").json();
    assert_eq!(chain["spiffe_id"], "spiffe://test.example/ns/test/sa/full");
    let der = hex(&chain["certificates"][0]);
    let leaf = X509Certificate::from_der(&der).unwrap().1;
    assert_eq!(leaf.validity().not_after.timestamp(), chain["expires_at"].as_i64().unwrap());
    assert!(!leaf.is_ca());
}

fn a_signature_holds_for_its_purpose_and_data_alone(host: &Host) {
    let data = b"three apples\0and a pear";
    let answer = http::post(host.http(), "/full/sign?purpose=receipts", data);
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), host.log());
    let signed = answer.json();
    let (signature, key) = (hex(&signed["signature"]), leaf_key(&signed));
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key);
    let message = |purpose: &str, data: &[u8]| [b"portcullis signature v1\0", purpose.as_bytes(), b"\0", data].concat();
    key.verify(&message("receipts", data), &signature).expect("what the documentation says is signed");
    for (what, bytes) in [
        ("another purpose", message("orders", data)),
        ("other data", message("receipts", b"three apples")),
        ("the bare data", data.to_vec()),
    ] {
        assert!(key.verify(&bytes, &signature).is_err(), "{what}");
    }
    let chain = ask(host, "/full/chain").json();
    assert_eq!(leaf_key(&chain), leaf_key(&signed), "the key is that of the X.509-SVID");
    let largest = http::post(host.http(), "/full/sign?purpose=receipts", &vec![7; 64 << 10]);
    assert_eq!(largest.status, 200, "{}", largest.text());
}

fn every_signature_is_recorded(host: &Host) {
    let records = host.audit();
    let record = records.iter().find(|record| record["kind"] == "signature").expect("a signature is recorded");
    assert_eq!((&record["component"], &record["purpose"]), (&"test:full".into(), &"receipts".into()), "{record}");
    let digest = ring::digest::digest(&ring::digest::SHA256, b"three apples\0and a pear");
    let expected: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(record["data_sha256"], expected.as_str(), "{record}");
}

fn arguments_over_their_limits_are_errors_with_a_type(host: &Host) {
    let nine = (0..9).map(|n| format!("a{n}")).collect::<Vec<_>>().join(",");
    let long = "a".repeat(256);
    for path in ["jwt?aud=".to_owned(), format!("jwt?aud={nine}"), format!("jwt?aud={long}")] {
        let answer = ask(host, &format!("/full/{path}"));
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (422, &"invalid-argument".into()),
            "{path}: {}",
            answer.text()
        );
    }
    for (path, body) in [
        ("sign?purpose=", vec![1]),
        ("sign?purpose=Receipts", vec![1]),
        ("sign?purpose=re%20ceipts", vec![1]),
        ("sign?purpose=receipts%00", vec![1]),
        ("sign?purpose=receipts", vec![1; (64 << 10) + 1]),
        ("validate?aud=vault", vec![b'a'; (8 << 10) + 1]),
        ("validate?aud=", b"a.b.c".to_vec()),
    ] {
        let answer = http::post(host.http(), &format!("/full/{path}"), &body);
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (422, &"invalid-argument".into()),
            "{path}: {}",
            answer.text()
        );
    }
    let other = http::post(host.http(), "/full/sign?purpose=orders", b"x");
    assert_eq!((other.status, &other.json()["code"]), (403, &"I0204".into()), "{}", other.text());
}

// gate: portcullis:identity/workload.spiffe-id, portcullis:identity/jwt.fetch, portcullis:identity/jwt.validate, portcullis:identity/x509.fetch-chain, portcullis:identity/signing.sign, portcullis:identity/bundle.fetch, portcullis:identity/bundle.fetch-for, portcullis:identity/bundle.trust-domains, portcullis:identity/peer.caller
fn what_is_not_granted_is_denied_with_its_code_and_a_fix(host: &Host) {
    for (path, code, fix) in [
        ("id", "I0203", "--identity read"),
        ("bundle", "I0203", "--identity bundles"),
        ("bundle-for?td=test.example", "I0203", "--identity bundles"),
        ("domains", "I0203", "--identity bundles"),
        ("caller", "I0203", "--identity peer"),
        ("chain", "I0202", "--identity x509"),
        ("jwt?aud=vault", "I0201", "--audience vault"),
        ("validate?aud=vault", "I0203", "--identity validate"),
        ("sign?purpose=receipts", "I0204", "--purpose receipts"),
    ] {
        let answer = ask(host, &format!("/none/{path}"));
        let json = answer.json();
        assert_eq!((answer.status, &json["code"]), (403, &code.into()), "{path}: {}", answer.text());
        let record = host.record(&[("kind", "denial"), ("ref", json["reference"].as_str().unwrap())]);
        assert!(record["text"].as_str().unwrap().contains(fix), "{path}: {record}");
    }
}

fn a_guest_that_asks_in_a_loop_is_limited_and_others_are_not(host: &Host) {
    let answer = ask(host, "/none/jwt?aud=vault&times=1");
    assert_eq!(answer.status, 403);
    let limited = std::sync::Mutex::new(None);
    let ask_on = || {
        for _ in 0..1_000 {
            if limited.lock().unwrap().is_some() {
                return;
            }
            let answer = http::post(host.http(), "/none/jwt?aud=vault", b"");
            if answer.json()["error"] == "rate-limited" {
                *limited.lock().unwrap() = Some(answer);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(ask_on);
        }
    });
    let Some(limited) = limited.into_inner().unwrap() else {
        // Each refusal is on disk before it is answered: a disk may be slower than what is allowed.
        return portcullis_tests::skip(
            "a_guest_that_asks_in_a_loop",
            "a hundred calls a second were not reached",
            true,
        );
    };
    assert!(limited.json()["text"].as_str().unwrap().contains("try again"), "{}", limited.text());
    assert_eq!(ask(host, "/full/jwt?aud=vault,bank").status, 200, "another instance has its own allowance");
}

// gate: portcullis:identity/key-export.fetch-x509
fn the_private_key_takes_the_grant_and_the_configuration(host: &Host) {
    let refused = ask(host, "/ungranted/");
    assert_eq!((refused.status, &refused.json()["code"]), (403, &"I0205".into()), "{}", refused.text());
    let unnamed = ask(host, "/unnamed/");
    assert_eq!((unnamed.status, &unnamed.json()["code"]), (403, &"I0206".into()), "{}", unnamed.text());
    let record = host.record(&[("kind", "denial"), ("code", "I0206")]);
    assert!(record["text"].as_str().unwrap().contains("danger_exportable_keys"), "{record}");
    assert!(!host.audit().iter().any(|record| record["kind"] == "key-export"), "a refusal exports nothing");

    let answer = ask(host, "/exporter/");
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), host.log());
    let exported = answer.json();
    let pkcs8 = hex(&exported["private_key"]);
    let random = ring::rand::SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &random).unwrap();
    assert_eq!(pair.public_key().as_ref(), leaf_key(&exported), "the key is that of the certificate");
    assert_eq!(exported["spiffe_id"], "spiffe://test.example/ns/test/sa/exporter");
    let record = host.record(&[("kind", "key-export"), ("component", "test:exporter")]);
    assert!(record["text"].as_str().unwrap().contains("private key"), "{record}");
    let whole = std::fs::read_to_string(host.audit_path()).unwrap();
    let secret = exported["private_key"].as_str().unwrap();
    assert!(!whole.contains(secret) && !host.log().contains(&secret[40..]), "the key itself is written down");
    let status = host.ask_status(0);
    assert!(status["dangers"].to_string().contains("danger_exportable_keys"), "{status}");
}

fn a_token_that_is_kept_is_not_given_under_another_policy(host: &Host) {
    assert_eq!(ask(host, "/full/jwt?aud=bank").status, 200);
    let grants = host.site().file("grants.toml");
    let text = std::fs::read_to_string(&grants).unwrap();
    std::fs::write(&grants, text.replace("audiences = [\"vault\", \"bank\"]", "audiences = [\"vault\"]")).unwrap();
    host.run(["reload"]).ok();
    let answer = ask(host, "/full/jwt?aud=bank");
    assert_eq!((answer.status, &answer.json()["code"]), (403, &"I0201".into()), "{}", answer.text());
    assert_eq!(ask(host, "/full/jwt?aud=vault").status, 200);
}

fn a_stopped_component_gets_nothing(host: &Host) {
    host.run(["stop", "test:full"]).ok();
    assert!(ask(host, "/full/jwt?aud=vault").status >= 400);
}
