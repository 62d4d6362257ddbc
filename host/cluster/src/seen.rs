//! The highest versions seen: what makes an older manifest, list or set of policies refusable after a restart, whoever serves it.
//!
//! INVARIANT: a mark only rises. The same version with another content is refused like a lower one: a version says one thing.

use std::collections::BTreeMap;

use portcullis_signing::Digest;
use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentError};
use crate::limits::{DOCUMENT_BYTES, MANIFESTS};
use crate::place::Place;
use crate::token::ClusterName;

/// The marks of one host in one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    format: u32,
    cluster: ClusterName,
    marks: BTreeMap<String, Mark>,
}

/// What was seen at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The highest version.
    pub version: u64,
    /// The digest of its payload.
    pub payload: Digest,
}

/// What a version is, compared with what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Higher than any.
    New,
    /// The one that was seen.
    Same,
}

/// Why a version is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeenError {
    /// Lower than one that was seen.
    #[error("version {found} is lower than {seen}, which was seen here")]
    Lower {
        /// The version that came.
        found: u64,
        /// The highest one.
        seen: u64,
    },
    /// The same version said something else.
    #[error("version {0} says something else than it did")]
    OtherContent(u64),
    /// No room for another component.
    #[error("there are marks for {MANIFESTS} components already")]
    Full,
}

impl SeenError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Lower { .. } => "cluster.rolled-back",
            Self::OtherContent(_) => "cluster.version-reused",
            Self::Full => "cluster.too-many",
        }
    }
}

impl Seen {
    /// Nothing was seen.
    pub fn new(cluster: ClusterName) -> Self {
        Self { format: FORMAT, cluster, marks: BTreeMap::new() }
    }

    /// Reads what was kept. That of another cluster is no one's.
    pub fn parse(bytes: &[u8], cluster: &ClusterName) -> Result<Self, DocumentError> {
        let seen: Self = document::read("the marks of the cluster", bytes, 4 * DOCUMENT_BYTES)?;
        document::format("the marks of the cluster", seen.format, FORMAT)?;
        if seen.cluster != *cluster {
            let why = format!("is {}, this host is of {cluster}: name another state directory", seen.cluster);
            return Err(DocumentError::member("cluster", why));
        }
        if seen.marks.len() > MANIFESTS + 2 {
            return Err(DocumentError::member("marks", "are too many"));
        }
        Ok(seen)
    }

    /// Writes it.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// The mark of a place.
    pub fn mark(&self, place: &Place) -> Option<Mark> {
        self.marks.get(&place.statement()).copied()
    }

    /// Whether a version may be believed. Changes nothing.
    pub fn judge(&self, place: &Place, version: u64, payload: &Digest) -> Result<Verdict, SeenError> {
        match self.mark(place) {
            // What takes rights away, and what gives them, always has its place.
            None if matches!(place, Place::App(_)) && self.components() >= MANIFESTS => Err(SeenError::Full),
            None => Ok(Verdict::New),
            Some(mark) if version > mark.version => Ok(Verdict::New),
            Some(mark) if version < mark.version => Err(SeenError::Lower { found: version, seen: mark.version }),
            Some(mark) if *payload == mark.payload => Ok(Verdict::Same),
            Some(_) => Err(SeenError::OtherContent(version)),
        }
    }

    fn components(&self) -> usize {
        let others = [Place::Revoked, Place::Policy].iter().filter(|place| self.mark(place).is_some()).count();
        self.marks.len().saturating_sub(others)
    }

    /// The marks with this one raised; `None`: it is there already. To be on disk before the version has an effect.
    pub fn with(&self, place: &Place, version: u64, payload: Digest) -> Result<Option<Self>, SeenError> {
        if self.judge(place, version, &payload)? == Verdict::Same {
            return Ok(None);
        }
        let mut next = self.clone();
        next.marks.insert(place.statement(), Mark { version, payload });
        Ok(Some(next))
    }
}

const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> ClusterName {
        "prod".parse().unwrap()
    }

    fn app(name: &str) -> Place {
        Place::App(name.parse().unwrap())
    }

    #[test]
    fn a_lower_version_and_the_same_one_with_another_content_are_refused() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let seen = Seen::new(cluster()).with(&app("shop:cart"), 5, a).unwrap().unwrap();
        let seen = Seen::parse(&seen.to_json(), &cluster()).unwrap();
        assert_eq!(seen.judge(&app("shop:cart"), 5, &a), Ok(Verdict::Same));
        assert_eq!(seen.judge(&app("shop:cart"), 6, &b), Ok(Verdict::New));
        assert_eq!(seen.judge(&app("shop:cart"), 4, &a), Err(SeenError::Lower { found: 4, seen: 5 }));
        assert_eq!(seen.judge(&app("shop:cart"), 5, &b), Err(SeenError::OtherContent(5)));
        assert_eq!(seen.judge(&app("shop:other"), 1, &b), Ok(Verdict::New));
        assert!(seen.with(&app("shop:cart"), 4, a).is_err());
        assert_eq!(seen.with(&app("shop:cart"), 5, a), Ok(None));
        assert_eq!(seen.mark(&Place::Revoked), None);
    }

    #[test]
    fn damaged_marks_and_those_of_another_cluster_are_not_a_fresh_start() {
        let good = Seen::new(cluster()).to_json();
        assert!(Seen::parse(&good, &"other".parse().unwrap()).is_err());
        for bad in [
            "",
            "{}",
            r#"{"format":2,"cluster":"prod","marks":{}}"#,
            r#"{"format":1,"cluster":"prod","marks":{},"x":1}"#,
        ] {
            assert!(Seen::parse(bad.as_bytes(), &cluster()).is_err(), "{bad}");
        }
    }

    #[test]
    fn marks_have_an_end() {
        let mut seen = Seen::new(cluster());
        for n in 0..MANIFESTS {
            seen.marks.insert(app(&format!("a:b{n}")).statement(), Mark { version: 1, payload: Digest::of(b"") });
        }
        assert_eq!(seen.judge(&app("a:new"), 1, &Digest::of(b"")), Err(SeenError::Full));
        assert_eq!(seen.judge(&app("a:b1"), 2, &Digest::of(b"")), Ok(Verdict::New));
        assert!(Seen::parse(&seen.to_json(), &cluster()).is_ok(), "what may be kept can be read");
        // However many components there are, revocations and policies are taken, and take no component's place.
        for place in [Place::Revoked, Place::Policy] {
            seen = seen.with(&place, 1, Digest::of(b"")).unwrap().unwrap();
        }
        assert_eq!(seen.judge(&Place::Revoked, 2, &Digest::of(b"")), Ok(Verdict::New));
        assert_eq!(seen.judge(&app("a:new"), 1, &Digest::of(b"")), Err(SeenError::Full));
        assert!(Seen::parse(&seen.to_json(), &cluster()).is_ok(), "what may be kept can be read");
        seen.marks.remove(&app("a:b0").statement());
        assert_eq!(seen.judge(&app("a:new"), 1, &Digest::of(b"")), Ok(Verdict::New));
    }
}
