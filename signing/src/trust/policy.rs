//! A verified trust policy: the only thing that the verifier takes its trust from.

use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;

use super::deny_list::DenyListRule;
use super::document::{OnExpiry, TrustDocument};
use super::error::TrustError;
use super::rotation::{Roots, walk};
use super::rule::{About, is_for};
use super::sign::PAYLOAD_TYPE;
use super::signer::SignerEntry;
use crate::claims::Claims;
use crate::component_name::ComponentName;
use crate::digest::Digest;
use crate::envelope::Envelope;
use crate::excerpt::Excerpt;
use crate::json;
use crate::key::PublicKey;
use crate::keyless::{Keyless, PinnedRoot};
use crate::limits::{CLOCK_SKEW, TRUST_BYTES};
use crate::svid::SvidAuthorities;

/// A trust policy that enough pinned root keys have signed. Only comes out of [`TrustPolicy::verify`].
#[derive(Debug, Clone)]
pub struct TrustPolicy {
    document: TrustDocument,
    digest: Digest,
    /// With the digest of what was pinned.
    sigstore: BTreeMap<String, (Arc<dyn Keyless>, Digest)>,
    svids: BTreeMap<String, SvidAuthorities>,
}

impl TrustPolicy {
    /// Verifies a signed trust policy: from the pinned `roots` along its changes of root keys to those in force; signatures
    /// of enough of these, and of the document's own; then its content, its times against `now`, its version against the
    /// highest seen so far.
    pub fn verify(
        bytes: &[u8],
        roots: &[PublicKey],
        threshold: usize,
        now: OffsetDateTime,
        last_seen_version: Option<u64>,
    ) -> Result<Self, TrustError> {
        let pinned = Roots { roots: roots.to_vec(), threshold }.checked()?;
        let envelope = Envelope::parse(bytes, TRUST_BYTES)?;
        if envelope.payload_type() != PAYLOAD_TYPE {
            return Err(TrustError::PayloadType(Excerpt(envelope.payload_type()).to_string()));
        }
        // Which root keys must have signed follows from its changes of root keys, and these from signatures of their own.
        let value = json::parse(envelope.payload(), TRUST_BYTES)?;
        let current = walk(&pinned, &super::rotation::links(&value)?)?;
        let found = current.count(&envelope);
        if found < current.threshold {
            return Err(TrustError::Unsigned { found, needed: current.threshold });
        }
        let document = TrustDocument::from_value(value)?;
        // A change of roots needs the old ones, above, and the new ones, here.
        let own = Roots { roots: document.roots().to_vec(), threshold: document.threshold() };
        let found = own.count(&envelope);
        if found < own.threshold {
            return Err(TrustError::OwnRoots { found, needed: own.threshold });
        }
        let policy = Self::prepare(document, Digest::of(envelope.payload()))?;
        policy.check_time(now)?;
        match last_seen_version {
            Some(seen) if policy.version() < seen => Err(TrustError::RolledBack { version: policy.version(), seen }),
            _ => Ok(policy),
        }
    }

    fn prepare(document: TrustDocument, digest: Digest) -> Result<Self, TrustError> {
        let failed = |what: String| TrustError::Form(Excerpt(&what).to_string());
        let mut sigstore: BTreeMap<String, (Arc<dyn Keyless>, Digest)> = BTreeMap::new();
        for (name, root) in document.sigstore_roots() {
            let text = root.to_string();
            let pinned = PinnedRoot::new(&text).map_err(failed)?;
            sigstore.insert(name.clone(), (Arc::new(pinned), Digest::of(text.as_bytes())));
        }
        let mut svids = BTreeMap::new();
        for (domain, bundle) in document.spiffe_bundles() {
            let authorities = SvidAuthorities::new(bundle).map_err(|error| failed(error.to_string()))?;
            svids.insert(domain.clone(), authorities);
        }
        Ok(Self { document, digest, sigstore, svids })
    }

    /// The root keys that it names: what the next trust policy must be signed with.
    pub fn roots(&self) -> Roots {
        Roots { roots: self.document.roots().to_vec(), threshold: self.document.threshold() }
    }

    /// What is demanded of the deny list; absent: there need not be one.
    pub fn deny_list(&self) -> Option<&DenyListRule> {
        self.document.deny_list()
    }

    /// What becomes of running components whose claims expire.
    pub fn on_expiry(&self) -> OnExpiry {
        self.document.on_expiry()
    }

    /// A pinned trusted root, and its digest.
    pub(crate) fn sigstore(&self, name: &str) -> Option<(&dyn Keyless, Digest)> {
        self.sigstore.get(name).map(|(root, digest)| (root.as_ref(), *digest))
    }

    pub(crate) fn svids(&self, trust_domain: &str) -> Option<&SvidAuthorities> {
        self.svids.get(trust_domain)
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.document.version()
    }

    /// The digest of the signed document; the same whoever signed it.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Until when it holds.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.document.expires_at()
    }

    /// Who may sign claims.
    pub fn signers(&self) -> &[SignerEntry] {
        self.document.signers()
    }

    /// The largest component that is read.
    pub fn max_component_size(&self) -> u64 {
        self.document.max_component_size()
    }

    /// The content.
    pub fn document(&self) -> &TrustDocument {
        &self.document
    }

    /// The highest floor for a component in a cluster.
    pub fn floor(&self, name: &ComponentName, audience: &str) -> Option<u64> {
        let floors = self.document.floors().iter();
        floors
            .filter(|floor| floor.name == *name && is_for(floor.audience.as_ref(), audience))
            .map(|floor| floor.revision)
            .max()
    }

    /// What is denied, where something is.
    pub(crate) fn denied(&self, about: &About<'_>) -> Option<String> {
        self.document.deny().iter().find_map(|deny| deny.applies(about))
    }

    pub(crate) fn allows_rollback(&self, claims: &Claims, audience: &str) -> bool {
        self.document.allow_revisions().iter().any(|allow| {
            allow.name == *claims.name()
                && allow.revision == claims.revision()
                && is_for(allow.audience.as_ref(), audience)
        })
    }

    /// Refuses a policy that is over. Checked at every use, not only when it was loaded.
    pub fn check_time(&self, now: OffsetDateTime) -> Result<(), TrustError> {
        if now >= self.document.expires_at() {
            return Err(TrustError::Expired { at: self.document.expires_at(), now });
        }
        if now.saturating_add(CLOCK_SKEW) < self.document.issued_at() {
            return Err(TrustError::NotYet { at: self.document.issued_at(), now });
        }
        Ok(())
    }
}
