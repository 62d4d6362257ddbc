//! Policy texts as the operator wrote them, and what is wrong with them: all of it, with file, line and column.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::limits::PROBLEMS;
use crate::shown;

/// What a text is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// Grants, TOML.
    Grants,
    /// Raw Cedar policies.
    Cedar,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What to call it in messages, usually its path.
    pub name: String,
    /// The text.
    pub text: String,
    /// What it is written in.
    pub kind: SourceKind,
}

/// One thing that is wrong with a source. The operator erred.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LoadError {
    source: String,
    line: usize,
    column: usize,
    message: String,
    hint: String,
}

/// Everything that is wrong with a set of sources. None of them is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadErrors {
    errors: Vec<LoadError>,
    more: usize,
}

impl Source {
    /// A problem at a byte range of the text.
    pub(crate) fn problem(&self, at: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) -> LoadError {
        let (line, column) = self.place(at.start);
        LoadError { source: self.name.clone(), line, column, message: message.into(), hint: hint.into() }
    }

    /// The line of a byte offset, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.place(offset).0
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        // Characters, not bytes: continuation bytes of UTF-8 do not count.
        let column = 1 + before.iter().skip(line_start).filter(|b| **b & 0xc0 != 0x80).count();
        (line, column)
    }
}

impl LoadError {
    /// A problem with no place in a text.
    pub(crate) fn whole(source: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { source: source.to_owned(), line: 0, column: 0, message: message.into(), hint: hint.into() }
    }

    /// The source's name.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The line from 1; 0 where the source as a whole is meant.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column from 1, in characters; 0 where the source as a whole is meant.
    pub fn column(&self) -> usize {
        self.column
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl LoadErrors {
    pub(crate) fn new(mut errors: Vec<LoadError>) -> Self {
        errors.sort();
        errors.dedup();
        let more = errors.len().saturating_sub(PROBLEMS);
        errors.truncate(PROBLEMS);
        Self { errors, more }
    }

    /// The problems, by source, line and column.
    pub fn errors(&self) -> &[LoadError] {
        &self.errors
    }

    /// One line each.
    pub fn lines(&self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        self.errors.iter().map(ToString::to_string).chain(more).collect()
    }
}

/// `grants.toml:3:1: unknown key .. (hint: ..)`.
impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown::inside(&self.source, 256))?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", shown::inside(&self.message, 512))?;
        match self.hint.as_str() {
            "" => Ok(()),
            hint => write!(f, " (hint: {})", shown::inside(hint, 256)),
        }
    }
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl std::error::Error for LoadError {}
impl std::error::Error for LoadErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_line_and_column_in_characters() {
        let source = Source { name: "g.toml".to_owned(), text: "a = 1\nü = 2".to_owned(), kind: SourceKind::Grants };
        let at = source.text.find("= 2").unwrap();
        let problem = source.problem(&(at..at + 1), "no", "yes");
        assert_eq!(problem.to_string(), "g.toml:2:3: no (hint: yes)");
        assert_eq!(source.problem(&(999..1000), "no", "").line(), 2);
    }

    #[test]
    fn problems_are_listed_up_to_a_limit_and_then_counted() {
        let errors = (0..PROBLEMS + 5).map(|n| LoadError { line: n + 1, ..LoadError::whole("g", "no", "") }).collect();
        let errors = LoadErrors::new(errors);
        assert_eq!(errors.lines().len(), PROBLEMS + 1);
        assert_eq!(errors.lines().last().unwrap(), "and 5 more");
    }
}
