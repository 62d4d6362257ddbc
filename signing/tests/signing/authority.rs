//! Chains of delegation, thresholds by role, further evidence.

use portcullis_signing::keyless::Transparency;
use portcullis_signing::trust::{Onward, Requirement, RoleThreshold, SpiffeIdentity, sign_delegation};
use portcullis_signing::{
    Claims, Delegation, KeyKind, SecretKey, SignerEntry, SignerIdentity, SignerKind, TrustError, sign_component,
};
use serde_json::{Value, json};
use time::macros::datetime;

use crate::fixture::{NOW, World, claims, entry, key, with};
use crate::foreign::signed_by_svid;
use crate::svids;

/// A world whose signer may hand on, two levels deep.
pub(crate) fn delegating() -> World {
    let mut world = World::new();
    let mut account = entry("account", &key(KeyKind::Signer));
    account.roles = vec!["builder".to_owned(), "approver".to_owned()];
    account.delegation.onward = Some(Onward { depth: 2, kinds: vec![SignerKind::Ed25519, SignerKind::P256] });
    account.identity = world.signer.public().into();
    // The same key under another entry: the fixture's own signer gives way.
    world.document = serde_json::from_value::<portcullis_signing::TrustDocument>(with(
        json!(world.document),
        "/signers",
        json!([account]),
    ))
    .unwrap();
    world
}

/// A narrow entry for a key, as a delegation hands it on.
pub(crate) fn narrow(name: &str, key: &SecretKey) -> SignerEntry {
    SignerEntry {
        name: name.to_owned(),
        identity: key.public().into(),
        group: None,
        roles: Vec::new(),
        parent: None,
        delegation: Delegation {
            names: vec!["demo:greeter".parse().unwrap()],
            identity_paths: vec!["ns/demo/sa/greeter".parse().unwrap()],
            audiences: vec!["demo".parse().unwrap()],
            imports: vec!["wasi:http/types".parse().unwrap(), "log".parse().unwrap()],
            max_lifetime: "480h".parse().unwrap(),
            not_after: Some(datetime!(2026-12-24 0:00 UTC)),
            onward: None,
        },
    }
}

pub(crate) fn bundle(world: &World, key: &SecretKey, claims: &Value) -> Vec<u8> {
    let claims = Claims::parse(claims.to_string().as_bytes()).unwrap();
    sign_component(&world.component, &claims, key, NOW).unwrap()
}

#[test]
fn a_signer_may_vouch_for_another_within_what_it_has() {
    let (world, ci) = (delegating(), key(KeyKind::Signer));
    let link = sign_delegation(&narrow("ci", &ci), &world.signer).unwrap();
    let bundle = bundle(&world, &ci, &claims());
    assert_eq!(world.code(&bundle), "signer.unknown");
    for evidence in [[&bundle[..], &link], [&link, &bundle]] {
        let verified = world.verify(&evidence).unwrap();
        let signer = verified.signer();
        assert_eq!((signer.name(), signer.group()), ("account/ci", "ci"));
        assert_eq!(signer.delegated_by().collect::<Vec<_>>(), ["account"]);
    }
    // Alone it says nothing about any file.
    assert_eq!(world.code(&link), "evidence.none");
}

#[test]
fn a_chain_of_three_is_the_longest() {
    let world = delegating();
    let keys: Vec<_> = (0..3).map(|_| key(KeyKind::Signer)).collect();
    let mut first = narrow("team", &keys[0]);
    first.delegation.onward = Some(Onward { depth: 1, kinds: vec![SignerKind::Ed25519] });
    let mut second = narrow("ci", &keys[1]);
    let links = [
        sign_delegation(&first, &world.signer).unwrap(),
        sign_delegation(&second, &keys[0]).unwrap(),
        sign_delegation(&narrow("runner", &keys[2]), &keys[1]).unwrap(),
    ];
    let of = |position: usize| bundle(&world, &keys[position], &claims());
    // In any order: a link may come before the one that it hangs on.
    assert_eq!(world.code_of(&[&of(1), &links[1], &links[0]]), "verified");
    assert_eq!(world.code_of(&[&of(1), &links[1]]), "signer.unknown");
    assert_eq!(world.code_of(&[&of(2), &links[2], &links[1], &links[0]]), "delegation.too-deep");
    // Nor can the depth be given that one does not have.
    second.delegation.onward = Some(Onward { depth: 1, kinds: vec![SignerKind::Ed25519] });
    let wide = sign_delegation(&second, &keys[0]).unwrap();
    assert_eq!(world.code_of(&[&of(1), &wide, &links[0]]), "delegation.widens");
}

#[test]
fn a_delegation_that_widens_anything_is_refused() {
    let (world, ci) = (delegating(), key(KeyKind::Signer));
    let bundle = bundle(&world, &ci, &claims());
    let wider = |change: fn(&mut SignerEntry)| {
        let mut entry = narrow("ci", &ci);
        change(&mut entry);
        world.code_of(&[&bundle, &sign_delegation(&entry, &world.signer).unwrap()])
    };
    assert_eq!(wider(|_| {}), "verified");
    let changes: [fn(&mut SignerEntry); 6] = [
        |entry| entry.delegation.names.push("other:greeter".parse().unwrap()),
        |entry| entry.delegation.identity_paths.push("ns/*".parse().unwrap()),
        |entry| entry.delegation.audiences.push("prod".parse().unwrap()),
        |entry| entry.delegation.imports.push("wasi:*".parse().unwrap()),
        |entry| entry.delegation.max_lifetime = "721h".parse().unwrap(),
        |entry| entry.roles.push("root".to_owned()),
    ];
    for change in changes {
        assert_eq!(wider(change), "delegation.widens");
    }
    // Narrower than the claims: the delegation holds, and refuses them.
    assert_eq!(wider(|entry| entry.delegation.names = vec!["demo:other".parse().unwrap()]), "signer.name");
    assert_eq!(wider(|entry| entry.delegation.not_after = Some(NOW)), "signer.expired");
}

#[test]
fn a_delegation_counts_only_from_whom_it_says_and_to_whom_is_allowed() {
    let (world, ci, stranger) = (delegating(), key(KeyKind::Signer), key(KeyKind::Signer));
    let bundle = bundle(&world, &ci, &claims());
    let stolen = sign_delegation(&narrow("ci", &ci), &stranger).unwrap();
    assert_eq!(world.code_of(&[&bundle, &stolen]), "signer.unknown");
    assert_eq!(world.code(&stolen), "delegation.unsigned");
    // Signed anew by somebody who may delegate, but made by another.
    let value: Value = serde_json::from_slice(&stolen).unwrap();
    let payload = base64_decode(value["dsseEnvelope"]["payload"].as_str().unwrap());
    let taken = world.forge("application/vnd.portcullis.delegation.v1+json", &payload);
    assert_eq!(world.code(&taken), "delegation.invalid");
    // Who may not delegate at all.
    let plain = World::new();
    let link = sign_delegation(&narrow("ci", &ci), &plain.signer).unwrap();
    assert_eq!(plain.code(&link), "delegation.widens");
    // A link for a signer that is known already, such as its own maker: no cycle can begin.
    let own = sign_delegation(&narrow("ci", &world.signer), &world.signer).unwrap();
    assert_eq!(world.code(&own), "delegation.invalid");
    // It must end, and takes neither a group nor a parent.
    for change in [
        |entry: &mut SignerEntry| entry.delegation.not_after = None,
        |entry: &mut SignerEntry| entry.group = Some("admins".to_owned()),
        |entry: &mut SignerEntry| entry.parent = Some("account".to_owned()),
    ] {
        let mut entry = narrow("ci", &ci);
        change(&mut entry);
        assert_eq!(sign_delegation(&entry, &world.signer).unwrap_err().code().as_str(), "delegation.invalid");
    }
}

fn base64_decode(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

#[test]
fn a_kind_of_signer_that_may_not_be_delegated_to_is_refused() {
    let mut world = delegating();
    let mut document = json!(world.document);
    document["signers"][0]["delegation"]["onward"]["kinds"] = json!(["p256"]);
    world.document = serde_json::from_value(document).unwrap();
    let ci = key(KeyKind::Signer);
    let link = sign_delegation(&narrow("ci", &ci), &world.signer).unwrap();
    assert_eq!(world.code(&link), "signer.kind");
}

#[test]
fn a_changed_delegation_is_refused_at_every_byte() {
    let (world, ci) = (delegating(), key(KeyKind::Signer));
    let link = sign_delegation(&narrow("ci", &ci), &world.signer).unwrap();
    let bundle = bundle(&world, &ci, &claims());
    let policy = world.policy();
    for position in 0..link.len() {
        let mut changed = link.clone();
        changed[position] ^= 1;
        let refused = world.verify_under(&policy, &[&bundle, &changed]).is_err();
        assert!(refused || link[position].is_ascii_whitespace(), "byte {position}");
    }
}

#[test]
fn a_chain_in_the_policy_narrows_when_it_is_loaded_and_when_it_is_used() {
    let mut world = World::new();
    let (account, ci) = (key(KeyKind::Signer), key(KeyKind::Signer));
    let mut above = entry("account", &account);
    above.delegation.onward = Some(Onward { depth: 1, kinds: vec![SignerKind::Ed25519] });
    above.delegation.not_after = Some(datetime!(2026-11-22 0:00 UTC));
    world.document.add_signer(above).unwrap();
    let child = |change: fn(&mut SignerEntry)| {
        let mut child = narrow("ci", &ci);
        child.parent = Some("account".to_owned());
        child.delegation.not_after = None;
        change(&mut child);
        child
    };
    let mut document = world.document.clone();
    let problem = |change| match document.clone().add_signer(child(change)) {
        Err(TrustError::Invalid { problems }) => problems[0].to_string(),
        other => panic!("{other:?}"),
    };
    assert!(problem(|child| child.delegation.names.push("other:x".parse().unwrap())).contains("wider"));
    assert!(problem(|child| child.delegation.not_after = Some(datetime!(2027-01-01 0:00 UTC))).contains("notAfter"));
    assert!(problem(|child| child.parent = Some("nobody".to_owned())).contains("no signer"));
    assert!(problem(|child| child.parent = Some("builder".to_owned())).contains("onward"));
    assert!(problem(|child| child.parent = Some("ci".to_owned())).contains("cycle"));
    document.add_signer(child(|_| {})).unwrap();
    world.document = document;
    let bundle = bundle(&world, &ci, &claims());
    assert_eq!(world.code(&bundle), "verified");
    // What ends above ends below.
    world.now = datetime!(2026-11-22 0:00 UTC);
    assert_eq!(world.code(&bundle), "signer.expired");
}

#[test]
fn a_cycle_and_a_long_chain_refuse_the_policy() {
    let world = World::new();
    let keys: Vec<_> = (0..4).map(|_| key(KeyKind::Signer)).collect();
    let policy = |parents: [Option<&str>; 4]| {
        let signers: Vec<_> = keys
            .iter()
            .zip(["a", "b", "c", "d"])
            .zip(parents)
            .map(|((key, name), parent)| {
                let mut entry = entry(name, key);
                entry.parent = parent.map(ToOwned::to_owned);
                entry
            })
            .collect();
        let document = with(json!(world.document), "/signers", json!(signers)).to_string();
        portcullis_signing::TrustDocument::parse(document.as_bytes()).unwrap_err().to_string()
    };
    assert!(policy([Some("b"), Some("a"), None, None]).contains("cycle"));
    assert!(policy([Some("a"), None, None, None]).contains("cycle"));
    assert!(policy([None, Some("a"), Some("b"), Some("c")]).contains("longer than 3"));
}

/// A policy that wants one builder and two approvers for everything in `demo`.
fn four_eyes() -> (World, [SecretKey; 2]) {
    let mut world = World::new();
    let approvers = [key(KeyKind::Signer), key(KeyKind::Signer)];
    let mut document = json!(world.document);
    document["signers"][0]["roles"] = json!(["builder"]);
    world.document = serde_json::from_value(document).unwrap();
    for (name, approver) in ["anna", "bert"].into_iter().zip(&approvers) {
        let mut entry = entry(name, approver);
        entry.roles = vec!["approver".to_owned()];
        world.document.add_signer(entry).unwrap();
    }
    let part = |role: &str, k| RoleThreshold { role: role.to_owned(), k };
    let requirement = Requirement {
        names: vec!["demo:*".parse().unwrap()],
        all: vec![part("builder", 1), part("approver", 2)],
        evidence: Vec::new(),
    };
    world.document.add_requirement(requirement).unwrap();
    (world, approvers)
}

#[test]
fn a_threshold_needs_distinct_signers_of_each_role_over_the_same_claims() {
    let (world, [anna, bert]) = four_eyes();
    let [own, a, b] = [&world.signer, &anna, &bert].map(|key| bundle(&world, key, &claims()));
    assert_eq!(world.code_of(&[&own]), "signer.threshold");
    assert_eq!(world.code_of(&[&own, &a, &a, &a]), "signer.threshold");
    assert_eq!(world.code_of(&[&a, &b]), "signer.threshold");
    let verified = world.verify(&[&b, &a, &own]).unwrap();
    // The order is that of the policy, whatever the order of the evidence.
    assert_eq!(verified.signers().map(|signer| signer.name()).collect::<Vec<_>>(), ["builder", "anna", "bert"]);
    let other = bundle(&world, &bert, &with(claims(), "/component/revision", 8));
    assert_eq!(world.code_of(&[&own, &a, &other]), "signer.threshold");
    let damaged = with(serde_json::from_slice(&b).unwrap(), "/dsseEnvelope/payload", "e30=").to_string();
    assert_eq!(world.code_of(&[&own, &a, damaged.as_bytes()]), "signer.threshold");
}

#[test]
fn whoever_vouches_for_many_counts_once() {
    let mut world = delegating();
    let requirement = Requirement {
        names: vec!["demo:*".parse().unwrap()],
        all: vec![RoleThreshold { role: "approver".to_owned(), k: 1 }],
        evidence: Vec::new(),
    };
    world.document.add_requirement(requirement).unwrap();
    let mut second = entry("second", &key(KeyKind::Signer));
    second.roles = vec!["approver".to_owned()];
    world.document.add_signer(second).unwrap();
    let mut document = json!(world.document);
    document["requirements"][0]["all"][0]["k"] = json!(2);
    world.document = serde_json::from_value(document).unwrap();
    let sock_puppet = key(KeyKind::Signer);
    let mut puppet = narrow("puppet", &sock_puppet);
    puppet.roles = vec!["approver".to_owned()];
    let link = sign_delegation(&puppet, &world.signer).unwrap();
    let (own, other) = (bundle(&world, &world.signer, &claims()), bundle(&world, &sock_puppet, &claims()));
    assert_eq!(world.code_of(&[&own, &other, &link]), "signer.threshold");
}

#[test]
fn whoever_is_recognised_under_several_entries_counts_once() {
    let authority = svids::authority();
    let mut world = World::new();
    world.document.add_spiffe_bundle("td.example".to_owned(), svids::bundle(&[&authority])).unwrap();
    for (name, path) in [("exact", "ci/anna"), ("wide", "ci/*")] {
        let mut signer = entry(name, &world.signer);
        signer.roles = vec!["approver".to_owned()];
        signer.identity = SignerIdentity::Spiffe(SpiffeIdentity {
            trust_domain: "td.example".to_owned(),
            path: path.parse().unwrap(),
            root: None,
            issuer: None,
            transparency: Transparency::Log,
        });
        world.document.add_signer(signer).unwrap();
    }
    let requirement = Requirement {
        names: vec!["demo:*".parse().unwrap()],
        all: vec![RoleThreshold { role: "approver".to_owned(), k: 2 }],
        evidence: Vec::new(),
    };
    world.document.add_requirement(requirement).unwrap();
    let svid = |id: &str| {
        let wanted = svids::Wanted {
            id: "leaf",
            uris: vec![id],
            from: "261121110000Z",
            to: "261121130000Z",
            ca: false,
            usage: 0x80,
        };
        signed_by_svid(&world, &svids::certificate(&wanted, Some((&authority, "authority"))))
    };
    let [anna, again, bert] = ["anna", "anna", "bert"].map(|who| svid(&format!("spiffe://td.example/ci/{who}")));
    assert_eq!(world.code_of(&[&anna, &again]), "signer.threshold");
    assert_eq!(world.code_of(&[&anna, &bert]), "verified");
}

#[test]
fn a_revoked_signer_counts_for_nothing() {
    let (mut world, [anna, bert]) = four_eyes();
    let bundles = [&world.signer, &anna, &bert].map(|key| bundle(&world, key, &claims()));
    let evidence: Vec<&[u8]> = bundles.iter().map(Vec::as_slice).collect();
    assert_eq!(world.code_of(&evidence), "verified");
    world.document.add_deny(portcullis_signing::trust::Deny::signer(bert.public(), None)).unwrap();
    assert!(["signer.threshold", "revoked"].contains(&world.code_of(&evidence).as_str()));
}

#[test]
fn a_threshold_that_nobody_can_reach_refuses_the_policy() {
    let mut world = World::new();
    let requirement = |role: &str, k| Requirement {
        names: vec!["demo:*".parse().unwrap()],
        all: vec![RoleThreshold { role: role.to_owned(), k }],
        evidence: Vec::new(),
    };
    for (role, k) in [("nobody", 1), ("builder", 0)] {
        assert!(world.document.add_requirement(requirement(role, k)).is_err());
    }
}

#[test]
fn evidence_that_the_policy_demands_must_be_named_and_there() {
    const SPDX: &str = "https://spdx.dev/Document";
    let mut world = World::new();
    let requirement =
        Requirement { names: vec!["demo:*".parse().unwrap()], all: Vec::new(), evidence: vec![SPDX.to_owned()] };
    world.document.add_requirement(requirement).unwrap();
    let sbom = br#"{"spdxVersion":"SPDX-2.3"}"#;
    let mut with_sbom = claims();
    with_sbom["evidence"] = json!([{
        "predicateType": SPDX,
        "digest": {"sha256": portcullis_signing::Digest::of(sbom).hex()},
    }]);
    assert_eq!(world.code(&world.bundle(&claims())), "claims.evidence");
    let bundle = world.bundle(&with_sbom);
    assert_eq!(world.code(&bundle), "claims.evidence");
    assert_eq!(world.code_of(&[&bundle, b"{}"]), "claims.evidence");
    assert_eq!(world.code_of(&[&bundle, sbom]), "verified");
}
