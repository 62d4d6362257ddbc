//! The identity process: keys live here and nowhere else.
//!
//! Two sockets, two sets of rights. The supervisor's: admit, stop, policy, MACs, the self-check. The runtime's: SVIDs,
//! signatures and checks for instances that the supervisor admitted, each decided here by policy, whatever the runtime
//! thinks. Every issuance and every denial is on disk in the audit log before the answer leaves.

mod admission;
mod authority;
mod broker;
mod certificate_files;
mod counts;
mod dials;
pub mod endpoint;
mod federation;
mod for_host;
mod keeper;
mod minting;
mod nats;
mod own;
mod publishing;
mod rate;
mod revoking;
mod rotation;
mod showing;
mod signing;
mod source;
mod workload_api;
mod workloads;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_identity::rpc::authority_server::AuthorityServer;
use portcullis_identity::rpc::nats::nats_secrets_server::NatsSecretsServer;
use portcullis_identity::rpc::own::own_server::OwnServer;
use portcullis_identity::rpc::workloads_server::WorkloadsServer;
use portcullis_identity::{Issuer, JwtIssuer, TrustDomain};
use portcullis_policies::FixContext;
use serde::{Deserialize, Serialize};

use self::authority::ForSupervisor;
use self::for_host::ForHost;
use self::keeper::Keeper;
use self::nats::{ForNats, Whose};
pub use self::workload_api::Caller;
use self::workload_api::WorkloadApi;
use self::workloads::ForRuntime;
use crate::clock;
use crate::config::identity::Identity;
use crate::config::{Federation, Oidc};
use crate::process::handover::{Handover, Packet};
use crate::process::{Role, sandbox};
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
    /// How long authorities and SVIDs live, and where keys lie.
    pub identity: Identity,
    /// The `iss` of JWT-SVIDs, an `https` URL, where OIDC clients check them.
    pub jwt_issuer: Option<String>,
    /// Whether WIT-SVIDs are issued.
    pub wit_svid: bool,
    /// Where our bundle is served, and whose bundles are fetched.
    pub federation: Federation,
    /// Where the documents are served by which others check JWT-SVIDs.
    pub oidc: Option<Oidc>,
    /// Which brokers may ask for which components, where the Broker API is served.
    pub broker: Option<crate::config::Broker>,
    /// The host's name in its cluster.
    #[serde(default)]
    pub host_name: Option<portcullis_cluster::HostId>,
    /// Where the seed lies that signs the host's statements instead of its SVID, and the key that others pinned.
    #[serde(default)]
    pub statement_key: Option<(PathBuf, String)>,
    /// What connections to NATS show.
    pub nats: Option<crate::config::Nats>,
}

/// Runs the process until its supervisor is gone.
pub fn run(handover: Handover) -> io::Result<()> {
    let packet = handover.receive()?.ok_or_else(|| io::Error::other("no boot packet"))?;
    let (parent, boot) = super::parse_boot::<Boot>(&packet)?;
    let token = boot.identity.pkcs11.as_ref();
    let mut read: Vec<&Path> = Vec::new();
    let mut write = vec![boot.folder.as_path()];
    if let Some(token) = token {
        read.extend([token.module.as_path(), token.pin_file.as_path()]);
        read.extend(LIBRARIES.map(Path::new));
        read.extend(token.read.iter().map(PathBuf::as_path));
        write.extend(token.write.iter().map(PathBuf::as_path));
    }
    let public = federation::readable(&boot.federation, boot.oidc.as_ref());
    read.extend(public.iter().map(PathBuf::as_path));
    let secrets = boot.nats.iter().flat_map(crate::config::Nats::secret_folders).collect::<Vec<_>>();
    read.extend(secrets.iter().map(PathBuf::as_path));
    read.extend(boot.statement_key.iter().filter_map(|(path, _)| path.parent()));
    let fence = sandbox::Fence { role: Role::Identity, parent, read: &read, write: &write, inspectable: false };
    let report = sandbox::enter(&fence)?;
    crate::logging::start(Role::Identity.name());
    tracing::info!(landlock = report.landlock, refused_calls = report.seccomp, "fenced");
    let jwt_issuer = boot.jwt_issuer.as_deref().map(str::parse::<JwtIssuer>).transpose().map_err(io::Error::other)?;
    let issuer = boot
        .identity
        .options(jwt_issuer, boot.wit_svid)
        .and_then(|options| Issuer::open_with(&boot.folder, &boot.trust_domain, options, clock::now()))
        .map_err(|error| io::Error::other(format!("{error}; hint: {}", error.hint())))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("identity")
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(handover, packet.fds, issuer, boot));
    runtime.shutdown_background();
    served
}

async fn serve(handover: Handover, fds: Vec<OwnedFd>, issuer: Issuer, boot: Boot) -> io::Result<()> {
    let [supervisor, sink]: [OwnedFd; 2] =
        fds.try_into().map_err(|_| io::Error::other("an identity process has two descriptors"))?;
    let _signals = super::ignore_signals()?;
    let audit = AuditClient::new(crate::rpc::client(sink).await?).max_encoding_message_size(MESSAGE_BYTES);
    let fix = FixContext { program: "portcullis".to_owned(), config: Some(boot.config.clone()) };
    let mut keeper = Keeper::new(issuer, audit, fix).map_err(io::Error::other)?;
    if let Some(outside) = boot.identity.outside(&boot.trust_domain) {
        let source = source::start(&outside, &boot.trust_domain, &keeper.dials).map_err(io::Error::other)?;
        keeper.take_from(source, source::of_host(&outside, &boot.trust_domain, &keeper.dials));
    }
    keeper.host_name = boot.host_name.clone();
    let keeper = Arc::new(keeper);
    if keeper.issues_itself() {
        tokio::spawn(rotation::follow(Arc::clone(&keeper)));
    } else {
        // Nobody is trusted until the site says who is.
        keeper.publish().map_err(|_| io::Error::other("nothing can be published"))?;
        tokio::spawn(source::follow(Arc::clone(&keeper)));
    }
    let workload_api = WorkloadApi::start(Arc::clone(&keeper), boot.wit_svid);
    federation::start(&keeper, &keeper.dials, &boot.federation, &boot.folder)?;
    let (gone, supervisor_gone) = tokio::sync::oneshot::channel();
    let link = boot.nats.as_ref().map(|nats| &nats.host);
    let for_nats = NatsSecretsServer::new(ForNats::new(Arc::clone(&keeper), Whose::Host, link));
    let statement_key = boot.statement_key.clone();
    let mut handed = Handed { keeper: Arc::clone(&keeper), boot, runtime: None, workload_api };
    let handle = tokio::runtime::Handle::current();
    std::thread::Builder::new().name("handover".to_owned()).spawn(move || {
        let _entered = handle.enter();
        while let Ok(Some(packet)) = handover.receive() {
            handed.take(packet);
        }
        let _ = gone.send(());
    })?;
    let for_host =
        OwnServer::new(ForHost::new(Arc::clone(&keeper), statement_key)).max_decoding_message_size(MESSAGE_BYTES);
    let service = AuthorityServer::new(ForSupervisor(keeper)).max_decoding_message_size(MESSAGE_BYTES);
    let services = tonic::service::Routes::new(service).add_service(for_host).add_service(for_nats);
    tokio::select! {
        served = crate::rpc::serve(supervisor, services) => served,
        _ = supervisor_gone => Ok(()),
    }
}

/// What is served on the sockets that the supervisor hands down.
struct Handed {
    keeper: Arc<Keeper>,
    boot: Boot,
    runtime: Option<tokio::task::JoinHandle<io::Result<()>>>,
    workload_api: Arc<WorkloadApi>,
}

impl Handed {
    /// Serves a socket, by what it is for.
    fn take(&mut self, packet: Packet) {
        match packet.label.as_str() {
            "workloads" => self.serve_runtime(packet),
            "workload-entry" => self.workload_api.register(packet.payload),
            "workload-api" => self.workload_api.connected(packet),
            "workload-api-drain" => self.workload_api.stop(),
            "dial" => self.keeper.dials.arrived(packet),
            "broker" => broker::take(packet, &self.keeper, &self.boot),
            "endpoint" => endpoint::take(packet, &self.keeper, &self.boot),
            other => tracing::error!(label = other.escape_debug().to_string(), "an unknown packet was dropped"),
        }
    }

    /// There is one runtime. Whoever holds the socket of the one before gets no more answers.
    fn serve_runtime(&mut self, packet: Packet) {
        let Some(fd) = packet.fds.into_iter().next() else { return };
        let service = WorkloadsServer::new(ForRuntime(Arc::clone(&self.keeper)));
        let link = self.boot.nats.as_ref().and_then(|nats| nats.data.as_ref());
        let for_nats = NatsSecretsServer::new(ForNats::new(Arc::clone(&self.keeper), Whose::Runtime, link));
        let new = tokio::spawn(crate::rpc::serve(fd, tonic::service::Routes::new(service).add_service(for_nats)));
        if let Some(old) = self.runtime.replace(new) {
            old.abort();
        }
    }
}

/// Where a PKCS#11 library finds the libraries that it is linked with.
const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache"];
/// Threads that answer. A token that takes its time holds one of them.
const WORKERS: usize = 4;
/// Largest message from the supervisor: policies are the large ones.
const MESSAGE_BYTES: usize = 32 << 20;

#[cfg(test)]
mod audited;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;
