//! This host's part in its cluster: what it is to run comes from NATS, and nothing that comes from there is believed for that.
//!
//! Decides, by [`portcullis_cluster`]'s pure rules and without a leader: which components of the cluster run here. Trusts: operators
//! of this host's own policy for what is to run and what is revoked, hosts of its cluster for what they say of themselves. Refuses:
//! values without a statement for exactly their key, versions lower than one that was seen, also after a restart. What a manifest
//! starts goes the way of every start: verified, admitted, recorded.
//!
//! Cut off, a host keeps what runs and starts nothing new; a revocation that it heard of stays in force. Past `stale_seconds`
//! without a look at the revocations nothing new starts at all; what ran when the host ended is started again for
//! `offline_h` ([`offline`]).

pub mod belief;
pub mod bucket;
mod disk;
mod hearing;
mod kept;
mod offline;
pub mod policies;
mod reconcile;
mod revoking;
mod shelf;
pub(super) mod sources;
mod state;
mod telling;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use portcullis_cluster::{ClusterName, Failed, HostId};
use portcullis_signing::ComponentName;
use tokio::sync::{Notify, mpsc, watch};

use self::kept::Kept;
pub use self::kept::KeptError;
use self::shelf::Shelf;
use self::state::State;
use self::telling::Outgoing;
use super::Host;
use super::refused::Refused;
use crate::cli::error::exit;
use crate::config::cluster::Cluster as Section;
use crate::limits::{CLUSTER_EVENTS, CLUSTER_FIRST_LOOK};
use crate::nats::Nats;
use crate::rpc::control;
use crate::{clock, nats};

/// A host's part in its cluster.
#[derive(Debug)]
pub struct Cluster {
    name: ClusterName,
    me: HostId,
    /// Changes with each start, and rises.
    boot: String,
    config: Section,
    kept: Mutex<Result<Kept, KeptError>>,
    shelf: Mutex<Shelf>,
    /// When this start of the host began.
    began: Instant,
    state: Mutex<State>,
    /// One at a time takes up what is revoked.
    revoking: tokio::sync::Mutex<()>,
    /// One at a time stops what is revoked, so that nothing is stopped, recorded and told twice.
    stopping: tokio::sync::Mutex<()>,
    outgoing: mpsc::Sender<Outgoing>,
    waiting: Mutex<Option<mpsc::Receiver<Outgoing>>>,
    /// Something changed that others want to know.
    beat: Notify,
    /// Something changed that may move a component.
    place: Notify,
    /// The buckets are to be looked at.
    look: Notify,
    /// Counts looks at the revocations that went well.
    looks: watch::Sender<u64>,
    /// Whether the cluster's set of policies was looked for once.
    policies_read: watch::Sender<bool>,
    /// Whether it was decided about what is on disk.
    decided: watch::Sender<bool>,
}

impl Cluster {
    /// Reads what this host remembers of its cluster. `None` where it has no part in one.
    pub fn open(config: &crate::config::Config) -> std::io::Result<Option<Arc<Self>>> {
        let Some(section) = config.membership.clone() else { return Ok(None) };
        let (Ok(name), Some(me)) = (config.cluster.parse::<ClusterName>(), section.host_id()) else { return Ok(None) };
        let folder = config.state_dir.join("cluster");
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let kept = Kept::open(&folder, &name);
        let (shelf, problem) = Shelf::open(&folder, &name);
        if let Some(error) = problem {
            tracing::error!(%error, "what ran here by the cluster cannot be read: nothing of it is started where NATS is away");
        }
        Ok(Some(Arc::new(Self::new(name, me, section, kept, shelf))))
    }

    fn new(name: ClusterName, me: HostId, config: Section, kept: Result<Kept, KeptError>, shelf: Shelf) -> Self {
        let (outgoing, waiting) = mpsc::channel(CLUSTER_EVENTS);
        Self {
            name,
            me,
            boot: ulid::Ulid::generate().to_string(),
            config,
            kept: Mutex::new(kept),
            shelf: Mutex::new(shelf),
            began: Instant::now(),
            state: Mutex::default(),
            revoking: tokio::sync::Mutex::new(()),
            stopping: tokio::sync::Mutex::new(()),
            outgoing,
            waiting: Mutex::new(Some(waiting)),
            beat: Notify::new(),
            place: Notify::new(),
            look: Notify::new(),
            looks: watch::Sender::new(0),
            policies_read: watch::Sender::new(false),
            decided: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves what was there: each change is one assignment.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Result<Kept, KeptError>> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Why nothing may start here because of the cluster; `None`: it may.
    pub(super) fn stops_starts(&self) -> Option<Refused> {
        let hint = "see that NATS can be reached and that this host may read its buckets";
        self.stops(self.config.stale(), "cluster.stale", hint)
    }

    /// The same where the last look at the revocations may be so old.
    fn stops(&self, most: Duration, stale: &str, hint: &str) -> Option<Refused> {
        let refused = |code: &str, message: String, hint: &str| Refused {
            exit: exit::TRUST,
            code: code.to_owned(),
            message,
            hint: hint.to_owned(),
            ..Refused::internal("")
        };
        let now = clock::now();
        // A set may forbid what this host's own files allow: while the one there is is neither proven nor usable, nothing is decided.
        let (unproven, unusable) = {
            let state = self.state();
            (state.disk_problem.clone(), state.bad_set.as_ref().map(|bad| bad.why.clone()))
        };
        if let Some(why) = unproven {
            let hint = "see that NATS can be reached: the set that is believed there heals this; else sign a set with an nkey and push it, or mend the file";
            return Some(refused("cluster.unproven", why, hint));
        }
        match &*self.kept() {
            Err(error) => Some(refused("cluster.state", error.to_string(), "see the text")),
            Ok(kept) => {
                if let Some(why) = kept.doubt() {
                    let message = format!("the list of revocations on disk is not proven: {why}");
                    return Some(refused(
                        "cluster.unproven",
                        message,
                        "see that NATS can be reached: a list that is believed there heals this",
                    ));
                }
                if let Some(why) = unusable.filter(|_| kept.policy().is_none()) {
                    let hint = "mend this host's own policy files, or push a set that fits them";
                    return Some(refused("cluster.unusable", why, hint));
                }
                let age = kept.confirmed_at(now).map(|at| now.unix_timestamp().saturating_sub(at));
                let most = i64::try_from(most.as_secs()).unwrap_or(i64::MAX);
                let message = match age {
                    Some(age) if age <= most => return None,
                    Some(age) => format!("the cluster's revocations were last seen {age} s ago, {most} s are allowed"),
                    None => "the cluster's revocations were never seen".to_owned(),
                };
                Some(refused(stale, message, hint))
            }
        }
    }

    /// What an operator must know, one line each: the host is not ready while there is any.
    pub fn problems(&self) -> Vec<String> {
        let away = if self.was_let_in() { Vec::new() } else { self.not_let_in() };
        let state = self.state();
        let sets = state.bad_set.iter().map(|bad| &bad.why).chain(&state.disk_problem);
        away.into_iter().chain(sets.chain(&state.trust_problems).cloned()).collect()
    }

    /// What an operator should know, and what takes nothing away that runs.
    pub fn warnings(&self) -> Vec<String> {
        if self.was_let_in() { self.away() } else { Vec::new() }
    }

    /// Whether this start of the host has seen its cluster, or has what it needs from the one before. From then on a cluster that
    /// is away is no reason to send requests elsewhere: elsewhere it is away too.
    pub fn was_let_in(&self) -> bool {
        // One lock at a time: `kept` is never held while `state` is asked for, nor the other way round.
        let readable = self.kept().is_ok();
        let knows = self.knows();
        let state = self.state();
        readable && (knows || state.restored) && !state.unbelieved
    }

    /// Whether what ran here before was started by what is on disk, as far as it may be.
    pub fn was_restored(&self) -> bool {
        self.state().restored
    }

    /// Whether this start of the host has seen what its cluster revokes and what it wants: each is read on its own.
    fn knows(&self) -> bool {
        *self.looks.borrow() > 0 && self.state().wanted_read
    }

    /// Why this host is not let in. That the last start had a look says nothing about whether this one serves anything.
    fn not_let_in(&self) -> Vec<String> {
        let (away, knows) = (self.away(), self.knows());
        let readable = self.kept().is_ok();
        let state = self.state();
        if knows || state.restored || !readable {
            return away;
        }
        let why = match state.unbelieved {
            true => "the list of revocations that it found is not believed",
            false => "it has not seen since its start what its cluster wants and revokes",
        };
        std::iter::once(format!("cluster.unseen: {why}")).chain(away).collect()
    }

    /// That the revocations were not looked at for too long, and why.
    fn away(&self) -> Vec<String> {
        let stopped = self.stops_starts().map(|refused| format!("{}: {}", refused.code, refused.message));
        let knows = self.knows();
        let state = self.state();
        let read = state.read_problem.as_ref().filter(|_| stopped.is_some() || !knows);
        stopped.iter().chain(read).chain(&state.offline_problem).cloned().collect()
    }

    /// Seconds since the revocations were last looked at; `None`: never.
    pub fn revocations_age(&self) -> Option<u64> {
        let now = clock::now();
        let at = self.kept().as_ref().ok()?.confirmed_at(now)?;
        u64::try_from(now.unix_timestamp().saturating_sub(at)).ok()
    }

    /// The sources of the cluster's set of policies that is in force here.
    pub fn policy_sources(&self) -> Vec<portcullis_policies::Source> {
        match &*self.kept() {
            Ok(kept) if self.config.policies => kept.policy().map(policies::sources).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// Components of the cluster that did not start here, and those whose manifests are not believed, as `status` shows them.
    pub fn failures(&self) -> Vec<control::Component> {
        let state = self.state();
        let refused = |name: &ComponentName, detail: String| control::Component {
            name: name.to_string(),
            state: "refused".to_owned(),
            detail,
            ..control::Component::default()
        };
        let failed = state.failures.iter().map(|(name, failure)| {
            let Failed { code, message, version, .. } = &failure.told;
            refused(name, format!("{code}: {message} (version {version} of its manifest)"))
        });
        let doubted = state.doubted.iter().map(|(name, told)| {
            refused(name, format!("{}: its manifest is not believed: {}", told.code, told.message))
        });
        failed.chain(doubted).collect()
    }

    /// Counts looks at the revocations that went well.
    pub(super) fn looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }

    /// Waits for the first look at the revocations, and at the cluster's policies where they count here, for so long as a start may.
    pub async fn first_look(&self) {
        let (mut looks, mut read) = (self.looks.subscribe(), self.policies_read.subscribe());
        let looked = async {
            let _ = looks.wait_for(|looks| *looks > 0).await;
            let _ = read.wait_for(|read| *read || !self.config.policies).await;
        };
        let _ = tokio::time::timeout(CLUSTER_FIRST_LOOK, looked).await;
    }

    /// Waits until it was decided about what is on disk. Ends by itself: nothing that is waited for there is without an end.
    pub(super) async fn decided(&self) {
        let _ = self.decided.subscribe().wait_for(|decided| *decided).await;
    }
}

/// Stops whatever runs here and is revoked in the cluster.
pub async fn enforce(host: &Arc<Host>) {
    revoking::enforce(host).await;
}

/// Takes part from now on, until the host stops, where the host has a part in a cluster.
pub fn start(host: &Arc<Host>) {
    let Some(cluster) = host.cluster.clone() else { return };
    let host = Arc::clone(host);
    tokio::spawn(super::own::follow(Arc::clone(&host)));
    tokio::spawn(disk::decide(Arc::clone(&host), Arc::clone(&cluster)));
    tokio::spawn(async move {
        let mut link = host.nats.subscribe();
        let nats = link.wait_for(Option::is_some).await.ok().and_then(|nats| nats.clone());
        if let Some(nats) = nats {
            take_part(&host, &cluster, &nats);
        }
    });
}

fn take_part(host: &Arc<Host>, cluster: &Arc<Cluster>, nats: &Nats) {
    tokio::spawn(follow_connection(Arc::clone(host), Arc::clone(cluster), nats.clone()));
    tokio::spawn(hearing::hear(Arc::clone(host), Arc::clone(cluster), nats.clone()));
    tokio::spawn(hearing::keep_looking(Arc::clone(host), Arc::clone(cluster), nats.clone()));
    tokio::spawn(telling::beat(Arc::clone(host), Arc::clone(cluster), nats.clone()));
    tokio::spawn(telling::send(Arc::clone(host), Arc::clone(cluster), nats.clone()));
    tokio::spawn(reconcile::keep_reconciling(Arc::clone(host), Arc::clone(cluster)));
}

/// Says that this host leaves, so that others take over before its heartbeats are missed.
pub async fn leave(host: &Arc<Host>) {
    let Some(cluster) = &host.cluster else { return };
    cluster.state().disconnected();
    if let Some(nats) = host.nats() {
        telling::leave(host, cluster, &nats).await;
    }
}

async fn follow_connection(host: Arc<Host>, cluster: Arc<Cluster>, nats: Nats) {
    let mut connection = nats.state();
    let mut was = false;
    while !host.is_stopping() {
        let is = matches!(&*connection.borrow_and_update(), nats::State::Verified { .. });
        if is != was {
            was = is;
            match is {
                true => {
                    tracing::info!(cluster = %cluster.name, host = %cluster.me, "connected to the cluster");
                    cluster.state().connected(cluster.config.heartbeat(), Instant::now());
                    cluster.look.notify_one();
                    cluster.beat.notify_one();
                }
                false => {
                    tracing::warn!(cluster = %cluster.name, "cut off from the cluster: what runs goes on, nothing new is started");
                    cluster.state().disconnected();
                }
            }
        }
        // Looks again now and then, so that a host that stops is noticed.
        if let Ok(Err(_)) = tokio::time::timeout(Duration::from_secs(1), connection.changed()).await {
            return;
        }
    }
}
