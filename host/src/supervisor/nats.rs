//! The host's own connection to NATS: begun with the host, ended with it, and no readiness before it counted once.
//!
//! Decides what a lost connection means: a host that was let in before goes on serving, and says so as a warning. A server that is
//! away is away for all hosts alike, and taking all of them out of service would lose what they serve still.
//!
//! The supervisor reads the authorities of the servers, which are public, and again when they change. What is secret stays with
//! the identity process.

mod denials;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use portcullis_identity::SpiffeId;
use tokio::sync::watch;

use self::denials::Denials;
use super::Host;
use crate::config::cluster::Cluster;
use crate::config::{Config, Nats as NatsConfig};
use crate::limits::{NATS_FILE_BYTES, NATS_POLL};
use crate::nats::{Cause, FromIdentity, Nats, Settings, State};

/// The connection, once it is set up.
#[derive(Debug)]
pub struct Link {
    nats: watch::Sender<Option<Nats>>,
    problem: Mutex<Option<String>>,
    denials: Denials,
}

impl Default for Link {
    fn default() -> Self {
        Self { nats: watch::Sender::new(None), problem: Mutex::default(), denials: Denials::default() }
    }
}

impl Link {
    /// The connection, once it is set up: whether it counts is another matter.
    pub fn now(&self) -> Option<Nats> {
        self.nats.borrow().clone()
    }

    /// Follows that.
    pub fn subscribe(&self) -> watch::Receiver<Option<Nats>> {
        self.nats.subscribe()
    }

    fn set_problem(&self, why: Option<String>) {
        if let Ok(mut problem) = self.problem.lock() {
            *problem = why;
        }
    }
}

impl Host {
    /// The connection to NATS, once it is set up: whether it counts is another matter.
    pub fn nats(&self) -> Option<Nats> {
        self.nats.now()
    }

    /// As whom the host is connected, and where; `None`: it is not.
    pub fn nats_standing(&self) -> Option<String> {
        match &*self.nats.now()?.state().borrow() {
            State::Verified { standing, .. } => {
                Some(format!("{} in {} at {} ({})", standing.user, standing.account, standing.server, standing.version))
            }
            State::Down { .. } => None,
        }
    }

    /// That the connection is gone, where that is no reason to send requests elsewhere.
    pub fn nats_warnings(&self) -> Vec<String> {
        let down = self.nats.now().and_then(|nats| match &*nats.state().borrow() {
            State::Down { cause } => Some(cause.clone()),
            State::Verified { .. } => None,
        });
        let cause = down.filter(|cause| self.is_outage(cause));
        cause.map(|cause| format!("nats: {cause}; hint: {}", cause.hint())).into_iter().collect()
    }

    /// Whether the connection is missing for a reason that lies elsewhere, and this host had one, now or at the start before. What it
    /// has itself to show and cannot is its own fault: others may have it.
    fn is_outage(&self, cause: &Cause) -> bool {
        let had = self.nats.now().is_some_and(|nats| nats.counts().verified > 0)
            || self.cluster.as_ref().is_some_and(|cluster| cluster.was_let_in());
        had && !matches!(cause, Cause::Credential(_))
    }

    /// Why the host is not ready because of NATS.
    pub fn nats_problems(&self) -> Vec<String> {
        if self.config.nats.is_none() {
            return Vec::new();
        }
        let problem = self.nats.problem.lock().ok().and_then(|problem| problem.clone());
        let Some(nats) = self.nats.now() else {
            return vec![format!("nats: {}", problem.unwrap_or_else(|| "it is being set up".to_owned()))];
        };
        let state = match &*nats.state().borrow() {
            // What was shown before goes on; what is wrong with the new one would else be noticed when it ends.
            State::Verified { .. } => {
                nats.problem().map(|why| format!("nats: a secret that was replaced cannot be used: {why}"))
            }
            // The text of whoever reads secrets has a hint of its own.
            State::Down { cause: cause @ Cause::Credential(_) } => Some(format!("nats: {cause}")),
            State::Down { cause } if self.is_outage(cause) => None,
            State::Down { cause } => Some(format!("nats: {cause}; hint: {}", cause.hint())),
        };
        let denied = self.nats.denials.lines(&self.config.cluster, Instant::now());
        state.into_iter().chain(problem.map(|why| format!("nats: {why}"))).chain(denied).collect()
    }

    /// The SPIFFE ID that this host has as its own.
    pub fn own_id(&self) -> Option<SpiffeId> {
        own_id(&self.config, "host")
    }

    /// The one of the runtime's connection to NATS.
    pub fn data_id(&self) -> Option<SpiffeId> {
        own_id(&self.config, "data")
    }
}

/// Sets the connection up, and keeps its authorities current, until the host stops.
pub async fn keep(host: Arc<Host>) {
    let Some(config) = host.config.nats.clone() else { return };
    let mut stamp = None;
    while !host.is_stopping() {
        match look(&host, &config, &mut stamp).await {
            Ok(()) => host.nats.set_problem(None),
            Err(why) => {
                if host.nats.problem.lock().is_ok_and(|old| old.as_deref() != Some(&why)) {
                    tracing::error!(why, "the connection to NATS cannot be set up as configured");
                }
                host.nats.set_problem(Some(why));
            }
        }
        tokio::time::sleep(NATS_POLL).await;
    }
}

/// Ends it.
pub async fn stop(host: &Host) {
    if let Some(nats) = host.nats.now() {
        nats.close().await;
    }
}

/// The host's name in its cluster.
fn name(config: &Config) -> Option<String> {
    config.membership.as_ref().and_then(Cluster::host_id).map(|name| name.to_string())
}

fn own_id(config: &Config, part: &str) -> Option<SpiffeId> {
    let name = name(config).map(|name| format!("/{name}")).unwrap_or_default();
    format!("spiffe://{}/portcullis/{part}{name}", config.trust_domain).parse().ok()
}

async fn look(host: &Arc<Host>, config: &NatsConfig, stamp: &mut Option<Stamp>) -> Result<(), String> {
    let new = config.tls.ca.as_deref().map(stamp_of).transpose()?;
    let nats = host.nats.now();
    if nats.is_some() && new == *stamp {
        return Ok(());
    }
    let ca = config.tls.ca.as_deref().map(read).transpose()?;
    match (nats, &ca) {
        (Some(nats), Some(pem)) => {
            nats.replace_roots(pem.as_bytes()).map_err(|error| error.to_string())?;
            tracing::info!("the authorities of NATS servers were read again");
        }
        (Some(_), None) => {}
        (None, _) => {
            let own = host.own_id().ok_or("the host has no SPIFFE ID")?;
            let name = name(&host.config).unwrap_or_else(|| "portcullis".to_owned());
            let settings = Settings::of(config, &config.host, &own, &name, ca);
            let weak = Arc::downgrade(host);
            let channel = Arc::new(move || weak.upgrade().and_then(|host| host.identity.channel()));
            let credentials = FromIdentity::new(channel);
            let nats = Nats::start(settings, credentials).await.map_err(|error| error.to_string())?;
            tokio::spawn(denials::follow(Arc::downgrade(host), nats.denied()));
            host.nats.nats.send_replace(Some(nats));
        }
    }
    *stamp = new;
    Ok(())
}

/// Tells one content of a file from another without reading it.
type Stamp = (u64, u64, i64, i64);

fn stamp_of(path: &Path) -> Result<Stamp, String> {
    let meta = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

/// A file of authorities.
pub fn read(path: &Path) -> Result<String, String> {
    let most = u64::try_from(NATS_FILE_BYTES).unwrap_or(u64::MAX);
    let size = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?.len();
    if size > most {
        return Err(format!("{}: it is larger than {most} bytes", path.display()));
    }
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
