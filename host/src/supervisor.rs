//! The supervisor: configuration, admission, the audit log, the children, the control socket. It never opens a key file.
//!
//! A component starts in this order, and each step is on disk before its effect: verified and admitted, recorded, given an
//! identity, compiled or taken from the cache, loaded, routed. Any refusal is recorded with its reason and its fix.

pub mod admission;
pub mod audit_mode;
pub mod audit_sink;
pub mod broker;
pub mod children;
pub mod cluster;
pub mod code;
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
pub mod revocations;
pub mod settle;
pub mod trust;
pub mod trust_watch;
pub mod watch;
pub mod workload_api;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use portcullis_policies::{ComponentFacts, ControlAction, Denial, FixContext, Operator};
use portcullis_signing::ComponentBytes;

use self::admission::{Admitted, NotAdmitted};
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
use self::trust::Trust;
use crate::audit::{AuditLog, Durability, Record};
use crate::cli::files;
use crate::clock;
use crate::config::{Config, Route};
use crate::limits;
use crate::policy::Audited;
use crate::process::child::Spawner;
use crate::process::{Role, sandbox};
use crate::rpc::runtime::{DrainRequest, StatusReply, StatusRequest, UnloadRequest};
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
    notices: Arc<control::notices::Notices>,
    starting: tokio::sync::Mutex<()>,
    settled: AtomicBool,
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

/// What is to be started.
#[derive(Debug, Clone, Default)]
pub struct StartSpec {
    /// The `.wasm` file.
    pub path: PathBuf,
    /// Its evidence; empty: the file beside it.
    pub evidence: Vec<PathBuf>,
    /// A route for it (host, path prefix).
    pub route: Option<(Option<String>, String)>,
    /// What it must turn out to be.
    pub expect: Option<Expect>,
    /// Who asked for it, where that was an operator.
    pub by: Option<Operator>,
    /// It ran here before, and its cluster cannot be asked.
    pub again: bool,
}

/// What a component must turn out to be: whoever asks for it names these, and where its bytes lie proves neither.
#[derive(Debug, Clone)]
pub struct Expect {
    /// Its claimed name.
    pub name: String,
    /// The digest of its bytes.
    pub digest: String,
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
        let more = cluster.as_ref().map(|cluster| cluster.policy_sources()).unwrap_or_default();
        let policy = match Policy::read_with(&config.policy, more, FIRST_GENERATION) {
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
            notices: Arc::default(),
            starting: tokio::sync::Mutex::new(()),
            settled: AtomicBool::new(false),
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

    /// Starts every configured component; what is refused is remembered and shown by `status`.
    pub async fn start_configured(self: &Arc<Self>, progress: &(dyn Fn(&Path) + Sync)) {
        if let Some(cluster) = self.cluster.as_ref().filter(|_| !self.config.components.is_empty()) {
            cluster.first_look().await;
        }
        for component in self.config.components.clone() {
            progress(&component.path);
            let spec = StartSpec { path: component.path.clone(), evidence: component.evidence, ..StartSpec::default() };
            if let Err(refused) = self.start_component(spec).await {
                tracing::error!(code = refused.code, "{} was refused: {}", component.path.display(), refused.message);
                if let Ok(mut list) = self.refused.lock() {
                    list.push((component.path, refused));
                }
            }
        }
        self.settled.store(true, Ordering::Release);
        self.send_routes().await;
    }

    /// The whole way of one component, from files to requests.
    pub async fn start_component(self: &Arc<Self>, spec: StartSpec) -> Result<Arc<Component>, Refused> {
        let _one_at_a_time = self.starting.lock().await;
        self.read_trust();
        let bytes =
            files::read_component(&spec.path).map_err(|error| self.refuse(&spec, Refused::from_file(&error)))?;
        check_expected_bytes(&spec, &bytes).map_err(|refused| self.refuse(&spec, refused))?;
        let admitted = self.admit(&spec, &bytes).map_err(|refused| self.refuse(&spec, refused))?;
        check_expected_name(&spec, &admitted).map_err(|refused| self.refuse(&spec, refused))?;
        self.check_free(&spec, &admitted.facts().name).map_err(|refused| self.refuse(&spec, refused))?;
        self.check_revoked(admitted.spiffe_id()).map_err(|refused| self.refuse(&spec, refused))?;
        self.check_cluster(&admitted, spec.again).map_err(|refused| self.refuse(&spec, refused))?;
        // Its name is known only now: an operator may start components by name.
        if let Some(who) = &spec.by {
            self.allow(who, ControlAction::Start, Some(&admitted.facts().name))?;
        }
        self.mark_revision(&admitted).map_err(|refused| self.refuse(&spec, refused))?;
        // At the start of the host, and while it is started again, the identity process is not up for a moment.
        if self.identity_process.wait().await.is_none() {
            return Err(self.refuse(&spec, Refused::internal("the identity process is not up")));
        }
        let failed = |error: &dyn std::fmt::Display| self.refuse(&spec, Refused::internal(error));
        self.record(with_fields(Record::new("admission"), &admitted)).map_err(|error| failed(&error))?;
        for denial in admitted.let_through() {
            self.record(self.let_through(denial)).map_err(|error| failed(&error))?;
        }
        self.identity.admit(&admitted, self.may_export(&admitted)).await.map_err(|error| failed(&error))?;
        let started = self.bring_up(&spec, &bytes, admitted.clone()).await;
        if started.is_err() {
            let _ = self.identity.stop(&admitted.facts().instance).await;
        } else if let Ok(mut refused) = self.refused.lock() {
            // What was refused at the start of the host and runs now is no problem any more.
            let name = Path::new(&admitted.facts().name);
            refused.retain(|(path, _)| *path != spec.path && path != name);
        }
        started.map_err(|refused| self.refuse(&spec, refused))
    }

    async fn bring_up(
        self: &Arc<Self>,
        spec: &StartSpec,
        bytes: &ComponentBytes,
        admitted: Admitted,
    ) -> Result<Arc<Component>, Refused> {
        let code = self.code.code(bytes, &self.identity).await.map_err(|error| Refused::from_code(&error))?;
        let component = Arc::new(Component { admitted, code, draining: AtomicBool::new(false) });
        self.record(with_fields(Record::new("start").field("by", "supervisor"), &component.admitted))
            .map_err(Refused::internal)?;
        let name = component.admitted.facts().name.clone();
        let replaced: Vec<_> = self.running().into_iter().filter(|old| old.admitted.facts().name == name).collect();
        self.insert(Arc::clone(&component));
        let up = self.runtime_process.wait().await.ok_or_else(|| Refused::internal("the runtime process is not up"));
        let loaded = match up {
            Ok(up) => children::load(&up, &component).await.map_err(Refused::internal),
            Err(refused) => Err(refused),
        };
        if let Err(refused) = loaded {
            self.remove(&component.admitted.facts().instance);
            return Err(refused);
        }
        if let Some((host, path)) = &spec.route {
            self.add_route(Route { host: host.clone(), path: path.clone(), component: name });
        }
        for old in replaced {
            self.end_instance(&old, "replaced").await;
        }
        // What was denied while it was compiled: the watch could not see it yet.
        trust_watch::enforce(self).await;
        if !self.running().iter().any(|running| Arc::ptr_eq(running, &component)) {
            return Err(Refused {
                exit: crate::cli::error::exit::REVOKED,
                code: "revoked".to_owned(),
                message: "it was revoked while it was started".to_owned(),
                hint: "look at the log of the host".to_owned(),
                ..Refused::internal("")
            });
        }
        if self.settled.load(Ordering::Acquire) {
            self.send_routes().await;
        }
        Ok(component)
    }

    /// Verifies and decides; nothing has an effect yet.
    fn admit(&self, spec: &StartSpec, bytes: &ComponentBytes) -> Result<Admitted, Refused> {
        let evidence = files::read_evidence(&spec.path, &spec.evidence).map_err(|error| Refused::from_file(&error))?;
        let evidence: Vec<&[u8]> = evidence.iter().map(Vec::as_slice).collect();
        let now = clock::now();
        let trust = self.trust.read().map_err(|_| Refused::internal("poisoned"))?;
        let (trust, deny_list) = trust.in_force(now)?;
        let marks = self.high_water.lock().map_err(|_| Refused::internal("poisoned"))?;
        let marks = marks.as_ref().map_err(Clone::clone)?;
        let context = portcullis_signing::Context {
            trust,
            deny_list,
            audience: &self.config.cluster,
            now,
            highest_seen: &|name, audience| Ok(marks.revision(&name.to_string(), audience)),
        };
        let verified = portcullis_signing::verify(bytes, &evidence, &context)
            .map_err(|refusal| Refused::from_evidence(&refusal))?;
        let policy = self.policy();
        let slice = |facts: &ComponentFacts| self.audited().slice(policy.set(), facts, clock::now());
        Admitted::decide(&verified, &slice, &self.config.trust_domain)
            .map_err(|refusal: NotAdmitted| Refused::from_admission(&refusal, &self.fix_context()))
    }

    /// Whether the configuration lets this component have its private key, where policy grants that.
    fn may_export(&self, admitted: &Admitted) -> bool {
        self.config.dangers.exportable_keys.iter().any(|name| *name == admitted.facts().name)
    }

    /// The record of a link that audit mode lets through.
    fn let_through(&self, denial: &Denial) -> Record {
        let reference = ulid::Ulid::generate().to_string();
        let denial = denial.clone().with_reference(reference.clone());
        let context = self.fix_context();
        Record::new("let-through")
            .reference(&reference)
            .field("by", "supervisor")
            .field("component", denial.component())
            .field("code", denial.code().to_string())
            .field("denial", serde_json::to_value(&denial).unwrap_or_default())
            .field("text", format!("{}\n{}", audit_sink::LET_THROUGH, denial.render(&context)))
            .field("fix", denial.fix(&context).unwrap_or_default())
    }

    fn mark_revision(&self, admitted: &Admitted) -> Result<(), Refused> {
        let mut marks = self.high_water.lock().map_err(|_| Refused::internal("poisoned"))?;
        let marks = marks.as_mut().map_err(|refused| refused.clone())?;
        let name = &admitted.facts().name;
        marks.saw_revision(name, &self.config.cluster, admitted.revision()).map_err(Refused::internal)
    }

    /// Stops every instance of a component name, or one instance; returns how many.
    pub async fn stop_component(self: &Arc<Self>, target: &str) -> u32 {
        let matching = |component: &Arc<Component>| {
            let facts = component.admitted.facts();
            facts.name == target || facts.instance == target
        };
        // What runs ends at once, whatever is being started meanwhile: a compilation may take minutes.
        let mut stopped = 0;
        for component in self.running().into_iter().filter(matching) {
            trust_watch::end_now(self, &component, "asked", "").await;
            stopped += 1;
        }
        // What was being started, and came up in the meantime, is stopped all the same; then the routes are as they are to be.
        let _one_at_a_time = self.starting.lock().await;
        for component in self.running().into_iter().filter(matching) {
            self.end_instance(&component, "asked").await;
            stopped += 1;
        }
        if stopped > 0 {
            settle::settle(self).await;
        }
        stopped
    }

    /// Ends an instance: recorded, then its identity, then its routes and its code. The runtime has no say in the first two.
    async fn end_instance(self: &Arc<Self>, component: &Component, why: &str) {
        let record = with_fields(Record::new("stop").field("by", "supervisor").field("why", why), &component.admitted);
        if let Err(error) = self.record(record) {
            tracing::error!(%error, "a stop could not be recorded; it goes on, since it takes rights away");
            self.audit_failed();
        }
        let instance = &component.admitted.facts().instance;
        if let Err(error) = self.identity.stop(instance).await {
            tracing::error!(%error, instance, "the identity process did not end an identity; it is started again without it");
            if let Some(up) = self.identity_process.now().filter(|_| !self.is_stopping()) {
                up.child.kill();
            }
        }
        self.remove(instance);
        let Some(up) = self.runtime_process.now().filter(|_| !self.is_stopping()) else { return };
        let unloaded = async {
            children::set_routes(self, &up).await?;
            let unload = UnloadRequest { instance: instance.clone() };
            up.client().unload(unload).await.map(|_| ()).map_err(io::Error::other)
        };
        if let Err(error) = unloaded.await {
            tracing::error!(%error, instance, "the runtime did not unload an instance; it is started again without it");
            up.child.kill();
        }
    }

    /// Reads the trust policy and the deny list again. A bad one takes the old one's place: nothing new is admitted.
    pub fn read_trust(&self) {
        // INVARIANT: both are replaced as a whole, so whoever panicked with one in hand left nothing half done; and bad news
        // is taken up all the same.
        let mut trust = self.trust.write().unwrap_or_else(PoisonError::into_inner);
        let mut marks = self.high_water.lock().unwrap_or_else(PoisonError::into_inner);
        if trust.read(&self.config.trust, &mut marks, clock::now()) {
            match trust.in_force(clock::now()) {
                Ok((policy, list)) => tracing::info!(
                    version = policy.version(),
                    deny_list = list.map(portcullis_signing::DenyList::version),
                    "the trust policy is in force"
                ),
                Err(refused) => {
                    tracing::error!(code = refused.code, "nothing new is admitted: {}", refused.message);
                }
            }
            if let Some(list) = self.config.trust.deny_list.as_ref().filter(|_| trust.asks_no_deny_list()) {
                tracing::warn!(list = %list.display(), "the deny list of the configuration is not read: the trust policy demands none, and says of nobody that he may sign one");
            }
        }
    }

    /// Reads the trust policy and the policy files again. A bad trust policy is a problem of its own; a bad policy keeps the old.
    pub async fn reload(self: &Arc<Self>) -> Result<u64, Vec<String>> {
        self.read_trust();
        trust_watch::enforce(self).await;
        let trust = self.trust_problem();
        match (self.reload_policy().await, trust) {
            (Ok(generation), None) => Ok(generation),
            (Ok(_), Some(problem)) => Err(vec![problem]),
            (Err(problems), trust) => Err(problems.into_iter().chain(trust).collect()),
        }
    }

    /// Why nothing new is admitted because of the trust policy.
    fn trust_problem(&self) -> Option<String> {
        let trust = self.trust.read().ok()?;
        let refused = trust.in_force(clock::now()).err()?;
        Some(format!("{}: {}", refused.code, refused.message))
    }

    /// Reads the policy files again and puts them in force everywhere, or keeps the old ones and says why.
    pub async fn reload_policy(self: &Arc<Self>) -> Result<u64, Vec<String>> {
        let _one_at_a_time = self.starting.lock().await;
        // Under the lock: what the cluster adds is what is in force when this is.
        let new = self.read_policy(self.cluster_policy())?;
        Ok(self.put_in_force(new).await)
    }

    /// What the cluster adds to the policy files.
    fn cluster_policy(&self) -> Vec<portcullis_policies::Source> {
        self.cluster.as_ref().map(|cluster| cluster.policy_sources()).unwrap_or_default()
    }

    /// The next policy: the policy files, and these sources besides. On record, and not in force yet. For who holds `starting`.
    fn read_policy(&self, more: Vec<portcullis_policies::Source>) -> Result<Policy, Vec<String>> {
        let old = self.policy();
        let new = match Policy::read_with(&self.config.policy, more, old.generation() + 1) {
            Ok(new) => new,
            Err(problems) => {
                self.set_policy(old.with_problems(problems.clone()));
                return Err(problems);
            }
        };
        let record = Record::new("policy").field("by", "supervisor").field("generation", new.generation());
        self.record(record).map_err(|error| vec![error.to_string()])?;
        Ok(new)
    }

    /// Puts a policy in force everywhere. For who holds `starting` since the policy was read.
    async fn put_in_force(self: &Arc<Self>, new: Policy) -> u64 {
        let generation = new.generation();
        self.set_policy(new);
        // A child that does not take it is started again with it: nothing goes on under the old policy.
        for problem in settle::settle(self).await {
            tracing::warn!(generation, problem, "a reload had to start a process again");
        }
        generation
    }

    /// Takes up policy files that changed. The same texts as those in force are no change: whoever wrote them had them
    /// reloaded.
    pub async fn policy_files_changed(self: &Arc<Self>) {
        let in_force = self.policy();
        let read = Policy::read_with(&self.config.policy, self.cluster_policy(), in_force.generation());
        if read.is_ok_and(|read| read.sources() == in_force.sources() && read.problems() == in_force.problems()) {
            return;
        }
        match self.reload_policy().await {
            Ok(generation) => tracing::info!(generation, "changed policy files were taken up"),
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(problem, "changed policy files cannot be used; the policy before stays in force");
                }
                let record = Record::new("policy")
                    .field("by", "supervisor")
                    .field("refused", problems)
                    .field("generation", in_force.generation());
                if self.record(record).is_err() {
                    self.audit_failed();
                }
            }
        }
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

    /// Why the host is not ready, one line each; empty: it is.
    pub async fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.settled.load(Ordering::Acquire) {
            problems.push("configured components are still being started".to_owned());
        }
        if self.audit_broken.load(Ordering::Acquire) {
            problems.push("the audit log cannot be written".to_owned());
        }
        if self.identity_process.now().is_none() {
            problems.push("the identity process is down".to_owned());
        }
        if self.runtime_process.now().is_none() {
            problems.push("the runtime process is down".to_owned());
        }
        let generation = self.policy().generation();
        let identity = self.identity_process.now().map(|up| ("identity", up.generation.load(Ordering::Acquire)));
        let runtime = self.runtime_process.now().map(|up| ("runtime", up.generation.load(Ordering::Acquire)));
        for (role, has) in [identity, runtime].into_iter().flatten().filter(|(_, has)| *has != generation) {
            problems.push(format!("the {role} process has policy generation {has}, not {generation} yet"));
        }
        problems.extend(self.identity.problems().await);
        if self.config.control.https.is_some() && !self.own().is_shown(clock::now()) {
            problems.push("control.https: the host has no X.509-SVID of its own to show yet".to_owned());
        }
        problems.extend(self.nats_problems());
        problems.extend(self.cluster.iter().flat_map(|cluster| cluster.problems()));
        problems.extend(self.trust_problem());
        problems.extend(self.policy().problems().iter().cloned());
        // A host for other processes' identities alone needs no grant; one that is to run something does.
        if !self.config.components.is_empty() && self.policy().grants_nothing() {
            problems.push("the policy files grant nothing: everything is denied".to_owned());
        }
        if let Ok(refused) = self.refused.lock() {
            problems.extend(
                refused
                    .iter()
                    .map(|(path, refused)| format!("{}: {}: {}", path.display(), refused.code, refused.message)),
            );
        }
        problems
    }

    /// What an operator should know and what takes nothing away that is served here, one line each.
    pub fn warnings(&self) -> Vec<String> {
        let cluster = self.cluster.iter().flat_map(|cluster| cluster.warnings());
        self.nats_warnings().into_iter().chain(cluster).collect()
    }

    /// What the runtime says of itself.
    pub async fn runtime_status(&self) -> Option<StatusReply> {
        let up = self.runtime_process.now()?;
        let asked =
            tokio::time::timeout(limits::RPC_TIMEOUT, async { up.client().status(StatusRequest {}).await }).await;
        asked.ok()?.ok().map(tonic::Response::into_inner)
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

    /// Where the host listens: HTTP, then mTLS.
    pub fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let mtls = self.listeners.mtls.as_ref().and_then(|listener| listener.local_addr().ok());
        (self.listeners.http.local_addr().ok(), mtls)
    }

    /// Where the host listens besides, by name.
    pub fn endpoint_addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let metrics = self.metrics_address.get().map(|address| ("metrics", *address));
        let broker = self.listeners.broker.address().map(|address| ("broker", address));
        let control = self.control_address.map(|address| ("control", address));
        self.listeners.endpoints.addresses().into_iter().chain(broker).chain(metrics).chain(control).collect()
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

    /// Ends a component that a restarted process did not take back, and says so where refusals are shown.
    async fn give_up(self: &Arc<Self>, component: &Component, why: String) {
        let facts = component.admitted.facts();
        tracing::error!(
            component = facts.name,
            why,
            "a component could not be taken back after a restart and is ended"
        );
        let spec = StartSpec { path: PathBuf::from(&facts.name), ..StartSpec::default() };
        let refused = self.refuse(&spec, Refused { code: "host.not-taken-back".to_owned(), ..Refused::internal(why) });
        if let Ok(mut list) = self.refused.lock() {
            list.push((spec.path, refused));
        }
        self.remove(&facts.instance);
        let _ = self.identity.stop(&facts.instance).await;
    }

    fn audit_restart(&self, role: Role, how: &str) {
        let record = Record::new("restart").field("by", "supervisor").field("process", role.name()).field("ended", how);
        if self.record(record).is_err() {
            self.audit_failed();
        }
    }

    fn routes(&self) -> Vec<Route> {
        let extra = self.extra_routes.lock().map(|routes| routes.clone()).unwrap_or_default();
        extra.into_iter().rev().chain(self.config.routes.iter().cloned()).collect()
    }

    /// Refuses a route that is somebody else's.
    fn check_free(&self, spec: &StartSpec, name: &str) -> Result<(), Refused> {
        let Some((host, path)) = &spec.route else { return Ok(()) };
        self.check_route_free(&Route { host: host.clone(), path: path.clone(), component: name.to_owned() })
    }

    fn check_route_free(&self, wanted: &Route) -> Result<(), Refused> {
        let Route { host, path, component: name } = wanted;
        let same = |route: &Route| (&route.host, &route.path) == (host, path) && route.component != *name;
        let taken = self.routes().into_iter().find(same);
        let running = self.running();
        match taken.filter(|route| running.iter().any(|component| component.admitted.facts().name == route.component)) {
            Some(route) => Err(Refused {
                exit: crate::cli::error::exit::USAGE,
                code: "route.taken".to_owned(),
                message: format!(
                    "the route {}{path} is that of {}",
                    host.as_deref().unwrap_or_default(),
                    route.component
                ),
                hint: format!("choose another route, or `portcullis stop {}` first", route.component),
                ..Refused::internal("")
            }),
            _ => Ok(()),
        }
    }

    fn add_route(&self, route: Route) {
        if let Ok(mut routes) = self.extra_routes.lock() {
            routes.retain(|old| (&old.host, &old.path) != (&route.host, &route.path));
            routes.push(route);
        }
    }

    /// Replaces the routes of a component that are not of the configuration.
    fn replace_routes(&self, name: &str, new: Vec<Route>) {
        if let Ok(mut routes) = self.extra_routes.lock() {
            routes.retain(|old| old.component != name);
            routes.extend(new);
        }
    }

    async fn send_routes(self: &Arc<Self>) {
        if let Some(up) = self.runtime_process.wait().await
            && let Err(error) = children::set_routes(self, &up).await
        {
            tracing::error!(%error, "the routing table could not be sent");
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

    fn set_policy(&self, policy: Policy) {
        if let Ok(mut slot) = self.policy.write() {
            *slot = policy;
        }
    }

    fn record(&self, record: Record) -> io::Result<u64> {
        audit_sink::append(&self.audit, record, Durability::Durable)
    }

    /// Records a refused start and puts the reference into the refusal.
    fn refuse(&self, spec: &StartSpec, refused: Refused) -> Refused {
        let reference = ulid::Ulid::generate().to_string();
        let record = Record::new("denial")
            .reference(&reference)
            .field("by", "supervisor")
            .field("action", "start")
            .field("path", spec.path.display().to_string())
            .field("code", refused.code.clone())
            .field("text", refused.message.clone())
            .field("hint", refused.hint.clone())
            .field("fix", refused.fix.clone())
            .field("details", refused.details.clone());
        if let Err(error) = self.record(record) {
            tracing::error!(%error, "a refusal could not be recorded");
            self.audit_failed();
        }
        Refused { reference, ..refused }
    }
}

/// Whatever lies at the path: what was asked for is named by its digest.
fn check_expected_bytes(spec: &StartSpec, bytes: &ComponentBytes) -> Result<(), Refused> {
    let Some(expect) = &spec.expect else { return Ok(()) };
    let found = bytes.digest().to_string();
    if found == expect.digest {
        return Ok(());
    }
    Err(Refused {
        exit: crate::cli::error::exit::CLAIMS,
        code: "digest.other".to_owned(),
        message: format!("{} is {found}, {} was asked for", spec.path.display(), expect.digest),
        hint: "put the component with that digest there, or ask for this one".to_owned(),
        ..Refused::internal("")
    })
}

fn check_expected_name(spec: &StartSpec, admitted: &Admitted) -> Result<(), Refused> {
    let Some(expect) = &spec.expect else { return Ok(()) };
    let found = &admitted.facts().name;
    if *found == expect.name {
        return Ok(());
    }
    Err(Refused {
        exit: crate::cli::error::exit::CLAIMS,
        code: "component.other-name".to_owned(),
        message: format!("its claims name it {found}, {} was asked for", expect.name),
        hint: "ask for it by the name in its claims".to_owned(),
        ..Refused::internal("")
    })
}

fn with_fields(record: Record, admitted: &Admitted) -> Record {
    admitted.audit_fields().into_iter().fold(record, |record, (name, value)| record.field(name, value))
}

const FIRST_GENERATION: u64 = 1;
