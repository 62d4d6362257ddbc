//! Test vectors that others wrote.

use std::path::PathBuf;

use portcullis_signing::bundle::{self, BundleError};
use portcullis_signing::envelope::{Envelope, pae};
use portcullis_signing::{KeyKind, PublicKey};
use serde_json::Value;

/// The folder of the vectors; says so loudly where it is missing.
fn folder(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: the test vectors `{name}` are not at {}", path.display());
    None
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

#[test]
fn every_wycheproof_vector_of_ed25519_agrees() {
    let Some(folder) = folder("wycheproof") else { return };
    let mut checked = 0;
    for group in json(folder.join("ed25519_test.json"))["testGroups"].as_array().unwrap() {
        let key: [u8; 32] = unhex(group["publicKey"]["pk"].as_str().unwrap()).try_into().unwrap();
        let key = PublicKey::from_bytes(KeyKind::Signer, key);
        // The same key after a trip through its text.
        let key: PublicKey = key.to_string().parse().unwrap();
        for test in group["tests"].as_array().unwrap() {
            let (message, signature) = (unhex(test["msg"].as_str().unwrap()), unhex(test["sig"].as_str().unwrap()));
            let expected = match test["result"].as_str().unwrap() {
                "valid" => true,
                "invalid" => false,
                other => panic!("an unknown result {other}"),
            };
            assert_eq!(key.verify(&message, &signature), expected, "{}", test["tcId"]);
            checked += 1;
        }
    }
    assert_eq!(checked, 151);
}

#[test]
fn the_dsse_vector_has_the_same_encoding_and_its_signature_verifies() {
    let Some(folder) = folder("dsse") else { return };
    let vector = json(folder.join("p256-hello-world.json"));
    let envelope = Envelope::parse(vector["envelope"].to_string().as_bytes(), 10_000).unwrap();
    let encoded = pae(envelope.payload_type(), envelope.payload());
    assert_eq!(String::from_utf8(encoded.clone()).unwrap(), vector["pae_utf8"].as_str().unwrap());
    let mut point = vec![4];
    for axis in ["x_decimal", "y_decimal"] {
        point.extend(from_decimal(vector["key"][axis].as_str().unwrap()));
    }
    let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point);
    key.verify(&encoded, &envelope.signatures()[0].sig).unwrap();
    assert!(key.verify(envelope.payload(), &envelope.signatures()[0].sig).is_err());
}

/// 32 bytes, big-endian.
fn from_decimal(text: &str) -> [u8; 32] {
    let mut number = [0_u8; 32];
    for digit in text.bytes() {
        let mut carry = u32::from(digit - b'0');
        for byte in number.iter_mut().rev() {
            carry += u32::from(*byte) * 10;
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        assert_eq!(carry, 0);
    }
    number
}

/// All of them are keyless, too old, or without claims; none may slip through as a keyed bundle with claims.
#[test]
fn every_sigstore_bundle_is_refused_for_its_kind_until_keyless_is_supported() {
    let Some(folder) = folder("sigstore") else { return };
    let (mut keyless, mut too_old, mut other) = (0, 0, 0);
    for case in std::fs::read_dir(folder).unwrap() {
        let path = case.unwrap().path().join("bundle.sigstore.json");
        let Ok(bytes) = std::fs::read(&path) else { continue };
        match bundle::parse(&bytes) {
            Err(BundleError::Keyless) => keyless += 1,
            Err(BundleError::MediaType(_)) => too_old += 1,
            Err(_) => other += 1,
            Ok(_) => panic!("{} was taken for a keyed bundle with claims", path.display()),
        }
    }
    assert!(keyless > 10 && too_old > 0, "{keyless} keyless, {too_old} too old, {other} other");
}
