//! The key directory: owner-only files that are either whole or not there.
//!
//! Refuses links, wrong owners, permissions for anybody else, and a second process. A file is written to a new temporary
//! name, synced, renamed and the directory synced, so a crash leaves the old file or the new one. Nothing is decided here.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::issuer_error::IssuerError;
use crate::secret::Secret;

/// An open, locked key directory.
pub(crate) struct KeyStore {
    dir: PathBuf,
    /// Held for as long as the store is open.
    _lock: File,
    #[cfg(test)]
    pub(crate) watch: std::cell::RefCell<Option<Watch>>,
}

/// What is about to be done to the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Write,
    Rename,
    Sync,
    Remove,
}

/// Told before each step; an error stops it.
#[cfg(test)]
pub(crate) type Watch = Box<dyn FnMut(&Path, Step) -> io::Result<()> + Send>;

impl KeyStore {
    /// Opens the directory, making it if it is not there.
    pub(crate) fn open(dir: &Path) -> Result<Self, IssuerError> {
        match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error(dir, error)),
            _ => {}
        }
        let meta = fs::symlink_metadata(dir).map_err(|e| io_error(dir, e))?;
        if !meta.is_dir() {
            return Err(IssuerError::WrongKind { path: dir.to_owned(), wanted: "a directory" });
        }
        check_owner(dir, &meta)?;
        let lock = lock(&dir.join(LOCK_FILE))?;
        let store = Self {
            dir: dir.to_owned(),
            _lock: lock,
            #[cfg(test)]
            watch: std::cell::RefCell::default(),
        };
        store.sweep()?;
        Ok(store)
    }

    /// Where a file of this name lies.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The whole file, or `None` if there is none. One that has more bytes than `most` is refused.
    pub(crate) fn read(&self, name: &str, most: usize) -> Result<Option<Zeroizing<Vec<u8>>>, IssuerError> {
        read_owned(&self.path(name), most)
    }

    /// Writes the whole file or nothing.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), IssuerError> {
        let path = self.path(name);
        let tag = Secret::<8>::random(&SystemRandom::new()).ok_or(IssuerError::Creation("no randomness"))?;
        let temporary = self.path(&format!("{name}.{:016x}{TEMPORARY}", u64::from_be_bytes(*tag.expose())));
        let written = self
            .step(Step::Write)
            .and_then(|()| write_new(&temporary, bytes))
            .and_then(|()| self.step(Step::Rename))
            .and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            // Best effort: whatever is left is swept at the next start.
            let _ = fs::remove_file(&temporary);
            return Err(io_error(&path, error));
        }
        self.sync()
    }

    /// Removes the file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), IssuerError> {
        let path = self.path(name);
        match self.step(Step::Remove).and_then(|()| fs::remove_file(&path)) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error(&path, error)),
        }
    }

    /// The names of the files that end so, sorted.
    pub(crate) fn names(&self, ending: &str) -> Result<Vec<String>, IssuerError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|e| io_error(&self.dir, e))? {
            let name = entry.map_err(|e| io_error(&self.dir, e))?.file_name();
            names.extend(name.to_str().filter(|name| name.ends_with(ending)).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync(&self) -> Result<(), IssuerError> {
        self.step(Step::Sync)
            .and_then(|()| File::open(&self.dir))
            .and_then(|dir| dir.sync_all())
            .map_err(|e| io_error(&self.dir, e))
    }

    /// Before each change of the directory; a test stops here as a crash or a full disk would.
    #[cfg_attr(not(test), expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests fail it"))]
    fn step(&self, step: Step) -> io::Result<()> {
        #[cfg(test)]
        if let Some(watch) = self.watch.borrow_mut().as_mut() {
            return watch(&self.dir, step);
        }
        #[cfg(not(test))]
        let _ = step;
        Ok(())
    }

    /// Removes what a crash left half-written. Only one process has the directory, so nobody is writing these.
    fn sweep(&self) -> Result<(), IssuerError> {
        for entry in fs::read_dir(&self.dir).map_err(|e| io_error(&self.dir, e))? {
            let path = entry.map_err(|e| io_error(&self.dir, e))?.path();
            if path.to_str().is_some_and(|p| p.ends_with(TEMPORARY)) {
                fs::remove_file(&path).map_err(|e| io_error(&path, e))?;
            }
        }
        Ok(())
    }
}

/// A whole file that is its owner's alone, or `None` if there is none. One that has more bytes than `most` is refused.
pub(crate) fn read_owned(path: &Path, most: usize) -> Result<Option<Zeroizing<Vec<u8>>>, IssuerError> {
    let mut file = match no_follow(OpenOptions::new().read(true)).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(open_error(path, error)),
    };
    check_file(path, &file)?;
    // One allocation, so that no copy of a key is left behind by growth.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    Read::by_ref(&mut file).take(most as u64 + 1).read_to_end(&mut bytes).map_err(|e| io_error(path, e))?;
    if bytes.len() > most {
        return Err(IssuerError::Damaged { path: path.to_owned(), reason: "it is too large" });
    }
    Ok(Some(bytes))
}

fn lock(path: &Path) -> Result<File, IssuerError> {
    let file = no_follow(OpenOptions::new().write(true).create(true).truncate(false).mode(0o600))
        .open(path)
        .map_err(|e| open_error(path, e))?;
    check_file(path, &file)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(IssuerError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io_error(path, error)),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = no_follow(OpenOptions::new().write(true).create_new(true).mode(0o600)).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn no_follow(options: &mut OpenOptions) -> &mut OpenOptions {
    // NONBLOCK: a FIFO put in a file's place must not hang the start.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    options.custom_flags(i32::from_ne_bytes(flags.to_ne_bytes()))
}

fn check_file(path: &Path, file: &File) -> Result<(), IssuerError> {
    let meta = file.metadata().map_err(|e| io_error(path, e))?;
    if !meta.is_file() {
        return Err(IssuerError::WrongKind { path: path.to_owned(), wanted: "a regular file" });
    }
    check_owner(path, &meta)
}

fn check_owner(path: &Path, meta: &fs::Metadata) -> Result<(), IssuerError> {
    if meta.uid() != geteuid().as_raw() {
        return Err(IssuerError::Owner { path: path.to_owned(), owner: meta.uid() });
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IssuerError::Permissions { path: path.to_owned(), mode });
    }
    Ok(())
}

fn open_error(path: &Path, error: io::Error) -> IssuerError {
    if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        return IssuerError::WrongKind { path: path.to_owned(), wanted: "a regular file" };
    }
    io_error(path, error)
}

fn io_error(path: &Path, source: io::Error) -> IssuerError {
    IssuerError::Io { path: path.to_owned(), source }
}

const LOCK_FILE: &str = "lock";
const TEMPORARY: &str = ".tmp";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::limits::MAX_KEY_FILE_BYTES;

    const MOST: usize = MAX_KEY_FILE_BYTES;

    fn store() -> (tempfile::TempDir, KeyStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::open(&dir.path().join("keys")).unwrap();
        (dir, store)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_written_is_read_and_is_for_the_owner_only() {
        let (_dir, store) = store();
        assert!(store.read("k", MOST).unwrap().is_none());
        store.write("k", b"one").unwrap();
        store.write("k", b"two").unwrap();
        assert_eq!(store.read("k", MOST).unwrap().unwrap().as_slice(), b"two");
        assert_eq!(fs::metadata(store.path("k")).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(&store.dir).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_dir(&store.dir).unwrap().count(), 2, "the file and the lock");
    }

    #[test]
    fn a_file_is_removed_once_and_names_are_those_that_end_so() {
        let (_dir, store) = store();
        for name in ["b.key", "a.key", "c"] {
            store.write(name, b"one").unwrap();
        }
        assert_eq!(store.names(".key").unwrap(), ["a.key", "b.key"]);
        store.remove("a.key").unwrap();
        store.remove("a.key").unwrap();
        assert_eq!(store.names(".key").unwrap(), ["b.key"]);
    }

    #[test]
    fn permissions_for_others_are_refused() {
        let (dir, store) = store();
        store.write("k", b"one").unwrap();
        for bits in [0o640, 0o604, 0o620, 0o601] {
            mode(&store.path("k"), bits);
            assert!(matches!(store.read("k", MOST), Err(IssuerError::Permissions { mode, .. }) if mode == bits));
        }
        drop(store);
        mode(&dir.path().join("keys"), 0o750);
        assert!(matches!(KeyStore::open(&dir.path().join("keys")), Err(IssuerError::Permissions { .. })));
    }

    #[test]
    fn links_directories_and_fifos_are_refused() {
        let (dir, store) = store();
        store.write("k", b"one").unwrap();
        symlink(store.path("k"), store.path("link")).unwrap();
        assert!(matches!(store.read("link", MOST), Err(IssuerError::WrongKind { .. })));
        fs::create_dir(store.path("sub")).unwrap();
        assert!(matches!(store.read("sub", MOST), Err(IssuerError::WrongKind { .. })));
        symlink(&store.dir, dir.path().join("there")).unwrap();
        assert!(matches!(KeyStore::open(&dir.path().join("there")), Err(IssuerError::WrongKind { .. })));
        fs::write(dir.path().join("file"), b"").unwrap();
        assert!(KeyStore::open(&dir.path().join("file")).is_err());
        assert!(std::process::Command::new("mkfifo").arg("-m600").arg(store.path("fifo")).status().unwrap().success());
        assert!(matches!(store.read("fifo", MOST), Err(IssuerError::WrongKind { .. })));
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let (_dir, store) = store();
        store.write("k", &vec![b'x'; MAX_KEY_FILE_BYTES]).unwrap();
        assert!(store.read("k", MOST).is_ok());
        store.write("k", &vec![b'x'; MAX_KEY_FILE_BYTES + 1]).unwrap();
        assert!(matches!(store.read("k", MOST), Err(IssuerError::Damaged { .. })));
    }

    #[test]
    fn a_second_process_is_refused_and_leftovers_of_a_crash_are_swept() {
        let (_dir, store) = store();
        assert!(matches!(KeyStore::open(&store.dir), Err(IssuerError::InUse { .. })));
        let dir = store.dir.clone();
        let leftover = store.path("k.0123.tmp");
        fs::write(&leftover, b"half").unwrap();
        drop(store);
        KeyStore::open(&dir).unwrap();
        assert!(!leftover.exists());
    }
}
