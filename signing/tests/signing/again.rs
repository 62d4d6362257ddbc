//! What runs is judged again when trust changes: whatever made a signer count is asked anew, not its name and key alone.

use portcullis_signing::trust::{Deny, OriginEvidence, sign_delegation};
use portcullis_signing::{Claims, KeyKind, TrustDocument, TrustPolicy, Verified, recheck, sign_trust};
use serde_json::{Value, json};

use crate::authority::{bundle, delegating, narrow};
use crate::fixture::{CLUSTER, NOW, World, claims, entry, key};
use crate::foreign::{provenance, signed_by_svid, slsa, svid, with_svids};
use crate::svids;

/// The verdict about what was verified before, under the world's policy with a change.
fn judged(world: &World, verified: &Verified<Claims>, change: impl FnOnce(&mut Value)) -> String {
    judged_at(world, verified, NOW, change)
}

fn judged_at(
    world: &World,
    verified: &Verified<Claims>,
    now: time::OffsetDateTime,
    change: impl FnOnce(&mut Value),
) -> String {
    let mut document = json!(world.document);
    change(&mut document);
    let document: TrustDocument = serde_json::from_value(document).unwrap();
    let signed = sign_trust(&document, None, &world.root).unwrap();
    let policy = TrustPolicy::verify(&signed, &[world.root.public()], 1, now, None).unwrap();
    match recheck(verified, &policy, None, CLUSTER, now) {
        Ok(()) => "trusted".to_owned(),
        Err(refusal) => refusal.code().as_str().to_owned(),
    }
}

#[test]
fn a_signer_that_another_one_vouched_for_ends_with_what_that_one_may_hand_on() {
    let (world, ci) = (delegating(), key(KeyKind::Signer));
    let link = sign_delegation(&narrow("ci", &ci), &world.signer).unwrap();
    let verified = world.verify(&[&bundle(&world, &ci, &claims()), &link]).unwrap();
    let again = |change: &dyn Fn(&mut Value)| judged(&world, &verified, change);
    let delegation = |document: &mut Value, part: &str, to: Value| document["signers"][0]["delegation"][part] = to;
    assert_eq!(again(&|_| {}), "trusted");
    // It may hand on nothing any more, or not to such signers.
    assert_eq!(again(&|document| delegation(document, "onward", Value::Null)), "delegation.widens");
    let other_kinds = json!({ "depth": 2, "kinds": ["p256"] });
    assert_eq!(again(&|document| delegation(document, "onward", other_kinds.clone())), "signer.kind");
    // What it has is narrower now than what it handed on.
    assert_eq!(again(&|document| delegation(document, "maxLifetime", json!("300h"))), "delegation.widens");
    // Another key under its name did not make the delegation.
    let other = key(KeyKind::Signer).public();
    assert_eq!(again(&|document| document["signers"][0]["key"] = json!(other)), "signer.unknown");
    // The policy names the key itself now, with whatever it gives it.
    let own = json!(entry("ci", &ci));
    assert_eq!(again(&|document| document["signers"].as_array_mut().unwrap().push(own.clone())), "signer.unknown");
    // The delegation has an end of its own.
    let later = time::macros::datetime!(2026-12-24 0:00 UTC);
    assert_eq!(judged_at(&world, &verified, later - time::Duration::SECOND, |_| {}), "trusted");
    assert_eq!(judged_at(&world, &verified, later, |_| {}), "signer.expired");
}

#[test]
fn a_role_that_was_taken_away_does_not_count_for_those_who_had_it_from_there() {
    let (mut world, ci) = (delegating(), key(KeyKind::Signer));
    let requirement = portcullis_signing::trust::Requirement {
        names: vec!["demo:*".parse().unwrap()],
        all: vec![portcullis_signing::trust::RoleThreshold { role: "approver".to_owned(), k: 1 }],
        evidence: Vec::new(),
    };
    let mut second = entry("second", &key(KeyKind::Signer));
    second.roles = vec!["approver".to_owned()];
    world.document.add_signer(second).unwrap();
    world.document.add_requirement(requirement).unwrap();
    let mut entry = narrow("ci", &ci);
    entry.roles = vec!["approver".to_owned()];
    let link = sign_delegation(&entry, &world.signer).unwrap();
    let verified = world.verify(&[&bundle(&world, &ci, &claims()), &link]).unwrap();
    assert_eq!(judged(&world, &verified, |_| {}), "trusted");
    let taken = judged(&world, &verified, |document| document["signers"][0]["roles"] = json!(["builder"]));
    assert_eq!(taken, "delegation.widens");
}

#[test]
fn grants_of_a_group_end_when_the_signer_leaves_it() {
    let world = World::new();
    let verified = world.verify(&[&world.bundle(&claims())]).unwrap();
    assert_eq!(verified.signer().group(), "ci");
    let left = judged(&world, &verified, |document| document["signers"][0]["group"] = json!("others"));
    assert_eq!(left, "signer.unknown");
}

#[test]
fn an_authority_that_is_not_pinned_any_more_vouches_for_nothing_that_runs() {
    let (authority, other) = (svids::authority(), svids::authority());
    let world = with_svids(&authority);
    let leaf = svids::certificate(
        &svid(vec!["spiffe://td.example/ci/orders"], "261121130000Z"),
        Some((&authority, "authority")),
    );
    let verified = world.verify(&[&signed_by_svid(&world, &leaf)]).unwrap();
    let pinned = |authorities: &[&svids::Certified]| {
        let bundle = svids::bundle(authorities);
        judged(&world, &verified, |document| document["spiffeBundles"]["td.example"] = bundle)
    };
    assert_eq!(pinned(&[&authority]), "trusted");
    assert_eq!(pinned(&[&other, &authority]), "trusted");
    assert_eq!(pinned(&[&other]), "signature.certificate");
}

#[test]
fn claims_that_the_policy_supplied_end_when_it_does_not_supply_them_any_more() {
    let mut world = World::new();
    let identity = world.document.signers()[0].identity.clone();
    let mut document = json!(world.document);
    document["signers"] = json!([]);
    world.document = serde_json::from_value(document).unwrap();
    world.add_origin_signer("builder", identity, OriginEvidence::Provenance(provenance()));
    let verified = world.verify(&[&world.forge_statement(&slsa(&world))]).unwrap();
    let again = |change: &dyn Fn(&mut Value)| judged(&world, &verified, change);
    let origin = |document: &mut Value, part: &str, to: Value| document["origins"][0][part] = to;
    assert_eq!(again(&|_| {}), "trusted");
    // What matters to new loads alone stops nothing: the next revision, a later end.
    assert_eq!(again(&|document| origin(document, "revision", json!(2))), "trusted");
    assert_eq!(again(&|document| origin(document, "expiresAt", json!("2028-11-01T00:00:00Z"))), "trusted");
    assert_eq!(again(&|document| document["origins"] = json!([])), "origin.unknown");
    for (part, to) in [
        ("digest", json!(portcullis_signing::Digest::of(b"another"))),
        ("identityPath", json!("ns/demo/sa/other")),
        ("imports", json!(["log"])),
        ("expiresAt", json!("2026-11-21T12:00:00Z")),
        ("evidence", json!({ "signature": {} })),
    ] {
        assert_eq!(again(&|document| origin(document, part, to.clone())), "origin.unknown", "{part}");
    }
}

#[test]
fn a_denial_from_a_time_on_holds_where_nobody_says_when_it_was_signed() {
    let mut world = World::new();
    let signer = world.signer.public();
    let identity = world.document.signers()[0].identity.clone();
    let mut document = json!(world.document);
    document["signers"] = json!([]);
    world.document = serde_json::from_value(document).unwrap();
    world.add_origin_signer("builder", identity, OriginEvidence::Provenance(provenance()));
    let bundle = world.forge_statement(&slsa(&world));
    assert_eq!(world.code(&bundle), "verified");
    // The trust policy is older than the theft; the evidence may be younger, for all that is known.
    let after = world.document.issued_at() + time::Duration::DAY;
    world.document.add_deny(Deny::signer(signer, Some(after))).unwrap();
    assert_eq!(world.code(&bundle), "revoked");
}
