//! `portcullis policy test`: expected decisions, compared with those that are made.

use std::path::PathBuf;

use portcullis_policies::Cases;
use serde_json::json;

use super::sources::Read;
use crate::cli::error::{CliError, exit};
use crate::cli::files;
use crate::cli::output::{Output, table};
use crate::limits::CONFIG_BYTES;

/// Arguments of `portcullis policy test`.
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Files of cases (TOML): who asks what, and what is expected.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
}

pub(super) fn run(args: TestArgs, out: &mut Output) -> Result<(), CliError> {
    let read = Read::of_config(args.config.as_deref())?;
    let mut checked = Vec::new();
    for path in &args.files {
        let text = files::read_text(path, CONFIG_BYTES, "file of cases")?;
        let cases = Cases::parse(&text).map_err(|error| {
            CliError::usage(format!("{}: {error}", path.display())).with_hint("docs/policies.md shows the format")
        })?;
        checked.extend(cases.check(&read.set, |name, id| read.known(name, id)).into_iter().map(|one| (path, one)));
    }
    let failed = checked.iter().filter(|(_, one)| one.failure.is_some()).count();
    let rows: Vec<Vec<String>> = checked
        .iter()
        .map(|(_, one)| {
            vec![
                if one.failure.is_none() { "ok" } else { "FAILED" }.to_owned(),
                one.component.clone(),
                one.question.action().to_owned(),
                one.question.resource(),
                one.failure.clone().unwrap_or_else(|| one.outcome.name().to_owned()),
                one.why.clone(),
            ]
        })
        .collect();
    let text = format!("{}{} as expected, {failed} not", table(&rows), checked.len() - failed);
    let json: Vec<_> = checked.iter().map(|(path, one)| json!({ "file": path, "case": one })).collect();
    out.result(text, &json!({ "passed": checked.len() - failed, "failed": failed, "cases": json }))?;
    match failed {
        0 => Ok(()),
        _ => Err(CliError::new(exit::DENIED, "policy.unexpected", format!("{failed} decisions are not as expected"))),
    }
}
