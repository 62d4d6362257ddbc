//! Evidence of other makers: X.509-SVIDs, provenance, cosign signatures.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_signing::bundle::Bundle;
use portcullis_signing::cosign::CosignEvidence;
use portcullis_signing::envelope::{Envelope, EnvelopeSignature, pae};
use portcullis_signing::keyless::Transparency;
use portcullis_signing::statement::PAYLOAD_TYPE;
use portcullis_signing::trust::{OriginEvidence, Provenance, SpiffeIdentity};
use portcullis_signing::{Digest, SignerIdentity, SignerKey};
use serde_json::{Value, json};

use crate::fixture::{NOW, World, claims, with};
use crate::svids::{self, Certified, Wanted};

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
