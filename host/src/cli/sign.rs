//! `portcullis sign`: writes the evidence of a component beside it, each file whole or not at all, the claims last.
//!
//! The key may be anywhere (see `--key`); what comes back is verified before it is written. Several signers sign the same claims:
//! the first with --claims, each further one with --add.

use std::path::{Path, PathBuf};

use portcullis_signing::bundle::MEDIA_TYPE as BUNDLE;
use portcullis_signing::{
    Claims, ClaimsError, ComponentBytes, Digest, PREDICATE_TYPE, Prepared, SignError, SignerKey, timestamp,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::error::{CliError, exit};
use super::files;
use super::keys::{KeySource, SignerKeyArg};
use super::moment::Moment;
use super::output::Output;
use super::presented::Presented;
use super::provenance::{self, Platform, SLSA};
use super::sbom::Sbom;
use crate::config::environment;
use crate::limits::EVIDENCE_BYTES;
use crate::signer::Signer;

/// `portcullis sign`.
#[derive(Debug, clap::Args)]
pub struct SignArgs {
    /// The component.
    component: PathBuf,
    /// The claims, as `portcullis claims init` writes them.
    #[arg(long, value_name = "FILE", conflicts_with = "add")]
    claims: Option<PathBuf>,
    /// Sign, as a further signer, the very claims that the evidence beside the component holds.
    #[arg(long)]
    add: bool,
    /// The signer's key: FILE, env://NAME, exec:COMMAND or pkcs11:URI.
    #[arg(long, value_name = "KEY")]
    key: Option<KeySource>,
    /// The public key, where it cannot be had from the key: A..., p256:... or a PEM file.
    #[arg(long, value_name = "KEY")]
    public_key: Option<SignerKeyArg>,
    /// Attest where the component was built, from the environment of the CI job, and bind it to the claims.
    #[arg(long, value_enum, value_name = "PLATFORM", num_args = 0..=1, require_equals = true, default_missing_value = "auto", conflicts_with = "add")]
    provenance: Option<Platform>,
    /// Bind an SBOM (SPDX or CycloneDX, JSON) to the claims by its digest. May be given several times.
    #[arg(long = "sbom", value_name = "FILE", conflicts_with = "add")]
    sboms: Vec<PathBuf>,
    /// Take a Sigstore bundle that others made (cosign attest-blob, actions/attest) as evidence, and bind it to the claims if
    /// these are signed as well. May be given several times.
    #[arg(long = "import-bundle", value_name = "FILE", conflicts_with = "add")]
    imports: Vec<PathBuf>,
    /// The time now, for the same output every time; by default SOURCE_DATE_EPOCH, else the clock.
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
    /// The file to write; by default the component's name with `.sigstore.json`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Replace evidence that exists.
    #[arg(long)]
    force: bool,
}

/// Files to write, in their order, and what the claims say of them.
#[derive(Default)]
struct Written {
    files: Vec<(PathBuf, Vec<u8>)>,
    bound: Vec<Value>,
}

/// Runs the command.
pub fn run(args: SignArgs, out: &mut Output) -> Result<(), CliError> {
    let component = files::read_component(&args.component)?;
    let now = Moment::given_or_now(args.at)?;
    let mut written = Written::default();
    imported(&args, &component, &mut written)?;
    if args.claims.is_none() && !args.add {
        return only_imported(&args, written, out);
    }
    let Some(key) = &args.key else {
        return Err(CliError::usage("there is no key to sign with")
            .with_hint("--key FILE, env://NAME, exec:COMMAND or pkcs11:URI"));
    };
    let signer = key.signer(args.public_key.as_ref())?;
    let public = signer.public()?;
    let failed = |error: SignError| sign_error(&args.component, &error);
    let (claims, prepared, path) = if args.add {
        let (prepared, claims) = again(&args, &component, public, now)?;
        (claims, prepared, args.out.clone().unwrap_or_else(|| files::free_evidence(&args.component)))
    } else {
        let unbound = claims_file(args.claims.as_deref().unwrap_or(Path::new("")))?;
        bound(&args, &component, &unbound, &signer, &mut written)?;
        let claims = with_evidence(unbound, &args, &written.bound)?;
        let prepared = Prepared::claims(&component, &claims, public, now).map_err(failed)?;
        (claims, prepared, args.out.clone().unwrap_or_else(|| files::evidence_beside(&args.component)))
    };
    let signature = signer.sign(prepared.to_sign())?;
    let bundle = prepared.finish(&signature).map_err(failed)?;
    written.files.push((path.clone(), bundle));
    write(&written, args.force)?;

    let json = json!({
        "file": path,
        "digest": component.digest(),
        "signer": public,
        "name": claims.name(),
        "version": claims.version(),
        "revision": claims.revision(),
        "expiresAt": timestamp::format(claims.expires_at()),
        "evidence": claims.evidence(),
        "written": written.files.iter().map(|(path, _)| path).collect::<Vec<_>>(),
    });
    let files: String = written.files.iter().map(|(path, _)| format!("\nwrote {}", path.display())).collect();
    let text = format!(
        "signed {} {} (revision {}) {}{files}",
        claims.name(),
        claims.version(),
        claims.revision(),
        component.digest(),
    );
    out.result(text, &json)
}

/// Bundles of others: for this very file and of the accepted version. What they prove is for the verifier to say.
fn imported(args: &SignArgs, component: &ComponentBytes, written: &mut Written) -> Result<(), CliError> {
    let mut there = files::read_evidence(&args.component, &[])?;
    // The first place is for the claims.
    let mut number = usize::from(args.claims.is_some());
    for path in &args.imports {
        let bytes = files::read_bytes(path, EVIDENCE_BYTES, "bundle")?;
        let refused =
            |code: &str, exit: u8, why: String| CliError::new(exit, code, format!("bundle {}: {why}", path.display()));
        let presented = Presented::read(&bytes).map_err(|why| {
            refused("evidence.malformed", exit::EVIDENCE, why)
                .with_hint("give the bundle that the tool wrote with --bundle or bundle-path")
        })?;
        if presented.media_type != BUNDLE {
            let why = format!("it has the media type `{}`, only {BUNDLE} is accepted", presented.media_type);
            return Err(refused("evidence.media-type", exit::EVIDENCE, why)
                .with_hint("make it with cosign 3 or a current actions/attest"));
        }
        if !presented.subjects.contains(component.digest()) {
            let why = format!("it is not about {}, {}", args.component.display(), component.digest());
            return Err(refused("claims.digest", exit::CLAIMS, why)
                .with_hint("attest the very file that is signed and deployed"));
        }
        if let Some(predicate_type) = &presented.predicate_type {
            written.bound.push(reference(predicate_type, &Digest::of(&bytes)));
        }
        if there.contains(&bytes) {
            continue;
        }
        while files::evidence_number(&args.component, number).exists() {
            number += 1;
        }
        written.files.push((files::evidence_number(&args.component, number), bytes.clone()));
        there.push(bytes);
        number += 1;
    }
    Ok(())
}

fn only_imported(args: &SignArgs, written: Written, out: &mut Output) -> Result<(), CliError> {
    if args.imports.is_empty() {
        return Err(CliError::usage("there is nothing to sign")
            .with_hint("name claims with --claims, sign the claims that are there with --add, or take a bundle with --import-bundle"));
    }
    write(&written, args.force)?;
    let paths: Vec<&PathBuf> = written.files.iter().map(|(path, _)| path).collect();
    let text: Vec<String> = paths.iter().map(|path| format!("wrote {}", path.display())).collect();
    let text = if text.is_empty() { "all of it is there already".to_owned() } else { text.join("\n") };
    out.result(text, &json!({ "written": paths }))
}

/// Provenance and SBOMs: written beside the component, and bound to the claims by their digests.
fn bound(
    args: &SignArgs,
    component: &ComponentBytes,
    claims: &Value,
    signer: &Signer,
    written: &mut Written,
) -> Result<(), CliError> {
    if let Some(platform) = args.provenance {
        let predicate = provenance::predicate(platform, &environment::read)?;
        let text = |pointer| claims.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let name = format!("{}@{}", text("/component/name"), text("/component/version"));
        let failed = |error: SignError| sign_error(&args.component, &error);
        let prepared = Prepared::attestation(component, &name, SLSA, &predicate, signer.public()?).map_err(failed)?;
        let signature = signer.sign(prepared.to_sign())?;
        let bundle = prepared.finish(&signature).map_err(failed)?;
        written.bound.push(reference(SLSA, &Digest::of(&bundle)));
        written.files.push((files::provenance_beside(&args.component), bundle));
    }
    for (number, path) in args.sboms.iter().enumerate() {
        let sbom = Sbom::read(path)?;
        written.bound.push(reference(sbom.predicate_type(), &sbom.digest()));
        written.files.push((files::sbom_number(&args.component, number), sbom.into_bytes()));
    }
    Ok(())
}

fn reference(predicate_type: &str, digest: &Digest) -> Value {
    json!({ "predicateType": predicate_type, "digest": { "sha256": digest.hex() } })
}

/// The statement of the first evidence of claims that is there.
fn again(
    args: &SignArgs,
    component: &ComponentBytes,
    public: SignerKey,
    now: OffsetDateTime,
) -> Result<(Prepared, Claims), CliError> {
    let evidence = files::read_evidence(&args.component, &[])?;
    let of_claims = |bytes: &&Vec<u8>| {
        Presented::read(bytes).is_ok_and(|presented| presented.predicate_type.as_deref() == Some(PREDICATE_TYPE))
    };
    let Some(existing) = evidence.iter().find(of_claims) else {
        let message = format!("there is no evidence with claims beside {}", args.component.display());
        return Err(CliError::new(exit::EVIDENCE, "evidence.none", message)
            .with_hint("the first signer signs with --claims; fetch what it wrote, or `portcullis pull`"));
    };
    Prepared::again(component, existing, public, now).map_err(|error| sign_error(&args.component, &error))
}

fn claims_file(path: &Path) -> Result<Value, CliError> {
    let bytes = files::read_bytes(path, EVIDENCE_BYTES, "claims file")?;
    // Read strictly, as the verifier will; then as the text it is, for what is added to it.
    Claims::parse(&bytes).map_err(|error| claims_error(path, &error))?;
    serde_json::from_slice(&bytes).map_err(CliError::internal)
}

fn with_evidence(mut claims: Value, args: &SignArgs, bound: &[Value]) -> Result<Claims, CliError> {
    if let Some(map) = claims.as_object_mut() {
        let list = map.entry("evidence").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            let new: Vec<Value> = bound.iter().filter(|entry| !list.contains(entry)).cloned().collect();
            list.extend(new);
        }
    }
    let path = args.claims.as_deref().unwrap_or(Path::new(""));
    Claims::parse(claims.to_string().as_bytes()).map_err(|error| claims_error(path, &error))
}

fn write(written: &Written, force: bool) -> Result<(), CliError> {
    if !force && let Some((path, _)) = written.files.iter().find(|(path, _)| path.exists()) {
        return Err(CliError::usage(format!("{} exists already", path.display()))
            .with_hint("give --force to replace it, --add to sign the same claims as a further signer, or name another file with --out"));
    }
    written.files.iter().try_for_each(|(path, bytes)| files::write(path, bytes, 0o644, force))
}

/// Every problem of a claims file, one a line.
fn claims_error(path: &Path, error: &ClaimsError) -> CliError {
    let problems = error.problems();
    let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    CliError::new(exit::USAGE, "claims.invalid", format!("claims file {} cannot be signed:{lines}", path.display()))
        .with_hint(error.hint())
        .with_details(json!({ "problems": problems }))
}

fn sign_error(component: &Path, error: &SignError) -> CliError {
    let (exit, code) = match error {
        SignError::Key(_) | SignError::PublicKey(_) => (exit::USAGE, "usage"),
        SignError::Component(error) => return super::claims::not_a_component(component.display(), error),
        SignError::HiddenImports { .. } => (exit::CLAIMS, "claims.imports"),
        SignError::Expired { .. } => (exit::TIME, "time.expired"),
        SignError::Existing(_) => (exit::CLAIMS, "claims.digest"),
        SignError::NotASignature(_) => (exit::SIGNATURE, "signature.bad"),
        SignError::Internal(_) => (exit::INTERNAL, "internal"),
    };
    CliError::new(exit, code, error.to_string()).with_hint(error.hint())
}
