//! Peers of other trust domains: known by the bundle of their own domain, and by no other.

use super::*;

#[tokio::test]
async fn a_client_of_a_foreign_domain_passes_only_with_its_bundle_and_never_under_our_name() {
    let (site, foreign) = (Site::new(), Site::at("example.com", OffsetDateTime::now_utc()));
    let client = connector(&foreign.svid("cart"), foreign.signer("cart"), &site.bundle(), &id("vault")).unwrap();
    let (_, accepted) = shake(&client, &site.acceptor(site.bundle()), "vault.internal").await;
    match accepted {
        Err(TlsError::Peer(PeerError::UnknownTrustDomain(name))) => assert_eq!(name, domain("example.com")),
        other => panic!("{other:?}"),
    }
    let mut both = site.bundle();
    let document = foreign.issuer.lock().unwrap().bundle().to_json();
    both.insert(&domain("example.com"), document.as_bytes()).unwrap();
    let (_, accepted) = shake(&client, &site.acceptor(both.clone()), "vault.internal").await;
    assert_eq!(accepted.unwrap().1.spiffe_id().to_string(), "spiffe://example.com/cart");
    // The authority of example.org names somebody of example.com: both are trusted, each for its own domain only.
    let rogue = Rogue::new();
    let mut mixed = rogue.bundle();
    mixed.insert(&domain("example.com"), document.as_bytes()).unwrap();
    let crossed =
        rogue.leaf(|p| p.subject_alt_names = vec![SanType::URI("spiffe://example.com/cart".try_into().unwrap())]);
    let refused = accept_from(mixed, tls13(crossed)).await;
    assert!(matches!(refused, Err(TlsError::Peer(PeerError::Path(_)))), "{refused:?}");
}

#[tokio::test]
async fn a_server_of_a_federated_domain_passes_only_with_its_own_bundle() {
    let (site, foreign) = (Site::new(), Site::at("example.com", OffsetDateTime::now_utc()));
    let document = foreign.issuer.lock().unwrap().bundle().to_json();
    let mut both = site.bundle();
    both.insert(&domain("example.com"), document.as_bytes()).unwrap();
    let peer: SpiffeId = "spiffe://example.com/vault".parse().unwrap();
    let client = |bundle: &TrustBundle| connector(&site.svid("cart"), site.signer("cart"), bundle, &peer);
    let (connected, accepted) = shake(&client(&both).unwrap(), &foreign.acceptor(both.clone()), "vault.internal").await;
    assert_eq!(connected.unwrap().1.spiffe_id(), &peer);
    assert_eq!(accepted.unwrap().1.spiffe_id(), &id("cart"));
    assert!(matches!(client(&site.bundle()), Err(TlsError::NoAuthority(_))));
    // The bundle of example.org under the name of example.com is no bundle of it.
    let ours = site.issuer.lock().unwrap().bundle().to_json();
    let mut swapped = site.bundle();
    assert!(swapped.insert(&domain("example.com"), ours.as_bytes()).is_err());
}

#[tokio::test]
async fn a_peer_is_verified_again_with_the_bundles_as_they_are_then() {
    let now = OffsetDateTime::now_utc();
    let site = Site::new();
    let client = connector(&site.svid("cart"), site.signer("cart"), &site.bundle(), &id("vault")).unwrap();
    let (connected, accepted) = shake(&client, &site.acceptor(site.bundle()), "vault.internal").await;
    let own = site.svid("cart");
    for peer in [connected.unwrap().1, accepted.unwrap().1] {
        peer.check_again(&site.bundle(), now).unwrap();
        // The authority is gone from the bundle, another one is there, or the domain is not trusted any more.
        let empty = TrustBundle::from_json(&domain("example.org"), br#"{"keys": []}"#).unwrap();
        assert_eq!(peer.check_again(&empty, now), Err(PeerError::UnknownTrustDomain(domain("example.org"))));
        assert!(matches!(peer.check_again(&Rogue::new().bundle(), now), Err(PeerError::Path(_))), "{peer:?}");
        assert!(matches!(peer.check_again(&TrustBundle::new(), now), Err(PeerError::UnknownTrustDomain(_))));
        let late = peer.not_after() + Duration::from_secs(1);
        assert!(matches!(peer.check_again(&site.bundle(), late), Err(PeerError::Path(why)) if why.contains("Expired")));
    }
    own.check(&site.bundle(), now).unwrap();
    assert!(matches!(own.check(&Rogue::new().bundle(), now), Err(PeerError::Path(_))));
    assert_eq!(Svid { chain: Vec::new(), ..own.as_ref().clone() }.check(&site.bundle(), now), Err(PeerError::NoChain));
}
