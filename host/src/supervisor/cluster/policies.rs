//! The cluster's set of policies: compiled beside this host's own files, through the same reload. A bad set keeps the old one, and
//! the host says so. Who controls this host is named in its own files alone. What is in force is on disk as it was signed.

use std::sync::Arc;

use portcullis_cluster::{EventKind, Place, PolicyDocument, PolicyKind, Verdict};
use portcullis_identity::SpiffeId;
use portcullis_identity::statement::Signer;
use portcullis_policies::{Source, SourceKind};
use serde_json::json;

use super::kept::TakeError;
use super::state::BadSet;
use super::{Cluster, telling};
use crate::supervisor::Host;

/// A set that is believed, and what it came in.
#[derive(Debug)]
pub struct Offered<'a> {
    /// The set.
    pub set: PolicyDocument,
    /// Who signed it.
    pub by: &'a Signer,
    /// Its bytes, as they were signed.
    pub payload: &'a [u8],
    /// The same with the statement: what is kept of it.
    pub envelope: &'a [u8],
}

/// What is to be done about a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is in force.
    InForce,
    /// It was found bad.
    Bad,
    /// It is to be put in force.
    New,
}

/// Puts a set in force where this host takes sets of its cluster.
pub async fn take(host: &Arc<Host>, cluster: &Arc<Cluster>, offered: Offered<'_>) -> Result<Verdict, TakeError> {
    if !cluster.config.policies {
        return Ok(Verdict::Same);
    }
    if settled(host, cluster, &offered)? {
        return Ok(Verdict::Same);
    }
    // INVARIANT: judged, kept and put in force under one lock. An older set that came meanwhile takes no newer one's place, neither
    // in force nor on disk.
    let _one_at_a_time = host.starting.lock().await;
    if settled(host, cluster, &offered)? {
        return Ok(Verdict::Same);
    }
    let version = offered.set.version();
    let read = match names_operators(&offered.set) {
        Some(why) => Err(vec![why]),
        None => host.read_policy(sources(&offered.set)),
    };
    let bad = match read {
        Ok(new) => {
            keep(cluster, offered, |id| host.revokes_itself(id))?;
            let generation = host.put_in_force(new).await;
            telling::tell(
                cluster,
                EventKind::PolicyChanged,
                None,
                json!({ "version": version, "generation": generation }),
            );
            None
        }
        Err(problems) => {
            let why = problems.join("; ");
            let before = matches!(&*cluster.kept(), Ok(kept) if kept.policy().is_some());
            let then = if before { "the ones before stay in force" } else { "nothing starts without them" };
            let text = format!("version {version} of the cluster's policies cannot be used, {then}: {why}");
            tracing::error!("{text}");
            telling::tell(cluster, EventKind::PolicyChanged, None, json!({ "version": version, "refused": why }));
            Some(BadSet { version, generation: host.policy().generation(), why: text })
        }
    };
    let new = bad.is_none();
    let mut state = cluster.state();
    state.bad_set = bad;
    if new {
        // What was wrong with the one on disk is no matter any more: this one is there.
        state.disk_problem = None;
    }
    Ok(if new { Verdict::New } else { Verdict::Same })
}

/// Whether there is nothing to do with a set. One in force that was signed anew is kept with its new statement, which may hold for longer.
fn settled(host: &Host, cluster: &Cluster, offered: &Offered<'_>) -> Result<bool, TakeError> {
    let standing = standing(cluster, &offered.set, offered.payload, host.policy().generation())?;
    if standing == Standing::InForce
        && let Err(error) = cluster.shelf().put(&Place::Policy, offered.set.version(), offered.envelope, true)
    {
        tracing::warn!(%error, "the cluster's policies cannot be kept for the next start");
    }
    Ok(standing != Standing::New)
}

/// How a set stands to what is in force. One that is lower is refused, and is no problem of the set in force; one that was found
/// bad is tried again when this host's own files are others.
fn standing(cluster: &Cluster, set: &PolicyDocument, payload: &[u8], generation: u64) -> Result<Standing, TakeError> {
    let in_force = match &*cluster.kept() {
        Ok(kept) => kept.judge(&Place::Policy, set.version(), payload)? == Verdict::Same && kept.policy() == Some(set),
        Err(error) => return Err(TakeError::Disk(std::io::Error::other(error.clone()))),
    };
    let tried = |bad: &BadSet| bad.version == set.version() && bad.generation == generation;
    Ok(match in_force {
        true => Standing::InForce,
        false if cluster.state().bad_set.as_ref().is_some_and(tried) => Standing::Bad,
        false => Standing::New,
    })
}

/// Keeps a set that is about to be in force, as it was signed.
fn keep(
    cluster: &Cluster,
    offered: Offered<'_>,
    revoked_here: impl FnOnce(&SpiffeId) -> bool,
) -> Result<(), TakeError> {
    let Offered { set, by, payload, envelope } = offered;
    match &mut *cluster.kept() {
        Ok(kept) => {
            kept.still_trusts(by, revoked_here)?;
            let version = set.version();
            kept.take_policy(set, payload, || cluster.shelf().put(&Place::Policy, version, envelope, true))
        }
        Err(error) => Err(TakeError::Disk(std::io::Error::other(error.clone()))),
    }
}

/// The sources that a set gives.
pub fn sources(set: &PolicyDocument) -> Vec<Source> {
    let source = |text: &portcullis_cluster::PolicyText| Source {
        name: format!("cluster/{}", text.name),
        text: text.text.clone(),
        kind: match text.kind {
            PolicyKind::Grants => SourceKind::Grants,
            PolicyKind::Cedar => SourceKind::Cedar,
        },
    };
    set.texts().iter().map(source).collect()
}

/// Operators are this host's own to name: whoever may push policies could else make himself any operator.
pub fn names_operators(set: &PolicyDocument) -> Option<String> {
    let named = |text: &&portcullis_cluster::PolicyText| match text.kind {
        PolicyKind::Grants => text.text.parse::<toml::Table>().map_or(true, |table| table.contains_key("operator")),
        PolicyKind::Cedar => portcullis_policies::permits_control(&text.text),
    };
    let text = set.texts().iter().find(named)?;
    let name = text.name.escape_debug();
    Some(format!("{name}: it cannot be read, or it says what operators may do, which each host's own files do"))
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::SeenError;

    use super::super::kept::Kept;
    use super::super::shelf::Shelf;
    use super::*;

    fn set(version: u64) -> (PolicyDocument, Vec<u8>) {
        let json = format!(r#"{{"format":1,"version":{version},"texts":[{{"name":"a","kind":"cedar","text":""}}]}}"#)
            .into_bytes();
        (PolicyDocument::parse(&json).unwrap(), json)
    }

    #[test]
    fn a_set_that_is_older_than_the_one_in_force_is_refused_and_is_no_problem() {
        let temp = tempfile::tempdir().unwrap();
        let open = || Kept::open(temp.path(), &"prod".parse().unwrap());
        let shelf = || Shelf::open(temp.path(), &"prod".parse().unwrap()).0;
        let section = toml::from_str("host = 'h1'\npolicies = true").unwrap();
        let cluster = Cluster::new("prod".parse().unwrap(), "h1".parse().unwrap(), section, open(), shelf());
        let id: SpiffeId = "spiffe://example.org/a".parse().unwrap();
        let by = Signer::Svid(id.clone());
        let ((old, old_bytes), (new, new_bytes)) = (set(1), set(2));
        let standing = |set: &PolicyDocument, bytes: &[u8]| standing(&cluster, set, bytes, 1);
        let keep = |set: &PolicyDocument, payload: &[u8], revoked: bool| {
            let offered = Offered { set: set.clone(), by: &by, payload, envelope: payload };
            keep(&cluster, offered, |by| revoked && *by == id)
        };
        // Both are judged before either is taken; the newer one has the lock first.
        assert_eq!(standing(&old, &old_bytes).unwrap(), Standing::New);
        assert_eq!(standing(&new, &new_bytes).unwrap(), Standing::New);
        keep(&new, &new_bytes, false).unwrap();
        assert_eq!(standing(&new, &new_bytes).unwrap(), Standing::InForce);
        let lower = |result| matches!(result, Err(TakeError::Seen(SeenError::Lower { found: 1, seen: 2 })));
        assert!(lower(standing(&old, &old_bytes).map(|_| ())));
        assert!(lower(keep(&old, &old_bytes, false)));
        assert!(cluster.state().bad_set.is_none());
        let kept = || shelf().get(&Place::Policy).unwrap();
        assert_eq!(kept().as_ref(), Some(&new_bytes), "as it came, for the next start");
        assert_eq!(open().unwrap().version(&Place::Policy), Some(2));
        // Whoever is revoked meanwhile has nothing put in force.
        let (next, next_bytes) = set(3);
        assert!(matches!(keep(&next, &next_bytes, true), Err(TakeError::Revoked(_))));
        assert_eq!((kept().as_ref(), open().unwrap().version(&Place::Policy)), (Some(&new_bytes), Some(2)));
        // One that was found bad is not tried again with each look, but with other files beside it.
        cluster.state().bad_set = Some(BadSet { version: 3, generation: 1, why: String::new() });
        assert_eq!(standing(&next, &next_bytes).unwrap(), Standing::Bad);
        assert_eq!(super::standing(&cluster, &next, &next_bytes, 2).unwrap(), Standing::New);
    }
}
