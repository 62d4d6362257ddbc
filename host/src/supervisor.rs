//! The supervisor: configuration, admission, the audit log, the children, the control socket. It never opens a key file.
//!
//! How a component starts is in [`starting`], those of the configuration in [`configured`], how it ends in [`stopping`], how policies change in [`reload`].

pub mod admission;
pub mod audit_mode;
pub mod audit_sink;
pub mod broker;
pub mod children;
pub mod cluster;
pub mod code;
mod configured;
pub mod control;
pub mod dials;
pub mod endpoints;
pub mod high_water;
pub mod identity;
pub mod identity_operations;
pub mod messaging;
pub mod metrics;
pub mod nats;
pub mod own;
pub mod policy;
pub mod refused;
mod reload;
pub mod revocations;
mod routing;
pub mod settle;
mod standing;
mod starting;
mod stopping;
pub mod trust;
pub mod trust_watch;
pub mod watch;
pub mod workload_api;

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use portcullis_policies::{ComponentFacts, FixContext};

use self::admission::Admitted;
use self::audit_sink::SharedLog;
use self::broker::BrokerSockets;
use self::children::{IdentityUp, Kept, RuntimeUp};
use self::code::{Code, CodeStore};
use self::endpoints::Endpoints;
use self::high_water::HighWater;
use self::identity::Identity;
use self::policy::Policy;
use self::refused::Refused;
use self::revocations::Revocations;
pub use self::starting::{Again, Expect, StartSpec};
use self::trust::Trust;
use crate::audit::{AuditLog, Durability, Record};
use crate::clock;
use crate::config::{Config, Route};
use crate::limits;
use crate::policy::Audited;
use crate::process::child::Spawner;
use crate::process::{Role, sandbox};
use crate::rpc::runtime::DrainRequest;
use crate::runtime::engine;
use crate::state::StateDir;

/// A running host.
#[derive(Debug)]
pub struct Host {
    config: Config,
    state: StateDir,
    spawner: Spawner,
    listeners: Listeners,
    audit: SharedLog,
    audit_broken: AtomicBool,
    trust: RwLock<Trust>,
    policy: RwLock<Policy>,
    audited: Mutex<Audited>,
    high_water: Mutex<Result<HighWater, Refused>>,
    revocations: Mutex<Revocations>,
    /// One tells the identity process what is revoked at a time, so that no older list follows a newer one.
    telling: tokio::sync::Mutex<()>,
    identity: Identity,
    /// Who the host is and whom it trusts, as the identity process says.
    own: Arc<own::Own>,
    /// The connection to NATS.
    nats: nats::Link,
    /// The host's part in its cluster, where it has one.
    cluster: Option<Arc<cluster::Cluster>>,
    identity_process: Kept<IdentityUp>,
    runtime_process: Kept<RuntimeUp>,
    code: CodeStore,
    components: RwLock<Vec<Arc<Component>>>,
    extra_routes: Mutex<Vec<Route>>,
    refused: Mutex<Vec<(PathBuf, Refused)>>,
    /// Names that an operator stopped, and nobody started since: what the configuration wants again of itself leaves them alone.
    stopped: Mutex<BTreeSet<String>>,
    /// What components of the configuration that were refused are tried again after.
    changed: configured::Changed,
    notices: Arc<control::notices::Notices>,
    starting: tokio::sync::Mutex<()>,
    settled: AtomicBool,
    /// Whether the server of NATS has decided on the subscription for commands.
    commands_decided: AtomicBool,
    stopping: AtomicBool,
    metrics_address: OnceLock<SocketAddr>,
    control_address: Option<SocketAddr>,
    workload_api: OnceLock<Arc<workload_api::WorkloadApi>>,
}

/// The sockets that outlive every runtime process.
#[derive(Debug)]
struct Listeners {
    http: TcpListener,
    mtls: Option<TcpListener>,
    endpoints: Endpoints,
    broker: BrokerSockets,
}

/// A component that was admitted and started.
#[derive(Debug)]
pub struct Component {
    /// What was decided.
    pub admitted: Admitted,
    /// Its native code.
    pub code: Code,
    /// Whether it takes no new requests any more.
    pub draining: AtomicBool,
}

/// Why a host could not be started at all.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] crate::state::StateError),
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}; hint: choose another address under [listen], port 0 picks a free one")]
    Listen(SocketAddr, #[source] io::Error),
    /// The audit log cannot be used.
    #[error("{}: the audit log cannot be used: {why}; hint: move it aside if its chain is broken, and find out why", path.display())]
    Audit {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is not known who is revoked.
    #[error(transparent)]
    Revocations(#[from] revocations::RevocationsError),
    /// Anything else of the operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Listeners {
    /// Refuses connections from now on, also those that nobody has accepted yet, in whichever process the sockets are open.
    fn close(&self) {
        for listener in std::iter::once(&self.http).chain(&self.mtls).chain(self.endpoints.sockets()) {
            if let Err(error) = rustix::net::shutdown(listener, rustix::net::Shutdown::Both) {
                tracing::warn!(%error, "a listening socket could not be closed");
            }
        }
        self.broker.close();
    }
}

impl Host {
    /// Opens everything and starts the children. The host is up when this returns, but perhaps not ready.
    pub async fn start(config: Config) -> Result<Arc<Self>, HostError> {
        let files = sandbox::raise_open_files();
        if files < u64::from(config.limits.connections).saturating_mul(2) {
            let connections = config.limits.connections;
            tracing::warn!(
                files,
                connections,
                "the limit of open files is lower than twice limits.connections: raise it (LimitNOFILE=)"
            );
        }
        let state = StateDir::open(&config.state_dir)?;
        let listen = |address| TcpListener::bind(address).map_err(|error| HostError::Listen(address, error));
        let listeners = Listeners {
            http: listen(config.listen.http)?,
            mtls: config.listen.mtls.map(listen).transpose()?,
            endpoints: Endpoints::bind(&config)?,
            broker: BrokerSockets::bind(&config)?,
        };
        let path = state.audit_log();
        let audit = AuditLog::open(&path, config.audit.parts(), clock::now())
            .map_err(|error| HostError::Audit { path, why: error.to_string() })?;
        let engine = engine::compiler().map_err(|error| io::Error::other(format!("{error:#}")))?;
        let spawner = Spawner::new()?;
        let code = CodeStore::new(state.cache(), engine::fingerprint(&engine), spawner.clone());
        let high_water = HighWater::open(&state.high_water()).map_err(Refused::internal);
        let revocations = Mutex::new(Revocations::open(&state.revoked())?);
        let https = config.control.https.map(listen).transpose()?;
        if let Some(address) = https.as_ref().and_then(|listener| listener.local_addr().ok()) {
            tracing::info!(%address, "control over HTTPS");
        }
        let control_address = https.as_ref().and_then(|listener| listener.local_addr().ok());
        let metrics = config.listen.metrics.map(listen).transpose()?.map(metrics::bind).transpose()?;
        let cluster = cluster::Cluster::open(&config)?;
        // The cluster's set is put in force before anything starts, where what is on disk proves it.
        let policy = match Policy::read(&config.policy, FIRST_GENERATION) {
            Ok(policy) => policy,
            Err(problems) => Policy::deny_all(FIRST_GENERATION, problems),
        };
        let host = Arc::new(Self {
            trust: RwLock::new(Trust::unread()),
            policy: RwLock::new(policy),
            audited: Mutex::new(Audited::default()),
            audit: Arc::new(Mutex::new(audit)),
            audit_broken: AtomicBool::new(false),
            high_water: Mutex::new(high_water),
            revocations,
            telling: tokio::sync::Mutex::new(()),
            identity: Identity::default(),
            own: Arc::default(),
            nats: nats::Link::default(),
            cluster,
            identity_process: Kept::new(Role::Identity),
            runtime_process: Kept::new(Role::Runtime),
            components: RwLock::new(Vec::new()),
            extra_routes: Mutex::new(Vec::new()),
            refused: Mutex::new(Vec::new()),
            stopped: Mutex::default(),
            changed: configured::Changed::default(),
            notices: Arc::default(),
            starting: tokio::sync::Mutex::new(()),
            settled: AtomicBool::new(false),
            commands_decided: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            metrics_address: OnceLock::new(),
            control_address,
            workload_api: OnceLock::new(),
            config,
            state,
            spawner,
            listeners,
            code,
        });
        for danger in host.config.dangers.on() {
            tracing::warn!(danger, "a knob that weakens this host is on");
        }
        host.record(Record::new("start").field("by", "host").field("dangers", host.config.dangers.on()))?;
        host.read_trust();
        tokio::spawn(children::keep_identity(Arc::clone(&host)));
        tokio::spawn(children::keep_runtime(Arc::clone(&host)));
        tokio::spawn(trust_watch::watch(Arc::clone(&host)));
        tokio::spawn(watch::keep_watching(Arc::clone(&host)));
        tokio::spawn(nats::keep(Arc::clone(&host)));
        cluster::start(&host);
        if let Some(listener) = metrics {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "metrics");
                let _ = host.metrics_address.set(address);
            }
            tokio::spawn(metrics::serve(Arc::clone(&host), listener));
        }
        control::listen(&host)?;
        control::serve_operators(&host, https);
        workload_api::listen(&host)?;
        Ok(host)
    }

    /// Stops accepting, lets requests finish, ends everything.
    pub async fn shut_down(self: &Arc<Self>) {
        cluster::leave(self).await;
        self.listeners.close();
        workload_api::stop(self).await;
        if let Some(up) = self.runtime_process.now() {
            let within_ms = u64::try_from(limits::DRAIN.as_millis()).unwrap_or(20_000);
            match up.client().drain(DrainRequest { within_ms }).await {
                Ok(reply) if reply.get_ref().unfinished > 0 => {
                    tracing::warn!(unfinished = reply.get_ref().unfinished, "requests did not finish in time");
                }
                Ok(_) => tracing::info!("drained"),
                Err(error) => tracing::error!(%error, "the runtime could not be drained"),
            }
        }
        self.stopping.store(true, Ordering::Release);
        for component in self.running() {
            self.end_instance(&component, "shutdown").await;
        }
        nats::stop(self).await;
        let _ = self.record(Record::new("stop").field("by", "host"));
        let _ = std::fs::remove_file(self.config.control_socket());
        if let Some(up) = self.runtime_process.now() {
            up.child.kill();
        }
        if let Some(up) = self.identity_process.now() {
            up.child.kill();
        }
    }

    /// The components that run.
    pub fn running(&self) -> Vec<Arc<Component>> {
        self.components.read().map(|list| list.clone()).unwrap_or_default()
    }

    /// The policy in force.
    pub fn policy(&self) -> Policy {
        match self.policy.read() {
            Ok(policy) => policy.clone(),
            Err(_) => Policy::deny_all(0, vec!["poisoned".to_owned()]),
        }
    }

    /// How fixes are written for this host.
    pub fn fix_context(&self) -> FixContext {
        FixContext { program: "portcullis".to_owned(), config: Some(self.config.path.clone()) }
    }

    /// What policy knows of an instance.
    pub fn facts_of(&self, instance: &str) -> Option<ComponentFacts> {
        let facts = |component: &Arc<Component>| component.admitted.facts().clone();
        self.running().iter().map(facts).find(|facts| facts.instance == instance)
    }

    /// The claimed name of an instance; empty where it is not known.
    pub fn name_of(&self, instance: &str) -> String {
        self.facts_of(instance).map(|facts| facts.name).unwrap_or_default()
    }

    /// Whether a SPIFFE ID is revoked here.
    pub fn is_revoked(&self, id: &portcullis_identity::SpiffeId) -> bool {
        self.revocations.lock().map_or(true, |revocations| revocations.has_id(id))
    }

    /// Whether the host is going down.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether a process id is that of a child of this host, or not known at all.
    fn is_child(&self, pid: Option<i32>) -> bool {
        let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) else { return true };
        let identity = self.identity_process.now().is_some_and(|up| up.child.pid == pid);
        identity || self.runtime_process.now().is_some_and(|up| up.child.pid == pid)
    }

    /// The audit log could not be written: from here on the host is not ready.
    pub fn audit_failed(&self) {
        self.audit_broken.store(true, Ordering::Release);
    }

    fn audit_restart(&self, role: Role, how: &str) {
        let record = Record::new("restart").field("by", "supervisor").field("process", role.name()).field("ended", how);
        if self.record(record).is_err() {
            self.audit_failed();
        }
    }

    fn insert(&self, component: Arc<Component>) {
        if let Ok(mut list) = self.components.write() {
            list.insert(0, component);
        }
    }

    fn remove(&self, instance: &str) {
        if let Ok(mut list) = self.revocations.lock() {
            list.ended(instance);
        }
        if let Ok(mut list) = self.components.write() {
            list.retain(|component| component.admitted.facts().instance != instance);
        }
    }

    fn record(&self, record: Record) -> io::Result<u64> {
        audit_sink::append(&self.audit, record, Durability::Durable)
    }
}

const FIRST_GENERATION: u64 = 1;
