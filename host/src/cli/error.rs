//! A failed command: exit code, what happened, the next step. Rendered in one place, here.

use std::fmt;

/// Exit codes that this program gives of itself; those of a refused component come from `portcullis_signing::RefusalCode`.
/// They are an interface: once released they do not change.
pub mod exit {
    /// Our fault, or the machine's.
    pub const INTERNAL: u8 = 1;
    /// The command line or a file given to it is wrong.
    pub const USAGE: u8 = 2;
    /// No evidence.
    pub const EVIDENCE: u8 = 10;
    /// Bad signature.
    pub const SIGNATURE: u8 = 11;
    /// Claims do not match.
    pub const CLAIMS: u8 = 13;
    /// Expired or not yet valid.
    pub const TIME: u8 = 14;
    /// Revoked.
    pub const REVOKED: u8 = 16;
    /// Trust policy invalid or stale.
    pub const TRUST: u8 = 17;
    /// The other end cannot be reached.
    pub const TRANSPORT: u8 = 18;
    /// Denied by policy.
    pub const DENIED: u8 = 20;
    /// Bad configuration.
    pub const CONFIG: u8 = 64;
}

/// Why a command failed.
#[derive(Debug, Clone)]
pub struct CliError {
    exit: u8,
    code: String,
    message: String,
    hint: Option<String>,
    details: serde_json::Value,
}

impl CliError {
    /// An error with an exit code and a stable code.
    pub fn new(exit: u8, code: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { exit, code: code.to_owned(), message, hint: None, details: serde_json::Value::Null }
    }

    /// The command line, or a file named on it, is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(exit::USAGE, "usage", message)
    }

    /// Our fault, or the machine's.
    pub fn internal(message: impl ToString) -> Self {
        Self::new(exit::INTERNAL, "internal", message.to_string())
    }

    /// Adds the next step.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        self.hint = (!hint.is_empty()).then_some(hint);
        self
    }

    /// Adds machine-readable details.
    pub fn with_details(mut self, details: serde_json::Value) -> Self {
        self.details = details;
        self
    }

    /// Puts in front what the message is about: a file.
    pub fn about(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The exit code.
    pub fn exit(&self) -> u8 {
        self.exit
    }

    /// The stable code.
    #[cfg(test)]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The stable code.
    pub fn stable_code(&self) -> &str {
        &self.code
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The next step.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// For `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": { "exit": self.exit, "code": self.code, "message": self.message, "hint": self.hint, "details": self.details }
        })
    }
}

impl fmt::Display for CliError {
    /// `error: ...`, and after a blank line `hint: ...`. Text from outside is escaped, line by line, and cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", shown(&self.message))?;
        match &self.hint {
            Some(hint) => write!(f, "\n\nhint: {}", shown(hint)),
            None => Ok(()),
        }
    }
}

/// Printable text: control characters escaped but for line ends, cut at [`SHOWN`] characters.
pub fn shown(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(SHOWN)
        .flat_map(|c| {
            let keep = c == '\n' || !c.is_control();
            let escaped = (!keep).then(|| c.escape_default());
            keep.then_some(c).into_iter().chain(escaped.into_iter().flatten())
        })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

impl From<portcullis_signing::Refusal> for CliError {
    fn from(refusal: portcullis_signing::Refusal) -> Self {
        let details = serde_json::to_value(&refusal).unwrap_or_default();
        Self::new(refusal.code().exit_code(), refusal.code().as_str(), refusal.message())
            .with_hint(refusal.hint())
            .with_details(details)
    }
}

#[cfg(feature = "host")]
impl From<crate::config::ConfigError> for CliError {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::new(exit::CONFIG, "config.invalid", error.to_string())
            .with_hint("mend what is listed, then ask `portcullis config check --config FILE`")
    }
}

/// Longest text that is shown.
const SHOWN: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_steer_a_terminal_or_flood_it() {
        let error = CliError::usage(format!("\x1b[2J{}", "x".repeat(100_000))).with_hint("do\rthis");
        let text = error.to_string();
        assert!(!text.contains('\x1b') && !text.contains('\r'));
        assert!(text.len() < 10_000);
    }
}
