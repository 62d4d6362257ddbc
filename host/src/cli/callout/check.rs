//! `portcullis callout check SERVER.conf`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use portcullis_policies::nats_server::{Context, Finding, Level, Loaded, check, read};
use serde_json::json;

use super::together;
use crate::cli::error::{CliError, exit};
use crate::cli::output::Output;
use crate::cli::{examples, files};
use crate::limits::CONFIG_BYTES;

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
    let text = files::read_text(&args.config, CONFIG_BYTES, "server configuration")?;
    let mut paths = vec![args.config.clone()];
    let first = Loaded { name: args.config.display().to_string(), text };
    let mut load = |from: usize, written: &str| {
        // A server reads an include relative to the file that includes it.
        let base = paths.get(from).and_then(|path| path.parent()).unwrap_or(Path::new(".")).to_path_buf();
        let path = base.join(written);
        let text =
            files::read_text(&path, CONFIG_BYTES, "included file").map_err(|error| error.message().to_owned())?;
        let name = path.display().to_string();
        paths.push(path);
        Ok(Loaded { name, text })
    };
    let (map, names) = read(first, &mut load).map_err(|error| {
        CliError::new(exit::CONFIG, "server.unreadable", error.to_string())
            .with_hint("mend it as `nats-server -t -c FILE` says; nothing else was looked at")
    })?;
    let readable = |path: &&PathBuf| std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o006 != 0);
    let context = Context {
        files: names,
        readable_by_others: paths.iter().filter(readable).map(|path| path.display().to_string()).collect(),
        now: Some(crate::clock::now().unix_timestamp()),
        version: args.server_version.as_ref().map(|text| text.trim_start_matches("nats-server: ").to_owned()),
    };
    let mut findings = check(&map, &context);
    if let Some(path) = &args.callout {
        findings.extend(together::check(path, &map, crate::clock::now())?);
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
