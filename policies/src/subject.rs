//! NATS subjects, canonical: literal ones that messages have, and patterns that grants and subscriptions have.
//!
//! Decides: which subjects a pattern covers, and whether two patterns have a subject in common. Refuses what servers and
//! clients read differently (empty tokens, white space, wildcards within a token) and knows which subjects are nobody's to
//! have: those of the server and of JetStream (`$..`), inboxes, and the host's own.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::limits::{SUBJECT_BYTES, SUBJECT_TOKENS};

/// A subject without wildcards.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(String);

/// A subject that may have wildcards: `*` for one token, `>` at the end for one or more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectPattern(String);

/// Why text is no subject. Whoever wrote it erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Nothing, or nothing between two dots.
    #[error("a token is empty")]
    EmptyToken,
    /// Not printable ASCII, or white space.
    #[error("a character that subjects here do not have (white space, control, not ASCII)")]
    Character,
    /// `*` or `>` where it is not a token of its own, `>` not at the end, or a wildcard in a literal subject.
    #[error("a wildcard where it cannot be")]
    Wildcard,
    /// Over [`SUBJECT_BYTES`] or [`SUBJECT_TOKENS`].
    #[error("it is longer than {SUBJECT_BYTES} bytes or {SUBJECT_TOKENS} tokens")]
    TooLong,
}

impl SubjectError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "write it as tokens between dots, such as orders.eu.new; `*` stands for one token, `>` at the end for the rest"
    }
}

impl Subject {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The patterns ending in `>` that cover it, the narrowest first: what it is a member of.
    pub fn parents(&self) -> impl Iterator<Item = String> {
        parents(&self.0)
    }

    /// Whether it is an inbox: a subject for one answer, made by whoever asks.
    pub fn is_inbox(&self) -> bool {
        is_inbox(first(&self.0))
    }

    /// Whether it is of the server, of JetStream, an inbox or the host's own: nobody's to be granted.
    pub fn is_reserved(&self) -> bool {
        is_reserved(first(&self.0))
    }
}

impl SubjectPattern {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a message with this subject matches.
    pub fn covers(&self, subject: &Subject) -> bool {
        // A reserved subject is matched by patterns that spell its first token out: `>` is not a key to the server.
        if subject.is_reserved() && first(&self.0) != first(&subject.0) {
            return false;
        }
        covers(&self.0, &subject.0)
    }

    /// Whether every subject that the other covers is covered by this one.
    pub fn covers_all_of(&self, other: &Self) -> bool {
        if is_reserved(first(&other.0)) && first(&self.0) != first(&other.0) {
            return false;
        }
        covers(&self.0, &other.0)
    }

    /// Whether there is a subject that both cover.
    pub fn overlaps(&self, other: &Self) -> bool {
        overlaps(&self.0, &other.0)
    }

    /// The patterns ending in `>` that cover all of it, the narrowest first; not itself.
    pub fn parents(&self) -> impl Iterator<Item = String> {
        parents(&self.0).filter(|parent| *parent != self.0)
    }

    /// Whether it covers, or could cover, a reserved subject by its first token.
    pub fn reaches_reserved(&self) -> bool {
        is_reserved(first(&self.0))
    }

    /// Whether it has no wildcard.
    pub fn is_literal(&self) -> bool {
        self.0.split('.').all(|token| !is_wildcard(token))
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        check(text, false).map(|()| Self(text.to_owned()))
    }
}

impl FromStr for SubjectPattern {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        check(text, true).map(|()| Self(text.to_owned()))
    }
}

impl From<Subject> for SubjectPattern {
    fn from(subject: Subject) -> Self {
        Self(subject.0)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SubjectPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for SubjectPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

fn check(text: &str, wildcards: bool) -> Result<(), SubjectError> {
    if text.len() > SUBJECT_BYTES || text.split('.').count() > SUBJECT_TOKENS {
        return Err(SubjectError::TooLong);
    }
    let mut tokens = text.split('.').peekable();
    while let Some(token) = tokens.next() {
        let is_last = tokens.peek().is_none();
        match token {
            "" => return Err(SubjectError::EmptyToken),
            "*" if wildcards => {}
            ">" if wildcards && is_last => {}
            _ if token.contains(['*', '>']) => return Err(SubjectError::Wildcard),
            _ if !token.bytes().all(|b| b.is_ascii_graphic()) => return Err(SubjectError::Character),
            _ => {}
        }
    }
    Ok(())
}

/// Whether every literal subject under `other` (a subject or a pattern) is under `pattern`.
fn covers(pattern: &str, other: &str) -> bool {
    let (mut pattern, mut other) = (pattern.split('.'), other.split('.'));
    loop {
        match (pattern.next(), other.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            // `>` stands for more than any one token.
            (Some(_), Some(">")) => return false,
            (Some("*"), Some(_)) => {}
            (Some(one), Some(two)) if one == two => {}
            _ => return false,
        }
    }
}

fn overlaps(one: &str, two: &str) -> bool {
    let (mut one, mut two) = (one.split('.'), two.split('.'));
    loop {
        match (one.next(), two.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(one), Some(two)) if one == two => {}
            _ => return false,
        }
    }
}

fn parents(text: &str) -> impl Iterator<Item = String> {
    let ends = text.match_indices('.').map(|(at, _)| at).rev();
    ends.filter_map(|at| text.get(..at)).map(|prefix| format!("{prefix}.>"))
}

fn first(text: &str) -> &str {
    text.split('.').next().unwrap_or(text)
}

fn is_wildcard(token: &str) -> bool {
    matches!(token, "*" | ">")
}

/// First tokens that are nobody's: the server's and JetStream's, inboxes, ours.
fn is_reserved(first: &str) -> bool {
    first.starts_with('$') || is_inbox(first) || first == CONTROL
}

fn is_inbox(first: &str) -> bool {
    first.to_ascii_uppercase().starts_with("_INBOX")
}

/// The first token of the host's own subjects.
const CONTROL: &str = "portcullis";

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> SubjectPattern {
        text.parse().unwrap()
    }

    fn subject(text: &str) -> Subject {
        text.parse().unwrap()
    }

    #[test]
    fn malformed_subjects_are_refused() {
        for (text, why) in [
            ("", SubjectError::EmptyToken),
            (".a", SubjectError::EmptyToken),
            ("a.", SubjectError::EmptyToken),
            ("a..b", SubjectError::EmptyToken),
            ("a b", SubjectError::Character),
            ("a.\tb", SubjectError::Character),
            ("a.ü", SubjectError::Character),
            ("a.\u{0}", SubjectError::Character),
            ("a*", SubjectError::Wildcard),
            ("a.>b", SubjectError::Wildcard),
            (">.a", SubjectError::Wildcard),
            ("a.>.b", SubjectError::Wildcard),
        ] {
            assert_eq!(text.parse::<SubjectPattern>(), Err(why), "{text:?}");
            assert_eq!(text.parse::<Subject>(), Err(why), "{text:?}");
        }
        for text in ["*", ">", "a.*", "a.>"] {
            assert_eq!(text.parse::<Subject>(), Err(SubjectError::Wildcard), "{text:?}");
            assert!(text.parse::<SubjectPattern>().is_ok(), "{text:?}");
        }
    }

    #[test]
    fn limits_of_bytes_and_tokens_hold() {
        assert!("a".repeat(SUBJECT_BYTES).parse::<Subject>().is_ok());
        assert_eq!("a".repeat(SUBJECT_BYTES + 1).parse::<Subject>(), Err(SubjectError::TooLong));
        assert!(vec!["a"; SUBJECT_TOKENS].join(".").parse::<Subject>().is_ok());
        assert_eq!(vec!["a"; SUBJECT_TOKENS + 1].join(".").parse::<Subject>(), Err(SubjectError::TooLong));
    }

    #[test]
    fn reserved_subjects_are_not_reached_by_wildcards() {
        for text in [
            "$SYS.REQ.USER.INFO",
            "$JS.API.CONSUMER.CREATE.x",
            "$KV.b.k",
            "_INBOX.abc",
            "_inbox.x",
            "_INBOX_me.x",
            "portcullis.control",
        ] {
            let reserved = subject(text);
            assert!(reserved.is_reserved(), "{text}");
            assert!(!pattern(">").covers(&reserved) && !pattern("*.>").covers(&reserved), "{text}");
            assert!(!pattern(">").covers_all_of(&SubjectPattern::from(reserved.clone())), "{text}");
            assert!(SubjectPattern::from(reserved.clone()).covers(&reserved), "{text}");
            assert!(SubjectPattern::from(reserved).reaches_reserved(), "{text}");
        }
        assert!(!subject("orders.$SYS").is_reserved());
        assert!(!pattern(">").reaches_reserved());
    }

    #[test]
    fn parents_are_the_patterns_that_cover_it() {
        let orders = subject("orders.eu.new");
        let parents: Vec<String> = orders.parents().collect();
        assert_eq!(parents, ["orders.eu.>", "orders.>"]);
        assert!(parents.iter().all(|parent| pattern(parent).covers(&orders)));
        assert_eq!(subject("orders").parents().count(), 0);
    }

    /// Every pattern of up to three tokens over a small alphabet, against what the definition says of every subject of up to
    /// four tokens.
    #[test]
    fn covering_and_overlap_agree_with_a_search_of_all_subjects() {
        let words = |alphabet: &[&str], most: usize| {
            let mut all: Vec<Vec<String>> = vec![vec![]];
            let mut found = Vec::new();
            for _ in 0..most {
                all = all
                    .iter()
                    .flat_map(|head| {
                        alphabet.iter().map(|word| head.iter().cloned().chain([(*word).to_owned()]).collect::<Vec<_>>())
                    })
                    .collect();
                found.extend(all.iter().map(|tokens| tokens.join(".")));
            }
            found
        };
        let subjects: Vec<Subject> = words(&["a", "b"], 4).iter().map(|text| subject(text)).collect();
        let patterns: Vec<SubjectPattern> =
            words(&["a", "b", "*", ">"], 3).iter().filter_map(|text| text.parse().ok()).collect();
        assert!(patterns.len() > 40 && subjects.len() == 30);
        let matched: Vec<Vec<bool>> =
            patterns.iter().map(|one| subjects.iter().map(|subject| one.covers(subject)).collect()).collect();
        for (one, of_one) in patterns.iter().zip(&matched) {
            for (two, of_two) in patterns.iter().zip(&matched) {
                let both = of_one.iter().zip(of_two).any(|(one, two)| *one && *two);
                assert_eq!(one.overlaps(two), both, "{one} and {two}");
                assert_eq!(two.overlaps(one), both, "{two} and {one}");
                let all = of_one.iter().zip(of_two).all(|(one, two)| *one || !*two);
                assert_eq!(one.covers_all_of(two), all, "{one} over {two}");
            }
        }
    }
}
