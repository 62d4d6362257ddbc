//! The list of the revoked. Whom it names is revoked at once, whatever else is wrong with it; whom it does not name any more is let
//! in again only by a list that is whole: a list that is being written has fewer names than it will have, and reads well.

use std::collections::BTreeSet;
use std::path::Path;

use portcullis_policies::WorkloadId;
use serde::Deserialize;

use super::service::CalloutError;
use crate::cli::files::read_text;
use crate::limits::{CALLOUT_REVOCATIONS, CONFIG_BYTES};

/// What a file says.
#[derive(Debug)]
pub struct Revocations {
    ids: BTreeSet<String>,
    /// How many entries there are, and how many the file says there should be.
    entries: (usize, Option<usize>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: i64,
    /// How many entries follow. Where it is there, a list with fewer or more of them lifts nothing.
    #[serde(default)]
    entries: Option<usize>,
    #[serde(default)]
    revoked: Vec<RawRevoked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRevoked {
    id: String,
    reason: String,
}

impl Revocations {
    /// Reads it: TOML, `version = 1`, perhaps `entries = N`, and `[[revoked]]` with `id` and `reason`. A file that is not there is a
    /// mistake, not an empty list.
    pub fn read(path: &Path) -> Result<Self, CalloutError> {
        let text = read_text(path, CONFIG_BYTES, "list of the revoked")
            .map_err(|error| CalloutError::config(error.message(), error.hint().unwrap_or_default()))?;
        let problem = |why: String, hint: &'static str| CalloutError::file(path, why, hint);
        let raw: Raw = toml::from_str(&text)
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
        let entries = (raw.revoked.len(), raw.entries);
        let mut ids = BTreeSet::new();
        for RawRevoked { id, reason } in raw.revoked {
            if id.parse::<WorkloadId>().is_err() || reason.trim().is_empty() {
                let why = format!("`{}` is no SPIFFE ID, or has no reason", id.escape_default());
                return Err(problem(why, "write the SPIFFE ID in full; nothing of this list is used until then"));
            }
            ids.insert(id);
        }
        Ok(Self { ids, entries })
    }

    /// Whom it names. To add to those who are revoked, not to take somebody from them.
    pub fn named(self) -> BTreeSet<String> {
        self.ids
    }

    /// Whom it names, and nobody else; refused where it has not as many entries as it says.
    pub fn whole(self, path: &Path) -> Result<BTreeSet<String>, CalloutError> {
        match self.entries {
            (there, Some(said)) if there != said => {
                let why = format!(
                    "says entries = {said} and has {there}: it may be half-written, so nobody is let in again by it"
                );
                Err(CalloutError::file(path, why, "set `entries` to the number of [[revoked]], or take it away"))
            }
            _ => Ok(self.ids),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "[[revoked]]\nid = \"spiffe://td/a\"\nreason = \"x\"\n";

    fn read(text: &str) -> Result<Revocations, CalloutError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Revocations::read(file.path())
    }

    #[test]
    fn a_list_of_the_revoked_is_taken_whole_or_not_at_all() {
        assert_eq!(read(&format!("version = 1\n{ONE}")).unwrap().named().len(), 1);
        assert!(read("version = 1\n").unwrap().named().is_empty());
        for bad in [
            ONE.to_owned(),
            format!("version = 2\n{ONE}"),
            format!("version = 1\n{}", ONE.replace("td/a", "td")),
            format!("version = 1\n{}", ONE.replace("\"x\"", "\" \"")),
            format!("version = 1\n{ONE}more = 1\n"),
            format!("version = 1\nentries = -1\n{ONE}"),
            format!("version = 1\n{ONE}[[revoked]]\nid = \"*\"\nreason = \"x\"\n"),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
        assert!(Revocations::read(Path::new("/nonexistent")).is_err(), "a list that is not there is not an empty one");
    }

    #[test]
    fn a_list_that_has_not_as_many_entries_as_it_says_adds_and_lifts_nothing() {
        let path = Path::new("revoked.toml");
        for (entries, is_whole) in
            [("", true), ("entries = 1\n", true), ("entries = 0\n", false), ("entries = 2\n", false)]
        {
            let list = || read(&format!("version = 1\n{entries}{ONE}")).unwrap();
            assert_eq!(list().named().len(), 1, "{entries}");
            assert_eq!(list().whole(path).is_ok(), is_whole, "{entries}");
        }
    }

    #[test]
    fn the_list_of_the_revoked_has_an_end() {
        let entry = |n: usize| format!("[[revoked]]\nid = \"spiffe://td/a{n}\"\nreason = \"x\"\n");
        let text = |count: usize| format!("version = 1\n{}", (0..count).map(entry).collect::<String>());
        assert_eq!(read(&text(CALLOUT_REVOCATIONS)).unwrap().named().len(), CALLOUT_REVOCATIONS);
        assert!(read(&text(CALLOUT_REVOCATIONS + 1)).is_err());
    }
}
