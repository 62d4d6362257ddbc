//! Why a call of the Workload API gets no result, and the gRPC status that says so (SPIFFE_Workload_Endpoint section 6,
//! SPIFFE_Workload_API section 4).

use tonic::{Code, Status};

use crate::excerpt::Excerpt;
use crate::jwt_check::TokenError;
use crate::limits::WORKLOAD_MESSAGE_BYTES;

/// A call that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The security header is missing. The client erred, or is a browser that was tricked.
    #[error("the metadata workload.spiffe.io must be there once, with the value true")]
    SecurityHeader,
    /// No registered entry fits the caller, or none does any more. Clients know this very text.
    #[error("no identity issued")]
    NoIdentity,
    /// No identity of the caller is registered for an audience.
    #[error("no identity of this process is registered for the audience {0}")]
    Audience(Excerpt),
    /// A field has a value that it must not have. The client erred.
    #[error("{0}")]
    InvalidArgument(String),
    /// Not a valid JWT-SVID for the audience. Whoever sent it to the client erred.
    #[error("the JWT-SVID is not valid: {0}")]
    Token(#[from] TokenError),
    /// The operator did not turn the WIT-SVID profile on.
    #[error("the WIT-SVID profile is not enabled")]
    WitDisabled,
    /// More calls than one user of this machine may make.
    #[error("too many calls")]
    TooManyCalls,
    /// The server cannot do it now, or ends.
    #[error("{0}")]
    Unavailable(&'static str),
    /// The answer would be larger than clients take.
    #[error("the answer would be larger than {WORKLOAD_MESSAGE_BYTES} bytes")]
    TooLarge,
}

impl Refusal {
    /// The status that a client gets.
    pub fn status(&self) -> Status {
        Status::new(self.code(), self.to_string())
    }

    /// Its code. Clients never retry `InvalidArgument` and `Unimplemented`; they back off on the others.
    pub fn code(&self) -> Code {
        match self {
            Self::SecurityHeader | Self::InvalidArgument(_) | Self::Token(_) => Code::InvalidArgument,
            Self::NoIdentity | Self::Audience(_) => Code::PermissionDenied,
            Self::WitDisabled => Code::Unimplemented,
            Self::TooManyCalls | Self::Unavailable(_) => Code::Unavailable,
            Self::TooLarge => Code::ResourceExhausted,
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::SecurityHeader => "use a SPIFFE client library: each sends the header by itself",
            Self::NoIdentity => {
                "add a [[workload]] entry with the caller's uid and executable, as the audit log shows them"
            }
            Self::Audience(_) => "add the audience to the [[workload]] entry",
            Self::InvalidArgument(_) => "see docs/workload-api.md for what each call takes",
            Self::Token(error) => error.hint(),
            Self::WitDisabled => "set wit_svid = true under [workload_api]",
            Self::TooManyCalls => "keep streams open and tokens until half of their life instead of asking each time",
            Self::Unavailable(_) => "try again: clients do, with a growing pause",
            Self::TooLarge => "register fewer entries or fewer foreign trust domains for this process",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_codes_of_the_standard() {
        for (refusal, code) in [
            (Refusal::SecurityHeader, Code::InvalidArgument),
            (Refusal::InvalidArgument("x".to_owned()), Code::InvalidArgument),
            (Refusal::Token(TokenError::Expired), Code::InvalidArgument),
            (Refusal::NoIdentity, Code::PermissionDenied),
            (Refusal::Audience(Excerpt::new("a")), Code::PermissionDenied),
            (Refusal::WitDisabled, Code::Unimplemented),
            (Refusal::TooManyCalls, Code::Unavailable),
            (Refusal::Unavailable("it ends"), Code::Unavailable),
            (Refusal::TooLarge, Code::ResourceExhausted),
        ] {
            assert_eq!(refusal.status().code(), code, "{refusal}");
            assert!(!refusal.hint().is_empty());
        }
        // Clients compare with this text.
        assert_eq!(Refusal::NoIdentity.status().message(), "no identity issued");
    }
}
