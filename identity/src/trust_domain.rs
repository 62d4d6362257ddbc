//! The name of a trust domain (SPIFFE-ID section 2.1). Refuses user info, ports, percent-encoding and every character
//! outside `[a-z0-9.-_]`; names that look like IP addresses or DNS names get no special treatment.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::excerpt::Excerpt;
use crate::limits::MAX_TRUST_DOMAIN_BYTES;

/// A trust domain name, lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

/// Why a text is no trust domain name. The text's author erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustDomainError {
    /// Nothing there.
    #[error("a trust domain must not be empty")]
    Empty,
    /// Over [`MAX_TRUST_DOMAIN_BYTES`].
    #[error("a trust domain must not be longer than {MAX_TRUST_DOMAIN_BYTES} bytes")]
    TooLong,
    /// A character outside the set.
    #[error("{0} is no trust domain: only a-z, 0-9, '.', '-' and '_' are allowed")]
    Character(Excerpt),
}

impl TrustDomainError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "write the name alone, such as example.org: no scheme, port, user or path"
    }
}

impl TrustDomain {
    /// The name, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = TrustDomainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(TrustDomainError::Empty);
        }
        if text.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(TrustDomainError::TooLong);
        }
        // SPIFFE-ID section 2.1: parsed without regard to case, kept in lower case.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if !text.bytes().all(allowed) {
            return Err(TrustDomainError::Character(Excerpt::new(text)));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.0)
    }
}

impl Serialize for TrustDomain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_allowed_set_are_kept_in_lower_case() {
        for (text, kept) in [("example.org", "example.org"), ("EXAMPLE.org", "example.org"), ("a_b-c.9", "a_b-c.9")] {
            assert_eq!(text.parse::<TrustDomain>().unwrap().as_str(), kept);
        }
    }

    #[test]
    fn id_02_user_info_port_and_percent_encoding_are_refused() {
        for text in ["user@example.org", "example.org:8080", "ex%41mple.org", "exämple.org", "[::1]", "a b", "a/b"] {
            assert!(matches!(text.parse::<TrustDomain>(), Err(TrustDomainError::Character(_))), "{text}");
        }
    }

    #[test]
    fn id_03_names_that_look_like_addresses_are_just_names() {
        for text in ["127.0.0.1", "999.999.1.1", "..", "-"] {
            assert_eq!(text.parse::<TrustDomain>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn id_05_a_name_of_255_bytes_passes_and_one_more_is_refused() {
        assert!("a".repeat(MAX_TRUST_DOMAIN_BYTES).parse::<TrustDomain>().is_ok());
        let long = "a".repeat(MAX_TRUST_DOMAIN_BYTES + 1);
        assert_eq!(long.parse::<TrustDomain>(), Err(TrustDomainError::TooLong));
        assert_eq!("".parse::<TrustDomain>(), Err(TrustDomainError::Empty));
    }

    #[test]
    fn json_holds_the_name_and_is_parsed_like_text() {
        let domain: TrustDomain = serde_json::from_str("\"Example.org\"").unwrap();
        assert_eq!(serde_json::to_string(&domain).unwrap(), "\"example.org\"");
        assert!(serde_json::from_str::<TrustDomain>("\"a:1\"").is_err());
    }
}
