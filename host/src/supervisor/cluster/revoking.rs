//! Takes up the cluster's revocation list: in force at once, on every way that the host knows; kept on disk besides.

use std::sync::Arc;

use portcullis_cluster::{EventKind, RevocationList, Verdict};
use portcullis_identity::SpiffeId;
use portcullis_identity::statement::Signer;
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
    by: &Signer,
    payload: &[u8],
) -> Result<Verdict, TakeError> {
    let _one_at_a_time = cluster.revoking.lock().await;
    let taken = match &mut *cluster.kept() {
        // The list that was taken meanwhile may revoke who signed this one.
        Ok(kept) => kept.still_trusts(by, |id| host.revokes_itself(id)).and_then(|()| kept.take_revoked(list, payload)),
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

impl Cluster {
    /// Whether a SPIFFE ID is revoked in the cluster. Where it cannot be read who is, everybody is.
    pub(in crate::supervisor) fn revokes(&self, id: &SpiffeId) -> bool {
        self.kept().as_ref().map_or(true, |kept| kept.revokes(id))
    }
}

impl Host {
    /// Whether a SPIFFE ID is revoked on this host or in its cluster. Asks the lists themselves: what the identity process knows
    /// of them comes later.
    pub(in crate::supervisor) fn revokes(&self, id: &SpiffeId) -> bool {
        self.revokes_itself(id) || self.cluster.as_ref().is_some_and(|cluster| cluster.revokes(id))
    }

    /// The same without the cluster's list, for who has that in hand.
    pub(super) fn revokes_itself(&self, id: &SpiffeId) -> bool {
        self.own().is_revoked(id) || self.is_revoked(id)
    }

    /// Refuses a start that the cluster does not let happen.
    pub(in crate::supervisor) fn check_cluster(&self, admitted: &Admitted, again: bool) -> Result<(), Refused> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        if let Some(refused) = if again { cluster.stops_restored() } else { cluster.stops_starts() } {
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

#[cfg(test)]
mod tests {
    use super::super::kept::{Kept, TakeError};
    use super::super::shelf::Shelf;
    use super::*;

    #[test]
    fn a_list_of_the_cluster_that_cannot_be_read_revokes_everybody() {
        let temp = tempfile::tempdir().unwrap();
        let id: SpiffeId = "spiffe://example.org/a".parse().unwrap();
        let cluster = || {
            let kept = Kept::open(temp.path(), &"prod".parse().unwrap());
            let section = toml::from_str("host = 'h1'").unwrap();
            let (shelf, _) = Shelf::open(temp.path(), &"prod".parse().unwrap());
            Cluster::new("prod".parse().unwrap(), "h1".parse().unwrap(), section, kept, shelf)
        };
        assert!(!cluster().revokes(&id), "a new host knows of nobody");
        let list = format!(r#"{{"format":1,"epoch":2,"spiffe_ids":["{id}"]}}"#);
        let with = cluster();
        {
            let mut kept = with.kept();
            let kept = kept.as_mut().unwrap();
            kept.take_revoked(RevocationList::parse(list.as_bytes()).unwrap(), list.as_bytes()).unwrap();
            let by = Signer::Svid(id.clone());
            assert!(matches!(kept.still_trusts(&by, |_| false), Err(TakeError::Revoked(_))));
        }
        assert!(with.revokes(&id) && !with.revokes(&"spiffe://example.org/b".parse().unwrap()));
        assert!(cluster().revokes(&id), "and after a restart");
        std::fs::write(temp.path().join("revoked.json"), "{").unwrap();
        assert!(cluster().revokes(&"spiffe://example.org/b".parse().unwrap()));
    }
}
