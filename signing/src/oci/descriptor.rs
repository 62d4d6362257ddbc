//! Descriptors: media type, digest and size of something that is fetched by its digest.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::OciError;
use crate::digest::Digest;
use crate::excerpt::Excerpt;
use crate::limits::{NAME_BYTES, TRUST_BYTES};

/// What a manifest says about one of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor of bytes with this digest and size.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, artifact_type: None, annotations: BTreeMap::new() }
    }

    /// A descriptor of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Says what kind of artifact a manifest is, for the benefit of other tools.
    pub fn with_artifact_type(mut self, artifact_type: &str) -> Self {
        self.artifact_type = Some(artifact_type.to_owned());
        self
    }

    /// The media type, as the registry says.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// The digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// An annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }

    /// Reads a descriptor; `place` names it in messages. A layer that is to be fetched from elsewhere is refused.
    pub(super) fn read(value: Option<&Value>, place: &str) -> Result<Self, OciError> {
        let form = |what: String| OciError::Form(format!("{place}: {what}"));
        let Some(Value::Object(map)) = value else { return Err(form("is not a descriptor".to_owned())) };
        let text = |name: &str| match map.get(name).and_then(Value::as_str) {
            Some(text) if text.len() <= NAME_BYTES => Ok(text.to_owned()),
            _ => Err(form(format!("has no `{name}`"))),
        };
        let (media_type, digest) = (text("mediaType")?, text("digest")?);
        let digest = digest.parse().map_err(|_| form(format!("`{}` is not a SHA-256 digest", Excerpt(&digest))))?;
        let Some(size) = map.get("size").and_then(Value::as_u64) else { return Err(form("has no `size`".to_owned())) };
        if map.get("urls").is_some_and(|urls| urls.as_array().is_none_or(|urls| !urls.is_empty())) {
            return Err(form("names other places to fetch it from".to_owned()));
        }
        let mut annotations = BTreeMap::new();
        for (name, value) in map.get("annotations").and_then(Value::as_object).into_iter().flatten() {
            // A signature or a chain of certificates: as long as the manifest may be.
            match value.as_str() {
                Some(value) if value.len() <= TRUST_BYTES => annotations.insert(name.clone(), value.to_owned()),
                _ => return Err(form("has an annotation that is no text".to_owned())),
            };
        }
        Ok(Self { media_type, digest, size, artifact_type: None, annotations })
    }
}
