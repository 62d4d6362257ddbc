//! SBOMs: SPDX or CycloneDX as JSON, told apart by what they say they are. Bound by the digest of the file; never interpreted.

use std::path::Path;

use portcullis_signing::Digest;
use serde_json::Value;

use super::error::CliError;
use super::files;
use crate::limits::SBOM_BYTES;
use crate::oci::{self, Attachment};

/// Predicate type of an SPDX document.
const SPDX: &str = "https://spdx.dev/Document";
/// Predicate type of a CycloneDX document.
const CYCLONE_DX: &str = "https://cyclonedx.org/bom";

/// An SBOM file.
#[derive(Debug, Clone)]
pub struct Sbom {
    predicate_type: &'static str,
    media_type: &'static str,
    bytes: Vec<u8>,
}

impl Sbom {
    /// Reads a file and finds out what it is.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let bytes = files::read_bytes(path, SBOM_BYTES, "SBOM")?;
        let (predicate_type, media_type) = kind(&bytes).ok_or_else(|| {
            CliError::usage(format!("SBOM {} is neither SPDX nor CycloneDX as JSON", path.display())).with_hint(
                "SPDX has `spdxVersion` or an SPDX `@context`, CycloneDX `bomFormat`; convert other forms first",
            )
        })?;
        Ok(Self { predicate_type, media_type, bytes })
    }

    /// What kind of document it is.
    pub fn predicate_type(&self) -> &'static str {
        self.predicate_type
    }

    /// The digest of the file.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The file.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// To be attached in a registry.
    pub fn into_attachment(self) -> Attachment {
        Attachment { media_type: self.media_type, bytes: self.bytes, predicate_type: None }
    }
}

fn kind(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let spdx_3 = text("@context").is_some_and(|context| context.contains("spdx.org"));
    match (text("spdxVersion").is_some_and(|version| version.starts_with("SPDX-")) || spdx_3, text("bomFormat")) {
        (true, None) => Some((SPDX, oci::SPDX)),
        (false, Some("CycloneDX")) => Some((CYCLONE_DX, oci::CYCLONE_DX)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sbom_is_what_it_says_it_is_and_only_one_of_the_two() {
        let kind = |text: &str| kind(text.as_bytes()).map(|(predicate_type, _)| predicate_type);
        assert_eq!(kind(r#"{"spdxVersion":"SPDX-2.3"}"#), Some(SPDX));
        assert_eq!(kind(r#"{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld"}"#), Some(SPDX));
        assert_eq!(kind(r#"{"bomFormat":"CycloneDX","specVersion":"1.6"}"#), Some(CYCLONE_DX));
        for other in
            ["{}", "[]", "x", r#"{"bomFormat":"other"}"#, r#"{"spdxVersion":"SPDX-2.3","bomFormat":"CycloneDX"}"#]
        {
            assert_eq!(kind(other), None, "{other}");
        }
    }

    #[test]
    fn an_sbom_beyond_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sbom.json");
        let mut text = br#"{"spdxVersion":"SPDX-2.3"}"#.to_vec();
        text.resize(usize::try_from(SBOM_BYTES).unwrap(), b' ');
        std::fs::write(&path, &text).unwrap();
        assert!(Sbom::read(&path).is_ok());
        text.push(b' ');
        std::fs::write(&path, &text).unwrap();
        assert!(Sbom::read(&path).unwrap_err().message().contains("larger than"));
    }
}
