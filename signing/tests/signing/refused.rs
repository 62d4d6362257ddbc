//! Each reason to refuse, by its own test.

use portcullis_signing::trust::{AllowRevision, Deny, Floor};
use portcullis_signing::{ComponentBytes, HighWaterError, KeyKind};
use serde_json::{Value, json};
use time::macros::datetime;

use crate::fixture::{World, claims, entry, key, wat, with};

/// A world whose signer has another delegation.
fn delegated(change: impl FnOnce(&mut portcullis_signing::Delegation)) -> World {
    let mut world = World::new();
    let mut entry = entry("builder", &world.signer);
    change(&mut entry.delegation);
    world.document = portcullis_signing::TrustDocument::new(
        3,
        world.document.issued_at(),
        world.document.expires_at(),
        vec![world.root.public()],
        1,
    )
    .unwrap();
    world.document.add_signer(entry).unwrap();
    world
}

#[test]
fn no_evidence_is_refused() {
    let refusal = World::new().verify(&[]).unwrap_err();
    assert_eq!((refusal.code().as_str(), refusal.code().exit_code()), ("evidence.none", 10));
}

#[test]
fn a_component_larger_than_the_policy_allows_is_refused_before_anything_else() {
    let mut world = World::new();
    world.document.set_max_component_size(world.component.bytes().len() as u64).unwrap();
    assert_eq!(world.code(&world.bundle(&claims())), "verified");
    world.document.set_max_component_size(world.component.bytes().len() as u64 - 1).unwrap();
    assert_eq!(world.code(&world.bundle(&claims())), "component.too-large");
    assert_eq!(world.verify(&[]).unwrap_err().code().as_str(), "component.too-large");
}

#[test]
fn a_flipped_byte_of_the_signature_is_a_bad_signature() {
    let world = World::new();
    let mut bundle: Value = serde_json::from_slice(&world.bundle(&claims())).unwrap();
    let sig = bundle["dsseEnvelope"]["signatures"][0]["sig"].as_str().unwrap().to_owned();
    let flipped = format!("{}{}", if sig.starts_with('A') { 'B' } else { 'A' }, &sig[1..]);
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = json!(flipped);
    assert_eq!(world.code(bundle.to_string().as_bytes()), "signature.bad");
}

#[test]
fn a_flipped_byte_of_the_component_is_another_file() {
    let mut world = World::new();
    let bundle = world.bundle(&claims());
    let whole = world.component.bytes().to_vec();
    for position in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[position] ^= 1;
        world.component = ComponentBytes::from_vec(bytes);
        assert_eq!(world.code(&bundle), "claims.digest", "byte {position}");
    }
    world.component = ComponentBytes::from_vec(whole);
    assert_eq!(world.code(&bundle), "verified");
}

#[test]
fn a_bundle_of_another_component_is_refused() {
    let mut world = World::new();
    let bundle = world.bundle(&claims());
    world.component = wat(r#"(component (import "log" (func)))"#);
    let refusal = world.verify(&[&bundle]).unwrap_err();
    assert_eq!((refusal.code().as_str(), refusal.code().exit_code()), ("claims.digest", 13));
}

#[test]
fn a_signer_that_the_policy_does_not_name_is_unknown_and_not_bad() {
    let mut world = World::new();
    world.signer = key(KeyKind::Signer);
    let refusal = world.verify(&[&world.bundle(&claims())]).unwrap_err();
    assert_eq!((refusal.code().as_str(), refusal.code().exit_code()), ("signer.unknown", 12));
    assert!(refusal.message().contains("was not checked"), "{refusal}");

    // The same without a hint, and with a signature by nobody.
    let mut bundle: Value = serde_json::from_slice(&world.bundle(&claims())).unwrap();
    bundle["verificationMaterial"]["publicKey"]["hint"] = json!("");
    assert_eq!(world.code(bundle.to_string().as_bytes()), "signer.unknown");
}

#[test]
fn a_hint_that_names_a_trusted_key_does_not_help_another() {
    let mut world = World::new();
    let trusted = std::mem::replace(&mut world.signer, key(KeyKind::Signer)).public();
    let mut bundle: Value = serde_json::from_slice(&world.bundle(&claims())).unwrap();
    bundle["verificationMaterial"]["publicKey"]["hint"] = json!(trusted.to_string());
    assert_eq!(world.code(bundle.to_string().as_bytes()), "signature.bad");
}

#[test]
fn malformed_and_foreign_evidence_is_refused() {
    let world = World::new();
    let good: Value = serde_json::from_slice(&world.bundle(&claims())).unwrap();
    let changed = |pointer, to: Value| world.code(with(good.clone(), pointer, to).to_string().as_bytes());
    assert_eq!(world.code(b""), "evidence.malformed");
    assert_eq!(world.code(b"{\"mediaType\":"), "evidence.malformed");
    assert_eq!(world.code(&[0xff; 100]), "evidence.malformed");
    assert_eq!(
        changed("/mediaType", json!("application/vnd.dev.sigstore.bundle+json;version=0.1")),
        "evidence.media-type"
    );
    assert_eq!(changed("/verificationMaterial", json!({"certificate": {"rawBytes": "AA=="}})), "signature.certificate");
    let signature = good["dsseEnvelope"]["signatures"][0].clone();
    assert_eq!(changed("/dsseEnvelope/signatures", json!([signature, signature])), "evidence.signatures");
    let twice = good.to_string().replacen("\"dsseEnvelope\":{", "\"dsseEnvelope\":{\"payload\":\"\",", 1);
    assert_eq!(world.code(twice.as_bytes()), "evidence.malformed");
}

#[test]
fn a_signed_payload_of_another_type_is_refused() {
    let world = World::new();
    let statement = world.statement(&claims()).to_string();
    assert_eq!(world.code(&world.forge("application/json", statement.as_bytes())), "claims.type");
    assert_eq!(
        world.code(&world.forge("application/vnd.portcullis.trust-policy.v1+json", statement.as_bytes())),
        "claims.type"
    );
    // Relabelling without signing again is a bad signature already.
    let good: Value = serde_json::from_slice(&world.bundle(&claims())).unwrap();
    assert_eq!(
        world.code(with(good, "/dsseEnvelope/payloadType", "text/plain").to_string().as_bytes()),
        "signature.bad"
    );
}

#[test]
fn signed_statements_of_another_form_are_refused() {
    let world = World::new();
    let good = world.statement(&claims());
    let subject = good["subject"][0].clone();
    for (pointer, to) in [
        ("/predicateType", json!("https://slsa.dev/provenance/v1")),
        ("/_type", json!("https://in-toto.io/Statement/v0.1")),
        ("/subject", json!([subject, subject])),
        ("/subject", json!([])),
        ("/subject/0/digest", json!({"sha512": "00"})),
    ] {
        let code = if pointer == "/subject" { "claims.subjects" } else { "claims.type" };
        assert_eq!(world.code(&world.forge_statement(&with(good.clone(), pointer, to))), code, "{pointer}");
    }
    let twice = good.to_string().replacen('{', "{\"predicate\":{},", 1);
    assert_eq!(world.code(&world.forge("application/vnd.in-toto+json", twice.as_bytes())), "claims.type");
}

#[test]
fn signed_claims_of_another_form_are_refused() {
    let world = World::new();
    let mut unknown = claims();
    unknown["extra"] = json!(1);
    let mut critical = claims();
    critical["critical"] = json!(["sandboxed"]);
    for bad in [
        unknown,
        critical,
        with(claims(), "/audience", json!([])),
        with(claims(), "/kind", "module"),
        json!({}),
        json!(null),
    ] {
        assert_eq!(world.code(&world.forge_claims(&bad)), "claims.malformed", "{bad}");
    }
}

#[test]
fn claims_hold_from_their_beginning_to_their_end() {
    let mut world = World::new();
    let bundle = world.bundle(&claims());
    for (now, code) in [
        (datetime!(2026-11-19 23:58:59 UTC), "time.not-yet"),
        (datetime!(2026-11-19 23:59:00 UTC), "verified"),
        (datetime!(2026-11-30 23:59:59 UTC), "verified"),
        (datetime!(2026-12-01 00:00:00 UTC), "time.expired"),
    ] {
        world.now = now;
        assert_eq!(world.code(&bundle), code, "{now}");
    }
    world.now = datetime!(2026-11-21 12:00 UTC);
    let future = with(claims(), "/issuedAt", "2026-11-22T00:00:00Z");
    assert_eq!(world.code(&world.forge_claims(&future)), "time.not-yet");
}

#[test]
fn claims_for_another_cluster_are_refused() {
    let world = World::new();
    let code = |audience: Value| world.code(&world.forge_claims(&with(claims(), "/audience", audience)));
    assert_eq!(code(json!(["other"])), "claims.audience");
    assert_eq!(code(json!(["demo2", "dem", "Demo"])), "claims.audience");
}

#[test]
fn a_signer_speaks_only_for_what_is_delegated_to_it() {
    let world = World::new();
    let code = |pointer, to: Value| world.code(&world.forge_claims(&with(claims(), pointer, to)));
    assert_eq!(code("/component/name", json!("demos:greeter")), "signer.name");
    assert_eq!(code("/identity/path", json!("ns/prod/sa/greeter")), "signer.identity");
    assert_eq!(code("/imports", json!(["wasi:http/types@0.2.0", "log", "wasi:sockets/tcp@0.2.0"])), "signer.imports");
    assert_eq!(code("/expiresAt", json!("2026-12-20T00:00:00Z")), "verified");
    assert_eq!(code("/expiresAt", json!("2026-12-20T00:00:01Z")), "signer.lifetime");
    let elsewhere = delegated(|delegation| delegation.audiences = vec!["other".parse().unwrap()]);
    assert_eq!(elsewhere.code(&elsewhere.bundle(&claims())), "signer.audience");
    let over = delegated(|delegation| delegation.not_after = Some(datetime!(2026-11-21 12:00 UTC)));
    assert_eq!(over.code(&over.bundle(&claims())), "signer.expired");
    let nothing = delegated(|delegation| delegation.imports.clear());
    assert_eq!(nothing.code(&nothing.bundle(&claims())), "signer.imports");
}

#[test]
fn a_lifetime_cannot_be_stretched_by_beginning_it_late() {
    let world = World::new();
    let mut late = with(claims(), "/notBefore", "2026-11-21T00:00:00Z");
    late = with(late, "/issuedAt", "2026-10-01T00:00:00Z");
    assert_eq!(world.code(&world.forge_claims(&late)), "signer.lifetime");
}

#[test]
fn revisions_below_the_floor_or_the_highest_seen_are_refused() {
    let mut world = World::new();
    let bundle = world.bundle(&claims());
    for (seen, code) in
        [(Some(6), "verified"), (Some(7), "verified"), (Some(8), "revision.rolled-back"), (None, "verified")]
    {
        world.seen = Ok(seen);
        assert_eq!(world.code(&bundle), code, "{seen:?}");
    }
    world.seen = Err(HighWaterError("disk".into()));
    assert_eq!(world.code(&bundle), "revision.unknown");
    world.seen = Ok(None);
    for (revision, audience, code) in
        [(7, None, "verified"), (9, Some("other"), "verified"), (8, Some("demo"), "revision.below-floor")]
    {
        let audience = audience.map(|text: &str| text.parse().unwrap());
        world.document.add_floor(Floor { name: "demo:greeter".parse().unwrap(), audience, revision }).unwrap();
        assert_eq!(world.code(&bundle), code);
    }
}

#[test]
fn a_rollback_needs_a_signed_entry_and_never_goes_below_a_floor() {
    let mut world = World::new();
    let bundle = world.bundle(&claims());
    let name = || "demo:greeter".parse().unwrap();
    world.seen = Ok(Some(9));
    for (revision, audience) in [(6, None), (7, Some("other".parse().unwrap()))] {
        world.document.add_allow_revision(AllowRevision { name: name(), audience, revision }).unwrap();
        assert_eq!(world.code(&bundle), "revision.rolled-back");
    }
    world.document.add_allow_revision(AllowRevision { name: name(), audience: None, revision: 7 }).unwrap();
    assert_eq!(world.code(&bundle), "verified");
    world.document.add_floor(Floor { name: name(), audience: None, revision: 8 }).unwrap();
    assert_eq!(world.code(&bundle), "revision.below-floor");
}

#[test]
fn what_is_denied_is_refused() {
    let bundle_and_code = |deny: Deny, pick: fn(&World) -> Option<Deny>| {
        let mut world = World::new();
        let deny = pick(&world).unwrap_or(deny);
        world.document.add_deny(deny).unwrap();
        world.code(&world.bundle(&claims()))
    };
    let none = || Deny::digest(portcullis_signing::Digest::of(b"another file"));
    assert_eq!(bundle_and_code(none(), |_| None), "verified");
    assert_eq!(bundle_and_code(none(), |world| Some(Deny::digest(*world.component.digest()))), "revoked");
    assert_eq!(bundle_and_code(none(), |world| Some(Deny::signer(world.signer.public(), None))), "revoked");
    let before = |world: &World| Some(Deny::signer(world.signer.public(), Some(datetime!(2026-11-19 0:00 UTC))));
    assert_eq!(bundle_and_code(none(), before), "revoked");
    let after = |world: &World| Some(Deny::signer(world.signer.public(), Some(datetime!(2026-11-20 0:00 UTC))));
    assert_eq!(bundle_and_code(none(), after), "verified");
    let revisions = |min, max| Deny::revisions("demo:greeter".parse().unwrap(), min, max);
    for (min, max, code) in [(1, 6, "verified"), (1, 7, "revoked"), (7, 9, "revoked"), (8, 9, "verified")] {
        assert_eq!(bundle_and_code(revisions(min, max), |_| None), code, "{min} {max}");
    }
}

#[test]
fn what_is_not_a_component_is_refused_even_if_signed() {
    for bytes in
        [wat::parse_str("(module)").unwrap(), b"\x7fELF\x02\x01\x01native".to_vec(), Vec::new(), b"text".to_vec()]
    {
        let world = World { component: ComponentBytes::from_vec(bytes), ..World::new() };
        let refusal = world.verify(&[&world.forge_claims(&claims())]).unwrap_err();
        assert_eq!((refusal.code().as_str(), refusal.code().exit_code()), ("claims.not-component", 13));
    }
}

#[test]
fn every_hidden_import_is_named() {
    let world = World {
        component: wat(
            r#"(component (import "log" (func)) (import "wasi:http/types@0.3.0" (instance)) (import "wasi:sockets/tcp@0.2.0" (instance)))"#,
        ),
        ..World::new()
    };
    let refusal = world.verify(&[&world.forge_claims(&claims())]).unwrap_err();
    assert_eq!((refusal.code().as_str(), refusal.code().exit_code()), ("claims.imports", 13));
    assert_eq!(refusal.details()["imports"], ["wasi:http/types@0.3.0", "wasi:sockets/tcp@0.2.0"]);
    assert!(refusal.message().contains("wasi:http/types@0.3.0, wasi:sockets/tcp@0.2.0"));
}

#[test]
fn a_trust_policy_that_ended_since_it_was_loaded_admits_nothing() {
    let mut world = World::new();
    let long = with(claims(), "/expiresAt", "2026-12-10T00:00:00Z");
    let bundle = world.bundle(&long);
    world.now = datetime!(2027-01-01 0:00 UTC);
    assert_eq!(world.code(&bundle), "trust.stale");
}
