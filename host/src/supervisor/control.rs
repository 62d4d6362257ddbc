//! The control plane: one service on an owner-only Unix socket, for the command line of the same user, and the methods that
//! operators may use over NATS and HTTPS ([`remote`]).
//!
//! The socket is 0600 in a 0700 folder, and each caller's uid is asked of the kernel besides: only the host's own uid and
//! root are served. What either way asks for is done in [`acts`], where policy is asked who may.

mod acts;
mod allowed;
pub mod notices;
mod over_https;
mod over_nats;
pub mod remote;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use portcullis_identity::rpc::{RotateRequest, TaintRequest};
use portcullis_policies::Operator;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status, Streaming};

use self::acts::Proof;
use super::Host;
use super::refused::Refused;
use crate::cli::error::exit;
use crate::rpc::control::control_server::{Control as Service, ControlServer};
use crate::rpc::control::{
    AuditModeReply, AuditModeRequest, Audited, BundleReply, BundleRequest, Component, ExplainReply, ExplainRequest,
    IdentityReply, IdentityRevokeRequest, IdentityRotateRequest, IdentityShowRequest, IdentityTaintRequest, ListReply,
    ListRequest, Listening, LogsReply, LogsRequest, Process, ReloadPolicyReply, ReloadPolicyRequest, ScanChunk,
    ScanReply, StartReply, StartRequest, StatusReply, StatusRequest, StopReply, StopRequest, audit_mode_reply,
    identity_reply, start_reply,
};

#[derive(Debug)]
struct Control {
    host: Arc<Host>,
}

/// Listens on the control socket of a host.
pub fn listen(host: &Arc<Host>) -> io::Result<()> {
    let path = host.config.control_socket();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
    let own = rustix::process::getuid().as_raw();
    let guarded = Arc::clone(host);
    let incoming = futures::stream::unfold(listener, move |listener| {
        let host = Arc::clone(&guarded);
        async move {
            let stream = accept(&host, &listener, own).await;
            Some((Ok::<_, io::Error>(stream), listener))
        }
    });
    let service = ControlServer::new(Control { host: Arc::clone(host) });
    let served = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
    tokio::spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "the control socket is not served any more");
        }
    });
    Ok(())
}

/// The next connection of a user who may control this host.
async fn accept(host: &Host, listener: &UnixListener, own: u32) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(peer) if host.is_child(peer.pid()) => {
                    tracing::error!(
                        pid = peer.pid(),
                        "a process of this host tried the control socket: it may be taken over"
                    );
                }
                Ok(peer) if peer.uid() == own || peer.uid() == 0 => return stream,
                Ok(peer) => tracing::warn!(uid = peer.uid(), "somebody else tried the control socket"),
                Err(error) => tracing::warn!(%error, "a caller of the control socket is not known to the kernel"),
            },
            Err(error) => {
                tracing::warn!(%error, "a connection to the control socket failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

#[tonic::async_trait]
impl Service for Control {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let who = who(&request)?;
        told(acts::status(&self.host, &who, request.into_inner()).await)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        told(acts::list(&self.host, &who(&request)?))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<LogsReply>, Status> {
        let who = who(&request)?;
        told(acts::logs(&self.host, &who, request.into_inner()).await)
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartReply>, Status> {
        let who = who(&request)?;
        match acts::start(&self.host, &who, request.into_inner(), &Proof::Local).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(refused) => {
                Ok(Response::new(StartReply { result: Some(start_reply::Result::Refused(refused.to_rpc())) }))
            }
        }
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopReply>, Status> {
        let who = who(&request)?;
        told(acts::stop(&self.host, &who, request.into_inner(), &Proof::Local).await)
    }

    async fn reload_policy(&self, _: Request<ReloadPolicyRequest>) -> Result<Response<ReloadPolicyReply>, Status> {
        let host = Arc::clone(&self.host);
        let reloaded = tokio::spawn(async move { host.reload().await }).await;
        let reply = match reloaded.map_err(|error| Status::internal(error.to_string()))? {
            Ok(generation) => ReloadPolicyReply { generation, errors: Vec::new() },
            Err(errors) => ReloadPolicyReply { generation: self.host.policy().generation(), errors },
        };
        Ok(Response::new(reply))
    }

    async fn audit_mode(&self, request: Request<AuditModeRequest>) -> Result<Response<AuditModeReply>, Status> {
        let (host, AuditModeRequest { component, seconds, off }) = (Arc::clone(&self.host), request.into_inner());
        let name = component.clone();
        // A task of its own: a caller that goes away leaves nothing half done.
        let done = tokio::spawn(async move {
            if !off {
                return host.begin_audit_mode(&name, seconds).await;
            }
            match host.end_audit_mode(&name, None).await {
                true => Ok(0),
                false => Err(Refused {
                    exit: exit::USAGE,
                    code: "policy.audit-not-on".to_owned(),
                    message: format!("`{}` is not in audit mode", name.escape_debug()),
                    hint: "`portcullis status` shows what is".to_owned(),
                    ..Refused::internal("")
                }),
            }
        });
        let result = match done.await.map_err(|error| Status::internal(error.to_string()))? {
            Ok(until) => audit_mode_reply::Result::Audited(Audited { component, until }),
            Err(refused) => audit_mode_reply::Result::Refused(refused.to_rpc()),
        };
        Ok(Response::new(AuditModeReply { result: Some(result) }))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainReply>, Status> {
        let reference = request.into_inner().reference;
        let path = self.host.state.audit_log();
        let found = tokio::task::spawn_blocking(move || crate::audit::find(&path, &reference)).await;
        let found = found.map_err(|error| Status::internal(error.to_string()))?;
        let Some(record) = found.map_err(|error| Status::unavailable(error.to_string()))? else {
            return Ok(Response::new(ExplainReply::default()));
        };
        let text = |name: &str| record.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let fix = record.get("fix").and_then(|value| value.as_array()).cloned().unwrap_or_default();
        Ok(Response::new(ExplainReply {
            found: true,
            text: text("text"),
            json: serde_json::to_string_pretty(&record).unwrap_or_default(),
            fix_argv: fix.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect(),
        }))
    }

    async fn bundle(&self, request: Request<BundleRequest>) -> Result<Response<BundleReply>, Status> {
        let bundle = self.host.identity.bundle(request.into_inner().federated).await;
        let json = bundle.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(BundleReply { json }))
    }

    async fn identity_show(&self, _: Request<IdentityShowRequest>) -> Result<Response<IdentityReply>, Status> {
        Ok(identity_reply(self.host.identity_show().await))
    }

    async fn identity_rotate(
        &self,
        request: Request<IdentityRotateRequest>,
    ) -> Result<Response<IdentityReply>, Status> {
        let IdentityRotateRequest { x509, jwt, wit, svids } = request.into_inner();
        let (host, request) = (Arc::clone(&self.host), RotateRequest { x509, jwt, wit, svids });
        // Tasks of their own: a caller that goes away leaves nothing half done.
        let done = tokio::spawn(async move { host.identity_rotate(request).await }).await;
        Ok(identity_reply(done.map_err(|error| Status::internal(error.to_string()))?))
    }

    async fn identity_taint(&self, request: Request<IdentityTaintRequest>) -> Result<Response<IdentityReply>, Status> {
        let (host, request) = (Arc::clone(&self.host), TaintRequest { authority: request.into_inner().authority });
        let done = tokio::spawn(async move { host.identity_taint(request).await }).await;
        Ok(identity_reply(done.map_err(|error| Status::internal(error.to_string()))?))
    }

    async fn identity_revoke(
        &self,
        request: Request<IdentityRevokeRequest>,
    ) -> Result<Response<IdentityReply>, Status> {
        let (host, IdentityRevokeRequest { target, lift }) = (Arc::clone(&self.host), request.into_inner());
        let done = tokio::spawn(async move { host.identity_revoke(&target, lift).await }).await;
        let done = done.map_err(|error| Status::internal(error.to_string()))?;
        Ok(identity_reply(done.and_then(|revoked| serde_json::to_string(&revoked).map_err(Refused::internal))))
    }

    async fn scan_for_keys(&self, request: Request<Streaming<ScanChunk>>) -> Result<Response<ScanReply>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let mut chunks = request.into_inner();
        let forward = async move {
            while let Some(ScanChunk { data, continues }) = chunks.message().await? {
                if sender.send(portcullis_identity::rpc::ScanChunk { data, continues }).await.is_err() {
                    break;
                }
            }
            Ok::<_, Status>(())
        };
        let (forwarded, scanned) = tokio::join!(forward, self.host.identity.scan(ReceiverStream::new(receiver)));
        forwarded?;
        let (hits, scanned) = scanned.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(ScanReply { hits, scanned }))
    }
}

/// How a host is, all of it.
async fn reply(host: &Arc<Host>, problems: Vec<String>) -> StatusReply {
    let runtime = host.runtime_status().await.unwrap_or_default();
    let (http, mtls) = host.addresses();
    let process = |role: &str, pid: Option<u32>, restarts| Process {
        role: role.to_owned(),
        pid: pid.unwrap_or_default(),
        restarts,
        up: pid.is_some(),
    };
    let identity_pid = host.identity_process.now().map(|up| up.child.pid);
    let runtime_pid = host.runtime_process.now().map(|up| up.child.pid);
    StatusReply {
        ready: problems.is_empty(),
        problems,
        policy_generation: host.policy().generation(),
        trust_version: host.trust.read().ok().and_then(|trust| trust.version()).unwrap_or_default(),
        processes: vec![
            process("supervisor", Some(std::process::id()), 0),
            process("identity", identity_pid, host.identity_process.restarts()),
            process("runtime", runtime_pid, host.runtime_process.restarts()),
        ],
        components: components(host),
        http_address: http.map(|address| address.to_string()).unwrap_or_default(),
        mtls_address: mtls.map(|address| address.to_string()).unwrap_or_default(),
        audit_path: host.state.audit_log().display().to_string(),
        pool_profile: runtime.pool_profile,
        requests: runtime.requests,
        guest_failures: runtime.guest_failures,
        events_lost: runtime.events_lost,
        nats: host.nats_standing().unwrap_or_default(),
        warnings: host.warnings(),
        audited: host
            .audited()
            .iter()
            .map(|(component, until)| Audited { component: component.to_owned(), until })
            .collect(),
        dangers: host.config.dangers.on().iter().map(|danger| (*danger).to_owned()).collect(),
        listening: host
            .endpoint_addresses()
            .into_iter()
            .map(|(name, address)| Listening { name: name.to_owned(), address: address.to_string() })
            .collect(),
    }
}

/// What runs, and what was refused at the start of the host or lately.
fn components(host: &Host) -> Vec<Component> {
    let mut components: Vec<Component> = host.running().iter().map(|component| shown(component)).collect();
    if let Ok(refused) = host.refused.lock() {
        components.extend(refused.iter().map(|(path, refused)| Component {
            name: path.display().to_string(),
            state: "refused".to_owned(),
            detail: refused.shown(),
            ..Component::default()
        }));
    }
    components.extend(host.notices.list());
    components.extend(host.cluster.iter().flat_map(|cluster| cluster.failures()));
    components
}

/// Who is at the other end of the local socket: the kernel knows.
fn who<T>(request: &Request<T>) -> Result<Operator, Status> {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    peer.map(|peer| Operator::Local(peer.uid())).ok_or_else(|| Status::internal("the kernel does not know the caller"))
}

/// A reply, or a refusal as an error of the call.
fn told<T>(done: Result<T, Refused>) -> Result<Response<T>, Status> {
    done.map(Response::new).map_err(|refused| match refused.exit {
        exit::USAGE => Status::invalid_argument(refused.message),
        exit::DENIED => Status::permission_denied(refused.message),
        _ => Status::internal(refused.message),
    })
}

/// Begins to serve operators over NATS and HTTPS, where that is configured.
pub fn serve_operators(host: &Arc<Host>, https: Option<std::net::TcpListener>) {
    let over_nats = host.config.nats.is_some() && host.config.membership.is_some();
    if !over_nats && https.is_none() {
        return;
    }
    if host.config.membership.is_none() {
        tokio::spawn(super::own::follow(Arc::clone(host)));
    }
    let remote = Arc::new(remote::Remote::new(Arc::clone(host)));
    if over_nats {
        tokio::spawn(over_nats::serve(Arc::clone(host), Arc::clone(&remote)));
    }
    if let Some(listener) = https {
        let host = Arc::clone(host);
        tokio::spawn(async move {
            if let Err(error) = over_https::serve(host, listener, remote).await {
                tracing::error!(%error, "the control plane is not served over HTTPS");
            }
        });
    }
}

fn identity_reply(done: Result<String, Refused>) -> Response<IdentityReply> {
    let result = match done {
        Ok(json) => identity_reply::Result::ReportJson(json),
        Err(refused) => identity_reply::Result::Refused(refused.to_rpc()),
    };
    Response::new(IdentityReply { result: Some(result) })
}

fn shown(component: &super::Component) -> Component {
    let facts = component.admitted.facts();
    Component {
        name: facts.name.clone(),
        version: component.admitted.version().to_owned(),
        digest: facts.digest.clone(),
        instance: facts.instance.clone(),
        spiffe_id: facts.spiffe_id.clone(),
        signer: facts.signer.clone(),
        signer_group: facts.signer_group.clone(),
        state: "running".to_owned(),
        detail: if component.code.cached { "native code from the cache" } else { "native code made now" }.to_owned(),
    }
}

/// Longest wait for readiness in one call.
const MOST_WAIT_MS: u64 = 120_000;
