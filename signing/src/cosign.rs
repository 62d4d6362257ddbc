//! cosign v2 signatures with a key ("simple signing"): a payload that names the manifest of an image in a registry.
//!
//! Proves that the signer vouched for that manifest, and through the manifest's one layer for the file. A manifest with
//! more than one layer proves nothing. The evidence is one JSON document with the three parts, so that it can lie beside a
//! file as a bundle does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::excerpt::Excerpt;
use crate::json::{self, JsonError};
use crate::limits::{BUNDLE_BYTES, OCI_MANIFEST_BYTES};
use crate::oci::ComponentManifest;
use crate::signer_key::SignerKey;

/// The media type of the document.
pub const MEDIA_TYPE: &str = "application/vnd.portcullis.cosign-v2+json";
/// The type that every payload names.
const SIGNATURE_TYPE: &str = "cosign container image signature";

/// A signature with what it covers. Nothing in it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignEvidence {
    manifest: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

/// Why such a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CosignError {
    /// Not JSON.
    #[error("the signature document cannot be read: {0}")]
    Json(#[from] JsonError),
    /// JSON of another form.
    #[error("the signature document is malformed: {0}")]
    Form(String),
    /// The signed payload is none.
    #[error("the signed payload is malformed: {0}")]
    Payload(String),
    /// The manifest is not one of a component.
    #[error("the signed manifest is not that of one component: {0}")]
    Manifest(String),
    /// The payload names another manifest.
    #[error("the payload was signed for the manifest {signed}, this one is {actual}")]
    OtherManifest {
        /// What the payload names.
        signed: String,
        /// What is there.
        actual: Digest,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    media_type: String,
    manifest: String,
    payload: String,
    signature: String,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

impl CosignEvidence {
    /// Puts together what a registry holds: the component's manifest, the signature's payload (a layer), and the signature
    /// itself (base64, an annotation of that layer).
    pub fn encode(manifest: &[u8], payload: &[u8], signature: &str) -> Result<Vec<u8>, serde_json::Error> {
        json::pretty(&Document {
            media_type: MEDIA_TYPE.to_owned(),
            manifest: STANDARD.encode(manifest),
            payload: STANDARD.encode(payload),
            signature: signature.to_owned(),
        })
    }

    /// Parses the document.
    pub fn parse(bytes: &[u8]) -> Result<Self, CosignError> {
        Self::from_value(json::parse(bytes, BUNDLE_BYTES)?)
    }

    pub(crate) fn from_value(value: Value) -> Result<Self, CosignError> {
        let form = |what: &str| CosignError::Form(Excerpt(what).to_string());
        let document: Document = serde_json::from_value(value).map_err(|error| form(&error.to_string()))?;
        if document.media_type != MEDIA_TYPE {
            return Err(form("another media type"));
        }
        let decode =
            |what: &str, text: &str| STANDARD.decode(text).map_err(|_| form(&format!("its {what} is not base64")));
        let manifest = decode("manifest", &document.manifest)?;
        if manifest.len() > OCI_MANIFEST_BYTES {
            return Err(form("its manifest is too large"));
        }
        Ok(Self {
            manifest,
            payload: decode("payload", &document.payload)?,
            signature: decode("signature", &document.signature)?,
        })
    }

    /// Whether `key` made the signature. The first thing to ask.
    pub fn is_signed_by(&self, key: &SignerKey) -> bool {
        key.verify(&self.payload, &self.signature)
    }

    /// The digest of what is signed.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.payload)
    }

    /// The digest of the file that is vouched for. Only worth something after [`CosignEvidence::is_signed_by`].
    pub fn subject(&self) -> Result<Digest, CosignError> {
        let value = json::parse(&self.payload, BUNDLE_BYTES)?;
        let payload: Payload = serde_json::from_value(value)
            .map_err(|error| CosignError::Payload(Excerpt(&error.to_string()).to_string()))?;
        if payload.critical.kind != SIGNATURE_TYPE {
            return Err(CosignError::Payload(format!("its type is `{}`", Excerpt(&payload.critical.kind))));
        }
        let (signed, actual) = (payload.critical.image.digest, Digest::of(&self.manifest));
        if signed != actual.to_string() {
            return Err(CosignError::OtherManifest { signed: Excerpt(&signed).to_string(), actual });
        }
        let manifest = ComponentManifest::parse(&self.manifest)
            .map_err(|error| CosignError::Manifest(Excerpt(&error.to_string()).to_string()))?;
        Ok(*manifest.layer().digest())
    }
}
