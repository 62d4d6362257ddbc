//! The deny list: a signed file of its own beside the trust policy, short-lived, so that bad news can be spread quickly and
//! its absence is noticed.
//!
//! Where the trust policy demands one, a list that is missing, not signed, older than one seen before or too old refuses
//! every new load: nobody can hide a revocation by withholding it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::rotation::Roots;
use super::rule::{About, Deny};
use crate::digest::Digest;
use crate::envelope::{Envelope, EnvelopeError, EnvelopeSignature, pae};
use crate::excerpt::Excerpt;
use crate::json::{self, JsonError};
use crate::key::{KeyKind, PublicKey, SecretKey};
use crate::lifetime::Lifetime;
use crate::limits::{CLOCK_SKEW, DENY_LIST_BYTES, TRUST_ENTRIES};
use crate::refusal::{Refusal, RefusalCode};
use crate::timestamp;

/// The DSSE payload type of deny lists.
pub const DENY_LIST_TYPE: &str = "application/vnd.portcullis.deny-list.v1+json";

/// What the trust policy demands of the deny list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DenyListRule {
    /// Who may sign it: root keys (`O...`), those of the policy or others.
    pub keys: Vec<PublicKey>,
    /// How many of them must.
    pub threshold: usize,
    /// How old it may be.
    pub max_age: Lifetime,
}

/// The content of a deny list, unsigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DenyListDocument {
    /// Grows with every change.
    pub version: u64,
    /// When it was made, or made again unchanged.
    #[serde(with = "timestamp")]
    pub issued_at: OffsetDateTime,
    /// What is denied.
    pub deny: Vec<Deny>,
}

/// A deny list that enough keys have signed. Only comes out of [`DenyList::verify`].
#[derive(Debug, Clone)]
pub struct DenyList {
    document: DenyListDocument,
    digest: Digest,
}

/// Why a deny list is not used. New loads are refused meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DenyListError {
    /// The trust policy demands one, and there is none.
    #[error("the trust policy demands a deny list, and there is none")]
    Missing,
    /// Not JSON.
    #[error("the deny list cannot be read: {0}")]
    Json(#[from] JsonError),
    /// Not signed.
    #[error("the deny list is not a signed one: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Another document.
    #[error("what is signed is a `{0}`, not a deny list")]
    PayloadType(String),
    /// JSON of another form.
    #[error("the deny list is malformed: {0}")]
    Form(String),
    /// Too few signatures.
    #[error("{found} of the {needed} keys needed have signed the deny list")]
    Unsigned {
        /// Valid signatures of distinct keys.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// Too old, or from the future.
    #[error("the deny list was issued at {}, it is {}, and it may be {max_age} old", timestamp::format(*at), timestamp::format(*now))]
    Stale {
        /// When it was issued.
        at: OffsetDateTime,
        /// The time now.
        now: OffsetDateTime,
        /// How old it may be.
        max_age: Lifetime,
    },
    /// An older one than was seen before.
    #[error("the deny list has version {version}, version {seen} was seen before")]
    RolledBack {
        /// Its version.
        version: u64,
        /// The highest version that was seen.
        seen: u64,
    },
}

impl DenyListError {
    /// The reason of the refusal that follows.
    pub fn code(&self) -> RefusalCode {
        match self {
            DenyListError::Missing => RefusalCode::DenyListMissing,
            DenyListError::Json(_)
            | DenyListError::Envelope(_)
            | DenyListError::PayloadType(_)
            | DenyListError::Form(_) => RefusalCode::DenyListInvalid,
            DenyListError::Unsigned { .. } => RefusalCode::DenyListUnsigned,
            DenyListError::Stale { .. } => RefusalCode::DenyListStale,
            DenyListError::RolledBack { .. } => RefusalCode::DenyListRolledBack,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            DenyListError::Missing => "name it: `deny_list` under [trust] in portcullis.toml, or --deny-list FILE",
            DenyListError::Json(_)
            | DenyListError::Envelope(_)
            | DenyListError::PayloadType(_)
            | DenyListError::Form(_) => "name the file that `portcullis trust deny` wrote",
            DenyListError::Unsigned { .. } => "have the keys under `denyList` of the trust policy sign it",
            DenyListError::Stale { .. } => {
                "fetch the newest deny list, or make it again with `portcullis trust deny`; check the clock of this machine"
            }
            DenyListError::RolledBack { .. } => "use the newest deny list",
        }
    }
}

impl From<DenyListError> for Refusal {
    fn from(error: DenyListError) -> Self {
        Refusal::new(error.code(), error.to_string(), error.hint())
    }
}

impl DenyListRule {
    /// The keys as a set that can sign.
    pub(super) fn signers(&self) -> Roots {
        Roots { roots: self.keys.clone(), threshold: self.threshold }
    }
}

impl DenyListDocument {
    /// Reads an unsigned document.
    pub fn parse(bytes: &[u8]) -> Result<Self, DenyListError> {
        Self::from_payload(bytes)
    }

    fn from_payload(bytes: &[u8]) -> Result<Self, DenyListError> {
        let form = |what: String| DenyListError::Form(Excerpt(&what).to_string());
        let document: Self =
            serde_json::from_value(json::parse(bytes, DENY_LIST_BYTES)?).map_err(|error| form(error.to_string()))?;
        if document.version == 0 {
            return Err(form("version must be at least 1".to_owned()));
        }
        if document.deny.len() > TRUST_ENTRIES {
            return Err(form(format!("it has more than {TRUST_ENTRIES} entries")));
        }
        match document.deny.iter().position(|deny| !deny.is_sound()) {
            Some(index) => Err(form(format!("deny[{index}].revisions: min is greater than max"))),
            None => Ok(document),
        }
    }

    /// Indented JSON with a line end.
    pub fn to_json(&self) -> Vec<u8> {
        // INVARIANT: texts, numbers and lists of them always have a JSON form.
        json::pretty(self).unwrap_or_default()
    }

    /// Signs it with one key; signatures of others over the same content in `existing` are kept.
    pub fn sign(&self, existing: Option<&[u8]>, key: &SecretKey) -> Result<Vec<u8>, DenyListError> {
        let form = |error: serde_json::Error| DenyListError::Form(error.to_string());
        let public = key.public().require(KeyKind::Root).map_err(|error| DenyListError::Form(error.to_string()))?;
        let payload = serde_json::to_vec(self).map_err(form)?;
        Self::from_payload(&payload)?;
        let mut signatures: Vec<EnvelopeSignature> = match existing {
            Some(bytes) => {
                let envelope = Envelope::parse(bytes, DENY_LIST_BYTES)?;
                if envelope.payload() == payload { envelope.signatures().to_vec() } else { Vec::new() }
            }
            None => Vec::new(),
        };
        let keyid = public.to_string();
        signatures.retain(|signature| signature.keyid != keyid);
        signatures.push(EnvelopeSignature { keyid, sig: key.sign(&pae(DENY_LIST_TYPE, &payload)).to_vec() });
        json::pretty(&Envelope::new(DENY_LIST_TYPE, payload, signatures)).map_err(form)
    }

    /// The content of a signed deny list, without any check: for showing and editing, never for deciding.
    pub fn read_signed(bytes: &[u8]) -> Result<Self, DenyListError> {
        Self::from_payload(envelope(bytes)?.payload())
    }
}

fn envelope(bytes: &[u8]) -> Result<Envelope, DenyListError> {
    let envelope = Envelope::parse(bytes, DENY_LIST_BYTES)?;
    if envelope.payload_type() == DENY_LIST_TYPE {
        Ok(envelope)
    } else {
        Err(DenyListError::PayloadType(Excerpt(envelope.payload_type()).to_string()))
    }
}

impl DenyList {
    /// Verifies a signed deny list by what the trust policy demands of it. Its age is looked at by [`DenyList::check_time`].
    pub fn verify(bytes: &[u8], rule: &DenyListRule, last_seen_version: Option<u64>) -> Result<Self, DenyListError> {
        let envelope = envelope(bytes)?;
        let found = rule.signers().count(&envelope);
        if found < rule.threshold || rule.threshold == 0 {
            return Err(DenyListError::Unsigned { found, needed: rule.threshold });
        }
        let document = DenyListDocument::from_payload(envelope.payload())?;
        match last_seen_version {
            Some(seen) if document.version < seen => Err(DenyListError::RolledBack { version: document.version, seen }),
            _ => Ok(Self { document, digest: Digest::of(envelope.payload()) }),
        }
    }

    /// Refuses a list that is too old. Checked at every use.
    pub fn check_time(&self, rule: &DenyListRule, now: OffsetDateTime) -> Result<(), DenyListError> {
        let at = self.document.issued_at;
        if now.saturating_add(CLOCK_SKEW) < at || now >= at.saturating_add(rule.max_age.duration()) {
            return Err(DenyListError::Stale { at, now, max_age: rule.max_age });
        }
        Ok(())
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.document.version
    }

    /// The digest of the signed content.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The content.
    pub fn document(&self) -> &DenyListDocument {
        &self.document
    }

    pub(crate) fn denied(&self, about: &About<'_>) -> Option<String> {
        self.document.deny.iter().find_map(|deny| deny.applies(about))
    }
}
