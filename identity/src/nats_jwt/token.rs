//! What tokens there are, by whom and about whom, and why one is none. Read in [`super::verified`], made in [`super::unsigned`].

use portcullis_nkey::Kind;

use super::names::NameError;
use super::signer::SignerError;
use crate::limits::MAX_NATS_JWT_BYTES;

/// Why a token is none, or is not made. Who sent it erred, or who asked for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NatsJwtError {
    /// Over [`MAX_NATS_JWT_BYTES`].
    #[error("the token is larger than {MAX_NATS_JWT_BYTES} bytes")]
    TooLarge,
    /// Not three parts of base64url without padding, or JSON that is none.
    #[error("the token cannot be parsed: {0}")]
    Malformed(&'static str),
    /// Not exactly `typ` JWT and `alg` ed25519-nkey. Tokens of version 1 land here.
    #[error("the token's header must be exactly typ JWT and alg ed25519-nkey")]
    Header,
    /// No issuer, or one that may not issue tokens of this type.
    #[error("the token's issuer is not a key that may issue such tokens")]
    Issuer,
    /// Not by the issuer, or over something else.
    #[error("the token's signature is not its issuer's")]
    Signature,
    /// Of another type or version.
    #[error("the token is not of the type {0}, version 2")]
    Type(TokenType),
    /// A claim is missing or no such thing.
    #[error("the token's claims are malformed: {0}")]
    Claims(&'static str),
    /// It would have ended before it began.
    #[error("the token would have ended already")]
    AlreadyOver,
    /// A name in it is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The key may not sign it.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// It could not be written or signed. This product erred.
    #[error("the token could not be made: {0}")]
    Defect(&'static str),
}

impl NatsJwtError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLarge | Self::Malformed(_) | Self::Claims(_) => {
                "the sender must send a NATS JWT as nats-server makes it"
            }
            Self::Header | Self::Type(_) => {
                "the sender must send a NATS JWT of version 2 (nats-server 2.x); version 1 is not taken"
            }
            Self::Issuer | Self::Signature => "see that nothing between the sender and here changes tokens",
            Self::AlreadyOver => "see that the clock is right and that the credential it follows from still lives",
            Self::Name(error) => error.hint(),
            Self::Signer(error) => error.hint(),
            Self::Defect(_) => "this is a defect of the product",
        }
    }
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenType {
    /// An operator, by itself or one of its signing keys.
    Operator,
    /// An account, by its operator.
    Account,
    /// A user, by its account.
    User,
    /// A server asks an auth callout.
    Request,
    /// An auth callout answers.
    Response,
}

impl TokenType {
    /// `nats.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Account => "account",
            Self::User => "user",
            Self::Request => "authorization_request",
            Self::Response => "authorization_response",
        }
    }

    /// The kind of key that issues it.
    pub(super) fn issuer(self) -> Kind {
        match self {
            Self::Operator | Self::Account => Kind::Operator,
            Self::User | Self::Response => Kind::Account,
            Self::Request => Kind::Server,
        }
    }

    /// The kind of key that it is about.
    pub(super) fn subject(self) -> Kind {
        match self {
            Self::Operator => Kind::Operator,
            Self::Account | Self::Request => Kind::Account,
            Self::User | Self::Response => Kind::User,
        }
    }
}

impl std::fmt::Display for TokenType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The one header.
pub(super) const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
