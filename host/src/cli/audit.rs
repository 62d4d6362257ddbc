//! `portcullis audit verify`: checks the hash chain of an audit log, without a running host.

use std::io::BufReader;
use std::path::PathBuf;

use super::error::{CliError, exit};
use super::output::{Output, table};
use super::{files, locate};

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
    let opened = files::open_to_read(&path, "audit log")?;
    let summary = crate::audit::verify(BufReader::new(opened)).map_err(|error| {
        CliError::new(exit::CLAIMS, "audit.broken", format!("{}: {error}", path.display()))
            .with_hint("keep the file as it is and find out who could write to it")
    })?;
    let mut rows = vec![
        vec!["file".to_owned(), path.display().to_string()],
        vec!["records".to_owned(), summary.records.to_string()],
    ];
    rows.extend(summary.by_kind.iter().map(|(kind, count)| vec![format!("  {kind}"), count.to_string()]));
    rows.push(vec!["last hash".to_owned(), summary.last_hash.clone()]);
    let json = serde_json::json!({
        "file": path.display().to_string(), "records": summary.records, "by_kind": summary.by_kind, "last_hash": summary.last_hash,
    });
    out.result(format!("the chain holds\n{}", table(&rows).trim_end()), &json)
}
