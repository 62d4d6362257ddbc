//! What is revoked on this host: instances for as long as they run, SPIFFE IDs until the operator lifts it.
//!
//! SPIFFE IDs are on disk before the revocation has an effect, so that a restart gives nobody an identity back. A file that
//! cannot be read is not an empty list: the host does not start with it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use portcullis_identity::SpiffeId;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::state::write_atomically;

/// The list of one host.
#[derive(Debug)]
pub struct Revocations {
    path: PathBuf,
    instances: BTreeSet<String>,
    spiffe_ids: BTreeSet<SpiffeId>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    spiffe_ids: Vec<String>,
}

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: the revoked SPIFFE IDs cannot be read: {why}; hint: restore the file; deleting it gives all of them their identity back", path.display())]
pub struct RevocationsError {
    path: PathBuf,
    why: String,
}

impl Revocations {
    /// Reads the list; a missing file is an empty one.
    pub fn open(path: &Path) -> Result<Self, RevocationsError> {
        let failed = |why: String| RevocationsError { path: path.to_path_buf(), why };
        let kept = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes).map_err(|error| failed(error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept { version: 1, spiffe_ids: Vec::new() },
            Err(error) => return Err(failed(error.to_string())),
        };
        if kept.version != 1 {
            return Err(failed(format!("version {} is not known", kept.version)));
        }
        let spiffe_ids: Result<BTreeSet<SpiffeId>, _> = kept.spiffe_ids.iter().map(|id| id.parse()).collect();
        let spiffe_ids = spiffe_ids.map_err(|error| failed(error.to_string()))?;
        if spiffe_ids.len() > limits::REVOKED {
            return Err(failed(format!("more than {} SPIFFE IDs", limits::REVOKED)));
        }
        Ok(Self { path: path.to_path_buf(), instances: BTreeSet::new(), spiffe_ids })
    }

    /// Whether this SPIFFE ID is revoked.
    pub fn has_id(&self, spiffe_id: &SpiffeId) -> bool {
        self.spiffe_ids.contains(spiffe_id)
    }

    /// Revokes a SPIFFE ID; on disk when this returns.
    pub fn revoke_id(&mut self, spiffe_id: SpiffeId) -> io::Result<()> {
        let mut ids = self.spiffe_ids.clone();
        ids.insert(spiffe_id);
        if ids.len() > limits::REVOKED {
            let why = format!("{} SPIFFE IDs are revoked already: lift some", limits::REVOKED);
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
        }
        self.keep(ids)
    }

    /// Lifts the revocation of a SPIFFE ID; says whether there was one.
    pub fn lift_id(&mut self, spiffe_id: &SpiffeId) -> io::Result<bool> {
        let mut ids = self.spiffe_ids.clone();
        if !ids.remove(spiffe_id) {
            return Ok(false);
        }
        self.keep(ids)?;
        Ok(true)
    }

    /// Revokes an instance until it ends.
    pub fn revoke_instance(&mut self, instance: &str) {
        self.instances.insert(instance.to_owned());
    }

    /// An instance ended.
    pub fn ended(&mut self, instance: &str) {
        self.instances.remove(instance);
    }

    /// The instances, then the SPIFFE IDs.
    pub fn all(&self) -> (Vec<String>, Vec<String>) {
        (self.instances.iter().cloned().collect(), self.spiffe_ids.iter().map(ToString::to_string).collect())
    }

    fn keep(&mut self, spiffe_ids: BTreeSet<SpiffeId>) -> io::Result<()> {
        let kept = Kept { version: 1, spiffe_ids: spiffe_ids.iter().map(ToString::to_string).collect() };
        write_atomically(&self.path, &serde_json::to_vec_pretty(&kept)?)?;
        self.spiffe_ids = spiffe_ids;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> SpiffeId {
        format!("spiffe://example.org/{name}").parse().unwrap()
    }

    #[test]
    fn ids_stay_revoked_over_a_restart_until_they_are_lifted_and_instances_do_not() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("revoked.json");
        let mut list = Revocations::open(&path).unwrap();
        list.revoke_id(id("a")).unwrap();
        list.revoke_id(id("b")).unwrap();
        list.revoke_instance("i1");
        assert_eq!(list.all().0, ["i1"]);
        let mut list = Revocations::open(&path).unwrap();
        assert_eq!(list.all(), (vec![], vec![id("a").to_string(), id("b").to_string()]));
        assert!(list.lift_id(&id("a")).unwrap());
        assert!(!list.lift_id(&id("a")).unwrap());
        let list = Revocations::open(&path).unwrap();
        assert!(!list.has_id(&id("a")) && list.has_id(&id("b")));
    }

    #[test]
    fn a_damaged_list_is_not_an_empty_one() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("revoked.json");
        for damaged in [
            "",
            "{",
            "{}",
            r#"{"version":2,"spiffe_ids":[]}"#,
            r#"{"version":1,"spiffe_ids":["spiffe://"]}"#,
            r#"{"version":1,"spiffe_ids":[],"x":1}"#,
        ] {
            std::fs::write(&path, damaged).unwrap();
            assert!(Revocations::open(&path).is_err(), "{damaged} passed");
        }
    }

    #[test]
    fn a_list_has_an_end() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("revoked.json");
        let mut list = Revocations::open(&path).unwrap();
        let ids = (0..limits::REVOKED).map(|n| id(&n.to_string())).collect();
        list.keep(ids).unwrap();
        assert!(list.revoke_id(id("one-more")).is_err());
        assert!(!list.has_id(&id("one-more")));
        assert!(Revocations::open(&path).is_ok());
    }
}
