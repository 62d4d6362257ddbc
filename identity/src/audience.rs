//! For whom a JWT-SVID is. Printable ASCII without spaces, quotes and backslashes: what is compared is what is shown.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::excerpt::Excerpt;
use crate::limits::MAX_AUDIENCE_BYTES;

/// An audience of a JWT-SVID, compared byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Audience(String);

/// Why a text is no audience. The caller erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AudienceError {
    /// Nothing there.
    #[error("an audience must not be empty")]
    Empty,
    /// Over [`MAX_AUDIENCE_BYTES`].
    #[error("an audience must not be longer than {MAX_AUDIENCE_BYTES} bytes")]
    TooLong,
    /// A character outside the set.
    #[error("the audience {0} has a character that is not printable ASCII, or a quote or backslash")]
    Character(Excerpt),
}

impl AudienceError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "an audience is one name, such as vault or spiffe://example.org/ns/shop/sa/vault"
    }
}

impl Audience {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Audience {
    type Err = AudienceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(AudienceError::Empty);
        }
        if text.len() > MAX_AUDIENCE_BYTES {
            return Err(AudienceError::TooLong);
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\')) {
            return Err(AudienceError::Character(Excerpt::new(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Audience {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_uris_are_audiences() {
        for text in ["vault", "spiffe://example.org/a", "https://api.example.org/v1?x=y"] {
            assert_eq!(text.parse::<Audience>().unwrap().as_str(), text);
        }
        assert!("a".repeat(MAX_AUDIENCE_BYTES).parse::<Audience>().is_ok());
    }

    #[test]
    fn empty_long_and_unprintable_audiences_are_refused() {
        assert_eq!("".parse::<Audience>(), Err(AudienceError::Empty));
        assert_eq!("a".repeat(MAX_AUDIENCE_BYTES + 1).parse::<Audience>(), Err(AudienceError::TooLong));
        for text in [" ", "a b", "a\n", "\"", "\\", "ä", "\0"] {
            assert!(matches!(text.parse::<Audience>(), Err(AudienceError::Character(_))), "{text:?}");
        }
    }
}
