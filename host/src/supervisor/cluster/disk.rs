//! What this host kept of its cluster, at its start: believed as if it came from its bucket now, or not in force.
//!
//! Decides about the list of revocations and the set of policies before anything starts. Trusts the disk for nothing: each value is
//! checked with its statement (signer, cluster, place, end, this host's operators, revocations), and must not be below its mark.
//! Refuses whatever was changed, lost its statement, is another cluster's, is older, or is by somebody who may not sign it any more.
//! A list of revocations that is not proven takes rights away still; a set that is not proven grants nothing. Nothing starts by
//! either, since what they forbid is not known. Both heal when the cluster's own is read.

use std::sync::Arc;

use portcullis_cluster::{Place, Verdict};

use super::belief::{Believed, Document};
use super::policies::Offered;
use super::{Cluster, hearing, policies};
use crate::clock;
use crate::limits::CLUSTER_FIRST_LOOK;
use crate::supervisor::Host;

/// Why a value on disk is not taken.
#[derive(Debug)]
pub(super) struct NotTaken {
    /// Stable code.
    pub code: String,
    /// Why.
    pub why: String,
}

impl NotTaken {
    fn disk(why: impl ToString) -> Self {
        Self { code: "cluster.disk".to_owned(), why: why.to_string() }
    }
}

/// Decides at the start of the host. Whom it trusts comes from the identity process, which is waited for where a signer has an SVID.
pub(super) async fn decide(host: Arc<Host>, cluster: Arc<Cluster>) {
    if revocations(&host, &cluster).is_err() || set(&host, &cluster).is_err() {
        let mut own = host.own.subscribe();
        let _ = tokio::time::timeout(CLUSTER_FIRST_LOOK, own.wait_for(|own| own.is_known())).await;
    }
    look(&host, &cluster).await;
    cluster.decided.send_replace(true);
}

/// Looks again for as long as something is not in force: what an operator mends on the disk counts, too.
pub(super) async fn look_again(host: &Arc<Host>, cluster: &Arc<Cluster>) {
    let set = {
        let state = cluster.state();
        state.disk_problem.is_some() || state.bad_set.is_some()
    };
    let list = cluster.kept().as_ref().is_ok_and(|kept| kept.doubt().is_some());
    if (set || list) && *cluster.decided.borrow() {
        look(host, cluster).await;
    }
}

async fn look(host: &Arc<Host>, cluster: &Arc<Cluster>) {
    if let Err(not) = revocations(host, cluster) {
        hearing::refuse(host, cluster, &path(cluster, &Place::Revoked), &not.code, &not.why);
    }
    let not = match set(host, cluster) {
        Ok(None) => None,
        Ok(Some((believed, bytes))) => put_in_force(host, cluster, believed, &bytes).await.err(),
        Err(not) => Some(not),
    };
    let at = path(cluster, &Place::Policy);
    cluster.state().disk_problem = not.as_ref().map(|not| {
        format!(
            "cluster.policies: {at}: {}: {}; nothing starts until the cluster's set is proven again",
            not.code, not.why
        )
    });
    match not {
        Some(not) => hearing::refuse(host, cluster, &at, &not.code, &not.why),
        None => drop(cluster.state().refused.remove(&at)),
    }
}

/// Whether the list of revocations in force is the one that its statement is for.
fn revocations(host: &Host, cluster: &Cluster) -> Result<(), NotTaken> {
    let list = match &*cluster.kept() {
        Ok(kept) if kept.doubt().is_some() => kept.revoked().cloned(),
        // What cannot be read lets nothing start anyway.
        Ok(_) | Err(_) => None,
    };
    let Some(list) = list else { return Ok(()) };
    let looked = match believed(host, cluster, &Place::Revoked) {
        Ok((Believed { document: Document::Revoked(found), .. }, Verdict::Same)) if found == list => Ok(()),
        Ok(_) => Err(NotTaken::disk("the list of revocations on disk is not the one that its statement is for")),
        Err(not) => Err(not),
    };
    if let Ok(kept) = &mut *cluster.kept() {
        kept.looked_at(&list, looked.as_ref().err().map(|not| format!("{}: {}", not.code, not.why)));
    }
    looked
}

/// The set of policies that is to be in force by what is on disk, with the value that it came in; `None`: there is none to put in
/// force, or one is.
fn set(host: &Host, cluster: &Cluster) -> Result<Option<(Believed, Vec<u8>)>, NotTaken> {
    let (seen, unsigned) = match &*cluster.kept() {
        Ok(kept) if cluster.config.policies && kept.policy().is_none() => {
            (kept.version(&Place::Policy), kept.unsigned_policy())
        }
        Ok(_) | Err(_) => return Ok(None),
    };
    let bytes = cluster.shelf().get(&Place::Policy).map_err(NotTaken::disk)?;
    match (bytes, unsigned, seen) {
        (Some(bytes), _, _) => {
            believed_of(host, cluster, &Place::Policy, &bytes).map(|(believed, _)| Some((believed, bytes)))
        }
        (None, Some(path), _) => Err(NotTaken {
            code: "statement.missing".to_owned(),
            why: format!("an earlier release kept it without its statement ({}), which proves nothing", path.display()),
        }),
        (None, None, Some(version)) => Err(NotTaken::disk(format!("it is gone, version {version} was in force"))),
        (None, None, None) => Ok(None),
    }
}

async fn put_in_force(
    host: &Arc<Host>,
    cluster: &Arc<Cluster>,
    believed: Believed,
    envelope: &[u8],
) -> Result<(), NotTaken> {
    let Believed { document: Document::Policy(set), payload, by, .. } = believed else {
        return Err(NotTaken::disk("it is no set of policies"));
    };
    let version = set.version();
    let offered = Offered { set, by: &by, payload: &payload, envelope };
    match policies::take(host, cluster, offered).await {
        Ok(verdict) => {
            if verdict == Verdict::New {
                tracing::info!(version, %by, "the cluster's policies are in force as they are on disk");
            }
            Ok(())
        }
        Err(error) => Err(NotTaken { code: error.code().to_owned(), why: error.to_string() }),
    }
}

/// A value of the disk, believed, and what it is compared with what was seen.
pub(super) fn believed(host: &Host, cluster: &Cluster, at: &Place) -> Result<(Believed, Verdict), NotTaken> {
    let bytes = cluster.shelf().get(at).map_err(NotTaken::disk)?;
    let bytes = bytes.ok_or_else(|| NotTaken::disk(format!("{} is not on disk", at.statement())))?;
    believed_of(host, cluster, at, &bytes)
}

/// The same of bytes that were read.
fn believed_of(host: &Host, cluster: &Cluster, at: &Place, bytes: &[u8]) -> Result<(Believed, Verdict), NotTaken> {
    let believed = host
        .believe(cluster, at, bytes, clock::now())
        .map_err(|why| NotTaken { code: why.code().to_owned(), why: format!("as it is on disk: {why}") })?;
    let kept = cluster.kept();
    let kept = kept.as_ref().map_err(NotTaken::disk)?;
    match kept.judge(at, believed.document.version(), &believed.payload) {
        Ok(verdict) => Ok((believed, verdict)),
        Err(error) => Err(NotTaken { code: error.code().to_owned(), why: format!("as it is on disk: {error}") }),
    }
}

/// The file, as it is shown.
fn path(cluster: &Cluster, at: &Place) -> String {
    cluster.shelf().path(at).display().to_string()
}
