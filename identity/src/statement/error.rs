//! Why a statement is not believed.

use crate::excerpt::Excerpt;
use crate::limits::{MAX_STATEMENT_BYTES, STATEMENT_CLOCK_SKEW};
use crate::mtls::PeerError;

/// Why a statement is not believed. The sender erred, or is somebody else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Over [`MAX_STATEMENT_BYTES`].
    #[error("the statement is larger than {MAX_STATEMENT_BYTES} bytes")]
    TooLarge,
    /// Not three parts of base64url with JSON in them.
    #[error("the statement cannot be parsed: {0}")]
    Malformed(&'static str),
    /// A header that has other members, or other values, than one of the two forms.
    #[error("the statement's header is not one of the two that are allowed")]
    Header,
    /// A claim is missing, unknown, there twice or of the wrong form.
    #[error("the statement's claims are not as they must be: {0}")]
    Claims(&'static str),
    /// An nkey that is not pinned.
    #[error("the statement is signed with {0}, which is not trusted here")]
    UnknownKey(Excerpt),
    /// A certificate chain that proves nothing.
    #[error("the statement's signer is not proven: {0}")]
    Chain(#[from] PeerError),
    /// The signature is wrong.
    #[error("the statement's signature is wrong")]
    Signature,
    /// Whoever signed says that somebody else did.
    #[error("the statement says that it is by {0}, and is signed by somebody else")]
    Issuer(Excerpt),
    /// For somebody else.
    #[error("the statement is for {0}, not for its reader")]
    Audience(Excerpt),
    /// For another method, subject or key.
    #[error("the statement is for {0}, not for this")]
    Place(Excerpt),
    /// Too late.
    #[error("the statement expired")]
    Expired,
    /// Too early.
    #[error("the statement is not valid yet")]
    NotYetValid,
    /// Valid for longer than its use allows.
    #[error("the statement is valid for longer than is accepted here")]
    TooLong,
    /// The bytes beside it are not those that were signed.
    #[error("the payload is not the one that was signed")]
    Payload,
    /// Seen before.
    #[error("the statement was used before")]
    Replayed,
    /// A later one of the same signer was accepted before.
    #[error("a later statement of this signer was accepted before this one")]
    Reordered,
    /// It could have been used before the window was opened.
    #[error("the statement is from before this host remembers what was used")]
    BeforeWindow,
    /// The window can hold no more, so nothing more can be told apart from a replay.
    #[error("too many statements are remembered at the moment")]
    WindowFull,
}

impl StatementError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "statement.too-large",
            Self::Malformed(_) => "statement.malformed",
            Self::Header => "statement.header",
            Self::Claims(_) => "statement.claims",
            Self::UnknownKey(_) => "statement.unknown-key",
            Self::Chain(_) => "statement.chain",
            Self::Signature => "statement.signature",
            Self::Issuer(_) => "statement.issuer",
            Self::Audience(_) => "statement.audience",
            Self::Place(_) => "statement.place",
            Self::Expired => "statement.expired",
            Self::NotYetValid => "statement.not-yet-valid",
            Self::TooLong => "statement.too-long",
            Self::Payload => "statement.payload",
            Self::Replayed => "statement.replayed",
            Self::Reordered => "statement.reordered",
            Self::BeforeWindow => "statement.before-window",
            Self::WindowFull => "statement.window-full",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        let text = match self {
            Self::UnknownKey(_) => {
                "name the key in an [[operator]] of the grants (a host: in [[cluster.member]]), or sign with one that is named"
            }
            Self::Chain(error) => error.hint(),
            Self::Audience(_) => "name the host that is meant: a statement holds for one host, or for one cluster",
            Self::Place(_) => "a statement holds for one method, subject or key: make one for this",
            Self::Expired | Self::NotYetValid => {
                return format!(
                    "see that the clocks of both sides are right (up to {} s may lie between them), and ask again",
                    STATEMENT_CLOCK_SKEW.as_secs()
                );
            }
            Self::TooLong => "requests may live for 60 s at most",
            Self::Payload => "somebody on the way changed the message; ask again, and look at who that could be",
            Self::Replayed | Self::Reordered => "if this was you, ask again: each request is good once, in its order",
            Self::BeforeWindow => "the host has just started: ask again in a few seconds",
            Self::WindowFull => "ask again in a minute, and look at who sends so much",
            Self::TooLarge
            | Self::Malformed(_)
            | Self::Header
            | Self::Claims(_)
            | Self::Signature
            | Self::Issuer(_) => {
                "use this product's command line, or make statements exactly as docs/control-plane.md says"
            }
        };
        text.to_owned()
    }
}
