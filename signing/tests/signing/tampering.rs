//! Evidence with one byte changed never says anything else.

use portcullis_signing::envelope::pae;
use serde_json::Value;

use crate::fixture::{World, claims};

#[test]
fn no_changed_byte_of_a_bundle_verifies_to_other_claims() {
    let world = World::new();
    let bundle = world.bundle(&claims());
    let expected = world.verify(&[&bundle]).unwrap();
    let policy = world.policy();
    let highest_seen = |_: &_, _: &str| Ok(None);
    let context = portcullis_signing::Context {
        trust: &policy,
        deny_list: None,
        audience: crate::fixture::CLUSTER,
        now: world.now,
        highest_seen: &highest_seen,
    };
    let (mut refused, mut same) = (0, Vec::new());
    for position in 0..bundle.len() {
        for change in [0x01, 0x20, 0x80, bundle[position] ^ b' ', bundle[position] ^ b'"', bundle[position]] {
            if change == 0 {
                continue;
            }
            let mut changed = bundle.clone();
            changed[position] ^= change;
            match portcullis_signing::verify(&world.component, &[&changed], &context) {
                Err(_) => refused += 1,
                Ok(verified) => {
                    assert_eq!(verified.claims(), expected.claims());
                    assert_eq!(verified.claims_digest(), expected.claims_digest());
                    assert_eq!(verified.signer(), expected.signer());
                    same.push((position, change));
                }
            }
        }
    }
    assert!(refused > 5 * bundle.len() - 100, "{refused} of {}", bundle.len());
    // Those that pass changed nothing but white space between the parts, where one white space stands for another.
    for (position, change) in same {
        let (was, is) = (bundle[position], bundle[position] ^ change);
        assert!(was.is_ascii_whitespace() && is.is_ascii_whitespace(), "byte {position}: {was:#x} to {is:#x}");
    }
}

#[test]
fn no_truncated_bundle_verifies() {
    let world = World::new();
    let bundle = world.bundle(&claims());
    for length in 0..bundle.len() - 2 {
        assert!(world.verify(&[&bundle[..length]]).is_err(), "{length}");
    }
}

#[test]
fn payload_and_signature_of_two_bundles_do_not_mix() {
    let world = World::new();
    let first: Value = serde_json::from_slice(&world.bundle(&claims())).unwrap();
    let mut other = claims();
    other["component"]["revision"] = 8.into();
    let mut mixed: Value = serde_json::from_slice(&world.bundle(&other)).unwrap();
    assert_eq!(world.code(mixed.to_string().as_bytes()), "verified");
    mixed["dsseEnvelope"]["signatures"] = first["dsseEnvelope"]["signatures"].clone();
    assert_eq!(world.code(mixed.to_string().as_bytes()), "signature.bad");
}

#[test]
fn a_signature_over_the_bare_payload_is_not_one() {
    let world = World::new();
    let statement = world.statement(&claims()).to_string();
    let mut bundle: Value = serde_json::from_slice(&world.forge_statement(&world.statement(&claims()))).unwrap();
    let sig = base64_of(&world.signer.sign(statement.as_bytes()));
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = sig.into();
    assert_eq!(world.code(bundle.to_string().as_bytes()), "signature.bad");
    // The encoding itself, signed under another type, neither.
    let sig = base64_of(&world.signer.sign(&pae("application/json", statement.as_bytes())));
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = sig.into();
    assert_eq!(world.code(bundle.to_string().as_bytes()), "signature.bad");
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
