//! Takes up the cluster's revocation list: in force at once, on every way that the host knows; kept on disk besides.

use std::sync::Arc;

use portcullis_cluster::{EventKind, RevocationList, Verdict};
use serde_json::json;

use super::kept::TakeError;
use super::{Cluster, telling};
use crate::cli::error::exit;
use crate::supervisor::admission::Admitted;
use crate::supervisor::refused::Refused;
use crate::supervisor::{Component, Host, trust_watch};

/// Puts a list in force.
pub async fn take(
    host: &Arc<Host>,
    cluster: &Arc<Cluster>,
    list: RevocationList,
    payload: &[u8],
) -> Result<Verdict, TakeError> {
    let _one_at_a_time = cluster.revoking.lock().await;
    let taken = match &mut *cluster.kept() {
        Ok(kept) => kept.take_revoked(list, payload),
        Err(error) => return Err(TakeError::Disk(std::io::Error::other(error.clone()))),
    };
    // INVARIANT: what takes rights away does not wait for the disk, nor for the identity process.
    if matches!(taken, Ok(Verdict::New) | Err(TakeError::Disk(_))) {
        enforce(host).await;
        host.send_revocations().await;
    }
    taken
}

/// Stops whatever runs here and is revoked in the cluster.
pub async fn enforce(host: &Arc<Host>) {
    let Some(cluster) = &host.cluster else { return };
    let _one_at_a_time = cluster.stopping.lock().await;
    let doomed: Vec<(Arc<Component>, String)> = match &*cluster.kept() {
        Ok(kept) => {
            let Some(list) = kept.revoked() else { return };
            let running = host.running().into_iter();
            running
                .filter_map(|component| Some((Arc::clone(&component), against(list, &component.admitted)?)))
                .collect()
        }
        Err(_) => return,
    };
    let ends = doomed.iter().map(|(component, why)| async move {
        tracing::warn!(
            component = component.admitted.facts().name,
            "a running component is revoked and is stopped: {why}"
        );
        trust_watch::end_now(host, component, "cluster.revoked", why).await;
        let facts = component.admitted.facts();
        let data =
            json!({ "instance": facts.instance, "digest": facts.digest, "spiffe_id": facts.spiffe_id, "text": why });
        telling::tell(cluster, EventKind::Revoked, Some(&facts.name), data);
    });
    futures::future::join_all(ends).await;
    if !doomed.is_empty() {
        cluster.beat.notify_one();
        cluster.place.notify_one();
    }
}

impl Host {
    /// Refuses a start that the cluster does not let happen.
    pub(in crate::supervisor) fn check_cluster(&self, admitted: &Admitted) -> Result<(), Refused> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        if let Some(refused) = cluster.stops_starts() {
            return Err(refused);
        }
        let kept = cluster.kept();
        let list = kept.as_ref().ok().and_then(|kept| kept.revoked());
        match list.and_then(|list| against(list, admitted)) {
            None => Ok(()),
            Some(message) => Err(Refused {
                exit: exit::REVOKED,
                code: "cluster.revoked".to_owned(),
                message,
                hint: "`portcullis cluster revoke --lift` gives it back".to_owned(),
                ..Refused::internal("")
            }),
        }
    }

    /// Instances and SPIFFE IDs that the identity process is to refuse because of the cluster.
    pub(in crate::supervisor) fn cluster_revoked(&self) -> (Vec<String>, Vec<String>) {
        let Some(cluster) = &self.cluster else { return Default::default() };
        let kept = cluster.kept();
        let Some(list) = kept.as_ref().ok().and_then(|kept| kept.revoked()) else { return Default::default() };
        (list.instances().iter().cloned().collect(), list.spiffe_ids().iter().map(ToString::to_string).collect())
    }
}

fn against(list: &RevocationList, admitted: &Admitted) -> Option<String> {
    let signers: Vec<String> = admitted.verified().signers().map(|signer| signer.id().to_string()).collect();
    let facts = admitted.facts();
    list.against(&facts.instance, admitted.spiffe_id(), &facts.digest, signers.iter().map(String::as_str))
}
