//! Each limit that the modules themselves do not cross.

use portcullis_signing::limits::{BUNDLE_BYTES, EVIDENCE_COUNT, LABEL_BYTES, ROOT_KEYS, TRUST_BYTES, TRUST_ENTRIES};
use portcullis_signing::{Digest, KeyKind, PublicKey, TrustDocument, TrustError};
use time::macros::datetime;

use crate::fixture::{World, claims, key};

#[test]
fn more_evidence_than_is_looked_at_is_refused() {
    let world = World::new();
    let good = world.bundle(&claims());
    let mut evidence: Vec<&[u8]> = vec![b"{}"; EVIDENCE_COUNT - 1];
    evidence.push(&good);
    assert!(world.verify(&evidence).is_ok());
    evidence.push(&good);
    assert_eq!(world.verify(&evidence).unwrap_err().code().as_str(), "evidence.too-many");
}

#[test]
fn evidence_beyond_its_size_is_refused() {
    let world = World::new();
    let mut bundle = world.bundle(&claims());
    bundle.resize(BUNDLE_BYTES, b'\n');
    assert_eq!(world.code(&bundle), "verified");
    bundle.push(b'\n');
    assert_eq!(world.code(&bundle), "evidence.malformed");
}

#[test]
fn a_trust_policy_beyond_its_size_is_refused() {
    let mut bytes = World::new().document.to_json();
    bytes.resize(TRUST_BYTES, b' ');
    assert!(TrustDocument::parse(&bytes).is_ok());
    bytes.push(b' ');
    assert!(matches!(TrustDocument::parse(&bytes), Err(TrustError::Json(_))));
}

#[test]
fn more_roots_than_can_sign_are_refused() {
    let document = |count| {
        let roots: Vec<PublicKey> = (0..count).map(|_| key(KeyKind::Root).public()).collect();
        TrustDocument::new(1, datetime!(2026-11-01 0:00 UTC), datetime!(2027-01-01 0:00 UTC), roots, 1)
    };
    assert!(document(ROOT_KEYS).is_ok());
    assert!(document(ROOT_KEYS + 1).is_err() && document(0).is_err());
}

#[test]
fn more_entries_than_a_list_may_have_are_refused() {
    let document = |count| {
        let mut value: serde_json::Value = serde_json::from_slice(&World::new().document.to_json()).unwrap();
        let digest = Digest::of(b"x").to_string();
        value["deny"] = (0..count).map(|_| serde_json::json!({"digest": digest})).collect();
        TrustDocument::parse(value.to_string().as_bytes())
    };
    assert!(document(TRUST_ENTRIES).is_ok());
    assert!(matches!(document(TRUST_ENTRIES + 1), Err(TrustError::Invalid { .. })));
}

#[test]
fn a_signers_name_beyond_its_length_is_refused() {
    let document = |length: usize| {
        let mut world = World::new();
        world.document.add_signer(crate::fixture::entry(&"x".repeat(length), &key(KeyKind::Signer)))
    };
    assert!(document(LABEL_BYTES).is_ok());
    assert!(document(LABEL_BYTES + 1).is_err());
}
