//! A set of policies as it is kept for a cluster: the texts of all its grants and Cedar files, as one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentError};
use crate::limits::{DOCUMENT_BYTES, POLICY_TEXTS, TEXT_BYTES};

/// The signed payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDocument {
    format: u32,
    version: u64,
    texts: Vec<PolicyText>,
}

/// One file of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// What complaints about it call it.
    pub name: String,
    /// `grants` or `cedar`.
    pub kind: PolicyKind,
    /// Its text.
    pub text: String,
}

/// What language a text is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyKind {
    /// Grants (TOML).
    Grants,
    /// Cedar.
    Cedar,
}

impl PolicyDocument {
    /// A set of this version.
    pub fn new(version: u64, texts: Vec<PolicyText>) -> Result<Self, DocumentError> {
        let set = Self { format: FORMAT, version, texts };
        set.check()?;
        match set.to_json().len() {
            size if size > DOCUMENT_BYTES => {
                Err(DocumentError::TooLarge { what: "the set of policies", most: DOCUMENT_BYTES })
            }
            _ => Ok(set),
        }
    }

    /// Reads a payload.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let set: Self = document::read("the set of policies", bytes, DOCUMENT_BYTES)?;
        document::format("the set of policies", set.format, FORMAT)?;
        set.check()?;
        Ok(set)
    }

    /// Writes the payload.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The version: a higher one replaces a lower one, never the other way.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The texts.
    pub fn texts(&self) -> &[PolicyText] {
        &self.texts
    }

    fn check(&self) -> Result<(), DocumentError> {
        if self.version == 0 {
            return Err(DocumentError::member("version", "begins with 1"));
        }
        if self.texts.is_empty() {
            return Err(DocumentError::member(
                "texts",
                "is empty: a set that denies everything says so with an empty grants file",
            ));
        }
        if self.texts.len() > POLICY_TEXTS {
            return Err(DocumentError::member("texts", format!("there are more than {POLICY_TEXTS}")));
        }
        let mut names = BTreeSet::new();
        for text in &self.texts {
            document::text("name", &text.name)?;
            if text.name.is_empty() || text.name.len() > TEXT_BYTES || !names.insert(&text.name) {
                return Err(DocumentError::member("name", "is empty, or that of two texts"));
            }
        }
        Ok(())
    }
}

const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> PolicyText {
        PolicyText { name: name.to_owned(), kind: PolicyKind::Grants, text: "version = 1\n".to_owned() }
    }

    #[test]
    fn a_set_is_read_as_it_was_written_and_has_an_end() {
        let set = PolicyDocument::new(7, vec![text("a"), text("b")]).unwrap();
        assert_eq!(PolicyDocument::parse(&set.to_json()).unwrap(), set);
        assert!(PolicyDocument::new(0, vec![text("a")]).is_err());
        assert!(PolicyDocument::new(1, Vec::new()).is_err());
        assert!(PolicyDocument::new(1, vec![text("a"), text("a")]).is_err());
        let many = |n: usize| (0..n).map(|n| text(&n.to_string())).collect();
        assert!(PolicyDocument::new(1, many(POLICY_TEXTS)).is_ok());
        assert!(PolicyDocument::new(1, many(POLICY_TEXTS + 1)).is_err());
        let large = PolicyText { text: "x".repeat(DOCUMENT_BYTES), ..text("a") };
        assert!(matches!(PolicyDocument::new(1, vec![large]), Err(DocumentError::TooLarge { .. })));
        for bad in [
            "",
            r#"{"format":1,"version":1}"#,
            r#"{"format":1,"version":1,"texts":[{"name":"a","kind":"rego","text":""}]}"#,
            r#"{"format":2,"version":1,"texts":[{"name":"a","kind":"cedar","text":""}]}"#,
            r#"{"format":1,"version":1,"texts":[{"name":"a","kind":"cedar","text":"","x":1}]}"#,
        ] {
            assert!(PolicyDocument::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
