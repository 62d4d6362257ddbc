//! The `iss` of our JWT-SVIDs: the URL under which OIDC clients find the discovery document. An https URL without user, query
//! or fragment (OpenID Connect Discovery section 3), compared by them byte by byte.

use std::fmt;
use std::str::FromStr;

use crate::excerpt::Excerpt;
use crate::limits::MAX_ISSUER_BYTES;

/// An OIDC issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtIssuer(String);

/// Why a text is no issuer. Configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is no OIDC issuer: https://, a host, at most {MAX_ISSUER_BYTES} bytes, and no user, query, fragment or trailing /"
)]
pub struct JwtIssuerError(Excerpt);

impl JwtIssuer {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl JwtIssuerError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "give the URL that clients reach, such as https://identity.example.org"
    }
}

impl FromStr for JwtIssuer {
    type Err = JwtIssuerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || JwtIssuerError(Excerpt::new(text));
        let rest = text.strip_prefix("https://").ok_or_else(refused)?;
        let host = rest.split('/').next().unwrap_or_default();
        let plain =
            rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~' | b':' | b'/'));
        if text.len() > MAX_ISSUER_BYTES || host.is_empty() || host.starts_with(':') || rest.ends_with('/') || !plain {
            return Err(refused());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for JwtIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_a_plain_https_url() {
        for text in ["https://id.example.org", "https://id.example.org:8443/spiffe/prod"] {
            assert_eq!(text.parse::<JwtIssuer>().unwrap().as_str(), text);
        }
        let long = format!("https://{}", "a".repeat(MAX_ISSUER_BYTES));
        assert!(long.get(..MAX_ISSUER_BYTES).unwrap().parse::<JwtIssuer>().is_ok());
        for text in [
            "",
            "http://a",
            "https://",
            "https://a/",
            "https://a?b",
            "https://a#b",
            "https://u@a",
            "https://a b",
            "https://:1",
            "HTTPS://a",
            "https://\u{e4}",
            "https://a\"",
            &long,
        ] {
            assert!(text.parse::<JwtIssuer>().is_err(), "{text}");
        }
    }
}
