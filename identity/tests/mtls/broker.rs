//! The Broker API over mutual TLS: who is revoked is not served, whatever the handshake said.

use std::collections::BTreeMap;

use portcullis_identity::Audience;
use portcullis_identity::broker::{AllowedBroker, BrokerRefusal, BrokerServer, Brokered, Named, serve as serve_broker};
use portcullis_identity::workload_api::{Due, Token, X509Svids};

use super::*;

/// Has nobody to give an identity of.
struct NoComponents(tokio::sync::watch::Sender<u64>);

#[tonic::async_trait]
impl Brokered for NoComponents {
    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.subscribe()
    }

    fn resolve(&self, _: &AllowedBroker, _: &Named) -> Result<InstanceId, BrokerRefusal> {
        Err(BrokerRefusal::NotFound)
    }

    async fn x509_svids(&self, _: &AllowedBroker, _: &InstanceId) -> Result<Due<X509Svids>, BrokerRefusal> {
        Err(BrokerRefusal::NotFound)
    }

    async fn jwt_svids(
        &self,
        _: &AllowedBroker,
        _: &InstanceId,
        _: Vec<Audience>,
        _: Option<SpiffeId>,
    ) -> Result<Vec<Token>, BrokerRefusal> {
        Err(BrokerRefusal::NotFound)
    }

    async fn x509_bundles(&self, _: &InstanceId) -> Result<BTreeMap<TrustDomain, Vec<Vec<u8>>>, BrokerRefusal> {
        Err(BrokerRefusal::NotFound)
    }

    async fn jwt_bundles(&self, _: &InstanceId) -> Result<BTreeMap<TrustDomain, String>, BrokerRefusal> {
        Err(BrokerRefusal::NotFound)
    }
}

/// How a new connection of `cart` to the Broker API of `vault` ends, within this time.
async fn broker_connects(trusted: bool, most: Duration) -> Option<Result<SpiffeId, TlsError>> {
    let site = Site::new();
    let client = connector(&site.svid("cart"), site.signer("cart"), &site.bundle(), &id("vault")).unwrap();
    let (near, far) = duplex(1 << 16);
    let server = BrokerServer {
        acceptor: site.acceptor(site.bundle()).with_protocols(&[b"h2"]),
        host: id("vault"),
        allowed: Arc::default(),
        brokered: Arc::new(NoComponents(tokio::sync::watch::Sender::new(0))),
        clock: Arc::new(OffsetDateTime::now_utc),
    };
    let (_running, stopping) = tokio::sync::watch::channel(false);
    let served = tokio::spawn(async move { serve_broker(server, far, stopping, |_| trusted).await });
    let _connected = client.with_protocols(&[b"h2"]).connect("vault.internal", near).await.unwrap();
    tokio::time::timeout(most, served).await.ok().map(Result::unwrap)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_revoked_before_it_connects_is_not_served() {
    assert!(broker_connects(true, Duration::from_millis(500)).await.is_none(), "one that is trusted stays");
    assert!(matches!(broker_connects(false, Duration::from_secs(90)).await, Some(Err(TlsError::Handshake(_)))));
}
