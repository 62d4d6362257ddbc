//! Which registered entries a process fits. Pure: what is known of the process comes in, entries and reasons go out.

use super::process::{Facts, NotThis};
use crate::config::workload_api::Entry;

/// Why an entry with the caller's user id does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Another group.
    #[error("it runs as gid {0}")]
    Gid(u32),
    /// Not the executable at the entry's path.
    #[error("{0}")]
    Executable(#[from] NotThis),
    /// Another executable.
    #[error("the SHA-256 of its executable is {0}")]
    Sha256(String),
}

/// The names of the entries that fit, and why others of the same user do not.
pub fn entries<'a>(
    all: &'a [Entry],
    facts: &Facts,
    runs: impl Fn(&std::path::Path) -> Result<(), NotThis>,
) -> (Vec<&'a Entry>, Vec<(&'a str, Misfit)>) {
    let (mut fitting, mut misfits) = (Vec::new(), Vec::new());
    for entry in all.iter().filter(|entry| entry.uid == facts.uid) {
        match fits(entry, facts, &runs) {
            Ok(()) => fitting.push(entry),
            Err(misfit) => misfits.push((entry.name.as_str(), misfit)),
        }
    }
    (fitting, misfits)
}

/// Whether the digest of this user's executables is asked for.
pub fn wants_digest(all: &[Entry], uid: u32) -> bool {
    all.iter().any(|entry| entry.uid == uid && entry.sha256.is_some())
}

fn fits(entry: &Entry, facts: &Facts, runs: impl Fn(&std::path::Path) -> Result<(), NotThis>) -> Result<(), Misfit> {
    if entry.gid.is_some_and(|gid| gid != facts.gid) {
        return Err(Misfit::Gid(facts.gid));
    }
    if let Some(wanted) = &entry.sha256
        && facts.sha256.as_ref() != Some(wanted)
    {
        return Err(Misfit::Sha256(facts.sha256.clone().unwrap_or_else(|| "not known".to_owned())));
    }
    match (&entry.executable, &entry.sha256) {
        // With the digest right it does not matter who may write what lies at the path.
        (Some(path), Some(_)) => match runs(path) {
            Err(NotThis::Writable) | Ok(()) => Ok(()),
            Err(other) => Err(other.into()),
        },
        (Some(path), None) => Ok(runs(path)?),
        (None, Some(_)) => Ok(()),
        // INVARIANT: the configuration has one of them at least.
        (None, None) => Err(NotThis::OtherPath.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn entry(name: &str) -> Entry {
        Entry {
            name: name.to_owned(),
            spiffe_path: "/a".to_owned(),
            uid: 7,
            gid: None,
            executable: None,
            sha256: None,
            audiences: Vec::new(),
            x509_ttl_seconds: None,
            jwt_ttl_seconds: None,
            hint: String::new(),
            federates_with: Vec::new(),
        }
    }

    fn facts() -> Facts {
        let executable = PathBuf::from("/bin/a");
        Facts { pid: 1, uid: 7, gid: 8, executable, sha256: Some("aa".to_owned()) }
    }

    fn fitting(entry: Entry, facts: &Facts, runs: Result<(), NotThis>) -> bool {
        let all = [entry];
        let runs = |path: &Path| if path == Path::new("/bin/a") { runs } else { Err(NotThis::OtherPath) };
        entries(&all, facts, runs).0.len() == 1
    }

    #[test]
    fn everything_that_an_entry_says_must_be_so() {
        let path = || Entry { executable: Some("/bin/a".into()), ..entry("path") };
        let digest = || Entry { sha256: Some("aa".to_owned()), ..entry("digest") };
        let both = || Entry { executable: Some("/bin/a".into()), ..digest() };
        assert!(fitting(path(), &facts(), Ok(())));
        assert!(fitting(digest(), &facts(), Err(NotThis::OtherFile)));
        assert!(fitting(both(), &facts(), Ok(())));
        assert!(!fitting(both(), &facts(), Err(NotThis::OtherFile)));
        assert!(!fitting(entry("neither"), &facts(), Ok(())));
        for facts in [Facts { uid: 8, ..facts() }, Facts { uid: 0, ..facts() }] {
            assert!(!fitting(path(), &facts, Ok(())) && !fitting(digest(), &facts, Ok(())), "another user");
        }
        assert!(fitting(Entry { gid: Some(8), ..path() }, &facts(), Ok(())));
        assert!(!fitting(Entry { gid: Some(7), ..path() }, &facts(), Ok(())), "another group");
        assert!(!fitting(Entry { executable: Some("/bin/b".into()), ..both() }, &facts(), Ok(())), "another path");
        for sha256 in [None, Some("ab".to_owned())] {
            let other = Facts { sha256, ..facts() };
            assert!(!fitting(digest(), &other, Ok(())) && !fitting(both(), &other, Ok(())), "another digest");
        }
    }

    #[test]
    fn a_path_that_others_may_write_proves_nothing_by_itself() {
        let path = Entry { executable: Some("/bin/a".into()), ..entry("path") };
        assert!(!fitting(path.clone(), &facts(), Err(NotThis::Writable)));
        assert!(fitting(Entry { sha256: Some("aa".to_owned()), ..path }, &facts(), Err(NotThis::Writable)));
    }

    #[test]
    fn entries_come_in_the_order_of_the_file_and_misfits_of_the_same_user_say_why() {
        let digest = |name: &str, sha256: &str| Entry { sha256: Some(sha256.to_owned()), ..entry(name) };
        let other = Entry { uid: 9, ..digest("other", "aa") };
        let all = [digest("one", "aa"), digest("two", "bb"), other, digest("three", "aa")];
        let (fitting, misfits) = entries(&all, &facts(), |_| Ok(()));
        assert_eq!(fitting.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["one", "three"]);
        assert_eq!(misfits, [("two", Misfit::Sha256("aa".to_owned()))]);
        assert!(wants_digest(&all, 7) && !wants_digest(&all, 8));
    }
}
