//! Why a source gave no identity, and who erred: the caller, the source's configuration, the source itself, or the way to it.

use crate::excerpt::Excerpt;
use crate::issuer::{AdmitError, IssueError};
use crate::spiffe_id::SpiffeId;
use crate::workload::InstanceId;

/// Why there is no SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Never admitted, or stopped. The caller erred.
    #[error("the instance {0} has no identity on this host")]
    UnknownInstance(InstanceId),
    /// It cannot begin. The caller erred.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// The built-in issuer gave none.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The source has no identity for this component, or no longer. Configuration of the source.
    #[error("the identity source issues no identity for {spiffe_id}: {said}")]
    NoIdentity {
        /// Who it should have been.
        spiffe_id: SpiffeId,
        /// What the source said.
        said: Excerpt,
    },
    /// The source says that the component is somebody else. Configuration of the source, or an attack.
    #[error("the identity source issues {found}, the verified claims say {expected}")]
    OtherIdentity {
        /// What follows from the verified claims.
        expected: SpiffeId,
        /// What the source gave.
        found: Excerpt,
    },
    /// What it gave is no SVID that can be used. The source erred.
    #[error("the identity source gave no usable SVID: {0}")]
    Invalid(Excerpt),
    /// Its SVIDs live longer than the grant allows. Configuration.
    #[error("the identity source gives SVIDs of {found} s, the grant allows {granted} s")]
    LongerThanGranted {
        /// Seconds left of what it gave.
        found: u64,
        /// Seconds that were granted.
        granted: u64,
    },
    /// It cannot be reached, and what is held has ended.
    #[error("the identity source cannot be reached: {0}")]
    Unavailable(Excerpt),
}

impl SourceError {
    /// A stable word for it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UnknownInstance(_) | Self::Issue(IssueError::UnknownInstance(_)) => "unknown-instance",
            Self::Admit(_) => "not-admitted",
            Self::Issue(_) => "not-issued",
            Self::NoIdentity { .. } => "no-identity-issued",
            Self::OtherIdentity { .. } => "identity-mismatch",
            Self::Invalid(_) => "source-invalid",
            Self::LongerThanGranted { .. } => "longer-than-granted",
            Self::Unavailable(_) => "source-unavailable",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::UnknownInstance(_) => "an identity exists from admission to stop: start the component again",
            Self::Admit(error) => error.hint(),
            Self::Issue(error) => error.hint(),
            Self::NoIdentity { .. } => {
                "register an entry for this SPIFFE ID at the source, with selectors such as portcullis:component:NAME"
            }
            Self::OtherIdentity { .. } => {
                "correct the SPIFFE ID of the source's entry, or the identity path in the signed claims: they must be equal"
            }
            Self::Invalid(_) => "see the source's log; the host takes ECDSA P-256 X.509-SVIDs that its bundle verifies",
            Self::LongerThanGranted { .. } => "shorten the life of the source's entry, or grant a longer one",
            Self::Unavailable(_) => "see that the source runs; the host tries again by itself",
        }
    }
}
