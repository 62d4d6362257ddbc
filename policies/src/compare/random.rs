//! Pairs of random sets: whatever the engine allows more under the second, the comparison must not call nothing.

use super::tests::{OPERATOR, raw, with_operators};
use super::*;
use crate::control::{ControlQuestion, Operator};
use crate::grants::ControlAction;
use crate::testing::{Random, facts};

/// What small sets are put together from: each may be there or not.
const GRANTS: [(&str, &str); 24] = [
    ("a", "load = true"),
    ("a", "http = [\"https://x.zone\"]"),
    ("a", "http = [\"https://x.zone\"]\npeer = \"spiffe://demo.example/p\""),
    ("a", "http = [\"https://x.zone\"]\naddresses = [\"10.0.0.0/24\"]"),
    ("a", "http = [\"https://x.zone\"]\naddresses = [\"10.0.0.0/16\"]"),
    ("a", "http = [\"https://x.zone\"]\naddresses = [\"private\"]"),
    ("b", "http = [\"https://x.zone\", \"http://10.0.0.5\"]\naddresses = [\"10.0.0.5/32\"]"),
    ("b", "http = [\"http://x.zone\"]"),
    ("a", "audiences = [\"v\"]"),
    ("a", "audiences = [\"v\"]\nmax_ttl = \"1m\""),
    ("a", "audiences = [\"v\", \"w\"]\nmax_ttl = \"1h\""),
    ("b", "identity = [\"read\", \"x509\"]"),
    ("a", "identity = [\"export\", \"x509\"]"),
    ("a", "identity = [\"x509\"]\npurposes = [\"receipts\"]"),
    ("a", "callers = [\"anonymous\"]"),
    ("b", "callers = [\"spiffe://demo.example/ns/demo/sa/a\"]"),
    ("a", "link = [\"wasi:keyvalue/store\"]"),
    ("a", "link = [\"wasi:keyvalue/*\"]"),
    ("a", "publish = [\"o.*\"]"),
    ("a", "publish = [\"o.>\"]"),
    ("a", "publish = [\"o.x\"]\nrequest = [\"o.x\"]"),
    ("a", "subscribe = [\"o.*.y\"]"),
    ("a", "subscribe = [\"o.>\"]"),
    ("b", "load = true\nidentity = [\"peer\", \"bundles\", \"validate\", \"read\"]"),
];

const RAW: [&str; 20] = [
    "permit (principal is Host::Component, action in Host::Action::\"network\", resource in Host::DnsZone::\"zone\")",
    "permit (principal == Host::Component::\"demo:a\", action in Host::Action::\"network\", resource in Host::DnsZone::\"zone\") when { context.method == \"PUT\" }",
    "permit (principal in Host::SignerGroup::\"ci\", action in Host::Action::\"network\", resource == Host::Destination::\"https://x.zone:443\")",
    "permit (principal is Host::Component, action == Host::Action::\"http.connect\", resource is Host::Destination) when { context.ip.isInRange(ip(\"10.0.0.0/8\")) }",
    "permit (principal is Host::Component, action == Host::Action::\"load\", resource is Host::Image) when { resource.digest == principal.digest }",
    "permit (principal is Host::Component, action in Host::Action::\"identity\", resource is Host::TrustDomain)",
    "permit (principal is Host::Component, action == Host::Action::\"svid.jwt\", resource is Host::Audience) when { context.ttl * 9223372036854775807 > 0 }",
    "permit (principal == Host::Component::\"demo:a\", action == Host::Action::\"svid.jwt\", resource == Host::Audience::\"v\")",
    "permit (principal is Host::Workload, action == Host::Action::\"call\", resource == Host::Component::\"demo:b\") when { principal.path like \"/ns\" }",
    "permit (principal is Host::Anonymous, action == Host::Action::\"call\", resource is Host::Component)",
    "permit (principal is Host::Component, action in Host::Action::\"messaging\", resource in Host::Subject::\"o.*\")",
    "permit (principal is Host::Component, action == Host::Action::\"link\", resource in Host::WitPackage::\"wasi:keyvalue\")",
    "permit (principal is Host::Operator, action in Host::Action::\"control\", resource == Host::Node::\"h1\")",
    "forbid (principal, action in Host::Action::\"network\", resource) when { context.method == \"PUT\" }",
    "forbid (principal in Host::SignerGroup::\"ci\", action, resource)",
    "forbid (principal, action == Host::Action::\"http.connect\", resource) unless { context.class == \"public\" }",
    "forbid (principal, action in Host::Action::\"control\", resource) when { context.component == \"demo:a\" }",
    "forbid (principal == Host::Component::\"demo:a\", action in Host::Action::\"identity\", resource)",
    "forbid (principal, action in Host::Action::\"messaging\", resource in Host::Subject::\"o.x\")",
    "forbid (principal, action == Host::Action::\"svid.jwt\", resource) when { Host::Component::\"demo:q\".digest == \"sha256:0000000000000000000000000000000000000000000000000000000000000000\" }",
];

fn asked() -> Vec<Question> {
    let text = r#"[
        {"action": "load"}, {"action": "link", "interface": "wasi:keyvalue/store"},
        {"action": "link", "interface": "wasi:keyvalue/batch"}, {"action": "link", "interface": "wasi:io/streams"},
        {"action": "link", "interface": "wasi:http/outgoing-handler"}, {"action": "link", "interface": "portcullis:identity/jwt"},
        {"action": "http.send", "destination": "https://x.zone"}, {"action": "http.send", "destination": "http://x.zone"},
        {"action": "http.send", "destination": "https://y.zone", "method": "PUT"},
        {"action": "http.connect", "destination": "https://x.zone", "address": "1.1.1.1:443"},
        {"action": "http.connect", "destination": "https://x.zone", "address": "10.0.0.9:443"},
        {"action": "http.connect", "destination": "https://x.zone", "address": "10.0.9.9:443"},
        {"action": "http.connect", "destination": "https://x.zone", "address": "192.168.0.9:443"},
        {"action": "http.connect", "destination": "http://10.0.0.5", "address": "10.0.0.5:80"},
        {"action": "svid.jwt", "audience": "v"}, {"action": "svid.jwt", "audience": "w"},
        {"action": "svid.x509"}, {"action": "svid.validate"}, {"action": "identity.read"}, {"action": "bundle.read"},
        {"action": "peer.read"}, {"action": "svid.sign", "purpose": "receipts"}, {"action": "svid.export"},
        {"action": "call", "caller": "anonymous"}, {"action": "call", "caller": "spiffe://demo.example/ns/demo/sa/a"},
        {"action": "publish", "subject": "o.x"}, {"action": "publish", "subject": "o.q"},
        {"action": "publish", "subject": "o.q.r"}, {"action": "request", "subject": "o.x"},
        {"action": "subscribe", "subject": "o.x.y"}, {"action": "subscribe", "subject": "o.*.y"}, {"action": "subscribe", "subject": "o.>"}
    ]"#;
    serde_json::from_str(text).unwrap()
}

/// Which of the parts a set has.
#[derive(Debug, Clone, PartialEq)]
struct Parts {
    grants: Vec<usize>,
    raw: Vec<usize>,
    operators: Vec<usize>,
}

impl Parts {
    fn random(random: &mut Random) -> Self {
        let mut some = |of: usize, one_in: usize| (0..of).filter(|_| random.below(one_in) == 0).collect();
        Self { grants: some(GRANTS.len(), 4), raw: some(RAW.len(), 6), operators: some(3, 2) }
    }

    /// A few parts more or fewer.
    fn changed(&self, random: &mut Random) -> Self {
        let mut parts = self.clone();
        for _ in 0..=random.below(3) {
            let (list, of) = match random.below(5) {
                0 => (&mut parts.operators, 3),
                1 | 2 => (&mut parts.raw, RAW.len()),
                _ => (&mut parts.grants, GRANTS.len()),
            };
            let one = random.below(of);
            match list.iter().position(|own| *own == one) {
                Some(at) => drop(list.remove(at)),
                None => list.push(one),
            }
        }
        parts
    }

    fn set(&self) -> PolicySet {
        let grants: Vec<(&str, &str)> = self.grants.iter().map(|n| GRANTS[*n]).collect();
        let policies =
            self.raw.iter().map(|n| raw(&format!("raw-{n}"), &RAW[*n].replace("like", "=="))).collect::<String>();
        let operators = [
            OPERATOR.to_owned(),
            OPERATOR.replace("\"ann\"", "\"anns\"").replace("[\"h1\"]", "[\"*\"]"),
            OPERATOR
                .replace("\"ann\"", "\"all\"")
                .replace("[\"demo:a\"]", "[\"*\"]")
                .replace("\"start\"", "\"start\", \"revoke\""),
        ];
        let operators: String = self.operators.iter().map(|n| operators[*n].clone()).collect();
        with_operators(&grants, &policies, &operators)
    }
}

/// Whether the engine itself allows anything under the new set, or on lesser terms, that it did not under the old one.
fn really_more(old: &PolicySet, new: &PolicySet) -> Option<String> {
    for name in ["a", "b", "c"] {
        for group in ["team-demo", "ci"] {
            let facts = ComponentFacts { signer_group: group.to_owned(), ..facts(name) };
            let (before, after) = (old.slice(&facts), new.slice(&facts));
            for question in asked() {
                let allows = |slice: &crate::Slice| question.ask(slice).unwrap().outcome() == Outcome::Allow;
                let wider = || Terms::of(&question, &after).wider_than(&Terms::of(&question, &before)).is_some();
                if allows(&after) && (!allows(&before) || wider()) {
                    return Some(format!("{name} of {group}: {question:?}"));
                }
            }
        }
    }
    for (host, component) in [("h1", Some("demo:a")), ("h2", Some("demo:a")), ("h1", Some("demo:b")), ("h1", None)] {
        for action in ControlAction::ALL {
            for who in [Operator::Local(0), Operator::Signer("spiffe://demo.example/ops/ann".to_owned())] {
                let component = component.map(str::to_owned);
                let question = ControlQuestion { who, action, host: host.to_owned(), component };
                if new.control(&question).is_ok() && old.control(&question).is_err() {
                    return Some(format!("{question:?}"));
                }
            }
        }
    }
    None
}

#[test]
fn whatever_the_engine_allows_more_under_a_new_set_the_comparison_is_not_nothing() {
    let mut random = Random::new(5);
    let (mut more, mut nothing, mut nothing_said) = (0, 0, 0);
    for _ in 0..PAIRS {
        let parts = Parts::random(&mut random);
        let changed = parts.changed(&mut random);
        let (old, new) = (parts.set(), changed.set());
        let found = compare(&old, &new, &[facts("a")], &[]);
        match really_more(&old, &new) {
            Some(what) => {
                assert!(!found.allows_nothing_more(), "{what} is allowed unseen\n{parts:?}\n{changed:?}\n{found:#?}");
                more += 1;
            }
            None => {
                nothing += 1;
                nothing_said += usize::from(found.allows_nothing_more());
            }
        }
    }
    // A test in which nothing is ever allowed, or in which all changes were taken for wider, would show nothing.
    assert!(more > PAIRS / 5 && nothing > PAIRS / 5 && nothing_said > nothing / 3, "{more}, {nothing}, {nothing_said}");
}

#[test]
fn what_only_takes_away_ends_well() {
    let mut random = Random::new(6);
    for _ in 0..PAIRS / 4 {
        let mut parts = Parts::random(&mut random);
        // A peer that falls away, and a policy that fails, are in the way while they are there.
        parts.grants.retain(|n| !GRANTS[*n].1.contains("peer ="));
        parts.raw.retain(|n| RAW[*n].starts_with("permit") && !RAW[*n].contains('*'));
        let mut fewer = parts.clone();
        fewer.grants.retain(|_| random.below(3) > 0);
        fewer.raw.retain(|_| random.below(3) > 0);
        fewer.operators.retain(|_| random.below(3) > 0);
        let found = compare(&parts.set(), &fewer.set(), &[facts("a"), facts("b")], &[]);
        assert!(found.allows_nothing_more(), "{parts:?}\n{fewer:?}\n{found:#?}");
    }
}

const PAIRS: usize = 200;
