//! The cluster's set of policies: compiled beside this host's own files, through the same reload. A bad set keeps the old one, and
//! the host says so. Who controls this host is named in its own files alone.

use std::sync::Arc;

use portcullis_cluster::{EventKind, Place, PolicyDocument, PolicyKind, Verdict};
use portcullis_identity::SpiffeId;
use portcullis_identity::statement::Signer;
use portcullis_policies::{Source, SourceKind};
use serde_json::json;

use super::kept::TakeError;
use super::{Cluster, telling};
use crate::supervisor::Host;

/// Puts a set in force where this host takes sets of its cluster.
pub async fn take(
    host: &Arc<Host>,
    cluster: &Arc<Cluster>,
    set: PolicyDocument,
    by: &Signer,
    payload: &[u8],
) -> Result<Verdict, TakeError> {
    if !cluster.config.policies {
        return Ok(Verdict::Same);
    }
    if settled(cluster, &set, payload)? {
        return Ok(Verdict::Same);
    }
    // INVARIANT: judged, kept and put in force under one lock. An older set that came meanwhile takes no newer one's place, neither
    // in force nor on disk.
    let _one_at_a_time = host.starting.lock().await;
    if settled(cluster, &set, payload)? {
        return Ok(Verdict::Same);
    }
    let version = set.version();
    let read = match names_operators(&set) {
        Some(why) => Err(vec![why]),
        None => host.read_policy(sources(&set)),
    };
    let problem = match read {
        Ok(new) => {
            keep(cluster, set, by, |id| host.revokes_itself(id), payload)?;
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
            let text = format!(
                "version {version} of the cluster's policies cannot be used, the ones before stay in force: {why}"
            );
            tracing::error!("{text}");
            telling::tell(cluster, EventKind::PolicyChanged, None, json!({ "version": version, "refused": why }));
            Some((version, text))
        }
    };
    let new = problem.is_none();
    cluster.state().policy_problem = problem;
    Ok(if new { Verdict::New } else { Verdict::Same })
}

/// Whether there is nothing to do with a set: it is in force, or it was found bad. One that is lower is refused, and is no problem
/// of the set in force.
fn settled(cluster: &Cluster, set: &PolicyDocument, payload: &[u8]) -> Result<bool, TakeError> {
    let in_force = match &*cluster.kept() {
        Ok(kept) => kept.judge(&Place::Policy, set.version(), payload)? == Verdict::Same && kept.policy() == Some(set),
        Err(error) => return Err(TakeError::Disk(std::io::Error::other(error.clone()))),
    };
    let bad = || cluster.state().policy_problem.as_ref().is_some_and(|(bad, _)| *bad == set.version());
    Ok(in_force || bad())
}

/// Keeps a set that is about to be in force.
fn keep(
    cluster: &Cluster,
    set: PolicyDocument,
    by: &Signer,
    revoked_here: impl FnOnce(&SpiffeId) -> bool,
    payload: &[u8],
) -> Result<(), TakeError> {
    match &mut *cluster.kept() {
        Ok(kept) => {
            kept.still_trusts(by, revoked_here)?;
            kept.take_policy(set, payload)
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
        let section = toml::from_str("host = 'h1'\npolicies = true").unwrap();
        let (shelf, _) = Shelf::open(temp.path(), &"prod".parse().unwrap());
        let cluster = Cluster::new("prod".parse().unwrap(), "h1".parse().unwrap(), section, open(), shelf);
        let id: SpiffeId = "spiffe://example.org/a".parse().unwrap();
        let by = Signer::Svid(id.clone());
        let ((old, old_bytes), (new, new_bytes)) = (set(1), set(2));
        // Both are judged before either is taken; the newer one has the lock first.
        assert!(!settled(&cluster, &old, &old_bytes).unwrap());
        assert!(!settled(&cluster, &new, &new_bytes).unwrap());
        keep(&cluster, new.clone(), &by, |_| false, &new_bytes).unwrap();
        assert!(settled(&cluster, &new, &new_bytes).unwrap());
        let lower = |result| matches!(result, Err(TakeError::Seen(SeenError::Lower { found: 1, seen: 2 })));
        assert!(lower(settled(&cluster, &old, &old_bytes).map(|_| ())));
        assert!(lower(keep(&cluster, old, &by, |_| false, &old_bytes)));
        assert!(cluster.state().policy_problem.is_none());
        assert_eq!(open().unwrap().policy(), Some(&new), "also after a restart");
        // Whoever is revoked meanwhile has nothing put in force.
        let (next, next_bytes) = set(3);
        let revoked = keep(&cluster, next.clone(), &by, |revoked| *revoked == id, &next_bytes);
        assert!(matches!(revoked, Err(TakeError::Revoked(_))));
        assert_eq!(open().unwrap().policy(), Some(&new));
        // One that was found bad is not tried again with each look.
        cluster.state().policy_problem = Some((3, String::new()));
        assert!(settled(&cluster, &next, &next_bytes).unwrap());
    }
}
