//! `portcullis inspect`: what a component is, what was claimed about it, and the verdict where trust is given.
//!
//! Reports, and ends well even where the verdict is a refusal: `verify` is the command to decide by.

use std::path::PathBuf;

use portcullis_signing::bundle::{self, Bundle};
use portcullis_signing::statement::Statement;
use portcullis_signing::{
    Claims, DecisionRecord, Digest, ImportName, Interfaces, Refusal, Verified, read_interfaces, timestamp,
};
use serde_json::{Value, json};

use super::claims;
use super::error::CliError;
use super::located::{Found, Located, RegistryArgs};
use super::output::{Output, table};
use super::verify::TrustArgs;
use crate::clock;

/// `portcullis inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The component: a file, or oci://HOST/REPOSITORY:TAG.
    component: Located,
    /// Evidence; by default the files with `.sigstore.json` beside the component, or what refers to it. May be given several times.
    #[arg(long = "bundle", value_name = "FILE")]
    bundles: Vec<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// One piece of evidence as it presents itself: nothing in it is verified.
struct Presented {
    key: String,
    subject: Digest,
    claims: Claims,
}

/// Runs the command.
pub fn run(args: InspectArgs, out: &mut Output) -> Result<(), CliError> {
    let Found { component, evidence, .. } = args.component.read(&args.bundles, &args.registry, out)?;
    let (interfaces, problem) = match read_interfaces(component.bytes()) {
        Ok(interfaces) => (interfaces, None),
        // With evidence there is something to tell all the same: what the file should have been.
        Err(error) if !evidence.is_empty() => (Interfaces::default(), Some(error.to_string())),
        Err(error) => return Err(claims::not_a_component(&args.component, &error)),
    };
    let verdict = if args.trust.is_given() {
        let slices: Vec<&[u8]> = evidence.iter().map(Vec::as_slice).collect();
        Some(args.trust.read(clock::now())?.verify(&component, &slices))
    } else {
        None
    };
    let presented: Vec<Result<Presented, String>> = evidence.iter().map(|bytes| present(bytes)).collect();
    let claimed: Vec<&ImportName> =
        presented.iter().flatten().flat_map(|presented| presented.claims.imports()).collect();

    let mut rows = vec![
        row("file", &args.component),
        row("digest", component.digest()),
        row("size", format!("{} bytes", component.bytes().len())),
    ];
    for presented in &presented {
        rows.extend(presented_rows(presented, component.digest()));
    }
    if presented.is_empty() {
        rows.push(row("evidence", "none"));
    }
    rows.push(row("verdict", verdict_text(verdict.as_ref())));
    if let Some(Err(refusal)) = &verdict {
        rows.push(row("hint", refusal.hint()));
    }
    if let Some(problem) = &problem {
        rows.push(row("interfaces", format!("cannot be read: {problem}")));
    }
    for import in interfaces.imports() {
        let covered = claimed.iter().any(|claimed| claimed.covers(import));
        let note = match (presented.is_empty(), covered) {
            (true, _) => "",
            (false, true) => "claimed",
            (false, false) => "NOT CLAIMED",
        };
        rows.push(vec!["import".to_owned(), import.to_string(), note.to_owned()]);
    }
    for export in interfaces.exports() {
        rows.push(row("export", export));
    }

    let json = json!({
        "file": args.component.to_string(),
        "digest": component.digest(),
        "size": component.bytes().len(),
        "interfaces": interfaces,
        "problem": problem,
        "hiddenImports": interfaces.imports().iter().filter(|import| !claimed.iter().any(|own| own.covers(import))).collect::<Vec<_>>(),
        "evidence": presented.iter().map(presented_json).collect::<Vec<_>>(),
        "decision": verdict.as_ref().map(|verdict| DecisionRecord::new(verdict.as_ref())),
    });
    out.result(table(&rows).trim_end(), &json)
}

fn present(bytes: &[u8]) -> Result<Presented, String> {
    let bundle: Bundle = bundle::parse(bytes).map_err(|error| error.to_string())?;
    let statement = Statement::parse(bundle.envelope().ok_or("it signs the file alone")?.payload())
        .map_err(|error| error.to_string())?;
    let subject = *statement.subject();
    let claims: Claims = serde_json::from_value(statement.into_predicate()).map_err(|error| error.to_string())?;
    Ok(Presented { key: portcullis_signing::Excerpt(bundle.hint()).to_string(), subject, claims })
}

fn presented_rows(presented: &Result<Presented, String>, digest: &Digest) -> Vec<Vec<String>> {
    let presented = match presented {
        Ok(presented) => presented,
        Err(error) => return vec![row("evidence", format!("cannot be used: {error}"))],
    };
    let claims = &presented.claims;
    let audience: Vec<&str> = claims.audience().iter().map(|audience| audience.as_str()).collect();
    let subject = if presented.subject == *digest {
        "this file".to_owned()
    } else {
        format!("ANOTHER FILE: {}", presented.subject)
    };
    vec![
        row("evidence", format!("for {subject}")),
        row("  key", format!("{} (as the bundle says)", presented.key)),
        row("  component", format!("{} {}, revision {}", claims.name(), claims.version(), claims.revision())),
        row("  identity", claims.identity_path()),
        row("  audience", audience.join(", ")),
        row(
            "  valid",
            format!("{} to {}", timestamp::format(claims.not_before()), timestamp::format(claims.expires_at())),
        ),
    ]
}

fn presented_json(presented: &Result<Presented, String>) -> Value {
    match presented {
        Ok(presented) => json!({ "key": presented.key, "subject": presented.subject, "claims": presented.claims }),
        Err(error) => json!({ "error": error }),
    }
}

fn verdict_text(verdict: Option<&Result<Verified<Claims>, Refusal>>) -> String {
    match verdict {
        None => {
            "not decided: claims are shown as they are; give --trust, --root and --audience, or --config".to_owned()
        }
        Some(Ok(verified)) => {
            let signer = verified.signer();
            format!(
                "verified: signed by {} ({}), trust policy version {}",
                signer.name(),
                signer.id(),
                verified.policy_version()
            )
        }
        Some(Err(refusal)) => format!("REFUSED {}: {}", refusal.code(), refusal),
    }
}

fn row(name: &str, value: impl ToString) -> Vec<String> {
    vec![name.to_owned(), value.to_string()]
}
