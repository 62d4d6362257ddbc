//! Why the identity process gave nothing, and whether that is its last word.

use portcullis_identity::rpc::{Denied, Failed};

/// Why the identity process gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Policy said no; it is in the audit log under the reference.
    #[error("denied {code}, reference {reference}")]
    Denied {
        /// Stable code.
        code: String,
        /// Reference of the audit record.
        reference: String,
    },
    /// The call could not be served.
    #[error("{message}")]
    Failed {
        /// Stable word.
        kind: String,
        /// For the operator.
        message: String,
    },
    /// The process did not answer.
    #[error("{0}")]
    Unavailable(String),
}

impl IdentityError {
    /// Whether it says that the instance is not to have what was asked for, and not that this cannot be told at the moment.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Failed { kind, .. } => REFUSALS.contains(&kind.as_str()),
            Self::Unavailable(_) => false,
        }
    }
}

/// By these words a source of identities refuses one.
const REFUSALS: [&str; 4] = ["no-identity-issued", "identity-mismatch", "longer-than-granted", "source-invalid"];

impl From<Denied> for IdentityError {
    fn from(denied: Denied) -> Self {
        IdentityError::Denied { code: denied.code, reference: denied.reference }
    }
}

impl From<Failed> for IdentityError {
    fn from(failed: Failed) -> Self {
        IdentityError::Failed { kind: failed.kind, message: failed.message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_taken_away_by_a_refusal_and_not_by_silence() {
        let failed = |kind: &str| IdentityError::Failed { kind: kind.to_owned(), message: String::new() };
        let denied = IdentityError::Denied { code: "I0202".to_owned(), reference: String::new() };
        assert!(denied.is_refusal() && REFUSALS.iter().all(|kind| failed(kind).is_refusal()));
        for kind in ["source-unavailable", "rate-limited", "not-admitted", "internal", ""] {
            assert!(!failed(kind).is_refusal(), "{kind}");
        }
        assert!(!IdentityError::Unavailable(String::new()).is_refusal());
    }
}
