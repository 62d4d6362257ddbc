//! The revocation list of a cluster: who must not run any more, whatever else says so. Whole, not in pieces: each epoch says all
//! of it, and a higher epoch replaces a lower one.

use std::collections::BTreeSet;

use portcullis_identity::SpiffeId;
use portcullis_signing::Digest;
use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentError};
use crate::limits::{DOCUMENT_BYTES, REVOKED, TEXT_BYTES};

/// The signed payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationList {
    format: u32,
    epoch: u64,
    #[serde(default)]
    instances: BTreeSet<String>,
    #[serde(default)]
    spiffe_ids: BTreeSet<SpiffeId>,
    #[serde(default)]
    digests: BTreeSet<Digest>,
    #[serde(default)]
    signers: BTreeSet<String>,
}

/// What a command adds to a list, or takes from it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevocationEdit {
    /// Instances.
    pub instances: BTreeSet<String>,
    /// SPIFFE IDs.
    pub spiffe_ids: BTreeSet<SpiffeId>,
    /// Digests of components.
    pub digests: BTreeSet<Digest>,
    /// Signers, as `portcullis list --json` shows them.
    pub signers: BTreeSet<String>,
}

impl RevocationEdit {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.spiffe_ids.is_empty() && self.digests.is_empty() && self.signers.is_empty()
    }
}

impl RevocationList {
    /// Nothing is revoked.
    pub fn empty(epoch: u64) -> Self {
        let (instances, signers) = (BTreeSet::new(), BTreeSet::new());
        Self { format: FORMAT, epoch, instances, spiffe_ids: BTreeSet::new(), digests: BTreeSet::new(), signers }
    }

    /// Reads a payload.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let list: Self = document::read("the revocation list", bytes, DOCUMENT_BYTES)?;
        document::format("the revocation list", list.format, FORMAT)?;
        list.check()?;
        Ok(list)
    }

    /// Writes the payload.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The next epoch: with some entries more or less.
    pub fn next(&self, add: &RevocationEdit, lift: &RevocationEdit) -> Result<Self, DocumentError> {
        self.at(self.epoch.saturating_add(1), add, lift)
    }

    /// The same under an epoch that was chosen.
    pub fn at(&self, epoch: u64, add: &RevocationEdit, lift: &RevocationEdit) -> Result<Self, DocumentError> {
        fn edit<T: Ord + Clone>(old: &BTreeSet<T>, add: &BTreeSet<T>, lift: &BTreeSet<T>) -> BTreeSet<T> {
            old.union(add).filter(|entry| !lift.contains(entry)).cloned().collect()
        }
        let list = Self {
            format: FORMAT,
            epoch,
            instances: edit(&self.instances, &add.instances, &lift.instances),
            spiffe_ids: edit(&self.spiffe_ids, &add.spiffe_ids, &lift.spiffe_ids),
            digests: edit(&self.digests, &add.digests, &lift.digests),
            signers: edit(&self.signers, &add.signers, &lift.signers),
        };
        list.check()?;
        match list.to_json().len() {
            size if size > DOCUMENT_BYTES => {
                Err(DocumentError::TooLarge { what: "the revocation list", most: DOCUMENT_BYTES })
            }
            _ => Ok(list),
        }
    }

    /// The epoch: a higher one replaces a lower one, never the other way.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Instances that are revoked.
    pub fn instances(&self) -> &BTreeSet<String> {
        &self.instances
    }

    /// SPIFFE IDs that are revoked.
    pub fn spiffe_ids(&self) -> &BTreeSet<SpiffeId> {
        &self.spiffe_ids
    }

    /// Digests of components that are revoked.
    pub fn digests(&self) -> &BTreeSet<Digest> {
        &self.digests
    }

    /// Signers whose components are revoked.
    pub fn signers(&self) -> &BTreeSet<String> {
        &self.signers
    }

    /// All entries, as text.
    pub fn entries(&self) -> impl Iterator<Item = String> {
        let (ids, digests) = (self.spiffe_ids.iter(), self.digests.iter());
        let names = self.instances.iter().chain(&self.signers).cloned();
        names.chain(ids.map(ToString::to_string)).chain(digests.map(ToString::to_string))
    }

    /// What an edit names that is not on the list.
    pub fn missing(&self, edit: &RevocationEdit) -> Vec<String> {
        let (ids, digests) = (&edit.spiffe_ids - &self.spiffe_ids, &edit.digests - &self.digests);
        let names = edit.instances.difference(&self.instances).chain(edit.signers.difference(&self.signers)).cloned();
        let ids = ids.iter().map(ToString::to_string);
        names.chain(ids).chain(digests.iter().map(ToString::to_string)).collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.instances.len() + self.spiffe_ids.len() + self.digests.len() + self.signers.len()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why something must not run, in words; `None`: this list has nothing against it. `digest` as text, as policy knows it.
    pub fn against<'a>(
        &self,
        instance: &str,
        spiffe_id: &SpiffeId,
        digest: &str,
        mut signers: impl Iterator<Item = &'a str>,
    ) -> Option<String> {
        if self.instances.contains(instance) {
            return Some(format!("the instance {instance} is revoked in the cluster, epoch {}", self.epoch));
        }
        if self.spiffe_ids.contains(spiffe_id) {
            return Some(format!("{spiffe_id} is revoked in the cluster, epoch {}", self.epoch));
        }
        if digest.parse::<Digest>().is_ok_and(|digest| self.digests.contains(&digest)) {
            return Some(format!("{digest} is revoked in the cluster, epoch {}", self.epoch));
        }
        let signer = signers.find(|signer| self.signers.contains(*signer))?;
        Some(format!("the signer {signer} is revoked in the cluster, epoch {}", self.epoch))
    }

    fn check(&self) -> Result<(), DocumentError> {
        if self.epoch == 0 {
            return Err(DocumentError::member("epoch", "begins with 1"));
        }
        if self.len() > REVOKED {
            return Err(DocumentError::member("entries", format!("there are more than {REVOKED}")));
        }
        let plain =
            |text: &String| !text.is_empty() && text.len() <= TEXT_BYTES && text.bytes().all(|b| b.is_ascii_graphic());
        if !self.instances.iter().all(plain) {
            return Err(DocumentError::member("instances", "names one that is no instance id"));
        }
        if !self.signers.iter().all(plain) {
            return Err(DocumentError::member("signers", "names one that is no signer"));
        }
        Ok(())
    }
}

const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> SpiffeId {
        format!("spiffe://example.org/{name}").parse().unwrap()
    }

    #[test]
    fn each_kind_of_entry_says_why() {
        let digest = Digest::of(b"x");
        let add = RevocationEdit {
            instances: ["i1".to_owned()].into(),
            spiffe_ids: [id("a")].into(),
            digests: [digest].into(),
            signers: ["AKEY".to_owned()].into(),
        };
        let list = RevocationList::empty(1).next(&add, &RevocationEdit::default()).unwrap();
        assert_eq!((list.epoch(), list.len()), (2, 4));
        assert_eq!(RevocationList::parse(&list.to_json()).unwrap(), list);
        let other = Digest::of(b"y").to_string();
        let against = |i: &str, s: &str, d: &str, k: &str| list.against(i, &id(s), d, [k].into_iter());
        assert!(against("i1", "b", &other, "B").unwrap().contains("instance i1"));
        assert!(against("i2", "a", &other, "B").unwrap().contains("example.org/a"));
        assert!(against("i2", "b", &digest.to_string(), "B").unwrap().contains("sha256:"));
        assert!(against("i2", "b", &other, "AKEY").unwrap().contains("signer AKEY"));
        assert_eq!(against("i2", "b", &other, "B"), None);
        assert_eq!((list.entries().count(), list.missing(&add).len()), (4, 0));
        assert_eq!(RevocationList::empty(1).missing(&add).len(), 4);
        let lifted = list.next(&RevocationEdit::default(), &add).unwrap();
        assert!(lifted.is_empty() && lifted.epoch() == 3);
    }

    #[test]
    fn a_list_has_an_end_and_no_unknown_members() {
        let add =
            RevocationEdit { instances: (0..REVOKED).map(|n| n.to_string()).collect(), ..RevocationEdit::default() };
        let full = RevocationList::empty(1).next(&add, &RevocationEdit::default()).unwrap();
        assert!(RevocationList::parse(&full.to_json()).is_ok());
        let more = RevocationEdit { spiffe_ids: [id("a")].into(), ..RevocationEdit::default() };
        assert!(full.next(&more, &RevocationEdit::default()).is_err());
        // The most that may be said fits into a value; what does not is refused where it is written.
        let long = RevocationEdit {
            instances: (0..REVOKED).map(|n| format!("{n:0>400}")).collect(),
            ..RevocationEdit::default()
        };
        assert!(matches!(
            RevocationList::empty(1).next(&long, &RevocationEdit::default()),
            Err(DocumentError::TooLarge { .. })
        ));
        for bad in [
            "",
            "{}",
            r#"{"format":1,"epoch":0}"#,
            r#"{"format":2,"epoch":1}"#,
            r#"{"format":1,"epoch":1,"x":[]}"#,
            r#"{"format":1,"epoch":1,"digests":["sha256:aa"]}"#,
            r#"{"format":1,"epoch":1,"spiffe_ids":["spiffe://a/../b"]}"#,
            r#"{"format":1,"epoch":1,"instances":[""]}"#,
            r#"{"format":1,"epoch":1,"signers":["a b"]}"#,
            r#"{"format":1,"epoch":-1}"#,
        ] {
            assert!(RevocationList::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
