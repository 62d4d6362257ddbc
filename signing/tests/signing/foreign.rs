//! Evidence of other makers: keyless bundles, X.509-SVIDs, provenance, tokens, cosign signatures.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis_signing::bundle::Bundle;
use portcullis_signing::cosign::CosignEvidence;
use portcullis_signing::envelope::{Envelope, EnvelopeSignature, pae};
use portcullis_signing::keyless::Transparency;
use portcullis_signing::statement::PAYLOAD_TYPE;
use portcullis_signing::trust::{OidcIdentity, OriginEvidence, Provenance, SpiffeIdentity};
use portcullis_signing::{ComponentBytes, Digest, SecretKey, SignerIdentity, SignerKey};
use serde_json::{Value, json};
use sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT;

use crate::fixture::{NOW, World, claims, with};
use crate::svids::{self, Certified, Wanted};

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
    world.now = time::OffsetDateTime::now_utc();
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

/// A world that knows `spiffe://td.example/ci/*` by X.509-SVIDs.
pub(crate) fn with_svids(authority: &Certified) -> World {
    let mut world = World::new();
    world.document.add_spiffe_bundle("td.example".to_owned(), svids::bundle(&[authority])).unwrap();
    let mut signer = crate::fixture::entry("svid", &world.signer);
    signer.identity = SignerIdentity::Spiffe(SpiffeIdentity {
        trust_domain: "td.example".to_owned(),
        path: "ci/*".parse().unwrap(),
        root: None,
        issuer: None,
        transparency: Transparency::Log,
    });
    world.document.add_signer(signer).unwrap();
    world
}

pub(crate) fn svid<'a>(uris: Vec<&'a str>, to: &'a str) -> Wanted<'a> {
    Wanted { id: "leaf", uris, from: "261121110000Z", to, ca: false, usage: 0x80 }
}

pub(crate) fn signed_by_svid(world: &World, leaf: &Certified) -> Vec<u8> {
    let payload = world.statement(&claims()).to_string().into_bytes();
    let signature = EnvelopeSignature { keyid: String::new(), sig: leaf.sign(&pae(PAYLOAD_TYPE, &payload)) };
    let envelope = Envelope::new(PAYLOAD_TYPE, payload, vec![signature]);
    Bundle::with_chain(vec![leaf.der.clone()], envelope).to_json().unwrap()
}

#[test]
fn a_signature_by_an_x509_svid_holds_as_long_as_the_svid() {
    let authority = svids::authority();
    let mut world = with_svids(&authority);
    let leaf = svids::certificate(
        &svid(vec!["spiffe://td.example/ci/orders"], "261121130000Z"),
        Some((&authority, "authority")),
    );
    let bundle = signed_by_svid(&world, &leaf);
    let verified = world.verify(&[&bundle]).unwrap();
    assert_eq!(verified.signer().id().as_str(), "spiffe://td.example/ci/orders");
    world.now = NOW + time::Duration::hours(2);
    assert_eq!(world.code(&bundle), "signature.certificate");
    let changed = with(serde_json::from_slice(&bundle).unwrap(), "/dsseEnvelope/payload", STANDARD.encode(b"{}"));
    world.now = NOW;
    assert_eq!(world.code(changed.to_string().as_bytes()), "signature.bad");
}

#[test]
fn what_is_no_svid_of_the_pinned_authorities_is_refused() {
    let (authority, other) = (svids::authority(), svids::authority());
    let world = with_svids(&authority);
    let code = |wanted: Wanted<'_>, issuer: &Certified| {
        world.code(&signed_by_svid(&world, &svids::certificate(&wanted, Some((issuer, "authority")))))
    };
    let (id, to) = ("spiffe://td.example/ci/orders", "261121130000Z");
    assert_eq!(code(svid(vec![id], to), &authority), "verified");
    assert_eq!(code(svid(vec![id], to), &other), "signature.certificate");
    assert_eq!(code(svid(vec![id], "261121113000Z"), &authority), "signature.certificate");
    assert_eq!(code(svid(vec!["spiffe://td.example/cd/orders"], to), &authority), "signer.unknown");
    assert_eq!(code(svid(vec!["spiffe://other.example/ci/orders"], to), &authority), "signer.unknown");
    assert_eq!(code(svid(vec![id, "spiffe://td.example/ci/b"], to), &authority), "signature.certificate");
    assert_eq!(code(svid(vec!["https://td.example/ci"], to), &authority), "signature.certificate");
    assert_eq!(code(Wanted { ca: true, ..svid(vec![id], to) }, &authority), "signature.certificate");
    assert_eq!(code(Wanted { usage: 0x84, ..svid(vec![id], to) }, &authority), "signature.certificate");
    // A signature of the authority itself.
    assert_eq!(world.code(&signed_by_svid(&world, &authority)), "signature.certificate");
}

#[test]
fn a_p256_key_signs_as_well_as_an_ed25519_key() {
    let mut world = World::new();
    let pair = svids::authority();
    let key = SignerKey::from_pem(&pair.public_pem()).unwrap();
    let mut signer = crate::fixture::entry("kms", &world.signer);
    signer.identity = key.into();
    world.document.add_signer(signer).unwrap();
    let payload = world.statement(&claims()).to_string().into_bytes();
    let signature = EnvelopeSignature { keyid: String::new(), sig: pair.sign(&pae(PAYLOAD_TYPE, &payload)) };
    let envelope = Envelope::new(PAYLOAD_TYPE, payload, vec![signature]);
    let cosign_hint = STANDARD.encode(Digest::of(&key.spki_der()).as_bytes());
    for hint in [String::new(), key.to_string(), cosign_hint] {
        let bundle = Bundle::new(hint, envelope.clone()).to_json().unwrap();
        assert_eq!(world.verify(&[&bundle]).unwrap().signer().name(), "kms");
    }
}

pub(crate) fn provenance() -> Provenance {
    Provenance {
        builder_id: "https://ci.example/builder".to_owned(),
        build_type: "https://ci.example/type/v1".to_owned(),
        external_parameters: BTreeMap::from([("/ref".to_owned(), Some("refs/heads/main".to_owned()))]),
    }
}

/// SLSA provenance about the component, and some other file.
pub(crate) fn slsa(world: &World) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": "other", "digest": {"sha256": Digest::of(b"other").hex()}},
            {"name": "app.wasm", "digest": {"sha256": world.component.digest().hex(), "sha512": "00"}}
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://ci.example/type/v1",
                "externalParameters": { "ref": "refs/heads/main" }
            },
            "runDetails": { "builder": { "id": "https://ci.example/builder" } }
        }
    })
}

#[test]
fn provenance_proves_the_origin_and_the_policy_supplies_the_claims() {
    let mut world = World::new();
    let statement = slsa(&world);
    // Without an entry it is no claims, and nothing is made of it.
    assert_eq!(world.code(&world.forge_statement(&statement)), "claims.type");
    let identity = world.document.signers()[0].identity.clone();
    let mut document = json!(world.document);
    document["signers"] = json!([]);
    world.document = serde_json::from_value(document).unwrap();
    world.add_origin_signer("builder", identity, OriginEvidence::Provenance(provenance()));
    let verified = world.verify(&[&world.forge_statement(&statement)]).unwrap();
    let claims = verified.claims();
    assert_eq!((claims.name().to_string().as_str(), claims.revision()), ("demo:foreign", 1));
    assert_eq!(verified.spiffe_path(), "ns/demo/sa/foreign");
    let code = |pointer: &str, to: Value| world.code(&world.forge_statement(&with(statement.clone(), pointer, to)));
    assert_eq!(code("/subject/1/digest/sha256", json!(Digest::of(b"x").hex())), "claims.digest");
    assert_eq!(code("/predicate/runDetails/builder/id", json!("https://evil.example")), "origin.provenance");
    assert_eq!(code("/predicate/buildDefinition/externalParameters/ref", json!("refs/heads/x")), "origin.provenance");
    assert_eq!(code("/predicateType", json!("https://slsa.dev/provenance/v0.2")), "claims.type");
    // For this file only.
    let mut document = json!(world.document);
    document["origins"][0]["digest"] = json!(Digest::of(b"another"));
    world.document = serde_json::from_value(document).unwrap();
    assert_eq!(world.code(&world.forge_statement(&statement)), "origin.unknown");
}

#[test]
fn supplied_claims_end_and_stay_within_the_delegation() {
    let mut world = World::new();
    let identity = world.document.signers()[0].identity.clone();
    let mut document = json!(world.document);
    document["signers"] = json!([]);
    world.document = serde_json::from_value(document).unwrap();
    world.add_origin_signer("builder", identity, OriginEvidence::Provenance(provenance()));
    let bundle = world.forge_statement(&slsa(&world));
    let good = json!(world.document);
    let mut code = |pointer: &str, to: Value| {
        world.document = serde_json::from_value(with(good.clone(), pointer, to)).unwrap();
        world.code(&bundle)
    };
    assert_eq!(code("/origins/0/expiresAt", json!("2026-11-21T12:00:00Z")), "time.expired");
    assert_eq!(code("/origins/0/name", json!("other:foreign")), "signer.name");
    assert_eq!(code("/origins/0/identityPath", json!("ns/other/sa/foreign")), "signer.identity");
    assert_eq!(code("/origins/0/imports", json!(["log"])), "claims.imports");
    assert_eq!(code("/origins/0/imports", json!(["wasi:sockets/tcp@0.2.0", "log"])), "signer.imports");
    assert_eq!(code("/signers/0/delegation/maxLifetime", json!("1h")), "signer.lifetime");
}

/// A file with a token of the world's signer as its last section.
struct Tokened {
    file: Vec<u8>,
    at: usize,
}

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

fn section(name: &str, content: &[u8]) -> Vec<u8> {
    let body = [leb(name.len()), name.as_bytes().to_vec(), content.to_vec()].concat();
    [vec![0], leb(body.len()), body].concat()
}

fn jwt(key: &SecretKey, header: &Value, claims: &Value) -> String {
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())))
}

fn module_key() -> String {
    nkeys::KeyPair::new_module().public_key()
}

fn token_claims(world: &World, file: &[u8]) -> Value {
    json!({
        "iss": world.signer.public(),
        "sub": module_key(),
        "wascap": { "name": "app", "hash": Digest::of(file).hex().to_uppercase() },
        "wascap_revision": 3
    })
}

fn tokened(world: &World, file: &[u8]) -> Tokened {
    let header = json!({"typ": "jwt", "alg": "Ed25519"});
    let token = jwt(&world.signer, &header, &token_claims(world, file));
    Tokened { file: [file, &section("jwt", token.as_bytes())].concat(), at: file.len() }
}

/// A world that opted in to tokens of its signer.
fn opted_in() -> World {
    let mut world = World::new();
    let identity = world.document.signers()[0].identity.clone();
    let mut document = json!(world.document);
    document["signers"] = json!([]);
    world.document = serde_json::from_value(document).unwrap();
    world.add_origin_signer("former-platform", identity, OriginEvidence::Wascap { subject: None });
    world
}

fn token_code(world: &mut World, file: Vec<u8>) -> String {
    world.component = ComponentBytes::from_vec(file);
    world.code_of(&[])
}

#[test]
fn an_embedded_token_counts_where_the_policy_opted_in() {
    let mut world = opted_in();
    let plain = world.component.bytes().to_vec();
    let good = tokened(&world, &plain);
    assert_eq!(token_code(&mut world, good.file.clone()), "verified");
    world.component = ComponentBytes::from_vec(good.file.clone());
    let verified = world.verify(&[]).unwrap();
    assert_eq!(verified.claims().name().to_string(), "demo:foreign");
    // Not opted in at all: there is no evidence.
    let mut closed = World::new();
    closed.signer = SecretKey::from_seed(&world.signer.seed()).unwrap();
    assert_eq!(token_code(&mut closed, good.file.clone()), "evidence.none");
    // Opted in for somebody else.
    let mut other = opted_in();
    assert_eq!(token_code(&mut other, good.file), "signer.unknown");
}

#[test]
fn a_module_is_refused_as_no_component_after_its_claims_were_reported() {
    let mut world = opted_in();
    let module = wat::parse_str("(module)").unwrap();
    world.component = ComponentBytes::from_vec(tokened(&world, &module).file);
    let refusal = world.verify(&[]).unwrap_err();
    assert_eq!(refusal.code().as_str(), "claims.not-component");
    let record = serde_json::to_value(&refusal).unwrap();
    assert_eq!(record["claims"]["name"], "demo:foreign");
    assert_eq!(record["signer"]["name"], "former-platform");
}

#[test]
fn every_bent_token_is_refused_with_its_own_reason() {
    let mut world = opted_in();
    let plain = world.component.bytes().to_vec();
    let good = tokened(&world, &plain);
    let token_section = good.file[good.at..].to_vec();
    let text = String::from_utf8(token_section[token_section.len() - 40..].to_vec()).unwrap();
    let mut code = |file: Vec<u8>| token_code(&mut world, file);

    // The token of one file in another.
    let other = wat::parse_str("(component)").unwrap();
    assert_eq!(code([other.clone(), token_section.clone()].concat()), "token.hash");
    // Two tokens, of which one is good.
    assert_eq!(code([plain.clone(), token_section.clone(), token_section.clone()].concat()), "token.several");
    // Something behind it, also a section that says nothing.
    assert_eq!(code([good.file.clone(), section("note", b"x")].concat()), "token.not-last");
    // The same length in more bytes than it needs.
    let long = |bytes: &[u8]| {
        let length = leb(token_section.len() - 3);
        assert_eq!(token_section[1..=length.len()], length);
        let mut padded = length.clone();
        *padded.last_mut().unwrap() |= 0x80;
        padded.push(0);
        [&plain[..], &[0], &padded, &bytes[1 + length.len()..]].concat()
    };
    assert_eq!(code(long(&token_section)), "token.encoding");
    // A token in a nested module says nothing about the file around it.
    let inner = [wat::parse_str("(module)").unwrap(), token_section.clone()].concat();
    let nested = [wat::parse_str("(component)").unwrap(), vec![1], leb(inner.len()), inner].concat();
    assert_eq!(code(nested), "evidence.none");
    // Another header word: a module that calls itself a component, or the other way round.
    let mut flipped = good.file.clone();
    flipped[4] ^= 0x0c;
    assert_eq!(code(flipped), "token.hash");
    // Cut off within the token, and before it.
    assert_eq!(code(good.file[..good.file.len() - 1].to_vec()), "evidence.none");
    assert_eq!(code(plain.clone()), "evidence.none");
    assert!(!text.is_empty());
}

#[test]
fn a_token_of_another_form_is_refused() {
    let mut world = opted_in();
    let plain = world.component.bytes().to_vec();
    let header = json!({"typ": "jwt", "alg": "Ed25519"});
    let good = token_claims(&world, &plain);
    let signer = SecretKey::from_seed(&world.signer.seed()).unwrap();
    let mut code = |header: &Value, claims: &Value| {
        let token = jwt(&signer, header, claims);
        token_code(&mut world, [plain.clone(), section("wasmcloud_jwt", token.as_bytes())].concat())
    };
    assert_eq!(code(&header, &good), "verified");
    for header in [
        json!({"typ": "jwt", "alg": "none"}),
        json!({"typ": "jwt", "alg": "EdDSA"}),
        json!({"typ": "jwt", "alg": "HS256"}),
        json!({"typ": "JWT", "alg": "Ed25519"}),
        json!({"typ": "jwt", "alg": "Ed25519", "kid": "x"}),
        json!({"alg": "Ed25519"}),
    ] {
        assert_eq!(code(&header, &good), "token.malformed", "{header}");
    }
    let hash = |to: Value| with(good.clone(), "/wascap/hash", to);
    assert_eq!(code(&header, &hash(json!(Digest::of(&plain).hex()))), "token.hash");
    assert_eq!(code(&header, &hash(json!(null))), "token.hash");
    // An older revision of the format is no excuse for the hash.
    let old = with(hash(json!("00")), "/wascap_revision", 1);
    assert_eq!(code(&header, &old), "token.hash");
    assert_eq!(code(&header, &with(good.clone(), "/sub", "AAAA")), "token.malformed");
    let user = nkeys::KeyPair::new_user().public_key();
    assert_eq!(code(&header, &with(good.clone(), "/iss", user)), "signer.unknown");
    let mut expired = good.clone();
    expired["exp"] = json!(NOW.unix_timestamp());
    assert_eq!(code(&header, &expired), "time.expired");
    expired["exp"] = json!("tomorrow");
    assert_eq!(code(&header, &expired), "token.malformed");
    let mut early = good.clone();
    early["nbf"] = json!(NOW.unix_timestamp() + 3600);
    assert_eq!(code(&header, &early), "time.not-yet");
}

#[test]
fn no_changed_byte_of_a_file_with_a_token_is_accepted() {
    let mut world = opted_in();
    let plain = world.component.bytes().to_vec();
    let good = tokened(&world, &plain).file;
    for position in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[position] ^= 1 << bit;
            assert_ne!(token_code(&mut world, changed), "verified", "byte {position} bit {bit}");
        }
    }
}

#[test]
fn embedded_signatures_of_other_schemes_say_nothing() {
    let mut world = opted_in();
    let plain = world.component.bytes().to_vec();
    // A stolen signature section before another body, a delimiter with part of a file, a section of yet another scheme.
    for name in ["signature", "signature_delimiter", "wasm-cosign"] {
        let file = [&plain[..8], &section(name, &[1; 100]), &plain[8..]].concat();
        assert_eq!(token_code(&mut world, file), "evidence.none", "{name}");
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest(world: &World, layers: usize) -> Value {
    let descriptor = |media_type: &str, digest: &Digest, size: usize| json!({"mediaType": media_type, "digest": digest, "size": size});
    let layer = descriptor("application/wasm", world.component.digest(), world.component.bytes().len());
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.wasm.config.v0+json", &Digest::of(b"{}"), 2),
        "layers": vec![layer; layers],
    })
}

fn simple_signing(manifest: &[u8]) -> Value {
    json!({
        "critical": {
            "identity": {"docker-reference": "registry.example/app"},
            "image": {"docker-manifest-digest": Digest::of(manifest)},
            "type": "cosign container image signature"
        },
        "optional": null
    })
}

#[test]
fn a_cosign_signature_is_followed_from_manifest_to_layer_to_file() {
    let mut world = World::new();
    let pair = svids::authority();
    let key = SignerKey::from_pem(&pair.public_pem()).unwrap();
    world.add_origin_signer("cosign", key.into(), OriginEvidence::Cosign {});
    let evidence = |manifest: &[u8], payload: &Value| {
        let payload = payload.to_string().into_bytes();
        let signature = STANDARD.encode(pair.sign(&payload));
        CosignEvidence::encode(manifest, &payload, &signature).unwrap()
    };
    let one = manifest(&world, 1).to_string().into_bytes();
    let good = evidence(&one, &simple_signing(&one));
    let verified = world.verify(&[&good]).unwrap();
    assert_eq!((verified.signer().name(), verified.claims().name().to_string().as_str()), ("cosign", "demo:foreign"));
    let two = manifest(&world, 2).to_string().into_bytes();
    assert_eq!(world.code(&evidence(&two, &simple_signing(&two))), "cosign.manifest");
    assert_eq!(world.code(&evidence(&two, &simple_signing(&one))), "claims.digest");
    let payload = with(simple_signing(&one), "/critical/type", "atomic container signature");
    assert_eq!(world.code(&evidence(&one, &payload)), "evidence.malformed");
    let other = with(serde_json::from_slice(&one).unwrap(), "/layers/0/digest", json!(Digest::of(b"x"))).to_string();
    assert_eq!(world.code(&evidence(other.as_bytes(), &simple_signing(other.as_bytes()))), "claims.digest");
    let stranger = svids::authority();
    let payload = simple_signing(&one).to_string().into_bytes();
    let stolen = CosignEvidence::encode(&one, &payload, &STANDARD.encode(stranger.sign(&payload))).unwrap();
    assert_eq!(world.code(&stolen), "signer.unknown");
    // Every byte, without the white space around the parts.
    let policy = world.policy();
    for position in 0..good.len() {
        let mut changed = good.clone();
        changed[position] ^= 1;
        assert!(
            world.verify_under(&policy, &[&changed]).is_err() || good[position].is_ascii_whitespace(),
            "{position}"
        );
    }
}
