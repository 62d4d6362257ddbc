//! OCI manifests of components and of their evidence: what a registry hands over, read strictly; and how ours are written.
//!
//! A registry is an untrusted store. What it says of itself (types in an index, tags, headers) decides nothing: everything is
//! fetched by digest, hashed again, and read here as it is. A component's manifest has exactly one layer, `application/wasm`, as the
//! CNCF layout for Wasm artifacts demands; evidence is taken from manifests whose `subject` is that manifest's digest.
//! Refuses duplicate keys, deep nesting, digests other than SHA-256, foreign layers and whatever is beyond a limit.
//! Fields that are not known are ignored, as the image specification demands.

mod artifact;
mod descriptor;
mod index;
mod reference;

use serde_json::Value;

pub use artifact::{ComponentArtifact, evidence_manifest};
pub use descriptor::Descriptor;
pub use index::ReferrerIndex;
pub use reference::{OciReference, Pick};

use crate::digest::Digest;
use crate::excerpt::Excerpt;
use crate::json::{self, JsonError};
use crate::limits::{EVIDENCE_COUNT, OCI_MANIFEST_BYTES};

/// Media type of an image manifest.
pub const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image index.
pub const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of the config of a Wasm artifact.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Media type of its one layer.
pub const WASM_LAYER: &str = "application/wasm";
/// Media type of the empty config.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The manifest of one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentManifest {
    digest: Digest,
    size: u64,
    layer: Descriptor,
}

/// A manifest that says it belongs to another one. What its layers are worth is for the verifier to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    layers: Vec<Descriptor>,
}

/// Why bytes are not a manifest that can be used. The registry erred, or whoever pushed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OciError {
    /// Not JSON.
    #[error("the manifest cannot be read: {0}")]
    Json(#[from] JsonError),
    /// JSON of another form.
    #[error("the manifest is malformed: {0}")]
    Form(String),
    /// An index, a list of manifests.
    #[error("this is an index of several manifests, not the manifest of one component")]
    Index,
    /// Not a Wasm artifact.
    #[error("this is not a Wasm artifact: its config has the media type `{0}`, not {WASM_CONFIG}")]
    NotWasm(String),
    /// Not exactly one layer.
    #[error("the artifact has {0} layers, exactly one is accepted")]
    Layers(usize),
    /// A layer of another type.
    #[error("the artifact's layer has the media type `{0}`, not {WASM_LAYER}")]
    LayerType(String),
    /// More referrers than are looked at.
    #[error("{0} manifests refer to the component, at most {EVIDENCE_COUNT} are looked at")]
    Referrers(usize),
    /// It belongs to something else.
    #[error("it refers to {found}, not to {wanted}")]
    Subject {
        /// What it refers to, as it says.
        found: String,
        /// What it was offered for.
        wanted: Digest,
    },
}

impl OciError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            OciError::Json(_) | OciError::Form(_) => "the registry or a proxy gave something else; push again",
            OciError::Index => "name the manifest of the component itself, by its tag or digest",
            OciError::NotWasm(_) | OciError::Layers(_) | OciError::LayerType(_) => {
                "push the component with `portcullis push` or `wkg oci push`; container images are not components"
            }
            OciError::Referrers(_) => "delete referrers that are not needed any more from the registry",
            OciError::Subject { .. } => {
                "the registry lists what does not belong to this component; push the evidence again"
            }
        }
    }
}

impl ComponentManifest {
    /// Reads the manifest of a component. Its digest is that of these bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let value = manifest(bytes)?;
        let config = Descriptor::read(value.get("config"), "config")?;
        if config.media_type() != WASM_CONFIG {
            return Err(OciError::NotWasm(Excerpt(config.media_type()).to_string()));
        }
        let layers = layers(&value)?;
        match layers.as_slice() {
            [layer] if layer.media_type() == WASM_LAYER => {
                Ok(Self { digest: Digest::of(bytes), size: bytes.len() as u64, layer: layer.clone() })
            }
            [layer] => Err(OciError::LayerType(Excerpt(layer.media_type()).to_string())),
            several => Err(OciError::Layers(several.len())),
        }
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The one layer: the component.
    pub fn layer(&self) -> &Descriptor {
        &self.layer
    }

    /// The manifest as others refer to it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(IMAGE_MANIFEST, self.digest, self.size)
    }
}

impl Referrer {
    /// Reads a manifest that was listed as a referrer of `subject`.
    pub fn parse(bytes: &[u8], subject: &Digest) -> Result<Self, OciError> {
        let value = manifest(bytes)?;
        let found = match value.get("subject") {
            None | Some(Value::Null) => None,
            Some(_) => Some(*Descriptor::read(value.get("subject"), "subject")?.digest()),
        };
        if found != Some(*subject) {
            let found = found.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string());
            return Err(OciError::Subject { found, wanted: *subject });
        }
        Ok(Self { layers: layers(&value)? })
    }

    /// Its layers of one media type.
    pub fn layers<'a>(&'a self, media_type: &'a str) -> impl Iterator<Item = &'a Descriptor> {
        self.layers.iter().filter(move |layer| layer.media_type() == media_type)
    }
}

/// Layers of a manifest without a look at the rest: signatures of older tools lie under a tag of their own.
pub fn layers_of(bytes: &[u8]) -> Result<Vec<Descriptor>, OciError> {
    layers(&manifest(bytes)?)
}

/// A schema 2 image manifest.
fn manifest(bytes: &[u8]) -> Result<Value, OciError> {
    let value = json::parse(bytes, OCI_MANIFEST_BYTES)?;
    let media_type = value.get("mediaType").and_then(Value::as_str).unwrap_or(IMAGE_MANIFEST);
    if media_type == IMAGE_INDEX || value.get("manifests").is_some() {
        return Err(OciError::Index);
    }
    if media_type != IMAGE_MANIFEST {
        return Err(OciError::Form(format!("its media type is `{}`", Excerpt(media_type))));
    }
    schema(&value)?;
    Ok(value)
}

fn schema(value: &Value) -> Result<(), OciError> {
    match value.get("schemaVersion").and_then(Value::as_u64) {
        Some(2) => Ok(()),
        _ => Err(OciError::Form("its schemaVersion is not 2".to_owned())),
    }
}

fn layers(value: &Value) -> Result<Vec<Descriptor>, OciError> {
    let Some(Value::Array(list)) = value.get("layers") else {
        return Err(OciError::Form("it has no list of layers".to_owned()));
    };
    if list.len() > EVIDENCE_COUNT {
        return Err(OciError::Layers(list.len()));
    }
    list.iter().map(|layer| Descriptor::read(Some(layer), "layers")).collect()
}

#[cfg(test)]
mod tests;
