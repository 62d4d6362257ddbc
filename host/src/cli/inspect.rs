//! `portcullis inspect`: what a component is, what was claimed about it, and the verdict where trust is given.
//!
//! Reports, and ends well even where the verdict is a refusal: `verify` is the command to decide by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis_signing::bundle::{self, Bundle, Material};
use portcullis_signing::cosign::CosignEvidence;
use portcullis_signing::statement::{AnyStatement, Statement};
use portcullis_signing::trust::DELEGATION_TYPE;
use portcullis_signing::{
    Claims, DecisionRecord, Digest, Excerpt, ImportName, Interfaces, PREDICATE_TYPE, Refusal, Verified, keyless,
    read_interfaces, svid, timestamp,
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
    /// A hint at a key, or the identity in a certificate.
    by: String,
    kind: String,
    subject: Option<Digest>,
    claims: Option<Claims>,
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
        presented.iter().flatten().filter_map(|one| one.claims.as_ref()).flat_map(Claims::imports).collect();
    // Grants are those for verified claims: what is not verified has none.
    let grants = match (&args.trust.config, &verdict) {
        (Some(config), Some(Ok(verified))) => grants(config, verified)?,
        _ => None,
    };

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
        let note = match (claimed.is_empty() && presented.iter().flatten().all(|one| one.claims.is_none()), covered) {
            (true, _) => "",
            (false, true) => "claimed",
            (false, false) => "NOT CLAIMED",
        };
        let granted = match grants.as_ref().and_then(|grants| grants.get(&import.to_string())) {
            None => "",
            Some(true) => "granted",
            Some(false) => "NOT GRANTED",
        };
        rows.push(vec!["import".to_owned(), import.to_string(), note.to_owned(), granted.to_owned()]);
    }
    let unused = claimed.iter().filter(|claimed| !interfaces.imports().iter().any(|import| claimed.covers(import)));
    rows.extend(
        unused.clone().map(|claimed| vec!["claimed".to_owned(), claimed.to_string(), "not imported".to_owned()]),
    );
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
        "unusedClaims": unused.collect::<Vec<_>>(),
        "grants": grants,
        "evidence": presented.iter().map(presented_json).collect::<Vec<_>>(),
        "decision": verdict.as_ref().map(|verdict| DecisionRecord::new(verdict.as_ref())),
    });
    out.result(table(&rows).trim_end(), &json)
}

fn present(bytes: &[u8]) -> Result<Presented, String> {
    if CosignEvidence::parse(bytes).is_ok() {
        let kind = "a cosign signature over a manifest".to_owned();
        return Ok(Presented { by: "a key".to_owned(), kind, subject: None, claims: None });
    }
    let bundle: Bundle = bundle::parse(bytes).map_err(|error| error.to_string())?;
    let by = match bundle.material() {
        Material::Key(hint) => Excerpt(hint).to_string(),
        Material::Certificate(leaf) => match keyless::present(leaf) {
            Ok(presented) if !presented.issuer.is_empty() => {
                format!("{}, says {}", Excerpt(&presented.identity), Excerpt(&presented.issuer))
            }
            Ok(presented) => Excerpt(&presented.identity).to_string(),
            Err(error) => error.to_string(),
        },
        Material::Chain(chain) => {
            let id = chain.first().map(|leaf| svid::spiffe_id(leaf));
            id.and_then(Result::ok).map_or_else(|| "a certificate".to_owned(), |id| Excerpt(&id).to_string())
        }
    };
    let Some(envelope) = bundle.envelope() else {
        let kind = "a signature over the file alone".to_owned();
        return Ok(Presented { by, kind, subject: None, claims: None });
    };
    if envelope.payload_type() == DELEGATION_TYPE {
        let kind = "a delegation to another signer".to_owned();
        return Ok(Presented { by, kind, subject: None, claims: None });
    }
    let any = AnyStatement::parse(envelope.payload()).map_err(|error| error.to_string())?;
    if any.predicate_type() != PREDICATE_TYPE {
        let kind = Excerpt(any.predicate_type()).to_string();
        return Ok(Presented { by, kind, subject: None, claims: None });
    }
    let statement = Statement::try_from(any).map_err(|error| error.to_string())?;
    let subject = Some(*statement.subject());
    let claims: Claims = serde_json::from_value(statement.into_predicate()).map_err(|error| error.to_string())?;
    Ok(Presented { by, kind: "component claims".to_owned(), subject, claims: Some(claims) })
}

/// Which imports the grants of a host's configuration let it link.
#[cfg(feature = "host")]
fn grants(config: &Path, verified: &Verified<Claims>) -> Result<Option<BTreeMap<String, bool>>, CliError> {
    super::as_host::links(config, verified).map(Some)
}

/// A build of the signing commands alone knows no grants.
#[cfg(not(feature = "host"))]
fn grants(_: &Path, _: &Verified<Claims>) -> Result<Option<BTreeMap<String, bool>>, CliError> {
    Ok(None)
}

fn presented_rows(presented: &Result<Presented, String>, digest: &Digest) -> Vec<Vec<String>> {
    let presented = match presented {
        Ok(presented) => presented,
        Err(error) => return vec![row("evidence", format!("cannot be used: {error}"))],
    };
    let Some(claims) = &presented.claims else {
        return vec![row("evidence", &presented.kind), row("  by", format!("{} (as it says)", presented.by))];
    };
    let audience: Vec<&str> = claims.audience().iter().map(|audience| audience.as_str()).collect();
    let subject = match &presented.subject {
        Some(subject) if subject == digest => "this file".to_owned(),
        Some(subject) => format!("ANOTHER FILE: {subject}"),
        None => "no file".to_owned(),
    };
    vec![
        row("evidence", format!("for {subject}")),
        row("  key", format!("{} (as the bundle says)", presented.by)),
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
        Ok(presented) => json!({
            "key": presented.by,
            "kind": presented.kind,
            "subject": presented.subject,
            "claims": presented.claims,
        }),
        Err(error) => json!({ "error": error }),
    }
}

fn verdict_text(verdict: Option<&Result<Verified<Claims>, Refusal>>) -> String {
    match verdict {
        None => {
            "not decided: claims are shown as they are; give --trust, --root and --audience, or --config".to_owned()
        }
        Some(Ok(verified)) => {
            let signers: Vec<String> =
                verified.signers().map(|signer| format!("{} ({})", signer.name(), signer.id())).collect();
            format!("verified: signed by {}, trust policy version {}", signers.join(" and "), verified.policy_version())
        }
        Some(Err(refusal)) => format!("REFUSED {}: {}", refusal.code(), refusal),
    }
}

fn row(name: &str, value: impl ToString) -> Vec<String> {
    vec![name.to_owned(), value.to_string()]
}
