//! The signed values that a host took, as they came: on its disk, so that it knows what to run when nobody can be asked.
//!
//! Nothing here is believed for lying here: what is read goes the way of a value from a bucket, and must be the one whose version
//! and digest the marks name ([`super::kept`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use portcullis_cluster::{ClusterName, DocumentError, Place, Ran};
use portcullis_identity::limits::MAX_ENVELOPE_BYTES;
use portcullis_signing::{ComponentName, Digest};

use crate::state::write_atomically;

/// The values of one host, and the names of what ran by them.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    cluster: ClusterName,
    /// What lies there, as far as this start of the host has put it there.
    put: BTreeMap<Place, Put>,
    /// What ran when the host ended, until it runs again or the cluster says that it does not.
    pending: BTreeSet<ComponentName>,
    /// What the file says.
    written: Option<BTreeSet<ComponentName>>,
}

/// What was put in a place last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Put {
    version: u64,
    /// `None`: its file was taken away.
    envelope: Option<Digest>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The operating system.
    #[error("{}: {why}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// It is not what was written.
    #[error("{}: {why}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        why: DocumentError,
    },
    /// Larger than any value.
    #[error("{} is larger than any value", .0.display())]
    TooLarge(PathBuf),
}

impl Shelf {
    /// Opens the folder, and reads what ran. Where that cannot be read, nothing did.
    pub fn open(folder: &Path, cluster: &ClusterName) -> (Self, Option<ShelfError>) {
        let mut shelf = Self {
            folder: folder.to_path_buf(),
            cluster: cluster.clone(),
            put: BTreeMap::new(),
            pending: BTreeSet::new(),
            written: None,
        };
        let problem = shelf.read_ran().err();
        (shelf, problem)
    }

    fn read_ran(&mut self) -> Result<(), ShelfError> {
        let path = self.folder.join(RAN);
        let Some(bytes) = read(&path)? else { return Ok(()) };
        let ran = Ran::parse(&bytes, &self.cluster).map_err(|why| ShelfError::Damaged { path, why })?;
        self.pending = ran.components().clone();
        self.written = Some(self.pending.clone());
        Ok(())
    }

    /// Puts a value that was taken in its place, unless a newer one is there: they are heard and read at once. One that wants
    /// nothing to run is not kept: its mark is.
    pub fn put(&mut self, at: &Place, version: u64, envelope: &[u8], wanted: bool) -> io::Result<()> {
        let path = self.path(at);
        let new = Put { version, envelope: wanted.then(|| Digest::of(envelope)) };
        if self.put.get(at).is_some_and(|put| put.version > version || *put == new) {
            return Ok(());
        }
        if !wanted {
            if let Err(error) = std::fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            self.put.insert(at.clone(), new);
            return Ok(());
        }
        let folder = self.folder.join(VALUES);
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
        write_atomically(&path, envelope)?;
        self.put.insert(at.clone(), new);
        Ok(())
    }

    /// What lies in a place. Not believed.
    pub fn get(&self, at: &Place) -> Result<Option<Vec<u8>>, ShelfError> {
        read(&self.path(at))
    }

    /// What ran when the host ended and is still to be decided about.
    pub fn pending(&self) -> &BTreeSet<ComponentName> {
        &self.pending
    }

    /// One of these runs again, or is not to.
    pub fn decided(&mut self, component: &ComponentName) {
        self.pending.remove(component);
    }

    /// It was decided by the cluster's manifests whether these run here. What there is no manifest of is not decided: a key that is
    /// gone undeploys nothing.
    pub fn settled(&mut self, decided: &[ComponentName]) {
        self.pending.retain(|name| !decided.contains(name));
    }

    /// Keeps what runs now, beside what is still to be decided about.
    pub fn keep(&mut self, runs: impl Iterator<Item = ComponentName>) -> io::Result<()> {
        let now: BTreeSet<ComponentName> = runs.chain(self.pending.iter().cloned()).collect();
        if self.written.as_ref() == Some(&now) || (self.written.is_none() && now.is_empty()) {
            return Ok(());
        }
        let ran = Ran::new(self.cluster.clone(), now.clone());
        write_atomically(&self.folder.join(RAN), &ran.to_json())?;
        self.written = Some(now);
        Ok(())
    }

    /// The file of a place.
    pub fn path(&self, at: &Place) -> PathBuf {
        // Both parts are tokens of a subject: letters, digits and dashes.
        self.folder.join(VALUES).join(format!("{}.{}.json", at.bucket().word(), at.key()))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ShelfError> {
    let unreadable = |why| ShelfError::Unreadable { path: path.to_path_buf(), why };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let most = u64::try_from(MAX_ENVELOPE_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() > MAX_ENVELOPE_BYTES {
        true => Err(ShelfError::TooLarge(path.to_path_buf())),
        false => Ok(Some(bytes)),
    }
}

const VALUES: &str = "values";
const RAN: &str = "ran.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> Shelf {
        let (shelf, problem) = Shelf::open(folder, &"prod".parse().unwrap());
        assert!(problem.is_none(), "{problem:?}");
        shelf
    }

    #[test]
    fn a_value_is_kept_for_its_owner_alone_until_it_wants_nothing_to_run() {
        let temp = tempfile::tempdir().unwrap();
        let at = Place::App("shop:cart".parse().unwrap());
        let mut shelf = open(temp.path());
        assert!(shelf.get(&at).unwrap().is_none());
        shelf.put(&at, 1, b"one", true).unwrap();
        shelf.put(&at, 2, b"two", true).unwrap();
        let mut shelf = open(temp.path());
        assert_eq!(shelf.get(&at).unwrap().as_deref(), Some(&b"two"[..]));
        let path = temp.path().join("values/desired.app.shop.cart.json");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        shelf.put(&at, 3, b"three", false).unwrap();
        shelf.put(&at, 3, b"three", false).unwrap();
        assert!(!path.exists() && shelf.get(&at).unwrap().is_none());
        std::fs::write(&path, vec![b' '; MAX_ENVELOPE_BYTES + 1]).unwrap();
        assert!(matches!(shelf.get(&at), Err(ShelfError::TooLarge(_))));
    }

    #[test]
    fn an_older_value_that_comes_late_does_not_take_the_place_of_a_newer_one() {
        let temp = tempfile::tempdir().unwrap();
        let mut shelf = open(temp.path());
        let at = Place::Revoked;
        shelf.put(&at, 5, b"five", true).unwrap();
        shelf.put(&at, 4, b"four", true).unwrap();
        assert_eq!(shelf.get(&at).unwrap().as_deref(), Some(&b"five"[..]));
        shelf.put(&at, 5, b"five, signed again", true).unwrap();
        assert_eq!(shelf.get(&at).unwrap().as_deref(), Some(&b"five, signed again"[..]));
        // What is not to run any more does not come back.
        let at = Place::App("shop:cart".parse().unwrap());
        shelf.put(&at, 2, b"two", true).unwrap();
        shelf.put(&at, 3, b"three", false).unwrap();
        shelf.put(&at, 2, b"two", true).unwrap();
        assert!(shelf.get(&at).unwrap().is_none());
        shelf.put(&at, 4, b"four", true).unwrap();
        assert_eq!(shelf.get(&at).unwrap().as_deref(), Some(&b"four"[..]));
    }

    #[test]
    fn what_ran_is_pending_until_it_is_decided_about() {
        let temp = tempfile::tempdir().unwrap();
        let names: Vec<ComponentName> = ["a:one", "a:two"].iter().map(|name| name.parse().unwrap()).collect();
        let mut shelf = open(temp.path());
        shelf.keep(names.iter().cloned()).unwrap();
        // The host starts anew: nothing runs yet, and nothing is forgotten.
        let mut shelf = open(temp.path());
        shelf.keep(std::iter::empty()).unwrap();
        assert_eq!(open(temp.path()).pending().len(), 2);
        shelf.decided(&names[0]);
        shelf.keep(std::iter::empty()).unwrap();
        assert_eq!(open(temp.path()).pending().iter().collect::<Vec<_>>(), [&names[1]]);
        // There is no manifest of it: nothing is decided. Then there is one.
        shelf.settled(&names[..1]);
        shelf.keep(std::iter::empty()).unwrap();
        assert_eq!(open(temp.path()).pending().len(), 1);
        shelf.settled(&names);
        shelf.keep(std::iter::empty()).unwrap();
        assert!(open(temp.path()).pending().is_empty());
        std::fs::write(temp.path().join(RAN), "{").unwrap();
        let (shelf, problem) = Shelf::open(temp.path(), &"prod".parse().unwrap());
        assert!(shelf.pending().is_empty() && matches!(problem, Some(ShelfError::Damaged { .. })));
    }
}
