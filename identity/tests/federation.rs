//! Fetching bundles over TLS in one process: our client against our endpoints and against servers that must be refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_identity::federation::{
    BundleUrl, CertificateError, Dial, EndpointAcceptor, FetchError, Peer, Profile, WebCertificate, WebTrust,
    ca_certificates, fetch, spiffe_endpoint, web_endpoint,
};
use portcullis_identity::limits::{BUNDLE_FETCH, MAX_CHAIN_CERTIFICATES, MAX_REDIRECTS, MAX_WEB_CERTIFICATE_BYTES};
use portcullis_identity::mtls::{HandshakeSigner, PeerError, ServedIdentity, Svid, TlsError};
use portcullis_identity::web::WebConnector;
use portcullis_identity::{Issuer, Lifetimes, SpiffeId, TrustBundle, TrustDomain, Workload};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// A trust domain with an endpoint.
struct Domain {
    issuer: Mutex<Issuer>,
    _dir: tempfile::TempDir,
}

struct Signer(Arc<Domain>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl HandshakeSigner for Signer {
    fn sign(&self, key_id: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let issuer = self.0.issuer.lock().unwrap();
        issuer.sign_handshake(&"host".parse().unwrap(), key_id, message).map_err(|error| error.to_string())
    }
}

impl Domain {
    fn new(name: &str) -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let domain: TrustDomain = name.parse().unwrap();
        let now = OffsetDateTime::now_utc();
        let mut issuer = Issuer::open(&dir.path().join("state"), &domain, Lifetimes::default(), now).unwrap();
        let workload = Workload {
            instance: "host".parse().unwrap(),
            spiffe_id: endpoint_id(name),
            digest: String::new(),
            component: "host".to_owned(),
            exportable: false,
        };
        issuer.admit(workload).unwrap();
        Arc::new(Self { issuer: Mutex::new(issuer), _dir: dir })
    }

    fn json(&self) -> String {
        self.issuer.lock().unwrap().bundle().to_json()
    }

    fn name(&self) -> TrustDomain {
        self.issuer.lock().unwrap().trust_domain().clone()
    }

    /// This domain's bundle, as the bundle of this or (wrongly) of another domain.
    fn trust(&self) -> TrustBundle {
        TrustBundle::from_json(&self.name(), self.json().as_bytes()).unwrap()
    }

    fn endpoint(self: &Arc<Self>) -> EndpointAcceptor {
        let domain = Arc::clone(self);
        spiffe_endpoint(move || {
            let minted = domain.issuer.lock().unwrap().x509_svid(
                &"host".parse().unwrap(),
                Duration::from_secs(3600),
                OffsetDateTime::now_utc(),
            );
            let svid = minted.unwrap().svid;
            let svid =
                Svid { spiffe_id: svid.spiffe_id, chain: svid.chain, key_id: svid.key_id, not_after: svid.not_after };
            Some(ServedIdentity { svid: svid.into(), signer: Arc::new(Signer(Arc::clone(&domain))) })
        })
        .unwrap()
    }
}

fn endpoint_id(domain: &str) -> SpiffeId {
    format!("spiffe://{domain}/portcullis/host").parse().unwrap()
}

/// An authority of the Web and a certificate for `localhost`, PEM.
struct Web {
    ca: String,
    chain: String,
    key: String,
}

fn web() -> Web {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "root");
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &root).unwrap();
    Web { ca: root.pem(), chain: leaf.pem(), key: key.serialize_pem() }
}

impl Web {
    fn endpoint(&self) -> EndpointAcceptor {
        let certificate = WebCertificate::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap();
        web_endpoint(move || Some(certificate.clone())).unwrap()
    }

    fn trust(&self) -> WebTrust {
        Ok(WebConnector::with_roots(ca_certificates(self.ca.as_bytes()).unwrap(), "none").unwrap())
    }
}

fn nobody() -> WebTrust {
    Err("no roots in this test".to_owned())
}

/// Answers by path over TLS, and notes who was dialled.
#[derive(Clone)]
struct Net(Arc<Served>);

/// What is answered at a path.
type Answer = dyn Fn(&str) -> Vec<u8> + Send + Sync;

struct Served {
    acceptor: EndpointAcceptor,
    answer: Box<Answer>,
    dialled: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Dial for Net {
    type Stream = DuplexStream;

    async fn dial(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        self.0.dialled.lock().unwrap().push(format!("{host}:{port}"));
        let (near, far) = duplex(64 << 10);
        let net = Arc::clone(&self.0);
        tokio::spawn(async move {
            let Ok(mut tls) = net.acceptor.accept(far).await else { return };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match tls.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let head = String::from_utf8(head).unwrap();
            let answer = (net.answer)(head.split(' ').nth(1).unwrap());
            let _ = tls.write_all(&answer).await;
            let _ = tls.shutdown().await;
        });
        Ok(near)
    }
}

fn net(acceptor: EndpointAcceptor, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Net {
    Net(Arc::new(Served { acceptor, answer: Box::new(answer), dialled: Mutex::default() }))
}

fn document(json: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{json}", json.len()).into_bytes()
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 307 T\r\ncontent-length: 0\r\nlocation: {to}\r\n\r\n").into_bytes()
}

fn peer(domain: &str, profile: Profile, redirects: &[&str]) -> Peer {
    let url: BundleUrl = "https://localhost:8443/0".parse().unwrap();
    let hosts = redirects.iter().map(|host| (*host).to_owned()).collect();
    let own = "ours.example".parse().unwrap();
    Peer::new(&own, domain.parse().unwrap(), url, profile, hosts, Duration::from_secs(3600)).unwrap()
}

fn spiffe(domain: &str) -> Peer {
    peer(domain, Profile::Spiffe { endpoint: endpoint_id(domain) }, &[])
}

#[tokio::test]
async fn fe_04_the_endpoint_is_verified_with_the_bundle_that_is_held_of_its_domain() {
    let domain = Domain::new("theirs.example");
    let json = domain.json();
    let net = net(domain.endpoint(), move |_| document(&json));
    let found = fetch(&spiffe("theirs.example"), &domain.trust(), &nobody(), &net).await.unwrap();
    assert_eq!((found.json(), found.trust_domain()), (domain.json().as_str(), &domain.name()));
}

#[tokio::test]
async fn fe_04_another_authority_another_domain_and_another_id_are_refused() {
    let (domain, other) = (Domain::new("theirs.example"), Domain::new("theirs.example"));
    let json = domain.json();
    let net = net(domain.endpoint(), move |_| document(&json));
    let refused = fetch(&spiffe("theirs.example"), &other.trust(), &nobody(), &net).await;
    assert!(matches!(refused, Err(FetchError::Spiffe { why: TlsError::Peer(PeerError::Path(_)), .. })), "{refused:?}");
    // The bundle of another domain is not asked, whatever is in it.
    let foreign = Domain::new("foreign.example");
    let refused = fetch(&spiffe("theirs.example"), &foreign.trust(), &nobody(), &net).await;
    assert!(matches!(refused, Err(FetchError::Spiffe { why: TlsError::NoAuthority(_), .. })), "{refused:?}");
    let endpoint = "spiffe://theirs.example/other".parse().unwrap();
    let wrong = peer("theirs.example", Profile::Spiffe { endpoint }, &[]);
    let refused = fetch(&wrong, &domain.trust(), &nobody(), &net).await;
    assert!(matches!(refused, Err(FetchError::Spiffe { why: TlsError::Peer(PeerError::WrongPeer { .. }), .. })));
    assert_eq!(net.0.dialled.lock().unwrap().len(), 2, "without an authority nobody is dialled");
}

#[tokio::test]
async fn fe_08_the_profiles_do_not_stand_in_for_each_other() {
    let (domain, web) = (Domain::new("theirs.example"), web());
    let json = domain.json();
    let (copy, by_web) = (json.clone(), peer("theirs.example", Profile::Web, &[]));
    let (shows_web, shows_svid) =
        (net(web.endpoint(), move |_| document(&json)), net(domain.endpoint(), move |_| document(&copy)));
    assert!(fetch(&by_web, &domain.trust(), &web.trust(), &shows_web).await.is_ok());
    let refused = fetch(&by_web, &domain.trust(), &web.trust(), &shows_svid).await;
    assert!(matches!(refused, Err(FetchError::Web { .. })), "{refused:?}");
    let refused = fetch(&spiffe("theirs.example"), &domain.trust(), &web.trust(), &shows_web).await;
    assert!(matches!(refused, Err(FetchError::Spiffe { why: TlsError::Peer(PeerError::Leaf(_)), .. })), "{refused:?}");
    assert!(matches!(fetch(&by_web, &domain.trust(), &nobody(), &shows_web).await, Err(FetchError::NoRoots(_))));
}

#[tokio::test]
async fn a_foreign_authority_in_a_peers_document_spoils_it() {
    let (domain, ours) = (Domain::new("theirs.example"), Domain::new("ours.example"));
    let json = ours.json();
    let net = net(domain.endpoint(), move |_| document(&json));
    let refused = fetch(&spiffe("theirs.example"), &domain.trust(), &nobody(), &net).await;
    assert!(matches!(refused, Err(FetchError::Bundle(_))), "{refused:?}");
}

#[tokio::test]
async fn fe_05_the_most_redirects_pass_and_one_more_is_refused() {
    let domain = Domain::new("theirs.example");
    for (hops, passes) in [(MAX_REDIRECTS, true), (MAX_REDIRECTS + 1, false)] {
        let json = domain.json();
        let net = net(domain.endpoint(), move |path| {
            let hop: usize = path.trim_start_matches('/').parse().unwrap();
            if hop < hops { redirect(&format!("/{}", hop + 1)) } else { document(&json) }
        });
        let found = fetch(&spiffe("theirs.example"), &domain.trust(), &nobody(), &net).await;
        assert_eq!(found.is_ok(), passes, "{found:?}");
        assert!(passes || matches!(found, Err(FetchError::Redirects)));
    }
}

#[tokio::test]
async fn fe_05_a_redirect_leads_to_named_hosts_only_and_the_server_there_must_prove_itself_too() {
    let domain = Domain::new("theirs.example");
    let json = domain.json();
    let net = net(domain.endpoint(), move |path| {
        if path == "/0" { redirect("https://elsewhere.example/bundle") } else { document(&json) }
    });
    let refused = fetch(&spiffe("theirs.example"), &domain.trust(), &nobody(), &net).await;
    assert!(matches!(refused, Err(FetchError::RedirectHost(_))));
    assert_eq!(*net.0.dialled.lock().unwrap(), ["localhost:8443"], "the other host was not dialled");
    let endpoint = endpoint_id("theirs.example");
    let allowed = peer("theirs.example", Profile::Spiffe { endpoint }, &["elsewhere.example"]);
    assert!(fetch(&allowed, &domain.trust(), &nobody(), &net).await.is_ok());
    assert_eq!(net.0.dialled.lock().unwrap().last().unwrap(), "elsewhere.example:443");
    let web = web();
    let by_web = peer("theirs.example", Profile::Web, &["elsewhere.example"]);
    let json = domain.json();
    let leads = self::net(web.endpoint(), move |path| {
        if path == "/0" { redirect("https://elsewhere.example/bundle") } else { document(&json) }
    });
    let refused = fetch(&by_web, &domain.trust(), &web.trust(), &leads).await;
    assert!(matches!(refused, Err(FetchError::Web { .. })), "its certificate is for localhost: {refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up() {
    struct Silent;
    #[async_trait::async_trait]
    impl Dial for Silent {
        type Stream = DuplexStream;
        async fn dial(&self, _: &str, _: u16) -> io::Result<DuplexStream> {
            let (near, far) = duplex(1024);
            std::mem::drop(tokio::spawn(async move {
                let _held = far;
                std::future::pending::<()>().await;
            }));
            Ok(near)
        }
    }
    let domain = Domain::new("theirs.example");
    let begun = tokio::time::Instant::now();
    let refused = fetch(&spiffe("theirs.example"), &domain.trust(), &nobody(), &Silent).await;
    assert!(matches!(refused, Err(FetchError::Timeout)), "{refused:?}");
    assert_eq!(begun.elapsed().as_secs(), BUNDLE_FETCH.as_secs());
}

#[test]
fn certificates_and_keys_that_do_not_belong_together_or_are_none_are_refused() {
    let (one, other) = (web(), web());
    let read = |chain: &str, key: &str| WebCertificate::from_pem(chain.as_bytes(), key.as_bytes()).err();
    assert_eq!(read(&one.chain, &one.key), None);
    assert_eq!(read(&one.chain, &other.key), Some(CertificateError::Mismatch));
    assert_eq!(read(&one.key, &one.key), Some(CertificateError::NoCertificate));
    assert_eq!(read(&one.chain, &one.chain), Some(CertificateError::NoKey));
    assert_eq!(read("", ""), Some(CertificateError::NoCertificate));
    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(read(&one.chain, garbage), Some(CertificateError::Key(_))));
    let padded = |bytes: usize| one.chain.clone() + &"\n".repeat(bytes - one.chain.len());
    assert_eq!(read(&padded(MAX_WEB_CERTIFICATE_BYTES), &one.key), None);
    assert_eq!(read(&padded(MAX_WEB_CERTIFICATE_BYTES + 1), &one.key), Some(CertificateError::TooLarge));
    let many = |count: usize| one.chain.repeat(count);
    assert_eq!(read(&many(MAX_CHAIN_CERTIFICATES), &one.key), None);
    assert_eq!(read(&many(MAX_CHAIN_CERTIFICATES + 1), &one.key), Some(CertificateError::TooLarge));
    assert!(
        ca_certificates(b"no pem").is_err() && ca_certificates(&vec![b'\n'; MAX_WEB_CERTIFICATE_BYTES + 1]).is_err()
    );
}
