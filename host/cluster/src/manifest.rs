//! A manifest: what a component is to be on a cluster. Its digest names the bytes; where they lie is a hint that proves nothing.
//!
//! The same document in two forms: the file that an operator writes (TOML or JSON, without a version), and the payload that is
//! signed and kept. `replicas = 0` is how a component is undeployed: a key that is gone undeploys nothing.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_signing::oci::{OciReference, Pick};
use portcullis_signing::{ComponentName, Digest};
use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentError, cut};
use crate::limits::{DOCUMENT_BYTES, EVIDENCE, LABELS, REPLICAS, ROUTES, SELECTED_HOSTS, TEXT_BYTES};
use crate::token::HostId;

/// The signed payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    version: u64,
    #[serde(rename = "manifest")]
    wanted: ManifestFile,
}

/// What an operator writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// The component's claimed name.
    pub component: ComponentName,
    /// SHA-256 of the component's bytes.
    pub digest: Digest,
    /// Where the bytes lie.
    pub source: Source,
    /// Which evidence counts.
    #[serde(default, skip_serializing_if = "Evidence::is_beside")]
    pub evidence: Evidence,
    /// How many hosts run it.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Which hosts may.
    #[serde(default, skip_serializing_if = "Selector::is_any")]
    pub hosts: Selector,
    /// What is routed to it on each of them.
    #[serde(default, rename = "route", alias = "routes", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// Where the bytes of a component lie. Whatever lies there is taken only if it has the digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// In a registry, by the digest of its manifest.
    Oci(OciReference),
    /// In each host's store, by the component's digest.
    Store(Stored),
    /// A file below the folder that each host names in `cluster.files`.
    File(RelativePath),
}

/// The host's store has one place for each digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stored {
    /// By the component's digest.
    Digest,
}

/// Evidence beside the component, or named files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Evidence(Vec<RelativePath>);

/// A path of plain segments: no root, no `..`, nothing that leads out of a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePath(String);

/// Hosts by name and by label. Nothing said: any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// One of these, where any is named.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ids: BTreeSet<HostId>,
    /// All of these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A host name and a path prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Exact host name; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Path prefix on whole segments.
    pub path: String,
}

fn one() -> u32 {
    1
}

impl Manifest {
    /// A manifest of this version.
    pub fn new(file: ManifestFile, version: u64) -> Result<Self, DocumentError> {
        let manifest = Self { format: FORMAT, version, wanted: file };
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads a payload.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let manifest: Self = document::read("the manifest", bytes, DOCUMENT_BYTES)?;
        document::format("the manifest", manifest.format, FORMAT)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Writes the payload.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The same component, undeployed by a higher version.
    pub fn undeployed(&self, version: u64) -> Self {
        let wanted = ManifestFile { replicas: 0, ..self.wanted.clone() };
        Self { version, wanted, ..self.clone() }
    }

    /// The version: a higher one replaces a lower one, never the other way.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What is wanted.
    pub fn wanted(&self) -> &ManifestFile {
        &self.wanted
    }

    /// The component's name.
    pub fn component(&self) -> &ComponentName {
        &self.wanted.component
    }

    fn check(&self) -> Result<(), DocumentError> {
        if self.version == 0 {
            return Err(DocumentError::member("version", "begins with 1"));
        }
        self.wanted.check()
    }
}

impl ManifestFile {
    /// Reads the file that an operator wrote, as JSON.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let file: Self = document::read("the manifest", bytes, DOCUMENT_BYTES)?;
        file.check()?;
        Ok(file)
    }

    /// What serde does not see.
    pub fn check(&self) -> Result<(), DocumentError> {
        if self.replicas > REPLICAS {
            return Err(DocumentError::member("replicas", format!("is {}, at most {REPLICAS} can be", self.replicas)));
        }
        if let Source::Oci(reference) = &self.source
            && !matches!(reference.pick(), Pick::Digest(_))
        {
            return Err(DocumentError::member(
                "source",
                "must name its manifest by digest: a tag is whatever it points to now",
            ));
        }
        if self.evidence.0.len() > EVIDENCE {
            return Err(DocumentError::member("evidence", format!("names more than {EVIDENCE} files")));
        }
        if !self.evidence.0.is_empty() && !matches!(self.source, Source::File(_)) {
            return Err(DocumentError::member(
                "evidence",
                "is named for files alone: a registry and the store keep it beside the component",
            ));
        }
        if self.routes.len() > ROUTES {
            return Err(DocumentError::member("route", format!("there are more than {ROUTES}")));
        }
        for route in &self.routes {
            route.check()?;
        }
        self.hosts.check()
    }
}

impl Evidence {
    /// These files.
    pub fn files(files: Vec<RelativePath>) -> Self {
        Self(files)
    }

    /// Whether none is named.
    pub fn is_beside(&self) -> bool {
        self.0.is_empty()
    }

    /// The files that are named.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(RelativePath::as_str)
    }
}

impl RelativePath {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RelativePath {
    type Error = DocumentError;

    fn try_from(text: String) -> Result<Self, DocumentError> {
        let plain = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+@".contains(&b))
        };
        if text.len() > TEXT_BYTES || !text.split('/').all(plain) {
            let why = format!("`{}` is no path below a folder: plain segments without `..`", cut(&text));
            return Err(DocumentError::member("file", why));
        }
        Ok(Self(text))
    }
}

impl From<RelativePath> for String {
    fn from(path: RelativePath) -> Self {
        path.0
    }
}

impl Selector {
    /// Whether every host fits.
    pub fn is_any(&self) -> bool {
        self.ids.is_empty() && self.labels.is_empty()
    }

    /// Whether a host fits.
    pub fn fits(&self, host: &HostId, labels: &BTreeMap<String, String>) -> bool {
        (self.ids.is_empty() || self.ids.contains(host))
            && self.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
    }

    fn check(&self) -> Result<(), DocumentError> {
        if self.ids.len() > SELECTED_HOSTS {
            return Err(DocumentError::member("hosts.ids", format!("names more than {SELECTED_HOSTS} hosts")));
        }
        check_labels(&self.labels)
    }
}

/// Whether labels of a host or a selection are of the form that is compared.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), DocumentError> {
    if labels.len() > LABELS {
        return Err(DocumentError::member("labels", format!("there are more than {LABELS}")));
    }
    for (name, value) in labels {
        let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if !fits || name.len() > TEXT_BYTES {
            return Err(DocumentError::member("labels", format!("`{}` is no name of a label", cut(name))));
        }
        document::text("labels", value)?;
    }
    Ok(())
}

impl Route {
    fn check(&self) -> Result<(), DocumentError> {
        let host_ok = self.host.as_deref().is_none_or(|host| {
            !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b))
        });
        if !host_ok {
            return Err(DocumentError::member("route", "its host must be a lower-case host name without a port"));
        }
        let path = &self.path;
        let path_ok = path.len() <= TEXT_BYTES
            && path.starts_with('/')
            && (path == "/" || !path.ends_with('/'))
            && path
                .split('/')
                .skip(1)
                .all(|segment| segment != "." && segment != ".." && (path == "/" || !segment.is_empty()))
            && path.bytes().all(|b| b.is_ascii_graphic() && !b"%?#\\".contains(&b));
        if path_ok {
            return Ok(());
        }
        Err(DocumentError::member(
            "route",
            format!("path `{}` must be like /a/b, plain, without a trailing slash", cut(path)),
        ))
    }
}

const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn payload(more: &str) -> String {
        format!(
            r#"{{"format":1,"version":3,"manifest":{{"component":"shop:cart","digest":"{DIGEST}","source":{{"file":"cart.wasm"}}{more}}}}}"#
        )
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let text =
            payload(r#","replicas":2,"hosts":{"ids":["h1","h2"],"labels":{"zone":"eu"}},"route":[{"path":"/cart"}]"#);
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!((manifest.version(), manifest.wanted().replicas), (3, 2));
        assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
        assert_eq!(manifest.undeployed(4).wanted().replicas, 0);
        let least = Manifest::parse(payload("").as_bytes()).unwrap();
        assert_eq!(least.wanted().replicas, 1);
        assert!(least.wanted().hosts.fits(&"any".parse().unwrap(), &BTreeMap::new()));
        for source in
            [r#"{"store":"digest"}"#.to_owned(), format!(r#"{{"oci":"oci://registry.example/shop/cart@{DIGEST}"}}"#)]
        {
            let text = payload("").replace(r#"{"file":"cart.wasm"}"#, &source);
            let manifest = Manifest::parse(text.as_bytes()).unwrap();
            assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest, "{source}");
        }
    }

    #[test]
    fn what_says_more_or_less_than_it_should_is_refused() {
        let long = format!(r#","route":[{}]"#, vec![r#"{"path":"/a"}"#; ROUTES + 1].join(","));
        let evidence = format!(r#","evidence":[{}]"#, vec![r#""a""#; EVIDENCE + 1].join(","));
        let ids: Vec<_> = (0..=SELECTED_HOSTS).map(|n| format!("\"h{n}\"")).collect();
        let ids = format!(r#","hosts":{{"ids":[{}]}}"#, ids.join(","));
        let labels: Vec<_> = (0..=LABELS).map(|n| format!("\"l{n}\":\"\"")).collect();
        let labels = format!(r#","hosts":{{"labels":{{{}}}}}"#, labels.join(","));
        for more in [
            r#","x":1"#,
            r#","replicas":-1"#,
            r#","replicas":1001"#,
            r#","replicas":"2""#,
            r#","version":4"#,
            r#","hosts":{"any":true}"#,
            r#","hosts":{"ids":["*"]}"#,
            r#","hosts":{"labels":{"":"a"}}"#,
            r#","route":[{"path":"cart"}]"#,
            r#","route":[{"path":"/a/../b"}]"#,
            r#","route":[{"path":"/","host":"A"}]"#,
            r#","evidence":["../a"]"#,
            &long,
            &evidence,
            &ids,
            &labels,
        ] {
            assert!(Manifest::parse(payload(more).as_bytes()).is_err(), "{more}");
        }
        let good = payload("");
        for (old, new) in [
            (r#""version":3"#, r#""version":0"#),
            (r#""format":1"#, r#""format":2"#),
            ("shop:cart", "shop"),
            ("shop:cart", "Shop:cart"),
            ("aaaa\"", "aaa\""),
            (r#"{"file":"cart.wasm"}"#, r#"{"file":"/etc/passwd"}"#),
            (r#"{"file":"cart.wasm"}"#, r#"{"file":"a/../../b"}"#),
            (r#"{"file":"cart.wasm"}"#, r#"{"file":""}"#),
            (r#"{"file":"cart.wasm"}"#, r#"{"oci":"oci://registry.example/a:1"}"#),
            (r#"{"file":"cart.wasm"}"#, r#"{}"#),
            (r#"{"file":"cart.wasm"}"#, r#"{"store":"other"}"#),
            (r#"{"file":"cart.wasm"}"#, r#"{"file":"a","store":"digest"}"#),
            (r#"{"file":"cart.wasm"}"#, r#"{"store":"digest"},"evidence":["a"]"#),
        ] {
            assert_ne!(good.replace(old, new), good, "{old}");
            assert!(Manifest::parse(good.replace(old, new).as_bytes()).is_err(), "{new}");
        }
        assert!(matches!(Manifest::parse(&vec![b' '; DOCUMENT_BYTES + 1]), Err(DocumentError::TooLarge { .. })));
    }

    #[test]
    fn a_selection_wants_one_of_the_names_and_all_of_the_labels() {
        let labels = |text: &str| -> BTreeMap<String, String> {
            text.split(',').filter_map(|pair| pair.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
        };
        let selector =
            Selector { ids: ["h1", "h2"].map(|id| id.parse().unwrap()).into(), labels: labels("zone=eu,gpu=no") };
        let fits = |id: &str, has: &str| selector.fits(&id.parse().unwrap(), &labels(has));
        assert!(fits("h1", "zone=eu,gpu=no,more=1"));
        assert!(!fits("h3", "zone=eu,gpu=no"));
        assert!(!fits("h1", "zone=eu"));
        assert!(!fits("h1", "zone=us,gpu=no"));
    }
}
