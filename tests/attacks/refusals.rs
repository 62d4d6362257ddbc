//! What must not run: through `portcullis verify` and through `portcullis start` on a running host.
//!
//! Each refusal has the same exit code and reason code in both, and a next step. A refused start is in the audit log under the
//! reference that the command printed, nothing new runs, and the host stays ready.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use portcullis_signing::{KeyKind, SecretKey};
use portcullis_tests::forge::{self, Evidence};
use portcullis_tests::host::Host;
use portcullis_tests::site::{Ended, Site};
use portcullis_tests::{guests, http};
use serde_json::{Value, json};

/// A host with one honest component, and the keys of its site.
struct Bench {
    host: Host,
    signer: SecretKey,
    /// A signer whose key the trust policy denies.
    revoked: SecretKey,
    /// A signer that may only speak for another cluster.
    elsewhere: SecretKey,
    /// A signer whose delegation is over.
    former: SecretKey,
}

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);
/// One refusal after the other: each compares what runs before and after.
static TURN: Mutex<()> = Mutex::new(());

/// Names that policy lets run, so that nothing but the reason under test stands in the way.
const GRANTED: &[&str] = &["victim", "rising", "floored", "sockets", "shapeless"];

impl Bench {
    fn new() -> Self {
        let mut site = Site::new();
        site.guest("hello", "");
        for name in GRANTED {
            site.grants(&format!(
                "\n[[grant]]\nid = \"{name}\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:{name}\"\nload = true\ncallers = [\"anonymous\"]\n"
            ));
        }
        let [revoked, elsewhere, former] = [(); 3].map(|()| forge::new_key(KeyKind::Signer));
        let mut trust = forge::trust_document(&site);
        for (name, key, change) in [
            ("revoked-ci", &revoked, json!({})),
            ("elsewhere-ci", &elsewhere, json!({ "audiences": ["elsewhere"] })),
            ("former-ci", &former, json!({ "notAfter": forge::at(-10) })),
        ] {
            let mut entry = trust["signers"][0].clone();
            entry["name"] = name.into();
            entry["key"] = key.public().to_string().into();
            for (member, value) in change.as_object().unwrap() {
                entry["delegation"][member] = value.clone();
            }
            trust["signers"].as_array_mut().unwrap().push(entry);
        }
        let denied = Evidence::honest("victim", &marked("denied by digest"));
        trust["deny"] =
            json!([{ "digest": format!("sha256:{}", denied.sha256) }, { "signer": revoked.public().to_string() }]);
        trust["floors"] = json!([{ "name": "test:floored", "revision": 5 }]);
        let signed = forge::trust(&trust, &[&forge::key(&site.file("root.key"))]);
        std::fs::write(site.file("trust.signed.json"), signed.to_string()).unwrap();
        let signer = forge::key(&site.file("signer.key"));
        Self { host: Host::ready(site), signer, revoked, elsewhere, former }
    }

    /// Hands a file and its evidence over, to `verify` and then to `start`.
    fn hand_over(&self, name: &str, bytes: &[u8], evidence: Option<&str>) -> [Ended; 2] {
        let file = format!("{name}.wasm");
        let path = guests::put(self.host.site().path(), &file, bytes);
        let beside = self.host.site().file(&format!("{file}.sigstore.json"));
        let _ = std::fs::remove_file(&beside);
        if let Some(evidence) = evidence {
            std::fs::write(&beside, evidence).unwrap();
        }
        let path = path.to_str().unwrap();
        [self.host.run(["verify", path]), self.host.run(["start", path])]
    }

    /// Both refuse, with this exit code and reason code; gives the messages.
    fn refused(&self, name: &str, bytes: &[u8], evidence: Option<&str>, exit: i32, code: &str) -> String {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = self.running();
        let [verify, start] = self.hand_over(name, bytes, evidence);
        for (command, ended) in [("verify", &verify), ("start", &start)] {
            assert_refusal(ended, exit, code, &format!("{command} {name}"));
        }
        self.recorded(&start, name);
        self.undisturbed(&before);
        format!("{}\n{}", message(&verify), message(&start))
    }

    /// `verify` finds nothing wrong, `start` refuses by policy; gives the message.
    fn denied_by_policy(&self, name: &str, bytes: &[u8], evidence: &str, code: &str) -> String {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = self.running();
        let [verify, start] = self.hand_over(name, bytes, Some(evidence));
        assert_eq!(verify.exit, 0, "{verify:?}");
        assert_refusal(&start, 20, code, name);
        self.recorded(&start, name);
        self.undisturbed(&before);
        message(&start)
    }

    /// The refused start is in the audit log with reference, code and text.
    fn recorded(&self, start: &Ended, name: &str) {
        let text = |pointer: &str| start.json().pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let reference = text("/error/details/reference");
        assert_eq!(reference.len(), 26, "{start:?}");
        let record = self.host.record(&[("ref", &reference)]);
        assert_eq!((&record["kind"], &record["action"]), (&json!("denial"), &json!("start")), "{record}");
        assert_eq!(record["code"], text("/error/code"), "{record}");
        assert!(record["path"].as_str().unwrap().ends_with(&format!("{name}.wasm")), "{record}");
        assert!(text("/error/message").contains(record["text"].as_str().unwrap()) && record["text"] != "", "{record}");
        let explained = self.host.run(["policy", "explain", &reference]).ok().json();
        assert_eq!(explained["ref"], reference);
    }

    fn undisturbed(&self, before: &[(String, String)]) {
        assert_eq!(self.running(), before, "something else runs now");
        let status = self.host.ask_status(0);
        assert_eq!(status["ready"], true, "{status:#}");
        assert_eq!(http::get(self.host.http(), "/hello", &[]).status, 200);
    }

    /// Name and instance of all that runs.
    fn running(&self) -> Vec<(String, String)> {
        let list = self.host.run(["list"]).ok().json();
        let text = |component: &Value, member: &str| component[member].as_str().unwrap().to_owned();
        list.as_array()
            .unwrap()
            .iter()
            .filter(|component| component["state"] == "running")
            .map(|component| (text(component, "name"), text(component, "instance")))
            .collect()
    }

    /// Signed as it stands by the signer that the trust policy names.
    fn signed(&self, evidence: &Evidence) -> String {
        evidence.sign(&self.signer).to_string()
    }
}

fn assert_refusal(ended: &Ended, exit: i32, code: &str, what: &str) {
    assert_eq!((ended.exit, ended.code().as_str()), (exit, code), "{what}: {ended:?}");
    let hint = ended.json().pointer("/error/hint").and_then(Value::as_str).unwrap_or_default().to_owned();
    assert!(!hint.is_empty() && ended.err.contains("hint: "), "{what} gives no next step: {ended:?}");
    assert!(ended.err.starts_with("error: "), "{what}: {ended:?}");
}

fn message(ended: &Ended) -> String {
    ended.json().pointer("/error/message").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A component that would run if it were let: hello, with a custom section that makes its digest its own.
fn marked(mark: &str) -> Vec<u8> {
    let mut bytes = guests::ours("hello");
    let name = b"mark";
    bytes.push(0);
    bytes.push(u8::try_from(1 + name.len() + mark.len()).unwrap());
    bytes.push(u8::try_from(name.len()).unwrap());
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(mark.as_bytes());
    bytes
}

#[test]
fn a_component_without_evidence_does_not_run() {
    BENCH.refused("no-evidence", &marked("no evidence"), None, 10, "evidence.none");
}

#[test]
fn a_signature_with_one_bit_changed_is_bad() {
    let bytes = marked("bad signature");
    let mut bundle = Evidence::honest("victim", &bytes).sign(&BENCH.signer);
    let signature = &mut bundle["dsseEnvelope"]["signatures"][0]["sig"];
    *signature = forge::flipped(signature.as_str().unwrap()).into();
    BENCH.refused("bad-signature", &bytes, Some(&bundle.to_string()), 11, "signature.bad");
}

#[test]
fn a_payload_that_was_changed_after_signing_is_bad() {
    let bytes = marked("bad payload");
    let mut evidence = Evidence::honest("victim", &bytes);
    let mut bundle = evidence.sign(&BENCH.signer);
    evidence.claims["component"]["revision"] = 7.into();
    bundle["dsseEnvelope"]["payload"] = evidence.sign(&BENCH.revoked)["dsseEnvelope"]["payload"].clone();
    BENCH.refused("bad-payload", &bytes, Some(&bundle.to_string()), 11, "signature.bad");
}

#[test]
fn a_signature_is_bound_to_its_payload_type() {
    let bytes = marked("bad payload type");
    let mut bundle = Evidence::honest("victim", &bytes).sign(&BENCH.signer);
    bundle["dsseEnvelope"]["payloadType"] = "application/json".into();
    BENCH.refused("swapped-payload-type", &bytes, Some(&bundle.to_string()), 11, "signature.bad");
}

#[test]
fn an_unknown_signer_is_not_trusted() {
    let bytes = marked("stranger");
    let stranger = forge::new_key(KeyKind::Signer);
    let mut bundle = Evidence::honest("victim", &bytes).sign(&stranger);
    BENCH.refused("stranger", &bytes, Some(&bundle.to_string()), 12, "signer.unknown");
    bundle["verificationMaterial"]["publicKey"]["hint"] = "".into();
    BENCH.refused("stranger-without-a-name", &bytes, Some(&bundle.to_string()), 12, "signer.unknown");
    bundle["verificationMaterial"]["publicKey"]["hint"] = BENCH.signer.public().to_string().into();
    BENCH.refused("stranger-under-a-good-name", &bytes, Some(&bundle.to_string()), 11, "signature.bad");
}

#[test]
fn a_component_with_one_bit_changed_is_not_what_was_signed() {
    let bytes = marked("one bit changed");
    let evidence = BENCH.signed(&Evidence::honest("victim", &bytes));
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        BENCH.refused("changed", &changed, Some(&evidence), 13, "claims.digest");
    }
    BENCH.refused("shortened", &bytes[..bytes.len() / 2], Some(&evidence), 13, "claims.digest");
    BENCH.refused("lengthened", &[bytes, vec![0, 1, 0]].concat(), Some(&evidence), 13, "claims.digest");
}

#[test]
fn evidence_of_another_component_is_worth_nothing() {
    let evidence = std::fs::read_to_string(BENCH.host.site().file("hello.wasm.sigstore.json")).unwrap();
    BENCH.refused("transplanted", &guests::ours("echo"), Some(&evidence), 13, "claims.digest");
}

#[test]
fn claims_that_hide_imports_are_refused_and_each_import_is_named() {
    let bytes = guests::ours("silent");
    let mut evidence = Evidence::honest("victim", &bytes);
    let hidden: Vec<String> = evidence.claims["imports"]
        .as_array()
        .unwrap()
        .iter()
        .take(2)
        .map(|import| import.as_str().unwrap().to_owned())
        .collect();
    evidence.claims["imports"].as_array_mut().unwrap().drain(..2);
    let text = BENCH.refused("hiding", &bytes, Some(&BENCH.signed(&evidence)), 13, "claims.imports");
    for import in hidden {
        assert_eq!(text.matches(&import).count(), 2, "{import} is not named by both in:\n{text}");
    }
}

#[test]
fn expired_claims_are_refused() {
    let bytes = marked("expired");
    let mut evidence = Evidence::honest("victim", &bytes);
    for member in ["issuedAt", "notBefore"] {
        evidence.claims[member] = forge::at(-7200).into();
    }
    evidence.claims["expiresAt"] = forge::at(-1).into();
    BENCH.refused("expired", &bytes, Some(&BENCH.signed(&evidence)), 14, "time.expired");
}

#[test]
fn claims_that_do_not_hold_yet_are_refused() {
    let bytes = marked("not yet");
    for member in ["notBefore", "issuedAt"] {
        let mut evidence = Evidence::honest("victim", &bytes);
        evidence.claims["notBefore"] = forge::at(600).into();
        evidence.claims[member] = forge::at(600).into();
        BENCH.refused("not-yet", &bytes, Some(&BENCH.signed(&evidence)), 14, "time.not-yet");
    }
}

#[test]
fn a_revision_below_the_highest_seen_is_a_rollback() {
    let bytes = marked("rising");
    let at_revision = |revision: u64| {
        let mut evidence = Evidence::honest("rising", &bytes);
        evidence.claims["component"]["revision"] = revision.into();
        BENCH.signed(&evidence)
    };
    let start = |revision: u64| {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let [verify, start] = BENCH.hand_over("rising", &bytes, Some(&at_revision(revision)));
        verify.ok();
        start.ok();
    };
    start(5);
    BENCH.refused("rising", &bytes, Some(&at_revision(4)), 15, "revision.rolled-back");
    start(5);
    start(6);
    BENCH.refused("rising", &bytes, Some(&at_revision(5)), 15, "revision.rolled-back");
}

#[test]
fn a_revision_below_the_floor_of_the_trust_policy_is_refused() {
    let bytes = marked("floored");
    let mut evidence = Evidence::honest("floored", &bytes);
    evidence.claims["component"]["revision"] = 4.into();
    BENCH.refused("floored", &bytes, Some(&BENCH.signed(&evidence)), 15, "revision.below-floor");
}

#[test]
fn a_revoked_digest_does_not_run() {
    let bytes = marked("denied by digest");
    BENCH.refused("denied-digest", &bytes, Some(&BENCH.signed(&Evidence::honest("victim", &bytes))), 16, "revoked");
}

#[test]
fn what_a_revoked_signer_signed_does_not_run() {
    let bytes = marked("denied by signer");
    let evidence = Evidence::honest("victim", &bytes).sign(&BENCH.revoked).to_string();
    BENCH.refused("denied-signer", &bytes, Some(&evidence), 16, "revoked");
}

#[test]
fn a_signer_speaks_only_within_its_delegation() {
    let bytes = marked("delegation");
    let bent = |pointer: &str, value: Value| {
        let mut evidence = Evidence::honest("victim", &bytes);
        *evidence.claims.pointer_mut(pointer).unwrap() = value;
        evidence
    };
    let imports = Evidence::honest("victim", &bytes).claims["imports"].as_array().unwrap().clone();
    let more = [imports, vec![json!("acme:vault/keys@1.0.0")]].concat();
    for (file, evidence, code) in [
        ("other-name", bent("/component/name", json!("bank:payments")), "signer.name"),
        ("other-identity", bent("/identity/path", json!("ns/bank/sa/payments")), "signer.identity"),
        ("other-imports", bent("/imports", json!(more)), "signer.imports"),
        ("too-long", bent("/expiresAt", json!(forge::at(721 * 3600))), "signer.lifetime"),
    ] {
        BENCH.refused(file, &bytes, Some(&BENCH.signed(&evidence)), 12, code);
    }
    let honest = Evidence::honest("victim", &bytes);
    BENCH.refused("other-cluster", &bytes, Some(&honest.sign(&BENCH.elsewhere).to_string()), 12, "signer.audience");
    BENCH.refused("former-signer", &bytes, Some(&honest.sign(&BENCH.former).to_string()), 12, "signer.expired");
}

#[test]
fn claims_for_another_cluster_do_not_count_here() {
    let bytes = marked("another cluster");
    let mut evidence = Evidence::honest("victim", &bytes);
    evidence.claims["audience"] = json!(["production", "tes", "test2", "TEST"]);
    BENCH.refused("other-audience", &bytes, Some(&BENCH.signed(&evidence)), 13, "claims.audience");
}

#[test]
fn an_import_that_nobody_granted_is_denied_by_name() {
    let bytes = wat::parse_str(
        r#"(component (import "wasi:sockets/tcp@0.2.0" (instance)) (import "wasi:sockets/udp@0.2.0" (instance)) (import "wasi:io/poll@0.2.0" (instance)))"#,
    )
    .unwrap();
    let text = BENCH.denied_by_policy("sockets", &bytes, &BENCH.signed(&Evidence::honest("sockets", &bytes)), "L0201");
    assert!(text.contains("wasi:sockets/tcp@0.2.0") && text.contains("wasi:sockets/udp@0.2.0"), "{text}");
    assert!(!text.contains("wasi:io/poll"), "{text}");
}

#[test]
fn a_name_that_nobody_granted_does_not_load() {
    let bytes = marked("a newcomer");
    let text =
        BENCH.denied_by_policy("newcomer", &bytes, &BENCH.signed(&Evidence::honest("newcomer", &bytes)), "A0201");
    assert!(text.contains("test:newcomer") && text.contains("grants add"), "{text}");
}

#[test]
fn what_is_not_a_component_does_not_run_even_if_a_signer_vouches_for_it() {
    let hello = guests::ours("hello");
    let native = native_code();
    for (file, bytes) in [
        ("core-module", wat::parse_str("(module (func (export \"_start\")))").unwrap()),
        ("elf", std::fs::read(std::env::current_exe().unwrap()).unwrap()[..1 << 16].to_vec()),
        ("native", native),
        ("truncated", hello[..hello.len() / 2].to_vec()),
        ("header-alone", hello[..4].to_vec()),
        ("wat", b"(component)".to_vec()),
    ] {
        let evidence = BENCH.signed(&Evidence::honest("victim", &bytes));
        BENCH.refused(file, &bytes, Some(&evidence), 13, "claims.not-component");
    }
}

/// Native code of this very engine, as the host's own cache has it.
fn native_code() -> Vec<u8> {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let cache = std::fs::read_dir(BENCH.host.site().file("state/cache")).unwrap();
    let entry =
        cache.filter_map(Result::ok).find(|entry| entry.path().extension().is_some_and(|kind| kind == "native"));
    let bytes = std::fs::read(entry.expect("the cache has native code").path()).unwrap();
    let elf = bytes.windows(4).position(|window| window == b"\x7fELF").expect("native code is an ELF image");
    bytes[elf..].to_vec()
}

#[test]
fn a_component_that_answers_no_requests_is_refused_with_the_reason() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = BENCH.running();
    for bytes in [wat::parse_str("(component)").unwrap(), b"\0asm\x0d\0\x01\0".to_vec()] {
        let evidence = BENCH.signed(&Evidence::honest("shapeless", &bytes));
        let [verify, start] = BENCH.hand_over("shapeless", &bytes, Some(&evidence));
        verify.ok();
        assert_refusal(&start, 13, "component.no-handler", "an empty component");
        assert!(message(&start).contains("wasi:http/incoming-handler"), "{start:?}");
        BENCH.recorded(&start, "shapeless");
        BENCH.undisturbed(&before);
    }
}

#[test]
fn only_the_one_media_type_is_taken() {
    let bytes = marked("media type");
    for media_type in [
        "application/vnd.dev.sigstore.bundle+json;version=0.1",
        "application/vnd.dev.sigstore.bundle+json;version=0.2",
        "application/vnd.dev.sigstore.bundle.v0.4+json",
    ] {
        let evidence = Evidence { media_type: media_type.to_owned(), ..Evidence::honest("victim", &bytes) };
        BENCH.refused("media-type", &bytes, Some(&BENCH.signed(&evidence)), 10, "evidence.media-type");
    }
}

#[test]
fn a_bundle_has_exactly_one_signature() {
    let bytes = marked("signatures");
    let mut bundle = Evidence::honest("victim", &bytes).sign(&BENCH.signer);
    let signature = bundle["dsseEnvelope"]["signatures"][0].clone();
    bundle["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(signature);
    BENCH.refused("two-signatures", &bytes, Some(&bundle.to_string()), 10, "evidence.signatures");
    bundle["dsseEnvelope"]["signatures"] = json!([]);
    BENCH.refused("zero-signatures", &bytes, Some(&bundle.to_string()), 10, "evidence.signatures");
}

#[test]
fn bundles_of_other_kinds_are_refused() {
    let bytes = marked("kinds");
    let good = Evidence::honest("victim", &bytes).sign(&BENCH.signer);
    // A certificate beside a key, a certificate that is none, a signature over the file beside an envelope.
    let mut both = good.clone();
    both["verificationMaterial"]["certificate"] = json!({ "rawBytes": "" });
    BENCH.refused("key-and-certificate", &bytes, Some(&both.to_string()), 10, "evidence.malformed");
    let mut keyless = good.clone();
    keyless["verificationMaterial"] = json!({ "certificate": { "rawBytes": "" } });
    BENCH.refused("keyless", &bytes, Some(&keyless.to_string()), 11, "signature.certificate");
    let mut plain = good.clone();
    plain["messageSignature"] = json!({ "signature": "" });
    BENCH.refused("message-and-envelope", &bytes, Some(&plain.to_string()), 10, "evidence.malformed");
    plain.as_object_mut().unwrap().remove("dsseEnvelope");
    BENCH.refused("message-signature", &bytes, Some(&plain.to_string()), 11, "signature.bad");
    let mut unknown = good;
    unknown["verificationMaterial"]["danger"] = json!(true);
    BENCH.refused("unknown-member", &bytes, Some(&unknown.to_string()), 10, "evidence.malformed");
}

#[test]
fn a_signed_statement_of_another_kind_is_no_claim() {
    let bytes = marked("types");
    let honest = Evidence::honest("victim", &bytes);
    for (file, evidence) in [
        ("predicate-type", Evidence { predicate_type: "https://slsa.dev/provenance/v1".to_owned(), ..honest.clone() }),
        ("payload-type", Evidence { payload_type: "application/json".to_owned(), ..honest.clone() }),
    ] {
        BENCH.refused(file, &bytes, Some(&BENCH.signed(&evidence)), 13, "claims.type");
    }
    let mut statement = honest.statement();
    statement["_type"] = "https://in-toto.io/Statement/v0.1".into();
    let evidence = honest.sign_payload(&statement.to_string(), &BENCH.signer).to_string();
    BENCH.refused("statement-type", &bytes, Some(&evidence), 13, "claims.type");
    let mut statement = honest.statement();
    let other = json!({ "name": "other", "digest": { "sha256": "0".repeat(64) } });
    statement["subject"].as_array_mut().unwrap().push(other);
    let evidence = honest.sign_payload(&statement.to_string(), &BENCH.signer).to_string();
    BENCH.refused("two-subjects", &bytes, Some(&evidence), 13, "claims.subjects");
}

#[test]
fn a_trust_policy_is_no_claim_about_a_component() {
    let bytes = marked("cross type");
    let signed = std::fs::read_to_string(BENCH.host.site().file("trust.signed.json")).unwrap();
    let mut bundle = Evidence::honest("victim", &bytes).sign(&BENCH.signer);
    bundle["dsseEnvelope"] = serde_json::from_str(&signed).unwrap();
    BENCH.refused("trust-as-claims", &bytes, Some(&bundle.to_string()), 11, "signature.bad");
}

#[test]
fn a_json_key_that_is_there_twice_is_refused_at_every_depth() {
    let bytes = marked("twice");
    let honest = Evidence::honest("victim", &bytes);
    let statement = honest.statement().to_string();
    for (file, from, to) in [
        ("twice-in-the-statement", "{\"_type\"", "{\"predicateType\":\"x\",\"_type\""),
        ("twice-in-the-claims", "\"component\":{", "\"component\":{\"revision\":9,"),
        ("twice-in-the-subject", "\"digest\":{", "\"digest\":{\"sha256\":\"00\","),
    ] {
        assert!(statement.contains(from), "{statement}");
        let evidence = honest.sign_payload(&statement.replacen(from, to, 1), &BENCH.signer).to_string();
        BENCH.refused(file, &bytes, Some(&evidence), 13, "claims.type");
    }
    let bundle =
        BENCH.signed(&honest).replacen('{', "{\"mediaType\":\"application/vnd.dev.sigstore.bundle.v0.3+json\",", 1);
    BENCH.refused("twice-in-the-bundle", &bytes, Some(&bundle), 10, "evidence.malformed");
}

#[test]
fn claims_that_this_build_does_not_understand_are_refused() {
    let bytes = marked("malformed claims");
    for (file, member, value) in [
        ("unknown-claim", "sandbox", json!("off")),
        ("critical", "critical", json!(["future"])),
        ("other-kind", "kind", json!("module")),
        ("no-revision", "component", json!({ "name": "test:victim", "version": "1.0.0" })),
        ("path-upwards", "identity", json!({ "path": "ns/test/sa/../../bank" })),
    ] {
        let mut evidence = Evidence::honest("victim", &bytes);
        evidence.claims[member] = value;
        BENCH.refused(file, &bytes, Some(&BENCH.signed(&evidence)), 13, "claims.malformed");
    }
}

#[test]
fn one_good_bundle_among_bad_ones_is_enough_and_bad_ones_alone_are_not() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bytes = marked("several");
    let path = guests::put(BENCH.host.site().path(), "several.wasm", &bytes);
    let honest = Evidence::honest("victim", &bytes);
    let put = |name: &str, bundle: &Value| guests::put(BENCH.host.site().path(), name, bundle.to_string().as_bytes());
    let stranger = put("stranger.json", &honest.sign(&forge::new_key(KeyKind::Signer)));
    let good = put("good.json", &honest.sign(&BENCH.signer));
    let [path, stranger, good] = [&path, &stranger, &good].map(|path| path.to_str().unwrap());
    BENCH.host.run(["verify", path, "--bundle", stranger, "--bundle", good]).ok();
    let both_bad = BENCH.host.run(["start", path, "--bundle", stranger, "--bundle", stranger]);
    assert_refusal(&both_bad, 12, "signer.unknown", "two bad bundles");
}

/// A trust policy in the place of the good one: what stands there, and the code.
type BadTrust<'a> = (&'a str, Option<String>, &'a str);

#[test]
fn a_trust_policy_that_cannot_be_trusted_admits_nothing() {
    let mut site = Site::new();
    site.guest("hello", "");
    let root = forge::key(&site.file("root.key"));
    let host = Host::ready(site);
    let file = host.site().file("trust.signed.json");
    let good = std::fs::read_to_string(&file).unwrap();
    let document = forge::trust_document(host.site());
    let bent = |member: &str, value: Value| {
        let mut document = document.clone();
        document[member] = value;
        document
    };
    let signed = |document: &Value| Some(forge::trust(document, &[&root]).to_string());
    let mut flipped: Value = serde_json::from_str(&good).unwrap();
    let signature = &mut flipped["signatures"][0]["sig"];
    *signature = forge::flipped(signature.as_str().unwrap()).into();
    let stranger = forge::new_key(KeyKind::Root);
    let signer = forge::key(&host.site().file("signer.key"));
    let mut replaced_roots = bent("roots", json!([stranger.public().to_string()]));
    replaced_roots["version"] = 99.into();
    let mut over = bent("expiresAt", json!(forge::at(-1)));
    over["issuedAt"] = forge::at(-7200).into();
    let rows: &[BadTrust<'_>] = &[
        ("without a signature around it", Some(document.to_string()), "trust.invalid"),
        ("with no signature in it", Some(forge::trust(&document, &[]).to_string()), "trust.invalid"),
        ("signed by an unknown root", Some(forge::trust(&document, &[&stranger]).to_string()), "trust.unsigned"),
        ("signed by a signer", Some(forge::trust(&document, &[&signer]).to_string()), "trust.unsigned"),
        ("with a bad signature", Some(flipped.to_string()), "trust.unsigned"),
        ("with roots of its own", Some(forge::trust(&replaced_roots, &[&stranger]).to_string()), "trust.unsigned"),
        ("that the new roots have not signed", signed(&replaced_roots), "trust.unsigned"),
        ("that is over", signed(&over), "trust.stale"),
        ("that is not valid yet", signed(&bent("issuedAt", json!(forge::at(600)))), "trust.stale"),
        ("that is older than one seen", signed(&bent("version", json!(1))), "trust.rolled-back"),
        ("with an unknown member", signed(&bent("danger", json!(true))), "trust.invalid"),
        ("that is missing", None, "trust.unreadable"),
    ];
    assert!(document["version"].as_u64().unwrap() > 1, "the site's policy must not be the first");
    for (what, text, code) in rows {
        match text {
            Some(text) => std::fs::write(&file, text).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let verify = host.run(["verify", "hello.wasm"]);
        assert_refusal(&verify, 17, code, &format!("verify with a trust policy {what}"));
        Host::signal(host.supervisor(), "HUP");
        until(&format!("not ready with a trust policy {what}"), || {
            let status = host.ask_status(0);
            status["problems"].as_array().is_some_and(|problems| {
                problems.iter().any(|problem| problem.as_str().unwrap_or_default().starts_with(code))
            })
        });
        let start = host.run(["start", "hello.wasm"]);
        assert_refusal(&start, 17, code, &format!("start with a trust policy {what}"));
        let reference = start.json()["error"]["details"]["reference"].as_str().unwrap().to_owned();
        assert_eq!(host.record(&[("ref", &reference)])["code"], *code);
        assert_eq!(http::get(host.http(), "/hello", &[]).status, 200, "what runs goes on");
        std::fs::write(&file, &good).unwrap();
        Host::signal(host.supervisor(), "HUP");
        until("ready again", || host.ask_status(0)["ready"] == true);
    }
    host.run(["start", "hello.wasm"]).ok();
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + portcullis_tests::patience::LONG;
    while !holds() {
        assert!(Instant::now() < end, "{what}: it never was");
        std::thread::sleep(Duration::from_millis(20));
    }
}
