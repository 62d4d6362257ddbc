//! Why somebody may not connect: a value, its text made here. It is for the operator; the client is told nothing but that it may not.

use std::fmt;

use serde::Serialize;

use super::facts::{ConnectFacts, CredentialKind};
use crate::limits::DENIAL_BYTES;
use crate::shown;

/// A stable code: 01xx could not be decided, 02xx no role gives it, 03xx it is forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ConnectCode {
    /// The question did not fit the schema, or policies failed.
    #[serde(rename = "Q0101")]
    CannotDecide,
    /// Two roles give it: which account and which subjects is not for chance to say.
    #[serde(rename = "Q0104")]
    Ambiguous,
    /// No role names this SPIFFE ID.
    #[serde(rename = "Q0201")]
    NoRole,
    /// A role names it, but one of its conditions does not hold.
    #[serde(rename = "Q0202")]
    Condition,
    /// A part of the SPIFFE ID that goes into subjects is no plain token.
    #[serde(rename = "Q0203")]
    NotToken,
    /// A guard or an operator's `forbid`.
    #[serde(rename = "Q0301")]
    Forbidden,
}

/// A refusal.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectDenial {
    code: ConnectCode,
    workload: String,
    what: String,
    why: String,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl ConnectCode {
    /// The code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CannotDecide => "Q0101",
            Self::Ambiguous => "Q0104",
            Self::NoRole => "Q0201",
            Self::Condition => "Q0202",
            Self::NotToken => "Q0203",
            Self::Forbidden => "Q0301",
        }
    }
}

impl ConnectDenial {
    pub(super) fn new(code: ConnectCode, facts: &ConnectFacts, generation: u64, why: impl Into<String>) -> Self {
        let shown: Vec<&str> = facts
            .credentials
            .iter()
            .map(|kind| match kind {
                CredentialKind::X509 => "X.509-SVID",
                CredentialKind::Jwt => "JWT-SVID",
            })
            .collect();
        let proof = if facts.nkey.is_some() { ", nkey proof" } else { "" };
        let what = format!(
            "{} over {} from {}, {}{proof}",
            facts.kind.name(),
            facts.connection.name(),
            facts.ip.to_canonical(),
            if shown.is_empty() { "no credential".to_owned() } else { shown.join(" and ") }
        );
        let workload = shown::outside(facts.workload.as_str(), 256);
        Self { code, workload, what, why: why.into(), generation, nearest: None, fix: None }
    }

    pub(super) fn nearest(mut self, nearest: impl Into<String>) -> Self {
        self.nearest = Some(nearest.into());
        self
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The code.
    pub fn code(&self) -> ConnectCode {
        self.code
    }

    /// Why, in one line.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// What to do so that it may, where something can be done.
    pub fn hint(&self) -> &str {
        self.fix.as_deref().unwrap_or("none: no role can give this")
    }
}

impl fmt::Display for ConnectDenial {
    /// The whole refusal, at most 2 KiB, without a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!(
            "denied {}: `{}` may not connect to NATS\n  what     {}\n  why      {}; policy generation {}",
            self.code.as_str(),
            self.workload,
            self.what,
            shown::inside(&self.why, 400),
            self.generation
        );
        if let Some(nearest) = &self.nearest {
            text.push_str(&format!("\n  nearest  {}", shown::inside(nearest, 400)));
        }
        text.push_str(&format!("\n  fix      {}", shown::inside(self.hint(), 600)));
        if text.len() > DENIAL_BYTES {
            let end = (0..=DENIAL_BYTES - 2).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push_str("..");
        }
        f.write_str(&text)
    }
}
