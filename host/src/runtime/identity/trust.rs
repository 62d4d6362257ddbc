//! Whom this process trusts at this moment, as the identity process said last: bundles, own and federated, and who is revoked.
//!
//! Immutable; a change makes a new one. Decides who of it still counts; reads no clock.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_identity::mtls::{Peer, Svid};
use portcullis_identity::rpc::BundleUpdate;
use portcullis_identity::{BundleSet, SpiffeId, TrustDomain};
use time::OffsetDateTime;

/// Bundles, epoch and revocations.
#[derive(Debug)]
pub struct Trust {
    bundles: Arc<BundleSet>,
    epoch: u64,
    revoked: BTreeSet<String>,
    revoked_instances: BTreeSet<String>,
}

impl Trust {
    /// What an update says; an error where a bundle in it cannot be used.
    pub fn parse(trust_domain: &TrustDomain, update: BundleUpdate) -> Result<Self, String> {
        let federated = update.federated.iter().map(|one| (one.trust_domain.as_str(), one.bundle_json.as_bytes()));
        let bundles = BundleSet::parse(trust_domain, update.bundle_json.as_bytes(), federated)
            .map_err(|error| format!("{error}; hint: {}", error.hint()))?;
        Ok(Self {
            bundles: Arc::new(bundles),
            epoch: update.svid_epoch,
            revoked: update.revoked.into_iter().collect(),
            revoked_instances: update.revoked_instances.into_iter().collect(),
        })
    }

    /// Own and federated bundles.
    pub fn bundles(&self) -> &Arc<BundleSet> {
        &self.bundles
    }

    /// SVIDs and tokens of another epoch are not to be used any more: they are fetched again.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether an instance, or the SPIFFE ID that it has, is revoked.
    pub fn is_revoked(&self, instance: &str, spiffe_id: &SpiffeId) -> bool {
        self.revoked_instances.contains(instance) || self.is_revoked_id(spiffe_id)
    }

    /// Whether a SPIFFE ID, of whatever trust domain, is revoked.
    pub fn is_revoked_id(&self, spiffe_id: &SpiffeId) -> bool {
        !self.revoked.is_empty() && self.revoked.contains(&spiffe_id.to_string())
    }

    /// The same for a SPIFFE ID as it stands in a token of ours.
    pub fn is_revoked_subject(&self, instance: &str, subject: &str) -> bool {
        self.revoked_instances.contains(instance) || self.revoked.contains(subject)
    }

    /// Whether an SVID of ours may be shown to anybody.
    pub fn check_own(&self, instance: &str, svid: &Svid, now: OffsetDateTime) -> Result<(), Unfit> {
        if self.is_revoked(instance, &svid.spiffe_id) {
            return Err(Unfit::OwnRevoked);
        }
        svid.check(self.bundles.trust(), now).map_err(|error| Unfit::Own(error.to_string()))
    }

    /// Whether a peer would still pass the handshake that it passed.
    pub fn check_peer(&self, peer: &Peer, now: OffsetDateTime) -> Result<(), Unfit> {
        if self.is_revoked_id(peer.spiffe_id()) {
            return Err(Unfit::PeerRevoked);
        }
        peer.check_again(self.bundles.trust(), now).map_err(|error| Unfit::Peer(error.to_string()))
    }
}

/// Why a connection that stands must not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The instance was stopped.
    #[error("the instance was stopped")]
    Stopped,
    /// Our side of it was revoked.
    #[error("the own identity was revoked")]
    OwnRevoked,
    /// Our side of it is not given any more: the source of identities took it away, or policy does.
    #[error("the own identity is not given any more: {0}")]
    OwnWithdrawn(String),
    /// Our side's chain does not verify any more.
    #[error("the own X.509-SVID does not hold any more: {0}")]
    Own(String),
    /// The peer was revoked.
    #[error("the peer's identity was revoked")]
    PeerRevoked,
    /// The peer's chain does not verify any more.
    #[error("the peer's X.509-SVID does not hold any more: {0}")]
    Peer(String),
    /// One of the two SVIDs has ended.
    #[error("an X.509-SVID of the connection has expired")]
    Expired,
    /// The identity process said something that cannot be read: nobody is trusted until it says more.
    #[error("whom to trust is not known at the moment")]
    Unknown,
}
