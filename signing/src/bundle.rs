//! Sigstore bundles v0.3: one DSSE envelope with one signature, and a hint of whose it is.
//!
//! Refuses every other media type (the media type is not signed, so an older one would ask for weaker checks), signatures
//! over raw artifacts (they carry no claims) and certificates (keyless signing is not supported yet). Log entries and
//! timestamps beside a key are carried, not trusted: the trust policy alone says which keys count.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::envelope::{Envelope, EnvelopeError};
use crate::excerpt::Excerpt;
use crate::json::{self, JsonError};
use crate::limits::BUNDLE_BYTES;

/// The only media type that is accepted.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A parsed bundle. Nothing in it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    hint: String,
    envelope: Envelope,
}

/// Why bytes are not a bundle that can be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not JSON.
    #[error("the bundle cannot be read: {0}")]
    Json(#[from] JsonError),
    /// JSON of another form.
    #[error("the bundle is malformed: {0}")]
    Form(String),
    /// Another media type.
    #[error("the bundle has the media type `{0}`")]
    MediaType(String),
    /// A certificate instead of a key.
    #[error("the bundle is signed with a certificate (keyless); that is not supported yet")]
    Keyless,
    /// A signature over the artifact alone.
    #[error("the bundle signs the file alone and holds no claims")]
    NoClaims,
    /// The envelope in it.
    #[error("the bundle's envelope cannot be used: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Not exactly one signature.
    #[error("the bundle's envelope has {0} signatures, exactly one is accepted")]
    Signatures(usize),
}

impl BundleError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            BundleError::MediaType(_) => {
                "only Sigstore bundles v0.3 are accepted; sign again with `portcullis sign` or cosign 3"
            }
            BundleError::Keyless => "sign with a key: `portcullis sign APP.wasm --claims F --key K`",
            BundleError::NoClaims => "attest claims instead: `portcullis sign APP.wasm --claims F --key K`",
            BundleError::Signatures(_) => "write one bundle for each signer",
            BundleError::Json(_) | BundleError::Form(_) | BundleError::Envelope(_) => {
                "the file is damaged or no bundle; copy it again or sign again with `portcullis sign`"
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    #[serde(rename = "mediaType")]
    _media_type: String,
    verification_material: RawMaterial,
    message_signature: Option<Value>,
    dsse_envelope: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawMaterial {
    public_key: Option<RawKey>,
    certificate: Option<Value>,
    x509_certificate_chain: Option<Value>,
    #[serde(rename = "tlogEntries")]
    _tlog_entries: Option<Vec<Value>>,
    #[serde(rename = "timestampVerificationData")]
    _timestamp_verification_data: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    #[serde(default)]
    hint: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    media_type: &'a str,
    verification_material: WrittenMaterial,
    dsse_envelope: &'a Envelope,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMaterial {
    public_key: RawKey,
}

/// Parses a bundle.
pub fn parse(bytes: &[u8]) -> Result<Bundle, BundleError> {
    let value = json::parse(bytes, BUNDLE_BYTES)?;
    // Before anything else is looked at: the form depends on it.
    match value.get("mediaType") {
        Some(Value::String(media_type)) if media_type == MEDIA_TYPE => {}
        Some(Value::String(media_type)) => return Err(BundleError::MediaType(Excerpt(media_type).to_string())),
        _ => return Err(BundleError::Form("it has no media type".to_owned())),
    }
    let form = |error: serde_json::Error| BundleError::Form(Excerpt(&error.to_string()).to_string());
    let raw: Raw = serde_json::from_value(value).map_err(form)?;
    let material = raw.verification_material;
    if material.certificate.is_some() || material.x509_certificate_chain.is_some() {
        return Err(BundleError::Keyless);
    }
    let Some(key) = material.public_key else {
        return Err(BundleError::Form("it names no key".to_owned()));
    };
    if raw.message_signature.is_some() {
        return Err(BundleError::NoClaims);
    }
    let envelope = raw.dsse_envelope.ok_or_else(|| BundleError::Form("it has no envelope".to_owned()))?;
    let envelope = Envelope::from_value(envelope)?;
    match envelope.signatures() {
        [_] => Ok(Bundle { hint: key.hint, envelope }),
        several => Err(BundleError::Signatures(several.len())),
    }
}

impl Bundle {
    /// A bundle of an envelope that was signed with the key that `hint` names.
    pub fn new(hint: String, envelope: Envelope) -> Self {
        Self { hint, envelope }
    }

    /// Which key may have signed. Selects candidates, proves nothing.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// The envelope.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Indented JSON with a line end.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        json::pretty(&Written {
            media_type: MEDIA_TYPE,
            verification_material: WrittenMaterial { public_key: RawKey { hint: self.hint.clone() } },
            dsse_envelope: &self.envelope,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::envelope::EnvelopeSignature;

    fn good() -> Value {
        let envelope =
            Envelope::new("t", b"p".to_vec(), vec![EnvelopeSignature { keyid: String::new(), sig: vec![1; 64] }]);
        serde_json::from_slice(&Bundle::new("A".into(), envelope).to_json().unwrap()).unwrap()
    }

    fn parsed(value: &Value) -> Result<Bundle, BundleError> {
        parse(value.to_string().as_bytes())
    }

    #[test]
    fn a_bundle_survives_its_json() {
        let bundle = parsed(&good()).unwrap();
        assert_eq!((bundle.hint(), bundle.envelope().payload()), ("A", &b"p"[..]));
        assert_eq!(parse(&bundle.to_json().unwrap()), Ok(bundle));
    }

    #[test]
    fn every_other_media_type_is_refused() {
        for media_type in [
            "application/vnd.dev.sigstore.bundle+json;version=0.1",
            "application/vnd.dev.sigstore.bundle+json;version=0.2",
            "application/vnd.dev.sigstore.bundle+json;version=0.3",
            "application/vnd.dev.sigstore.bundle.v0.4+json",
            "application/vnd.dev.sigstore.bundle.v0.3+json ",
            "",
        ] {
            let mut value = good();
            value["mediaType"] = json!(media_type);
            assert!(matches!(parsed(&value), Err(BundleError::MediaType(_))), "{media_type}");
        }
        let mut value = good();
        value.as_object_mut().unwrap().remove("mediaType");
        assert!(matches!(parsed(&value), Err(BundleError::Form(_))));
    }

    #[test]
    fn certificates_are_not_supported_yet() {
        for key in ["certificate", "x509CertificateChain"] {
            let mut value = good();
            value["verificationMaterial"] = json!({key: {"rawBytes": ""}});
            assert_eq!(parsed(&value), Err(BundleError::Keyless));
            // Nor do they hide behind a key.
            value["verificationMaterial"]["publicKey"] = json!({"hint": "A"});
            assert_eq!(parsed(&value), Err(BundleError::Keyless));
        }
    }

    #[test]
    fn a_signature_without_claims_is_refused() {
        let mut value = good();
        value["messageSignature"] = json!({});
        assert_eq!(parsed(&value), Err(BundleError::NoClaims));
    }

    #[test]
    fn two_signatures_are_refused() {
        let mut value = good();
        let signature = value["dsseEnvelope"]["signatures"][0].clone();
        value["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(signature);
        assert_eq!(parsed(&value), Err(BundleError::Signatures(2)));
        value["dsseEnvelope"]["signatures"] = json!([]);
        assert_eq!(parsed(&value), Err(BundleError::Envelope(EnvelopeError::Signatures(0))));
    }

    #[test]
    fn unknown_and_missing_parts_are_refused() {
        for pointer in ["", "/verificationMaterial", "/verificationMaterial/publicKey"] {
            let mut value = good();
            value.pointer_mut(pointer).unwrap()["unknown"] = json!(1);
            assert!(matches!(parsed(&value), Err(BundleError::Form(_))), "{pointer}");
        }
        for (pointer, key) in
            [("", "verificationMaterial"), ("", "dsseEnvelope"), ("/verificationMaterial", "publicKey")]
        {
            let mut value = good();
            value.pointer_mut(pointer).unwrap().as_object_mut().unwrap().remove(key);
            assert!(matches!(parsed(&value), Err(BundleError::Form(_))), "{key}");
        }
    }

    #[test]
    fn log_entries_beside_a_key_are_carried() {
        let mut value = good();
        value["verificationMaterial"]["tlogEntries"] = json!([{"logIndex": "1"}]);
        value["verificationMaterial"]["timestampVerificationData"] = json!({});
        assert!(parsed(&value).is_ok());
    }

    #[test]
    fn a_bundle_beyond_the_limit_is_refused() {
        let mut bytes = good().to_string().into_bytes();
        bytes.resize(BUNDLE_BYTES, b' ');
        assert!(parse(&bytes).is_ok());
        bytes.push(b' ');
        assert_eq!(parse(&bytes), Err(BundleError::Json(JsonError::TooLarge { max: BUNDLE_BYTES })));
    }

    #[test]
    fn a_key_twice_is_refused() {
        let text = good().to_string().replacen('{', r#"{"mediaType":"x","#, 1);
        assert!(matches!(parse(text.as_bytes()), Err(BundleError::Json(JsonError::Syntax(_)))));
    }
}
