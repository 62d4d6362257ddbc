//! `portcullis policy learn`: grants that write themselves, for a person to read before they are used.

use std::path::{Path, PathBuf};

use portcullis_policies::{Learned, Observed, Question, is_component_name, learn, learn_imports};
use portcullis_signing::read_interfaces;
use serde_json::json;

use super::recorded;
use super::sources::Read;
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
    if let Some(name) = args.component.as_deref().filter(|name| !is_component_name(name)) {
        return Err(CliError::usage(format!("`{}` is not the name of a component", name.escape_debug()))
            .with_hint("a name is namespace:name, such as shop:orders"));
    }
    // Before anything is read, so that nobody waits for it in vain.
    if let Some(path) = args.out.as_ref().filter(|path| std::fs::symlink_metadata(path).is_ok()) {
        return Err(CliError::usage(format!("{} exists already", path.display()))
            .with_hint("name another file: what was learnt before is not written over"));
    }
    let (learned, unknown) = if is_component(&args.from) {
        let (observed, unknown) = imported(&args, &read)?;
        (learn_imports(&read.sources, &observed), unknown)
    } else {
        (learn(&read.sources, &refused(&args, out)?), Vec::new())
    };
    let learned = learned.map_err(|error| CliError::usage(error.to_string()).with_hint(error.hint()))?;
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

fn is_component(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wasm")
}

fn refused(args: &LearnArgs, out: &mut Output) -> Result<Vec<Observed>, CliError> {
    let wanted = |name: &str| args.component.as_deref().is_none_or(|component| component == name);
    let refusals = recorded::refusals(&args.from, wanted, out)?.into_iter();
    let observed = refusals.map(|(one, reference)| Observed { facts: one.facts, question: one.question, reference });
    Ok(observed.collect())
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
    let exports: Vec<String> = interfaces.exports().iter().map(ToString::to_string).collect();
    Ok((observed, unknown(&imports, &exports)))
}

/// What the interfaces of a component leave open, each thing once.
fn unknown(imports: &[String], exports: &[String]) -> Vec<String> {
    let of = |all: &[String], interface: &str| {
        all.iter().any(|name| name.strip_prefix(interface).is_some_and(|rest| rest.is_empty() || rest.starts_with('@')))
    };
    let imported = UNKNOWN.iter().filter(|(interface, _)| of(imports, interface));
    let exported = UNKNOWN_OF_EXPORTS.iter().filter(|(interface, _)| of(exports, interface));
    let mut unknown: Vec<String> = Vec::new();
    for (_, what) in imported.chain(exported) {
        if !unknown.iter().any(|known| known == what) {
            unknown.push((*what).to_owned());
        }
    }
    unknown
}

fn document(learned: &Learned, unknown: &[String], from: &Path) -> String {
    let what = if is_component(from) { "what it imports" } else { "what was asked for" };
    let mut text =
        format!("# Learnt from {}. Read before use: {what} is not what ought to be allowed.\n", file_name(from));
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
    ("portcullis:identity/jwt", "whether it validates tokens (identity = [\"validate\"])"),
    ("wasmcloud:identity/store", "for which audiences it fetches tokens (audiences = [..])"),
    ("portcullis:identity/workload", "whether it may read its SPIFFE ID (identity = [\"read\"])"),
    ("portcullis:identity/x509", "whether it is to have an X.509-SVID (identity = [\"x509\"])"),
    ("portcullis:identity/signing", "for which purposes it signs (purposes = [..])"),
    ("portcullis:identity/bundle", "whether it may read trust bundles (identity = [\"bundles\"])"),
    ("portcullis:identity/peer", "whether it may learn who calls it (identity = [\"peer\"])"),
    ("portcullis:identity/key-export", "whether it may have its private key (identity = [\"export\"], and [dangers])"),
];

/// The same of what it exports.
const UNKNOWN_OF_EXPORTS: &[(&str, &str)] = &[
    ("wasi:http/incoming-handler", "who may call it (callers = [..])"),
    ("wasmcloud:messaging/handler", "which messages it gets (subscribe = [..])"),
];

#[cfg(test)]
mod tests {
    #[test]
    fn what_interfaces_leave_open_is_said_once_and_of_each() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let imports =
            ["portcullis:identity/jwt@0.1.0", "wasmcloud:identity/store@0.0.1", "portcullis:identity/signing@0.1.0"];
        let unknown = super::unknown(&names(&imports), &names(&["wasmcloud:messaging/handler@0.2.0"]));
        let keys = ["audiences", "validate", "purposes", "subscribe"];
        assert_eq!(unknown.len(), keys.len(), "{unknown:?}");
        assert!(keys.iter().all(|key| unknown.iter().any(|what| what.contains(key))), "{unknown:?}");
        assert!(super::unknown(&names(&["portcullis:identity/jwtx@0.1.0"]), &[]).is_empty());
    }
}
