//! One line of the checklist: what the standard demands, of whom, and how it went.

use crate::evidence::Evidence;

/// How strongly the standard puts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Must,
    Should,
    /// Not in the standard: what clients in the field need.
    Practice,
}

/// Of whom it is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Issuer,
    Validator,
    Server,
}

/// One demand and the check of it.
#[derive(Debug)]
pub struct Item {
    pub id: &'static str,
    pub level: Level,
    pub side: Side,
    /// Document and section.
    pub clause: &'static str,
    pub what: &'static str,
    pub check: fn(&Evidence) -> Outcome,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Fail(String),
    /// Nothing was there that it could be checked on, and why.
    NotApplicable(&'static str),
    /// A test elsewhere shows it (`file::test`): it takes more than a Workload API socket.
    Elsewhere(&'static str),
}

impl Outcome {
    /// Passes where there is nothing to say against it.
    pub fn unless(against: Vec<String>) -> Self {
        if against.is_empty() { Self::Pass } else { Self::Fail(against.join("; ")) }
    }

    /// Passes where there is such a test; what it finds, its own run says.
    pub fn shown(evidence: &Evidence, test: &'static str) -> Self {
        if !evidence.is_ours {
            return Self::NotApplicable("not to be asked of a socket");
        }
        let (file, name) = test.split_once("::").expect("file::test");
        let text = std::fs::read_to_string(portcullis_tests::root().join(file)).unwrap_or_default();
        match text.contains(&format!("fn {name}(")) {
            true => Self::Elsewhere(test),
            false => Self::Fail(format!("there is no test {test}")),
        }
    }

    /// Passes where it holds.
    pub fn when(holds: bool, otherwise: impl Into<String>) -> Self {
        if holds { Self::Pass } else { Self::Fail(otherwise.into()) }
    }

    /// The word for a table.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "FAIL",
            Self::NotApplicable(_) => "n/a",
            Self::Elsewhere(_) => "pass",
        }
    }
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self::Pass,
            Err(why) => Self::Fail(why),
        }
    }
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::Practice => "practice",
        }
    }
}

impl Side {
    pub fn word(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Validator => "validator",
            Self::Server => "server",
        }
    }
}
