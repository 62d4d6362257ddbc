//! Where every command that signs takes its key from, and what a public key on the command line is.
//!
//! A key file that others can read is refused rather than repaired: it may have been read already.

use std::convert::Infallible;
use std::fmt;
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use portcullis_nkey::{KeyPair, Kind};
use portcullis_signing::{KeyError, KeyKind, PublicKey, SecretKey, SignerKey};
use zeroize::Zeroizing;

use crate::cli::error::CliError;
use crate::cli::files;
use crate::config::environment;
use crate::signer::{Command, Signer, SignerError, Uri};

/// Largest key file: a seed has 58 characters.
pub(super) const KEY_FILE_BYTES: u64 = 4096;

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
        let (text, place) = self.text()?;
        parse(&text, &place)
    }

    /// The nkey of a user, where it is one.
    pub fn user(&self) -> Result<Option<KeyPair>, CliError> {
        let (text, place) = self.text()?;
        let Some(text) = std::str::from_utf8(&text).ok().filter(|text| text.trim_ascii_start().starts_with("SU"))
        else {
            return Ok(None);
        };
        let key = KeyPair::from_seed_of(text, Kind::User);
        key.map(Some).map_err(|error| CliError::usage(format!("{place}: {error}")).with_hint(error.hint()))
    }

    /// What should be a seed, and where it is.
    fn text(&self) -> Result<(Zeroizing<Vec<u8>>, String), CliError> {
        match self {
            KeySource::File(path) => {
                check_mode(path)?;
                let bytes = Zeroizing::new(files::read_bytes(path, KEY_FILE_BYTES, "key file")?);
                Ok((bytes, format!("key file {}", path.display())))
            }
            KeySource::Environment(name) => match environment::read(name) {
                Some(value) => Ok((Zeroizing::new(value.into_bytes()), format!("environment variable {name}"))),
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
    /// A file with a public key.
    pub fn file(path: &Path) -> Self {
        Self(path.display().to_string())
    }

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
