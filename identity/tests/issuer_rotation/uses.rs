//! What an issuer does with its keys beside minting: exports, signed data, the issuer in tokens, WIT-SVIDs.

use super::*;

#[test]
fn the_key_of_an_svid_is_exported_only_for_workloads_that_were_admitted_so() {
    let mut site = Site::new();
    let exported = site.issuer.export_x509(&one(), HOUR, start()).unwrap();
    assert!(exported.fresh && !format!("{exported:?}").contains("key:"));
    let key = rcgen::KeyPair::try_from(exported.svid.pkcs8()).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&exported.svid.svid.chain[0]).unwrap();
    assert_eq!(key.public_key_raw(), &*leaf.public_key().subject_public_key.data);
    assert!(!site.issuer.export_x509(&one(), HOUR, start()).unwrap().fresh);
    let two: InstanceId = "two".parse().unwrap();
    let mut workload = site.issuer.workload(&one()).unwrap().clone();
    (workload.instance, workload.exportable) = (two.clone(), false);
    site.issuer.admit(workload).unwrap();
    assert_eq!(site.issuer.export_x509(&two, HOUR, start()).err(), Some(IssueError::NotExportable(two.clone())));
    assert!(site.issuer.x509_svid(&two, HOUR, start()).is_ok());
}

#[test]
fn data_is_signed_for_a_purpose_with_the_key_of_the_leaf() {
    let mut site = Site::new();
    let svid = site.issuer.x509_svid(&one(), HOUR, start()).unwrap().svid;
    let signature = site.issuer.sign(&one(), &svid.key_id, "receipts", b"data").unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&svid.chain[0]).unwrap();
    let key = ring::signature::UnparsedPublicKey::new(
        &ring::signature::ECDSA_P256_SHA256_ASN1,
        leaf.public_key().subject_public_key.data.to_vec(),
    );
    let message = portcullis_identity::signed_message("receipts", b"data").unwrap();
    assert!(key.verify(&message, &signature).is_ok());
    assert!(key.verify(b"data", &signature).is_err());
    assert_eq!(site.issuer.sign(&one(), &svid.key_id, "Receipts", b""), Err(SignError::Purpose));
    assert_eq!(site.issuer.sign(&one(), "", "receipts", b""), Err(SignError::UnknownKey));
    let unknown = site.issuer.sign(&"two".parse().unwrap(), &svid.key_id, "receipts", b"");
    assert!(matches!(unknown, Err(SignError::UnknownInstance(_))));
}

#[test]
fn a_configured_issuer_is_in_every_token_and_none_otherwise() {
    let mut options = IssuerOptions::new(Lifetimes::default());
    options.jwt_issuer = Some("https://id.example.org".parse().unwrap());
    let mut site = Site::with(options);
    let token = site.token(start());
    let claims = site.issuer.validate_jwt(&token, "vault", start()).unwrap();
    assert_eq!(claims.issuer(), Some("https://id.example.org"));
    let mut plain = Site::new();
    let token = plain.token(start());
    assert_eq!(plain.issuer.validate_jwt(&token, "vault", start()).unwrap().issuer(), None);
}

#[test]
fn wit_svids_have_an_authority_of_their_own_when_they_are_wanted() {
    let mut options = IssuerOptions::new(Lifetimes::default());
    options.wit_svid = true;
    let mut site = Site::with(options.clone());
    let minted = site.issuer.wit_svid(&one(), HOUR, start()).unwrap();
    assert!(minted.fresh && !site.issuer.wit_svid(&one(), HOUR, start()).unwrap().fresh);
    let claims = site.issuer.validate_wit(minted.svid.token(), start()).unwrap();
    assert_eq!(claims.spiffe_id().to_string(), "spiffe://example.org/a");
    assert!(site.issuer.validate_jwt(minted.svid.token(), "vault", start()).is_err());
    let jwt = site.token(start());
    assert!(site.issuer.validate_wit(&jwt, start()).is_err());

    // WI-05: the kid is unique among all keys of the bundle.
    let document: serde_json::Value = serde_json::from_str(&site.issuer.bundle().to_json()).unwrap();
    let keys = document["keys"].as_array().unwrap();
    let kid = |usage: &str| keys.iter().find(|key| key["use"] == usage).unwrap()["kid"].as_str().unwrap().to_owned();
    assert_ne!(kid("wit-svid"), kid("jwt-svid"));

    let active = site.in_state(Wit, Active).id;
    assert_eq!(active.as_str(), kid("wit-svid"));
    site.issuer.taint(&active, start()).unwrap();
    assert!(matches!(site.issuer.validate_wit(minted.svid.token(), start()), Err(TokenError::UnknownKey(_))));
    assert!(site.issuer.wit_svid(&one(), HOUR, start()).unwrap().fresh);

    let mut site = site.reopen(IssuerOptions::new(Lifetimes::default()), start() + MINUTE);
    assert_eq!(site.issuer.wit_svid(&one(), HOUR, start() + MINUTE).err(), Some(IssueError::NoWit));
    assert!(site.states(Wit).iter().all(|(_, state)| *state != Active), "turned off: it signs no more");
    assert_eq!(site.issuer.bundle().wit_authorities().len(), 1, "but what it signed is valid until it ends");
    site.issuer.tick(start() + HOUR * 2);
    assert!(site.issuer.bundle().wit_authorities().is_empty());
}
