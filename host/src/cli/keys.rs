//! `portcullis keys generate|show`. Where commands take a key from is decided in [`source`].

mod source;

use std::path::{Path, PathBuf};

use portcullis_nkey::KeyPair;
use portcullis_signing::{KeyKind, SecretKey};
use zeroize::Zeroizing;

use self::source::KEY_FILE_BYTES;
pub use self::source::{KeySource, PublicKeyArg, SignerKeyArg};
use super::error::CliError;
use super::files;
use super::output::Output;

/// How a public key in PEM begins.
const PEM: &[u8] = b"-----BEGIN PUBLIC KEY-----";

/// `portcullis keys ...`.
#[derive(Debug, clap::Subcommand)]
pub enum KeysCommand {
    /// Make a key: the seed goes to a file that only you can read, the public key is printed.
    Generate(GenerateArgs),
    /// Print the public key and kind of a key.
    Show(ShowArgs),
}

/// `portcullis keys generate`.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    /// What the key is for: signer (signs claims, A...), root (signs trust policies, O...) or user (an operator's commands, or a
    /// login at NATS, U...).
    #[arg(long, value_enum, default_value_t = Kind::Signer)]
    kind: Kind,
    /// The file to write the seed to, with mode 0600.
    #[arg(long)]
    out: PathBuf,
    /// Replace a file that exists. The key in it is lost.
    #[arg(long)]
    force: bool,
}

/// `portcullis keys show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The key: FILE (a seed, or a public key in PEM), env://NAME, exec:COMMAND or pkcs11:URI.
    key: KeySource,
    /// The public key, where it cannot be had from the key: A..., p256:... or a PEM file.
    #[arg(long, value_name = "KEY")]
    public_key: Option<SignerKeyArg>,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Signs component claims.
    Signer,
    /// Signs trust policies.
    Root,
    /// Signs an operator's commands, or logs in at NATS.
    User,
}

/// Runs the command.
pub fn run(command: KeysCommand, out: &mut Output) -> Result<(), CliError> {
    match command {
        KeysCommand::Generate(args) => generate(&args, out),
        KeysCommand::Show(args) => show_any(&args, out),
    }
}

fn generate(args: &GenerateArgs, out: &mut Output) -> Result<(), CliError> {
    let claims = |kind| SecretKey::generate(kind).map_err(CliError::internal);
    let parts = |key: SecretKey| (key.seed(), key.public().to_string(), key.kind().name());
    let (seed, public, kind) = match args.kind {
        Kind::Signer => parts(claims(KeyKind::Signer)?),
        Kind::Root => parts(claims(KeyKind::Root)?),
        Kind::User => {
            let key = KeyPair::generate(portcullis_nkey::Kind::User).map_err(CliError::internal)?;
            (key.seed(), key.public().to_string(), key.kind().name())
        }
    };
    let mut line = Zeroizing::new(Vec::with_capacity(seed.len() + 1));
    line.extend_from_slice(seed.as_bytes());
    line.push(b'\n');
    files::write(&args.out, &line, 0o600, args.force)?;
    show(&public, kind, Some(&args.out), out)?;
    out.note(format!("the seed is in {}; keep it secret, it cannot be made again", args.out.display()));
    Ok(())
}

/// Keys that this process holds show their kind; others are signers.
fn show_any(args: &ShowArgs, out: &mut Output) -> Result<(), CliError> {
    let public = match &args.key {
        KeySource::File(path) if is_pem(path) => SignerKeyArg::file(path).read()?,
        KeySource::File(_) | KeySource::Environment(_) | KeySource::Seed => {
            return match args.key.user()? {
                Some(key) => show(&key.public().to_string(), key.kind().name(), None, out),
                None => {
                    let key = args.key.read()?;
                    show(&key.public().to_string(), key.kind().name(), None, out)
                }
            };
        }
        KeySource::Command(_) | KeySource::Token(_) => args.key.signer(args.public_key.as_ref())?.public()?,
    };
    show(&public.to_string(), KeyKind::Signer.name(), None, out)
}

fn is_pem(path: &Path) -> bool {
    files::read_bytes(path, KEY_FILE_BYTES, "key file").is_ok_and(|bytes| bytes.trim_ascii_start().starts_with(PEM))
}

fn show(public: &str, kind: &str, file: Option<&Path>, out: &mut Output) -> Result<(), CliError> {
    let json = serde_json::json!({ "publicKey": public, "kind": kind, "file": file });
    out.result(format!("{public}  {kind}"), &json)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::error::exit;

    fn source(text: &str) -> KeySource {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_comes_from_a_file_or_a_variable() {
        assert_eq!(source("ci.key"), KeySource::File("ci.key".into()));
        assert_eq!(source("env://CI_KEY"), KeySource::Environment("CI_KEY".into()));
        assert_eq!(source("exec:sign --it"), KeySource::Command("sign --it".to_owned()));
        assert_eq!(source("pkcs11:token=a"), KeySource::Token("token=a".to_owned()));
        for bad in ["env://", "env://A=B", "env://A B"] {
            assert!(bad.parse::<KeySource>().is_err(), "{bad}");
        }
        for key in ["exec:x", "pkcs11:x"] {
            assert_eq!(source(key).read().unwrap_err().exit(), exit::USAGE);
            assert_eq!(source(key).signer(None).unwrap_err().exit(), exit::USAGE);
        }
        assert!(source("env://PORTCULLIS_TEST_UNSET").read().unwrap_err().message().contains("PORTCULLIS_TEST_UNSET"));
    }

    #[test]
    fn a_seed_on_the_command_line_is_refused_and_not_repeated() {
        let seed = SecretKey::generate(KeyKind::Signer).unwrap().seed();
        for text in [seed.as_str(), seed.get(..50).unwrap()] {
            let error = source(text).read().unwrap_err();
            assert!(error.exit() == exit::USAGE && !error.to_string().contains(text));
            let argument: PublicKeyArg = text.parse().unwrap();
            let error = argument.read(KeyKind::Root, "--root").unwrap_err();
            assert!(error.exit() == exit::USAGE && !error.to_string().contains(text));
            assert!(!format!("{:?}{:?}", source(text), argument).contains(text));
        }
    }

    #[test]
    fn a_public_key_of_the_other_kind_is_refused() {
        let key = SecretKey::generate(KeyKind::Signer).unwrap().public();
        let argument: PublicKeyArg = key.to_string().parse().unwrap();
        assert_eq!(argument.read(KeyKind::Signer, "--signer").unwrap(), key);
        assert!(argument.read(KeyKind::Root, "--root").unwrap_err().message().starts_with("--root: "));
    }

    #[test]
    fn a_generated_key_file_is_private_and_read_back() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("ci.key");
        let args = || GenerateArgs { kind: Kind::Root, out: path.clone(), force: false };
        generate(&args(), &mut Output::new(true)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let key = KeySource::File(path.clone()).read().unwrap();
        assert_eq!(key.kind(), KeyKind::Root);
        assert!(generate(&args(), &mut Output::new(true)).unwrap_err().message().contains("exists"));
        assert_eq!(KeySource::File(path.clone()).read().unwrap().public(), key.public());
    }

    #[test]
    fn a_users_key_is_made_and_shown_and_signs_no_component() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("operator.nk");
        let args = || GenerateArgs { kind: Kind::User, out: path.clone(), force: false };
        generate(&args(), &mut Output::new(true)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(generate(&args(), &mut Output::new(true)).unwrap_err().message().contains("exists"));
        let key = KeySource::File(path.clone()).user().unwrap().unwrap();
        assert!(key.public().to_string().starts_with('U'));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", *key.seed()));
        for refused in [KeySource::File(path.clone()).read().err(), KeySource::File(path.clone()).signer(None).err()] {
            assert!(refused.unwrap().message().contains("not the seed of a signer or root key"));
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(KeySource::File(path).user().unwrap_err().hint().unwrap().contains("chmod 600"));
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("ci.key");
        generate(&GenerateArgs { kind: Kind::Signer, out: path.clone(), force: false }, &mut Output::new(true))
            .unwrap();
        for mode in [0o640, 0o604, 0o620, 0o700, 0o644] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = KeySource::File(path.clone()).read().unwrap_err();
            assert!(error.hint().unwrap().contains("chmod 600"), "{mode:o}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
        assert!(KeySource::File(path).read().is_ok());
    }

    #[test]
    fn every_bad_key_file_is_an_error_without_its_content() {
        let temp = tempfile::tempdir().unwrap();
        let public = SecretKey::generate(KeyKind::Signer).unwrap().public().to_string();
        let half = SecretKey::generate(KeyKind::Signer).unwrap().seed().get(..30).unwrap().to_owned();
        for (name, content) in
            [("public", public.as_bytes()), ("half", half.as_bytes()), ("random", b"\xff\x00\xfe"), ("blank", b" \n")]
        {
            let path = temp.path().join(name);
            files::write(&path, content, 0o600, false).unwrap();
            let error = KeySource::File(path).read().unwrap_err();
            assert!(error.exit() == exit::USAGE && error.hint().is_some() && error.message().contains(name));
            assert!(!error.to_string().contains(&half));
        }
        for path in [temp.path().to_path_buf(), temp.path().join("missing")] {
            assert!(KeySource::File(path).read().is_err());
        }
    }
}
