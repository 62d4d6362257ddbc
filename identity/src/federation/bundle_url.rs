//! The URL of a bundle endpoint (SPIFFE_Federation sections 5.1.1 and 5.2.1): `https`, no user information, no fragment. And
//! where a redirect from it leads.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use http::Uri;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::excerpt::Excerpt;
use crate::limits::MAX_BUNDLE_URL_BYTES;

/// Where a bundle is fetched.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BundleUrl {
    host: String,
    port: u16,
    target: String,
}

/// Why a text is no URL of a bundle endpoint. Its author erred: the configuration, or a server that redirects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleUrlError {
    /// Over [`MAX_BUNDLE_URL_BYTES`].
    #[error("the URL is longer than {MAX_BUNDLE_URL_BYTES} bytes")]
    TooLong,
    /// Not `https`.
    #[error("{0} is no https URL")]
    Scheme(Excerpt),
    /// A user or a password in it.
    #[error("a bundle URL must not have user information")]
    UserInfo,
    /// Cannot be parsed, has a fragment, or lacks a host.
    #[error("{0} is no URL of a bundle endpoint")]
    Malformed(Excerpt),
}

impl BundleUrlError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "write it like https://bundles.example.com:8443/bundle.json"
    }
}

impl BundleUrl {
    /// The host name or address, lower case; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path and query to ask for.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The value of the `Host` header.
    pub fn authority(&self) -> String {
        if self.port == HTTPS_PORT { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Whether both name the same host and port.
    pub fn same_server(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port
    }

    /// Where a `Location` header that was received from here leads (RFC 9110 section 10.2.2): absolute, or an absolute path.
    pub fn redirected(&self, location: &str) -> Result<Self, BundleUrlError> {
        if location.starts_with('/') && !location.starts_with("//") {
            return format!("https://{}{location}", self.authority()).parse();
        }
        location.parse()
    }
}

impl FromStr for BundleUrl {
    type Err = BundleUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_BUNDLE_URL_BYTES {
            return Err(BundleUrlError::TooLong);
        }
        let malformed = || BundleUrlError::Malformed(Excerpt::new(text));
        // The parser drops a fragment silently.
        if text.contains('#') || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(malformed());
        }
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        if uri.scheme_str() != Some("https") {
            return Err(BundleUrlError::Scheme(Excerpt::new(text)));
        }
        let authority = uri.authority().ok_or_else(malformed)?;
        if authority.as_str().contains('@') {
            return Err(BundleUrlError::UserInfo);
        }
        let host = authority.host().to_ascii_lowercase();
        let port = match authority.as_str().get(authority.host().len()..) {
            Some("") => HTTPS_PORT,
            Some(_) => authority.port_u16().filter(|port| *port > 0).ok_or_else(malformed)?,
            None => return Err(malformed()),
        };
        let is_name = host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b));
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        // The parser lets more through than a host has.
        if host.is_empty() || !(is_name || literal.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())) {
            return Err(malformed());
        }
        let target = uri.path_and_query().map_or("/", |found| found.as_str()).to_owned();
        Ok(Self { host, port, target })
    }
}

impl fmt::Display for BundleUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.target)
    }
}

impl fmt::Debug for BundleUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BundleUrl({self})")
    }
}

impl Serialize for BundleUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BundleUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

const HTTPS_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> BundleUrl {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_else() {
        assert_eq!(url("https://[::1]:90/x").to_string(), "https://[::1]:90/x");
        for text in ["https://=[::1]:90", "https://a[::1]/", "https://[x]/", "https://a%41/", "https://a,b/"] {
            assert!(text.parse::<BundleUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn fe_02_the_scheme_is_https_and_there_is_no_user_information() {
        for text in ["http://a/", "ftp://a/", "//a/", "a", "", "spiffe://a/b"] {
            assert!(text.parse::<BundleUrl>().is_err(), "{text}");
        }
        for text in ["https://u@a/", "https://u:p@a/", "https://@a/"] {
            assert_eq!(text.parse::<BundleUrl>(), Err(BundleUrlError::UserInfo), "{text}");
        }
    }

    #[test]
    fn malformed_urls_are_refused() {
        for text in [
            "https://",
            "https:///x",
            "https://a/#x",
            "https://a:0/",
            "https://a:/",
            "https://a:70000/",
            "https://a b/",
        ] {
            assert!(text.parse::<BundleUrl>().is_err(), "{text}");
        }
        let long = |bytes: usize| format!("https://a/{}", "x".repeat(bytes - 10)).parse::<BundleUrl>();
        assert!(long(MAX_BUNDLE_URL_BYTES).is_ok());
        assert_eq!(long(MAX_BUNDLE_URL_BYTES + 1), Err(BundleUrlError::TooLong));
    }

    #[test]
    fn host_port_and_target_are_taken_apart() {
        let found = url("https://Bundles.Example.com/a/b?c=d");
        assert_eq!((found.host(), found.port(), found.target()), ("bundles.example.com", 443, "/a/b?c=d"));
        assert_eq!(url("https://a").to_string(), "https://a/");
        assert_eq!(url("https://[::1]:8443/x").host(), "[::1]");
        assert_eq!(url("https://[::1]:8443/x").to_string(), "https://[::1]:8443/x");
    }

    #[test]
    fn fe_05_a_redirect_leads_to_a_bundle_url_or_nowhere() {
        let from = url("https://a:8443/x?y");
        assert_eq!(from.redirected("/z"), Ok(url("https://a:8443/z")));
        assert_eq!(from.redirected("https://b/z"), Ok(url("https://b/z")));
        for location in ["http://a/z", "//b/z", "z", "", "https://u@b/", "/z#x", "https://b/\r\nx"] {
            assert!(from.redirected(location).is_err(), "{location}");
        }
    }
}
