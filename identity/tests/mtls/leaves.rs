//! Certificates that a trusted authority signed and that are no X.509-SVIDs all the same: refused by either side.

use super::*;

/// How both sides refuse a leaf that a trusted authority signed.
async fn refused(change: impl Fn(&mut CertificateParams)) -> [PeerError; 2] {
    let rogue = Rogue::new();
    let server = connect_to(&rogue.bundle(), rogue.leaf(&change)).await;
    let client = accept_from(rogue.bundle(), tls13(rogue.leaf(&change))).await;
    [server, client].map(|result| match result {
        Err(TlsError::Peer(error)) => error,
        other => panic!("{other:?}"),
    })
}

#[tokio::test]
async fn an_expired_leaf_and_one_of_the_future_are_refused() {
    let now = OffsetDateTime::now_utc();
    for error in refused(|p| p.not_after = now - Duration::from_secs(5)).await {
        assert!(matches!(&error, PeerError::Path(reason) if reason.contains("Expired")), "{error:?}");
    }
    for error in refused(|p| p.not_before = now + Duration::from_secs(600)).await {
        assert!(matches!(&error, PeerError::Path(reason) if reason.contains("NotValidYet")), "{error:?}");
    }
}

#[tokio::test]
async fn two_uri_names_are_refused() {
    let two = |p: &mut CertificateParams| {
        p.subject_alt_names.push(SanType::URI("spiffe://example.org/other".try_into().unwrap()));
    };
    for error in refused(two).await {
        assert_eq!(error, PeerError::Leaf(LeafError::UriNames(2)));
    }
}

#[tokio::test]
async fn a_leaf_without_a_uri_name_is_refused() {
    for error in refused(|p| p.subject_alt_names = vec![SanType::Rfc822Name("a@example.org".try_into().unwrap())]).await
    {
        assert_eq!(error, PeerError::Leaf(LeafError::UriNames(0)));
    }
}

#[tokio::test]
async fn wrong_key_usages_are_refused() {
    for usages in [
        vec![],
        vec![KeyUsagePurpose::KeyEncipherment],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign],
    ] {
        for error in refused(|p| p.key_usages.clone_from(&usages)).await {
            assert_eq!(error, PeerError::Leaf(LeafError::KeyUsage), "{usages:?}");
        }
    }
    for one in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth] {
        for error in refused(|p| p.extended_key_usages = vec![one.clone()]).await {
            assert_eq!(error, PeerError::Leaf(LeafError::ExtendedKeyUsage), "{one:?}");
        }
    }
}

#[tokio::test]
async fn an_authority_as_a_leaf_is_refused() {
    for error in refused(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))).await {
        assert_eq!(error, PeerError::Leaf(LeafError::Authority));
    }
    let sign = |p: &mut CertificateParams| p.key_usages.push(KeyUsagePurpose::KeyCertSign);
    for error in refused(sign).await {
        assert_eq!(error, PeerError::Leaf(LeafError::KeyUsage));
    }
}

#[tokio::test]
async fn a_certificate_with_a_dns_name_only_is_refused() {
    let dns = |p: &mut CertificateParams| {
        p.subject_alt_names = vec![SanType::DnsName("vault.internal".try_into().unwrap())];
    };
    for error in refused(dns).await {
        assert_eq!(error, PeerError::Leaf(LeafError::UriNames(0)));
    }
}

#[tokio::test]
async fn a_leaf_with_the_id_of_the_trust_domain_is_refused() {
    let root = |p: &mut CertificateParams| {
        p.subject_alt_names = vec![SanType::URI("spiffe://example.org".try_into().unwrap())]
    };
    for error in refused(root).await {
        assert!(matches!(error, PeerError::Leaf(LeafError::RootPath(_))));
    }
}

#[tokio::test]
async fn a_leaf_signed_by_a_leaf_is_refused() {
    let rogue = Rogue::new();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI("spiffe://example.org/cart".try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let middle_key = KeyPair::generate().unwrap();
    let middle = params.signed_by(&middle_key, &rogue.ca).unwrap();
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = rcgen::Issuer::new(params, middle_key);
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::URI("spiffe://example.org/vault".try_into().unwrap())];
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let identity = || {
        let chain = vec![leaf.der().clone(), middle.der().clone()];
        (chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    };
    let server = connect_to(&rogue.bundle(), identity()).await;
    assert!(matches!(server, Err(TlsError::Peer(PeerError::Path(_)))), "{server:?}");
    let client = accept_from(rogue.bundle(), tls13(identity())).await;
    assert!(matches!(client, Err(TlsError::Peer(PeerError::Path(_)))), "{client:?}");
}

#[tokio::test]
async fn a_chain_beyond_the_limit_is_refused() {
    let rogue = Rogue::new();
    let long = |count: usize| {
        let (mut chain, key) = rogue.leaf(|_| ());
        chain.resize(count, rogue.ca.der().clone());
        (chain, key)
    };
    assert!(accept_from(rogue.bundle(), tls13(long(MAX_CHAIN_CERTIFICATES))).await.is_ok());
    let refused = accept_from(rogue.bundle(), tls13(long(MAX_CHAIN_CERTIFICATES + 1))).await;
    assert!(matches!(refused, Err(TlsError::Peer(PeerError::LongChain))), "{refused:?}");
}

#[tokio::test]
async fn an_authority_with_uri_name_constraints_is_refused_with_a_hint() {
    // permittedSubtrees { uniformResourceIdentifier "example.org" }
    let subtrees = b"\x30\x11\xa0\x0f\x30\x0d\x86\x0bexample.org";
    let rogue = Rogue::with(|p| {
        let mut constraints = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 30], subtrees.to_vec());
        constraints.set_criticality(true);
        p.custom_extensions.push(constraints);
    });
    let refused = accept_from(rogue.bundle(), tls13(rogue.leaf(|_| ()))).await;
    match refused {
        Err(error @ TlsError::Peer(PeerError::NameConstraints)) => {
            assert!(error.to_string().contains("name constraints"), "{error}");
            assert!(error.hint().contains("without name constraints"));
        }
        other => panic!("{other:?}"),
    }
}
