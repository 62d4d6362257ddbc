//! Who signs: a key in a file or a variable, a command that holds one elsewhere, a token behind PKCS#11.
//!
//! A signer gets exactly the bytes to sign and gives a signature; which key it is is known beforehand, and whoever asked verifies
//! the answer before anything is written. So nothing here is trusted: a command that lies makes an error, not a bundle.

mod command;
mod ecdsa;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod uri;

use portcullis_signing::{KeyKind, SecretKey, SignerKey};

pub use command::{Command, CommandError};
#[cfg(feature = "pkcs11")]
pub use pkcs11::{Token, TokenError};
pub use uri::Uri;

use crate::cli::error::{CliError, exit};
use crate::limits::SIGNER_DEADLINE;

/// Something that signs.
pub enum Signer {
    /// A key in this process.
    Local(SecretKey),
    /// A command.
    Command(Command, SignerKey),
    /// A token.
    #[cfg(feature = "pkcs11")]
    Token(Box<Token>),
}

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// A root key signs no claims.
    #[error("{0} is a root key; claims are signed by signer keys")]
    Root(String),
    /// The command.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The token.
    #[cfg(feature = "pkcs11")]
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({:?})", self.public().ok())
    }
}

impl Signer {
    /// The public half.
    pub fn public(&self) -> Result<SignerKey, SignerError> {
        match self {
            Signer::Local(key) => match key.kind() {
                KeyKind::Signer => Ok(key.public().into()),
                KeyKind::Root => Err(SignerError::Root(key.public().to_string())),
            },
            Signer::Command(_, key) => Ok(*key),
            #[cfg(feature = "pkcs11")]
            Signer::Token(token) => Ok(*token.public()),
        }
    }

    /// A signature over `message`: 64 bytes of Ed25519, or the DER of ECDSA P-256 over its SHA-256.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        match self {
            Signer::Local(key) => Ok(key.sign(message).to_vec()),
            Signer::Command(command, key) => Ok(command.sign(key, message, SIGNER_DEADLINE)?),
            #[cfg(feature = "pkcs11")]
            Signer::Token(token) => Ok(token.sign(message)?),
        }
    }
}

impl SignerError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            SignerError::Root(_) => "make one with `portcullis keys generate --kind signer`",
            SignerError::Command(error) => error.hint(),
            #[cfg(feature = "pkcs11")]
            SignerError::Token(error) => error.hint(),
        }
    }
}

impl From<SignerError> for CliError {
    fn from(error: SignerError) -> Self {
        let (exit, code) = match &error {
            SignerError::Root(_) => (exit::USAGE, "usage"),
            SignerError::Command(CommandError::Words(_)) => (exit::USAGE, "usage"),
            SignerError::Command(CommandError::NotASignature { .. }) => (exit::SIGNATURE, "signature.bad"),
            SignerError::Command(_) => (exit::TRANSPORT, "signer.command"),
            #[cfg(feature = "pkcs11")]
            SignerError::Token(_) => (exit::TRANSPORT, "signer.token"),
        };
        Self::new(exit, code, error.to_string()).with_hint(error.hint())
    }
}
