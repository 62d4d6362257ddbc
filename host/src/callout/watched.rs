//! When files that changed are read again. A file that is written in place is for a moment a shorter one that reads well: a role
//! without its `sources`, a list without its last name, policies without their last `forbid`. So a change counts when nothing has
//! moved for [`CALLOUT_STILL`]; but whoever is on the list of the revoked is looked for as soon as two looks in a row saw the same.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::callout::CalloutConfig;
use crate::limits::{CALLOUT_STILL, CALLOUT_SWEEP};

/// How a file looked from outside; `None`: it is not there.
type Stamp = Option<(u64, u64, u64, [(i64, i64); 2])>;

/// Files that are looked at together.
#[derive(Debug)]
pub struct Watched {
    paths: Vec<PathBuf>,
    /// Which of them is the list of the revoked.
    list: Option<usize>,
    taken: Vec<Stamp>,
    seen: Vec<Stamp>,
    /// Since when they look as they did last.
    still_since: Instant,
    /// How the list looked when somebody was last added from it.
    added: Stamp,
    retry: Option<Instant>,
}

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// The list of the revoked, for whoever is new on it.
    List,
    /// Everything.
    All,
}

impl Watched {
    /// The files that a running callout reads again, as they look now: to be called before they are read, so that what changes
    /// meanwhile is a change.
    pub fn of(config: &CalloutConfig, now: Instant) -> Self {
        let bundles = config.trust_domains.iter().map(|domain| &domain.bundle);
        let paths = config.revocations.iter().chain(&config.roles).chain(&config.cedar).chain(bundles);
        Self::new(paths.cloned().collect(), config.revocations.as_ref().map(|_| 0), now)
    }

    fn new(paths: Vec<PathBuf>, list: Option<usize>, now: Instant) -> Self {
        let seen = stamps(&paths);
        let added = list.and_then(|at| seen.get(at).copied().flatten());
        Self { paths, list, taken: seen.clone(), seen, still_since: now, added, retry: None }
    }

    /// They could not be used: they are due once more after [`CALLOUT_SWEEP`], also where they look the same.
    pub fn unusable(&mut self, now: Instant) {
        self.retry = Some(now + CALLOUT_SWEEP);
    }

    /// Looks at them.
    pub fn look(&mut self, now: Instant) -> Due {
        let stamps = stamps(&self.paths);
        if stamps != self.seen {
            self.seen = stamps;
            self.still_since = now;
            return Due::Nothing;
        }
        let is_still = now.saturating_duration_since(self.still_since) >= CALLOUT_STILL;
        let again = self.retry.is_some_and(|at| at <= now);
        let list = self.list.and_then(|at| self.seen.get(at).copied().flatten());
        if is_still && (again || self.seen != self.taken) {
            self.taken.clone_from(&self.seen);
            self.added = list;
            self.retry = None;
            return Due::All;
        }
        if list != self.added {
            self.added = list;
            return Due::List;
        }
        Due::Nothing
    }

    /// Whether they look still as they did when they were found due: what was read meanwhile is what was there then.
    pub fn is_unchanged(&self) -> bool {
        stamps(&self.paths) == self.taken
    }
}

/// Waits, before a callout begins, until two looks in a row see the same; gives up after a while.
pub fn settled(config: &CalloutConfig, between: Duration) -> Watched {
    let mut watched = Watched::of(config, Instant::now());
    for _ in 0..LOOKS {
        std::thread::sleep(between);
        if watched.is_unchanged() {
            break;
        }
        watched = Watched::of(config, Instant::now());
    }
    watched
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    paths.iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    let times = [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
    Some((meta.dev(), meta.ino(), meta.size(), times))
}

/// Looks before a start: files that change all the time are read as they are.
const LOOKS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_nothing_has_moved_for_a_while() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let begin = Instant::now();
        let at = |millis: u64| begin + Duration::from_millis(millis);
        let mut watched = Watched::new(vec![file.path().to_path_buf()], None, begin);
        assert_eq!(watched.look(at(60_000)), Due::Nothing);
        let modified = file.as_file().metadata().unwrap().modified().unwrap();
        // The size and the time of the one before: another file all the same.
        std::thread::sleep(Duration::from_millis(20));
        std::fs::write(file.path(), "two").unwrap();
        file.as_file().set_modified(modified).unwrap();
        assert_eq!(file.as_file().metadata().unwrap().modified().unwrap(), modified);
        let still = u64::try_from(CALLOUT_STILL.as_millis()).unwrap();
        assert_eq!(watched.look(at(60_100)), Due::Nothing, "seen once");
        assert_eq!(watched.look(at(60_100 + still - 1)), Due::Nothing, "not for long enough");
        std::thread::sleep(Duration::from_millis(20));
        std::fs::write(file.path(), "three").unwrap();
        assert_eq!(watched.look(at(60_100 + still)), Due::Nothing, "it moved");
        assert_eq!(watched.look(at(60_099 + 2 * still)), Due::Nothing, "it begins anew");
        assert_eq!(watched.look(at(60_100 + 2 * still)), Due::All);
        assert!(watched.is_unchanged());
        assert_eq!(watched.look(at(70_000 + 2 * still)), Due::Nothing, "once");
        std::fs::write(file.path(), "fourth").unwrap();
        assert!(!watched.is_unchanged(), "changed while it was read");
    }

    #[test]
    fn the_list_of_the_revoked_is_looked_into_at_the_second_look_and_the_rest_is_not() {
        let (list, other) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let begin = Instant::now();
        let paths = [&list, &other].map(|file| file.path().to_path_buf()).to_vec();
        let mut watched = Watched::new(paths, Some(0), begin);
        let at = |millis: u64| begin + Duration::from_millis(millis);
        std::fs::write(list.path(), "one").unwrap();
        assert_eq!(watched.look(at(100)), Due::Nothing);
        assert_eq!(watched.look(at(200)), Due::List);
        assert_eq!(watched.look(at(300)), Due::Nothing, "once");
        std::fs::write(other.path(), "one").unwrap();
        assert_eq!([watched.look(at(400)), watched.look(at(500))], [Due::Nothing, Due::Nothing]);
        assert_eq!(watched.look(at(400) + CALLOUT_STILL), Due::All);
    }

    #[test]
    fn files_that_could_not_be_used_are_due_again_after_a_while() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let now = Instant::now();
        let mut watched = Watched::new(vec![file.path().to_path_buf()], None, now);
        watched.unusable(now);
        assert_eq!(watched.look(now + CALLOUT_SWEEP / 2), Due::Nothing);
        assert_eq!(watched.look(now + CALLOUT_SWEEP), Due::All);
        assert_eq!(watched.look(now + CALLOUT_SWEEP * 2), Due::Nothing, "once each time");
    }
}
