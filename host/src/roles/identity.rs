//! The identity process: keys live here and nowhere else.
//!
//! Two sockets, two sets of rights. The supervisor's: admit, stop, policy, MACs, the self-check. The runtime's: SVIDs,
//! signatures and checks for instances that the supervisor admitted, each decided here by policy, whatever the runtime
//! thinks. Every issuance and every denial is on disk in the audit log before the answer leaves.


mod admission;
mod authority;
mod keeper;
mod minting;
mod workloads;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use portcullis_identity::rpc::authority_server::AuthorityServer;
use portcullis_identity::rpc::workloads_server::WorkloadsServer;
use portcullis_identity::{Issuer, Lifetimes, TrustDomain};
use portcullis_policies::{FixContext, PolicySet};
use serde::{Deserialize, Serialize};

use self::authority::ForSupervisor;
use self::keeper::{Counts, Keeper};
use self::workloads::ForRuntime;
use crate::clock;
use crate::process::handover::Handover;
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

/// Largest message from the supervisor: policies are the large ones.
const MESSAGE_BYTES: usize = 32 << 20;
