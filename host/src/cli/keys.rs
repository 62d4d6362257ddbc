//! `portcullis keys generate|show`, and where every command that signs takes its key from.
//!
//! A key file that others can read is refused rather than repaired: it may have been read already.

use std::convert::Infallible;
use std::fmt;
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use portcullis_signing::{KeyError, KeyKind, PublicKey, SecretKey, SignerKey};
use zeroize::Zeroizing;

use super::error::CliError;
use super::files;
use super::output::Output;
use crate::config::environment;
use crate::signer::{Command, Signer, SignerError, Uri};

/// Largest key file: a seed has 58 characters.
const KEY_FILE_BYTES: u64 = 4096;

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
    /// What the key is for: signer (signs claims, A...) or root (signs trust policies, O...).
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
}

/// Where a key is: `FILE`, `env://NAME`, `exec:COMMAND` or `pkcs11:URI`.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file with a seed, mode 0600 or narrower.
    File(PathBuf),
    /// An environment variable with a seed: what CI systems hand secrets over with.
    Environment(String),
    /// A command that signs. Split into words when it is used.
    Command(String),
    /// A key in a token. Parsed when it is used, so that a PIN in it is not repeated.
    Token(String),
    /// The secret itself, on the command line: refused, and not kept, so that no message can repeat it.
    Seed,
}

/// A signer's public key on the command line: its text, or a file with its PEM or text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerKeyArg(String);

/// A public key on the command line. Parsed after the arguments, so that a seed given by mistake is not repeated.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKeyArg(String);

/// Runs the command.
pub fn run(command: KeysCommand, out: &mut Output) -> Result<(), CliError> {
    match command {
        KeysCommand::Generate(args) => generate(&args, out),
        KeysCommand::Show(args) => show_any(&args, out),
    }
}

fn generate(args: &GenerateArgs, out: &mut Output) -> Result<(), CliError> {
    let kind = match args.kind {
        Kind::Signer => KeyKind::Signer,
        Kind::Root => KeyKind::Root,
    };
    let key = SecretKey::generate(kind).map_err(CliError::internal)?;
    let seed = key.seed();
    let mut line = Zeroizing::new(Vec::with_capacity(seed.len() + 1));
    line.extend_from_slice(seed.as_bytes());
    line.push(b'\n');
    files::write(&args.out, &line, 0o600, args.force)?;
    show(&key, Some(&args.out), out)?;
    out.note(format!("the seed is in {}; keep it secret, it cannot be made again", args.out.display()));
    Ok(())
}

/// Keys that this process holds show their kind; others are signers.
fn show_any(args: &ShowArgs, out: &mut Output) -> Result<(), CliError> {
    let public = match &args.key {
        KeySource::File(path) if is_pem(path) => SignerKeyArg(path.display().to_string()).read()?,
        KeySource::File(_) | KeySource::Environment(_) | KeySource::Seed => return show(&args.key.read()?, None, out),
        KeySource::Command(_) | KeySource::Token(_) => args.key.signer(args.public_key.as_ref())?.public()?,
    };
    let json = serde_json::json!({ "publicKey": public, "kind": KeyKind::Signer.name(), "file": null });
    out.result(format!("{public}  {}", KeyKind::Signer), &json)
}

fn is_pem(path: &Path) -> bool {
    files::read_bytes(path, KEY_FILE_BYTES, "key file").is_ok_and(|bytes| bytes.trim_ascii_start().starts_with(PEM))
}

fn show(key: &SecretKey, file: Option<&Path>, out: &mut Output) -> Result<(), CliError> {
    let json = serde_json::json!({ "publicKey": key.public(), "kind": key.kind().name(), "file": file });
    out.result(format!("{}  {}", key.public(), key.kind()), &json)
}

impl KeySource {
    /// What signs with the key. `public` says which it is, where the key does not; where both say, they must agree.
    pub fn signer(&self, public: Option<&SignerKeyArg>) -> Result<Signer, CliError> {
        let public = public.map(SignerKeyArg::read).transpose()?;
        let signer = match self {
            KeySource::Command(text) => {
                let Some(public) = public else {
                    return Err(CliError::usage("exec: needs to know which key signs")
                        .with_hint("name the public key: --public-key A..., p256:... or a PEM file"));
                };
                Signer::Command(Command::parse(text).map_err(SignerError::from)?, public)
            }
            KeySource::Token(text) => token(text, public)?,
            KeySource::File(_) | KeySource::Environment(_) | KeySource::Seed => Signer::Local(self.read()?),
        };
        match (signer.public()?, public) {
            (own, Some(given)) if own != given => {
                Err(CliError::usage(format!("the key is {own}, --public-key says {given}"))
                    .with_hint("leave --public-key away, or name the other key"))
            }
            _ => Ok(signer),
        }
    }

    /// Reads a key that this process is to hold.
    pub fn read(&self) -> Result<SecretKey, CliError> {
        match self {
            KeySource::File(path) => {
                check_mode(path)?;
                let bytes = Zeroizing::new(files::read_bytes(path, KEY_FILE_BYTES, "key file")?);
                parse(&bytes, &format!("key file {}", path.display()))
            }
            KeySource::Environment(name) => match environment::read(name) {
                Some(value) => parse(Zeroizing::new(value).as_bytes(), &format!("environment variable {name}")),
                None => Err(CliError::usage(format!("the environment variable {name} is not set, or empty"))
                    .with_hint("set it to the seed that `portcullis keys generate` wrote")),
            },
            KeySource::Command(_) | KeySource::Token(_) => Err(CliError::usage("exec: and pkcs11: keys sign components only")
                .with_hint("use a key file or env://NAME here")),
            KeySource::Seed => Err(CliError::usage("a secret seed was given on the command line")
                .with_hint("it is in the shell's history and in the list of processes now: make a new key, and name its file or env://NAME")),
        }
    }
}

impl PublicKeyArg {
    /// Parses the key and refuses one of another kind.
    pub fn read(&self, needed: KeyKind, option: &str) -> Result<PublicKey, CliError> {
        let key = self.0.parse::<PublicKey>().and_then(|key| key.require(needed));
        key.map_err(|error| CliError::usage(format!("{option}: {error}")).with_hint(error.hint()))
    }
}

#[cfg(feature = "pkcs11")]
fn token(text: &str, public: Option<SignerKey>) -> Result<Signer, CliError> {
    let uri = uri(text)?;
    let pin = uri.pin_file.as_deref().unwrap_or(Path::new(""));
    check_mode(pin)?;
    let pin = Zeroizing::new(files::read_text(pin, KEY_FILE_BYTES, "PIN file")?);
    let pin = Zeroizing::new(pin.trim_end_matches(['\r', '\n']).to_owned());
    let token = crate::signer::Token::open(&uri, &pin, public).map_err(SignerError::from)?;
    Ok(Signer::Token(Box::new(token)))
}

#[cfg(not(feature = "pkcs11"))]
fn token(text: &str, _public: Option<SignerKey>) -> Result<Signer, CliError> {
    uri(text)?;
    Err(CliError::usage("this build has no PKCS#11").with_hint("build it with `--features pkcs11`"))
}

fn uri(text: &str) -> Result<Uri, CliError> {
    Uri::parse(text).map_err(|error| CliError::usage(error.to_string()).with_hint(error.hint()))
}

impl SignerKeyArg {
    /// Parses the text, or reads the file.
    pub fn read(&self) -> Result<SignerKey, CliError> {
        let failed = |place: &str, error: portcullis_signing::SignerKeyError| {
            CliError::usage(format!("{place}: {error}")).with_hint(error.hint())
        };
        if self.0.starts_with("p256:") || (self.0.len() == 56 && self.0.starts_with('A')) || looks_like_a_seed(&self.0)
        {
            return self.0.parse().map_err(|error| failed("--public-key", error));
        }
        let text = files::read_text(Path::new(&self.0), KEY_FILE_BYTES, "public key")?;
        let parsed = if text.contains("-----BEGIN") { SignerKey::from_pem(&text) } else { text.trim().parse() };
        parsed.map_err(|error| failed(&format!("public key {}", self.0), error))
    }
}

impl FromStr for SignerKeyArg {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for KeySource {
    /// Not the text of a URI or a command: a user may have put a secret into it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::File(path) => write!(f, "File({})", path.display()),
            KeySource::Environment(name) => write!(f, "Environment({name})"),
            KeySource::Command(_) => f.write_str("Command"),
            KeySource::Token(_) => f.write_str("Token"),
            KeySource::Seed => f.write_str("Seed"),
        }
    }
}

impl fmt::Debug for PublicKeyArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKeyArg")
    }
}

impl FromStr for PublicKeyArg {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for KeySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(command) = text.strip_prefix("exec:") {
            return Ok(KeySource::Command(command.to_owned()));
        }
        if let Some(uri) = text.strip_prefix("pkcs11:") {
            return Ok(KeySource::Token(uri.to_owned()));
        }
        if let Some(name) = text.strip_prefix("env://") {
            let known = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            return if known {
                Ok(KeySource::Environment(name.to_owned()))
            } else {
                Err("env:// needs the name of a variable, such as env://PORTCULLIS_KEY".to_owned())
            };
        }
        if looks_like_a_seed(text) {
            return Ok(KeySource::Seed);
        }
        Ok(KeySource::File(PathBuf::from(text)))
    }
}

/// Whether a text is a seed, or nearly one: what must not be repeated.
fn looks_like_a_seed(text: &str) -> bool {
    text.len() > 40 && text.starts_with('S') && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// Elsewhere than on Unix a file has no mode; who may read it is what its folder says.
#[cfg(not(unix))]
fn check_mode(_path: &Path) -> Result<(), CliError> {
    Ok(())
}

/// Refuses a key file that anybody but its owner can read or write.
#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), CliError> {
    // What cannot be looked at, or is no file, is explained by the reading that follows.
    let Ok(meta) = std::fs::metadata(path) else { return Ok(()) };
    let mode = meta.permissions().mode() & 0o7777;
    if !meta.is_file() || mode & 0o177 == 0 {
        return Ok(());
    }
    let message = format!("key file {} has mode {mode:04o}: others may read or change it", path.display());
    Err(CliError::usage(message)
        .with_hint(format!("run `chmod 600 {}`; if others could read it, make a new key", path.display())))
}

fn parse(bytes: &[u8], place: &str) -> Result<SecretKey, CliError> {
    let text = std::str::from_utf8(bytes.trim_ascii()).map_err(|_| key_error(place, &KeyError::NotSeed))?;
    SecretKey::from_seed(text).map_err(|error| key_error(place, &error))
}

fn key_error(place: &str, error: &KeyError) -> CliError {
    CliError::usage(format!("{place}: {error}")).with_hint(error.hint())
}

#[cfg(test)]
mod tests {
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
