//! What went wrong, as the JSON that the greeter answers with: `error` always, `step` where a step failed, `code` and
//! `reference` for a refusal by the identity interfaces.

use guest_http::FetchError;
use serde_json::{Value, json};

use crate::portcullis::identity::types::Error;

/// A failed request and its status code.
#[derive(Debug)]
pub struct Failure {
    status: u16,
    body: Value,
}

impl Failure {
    /// The request itself is wrong.
    pub fn request(status: u16, error: &str) -> Self {
        Self { status, body: json!({ "error": error }) }
    }

    /// A step failed with a text.
    pub fn step(step: &str, text: impl AsRef<str>) -> Self {
        Self { status: 502, body: json!({ "error": format!("{step}: {}", text.as_ref()), "step": step }) }
    }

    /// An identity call failed.
    pub fn identity(step: &str, error: Error) -> Self {
        match error {
            Error::Denied(refusal) => Self {
                status: 403,
                body: json!({
                    "error": format!("{step}: denied, {} {}", refusal.code, refusal.reference),
                    "step": step,
                    "code": refusal.code,
                    "reference": refusal.reference,
                }),
            },
            Error::InvalidArgument(text) => Self::step(step, format!("invalid-argument, {text}")).with_status(400),
            Error::InvalidToken(text) => Self::step(step, format!("invalid-token, {text}")),
            Error::RateLimited(text) => Self::step(step, format!("rate-limited, {text}")).with_status(429),
            Error::Unavailable(text) => Self::step(step, format!("unavailable, {text}")),
        }
    }

    /// An outgoing request failed. `error` is the name of the error code and nothing else.
    pub fn fetch(step: &str, error: &FetchError) -> Self {
        let status = if error.is_refusal() { 403 } else { 502 };
        Self { status, body: json!({ "error": error.name(), "step": step }) }
    }

    /// The same failure as one of what stands behind this component.
    pub fn upstream(self) -> Self {
        self.with_status(502)
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn into_json(self) -> Value {
        self.body
    }

    fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }
}
