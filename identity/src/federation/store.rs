//! The foreign bundles on disk, a file for each trust domain, so that a restart finds what was fetched last (SPIFFE_Federation
//! section 5.3). Each is whole or not there; one that is damaged or of another trust domain counts as none and is named.
//!
//! With each bundle stands the SHA-256 of the bootstrap file that the operator gave: another bootstrap is the operator's word
//! to begin anew, the same one never replaces what was fetched since.

use std::path::Path;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::holding::Holding;
use crate::bundle_document::BundleDocument;
use crate::checked_file::{SEAL_BYTES, seal, unseal};
use crate::hex::hex;
use crate::issuer_error::IssuerError;
use crate::key_store::KeyStore;
use crate::limits::MAX_BUNDLE_BYTES;
use crate::trust_domain::TrustDomain;

/// The open, locked directory of foreign bundles.
pub struct FederationStore {
    files: KeyStore,
}

/// What is stored of one trust domain.
#[derive(Debug)]
pub struct Stored {
    /// The bundle.
    pub holding: Holding,
    /// The SHA-256 of the bootstrap file that was configured when it was stored.
    pub bootstrap: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    trust_domain: TrustDomain,
    confirmed: i64,
    bootstrap: Option<String>,
    document: String,
}

impl FederationStore {
    /// Opens the directory, making it if it is not there.
    pub fn open(dir: &Path) -> Result<Self, IssuerError> {
        Ok(Self { files: KeyStore::open(dir)? })
    }

    /// What is stored of this trust domain.
    pub fn read(&self, trust_domain: &TrustDomain) -> Result<Option<Stored>, IssuerError> {
        let name = file_name(trust_domain);
        let Some(bytes) = self.files.read(&name, MAX_FILE_BYTES)? else { return Ok(None) };
        let damaged = |reason| IssuerError::Damaged { path: self.files.path(&name), reason };
        let line = unseal(&bytes).map_err(damaged)?;
        let file: File = serde_json::from_slice(line).map_err(|_| damaged("it is no stored bundle"))?;
        if file.version != VERSION || file.trust_domain != *trust_domain {
            return Err(damaged("it is of another version or trust domain"));
        }
        let document = BundleDocument::parse(trust_domain, file.document.as_bytes());
        let document = Arc::new(document.map_err(|_| damaged("the document in it is no bundle"))?);
        let confirmed =
            OffsetDateTime::from_unix_timestamp(file.confirmed).map_err(|_| damaged("its time is out of range"))?;
        Ok(Some(Stored { holding: Holding::first(document, confirmed), bootstrap: file.bootstrap }))
    }

    /// Stores a bundle; on disk when this returns.
    pub fn write(&self, holding: &Holding, bootstrap: Option<&str>) -> Result<(), IssuerError> {
        let document = holding.document();
        let file = File {
            version: VERSION,
            trust_domain: document.trust_domain().clone(),
            confirmed: holding.confirmed().unix_timestamp(),
            bootstrap: bootstrap.map(str::to_owned),
            document: document.json().to_owned(),
        };
        let mut bytes =
            serde_json::to_vec(&file).map_err(|_| IssuerError::Creation("a stored bundle cannot be written"))?;
        seal(&mut bytes);
        self.files.write(&file_name(document.trust_domain()), &bytes)
    }

    /// Removes what is stored of every trust domain but these; returns how many files went.
    pub fn keep_only<'a>(&self, domains: impl IntoIterator<Item = &'a TrustDomain>) -> Result<usize, IssuerError> {
        let kept: Vec<_> = domains.into_iter().map(file_name).collect();
        let mut removed = 0;
        for name in self.files.names(ENDING)? {
            if !kept.contains(&name) {
                self.files.remove(&name)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// What tells one bootstrap file from another.
pub fn bootstrap_digest(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// A trust domain may be longer than a file name and may be `..`.
fn file_name(trust_domain: &TrustDomain) -> String {
    hex(digest(&SHA256, trust_domain.as_str().as_bytes()).as_ref()) + ENDING
}

impl std::fmt::Debug for FederationStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FederationStore")
    }
}

const VERSION: u32 = 1;
const ENDING: &str = ".bundle";
/// A document whose every character is escaped, and what is around it.
const MAX_FILE_BYTES: usize = 6 * MAX_BUNDLE_BYTES + 4096 + SEAL_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(domain: &str, sequence: u64) -> Holding {
        let json = format!("{{\"keys\": [], \"spiffe_sequence\": {sequence}, \"x\": \"\\u0001\"}}");
        let document = BundleDocument::parse(&domain.parse().unwrap(), json.as_bytes()).unwrap();
        Holding::first(Arc::new(document), OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap())
    }

    #[test]
    fn what_was_stored_is_found_again_by_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("federation");
        let stored = holding("example.com", 7);
        FederationStore::open(&path).unwrap().write(&stored, Some("b")).unwrap();
        let store = FederationStore::open(&path).unwrap();
        let found = store.read(&"example.com".parse().unwrap()).unwrap().unwrap();
        assert_eq!(found.holding.document().json(), stored.document().json());
        assert_eq!((found.holding.confirmed(), found.bootstrap.as_deref()), (stored.confirmed(), Some("b")));
        assert!(store.read(&"example.net".parse().unwrap()).unwrap().is_none());
    }

    #[test]
    fn trust_domains_that_are_no_file_names_are_stored_too() {
        let dir = tempfile::tempdir().unwrap();
        let store = FederationStore::open(&dir.path().join("federation")).unwrap();
        for domain in ["..", ".", &"d".repeat(255)] {
            store.write(&holding(domain, 1), None).unwrap();
            assert!(store.read(&domain.parse().unwrap()).unwrap().is_some(), "{domain}");
        }
    }

    #[test]
    fn a_peer_that_was_removed_takes_its_bundle_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = FederationStore::open(&dir.path().join("federation")).unwrap();
        let (kept, gone): (TrustDomain, TrustDomain) = ("example.com".parse().unwrap(), "example.net".parse().unwrap());
        store.write(&holding("example.com", 1), None).unwrap();
        store.write(&holding("example.net", 1), None).unwrap();
        assert_eq!(store.keep_only([&kept]).unwrap(), 1);
        assert!(store.read(&kept).unwrap().is_some() && store.read(&gone).unwrap().is_none());
    }

    #[test]
    fn damaged_and_exchanged_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("federation");
        let store = FederationStore::open(&path).unwrap();
        let (one, two): (TrustDomain, TrustDomain) = ("example.com".parse().unwrap(), "example.net".parse().unwrap());
        store.write(&holding("example.com", 1), None).unwrap();
        let bytes = std::fs::read(path.join(file_name(&one))).unwrap();
        for end in 0..bytes.len() {
            store.files.write(&file_name(&one), &bytes[..end]).unwrap();
            assert!(matches!(store.read(&one), Err(IssuerError::Damaged { .. })), "cut at {end}");
        }
        store.files.write(&file_name(&two), &bytes).unwrap();
        assert!(matches!(store.read(&two), Err(IssuerError::Damaged { .. })));
    }
}
