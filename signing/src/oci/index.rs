//! The list of what refers to a manifest: the answer of the referrers API, or the index under the fallback tag.
//!
//! A list of candidates, nothing more: types that it gives for its entries are not looked at.

use serde_json::{Value, json};

use super::{Descriptor, IMAGE_INDEX, IMAGE_MANIFEST, OciError, schema};
use crate::digest::Digest;
use crate::json;
use crate::limits::{EVIDENCE_COUNT, OCI_MANIFEST_BYTES};

/// Manifests that may refer to a component. As read, so that a list can be written again with one entry more and none lost.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReferrerIndex {
    entries: Vec<Value>,
    manifests: Vec<Descriptor>,
}

impl ReferrerIndex {
    /// Reads an image index.
    pub fn parse(bytes: &[u8]) -> Result<Self, OciError> {
        let mut value = json::parse(bytes, OCI_MANIFEST_BYTES)?;
        schema(&value)?;
        let entries = match value.get_mut("manifests").map(Value::take) {
            Some(Value::Array(entries)) => entries,
            // Some registries say null where there are none.
            None | Some(Value::Null) if value.get("layers").is_none() => Vec::new(),
            _ => return Err(OciError::Form("it has no list of manifests".to_owned())),
        };
        if entries.len() > EVIDENCE_COUNT {
            return Err(OciError::Referrers(entries.len()));
        }
        let manifests =
            entries.iter().map(|entry| Descriptor::read(Some(entry), "manifests")).collect::<Result<_, _>>()?;
        Ok(Self { entries, manifests })
    }

    /// Image manifests of the list; entries of other types hold no evidence.
    pub fn manifests(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| entry.media_type() == IMAGE_MANIFEST)
    }

    /// Whether a manifest is listed.
    pub fn has(&self, digest: &Digest) -> bool {
        self.manifests.iter().any(|entry| entry.digest() == digest)
    }

    /// Joins another page of the same list.
    pub fn extend(&mut self, page: Self) -> Result<(), OciError> {
        self.entries.extend(page.entries);
        self.manifests.extend(page.manifests);
        if self.entries.len() > EVIDENCE_COUNT { Err(OciError::Referrers(self.entries.len())) } else { Ok(()) }
    }

    /// Adds an entry.
    pub fn add(&mut self, entry: Descriptor) -> Result<(), OciError> {
        if self.entries.len() >= EVIDENCE_COUNT {
            return Err(OciError::Referrers(self.entries.len() + 1));
        }
        self.entries.push(json!(entry));
        self.manifests.push(entry);
        Ok(())
    }

    /// The index as it is pushed under the fallback tag.
    pub fn to_json(&self) -> Vec<u8> {
        json!({ "schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": self.entries }).to_string().into_bytes()
    }
}
