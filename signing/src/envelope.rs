//! DSSE envelopes (DSSE 1.0): a payload, its type, signatures over both.
//!
//! What is signed is the pre-authentication encoding of type and payload bytes, so no JSON is ever canonicalised. The
//! payload is decoded once; what was verified is what is parsed. Unknown fields are ignored, as envelope.md demands.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::excerpt::Excerpt;
use crate::json::{self, JsonError};
use crate::key::PublicKey;
use crate::limits::ROOT_KEYS;

/// A parsed envelope. Nothing in it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<EnvelopeSignature>,
}

/// One signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeSignature {
    /// A hint of which key made it. Not signed, proves nothing.
    pub keyid: String,
    /// The signature.
    pub sig: Vec<u8>,
}

/// Why bytes are not an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// JSON of another form.
    #[error("it is not a DSSE envelope: {0}")]
    Form(String),
    /// Payload or signature is not base64 in its one canonical form.
    #[error("its {0} is not base64")]
    Base64(&'static str),
    /// None, or more than can be useful.
    #[error("it has {0} signatures, 1 to {ROOT_KEYS} are accepted")]
    Signatures(usize),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    payload: String,
    payload_type: String,
    signatures: Vec<RawSignature>,
}

#[derive(Serialize, Deserialize)]
struct RawSignature {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
    sig: String,
}

/// The bytes that a DSSE signature covers.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// An envelope to be signed.
    pub fn new(payload_type: impl Into<String>, payload: Vec<u8>, signatures: Vec<EnvelopeSignature>) -> Self {
        Self { payload_type: payload_type.into(), payload, signatures }
    }

    /// Parses at most `max` bytes.
    pub fn parse(bytes: &[u8], max: usize) -> Result<Self, EnvelopeError> {
        Self::from_value(json::parse(bytes, max)?)
    }

    /// What kind of payload it claims to be. Signed.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload. Signed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signatures; at least one.
    pub fn signatures(&self) -> &[EnvelopeSignature] {
        &self.signatures
    }

    /// The bytes that its signatures cover.
    pub fn signed_bytes(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    /// Indented JSON with a line end.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        json::pretty(self)
    }

    /// Whether `signature` is `key`'s over this payload under this type.
    pub fn verify(&self, signature: &EnvelopeSignature, key: &PublicKey) -> bool {
        key.verify(&pae(&self.payload_type, &self.payload), &signature.sig)
    }

    pub(crate) fn from_value(value: Value) -> Result<Self, EnvelopeError> {
        let raw: Raw = serde_json::from_value(value)
            .map_err(|error| EnvelopeError::Form(Excerpt(&error.to_string()).to_string()))?;
        if !(1..=ROOT_KEYS).contains(&raw.signatures.len()) {
            return Err(EnvelopeError::Signatures(raw.signatures.len()));
        }
        let decode = |what, text: &str| STANDARD.decode(text).map_err(|_| EnvelopeError::Base64(what));
        let signatures = raw
            .signatures
            .into_iter()
            .map(|signature| {
                Ok(EnvelopeSignature { sig: decode("signature", &signature.sig)?, keyid: signature.keyid })
            })
            .collect::<Result<_, EnvelopeError>>()?;
        Ok(Self { payload: decode("payload", &raw.payload)?, payload_type: raw.payload_type, signatures })
    }
}

impl Serialize for Envelope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Raw {
            payload: STANDARD.encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: self
                .signatures
                .iter()
                .map(|signature| RawSignature { keyid: signature.keyid.clone(), sig: STANDARD.encode(&signature.sig) })
                .collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyKind, SecretKey};

    #[test]
    fn the_encoding_counts_bytes_not_characters() {
        assert_eq!(pae("é", "ü".as_bytes()), "DSSEv1 2 é 2 ü".as_bytes());
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn type_and_payload_are_both_signed() {
        let key = SecretKey::generate(KeyKind::Signer).unwrap();
        let signature = EnvelopeSignature { keyid: String::new(), sig: key.sign(&pae("t", b"p")).to_vec() };
        let envelope =
            |payload_type: &str, payload: &[u8]| Envelope::new(payload_type, payload.to_vec(), vec![signature.clone()]);
        let verifies = |envelope: Envelope| envelope.verify(&signature, &key.public());
        assert!(verifies(envelope("t", b"p")));
        assert!(!verifies(envelope("u", b"p")) && !verifies(envelope("t", b"q")) && !verifies(envelope("t 1 p", b"")));
    }

    #[test]
    fn an_envelope_survives_its_json_and_unknown_fields_are_ignored() {
        let envelope =
            Envelope::new("t", b"p".to_vec(), vec![EnvelopeSignature { keyid: "k".into(), sig: vec![1; 64] }]);
        let mut value = serde_json::to_value(&envelope).unwrap();
        value["future"] = "field".into();
        value["signatures"][0]["future"] = "field".into();
        assert_eq!(Envelope::parse(value.to_string().as_bytes(), 1000).unwrap(), envelope);
    }

    #[test]
    fn other_base64_is_refused() {
        for payload in ["cA", "cB==", "c A==", "cA==\n", "-_-_"] {
            let text = format!(
                r#"{{"payload":{},"payloadType":"t","signatures":[{{"sig":""}}]}}"#,
                serde_json::json!(payload)
            );
            assert_eq!(Envelope::parse(text.as_bytes(), 1000), Err(EnvelopeError::Base64("payload")), "{payload}");
        }
    }

    #[test]
    fn no_signature_and_too_many_are_refused() {
        let envelope = |count| {
            let signatures = vec![EnvelopeSignature { keyid: String::new(), sig: vec![1; 64] }; count];
            Envelope::parse(&serde_json::to_vec(&Envelope::new("t", Vec::new(), signatures)).unwrap(), 1 << 20)
        };
        assert_eq!(envelope(0), Err(EnvelopeError::Signatures(0)));
        assert!(envelope(ROOT_KEYS).is_ok());
        assert_eq!(envelope(ROOT_KEYS + 1), Err(EnvelopeError::Signatures(ROOT_KEYS + 1)));
    }
}
