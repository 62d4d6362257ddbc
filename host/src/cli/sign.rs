//! `portcullis sign`: writes the evidence of a component beside it, whole or not at all.

use std::path::{Path, PathBuf};

use portcullis_signing::{Claims, ClaimsError, SignError, sign_component, timestamp};

use super::error::{CliError, exit};
use super::files;
use super::keys::KeySource;
use super::output::Output;
use crate::clock;
use crate::limits::EVIDENCE_BYTES;

/// `portcullis sign`.
#[derive(Debug, clap::Args)]
pub struct SignArgs {
    /// The component.
    component: PathBuf,
    /// The claims, as `portcullis claims init` writes them.
    #[arg(long, value_name = "FILE")]
    claims: PathBuf,
    /// The signer's key: FILE or env://NAME.
    #[arg(long, value_name = "KEY")]
    key: KeySource,
    /// The file to write; by default the component's name with `.sigstore.json`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Replace evidence that exists.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub fn run(args: SignArgs, out: &mut Output) -> Result<(), CliError> {
    let component = files::read_component(&args.component)?;
    let claims = files::read_bytes(&args.claims, EVIDENCE_BYTES, "claims file")?;
    let claims = Claims::parse(&claims).map_err(|error| claims_error(&args.claims, &error))?;
    let key = args.key.read()?;
    let bundle =
        sign_component(&component, &claims, &key, clock::now()).map_err(|error| sign_error(&args.component, &error))?;
    let path = args.out.unwrap_or_else(|| files::evidence_beside(&args.component));
    files::write(&path, &bundle, 0o644, args.force)?;
    let json = serde_json::json!({
        "file": path,
        "digest": component.digest(),
        "signer": key.public(),
        "name": claims.name(),
        "version": claims.version(),
        "revision": claims.revision(),
        "expiresAt": timestamp::format(claims.expires_at()),
    });
    let text = format!(
        "signed {} {} (revision {}) {}\nwrote {}",
        claims.name(),
        claims.version(),
        claims.revision(),
        component.digest(),
        path.display()
    );
    out.result(text, &json)
}

/// Every problem of a claims file, one a line.
fn claims_error(path: &Path, error: &ClaimsError) -> CliError {
    let problems = error.problems();
    let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    CliError::new(exit::USAGE, "claims.invalid", format!("claims file {} cannot be signed:{lines}", path.display()))
        .with_hint(error.hint())
        .with_details(serde_json::json!({ "problems": problems }))
}

fn sign_error(component: &Path, error: &SignError) -> CliError {
    let (exit, code) = match error {
        SignError::Key(_) => (exit::USAGE, "usage"),
        SignError::Component(error) => return super::claims::not_a_component(component.display(), error),
        SignError::HiddenImports { .. } => (exit::CLAIMS, "claims.imports"),
        SignError::Expired { .. } => (exit::TIME, "time.expired"),
        SignError::Internal(_) => (exit::INTERNAL, "internal"),
    };
    CliError::new(exit, code, error.to_string()).with_hint(error.hint())
}
