//! The trust policy as people edit it. Proves nothing until root keys have signed it.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use super::check;
use super::deny_list::DenyListRule;
use super::error::TrustError;
use super::origin::Origin;
use super::requirement::Requirement;
use super::rule::{AllowRevision, Deny, Floor};
use super::signer::SignerEntry;
use crate::envelope::Envelope;
use crate::fields::Problems;
use crate::json;
use crate::key::{KeyKind, PublicKey};
use crate::limits::{COMPONENT_BYTES, COMPONENT_BYTES_DEFAULT, ROOT_KEYS, TRUST_BYTES, TRUST_ENTRIES};
use crate::timestamp;

/// An unsigned trust policy that is consistent in itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TrustDocument {
    version: u64,
    #[serde(with = "timestamp")]
    issued_at: OffsetDateTime,
    #[serde(with = "timestamp")]
    expires_at: OffsetDateTime,
    roots: Vec<PublicKey>,
    threshold: usize,
    #[serde(default = "default_component_size")]
    max_component_size: u64,
    #[serde(default)]
    signers: Vec<SignerEntry>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    requirements: Vec<Requirement>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    origins: Vec<Origin>,
    #[serde(default)]
    floors: Vec<Floor>,
    #[serde(default)]
    deny: Vec<Deny>,
    #[serde(default)]
    allow_revisions: Vec<AllowRevision>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deny_list: Option<DenyListRule>,
    #[serde(default, skip_serializing_if = "OnExpiry::is_default")]
    on_expiry: OnExpiry,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    sigstore_roots: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    spiffe_bundles: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rotations: Vec<Envelope>,
}

/// What becomes of a component that runs when its claims expire. New loads of it are refused in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExpiry {
    /// It takes no new requests; those under way may end within the host's drain time, then it is stopped.
    #[default]
    Drain,
    /// It is stopped at once.
    Stop,
    /// It runs on until it is stopped or the host is started again.
    Keep,
}

impl OnExpiry {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn default_component_size() -> u64 {
    COMPONENT_BYTES_DEFAULT
}

impl TrustDocument {
    /// A policy that admits nothing yet.
    pub fn new(
        version: u64,
        issued_at: OffsetDateTime,
        expires_at: OffsetDateTime,
        roots: Vec<PublicKey>,
        threshold: usize,
    ) -> Result<Self, TrustError> {
        // Whole seconds, so that the document is the same before and after its text.
        let whole = |at: OffsetDateTime| at.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(at);
        Self {
            version,
            issued_at: whole(issued_at),
            expires_at: whole(expires_at),
            roots,
            threshold,
            max_component_size: COMPONENT_BYTES_DEFAULT,
            signers: Vec::new(),
            floors: Vec::new(),
            deny: Vec::new(),
            allow_revisions: Vec::new(),
            requirements: Vec::new(),
            origins: Vec::new(),
            deny_list: None,
            on_expiry: OnExpiry::default(),
            sigstore_roots: BTreeMap::new(),
            spiffe_bundles: BTreeMap::new(),
            rotations: Vec::new(),
        }
        .checked()
    }

    /// Reads an unsigned document.
    pub fn parse(bytes: &[u8]) -> Result<Self, TrustError> {
        Self::from_value(json::parse(bytes, TRUST_BYTES)?)
    }

    /// Indented JSON with a line end.
    pub fn to_json(&self) -> Vec<u8> {
        // INVARIANT: texts, numbers and lists of them always have a JSON form.
        json::pretty(self).unwrap_or_default()
    }

    /// Adds a signer; refuses a name or key that is there already.
    pub fn add_signer(&mut self, entry: SignerEntry) -> Result<(), TrustError> {
        self.change(|document| document.signers.push(entry))
    }

    /// Adds a revision floor.
    pub fn add_floor(&mut self, floor: Floor) -> Result<(), TrustError> {
        self.change(|document| document.floors.push(floor))
    }

    /// Adds a denial.
    pub fn add_deny(&mut self, deny: Deny) -> Result<(), TrustError> {
        self.change(|document| document.deny.push(deny))
    }

    /// Adds a permitted rollback.
    pub fn add_allow_revision(&mut self, allow: AllowRevision) -> Result<(), TrustError> {
        self.change(|document| document.allow_revisions.push(allow))
    }

    /// Sets the largest component.
    pub fn set_max_component_size(&mut self, bytes: u64) -> Result<(), TrustError> {
        self.change(|document| document.max_component_size = bytes)
    }

    /// Adds a requirement.
    pub fn add_requirement(&mut self, requirement: Requirement) -> Result<(), TrustError> {
        self.change(|document| document.requirements.push(requirement))
    }

    /// Adds claims for evidence that proves an origin only.
    pub fn add_origin(&mut self, origin: Origin) -> Result<(), TrustError> {
        self.change(|document| document.origins.push(origin))
    }

    /// Demands a deny list, or none.
    pub fn set_deny_list(&mut self, rule: Option<DenyListRule>) -> Result<(), TrustError> {
        self.change(|document| document.deny_list = rule)
    }

    /// Says what becomes of running components whose claims expire.
    pub fn set_on_expiry(&mut self, on_expiry: OnExpiry) -> Result<(), TrustError> {
        self.change(|document| document.on_expiry = on_expiry)
    }

    /// Pins a Sigstore trusted root (the JSON of a `trusted_root.json`) under a name.
    pub fn add_sigstore_root(&mut self, name: String, root: Value) -> Result<(), TrustError> {
        self.change(|document| drop(document.sigstore_roots.insert(name, root)))
    }

    /// Pins the SPIFFE bundle (a JWK set) of a trust domain.
    pub fn add_spiffe_bundle(&mut self, trust_domain: String, bundle: Value) -> Result<(), TrustError> {
        self.change(|document| drop(document.spiffe_bundles.insert(trust_domain, bundle)))
    }

    /// Replaces the root keys by those of a link that k old and k new keys have signed.
    pub fn rotate(&mut self, link: &[u8]) -> Result<(), TrustError> {
        let link = Envelope::parse(link, TRUST_BYTES)?;
        let next = super::rotation::read(&link)?;
        self.change(|document| {
            document.rotations.push(link);
            document.roots = next.roots;
            document.threshold = next.threshold;
        })
    }

    /// Gives it another version and validity, as every change that is to be signed needs.
    pub fn reissue(
        &mut self,
        version: u64,
        issued_at: OffsetDateTime,
        expires_at: OffsetDateTime,
    ) -> Result<(), TrustError> {
        self.change(|document| {
            document.version = version;
            document.issued_at = issued_at.replace_nanosecond(0).unwrap_or(issued_at);
            document.expires_at = expires_at.replace_nanosecond(0).unwrap_or(expires_at);
        })
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When it was made.
    pub fn issued_at(&self) -> OffsetDateTime {
        self.issued_at
    }

    /// Until when it holds.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }

    /// The root keys that must sign it, and the next one.
    pub fn roots(&self) -> &[PublicKey] {
        &self.roots
    }

    /// How many of them.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// The largest component.
    pub fn max_component_size(&self) -> u64 {
        self.max_component_size
    }

    /// Who may sign claims.
    pub fn signers(&self) -> &[SignerEntry] {
        &self.signers
    }

    /// Revision floors.
    pub fn floors(&self) -> &[Floor] {
        &self.floors
    }

    /// Denials.
    pub fn deny(&self) -> &[Deny] {
        &self.deny
    }

    /// Permitted rollbacks.
    pub fn allow_revisions(&self) -> &[AllowRevision] {
        &self.allow_revisions
    }

    /// What some components need beyond one signature.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Claims for evidence that proves an origin only.
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// What is demanded of the deny list; absent: there need not be one.
    pub fn deny_list(&self) -> Option<&DenyListRule> {
        self.deny_list.as_ref()
    }

    /// What becomes of running components whose claims expire.
    pub fn on_expiry(&self) -> OnExpiry {
        self.on_expiry
    }

    /// Pinned Sigstore trusted roots, by name.
    pub fn sigstore_roots(&self) -> &BTreeMap<String, Value> {
        &self.sigstore_roots
    }

    /// Pinned SPIFFE bundles, by trust domain.
    pub fn spiffe_bundles(&self) -> &BTreeMap<String, Value> {
        &self.spiffe_bundles
    }

    /// Changes of root keys, oldest first.
    pub fn rotations(&self) -> &[Envelope] {
        &self.rotations
    }

    pub(crate) fn from_value(value: Value) -> Result<Self, TrustError> {
        serde_json::from_value::<Self>(value).map_err(|error| TrustError::form(&error))?.checked()
    }

    /// The bytes that are signed.
    pub(crate) fn payload(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    fn change(&mut self, change: impl FnOnce(&mut Self)) -> Result<(), TrustError> {
        let mut changed = self.clone();
        change(&mut changed);
        *self = changed.checked()?;
        Ok(())
    }

    fn checked(self) -> Result<Self, TrustError> {
        let mut problems = Problems::default();
        self.check_head(&mut problems);
        let lists = [
            ("signers", self.signers.len()),
            ("floors", self.floors.len()),
            ("deny", self.deny.len()),
            ("allowRevisions", self.allow_revisions.len()),
            ("requirements", self.requirements.len()),
            ("origins", self.origins.len()),
        ];
        for (at, length) in lists {
            if length > TRUST_ENTRIES {
                problems.add(at, format!("has {length} entries, at most {TRUST_ENTRIES} are allowed"));
            }
        }
        let (mut names, mut ids) = (HashSet::new(), HashSet::new());
        for (index, entry) in self.signers.iter().enumerate() {
            let at = format!("signers[{index}]");
            check::signer(&at, entry, &mut problems);
            if !names.insert(entry.name.as_str()) {
                problems.add(format!("{at}.name"), "is there twice");
            }
            if !ids.insert(entry.identity.id()) {
                problems.add(
                    format!("{at}.{}", if entry.identity.key().is_some() { "key" } else { "identity" }),
                    "is there twice",
                );
            }
        }
        for (index, deny) in self.deny.iter().enumerate() {
            if !deny.is_sound() {
                problems.add(format!("deny[{index}].revisions"), "min is greater than max");
            }
        }
        check::chains(&self, &mut problems);
        check::pins(&self, &mut problems);
        check::requirements(&self, &mut problems);
        check::origins(&self, &mut problems);
        check::deny_list(&self, &mut problems);
        if problems.is_empty() { Ok(self) } else { Err(TrustError::Invalid { problems: problems.into_vec() }) }
    }

    fn check_head(&self, problems: &mut Problems) {
        if self.version == 0 {
            problems.add("version", "must be at least 1");
        }
        if self.expires_at <= self.issued_at {
            problems.add("expiresAt", "is not after issuedAt");
        }
        if !(1..=ROOT_KEYS).contains(&self.roots.len()) {
            problems.add("roots", format!("has {} keys, 1 to {ROOT_KEYS} are allowed", self.roots.len()));
        }
        for (index, key) in self.roots.iter().enumerate() {
            if let Err(error) = key.require(KeyKind::Root) {
                problems.add(format!("roots[{index}]"), error.to_string());
            }
            if self.roots.iter().take(index).any(|other| other == key) {
                problems.add(format!("roots[{index}]"), "is there twice");
            }
        }
        if !(1..=self.roots.len()).contains(&self.threshold) {
            problems.add(
                "threshold",
                format!("is {}, with {} root keys it must be 1 to {1}", self.threshold, self.roots.len()),
            );
        }
        if !(1..=COMPONENT_BYTES).contains(&self.max_component_size) {
            problems.add("maxComponentSize", format!("must be 1 to {COMPONENT_BYTES} bytes"));
        }
    }
}
