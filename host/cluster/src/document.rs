//! Reading payloads: bounded, with every unknown member refused, and the one error that says what is wrong with them.

use serde::de::DeserializeOwned;

/// Why a payload cannot be used. Its author erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Over its limit.
    #[error("{what} is larger than {most} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// Not the JSON that it must be.
    #[error("{what} cannot be read: {why}")]
    Malformed {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// A member that says what cannot be.
    #[error("`{member}` {why}")]
    Member {
        /// Which.
        member: &'static str,
        /// Why.
        why: String,
    },
}

impl DocumentError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "make it smaller, or split it",
            Self::Malformed { .. } | Self::Member { .. } => "docs/cluster.md shows what it looks like",
        }
    }

    pub(crate) fn member(member: &'static str, why: impl Into<String>) -> Self {
        Self::Member { member, why: why.into() }
    }
}

/// Reads JSON of at most so many bytes.
pub(crate) fn read<T: DeserializeOwned>(what: &'static str, bytes: &[u8], most: usize) -> Result<T, DocumentError> {
    if bytes.len() > most {
        return Err(DocumentError::TooLarge { what, most });
    }
    serde_json::from_slice(bytes).map_err(|error| DocumentError::Malformed { what, why: cut(&error.to_string()) })
}

/// Checks the number of the format.
pub(crate) fn format(what: &'static str, found: u32, known: u32) -> Result<(), DocumentError> {
    if found == known {
        return Ok(());
    }
    Err(DocumentError::Malformed { what, why: format!("format {found} is not known here, {known} is") })
}

/// Checks a text that people wrote.
pub(crate) fn text(member: &'static str, text: &str) -> Result<(), DocumentError> {
    if text.len() > crate::limits::TEXT_BYTES || text.chars().any(char::is_control) {
        let why = format!("must have at most {} characters and no control ones", crate::limits::TEXT_BYTES);
        return Err(DocumentError::member(member, why));
    }
    Ok(())
}

/// Text from outside, escaped and cut.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}
