//! Why a trust policy is not used, and why one was not signed.

use time::OffsetDateTime;

use crate::envelope::EnvelopeError;
use crate::fields::Problem;
use crate::json::JsonError;
use crate::key::{KeyError, PublicKey};
use crate::refusal::{Refusal, RefusalCode};
use crate::timestamp;

/// Why a trust policy is not used. Its author erred, or somebody tampered; nothing is admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Not JSON.
    #[error("the trust policy cannot be read: {0}")]
    Json(#[from] JsonError),
    /// Not signed: a document where an envelope is needed, or something else.
    #[error("the trust policy is not a signed one: {0}")]
    Envelope(#[from] EnvelopeError),
    /// A signed document of another type.
    #[error("what is signed is a `{0}`, not a trust policy")]
    PayloadType(String),
    /// JSON of another form.
    #[error("the trust policy is malformed: {0}")]
    Form(String),
    /// It contradicts itself.
    #[error("the trust policy has problems: {}", list(problems))]
    Invalid {
        /// All that was found.
        problems: Vec<Problem>,
    },
    /// No root keys, or a threshold that no number of signatures can reach.
    #[error("with {roots} root keys a threshold of {threshold} makes no sense")]
    Roots {
        /// How many pinned root keys there are.
        roots: usize,
        /// How many must have signed.
        threshold: usize,
    },
    /// Too few signatures.
    #[error("{found} of the {needed} root keys needed have signed the trust policy")]
    Unsigned {
        /// Valid signatures of distinct pinned root keys.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// The roots that the document itself names have not signed it.
    #[error("{found} of the {needed} root keys that the trust policy itself demands have signed it")]
    OwnRoots {
        /// Valid signatures of distinct root keys of the document.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A change of root keys that too few of the old or of the new ones have signed.
    #[error(
        "a change of root keys was signed by {old} of the {old_needed} old and {new} of the {new_needed} new root keys needed"
    )]
    Rotation {
        /// Valid signatures of distinct old root keys.
        old: usize,
        /// How many are needed.
        old_needed: usize,
        /// Valid signatures of distinct new root keys.
        new: usize,
        /// How many are needed.
        new_needed: usize,
    },
    /// It is over.
    #[error("the trust policy expired at {}, it is {}", timestamp::format(*at), timestamp::format(*now))]
    Expired {
        /// When it expired.
        at: OffsetDateTime,
        /// The time now.
        now: OffsetDateTime,
    },
    /// It comes from the future.
    #[error("the trust policy was issued at {}, it is {}", timestamp::format(*at), timestamp::format(*now))]
    NotYet {
        /// When it was issued.
        at: OffsetDateTime,
        /// The time now.
        now: OffsetDateTime,
    },
    /// An older one than was seen before.
    #[error("the trust policy has version {version}, version {seen} was seen before")]
    RolledBack {
        /// Its version.
        version: u64,
        /// The highest version that was seen.
        seen: u64,
    },
}

impl TrustError {
    /// The reason of the refusal that follows.
    pub fn code(&self) -> RefusalCode {
        match self {
            TrustError::Json(_)
            | TrustError::Envelope(_)
            | TrustError::PayloadType(_)
            | TrustError::Form(_)
            | TrustError::Invalid { .. } => RefusalCode::TrustInvalid,
            TrustError::Roots { .. } => RefusalCode::TrustMissing,
            TrustError::Unsigned { .. } | TrustError::OwnRoots { .. } | TrustError::Rotation { .. } => {
                RefusalCode::TrustUnsigned
            }
            TrustError::Expired { .. } | TrustError::NotYet { .. } => RefusalCode::TrustStale,
            TrustError::RolledBack { .. } => RefusalCode::TrustRolledBack,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            TrustError::Json(_) | TrustError::Envelope(_) | TrustError::PayloadType(_) => {
                "name the file that `portcullis trust sign` wrote"
            }
            TrustError::Form(_) | TrustError::Invalid { .. } => {
                "correct the document and sign it again with `portcullis trust sign`"
            }
            TrustError::Roots { .. } => {
                "name the root keys that you trust: --root O..., and a threshold from 1 to their number"
            }
            TrustError::Unsigned { .. } => {
                "have the holders of the root keys sign with `portcullis trust sign`, and check --root"
            }
            TrustError::OwnRoots { .. } => {
                "have the root keys that the document names sign it with `portcullis trust sign`"
            }
            TrustError::Rotation { .. } => {
                "have the holders of the old and of the new root keys sign it with `portcullis trust rotate`"
            }
            TrustError::Expired { .. } => {
                "issue a new version with a later expiresAt and sign it with `portcullis trust sign`"
            }
            TrustError::NotYet { .. } => "check the clock of this machine",
            TrustError::RolledBack { .. } => {
                "use the newest signed trust policy; to take something back, issue a higher version"
            }
        }
    }

    pub(crate) fn form(error: &serde_json::Error) -> Self {
        TrustError::Form(crate::Excerpt(&error.to_string()).to_string())
    }
}

impl From<TrustError> for Refusal {
    fn from(error: TrustError) -> Self {
        Refusal::new(error.code(), error.to_string(), error.hint())
    }
}

/// Why a trust policy was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignTrustError {
    /// Not a root key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A root key that the document does not name.
    #[error("the document does not name {0} among its roots")]
    NotARoot(PublicKey),
    /// The file to add the signature to is not a signed trust policy.
    #[error("the existing signed trust policy cannot be used: {0}")]
    Existing(TrustError),
    /// The file to add the signature to holds another document that is not older.
    #[error(
        "the existing signed trust policy has version {existing} and another content; this document has version {version}"
    )]
    Version {
        /// Version of the existing one.
        existing: u64,
        /// Version of the document.
        version: u64,
    },
    /// The envelope could not be written as JSON.
    #[error("the signed trust policy could not be written: {0}")]
    Internal(String),
}

impl SignTrustError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            SignTrustError::Key(error) => error.hint(),
            SignTrustError::NotARoot(_) => "sign with a key that is listed under `roots`, or add this one there",
            SignTrustError::Existing(_) => "name another --out, or remove the damaged file",
            SignTrustError::Version { .. } => "raise `version` in the document: it must grow with every change",
            SignTrustError::Internal(_) => "this is a defect of portcullis; please report it",
        }
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
