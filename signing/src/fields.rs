//! Reads a JSON object field by field and lists every problem, not the first: what a person who edits a file needs.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::excerpt::Excerpt;
use crate::limits::PROBLEMS;

/// One thing that is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Where: `component.name`; empty for the whole.
    pub at: String,
    /// What is wrong and what was expected.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.at, self.what) }
    }
}

/// The problems found so far; at most [`PROBLEMS`] are kept.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn add(&mut self, at: impl Into<String>, what: impl Into<String>) {
        if self.0.len() < PROBLEMS {
            self.0.push(Problem { at: at.into(), what: what.into() });
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}

/// An object whose keys are taken one after the other; those left over are unknown.
pub(crate) struct Fields {
    prefix: String,
    map: Map<String, Value>,
}

impl Fields {
    /// The object at `prefix`.
    pub(crate) fn open(prefix: &str, value: Value, problems: &mut Problems) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { prefix: prefix.to_owned(), map }),
            other => {
                problems.add(prefix, format!("is {}, expected an object", kind(&other)));
                None
            }
        }
    }

    /// A value of any form; `null` counts as absent.
    pub(crate) fn optional(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|value| !value.is_null())
    }

    /// A value of any form that must be there.
    pub(crate) fn required(&mut self, key: &str, problems: &mut Problems) -> Option<Value> {
        let value = self.optional(key);
        if value.is_none() {
            problems.add(self.path(key), "is missing");
        }
        value
    }

    /// A text of a certain form that must be there.
    pub(crate) fn text<T: FromStr<Err: fmt::Display>>(&mut self, key: &str, problems: &mut Problems) -> Option<T> {
        let value = self.required(key, problems)?;
        parse(&self.path(key), value, problems)
    }

    /// An object that must be there.
    pub(crate) fn object(&mut self, key: &str, problems: &mut Problems) -> Option<Self> {
        let value = self.required(key, problems)?;
        Self::open(&self.path(key), value, problems)
    }

    /// A whole number that must be there.
    pub(crate) fn number(&mut self, key: &str, problems: &mut Problems) -> Option<u64> {
        let value = self.required(key, problems)?;
        let number = value.as_u64();
        if number.is_none() {
            problems.add(self.path(key), format!("is {}, expected a whole number from 0", kind(&value)));
        }
        number
    }

    /// A list of at most `max` values. Absent counts as empty unless it is demanded.
    pub(crate) fn list(
        &mut self,
        key: &str,
        demanded: bool,
        max: usize,
        problems: &mut Problems,
    ) -> Vec<(String, Value)> {
        let path = self.path(key);
        let value = if demanded { self.required(key, problems) } else { self.optional(key) };
        match value {
            None => Vec::new(),
            Some(Value::Array(values)) if values.len() > max => {
                problems.add(path, format!("has {} entries, at most {max} are allowed", values.len()));
                Vec::new()
            }
            Some(Value::Array(values)) => {
                values.into_iter().enumerate().map(|(index, value)| (format!("{path}[{index}]"), value)).collect()
            }
            Some(other) => {
                problems.add(path, format!("is {}, expected a list", kind(&other)));
                Vec::new()
            }
        }
    }

    /// A list of texts of a certain form, each once.
    pub(crate) fn texts<T: FromStr<Err: fmt::Display> + PartialEq>(
        &mut self,
        key: &str,
        demanded: bool,
        max: usize,
        problems: &mut Problems,
    ) -> Vec<T> {
        let mut found = Vec::new();
        for (path, value) in self.list(key, demanded, max, problems) {
            match parse(&path, value, problems) {
                Some(item) if found.contains(&item) => problems.add(path, "is there twice"),
                Some(item) => found.push(item),
                None => {}
            }
        }
        found
    }

    /// Every key that was not taken is a problem.
    pub(crate) fn finish(self, problems: &mut Problems) {
        for key in self.map.keys() {
            problems.add(self.path(&Excerpt(key).to_string()), "unknown key");
        }
    }

    fn path(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }
}

/// Parses a text value.
pub(crate) fn parse<T: FromStr<Err: fmt::Display>>(path: &str, value: Value, problems: &mut Problems) -> Option<T> {
    let Value::String(text) = value else {
        problems.add(path, format!("is {}, expected a text", kind(&value)));
        return None;
    };
    match text.parse() {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            problems.add(path, error.to_string());
            None
        }
    }
}

/// What a value is, without showing it.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
