//! `portcullis callout check SERVER.conf`.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use portcullis_policies::nats_server::{Context, Finding, Level, check};
use serde_json::json;

use super::server_file::ServerFile;
use super::together;
use crate::cli::error::{CliError, exit};
use crate::cli::examples;
use crate::cli::output::Output;

/// Arguments of `portcullis callout check`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::CALLOUT_CHECK)]
pub struct CheckArgs {
    /// The configuration of a NATS server.
    config: PathBuf,
    /// The server's version, as `nats-server --version` says it.
    #[arg(long, value_name = "VERSION")]
    server_version: Option<String>,
    /// The callout's own configuration, callout.toml: whether it fits, and when what it logs in with ends.
    #[arg(long, value_name = "FILE")]
    callout: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &CheckArgs, out: &mut Output) -> Result<(), CliError> {
    let server = ServerFile::read(&args.config)?;
    let readable = |path: &&PathBuf| std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o006 != 0);
    let context = Context {
        files: server.names.clone(),
        readable_by_others: server.paths.iter().filter(readable).map(|path| path.display().to_string()).collect(),
        now: Some(crate::clock::now().unix_timestamp()),
        version: args.server_version.as_ref().map(|text| text.trim_start_matches("nats-server: ").to_owned()),
    };
    let mut findings = check(&server.map, &context);
    if let Some(path) = &args.callout {
        findings.extend(together::check(path, &server, crate::clock::now())?);
        findings.sort();
    }
    let dangers = findings.iter().filter(|finding| finding.level == Level::Danger).count();
    let report = json!({ "file": args.config, "dangers": dangers, "findings": findings });
    if dangers == 0 {
        let notes: String = findings.iter().map(line).collect();
        let version = match &args.server_version {
            Some(_) => "",
            None => {
                "\nthe server's version was not looked at: give it with --server-version (2.12.7 or 2.14.0 at least)"
            }
        };
        return out.result(format!("{notes}{}: nothing dangerous found{version}", args.config.display()), &report);
    }
    let lines: String = findings.iter().map(line).collect();
    let message = format!("{} has {dangers} dangerous settings:\n{}", args.config.display(), lines.trim_end());
    Err(CliError::new(exit::CONFIG, "server.dangerous", message)
        .with_hint("`portcullis callout init` writes a configuration without them")
        .with_details(report))
}

fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Danger => "danger",
        Level::Note => "note",
    };
    format!("  {level} {}  {}\n    {}\n    hint: {}\n", finding.code, finding.place, finding.reason, finding.hint)
}
