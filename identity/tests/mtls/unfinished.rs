//! Handshakes that come to no end: of peers that do not do their part, and of ours where the key is not there to sign.

use super::*;

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let rogue = Rogue::new();
    let refused = accept_from(rogue.bundle(), plain_client(&[&rustls::version::TLS13], None)).await;
    assert!(matches!(refused, Err(TlsError::NoCertificate)), "{refused:?}");
}

#[tokio::test]
async fn tls_1_2_is_refused_by_either_side() {
    let rogue = Rogue::new();
    let old = plain_client(&[&rustls::version::TLS12], Some(rogue.leaf(|_| ())));
    let refused = accept_from(rogue.bundle(), old).await;
    assert!(matches!(refused, Err(TlsError::Handshake(_))), "{refused:?}");

    let (chain, key) = rogue.leaf(|_| ());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let server = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let site = Site::new();
    let client = connector(&site.svid("cart"), site.signer("cart"), &rogue.bundle(), &id("vault")).unwrap();
    let (near, far) = duplex(1 << 16);
    let (connected, _) = tokio::join!(client.connect("vault.internal", near), server.accept(far));
    assert!(matches!(connected, Err(TlsError::RefusedByPeer(_) | TlsError::Handshake(_))), "{connected:?}");
}

#[tokio::test]
async fn a_server_name_that_is_not_served_is_refused() {
    let site = Site::new();
    let client = connector(&site.svid("cart"), site.signer("cart"), &site.bundle(), &id("vault")).unwrap();
    for name in ["other.internal", "192.0.2.1"] {
        let (connected, accepted) = shake(&client, &site.acceptor(site.bundle()), name).await;
        assert!(matches!(accepted, Err(TlsError::NotServed)), "{accepted:?}");
        assert!(matches!(connected, Err(TlsError::RefusedByPeer(_))), "{connected:?}");
    }
    let (connected, _) = shake(&client, &site.acceptor(site.bundle()), "no name\n").await;
    assert!(matches!(connected, Err(TlsError::ServerName(_))));
}

#[tokio::test]
async fn a_broken_signer_ends_the_handshake_and_its_text_is_escaped() {
    let site = Site::new();
    let broken = |instance: &str| {
        let site = Arc::clone(&site);
        Arc::new(Remote { site, instance: instance.parse().unwrap(), calls: AtomicUsize::new(0), broken: true })
    };
    let client = connector(&site.svid("cart"), broken("cart"), &site.bundle(), &id("vault")).unwrap();
    let (connected, _) = shake(&client, &site.acceptor(site.bundle()), "vault.internal").await;
    match connected {
        Err(error @ TlsError::Signer(_)) => assert!(error.to_string().contains(r"process\nis gone"), "{error}"),
        other => panic!("{other:?}"),
    }
    let served = ServedIdentity { svid: site.svid("vault"), signer: broken("vault") };
    let client = connector(&site.svid("cart"), site.signer("cart"), &site.bundle(), &id("vault")).unwrap();
    let (_, accepted) = shake(&client, &serve(served, site.bundle()), "vault.internal").await;
    assert!(matches!(accepted, Err(TlsError::Signer(_))), "{accepted:?}");
}

#[tokio::test]
async fn an_instance_that_was_stopped_makes_no_more_handshakes() {
    let site = Site::new();
    let client = connector(&site.svid("cart"), site.signer("cart"), &site.bundle(), &id("vault")).unwrap();
    let server = site.acceptor(site.bundle());
    assert!(shake(&client, &server, "vault.internal").await.1.is_ok());
    site.issuer.lock().unwrap().stop(&"cart".parse().unwrap());
    let (connected, accepted) = shake(&client, &server, "vault.internal").await;
    assert!(matches!(connected, Err(TlsError::Signer(_))), "{connected:?}");
    assert!(accepted.is_err());
}

#[tokio::test]
async fn a_signature_of_another_key_is_refused() {
    let site = Site::new();
    let svid = Svid { key_id: site.svid("vault").key_id.clone(), ..site.svid("cart").as_ref().clone() };
    let svid = Arc::new(svid);
    let client = connector(&svid, site.signer("vault"), &site.bundle(), &id("vault")).unwrap();
    let (_, accepted) = shake(&client, &site.acceptor(site.bundle()), "vault.internal").await;
    assert!(accepted.is_err(), "a certificate without its key proves nothing");
}

#[tokio::test]
async fn a_connector_that_could_verify_nobody_is_not_made() {
    let site = Site::new();
    let make =
        |svid: &Arc<Svid>, peer: &str| connector(svid, site.signer("cart"), &site.bundle(), &peer.parse().unwrap());
    let svid = site.svid("cart");
    assert!(matches!(make(&svid, "spiffe://example.org"), Err(TlsError::PinnedTrustDomain(_))));
    assert!(matches!(make(&svid, "spiffe://example.com/a"), Err(TlsError::NoAuthority(_))));
    let empty = Arc::new(Svid { chain: Vec::new(), ..svid.as_ref().clone() });
    assert!(matches!(make(&empty, "spiffe://example.org/vault"), Err(TlsError::OwnSvid(_))));
    let other = Arc::new(Svid { spiffe_id: id("vault"), ..svid.as_ref().clone() });
    assert!(matches!(make(&other, "spiffe://example.org/vault"), Err(TlsError::OwnSvid(_))));
}

#[tokio::test]
async fn an_svid_of_ours_that_expired_is_refused_by_the_peer() {
    let then = OffsetDateTime::now_utc() - Duration::from_secs(2 * 3600);
    let site = Site::at("example.org", then);
    let old = site.svid_at("cart", then);
    let client = connector(&old, site.signer("cart"), &site.bundle(), &id("vault")).unwrap();
    let (_, accepted) = shake(&client, &site.acceptor(site.bundle()), "vault.internal").await;
    assert!(matches!(&accepted, Err(TlsError::Peer(PeerError::Path(why))) if why.contains("Expired")), "{accepted:?}");
}
