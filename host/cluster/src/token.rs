//! Names of hosts and clusters: tokens of NATS subjects, so that no name can be read as two tokens or as a wildcard.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::TOKEN_BYTES;

/// A host's name within its cluster: the last segment of its SPIFFE ID, and a token of its subjects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(String);

/// A cluster's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(String);

/// Text that is no such name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {TOKEN_BYTES} characters of a-z, 0-9 and `-`")]
pub struct TokenError;

impl TokenError {
    /// What to do about it.
    pub fn hint(self) -> &'static str {
        "name it such as eu-west-1"
    }
}

fn check(text: &str) -> Result<String, TokenError> {
    let fits = !text.is_empty()
        && text.len() <= TOKEN_BYTES
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits { Ok(text.to_owned()) } else { Err(TokenError) }
}

macro_rules! token {
    ($name:ident) => {
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = TokenError;

            fn from_str(text: &str) -> Result<Self, TokenError> {
                check(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

token!(HostId);
token!(ClusterName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_could_read_otherwise_is_no_name() {
        for text in ["h1", "a", "0", "eu-west-1", &"x".repeat(TOKEN_BYTES)] {
            assert_eq!(text.parse::<HostId>().unwrap().to_string(), text);
        }
        for text in ["", "a.b", "*", ">", "a b", "A", "ä", "a/b", "a_b", "a\0", &"x".repeat(TOKEN_BYTES + 1)] {
            assert!(text.parse::<HostId>().is_err(), "{text:?}");
            assert!(text.parse::<ClusterName>().is_err(), "{text:?}");
        }
    }
}
