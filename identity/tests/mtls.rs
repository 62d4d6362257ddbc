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

#[path = "mtls/broker.rs"]
mod broker;
#[path = "mtls/domains.rs"]
mod domains;
#[path = "mtls/leaves.rs"]
mod leaves;
#[path = "mtls/unfinished.rs"]
mod unfinished;

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
async fn plain_peers_with_a_good_svid_pass() {
    let rogue = Rogue::new();
    assert_eq!(connect_to(&rogue.bundle(), rogue.leaf(|_| ())).await.unwrap(), id("vault"));
    assert_eq!(accept_from(rogue.bundle(), tls13(rogue.leaf(|_| ()))).await.unwrap(), id("vault"));
}
