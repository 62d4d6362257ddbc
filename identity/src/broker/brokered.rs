//! What the server asks about a component: the line to whoever holds the keys and knows what was admitted. Each call is decided
//! anew; what is given was recorded before.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::allowed::AllowedBroker;
use super::reference::Named;
use super::refusal::BrokerRefusal;
use crate::audience::Audience;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;
use crate::workload::InstanceId;
use crate::workload_api::{Due, Token, X509Svids};

/// The components of this host, as brokers may ask for them.
#[tonic::async_trait]
pub trait Brokered: Send + Sync + 'static {
    /// Changes whenever an answer may have changed: admission, stop, bundles, rotation, revocation, policy.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The instance that runs now and is what the reference names in every field, and that this broker may name. Whether there
    /// is another instance must not be told to a broker that may not name it.
    fn resolve(&self, broker: &AllowedBroker, named: &Named) -> Result<InstanceId, BrokerRefusal>;

    /// The X.509-SVID of the component, with its key.
    async fn x509_svids(&self, broker: &AllowedBroker, instance: &InstanceId) -> Result<Due<X509Svids>, BrokerRefusal>;

    /// A JWT-SVID of the component for exactly these audiences.
    async fn jwt_svids(
        &self,
        broker: &AllowedBroker,
        instance: &InstanceId,
        audiences: Vec<Audience>,
        only: Option<SpiffeId>,
    ) -> Result<Vec<Token>, BrokerRefusal>;

    /// The X.509 authorities (DER) of each trust domain that the component verifies.
    async fn x509_bundles(&self, instance: &InstanceId) -> Result<BTreeMap<TrustDomain, Vec<Vec<u8>>>, BrokerRefusal>;

    /// The JWK Set of each trust domain that the component verifies.
    async fn jwt_bundles(&self, instance: &InstanceId) -> Result<BTreeMap<TrustDomain, String>, BrokerRefusal>;
}
