//! The deny list, changes of root keys, and whether what was verified is still to be trusted.

use portcullis_signing::trust::{
    AllowRevision, Deny, DenyListDocument, DenyListError, DenyListRule, Requirement, RoleThreshold, Roots,
    read_document, sign_rotation,
};
use portcullis_signing::{DenyList, KeyKind, PublicKey, SecretKey, TrustPolicy, recheck, sign_trust};
use serde_json::json;
use time::macros::datetime;

use crate::fixture::{CLUSTER, NOW, World, claims, entry, key};

/// A world that demands a deny list signed by one key, at most an hour old.
fn listing() -> (World, SecretKey, DenyListRule) {
    let (mut world, author) = (World::new(), key(KeyKind::Root));
    let rule = DenyListRule { keys: vec![author.public()], threshold: 1, max_age: "1h".parse().unwrap() };
    world.document.set_deny_list(Some(rule.clone())).unwrap();
    (world, author, rule)
}

fn list(version: u64, deny: Vec<Deny>) -> DenyListDocument {
    DenyListDocument { version, issued_at: datetime!(2026-11-21 11:30 UTC), deny }
}

#[test]
fn a_deny_list_that_is_demanded_must_be_there_and_fresh() {
    let (mut world, author, rule) = listing();
    let bundle = world.bundle(&claims());
    assert_eq!(world.code(&bundle), "deny-list.missing");
    let signed = list(4, Vec::new()).sign(None, &author).unwrap();
    world.deny_list = Some(DenyList::verify(&signed, &rule, Some(4)).unwrap());
    assert_eq!(world.code(&bundle), "verified");
    assert_eq!(world.verify(&[&bundle]).unwrap().deny_list_version(), Some(4));
    world.now = datetime!(2026-11-21 12:29:59 UTC);
    assert_eq!(world.code(&bundle), "verified");
    world.now = datetime!(2026-11-21 12:30 UTC);
    assert_eq!(world.code(&bundle), "deny-list.stale");
    world.now = datetime!(2026-11-21 11:00 UTC);
    assert_eq!(world.code(&bundle), "deny-list.stale");
}

#[test]
fn everything_that_a_deny_list_can_name_is_denied() {
    let (mut world, author, rule) = listing();
    let bundle = world.bundle(&claims());
    let component = *world.component.digest();
    let mut under = |deny: Vec<Deny>| {
        let signed = list(1, deny).sign(None, &author).unwrap();
        world.deny_list = Some(DenyList::verify(&signed, &rule, None).unwrap());
        world.code(&bundle)
    };
    assert_eq!(under(Vec::new()), "verified");
    assert_eq!(under(vec![Deny::digest(component)]), "revoked");
    assert_eq!(under(vec![Deny::revisions("demo:greeter".parse().unwrap(), 7, 7)]), "revoked");
    assert_eq!(under(vec![Deny::revisions("demo:greeter".parse().unwrap(), 8, 9)]), "verified");
}

#[test]
fn claims_and_signers_are_denied_by_their_own_names() {
    let (mut world, author, rule) = listing();
    let bundle = world.bundle(&claims());
    let sign = |deny: Vec<Deny>| {
        let signed = list(1, deny).sign(None, &author).unwrap();
        DenyList::verify(&signed, &rule, None).unwrap()
    };
    world.deny_list = Some(sign(Vec::new()));
    let verified = world.verify(&[&bundle]).unwrap();
    let signer = world.signer.public();
    let issued = datetime!(2026-11-20 0:00 UTC);
    for (deny, expected) in [
        (Deny::claims(*verified.claims_digest()), "revoked"),
        (Deny::claims(portcullis_signing::Digest::of(b"x")), "verified"),
        (Deny::signer(signer, None), "revoked"),
        (Deny::signer(signer, Some(issued)), "verified"),
        (Deny::signer(signer, Some(issued - time::Duration::seconds(1))), "revoked"),
        (Deny::signer(key(KeyKind::Signer).public(), None), "verified"),
    ] {
        world.deny_list = Some(sign(vec![deny]));
        assert_eq!(world.code(&bundle), expected);
    }
}

#[test]
fn a_deny_list_of_another_author_version_or_form_is_not_used() {
    let (_, author, rule) = listing();
    let good = list(4, vec![Deny::digest(portcullis_signing::Digest::of(b"x"))]);
    let signed = good.sign(None, &author).unwrap();
    let code = |bytes: &[u8], seen| {
        DenyList::verify(bytes, &rule, seen).map(|_| ()).map_err(|error: DenyListError| {
            assert!(!error.hint().is_empty());
            error.code().as_str()
        })
    };
    assert_eq!(code(&signed, Some(4)), Ok(()));
    assert_eq!(code(&signed, Some(5)), Err("deny-list.rolled-back"));
    let stranger = good.sign(None, &key(KeyKind::Root)).unwrap();
    assert_eq!(code(&stranger, None), Err("deny-list.unsigned"));
    for other in [b"".as_slice(), b"{}", b"[", json!(good).to_string().as_bytes()] {
        assert_eq!(code(other, None), Err("deny-list.invalid"));
    }
    for position in 0..signed.len() {
        let mut changed = signed.clone();
        changed[position] ^= 1;
        let same = DenyList::verify(&changed, &rule, None).is_ok_and(|list| *list.document() == good);
        // The name of the key beside a signature proves nothing and is not signed.
        let keyid = String::from_utf8_lossy(&signed[position.saturating_sub(80)..(position + 8).min(signed.len())])
            .contains("keyid");
        assert!(
            code(&changed, None).is_err() || (same && (keyid || signed[position].is_ascii_whitespace())),
            "{position}"
        );
    }
}

#[test]
fn a_deny_list_of_two_authors_needs_both() {
    let keys = [key(KeyKind::Root), key(KeyKind::Root)];
    let public: Vec<PublicKey> = keys.iter().map(SecretKey::public).collect();
    let rule = DenyListRule { keys: public, threshold: 2, max_age: "1h".parse().unwrap() };
    let list = list(1, Vec::new());
    let one = list.sign(None, &keys[0]).unwrap();
    assert!(matches!(DenyList::verify(&one, &rule, None), Err(DenyListError::Unsigned { found: 1, needed: 2 })));
    let two = list.sign(Some(&one), &keys[1]).unwrap();
    assert!(DenyList::verify(&two, &rule, None).is_ok());
}

/// Root keys, and a policy whose root keys they are.
fn roots(count: usize, threshold: usize) -> (Vec<SecretKey>, Roots) {
    let keys: Vec<SecretKey> = (0..count).map(|_| key(KeyKind::Root)).collect();
    let roots = keys.iter().map(SecretKey::public).collect();
    (keys, Roots { roots, threshold })
}

fn verify(bytes: &[u8], pinned: &Roots) -> Result<TrustPolicy, &'static str> {
    TrustPolicy::verify(bytes, &pinned.roots, pinned.threshold, NOW, None).map_err(|error| error.code().as_str())
}

fn link(next: &Roots, keys: &[&SecretKey]) -> Vec<u8> {
    let mut link = None;
    for key in keys {
        link = Some(sign_rotation(next, link.as_deref(), key).unwrap());
    }
    link.unwrap()
}

#[test]
fn root_keys_change_only_with_k_old_and_k_new() {
    let (old_keys, old) = roots(3, 2);
    let (new_keys, new) = roots(2, 2);
    let document = |link: &[u8]| {
        let (from, to) = (datetime!(2026-11-01 0:00 UTC), datetime!(2027-01-01 0:00 UTC));
        let mut document =
            portcullis_signing::TrustDocument::new(5, from, to, old.roots.clone(), old.threshold).unwrap();
        document.rotate(link).unwrap();
        let mut signed = None;
        for key in &new_keys {
            signed = Some(sign_trust(&document, signed.as_deref(), key).unwrap());
        }
        signed.unwrap()
    };
    let full = document(&link(&new, &[&old_keys[0], &old_keys[2], &new_keys[0], &new_keys[1]]));
    // From the old pins along the link, and from the new ones.
    assert!(verify(&full, &old).unwrap().roots().same(&new));
    assert!(verify(&full, &new).is_ok());
    let too_few_old = document(&link(&new, &[&old_keys[0], &new_keys[0], &new_keys[1]]));
    assert_eq!(verify(&too_few_old, &old).unwrap_err(), "trust.unsigned");
    let too_few_new = document(&link(&new, &[&old_keys[0], &old_keys[1], &new_keys[0]]));
    assert_eq!(verify(&too_few_new, &old).unwrap_err(), "trust.unsigned");
    // The same old key twice is one.
    let twice = document(&link(&new, &[&old_keys[0], &old_keys[0], &new_keys[0], &new_keys[1]]));
    assert_eq!(verify(&twice, &old).unwrap_err(), "trust.unsigned");
    // Other pins lead nowhere.
    assert_eq!(verify(&full, &roots(2, 2).1).unwrap_err(), "trust.unsigned");
    // The old keys, with the link in the file, do not sign policies any more.
    let (mut document, _) = read_document(&full).unwrap();
    document.reissue(6, document.issued_at(), document.expires_at()).unwrap();
    assert!(sign_trust(&document, None, &old_keys[0]).is_err());
}

#[test]
fn a_host_may_have_missed_several_changes_of_root_keys() {
    let sets: Vec<(Vec<SecretKey>, Roots)> = (0..4).map(|_| roots(1, 1)).collect();
    let (from, to) = (datetime!(2026-11-01 0:00 UTC), datetime!(2027-01-01 0:00 UTC));
    let mut document = portcullis_signing::TrustDocument::new(5, from, to, sets[0].1.roots.clone(), 1).unwrap();
    for pair in sets.windows(2) {
        document.rotate(&link(&pair[1].1, &[&pair[0].0[0], &pair[1].0[0]])).unwrap();
    }
    let signed = sign_trust(&document, None, &sets[3].0[0]).unwrap();
    for (_, pinned) in &sets {
        assert!(verify(&signed, pinned).is_ok());
    }
    // A missing link in the middle: who stands before it does not come across.
    let mut value = json!(document);
    value["rotations"].as_array_mut().unwrap().remove(1);
    let broken: portcullis_signing::TrustDocument = serde_json::from_value(value).unwrap();
    let signed = sign_trust(&broken, None, &sets[3].0[0]).unwrap();
    assert_eq!(verify(&signed, &sets[0].1).unwrap_err(), "trust.unsigned");
    assert!(verify(&signed, &sets[3].1).is_ok());
}

#[test]
fn what_was_verified_is_judged_again_by_a_newer_policy() {
    let world = World::new();
    let verified = world.verify(&[&world.bundle(&claims())]).unwrap();
    let again = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut document = json!(world.document);
        change(&mut document);
        let document: portcullis_signing::TrustDocument = serde_json::from_value(document).unwrap();
        let signed = sign_trust(&document, None, &world.root).unwrap();
        let policy = TrustPolicy::verify(&signed, &[world.root.public()], 1, NOW, None).unwrap();
        recheck(&verified, &policy, None, CLUSTER, NOW).map_err(|refusal| refusal.code().as_str())
    };
    let other = key(KeyKind::Signer);
    let mut releaser = entry("releaser", &key(KeyKind::Signer));
    releaser.roles = vec!["release".to_owned()];
    assert_eq!(again(&|_| {}), Ok(()));
    assert_eq!(again(&|document| document["deny"] = json!([Deny::digest(*verified.digest())])), Err("revoked"));
    assert_eq!(again(&|document| document["signers"] = json!([])), Err("signer.unknown"));
    assert_eq!(again(&|document| document["signers"] = json!([entry("builder", &other)])), Err("signer.unknown"));
    assert_eq!(
        again(&|document| document["signers"][0]["delegation"]["names"] = json!(["demo:other"])),
        Err("signer.name")
    );
    assert_eq!(
        again(&|document| document["floors"] = json!([{"name": "demo:greeter", "revision": 8}])),
        Err("revision.below-floor")
    );
    assert_eq!(
        again(&|document| {
            document["signers"].as_array_mut().unwrap().push(json!(releaser));
            document["requirements"] = json!([Requirement {
                names: vec!["demo:*".parse().unwrap()],
                all: vec![RoleThreshold { role: "release".to_owned(), k: 1 }],
                evidence: Vec::new(),
            }]);
        }),
        Err("signer.threshold")
    );
    let allow = AllowRevision { name: "demo:greeter".parse().unwrap(), audience: None, revision: 1 };
    assert_eq!(again(&|document| document["allowRevisions"] = json!([allow])), Ok(()));
}
