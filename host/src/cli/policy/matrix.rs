//! `portcullis policy matrix`: what each component may do, to read, to commit, to look at.

use std::path::PathBuf;

use portcullis_policies::{Known, Matrix};
use serde_json::json;

use super::sources::Read;
use crate::cli::error::CliError;
use crate::cli::files;
use crate::cli::output::Output;

/// Arguments of `portcullis policy matrix`.
#[derive(Debug, clap::Args)]
pub struct MatrixArgs {
    /// The configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// One component only (its claimed name).
    #[arg(long)]
    component: Vec<String>,
    /// Every answer as comma-separated values, refusals too.
    #[arg(long, conflicts_with = "html")]
    csv: bool,
    /// Write a page to look at: a heat map of actions and resources over components, in one file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) fn run(args: MatrixArgs, out: &mut Output) -> Result<(), CliError> {
    let read = Read::of_config(args.config.as_deref())?;
    let components = match args.component.is_empty() {
        true => read.set.summary().components,
        false => args.component,
    };
    let components: Vec<Known> = components.iter().map(|name| read.known(name, None)).collect();
    let matrix = Matrix::new(&read.set, &components);
    if components.is_empty() && matrix.written.is_empty() {
        return Err(CliError::usage("nothing is granted to any component, so there is nothing to show")
            .with_hint("name components with --component to see that everything is refused"));
    }
    if let Some(path) = args.html {
        files::write(&path, matrix.to_html().as_bytes(), 0o644, true)?;
        return out.result(format!("written to {}", path.display()), &json!({ "file": path }));
    }
    if args.csv {
        return out.raw(matrix.to_csv().as_bytes());
    }
    out.result(matrix.to_text().trim_end(), &json!(matrix))
}
