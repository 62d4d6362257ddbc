//! When files that changed are read again. A file that is written in place is for a moment a shorter one that reads well: a role
//! without its `sources`, a list without its last name, policies without their last `forbid`. So a change counts when nothing has
//! moved for [`CALLOUT_STILL`]; but whoever is on the list of the revoked is looked for as soon as two looks in a row saw the same.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use crate::config::callout::CalloutConfig;
use crate::limits::{CALLOUT_STILL, CALLOUT_SWEEP, CALLOUT_WATCH};

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
        let mut new = Self { paths, list, taken: seen.clone(), seen, still_since: now, added: None, retry: None };
        new.added = new.list_of(&new.seen);
        new
    }

    fn list_of(&self, stamps: &[Stamp]) -> Stamp {
        self.list.and_then(|at| stamps.get(at).copied().flatten())
    }

    /// They could not be used: they are due once more after [`CALLOUT_SWEEP`], also where they look the same.
    pub fn unusable(&mut self, now: Instant) {
        self.retry = Some(now + CALLOUT_SWEEP);
    }

    /// Looks at them.
    pub fn look(&mut self, now: Instant) -> Due {
        let stamps = stamps(&self.paths);
        let list = self.list_of(&stamps);
        // The list by itself: while another file is being written, whoever is revoked more than before does not wait for that.
        let list_is_still = list == self.list_of(&self.seen);
        let moved = stamps != self.seen;
        if moved {
            self.seen = stamps;
            self.still_since = now;
        }
        let is_still = !moved && now.saturating_duration_since(self.still_since) >= CALLOUT_STILL;
        let again = self.retry.is_some_and(|at| at <= now);
        if is_still && (again || self.seen != self.taken) {
            self.taken.clone_from(&self.seen);
            self.added = list;
            self.retry = None;
            return Due::All;
        }
        if list_is_still && list != self.added {
            self.added = list;
            return Due::List;
        }
        Due::Nothing
    }

    /// One that may be being written still. `clock`: what files are dated by.
    fn restless(&self, now: Instant, clock: SystemTime) -> Option<&Path> {
        if now.saturating_duration_since(self.still_since) >= CALLOUT_STILL {
            return None;
        }
        let young = self.paths.iter().zip(&self.seen).find(|(_, stamp)| !is_old(stamp, clock));
        young.map(|(path, _)| path.as_path())
    }

    /// Whether they look still as they did when they were found due: what was read meanwhile is what was there then.
    pub fn is_unchanged(&self) -> bool {
        stamps(&self.paths) == self.taken
    }
}

/// Waits, before a callout begins, until no file has moved for [`CALLOUT_STILL`], as a running one does: half of a list would let in
/// whom the other half revokes. Files that have been what they are for that long are not waited for. At `until` it gives up, with
/// the path of one that does not come to rest.
pub fn settled(config: &CalloutConfig, until: Instant) -> Result<Watched, PathBuf> {
    let mut watched = Watched::of(config, Instant::now());
    loop {
        let now = Instant::now();
        let Some(restless) = watched.restless(now, SystemTime::now()) else { return Ok(watched) };
        if now >= until {
            return Err(restless.to_path_buf());
        }
        std::thread::sleep(CALLOUT_WATCH);
        if !watched.is_unchanged() {
            watched = Watched::of(config, Instant::now());
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    paths.iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    let times = [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
    Some((meta.dev(), meta.ino(), meta.size(), times))
}

/// Whether a file was made what it is so long ago that nobody is writing it any more. One of a time to come says nothing.
fn is_old(stamp: &Stamp, now: SystemTime) -> bool {
    let Some((.., times)) = stamp else { return true };
    let until = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(CALLOUT_STILL);
    let until = (i64::try_from(until.as_secs()).unwrap_or_default(), i64::from(until.subsec_nanos()));
    times.iter().all(|time| *time <= until)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn a_revocation_does_not_wait_for_another_file_that_is_being_written() {
        let (list, other) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let begin = Instant::now();
        let paths = [&list, &other].map(|file| file.path().to_path_buf()).to_vec();
        let mut watched = Watched::new(paths, Some(0), begin);
        let mut written = String::new();
        let mut look = |millis: u64| {
            written.push('x');
            std::fs::write(other.path(), &written).unwrap();
            watched.look(begin + Duration::from_millis(millis))
        };
        assert_eq!(look(100), Due::Nothing, "the other moves first");
        std::fs::write(list.path(), "one").unwrap();
        assert_eq!(look(200), Due::Nothing, "the list was seen once");
        assert_eq!(look(300), Due::List);
        assert_eq!([look(400), look(5_000)], [Due::Nothing, Due::Nothing], "once");
        std::fs::write(list.path(), "one, two").unwrap();
        assert_eq!([look(5_100), look(5_200)], [Due::Nothing, Due::List]);
        let at = begin + Duration::from_millis(5_200);
        assert_eq!(watched.look(at + CALLOUT_STILL - Duration::from_millis(1)), Due::Nothing);
        assert_eq!(watched.look(at + CALLOUT_STILL), Due::All, "when all of them are still");
    }

    #[test]
    fn a_callout_begins_only_with_files_that_have_been_still_for_a_while() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let begin = Instant::now();
        let watched = Watched::new(vec![file.path().to_path_buf()], Some(0), begin);
        let written = file.as_file().metadata().unwrap();
        let written = SystemTime::UNIX_EPOCH + Duration::new(written.ctime() as u64, written.ctime_nsec() as u32);
        let short = CALLOUT_STILL - Duration::from_millis(1);
        assert_eq!(watched.restless(begin, written + short), Some(file.path()));
        assert_eq!(watched.restless(begin, written + CALLOUT_STILL), None, "it is old, and nothing is waited for");
        assert_eq!(watched.restless(begin, written - CALLOUT_SWEEP), Some(file.path()), "of a time to come");
        assert_eq!(watched.restless(begin + CALLOUT_STILL, written), None, "nothing moved while somebody looked");
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
