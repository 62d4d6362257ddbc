//! The highest revision seen of each component, and of the trust policy: what makes a rollback visible after a restart.
//!
//! Written before the effect, replaced atomically. A file that cannot be read is not a fresh start: it refuses all loads
//! until the operator has looked.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use portcullis_signing::trust::Roots;
use serde::{Deserialize, Serialize};

use crate::state::write_atomically;

/// The marks of one host.
#[derive(Debug)]
pub struct HighWater {
    path: PathBuf,
    marks: Marks,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marks {
    version: u32,
    trust_policy: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deny_list: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    roots: Option<SeenRoots>,
    /// By audience, then by name.
    revisions: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Root keys that replaced the pinned ones.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeenRoots {
    pinned: Roots,
    now: Roots,
}

/// Marks that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: the highest revisions seen cannot be read: {why}; hint: restore the file; deleting it forgets every rollback protection", path.display())]
pub struct HighWaterError {
    path: PathBuf,
    why: String,
}

impl HighWater {
    /// Reads the marks; a missing file is a new host.
    pub fn open(path: &Path) -> Result<Self, HighWaterError> {
        let failed = |why: String| HighWaterError { path: path.to_path_buf(), why };
        let marks = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice::<Marks>(&bytes).map_err(|error| failed(error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Marks { version: 1, ..Marks::default() },
            Err(error) => return Err(failed(error.to_string())),
        };
        if marks.version != 1 {
            return Err(failed(format!("version {} is not known", marks.version)));
        }
        Ok(Self { path: path.to_path_buf(), marks })
    }

    /// The highest version of the trust policy that was in force.
    pub fn trust_policy(&self) -> Option<u64> {
        self.marks.trust_policy
    }

    /// The highest revision of a component that was admitted for an audience.
    pub fn revision(&self, name: &str, audience: &str) -> Option<u64> {
        self.marks.revisions.get(audience)?.get(name).copied()
    }

    /// The root keys that the next trust policy must be signed with, where they are others than those that are pinned.
    pub fn roots(&self, pinned: &Roots) -> Option<&Roots> {
        // Other pins are the operator's word: what was learnt from the old ones is void.
        self.marks.roots.as_ref().filter(|seen| seen.pinned.same(pinned)).map(|seen| &seen.now)
    }

    /// The highest version of the deny list that was in force.
    pub fn deny_list(&self) -> Option<u64> {
        self.marks.deny_list
    }

    /// Raises the mark of the trust policy, and keeps its root keys where they are others than the pinned ones.
    pub fn saw_trust_policy(&mut self, version: u64, pinned: &Roots, now: &Roots) -> io::Result<()> {
        let roots = (!now.same(pinned)).then(|| SeenRoots { pinned: pinned.clone(), now: now.clone() });
        let known = match (&self.marks.roots, &roots) {
            (None, None) => true,
            (Some(old), Some(new)) => old.pinned.same(&new.pinned) && old.now.same(&new.now),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if known && self.marks.trust_policy.is_some_and(|seen| seen >= version) {
            return Ok(());
        }
        let version = self.marks.trust_policy.map_or(version, |seen| seen.max(version));
        let marks = Marks { trust_policy: Some(version), roots, ..self.marks.clone() };
        self.replace(marks)
    }

    /// Raises the mark of the deny list.
    pub fn saw_deny_list(&mut self, version: u64) -> io::Result<()> {
        if self.marks.deny_list.is_some_and(|seen| seen >= version) {
            return Ok(());
        }
        let marks = Marks { deny_list: Some(version), ..self.marks.clone() };
        self.replace(marks)
    }

    /// Raises the mark of a component.
    pub fn saw_revision(&mut self, name: &str, audience: &str, revision: u64) -> io::Result<()> {
        if self.revision(name, audience).is_some_and(|seen| seen >= revision) {
            return Ok(());
        }
        let mut marks = self.marks.clone();
        marks.revisions.entry(audience.to_owned()).or_default().insert(name.to_owned(), revision);
        self.replace(marks)
    }

    fn replace(&mut self, marks: Marks) -> io::Result<()> {
        write_atomically(&self.path, &serde_json::to_vec_pretty(&marks)?)?;
        self.marks = marks;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_only_rise_and_survive_a_restart() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("high-water.json");
        let mut marks = HighWater::open(&path).unwrap();
        marks.saw_revision("a:b", "prod", 5).unwrap();
        marks.saw_revision("a:b", "prod", 3).unwrap();
        let roots = Roots { roots: Vec::new(), threshold: 1 };
        marks.saw_trust_policy(2, &roots, &roots).unwrap();
        marks.saw_deny_list(9).unwrap();
        marks.saw_deny_list(8).unwrap();
        let marks = HighWater::open(&path).unwrap();
        assert_eq!(marks.revision("a:b", "prod"), Some(5));
        assert_eq!(marks.revision("a:b", "test"), None);
        assert_eq!((marks.trust_policy(), marks.deny_list()), (Some(2), Some(9)));
        assert!(marks.roots(&roots).is_none());
    }

    #[test]
    fn root_keys_that_replaced_the_pinned_ones_are_kept_until_others_are_pinned() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("high-water.json");
        let key = || portcullis_signing::SecretKey::generate(portcullis_signing::KeyKind::Root).unwrap().public();
        let roots = || Roots { roots: vec![key()], threshold: 1 };
        let (pinned, next, others) = (roots(), roots(), roots());
        let mut marks = HighWater::open(&path).unwrap();
        marks.saw_trust_policy(2, &pinned, &next).unwrap();
        let mut marks = {
            drop(marks);
            HighWater::open(&path).unwrap()
        };
        assert!(marks.roots(&pinned).unwrap().same(&next));
        assert!(marks.roots(&others).is_none());
        // The operator pins the new ones: nothing else needs to be remembered.
        marks.saw_trust_policy(3, &next, &next).unwrap();
        assert!(marks.roots(&pinned).is_none());
        assert_eq!(marks.trust_policy(), Some(3));
    }

    #[test]
    fn a_damaged_file_is_not_a_fresh_start() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("high-water.json");
        for damaged in [
            "",
            "{",
            "{}",
            r#"{"version":2,"trust_policy":null,"revisions":{}}"#,
            r#"{"version":1,"trust_policy":null,"revisions":{},"x":1}"#,
        ] {
            std::fs::write(&path, damaged).unwrap();
            assert!(HighWater::open(&path).is_err(), "{damaged} passed");
        }
    }
}
