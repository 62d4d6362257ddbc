//! Why an authority was not prepared, activated or tainted.

use crate::authority::{AuthorityId, AuthorityKind};
use crate::issuer_error::IssuerError;

/// Why a rotation did not happen. What was in force before is in force still.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// This kind is not issued here. Configuration.
    #[error("this issuer has no {0} authority")]
    Disabled(AuthorityKind),
    /// The caller erred.
    #[error("the {kind} authority {id} is already prepared")]
    AlreadyPrepared {
        /// What it signs.
        kind: AuthorityKind,
        /// Which one.
        id: AuthorityId,
    },
    /// The caller erred.
    #[error("no {0} authority is prepared")]
    NothingPrepared(AuthorityKind),
    /// The caller erred.
    #[error("there is no authority {0}")]
    Unknown(AuthorityId),
    /// The caller erred.
    #[error("the authority {0} is already tainted")]
    AlreadyTainted(AuthorityId),
    /// Too many rotations by force within one SVID's life.
    #[error("too many {0} authorities are still published for SVIDs that have not ended")]
    TooMany(AuthorityKind),
    /// The state could not be read or written, or a key not be made.
    #[error(transparent)]
    State(#[from] IssuerError),
}

impl RotationError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Disabled(_) => "turn it on in the configuration of [identity]",
            Self::AlreadyPrepared { .. } => "activate it",
            Self::NothingPrepared(_) => "prepare one first, or rotate, which does both",
            Self::Unknown(_) | Self::AlreadyTainted(_) => "take the id from `portcullis identity show`",
            Self::TooMany(_) => {
                "wait until the old ones are pruned, or taint them if they must not be trusted any more"
            }
            Self::State(error) => error.hint(),
        }
    }
}
