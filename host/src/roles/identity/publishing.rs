//! What the identity process publishes: bundles, the epoch of SVIDs, what is revoked. One immutable state at a time, which the
//! runtime and everybody else who streams follows; a state takes the place of the one before as a whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_identity::{BundleDocument, BundleSet, Issuer, SpiffeId, TrustDomain};
use tokio::sync::watch;

use super::keeper::{Keeper, Stop, failed};

/// One state.
#[derive(Debug, Clone)]
pub(super) struct Published {
    /// Our own bundle and those of the trust domains that we federate with.
    pub(super) bundles: Arc<BundleSet>,
    /// Grows whenever SVIDs that were issued before must not be used any more.
    pub(super) svid_epoch: u64,
    /// Of our own bundle.
    pub(super) sequence: u64,
    /// What is revoked.
    pub(super) revoked: Arc<Revocations>,
}

/// What is revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Revocations {
    pub(super) instances: BTreeSet<String>,
    pub(super) spiffe_ids: BTreeSet<SpiffeId>,
}

impl Revocations {
    /// Whether an instance, or the ID that it has, is revoked.
    pub(super) fn hold(&self, instance: &str, spiffe_id: &SpiffeId) -> bool {
        self.instances.contains(instance) || self.spiffe_ids.contains(spiffe_id)
    }
}

impl Published {
    /// The state of an issuer that knows nobody else.
    pub(super) fn of(issuer: &Issuer) -> Result<Self, String> {
        let bundles = Arc::new(BundleSet::new(own(issuer)?));
        let (svid_epoch, sequence) = (issuer.svid_epoch(), issuer.bundle().sequence());
        Ok(Self { bundles, svid_epoch, sequence, revoked: Arc::default() })
    }
}

impl Keeper {
    /// Follows what is published, from the state of now on.
    pub(super) fn published(&self) -> watch::Receiver<Arc<Published>> {
        let mut receiver = self.published.subscribe();
        receiver.mark_changed();
        receiver
    }

    /// The state of now.
    pub(super) fn now_published(&self) -> Arc<Published> {
        Arc::clone(&self.published.borrow())
    }

    /// Publishes the issuer's state and the foreign bundles of now, if that is anything new.
    pub(super) fn publish(&self) -> Result<(), Stop> {
        let _one_at_a_time = self.publishing.lock().map_err(|_| failed("internal", "poisoned"))?;
        let mut fresh = {
            let issuer = self.issuer()?;
            Published::of(&issuer).map_err(|why| failed("internal", &why))?
        };
        let mut foreign = Arc::clone(&self.foreign.borrow());
        if !self.issues_itself() {
            // The site's bundles, as a whole: our own authority signs nothing then.
            let known = self.identities.published().borrow().clone();
            let bundles = known.bundles.map_or_else(|| nobody(fresh.bundles.trust_domain()), Ok);
            fresh.bundles = bundles.map_err(|why| failed("internal", &why))?;
            foreign = Arc::new(fresh.bundles.foreign().cloned().collect());
            fresh.sequence = fresh.bundles.own().sequence().unwrap_or_default();
            fresh.svid_epoch = fresh.svid_epoch.saturating_add(known.svid_epoch);
        }
        let own = Arc::clone(fresh.bundles.own());
        let bundles = BundleSet::with_foreign(Arc::clone(&own), foreign.iter().cloned()).unwrap_or_else(|error| {
            // No half set: who is trusted must not depend on the order of documents.
            tracing::error!(%error, hint = error.hint(), "the federated bundles cannot be used, none of them is");
            BundleSet::new(own)
        });
        self.published.send_if_modified(|state| {
            let same = state.sequence == fresh.sequence
                && state.svid_epoch == fresh.svid_epoch
                && same_documents(&state.bundles, &bundles);
            if !same {
                let revoked = Arc::clone(&state.revoked);
                *state = Arc::new(Published { bundles: Arc::new(bundles), revoked, ..fresh });
            }
            !same
        });
        Ok(())
    }

    /// Publishes what is revoked from now on.
    pub(super) fn publish_revoked(&self, revoked: Revocations) -> Result<(), Stop> {
        let _one_at_a_time = self.publishing.lock().map_err(|_| failed("internal", "poisoned"))?;
        self.published.send_if_modified(|state| {
            let same = *state.revoked == revoked;
            if !same {
                *state = Arc::new(Published { revoked: Arc::new(revoked), ..state.as_ref().clone() });
            }
            !same
        });
        Ok(())
    }
}

fn own(issuer: &Issuer) -> Result<Arc<BundleDocument>, String> {
    let json = issuer.bundle().to_json();
    let document = BundleDocument::parse(issuer.trust_domain(), json.as_bytes());
    document.map(Arc::new).map_err(|error| format!("our own bundle cannot be read: {error}"))
}

/// A bundle without keys: nobody of the trust domain is trusted (SPIFFE_Trust_Domain_and_Bundle section 4).
fn nobody(trust_domain: &TrustDomain) -> Result<Arc<BundleSet>, String> {
    let document = BundleDocument::parse(trust_domain, br#"{"keys": []}"#).map_err(|error| error.to_string())?;
    Ok(Arc::new(BundleSet::new(Arc::new(document))))
}

fn same_documents(one: &BundleSet, other: &BundleSet) -> bool {
    one.own().json() == other.own().json()
        && one
            .foreign()
            .map(|document| (document.trust_domain(), document.json()))
            .eq(other.foreign().map(|document| (document.trust_domain(), document.json())))
}
