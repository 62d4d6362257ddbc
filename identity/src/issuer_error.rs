//! Why an issuer could not be opened. Each says which path, what is wrong with it and what to do.

use std::io;
use std::path::PathBuf;

use crate::excerpt::Excerpt;
use crate::trust_domain::TrustDomain;

/// Why [`Issuer::open`](crate::Issuer::open) failed.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The operating system refused. Often configuration.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A link, a file where a directory belongs, or the other way round.
    #[error("{path} is not {wanted}")]
    WrongKind {
        /// The file or directory.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// Others may read or write it.
    #[error("{path} has mode {mode:04o}: others than its owner may use it")]
    Permissions {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user.
    #[error("{path} belongs to uid {owner}, not to the user of this process")]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Another process has the directory open.
    #[error("{path} is in use by another process")]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// Half-written, damaged, or not what belongs there.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// Keys of another trust domain.
    #[error("{path} holds a key of the trust domain {found}, not of {expected}")]
    ForeignDomain {
        /// The file.
        path: PathBuf,
        /// Whose key it is.
        found: TrustDomain,
        /// Whose it should be.
        expected: TrustDomain,
    },
    /// The clock is behind the key.
    #[error("{path} was made in the future of this machine's clock")]
    Clock {
        /// The file.
        path: PathBuf,
    },
    /// Lifetimes that cannot work. Configuration.
    #[error("lifetimes: {0}")]
    Lifetimes(&'static str),
    /// A PKCS#11 token is away, refused us, or does not do what is wanted.
    #[error("the PKCS#11 token {label:?} behind {module}: {reason}")]
    Token {
        /// The vendor's library.
        module: PathBuf,
        /// The token's label.
        label: String,
        /// What went wrong.
        reason: Excerpt,
    },
    /// No randomness, or a self-check failed: our own error.
    #[error("a new authority could not be made: {0}")]
    Creation(&'static str),
}

impl IssuerError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Io { .. } => "give the identity process a state directory that it can create, read and write",
            Self::WrongKind { .. } => "point the state directory at a directory of its own, without symbolic links",
            Self::Permissions { .. } => {
                "make directories 0700 and files 0600; if others could read the keys, delete them and let new ones be made"
            }
            Self::Owner { .. } => "run the identity process as the owner of its state directory",
            Self::InUse { .. } => "stop the other host, or give this one a state directory of its own",
            Self::Damaged { .. } => {
                "restore the file from a backup, or delete it: a new one is made at the next start, and peers must fetch the new bundle"
            }
            Self::ForeignDomain { .. } => "use one state directory for each trust domain",
            Self::Clock { .. } => "set the clock of this machine, or restore the state that belongs to it",
            Self::Lifetimes(_) => {
                "give the authority at least six times the life of an SVID, and every SVID at least one second"
            }
            Self::Token { .. } => {
                "see that the token is there and initialised, that its label and the PIN file are right, and that the identity process may read what the library needs"
            }
            Self::Creation(_) => "see that the system's random source works, then start again",
        }
    }
}
