//! `portcullis trust ..`: the trust policy, edited as a document and signed by root keys; and what goes with it: delegations
//! by signers, the deny list, changes of root keys.
//!
//! Every change raises the version, so that hosts never take an older policy for a newer one.

mod ceiling;
mod delegate;
mod deny;
mod rotate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis_signing::keyless::Transparency;
use portcullis_signing::trust::{OidcIdentity, Onward, read_document};
use portcullis_signing::{
    Delegation, KeyKind, Lifetime, Refusal, SignTrustError, SignerEntry, SignerIdentity, SignerKind, TrustDocument,
    TrustError, TrustPolicy, sign_trust, timestamp,
};
use serde_json::json;

use self::ceiling::CeilingArgs;
use super::error::{CliError, exit};
use super::files;
use super::keys::{KeySource, PublicKeyArg, SignerKeyArg};
use super::output::{Output, table};
use crate::clock;
use crate::limits::CONFIG_BYTES;

/// `portcullis trust ...`.
#[derive(Debug, clap::Subcommand)]
pub enum TrustCommand {
    /// Write a trust policy that admits nothing yet.
    Init(InitArgs),
    /// Add a signer and what it may say.
    Add(AddArgs),
    /// Hand a part of a signer's delegation on to another signer, signed by the first.
    Delegate(delegate::DelegateArgs),
    /// Deny files, claims, signers or revisions: write and sign the deny list anew.
    Deny(deny::DenyArgs),
    /// Demand a deny list that is signed by these keys and not too old.
    DemandDenyList(deny::DemandArgs),
    /// Replace the root keys: sign the change with the old and the new ones, then apply it.
    Rotate(rotate::RotateArgs),
    /// Sign the trust policy with a root key; signatures of other root keys are kept.
    Sign(SignArgs),
    /// Show a trust policy, signed or not.
    Show(ShowArgs),
}

/// `portcullis trust init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The file to write.
    #[arg(long)]
    out: PathBuf,
    /// A root key, O...; may be given several times.
    #[arg(long = "root", value_name = "KEY", required = true)]
    roots: Vec<PublicKeyArg>,
    /// How many root keys must sign.
    #[arg(long, default_value_t = 1, value_name = "K")]
    threshold: usize,
    /// How long the policy holds, from now.
    #[arg(long, default_value = "90d", value_name = "TIME")]
    valid_for: Lifetime,
    /// Replace a file that exists.
    #[arg(long)]
    force: bool,
}

/// `portcullis trust add`.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// The unsigned trust policy to change.
    document: PathBuf,
    /// The signer's public key: A..., p256:... or a PEM file.
    #[arg(long, value_name = "KEY", required_unless_present = "oidc_identity")]
    signer: Option<SignerKeyArg>,
    /// Instead of a key: the exact identity in keyless certificates, such as a workflow's URI.
    #[arg(long, value_name = "IDENTITY", conflicts_with = "signer", requires_all = ["oidc_issuer", "trusted_root"])]
    oidc_identity: Option<String>,
    /// The exact issuer that the certificates must name.
    #[arg(long, value_name = "URL")]
    oidc_issuer: Option<String>,
    /// The Sigstore trusted root (trusted_root.json) to pin, under the name `sigstore`.
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Its name: lower-case letters, digits, dashes.
    #[arg(long)]
    name: String,
    /// Its group, for policies to refer to; by default its name.
    #[arg(long)]
    group: Option<String>,
    /// What it may count as where several must sign; may be given several times.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// The signer that its delegation is a part of; by default it has it from the roots.
    #[arg(long, value_name = "NAME")]
    parent: Option<String>,
    /// How many levels of further delegations it may make, to keys; by default none.
    #[arg(long, value_name = "DEPTH")]
    onward: Option<usize>,
    #[command(flatten)]
    ceiling: CeilingArgs,
}

/// `portcullis trust sign`.
#[derive(Debug, clap::Args)]
pub struct SignArgs {
    /// The unsigned trust policy.
    document: PathBuf,
    /// The root key: FILE or env://NAME.
    #[arg(long, value_name = "KEY")]
    key: KeySource,
    /// The signed trust policy; by default the document's name with `.signed.json`. Signatures in it are kept.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// `portcullis trust show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The trust policy.
    file: PathBuf,
    /// A root key that must have signed it, O...; may be given several times.
    #[arg(long = "root", value_name = "KEY")]
    roots: Vec<PublicKeyArg>,
    /// How many of them must have signed.
    #[arg(long, default_value_t = 1, value_name = "N")]
    root_threshold: usize,
}

/// Runs the command.
pub fn run(command: TrustCommand, out: &mut Output) -> Result<(), CliError> {
    match command {
        TrustCommand::Init(args) => init(args, out),
        TrustCommand::Add(args) => add(args, out),
        TrustCommand::Delegate(args) => delegate::run(args, out),
        TrustCommand::Deny(args) => deny::run(&args, out),
        TrustCommand::DemandDenyList(args) => deny::demand(&args, out),
        TrustCommand::Rotate(args) => rotate::run(&args, out),
        TrustCommand::Sign(args) => sign(&args, out),
        TrustCommand::Show(args) => show(&args, out),
    }
}

fn init(args: InitArgs, out: &mut Output) -> Result<(), CliError> {
    let now = clock::now();
    let expires_at = now.saturating_add(args.valid_for.duration());
    let roots = args.roots.iter().map(|key| key.read(KeyKind::Root, "--root")).collect::<Result<_, _>>()?;
    let document =
        TrustDocument::new(1, now, expires_at, roots, args.threshold).map_err(|error| trust_error(&args.out, error))?;
    files::write(&args.out, &document.to_json(), 0o644, args.force)?;
    let text = format!(
        "wrote {}: it admits nothing until a signer is added and {} root key(s) have signed",
        args.out.display(),
        document.threshold()
    );
    out.result(text, &json!({ "file": args.out, "version": document.version(), "expiresAt": timestamp::format(document.expires_at()) }))
}

fn add(args: AddArgs, out: &mut Output) -> Result<(), CliError> {
    let failed = |error| trust_error(&args.document, error);
    let mut document = read(&args.document)?;
    let identity = match (&args.signer, args.oidc_identity, args.oidc_issuer, &args.trusted_root) {
        (Some(key), ..) => SignerIdentity::Key(key.read()?),
        (None, Some(identity), Some(issuer), Some(file)) => {
            let bytes = files::read_bytes(file, CONFIG_BYTES, "trusted root")?;
            let root = serde_json::from_slice(&bytes)
                .map_err(|error| CliError::usage(format!("{}: it is not JSON: {error}", file.display())))?;
            document.add_sigstore_root(SIGSTORE.to_owned(), root).map_err(failed)?;
            SignerIdentity::Oidc(OidcIdentity {
                root: SIGSTORE.to_owned(),
                issuer,
                identity,
                transparency: Transparency::Log,
                claims: BTreeMap::new(),
            })
        }
        _ => {
            return Err(CliError::usage(
                "a signer needs --signer, or --oidc-identity with its issuer and trusted root",
            ));
        }
    };
    let kinds = || vec![SignerKind::Ed25519, SignerKind::P256];
    let entry = SignerEntry {
        name: args.name,
        identity,
        roles: args.roles,
        parent: args.parent,
        group: args.group,
        delegation: Delegation {
            onward: args.onward.map(|depth| Onward { depth, kinds: kinds() }),
            ..args.ceiling.delegation()
        },
    };
    let added = json!(entry);
    document.add_signer(entry).map_err(|error| {
        CliError::usage(format!("the signer cannot be added: {error}"))
            .with_hint("a signer has one entry, with a name and a key of its own; edit the document to change an entry")
    })?;
    let version = raise(&args.document, &mut document)?;
    let text = format!("{} has version {version} now; sign it with `portcullis trust sign`", args.document.display());
    out.result(text, &json!({ "file": args.document, "version": version, "added": added }))
}

/// Writes a changed document under the next version.
fn raise(path: &Path, document: &mut TrustDocument) -> Result<u64, CliError> {
    let version =
        document.version().checked_add(1).ok_or_else(|| CliError::usage("the version cannot grow any more"))?;
    document.reissue(version, clock::now(), document.expires_at()).map_err(|error| trust_error(path, error))?;
    files::write(path, &document.to_json(), 0o644, true)?;
    Ok(version)
}

/// The name under which a trusted root from the command line is pinned.
const SIGSTORE: &str = "sigstore";

fn sign(args: &SignArgs, out: &mut Output) -> Result<(), CliError> {
    let document = read(&args.document)?;
    let key = args.key.read()?;
    let path = args.out.clone().unwrap_or_else(|| args.document.with_extension("signed.json"));
    let existing = match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        _ => Some(files::read_bytes(&path, CONFIG_BYTES, "signed trust policy")?),
    };
    let signed =
        sign_trust(&document, existing.as_deref(), &key).map_err(|error| sign_error(&path, &args.document, &error))?;
    files::write(&path, &signed, 0o644, true)?;
    let (_, keys) = read_document(&signed).map_err(CliError::internal)?;
    let missing = document.threshold().saturating_sub(keys.len());
    let more = if missing == 0 { "enough".to_owned() } else { format!("{missing} more needed") };
    let text = format!(
        "wrote {}: version {}, signed by {} of its root keys, {more}",
        path.display(),
        document.version(),
        keys.len()
    );
    out.result(text, &json!({ "file": path, "version": document.version(), "signedBy": keys, "missing": missing }))
}

fn show(args: &ShowArgs, out: &mut Output) -> Result<(), CliError> {
    let bytes = files::read_bytes(&args.file, CONFIG_BYTES, "trust policy")?;
    let failed = |error| trust_error(&args.file, error);
    let (document, keys) = match read_document(&bytes) {
        Ok((document, keys)) => (document, Some(keys)),
        // An unsigned document is no envelope; what is neither is explained as a document.
        Err(TrustError::Envelope(_)) => (TrustDocument::parse(&bytes).map_err(failed)?, None),
        Err(error) => return Err(failed(error)),
    };
    let state = if !args.roots.is_empty() {
        let roots: Vec<_> = args.roots.iter().map(|key| key.read(KeyKind::Root, "--root")).collect::<Result<_, _>>()?;
        TrustPolicy::verify(&bytes, &roots, args.root_threshold, clock::now(), None).map_err(failed)?;
        "verified"
    } else if keys.is_some() {
        "signed, not checked: name --root to check it"
    } else {
        "not signed"
    };
    let mut rows = vec![
        vec!["file".to_owned(), args.file.display().to_string()],
        vec!["state".to_owned(), state.to_owned()],
        vec!["version".to_owned(), document.version().to_string()],
        vec!["issued".to_owned(), timestamp::format(document.issued_at())],
        vec!["expires".to_owned(), timestamp::format(document.expires_at())],
        vec!["roots".to_owned(), format!("{} of {}", document.threshold(), document.roots().len())],
    ];
    rows.extend(document.roots().iter().map(|key| vec!["  root".to_owned(), key.to_string()]));
    rows.extend(keys.iter().flatten().map(|key| vec!["  signed by".to_owned(), key.clone()]));
    for entry in document.signers() {
        let delegation = &entry.delegation;
        rows.push(vec!["signer".to_owned(), format!("{} ({})", entry.name, entry.identity.id())]);
        rows.push(vec!["  names".to_owned(), join(&delegation.names)]);
        rows.push(vec!["  identities".to_owned(), join(&delegation.identity_paths)]);
        rows.push(vec!["  audiences".to_owned(), join(&delegation.audiences)]);
        rows.push(vec!["  imports".to_owned(), join(&delegation.imports)]);
        rows.push(vec!["  at most".to_owned(), delegation.max_lifetime.to_string()]);
        if !entry.roles.is_empty() {
            rows.push(vec!["  roles".to_owned(), entry.roles.join(", ")]);
        }
        if let Some(parent) = &entry.parent {
            rows.push(vec!["  part of".to_owned(), parent.clone()]);
        }
    }
    rows.push(vec!["floors".to_owned(), document.floors().len().to_string()]);
    rows.push(vec!["denials".to_owned(), document.deny().len().to_string()]);
    if let Some(rule) = document.deny_list() {
        rows.push(vec!["deny list".to_owned(), format!("demanded, at most {} old", rule.max_age)]);
    }
    out.result(
        table(&rows).trim_end(),
        &json!({ "file": args.file, "state": state, "signedBy": keys, "document": document }),
    )
}

fn read(path: &Path) -> Result<TrustDocument, CliError> {
    let bytes = files::read_bytes(path, CONFIG_BYTES, "trust policy")?;
    TrustDocument::parse(&bytes).map_err(|error| {
        let signed = read_document(&bytes).is_ok();
        let refused = trust_error(path, error);
        if signed {
            refused.with_hint("this is a signed trust policy; name the unsigned document that it was made from")
        } else {
            refused
        }
    })
}

fn join<T: ToString>(list: &[T]) -> String {
    if list.is_empty() {
        "none".to_owned()
    } else {
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

fn trust_error(path: &Path, error: TrustError) -> CliError {
    let problems = if let TrustError::Invalid { problems } = &error { problems.clone() } else { Vec::new() };
    let refusal = Refusal::from(error);
    CliError::new(
        refusal.code().exit_code(),
        refusal.code().as_str(),
        format!("{}: {}", path.display(), refusal.message()),
    )
    .with_hint(refusal.hint())
    .with_details(json!({ "problems": problems }))
}

fn sign_error(signed: &Path, document: &Path, error: &SignTrustError) -> CliError {
    let (exit, code, path) = match error {
        SignTrustError::Key(_) | SignTrustError::NotARoot(_) => (exit::USAGE, "usage", document),
        SignTrustError::Existing(_) | SignTrustError::Version { .. } => (exit::TRUST, "trust.invalid", signed),
        SignTrustError::Internal(_) => (exit::INTERNAL, "internal", document),
    };
    CliError::new(exit, code, format!("{}: {error}", path.display())).with_hint(error.hint())
}
