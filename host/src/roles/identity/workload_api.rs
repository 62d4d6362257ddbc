//! The Workload API in the identity process: serves each connection that the supervisor hands over, with the rights of the
//! registered entries that its process fits.
//!
//! Trusts the supervisor about who is at the other end, anew before each answer. An entry's identity exists as long as the
//! process runs; it is an instance of the issuer that the runtime cannot name. What is issued is on disk before it leaves, and
//! so is who got it.

mod lease;
mod registered;
mod rights;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use portcullis_identity::workload_api::{self, Refusal, Refusing};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::lease::Lease;
use self::registered::Registered;
use self::rights::Rights;
use super::keeper::Keeper;
use super::rate::{Over, Unrecorded, Use};
use crate::config::workload_api::Entry;
use crate::limits::WORKLOAD_STRANGER;
use crate::process::handover::Packet;
use crate::rpc;
use crate::supervisor::workload_api::{Facts, Refusals};

/// Who is at the other end of a connection, as the supervisor attested it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Caller {
    /// What the kernel says of the process.
    pub facts: Facts,
    /// The names of the entries that it fits; none: it has no identity.
    pub entries: Vec<String>,
    /// Its user has too many connections.
    pub busy: bool,
}

/// The served entries.
pub(super) struct WorkloadApi {
    keeper: Arc<Keeper>,
    entries: Mutex<HashMap<String, Arc<Registered>>>,
    wit_svid: bool,
    changes: watch::Sender<u64>,
    stopping: watch::Sender<bool>,
    refusals: Mutex<Refusals>,
}

impl WorkloadApi {
    /// Nobody is registered yet.
    pub(super) fn start(keeper: Arc<Keeper>, wit_svid: bool) -> Arc<Self> {
        let api = Arc::new(Self {
            keeper,
            entries: Mutex::default(),
            wit_svid,
            changes: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
            refusals: Mutex::default(),
        });
        tokio::spawn(follow(Arc::clone(&api)));
        api
    }

    /// Gives an entry its identity. One that cannot have any is left out: its processes are refused.
    pub(super) fn register(&self, entry: serde_json::Value) {
        let registered = serde_json::from_value::<Entry>(entry).map_err(|error| error.to_string());
        let registered = registered.and_then(|entry| Registered::admit(&self.keeper, entry));
        match (registered, self.entries.lock()) {
            (Ok(registered), Ok(mut entries)) => {
                entries.insert(registered.entry.name.clone(), Arc::new(registered));
            }
            (Err(why), _) => tracing::error!(why, "an entry of the Workload API is left out"),
            (_, Err(_)) => tracing::error!("the entries of the Workload API are poisoned"),
        }
    }

    /// Serves a connection that the supervisor handed over.
    pub(super) fn connected(self: &Arc<Self>, packet: Packet) {
        let api = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(why) = api.serve(packet).await {
                tracing::error!(why, "a connection of the Workload API cannot be served");
            }
        });
    }

    /// Ends every stream, with a status that has clients come back.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    async fn serve(self: Arc<Self>, packet: Packet) -> Result<(), String> {
        let caller: Caller = serde_json::from_value(packet.payload).map_err(|error| error.to_string())?;
        let [connection, lease]: [OwnedFd; 2] =
            packet.fds.try_into().map_err(|_| "a connection comes with its lease".to_owned())?;
        let connection = rpc::stream(connection).map_err(|error| error.to_string())?;
        let (lease, ended) = Lease::take(lease).map_err(|error| error.to_string())?;
        let stopping = self.stopping.subscribe();
        let entries: Vec<_> = match self.entries.lock() {
            Ok(known) => caller.entries.iter().filter_map(|name| known.get(name)).cloned().collect(),
            Err(_) => return Err("the entries are poisoned".to_owned()),
        };
        if caller.busy || entries.is_empty() {
            let refusal = if caller.busy { Refusal::TooManyCalls } else { Refusal::NoIdentity };
            let over = async {
                tokio::select! {
                    () = ended => {}
                    () = tokio::time::sleep(WORKLOAD_STRANGER) => {}
                }
            };
            workload_api::serve(connection, Arc::new(Refusing::new(refusal)), stopping, over).await;
            return Ok(());
        }
        let rights = Rights::new(self, caller.facts, entries, lease);
        workload_api::serve(connection, Arc::new(rights), stopping, ended).await;
        Ok(())
    }

    /// Takes one from a user's allowance of calls. The first refusal is recorded at once, later ones in bulk.
    async fn take(&self, uid: u32, what: Use) -> Result<(), Refusal> {
        let whose = format!("workload-uid-{uid}");
        let taken = match self.keeper.rates.lock() {
            Ok(mut rates) => rates.take(&whose, what, Instant::now()),
            Err(_) => return Err(Refusal::Unavailable("an error of the server")),
        };
        let Err(Over { record, .. }) = taken else { return Ok(()) };
        self.keeper.counts.limited(what).up();
        if let Some(refused) = record {
            let record = self.keeper.limited(&Unrecorded { instance: whose.clone(), what, refused }, &whose);
            self.keeper.append_denials(vec![record]).await;
        }
        Err(Refusal::TooManyCalls)
    }
}

/// Wakes the streams whenever something is published.
async fn follow(api: Arc<WorkloadApi>) {
    let mut published = api.keeper.published();
    while published.changed().await.is_ok() {
        published.borrow_and_update();
        api.changes.send_modify(|version| *version = version.wrapping_add(1));
    }
}
