//! Subjects of roles: patterns with places that the named parts of a SPIFFE ID fill in. Filling in never changes the shape: a
//! part is one plain token, and a token has at most one place, so that two IDs never share a filled subject by accident.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::who::{Captures, is_name};
use crate::limits::QUEUE_BYTES;
use crate::subject::{SubjectError, SubjectPattern};

/// A subject such as `portcullis.prod.ctl.{host}.>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectTemplate {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    before: String,
    place: Option<(String, String)>,
}

/// A queue group: plain words, dots between them, as the group of a component's replicas has it (`component.shop.cart`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct QueueName(String);

/// Why text is no subject of a role. The operator erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No subject, even with the places filled in.
    #[error("{0}")]
    Subject(#[from] SubjectError),
    /// Braces that are not `{name}`.
    #[error("braces that are not {{name}}")]
    Braces,
    /// Two places in one token: `{{a}}-{{b}}` is the same for `x-y`, `z` and for `x`, `y-z`.
    #[error("two places in one token could be filled by different SPIFFE IDs to the same subject")]
    TwoPlaces,
    /// A queue group that is no plain word.
    #[error("not a queue group: letters, digits, dashes, underscores, and dots between them; 128 bytes at most")]
    Queue,
}

impl SubjectTemplate {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of its places.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter_map(|token| token.place.as_ref().map(|(name, _)| name.as_str()))
    }

    /// With the places filled in. `None` if one has nothing to fill it, or the result is longer than a subject may be.
    pub fn fill(&self, captures: &Captures) -> Option<SubjectPattern> {
        let filled: Option<Vec<String>> = self
            .tokens
            .iter()
            .map(|token| match &token.place {
                None => Some(token.before.clone()),
                Some((name, after)) => captures.get(name).map(|value| format!("{}{value}{after}", token.before)),
            })
            .collect();
        filled?.join(".").parse().ok()
    }

    /// As a template of a scoped signing key, where the server fills in what the tags of the user's JWT say.
    pub fn for_scope(&self) -> String {
        let token = |token: &Token| match &token.place {
            None => token.before.clone(),
            Some((name, after)) => format!("{}{{{{tag({name})}}}}{after}", token.before),
        };
        self.tokens.iter().map(token).collect::<Vec<_>>().join(".")
    }

    /// Every place filled with the same word: what is asked about the shape is asked of this.
    pub(crate) fn sample(&self) -> Option<SubjectPattern> {
        let token = |token: &Token| match &token.place {
            None => token.before.clone(),
            Some((_, after)) => format!("{}x{after}", token.before),
        };
        self.tokens.iter().map(token).collect::<Vec<_>>().join(".").parse().ok()
    }
}

impl FromStr for SubjectTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let tokens = text.split('.').map(token).collect::<Result<Vec<_>, _>>()?;
        let template = Self { text: text.to_owned(), tokens };
        let filled: Vec<String> = template
            .tokens
            .iter()
            .map(|token| match &token.place {
                None => token.before.clone(),
                Some((_, after)) => format!("{}x{after}", token.before),
            })
            .collect();
        filled.join(".").parse::<SubjectPattern>()?;
        Ok(template)
    }
}

fn token(text: &str) -> Result<Token, TemplateError> {
    let Some((before, rest)) = text.split_once('{') else {
        return match text.contains('}') {
            true => Err(TemplateError::Braces),
            false => Ok(Token { before: text.to_owned(), place: None }),
        };
    };
    let (name, after) = rest.split_once('}').ok_or(TemplateError::Braces)?;
    if !is_name(name) || before.contains('}') {
        return Err(TemplateError::Braces);
    }
    if after.contains(['{', '}']) {
        return Err(TemplateError::TwoPlaces);
    }
    Ok(Token { before: before.to_owned(), place: Some((name.to_owned(), after.to_owned())) })
}

impl QueueName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for QueueName {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let token = |token: &str| !token.is_empty() && token.bytes().all(plain);
        match text.len() <= QUEUE_BYTES && text.split('.').all(token) {
            true => Ok(Self(text.to_owned())),
            false => Err(TemplateError::Queue),
        }
    }
}

impl fmt::Display for SubjectTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for SubjectTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::who::{Match, Who};
    use super::*;

    fn captures(id: &str) -> Captures {
        let who: Who = "spiffe://td/{a}/{b}".parse().unwrap();
        let Match::Yes(captures) = who.matches(&id.parse().unwrap()) else { panic!("{id}") };
        captures
    }

    #[test]
    fn places_are_filled_in() {
        let template: SubjectTemplate = "lat.ctl.{a}.>".parse().unwrap();
        assert_eq!(template.fill(&captures("spiffe://td/h1/x")).unwrap().as_str(), "lat.ctl.h1.>");
        let inbox: SubjectTemplate = "_INBOX_{b}.>".parse().unwrap();
        assert_eq!(inbox.fill(&captures("spiffe://td/h1/x-2")).unwrap().as_str(), "_INBOX_x-2.>");
        assert_eq!(inbox.for_scope(), "_INBOX_{{tag(b)}}.>");
        assert_eq!("{c}.x".parse::<SubjectTemplate>().unwrap().fill(&captures("spiffe://td/h1/x")), None);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (text, why) in [
            ("", TemplateError::Subject(SubjectError::EmptyToken)),
            ("a..b", TemplateError::Subject(SubjectError::EmptyToken)),
            ("a b", TemplateError::Subject(SubjectError::Character)),
            ("a.>.b", TemplateError::Subject(SubjectError::Wildcard)),
            ("a.*{x}", TemplateError::Subject(SubjectError::Wildcard)),
            ("a.{", TemplateError::Braces),
            ("a.}", TemplateError::Braces),
            ("a.{}", TemplateError::Braces),
            ("a.{x y}", TemplateError::Braces),
            ("a.{{tag(x)}}", TemplateError::Braces),
            ("a.{x}-{y}", TemplateError::TwoPlaces),
        ] {
            assert_eq!(text.parse::<SubjectTemplate>().unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn a_queue_group_is_plain_words_and_no_pattern() {
        for text in ["workers-1", "component.shop.cart", &"q".repeat(QUEUE_BYTES)] {
            assert!(text.parse::<QueueName>().is_ok(), "{text}");
        }
        let long = "q".repeat(QUEUE_BYTES + 1);
        for text in ["", "a b", "*", ">", "a.*", "a.>", "a..b", ".a", "a.", "{host}", &long] {
            assert_eq!(text.parse::<QueueName>(), Err(TemplateError::Queue), "{text}");
        }
    }
}
