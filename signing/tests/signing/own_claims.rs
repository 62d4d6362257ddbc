//! Own claims, signed by a CI run's OIDC identity, from end to end.

use std::collections::BTreeMap;

use portcullis_signing::keyless::Transparency;
use portcullis_signing::trust::{Deny, OidcIdentity, Requirement, RoleThreshold};
use portcullis_signing::{SignerId, SignerIdentity, SignerKind, TrustPolicy, recheck, sign_trust};
use serde_json::{Value, json};

use crate::fixture::{CLUSTER, NOW, World, claims, entry, with};
use crate::fulcio::{ISSUER, SIGNED_AT, Sigstore, WORKFLOW};

/// A world that knows this identity by certificates of the instance.
fn knows(world: &mut World, name: &str, identity: &str, issuer: &str) {
    let mut signer = entry(name, &world.signer);
    signer.roles = vec!["release".to_owned()];
    signer.identity = SignerIdentity::Oidc(OidcIdentity {
        root: "own".to_owned(),
        issuer: issuer.to_owned(),
        identity: identity.to_owned(),
        transparency: Transparency::Log,
        claims: BTreeMap::new(),
    });
    world.document.add_signer(signer).unwrap();
}

fn world(sigstore: &Sigstore) -> World {
    let mut world = World::new();
    world.document.add_sigstore_root("own".to_owned(), sigstore.trusted_root()).unwrap();
    knows(&mut world, "ci", WORKFLOW, ISSUER);
    world
}

fn bundle(world: &World, sigstore: &Sigstore, identity: &str, issuer: &str) -> Vec<u8> {
    sigstore.bundle(&world.statement(&claims()), identity, issuer).to_string().into_bytes()
}

#[test]
fn claims_that_a_ci_run_signed_are_verified() {
    let sigstore = Sigstore::new();
    let mut world = world(&sigstore);
    let good = bundle(&world, &sigstore, WORKFLOW, ISSUER);
    let verified = world.verify(&[&good]).unwrap();
    assert_eq!((verified.signer().name(), verified.signer().kind()), ("ci", SignerKind::Oidc));
    assert_eq!(verified.claims().name().to_string(), "demo:greeter");
    // Others, other bytes, another instance.
    for (identity, issuer) in [(WORKFLOW, "https://other.example"), ("https://ci.example/other", ISSUER)] {
        assert_eq!(world.code(&bundle(&world, &sigstore, identity, issuer)), "signer.unknown");
    }
    let other = Sigstore::new();
    assert!(world.code(&bundle(&world, &other, WORKFLOW, ISSUER)).starts_with("signature."));
    let value: Value = serde_json::from_slice(&good).unwrap();
    for (pointer, code) in [
        ("/verificationMaterial/tlogEntries/0/integratedTime", "signature.log"),
        ("/verificationMaterial/tlogEntries/0/inclusionProof/treeSize", "signature.log"),
    ] {
        let bent = with(value.clone(), pointer, "2").to_string();
        assert_eq!(world.code(bent.as_bytes()), code, "{pointer}");
    }
    // The time is proven: whoever holds a stolen identity later cannot go back before the denial.
    let deny = |after| Deny::signer(format!("oidc:{ISSUER}#{WORKFLOW}").parse::<SignerId>().unwrap(), Some(after));
    world.document.add_deny(deny(SIGNED_AT)).unwrap();
    assert_eq!(world.code(&good), "verified");
    world.document.add_deny(deny(SIGNED_AT - time::Duration::SECOND)).unwrap();
    assert_eq!(world.code(&good), "revoked");
}

#[test]
fn one_name_in_certificates_of_two_issuers_is_one_signer() {
    let sigstore = Sigstore::new();
    let mut world = world(&sigstore);
    let (one, two) = ("https://one.example", "https://two.example");
    knows(&mut world, "anna-one", "anna@acme.example", one);
    knows(&mut world, "anna-two", "anna@acme.example", two);
    let requirement = Requirement {
        names: vec!["demo:*".parse().unwrap()],
        all: vec![RoleThreshold { role: "release".to_owned(), k: 2 }],
        evidence: Vec::new(),
    };
    world.document.add_requirement(requirement).unwrap();
    let [first, second] = [one, two].map(|issuer| bundle(&world, &sigstore, "anna@acme.example", issuer));
    assert_eq!(world.code_of(&[&first, &second]), "signer.threshold");
    let ci = bundle(&world, &sigstore, WORKFLOW, ISSUER);
    assert_eq!(world.code_of(&[&first, &ci]), "verified");
}

#[test]
fn what_runs_is_verified_again_where_the_policy_demands_more_of_its_certificate() {
    let sigstore = Sigstore::new();
    let world = world(&sigstore);
    let verified = world.verify(&[&bundle(&world, &sigstore, WORKFLOW, ISSUER)]).unwrap();
    let again = |change: &dyn Fn(&mut Value)| {
        let mut document = json!(world.document);
        change(&mut document);
        let document: portcullis_signing::TrustDocument = serde_json::from_value(document).unwrap();
        let signed = sign_trust(&document, None, &world.root).unwrap();
        let policy = TrustPolicy::verify(&signed, &[world.root.public()], 1, NOW, None).unwrap();
        // Twice: the second time it is known already.
        let judge = || recheck(&verified, &policy, None, CLUSTER, NOW).map_err(|refusal| refusal.code().as_str());
        assert_eq!(judge(), judge());
        judge()
    };
    assert_eq!(again(&|_| {}), Ok(()));
    let demand = |repository: &str| {
        let claims = json!({ "sourceRepositoryUri": repository });
        again(&|document| document["signers"][1]["oidc"]["claims"] = claims.clone())
    };
    assert_eq!(demand("https://ci.example/acme/orders"), Ok(()));
    assert_eq!(demand("https://ci.example/somebody/else"), Err("signer.unknown"));
    // A newer root that still has the authority, and one that has another.
    let other = Sigstore::new().trusted_root();
    let both = |document: &mut Value| {
        let more = other["ctlogs"][0].clone();
        document["sigstoreRoots"]["own"]["ctlogs"].as_array_mut().unwrap().push(more);
    };
    assert_eq!(again(&both), Ok(()));
    let exchanged = |document: &mut Value| {
        document["sigstoreRoots"]["own"]["certificateAuthorities"] = other["certificateAuthorities"].clone();
    };
    assert_eq!(again(&exchanged), Err("signature.certificate"));
    assert_eq!(again(&|_| {}), Ok(()), "a failure is not remembered as more than it is");
}
