//! The policy of a host: its sources as read from files, compiled under a generation that only rises.

use std::path::Path;
use std::sync::Arc;

use portcullis_policies::{PolicySet, Source, SourceKind};

use super::watch;
use crate::cli::files;
use crate::config;
use crate::limits::CONFIG_BYTES;

/// One generation of policy.
#[derive(Debug, Clone)]
pub struct Policy {
    set: Arc<PolicySet>,
    sources: Arc<[Source]>,
    problems: Vec<String>,
}

impl Policy {
    /// The policies cannot be used: nothing is allowed, and every refusal says why that is so.
    pub fn deny_all(generation: u64, problems: Vec<String>) -> Self {
        let first = problems.first().map_or("it is not known why", String::as_str);
        let more = match problems.len() {
            0 | 1 => String::new(),
            count => format!(" (and {} more problems)", count - 1),
        };
        let why = format!("no policy is in force: {first}{more}");
        Self { set: Arc::new(PolicySet::unusable(generation, &why)), sources: Arc::new([]), problems }
    }

    /// Reads and compiles the files that the configuration names. Every problem is returned, none is skipped.
    pub fn read(config: &config::Policy, generation: u64) -> Result<Self, Vec<String>> {
        Self::read_with(config, Vec::new(), generation)
    }

    /// The same with more sources: those of a cluster.
    pub fn read_with(config: &config::Policy, more: Vec<Source>, generation: u64) -> Result<Self, Vec<String>> {
        let (mut sources, mut problems) = (Vec::new(), Vec::new());
        let files = config.grants.iter().map(|path| (path, SourceKind::Grants));
        for (path, kind) in files.chain(config.cedar.iter().map(|path| (path, SourceKind::Cedar))) {
            match read(path, kind) {
                Ok(text) => sources.push(Source { name: path.display().to_string(), text, kind }),
                Err(why) => problems.push(why),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        sources.extend(more);
        let set = PolicySet::compile(&sources, generation).map_err(|errors| errors.lines())?;
        let problems = if sources.is_empty() {
            vec!["no grants file is configured: everything is denied".to_owned()]
        } else {
            Vec::new()
        };
        Ok(Self { set: Arc::new(set), sources: sources.into(), problems })
    }

    /// The same policy under the next generation.
    pub fn next(&self) -> Result<Self, Vec<String>> {
        let set = PolicySet::compile(&self.sources, self.generation() + 1).map_err(|errors| errors.lines())?;
        Ok(Self { set: Arc::new(set), ..self.clone() })
    }

    /// The compiled set.
    pub fn set(&self) -> &Arc<PolicySet> {
        &self.set
    }

    /// The texts it was compiled from.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Whether there are sources, and nothing is in them.
    pub fn grants_nothing(&self) -> bool {
        let summary = self.set.summary();
        !self.sources.is_empty() && summary.grants == 0 && summary.raw_policies == 0
    }

    /// The generation.
    pub fn generation(&self) -> u64 {
        self.set.generation()
    }

    /// Why the host is not ready because of policy.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The same policy with a complaint about the files that would have replaced it.
    pub fn with_problems(&self, problems: Vec<String>) -> Self {
        Self { problems, ..self.clone() }
    }
}

fn read(path: &Path, kind: SourceKind) -> Result<String, String> {
    let what = match kind {
        SourceKind::Grants => "grants file",
        SourceKind::Cedar => "file of Cedar policies",
    };
    unchanged(path, || {
        files::read_text(path, CONFIG_BYTES, what).map_err(|error| match error.hint() {
            Some(hint) => format!("{} (hint: {hint})", error.message()),
            None => error.message().to_owned(),
        })
    })
}

/// What was read, unless the file changed meanwhile: the half of a policy may be wider than the whole.
fn unchanged(path: &Path, read: impl FnOnce() -> Result<String, String>) -> Result<String, String> {
    let before = watch::stamp(path);
    let text = read()?;
    match watch::stamp(path) == before {
        true => Ok(text),
        false => Err(format!("{} changed while it was read: it is taken up when it stays as it is", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_while_it_is_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.cedar");
        std::fs::write(&path, "permit; forbid;").unwrap();
        let whole = || std::fs::read_to_string(&path).map_err(|error| error.to_string());
        assert_eq!(unchanged(&path, whole).as_deref(), Ok("permit; forbid;"));
        let meanwhile = || {
            std::fs::write(&path, "permit;").unwrap();
            whole()
        };
        assert!(unchanged(&path, meanwhile).unwrap_err().contains("changed while it was read"));
        let replaced = || {
            let beside = dir.path().join("new");
            std::fs::write(&beside, "permit;").unwrap();
            std::fs::rename(&beside, &path).unwrap();
            whole()
        };
        assert!(unchanged(&path, replaced).is_err());
    }
}
