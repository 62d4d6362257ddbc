//! `portcullis trust delegate`: a signer hands a part of what was delegated to it on to another signer.

use std::path::PathBuf;

use portcullis_signing::{Delegation, Lifetime, SignerEntry, SignerIdentity, sign_delegation, timestamp};
use serde_json::json;

use super::ceiling::CeilingArgs;
use crate::cli::error::CliError;
use crate::cli::files;
use crate::cli::keys::{KeySource, SignerKeyArg};
use crate::cli::output::Output;
use crate::clock;

/// `portcullis trust delegate`.
#[derive(Debug, clap::Args)]
pub struct DelegateArgs {
    /// The file to write; hand it over beside the evidence, with --bundle.
    #[arg(long)]
    out: PathBuf,
    /// The public key that is delegated to: A..., p256:... or a PEM file.
    #[arg(long, value_name = "KEY")]
    signer: SignerKeyArg,
    /// Its name: lower-case letters, digits, dashes.
    #[arg(long)]
    name: String,
    /// The key of the signer that delegates.
    #[arg(long, value_name = "KEY")]
    key: KeySource,
    #[command(flatten)]
    ceiling: CeilingArgs,
    /// How long the delegation holds, from now.
    #[arg(long, default_value = "30d", value_name = "TIME")]
    valid_for: Lifetime,
    /// Replace a file that exists.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: DelegateArgs, out: &mut Output) -> Result<(), CliError> {
    let until = clock::now().saturating_add(args.valid_for.duration());
    let until = until.replace_nanosecond(0).unwrap_or(until);
    let entry = SignerEntry {
        name: args.name,
        identity: SignerIdentity::Key(args.signer.read()?),
        group: None,
        roles: Vec::new(),
        parent: None,
        delegation: Delegation { not_after: Some(until), ..args.ceiling.delegation() },
    };
    let signed = sign_delegation(&entry, &args.key.read()?)?;
    files::write(&args.out, &signed, 0o644, args.force)?;
    let text = format!(
        "wrote {}: `{}` may sign until {}, as far as the trust policy lets the signer delegate",
        args.out.display(),
        entry.name,
        timestamp::format(until)
    );
    out.result(text, &json!({ "file": args.out, "delegated": entry }))
}
