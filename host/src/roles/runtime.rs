//! The runtime process: takes its orders from the supervisor, its sockets by handover, its identities from the identity
//! process, and serves.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use portcullis_identity::mtls;
use portcullis_identity::web::WebConnector;
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_native::NativeCode;
use portcullis_policies::ComponentFacts;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use wasmtime::component::Linker;

use crate::config::Limits;
use crate::limits;
use crate::policy::{Ending, Pushed};
use crate::process::handover::{Handover, Packet};
use crate::process::{Role, sandbox};
use crate::rpc::runtime::runtime_server::{Runtime as Service, RuntimeServer};
use crate::rpc::runtime::{
    ConfigureReply, ConfigureRequest, DrainReply, DrainRequest, Event, EventsRequest, LoadReply, LoadRequest,
    PushPolicyReply, PushPolicyRequest, SetRoutesReply, SetRoutesRequest, StatusReply, StatusRequest, UnloadReply,
    UnloadRequest,
};
use crate::rpc::runtime::{LinesReply, LinesRequest};
use crate::runtime::component::{Entries, Loaded, Shared};
use crate::runtime::engine::{self, PoolProfile};
use crate::runtime::events::Events;
use crate::runtime::gateway::Gateway;
use crate::runtime::guest::Lanes;
use crate::runtime::handshake::{RemoteSigner, SignerThread};
use crate::runtime::identity::{IdentityClient, IdentityError, following};
use crate::runtime::lines::Lines;
use crate::runtime::linking;
use crate::runtime::live::Live;
use crate::runtime::messaging::{Messaging, subscribing};
use crate::runtime::resolve::Resolver;
use crate::runtime::routes::Routes;

/// What a runtime process is given at its start. Descriptors: control, identity, HTTP listener, then perhaps the mTLS one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Boot {
    /// A `danger_` knob.
    pub inspectable: bool,
    /// Ask policy nothing.
    #[cfg(feature = "bench-ungated")]
    pub ungated: bool,
}

/// Everything after `Configure`.
#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    gateway: Arc<Gateway>,
    profile: PoolProfile,
    policy: Mutex<Arc<Pushed>>,
    /// Ends audit mode in time, also where nobody says so.
    ending: Ending,
    instances: Mutex<HashMap<String, Arc<Loaded>>>,
    generation: AtomicU64,
}

#[derive(Debug, Clone)]
struct Process {
    running: Arc<OnceLock<Running>>,
    handed: Arc<Handed>,
    low: tokio::runtime::Handle,
    draining: watch::Sender<bool>,
}

/// What came over the handover socket and waits for the message that refers to it.
#[derive(Debug)]
struct Handed {
    code: Mutex<HashMap<u64, OwnedFd>>,
    arrived: watch::Sender<u64>,
    listeners: Mutex<Vec<OwnedFd>>,
    identity: Mutex<Option<OwnedFd>>,
}

/// Runs the process until its supervisor is gone or has drained it.
pub fn run(handover: Handover) -> io::Result<()> {
    let packet = handover.receive()?.ok_or_else(|| io::Error::other("no boot packet"))?;
    let (parent, boot) = super::parse_boot::<Boot>(&packet)?;
    let read = READABLE.map(Path::new);
    let fence = sandbox::Fence { role: Role::Runtime, parent, read: &read, write: &[], inspectable: boot.inspectable };
    let report = sandbox::enter(&fence)?;
    crate::logging::start(Role::Runtime.name());
    tracing::info!(landlock = report.landlock, refused_calls = report.seccomp, "fenced");
    #[cfg(feature = "bench-ungated")]
    if boot.ungated {
        crate::ungated::open();
    }
    let low = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(LOW_THREADS)
        .thread_name("low")
        .on_thread_start(|| {
            if let Err(error) = rustix::process::setpriority_process(None, LOW_PRIORITY) {
                tracing::error!(%error, "a low-priority thread has no low priority");
            }
        })
        .enable_all()
        .build()?;
    let main = tokio::runtime::Builder::new_multi_thread().thread_name("serve").enable_all().build()?;
    let served = main.block_on(serve(handover, packet, low.handle().clone()));
    low.shutdown_background();
    main.shutdown_background();
    served
}

async fn serve(handover: Handover, packet: Packet, low: tokio::runtime::Handle) -> io::Result<()> {
    let mut fds = packet.fds.into_iter();
    let (Some(control), Some(identity)) = (fds.next(), fds.next()) else {
        return Err(io::Error::other("a runtime process has at least two descriptors"));
    };
    let _signals = super::ignore_signals()?;
    let handed = Arc::new(Handed {
        code: Mutex::new(HashMap::new()),
        arrived: watch::Sender::new(0),
        listeners: Mutex::new(fds.collect()),
        identity: Mutex::new(Some(identity)),
    });
    let process = Process {
        running: Arc::new(OnceLock::new()),
        handed: Arc::clone(&handed),
        low,
        draining: watch::Sender::new(false),
    };
    let (gone, supervisor_gone) = tokio::sync::oneshot::channel();
    let receiver = process.clone();
    let handle = tokio::runtime::Handle::current();
    std::thread::Builder::new().name("handover".to_owned()).spawn(move || {
        while let Ok(Some(packet)) = handover.receive() {
            receiver.take(packet, &handle);
        }
        let _ = gone.send(());
    })?;
    let service = RuntimeServer::new(process.clone())
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    tokio::select! {
        served = crate::rpc::serve(control, tonic::service::Routes::new(service)) => served,
        _ = supervisor_gone => Ok(()),
    }
}

impl Process {
    /// A packet after the boot packet: native code, or a new way to the identity process.
    fn take(&self, packet: Packet, handle: &tokio::runtime::Handle) {
        let Some(fd) = packet.fds.into_iter().next() else { return };
        match packet.label.as_str() {
            "code" => {
                if let Ok(mut code) = self.handed.code.lock() {
                    code.insert(packet.transfer, fd);
                }
                self.handed.arrived.send_modify(|count| *count += 1);
            }
            "identity" => match self.running.get() {
                Some(running) => {
                    handle.spawn(follow_identity(Arc::clone(&running.shared), fd));
                }
                None => {
                    if let Ok(mut identity) = self.handed.identity.lock() {
                        *identity = Some(fd);
                    }
                }
            },
            other => tracing::error!(label = other.escape_debug().to_string(), "an unknown packet was dropped"),
        }
    }

    fn running(&self) -> Result<&Running, Status> {
        self.running.get().ok_or_else(|| Status::failed_precondition("not configured yet"))
    }

    async fn code(&self, transfer: u64) -> Result<OwnedFd, String> {
        let mut arrived = self.handed.arrived.subscribe();
        let wait = async {
            loop {
                let found = self.handed.code.lock().ok().and_then(|mut code| code.remove(&transfer));
                if let Some(fd) = found {
                    return fd;
                }
                if arrived.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(limits::RPC_TIMEOUT, wait).await.map_err(|_| "the native code did not arrive".to_owned())
    }

    async fn load(&self, request: LoadRequest) -> Result<(), String> {
        let running = self.running.get().ok_or("not configured yet")?;
        let expected: [u8; 32] = request.code_hash.as_slice().try_into().map_err(|_| "the hash has 32 bytes")?;
        let code = self.code(request.code_transfer).await?;
        let spiffe_id: SpiffeId = request.spiffe_id.parse().map_err(|_| "a malformed SPIFFE ID")?;
        let facts = ComponentFacts {
            name: request.name,
            digest: request.digest,
            spiffe_id: request.spiffe_id,
            signer: request.signer,
            signer_group: request.signer_group,
            instance: request.instance.clone(),
        };
        let policy = running.policy.lock().map_err(|_| "poisoned")?.clone();
        let slice = policy.slice(&facts);
        let decided =
            request.links.iter().map(|name| slice.link(name).map_err(|denial| format!("{} {name}", denial.code())));
        let links = decided.collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::clone(&running.shared);
        let pre = tokio::task::spawn_blocking(move || -> Result<_, String> {
            let component = NativeCode::check(code, &expected, limits::NATIVE_BYTES)
                .and_then(|code| code.load(&shared.engine))
                .map_err(|error| error.to_string())?;
            let mut linker = Linker::new(&shared.engine);
            linking::link(&mut linker, &links).map_err(|error| format!("{error:#}"))?;
            let pre = linker.instantiate_pre(&component).map_err(|error| format!("{error:#}"))?;
            Entries::of(&pre).map_err(|error| format!("{error:#}"))
        })
        .await
        .map_err(|error| error.to_string())??;
        let loaded = Loaded::new(facts, spiffe_id, pre, request.links, slice, Arc::clone(&running.shared));
        let loaded = Arc::new(loaded);
        {
            // Held until the instance is in the table, so that no new policy passes it by.
            let policy = running.policy.lock().map_err(|_| "poisoned")?;
            loaded.swap_slice(policy.slice(loaded.facts()));
            let old = running.instances.lock().map_err(|_| "poisoned")?.insert(request.instance, Arc::clone(&loaded));
            if let Some(old) = old {
                old.stop();
            }
        }
        tokio::spawn(subscribing::run(Arc::clone(&loaded)));
        tokio::spawn(keep_svid(loaded));
        Ok(())
    }

    /// The audit mode of a component is over: decides strictly from now on, if that policy is still in force.
    fn end_audit_mode(&self, generation: u64, component: &str) {
        let Some(running) = self.running.get() else { return };
        let (Ok(mut policy), Ok(instances)) = (running.policy.lock(), running.instances.lock()) else { return };
        if policy.generation() != generation {
            return;
        }
        let strict = policy.without(component);
        for loaded in instances.values().filter(|loaded| loaded.name() == component) {
            loaded.swap_slice(strict.slice(loaded.facts()));
        }
        *policy = Arc::new(strict);
        tracing::info!(component, "audit mode is over");
    }

    /// Takes the listeners and serves on them, once there are routes.
    fn listen(&self, running: &Running) -> io::Result<()> {
        let listeners = self.handed.listeners.lock().map(|mut list| std::mem::take(&mut *list)).unwrap_or_default();
        for (index, fd) in listeners.into_iter().enumerate() {
            let listener = std::net::TcpListener::from(fd);
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            let gateway = Arc::clone(&running.gateway);
            if index == 0 {
                tokio::spawn(gateway.serve(listener));
            } else {
                let acceptor = acceptor(&running.shared, &running.gateway).map_err(io::Error::other)?;
                tokio::spawn(gateway.serve_mtls(listener, acceptor));
            }
        }
        Ok(())
    }
}

/// Accepts mTLS: the server name picks the component whose SVID is shown; the bundle is the one in force.
fn acceptor(shared: &Arc<Shared>, gateway: &Arc<Gateway>) -> Result<mtls::Acceptor, mtls::TlsError> {
    let (served, server) = (Arc::clone(shared), Arc::clone(gateway));
    let identity = move |name: Option<&str>| {
        let who = server.server(name?)?;
        let svid = served.identity.held_svid(who.instance())?;
        let signer = Arc::new(RemoteSigner::new(who.instance(), &served, &served.signer));
        Some(mtls::ServedIdentity { svid, signer })
    };
    let shared = Arc::clone(shared);
    let bundle = move || shared.identity.bundles().map(|bundles| Arc::clone(bundles.trust())).unwrap_or_default();
    mtls::acceptor(Arc::new(identity), Arc::new(bundle))
}

/// Uses a connection to the identity process and follows its bundle for as long as it stands.
async fn follow_identity(shared: Arc<Shared>, fd: OwnedFd) {
    match crate::rpc::client(fd).await {
        Ok(channel) => {
            let connection = shared.identity.connect(channel);
            while shared.identity.is_current(connection) {
                if let Err(error) = following::follow(&shared).await {
                    tracing::warn!(?error, "the trust bundle cannot be followed");
                }
                tokio::time::sleep(SVID_RETRY).await;
            }
        }
        Err(error) => tracing::error!(%error, "no connection to the identity process"),
    }
}

/// Holds the X.509-SVID of an instance fresh while policy grants one, so that a handshake finds it.
async fn keep_svid(who: Arc<Loaded>) {
    let mut changes = who.shared().identity.changes();
    while !who.is_stopped() {
        changes.borrow_and_update();
        let wait = match who.slice().svid_x509(SVID_TTL_SECONDS) {
            Err(_) => SVID_POLL,
            // Audit mode lets through what the component asks for; this is asked by nobody.
            Ok(grant) if grant.instead_of().is_some() => SVID_POLL,
            Ok(_grant) => match who.shared().identity.svid(who.instance()).await {
                Ok(_) => SVID_POLL,
                // Nothing that asking soon again would change; a change wakes this up.
                Err(IdentityError::Failed { kind, .. }) if ["revoked", "rate-limited"].contains(&kind.as_str()) => {
                    SVID_POLL
                }
                Err(error) => {
                    tracing::debug!(component = who.name(), ?error, "no X.509-SVID yet");
                    SVID_RETRY
                }
            },
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Another identity process, another epoch, another bundle: what is held may be over.
            _ = changes.changed() => {}
        }
    }
}

#[tonic::async_trait]
impl Service for Process {
    async fn configure(&self, request: Request<ConfigureRequest>) -> Result<Response<ConfigureReply>, Status> {
        let request = request.into_inner();
        let limits: Limits = serde_json::from_str(&request.limits_json).map_err(invalid)?;
        let trust_domain: TrustDomain =
            request.trust_domain.parse().map_err(|_| Status::invalid_argument("trust domain"))?;
        let mut names = BTreeMap::new();
        for name in request.names {
            let addresses: Result<Vec<IpAddr>, _> = name.addresses.iter().map(|address| address.parse()).collect();
            names.insert(name.name, addresses.map_err(invalid)?);
        }
        let profile = PoolProfile::of_this_machine();
        let engine = engine::serving(&limits, profile).map_err(|error| Status::internal(format!("{error:#}")))?;
        tick(engine.clone()).map_err(internal)?;
        let messaging = match request.messaging_json.as_str() {
            "" => None,
            json => Some(serde_json::from_str(json).map_err(invalid)?),
        };
        let places = usize::try_from(limits.concurrent_requests).unwrap_or(usize::MAX >> 4);
        let shared = Arc::new(Shared {
            engine,
            limits,
            events: Events::new(),
            identity: IdentityClient::new(trust_domain),
            live: Arc::new(Live::default()),
            signer: SignerThread::start().map_err(internal)?,
            web: WebConnector::system().map_err(|error| error.to_string()),
            resolver: Resolver::new(names),
            lanes: Arc::new(Lanes::new(self.low.clone())),
            outgoing: Arc::new(tokio::sync::Semaphore::new(limits::OUTGOING)),
            places: Arc::new(tokio::sync::Semaphore::new(places)),
            lines: Lines::default(),
            messaging: Messaging::new(messaging),
            requests: AtomicU64::new(0),
            refused_busy: AtomicU64::new(0),
            guest_failures: AtomicU64::new(0),
        });
        let running = Running {
            gateway: Gateway::new(Arc::clone(&shared), request.http2),
            shared: Arc::clone(&shared),
            profile,
            policy: Mutex::new(Arc::new(Pushed::nothing())),
            ending: Ending::default(),
            instances: Mutex::new(HashMap::new()),
            generation: AtomicU64::new(0),
        };
        if self.running.set(running).is_err() {
            return Err(Status::failed_precondition("configured already"));
        }
        let identity = self.handed.identity.lock().ok().and_then(|mut fd| fd.take());
        if let Some(fd) = identity {
            tokio::spawn(follow_identity(Arc::clone(&shared), fd));
        }
        tokio::spawn(Messaging::start(shared));
        Ok(Response::new(ConfigureReply {}))
    }

    async fn push_policy(&self, request: Request<PushPolicyRequest>) -> Result<Response<PushPolicyReply>, Status> {
        let running = self.running()?;
        let request = request.into_inner();
        let sources = request.sources.into_iter().map(|source| (source.name, source.kind, source.text));
        let audited = request.audited.into_iter().map(|audited| (audited.component, audited.until));
        let new = Pushed::compile(sources, audited, request.generation).map_err(Status::invalid_argument)?;
        let generation = new.generation();
        {
            let mut policy = running.policy.lock().map_err(|_| Status::internal("poisoned"))?;
            if generation <= policy.generation() {
                return Err(Status::failed_precondition("not a newer generation"));
            }
            let instances = running.instances.lock().map_err(|_| Status::internal("poisoned"))?;
            for loaded in instances.values() {
                loaded.swap_slice(new.slice(loaded.facts()));
            }
            running.generation.store(generation, Ordering::Relaxed);
            let process = self.clone();
            running.ending.follow(&new, move |component| process.end_audit_mode(generation, component));
            *policy = Arc::new(new);
        }
        Ok(Response::new(PushPolicyReply { generation }))
    }

    async fn load(&self, request: Request<LoadRequest>) -> Result<Response<LoadReply>, Status> {
        let error = Process::load(self, request.into_inner()).await.err().unwrap_or_default();
        Ok(Response::new(LoadReply { error }))
    }

    async fn unload(&self, request: Request<UnloadRequest>) -> Result<Response<UnloadReply>, Status> {
        let instance = request.into_inner().instance;
        let mut instances = self.running()?.instances.lock().map_err(|_| Status::internal("poisoned"))?;
        if let Some(loaded) = instances.remove(&instance) {
            loaded.stop();
        }
        Ok(Response::new(UnloadReply {}))
    }

    async fn set_routes(&self, request: Request<SetRoutesRequest>) -> Result<Response<SetRoutesReply>, Status> {
        let running = self.running()?;
        let mut rows = Vec::new();
        {
            let instances = running.instances.lock().map_err(|_| Status::internal("poisoned"))?;
            for route in request.into_inner().routes {
                let Some(loaded) = instances.get(&route.instance) else {
                    return Err(Status::not_found("a route to an instance that is not loaded"));
                };
                rows.push((route.host, route.path, Arc::clone(loaded)));
            }
        }
        running.gateway.set_routes(Routes::new(rows));
        self.listen(running).map_err(internal)?;
        Ok(Response::new(SetRoutesReply {}))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainReply>, Status> {
        let within = Duration::from_millis(request.into_inner().within_ms);
        self.draining.send_replace(true);
        let running = self.running()?;
        running.shared.messaging.drain();
        let unfinished = running.gateway.drain(within).await;
        running.shared.events.handed_over(limits::SIGN_TIMEOUT).await;
        Ok(Response::new(DrainReply { unfinished }))
    }

    async fn lines(&self, request: Request<LinesRequest>) -> Result<Response<LinesReply>, Status> {
        let lines = self.running()?.shared.lines.of(&request.into_inner().target);
        Ok(Response::new(LinesReply { lines }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let running = self.running()?;
        let instances = running.instances.lock().map_err(|_| Status::internal("poisoned"))?.len();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Response::new(StatusReply {
            generation: count(&running.generation),
            instances: u64::try_from(instances).unwrap_or(u64::MAX),
            requests: count(&running.shared.requests),
            in_flight: running.gateway.in_flight(),
            refused_busy: count(&running.shared.refused_busy),
            guest_failures: count(&running.shared.guest_failures),
            demotions: running.shared.lanes.demotions(),
            events_lost: running.shared.events.lost(),
            pool_profile: running.profile.name().to_owned(),
        }))
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

    async fn events(&self, _: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let shared = Arc::clone(&self.running()?.shared);
        let stream = futures::stream::unfold(shared, |shared| async move {
            let event = shared.events.next().await?;
            Some((Ok(event), shared))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// The epoch: one thread, one tick every two milliseconds, for as long as the engine lives.
fn tick(engine: wasmtime::Engine) -> io::Result<()> {
    let weak = engine.weak();
    drop(engine);
    std::thread::Builder::new().name("epoch".to_owned()).spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(limits::EPOCH_TICK);
        }
    })?;
    Ok(())
}

fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn internal(error: io::Error) -> Status {
    Status::internal(error.to_string())
}

/// Threads for guests that overran.
const LOW_THREADS: usize = 2;
/// The nice value of those threads: the lowest priority there is.
const LOW_PRIORITY: i32 = 19;
/// How often it is checked whether an SVID wants renewing.
const SVID_POLL: Duration = Duration::from_secs(5);
/// Pause after a failed attempt.
const SVID_RETRY: Duration = Duration::from_millis(200);
/// Lifetime that is asked of policy for X.509-SVIDs.
pub const SVID_TTL_SECONDS: u64 = 3600;
/// Largest message between supervisor and runtime: policies are the large ones.
const MESSAGE_BYTES: usize = 32 << 20;
/// What resolving names and trusting the roots of the system needs; nothing else of the file system can be read.
const READABLE: [&str; 17] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/ld.so.cache",
    "/etc/ssl/certs",
    "/etc/pki",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/run/systemd/resolve",
    "/proc/self",
    "/proc/swaps",
    "/sys/fs/cgroup",
];
