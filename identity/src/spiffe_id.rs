//! A SPIFFE ID (SPIFFE-ID section 2): `spiffe://<trust domain>[/<path>]`, parsed once. Refuses queries, fragments,
//! percent-encoding, empty and dot segments, trailing slashes and whatever is too long.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::excerpt::Excerpt;
use crate::limits::MAX_SPIFFE_ID_BYTES;
use crate::trust_domain::{TrustDomain, TrustDomainError};

/// A SPIFFE ID in its normal form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    /// Empty, or starts with `/`.
    path: String,
}

/// Why a text is no SPIFFE ID. The text's author erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Over [`MAX_SPIFFE_ID_BYTES`].
    #[error("a SPIFFE ID must not be longer than {MAX_SPIFFE_ID_BYTES} bytes")]
    TooLong,
    /// The scheme is not `spiffe`.
    #[error("{0} does not begin with spiffe://")]
    Scheme(Excerpt),
    /// The authority is no trust domain name.
    #[error("the trust domain is malformed: {0}")]
    TrustDomain(#[from] TrustDomainError),
    /// The path does not begin with a slash.
    #[error("the path {0} does not begin with '/'")]
    NoSlash(Excerpt),
    /// A trailing slash, or two in a row.
    #[error("the path {0} has an empty segment or a trailing slash")]
    EmptySegment(Excerpt),
    /// `.` or `..`.
    #[error("the path {0} has a segment '.' or '..'")]
    DotSegment(Excerpt),
    /// A character outside the set; queries, fragments and percent-encoding land here.
    #[error("the path {0} has a character other than a-z, A-Z, 0-9, '.', '-' and '_'")]
    Character(Excerpt),
}

impl SpiffeIdError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "a SPIFFE ID looks like spiffe://example.org/ns/shop/sa/cart"
    }
}

impl SpiffeId {
    /// The ID with this path in this trust domain. An empty path names the trust domain itself.
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, SpiffeIdError> {
        if SCHEME.len() + trust_domain.as_str().len() + path.len() > MAX_SPIFFE_ID_BYTES {
            return Err(SpiffeIdError::TooLong);
        }
        check_path(path)?;
        Ok(Self { trust_domain: trust_domain.clone(), path: path.to_owned() })
    }

    /// The ID of the trust domain itself, without a path.
    pub fn of_trust_domain(trust_domain: &TrustDomain) -> Self {
        Self { trust_domain: trust_domain.clone(), path: String::new() }
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Empty, or the path with its leading slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the ID names a workload: only the trust domain itself has no path.
    pub fn has_path(&self) -> bool {
        !self.path.is_empty()
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_SPIFFE_ID_BYTES {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = match text.split_at_checked(SCHEME.len()) {
            // SPIFFE-ID section 2: scheme and trust domain without regard to case, path with.
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
            _ => return Err(SpiffeIdError::Scheme(Excerpt::new(text))),
        };
        let (authority, path) = match rest.find('/').and_then(|at| rest.split_at_checked(at)) {
            Some(parts) => parts,
            None => (rest, ""),
        };
        Self::new(&authority.parse()?, path)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.trust_domain, self.path)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({self})")
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

fn check_path(path: &str) -> Result<(), SpiffeIdError> {
    if path.is_empty() {
        return Ok(());
    }
    let Some(segments) = path.strip_prefix('/') else {
        return Err(SpiffeIdError::NoSlash(Excerpt::new(path)));
    };
    for segment in segments.split('/') {
        match segment {
            "" => return Err(SpiffeIdError::EmptySegment(Excerpt::new(path))),
            "." | ".." => return Err(SpiffeIdError::DotSegment(Excerpt::new(path))),
            _ => {}
        }
        if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(SpiffeIdError::Character(Excerpt::new(path)));
        }
    }
    Ok(())
}

const SCHEME: &str = "spiffe://";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SpiffeId, SpiffeIdError> {
        text.parse()
    }

    #[test]
    fn id_01_another_scheme_no_domain_query_or_fragment_is_refused() {
        for text in
            ["", "spiffe:", "spiffe:/x/y", "https://example.org/a", "example.org/a", " spiffe://a/b", "spiffé://a/b"]
        {
            assert!(matches!(parse(text), Err(SpiffeIdError::Scheme(_))), "{text}");
        }
        for text in ["spiffe://", "spiffe:///path"] {
            assert_eq!(parse(text), Err(SpiffeIdError::TrustDomain(TrustDomainError::Empty)), "{text}");
        }
        for text in ["spiffe://example.org/a?b=c", "spiffe://example.org/a#b"] {
            assert!(matches!(parse(text), Err(SpiffeIdError::Character(_))), "{text}");
        }
        assert!(matches!(parse("spiffe://example.org?a"), Err(SpiffeIdError::TrustDomain(_))));
        assert!(matches!(parse("spiffe://example.org#a"), Err(SpiffeIdError::TrustDomain(_))));
    }

    #[test]
    fn id_02_user_info_and_ports_are_refused() {
        for text in
            ["spiffe://user@example.org/a", "spiffe://example.org:443/a", "spiffe://[::1]/a", "spiffe://a%2eb/c"]
        {
            assert!(matches!(parse(text), Err(SpiffeIdError::TrustDomain(_))), "{text}");
        }
        assert!(parse("spiffe://10.0.0.1/a").is_ok());
    }

    #[test]
    fn id_04_bad_paths_are_refused() {
        for text in
            ["spiffe://example.org/", "spiffe://example.org//a", "spiffe://example.org/a/", "spiffe://example.org/a//b"]
        {
            assert!(matches!(parse(text), Err(SpiffeIdError::EmptySegment(_))), "{text}");
        }
        for text in ["spiffe://example.org/.", "spiffe://example.org/a/..", "spiffe://example.org/./a"] {
            assert!(matches!(parse(text), Err(SpiffeIdError::DotSegment(_))), "{text}");
        }
        for text in [
            "spiffe://example.org/a%20b",
            "spiffe://example.org/ä",
            "spiffe://example.org/a b",
            "spiffe://example.org/a\0",
        ] {
            assert!(matches!(parse(text), Err(SpiffeIdError::Character(_))), "{text}");
        }
        assert!(parse("spiffe://example.org/.../a..b").is_ok());
        let domain = "example.org".parse().unwrap();
        assert!(matches!(SpiffeId::new(&domain, "a"), Err(SpiffeIdError::NoSlash(_))));
    }

    #[test]
    fn id_05_2048_bytes_pass_and_one_more_is_refused() {
        let text = format!("spiffe://example.org/{}", "a".repeat(MAX_SPIFFE_ID_BYTES - 21));
        assert_eq!(text.len(), MAX_SPIFFE_ID_BYTES);
        let id = parse(&text).unwrap();
        assert_eq!(parse(&format!("{text}a")), Err(SpiffeIdError::TooLong));
        assert_eq!(SpiffeId::new(id.trust_domain(), &format!("{}a", id.path())), Err(SpiffeIdError::TooLong));
    }

    #[test]
    fn id_06_case_counts_in_the_path_only() {
        let id = parse("SPIFFE://Example.ORG/Ns/a").unwrap();
        assert_eq!(id.to_string(), "spiffe://example.org/Ns/a");
        assert_ne!(id, parse("spiffe://example.org/ns/a").unwrap());
    }

    #[test]
    fn an_id_without_a_path_names_the_trust_domain() {
        let id = parse("spiffe://example.org").unwrap();
        assert!(!id.has_path());
        assert_eq!(id, SpiffeId::of_trust_domain(id.trust_domain()));
        assert_eq!(id.to_string(), "spiffe://example.org");
    }

    #[test]
    fn json_holds_the_text() {
        let id = parse("spiffe://example.org/a").unwrap();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, "\"spiffe://example.org/a\"");
        assert_eq!(serde_json::from_str::<SpiffeId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<SpiffeId>("\"spiffe://example.org/a/\"").is_err());
    }
}
