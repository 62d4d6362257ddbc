use portcullis_signing::{DecisionRecord, Verdict};
use serde_json::{Value, json};

use crate::fixture::{World, claims, entry, key};
use portcullis_signing::{Claims, KeyKind, sign_component};

#[test]
fn what_was_signed_properly_is_verified() {
    let world = World::new();
    let verified = world.verify(&[&world.bundle(&claims())]).unwrap();
    assert_eq!(verified.claims().name().as_str(), "demo:greeter");
    assert_eq!(verified.digest(), world.component.digest());
    assert_eq!((verified.signer().name(), verified.signer().group()), ("builder", "ci"));
    assert_eq!(verified.signer().id().as_str(), world.signer.public().to_string());
    assert_eq!((verified.policy_version(), verified.policy_digest()), (3, world.policy().digest()));
    assert_eq!(verified.spiffe_path(), "ns/demo/sa/greeter");
    let imports: Vec<String> = verified.interfaces().imports().iter().map(ToString::to_string).collect();
    assert_eq!(imports, ["log", "wasi:http/types@0.2.3"]);
}

#[test]
fn the_same_input_gives_the_same_bundle() {
    let world = World::new();
    assert_eq!(world.bundle(&claims()), world.bundle(&claims()));
}

#[test]
fn a_bundle_has_the_form_that_sigstore_tools_write() {
    let world = World::new();
    let bundle = world.bundle(&claims());
    assert_eq!(bundle.last(), Some(&b'\n'));
    let value: Value = serde_json::from_slice(&bundle).unwrap();
    assert_eq!(value["mediaType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(value["verificationMaterial"]["publicKey"]["hint"], world.signer.public().to_string());
    assert_eq!(value["dsseEnvelope"]["payloadType"], "application/vnd.in-toto+json");
    assert_eq!(value["dsseEnvelope"]["signatures"].as_array().unwrap().len(), 1);
}

#[test]
fn unknown_fields_beside_the_predicate_are_ignored_as_the_specifications_demand() {
    let world = World::new();
    let mut statement = world.statement(&claims());
    statement["future"] = json!(1);
    let mut bundle: Value = serde_json::from_slice(&world.forge_statement(&statement)).unwrap();
    bundle["dsseEnvelope"]["future"] = json!(1);
    bundle["dsseEnvelope"]["signatures"][0]["keyid"] = json!("any");
    assert_eq!(world.code(bundle.to_string().as_bytes()), "verified");
}

#[test]
fn a_bundle_without_a_hint_is_tried_with_every_signer() {
    let mut world = World::new();
    world.document.add_signer(entry("another", &key(KeyKind::Signer))).unwrap();
    let mut bundle: Value = serde_json::from_slice(&world.bundle(&claims())).unwrap();
    for material in [json!({"publicKey": {"hint": ""}}), json!({"publicKey": {}})] {
        bundle["verificationMaterial"] = material;
        assert_eq!(world.code(bundle.to_string().as_bytes()), "verified");
    }
}

#[test]
fn one_good_piece_of_evidence_is_enough() {
    let world = World::new();
    let good = world.bundle(&claims());
    assert!(world.verify(&[b"rubbish", &good]).is_ok());
    assert!(world.verify(&[&good, b"rubbish"]).is_ok());
}

#[test]
fn of_several_refusals_the_one_that_got_furthest_is_told() {
    let world = World::new();
    let mut other = claims();
    other["audience"] = json!(["elsewhere"]);
    let refusal = world.verify(&[b"rubbish", &world.forge_claims(&other), b"{}"]).unwrap_err();
    assert_eq!(refusal.code().as_str(), "claims.audience");
    assert_eq!(refusal.others(), 2);
}

#[test]
fn both_verdicts_have_one_record() {
    let world = World::new();
    let verified = world.verify(&[&world.bundle(&claims())]).unwrap();
    let record = DecisionRecord::new(Ok(&verified));
    assert_eq!(record.verdict(), Verdict::Verified);
    let value = serde_json::to_value(&record).unwrap();
    assert_eq!(value["digest"], world.component.digest().to_string());
    assert_eq!(
        (&value["verdict"], &value["exitCode"], &value["policyVersion"]),
        (&json!("verified"), &json!(0), &json!(3))
    );
    assert_eq!(value["claims"]["name"], "demo:greeter");
    assert_eq!(value["signer"]["name"], "builder");

    let refusal = world.verify(&[]).unwrap_err();
    let value = serde_json::to_value(DecisionRecord::new(Err(&refusal))).unwrap();
    assert_eq!(value, serde_json::to_value(&refusal).unwrap());
    assert_eq!(
        (&value["verdict"], &value["code"], &value["id"]),
        (&json!("refused"), &json!("evidence.none"), &json!("S1001"))
    );
    assert_eq!((&value["exitCode"], &value["policyVersion"]), (&json!(10), &json!(3)));
    assert_eq!(value["digest"], world.component.digest().to_string());
}

#[test]
fn the_signer_refuses_what_no_host_would_admit() {
    let world = World::new();
    let parse = |value: &Value| Claims::parse(value.to_string().as_bytes()).unwrap();
    let good = parse(&claims());
    let sign =
        |component: &_, claims: &_, key: &_, now| sign_component(component, claims, key, now).unwrap_err().to_string();
    let now = world.now;
    assert!(sign(&world.component, &good, &world.root, now).contains("a signer key is needed"));
    assert!(sign(&world.component, &good, &world.signer, good.expires_at()).contains("expired"));
    let mut hiding = claims();
    hiding["imports"] = json!(["log"]);
    assert!(sign(&world.component, &parse(&hiding), &world.signer, now).contains("wasi:http/types@0.2.3"));
    let module = crate::fixture::wat("(module)");
    assert!(sign(&module, &good, &world.signer, now).contains("core module"));
}
