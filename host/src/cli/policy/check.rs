//! `portcullis policy check`: whether a host would take the policy, and what it changes.

use std::path::PathBuf;

use serde_json::json;

use super::compare;
use super::sources::Read;
use crate::cli::error::CliError;
use crate::cli::output::{Output, table};

/// Arguments of `portcullis policy check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Also say what changes against this policy: a configuration, a folder, or a file of grants or policies.
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
}

pub(super) fn run(args: CheckArgs, out: &mut Output) -> Result<(), CliError> {
    let new = Read::of_config(args.config.as_deref())?;
    for problem in &new.problems {
        out.note(format!("warning: {problem}"));
    }
    let summary = new.set.summary();
    let names: Vec<&str> = new.sources.iter().map(|source| source.name.as_str()).collect();
    let mut rows: Vec<Vec<String>> =
        names.iter().map(|name| vec!["can be used".to_owned(), (*name).to_owned()]).collect();
    rows.push(vec!["grants".to_owned(), summary.grants.to_string()]);
    rows.push(vec!["raw policies".to_owned(), summary.raw_policies.to_string()]);
    rows.push(vec!["guards".to_owned(), summary.guards.to_string()]);
    rows.push(vec!["components".to_owned(), summary.components.join(", ")]);
    let comparison = match &args.against {
        Some(path) => Some(compare::compared(&Read::at(path)?, &new, &[])),
        None => None,
    };
    let mut text = table(&rows);
    if let Some(comparison) = &comparison {
        text.push('\n');
        text.push_str(&compare::text(comparison));
    }
    out.result(text.trim_end(), &json!({ "sources": names, "summary": summary, "changes": comparison }))
}
