//! What was started from a registry, kept in the state directory by digest: so many components and so many bytes, the ones that
//! were started longest ago make room. Nothing that runs needs them any more.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use portcullis_signing::Digest;

/// One component with its evidence.
struct Kept {
    folder: PathBuf,
    at: SystemTime,
    bytes: u64,
}

/// Removes what is too much in `store`, never `newest`. What is not a folder named by a digest is left alone.
pub fn make_room(store: &Path, newest: &Path, count: usize, bytes: u64) -> io::Result<usize> {
    let mut all: Vec<Kept> = Vec::new();
    for entry in std::fs::read_dir(store)? {
        let entry = entry?;
        let named = entry.file_name().to_str().is_some_and(|name| Digest::from_hex(name).is_ok());
        // `file_type` follows no link.
        if named && entry.file_type()?.is_dir() && entry.path() != newest {
            let meta = entry.metadata()?;
            all.push(Kept { bytes: size(&entry.path())?, folder: entry.path(), at: meta.modified()? });
        }
    }
    all.sort_by_key(|kept| std::cmp::Reverse(kept.at));
    let (mut used, mut removed) = (size(newest)?, 0);
    for (number, kept) in all.iter().enumerate() {
        used = used.saturating_add(kept.bytes);
        if number.saturating_add(2) > count || used > bytes {
            std::fs::remove_dir_all(&kept.folder)?;
            used = used.saturating_sub(kept.bytes);
            removed += 1;
        }
    }
    Ok(removed)
}

fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0_u64;
    for entry in std::fs::read_dir(folder)? {
        bytes = bytes.saturating_add(entry?.metadata()?.len());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn keep(store: &Path, number: u8, bytes: usize) -> PathBuf {
        let folder = store.join(Digest::of(&[number]).hex());
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("component.wasm"), vec![0; bytes]).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + u64::from(number));
        std::fs::File::open(&folder).unwrap().set_modified(at).unwrap();
        folder
    }

    #[test]
    fn the_oldest_make_room_and_nothing_else_is_touched() {
        let store = tempfile::tempdir().unwrap();
        let folders: Vec<PathBuf> = (0..5).map(|number| keep(store.path(), number, 100)).collect();
        let (outside, link) = (tempfile::tempdir().unwrap(), store.path().join(Digest::of(b"link").hex()));
        std::fs::write(outside.path().join("mine"), "mine").unwrap();
        std::os::unix::fs::symlink(outside.path(), &link).unwrap();
        std::fs::create_dir(store.path().join("notes")).unwrap();
        let there = || folders.iter().map(|folder| folder.exists()).collect::<Vec<_>>();
        // The oldest one was just started: it is the newest.
        assert_eq!(make_room(store.path(), &folders[0], 5, u64::MAX).unwrap(), 0);
        assert_eq!(make_room(store.path(), &folders[0], 3, u64::MAX).unwrap(), 2);
        assert_eq!(there(), [true, false, false, true, true]);
        assert_eq!(make_room(store.path(), &folders[0], 5, 299).unwrap(), 1);
        assert_eq!(there(), [true, false, false, false, true]);
        assert_eq!(make_room(store.path(), &folders[0], 5, 1).unwrap(), 1);
        assert_eq!(there(), [true, false, false, false, false], "the newest stays, whatever its size");
        assert!(link.exists() && outside.path().join("mine").exists() && store.path().join("notes").exists());
    }
}
