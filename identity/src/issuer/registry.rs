//! The instances that have an identity, each with the keys and tokens that were minted for it. Decides who may be admitted;
//! holds everything in memory only.

use std::collections::HashMap;
use std::time::Duration;

use time::OffsetDateTime;

use super::minting::X509Svid;
use crate::audience::Audience;
use crate::authority::AuthorityId;
use crate::jwt_svid::JwtSvid;
use crate::limits::{MAX_CACHED_TOKENS, MAX_INSTANCES, MAX_WORKLOAD_TEXT_BYTES, MAX_X509_KEYS};
use crate::p256_key::P256Key;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;
use crate::wit_svid::WitSvid;
use crate::workload::{InstanceId, Workload};

/// Why an instance was not admitted. The supervisor or the policy template erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// There is one already.
    #[error("the instance {0} is already admitted")]
    AlreadyAdmitted(InstanceId),
    /// Another trust domain's ID.
    #[error("{id} is not in the trust domain {trust_domain}")]
    ForeignDomain {
        /// The ID that was asked for.
        id: SpiffeId,
        /// Ours.
        trust_domain: TrustDomain,
    },
    /// X509-SVID section 5.2: a workload's ID has a path.
    #[error("{0} names a trust domain, not a workload")]
    RootPath(SpiffeId),
    /// Over [`MAX_INSTANCES`].
    #[error("there are already {MAX_INSTANCES} instances")]
    TooMany,
    /// Over [`MAX_WORKLOAD_TEXT_BYTES`].
    #[error("the digest or the component's name is longer than {MAX_WORKLOAD_TEXT_BYTES} bytes")]
    TooLong,
}

impl AdmitError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::AlreadyAdmitted(_) => "mint a new instance id for each run",
            Self::ForeignDomain { .. } => "derive the SPIFFE ID inside this host's trust domain",
            Self::RootPath(_) => "use a SPIFFE ID with a path, such as /ns/shop/sa/cart",
            Self::TooMany => "stop instances, or spread them over more hosts",
            Self::TooLong => "pass the digest as sha256: and hexadecimal digits and a short component name",
        }
    }
}

/// Instances and what was minted for each.
#[derive(Default)]
pub(super) struct Registry(HashMap<InstanceId, Registration>);

/// One instance.
pub(super) struct Registration {
    pub(super) workload: Workload,
    x509: Vec<HeldX509>,
    tokens: HashMap<TokenName, HeldToken>,
    wit: Option<HeldWit>,
}

/// An X.509-SVID with its key.
pub(super) struct HeldX509 {
    pub(super) svid: X509Svid,
    pub(super) key: P256Key,
    pub(super) issued_at: OffsetDateTime,
    pub(super) wanted: Duration,
    pub(super) authority: AuthorityId,
    pub(super) epoch: u64,
}

/// A token, and who signed it.
pub(super) struct HeldToken {
    pub(super) svid: JwtSvid,
    pub(super) authority: AuthorityId,
}

/// A WIT-SVID, and who signed it.
pub(super) struct HeldWit {
    pub(super) svid: WitSvid,
    pub(super) wanted: Duration,
    pub(super) authority: AuthorityId,
}

/// What a cached token is found by: sorted audiences, and the life that was asked for, so that nobody gets a token that
/// lives longer than asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenName {
    pub(super) audiences: Vec<Audience>,
    pub(super) wanted: Duration,
}

impl Registry {
    pub(super) fn admit(&mut self, trust_domain: &TrustDomain, workload: Workload) -> Result<(), AdmitError> {
        if workload.spiffe_id.trust_domain() != trust_domain {
            return Err(AdmitError::ForeignDomain { id: workload.spiffe_id, trust_domain: trust_domain.clone() });
        }
        if !workload.spiffe_id.has_path() {
            return Err(AdmitError::RootPath(workload.spiffe_id));
        }
        if workload.digest.len().max(workload.component.len()) > MAX_WORKLOAD_TEXT_BYTES {
            return Err(AdmitError::TooLong);
        }
        if self.0.contains_key(&workload.instance) {
            return Err(AdmitError::AlreadyAdmitted(workload.instance));
        }
        if self.0.len() >= MAX_INSTANCES {
            return Err(AdmitError::TooMany);
        }
        let name = workload.instance.clone();
        self.0.insert(name, Registration { workload, x509: Vec::new(), tokens: HashMap::new(), wit: None });
        Ok(())
    }

    /// Dropping the registration wipes its keys and tokens.
    pub(super) fn stop(&mut self, instance: &InstanceId) -> bool {
        self.0.remove(instance).is_some()
    }

    pub(super) fn workload(&self, instance: &InstanceId) -> Option<&Workload> {
        self.0.get(instance).map(|registration| &registration.workload)
    }

    pub(super) fn get(&self, instance: &InstanceId) -> Option<&Registration> {
        self.0.get(instance)
    }

    pub(super) fn get_mut(&mut self, instance: &InstanceId) -> Option<&mut Registration> {
        self.0.get_mut(instance)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets all tokens: each is minted anew when it is asked for.
    pub(super) fn forget_tokens(&mut self) {
        for registration in self.0.values_mut() {
            registration.tokens.clear();
            registration.wit = None;
        }
    }

    /// Forgets what this authority signed, with the keys.
    pub(super) fn forget_authority(&mut self, id: &AuthorityId) {
        for registration in self.0.values_mut() {
            registration.x509.retain(|held| held.authority != *id);
            registration.tokens.retain(|_, held| held.authority != *id);
            registration.wit.take_if(|held| held.authority == *id);
        }
    }

    /// The instances whose newest X.509-SVID is of an earlier epoch, and the life that it was asked for.
    pub(super) fn of_earlier_epochs(&self, epoch: u64) -> Vec<(Workload, Duration)> {
        let newest = self.0.values().filter_map(|held| held.x509.last().map(|newest| (&held.workload, newest)));
        newest.filter(|(_, held)| held.epoch < epoch).map(|(workload, held)| (workload.clone(), held.wanted)).collect()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &P256Key> {
        self.0.values().flat_map(|registration| registration.x509.iter().map(|held| &held.key))
    }
}

impl Registration {
    /// The newest X.509-SVID, if it was minted for this life and in this epoch and is not past half of its life.
    pub(super) fn fresh_x509(&self, wanted: Duration, epoch: u64, now: OffsetDateTime) -> Option<&X509Svid> {
        let held = self.x509.last()?;
        let young = before_half(held.issued_at, held.svid.not_after, now);
        (held.wanted == wanted && held.epoch == epoch && young).then_some(&held.svid)
    }

    /// Keeps a new X.509-SVID. Older ones stay usable until they end: handshakes with them may be under way.
    pub(super) fn keep_x509(&mut self, held: HeldX509, now: OffsetDateTime) {
        self.x509.retain(|old| old.svid.not_after > now);
        if self.x509.len() >= MAX_X509_KEYS {
            self.x509.remove(0);
        }
        self.x509.push(held);
    }

    /// The key of this id.
    pub(super) fn x509_key(&self, key_id: &str) -> Option<&HeldX509> {
        self.x509.iter().find(|held| held.svid.key_id == key_id)
    }

    /// The cached token of this name, if it is not past half its life.
    pub(super) fn fresh_token(&self, name: &TokenName, now: OffsetDateTime) -> Option<&JwtSvid> {
        let svid = &self.tokens.get(name)?.svid;
        before_half(svid.claims().issued_at()?, svid.expires_at(), now).then_some(svid)
    }

    /// Keeps a token for its first half; makes room if there are too many.
    pub(super) fn keep_token(&mut self, name: TokenName, held: HeldToken, now: OffsetDateTime) {
        self.tokens.retain(|_, old| old.svid.expires_at() > now);
        if self.tokens.len() >= MAX_CACHED_TOKENS {
            let first = self.tokens.iter().min_by_key(|(_, old)| old.svid.expires_at()).map(|(name, _)| name.clone());
            if let Some(first) = first {
                self.tokens.remove(&first);
            }
        }
        self.tokens.insert(name, held);
    }

    /// The WIT-SVID, if it was minted for this life and is not past half of it.
    pub(super) fn fresh_wit(&self, wanted: Duration, now: OffsetDateTime) -> Option<&WitSvid> {
        let held = self.wit.as_ref().filter(|held| held.wanted == wanted)?;
        before_half(held.svid.claims().issued_at()?, held.svid.expires_at(), now).then_some(&held.svid)
    }

    /// Keeps the newest WIT-SVID.
    pub(super) fn keep_wit(&mut self, held: HeldWit) {
        self.wit = Some(held);
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.x509.len(), self.tokens.len())
    }
}

fn before_half(issued_at: OffsetDateTime, not_after: OffsetDateTime, now: OffsetDateTime) -> bool {
    // A clock that was set back must not keep an SVID alive beyond its measure.
    now >= issued_at && now - issued_at < (not_after - issued_at) / 2
}
