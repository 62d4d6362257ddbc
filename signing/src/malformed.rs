//! The error of everything that is parsed from a short text: names, digests, versions, times, patterns.

use crate::excerpt::Excerpt;

/// A text that is not of the form that its place demands. Whoever wrote the text erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: expected {expected}")]
pub struct Malformed {
    what: &'static str,
    expected: &'static str,
    text: String,
}

impl Malformed {
    pub(crate) fn new(what: &'static str, expected: &'static str, text: &str) -> Self {
        Self { what, expected, text: Excerpt(text).to_string() }
    }

    /// What was expected instead.
    pub fn hint(&self) -> &'static str {
        self.expected
    }
}
