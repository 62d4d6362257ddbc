//! The cluster's set of policies: compiled beside this host's own files, through the same reload. A bad set keeps the old one, and
//! the host says so. Who controls this host is named in its own files alone.

use std::sync::Arc;

use portcullis_cluster::{EventKind, PolicyDocument, PolicyKind, Verdict};
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
    let (verdict, before) = match &*cluster.kept() {
        Ok(kept) => (kept.judge(&portcullis_cluster::Place::Policy, set.version(), payload)?, kept.policy().cloned()),
        Err(error) => return Err(TakeError::Disk(std::io::Error::other(error.clone()))),
    };
    if verdict == Verdict::Same && before.as_ref() == Some(&set) {
        return Ok(Verdict::Same);
    }
    let version = set.version();
    if cluster.state().policy_problem.as_ref().is_some_and(|(refused, _)| *refused == version) {
        return Ok(Verdict::Same);
    }
    let taken = match names_operators(&set) {
        Some(why) => Err(vec![why]),
        None => host.reload_policy_with(sources(&set)).await,
    };
    let problem = match taken {
        Ok(generation) => {
            if let Ok(kept) = &mut *cluster.kept() {
                kept.still_trusts(by, |id| host.revokes_itself(id))?;
                kept.take_policy(set, payload)?;
            }
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
