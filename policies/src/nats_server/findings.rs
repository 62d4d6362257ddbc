//! What is dangerous in a configuration, each with the reason and what to do.

mod accounts;
mod ends;
mod listeners;
mod operator;
mod secrets;
mod tls;
mod users;

use std::collections::BTreeSet;

use serde::Serialize;

use super::value::{Entry, Map, Value};
use crate::shown;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A way in, or a secret in the clear.
    Danger,
    /// Worth a look.
    Note,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// A stable name.
    pub code: &'static str,
    /// `FILE:LINE`, or the file where nothing is there to point at.
    pub place: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub hint: &'static str,
}

/// What is known besides the text.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The files that were read, the first one first.
    pub files: Vec<String>,
    /// Those of them that others on the machine can read.
    pub readable_by_others: Vec<String>,
    /// The version of the server, where it is known.
    pub version: Option<String>,
    /// The time, in seconds since 1970; absent: nothing is said about what ends.
    pub now: Option<i64>,
}

/// Everything that is dangerous, the worst first.
pub fn check(config: &Map, context: &Context) -> Vec<Finding> {
    let mut look = Look { config, context, found: Vec::new() };
    look.files();
    look.tls();
    look.listeners();
    look.secrets();
    look.timeout();
    look.users_and_ways();
    match (config.entry(&["operator", "operators", "trusted"]), config.map(AUTHORIZATION).and_then(callout_of)) {
        (Some(operator), callout) => look.operator(operator, callout),
        (None, Some(callout)) => look.accounts_mode(callout),
        (None, None) => look.add(
            Level::Danger,
            "callout.absent",
            None,
            "there is no auth_callout: logins are decided by this file alone",
            "`portcullis callout init` writes a configuration with one",
        ),
    }
    look.found.sort();
    look.found.dedup();
    look.found
}

struct Look<'a> {
    config: &'a Map,
    context: &'a Context,
    found: Vec<Finding>,
}

impl<'a> Look<'a> {
    fn add(
        &mut self,
        level: Level,
        code: &'static str,
        at: Option<&Entry>,
        reason: impl Into<String>,
        hint: &'static str,
    ) {
        let name = |file: usize| self.context.files.get(file).map_or("server.conf", String::as_str).to_owned();
        let place = at.map_or_else(|| name(0), |entry| format!("{}:{}", name(entry.file), entry.line));
        let reason = shown::inside(&reason.into(), 400);
        self.found.push(Finding { level, code, place, reason, hint });
    }

    fn danger(&mut self, code: &'static str, at: Option<&Entry>, reason: impl Into<String>, hint: &'static str) {
        self.add(Level::Danger, code, at, reason, hint);
    }

    fn files(&mut self) {
        for file in self.context.readable_by_others.clone() {
            let reason = format!("{file} can be read by everybody on the machine");
            self.danger("file.readable", None, reason, "chmod 600 it, or 640 with a group of the server's own");
        }
        if let Some(version) = self.context.version.clone()
            && !is_recent(&version)
        {
            let reason = format!("version {version} has known holes in what a callout rests on");
            self.danger("server.old", None, reason, "use 2.12.7 or later, or 2.14.0 or later");
        }
        let mut doubles = Vec::new();
        double_keys(self.config, &mut doubles);
        for entry in doubles {
            let reason = format!("`{}` is there twice in one block: the server takes the last", entry.key);
            self.add(Level::Danger, "key.twice", Some(entry), reason, "keep one");
        }
    }

    fn timeout(&mut self) {
        let authorization = self.config.map(AUTHORIZATION);
        let entry = authorization.and_then(|block| block.entry(&["timeout"]));
        let hint = "set authorization { timeout: 1.5 }";
        match entry.map(|entry| entry.value.seconds()) {
            Some(Some(seconds)) if (1.0..2.0).contains(&seconds) => {}
            Some(Some(seconds)) if seconds > 0.0 && seconds < 1.0 => {
                let reason = "authorization.timeout is below 1 s: a callout that has much to do answers too late, and nobody gets in";
                self.add(Level::Note, "auth.timeout", entry, reason, hint);
            }
            Some(Some(_)) => {
                let reason =
                    "authorization.timeout is 2 s or more: some clients take the server's first PING for being let in";
                self.danger("auth.timeout", entry, reason, hint);
            }
            Some(None) => self.danger("auth.timeout", entry, "authorization.timeout cannot be read", hint),
            None => {
                let reason = "authorization.timeout is not set: with TLS it is 3 s, and some clients take the server's first PING at 2 s for being let in";
                self.danger("auth.timeout", self.config.entry(AUTHORIZATION), reason, hint);
            }
        }
    }
}

fn callout_of(authorization: &Map) -> Option<&Entry> {
    authorization.entry(&["auth_callout", "auth_hook"])
}

/// Entries whose key an earlier one of the same map has.
fn double_keys<'a>(map: &'a Map, found: &mut Vec<&'a Entry>) {
    let mut seen = BTreeSet::new();
    for entry in &map.entries {
        if !seen.insert(entry.key.to_ascii_lowercase()) {
            found.push(entry);
        }
        for map in entry.value.elements().iter().filter_map(Value::as_map) {
            double_keys(map, found);
        }
    }
}

/// 2.12.7 and later of 2.12; 2.14.0 and later.
fn is_recent(version: &str) -> bool {
    let plain = version.trim().trim_start_matches('v');
    let plain = plain.split(['-', '+', ' ']).next().unwrap_or_default();
    let mut parts = plain.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten()) {
        (Some(2), Some(12), Some(patch)) => patch >= 7,
        (Some(2), Some(minor), Some(_)) => minor >= 14,
        (Some(major), Some(_), Some(_)) => major > 2,
        _ => false,
    }
}

const AUTHORIZATION: &[&str] = &["authorization", "authentication"];

#[cfg(test)]
mod tests;
