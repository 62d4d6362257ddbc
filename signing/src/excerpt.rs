//! Text from outside, made safe to show: escaped and cut.

use std::fmt;

use crate::limits::EXCERPT_CHARS;

/// Shows at most [`EXCERPT_CHARS`] characters; controls, invisible and direction-changing characters are escaped.
#[derive(Debug, Clone, Copy)]
pub struct Excerpt<'a>(pub &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for (position, c) in self.0.chars().enumerate() {
            if position == EXCERPT_CHARS {
                return f.write_str("..");
            }
            if (c.is_ascii_graphic() && c != '\\' && c != '`') || c == ' ' || (!c.is_ascii() && c.is_alphanumeric()) {
                f.write_char(c)?;
            } else {
                write!(f, "{}", c.escape_default())?;
            }
        }
        Ok(())
    }
}

/// `Serialize` through `Display` and `Deserialize` through `FromStr`.
macro_rules! serde_as_text {
    ($($name:ty),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(crate) use serde_as_text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_and_direction_marks_are_escaped() {
        assert_eq!(Excerpt("a\x1b[31m\u{202e}b").to_string(), "a\\u{1b}[31m\\u{202e}b");
        assert_eq!(Excerpt("größe 1").to_string(), "größe 1");
    }

    #[test]
    fn long_text_is_cut() {
        let shown = Excerpt(&"x".repeat(EXCERPT_CHARS + 1)).to_string();
        assert_eq!(shown, format!("{}..", "x".repeat(EXCERPT_CHARS)));
        assert_eq!(Excerpt(&"x".repeat(EXCERPT_CHARS)).to_string().len(), EXCERPT_CHARS);
    }
}
