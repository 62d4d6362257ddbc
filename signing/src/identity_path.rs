//! The path of the SPIFFE ID that a component asks for, and patterns of it in delegations.
//!
//! Segments follow SPIFFE-ID section 2.2: letters, digits, `.`, `-`, `_`; not empty, not `.` or `..`. The trust domain is the host's.

use std::fmt;
use std::str::FromStr;

use crate::excerpt::serde_as_text;
use crate::limits::{IDENTITY_PATH_BYTES, IDENTITY_PATH_SEGMENTS};
use crate::malformed::Malformed;

/// Segments joined by `/`, without a slash at either end: `ns/demo/sa/greeter`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityPath(String);

/// An exact path, or with `/*` at the end everything below it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdentityPattern {
    path: IdentityPath,
    below: bool,
}

impl IdentityPath {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl IdentityPattern {
    /// Whether every path that `other` matches is matched by this one too.
    pub fn includes(&self, other: &Self) -> bool {
        self == other || (self.below && self.matches(&other.path))
    }

    /// Whether `path` is meant. Whole segments only.
    pub fn matches(&self, path: &IdentityPath) -> bool {
        if self.below {
            path.0.strip_prefix(&self.path.0).is_some_and(|rest| rest.starts_with('/'))
        } else {
            self.path == *path
        }
    }
}

fn is_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl FromStr for IdentityPath {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.len() <= IDENTITY_PATH_BYTES
            && text.split('/').count() <= IDENTITY_PATH_SEGMENTS
            && text.split('/').all(is_segment)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::new(
                "an identity path",
                "segments of letters, digits, `.`, `-`, `_` such as ns/demo/sa/greeter",
                text,
            ))
        }
    }
}

impl FromStr for IdentityPattern {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (path, below) = text.strip_suffix("/*").map_or((text, false), |path| (path, true));
        match path.parse() {
            Ok(path) => Ok(Self { path, below }),
            Err(_) => Err(Malformed::new(
                "a pattern of identity paths",
                "a path such as ns/demo/sa/greeter or ns/demo/sa/*",
                text,
            )),
        }
    }
}

impl fmt::Display for IdentityPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IdentityPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path, if self.below { "/*" } else { "" })
    }
}

impl fmt::Debug for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(IdentityPath, IdentityPattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_spiffe_forbids_are_refused() {
        let (deep, long) = (["a"; IDENTITY_PATH_SEGMENTS + 1].join("/"), "a".repeat(IDENTITY_PATH_BYTES + 1));
        for text in [
            "", "/", "/a", "a/", "a//b", "a/./b", "a/../b", "..", "a b", "a%2fb", "é", "a\0", "a/*", "a:b", &deep,
            &long,
        ] {
            assert!(text.parse::<IdentityPath>().is_err(), "{text}");
        }
        for text in [
            "ns/demo/sa/greeter",
            "a",
            "A.b-c_d/..e",
            &["a"; IDENTITY_PATH_SEGMENTS].join("/"),
            &"a".repeat(IDENTITY_PATH_BYTES),
        ] {
            assert!(text.parse::<IdentityPath>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_pattern_includes_what_is_no_wider() {
        let pattern = |text: &str| text.parse::<IdentityPattern>().unwrap();
        for (wide, narrow) in
            [("ns/a/*", "ns/a/*"), ("ns/*", "ns/a/*"), ("ns/*", "ns/a/b"), ("ns/a", "ns/a"), ("ns/a/*", "ns/a/b/*")]
        {
            assert!(pattern(wide).includes(&pattern(narrow)), "{wide} {narrow}");
        }
        for (narrow, wide) in [("ns/a/*", "ns/*"), ("ns/a", "ns/a/*"), ("ns/a/*", "ns/a"), ("ns/a/*", "ns/ab/*")] {
            assert!(!pattern(narrow).includes(&pattern(wide)), "{narrow} {wide}");
        }
    }

    #[test]
    fn a_pattern_covers_whole_segments() {
        let pattern = |text: &str| text.parse::<IdentityPattern>().unwrap();
        let path = |text: &str| text.parse::<IdentityPath>().unwrap();
        assert!(pattern("ns/demo/sa/*").matches(&path("ns/demo/sa/a")));
        assert!(pattern("ns/demo/*").matches(&path("ns/demo/sa/a")));
        assert!(pattern("ns/demo/sa/a").matches(&path("ns/demo/sa/a")));
        assert!(!pattern("ns/demo/sa/*").matches(&path("ns/demo/sa")));
        assert!(!pattern("ns/demo/*").matches(&path("ns/demos/sa/a")));
        assert!(!pattern("ns/demo").matches(&path("ns/demo/sa")));
        for text in ["*", "/*", "ns/*/sa", "ns/d*", "", "ns/*/*"] {
            assert!(text.parse::<IdentityPattern>().is_err(), "{text}");
        }
    }
}
