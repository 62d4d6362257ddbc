//! Who a role is for: an exact SPIFFE ID, or a template with named parts. Compared segment by segment, never by a pattern that
//! could reach across one. What a named part stands for is a plain token: it ends up in subjects.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::limits::{CAPTURE_BYTES, CAPTURES};
use crate::workload::WorkloadId;

/// A SPIFFE ID, or a template of SPIFFE IDs such as `spiffe://prod.example/portcullis/host/{host}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    text: String,
    trust_domain: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Capture(String),
}

/// What the named parts of a template stand for in one SPIFFE ID. Every value is a plain token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Captures(BTreeMap<String, String>);

/// How a SPIFFE ID and a template are to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    /// It is one of these.
    Yes(Captures),
    /// It would be, but for a part that is no plain token.
    NotToken(String),
    /// It is not.
    No,
}

/// The text is no SPIFFE ID and no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhoError {
    /// Not of the shape of a SPIFFE ID.
    #[error("not a SPIFFE ID of a workload, nor a template of one")]
    Shape,
    /// Braces that are not one whole segment.
    #[error(
        "a part in braces must be a whole segment: {{name}}, 1 to 16 lower-case letters and digits, beginning with a letter"
    )]
    Capture,
    /// A name twice, or more than [`CAPTURES`].
    #[error("a part in braces has the name of another, or there are more than {CAPTURES}")]
    Captures,
}

impl WhoError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "write spiffe://prod.example/ns/shop/sa/orders, or spiffe://prod.example/portcullis/host/{host}"
    }
}

impl Who {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Whether it is one SPIFFE ID.
    pub fn is_exact(&self) -> bool {
        self.captures().next().is_none()
    }

    /// The names of its parts in braces.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// Whether a SPIFFE ID is one of these, and what its parts are.
    pub(crate) fn matches(&self, id: &WorkloadId) -> Match {
        if id.trust_domain() != self.trust_domain {
            return Match::No;
        }
        let path = id.path().strip_prefix('/').unwrap_or_default();
        if path.split('/').count() != self.segments.len() {
            return Match::No;
        }
        let mut captures = BTreeMap::new();
        let mut not_token = None;
        for (segment, own) in path.split('/').zip(&self.segments) {
            match own {
                Segment::Literal(literal) if literal == segment => {}
                Segment::Literal(_) => return Match::No,
                Segment::Capture(name) if is_token(segment) => {
                    captures.insert(name.clone(), segment.to_owned());
                }
                Segment::Capture(name) => not_token = Some(name.clone()),
            }
        }
        match not_token {
            Some(name) => Match::NotToken(name),
            None => Match::Yes(Captures(captures)),
        }
    }

    /// Whether there is a SPIFFE ID that both match.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let meets = |(one, two): (&Segment, &Segment)| match (one, two) {
            (Segment::Literal(one), Segment::Literal(two)) => one == two,
            (Segment::Literal(text), Segment::Capture(_)) | (Segment::Capture(_), Segment::Literal(text)) => {
                is_token(text)
            }
            (Segment::Capture(_), Segment::Capture(_)) => true,
        };
        self.trust_domain == other.trust_domain
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(meets)
    }
}

impl Captures {
    /// What a part stands for.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromStr for Who {
    type Err = WhoError;

    fn from_str(text: &str) -> Result<Self, WhoError> {
        // With each part in braces replaced by a token, it must be a SPIFFE ID: one reader of those, not two.
        let rest = text.strip_prefix("spiffe://").ok_or(WhoError::Shape)?;
        let (domain, path) = rest.split_once('/').ok_or(WhoError::Shape)?;
        let (mut segments, mut plain, mut names) = (Vec::new(), format!("spiffe://{domain}"), Vec::new());
        for segment in path.split('/') {
            plain.push('/');
            if !segment.contains(['{', '}']) {
                segments.push(Segment::Literal(segment.to_owned()));
                plain.push_str(segment);
                continue;
            }
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or(WhoError::Capture)?;
            if !is_name(name) {
                return Err(WhoError::Capture);
            }
            if names.contains(&name) || names.len() >= CAPTURES {
                return Err(WhoError::Captures);
            }
            names.push(name);
            segments.push(Segment::Capture(name.to_owned()));
            plain.push('x');
        }
        let id: WorkloadId = plain.parse().map_err(|_| WhoError::Shape)?;
        Ok(Self { text: text.to_owned(), trust_domain: id.trust_domain().to_owned(), segments })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Who {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// What may stand in a subject without changing its shape: no dot, no space, no wildcard, nothing that servers fold.
pub(crate) fn is_token(text: &str) -> bool {
    (1..=CAPTURE_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The name of a part in braces.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=16).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(text: &str) -> Who {
        text.parse().unwrap()
    }

    fn id(text: &str) -> WorkloadId {
        text.parse().unwrap()
    }

    #[test]
    fn a_template_matches_whole_segments_and_says_what_they_are() {
        let hosts = who("spiffe://td-a.test/portcullis/host/{host}");
        let Match::Yes(captures) = hosts.matches(&id("spiffe://td-a.test/portcullis/host/h-1")) else { panic!() };
        assert_eq!(captures.get("host"), Some("h-1"));
        for other in [
            "spiffe://td-b.test/portcullis/host/h1",
            "spiffe://td-a.test/portcullis/host",
            "spiffe://td-a.test/portcullis/host/h1/x",
            "spiffe://td-a.test/portcullis/hosts/h1",
        ] {
            assert_eq!(hosts.matches(&id(other)), Match::No, "{other}");
        }
    }

    #[test]
    fn a_part_that_would_change_a_subject_is_no_token() {
        let hosts = who("spiffe://td-a.test/host/{host}");
        let long = "a".repeat(CAPTURE_BYTES + 1);
        for part in ["h1.h2", "H1", "h_1", "...", long.as_str()] {
            let id = id(&format!("spiffe://td-a.test/host/{part}"));
            assert_eq!(hosts.matches(&id), Match::NotToken("host".to_owned()), "{part}");
        }
        assert!(matches!(
            hosts.matches(&id(&format!("spiffe://td-a.test/host/{}", "a".repeat(CAPTURE_BYTES)))),
            Match::Yes(_)
        ));
        // What has wildcards or spaces is no SPIFFE ID in the first place.
        for part in ["*", ">", "h1 h2", "h1.>", "%2a"] {
            assert!(format!("spiffe://td-a.test/host/{part}").parse::<WorkloadId>().is_err(), "{part}");
        }
    }

    #[test]
    fn templates_that_are_no_templates_are_refused() {
        for (text, why) in [
            ("spiffe://{td}/host", WhoError::Shape),
            ("spiffe://td-a.test", WhoError::Shape),
            ("https://td-a.test/a", WhoError::Shape),
            ("spiffe://td-a.test/a//b", WhoError::Shape),
            ("spiffe://td-a.test/*", WhoError::Shape),
            ("spiffe://td-a.test/a{b}", WhoError::Capture),
            ("spiffe://td-a.test/{}", WhoError::Capture),
            ("spiffe://td-a.test/{A}", WhoError::Capture),
            ("spiffe://td-a.test/{a}/{a}", WhoError::Captures),
            ("spiffe://td-a.test/{a}/{b}/{c}/{d}/{e}", WhoError::Captures),
        ] {
            assert_eq!(text.parse::<Who>().unwrap_err(), why, "{text}");
        }
        assert!("spiffe://td-a.test/{a}/{b}/{c}/{d}".parse::<Who>().is_ok());
    }

    #[test]
    fn templates_overlap_where_one_id_matches_both() {
        let hosts = who("spiffe://a/host/{h}");
        assert!(hosts.overlaps(&who("spiffe://a/host/h1")));
        assert!(hosts.overlaps(&who("spiffe://a/{kind}/{name}")));
        // `h.1` is no token, so the template never matches it.
        assert!(!hosts.overlaps(&who("spiffe://a/host/h.1")));
        assert!(!hosts.overlaps(&who("spiffe://b/host/h1")));
        assert!(!hosts.overlaps(&who("spiffe://a/host/h1/x")));
    }
}
