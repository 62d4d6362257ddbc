//! The signed trust policy.

use portcullis_signing::trust::read_document;
use portcullis_signing::{KeyKind, PublicKey, SecretKey, TrustDocument, TrustError, TrustPolicy, sign_trust};
use serde_json::{Value, json};
use time::macros::datetime;

use crate::fixture::{NOW, World, entry, key};

fn roots(count: usize) -> (Vec<SecretKey>, Vec<PublicKey>) {
    let keys: Vec<_> = (0..count).map(|_| key(KeyKind::Root)).collect();
    let public = keys.iter().map(SecretKey::public).collect();
    (keys, public)
}

fn document(roots: &[PublicKey], threshold: usize) -> TrustDocument {
    TrustDocument::new(5, datetime!(2026-11-01 0:00 UTC), datetime!(2027-01-01 0:00 UTC), roots.to_vec(), threshold)
        .unwrap()
}

fn verify(bytes: &[u8], roots: &[PublicKey], threshold: usize) -> Result<TrustPolicy, String> {
    TrustPolicy::verify(bytes, roots, threshold, NOW, None).map_err(|error| error.code().as_str().to_owned())
}

#[test]
fn k_of_n_roots_must_have_signed() {
    let (keys, public) = roots(3);
    let document = document(&public, 2);
    let one = sign_trust(&document, None, &keys[0]).unwrap();
    assert_eq!(verify(&one, &public, 2).unwrap_err(), "trust.unsigned");
    // The same key again counts once.
    let again = sign_trust(&document, Some(&one), &keys[0]).unwrap();
    assert_eq!(again, one);
    let two = sign_trust(&document, Some(&one), &keys[2]).unwrap();
    let policy = verify(&two, &public, 2).unwrap();
    assert_eq!((policy.version(), policy.signers().len()), (5, 0));
    assert_eq!(verify(&two, &public, 3).unwrap_err(), "trust.unsigned");
    let three = sign_trust(&document, Some(&two), &keys[1]).unwrap();
    assert_eq!(verify(&three, &public, 3).unwrap().digest(), policy.digest());
}

#[test]
fn one_signature_copied_under_another_name_counts_once() {
    let (keys, public) = roots(2);
    let signed = sign_trust(&document(&public, 2), None, &keys[0]).unwrap();
    let mut value: Value = serde_json::from_slice(&signed).unwrap();
    let mut copy = value["signatures"][0].clone();
    copy["keyid"] = json!(public[1].to_string());
    value["signatures"].as_array_mut().unwrap().push(copy);
    assert_eq!(verify(value.to_string().as_bytes(), &public, 2).unwrap_err(), "trust.unsigned");
}

#[test]
fn roots_that_are_not_pinned_do_not_count() {
    let (keys, public) = roots(2);
    let signed = sign_trust(&document(&public, 1), None, &keys[0]).unwrap();
    assert!(verify(&signed, &public[..1], 1).is_ok());
    assert_eq!(verify(&signed, &public[1..], 1).unwrap_err(), "trust.unsigned");
}

#[test]
fn the_documents_own_roots_must_have_signed_as_well() {
    let (old_keys, old) = roots(1);
    let (new_keys, new) = roots(1);
    let both = document(&[old[0], new[0]], 2);
    let signed = sign_trust(&both, None, &old_keys[0]).unwrap();
    assert_eq!(verify(&signed, &old, 1).unwrap_err(), "trust.unsigned");
    let signed = sign_trust(&both, Some(&signed), &new_keys[0]).unwrap();
    assert!(verify(&signed, &old, 1).is_ok());
}

#[test]
fn no_roots_and_impossible_thresholds_are_refused() {
    let (keys, public) = roots(2);
    let signed = sign_trust(&document(&public, 1), None, &keys[0]).unwrap();
    assert_eq!(verify(&signed, &[], 0).unwrap_err(), "trust.missing");
    assert_eq!(verify(&signed, &public, 0).unwrap_err(), "trust.missing");
    assert_eq!(verify(&signed, &public, 3).unwrap_err(), "trust.missing");
    assert_eq!(verify(&signed, &[public[0], public[0]], 2).unwrap_err(), "trust.missing");
    // A signer key is not a root key, whatever it signed.
    assert_eq!(verify(&signed, &[key(KeyKind::Signer).public()], 1).unwrap_err(), "trust.missing");
}

#[test]
fn an_expired_a_future_and_an_older_policy_are_refused() {
    let (keys, public) = roots(1);
    let signed = sign_trust(&document(&public, 1), None, &keys[0]).unwrap();
    let at = |now, seen| TrustPolicy::verify(&signed, &public, 1, now, seen).map_err(|error| error.code().as_str());
    assert!(at(datetime!(2026-12-31 23:59:59 UTC), None).is_ok());
    assert_eq!(at(datetime!(2027-01-01 0:00 UTC), None).unwrap_err(), "trust.stale");
    assert!(at(datetime!(2026-10-31 23:59:00 UTC), None).is_ok());
    assert_eq!(at(datetime!(2026-10-31 23:58:59 UTC), None).unwrap_err(), "trust.stale");
    assert!(at(NOW, Some(5)).is_ok());
    assert_eq!(at(NOW, Some(6)).unwrap_err(), "trust.rolled-back");
}

#[test]
fn no_changed_byte_of_a_signed_policy_verifies_to_another_policy() {
    let mut world = World::new();
    world.document.add_signer(entry("second", &key(KeyKind::Signer))).unwrap();
    let signed = sign_trust(&world.document, None, &world.root).unwrap();
    let expected = world.policy();
    for position in 0..signed.len() {
        for bit in 0..8 {
            let mut changed = signed.clone();
            changed[position] ^= 1 << bit;
            if let Ok(policy) = TrustPolicy::verify(&changed, &[world.root.public()], 1, NOW, None) {
                assert_eq!((policy.digest(), policy.document()), (expected.digest(), expected.document()));
            }
        }
    }
}

#[test]
fn an_unsigned_document_is_not_a_policy() {
    let (_, public) = roots(1);
    assert_eq!(verify(&document(&public, 1).to_json(), &public, 1).unwrap_err(), "trust.invalid");
    assert_eq!(verify(b"", &public, 1).unwrap_err(), "trust.invalid");
}

#[test]
fn a_signed_payload_of_another_type_is_not_a_policy() {
    let world = World::new();
    let payload = serde_json::to_vec(&world.document).unwrap();
    let sig = world.root.sign(&portcullis_signing::envelope::pae("application/vnd.in-toto+json", &payload)).to_vec();
    let signature = portcullis_signing::envelope::EnvelopeSignature { keyid: String::new(), sig };
    let envelope =
        portcullis_signing::envelope::Envelope::new("application/vnd.in-toto+json", payload, vec![signature]);
    let error =
        TrustPolicy::verify(&serde_json::to_vec(&envelope).unwrap(), &[world.root.public()], 1, NOW, None).unwrap_err();
    assert!(matches!(error, TrustError::PayloadType(_)));
}

/// A document with every kind of entry.
fn full() -> Value {
    let world = World::new();
    let mut value: Value = serde_json::from_slice(&world.document.to_json()).unwrap();
    value["floors"] = json!([{"name": "demo:a", "audience": "demo", "revision": 3}, {"name": "demo:b", "revision": 1}]);
    value["deny"] = json!([
        {"digest": format!("sha256:{}", "ab".repeat(32))},
        {"signer": world.signer.public().to_string(), "signedAfter": "2026-11-20T00:00:00Z"},
        {"signer": world.signer.public().to_string()},
        {"name": "demo:a", "revisions": {"min": 1, "max": 4}}
    ]);
    value["allowRevisions"] = json!([{"name": "demo:a", "revision": 2}]);
    value["signers"][0]["delegation"]["notAfter"] = json!("2026-12-24T00:00:00Z");
    value
}

fn parsed(value: &Value) -> Result<TrustDocument, TrustError> {
    TrustDocument::parse(value.to_string().as_bytes())
}

#[test]
fn a_document_survives_its_json() {
    let document = parsed(&full()).unwrap();
    assert_eq!((document.floors().len(), document.deny().len(), document.allow_revisions().len()), (2, 4, 1));
    assert_eq!(TrustDocument::parse(&document.to_json()).unwrap(), document);
    assert_eq!(serde_json::to_value(&document).unwrap(), full_with_keys_of(&document));
}

/// [`full`] with the keys that this document happens to have.
fn full_with_keys_of(document: &TrustDocument) -> Value {
    let mut value = full();
    value["roots"] = json!(document.roots());
    value["signers"][0]["key"] = json!(document.signers()[0].identity.key().unwrap());
    for index in [1, 2] {
        value["deny"][index]["signer"] = json!(document.deny()[index]).get("signer").unwrap().clone();
    }
    value
}

#[test]
fn an_unknown_key_anywhere_refuses_the_policy() {
    for pointer in [
        "",
        "/signers/0",
        "/signers/0/delegation",
        "/floors/0",
        "/deny/0",
        "/deny/1",
        "/deny/3",
        "/deny/3/revisions",
        "/allowRevisions/0",
    ] {
        let mut value = full();
        value.pointer_mut(pointer).unwrap()["skip"] = json!(true);
        assert!(matches!(parsed(&value), Err(TrustError::Form(_))), "{pointer}");
    }
}

#[test]
fn a_policy_that_contradicts_itself_is_refused() {
    let twice = full()["signers"][0].clone();
    let root = full()["roots"][0].clone();
    for (pointer, to) in [
        ("/version", json!(0)),
        ("/expiresAt", json!("2026-11-01T00:00:00Z")),
        ("/roots", json!([])),
        ("/roots", json!([root, root])),
        ("/threshold", json!(0)),
        ("/threshold", json!(2)),
        ("/maxComponentSize", json!(0)),
        ("/maxComponentSize", json!(1_u64 << 40)),
        ("/signers", json!([twice, twice])),
        ("/signers/0/name", json!("Not A Label")),
        ("/signers/0/group", json!("")),
        ("/signers/0/delegation/names", json!([])),
        ("/signers/0/delegation/identityPaths", json!([])),
        ("/signers/0/delegation/audiences", json!([])),
        ("/deny/3/revisions", json!({"min": 5, "max": 4})),
    ] {
        let mut value = full();
        *value.pointer_mut(pointer).unwrap() = to.clone();
        assert!(matches!(parsed(&value), Err(TrustError::Invalid { .. })), "{pointer} {to}");
    }
    for (pointer, to) in [
        ("/signers/0/key", json!("A")),
        ("/signers/0/delegation/names/0", json!("*")),
        ("/signers/0/delegation/maxLifetime", json!("forever")),
        ("/deny/0", json!({})),
        ("/deny/0", json!({"digest": "sha256:00", "signer": "x"})),
        ("/version", json!("5")),
        ("/issuedAt", json!(null)),
    ] {
        let mut value = full();
        *value.pointer_mut(pointer).unwrap() = to.clone();
        assert!(matches!(parsed(&value), Err(TrustError::Form(_))), "{pointer} {to}");
    }
}

#[test]
fn keys_of_the_wrong_kind_are_refused() {
    let (signer, root) = (key(KeyKind::Signer).public(), key(KeyKind::Root).public());
    for (pointer, key) in [("/roots/0", signer), ("/signers/0/key", root)] {
        let mut value = full();
        *value.pointer_mut(pointer).unwrap() = json!(key);
        assert!(matches!(parsed(&value), Err(TrustError::Invalid { .. })), "{pointer}");
    }
}

#[test]
fn signing_refuses_foreign_keys_and_forgotten_versions() {
    let (keys, public) = roots(1);
    let mut document = document(&public, 1);
    assert!(sign_trust(&document, None, &key(KeyKind::Root)).is_err());
    assert!(sign_trust(&document, None, &key(KeyKind::Signer)).is_err());
    let first = sign_trust(&document, None, &keys[0]).unwrap();
    document.add_signer(entry("builder", &key(KeyKind::Signer))).unwrap();
    let forgotten = sign_trust(&document, Some(&first), &keys[0]).unwrap_err();
    assert!(forgotten.to_string().contains("has version 5"), "{forgotten}");
    document.reissue(6, NOW, datetime!(2027-01-01 0:00 UTC)).unwrap();
    let second = sign_trust(&document, Some(&first), &keys[0]).unwrap();
    assert_eq!(verify(&second, &public, 1).unwrap().version(), 6);
    assert!(sign_trust(&document, Some(b"rubbish"), &keys[0]).is_err());
    let (shown, signed_by) = read_document(&second).unwrap();
    assert_eq!((shown, signed_by), (document, vec![public[0].to_string()]));
}
