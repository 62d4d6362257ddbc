//! The identity process: keys live here and nowhere else.
//!
//! Two sockets, two sets of rights. The supervisor's: admit, stop, policy, MACs, the self-check. The runtime's: SVIDs,
//! signatures and checks for instances that the supervisor admitted, each decided here by policy, whatever the runtime
//! thinks. Every issuance and every denial is on disk in the audit log before the answer leaves.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use portcullis_identity::rpc::authority_server::{Authority, AuthorityServer};
use portcullis_identity::rpc::workloads_server::{Workloads, WorkloadsServer};
use portcullis_identity::rpc::{
    AdmitReply, AdmitRequest, BundleUpdate, CacheMacReply, CacheMacRequest, Denied, Done, Failed, FetchX509SvidReply,
    FetchX509SvidRequest, GetBundleReply, GetBundleRequest, JwtSvid, MintJwtSvidReply, MintJwtSvidRequest,
    PushPolicyReply, PushPolicyRequest, ScanChunk, ScanForKeysReply, SignHandshakeReply, SignHandshakeRequest,
    StatusReply, StatusRequest, StopReply, StopRequest, ValidJwtSvid, ValidateJwtSvidReply, ValidateJwtSvidRequest,
    WatchBundleRequest, X509Svid, admit_reply, cache_mac_reply, fetch_x509_svid_reply, mint_jwt_svid_reply,
    push_policy_reply, sign_handshake_reply, validate_jwt_svid_reply,
};
use portcullis_identity::{Audience, InstanceId, IssueError, Issuer, KeyScan, Lifetimes, TrustDomain, Workload};
use portcullis_policies::{ComponentFacts, Denial, FixContext, IdentityAction, PolicySet, Slice};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::clock;
use crate::limits;
use crate::process::handover::Handover;
use crate::process::{Role, sandbox};
use crate::rpc::audit::AppendRequest;
use crate::rpc::audit::audit_client::AuditClient;

/// What an identity process is given at its start. Descriptors: the supervisor's socket, the audit sink.
#[derive(Debug, Serialize, Deserialize)]
pub struct Boot {
    /// Where the keys lie.
    pub folder: PathBuf,
    /// The trust domain that it issues for.
    pub trust_domain: TrustDomain,
    /// How fixes in refusals are written.
    pub config: PathBuf,
}

/// The state behind both services.
struct Keeper {
    issuer: Mutex<Issuer>,
    policy: Mutex<Arc<PolicySet>>,
    instances: Mutex<HashMap<String, Instance>>,
    audit: AuditClient<Channel>,
    fix: FixContext,
    counts: Counts,
}

struct Instance {
    facts: ComponentFacts,
    slice: Arc<Slice>,
    /// Serials and token ids whose issuance is on disk. An SVID that is not in here does not leave.
    recorded: HashSet<String>,
}

#[derive(Default)]
struct Counts {
    x509: AtomicU64,
    jwt: AtomicU64,
    handshakes: AtomicU64,
    denied: AtomicU64,
}

#[derive(Clone)]
struct ForRuntime(Arc<Keeper>);
#[derive(Clone)]
struct ForSupervisor(Arc<Keeper>);

/// Why a call ended without its result.
enum Stop {
    Denied(Denied),
    Failed(Failed),
}

/// Runs the process until its supervisor is gone.
pub fn run(handover: Handover) -> io::Result<()> {
    let packet = handover.receive()?.ok_or_else(|| io::Error::other("no boot packet"))?;
    let (parent, boot) = super::parse_boot::<Boot>(&packet)?;
    let write = [boot.folder.as_path()];
    let fence = sandbox::Fence { role: Role::Identity, parent, read: &[], write: &write, inspectable: false };
    let report = sandbox::enter(&fence)?;
    crate::logging::start(Role::Identity.name());
    tracing::info!(landlock = report.landlock, refused_calls = report.seccomp, "fenced");
    let issuer = Issuer::open(&boot.folder, &boot.trust_domain, Lifetimes::default(), clock::now())
        .map_err(|error| io::Error::other(format!("{error}; hint: {}", error.hint())))?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("identity").enable_all().build()?;
    let served = runtime.block_on(serve(handover, packet.fds, issuer, boot));
    runtime.shutdown_background();
    served
}

async fn serve(handover: Handover, fds: Vec<OwnedFd>, issuer: Issuer, boot: Boot) -> io::Result<()> {
    let [supervisor, sink]: [OwnedFd; 2] =
        fds.try_into().map_err(|_| io::Error::other("an identity process has two descriptors"))?;
    let _signals = super::ignore_signals()?;
    let keeper = Arc::new(Keeper {
        issuer: Mutex::new(issuer),
        policy: Mutex::new(Arc::new(PolicySet::deny_all(0))),
        instances: Mutex::new(HashMap::new()),
        audit: AuditClient::new(crate::rpc::client(sink).await?),
        fix: FixContext { program: "portcullis".to_owned(), config: Some(boot.config) },
        counts: Counts::default(),
    });
    let (gone, supervisor_gone) = tokio::sync::oneshot::channel();
    let (handle, for_runtime) = (tokio::runtime::Handle::current(), ForRuntime(Arc::clone(&keeper)));
    std::thread::Builder::new().name("handover".to_owned()).spawn(move || {
        let mut served: Option<tokio::task::JoinHandle<io::Result<()>>> = None;
        while let Ok(Some(packet)) = handover.receive() {
            if let ("workloads", Some(fd)) = (packet.label.as_str(), packet.fds.into_iter().next()) {
                let service = WorkloadsServer::new(for_runtime.clone());
                let new = handle.spawn(crate::rpc::serve(fd, tonic::service::Routes::new(service)));
                // There is one runtime. Whoever holds the socket of the one before gets no more answers.
                if let Some(old) = served.replace(new) {
                    old.abort();
                }
            }
        }
        let _ = gone.send(());
    })?;
    let service = AuthorityServer::new(ForSupervisor(keeper)).max_decoding_message_size(MESSAGE_BYTES);
    tokio::select! {
        served = crate::rpc::serve(supervisor, tonic::service::Routes::new(service)) => served,
        _ = supervisor_gone => Ok(()),
    }
}

impl Keeper {
    fn issuer(&self) -> Result<MutexGuard<'_, Issuer>, Stop> {
        self.issuer.lock().map_err(|_| failed("internal", "the issuer is poisoned"))
    }

    fn instance(&self, name: &str) -> Result<(InstanceId, ComponentFacts, Arc<Slice>), Stop> {
        let instances = self.instances.lock().map_err(|_| failed("internal", "poisoned"))?;
        let known = instances
            .get(name)
            .ok_or_else(|| failed("unknown-instance", "this instance has no identity on this host"))?;
        let id = name.parse().map_err(|_| failed("unknown-instance", "a malformed instance id"))?;
        Ok((id, known.facts.clone(), Arc::clone(&known.slice)))
    }

    /// Records a denial, then gives it the form of a reply. A denial that cannot be recorded is a denial all the same.
    async fn denied(&self, facts: &ComponentFacts, denial: Denial) -> Stop {
        self.counts.denied.fetch_add(1, Ordering::Relaxed);
        let reference = ulid::Ulid::generate().to_string();
        let denial = denial.with_reference(reference.clone());
        let fields = json!({
            "instance": facts.instance,
            "component": facts.name,
            "code": denial.code().to_string(),
            "denial": denial,
            "text": denial.render(&self.fix),
            "fix": denial.fix(&self.fix).unwrap_or_default(),
        });
        if let Err(error) = self.append("denial", &reference, &fields).await {
            tracing::error!(%error, "a denial could not be recorded");
        }
        let code = denial.code().to_string();
        let denial_json = serde_json::to_string(&denial).unwrap_or_default();
        Stop::Denied(Denied { code, reference, denial_json })
    }

    /// Sees to it that an issuance is on disk. Without that the SVID does not leave.
    async fn recorded(&self, instance: &str, id: &str, fields: serde_json::Value) -> Result<(), Stop> {
        let known = |instances: &HashMap<String, Instance>| {
            instances.get(instance).is_some_and(|held| held.recorded.contains(id))
        };
        if self.instances.lock().is_ok_and(|instances| known(&instances)) {
            return Ok(());
        }
        let reference = ulid::Ulid::generate().to_string();
        self.append("issuance", &reference, &fields)
            .await
            .map_err(|error| failed("unavailable", &format!("the issuance could not be recorded: {error}")))?;
        let mut instances = self.instances.lock().map_err(|_| failed("internal", "poisoned"))?;
        let held =
            instances.get_mut(instance).ok_or_else(|| failed("unknown-instance", "this instance was stopped"))?;
        if held.recorded.len() >= RECORDED {
            held.recorded.clear();
        }
        held.recorded.insert(id.to_owned());
        Ok(())
    }

    async fn append(&self, kind: &str, reference: &str, fields: &serde_json::Value) -> Result<(), String> {
        let mut request = Request::new(AppendRequest {
            kind: kind.to_owned(),
            reference: reference.to_owned(),
            fields_json: fields.to_string(),
        });
        request.set_timeout(limits::RPC_TIMEOUT);
        self.audit.clone().append(request).await.map(|_| ()).map_err(|status| status.message().to_owned())
    }

    async fn mint_jwt(&self, request: MintJwtSvidRequest) -> Result<JwtSvid, Stop> {
        let (id, facts, slice) = self.instance(&request.instance)?;
        let audiences: Result<Vec<Audience>, _> = request.audiences.iter().map(|audience| audience.parse()).collect();
        let audiences = audiences
            .map_err(|error: portcullis_identity::AudienceError| failed("invalid-argument", &error.to_string()))?;
        if audiences.is_empty() {
            return Err(failed("invalid-argument", &IssueError::Audiences.to_string()));
        }
        let most = self.issuer()?.lifetimes().jwt().as_secs();
        let mut ttl = request.ttl_seconds.unwrap_or(most).min(most);
        for audience in &audiences {
            match slice.svid_jwt(audience.as_str(), ttl) {
                Ok(grant) => ttl = ttl.min(grant.ttl_secs()),
                Err(denial) => return Err(self.denied(&facts, denial).await),
            }
        }
        let minted = self.issuer()?.jwt_svid(&id, &audiences, Duration::from_secs(ttl), clock::now());
        let svid = minted.map_err(issue_failed)?.svid;
        if !self.is_recorded(&request.instance, svid.jti()) {
            self.counts.jwt.fetch_add(1, Ordering::Relaxed);
        }
        let fields = json!({
            "svid": "jwt",
            "instance": facts.instance,
            "component": facts.name,
            "digest": facts.digest,
            "signer": facts.signer,
            "spiffe_id": svid.spiffe_id().to_string(),
            "audiences": request.audiences,
            "jti": svid.jti(),
            "expires_at": svid.expires_at().unix_timestamp(),
            "policy_generation": slice.generation(),
        });
        self.recorded(&request.instance, svid.jti(), fields).await?;
        Ok(JwtSvid {
            token: svid.token().to_owned(),
            spiffe_id: svid.spiffe_id().to_string(),
            expires_at: svid.expires_at().unix_timestamp(),
        })
    }

    async fn mint_x509(&self, request: FetchX509SvidRequest) -> Result<X509Svid, Stop> {
        let (id, facts, slice) = self.instance(&request.instance)?;
        let most = self.issuer()?.lifetimes().x509().as_secs();
        let ttl = match slice.svid_x509(most) {
            Ok(grant) => grant.ttl_secs().min(most),
            Err(denial) => return Err(self.denied(&facts, denial).await),
        };
        let minted = self.issuer()?.x509_svid(&id, Duration::from_secs(ttl), clock::now());
        let svid = minted.map_err(issue_failed)?.svid;
        if !self.is_recorded(&request.instance, &svid.serial) {
            self.counts.x509.fetch_add(1, Ordering::Relaxed);
        }
        let fields = json!({
            "svid": "x509",
            "instance": facts.instance,
            "component": facts.name,
            "digest": facts.digest,
            "signer": facts.signer,
            "spiffe_id": svid.spiffe_id.to_string(),
            "serial": svid.serial,
            "expires_at": svid.not_after.unix_timestamp(),
            "policy_generation": slice.generation(),
        });
        self.recorded(&request.instance, &svid.serial, fields).await?;
        Ok(X509Svid {
            spiffe_id: svid.spiffe_id.to_string(),
            chain: svid.chain,
            key_id: svid.key_id,
            not_after: svid.not_after.unix_timestamp(),
        })
    }

    fn is_recorded(&self, instance: &str, id: &str) -> bool {
        self.instances.lock().is_ok_and(|all| all.get(instance).is_some_and(|held| held.recorded.contains(id)))
    }

    async fn sign(&self, request: SignHandshakeRequest) -> Result<Vec<u8>, Stop> {
        let (id, facts, slice) = self.instance(&request.instance)?;
        if let Err(denial) = slice.svid_x509(1) {
            return Err(self.denied(&facts, denial).await);
        }
        let signed = self.issuer()?.sign_handshake(&id, &request.key_id, &request.message);
        let signature = signed.map_err(|error| failed("not-signed", &error.to_string()))?;
        self.counts.handshakes.fetch_add(1, Ordering::Relaxed);
        Ok(signature)
    }

    async fn validate(&self, request: ValidateJwtSvidRequest) -> Result<ValidJwtSvid, Stop> {
        let (_, facts, slice) = self.instance(&request.instance)?;
        if let Err(denial) = slice.identity(IdentityAction::Validate) {
            return Err(self.denied(&facts, denial).await);
        }
        let checked = self.issuer()?.validate_jwt(&request.token, &request.audience, clock::now());
        let claims = checked.map_err(|error| failed("invalid-token", &error.to_string()))?;
        Ok(ValidJwtSvid {
            spiffe_id: claims.spiffe_id().to_string(),
            audiences: claims.audiences().iter().map(|audience| audience.as_str().to_owned()).collect(),
            expires_at: claims.expires_at().unix_timestamp(),
            issued_at: claims.issued_at().map(|at| at.unix_timestamp()),
            jti: claims.jti().map(str::to_owned),
        })
    }

    fn admit(&self, request: AdmitRequest) -> Result<(), Stop> {
        let refuse = |error: String| failed("not-admitted", &error);
        let workload = Workload {
            instance: request
                .instance
                .parse()
                .map_err(|error: portcullis_identity::InstanceIdError| refuse(error.to_string()))?,
            spiffe_id: request
                .spiffe_id
                .parse()
                .map_err(|error: portcullis_identity::SpiffeIdError| refuse(error.to_string()))?,
            digest: request.digest.clone(),
            component: request.component.clone(),
        };
        self.issuer()?.admit(workload).map_err(|error| refuse(error.to_string()))?;
        let facts = ComponentFacts {
            name: request.component,
            digest: request.digest,
            spiffe_id: request.spiffe_id,
            signer: request.signer,
            signer_group: request.signer_group,
            instance: request.instance.clone(),
        };
        // Held until the instance is in the table, so that no new policy passes it by.
        let policy = self.policy.lock().map_err(|_| failed("internal", "poisoned"))?;
        let slice = policy.slice(&facts);
        let instance = Instance { facts, slice, recorded: HashSet::new() };
        self.instances.lock().map_err(|_| failed("internal", "poisoned"))?.insert(request.instance, instance);
        Ok(())
    }

    fn push_policy(&self, request: PushPolicyRequest) -> Result<u64, Stop> {
        let sources = request.sources.into_iter().map(|source| (source.name, source.kind, source.text));
        let set = crate::policy::compile(sources, request.generation).map_err(|why| failed("invalid-policy", &why))?;
        let set = Arc::new(set);
        let mut policy = self.policy.lock().map_err(|_| failed("internal", "poisoned"))?;
        if set.generation() <= policy.generation() {
            return Err(failed("stale-policy", "not a newer generation"));
        }
        let mut instances = self.instances.lock().map_err(|_| failed("internal", "poisoned"))?;
        for instance in instances.values_mut() {
            instance.slice = set.slice(&instance.facts);
        }
        *policy = set;
        Ok(request.generation)
    }
}

#[tonic::async_trait]
impl Workloads for ForRuntime {
    async fn mint_jwt_svid(&self, request: Request<MintJwtSvidRequest>) -> Result<Response<MintJwtSvidReply>, Status> {
        let result = match self.0.mint_jwt(request.into_inner()).await {
            Ok(svid) => mint_jwt_svid_reply::Result::Ok(svid),
            Err(Stop::Denied(denied)) => mint_jwt_svid_reply::Result::Denied(denied),
            Err(Stop::Failed(failed)) => mint_jwt_svid_reply::Result::Failed(failed),
        };
        Ok(Response::new(MintJwtSvidReply { result: Some(result) }))
    }

    async fn fetch_x509_svid(
        &self,
        request: Request<FetchX509SvidRequest>,
    ) -> Result<Response<FetchX509SvidReply>, Status> {
        let result = match self.0.mint_x509(request.into_inner()).await {
            Ok(svid) => fetch_x509_svid_reply::Result::Ok(svid),
            Err(Stop::Denied(denied)) => fetch_x509_svid_reply::Result::Denied(denied),
            Err(Stop::Failed(failed)) => fetch_x509_svid_reply::Result::Failed(failed),
        };
        Ok(Response::new(FetchX509SvidReply { result: Some(result) }))
    }

    async fn sign_handshake(
        &self,
        request: Request<SignHandshakeRequest>,
    ) -> Result<Response<SignHandshakeReply>, Status> {
        let result = match self.0.sign(request.into_inner()).await {
            Ok(signature) => sign_handshake_reply::Result::Signature(signature),
            Err(Stop::Denied(denied)) => sign_handshake_reply::Result::Denied(denied),
            Err(Stop::Failed(failed)) => sign_handshake_reply::Result::Failed(failed),
        };
        Ok(Response::new(SignHandshakeReply { result: Some(result) }))
    }

    async fn validate_jwt_svid(
        &self,
        request: Request<ValidateJwtSvidRequest>,
    ) -> Result<Response<ValidateJwtSvidReply>, Status> {
        let result = match self.0.validate(request.into_inner()).await {
            Ok(claims) => validate_jwt_svid_reply::Result::Ok(claims),
            Err(Stop::Denied(denied)) => validate_jwt_svid_reply::Result::Denied(denied),
            Err(Stop::Failed(failed)) => validate_jwt_svid_reply::Result::Failed(failed),
        };
        Ok(Response::new(ValidateJwtSvidReply { result: Some(result) }))
    }

    type WatchBundleStream = Pin<Box<dyn Stream<Item = Result<BundleUpdate, Status>> + Send>>;

    async fn watch_bundle(&self, _: Request<WatchBundleRequest>) -> Result<Response<Self::WatchBundleStream>, Status> {
        let keeper = Arc::clone(&self.0);
        let stream = futures::stream::unfold((keeper, None), |(keeper, seen)| async move {
            loop {
                let (sequence, bundle_json) = match keeper.issuer() {
                    Ok(issuer) => {
                        let bundle = issuer.bundle();
                        (bundle.sequence(), bundle.to_json())
                    }
                    Err(_) => return None,
                };
                if seen != Some(sequence) {
                    let update = BundleUpdate { bundle_json, sequence };
                    return Some((Ok(update), (keeper, Some(sequence))));
                }
                tokio::time::sleep(BUNDLE_POLL).await;
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

#[tonic::async_trait]
impl Authority for ForSupervisor {
    async fn admit(&self, request: Request<AdmitRequest>) -> Result<Response<AdmitReply>, Status> {
        let result = match self.0.admit(request.into_inner()) {
            Ok(()) => admit_reply::Result::Ok(Done {}),
            Err(Stop::Denied(denied)) => admit_reply::Result::Denied(denied),
            Err(Stop::Failed(failed)) => admit_reply::Result::Failed(failed),
        };
        Ok(Response::new(AdmitReply { result: Some(result) }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopReply>, Status> {
        let instance = request.into_inner().instance;
        if let Ok(mut instances) = self.0.instances.lock() {
            instances.remove(&instance);
        }
        let known = match (instance.parse::<InstanceId>(), self.0.issuer()) {
            (Ok(id), Ok(mut issuer)) => issuer.stop(&id),
            (Err(_), _) => false,
            (_, Err(_)) => return Err(Status::internal("the issuer is poisoned")),
        };
        Ok(Response::new(StopReply { known }))
    }

    async fn push_policy(&self, request: Request<PushPolicyRequest>) -> Result<Response<PushPolicyReply>, Status> {
        let result = match self.0.push_policy(request.into_inner()) {
            Ok(generation) => push_policy_reply::Result::Generation(generation),
            Err(Stop::Failed(failed)) => push_policy_reply::Result::Failed(failed),
            Err(Stop::Denied(_)) => return Err(Status::internal("not a thing that policy decides")),
        };
        Ok(Response::new(PushPolicyReply { result: Some(result) }))
    }

    async fn get_bundle(&self, _: Request<GetBundleRequest>) -> Result<Response<GetBundleReply>, Status> {
        let bundle = self.0.issuer().map_err(|_| Status::internal("the issuer is poisoned"))?.bundle();
        Ok(Response::new(GetBundleReply { json: bundle.to_json(), sequence: bundle.sequence() }))
    }

    async fn cache_mac(&self, request: Request<CacheMacRequest>) -> Result<Response<CacheMacReply>, Status> {
        let CacheMacRequest { purpose, data } = request.into_inner();
        let mac = self.0.issuer().map_err(|_| Status::internal("the issuer is poisoned"))?.mac(&purpose, &data);
        Ok(Response::new(CacheMacReply { result: Some(cache_mac_reply::Result::Mac(mac.to_vec())) }))
    }

    async fn scan_for_keys(
        &self,
        request: Request<Streaming<ScanChunk>>,
    ) -> Result<Response<ScanForKeysReply>, Status> {
        let scan = self.0.issuer().map_err(|_| Status::internal("the issuer is poisoned"))?.key_scan();
        let scan = Arc::new(scan);
        let mut chunks = request.into_inner();
        let (mut hits, mut scanned, mut tail) = (0_u64, 0_u64, Vec::new());
        while let Some(chunk) = chunks.message().await? {
            scanned = scanned.saturating_add(u64::try_from(chunk.data.len()).unwrap_or(u64::MAX));
            let mut bytes = if chunk.continues { std::mem::take(&mut tail) } else { Vec::new() };
            bytes.extend_from_slice(&chunk.data);
            let keep = bytes.len().saturating_sub(KeyScan::OVERLAP);
            tail = bytes.get(keep..).unwrap_or_default().to_vec();
            let scan = Arc::clone(&scan);
            let found = tokio::task::spawn_blocking(move || scan.count(&bytes)).await;
            let found = found.map_err(|error| Status::internal(error.to_string()))?;
            hits = hits.saturating_add(u64::try_from(found).unwrap_or(u64::MAX));
        }
        Ok(Response::new(ScanForKeysReply { hits, scanned }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let issuer = self.0.issuer().map_err(|_| Status::internal("the issuer is poisoned"))?;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let generation = self.0.policy.lock().map(|policy| policy.generation()).unwrap_or_default();
        Ok(Response::new(StatusReply {
            trust_domain: issuer.trust_domain().to_string(),
            generation,
            instances: u64::try_from(issuer.instances()).unwrap_or(u64::MAX),
            x509_minted: count(&self.0.counts.x509),
            jwt_minted: count(&self.0.counts.jwt),
            handshakes_signed: count(&self.0.counts.handshakes),
            denied: count(&self.0.counts.denied),
            bundle_sequence: issuer.bundle().sequence(),
            x509_authority_not_after: issuer.x509_authority_not_after().unix_timestamp(),
            jwt_authority_not_after: issuer.jwt_authority_not_after().unix_timestamp(),
        }))
    }
}

fn failed(kind: &str, message: &str) -> Stop {
    Stop::Failed(Failed { kind: kind.to_owned(), message: message.to_owned() })
}

fn issue_failed(error: IssueError) -> Stop {
    let kind = match &error {
        IssueError::UnknownInstance(_) => "unknown-instance",
        IssueError::Audiences | IssueError::Lifetime => "invalid-argument",
        IssueError::AuthorityExpired | IssueError::Minting(_) => "unavailable",
    };
    failed(kind, &format!("{error}; hint: {}", error.hint()))
}

/// Issuances remembered as recorded for one instance; beyond, the memory starts anew and an issuance may be recorded twice.
const RECORDED: usize = 4096;
/// How soon a change of the bundle is noticed.
const BUNDLE_POLL: Duration = Duration::from_millis(250);
/// Largest message from the supervisor: policies are the large ones.
const MESSAGE_BYTES: usize = 32 << 20;
