//! A statement with its payload in one JSON object, for places that hold one value: `{"statement": "...", "payload": "base64"}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::error::StatementError;
use crate::limits::{MAX_ENVELOPE_BYTES, MAX_STATEMENT_BYTES};

/// A statement and its payload, neither of them believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The token.
    pub statement: String,
    /// What it is about.
    pub payload: Vec<u8>,
}

impl Envelope {
    /// The envelope in these bytes.
    pub fn parse(json: &[u8]) -> Result<Self, StatementError> {
        if json.len() > MAX_ENVELOPE_BYTES {
            return Err(StatementError::TooLarge);
        }
        let text: Text = serde_json::from_slice(json).map_err(|_| StatementError::Malformed("it is no envelope"))?;
        if text.statement.len() > MAX_STATEMENT_BYTES {
            return Err(StatementError::TooLarge);
        }
        let payload =
            STANDARD.decode(&text.payload).map_err(|_| StatementError::Malformed("its payload is no base64"))?;
        Ok(Self { statement: text.statement, payload })
    }

    /// As it is written.
    pub fn to_json(&self) -> String {
        json!({ "statement": self.statement, "payload": STANDARD.encode(&self.payload) }).to_string()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    statement: String,
    payload: String,
}
