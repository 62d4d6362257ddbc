//! The two long-lived children, kept up: started, told what they need to know, started again when they die.
//!
//! A dead runtime comes back with the same sockets (the supervisor holds them), the same instances and the same native code,
//! which is still in memory; identities are not touched. A dead identity process comes back with its keys from disk, is told
//! again who was admitted, and the runtime gets a new connection to it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tonic::transport::Channel;

use super::Host;
use super::audit_sink::AuditSink;
use super::settle;
use crate::limits::{CHILD_START, RESTART_MAX, RESTART_MIN, RESTART_RESET};
use crate::process::Role;
use crate::process::child::{Child, borrow};
use crate::roles;
use crate::rpc;
use crate::rpc::audit::audit_server::AuditServer;
use crate::rpc::runtime::runtime_client::RuntimeClient;
use crate::rpc::runtime::{
    Audited, ConfigureRequest, LoadRequest, PolicySource, PushPolicyRequest, Route, SetRoutesRequest, StaticName,
};

/// One kept child.
#[derive(Debug)]
pub struct Kept<T> {
    role: Role,
    up: watch::Sender<Option<Arc<T>>>,
    restarts: AtomicU64,
}

/// The identity process that is up.
#[derive(Debug)]
pub struct IdentityUp {
    /// The process.
    pub child: Child,
    /// The policy that it decides by.
    pub generation: AtomicU64,
    /// Instances that it was told of at its start; looked at once, when it is settled.
    pub admitted: Mutex<Vec<String>>,
}

/// The runtime process that is up.
#[derive(Debug)]
pub struct RuntimeUp {
    /// The process.
    pub child: Child,
    /// The policy that it decides by.
    pub generation: AtomicU64,
    /// The identity process that it is connected to.
    pub identity_pid: AtomicU32,
    channel: Channel,
}

impl RuntimeUp {
    /// A client of the runtime's service.
    pub fn client(&self) -> RuntimeClient<Channel> {
        RuntimeClient::new(self.channel.clone()).max_encoding_message_size(MESSAGE_BYTES)
    }
}

impl<T> Kept<T> {
    /// Nothing is up yet.
    pub fn new(role: Role) -> Self {
        Self { role, up: watch::Sender::new(None), restarts: AtomicU64::new(0) }
    }

    /// The process that is up now.
    pub fn now(&self) -> Option<Arc<T>> {
        self.up.borrow().clone()
    }

    /// Waits until one is up.
    pub async fn wait(&self) -> Option<Arc<T>> {
        let mut up = self.up.subscribe();
        tokio::time::timeout(CHILD_START, up.wait_for(Option::is_some)).await.ok()?.ok()?.clone()
    }

    /// How often it was started again.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }
}

/// Keeps the identity process up until the host stops.
pub async fn keep_identity(host: Arc<Host>) {
    keep(
        &host,
        &host.identity_process,
        || start_identity(&host),
        |up| {
            let host = Arc::clone(&host);
            async move {
                let how = up.child.ended().await;
                host.identity.set(None);
                how
            }
        },
    )
    .await;
}

/// Keeps the runtime process up until the host stops.
pub async fn keep_runtime(host: Arc<Host>) {
    keep(&host, &host.runtime_process, || start_runtime(&host), |up| async move { up.child.ended().await }).await;
}

async fn keep<T, S, SF, W, WF>(host: &Arc<Host>, kept: &Kept<T>, start: S, watch: W)
where
    S: Fn() -> SF,
    SF: Future<Output = io::Result<T>>,
    W: Fn(Arc<T>) -> WF,
    WF: Future<Output = String>,
{
    let mut pause = RESTART_MIN;
    while !host.is_stopping() {
        let started = Instant::now();
        let how = match start().await {
            Ok(up) => {
                let up = Arc::new(up);
                kept.up.send_replace(Some(Arc::clone(&up)));
                settle::soon(host);
                let how = watch(up).await;
                kept.up.send_replace(None);
                how
            }
            Err(error) => error.to_string(),
        };
        if host.is_stopping() {
            return;
        }
        kept.restarts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(role = kept.role.name(), how, "a process of this host ended and is started again");
        host.audit_restart(kept.role, &how);
        if started.elapsed() >= RESTART_RESET {
            pause = RESTART_MIN;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RESTART_MAX);
    }
}

async fn start_identity(host: &Arc<Host>) -> io::Result<IdentityUp> {
    let child = host.spawner.spawn(Role::Identity, None).await?;
    let (authority, theirs) = rpc::pair()?;
    let (sink, sink_theirs) = rpc::pair()?;
    let boot = roles::identity::Boot {
        folder: host.state.identity(),
        trust_domain: host.config.trust_domain.clone(),
        config: host.config.path.clone(),
        identity: host.config.identity.clone(),
        jwt_issuer: host.config.oidc.as_ref().map(|oidc| oidc.issuer.to_string()),
        wit_svid: host.config.workload_api.as_ref().is_some_and(|api| api.wit_svid),
        federation: host.config.federation.clone(),
        oidc: host.config.oidc.clone(),
        broker: host.config.broker.clone(),
        statement_key: host
            .config
            .membership
            .as_ref()
            .and_then(|section| Some((section.key.clone()?, section.own_key()?.to_string()))),
        host_name: host.config.membership.as_ref().and_then(crate::config::cluster::Cluster::host_id),
        nats: host.config.nats.clone(),
    };
    child.boot(serde_json::to_value(boot)?, &borrow([&theirs, &sink_theirs]))?;
    let service = AuditServer::new(AuditSink::new(Arc::clone(host))).max_decoding_message_size(MESSAGE_BYTES);
    tokio::spawn(rpc::serve(sink, tonic::service::Routes::new(service)));
    let channel = within(rpc::client(authority), &child).await?;
    host.identity.set(Some(channel));
    if !up_within(|| host.identity.is_up(), &child).await {
        return Err(io::Error::other(format!("it did not come up: {}", ended_now(&child).await)));
    }
    super::workload_api::register(host, &child).await?;
    tokio::spawn(super::dials::follow(Arc::clone(host), child.handover.try_clone()?));
    host.listeners.endpoints.hand_down(&child)?;
    host.listeners.broker.hand_down(&child)?;
    let policy = host.policy();
    host.identity.push_policy(&policy, &host.audited()).await.map_err(io::Error::other)?;
    // Before anybody is admitted: what was revoked stays so.
    host.tell_revocations().await.map_err(io::Error::other)?;
    let mut admitted = Vec::new();
    for component in host.running() {
        match host.identity.admit(&component.admitted, host.may_export(&component.admitted)).await {
            Ok(()) => admitted.push(component.admitted.facts().instance.clone()),
            Err(error) => host.give_up(&component, error.to_string()).await,
        }
    }
    let generation = AtomicU64::new(policy.generation());
    Ok(IdentityUp { child, generation, admitted: Mutex::new(admitted) })
}

/// A new connection of a runtime to the identity process; returns the runtime's end.
pub fn workloads(identity: &Child) -> io::Result<OwnedFd> {
    let (ours, theirs) = rpc::pair()?;
    identity.handover.send("workloads", 0, serde_json::Value::Null, &borrow([&ours]))?;
    Ok(theirs)
}

async fn start_runtime(host: &Arc<Host>) -> io::Result<RuntimeUp> {
    let identity =
        host.identity_process.wait().await.ok_or_else(|| io::Error::other("the identity process is not up"))?;
    let child = host.spawner.spawn(Role::Runtime, None).await?;
    let (control, theirs) = rpc::pair()?;
    let workloads = workloads(&identity.child)?;
    let boot = roles::runtime::Boot {
        inspectable: host.config.dangers.inspectable_runtime,
        #[cfg(feature = "bench-ungated")]
        ungated: host.config.dangers.ungated,
    };
    let mut fds = vec![theirs.as_fd(), workloads.as_fd(), host.listeners.http.as_fd()];
    fds.extend(host.listeners.mtls.as_ref().map(AsFd::as_fd));
    child.boot(serde_json::to_value(boot)?, &fds)?;
    let channel = within(rpc::client(control), &child).await?;
    let identity_pid = AtomicU32::new(identity.child.pid);
    let up = RuntimeUp { child, generation: AtomicU64::new(0), identity_pid, channel };
    let names = host.config.names.iter().map(|(name, addresses)| StaticName {
        name: name.clone(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
    });
    let configure = ConfigureRequest {
        trust_domain: host.config.trust_domain.to_string(),
        limits_json: serde_json::to_string(&host.config.limits)?,
        names: names.collect(),
        http2: host.config.listen.http2,
        messaging_json: super::messaging::told(host)?,
    };
    up.client().configure(configure).await.map_err(io::Error::other)?;
    push_policy(host, &up).await?;
    for component in host.running() {
        if let Err(why) = load(&up, &component).await {
            host.give_up(&component, why).await;
        }
    }
    set_routes(host, &up).await?;
    tokio::spawn(super::audit_sink::follow(Arc::clone(host), up.client(), up.child.killer()?));
    Ok(up)
}

/// Pushes the policy in force to the runtime.
pub async fn push_policy(host: &Arc<Host>, up: &RuntimeUp) -> io::Result<()> {
    let policy = host.policy();
    let sources = policy.sources().iter().map(|source| PolicySource {
        name: source.name.clone(),
        kind: crate::policy::kind_name(source.kind).to_owned(),
        text: source.text.clone(),
    });
    let audited = host.audited();
    let audited = audited.iter().map(|(component, until)| Audited { component: component.to_owned(), until });
    let request =
        PushPolicyRequest { generation: policy.generation(), sources: sources.collect(), audited: audited.collect() };
    up.client().push_policy(request).await.map_err(io::Error::other)?;
    up.generation.store(policy.generation(), Ordering::Release);
    Ok(())
}

/// Has the runtime load a component that was admitted.
pub async fn load(up: &RuntimeUp, component: &super::Component) -> Result<(), String> {
    let transfer = TRANSFER.fetch_add(1, Ordering::Relaxed);
    let fd = component.code.fd.as_fd();
    up.child.handover.send("code", transfer, serde_json::Value::Null, &[fd]).map_err(|error| error.to_string())?;
    let facts = component.admitted.facts();
    let request = LoadRequest {
        instance: facts.instance.clone(),
        name: facts.name.clone(),
        digest: facts.digest.clone(),
        spiffe_id: component.admitted.spiffe_id().to_string(),
        signer: facts.signer.clone(),
        signer_group: facts.signer_group.clone(),
        links: component.admitted.links().to_vec(),
        code_transfer: transfer,
        code_size: component.code.size,
        code_hash: component.code.hash.to_vec(),
    };
    let reply = up.client().load(request).await.map_err(|status| status.message().to_owned())?.into_inner();
    if reply.error.is_empty() { Ok(()) } else { Err(reply.error) }
}

/// Gives the runtime its routing table; from the first one on it accepts connections.
pub async fn set_routes(host: &Arc<Host>, up: &RuntimeUp) -> io::Result<()> {
    let running = host.running();
    let routes = host.routes().into_iter().filter_map(|route| {
        let takes = |component: &&std::sync::Arc<super::Component>| {
            component.admitted.facts().name == route.component && !component.draining.load(Ordering::Acquire)
        };
        let target = running.iter().find(takes)?;
        let instance = target.admitted.facts().instance.clone();
        Some(Route { host: route.host.unwrap_or_default(), path: route.path, instance })
    });
    up.client().set_routes(SetRoutesRequest { routes: routes.collect() }).await.map_err(io::Error::other)?;
    Ok(())
}

async fn within<T>(future: impl Future<Output = io::Result<T>>, child: &Child) -> io::Result<T> {
    tokio::select! {
        biased;
        how = child.ended() => Err(io::Error::other(format!("it ended at its start: {how}"))),
        done = tokio::time::timeout(CHILD_START, future) => done.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?,
    }
}

async fn up_within<F: Future<Output = bool>>(probe: impl Fn() -> F, child: &Child) -> bool {
    let asked = async {
        while !probe().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        biased;
        _ = child.ended() => false,
        up = tokio::time::timeout(CHILD_START, asked) => up.is_ok(),
    }
}

async fn ended_now(child: &Child) -> String {
    let ended = tokio::time::timeout(Duration::from_millis(100), child.ended()).await;
    ended.unwrap_or_else(|_| "it does not answer".to_owned())
}

static TRANSFER: AtomicU64 = AtomicU64::new(1);
/// Largest message between these processes: policies are the large ones, and batches of records.
const MESSAGE_BYTES: usize = 32 << 20;
