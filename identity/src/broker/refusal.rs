//! Why a call of the Broker API gets no result, and the status that says so, with its `google.rpc.ErrorInfo`
//! (SPIFFE_Broker_Endpoint section 6, SPIFFE_Broker_API section 5).

use prost::Message as _;
use tonic::{Code, Status};

use crate::excerpt::Excerpt;
use crate::protocols::google_rpc;

/// A call that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerRefusal {
    /// The security header is missing. The broker erred, or was tricked.
    #[error("the metadata broker.spiffe.io must be there once, with the value true")]
    SecurityHeader,
    /// The operator did not list this broker.
    #[error("this broker is not allowed here")]
    Broker,
    /// The reference is not one that is served. The broker erred.
    #[error("the workload reference is not valid: {0}")]
    Reference(&'static str),
    /// Nothing that this broker may name is what the reference says, or it ended.
    #[error("the workload reference names no running workload that this broker may ask for")]
    NotFound,
    /// The workload may not have it, or this broker may not have it for the workload.
    #[error("the workload is not entitled to it: {0}")]
    NotEntitled(Excerpt),
    /// A field besides the reference has a value that it must not have. The broker erred.
    #[error("{0}")]
    InvalidArgument(String),
    /// More than the broker may ask.
    #[error("too many calls")]
    TooManyCalls,
    /// The server cannot do it now, or ends.
    #[error("{0}")]
    Unavailable(&'static str),
}

impl BrokerRefusal {
    /// The status that the broker gets.
    pub fn status(&self) -> Status {
        let (code, message) = (self.code(), self.to_string());
        let Some(reason) = self.reason() else { return Status::new(code, message) };
        let info = google_rpc::ErrorInfo {
            reason: reason.to_owned(),
            domain: "spiffe.io".to_owned(),
            metadata: std::collections::HashMap::new(),
        };
        let type_url = "type.googleapis.com/google.rpc.ErrorInfo".to_owned();
        let details = vec![prost_types::Any { type_url, value: info.encode_to_vec() }];
        let model = google_rpc::Status { code: code.into(), message: message.clone(), details };
        Status::with_details(code, message, model.encode_to_vec().into())
    }

    /// Its code.
    pub fn code(&self) -> Code {
        match self {
            Self::SecurityHeader | Self::Reference(_) | Self::InvalidArgument(_) => Code::InvalidArgument,
            Self::Broker | Self::NotEntitled(_) => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::TooManyCalls | Self::Unavailable(_) => Code::Unavailable,
        }
    }

    /// The reason that the standard names.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Reference(_) => Some("WORKLOAD_REFERENCE_INVALID"),
            Self::NotFound => Some("WORKLOAD_NOT_FOUND"),
            Self::NotEntitled(_) => Some("WORKLOAD_NOT_ENTITLED"),
            Self::SecurityHeader
            | Self::Broker
            | Self::InvalidArgument(_)
            | Self::TooManyCalls
            | Self::Unavailable(_) => None,
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::SecurityHeader => "send the metadata broker.spiffe.io: true with each call",
            Self::Broker => "add a [[broker.allow]] entry with the broker's SPIFFE ID",
            Self::Reference(_) | Self::InvalidArgument(_) => "see docs/broker-api.md for what each call takes",
            Self::NotFound => "see `portcullis list` for instances, and the components of the [[broker.allow]] entry",
            Self::NotEntitled(_) => {
                "grant it to the component, allow it in the [[broker.allow]] entry, and make the component's key exportable for X.509"
            }
            Self::TooManyCalls => "keep streams open and tokens until half of their life instead of asking each time",
            Self::Unavailable(_) => "try again, with a growing pause",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn br_04_statuses_carry_the_reasons_of_the_standard() {
        for (refusal, code, reason) in [
            (BrokerRefusal::Reference("x"), Code::InvalidArgument, Some("WORKLOAD_REFERENCE_INVALID")),
            (BrokerRefusal::NotFound, Code::NotFound, Some("WORKLOAD_NOT_FOUND")),
            (BrokerRefusal::NotEntitled(Excerpt::new("x")), Code::PermissionDenied, Some("WORKLOAD_NOT_ENTITLED")),
            (BrokerRefusal::SecurityHeader, Code::InvalidArgument, None),
            (BrokerRefusal::Broker, Code::PermissionDenied, None),
            (BrokerRefusal::InvalidArgument("x".to_owned()), Code::InvalidArgument, None),
            (BrokerRefusal::TooManyCalls, Code::Unavailable, None),
            (BrokerRefusal::Unavailable("x"), Code::Unavailable, None),
        ] {
            let status = refusal.status();
            assert_eq!((status.code(), refusal.reason()), (code, reason));
            assert!(!refusal.hint().is_empty());
            let model = google_rpc::Status::decode(status.details()).unwrap();
            let info = model.details.first().map(|any| google_rpc::ErrorInfo::decode(any.value.as_slice()).unwrap());
            assert_eq!(info.as_ref().map(|info| info.reason.as_str()), reason);
            assert!(info.is_none_or(|info| info.domain == "spiffe.io"));
        }
    }
}
