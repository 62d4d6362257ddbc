//! What the supervisor admitted: an instance, its SPIFFE ID, and which component it runs. Plain facts; whether they are true
//! was decided before they came here.

use std::fmt;
use std::str::FromStr;

use crate::excerpt::Excerpt;
use crate::limits::MAX_INSTANCE_ID_BYTES;
use crate::spiffe_id::SpiffeId;

/// Names one run of a component on this host. Minted by the host, never derived from claims.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(String);

/// Why a text is no instance id. The caller erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstanceIdError {
    /// Empty or over [`MAX_INSTANCE_ID_BYTES`].
    #[error("an instance id has 1 to {MAX_INSTANCE_ID_BYTES} bytes")]
    Length,
    /// A character outside the set.
    #[error("{0} is no instance id: only a-z, A-Z, 0-9, '.', '-' and '_' are allowed")]
    Character(Excerpt),
}

/// An instance that was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The run.
    pub instance: InstanceId,
    /// What others authorise.
    pub spiffe_id: SpiffeId,
    /// Digest of the component's bytes, for the audit.
    pub digest: String,
    /// The component's name, for the audit.
    pub component: String,
    /// Whether its SVIDs may be handed out together with their private keys.
    pub exportable: bool,
}

impl InstanceIdError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "use the instance id that the host minted when it admitted the component"
    }
}

impl InstanceId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceId {
    type Err = InstanceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > MAX_INSTANCE_ID_BYTES {
            return Err(InstanceIdError::Length);
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(InstanceIdError::Character(Excerpt::new(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_ids_are_short_plain_names() {
        assert!("01JD3Z8Y6E5T4R3W2Q1A0S9D8F".parse::<InstanceId>().is_ok());
        assert!("a".repeat(MAX_INSTANCE_ID_BYTES).parse::<InstanceId>().is_ok());
        assert_eq!("a".repeat(MAX_INSTANCE_ID_BYTES + 1).parse::<InstanceId>(), Err(InstanceIdError::Length));
        assert_eq!("".parse::<InstanceId>(), Err(InstanceIdError::Length));
        for text in ["a/b", "a b", "a\n", "ä"] {
            assert!(matches!(text.parse::<InstanceId>(), Err(InstanceIdError::Character(_))), "{text:?}");
        }
    }
}
