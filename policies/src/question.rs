//! A question to policy as a value: what an audit record, a test file and `policy explain` have in common.
//!
//! Decides nothing: it is asked of a [`Slice`], the same way as a running component asks. Its form as JSON or TOML is part of
//! the audit log: members are added, never renamed.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::asked::Asked;
use crate::component::{Caller, ImageFacts};
use crate::denial::{Denial, DenialKind};
use crate::destination::{Destination, DestinationError};
use crate::grant::{Grant, IdentityAction};
use crate::limits::{JWT_TTL_DEFAULT, QUESTION_BYTES, X509_TTL_MOST};
use crate::slice::Slice;

/// What one component asks to do, or what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "action", deny_unknown_fields)]
pub enum Question {
    /// To be admitted.
    #[serde(rename = "load")]
    Load {
        /// Its imports, with versions.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        imports: Vec<String>,
        /// Whether its claims have expired.
        #[serde(default)]
        expired: bool,
    },
    /// To import an interface.
    #[serde(rename = "link")]
    Link {
        /// Name with version, as the component has it.
        interface: String,
    },
    /// To send a request, before its name is resolved.
    #[serde(rename = "http.send")]
    HttpSend {
        /// `scheme://host[:port]`.
        destination: String,
        /// The method.
        #[serde(default = "get")]
        method: String,
    },
    /// To dial an address for a request.
    #[serde(rename = "http.connect")]
    HttpConnect {
        /// `scheme://host[:port]`.
        destination: String,
        /// The method.
        #[serde(default = "get")]
        method: String,
        /// Address and port.
        address: SocketAddr,
    },
    /// To get a JWT-SVID.
    #[serde(rename = "svid.jwt")]
    SvidJwt {
        /// For whom.
        audience: String,
        /// Seconds.
        #[serde(default = "jwt_ttl")]
        ttl: u64,
    },
    /// To get an X.509-SVID.
    #[serde(rename = "svid.x509")]
    SvidX509 {
        /// Seconds.
        #[serde(default = "x509_ttl")]
        ttl: u64,
    },
    /// To check somebody's JWT-SVID.
    #[serde(rename = "svid.validate")]
    SvidValidate {},
    /// To read its own SPIFFE ID.
    #[serde(rename = "identity.read")]
    IdentityRead {},
    /// To read trust bundles.
    #[serde(rename = "bundle.read")]
    BundleRead {},
    /// To learn who is calling.
    #[serde(rename = "peer.read")]
    PeerRead {},
    /// To have data signed.
    #[serde(rename = "svid.sign")]
    SvidSign {
        /// For what.
        purpose: String,
    },
    /// To have the private key of its X.509-SVID.
    #[serde(rename = "svid.export")]
    SvidExport {},
    /// To be called.
    #[serde(rename = "call")]
    Call {
        /// `anonymous`, or a SPIFFE ID.
        caller: String,
    },
    /// To publish a message.
    #[serde(rename = "publish")]
    Publish {
        /// A NATS subject.
        subject: String,
    },
    /// To publish a message and receive one answer.
    #[serde(rename = "request")]
    Request {
        /// A NATS subject.
        subject: String,
    },
    /// To receive messages.
    #[serde(rename = "subscribe")]
    Subscribe {
        /// A NATS subject, or a pattern.
        subject: String,
        /// The queue group; empty: none.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        queue: String,
    },
}

/// How a question came out.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Allowed, by these policies (ids of grants and raw policies, sorted).
    Allowed(Vec<String>),
    /// Refused.
    Denied(Denial),
}

/// Allow, or the kind of refusal: what two answers are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Allowed.
    Allow,
    /// Nobody granted it.
    NoGrant,
    /// A guard or a `forbid` forbids it.
    Forbidden,
    /// It could not be decided, which is a refusal.
    CannotDecide,
}

impl Question {
    /// The policy action, such as `http.send`.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Load { .. } => "load",
            Self::Link { .. } => "link",
            Self::HttpSend { .. } => "http.send",
            Self::HttpConnect { .. } => "http.connect",
            Self::SvidJwt { .. } => "svid.jwt",
            Self::SvidX509 { .. } => "svid.x509",
            Self::SvidValidate {} => "svid.validate",
            Self::IdentityRead {} => "identity.read",
            Self::BundleRead {} => "bundle.read",
            Self::PeerRead {} => "peer.read",
            Self::SvidSign { .. } => "svid.sign",
            Self::SvidExport {} => "svid.export",
            Self::Call { .. } => "call",
            Self::Publish { .. } => "publish",
            Self::Request { .. } => "request",
            Self::Subscribe { .. } => "subscribe",
        }
    }

    /// What it is asked about, in one word; empty where the action says it all.
    pub fn resource(&self) -> String {
        match self {
            Self::Load { .. }
            | Self::SvidX509 { .. }
            | Self::SvidValidate {}
            | Self::IdentityRead {}
            | Self::BundleRead {}
            | Self::PeerRead {}
            | Self::SvidExport {} => String::new(),
            Self::SvidSign { purpose } => purpose.clone(),
            Self::Link { interface } => interface.clone(),
            Self::HttpSend { destination, .. } => destination.clone(),
            Self::HttpConnect { destination, address, .. } => format!("{destination} at {address}"),
            Self::SvidJwt { audience, .. } => audience.clone(),
            Self::Call { caller } => caller.clone(),
            Self::Publish { subject } | Self::Request { subject } | Self::Subscribe { subject, .. } => subject.clone(),
        }
    }

    /// Asks a component's slice. Fails where the destination is none: then there is nothing to ask about.
    pub fn ask(&self, slice: &Slice) -> Result<Answer, DestinationError> {
        Ok(match self {
            Self::Load { imports, expired } => {
                Answer::of(slice.load(&ImageFacts { imports: imports.clone(), expired: *expired }))
            }
            Self::Link { interface } => Answer::of(slice.link(interface)),
            Self::HttpSend { destination, method } => {
                Answer::of(slice.http_send(&Destination::parse_url(destination)?, method))
            }
            Self::HttpConnect { destination, method, address } => {
                let send = slice.http_send(&Destination::parse_url(destination)?, method);
                Answer::of(send.and_then(|send| slice.http_connect(&send, *address)))
            }
            Self::SvidJwt { audience, ttl } => Answer::of(slice.svid_jwt(audience, *ttl)),
            Self::SvidX509 { ttl } => Answer::of(slice.svid_x509(*ttl)),
            Self::SvidValidate {} => Answer::of(slice.identity(IdentityAction::Validate)),
            Self::IdentityRead {} => Answer::of(slice.identity(IdentityAction::Read)),
            Self::BundleRead {} => Answer::of(slice.identity(IdentityAction::Bundles)),
            Self::PeerRead {} => Answer::of(slice.identity(IdentityAction::Peer)),
            Self::SvidSign { purpose } => Answer::of(slice.svid_sign(purpose)),
            Self::SvidExport {} => Answer::of(slice.identity(IdentityAction::Export)),
            Self::Call { caller } => {
                let caller = match caller.as_str() {
                    crate::component::ANONYMOUS => Caller::Anonymous,
                    id => Caller::Workload(id.to_owned()),
                };
                Answer::of(slice.call(&caller))
            }
            Self::Publish { subject } => Answer::of(slice.publish(subject)),
            Self::Request { subject } => Answer::of(slice.request(subject)),
            Self::Subscribe { subject, queue } => Answer::of(slice.subscribe(subject, queue)),
        })
    }

    /// The question that was asked, to be asked again, with its text as it came; none where that is longer than
    /// [`QUESTION_BYTES`].
    pub(crate) fn of(asked: &Asked) -> Option<Self> {
        let question = Self::verbatim(asked);
        let bytes = match &question {
            Self::Load { imports, .. } => imports.iter().map(String::len).sum(),
            Self::HttpSend { method, .. } | Self::HttpConnect { method, .. } => method.len(),
            Self::Link { interface: text }
            | Self::SvidJwt { audience: text, .. }
            | Self::SvidSign { purpose: text }
            | Self::Call { caller: text }
            | Self::Publish { subject: text }
            | Self::Request { subject: text } => text.len(),
            Self::Subscribe { subject, queue } => subject.len() + queue.len(),
            Self::SvidX509 { .. }
            | Self::SvidValidate {}
            | Self::IdentityRead {}
            | Self::BundleRead {}
            | Self::PeerRead {}
            | Self::SvidExport {} => 0,
        };
        (bytes <= QUESTION_BYTES).then_some(question)
    }

    fn verbatim(asked: &Asked) -> Self {
        let url =
            |destination: &Destination| format!("{}://{}", destination.scheme().as_str(), destination.authority());
        match asked {
            Asked::Load { imports, expired, .. } => Self::Load { imports: imports.clone(), expired: *expired },
            Asked::Link { text, .. } => Self::Link { interface: text.clone() },
            Asked::HttpSend { destination, method } => {
                Self::HttpSend { destination: url(destination), method: method.clone() }
            }
            Asked::HttpConnect { destination, method, address, .. } => {
                Self::HttpConnect { destination: url(destination), method: method.clone(), address: *address }
            }
            Asked::SvidJwt { audience, ttl } => Self::SvidJwt { audience: audience.clone(), ttl: *ttl },
            Asked::SvidX509 { ttl } => Self::SvidX509 { ttl: *ttl },
            Asked::SvidSign { purpose } => Self::SvidSign { purpose: purpose.clone() },
            Asked::Identity(IdentityAction::Read) => Self::IdentityRead {},
            Asked::Identity(IdentityAction::Bundles) => Self::BundleRead {},
            Asked::Identity(IdentityAction::Peer) => Self::PeerRead {},
            Asked::Identity(IdentityAction::Export) => Self::SvidExport {},
            Asked::Identity(IdentityAction::Validate) => Self::SvidValidate {},
            Asked::Identity(IdentityAction::X509Chain) => Self::SvidX509 { ttl: X509_TTL_MOST },
            Asked::Call { caller } => Self::Call { caller: caller.clone() },
            Asked::Publish { subject } => Self::Publish { subject: subject.clone() },
            Asked::Request { subject } => Self::Request { subject: subject.clone() },
            Asked::Subscribe { subject, queue } => Self::Subscribe { subject: subject.clone(), queue: queue.clone() },
        }
    }
}

impl Answer {
    fn of<A>(result: Result<Grant<A>, Denial>) -> Self {
        match result {
            Ok(grant) => {
                let mut by: Vec<String> = grant.policies().map(ToOwned::to_owned).collect();
                by.sort_unstable();
                by.dedup();
                Self::Allowed(by)
            }
            Err(denial) => Self::Denied(denial),
        }
    }

    /// Allow, or the kind of refusal.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Allowed(_) => Outcome::Allow,
            Self::Denied(denial) => match denial.kind() {
                DenialKind::NoGrant => Outcome::NoGrant,
                DenialKind::Forbidden => Outcome::Forbidden,
                DenialKind::CannotDecide => Outcome::CannotDecide,
            },
        }
    }

    /// Why, in one line: the policies that allowed it, or the code and the reason of the refusal.
    pub fn why(&self) -> String {
        match self {
            Self::Allowed(by) => by.join(", "),
            Self::Denied(denial) => format!("{}: {}", denial.code(), denial.why()),
        }
    }
}

impl Outcome {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::NoGrant => "no-grant",
            Self::Forbidden => "forbidden",
            Self::CannotDecide => "cannot-decide",
        }
    }
}

fn get() -> String {
    "GET".to_owned()
}

fn jwt_ttl() -> u64 {
    JWT_TTL_DEFAULT
}

fn x509_ttl() -> u64 {
    X509_TTL_MOST
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::slice;

    fn questions() -> Vec<Question> {
        let text = r#"[
            {"action": "load"},
            {"action": "link", "interface": "wasi:keyvalue/store@0.2.0"},
            {"action": "http.send", "destination": "https://api.example"},
            {"action": "http.connect", "destination": "https://api.example", "method": "PUT", "address": "192.0.2.1:443"},
            {"action": "svid.jwt", "audience": "vault"},
            {"action": "svid.x509"},
            {"action": "svid.validate"},
            {"action": "identity.read"},
            {"action": "bundle.read"},
            {"action": "peer.read"},
            {"action": "svid.sign", "purpose": "receipts"},
            {"action": "svid.export"},
            {"action": "call", "caller": "anonymous"},
            {"action": "publish", "subject": "orders.new"},
            {"action": "request", "subject": "stock.ask"},
            {"action": "subscribe", "subject": "orders.eu.*", "queue": "shop"}
        ]"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_refusal_holds_the_question_that_gets_the_same_refusal() {
        let nothing = slice(&[("a", "load = true")], "", "a");
        for question in questions().into_iter().skip(1) {
            let Answer::Denied(denial) = question.ask(&nothing).unwrap() else { panic!("{question:?} is allowed") };
            let again = denial.question().unwrap().clone();
            assert_eq!(
                again.action(),
                if question.action() == "http.connect" { "http.send" } else { question.action() }
            );
            let Answer::Denied(second) = again.ask(&nothing).unwrap() else { panic!("{again:?} is allowed") };
            assert_eq!(second.code(), denial.code());
            let json = serde_json::to_value(&denial).unwrap();
            let read: Question = serde_json::from_value(json["question"].clone()).unwrap();
            assert_eq!(read, again);
        }
    }

    #[test]
    fn what_is_granted_is_allowed_by_the_grants_that_say_so() {
        let all = "load = true\nlink = [\"wasi:keyvalue/store\"]\nhttp = [\"https://api.example\"]\naudiences = [\"vault\"]\n\
                   identity = [\"read\", \"bundles\", \"peer\", \"x509\", \"validate\", \"export\"]\npurposes = [\"receipts\"]\ncallers = [\"anonymous\"]\naddresses = [\"192.0.2.0/24\"]\n\
                   publish = [\"orders.*\"]\nrequest = [\"stock.ask\"]\nsubscribe = [\"orders.>\"]";
        let slice = slice(&[("a", all)], "", "a");
        for question in questions() {
            let answer = question.ask(&slice).unwrap();
            assert!(matches!(&answer, Answer::Allowed(by) if by == &["a-0"]), "{question:?}: {}", answer.why());
        }
    }

    #[test]
    fn a_question_over_the_limit_is_not_kept() {
        let nothing = slice(&[("a", "load = true")], "", "a");
        for (bytes, kept) in [(QUESTION_BYTES, true), (QUESTION_BYTES + 1, false)] {
            let question = Question::SvidJwt { audience: "x".repeat(bytes), ttl: 1 };
            let Answer::Denied(denial) = question.ask(&nothing).unwrap() else { panic!("allowed") };
            assert_eq!(denial.question().is_some(), kept);
        }
    }

    #[test]
    fn unknown_members_and_actions_are_refused() {
        for text in [
            r#"{"action": "fly"}"#,
            r#"{"action": "load", "x": 1}"#,
            r#"{"action": "svid.validate", "x": 1}"#,
            r#"{"action": "link"}"#,
            "{}",
        ] {
            assert!(serde_json::from_str::<Question>(text).is_err(), "{text}");
        }
        let none = Question::HttpSend { destination: "ftp://x".to_owned(), method: "GET".to_owned() };
        assert!(none.ask(&slice(&[], "", "a")).is_err());
    }
}
