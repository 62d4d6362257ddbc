//! One record, and the line it becomes.

use std::fmt::Write;
use std::io;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A record to be. Fields keep their order.
#[derive(Debug, Clone)]
pub struct Record {
    kind: String,
    reference: String,
    fields: Vec<(String, Value)>,
}

impl Record {
    /// A record of a kind, with a reference of its own.
    pub fn new(kind: &str) -> Self {
        Self { kind: kind.to_owned(), reference: ulid::Ulid::generate().to_string(), fields: Vec::new() }
    }

    /// Uses this reference.
    pub fn reference(mut self, reference: &str) -> Self {
        reference.clone_into(&mut self.reference);
        self
    }

    /// Adds a field. A name that the log itself uses gets an underscore.
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        let own = OWN.contains(&name) || self.fields.iter().any(|(other, _)| other == name);
        let name = if own { format!("{name}_") } else { name.to_owned() };
        self.fields.push((name, value.into()));
        self
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its reference.
    pub fn shown_reference(&self) -> &str {
        &self.reference
    }

    /// A field that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name)?.1.as_str()
    }

    /// The line with its end, and its hash.
    pub(super) fn line(&self, seq: u64, now: OffsetDateTime, prev: &str) -> io::Result<(Vec<u8>, String)> {
        let mut body = self.body(seq, now, prev, usize::MAX)?;
        if body.len() > RECORD_BYTES {
            body = self.body(seq, now, prev, CUT_CHARS)?;
        }
        if body.len() > RECORD_BYTES {
            let short = Self { fields: vec![("fields_left_out".to_owned(), true.into())], ..self.clone() };
            body = short.body(seq, now, prev, CUT_CHARS)?;
        }
        let hash = hash(body.as_bytes());
        body.truncate(body.len().saturating_sub(1));
        let _ = writeln!(body, r#","hash":"{hash}"}}"#);
        Ok((body.into_bytes(), hash))
    }

    fn body(&self, seq: u64, now: OffsetDateTime, prev: &str, longest: usize) -> io::Result<String> {
        let millis = now.replace_nanosecond(u32::from(now.millisecond()) * 1_000_000).unwrap_or(now);
        let ts = millis.format(&Rfc3339).map_err(io::Error::other)?;
        let mut body =
            format!(r#"{{"v":1,"seq":{seq},"ts":"{ts}","kind":{},"ref":{}"#, json(&self.kind)?, json(&self.reference)?);
        for (name, value) in &self.fields {
            let _ = write!(body, ",{}:{}", json(name)?, cut(value, longest));
        }
        let _ = write!(body, r#","prev":"{prev}"}}"#);
        Ok(body)
    }
}

/// SHA-256, hexadecimal.
pub fn hash(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn json(text: &str) -> io::Result<String> {
    serde_json::to_string(text).map_err(io::Error::other)
}

/// The value with every text in it at most `longest` characters long.
fn cut(value: &Value, longest: usize) -> Value {
    match value {
        Value::String(text) if text.chars().nth(longest).is_some() => {
            Value::String(text.chars().take(longest).chain(['…']).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(|item| cut(item, longest)).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(name, item)| (name.clone(), cut(item, longest))).collect())
        }
        other => other.clone(),
    }
}

/// Largest record, in bytes.
pub(super) const RECORD_BYTES: usize = 16 << 10;
/// Longest text in a record that would be larger.
const CUT_CHARS: usize = 512;
/// Members that the log writes itself.
const OWN: &[&str] = &["v", "seq", "ts", "kind", "ref", "prev", "hash"];
