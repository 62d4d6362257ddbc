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

/// A source and where its lines begin.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    source: &'a Source,
    starts: Vec<usize>,
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
    /// Finds lines and columns, quickly after the first time.
    pub(crate) fn places(&self) -> Places<'_> {
        let ends = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Places { source: self, starts }
    }
}

impl Places<'_> {
    /// The source.
    pub(crate) fn source(&self) -> &Source {
        self.source
    }

    /// A problem at a byte range of the text.
    pub(crate) fn problem(&self, at: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) -> LoadError {
        let line = self.line(at.start);
        let text = self.source.text.as_bytes();
        let before = text.get(..at.start).unwrap_or(text);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        // Characters, not bytes: continuation bytes of UTF-8 do not count.
        let column = 1 + before.iter().skip(start).take(COLUMNS).filter(|byte| **byte & 0xc0 != 0x80).count();
        LoadError { source: self.source.name.clone(), line, column, message: message.into(), hint: hint.into() }
    }

    /// The line of a byte offset, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).max(1)
    }
}

impl LoadError {
    /// A problem with no place in a text.
    pub(crate) fn whole(source: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { source: source.to_owned(), line: 0, column: 0, message: message.into(), hint: hint.into() }
    }

    /// A problem of what begins in this line.
    pub(crate) fn at_line(source: &str, line: usize, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { line, column: 1, ..Self::whole(source, message, hint) }
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

/// Columns are counted up to here: a line may be the whole file.
const COLUMNS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_line_and_column_in_characters() {
        let source = Source { name: "g.toml".to_owned(), text: "a = 1\nü = 2".to_owned(), kind: SourceKind::Grants };
        let at = source.text.find("= 2").unwrap();
        let problem = source.places().problem(&(at..at + 1), "no", "yes");
        assert_eq!(problem.to_string(), "g.toml:2:3: no (hint: yes)");
        assert_eq!(source.places().problem(&(999..1000), "no", "").line(), 2);
        let lines: Vec<usize> = [0, 5, 6, 7].iter().map(|at| source.places().line(*at)).collect();
        assert_eq!(lines, [1, 1, 2, 2]);
    }

    #[test]
    fn problems_are_listed_up_to_a_limit_and_then_counted() {
        let errors = (0..PROBLEMS + 5).map(|n| LoadError { line: n + 1, ..LoadError::whole("g", "no", "") }).collect();
        let errors = LoadErrors::new(errors);
        assert_eq!(errors.lines().len(), PROBLEMS + 1);
        assert_eq!(errors.lines().last().unwrap(), "and 5 more");
    }
}
