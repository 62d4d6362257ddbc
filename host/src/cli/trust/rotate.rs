//! `portcullis trust rotate`: other root keys, signed by k of the old and k of the new ones.
//!
//! The change is a file of its own that goes from one holder of a key to the next; with all signatures it is applied to the
//! trust policy, which carries it from then on for hosts that still pin the old keys.

use std::path::PathBuf;

use portcullis_signing::KeyKind;
use portcullis_signing::trust::{Roots, sign_rotation};
use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::files;
use crate::cli::keys::{KeySource, PublicKeyArg};
use crate::cli::output::Output;
use crate::limits::CONFIG_BYTES;

/// `portcullis trust rotate`.
#[derive(Debug, clap::Args)]
pub struct RotateArgs {
    /// The change: made where there is none, else signed once more or applied.
    change: PathBuf,
    /// A new root key, O...; may be given several times. Old ones that stay are named again.
    #[arg(long = "root", value_name = "KEY", required_unless_present = "apply")]
    roots: Vec<PublicKeyArg>,
    /// How many of the new root keys must sign.
    #[arg(long, default_value_t = 1, value_name = "K")]
    threshold: usize,
    /// The key to sign the change with, old or new.
    #[arg(long, value_name = "KEY", required_unless_present = "apply")]
    key: Option<KeySource>,
    /// Apply the change to this unsigned trust policy.
    #[arg(long, value_name = "DOCUMENT", conflicts_with_all = ["roots", "key"])]
    apply: Option<PathBuf>,
}

pub(super) fn run(args: &RotateArgs, out: &mut Output) -> Result<(), CliError> {
    let failed = |error| super::trust_error(&args.change, error);
    if let Some(path) = &args.apply {
        let change = files::read_bytes(&args.change, CONFIG_BYTES, "change of root keys")?;
        let mut document = super::read(path)?;
        document.rotate(&change).map_err(failed)?;
        let version = super::raise(path, &mut document)?;
        let text = format!(
            "{} has version {version} and the new root keys now; sign it with {} of them",
            path.display(),
            document.threshold()
        );
        return out.result(text, &json!({ "file": path, "version": version, "roots": document.roots() }));
    }
    let Some(key) = &args.key else { return Err(CliError::usage("--key is missing")) };
    let roots = args.roots.iter().map(|key| key.read(KeyKind::Root, "--root")).collect::<Result<_, _>>()?;
    let existing = match std::fs::symlink_metadata(&args.change) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        _ => Some(files::read_bytes(&args.change, CONFIG_BYTES, "change of root keys")?),
    };
    let next = Roots { roots, threshold: args.threshold };
    let signed = sign_rotation(&next, existing.as_deref(), &key.read()?).map_err(failed)?;
    files::write(&args.change, &signed, 0o644, true)?;
    let text = format!(
        "wrote {}; when enough of the old and of the new root keys have signed it: `portcullis trust rotate {} --apply DOCUMENT`",
        args.change.display(),
        args.change.display()
    );
    out.result(text, &json!({ "file": args.change, "roots": next }))
}
