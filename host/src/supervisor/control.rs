//! The local control plane: one service on an owner-only Unix socket, for the command line of the same user.
//!
//! The socket is 0600 in a 0700 folder, and each caller's uid is asked of the kernel besides: only the host's own uid and
//! root are served.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Host, StartSpec};
use crate::config::{Route, check_route};
use crate::rpc::control::control_server::{Control as Service, ControlServer};
use crate::rpc::control::{
    BundleReply, BundleRequest, Component, ExplainReply, ExplainRequest, Process, ReloadPolicyReply,
    ReloadPolicyRequest, ScanChunk, ScanReply, StartReply, StartRequest, StatusReply, StatusRequest, StopReply,
    StopRequest, start_reply,
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
        let wait = Duration::from_millis(request.into_inner().wait_ready_ms.min(MOST_WAIT_MS));
        let until = tokio::time::Instant::now() + wait;
        let mut problems = self.host.problems().await;
        while !problems.is_empty() && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
            problems = self.host.problems().await;
        }
        Ok(Response::new(self.reply(problems).await))
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartReply>, Status> {
        let request = request.into_inner();
        let route = match request.route_path.is_empty() {
            true => None,
            false => {
                let host = Some(request.route_host).filter(|host| !host.is_empty());
                let route = Route { host, path: request.route_path, component: "-".to_owned() };
                check_route(&route).map_err(Status::invalid_argument)?;
                Some((route.host, route.path))
            }
        };
        let spec = StartSpec {
            path: PathBuf::from(request.component_path),
            evidence: request.evidence_paths.into_iter().map(PathBuf::from).collect(),
            route,
        };
        let host = Arc::clone(&self.host);
        // A task of its own: a caller that goes away leaves nothing half done.
        let started = tokio::spawn(async move { host.start_component(spec).await }).await;
        let result = match started.map_err(|error| Status::internal(error.to_string()))? {
            Ok(component) => start_reply::Result::Started(shown(&component)),
            Err(refused) => start_reply::Result::Refused(refused.to_rpc()),
        };
        Ok(Response::new(StartReply { result: Some(result) }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopReply>, Status> {
        let (host, target) = (Arc::clone(&self.host), request.into_inner().target);
        let stopped = tokio::spawn(async move { host.stop_component(&target).await }).await;
        Ok(Response::new(StopReply { stopped: stopped.map_err(|error| Status::internal(error.to_string()))? }))
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

    async fn bundle(&self, _: Request<BundleRequest>) -> Result<Response<BundleReply>, Status> {
        let json = self.host.identity.bundle().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(BundleReply { json }))
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

impl Control {
    async fn reply(&self, problems: Vec<String>) -> StatusReply {
        let host = &self.host;
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
        let mut components: Vec<Component> = host.running().iter().map(|component| shown(component)).collect();
        if let Ok(refused) = host.refused.lock() {
            components.extend(refused.iter().map(|(path, refused)| Component {
                name: path.display().to_string(),
                state: "refused".to_owned(),
                detail: format!("{}: {}", refused.code, refused.message),
                ..Component::default()
            }));
        }
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
            components,
            http_address: http.map(|address| address.to_string()).unwrap_or_default(),
            mtls_address: mtls.map(|address| address.to_string()).unwrap_or_default(),
            audit_path: host.state.audit_log().display().to_string(),
            pool_profile: runtime.pool_profile,
            requests: runtime.requests,
            guest_failures: runtime.guest_failures,
            events_lost: runtime.events_lost,
            dangers: host.config.dangers.on().iter().map(|danger| (*danger).to_owned()).collect(),
        }
    }
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
        state: "running".to_owned(),
        detail: if component.code.cached { "native code from the cache" } else { "native code made now" }.to_owned(),
    }
}

/// Longest wait for readiness in one call.
const MOST_WAIT_MS: u64 = 120_000;
