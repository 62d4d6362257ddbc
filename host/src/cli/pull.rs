//! `portcullis pull`: a component and its evidence from an OCI registry, to files. Written only when all of it is right.

use std::path::{Path, PathBuf};

use portcullis_signing::PREDICATE_TYPE;
use portcullis_signing::oci::OciReference;
use serde_json::json;

use super::error::CliError;
use super::files;
use super::located::{self, RegistryArgs};
use super::output::Output;
use super::presented::Presented;
use super::verify::TrustArgs;
use crate::clock;
use crate::oci::{Fetched, Piece};

/// `portcullis pull`.
#[derive(Debug, clap::Args)]
pub struct PullArgs {
    /// The reference: HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:DIGEST.
    #[arg(value_name = "REF")]
    reference: String,
    /// The file to write; by default the repository's last part with `.wasm`. Evidence goes beside it.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Runs the command.
pub fn run(args: &PullArgs, out: &mut Output) -> Result<(), CliError> {
    let reference = located::reference(&args.reference)?;
    let trusted = if args.trust.is_given() { Some(args.trust.read(clock::now())?) } else { None };
    let path = args.out.clone().unwrap_or_else(|| default_name(&reference));
    if !args.force && path.exists() {
        return Err(CliError::usage(format!("{} exists already", path.display()))
            .with_hint("name another file with --out, or give --force to replace it"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fetched = located::fetch(&reference, &args.registry, Some(folder), out)?;
    if let Some(trusted) = &trusted {
        let evidence: Vec<&[u8]> = fetched.evidence.iter().map(Piece::bytes).collect();
        let refused = |refusal| CliError::from(refusal).about(&fetched.reference);
        trusted.verify(&fetched.component, &evidence).map_err(refused)?;
    }
    let written = write(&fetched, &path, args.force)?;
    let json = json!({
        "reference": fetched.reference,
        "digest": fetched.component.digest(),
        "file": path,
        "evidence": written,
        "verified": trusted.is_some(),
        "notes": fetched.notes,
    });
    let names: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    let with = if names.is_empty() { "no evidence".to_owned() } else { names.join(", ") };
    let state = if trusted.is_some() { "verified" } else { "not verified yet: `portcullis verify`" };
    out.result(format!("pulled {}\nwrote {} with {with}\n{state}", fetched.reference, path.display()), &json)?;
    if fetched.evidence.is_empty() {
        out.note("nothing in the registry refers to this component as evidence; a host will refuse it");
    }
    Ok(())
}

/// Writes a component and its evidence beside it. Evidence first: a component is never there without.
pub fn write(fetched: &Fetched, path: &Path, force: bool) -> Result<Vec<PathBuf>, CliError> {
    let mut written = Vec::new();
    let (signed, sboms): (Vec<&Piece>, Vec<&Piece>) =
        fetched.evidence.iter().partition(|piece| matches!(piece, Piece::Signed(_)));
    let is_claims = |piece: &&&Piece| {
        Presented::read(piece.bytes())
            .is_ok_and(|presented| presented.predicate_type.as_deref() == Some(PREDICATE_TYPE))
    };
    // Claims first: that is where people look.
    let (claims, others): (Vec<&Piece>, Vec<&Piece>) = signed.into_iter().partition(|piece| is_claims(&piece));
    let numbered =
        claims.into_iter().chain(others).enumerate().map(|(n, piece)| (files::evidence_number(path, n), piece));
    let sboms = sboms.into_iter().enumerate().map(|(n, piece)| (files::sbom_number(path, n), piece));
    for (name, piece) in numbered.chain(sboms) {
        files::write(&name, piece.bytes(), 0o644, force)?;
        written.push(name);
    }
    files::write(path, fetched.component.bytes(), 0o644, force)?;
    Ok(written)
}

fn default_name(reference: &OciReference) -> PathBuf {
    let last = reference.repository().rsplit('/').next().unwrap_or("component");
    PathBuf::from(format!("{last}.wasm"))
}
