//! The Broker API in the identity process: gives identities of components to the brokers that the operator listed.
//!
//! Listing a broker gives it nothing that the component itself was not granted: audiences and lives are those of the component's
//! grants, and a private key needs the grant `svid.export` and the operator's word in `danger_exportable_keys`, too. What is
//! given is on disk before it leaves, with who got it. A broker learns nothing of components that it may not name.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_identity::broker::{AllowedBroker, BrokerRefusal, BrokerServer, Brokered, Named, serve};
use portcullis_identity::mtls::acceptor;
use portcullis_identity::workload_api::{Due, KeyedX509, Token, X509Svids};
use portcullis_identity::{Audience, BundleDocument, Clock, Excerpt, InstanceId, IssueError, SpiffeId, TrustDomain};
use portcullis_policies::{ComponentFacts, Grant, IdentityAction, Slice};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use zeroize::Zeroizing;

use super::Boot;
use super::keeper::{Entry, Keeper, Stop};
use super::own::OwnIdentity;
use super::rate::Use;
use crate::clock;
use crate::limits::BROKER_CONNECTIONS;
use crate::process::handover::Packet;

/// The server behind all of its sockets.
struct Server {
    server: BrokerServer<Components>,
    /// Never turns true: the process ends as a whole, and its connections with it.
    stopping: watch::Sender<bool>,
    room: Arc<Semaphore>,
}

/// This host's components, as brokers may ask for them.
struct Components {
    keeper: Arc<Keeper>,
    changes: watch::Sender<u64>,
    /// What is on disk of what was given to whom.
    given: Mutex<HashSet<(SpiffeId, String)>>,
}

/// A component that a broker asks for.
struct Asked {
    facts: ComponentFacts,
    slice: Arc<Slice>,
}

/// Serves on a listening socket that was handed down.
pub(super) fn take(packet: Packet, keeper: &Arc<Keeper>, boot: &Boot) {
    let kind = packet.payload.as_str().unwrap_or_default().to_owned();
    let listener = packet.fds.into_iter().next().ok_or_else(|| "no socket".to_owned());
    let started = listener.and_then(|listener| {
        let server = Arc::new(Server::new(keeper, boot)?);
        listen(&kind, listener, server).map_err(|error| error.to_string())
    });
    if let Err(why) = started {
        tracing::error!(why, "the Broker API is not served");
    }
}

fn listen(kind: &str, listener: OwnedFd, server: Arc<Server>) -> io::Result<()> {
    if kind == "unix" {
        let listener = std::os::unix::net::UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        tokio::spawn(server.accept(UnixListenerStream::new(UnixListener::from_std(listener)?)));
    } else {
        let listener = std::net::TcpListener::from(listener);
        listener.set_nonblocking(true)?;
        tokio::spawn(server.accept(TcpListenerStream::new(TcpListener::from_std(listener)?)));
    }
    Ok(())
}

impl Server {
    fn new(keeper: &Arc<Keeper>, boot: &Boot) -> Result<Self, String> {
        let config = boot.broker.as_ref().ok_or("it is not configured")?;
        let allowed = config.allow_list().map_err(|error| error.to_string())?;
        let own = OwnIdentity::start(keeper)?;
        let host = own.spiffe_id().clone();
        let trust = Arc::clone(keeper);
        let bundles = Arc::new(move || Arc::clone(trust.now_published().bundles.trust()));
        let acceptor = acceptor(Arc::new(move |_| own.served()), bundles).map_err(|error| error.to_string())?;
        let brokered = Arc::new(Components {
            keeper: Arc::clone(keeper),
            changes: watch::Sender::new(0),
            given: Mutex::default(),
        });
        tokio::spawn(follow(Arc::clone(&brokered)));
        let acceptor = acceptor.with_protocols(&[b"h2"]);
        let (stopping, room) = (watch::Sender::new(false), Arc::new(Semaphore::new(BROKER_CONNECTIONS)));
        let clock: Clock = Arc::new(clock::now);
        let server = BrokerServer { acceptor, host, allowed: Arc::new(allowed), brokered, clock };
        Ok(Self { server, stopping, room })
    }

    async fn accept<S, IO>(self: Arc<Self>, mut connections: S)
    where
        S: Stream<Item = io::Result<IO>> + Unpin,
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        while let Ok(permit) = Arc::clone(&self.room).acquire_owned().await {
            match connections.next().await {
                None => return,
                Some(Ok(stream)) => {
                    let server = Arc::clone(&self);
                    tokio::spawn(async move {
                        server.serve(stream).await;
                        drop(permit);
                    });
                }
                // No file descriptor left, or the supervisor closed the socket: not at full speed.
                Some(Err(error)) => {
                    tracing::debug!(%error, "the Broker API's socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve<IO>(&self, stream: IO)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let keeper = Arc::clone(&self.server.brokered.keeper);
        let still = move |peer: &portcullis_identity::mtls::Peer| {
            let state = keeper.now_published();
            !state.revoked.spiffe_ids.contains(peer.spiffe_id())
                && peer.check_again(state.bundles.trust(), clock::now()).is_ok()
        };
        match serve(self.server.clone(), stream, self.stopping.subscribe(), still).await {
            Ok(broker) if self.server.allowed.get(&broker).is_none() => {
                tracing::warn!(%broker, "a broker that is not listed connected to the Broker API");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, hint = error.hint(), "a connection to the Broker API was refused"),
        }
    }
}

/// Wakes streams whenever an answer may have changed.
async fn follow(components: Arc<Components>) {
    let mut published = components.keeper.published();
    let mut changed = components.keeper.changed.subscribe();
    loop {
        let more = tokio::select! {
            more = published.changed() => more,
            more = changed.changed() => more,
        };
        if more.is_err() {
            return;
        }
        published.borrow_and_update();
        components.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Components {
    /// Decided anew for each answer: who was stopped or revoked meanwhile is not found.
    fn asked(&self, instance: &InstanceId) -> Result<Asked, BrokerRefusal> {
        let (_, facts, slice) = self.keeper.instance(instance.as_str()).map_err(|_| BrokerRefusal::NotFound)?;
        Ok(Asked { facts, slice })
    }

    async fn take(&self, asked: &Asked) -> Result<(), BrokerRefusal> {
        self.keeper.take(&asked.facts, Use::Mint).await.map_err(|_| BrokerRefusal::TooManyCalls)
    }

    /// What policy decided. A denial is recorded, and told as what it is without its reasons.
    async fn decided<A>(
        &self,
        asked: &Asked,
        decided: Result<Grant<A>, portcullis_policies::Denial>,
    ) -> Result<Grant<A>, BrokerRefusal> {
        self.keeper.decided(&asked.facts, decided).await.map_err(|stop| match stop {
            Stop::Denied(denied) => BrokerRefusal::NotEntitled(Excerpt::new(&denied.code)),
            Stop::Failed(_) => INTERNAL,
        })
    }

    /// Sees to it that what leaves is on disk, once for each broker.
    async fn record(
        &self,
        kind: &'static str,
        broker: &AllowedBroker,
        asked: &Asked,
        id: &str,
        mut fields: Value,
    ) -> Result<(), BrokerRefusal> {
        let name = (broker.id.clone(), id.to_owned());
        if self.given.lock().is_ok_and(|given| given.contains(&name)) {
            return Ok(());
        }
        if let Value::Object(members) = &mut fields {
            for (key, value) in [
                ("instance", asked.facts.instance.as_str()),
                ("component", asked.facts.name.as_str()),
                ("digest", asked.facts.digest.as_str()),
                ("signer", asked.facts.signer.as_str()),
                ("spiffe_id", asked.facts.spiffe_id.as_str()),
            ] {
                members.insert(key.to_owned(), value.into());
            }
            members.insert("broker".to_owned(), broker.id.to_string().into());
            members.insert("policy_generation".to_owned(), asked.slice.generation().into());
        }
        self.keeper.append_many(vec![Entry::new(kind, fields)]).await.map_err(|error| {
            tracing::error!(error, "an SVID could not be recorded and does not leave");
            BrokerRefusal::Unavailable("the audit log cannot be written")
        })?;
        if let Ok(mut given) = self.given.lock() {
            if given.len() >= GIVEN {
                given.clear();
            }
            given.insert(name);
        }
        Ok(())
    }

    fn documents(&self) -> Vec<Arc<BundleDocument>> {
        let bundles = &self.keeper.now_published().bundles;
        let foreign = bundles.foreign().filter(|document| !document.x509_authorities().is_empty());
        std::iter::once(bundles.own()).chain(foreign).cloned().collect()
    }
}

#[tonic::async_trait]
impl Brokered for Components {
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn resolve(&self, broker: &AllowedBroker, named: &Named) -> Result<InstanceId, BrokerRefusal> {
        let asked = self.asked(&named.instance)?;
        let facts = &asked.facts;
        // One that it may not name is as if it were not there.
        if !broker.may_name(&facts.name) || !named.is(&facts.digest, &facts.name, &facts.signer) {
            return Err(BrokerRefusal::NotFound);
        }
        Ok(named.instance.clone())
    }

    async fn x509_svids(&self, broker: &AllowedBroker, instance: &InstanceId) -> Result<Due<X509Svids>, BrokerRefusal> {
        let asked = self.asked(instance)?;
        self.take(&asked).await?;
        let _grant = self.decided(&asked, asked.slice.identity(IdentityAction::Export)).await?;
        let most = self.keeper.issuer().map_err(internal)?.lifetimes().x509().as_secs();
        let ttl = self.decided(&asked, asked.slice.svid_x509(most)).await?.ttl_secs().min(most);
        let now = clock::now();
        let exported = {
            let mut issuer = self.keeper.issuer().map_err(internal)?;
            issuer.export_x509(instance, Duration::from_secs(ttl), now).map_err(|error| issue_failed(&error))?
        };
        let svid = &exported.svid.svid;
        let fields = json!({
            "svid": "x509", "serial": svid.serial, "expires_at": svid.not_after.unix_timestamp(), "private_key": true,
            "text": "a private key left the identity process: whoever has it is this component until it expires",
        });
        self.record("key-export", broker, &asked, &svid.serial, fields).await?;
        // Stopped or revoked while it was recorded.
        self.asked(instance)?;
        let documents = self.documents();
        let (own, foreign) = documents.split_first().ok_or(INTERNAL)?;
        let keyed = KeyedX509 {
            spiffe_id: svid.spiffe_id.clone(),
            chain: svid.chain.clone(),
            key: Zeroizing::new(exported.svid.pkcs8().to_vec()),
            authorities: own.x509_authorities().to_vec(),
            hint: String::new(),
        };
        let federated = foreign.iter().map(authorities).collect();
        let again = Some(until_half(svid.not_before, svid.not_after, now));
        Ok(Due { answer: X509Svids { svids: vec![keyed], federated }, again })
    }

    async fn jwt_svids(
        &self,
        broker: &AllowedBroker,
        instance: &InstanceId,
        audiences: Vec<Audience>,
        only: Option<SpiffeId>,
    ) -> Result<Vec<Token>, BrokerRefusal> {
        let asked = self.asked(instance)?;
        self.take(&asked).await?;
        if only.is_some_and(|only| only.to_string() != asked.facts.spiffe_id) {
            return Err(BrokerRefusal::NotEntitled(Excerpt::new("it has another SPIFFE ID")));
        }
        let mut ttl = self.keeper.issuer().map_err(internal)?.lifetimes().jwt().as_secs();
        for audience in &audiences {
            ttl = ttl.min(self.decided(&asked, asked.slice.svid_jwt(audience.as_str(), ttl)).await?.ttl_secs());
        }
        let minted = {
            let mut issuer = self.keeper.issuer().map_err(internal)?;
            let minted = issuer.jwt_svid(instance, &audiences, Duration::from_secs(ttl), clock::now());
            minted.map_err(|error| issue_failed(&error))?
        };
        if minted.fresh {
            self.keeper.counts.jwt.up();
        }
        let svid = minted.svid;
        let names: Vec<&str> = audiences.iter().map(Audience::as_str).collect();
        let fields = json!({
            "svid": "jwt", "jti": svid.jti(), "audiences": names, "expires_at": svid.expires_at().unix_timestamp(),
        });
        self.record("issuance", broker, &asked, svid.jti(), fields).await?;
        self.asked(instance)?;
        let token = Zeroizing::new(svid.token().to_owned());
        Ok(vec![Token { spiffe_id: svid.spiffe_id().clone(), token, hint: String::new() }])
    }

    async fn x509_bundles(&self, instance: &InstanceId) -> Result<BTreeMap<TrustDomain, Vec<Vec<u8>>>, BrokerRefusal> {
        self.asked(instance)?;
        Ok(self.documents().iter().map(authorities).collect())
    }

    async fn jwt_bundles(&self, instance: &InstanceId) -> Result<BTreeMap<TrustDomain, String>, BrokerRefusal> {
        self.asked(instance)?;
        Ok(self.documents().iter().map(|document| (document.trust_domain().clone(), document.jwks())).collect())
    }
}

fn authorities(document: &Arc<BundleDocument>) -> (TrustDomain, Vec<Vec<u8>>) {
    (document.trust_domain().clone(), document.x509_authorities().to_vec())
}

fn until_half(not_before: OffsetDateTime, not_after: OffsetDateTime, now: OffsetDateTime) -> Duration {
    let half = not_before + (not_after - not_before) / 2;
    Duration::try_from(half - now).unwrap_or_default()
}

fn issue_failed(error: &IssueError) -> BrokerRefusal {
    match error {
        IssueError::UnknownInstance(_) => BrokerRefusal::NotFound,
        IssueError::NotExportable(_) => {
            BrokerRefusal::NotEntitled(Excerpt::new("the configuration does not make its key exportable"))
        }
        other => {
            tracing::error!(error = %other, hint = other.hint(), "an SVID for a broker could not be made");
            BrokerRefusal::Unavailable("the SVID cannot be made now")
        }
    }
}

fn internal(_: Stop) -> BrokerRefusal {
    INTERNAL
}

const INTERNAL: BrokerRefusal = BrokerRefusal::Unavailable("an error of the server");
/// Records of what was given that are remembered; beyond, the memory starts anew and one may be recorded twice.
const GIVEN: usize = 4096;
