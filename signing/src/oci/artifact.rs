//! What is pushed: a component in the CNCF layout for Wasm artifacts, and evidence that refers to it.
//!
//! The same component at the same time gives the same bytes, so pushing twice changes nothing.

use serde_json::json;
use time::OffsetDateTime;

use super::{Descriptor, EMPTY, IMAGE_MANIFEST, WASM_CONFIG, WASM_LAYER};
use crate::bundle::MEDIA_TYPE as BUNDLE;
use crate::bytes::ComponentBytes;
use crate::interface::Interfaces;
use crate::timestamp;

/// A component as a registry keeps it.
#[derive(Debug, Clone)]
pub struct ComponentArtifact {
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl ComponentArtifact {
    /// The config and manifest of `component`. `created` is what the layout demands; it says nothing that anybody relies on.
    pub fn new(component: &ComponentBytes, interfaces: &Interfaces, created: OffsetDateTime) -> Self {
        let config = json!({
            "created": timestamp::format(created),
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [component.digest()],
            "component": { "exports": interfaces.exports, "imports": interfaces.imports },
        })
        .to_string()
        .into_bytes();
        let layer = Descriptor::new(WASM_LAYER, *component.digest(), component.bytes().len() as u64);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE_MANIFEST,
            "config": Descriptor::of(WASM_CONFIG, &config),
            "layers": [layer],
        })
        .to_string()
        .into_bytes();
        Self { config, manifest }
    }

    /// The config blob.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// The manifest.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }
}

/// A manifest that attaches a blob of `media_type` to `subject`, in the layout that cosign and the OCI specification use.
/// Its config is [`EMPTY`]: the two bytes `{}`.
pub fn evidence_manifest(subject: &Descriptor, media_type: &str, blob: &[u8], predicate_type: Option<&str>) -> Vec<u8> {
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": media_type,
        "config": Descriptor::of(EMPTY, b"{}"),
        "layers": [Descriptor::of(media_type, blob)],
        "subject": subject,
    });
    if let (Some(predicate_type), Some(map)) = (predicate_type, manifest.as_object_mut()) {
        let content = if media_type == BUNDLE { "dsse-envelope" } else { "file" };
        map.insert(
            "annotations".to_owned(),
            json!({ "dev.sigstore.bundle.content": content, "dev.sigstore.bundle.predicateType": predicate_type }),
        );
    }
    manifest.to_string().into_bytes()
}
