//! Each limit that the modules themselves do not cross.

use portcullis_signing::limits::{BUNDLE_BYTES, EVIDENCE_COUNT, LABEL_BYTES, ROOT_KEYS, TRUST_BYTES, TRUST_ENTRIES};
use portcullis_signing::{Digest, KeyKind, PublicKey, TrustDocument, TrustError};
use time::macros::datetime;

use crate::fixture::{World, claims, entry, key};

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

/// Whether the world's policy with this part replaced is taken.
fn takes(world: &World, key: &str, value: serde_json::Value) -> bool {
    let mut document = serde_json::json!(world.document);
    document[key] = value;
    portcullis_signing::TrustDocument::parse(document.to_string().as_bytes()).is_ok()
}

#[test]
fn more_evidence_in_bytes_than_is_looked_at_is_refused() {
    use portcullis_signing::limits::EVIDENCE_BYTES;
    let world = World::new();
    let bundle = world.bundle(&crate::fixture::claims());
    let filler = vec![b' '; EVIDENCE_BYTES - bundle.len()];
    assert_eq!(world.code_of(&[&bundle, &filler]), "verified");
    assert_eq!(world.code_of(&[&bundle, &filler, b" "]), "evidence.too-many");
}

#[test]
fn more_pins_than_a_policy_may_have_are_refused() {
    use portcullis_signing::limits::{ROTATIONS, SPIFFE_BUNDLES, TRUSTED_ROOTS};
    let world = World::new();
    let root: serde_json::Value = serde_json::from_str(sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT).unwrap();
    let roots = |count| (0..count).map(|n| (format!("r{n}"), root.clone())).collect::<serde_json::Map<_, _>>();
    assert!(takes(&world, "sigstoreRoots", roots(TRUSTED_ROOTS).into()));
    assert!(!takes(&world, "sigstoreRoots", roots(TRUSTED_ROOTS + 1).into()));
    let authority = crate::svids::authority();
    let bundle = crate::svids::bundle(&[&authority]);
    let bundles = |count| (0..count).map(|n| (format!("td{n}"), bundle.clone())).collect::<serde_json::Map<_, _>>();
    assert!(takes(&world, "spiffeBundles", bundles(SPIFFE_BUNDLES).into()));
    assert!(!takes(&world, "spiffeBundles", bundles(SPIFFE_BUNDLES + 1).into()));
    let link = serde_json::json!({ "payload": "e30=", "payloadType": "x", "signatures": [{ "sig": "AA==" }] });
    assert!(takes(&world, "rotations", vec![link.clone(); ROTATIONS].into()));
    assert!(!takes(&world, "rotations", vec![link; ROTATIONS + 1].into()));
}

#[test]
fn more_roles_than_a_signer_may_have_are_refused() {
    use portcullis_signing::limits::ROLES;
    let world = World::new();
    let signers = |count: usize| {
        let mut entry = entry("builder", &world.signer);
        entry.roles = (0..count).map(|n| format!("r{n}")).collect();
        serde_json::json!([entry])
    };
    assert!(takes(&world, "signers", signers(ROLES)) && !takes(&world, "signers", signers(ROLES + 1)));
}

#[test]
fn a_deny_list_beyond_its_size_is_refused() {
    use portcullis_signing::limits::DENY_LIST_BYTES;
    use portcullis_signing::trust::DenyListDocument;
    let mut bytes = br#"{"version":1,"issuedAt":"2026-11-21T00:00:00Z","deny":[]}"#.to_vec();
    bytes.resize(DENY_LIST_BYTES, b' ');
    assert!(DenyListDocument::parse(&bytes).is_ok());
    bytes.push(b' ');
    assert!(DenyListDocument::parse(&bytes).is_err());
}

#[test]
fn an_embedded_token_beyond_its_size_is_refused() {
    use portcullis_signing::limits::TOKEN_BYTES;
    use portcullis_signing::wascap::{TokenError, find};
    let file = |length: usize| {
        let body = [&[3][..], b"jwt", &vec![b'.'; length]].concat();
        let size = [body.len() as u8 & 0x7f | 0x80, (body.len() >> 7) as u8 & 0x7f | 0x80, (body.len() >> 14) as u8];
        [b"\0asm\x01\0\0\0", &[0][..], &size, &body].concat()
    };
    let why = |length| match find(&file(length)) {
        Err(TokenError::Malformed(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_ne!(why(TOKEN_BYTES), "it is too long");
    assert_eq!(why(TOKEN_BYTES + 1), "it is too long");
}
