//! `portcullis audit verify`: checks the hash chain of an audit log, without a running host.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::error::{CliError, exit};
use super::output::{Output, table};
use super::{files, locate};
use crate::audit::{ChainError, Verifier};

/// `portcullis audit ...`.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Check the hash chain of an audit log.
    Verify {
        /// The log; by default the one of the configuration's state directory.
        file: Option<PathBuf>,
        /// The configuration file.
        #[arg(long)]
        config: Option<PathBuf>,
    },
}

/// Runs the command. A broken chain ends with exit 13.
pub fn run(command: AuditCommand, out: &mut Output) -> Result<(), CliError> {
    let AuditCommand::Verify { file, config } = command;
    let path = match file {
        Some(file) => file,
        None => locate::config(config.as_deref())?.state_dir.join("audit").join("audit.jsonl"),
    };
    let parts = parts(&path);
    let mut verifier = Verifier::default();
    for part in &parts {
        let opened = files::open_to_read(part, "audit log")?;
        verifier.part(BufReader::new(opened)).map_err(|error| broken(part, error))?;
    }
    let summary = verifier.finish().map_err(|error| broken(&path, error))?;
    let mut rows = vec![
        vec!["file".to_owned(), path.display().to_string()],
        vec!["parts".to_owned(), parts.len().to_string()],
        vec!["first record".to_owned(), first(summary.first)],
        vec!["records".to_owned(), summary.records.to_string()],
    ];
    rows.extend(summary.by_kind.iter().map(|(kind, count)| vec![format!("  {kind}"), count.to_string()]));
    rows.push(vec!["last hash".to_owned(), summary.last_hash.clone()]);
    let json = serde_json::json!({
        "file": path.display().to_string(), "parts": parts.len(), "first": summary.first, "records": summary.records, "by_kind": summary.by_kind, "last_hash": summary.last_hash,
    });
    out.result(format!("the chain holds\n{}", table(&rows).trim_end()), &json)
}

/// The files that are checked together: a single old part by itself; the log that is written, with all that it follows on.
pub(super) fn parts(path: &Path) -> Vec<PathBuf> {
    crate::audit::all_parts(path).unwrap_or_else(|_| vec![path.to_path_buf()])
}

/// What a broken chain ends with.
pub(super) fn broken(part: &Path, error: ChainError) -> CliError {
    CliError::new(exit::CLAIMS, "audit.broken", format!("{}: {error}", part.display()))
        .with_hint("keep the file as it is and find out who could write to it")
}

fn first(number: u64) -> String {
    match number {
        0 => "0, the beginning of the log".to_owned(),
        _ => format!("{number}: earlier parts are not here, compare its prev with the last hash of the part before"),
    }
}
