//! A registered entry with the identity that it has in the issuer.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use portcullis_identity::{Audience, InstanceId, SpiffeId, Workload};

use crate::config::workload_api::Entry;
use crate::roles::identity::keeper::{Keeper, Stop};

/// An entry that has its identity.
pub(super) struct Registered {
    pub(super) entry: Entry,
    pub(super) instance: InstanceId,
    pub(super) spiffe_id: SpiffeId,
    pub(super) x509_ttl: Duration,
    pub(super) jwt_ttl: Duration,
    /// Serials and token ids whose issuance is on disk. An SVID that is not in here does not leave.
    recorded: Mutex<HashSet<String>>,
}

impl Registered {
    /// Begins the identity of an entry.
    pub(super) fn admit(keeper: &Keeper, entry: Entry) -> Result<Self, String> {
        let named = |why: &dyn std::fmt::Display| format!("the entry {} cannot have an identity: {why}", entry.name);
        let mut issuer = match keeper.issuer() {
            Ok(issuer) => issuer,
            Err(Stop::Failed(failed)) => return Err(named(&failed.message)),
            Err(Stop::Denied(_)) => return Err(named(&"denied")),
        };
        let spiffe_id = entry.spiffe_id(issuer.trust_domain()).ok_or_else(|| named(&"its path is none"))?;
        // Instances of components have no dot in their names, so that neither can be taken for the other.
        let instance: InstanceId = format!("workload.{}", entry.name).parse().map_err(|error| named(&error))?;
        let workload = Workload {
            instance: instance.clone(),
            spiffe_id: spiffe_id.clone(),
            digest: entry.sha256.as_ref().map(|sha256| format!("sha256:{sha256}")).unwrap_or_default(),
            component: entry.name.clone(),
            exportable: true,
        };
        issuer.admit(workload).map_err(|error| named(&error))?;
        let lifetimes = issuer.lifetimes();
        let (x509_ttl, jwt_ttl) = (entry.x509_ttl(lifetimes.x509()), entry.jwt_ttl(lifetimes.jwt()));
        Ok(Self { entry, instance, spiffe_id, x509_ttl, jwt_ttl, recorded: Mutex::default() })
    }

    /// Whether each of these audiences is registered; else the first that is not.
    pub(super) fn may_have<'a>(&self, audiences: &'a [Audience]) -> Result<(), &'a Audience> {
        audiences.iter().find(|audience| !self.entry.audiences.contains(audience)).map_or(Ok(()), Err)
    }

    /// Whether the issuance of this SVID is on disk.
    pub(super) fn is_recorded(&self, id: &str) -> bool {
        self.recorded.lock().is_ok_and(|recorded| recorded.contains(id))
    }

    /// Remembers that it is.
    pub(super) fn remember(&self, id: &str) {
        if let Ok(mut recorded) = self.recorded.lock() {
            if recorded.len() >= RECORDED {
                recorded.clear();
            }
            recorded.insert(id.to_owned());
        }
    }
}

/// Issuances remembered as recorded for one entry; beyond, the memory starts anew and an issuance may be recorded twice.
const RECORDED: usize = 4096;
