//! What the callout reads again while it runs: roles, policies, bundles and the list of the revoked. A change is taken as a
//! whole or not at all: what cannot be used keeps what was there, and readiness says so. But for one thing: who is revoked more
//! than before is revoked whatever the other files are like, and who was revoked stays so until all of them can be used.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use portcullis_identity::{BundleDocument, BundleSet};
use portcullis_policies::callout::Roles;
use portcullis_policies::{Source, SourceKind, WorkloadId};
use serde::Deserialize;

use super::service::CalloutError;
use crate::cli::files::read_text;
use crate::config::callout::CalloutConfig;
use crate::limits::{CALLOUT_REVOCATIONS, CALLOUT_SWEEP, CONFIG_BYTES};

/// What decisions are made with. Never changed, only replaced.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The compiled roles.
    pub roles: Arc<Roles>,
    /// The bundles, each under its trust domain.
    pub bundles: Arc<BundleSet>,
    /// Who is not let in.
    pub revoked: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRevocations {
    version: i64,
    #[serde(default)]
    revoked: Vec<RawRevoked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRevoked {
    id: String,
    reason: String,
}

impl Standing {
    /// Reads everything anew.
    pub fn load(config: &CalloutConfig, generation: u64) -> Result<Self, CalloutError> {
        let read = |path: &PathBuf, kind| {
            let text = read_text(path, CONFIG_BYTES, "roles file");
            text.map(|text| Source { name: path.display().to_string(), text, kind })
                .map_err(|error| CalloutError::config(error.message(), error.hint().unwrap_or_default()))
        };
        let roles: Vec<Source> =
            config.roles.iter().map(|path| read(path, SourceKind::Grants)).collect::<Result<_, _>>()?;
        let cedar: Vec<Source> =
            config.cedar.iter().map(|path| read(path, SourceKind::Cedar)).collect::<Result<_, _>>()?;
        let accounts =
            config.allowed_accounts().ok_or_else(|| CalloutError::config("the accounts have no names", ""))?;
        let roles = Roles::compile(&roles, &cedar, accounts, generation).map_err(|errors| {
            CalloutError::config(format!("roles cannot be used:\n{errors}"), "mend what is listed")
        })?;
        let mut documents = Vec::new();
        for domain in &config.trust_domains {
            let json = read_text(&domain.bundle, CONFIG_BYTES, "bundle")
                .map_err(|error| CalloutError::config(error.message(), error.hint().unwrap_or_default()))?;
            let document = BundleDocument::parse(&domain.name, json.as_bytes())
                .map_err(|error| CalloutError::file(&domain.bundle, &error, error.hint()))?;
            documents.push(Arc::new(document));
        }
        let mut documents = documents.into_iter();
        let first = documents.next().ok_or_else(|| CalloutError::config("there is no trust domain", ""))?;
        let bundles = BundleSet::with_foreign(first, documents)
            .map_err(|error| CalloutError::config(error.to_string(), error.hint()))?;
        let revoked = match &config.revocations {
            None => BTreeSet::new(),
            Some(path) => revocations(path)?,
        };
        Ok(Self { roles: Arc::new(roles), bundles: Arc::new(bundles), revoked })
    }

    /// The same with whoever is on the list of the revoked now, too; `None` where that is nobody more. For when the whole cannot be
    /// used: nobody is taken from the list by it.
    pub fn with_more_revoked(&self, config: &CalloutConfig) -> Result<Option<Self>, CalloutError> {
        let Some(path) = &config.revocations else { return Ok(None) };
        let now = revocations(path)?;
        if now.is_subset(&self.revoked) {
            return Ok(None);
        }
        Ok(Some(Self { revoked: &self.revoked | &now, ..self.clone() }))
    }

    /// Whether a connection of this SPIFFE ID may go on.
    pub fn still_stands(&self, id: &WorkloadId) -> bool {
        let trusted = id.trust_domain().parse().is_ok_and(|domain| self.bundles.get(&domain).is_some());
        trusted && !self.revoked.contains(id.as_str()) && self.roles.names(id)
    }
}

/// The list of the revoked: TOML, `version = 1` and `[[revoked]]` with `id` and `reason`. A file that is not there is a mistake,
/// not an empty list.
fn revocations(path: &Path) -> Result<BTreeSet<String>, CalloutError> {
    let text = read_text(path, CONFIG_BYTES, "list of the revoked")
        .map_err(|error| CalloutError::config(error.message(), error.hint().unwrap_or_default()))?;
    let problem = |why: String, hint: &'static str| CalloutError::file(path, why, hint);
    let raw: RawRevocations = toml::from_str(&text)
        .map_err(|error| problem(error.message().to_owned(), "version = 1, then [[revoked]] with id and reason"))?;
    if raw.version != 1 {
        return Err(problem("has another version than 1".to_owned(), "version = 1"));
    }
    if raw.revoked.len() > CALLOUT_REVOCATIONS {
        return Err(problem(
            format!("has more than {CALLOUT_REVOCATIONS} entries"),
            "drop those whose SVIDs have ended",
        ));
    }
    let mut revoked = BTreeSet::new();
    for RawRevoked { id, reason } in raw.revoked {
        if id.parse::<WorkloadId>().is_err() || reason.trim().is_empty() {
            let why = format!("`{}` is no SPIFFE ID, or has no reason", id.escape_default());
            return Err(problem(why, "write the SPIFFE ID in full; nothing of this list is used until then"));
        }
        revoked.insert(id);
    }
    Ok(revoked)
}

/// How a file looked from outside; `None`: it is not there.
type Stamp = Option<(u64, u64, u64, [(i64, i64); 2])>;

/// Files that are looked at together. Taken up when they looked the same twice in a row, and again after a while where they could
/// not be used.
#[derive(Debug)]
pub struct Watched {
    paths: Vec<PathBuf>,
    taken: Vec<Stamp>,
    seen: Vec<Stamp>,
    retry: Option<Instant>,
}

impl Watched {
    /// The files that a running callout reads again, as they look now: to be called before they are read, so that what changes
    /// meanwhile is a change.
    pub fn of(config: &CalloutConfig) -> Self {
        let bundles = config.trust_domains.iter().map(|domain| &domain.bundle);
        let paths = config.roles.iter().chain(&config.cedar).chain(&config.revocations).chain(bundles);
        let paths: Vec<PathBuf> = paths.cloned().collect();
        let stamps: Vec<Stamp> = paths.iter().map(|path| stamp(path)).collect();
        Self { paths, taken: stamps.clone(), seen: stamps, retry: None }
    }

    /// They could not be used: they are due once more after [`CALLOUT_SWEEP`], also where they look the same.
    pub fn unusable(&mut self, now: Instant) {
        self.retry = Some(now + CALLOUT_SWEEP);
    }

    /// Whether they are to be taken up: one is another than when they last were, and has been so since the last look; or they could
    /// not be used then.
    pub fn due(&mut self, now: Instant) -> bool {
        let again = self.retry.is_some_and(|at| at <= now);
        if self.changed() || again {
            self.retry = None;
            return true;
        }
        false
    }

    fn changed(&mut self) -> bool {
        let now: Vec<Stamp> = self.paths.iter().map(|path| stamp(path)).collect();
        let settled = now == self.seen;
        self.seen = now;
        if settled && self.seen != self.taken {
            self.taken.clone_from(&self.seen);
            return true;
        }
        false
    }
}

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    let times = [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
    Some((meta.dev(), meta.ino(), meta.size(), times))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<BTreeSet<String>, CalloutError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        revocations(file.path())
    }

    #[test]
    fn a_list_of_the_revoked_is_taken_whole_or_not_at_all() {
        let one = "[[revoked]]\nid = \"spiffe://td/a\"\nreason = \"x\"\n";
        assert_eq!(list(&format!("version = 1\n{one}")).unwrap().len(), 1);
        assert!(list("version = 1\n").unwrap().is_empty());
        for bad in [
            one.to_owned(),
            format!("version = 2\n{one}"),
            format!("version = 1\n{}", one.replace("td/a", "td")),
            format!("version = 1\n{}", one.replace("\"x\"", "\" \"")),
            format!("version = 1\n{one}more = 1\n"),
            format!("version = 1\n{one}[[revoked]]\nid = \"*\"\nreason = \"x\"\n"),
        ] {
            assert!(list(&bad).is_err(), "{bad}");
        }
        assert!(revocations(Path::new("/nonexistent")).is_err(), "a list that is not there is not an empty one");
    }

    fn watched(path: &Path) -> Watched {
        let stamps = vec![stamp(path)];
        Watched { paths: vec![path.to_path_buf()], taken: stamps.clone(), seen: stamps, retry: None }
    }

    #[test]
    fn a_file_with_the_size_and_the_time_of_the_one_before_is_another_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let mut watched = watched(file.path());
        let now = Instant::now();
        assert!(!watched.due(now));
        let modified = file.as_file().metadata().unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(file.path(), "two").unwrap();
        file.as_file().set_modified(modified).unwrap();
        assert_eq!(file.as_file().metadata().unwrap().modified().unwrap(), modified);
        assert!(!watched.due(now), "seen once");
        assert!(watched.due(now) && !watched.due(now), "seen twice");
    }

    #[test]
    fn files_that_could_not_be_used_are_due_again_after_a_while() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut watched = watched(file.path());
        let now = Instant::now();
        watched.unusable(now);
        assert!(!watched.due(now + CALLOUT_SWEEP / 2));
        assert!(watched.due(now + CALLOUT_SWEEP) && !watched.due(now + CALLOUT_SWEEP * 2), "once each time");
    }

    #[test]
    fn the_list_of_the_revoked_has_an_end() {
        let entry = |n: usize| format!("[[revoked]]\nid = \"spiffe://td/a{n}\"\nreason = \"x\"\n");
        let text = |count: usize| format!("version = 1\n{}", (0..count).map(entry).collect::<String>());
        assert_eq!(list(&text(CALLOUT_REVOCATIONS)).unwrap().len(), CALLOUT_REVOCATIONS);
        assert!(list(&text(CALLOUT_REVOCATIONS + 1)).is_err());
    }
}
