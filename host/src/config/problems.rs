//! All that is wrong with a configuration file, collected and said at once.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::cli::error::shown;

/// A configuration that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub struct ConfigError {
    path: PathBuf,
    problems: Vec<Problem>,
}

#[derive(Debug, Clone)]
struct Problem {
    key: String,
    why: String,
    hint: Option<&'static str>,
}

/// Collects problems.
#[derive(Debug)]
pub(super) struct Problems {
    path: PathBuf,
    found: Vec<Problem>,
}

impl Problems {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), found: Vec::new() }
    }

    pub(super) fn add(&mut self, key: &str, why: impl Into<String>, hint: Option<&'static str>) {
        self.found.push(Problem { key: key.to_owned(), why: why.into(), hint });
    }

    pub(super) fn toml(&mut self, key: &str, text: &str, error: &toml::de::Error) {
        let line = error.span().map(|span| text.get(..span.start).unwrap_or(text).matches('\n').count() + 1);
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        self.add(key, format!("{place}{}", error.message()), None);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn into_error(self) -> ConfigError {
        ConfigError { path: self.path, problems: self.found }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used:", self.path.display())?;
        for problem in &self.problems {
            let dot = if problem.key.is_empty() { "" } else { ": " };
            write!(f, "\n  {}{dot}{}", shown(&problem.key), shown(&problem.why))?;
            if let Some(hint) = problem.hint {
                write!(f, " ({hint})")?;
            }
        }
        Ok(())
    }
}
