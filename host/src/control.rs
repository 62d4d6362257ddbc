//! What both ends of the remote control plane share: methods, where a statement is good, how an answer is read.
//!
//! A request is the protobuf message of a method of the service `Control`; its statement names the host as its audience and
//! `control/METHOD` as its place. An answer is the message `Answer`; its statement names who asked as its audience and
//! `control/METHOD/reply` as its place, and the request that it answers. Subjects, URLs and connections prove nothing.

pub mod client;
pub mod inbox;
pub mod key;
pub mod unreached;

use portcullis_identity::limits::MAX_STATEMENT_BYTES;
use portcullis_policies::ControlAction;

use crate::nats::Nats;

/// A method that is served over NATS and HTTPS, besides the local socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// How the host is.
    Status,
    /// What runs.
    List,
    /// Start a component.
    Start,
    /// Stop one.
    Stop,
    /// What components wrote and why they did not start.
    Logs,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Status, Self::List, Self::Start, Self::Stop, Self::Logs];

    /// The word in subjects, URLs and places.
    pub fn name(self) -> &'static str {
        self.action().name()
    }

    /// The method of this word.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// What policy decides.
    pub fn action(self) -> ControlAction {
        match self {
            Self::Status => ControlAction::Status,
            Self::List => ControlAction::List,
            Self::Start => ControlAction::Start,
            Self::Stop => ControlAction::Stop,
            Self::Logs => ControlAction::Logs,
        }
    }

    /// Where the statement of a request is good.
    pub fn place(self) -> String {
        format!("control/{}", self.name())
    }

    /// Where the statement of an answer is good.
    pub fn reply_place(self) -> String {
        format!("control/{}/reply", self.name())
    }
}

/// The subject of a method of a host.
pub fn subject(cluster: &str, host: &str, method: &str) -> String {
    format!("portcullis.{cluster}.ctl.{host}.{method}")
}

/// Largest payload of a request or an answer that the server of NATS takes now, beside a statement.
pub fn room(nats: &Nats) -> usize {
    nats.client().server_info().max_payload.saturating_sub(MAX_STATEMENT_BYTES)
}

/// The SPIFFE ID of a host in a trust domain; a host of no cluster is [`LOCAL`].
pub fn host_id(trust_domain: &str, host: &str) -> String {
    match host {
        LOCAL => format!("spiffe://{trust_domain}/portcullis/host"),
        host => format!("spiffe://{trust_domain}/portcullis/host/{host}"),
    }
}

/// The name of a host that is in no cluster.
pub const LOCAL: &str = "local";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_has_a_word_and_places_of_its_own() {
        let mut places = std::collections::HashSet::new();
        for method in Method::ALL {
            assert_eq!(Method::named(method.name()), Some(method));
            assert!(places.insert(method.place()) && places.insert(method.reply_place()));
        }
        assert_eq!(Method::named("reload"), None);
        assert_eq!(Method::named("Start"), None);
    }

    #[test]
    fn a_host_of_no_cluster_has_the_plain_id() {
        assert_eq!(host_id("prod.example", "h1"), "spiffe://prod.example/portcullis/host/h1");
        assert_eq!(host_id("prod.example", LOCAL), "spiffe://prod.example/portcullis/host");
        assert_eq!(subject("prod", "h1", "start"), "portcullis.prod.ctl.h1.start");
    }
}
