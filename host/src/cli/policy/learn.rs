//! `portcullis policy learn`: grants that write themselves, for a person to read before they are used.

use std::path::{Path, PathBuf};

use portcullis_policies::{Learned, Observed, Question, learn};
use portcullis_signing::read_interfaces;
use serde_json::json;

use super::sources::{self, Read};
use crate::cli::error::CliError;
use crate::cli::files;
use crate::cli::output::Output;

/// Arguments of `portcullis policy learn`.
#[derive(Debug, clap::Args)]
pub struct LearnArgs {
    /// An audit log (what was refused becomes grants), or a component (what it imports becomes grants).
    from: PathBuf,
    /// Only for this component; for a .wasm file, the name in its claims.
    #[arg(long)]
    component: Option<String>,
    /// The configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Write the grants to a file instead of printing them.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: LearnArgs, out: &mut Output) -> Result<(), CliError> {
    let read = Read::of_config(args.config.as_deref())?;
    let is_component = args.from.extension().is_some_and(|extension| extension == "wasm");
    let (observed, unknown) = if is_component { imported(&args, &read)? } else { (refused(&args)?, Vec::new()) };
    let learned =
        learn(&read.sources, &observed).map_err(|error| CliError::usage(error.to_string()).with_hint(error.hint()))?;
    let text = document(&learned, &unknown, &args.from);
    for left in &learned.left {
        let resource = left.question.resource();
        out.note(format!("not learnt: {} {} {resource}: {}", left.component, left.question.action(), left.why));
    }
    let json = json!({ "learned": learned, "unknown": unknown, "toml": text });
    match args.out {
        Some(path) => {
            files::write(&path, text.as_bytes(), 0o600, false)?;
            let text = format!(
                "{} grants written to {}; read them before you use them",
                learned.additions.len(),
                path.display()
            );
            out.result(text, &json)
        }
        None => out.result(text.trim_end(), &json),
    }
}

fn refused(args: &LearnArgs) -> Result<Vec<Observed>, CliError> {
    let wanted = |name: &str| args.component.as_deref().is_none_or(|component| component == name);
    let refusals = sources::refusals(&args.from)?.into_iter();
    let observed = refusals.map(|(one, reference)| Observed { facts: one.facts, question: one.question, reference });
    Ok(observed.filter(|one| wanted(&one.facts.name)).collect())
}

/// What a component needs to be linked, and what its bytes cannot tell.
fn imported(args: &LearnArgs, read: &Read) -> Result<(Vec<Observed>, Vec<String>), CliError> {
    let Some(name) = &args.component else {
        return Err(CliError::usage("a file does not say under which name it will be claimed")
            .with_hint("name it with --component namespace:name"));
    };
    let component = files::read_component(&args.from)?;
    let interfaces = read_interfaces(component.bytes())
        .map_err(|error| CliError::usage(format!("{}: {error}", args.from.display())))?;
    let mut facts = read.facts(name);
    facts.digest = component.digest().to_string();
    let imports: Vec<String> = interfaces.imports().iter().map(ToString::to_string).collect();
    let ask = |question| Observed { facts: facts.clone(), question, reference: file_name(&args.from) };
    let mut observed = vec![ask(Question::Load { imports: imports.clone(), expired: false })];
    observed.extend(imports.iter().map(|import| ask(Question::Link { interface: import.clone() })));
    let unknown = UNKNOWN.iter().filter(|(import, _)| imports.iter().any(|name| name.starts_with(import)));
    Ok((observed, unknown.map(|(_, what)| (*what).to_owned()).collect()))
}

fn document(learned: &Learned, unknown: &[String], from: &Path) -> String {
    let mut text = format!(
        "# Learnt from {}. Read before use: what was asked for is not what ought to be allowed.\n",
        file_name(from)
    );
    for what in unknown {
        text.push_str(&format!("# Not to be seen in the file: {what}\n"));
    }
    text.push_str(&learned.toml);
    text
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    crate::cli::error::shown(&name).replace('\n', " ")
}

/// Imports whose use needs more than the link, and what a file cannot tell of it.
const UNKNOWN: &[(&str, &str)] = &[
    ("wasmcloud:messaging/consumer", "which subjects it sends to (publish = [..], request = [..])"),
    ("wasi:http/outgoing-handler", "where it sends requests (http = [..])"),
    ("portcullis:identity/jwt", "for which audiences it fetches tokens (audiences = [..])"),
    ("wasmcloud:identity/store", "for which audiences it fetches tokens (audiences = [..])"),
    ("portcullis:identity/x509", "whether it is to have an X.509-SVID (identity = [\"x509\"])"),
];
