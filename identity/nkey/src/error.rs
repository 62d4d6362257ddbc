//! Why a key was not taken. Never repeats the text: it may be a secret in the wrong place.

use crate::kind::Kind;

/// Why a text is not the key that is needed. Whoever wrote it erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NkeyError {
    /// Not the canonical text of a public key.
    #[error("this is no public nkey")]
    NotPublic,
    /// Not the canonical text of a seed.
    #[error("this is no seed of an nkey")]
    NotSeed,
    /// Something secret (`S...`, `P...`) where a public key belongs.
    #[error("this is a secret, not a public nkey")]
    SecretGiven,
    /// A public key where a seed belongs.
    #[error("this is a public nkey, not a seed")]
    PublicGiven,
    /// A key of another kind.
    #[error("this is a key of the kind {found}, needed is one of the kind {needed}")]
    WrongKind {
        /// What is needed.
        needed: Kind,
        /// What was given.
        found: Kind,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandom,
}

impl NkeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotPublic => {
                "a public nkey has 56 characters, A-Z and 2-7, the first says its kind; copy it as it was printed"
            }
            Self::NotSeed => "a seed has 58 characters, A-Z and 2-7, and begins with S and the letter of its kind",
            Self::SecretGiven => "keep it secret and give the public key, which does not begin with S or P",
            Self::PublicGiven => "give the file that holds the seed, which begins with S",
            Self::WrongKind { needed, .. } => match needed {
                Kind::Account => "an account's key begins with A, its seed with SA",
                Kind::Cluster => "a cluster's key begins with C, its seed with SC",
                Kind::Curve => "a curve key begins with X, its seed with SX",
                Kind::Module => "a module's key begins with M, its seed with SM",
                Kind::Operator => "an operator's key begins with O, its seed with SO",
                Kind::Server => "a server's key begins with N, its seed with SN",
                Kind::Service => "a service's key begins with V, its seed with SV",
                Kind::User => "a user's key begins with U, its seed with SU",
            },
            Self::NoRandom => "check that the kernel's random number generator is up",
        }
    }
}
