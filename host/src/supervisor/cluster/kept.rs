//! What a host remembers of its cluster over restarts: the highest versions, the revocations in force and when they were last
//! looked at. The set of policies that this start of the host found proven is here, too; its file is on the shelf, as it was signed.
//!
//! INVARIANT: on disk before it has an effect, but for a revocation, which does not wait for the disk. Damaged files are not
//! empty ones: nothing is placed until somebody has looked.

use std::io;
use std::path::{Path, PathBuf};

use portcullis_cluster::{ClusterName, Place, PolicyDocument, RevocationList, Seen, SeenError, Verdict};
use portcullis_identity::SpiffeId;
use portcullis_identity::statement::Signer;
use portcullis_signing::Digest;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::state::write_atomically;

/// The files of one host.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    seen: Seen,
    revoked: Option<RevocationList>,
    /// Why the list in force is not proven by a statement that this start of the host has seen.
    doubt: Option<String>,
    policy: Option<PolicyDocument>,
    confirmed_at: Option<i64>,
}

/// Files that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: what was seen of the cluster cannot be read: {why}; hint: restore the file; deleting it forgets every rollback protection", path.display())]
pub struct KeptError {
    path: PathBuf,
    why: String,
}

/// Why a version was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// It must not be.
    #[error(transparent)]
    Seen(#[from] SeenError),
    /// Its signer was revoked before it was taken.
    #[error("{0} is revoked")]
    Revoked(SpiffeId),
    /// The disk did not take it.
    #[error("it cannot be written: {0}")]
    Disk(#[from] io::Error),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Looked {
    confirmed_at: i64,
}

impl TakeError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Seen(error) => error.code(),
            Self::Revoked(_) => "cluster.denied",
            Self::Disk(_) => "cluster.disk",
        }
    }
}

impl Kept {
    /// Reads what was kept; missing files are a new host.
    pub fn open(folder: &Path, cluster: &ClusterName) -> Result<Self, KeptError> {
        let failed = |name: &str, why: String| KeptError { path: folder.join(name), why };
        let read = |name: &str| match std::fs::read(folder.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(name, error.to_string())),
        };
        let seen = match read(SEEN)? {
            Some(bytes) => Seen::parse(&bytes, cluster).map_err(|error| failed(SEEN, error.to_string()))?,
            None => Seen::new(cluster.clone()),
        };
        let revoked = read(REVOKED)?;
        let looked = read(LOOKED)?.map(|bytes| serde_json::from_slice::<Looked>(&bytes)).transpose();
        let mut kept = Self {
            folder: folder.to_path_buf(),
            seen,
            revoked: None,
            doubt: None,
            policy: None,
            confirmed_at: looked.map_err(|error| failed(LOOKED, error.to_string()))?.map(|looked| looked.confirmed_at),
        };
        // A crash between a document and its mark leaves the mark behind: it is raised here.
        if let Some(bytes) = revoked {
            let list = RevocationList::parse(&bytes).map_err(|error| failed(REVOKED, error.to_string()))?;
            kept.raise(&Place::Revoked, list.epoch(), &bytes).map_err(|why| failed(REVOKED, why))?;
            // It takes rights away, so it is in force. That it takes enough of them away its statement is to say.
            kept.revoked = Some(list);
            kept.doubt = Some("nobody has looked at its statement yet".to_owned());
        } else if let Some(mark) = kept.seen.mark(&Place::Revoked) {
            // The list is on disk before its mark.
            return Err(failed(REVOKED, format!("it is gone, epoch {} was seen", mark.version)));
        }
        Ok(kept)
    }

    fn raise(&mut self, place: &Place, version: u64, payload: &[u8]) -> Result<(), String> {
        if let Some(seen) = self.seen.with(place, version, Digest::of(payload)).map_err(|error| error.to_string())? {
            self.seen = seen;
        }
        Ok(())
    }

    /// Whether a version may be believed.
    pub fn judge(&self, place: &Place, version: u64, payload: &[u8]) -> Result<Verdict, SeenError> {
        self.seen.judge(place, version, &Digest::of(payload))
    }

    /// Whether anything was ever seen at a place.
    pub fn knows(&self, place: &Place) -> bool {
        self.version(place).is_some()
    }

    /// The highest version that was seen at a place.
    pub fn version(&self, place: &Place) -> Option<u64> {
        self.seen.mark(place).map(|mark| mark.version)
    }

    /// Takes the version of a manifest.
    pub fn take(&mut self, place: &Place, version: u64, payload: &[u8]) -> Result<Verdict, TakeError> {
        match self.seen.with(place, version, Digest::of(payload))? {
            None => Ok(Verdict::Same),
            Some(seen) => {
                write_atomically(&self.folder.join(SEEN), &seen.to_json())?;
                self.seen = seen;
                Ok(Verdict::New)
            }
        }
    }

    /// Takes a list. Where the disk does not, it is in force all the same.
    pub fn take_revoked(&mut self, list: RevocationList, payload: &[u8]) -> Result<Verdict, TakeError> {
        let verdict = self.seen.judge(&Place::Revoked, list.epoch(), &Digest::of(payload))?;
        let same = self.revoked.as_ref() == Some(&list);
        self.revoked = Some(list);
        self.doubt = None;
        if !same {
            write_atomically(&self.folder.join(REVOKED), payload)?;
        }
        // The list first: a mark without its list would leave a host that restarts without either.
        let epoch = self.revoked.as_ref().map(RevocationList::epoch).unwrap_or_default();
        self.take(&Place::Revoked, epoch, payload)?;
        Ok(if same { verdict } else { Verdict::New })
    }

    /// Takes a set of policies that is about to be in force, as soon as it is kept as it was signed. The value first: a mark without it
    /// would leave a host that restarts without either.
    pub fn take_policy(
        &mut self,
        set: PolicyDocument,
        payload: &[u8],
        keep: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), TakeError> {
        self.seen.judge(&Place::Policy, set.version(), &Digest::of(payload))?;
        keep()?;
        self.take(&Place::Policy, set.version(), payload)?;
        self.policy = Some(set);
        if let Some(path) = self.unsigned_policy() {
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    /// The file in which releases before kept the set of policies without its statement, where there is one.
    pub fn unsigned_policy(&self) -> Option<PathBuf> {
        Some(self.folder.join(POLICY)).filter(|path| path.exists())
    }

    /// The revocations were looked at now.
    pub fn confirm(&mut self, now: OffsetDateTime) {
        let now = now.unix_timestamp();
        let old = self.confirmed_at.replace(now);
        // Not each time: what matters is that a restart knows about when.
        if old.is_none_or(|old| now - old >= CONFIRM_EVERY || now < old) {
            let written = serde_json::to_vec(&Looked { confirmed_at: now }).map_err(io::Error::other);
            if let Err(error) = written.and_then(|bytes| write_atomically(&self.folder.join(LOOKED), &bytes)) {
                tracing::warn!(%error, "when the revocations were looked at cannot be kept");
            }
        }
    }

    /// When the revocations were last looked at. A moment in the future is none: the clock was another one then.
    pub fn confirmed_at(&self, now: OffsetDateTime) -> Option<i64> {
        self.confirmed_at.filter(|at| *at <= now.unix_timestamp())
    }

    /// Whether a SPIFFE ID is revoked in the cluster.
    pub fn revokes(&self, id: &SpiffeId) -> bool {
        self.revoked.as_ref().is_some_and(|list| list.spiffe_ids().contains(id))
    }

    /// Asked right before something is taken: between the look at its statement and now, a list may have come that revokes its
    /// signer, here or in the cluster.
    pub fn still_trusts(&self, by: &Signer, revoked_here: impl FnOnce(&SpiffeId) -> bool) -> Result<(), TakeError> {
        match by {
            Signer::Svid(id) if self.revokes(id) || revoked_here(id) => Err(TakeError::Revoked(id.clone())),
            Signer::Svid(_) | Signer::Nkey(_) => Ok(()),
        }
    }

    /// Why the list of revocations in force is not proven, where it is not.
    pub fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }

    /// The list in force was looked at: this is why its statement does not prove it, or it does. Whatever came meanwhile is proven.
    pub fn looked_at(&mut self, list: &RevocationList, doubt: Option<String>) {
        if self.doubt.is_some() && self.revoked.as_ref() == Some(list) {
            self.doubt = doubt;
        }
    }

    /// The revocations in force.
    pub fn revoked(&self) -> Option<&RevocationList> {
        self.revoked.as_ref()
    }

    /// The set of policies in force.
    pub fn policy(&self) -> Option<&PolicyDocument> {
        self.policy.as_ref()
    }
}

const SEEN: &str = "seen.json";
const REVOKED: &str = "revoked.json";
const POLICY: &str = "policy.json";
const LOOKED: &str = "looked.json";
/// Seconds between two times that a look is kept.
const CONFIRM_EVERY: i64 = 5;

#[cfg(test)]
mod tests {
    use portcullis_cluster::RevocationEdit;

    use super::*;

    fn cluster() -> ClusterName {
        "prod".parse().unwrap()
    }

    fn list(epoch: u64) -> RevocationList {
        let add = RevocationEdit { instances: [format!("i{epoch}")].into(), ..RevocationEdit::default() };
        RevocationList::empty(epoch - 1).next(&add, &RevocationEdit::default()).unwrap()
    }

    #[test]
    fn what_was_seen_is_known_after_a_restart_and_an_older_list_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(temp.path(), &cluster()).unwrap();
        let app = Place::App("shop:cart".parse().unwrap());
        assert_eq!(kept.take(&app, 3, b"x").unwrap(), Verdict::New);
        assert_eq!(kept.take_revoked(list(5), &list(5).to_json()).unwrap(), Verdict::New);
        kept.confirm(OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(1_000));
        let mut kept = Kept::open(temp.path(), &cluster()).unwrap();
        assert!(matches!(kept.take(&app, 2, b"y"), Err(TakeError::Seen(SeenError::Lower { .. }))));
        assert_eq!(kept.revoked(), Some(&list(5)));
        assert!(kept.doubt().is_some(), "nobody has looked at its statement");
        assert!(kept.take_revoked(list(4), &list(4).to_json()).is_err() && kept.doubt().is_some());
        assert_eq!(kept.revoked(), Some(&list(5)), "the newer one stays in force");
        assert_eq!(kept.take_revoked(list(5), &list(5).to_json()).unwrap(), Verdict::Same);
        assert!(kept.doubt().is_none());
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds);
        assert_eq!(kept.confirmed_at(at(1_001)), Some(1_000));
        assert_eq!(kept.confirmed_at(at(999)), None, "the clock went back");
    }

    #[test]
    fn a_crash_between_the_list_and_its_mark_loses_neither() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join(REVOKED), list(7).to_json()).unwrap();
        let mut kept = Kept::open(temp.path(), &cluster()).unwrap();
        assert_eq!(kept.revoked(), Some(&list(7)));
        assert!(kept.take_revoked(list(6), &list(6).to_json()).is_err(), "its mark was not written before the crash");
        assert!(kept.take_revoked(list(7), &list(7).to_json()).is_ok());
        assert!(kept.take_revoked(list(6), &list(6).to_json()).is_err());
    }

    #[test]
    fn a_list_that_the_disk_does_not_take_is_in_force_and_said_to_be_so() {
        let temp = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(&temp.path().join("gone"), &cluster()).unwrap();
        assert!(matches!(kept.take_revoked(list(2), &list(2).to_json()), Err(TakeError::Disk(_))));
        assert_eq!(kept.revoked(), Some(&list(2)));
    }

    #[test]
    fn whom_the_list_in_force_revokes_signs_nothing_any_more_not_even_the_list_that_lifts_it() {
        let temp = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(temp.path(), &cluster()).unwrap();
        let id = |name: &str| format!("spiffe://example.org/{name}").parse::<SpiffeId>().unwrap();
        let (out, other) = (Signer::Svid(id("out")), Signer::Svid(id("other")));
        assert!(kept.still_trusts(&out, |_| false).is_ok());
        let revoke = RevocationEdit { spiffe_ids: [id("out")].into(), ..RevocationEdit::default() };
        let list = RevocationList::empty(1).next(&revoke, &RevocationEdit::default()).unwrap();
        kept.take_revoked(list.clone(), &list.to_json()).unwrap();
        let refused = kept.still_trusts(&out, |_| false).unwrap_err();
        assert!(matches!(&refused, TakeError::Revoked(by) if *by == id("out")), "{refused}");
        assert_eq!(refused.code(), "cluster.denied");
        assert!(kept.still_trusts(&other, |_| false).is_ok());
        assert!(kept.still_trusts(&other, |id| id.path() == "/other").is_err(), "this host's own list counts, too");
        // Another operator gives it back.
        let lifted = list.next(&RevocationEdit::default(), &revoke).unwrap();
        kept.take_revoked(lifted.clone(), &lifted.to_json()).unwrap();
        assert!(kept.still_trusts(&out, |_| false).is_ok());
    }

    #[test]
    fn a_list_that_is_gone_was_not_lifted() {
        let temp = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(temp.path(), &cluster()).unwrap();
        kept.take_revoked(list(5), &list(5).to_json()).unwrap();
        std::fs::remove_file(temp.path().join(REVOKED)).unwrap();
        assert!(Kept::open(temp.path(), &cluster()).unwrap_err().to_string().contains("epoch 5"));
    }

    #[test]
    fn a_list_is_proven_by_its_own_statement_alone() {
        let temp = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(temp.path(), &cluster()).unwrap();
        assert!(kept.doubt().is_none(), "there is no list");
        kept.take_revoked(list(5), &list(5).to_json()).unwrap();
        let mut kept = Kept::open(temp.path(), &cluster()).unwrap();
        kept.looked_at(&list(5), Some("changed".to_owned()));
        kept.looked_at(&list(4), None);
        assert_eq!(kept.doubt(), Some("changed"), "another one was looked at");
        kept.looked_at(&list(5), None);
        assert_eq!(kept.doubt(), None);
        // What came from the cluster is proven, whatever the disk had.
        kept.looked_at(&list(5), Some("late".to_owned()));
        assert_eq!(kept.doubt(), None);
    }

    #[test]
    fn a_set_of_policies_that_was_kept_without_its_statement_is_not_read_and_goes_when_a_signed_one_comes() {
        let temp = tempfile::tempdir().unwrap();
        let json = br#"{"format":1,"version":4,"texts":[{"name":"a","kind":"cedar","text":""}]}"#;
        std::fs::write(temp.path().join(POLICY), json).unwrap();
        let mut kept = Kept::open(temp.path(), &cluster()).unwrap();
        assert!(kept.policy().is_none() && !kept.knows(&Place::Policy) && kept.unsigned_policy().is_some());
        let set = || PolicyDocument::parse(json).unwrap();
        let full = kept.take_policy(set(), json, || Err(io::Error::other("full")));
        assert!(matches!(full, Err(TakeError::Disk(_))) && kept.policy().is_none() && !kept.knows(&Place::Policy));
        kept.take_policy(set(), json, || Ok(())).unwrap();
        assert_eq!((kept.policy(), kept.version(&Place::Policy)), (Some(&set()), Some(4)));
        assert!(kept.unsigned_policy().is_none());
        let kept = Kept::open(temp.path(), &cluster()).unwrap();
        assert!(kept.policy().is_none() && kept.knows(&Place::Policy), "proven anew at each start");
    }

    #[test]
    fn damaged_files_are_not_a_fresh_start() {
        for name in [SEEN, REVOKED, LOOKED] {
            let temp = tempfile::tempdir().unwrap();
            std::fs::write(temp.path().join(name), "{").unwrap();
            assert!(Kept::open(temp.path(), &cluster()).unwrap_err().to_string().contains(name));
        }
    }
}
