//! What a bundle says it is about. For messages and labels: nothing in it is verified, and nothing is decided by it but that a
//! user is told of a mistake early.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_signing::{Digest, Excerpt};
use serde_json::Value;

/// A bundle as it presents itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// The digests of the files that it speaks of.
    pub subjects: Vec<Digest>,
    /// What kind of statement it is; absent where it signs a file alone.
    pub predicate_type: Option<String>,
    /// The media type: which version of the format.
    pub media_type: String,
}

impl Presented {
    /// Reads a bundle.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let bundle: Value = serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))?;
        let media_type = bundle.get("mediaType").and_then(Value::as_str).unwrap_or_default();
        let media_type = Excerpt(media_type).to_string();
        if let Some(digest) = bundle.pointer("/messageSignature/messageDigest/digest").and_then(Value::as_str) {
            let bytes = STANDARD.decode(digest).map_err(|_| "its digest is not base64".to_owned())?;
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let digest = Digest::from_hex(&hex).map_err(|error| error.to_string())?;
            return Ok(Self { subjects: vec![digest], predicate_type: None, media_type });
        }
        let payload = bundle.pointer("/dsseEnvelope/payload").and_then(Value::as_str).ok_or("it has no envelope")?;
        let payload = STANDARD.decode(payload).map_err(|_| "its payload is not base64".to_owned())?;
        let statement: Value =
            serde_json::from_slice(&payload).map_err(|error| format!("its payload is not JSON: {error}"))?;
        let subjects = statement.get("subject").and_then(Value::as_array).ok_or("it names no subject")?;
        let digest = |subject: &Value| Digest::from_hex(subject.pointer("/digest/sha256")?.as_str()?).ok();
        let predicate_type = statement.get("predicateType").and_then(Value::as_str);
        Ok(Self {
            subjects: subjects.iter().filter_map(digest).collect(),
            predicate_type: predicate_type.map(|text| Excerpt(text).to_string()),
            media_type,
        })
    }
}
