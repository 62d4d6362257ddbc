//! A host that starts and cannot look at its cluster: it starts again what it ran, by the signed values on its disk.
//!
//! Decides whether that may be, and by what. Trusts the disk for no more than the names of what ran: each manifest, and the list of
//! revocations, is checked as if it came from its bucket now (signer, statement, its end, this host's policy), and must be the one
//! that the marks name. Refuses: past `offline_h` since the last look that counted; where a list that is not believed was found;
//! values without a mark, below it or other than it; and what the list on disk revokes, as every start does.

use std::sync::Arc;
use std::time::Instant;

use portcullis_cluster::{Manifest, Place, Verdict};
use portcullis_signing::ComponentName;

use super::belief::{Believed, Document};
use super::disk::{self, NotTaken};
use super::state::Wanted;
use super::{Cluster, hearing, reconcile};
use crate::limits::CLUSTER_FIRST_LOOK;
use crate::supervisor::Host;
use crate::supervisor::refused::Refused;

/// Starts what ran here, where that is due. Asked again and again until the cluster can be looked at.
pub async fn restore(host: &Arc<Host>, cluster: &Arc<Cluster>) {
    if !due(cluster) || host.own().spiffe_id().is_none() {
        return;
    }
    match may(host, cluster) {
        Ok(()) => {
            let mut state = cluster.state();
            state.offline_problem = None;
            if !state.restoring {
                state.restoring = true;
                tracing::warn!(cluster = %cluster.name, "the cluster cannot be looked at: what ran here is started by what is on disk");
            }
        }
        Err(not) => {
            let why = format!("{}: {}", not.code, not.why);
            let mut state = cluster.state();
            if state.offline_problem.as_ref() != Some(&why) {
                tracing::error!(cluster = %cluster.name, code = not.code, "nothing is started from disk: {}", not.why);
            }
            state.offline_problem = Some(why);
            return;
        }
    }
    let names: Vec<ComponentName> = cluster.shelf().pending().iter().cloned().collect();
    for name in names {
        if host.is_stopping() || !due(cluster) {
            return;
        }
        let at = Place::App(name.clone());
        match wanted(host, cluster, &at) {
            Ok(Some(wanted)) => start(host, cluster, &name, wanted).await,
            Ok(None) => cluster.shelf().decided(&name),
            Err(not) => hearing::refuse(host, cluster, &at.statement(), &not.code, &not.why),
        }
    }
    // INVARIANT: not before each of these was checked, and started where that may be: a host that is ready is sent requests.
    cluster.state().restored = true;
}

/// Whether the cluster had its time and could not be looked at.
fn due(cluster: &Cluster) -> bool {
    !cluster.knows() && !cluster.state().unbelieved && cluster.began.elapsed() >= CLUSTER_FIRST_LOOK
}

/// Whether anything may be started from the disk: what is known of the revocations is not too old, and is believed.
fn may(host: &Host, cluster: &Cluster) -> Result<(), NotTaken> {
    if let Some(refused) = cluster.stops_restored() {
        return Err(NotTaken { code: refused.code, why: refused.message });
    }
    let at = Place::Revoked;
    let (known, in_force) = match &*cluster.kept() {
        Ok(kept) => (kept.knows(&at), kept.revoked().cloned()),
        Err(error) => return Err(NotTaken { code: "cluster.state".to_owned(), why: error.to_string() }),
    };
    if !known {
        return Ok(());
    }
    match believed(host, cluster, &at)?.document {
        Document::Revoked(list) if in_force.as_ref() == Some(&list) => Ok(()),
        _ => {
            let why = "the list of revocations on disk is not the one that its statement is for".to_owned();
            Err(NotTaken { code: "cluster.disk".to_owned(), why })
        }
    }
}

/// A value of the disk, believed, and the one that the marks name.
fn believed(host: &Host, cluster: &Cluster, at: &Place) -> Result<Believed, NotTaken> {
    match disk::believed(host, cluster, at)? {
        (believed, Verdict::Same) => Ok(believed),
        (_, Verdict::New) => {
            let why = "it is newer than any version that was seen here".to_owned();
            Err(NotTaken { code: "cluster.disk".to_owned(), why })
        }
    }
}

/// The manifest by which a component is started again; `None`: it is not wanted here any more.
fn wanted(host: &Host, cluster: &Cluster, at: &Place) -> Result<Option<Wanted>, NotTaken> {
    let believed = believed(host, cluster, at)?;
    let Document::App(manifest) = believed.document else { return Ok(None) };
    let fits = manifest.wanted().hosts.fits(&cluster.me, &cluster.config.labels);
    Ok((manifest.wanted().replicas > 0 && fits).then_some(Wanted {
        manifest: *manifest,
        until: believed.until,
        by: believed.by,
    }))
}

async fn start(host: &Arc<Host>, cluster: &Arc<Cluster>, name: &ComponentName, wanted: Wanted) {
    let manifest: Manifest = wanted.manifest.clone();
    {
        let mut state = cluster.state();
        let runs = state.runs.contains_key(name);
        if runs || state.failed(name, manifest.version(), Instant::now()) || !state.want(wanted) {
            drop(state);
            if runs {
                cluster.shelf().decided(name);
            }
            return;
        }
    }
    reconcile::start(host, cluster, &manifest, true).await;
    if cluster.state().runs.contains_key(name) {
        cluster.shelf().decided(name);
    }
}

impl Cluster {
    /// Why nothing may be started from the disk; `None`: it may.
    pub(super) fn stops_restored(&self) -> Option<Refused> {
        let hint = "see that NATS can be reached, or raise cluster.offline_h";
        self.stops(self.config.offline(), "cluster.offline", hint)
    }
}

#[cfg(test)]
mod tests {
    use super::super::kept::Kept;
    use super::super::shelf::Shelf;
    use super::*;
    use crate::clock;

    #[test]
    fn what_was_looked_at_too_long_ago_starts_nothing_and_zero_hours_never_do() {
        let stopped = |hours: u64, ago: Option<i64>| {
            let temp = tempfile::tempdir().unwrap();
            let (name, section) =
                ("prod".parse().unwrap(), format!("host = 'h1'\nstale_seconds = 60\noffline_h = {hours}"));
            let mut kept = Kept::open(temp.path(), &name).unwrap();
            if let Some(ago) = ago {
                kept.confirm(clock::now() - time::Duration::seconds(ago));
            }
            let (shelf, _) = Shelf::open(temp.path(), &name);
            let section = toml::from_str(&section).unwrap();
            let cluster = Cluster::new(name, "h1".parse().unwrap(), section, Ok(kept), shelf);
            cluster.stops_restored().map(|refused| refused.code)
        };
        let offline = Some("cluster.offline".to_owned());
        assert_eq!(stopped(2, Some(7_100)), None, "long past stale_seconds");
        assert_eq!(stopped(2, Some(7_300)), offline);
        assert_eq!(stopped(0, Some(5)), offline);
        assert_eq!(stopped(24, None), offline, "a new host has seen nothing");
        assert_eq!(stopped(24, Some(-60)), offline, "the clock was another one");
    }
}
