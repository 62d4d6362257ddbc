//! Keyless bundles: a certificate for an identity, and a log that saw the signature while it held.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_signing::keyless::Transparency;
use portcullis_signing::trust::{OidcIdentity, OriginEvidence};
use portcullis_signing::{ComponentBytes, SecretKey, SignerIdentity};
use serde_json::{Value, json};
use sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT;

use crate::fixture::{World, with};

/// The test data that the library for keyless bundles brings along, where cargo has unpacked it.
fn library_data(name: &str) -> Option<Vec<u8>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let indices = std::fs::read_dir(home.join("registry/src")).ok()?;
    let found = indices
        .flatten()
        .find_map(|index| std::fs::read(index.path().join("sigstore-verify-0.15.1/test_data/bundles").join(name)).ok());
    if found.is_none() {
        eprintln!("SKIPPED: {name} of sigstore-verify 0.15.1 is not in cargo's registry folder");
    }
    found
}

/// A world that knows the signer of a real bundle by its exact identity.
fn keyless(identity: &str, issuer: &str, transparency: Transparency, root: &str) -> World {
    let mut world = World::new();
    world.document.add_sigstore_root("pinned".to_owned(), serde_json::from_str(root).unwrap()).unwrap();
    let identity = SignerIdentity::Oidc(OidcIdentity {
        root: "pinned".to_owned(),
        issuer: issuer.to_owned(),
        identity: identity.to_owned(),
        transparency,
        claims: BTreeMap::new(),
    });
    world.add_origin_signer("keyless", identity, OriginEvidence::Signature {});
    world
}

/// The conda package of the library's test data, as the file that a bundle is about.
fn conda(bundle: &str) -> Option<(World, Vec<u8>)> {
    let package = library_data("signed-package-2.1.0-hb0f4dca_0.conda")?;
    // The one with a log of the second generation comes from the staging instance.
    let staging = bundle.contains("rekor2");
    let root =
        if staging { sigstore_trust_root::SIGSTORE_STAGING_TRUSTED_ROOT } else { SIGSTORE_PRODUCTION_TRUSTED_ROOT };
    let bundle = library_data(bundle)?;
    let certificate = serde_json::from_slice::<Value>(&bundle).unwrap();
    let certificate = certificate["verificationMaterial"]["certificate"]["rawBytes"].as_str().unwrap();
    let presented = portcullis_signing::keyless::present(&STANDARD.decode(certificate).unwrap()).unwrap();
    let mut world = keyless(&presented.identity, &presented.issuer, Transparency::Log, root);
    world.component = ComponentBytes::from_vec(package);
    Some((world, bundle))
}

#[test]
fn a_keyless_attestation_is_verified_and_then_judged_by_what_it_says() {
    for name in ["conda-attestation.sigstore.json", "conda-attestation-rekor2.sigstore.json"] {
        let Some((mut world, bundle)) = conda(name) else { return };
        // Its signature, certificate, log and time hold; it is about something else than claims.
        assert_eq!(world.code(&bundle), "claims.type", "{name}");
        world.component = ComponentBytes::from_vec(b"another file".to_vec());
        assert_eq!(world.code(&bundle), "claims.digest", "{name}");
    }
}

#[test]
fn no_changed_byte_of_a_keyless_bundle_is_accepted() {
    let Some((world, bundle)) = conda("conda-attestation.sigstore.json") else { return };
    let value: Value = serde_json::from_slice(&bundle).unwrap();
    // Without the white space, in which nothing is said.
    let bundle = serde_json::to_vec(&value).unwrap();
    let policy = world.policy();
    let mut accepted = Vec::new();
    for position in 0..bundle.len() {
        let mut changed = bundle.clone();
        changed[position] ^= 1;
        match world.verify_under(&policy, &[&changed]) {
            Err(refusal) if refusal.code().as_str() == "claims.type" => accepted.push(position),
            Err(_) => {}
            Ok(_) => panic!("byte {position}"),
        }
    }
    // What is left says nothing that is believed: names of keys, and numbers that the log's proof repeats.
    let around = |position: usize| {
        String::from_utf8_lossy(&bundle[position.saturating_sub(40)..(position + 20).min(bundle.len())]).into_owned()
    };
    let unsigned: Vec<String> = accepted.into_iter().map(around).collect();
    assert!(unsigned.is_empty(), "{unsigned:#?}");
}

#[test]
fn bent_log_evidence_is_refused_with_its_own_reason() {
    let Some((world, bundle)) = conda("conda-attestation.sigstore.json") else { return };
    let good: Value = serde_json::from_slice(&bundle).unwrap();
    let code = |value: &Value| world.code(value.to_string().as_bytes());
    assert_eq!(code(&good), "claims.type");
    let entry = "/verificationMaterial/tlogEntries/0";
    let time: i64 = good.pointer(&format!("{entry}/integratedTime")).unwrap().as_str().unwrap().parse().unwrap();
    let shifted = with(good.clone(), &format!("{entry}/integratedTime"), (time + 60).to_string());
    assert!(["signature.log", "signature.time"].contains(&code(&shifted).as_str()), "{}", code(&shifted));
    for part in ["inclusionProof", "inclusionPromise"] {
        let mut removed = good.clone();
        removed.pointer_mut(entry).unwrap().as_object_mut().unwrap().remove(part);
        let code = code(&removed);
        assert!(["signature.log", "signature.time", "evidence.malformed"].contains(&code.as_str()), "{part}: {code}");
    }
    let mut none = good.clone();
    none["verificationMaterial"]["tlogEntries"] = json!([]);
    assert_eq!(code(&none), "signature.log");
    // An older media type would let a bundle without proof pass: it never gets as far.
    for older in
        ["application/vnd.dev.sigstore.bundle+json;version=0.1", "application/vnd.dev.sigstore.bundle+json;version=0.2"]
    {
        assert_eq!(code(&with(good.clone(), "/mediaType", older)), "evidence.media-type");
    }
    let hashes = format!("{entry}/inclusionProof/hashes");
    assert!(["signature.log", "evidence.malformed"].contains(&code(&with(good.clone(), &hashes, json!([]))).as_str()));
}

#[test]
fn only_the_exact_identity_and_issuer_are_taken() {
    let Some((good, bundle)) = conda("conda-attestation.sigstore.json") else { return };
    let SignerIdentity::Oidc(own) = good.document.signers()[1].identity.clone() else { panic!("an OIDC signer") };
    for (identity, issuer) in [
        (own.identity.replace("refs/heads/main", "refs/heads/maim"), own.issuer.clone()),
        (own.identity.chars().take(own.identity.len() - 1).collect(), own.issuer.clone()),
        (format!("{}.*", own.identity), own.issuer.clone()),
        (own.identity.clone(), format!("{}/", own.issuer)),
    ] {
        let mut world = keyless(&identity, &issuer, Transparency::Log, SIGSTORE_PRODUCTION_TRUSTED_ROOT);
        world.component = ComponentBytes::from_vec(good.component.bytes().to_vec());
        assert_eq!(world.code(&bundle), "signer.unknown", "{identity} {issuer}");
    }
    // Further claims of the certificate must be those that are pinned.
    let mut document = json!(good.document);
    document["signers"][1]["oidc"]["claims"] = json!({ "sourceRepositoryUri": "https://github.com/somebody/else" });
    let mut pinned = keyless("x", "y", Transparency::Log, SIGSTORE_PRODUCTION_TRUSTED_ROOT);
    pinned.root = SecretKey::from_seed(&good.root.seed()).unwrap();
    pinned.document = serde_json::from_value(document).unwrap();
    pinned.component = ComponentBytes::from_vec(good.component.bytes().to_vec());
    assert_eq!(pinned.code(&bundle), "signer.unknown");
    // A root of other authorities.
    let mut other =
        keyless(&own.identity, &own.issuer, Transparency::Log, sigstore_trust_root::SIGSTORE_STAGING_TRUSTED_ROOT);
    other.component = ComponentBytes::from_vec(good.component.bytes().to_vec());
    let code = other.code(&bundle);
    assert!(code.starts_with("signature."), "{code}");
}
