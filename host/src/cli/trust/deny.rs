//! `portcullis trust deny` and `demand-deny-list`: bad news, quickly.

use std::path::PathBuf;

use portcullis_signing::trust::{Deny, DenyListDocument, DenyListRule};
use portcullis_signing::{ComponentName, DenyList, Digest, KeyKind, Lifetime, PublicKey, RefusalCode, SignerId};
use serde_json::json;
use time::OffsetDateTime;

use crate::cli::error::CliError;
use crate::cli::files;
use crate::cli::keys::{KeySource, PublicKeyArg};
use crate::cli::output::Output;
use crate::clock;
use crate::limits::CONFIG_BYTES;

/// `portcullis trust deny`.
#[derive(Debug, clap::Args)]
pub struct DenyArgs {
    /// The signed deny list: what is in it is kept, if one of its authors signed it. A new one is made where there is none.
    list: PathBuf,
    /// The key to sign with.
    #[arg(long, value_name = "KEY")]
    key: KeySource,
    /// Another author, O..., whose signature under what is there is taken, besides that of --key; may be given several times.
    #[arg(long = "author", value_name = "KEY")]
    authors: Vec<PublicKeyArg>,
    /// Sign the list as it is, beside the signatures that it has, where several authors must sign.
    #[arg(long, conflicts_with_all = ["digests", "claims", "signers", "revisions"])]
    co_sign: bool,
    /// A file, by its digest; may be given several times.
    #[arg(long = "digest", value_name = "SHA256")]
    digests: Vec<Digest>,
    /// Claims, by the digest that `verify --json` shows.
    #[arg(long = "claims", value_name = "SHA256")]
    claims: Vec<Digest>,
    /// A signer: A..., p256:..., oidc:ISSUER#IDENTITY or spiffe://DOMAIN/PATH.
    #[arg(long = "signer", value_name = "SIGNER")]
    signers: Vec<SignerId>,
    /// Deny only what these signers signed after this time, such as 2026-11-21T09:30:00Z.
    #[arg(long, value_name = "TIME", requires = "signers", value_parser = time)]
    signed_after: Option<OffsetDateTime>,
    /// Revisions of a component: NAME=MIN..MAX, both included.
    #[arg(long = "revisions", value_name = "NAME=MIN..MAX", value_parser = revisions)]
    revisions: Vec<(ComponentName, u64, u64)>,
}

/// `portcullis trust demand-deny-list`.
#[derive(Debug, clap::Args)]
pub struct DemandArgs {
    /// The unsigned trust policy to change.
    document: PathBuf,
    /// A key that may sign the deny list, O...; may be given several times.
    #[arg(long = "author", value_name = "KEY", required = true)]
    authors: Vec<PublicKeyArg>,
    /// How many of them must.
    #[arg(long, default_value_t = 1, value_name = "K")]
    threshold: usize,
    /// How old the deny list may be: make it again, unchanged, before that.
    #[arg(long, default_value = "24h", value_name = "TIME")]
    max_age: Lifetime,
}

pub(super) fn run(args: &DenyArgs, out: &mut Output) -> Result<(), CliError> {
    let key = args.key.read()?;
    let now = clock::now();
    let now = now.replace_nanosecond(0).unwrap_or(now);
    let mut authors = vec![key.public()];
    for author in &args.authors {
        authors.push(author.read(KeyKind::Root, "--author")?);
    }
    authors.dedup();
    let existing = match std::fs::symlink_metadata(&args.list) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        _ => Some(files::read_bytes(&args.list, CONFIG_BYTES, "deny list")?),
    };
    let mut list = match &existing {
        None => DenyListDocument { version: 0, issued_at: now, deny: Vec::new() },
        // Signing it anew would vouch for whatever somebody put there, or left out.
        Some(bytes) => signed_by(&authors, bytes, args)?,
    };
    if args.co_sign {
        let signed = list.sign(existing.as_deref(), &key)?;
        files::write(&args.list, &signed, 0o644, true)?;
        let text = format!("signed {}: version {}, {} denied", args.list.display(), list.version, list.deny.len());
        return out.result(text, &json!({ "file": args.list, "version": list.version, "deny": list.deny }));
    }
    let added = args
        .digests
        .iter()
        .map(|digest| Deny::digest(*digest))
        .chain(args.claims.iter().map(|claims| Deny::claims(*claims)))
        .chain(args.signers.iter().map(|signer| Deny::signer(signer.clone(), args.signed_after)))
        .chain(args.revisions.iter().map(|(name, min, max)| Deny::revisions(name.clone(), *min, *max)));
    for deny in added {
        if !list.deny.contains(&deny) {
            list.deny.push(deny);
        }
    }
    list.version = list.version.checked_add(1).ok_or_else(|| CliError::usage("the version cannot grow any more"))?;
    list.issued_at = now;
    let signed = list.sign(None, &key)?;
    files::write(&args.list, &signed, 0o644, true)?;
    let text = format!("wrote {}: version {}, {} denied", args.list.display(), list.version, list.deny.len());
    out.result(text, &json!({ "file": args.list, "version": list.version, "deny": list.deny }))
}

/// The content of a deny list that one of these keys has signed.
fn signed_by(authors: &[PublicKey], bytes: &[u8], args: &DenyArgs) -> Result<DenyListDocument, CliError> {
    let max_age = "1s".parse::<Lifetime>().map_err(CliError::internal)?;
    let one_of = |keys| DenyListRule { keys, threshold: 1, max_age };
    let verified = authors.iter().find_map(|author| DenyList::verify(bytes, &one_of(vec![*author]), None).ok());
    match verified {
        Some(list) => Ok(list.document().clone()),
        None => {
            // What is wrong with it, where it is not the signature.
            DenyListDocument::read_signed(bytes)?;
            let code = RefusalCode::DenyListUnsigned;
            let message = format!("{}: what is there was not signed by {}", args.list.display(), names(authors));
            Err(CliError::new(code.exit_code(), code.as_str(), message).with_hint(
                "name the author whose signature it has with --author; a list that nobody vouches for is not signed anew",
            ))
        }
    }
}

fn names(authors: &[PublicKey]) -> String {
    authors.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

pub(super) fn demand(args: &DemandArgs, out: &mut Output) -> Result<(), CliError> {
    let mut document = super::read(&args.document)?;
    let keys = args.authors.iter().map(|key| key.read(KeyKind::Root, "--author")).collect::<Result<_, _>>()?;
    let rule = DenyListRule { keys, threshold: args.threshold, max_age: args.max_age };
    document.set_deny_list(Some(rule)).map_err(|error| super::trust_error(&args.document, error))?;
    let version = super::raise(&args.document, &mut document)?;
    let text = format!(
        "{} has version {version} now and demands a deny list; sign it with `portcullis trust sign`",
        args.document.display()
    );
    out.result(text, &json!({ "file": args.document, "version": version, "denyList": document.deny_list() }))
}

fn time(text: &str) -> Result<OffsetDateTime, String> {
    portcullis_signing::timestamp::parse(text).map_err(|error| error.to_string())
}

fn revisions(text: &str) -> Result<(ComponentName, u64, u64), String> {
    let form = || "expected NAME=MIN..MAX such as acme:orders=1..41".to_owned();
    let (name, range) = text.split_once('=').ok_or_else(form)?;
    let (min, max) = range.split_once("..").ok_or_else(form)?;
    let name = name.parse::<ComponentName>().map_err(|error| error.to_string())?;
    match (min.parse(), max.parse()) {
        (Ok(min), Ok(max)) if min <= max => Ok((name, min, max)),
        _ => Err(form()),
    }
}

impl From<portcullis_signing::trust::DenyListError> for CliError {
    fn from(error: portcullis_signing::trust::DenyListError) -> Self {
        portcullis_signing::Refusal::from(error).into()
    }
}
