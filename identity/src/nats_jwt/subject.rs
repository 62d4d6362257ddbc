//! Subjects that a token may give, and templates of them. Refuses what servers and clients read differently.

use std::fmt;
use std::str::FromStr;

use super::names::is_name;
use crate::limits::MAX_NATS_SUBJECT_BYTES;

/// A subject that may have wildcards, and no template's braces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(String);

/// A subject of a scoped signing key's template: tokens may be `{{tag(KEY)}}`, which the server fills from the user's tags.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectTemplate(String);

/// A queue group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue(String);

/// Why a text is no subject. Whoever wrote it erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Nothing, or nothing between two dots.
    #[error("a token of the subject is empty")]
    EmptyToken,
    /// Over [`MAX_NATS_SUBJECT_BYTES`].
    #[error("the subject is longer than {MAX_NATS_SUBJECT_BYTES} bytes")]
    TooLong,
    /// White space, control, not ASCII, or a brace.
    #[error("the subject has a character that is not printable ASCII, or a brace")]
    Character,
    /// `*` or `>` where it cannot be.
    #[error("a wildcard of the subject is not a token of its own, or '>' is not the last")]
    Wildcard,
    /// No plain name.
    #[error("the queue group is no plain name")]
    Queue,
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
}

impl SubjectTemplate {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        check(text, |token| token.contains(['{', '}']))?;
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for SubjectTemplate {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        check(text, |token| token.contains(['{', '}']) && !is_place(token))?;
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Queue {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(SubjectError::Queue) }
    }
}

impl From<Subject> for SubjectTemplate {
    fn from(subject: Subject) -> Self {
        Self(subject.0)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SubjectTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(text: &str, refused: impl Fn(&str) -> bool) -> Result<(), SubjectError> {
    if text.len() > MAX_NATS_SUBJECT_BYTES {
        return Err(SubjectError::TooLong);
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(SubjectError::Character);
    }
    let mut tokens = text.split('.').peekable();
    while let Some(token) = tokens.next() {
        match token {
            "" => return Err(SubjectError::EmptyToken),
            "*" => {}
            ">" if tokens.peek().is_none() => {}
            _ if token.contains(['*', '>']) => return Err(SubjectError::Wildcard),
            _ if refused(token) => return Err(SubjectError::Character),
            _ => {}
        }
    }
    Ok(())
}

/// `{{tag(key)}}`, with plain text around it.
fn is_place(token: &str) -> bool {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let Some((before, rest)) = token.split_once("{{tag(") else { return false };
    let Some((key, after)) = rest.split_once(")}}") else { return false };
    plain(before) && plain(after) && !key.is_empty() && plain(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_take_for_a_wildcard_stands_alone() {
        for text in ["a", "a.b", "*", ">", "a.*.c", "a.>", "$SYS.REQ.USER.INFO", "_INBOX_h1.>"] {
            assert_eq!(text.parse::<Subject>().unwrap().as_str(), text);
        }
        for text in ["a*", "*a", "a.>b", ">.a", "a.>.b", "a.b>"] {
            assert_eq!(text.parse::<Subject>(), Err(SubjectError::Wildcard), "{text}");
        }
        for text in ["", ".", "a.", ".a", "a..b"] {
            assert_eq!(text.parse::<Subject>(), Err(SubjectError::EmptyToken), "{text}");
        }
        for text in ["a b", "a\t", "a\n", "ä", "a\0", "a.{{tag(x)}}", "a{", "}"] {
            assert_eq!(text.parse::<Subject>(), Err(SubjectError::Character), "{text}");
        }
    }

    #[test]
    fn the_longest_subject_passes_and_one_more_byte_does_not() {
        assert!("a".repeat(MAX_NATS_SUBJECT_BYTES).parse::<Subject>().is_ok());
        assert_eq!("a".repeat(MAX_NATS_SUBJECT_BYTES + 1).parse::<Subject>(), Err(SubjectError::TooLong));
    }

    #[test]
    fn templates_have_places_for_tags_and_for_nothing_else() {
        for text in ["lat.{{tag(host)}}.>", "_INBOX_{{tag(host)}}.>", "a.b"] {
            assert_eq!(text.parse::<SubjectTemplate>().unwrap().as_str(), text);
        }
        for text in ["a.{{name()}}", "a.{{tag()}}", "a.{{tag(*)}}", "{{tag(a)}}{{tag(b)}}", "a.{{tag(a)", "a.{x}"] {
            assert!(text.parse::<SubjectTemplate>().is_err(), "{text}");
        }
        assert_eq!("a.{{tag(h)}}*".parse::<SubjectTemplate>(), Err(SubjectError::Wildcard));
    }

    #[test]
    fn queue_groups_are_plain() {
        assert!("workers".parse::<Queue>().is_ok());
        for text in ["", "a b", "*", ">", "a\n"] {
            assert_eq!(text.parse::<Queue>(), Err(SubjectError::Queue), "{text}");
        }
    }
}
