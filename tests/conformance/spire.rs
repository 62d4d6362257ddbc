//! A real SPIRE as the site's authority: what a host takes from it, what it refuses, and what an outage changes. Needs Go the
//! first time; skipped loudly without it.

use std::sync::Arc;
use std::time::Duration;

use portcullis_identity::broker::BrokerUpstream;
use portcullis_identity::mtls::{HandshakeSigner, ServedIdentity, Svid};
use portcullis_identity::source::{IdentitySource, SourceError, SourceKind, Vouched};
use portcullis_identity::spire::{SocketPath, delegated, workload_api};
use portcullis_identity::{Audience, Clock, InstanceId, SpiffeId, Upstream, Workload};
use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::http::{self, Answer};
use portcullis_tests::site::Site;
use portcullis_tests::spire::{DELEGATE, Settings, Spire, TRUST_DOMAIN};
use spiffe::WorkloadApiClient;
use time::OffsetDateTime;

const HOUR: Duration = Duration::from_secs(3600);
const DIGEST: &str = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_spire_gives_a_registered_process_its_identity_and_an_unregistered_one_none() {
    let Some(spire) =
        start("the_control_spire_gives_a_registered_process_its_identity_and_an_unregistered_one_none").await
    else {
        return;
    };
    let client = WorkloadApiClient::connect_to(spire.workload_api()).await.unwrap();
    let refused = client.fetch_x509_svid().await.unwrap_err();
    assert!(refused.to_string().to_lowercase().contains("no identity issued"), "{refused}");
    spire.register_this_user("/control");
    let svid = eventually(async || client.fetch_x509_svid().await.ok()).await;
    assert_eq!(svid.spiffe_id().to_string(), id("/control"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_gets_the_identity_that_its_selectors_name_and_keys_stay_here() {
    let Some(spire) = start("a_component_gets_the_identity_that_its_selectors_name_and_keys_stay_here").await else {
        return;
    };
    let source = delegate(&spire).await;
    let signer = "portcullis:signer:ABC";
    spire.register(
        "/ns/shop/sa/cart",
        &["portcullis:component:shop:cart", &format!("portcullis:digest:{DIGEST}"), signer],
    );
    source.admit(cart("one")).unwrap();
    let minted = eventually(async || x509(&source, "one").await.ok()).await;
    assert!(minted.fresh);
    assert_eq!(minted.svid.spiffe_id.to_string(), id("/ns/shop/sa/cart"));
    // Code that others wrote agrees about the certificate, under the authorities that others gave.
    let bundles = source.published().borrow().bundles.clone().unwrap();
    shake_hands(&source, "one", &bundles).await;
    assert!(!x509(&source, "one").await.unwrap().fresh, "the same SVID is recorded once");
    let token = jwt(&source, "one", &["vault"]).await.unwrap();
    assert!(token.fresh);
    assert_eq!(token.svid.spiffe_id().to_string(), id("/ns/shop/sa/cart"));
    let claims = checked(&source, token.svid.token()).await;
    assert_eq!(claims.spiffe_id().to_string(), id("/ns/shop/sa/cart"));
    assert!(!jwt(&source, "one", &["vault"]).await.unwrap().fresh, "a young token is given again");
    let both = jwt(&source, "one", &["b", "a", "b"]).await.unwrap().svid;
    assert_eq!(both.claims().audiences().len(), 2);
    let status = source.status();
    assert_eq!((status.kind, status.connected, status.held), (SourceKind::SpireDelegated, true, 1));

    // Nothing but a handshake is signed, and nothing at all after the stop.
    let instance: InstanceId = "one".parse().unwrap();
    assert!(source.sign_handshake(&instance, &minted.svid.key_id, b"anything").is_err());
    assert!(source.stop(&instance));
    assert!(matches!(x509(&source, "one").await, Err(SourceError::UnknownInstance(_))));
    assert!(matches!(jwt(&source, "one", &["vault"]).await, Err(SourceError::UnknownInstance(_))));
    assert!(!source.stop(&instance));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_for_another_id_than_the_verified_claims_give_is_refused() {
    let Some(spire) = start("an_entry_for_another_id_than_the_verified_claims_give_is_refused").await else { return };
    let source = delegate(&spire).await;
    spire.register("/ns/shop/sa/admin", &["portcullis:component:shop:cart"]);
    source.admit(cart("one")).unwrap();
    let refused = eventually(async || match x509(&source, "one").await {
        Err(error @ SourceError::OtherIdentity { .. }) => Some(error),
        _ => None,
    })
    .await;
    assert!(refused.to_string().contains("/ns/shop/sa/admin"), "{refused}");
    assert_eq!(refused.kind(), "identity-mismatch");
    let refused = jwt(&source, "one", &["vault"]).await.unwrap_err();
    assert_eq!(refused.kind(), "identity-mismatch", "{refused}");
    // Beside the right one the other one is left alone.
    spire.register("/ns/shop/sa/cart", &["portcullis:component:shop:cart"]);
    let minted = eventually(async || x509(&source, "one").await.ok()).await;
    assert_eq!(minted.svid.spiffe_id.to_string(), id("/ns/shop/sa/cart"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_without_an_entry_gets_nothing_and_one_whose_entry_goes_loses_what_it_had() {
    let Some(spire) =
        start("a_component_without_an_entry_gets_nothing_and_one_whose_entry_goes_loses_what_it_had").await
    else {
        return;
    };
    let source = delegate(&spire).await;
    source.admit(cart("one")).unwrap();
    assert_eq!(x509(&source, "one").await.unwrap_err().kind(), "no-identity-issued");
    assert_eq!(jwt(&source, "one", &["vault"]).await.unwrap_err().kind(), "no-identity-issued");
    let entry = spire.register("/ns/shop/sa/cart", &["portcullis:component:shop:cart"]);
    let minted = eventually(async || x509(&source, "one").await.ok()).await;
    jwt(&source, "one", &["vault"]).await.unwrap();
    let epoch = source.published().borrow().svid_epoch;
    spire.unregister(&entry);
    eventually(async || x509(&source, "one").await.err()).await;
    assert!(source.published().borrow().svid_epoch > epoch, "whoever holds the SVID is told");
    assert_eq!(jwt(&source, "one", &["vault"]).await.unwrap_err().kind(), "no-identity-issued");
    let content = [vec![0x20; 64], b"TLS 1.3, client CertificateVerify\0".to_vec(), vec![1; 32]].concat();
    assert!(source.sign_handshake(&"one".parse().unwrap(), &minted.svid.key_id, &content).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_agent_changes_nothing_until_the_end_and_recovers_by_itself() {
    let test = "an_outage_of_the_agent_changes_nothing_until_the_end_and_recovers_by_itself";
    let settings = Settings { x509_ttl: "20s", jwt_ttl: "20s", ..Settings::default() };
    let Some(mut spire) = start_with(test, settings).await else { return };
    let source = delegate(&spire).await;
    spire.register("/ns/shop/sa/cart", &["portcullis:component:shop:cart"]);
    source.admit(cart("one")).unwrap();
    eventually(async || x509(&source, "one").await.ok()).await;
    jwt(&source, "one", &["vault"]).await.unwrap();
    let mut spire = tokio::task::spawn_blocking(move || {
        spire.stop_agent();
        spire
    })
    .await
    .unwrap();
    let held = x509(&source, "one").await.unwrap().svid;
    assert!(jwt(&source, "one", &["vault"]).await.is_ok(), "a token that is held serves on");
    assert_eq!(jwt(&source, "one", &["other"]).await.unwrap_err().kind(), "source-unavailable");
    eventually(async || (!source.status().connected).then_some(())).await;
    assert!(source.status().problem.is_some());
    // Until it ends, and not a moment longer.
    while now() < held.not_after - time::Duration::SECOND {
        assert_eq!(x509(&source, "one").await.unwrap().svid.serial, held.serial);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ended = x509(&source, "one").await.unwrap_err();
    assert_eq!(ended.kind(), "source-unavailable", "{ended}");
    assert_eq!(jwt(&source, "one", &["vault"]).await.unwrap_err().kind(), "source-unavailable");
    let spire = tokio::task::spawn_blocking(move || {
        spire.start_agent();
        spire
    })
    .await
    .unwrap();
    let minted = eventually(async || x509(&source, "one").await.ok()).await;
    assert_ne!(minted.svid.serial, held.serial);
    jwt(&source, "one", &["vault"]).await.unwrap();
    eventually(async || (source.status().connected && source.status().problem.is_none()).then_some(())).await;
    drop(spire);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn svids_and_authorities_of_spire_rotate_without_a_gap() {
    let test = "svids_and_authorities_of_spire_rotate_without_a_gap";
    let settings = Settings { x509_ttl: "10s", ..Settings::default() };
    let Some(spire) = start_with(test, settings).await else { return };
    let source = delegate(&spire).await;
    spire.register("/ns/shop/sa/cart", &["portcullis:component:shop:cart"]);
    source.admit(cart("one")).unwrap();
    let first = eventually(async || x509(&source, "one").await.ok()).await.svid;
    let before = source.published().borrow().bundles.clone().unwrap();
    spire.rotate_x509_authority();
    spire.rotate_jwt_authority();
    let until = now() + time::Duration::seconds(20);
    let mut serials = std::collections::BTreeSet::from([first.serial.clone()]);
    while now() < until {
        serials.insert(x509(&source, "one").await.expect("there is an SVID at each moment").svid.serial);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(serials.len() > 1, "it was never renewed");
    let after = eventually(async || {
        let now = source.published().borrow().bundles.clone()?;
        (now.own().x509_authorities().len() == 2).then_some(now)
    })
    .await;
    assert!(after.own().sequence() > before.own().sequence());
    assert_eq!(after.own().jwt_keys().keys().len(), 2);
    shake_hands(&source, "one", &after).await;
    let token = jwt(&source, "one", &["vault"]).await.unwrap();
    checked(&source, token.svid.token()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_delegate_and_svids_that_live_longer_than_granted_are_refused() {
    let test = "who_is_no_delegate_and_svids_that_live_longer_than_granted_are_refused";
    let Some(spire) = start(test).await else { return };
    spire.register("/ns/shop/sa/cart", &["portcullis:component:shop:cart"]);
    let source = upstream(&spire);
    assert!(!source.ready(Duration::from_secs(2)).await, "nobody is a delegate yet");
    source.admit(cart("one")).unwrap();
    assert!(x509(&source, "one").await.is_err());
    spire.register_this_user(DELEGATE);
    eventually(async || x509(&source, "one").await.ok()).await;
    let instance = "one".parse().unwrap();
    let refused = source.x509_svid(&instance, Duration::from_secs(600), now()).await.unwrap_err();
    assert_eq!(refused.kind(), "longer-than-granted", "{refused}");
    let audiences: [Audience; 1] = ["vault".parse().unwrap()];
    let refused = source.jwt_svid(&instance, &audiences, Duration::from_secs(10), now()).await.unwrap_err();
    assert_eq!(refused.kind(), "longer-than-granted", "{refused}");
    for foreign in ["spiffe://other.example/ns/shop/sa/cart", "spiffe://spire.example"] {
        let mut other = cart("two");
        other.workload.spiffe_id = foreign.parse().unwrap();
        assert_eq!(source.admit(other).unwrap_err().kind(), "not-admitted", "{foreign}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_gets_its_own_identity_from_the_workload_api() {
    let Some(spire) = start("the_host_gets_its_own_identity_from_the_workload_api").await else { return };
    spire.register_this_user("/portcullis/host");
    let dial = Arc::new(SocketPath(spire.workload_socket()));
    let source = Arc::new(workload_api(dial, TRUST_DOMAIN.parse().unwrap(), clock()));
    let mut host = cart("portcullis-host");
    host.workload.spiffe_id = id("/portcullis/host").parse().unwrap();
    source.admit(host).unwrap();
    let minted = eventually(async || x509(&source, "portcullis-host").await.ok()).await;
    assert_eq!(minted.svid.spiffe_id.to_string(), id("/portcullis/host"));
    let bundles = eventually(async || source.published().borrow().bundles.clone()).await;
    shake_hands(&source, "portcullis-host", &bundles).await;
    jwt(&source, "portcullis-host", &["vault"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_gets_its_identity_over_the_broker_api_of_spire() {
    let test = "a_component_gets_its_identity_over_the_broker_api_of_spire";
    let settings = Settings { broker: Some(id("/portcullis/host")), ..Settings::default() };
    let Some(spire) = start_with(test, settings).await else { return };
    spire.register_this_user("/portcullis/host");
    spire.register("/ns/shop/sa/cart", &["portcullis:component:shop:cart", &format!("portcullis:digest:{DIGEST}")]);
    let source = brokered(&spire, spire.agent_id());
    source.admit(cart("one")).unwrap();
    let minted = eventually(async || x509(&source, "one").await.ok()).await;
    assert_eq!(minted.svid.spiffe_id.to_string(), id("/ns/shop/sa/cart"));
    let bundles = eventually(async || source.published().borrow().bundles.clone()).await;
    shake_hands(&source, "one", &bundles).await;
    let token = jwt(&source, "one", &["vault"]).await.unwrap();
    let claims = checked(&source, token.svid.token()).await;
    assert_eq!(claims.spiffe_id().to_string(), id("/ns/shop/sa/cart"));
    assert!(source.status().connected, "{:?}", source.status());
    // A component that no entry fits.
    let mut other = cart("two");
    other.workload.component = "shop:other".to_owned();
    source.admit(other).unwrap();
    assert_eq!(x509(&source, "two").await.unwrap_err().kind(), "no-identity-issued");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_endpoint_that_is_somebody_else_gets_no_reference() {
    let test = "a_broker_endpoint_that_is_somebody_else_gets_no_reference";
    let settings = Settings { broker: Some(id("/portcullis/host")), ..Settings::default() };
    let Some(spire) = start_with(test, settings).await else { return };
    spire.register_this_user("/portcullis/host");
    spire.register("/ns/shop/sa/cart", &["portcullis:component:shop:cart"]);
    let source = brokered(&spire, &id("/spire/agent/another"));
    source.admit(cart("one")).unwrap();
    assert!(source.ready(Duration::from_secs(120)).await);
    let refused = x509(&source, "one").await.unwrap_err();
    assert_eq!(refused.kind(), "source-unavailable", "{refused}");
    // Until the agent knows who this process is, that is the problem.
    let expected = "not spiffe://spire.example/spire/agent/another";
    eventually(async || source.status().problem.filter(|problem| problem.contains(expected))).await;
    assert!(x509(&source, "one").await.is_err());
}

async fn start(test: &'static str) -> Option<Spire> {
    start_with(test, Settings::default()).await
}

async fn start_with(test: &'static str, settings: Settings) -> Option<Spire> {
    tokio::task::spawn_blocking(move || Spire::start_with(test, settings)).await.unwrap()
}

fn upstream(spire: &Spire) -> Arc<Upstream> {
    Arc::new(delegated(Arc::new(SocketPath(spire.admin_socket())), TRUST_DOMAIN.parse().unwrap(), clock()))
}

/// A source whose process is an authorised delegate.
async fn delegate(spire: &Spire) -> Arc<Upstream> {
    spire.register_this_user(DELEGATE);
    let source = upstream(spire);
    assert!(source.ready(Duration::from_secs(120)).await, "no bundle: {:?}\n{}", source.status(), spire.log());
    source
}

fn brokered(spire: &Spire, server: &str) -> Arc<BrokerUpstream> {
    let source = portcullis_identity::broker::broker(
        Arc::new(SocketPath(spire.workload_socket())),
        Arc::new(SocketPath(spire.broker_socket())),
        id("/portcullis/host").parse().unwrap(),
        server.parse().unwrap(),
        clock(),
    );
    Arc::new(source.unwrap())
}

fn cart(instance: &str) -> Vouched {
    Vouched {
        workload: Workload {
            instance: instance.parse().unwrap(),
            spiffe_id: id("/ns/shop/sa/cart").parse().unwrap(),
            digest: DIGEST.to_owned(),
            component: "shop:cart".to_owned(),
            exportable: false,
        },
        signer: "ABC".to_owned(),
        signer_group: "ci".to_owned(),
    }
}

fn id(path: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}{path}")
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn clock() -> Clock {
    Arc::new(now)
}

async fn x509(
    source: &Arc<impl IdentitySource + ?Sized>,
    instance: &str,
) -> Result<portcullis_identity::Minted<portcullis_identity::X509Svid>, SourceError> {
    source.x509_svid(&instance.parse().unwrap(), HOUR, now()).await
}

async fn jwt(
    source: &Arc<impl IdentitySource + ?Sized>,
    instance: &str,
    audiences: &[&str],
) -> Result<portcullis_identity::Minted<portcullis_identity::JwtSvid>, SourceError> {
    let audiences: Vec<Audience> = audiences.iter().map(|audience| audience.parse().unwrap()).collect();
    source.jwt_svid(&instance.parse().unwrap(), &audiences, HOUR, now()).await
}

/// What the token says, when the published bundles vouch for it. The key of a young server may reach the agent after the
/// first bundle did, and a rotated one a moment after its first token.
async fn checked(source: &Arc<impl IdentitySource + ?Sized>, token: &str) -> portcullis_identity::JwtClaims {
    eventually(async || {
        let bundles = source.published().borrow().bundles.clone()?;
        bundles.check_jwt(token, "vault", now()).ok()
    })
    .await
}

/// The SVID serves on both sides of a TLS connection, with its key where it is.
async fn shake_hands<S: IdentitySource + 'static>(
    source: &Arc<S>,
    instance: &str,
    bundles: &Arc<portcullis_identity::BundleSet>,
) {
    let minted = x509(source, instance).await.unwrap().svid;
    let peer: SpiffeId = minted.spiffe_id.clone();
    let svid = Arc::new(Svid {
        spiffe_id: minted.spiffe_id,
        chain: minted.chain,
        key_id: minted.key_id,
        not_after: minted.not_after,
    });
    let signer: Arc<dyn HandshakeSigner> =
        Arc::new(Signer { source: Arc::clone(source), instance: instance.parse().unwrap() });
    let served = ServedIdentity { svid: svid.clone(), signer: Arc::clone(&signer) };
    let trust = Arc::clone(bundles.trust());
    let acceptor = portcullis_identity::mtls::acceptor(
        Arc::new(move |_| Some(served.clone())),
        Arc::new(move || Arc::clone(&trust)),
    )
    .unwrap();
    let connector = portcullis_identity::mtls::connector(&svid, signer, bundles.trust(), &peer).unwrap();
    let (client, server) = tokio::io::duplex(1 << 16);
    let (accepted, connected) = tokio::join!(acceptor.accept(server), connector.connect("localhost", client));
    assert_eq!(accepted.unwrap().1.spiffe_id(), &peer);
    assert_eq!(connected.unwrap().1.spiffe_id(), &peer);
}

#[derive(Debug)]
struct Signer<S> {
    source: Arc<S>,
    instance: InstanceId,
}

impl<S: IdentitySource> HandshakeSigner for Signer<S> {
    fn sign(&self, key_id: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        self.source.sign_handshake(&self.instance, key_id, message).map_err(|error| error.to_string())
    }
}

/// Asks again until there is an answer. SPIRE's agent learns of entries within seconds.
async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let until = tokio::time::Instant::now() + Duration::from_secs(180);
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < until, "it never came");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A real host whose components are somebody at the site: both sides of a call know one another by SVIDs of SPIRE.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components_of_a_host_call_one_another_with_identities_of_spire() {
    let test = "components_of_a_host_call_one_another_with_identities_of_spire";
    let Some(spire) = start(test).await else { return };
    spire.register_this_user(DELEGATE);
    spire.register("/ns/demo/sa/greeter", &["portcullis:component:test:greeter"]);
    let vault = spire.register("/ns/test/sa/vault", &["portcullis:component:test:vault"]);
    let source = format!(
        "source = \"spire-delegated\"\n\n[identity.spire]\nadmin_socket = \"{}\"\n",
        spire.admin_socket().display()
    );
    let (host, port) = tokio::task::spawn_blocking(move || demo_host(&source)).await.unwrap();
    let greeted = greeted(&host, port).await;
    let greeter = id("/ns/demo/sa/greeter");
    for pointer in ["/spiffe_id", "/vault/caller", "/vault/token_subject"] {
        assert_eq!(greeted.pointer(pointer), Some(&greeter.clone().into()), "{pointer}: {greeted:#}");
    }
    // Whoever checks the token outside asks SPIRE, whose Workload API agrees.
    let minted = http::get(host.http(), "/greeter/mint?aud=vault", &[]).json();
    let token = minted["token"].as_str().unwrap_or_else(|| panic!("{minted}")).to_owned();
    spire.register_this_user("/checker");
    let client = WorkloadApiClient::connect_to(spire.workload_api()).await.unwrap();
    let svid = eventually(async || client.validate_jwt_token("vault", &token).await.ok()).await;
    assert_eq!(svid.spiffe_id().to_string(), greeter);
    let record = host.record(&[("kind", "issuance"), ("svid", "x509"), ("component", "test:vault")]);
    assert!(record["serial"].as_str().is_some_and(|serial| !serial.is_empty()), "{record}");
    let shown = host.run(["identity", "show"]).ok().json();
    assert_eq!(
        (&shown["source"]["kind"], &shown["source"]["up"]),
        (&"spire-delegated".into(), &true.into()),
        "{shown:#}"
    );
    assert_eq!(shown["authorities"], serde_json::json!([]), "our own authority signs nothing: {shown:#}");
    let bundle = host.run(["identity", "bundle"]).ok().json();
    assert!(bundle["keys"].as_array().is_some_and(|keys| keys.len() >= 2), "{bundle:#}");
    // What only an authority of this host could do.
    for refused in [host.run(["identity", "rotate"]), host.run(["identity", "taint", &"a".repeat(40)])] {
        assert!(refused.exit != 0 && (refused.out + &refused.err).contains("spire-delegated"), "not refused");
    }
    // SPIRE takes one identity away: the vault is nobody from then on.
    spire.unregister(&vault);
    eventually(async || (ask_greeter(&host, port).json()["vault_status"] != 200).then_some(())).await;
}

/// The same through the Broker API, with our attestor in the agent; and what an outage of the agent is to a running host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_a_broker_of_spire_serves_through_an_outage_of_the_agent() {
    let test = "a_host_that_is_a_broker_of_spire_serves_through_an_outage_of_the_agent";
    let settings = Settings { broker: Some(id("/portcullis/host")), ..Settings::default() };
    let Some(spire) = start_with(test, settings).await else { return };
    spire.register_this_user("/portcullis/host");
    spire.register("/ns/demo/sa/greeter", &["portcullis:component:test:greeter"]);
    spire.register("/ns/test/sa/vault", &["portcullis:component:test:vault"]);
    let source = format!(
        "source = \"broker\"\n\n[identity.spire]\nworkload_socket = \"{}\"\nbroker_socket = \"{}\"\nbroker_id = \"{}\"\n",
        spire.workload_socket().display(),
        spire.broker_socket().display(),
        spire.agent_id()
    );
    let (host, port) = tokio::task::spawn_blocking(move || demo_host(&source)).await.unwrap();
    greeted(&host, port).await;
    let shown = host.run(["identity", "show"]).ok().json();
    assert_eq!((&shown["source"]["kind"], &shown["source"]["up"]), (&"broker".into(), &true.into()), "{shown:#}");
    let mut spire = spire;
    spire.stop_agent();
    eventually(async || (host.run(["identity", "show"]).ok().json()["source"]["up"] == false).then_some(())).await;
    let shown = host.run(["identity", "show"]).ok().json();
    assert!(shown["problems"].to_string().contains("the identity source broker does not answer"), "{shown:#}");
    assert_eq!(host.ask_status(0)["ready"], true, "an outage is no reason to send it no requests");
    for _ in 0..5 {
        let answer = ask_greeter(&host, port).json();
        assert_eq!(answer["vault_status"], 200, "what is held serves on: {answer:#}\n{}", host.log());
    }
    spire.start_agent();
    eventually(async || (host.run(["identity", "show"]).ok().json()["source"]["up"] == true).then_some(())).await;
}

/// The greeter and the vault of the demo on a host with this `[identity]`, and the port of its mTLS.
fn demo_host(identity: &str) -> (Host, u16) {
    let port = portcullis_tests::port::reserved();
    let mut site = Site::new();
    site.trust_domain(TRUST_DOMAIN);
    let link = "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\"]";
    let greeter = id("/ns/demo/sa/greeter");
    let may = format!("{link}\nidentity = [\"read\", \"x509\"]\naudiences = [\"vault\"]");
    site.component("greeter", &guests::ours("greeter"), &may);
    site.sign_as("greeter", &guests::ours("greeter"), "ns/demo/sa/greeter");
    site.grants(&format!(
        "\n[[grant]]\nid = \"greeter-vault\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:greeter\"\n\
         http = [\"https://{VAULT}:{port}\"]\npeer = \"{}\"\naddresses = [\"loopback\"]\n",
        id("/ns/test/sa/vault")
    ));
    let may = "link = [\"portcullis:identity/*\"]\nidentity = [\"read\", \"peer\", \"x509\", \"validate\"]";
    site.guest("vault", &format!("{may}\ncallers = [\"{greeter}\"]"));
    site.config(&format!(
        "[[route]]\nhost = \"{VAULT}\"\ncomponent = \"test:vault\"\n\n[names]\n\"{VAULT}\" = [\"127.0.0.1\"]\n\n\
         [listen]\nhttp = \"127.0.0.1:0\"\nmtls = \"127.0.0.1:{port}\"\n\n[identity]\n{identity}\n"
    ));
    let host = Host::start(site);
    // Ready is who has heard of the site.
    let status = host.ask_status(120);
    assert_eq!(status["ready"], true, "{status:#}\n{}", host.log());
    (host, port)
}

const VAULT: &str = "vault.test.internal";

fn ask_greeter(host: &Host, port: u16) -> Answer {
    let request = format!(
        "GET /greeter HTTP/1.1\r\nhost: any\r\nx-vault-url: https://{VAULT}:{port}/secret\r\nconnection: close\r\n\r\n"
    );
    http::raw(host.http(), request.as_bytes())
}

/// The answer once SPIRE's agent has learned of both.
async fn greeted(host: &Host, port: u16) -> serde_json::Value {
    let mut last = serde_json::Value::Null;
    let until = tokio::time::Instant::now() + Duration::from_secs(120);
    while tokio::time::Instant::now() < until {
        last = ask_greeter(host, port).json();
        if last["vault_status"] == 200 {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    panic!("the vault never welcomed the greeter: {last:#}\n{}", host.log());
}
