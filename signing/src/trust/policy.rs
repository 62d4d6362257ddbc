//! A verified trust policy: the only thing that the verifier takes its trust from.

use std::collections::HashSet;

use time::OffsetDateTime;

use super::delegation::{Signer, SignerEntry};
use super::document::TrustDocument;
use super::error::TrustError;
use super::rule::is_for;
use super::sign::PAYLOAD_TYPE;
use crate::claims::Claims;
use crate::component_name::ComponentName;
use crate::digest::Digest;
use crate::envelope::Envelope;
use crate::excerpt::Excerpt;
use crate::json;
use crate::key::{KeyKind, PublicKey};
use crate::limits::{CLOCK_SKEW, TRUST_BYTES};

/// A trust policy that enough pinned root keys have signed. Only comes out of [`TrustPolicy::verify`].
#[derive(Debug, Clone)]
pub struct TrustPolicy {
    document: TrustDocument,
    digest: Digest,
}

impl TrustPolicy {
    /// Verifies a signed trust policy: signatures of `threshold` of the pinned `roots`, and of the document's own; then
    /// its content, its times against `now`, its version against the highest seen so far.
    pub fn verify(
        bytes: &[u8],
        roots: &[PublicKey],
        threshold: usize,
        now: OffsetDateTime,
        last_seen_version: Option<u64>,
    ) -> Result<Self, TrustError> {
        let distinct: HashSet<_> = roots.iter().filter(|key| key.kind() == KeyKind::Root).collect();
        if !(1..=distinct.len()).contains(&threshold) || distinct.len() != roots.len() {
            return Err(TrustError::Roots { roots: distinct.len(), threshold });
        }
        let envelope = Envelope::parse(bytes, TRUST_BYTES)?;
        if envelope.payload_type() != PAYLOAD_TYPE {
            return Err(TrustError::PayloadType(Excerpt(envelope.payload_type()).to_string()));
        }
        let found = count_signatures(&envelope, roots);
        if found < threshold {
            return Err(TrustError::Unsigned { found, needed: threshold });
        }
        let document = TrustDocument::from_value(json::parse(envelope.payload(), TRUST_BYTES)?)?;
        // A change of roots needs the old ones, above, and the new ones, here.
        let (found, needed) = (count_signatures(&envelope, document.roots()), document.threshold());
        if found < needed {
            return Err(TrustError::OwnRoots { found, needed });
        }
        let policy = Self { document, digest: Digest::of(envelope.payload()) };
        policy.check_time(now)?;
        match last_seen_version {
            Some(seen) if policy.version() < seen => Err(TrustError::RolledBack { version: policy.version(), seen }),
            _ => Ok(policy),
        }
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

    /// What is denied about a component, where something is. Also for components that run already.
    pub fn denied(&self, digest: &Digest, signer: &Signer, claims: &Claims) -> Option<String> {
        self.document.deny().iter().find_map(|deny| deny.applies(digest, signer.key(), claims))
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

/// How many distinct keys have a valid signature.
fn count_signatures(envelope: &Envelope, keys: &[PublicKey]) -> usize {
    keys.iter()
        .filter(|key| key.kind() == KeyKind::Root)
        .filter(|key| envelope.signatures().iter().any(|signature| envelope.verify(signature, key)))
        .count()
}
