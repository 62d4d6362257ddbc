//! What the callout reads again while it runs: roles, policies, bundles and the list of the revoked. A change is taken as a
//! whole or not at all: what cannot be used keeps what was there, and readiness says so.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_identity::{BundleDocument, BundleSet};
use portcullis_policies::callout::Roles;
use portcullis_policies::{Source, SourceKind, WorkloadId};
use serde::Deserialize;

use super::service::CalloutError;
use crate::cli::files::read_text;
use crate::config::callout::CalloutConfig;
use crate::limits::{CALLOUT_REVOCATIONS, CONFIG_BYTES};

/// What decisions are made with. Never changed, only replaced.
#[derive(Debug)]
pub struct Standing {
    /// The compiled roles.
    pub roles: Roles,
    /// The bundles, each under its trust domain.
    pub bundles: BundleSet,
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
        Ok(Self { roles, bundles, revoked })
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
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Files that are looked at together. Taken up when they looked the same twice in a row.
#[derive(Debug)]
pub struct Watched {
    paths: Vec<PathBuf>,
    taken: Vec<Stamp>,
    seen: Vec<Stamp>,
}

impl Watched {
    /// The files that a running callout reads again.
    pub fn of(config: &CalloutConfig) -> Self {
        let bundles = config.trust_domains.iter().map(|domain| &domain.bundle);
        let paths = config.roles.iter().chain(&config.cedar).chain(&config.revocations).chain(bundles);
        let paths: Vec<PathBuf> = paths.cloned().collect();
        let stamps: Vec<Stamp> = paths.iter().map(|path| stamp(path)).collect();
        Self { paths, taken: stamps.clone(), seen: stamps }
    }

    /// Whether one is another than when they were last taken up, and has been so since the last look.
    pub fn changed(&mut self) -> bool {
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
    Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
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

    #[test]
    fn the_list_of_the_revoked_has_an_end() {
        let entry = |n: usize| format!("[[revoked]]\nid = \"spiffe://td/a{n}\"\nreason = \"x\"\n");
        let text = |count: usize| format!("version = 1\n{}", (0..count).map(entry).collect::<String>());
        assert_eq!(list(&text(CALLOUT_REVOCATIONS)).unwrap().len(), CALLOUT_REVOCATIONS);
        assert!(list(&text(CALLOUT_REVOCATIONS + 1)).is_err());
    }
}
