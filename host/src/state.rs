//! The state directory: where keys, cache, audit log and the control socket lie, owner-only.
//!
//! A directory that others can read or write, or that somebody else owns, is refused rather than repaired.

use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// SPIFFE IDs that are revoked, in a state directory.
pub const REVOKED_FILE: &str = "revoked.json";

/// A state directory that is ours, and locked for this process.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    _lock: File,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system refused something.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could read or change what is in it.
    #[error("{} is open to others (mode {mode:04o}, owner {owner}); hint: chmod 700 it, or name another --state-dir", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// Another host uses it.
    #[error("{} is in use by another portcullis host; hint: stop that one, or name another --state-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

impl StateDir {
    /// Opens or makes the directory and all below it, and locks it.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| StateError::Io { path, source }
        };
        for dir in [root.to_path_buf(), root.join("identity"), root.join("cache"), root.join("audit"), root.join("run")]
        {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed(&dir))?;
            let meta = std::fs::symlink_metadata(&dir).map_err(failed(&dir))?;
            check_owner_only(&dir, &meta)?;
        }
        Ok(Self { root: root.to_path_buf(), _lock: lock(root)? })
    }

    /// Keys, for the identity process alone.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    /// Native code with its MAC.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// The audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.root.join("audit").join("audit.jsonl")
    }

    /// SPIFFE IDs that are revoked.
    pub fn revoked(&self) -> PathBuf {
        self.root.join(REVOKED_FILE)
    }

    /// Highest revisions and trust policy version seen.
    pub fn high_water(&self) -> PathBuf {
        self.root.join("high-water.json")
    }
}

/// Locks a folder for this process, for as long as the file is held.
pub fn lock(root: &Path) -> Result<File, StateError> {
    let path = root.join("lock");
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(&path).map_err(|source| StateError::Io { path: path.clone(), source })?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse { path: root.to_path_buf() }),
        Err(error) => Err(StateError::Io { path, source: error.into() }),
    }
}

/// Writes a small file so that a crash leaves the old or the new content: temporary file, fsync, rename, fsync of the folder.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path without a folder"))?;
    let mut file =
        tempfile::Builder::new().prefix(".new-").permissions(PermissionsExt::from_mode(0o600)).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

fn check_owner_only(path: &Path, meta: &Metadata) -> Result<(), StateError> {
    let mode = meta.permissions().mode() & 0o7777;
    let owner = meta.uid();
    if !meta.is_dir() || mode & 0o077 != 0 || owner != rustix::process::getuid().as_raw() {
        return Err(StateError::Open { path: path.to_path_buf(), mode, owner });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_owner_only_and_locked() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("state");
        let first = StateDir::open(&root).unwrap();
        assert_eq!(std::fs::metadata(first.identity()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(StateDir::open(&root), Err(StateError::InUse { .. })));
        drop(first);
        StateDir::open(&root).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_read_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("state");
        drop(StateDir::open(&root).unwrap());
        std::fs::set_permissions(root.join("identity"), PermissionsExt::from_mode(0o750)).unwrap();
        assert!(matches!(StateDir::open(&root), Err(StateError::Open { mode: 0o750, .. })));
    }

    #[test]
    fn an_atomic_write_replaces_and_is_private() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x");
        write_atomically(&path, b"1").unwrap();
        write_atomically(&path, b"2").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"2");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}
