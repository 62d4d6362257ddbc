//! `portcullis trust init|add|sign|show`: the trust policy, edited as a document and signed by root keys.
//!
//! Every change raises the version, so that hosts never take an older policy for a newer one.

use std::path::{Path, PathBuf};

use portcullis_signing::trust::read_document;
use portcullis_signing::{
    Audience, Delegation, IdentityPattern, ImportPattern, KeyKind, Lifetime, NamePattern, Refusal, SignTrustError,
    SignerEntry, TrustDocument, TrustError, TrustPolicy, sign_trust, timestamp,
};
use serde_json::json;

use super::error::{CliError, exit};
use super::files;
use super::keys::{KeySource, PublicKeyArg};
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
    /// The signer's public key, A...
    #[arg(long, value_name = "KEY")]
    signer: PublicKeyArg,
    /// Its name: lower-case letters, digits, dashes.
    #[arg(long)]
    name: String,
    /// Its group, for policies to refer to; by default its name.
    #[arg(long)]
    group: Option<String>,
    /// Component names that it may sign: namespace:name or namespace:*.
    #[arg(long, required = true, num_args = 1.., value_delimiter = ',', value_name = "PATTERN")]
    names: Vec<NamePattern>,
    /// Paths of SPIFFE IDs that it may give: ns/demo/sa/greeter or ns/demo/sa/*.
    #[arg(long, required = true, num_args = 1.., value_delimiter = ',', value_name = "PATTERN")]
    identity_paths: Vec<IdentityPattern>,
    /// Clusters that it may sign for.
    #[arg(long, required = true, num_args = 1.., value_delimiter = ',', value_name = "CLUSTER")]
    audiences: Vec<Audience>,
    /// What its components may import at most: wasi:*, wasi:http/*, wasi:http/types; by default nothing.
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "PATTERN")]
    imports: Vec<ImportPattern>,
    /// How long its claims may hold at most.
    #[arg(long, default_value = "30d", value_name = "TIME")]
    max_lifetime: Lifetime,
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
    let entry = SignerEntry {
        name: args.name,
        key: args.signer.read(KeyKind::Signer, "--signer")?,
        group: args.group,
        delegation: Delegation {
            names: args.names,
            identity_paths: args.identity_paths,
            audiences: args.audiences,
            imports: args.imports,
            max_lifetime: args.max_lifetime,
            not_after: None,
        },
    };
    let added = json!(entry);
    document.add_signer(entry).map_err(|error| {
        CliError::usage(format!("the signer cannot be added: {error}"))
            .with_hint("a signer has one entry, with a name and a key of its own; edit the document to change an entry")
    })?;
    let version =
        document.version().checked_add(1).ok_or_else(|| CliError::usage("the version cannot grow any more"))?;
    document.reissue(version, clock::now(), document.expires_at()).map_err(failed)?;
    files::write(&args.document, &document.to_json(), 0o644, true)?;
    let text = format!("{} has version {version} now; sign it with `portcullis trust sign`", args.document.display());
    out.result(text, &json!({ "file": args.document, "version": version, "added": added }))
}

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
        rows.push(vec!["signer".to_owned(), format!("{} ({})", entry.name, entry.key)]);
        rows.push(vec!["  names".to_owned(), join(&delegation.names)]);
        rows.push(vec!["  identities".to_owned(), join(&delegation.identity_paths)]);
        rows.push(vec!["  audiences".to_owned(), join(&delegation.audiences)]);
        rows.push(vec!["  imports".to_owned(), join(&delegation.imports)]);
        rows.push(vec!["  at most".to_owned(), delegation.max_lifetime.to_string()]);
    }
    rows.push(vec!["floors".to_owned(), document.floors().len().to_string()]);
    rows.push(vec!["denials".to_owned(), document.deny().len().to_string()]);
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
