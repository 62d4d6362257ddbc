//! Heartbeats that an operator does not believe: of which host, how many, and why. Whoever may publish can make some up, so hosts
//! are counted up to a limit; one that is believed besides is alive all the same.

use std::collections::BTreeMap;
use std::path::Path;

use portcullis_cluster::HostId;
use portcullis_identity::statement::StatementError;
use serde_json::{Value, json};

use crate::config::cluster::Member;
use crate::control::client::unproven_hint;

/// Why something that a host seems to have said is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    code: &'static str,
    why: String,
    hint: String,
}

/// What was heard and not believed.
#[derive(Debug, Clone, Default)]
pub struct Unbelieved {
    by_host: BTreeMap<HostId, (u64, Reason)>,
    /// Of hosts beyond the limit.
    others: u64,
}

impl Reason {
    /// A statement that proves nothing to this operator, who believes the authorities in `bundle`.
    pub fn statement(error: &StatementError, bundle: &Path) -> Self {
        Self { code: error.code(), why: error.to_string(), hint: unproven_hint(error, bundle) }
    }

    /// Signed by somebody else than the host.
    pub fn stranger(signer: impl std::fmt::Display, members: &[Member]) -> Self {
        let signer = signer.to_string();
        let of = Member::signed_by(members, &signer).map(|host| format!(" (pinned for {host})")).unwrap_or_default();
        let why = format!("it is signed by {signer}{of}, who does not sign for this host");
        let hint = "see that `trust_domain` and [[member]] in the operator file are those of the hosts";
        Self { code: "cluster.stranger", why, hint: hint.to_owned() }
    }

    /// Signed by the host, but not of a form that is known here.
    pub fn form(why: impl std::fmt::Display) -> Self {
        let hint = "see that the host and this program are of the same release";
        Self { code: "cluster.malformed", why: why.to_string(), hint: hint.to_owned() }
    }

    /// No statement came with it.
    pub fn unsigned() -> Self {
        let hint =
            "somebody who is no host of this cluster may publish there: look at the permissions of its NATS account";
        Self { code: "statement.none", why: "it is not signed".to_owned(), hint: hint.to_owned() }
    }

    /// Why, in words.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl Unbelieved {
    /// Counts one; the last reason of each host is kept.
    pub fn add(&mut self, host: HostId, reason: Reason) {
        if self.by_host.len() >= HOSTS && !self.by_host.contains_key(&host) {
            self.others = self.others.saturating_add(1);
            return;
        }
        let (count, last) = self.by_host.entry(host).or_insert_with(|| (0, reason.clone()));
        *count = count.saturating_add(1);
        *last = reason;
    }

    /// Hosts of which nothing is believed, where `believed` says of which something is.
    pub fn hosts(&self, believed: impl Fn(&HostId) -> bool) -> Vec<&HostId> {
        self.by_host.keys().filter(|host| !believed(host)).collect()
    }

    /// What to do about it: the bundle first, as that takes all hosts away at once.
    pub fn hint(&self) -> Option<&str> {
        let reasons = || self.by_host.values().map(|(_, reason)| reason);
        let first = reasons().find(|reason| reason.code == "statement.chain").or_else(|| reasons().next());
        first.map(|reason| reason.hint.as_str())
    }

    /// A line for each host.
    pub fn lines(&self) -> Vec<String> {
        let line = |(host, (count, reason)): (&HostId, &(u64, Reason))| {
            let noun = if *count == 1 { "heartbeat" } else { "heartbeats" };
            format!("{count} {noun} of {host} not believed: {}", reason.why)
        };
        let mut lines: Vec<_> = self.by_host.iter().map(line).collect();
        if self.others > 0 {
            lines.push(format!("{} heartbeats of further hosts not believed", self.others));
        }
        if let Some(hint) = self.hint() {
            lines.push(format!("hint: {hint}"));
        }
        lines
    }

    /// For `--json`.
    pub fn to_json(&self) -> Value {
        let one = |(host, (count, reason)): (&HostId, &(u64, Reason))| json!({ "host": host, "heartbeats": count, "code": reason.code, "why": reason.why, "hint": reason.hint });
        self.by_host.iter().map(one).collect()
    }
}

/// Hosts that are told apart.
const HOSTS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> HostId {
        name.parse().unwrap()
    }

    #[test]
    fn each_host_is_counted_with_its_last_reason() {
        let mut unbelieved = Unbelieved::default();
        unbelieved.add(id("h1"), Reason::unsigned());
        unbelieved.add(id("h1"), Reason::statement(&StatementError::Signature, Path::new("b.json")));
        unbelieved.add(id("h2"), Reason::stranger("spiffe://a/b", &[]));
        let lines = unbelieved.lines();
        assert_eq!(lines[0], "2 heartbeats of h1 not believed: the statement's signature is wrong");
        assert!(lines[1].starts_with("1 heartbeat of h2 not believed: it is signed by spiffe://a/b,"), "{lines:?}");
        let h3 = Member { host: "h3".to_owned(), who: "UABC".to_owned() };
        assert!(Reason::stranger("UABC", &[h3]).why().contains("UABC (pinned for h3)"));
        assert_eq!(unbelieved.to_json()[0]["heartbeats"], 2);
        assert_eq!(unbelieved.to_json()[0]["code"], "statement.signature");
        assert_eq!(unbelieved.hosts(|host| host.as_str() == "h2"), [&id("h1")]);
    }

    #[test]
    fn a_chain_that_proves_nothing_points_at_the_bundle() {
        let mut unbelieved = Unbelieved::default();
        unbelieved.add(id("h1"), Reason::unsigned());
        let error = StatementError::Chain(portcullis_identity::mtls::PeerError::NoChain);
        unbelieved.add(id("h2"), Reason::statement(&error, Path::new("/etc/op/bundle.json")));
        assert!(unbelieved.hint().unwrap().contains("/etc/op/bundle.json"));
        assert!(unbelieved.lines().last().unwrap().starts_with("hint: see that"));
    }

    #[test]
    fn made_up_hosts_have_an_end() {
        let mut unbelieved = Unbelieved::default();
        for n in 0..HOSTS + 3 {
            unbelieved.add(id(&format!("h{n}")), Reason::unsigned());
        }
        unbelieved.add(id("h0"), Reason::unsigned());
        assert_eq!(unbelieved.to_json().as_array().unwrap().len(), HOSTS);
        assert!(unbelieved.lines().iter().any(|line| line == "3 heartbeats of further hosts not believed"));
    }
}
