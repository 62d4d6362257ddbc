//! Takes up changed policy files without being asked.
//!
//! Looks at the files' stamps rather than at events: a file that is replaced by a rename, through a symbolic link (as mounted
//! configuration is) or on a file system without events is seen all the same, and so is one whose time of change was set back:
//! the time of the change of its inode cannot be. What was half written is not read: files are taken up when all of them looked
//! the same twice in a row, and what changes while it is read is not used. Decides nothing about the content: a bad policy keeps
//! the old one, as a reload does.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Host;
use crate::limits::WATCH_INTERVAL;

/// How a file looked from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Files that are looked at together.
#[derive(Debug)]
struct Watched {
    paths: Vec<PathBuf>,
    /// `None`: it is not there, or cannot be looked at.
    taken: Vec<Option<Stamp>>,
    seen: Vec<Option<Stamp>>,
}

/// Watches until the host stops.
pub async fn keep_watching(host: Arc<Host>) {
    let policy = host.config.policy.grants.iter().chain(&host.config.policy.cedar).cloned().collect();
    let mut policy = Watched::new(policy);
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !host.is_stopping() {
        ticks.tick().await;
        if policy.changed() {
            host.policy_files_changed().await;
        }
    }
}

impl Watched {
    fn new(paths: Vec<PathBuf>) -> Self {
        let stamps: Vec<Option<Stamp>> = paths.iter().map(|path| stamp(path)).collect();
        Self { paths, taken: stamps.clone(), seen: stamps }
    }

    /// Whether a file is another one than when it was last taken up, and has been so since the last look.
    fn changed(&mut self) -> bool {
        let now: Vec<Option<Stamp>> = self.paths.iter().map(|path| stamp(path)).collect();
        let settled = now == self.seen;
        self.seen = now;
        if settled && self.seen != self.taken {
            self.taken.clone_from(&self.seen);
            return true;
        }
        false
    }
}

/// How a file looks now, through links; `None` where it cannot be looked at.
pub fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some(Stamp {
        file: (meta.dev(), meta.ino()),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_and_only_when_it_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants.toml");
        std::fs::write(&path, "one").unwrap();
        let mut watched = Watched::new(vec![path.clone()]);
        assert!(!watched.changed());
        std::fs::write(&path, "three").unwrap();
        assert!(!watched.changed(), "it may still be written");
        assert!(watched.changed());
        assert!(!watched.changed(), "told once");
        let other = dir.path().join("new");
        std::fs::write(&other, "three").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(!watched.changed());
        assert!(watched.changed(), "another file of the same size by a rename");
        std::fs::remove_file(&path).unwrap();
        assert!(!watched.changed());
        assert!(watched.changed(), "a file that is gone");
    }

    #[test]
    fn a_change_whose_time_was_set_back_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants.toml");
        std::fs::write(&path, "one").unwrap();
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        let mut watched = Watched::new(vec![path.clone()]);
        std::fs::write(&path, "two").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
        assert!(!watched.changed());
        assert!(watched.changed(), "of the same size, in the same file, with the same time");
    }

    #[test]
    fn files_are_taken_up_together_when_none_of_them_changes_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let (grants, cedar) = (dir.path().join("grants.toml"), dir.path().join("site.cedar"));
        for path in [&grants, &cedar] {
            std::fs::write(path, "one").unwrap();
        }
        let mut watched = Watched::new(vec![grants.clone(), cedar.clone()]);
        std::fs::write(&grants, "a permit").unwrap();
        assert!(!watched.changed());
        for length in 1..5 {
            std::fs::write(&cedar, "x".repeat(length)).unwrap();
            assert!(!watched.changed(), "its forbid is still being written");
        }
        assert!(watched.changed());
    }

    #[test]
    fn a_link_that_is_turned_to_another_file_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            std::fs::write(dir.path().join(name), "same").unwrap();
        }
        let link = dir.path().join("current");
        std::os::unix::fs::symlink(dir.path().join("one"), &link).unwrap();
        let mut watched = Watched::new(vec![link.clone()]);
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(dir.path().join("two"), &link).unwrap();
        assert!(!watched.changed());
        assert!(watched.changed());
    }
}
