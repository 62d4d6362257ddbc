//! The Broker API of a site's SPIRE agent as a source: the host refers to its component, the agent attests the reference.
//!
//! The host first gets an identity of its own from the agent's Workload API and shows it over mutual TLS; the agent's SPIFFE ID
//! is pinned. Bundles come from the Workload API, too.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use time::OffsetDateTime;
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use zeroize::Zeroizing;

use super::component_reference::ComponentReference;
use super::pb::api_client::ApiClient;
use super::pb::{FetchJwtsvidRequest, SubscribeToX509svidRequest, WorkloadReference};
use super::reference::COMPONENT_REFERENCE;
use crate::audience::Audience;
use crate::issuer::{Minted, SignError, X509Svid};
use crate::jwt_svid::JwtSvid;
use crate::key_scan::KeyScan;
use crate::limits::{DEFAULT_X509_LIFETIME, MAX_AUTHORITY_LIFETIME, MAX_UPSTREAM_MESSAGE_BYTES, UPSTREAM_CALL};
use crate::mtls::{HandshakeSigner, Svid, connector};
use crate::source::{IdentitySource, SourceError, SourceKind, SourcePublished, SourceStatus, Vouched};
use crate::spiffe_id::SpiffeId;
use crate::spire::{Dial, workload_api};
use crate::statement::Draft;
use crate::trust_domain::TrustDomain;
use crate::upstream::{ByDomain, Clock, HandedJwt, HandedX509, Messages, Upstream, Wire, split};
use crate::workload::{InstanceId, Workload};

/// A Broker API as a source of components' identities, with the host's own identity that it needs.
#[derive(Debug)]
pub struct BrokerUpstream {
    host: Arc<Upstream>,
    components: Upstream,
}

/// The Broker API behind `broker_socket` as a source. The host is `host_id`, as the Workload API behind `workload_socket` says;
/// the broker endpoint must be `server_id`. Must be called within a tokio runtime.
pub fn broker(
    workload_socket: Arc<dyn Dial>,
    broker_socket: Arc<dyn Dial>,
    host_id: SpiffeId,
    server_id: SpiffeId,
    clock: Clock,
) -> Result<BrokerUpstream, SourceError> {
    let trust_domain = host_id.trust_domain().clone();
    let host = Arc::new(workload_api(Arc::clone(&workload_socket), trust_domain.clone(), Arc::clone(&clock)));
    let instance: InstanceId =
        HOST_INSTANCE.parse().map_err(|_| SourceError::Invalid(crate::Excerpt::new(HOST_INSTANCE)))?;
    host.admit(Vouched {
        workload: Workload {
            instance: instance.clone(),
            spiffe_id: host_id.clone(),
            digest: String::new(),
            component: String::new(),
            exportable: false,
        },
        signer: String::new(),
        signer_group: String::new(),
    })?;
    let own = Own { host: Arc::clone(&host), instance, clock: Arc::clone(&clock) };
    let wire = BrokerWire {
        client: ApiClient::new(channel(broker_socket, own, server_id))
            .max_decoding_message_size(MAX_UPSTREAM_MESSAGE_BYTES),
        bundles: crate::spire::WorkloadApi::new(workload_socket),
        host_id,
    };
    Ok(BrokerUpstream { host, components: Upstream::start(Box::new(wire), trust_domain, clock) })
}

impl BrokerUpstream {
    /// Waits until there is a bundle of our own trust domain; says whether there was one in time.
    pub async fn ready(&self, within: Duration) -> bool {
        self.components.ready(within).await
    }

    /// The source of the host's own identity.
    pub fn host(&self) -> &Arc<Upstream> {
        &self.host
    }
}

/// The host's own identity, for handshakes.
#[derive(Clone)]
struct Own {
    host: Arc<Upstream>,
    instance: InstanceId,
    clock: Clock,
}

impl Own {
    async fn connect(
        &self,
        dial: &dyn Dial,
        server: &SpiffeId,
    ) -> io::Result<crate::mtls::TlsStream<tokio::net::UnixStream>> {
        let now = (self.clock)();
        let minted = self.host.x509_svid(&self.instance, MAX_AUTHORITY_LIFETIME.max(DEFAULT_X509_LIFETIME), now).await;
        let X509Svid { spiffe_id, chain, key_id, not_after, .. } = minted.map_err(io::Error::other)?.svid;
        let svid = Arc::new(Svid { spiffe_id, chain, key_id, not_after });
        let bundles = self.host.published().borrow().bundles.clone();
        let bundles = bundles.ok_or_else(|| io::Error::other("the host has no bundle yet"))?;
        let connector = connector(&svid, Arc::new(self.clone()), bundles.trust(), server).map_err(io::Error::other)?;
        let stream = dial.dial().await?;
        let connected = connector.with_protocols(&[b"h2"]).connect("localhost", stream).await;
        Ok(connected.map_err(io::Error::other)?.0)
    }
}

impl HandshakeSigner for Own {
    fn sign(&self, key_id: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        self.host.sign_handshake(&self.instance, key_id, message).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").finish_non_exhaustive()
    }
}

/// A channel that shakes hands with the SVID and the bundle of that moment, each time that it connects.
fn channel(dial: Arc<dyn Dial>, own: Own, server: SpiffeId) -> Channel {
    let connect = tower::service_fn(move |_: Uri| {
        let (dial, own, server) = (Arc::clone(&dial), own.clone(), server.clone());
        async move {
            let connected = tokio::time::timeout(UPSTREAM_CALL, own.connect(dial.as_ref(), &server)).await;
            let connected = connected.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)));
            connected.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect)
}

#[derive(Debug)]
struct BrokerWire {
    client: ApiClient<Channel>,
    bundles: crate::spire::WorkloadApi,
    host_id: SpiffeId,
}

impl BrokerWire {
    fn reference(&self, who: &Vouched) -> Option<WorkloadReference> {
        let reference = ComponentReference {
            host_spiffe_id: self.host_id.to_string(),
            instance_id: who.workload.instance.to_string(),
            component_digest: who.workload.digest.clone(),
            component: who.workload.component.clone(),
            signer: who.signer.clone(),
        };
        let (type_url, value) = (COMPONENT_REFERENCE.to_owned(), reference.encode_to_vec());
        Some(WorkloadReference { reference: Some(prost_types::Any { type_url, value }) })
    }
}

#[async_trait]
impl Wire for BrokerWire {
    fn kind(&self) -> SourceKind {
        SourceKind::Broker
    }

    async fn x509(&self, who: &Vouched) -> Result<Messages<Vec<HandedX509>>, Status> {
        let request = with_header(SubscribeToX509svidRequest { reference: self.reference(who) });
        let messages = self.client.clone().subscribe_to_x509svid(request).await?.into_inner();
        let handed = messages.map(|message| {
            let svids = message?.svids.into_iter().map(|svid| HandedX509 {
                spiffe_id: svid.spiffe_id,
                // A chain that cannot be parsed is none: the engine says so.
                chain: split(&svid.x509_svid).unwrap_or_default(),
                pkcs8: Zeroizing::new(svid.x509_svid_key),
            });
            Ok(svids.collect())
        });
        Ok(Box::pin(handed))
    }

    async fn jwt(&self, who: &Vouched, audiences: &[Audience]) -> Result<Vec<HandedJwt>, Status> {
        let audience = audiences.iter().map(|audience| audience.as_str().to_owned()).collect();
        let spiffe_id = who.workload.spiffe_id.to_string();
        let mut request = with_header(FetchJwtsvidRequest { reference: self.reference(who), audience, spiffe_id });
        request.set_timeout(UPSTREAM_CALL);
        let reply = self.client.clone().fetch_jwtsvid(request).await?.into_inner();
        let handed = reply
            .svids
            .into_iter()
            .map(|svid| HandedJwt { spiffe_id: svid.spiffe_id, token: Zeroizing::new(svid.svid) });
        Ok(handed.collect())
    }

    async fn x509_bundles(&self) -> Result<Messages<ByDomain>, Status> {
        self.bundles.x509_bundles().await
    }

    async fn jwt_bundles(&self) -> Result<Messages<ByDomain>, Status> {
        self.bundles.jwt_bundles().await
    }
}

/// SPIFFE_Broker_Endpoint section 4.1.
fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("broker.spiffe.io", MetadataValue::from_static("true"));
    request
}

#[async_trait]
impl IdentitySource for BrokerUpstream {
    fn kind(&self) -> SourceKind {
        self.components.kind()
    }

    fn trust_domain(&self) -> &TrustDomain {
        self.components.trust_domain()
    }

    fn admit(&self, vouched: Vouched) -> Result<(), SourceError> {
        self.components.admit(vouched)
    }

    fn stop(&self, instance: &InstanceId) -> bool {
        self.components.stop(instance)
    }

    async fn x509_svid(
        &self,
        instance: &InstanceId,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<X509Svid>, SourceError> {
        self.components.x509_svid(instance, ttl, now).await
    }

    async fn jwt_svid(
        &self,
        instance: &InstanceId,
        audiences: &[Audience],
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<JwtSvid>, SourceError> {
        self.components.jwt_svid(instance, audiences, ttl, now).await
    }

    fn sign_handshake(&self, instance: &InstanceId, key_id: &str, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.components.sign_handshake(instance, key_id, message)
    }

    fn sign(&self, instance: &InstanceId, key_id: &str, purpose: &str, data: &[u8]) -> Result<Vec<u8>, SignError> {
        self.components.sign(instance, key_id, purpose, data)
    }

    fn sign_statement(&self, instance: &InstanceId, key_id: &str, draft: &Draft) -> Result<String, SignError> {
        self.components.sign_statement(instance, key_id, draft)
    }

    fn published(&self) -> watch::Receiver<SourcePublished> {
        self.components.published()
    }

    fn status(&self) -> SourceStatus {
        let (mut components, host) = (self.components.status(), self.host.status());
        // Without an identity of its own the host reaches no broker endpoint, and this is what to mend first.
        if host.held == 0 {
            components.connected = false;
            components.problem = host.problem.or_else(|| Some("the host itself has no identity yet".to_owned()));
        }
        components
    }

    fn key_scan(&self) -> KeyScan {
        self.components.key_scan().and(self.host.key_scan())
    }
}

/// The host among the instances of its own Workload API.
const HOST_INSTANCE: &str = "portcullis-host";
