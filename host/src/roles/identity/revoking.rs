//! Revocation: an instance, or whoever has a SPIFFE ID, gets nothing more from here, and everybody who follows is told to cut
//! what such an identity has open. The supervisor keeps the list; this process is told the whole of it each time.

use portcullis_identity::rpc::SetRevokedRequest;
use portcullis_identity::{InstanceId, SpiffeId};

use super::keeper::{Keeper, Stop, failed};
use super::publishing::Revocations;
use crate::limits;

impl Keeper {
    /// Replaces what is revoked; says for how many instances that was the end of their identity.
    pub(super) fn set_revoked(&self, request: SetRevokedRequest) -> Result<u64, Stop> {
        // Those of the host, and those of its cluster.
        if request.spiffe_ids.len() > 2 * limits::REVOKED {
            return Err(failed("invalid-argument", "too many SPIFFE IDs"));
        }
        let spiffe_ids: Result<_, _> = request.spiffe_ids.iter().map(|id| id.parse::<SpiffeId>()).collect();
        let spiffe_ids = spiffe_ids.map_err(|error| failed("invalid-argument", &error.to_string()))?;
        let revoked = Revocations { instances: request.instances.into_iter().collect(), spiffe_ids };
        let mut ended = Vec::new();
        {
            let mut instances = self.table()?;
            for (name, held) in instances.iter_mut().filter(|(_, held)| !held.revoked) {
                let id: Option<SpiffeId> = held.facts.spiffe_id.parse().ok();
                if id.is_none_or(|id| revoked.hold(name, &id)) {
                    (held.revoked, held.x509_not_after) = (true, None);
                    held.recorded.clear();
                    ended.push(name.clone());
                }
            }
            // INVARIANT: whoever is admitted from here on meets the new list, since admission reads it under this lock.
            self.publish_revoked(revoked)?;
        }
        for name in &ended {
            if let Ok(id) = name.parse::<InstanceId>() {
                self.identities.stop(&id);
            }
        }
        self.note_change();
        Ok(u64::try_from(ended.len()).unwrap_or(u64::MAX))
    }
}
