//! Test vectors that others wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis_signing::envelope::{Envelope, pae};
use portcullis_signing::keyless::Transparency;
use portcullis_signing::trust::{OidcIdentity, OriginEvidence};
use portcullis_signing::{ComponentBytes, KeyKind, PublicKey, SignerIdentity, SignerKey};
use serde_json::Value;
use sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT;

use crate::fixture::World;

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

#[test]
fn every_wycheproof_vector_of_ecdsa_p256_agrees() {
    let Some(folder) = folder("wycheproof") else { return };
    let mut checked = 0;
    for group in json(folder.join("ecdsa_secp256r1_sha256_test.json"))["testGroups"].as_array().unwrap() {
        let der = unhex(group["publicKeyDer"].as_str().unwrap());
        let key = SignerKey::from_spki_der(&der).unwrap();
        // The same key after a trip through its text and its PEM.
        let key: SignerKey = key.to_string().parse().unwrap();
        assert_eq!(SignerKey::from_pem(group["publicKeyPem"].as_str().unwrap()), Ok(key));
        for test in group["tests"].as_array().unwrap() {
            let (message, signature) = (unhex(test["msg"].as_str().unwrap()), unhex(test["sig"].as_str().unwrap()));
            let expected = match test["result"].as_str().unwrap() {
                "valid" => true,
                "invalid" => false,
                // Lenient encodings: none is taken.
                "acceptable" => false,
                other => panic!("an unknown result {other}"),
            };
            assert_eq!(key.verify(&message, &signature), expected, "{}", test["tcId"]);
            checked += 1;
        }
    }
    assert!(checked > 400, "{checked}");
}

/// Below v0.3: refused before any library sees them, on purpose, though the conformance suite verifies three of them.
const TOO_OLD: &[&str] = &[
    "bundle-empty-certificate-chain_fail",
    "bundle-invalid-base64-signature_fail",
    "bundle-negative-log-index_fail",
    "bundle-with-root-cert_fail",
    "checkpoint-bad-keyhint_fail",
    "happy-path-v0.1",
    "intoto-log-entry-mismatch_fail",
    "intoto-set-outside-signing-cert-validity_fail",
    "intoto-with-custom-trust-root",
    "invalid-ct-key_fail",
    "signature-mismatch_fail",
    "trust-root-tlog-validity-end-inclusive",
];

/// What verifies, through the whole verifier, as a signature over a file that the trust policy supplies the claims for.
#[test]
fn every_sigstore_vector_agrees() {
    let Some(folder) = folder("sigstore") else { return };
    let (mut verified, mut refused, mut too_old) = (0, 0, Vec::new());
    let mut cases: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|case| case.unwrap().path()).collect();
    cases.sort();
    for case in cases.iter().filter(|case| case.is_dir()) {
        let name = case.file_name().unwrap().to_str().unwrap();
        let outcome = sigstore_case(case, &folder);
        if outcome == "evidence.media-type" {
            too_old.push(name);
            continue;
        }
        // What is not a component gets that far only once everything about its signature and claims was found good.
        let good = outcome == "claims.not-component";
        assert_eq!(good, !name.ends_with("_fail"), "{name}: {outcome}");
        if good { verified += 1 } else { refused += 1 }
    }
    assert_eq!(too_old, TOO_OLD);
    assert_eq!((verified, refused), (7, 16));
}

/// The code of the verdict about a case whose signer is in the trust policy.
fn sigstore_case(case: &Path, folder: &Path) -> String {
    let text = |name: &str| std::fs::read_to_string(case.join(name)).ok().map(|text| text.trim().to_owned());
    let artifact = std::fs::read(case.join("artifact")).or_else(|_| std::fs::read(folder.join("a.txt"))).unwrap();
    let root = text("trusted_root.json").unwrap_or_else(|| SIGSTORE_PRODUCTION_TRUSTED_ROOT.to_owned());
    let mut world = World::new();
    world.component = ComponentBytes::from_vec(artifact);
    let identity = match text("key.pub") {
        Some(pem) => SignerIdentity::Key(SignerKey::from_pem(&pem).unwrap()),
        None => SignerIdentity::Oidc(OidcIdentity {
            root: "pinned".to_owned(),
            issuer: text("issuer").unwrap_or_else(|| "https://token.actions.githubusercontent.com".to_owned()),
            identity: text("identity").unwrap_or_else(|| BEACON.to_owned()),
            transparency: Transparency::Log,
            claims: BTreeMap::new(),
        }),
    };
    world.document.add_sigstore_root("pinned".to_owned(), serde_json::from_str(&root).unwrap()).unwrap();
    world.add_origin_signer("beacon", identity, OriginEvidence::Signature {});
    let bundle = std::fs::read(case.join("bundle.sigstore.json")).unwrap();
    match world.verify(&[&bundle]) {
        Ok(_) => panic!("{} is no component and was verified", case.display()),
        Err(refusal) => refusal.code().as_str().to_owned(),
    }
}

const BEACON: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
