//! Text from outside, made fit to be shown: control and non-ASCII characters escaped, and cut.

use std::fmt;

use crate::limits::MAX_EXCERPT_CHARS;

/// Outside text in an error message.
#[derive(Clone, PartialEq, Eq)]
pub struct Excerpt(String);

impl Excerpt {
    /// The first characters of the text, escaped.
    pub fn new(text: &str) -> Self {
        let mut shown: String = text.chars().take(MAX_EXCERPT_CHARS).flat_map(char::escape_default).collect();
        if text.chars().nth(MAX_EXCERPT_CHARS).is_some() {
            shown.push_str("...");
        }
        Self(shown)
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_text_is_escaped_and_cut() {
        assert_eq!(Excerpt::new("a\n\x1b[31m\"").to_string(), "\"a\\n\\u{1b}[31m\\\"\"");
        let long = Excerpt::new(&"x".repeat(MAX_EXCERPT_CHARS + 1)).to_string();
        assert_eq!(long, format!("\"{}...\"", "x".repeat(MAX_EXCERPT_CHARS)));
        let fits = Excerpt::new(&"x".repeat(MAX_EXCERPT_CHARS)).to_string();
        assert!(!fits.contains("..."));
    }
}
