//! Mutual TLS in one process over a duplex stream: our connector and acceptor against each other, and each against peers that
//! must be refused. Peers that misbehave are plain `rustls` with certificates made for the purpose.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_identity::limits::MAX_CHAIN_CERTIFICATES;
use portcullis_identity::mtls::{
    Acceptor, HandshakeSigner, Peer, PeerError, ServedIdentity, Svid, TlsError, TlsStream, acceptor, connector,
};
use portcullis_identity::{InstanceId, Issuer, LeafError, Lifetimes, SpiffeId, TrustBundle, TrustDomain, Workload};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// An issuer with `cart` and `vault` admitted, used as the host's identity process would be.
struct Site {
    issuer: Mutex<Issuer>,
    _dir: tempfile::TempDir,
}

/// Signs with the issuer, and counts.
struct Remote {
    site: Arc<Site>,
    instance: InstanceId,
    calls: AtomicUsize,
    broken: bool,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

impl HandshakeSigner for Remote {
    fn sign(&self, key_id: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.broken {
            return Err("the identity process\nis gone".into());
        }
        self.site.issuer.lock().unwrap().sign_handshake(&self.instance, key_id, message).map_err(|e| e.to_string())
    }
}

fn domain(name: &str) -> TrustDomain {
    name.parse().unwrap()
}

fn id(name: &str) -> SpiffeId {
    format!("spiffe://example.org/{name}").parse().unwrap()
}

impl Site {
    fn new() -> Arc<Self> {
        Self::at("example.org", OffsetDateTime::now_utc())
    }

    fn at(name: &str, now: OffsetDateTime) -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut issuer = Issuer::open(&dir.path().join("state"), &domain(name), Lifetimes::default(), now).unwrap();
        for instance in ["cart", "vault"] {
            issuer
                .admit(Workload {
                    instance: instance.parse().unwrap(),
                    spiffe_id: format!("spiffe://{name}/{instance}").parse().unwrap(),
                    digest: "sha256:00".into(),
                    component: instance.into(),
                    exportable: false,
                })
                .unwrap();
        }
        Arc::new(Self { issuer: Mutex::new(issuer), _dir: dir })
    }

    fn bundle(&self) -> TrustBundle {
        let bundle = self.issuer.lock().unwrap().bundle();
        TrustBundle::from_json(bundle.trust_domain(), bundle.to_json().as_bytes()).unwrap()
    }

    fn svid(&self, instance: &str) -> Arc<Svid> {
        self.svid_at(instance, OffsetDateTime::now_utc())
    }

    fn svid_at(&self, instance: &str, now: OffsetDateTime) -> Arc<Svid> {
        let minted =
            self.issuer.lock().unwrap().x509_svid(&instance.parse().unwrap(), Duration::from_secs(3600), now).unwrap();
        let svid = minted.svid;
        Arc::new(Svid { spiffe_id: svid.spiffe_id, chain: svid.chain, key_id: svid.key_id, not_after: svid.not_after })
    }

    fn signer(self: &Arc<Self>, instance: &str) -> Arc<Remote> {
        let site = Arc::clone(self);
        Arc::new(Remote { site, instance: instance.parse().unwrap(), calls: AtomicUsize::new(0), broken: false })
    }

    /// Serves `vault` under its own name to whoever this bundle verifies.
    fn acceptor(self: &Arc<Self>, bundle: TrustBundle) -> Acceptor {
        let served = ServedIdentity { svid: self.svid("vault"), signer: self.signer("vault") };
        serve(served, bundle)
    }
}

fn serve(served: ServedIdentity, bundle: TrustBundle) -> Acceptor {
    let bundle = Arc::new(bundle);
    acceptor(
        Arc::new(move |name| (name == Some("vault.internal")).then(|| served.clone())),
        Arc::new(move || Arc::clone(&bundle)),
    )
    .unwrap()
}

type Outcome = (Result<(TlsStream<DuplexStream>, Peer), TlsError>, Result<(TlsStream<DuplexStream>, Peer), TlsError>);

/// One handshake of our connector with our acceptor. In TLS 1.3 a client is done before the server has checked it, so the
/// client reads once more when the server refused.
async fn shake(client: &portcullis_identity::mtls::Connector, server: &Acceptor, name: &str) -> Outcome {
    let (near, far) = duplex(1 << 16);
    tokio::join!(client.connect(name, near), server.accept(far))
}

/// A certificate authority that will sign anything.
struct Rogue {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Rogue {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI("spiffe://example.org".try_into().unwrap())];
        params.not_before = OffsetDateTime::now_utc() - Duration::from_secs(60);
        params.not_after = OffsetDateTime::now_utc() + Duration::from_secs(3600);
        change(&mut params);
        Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// A bundle in which this authority is the real one.
    fn bundle(&self) -> TrustBundle {
        use base64::Engine as _;
        let x5c = base64::engine::general_purpose::STANDARD.encode(self.ca.der());
        let json = serde_json::json!({"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [x5c]}]});
        TrustBundle::from_json(&domain("example.org"), json.to_string().as_bytes()).unwrap()
    }

    /// A leaf like an X.509-SVID of `vault`, then changed.
    fn leaf(
        &self,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI("spiffe://example.org/vault".try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = OffsetDateTime::now_utc() - Duration::from_secs(60);
        params.not_after = OffsetDateTime::now_utc() + Duration::from_secs(3600);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.ca).unwrap();
        (vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

/// A server of plain `rustls` with this certificate, which asks for no client certificate; our connector, pinned to `vault`.
async fn connect_to(
    bundle: &TrustBundle,
    (chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
) -> Result<SpiffeId, TlsError> {
    let site = Site::new();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let server = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let client = connector(&site.svid("cart"), site.signer("cart"), bundle, &id("vault")).unwrap();
    let (near, far) = duplex(1 << 16);
    let (connected, _) = tokio::join!(client.connect("vault.internal", near), server.accept(far));
    connected.map(|(_, peer)| peer.spiffe_id().clone())
}

#[derive(Debug)]
struct TrustAll;

impl rustls::client::danger::ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn plain_client(
    versions: &[&'static rustls::SupportedProtocolVersion],
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll));
    match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

/// A client of plain `rustls`; our acceptor.
async fn accept_from(bundle: TrustBundle, config: ClientConfig) -> Result<SpiffeId, TlsError> {
    let server = Site::new().acceptor(bundle);
    let client = tokio_rustls::TlsConnector::from(Arc::new(config));
    let (near, far) = duplex(1 << 16);
    let name = ServerName::try_from("vault.internal").unwrap();
    let (_, accepted) = tokio::join!(client.connect(name, near), server.accept(far));
    accepted.map(|(_, peer)| peer.spiffe_id().clone())
}

fn tls13(identity: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)) -> ClientConfig {
    plain_client(&[&rustls::version::TLS13], Some(identity))
}

#[tokio::test]
async fn the_right_peer_passes_and_each_side_learns_the_others_id() {
    let site = Site::new();
    let (svid, signer) = (site.svid("cart"), site.signer("cart"));
    let client = connector(&svid, Arc::clone(&signer) as _, &site.bundle(), &id("vault")).unwrap();
    let vault = site.signer("vault");
    let server = serve(ServedIdentity { svid: site.svid("vault"), signer: Arc::clone(&vault) as _ }, site.bundle());
    let (connected, accepted) = shake(&client, &server, "Vault.Internal").await;
    let ((mut near, server), (mut far, peer)) = (connected.unwrap(), accepted.unwrap());
    assert_eq!((server.spiffe_id(), server.server_name()), (&id("vault"), None));
    assert_eq!(peer.spiffe_id(), &id("cart"));
    assert_eq!(peer.not_after(), svid.not_after);
    assert_eq!(peer.server_name(), Some("vault.internal"));
    near.write_all(b"hello").await.unwrap();
    near.flush().await.unwrap();
    let mut read = [0; 5];
    far.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hello");
    assert_eq!(signer.calls.load(Ordering::Relaxed), 1, "the client's signature came from the signer");
    assert_eq!(vault.calls.load(Ordering::Relaxed), 1, "the server's signature came from the signer");
    let version = near.get_ref().1.protocol_version();
    assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
}

#[tokio::test]
async fn no_session_is_resumed() {
    let site = Site::new();
    let signer = site.signer("cart");
    let client = connector(&site.svid("cart"), Arc::clone(&signer) as _, &site.bundle(), &id("vault")).unwrap();
    let server = site.acceptor(site.bundle());
    for round in 1..=3 {
        let (connected, accepted) = shake(&client, &server, "vault.internal").await;
        let ((mut near, _), (mut far, _)) = (connected.unwrap(), accepted.unwrap());
        far.write_all(b"x").await.unwrap();
        far.flush().await.unwrap();
        near.read_u8().await.unwrap();
        assert_eq!(near.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(signer.calls.load(Ordering::Relaxed), round, "each handshake is signed anew");
    }
    // A client that would resume gets nothing to resume with.
    let rogue = Rogue::new();
    let server = site.acceptor(rogue.bundle());
    let config = tokio_rustls::TlsConnector::from(Arc::new(tls13(rogue.leaf(|_| ()))));
    for _ in 0..2 {
        let (near, far) = duplex(1 << 16);
        let name = ServerName::try_from("vault.internal").unwrap();
        let (near, far) = tokio::join!(config.connect(name, near), server.accept(far));
        let (mut near, (mut far, _)) = (near.unwrap(), far.unwrap());
        far.write_all(b"x").await.unwrap();
        far.flush().await.unwrap();
        near.read_u8().await.unwrap();
        assert_eq!(near.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_server_that_offers_tickets_gets_a_full_handshake_each_time() {
    let (site, rogue) = (Site::new(), Rogue::new());
    let (chain, key) = rogue.leaf(|_| ());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    assert!(config.send_tls13_tickets > 0 && config.session_storage.can_cache());
    let server = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let ours = connector(&site.svid("cart"), site.signer("cart"), &rogue.bundle(), &id("vault")).unwrap();
    let mut plain = plain_client(&[&rustls::version::TLS13], None);
    plain.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let plain = tokio_rustls::TlsConnector::from(Arc::new(plain));
    let (mut kinds, mut control) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (near, far) = duplex(1 << 16);
        let (near, far) = tokio::join!(ours.connect("vault.internal", near), server.accept(far));
        let ((mut near, _), mut far) = (near.unwrap(), far.unwrap());
        far.write_all(b"x").await.unwrap();
        far.flush().await.unwrap();
        near.read_u8().await.unwrap();
        kinds.push(near.get_ref().1.handshake_kind().unwrap());

        let (near, far) = duplex(1 << 16);
        let name = ServerName::try_from("vault.internal").unwrap();
        let (near, far) = tokio::join!(plain.connect(name, near), server.accept(far));
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        far.write_all(b"x").await.unwrap();
        far.flush().await.unwrap();
        near.read_u8().await.unwrap();
        control.push(near.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds, [rustls::HandshakeKind::Full; 2]);
    assert_eq!(control, [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed], "the server does resume");
}

#[tokio::test]
async fn another_id_than_the_pinned_one_is_refused() {
    let site = Site::new();
    let client = connector(&site.svid("cart"), site.signer("cart"), &site.bundle(), &id("vault2")).unwrap();
    let (connected, accepted) = shake(&client, &site.acceptor(site.bundle()), "vault.internal").await;
    match connected {
        Err(TlsError::Peer(PeerError::WrongPeer { expected, found })) => {
            assert_eq!((expected, found), (id("vault2"), id("vault")));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(accepted, Err(TlsError::RefusedByPeer(_))));
}

#[tokio::test]
async fn the_same_id_of_another_authority_is_refused_by_either_side() {
    let (site, other) = (Site::new(), Site::new());
    let client = connector(&site.svid("cart"), site.signer("cart"), &site.bundle(), &id("vault")).unwrap();
    let (connected, _) = shake(&client, &other.acceptor(site.bundle()), "vault.internal").await;
    assert!(matches!(connected, Err(TlsError::Peer(PeerError::Path(_)))), "{connected:?}");
    let client = connector(&other.svid("cart"), other.signer("cart"), &site.bundle(), &id("vault")).unwrap();
    let (_, accepted) = shake(&client, &site.acceptor(site.bundle()), "vault.internal").await;
    assert!(matches!(accepted, Err(TlsError::Peer(PeerError::Path(_)))), "{accepted:?}");
}

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

#[tokio::test]
async fn plain_peers_with_a_good_svid_pass() {
    let rogue = Rogue::new();
    assert_eq!(connect_to(&rogue.bundle(), rogue.leaf(|_| ())).await.unwrap(), id("vault"));
    assert_eq!(accept_from(rogue.bundle(), tls13(rogue.leaf(|_| ()))).await.unwrap(), id("vault"));
}

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
