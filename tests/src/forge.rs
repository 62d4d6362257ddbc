//! Evidence and trust policies as an attacker would make them, who may even hold a key: our own commands refuse to.
//!
//! Everything is plain JSON and signed as it stands, whatever it says.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use portcullis_signing::{ComponentBytes, KeyKind, SecretKey};
use serde_json::{Value, json};

use crate::site::{CLUSTER, Site};

/// Evidence in the making. Starts honest; each field may be bent.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The claims.
    pub claims: Value,
    /// SHA-256 of the bytes that it is for, hexadecimal.
    pub sha256: String,
    /// Media type of the bundle.
    pub media_type: String,
    /// Payload type of the envelope.
    pub payload_type: String,
    /// Predicate type of the statement.
    pub predicate_type: String,
}

impl Evidence {
    /// What an honest signer would say of `bytes` under the name `test:<name>`. What is no component has no imports.
    pub fn honest(name: &str, bytes: &[u8]) -> Self {
        let imports =
            portcullis_signing::read_interfaces(bytes).map(|interfaces| interfaces.imports).unwrap_or_default();
        Self {
            claims: json!({
                "component": { "name": format!("test:{name}"), "version": "1.0.0", "revision": 1 },
                "kind": "component",
                "imports": imports,
                "exports": [],
                "identity": { "path": format!("ns/test/sa/{name}") },
                "issuedAt": at(-60),
                "notBefore": at(-60),
                "expiresAt": at(3600),
                "audience": [CLUSTER],
                "evidence": [],
                "critical": [],
            }),
            sha256: ComponentBytes::from_vec(bytes.to_vec()).digest().hex(),
            media_type: portcullis_signing::bundle::MEDIA_TYPE.to_owned(),
            payload_type: portcullis_signing::statement::PAYLOAD_TYPE.to_owned(),
            predicate_type: portcullis_signing::PREDICATE_TYPE.to_owned(),
        }
    }

    /// The statement.
    pub fn statement(&self) -> Value {
        json!({
            "_type": portcullis_signing::statement::STATEMENT_TYPE,
            "subject": [{ "name": "forged", "digest": { "sha256": self.sha256 } }],
            "predicateType": self.predicate_type,
            "predicate": self.claims,
        })
    }

    /// The bundle, signed.
    pub fn sign(&self, key: &SecretKey) -> Value {
        self.sign_payload(&self.statement().to_string(), key)
    }

    /// A bundle around any payload, signed.
    pub fn sign_payload(&self, payload: &str, key: &SecretKey) -> Value {
        json!({
            "mediaType": self.media_type,
            "verificationMaterial": { "publicKey": { "hint": key.public().to_string() } },
            "dsseEnvelope": envelope(&self.payload_type, payload, &[key]),
        })
    }
}

/// A DSSE envelope, signed by each of the keys.
pub fn envelope(payload_type: &str, payload: &str, keys: &[&SecretKey]) -> Value {
    let signed = portcullis_signing::envelope::pae(payload_type, payload.as_bytes());
    let signature =
        |key: &&SecretKey| json!({ "keyid": key.public().to_string(), "sig": STANDARD.encode(key.sign(&signed)) });
    let signatures: Vec<Value> = keys.iter().map(signature).collect();
    json!({ "payload": STANDARD.encode(payload), "payloadType": payload_type, "signatures": signatures })
}

/// A trust policy, signed by each of the keys as it stands.
pub fn trust(document: &Value, keys: &[&SecretKey]) -> Value {
    envelope(portcullis_signing::trust::PAYLOAD_TYPE, &document.to_string(), keys)
}

/// The unsigned trust policy of a site.
pub fn trust_document(site: &Site) -> Value {
    let text = std::fs::read_to_string(site.file("trust.json")).expect("a site has a trust policy");
    serde_json::from_str(&text).expect("a trust policy is JSON")
}

/// Another one of the bytes, in its middle.
pub fn flipped(text: &str) -> String {
    let mut bytes = STANDARD.decode(text).expect("base64");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    STANDARD.encode(bytes)
}

/// The secret key in a key file.
pub fn key(path: &Path) -> SecretKey {
    let text = std::fs::read_to_string(path).expect("a key file can be read");
    SecretKey::from_seed(text.trim()).expect("a key file holds a seed")
}

/// A new key.
pub fn new_key(kind: KeyKind) -> SecretKey {
    SecretKey::generate(kind).expect("the system has randomness")
}

/// A time so many seconds from now, as claims and trust policies write it.
pub fn at(seconds: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let at = i64::try_from(now).expect("before the end of time") + seconds;
    portcullis_signing::timestamp::format(time::OffsetDateTime::from_unix_timestamp(at).expect("a time"))
}
