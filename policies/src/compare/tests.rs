use super::*;
use crate::source::{Source, SourceKind};
use crate::testing::{facts, set};

#[test]
fn a_change_shows_what_is_newly_allowed_and_what_is_newly_denied() {
    let old = set(&[("a", "http = [\"https://old.example\"]\ncallers = [\"anonymous\"]")], "");
    let new = set(&[("a", "http = [\"https://new.example\"]\ncallers = [\"anonymous\"]")], "");
    let asked = Question::HttpSend { destination: "https://new.example".to_owned(), method: "GET".to_owned() };
    let recorded =
        [Recorded { facts: facts("a"), question: asked.clone() }, Recorded { facts: facts("b"), question: asked }];
    let found = compare(&old, &new, &[facts("a"), facts("b")], &recorded);
    // Each destination is asked about before it is resolved, and when it is dialled.
    let sends = |changes: &[Change]| -> Vec<Change> {
        assert_eq!(changes.len(), 2, "{changes:#?}");
        changes.iter().filter(|change| change.question.action() == "http.send").cloned().collect()
    };
    let (allowed, denied) = (sends(&found.newly_allowed), sends(&found.newly_denied));
    let [allowed] = allowed.as_slice() else { panic!("{found:#?}") };
    assert_eq!((allowed.component.as_str(), allowed.recorded, allowed.why.as_str()), ("demo:a", 1, "a-0"));
    let [denied] = denied.as_slice() else { panic!("{found:#?}") };
    assert_eq!((denied.question.resource().as_str(), denied.recorded), ("https://old.example", 0));
    assert!(found.asked >= 10, "{}", found.asked);
}

#[test]
fn a_set_differs_in_nothing_from_itself() {
    let one = set(&[("a", "load = true\naudiences = [\"x\"]")], "");
    let found = compare(&one, &one, &[facts("a")], &[]);
    assert!(found.newly_allowed.is_empty() && found.newly_denied.is_empty() && found.asked > 0);
}

pub(super) fn raw(id: &str, policy: &str) -> String {
    format!("@id(\"{id}\") @reason(\"r\") @owner(\"o\") {policy};\n")
}

fn between(old: (&[(&str, &str)], &str), new: (&[(&str, &str)], &str)) -> Comparison {
    compare(&set(old.0, old.1), &set(new.0, new.1), &[facts("a"), facts("b")], &[])
}

fn said(found: &Comparison) -> String {
    found.unjudged.iter().map(Widening::text).collect::<Vec<_>>().join("\n")
}

const ALL_KINDS: [&str; 9] = [
    "permit (principal is Host::Component, action in Host::Action::\"network\", resource is Host::Destination)",
    "permit (principal is Host::Component, action == Host::Action::\"http.connect\", resource is Host::Destination)",
    "permit (principal is Host::Component, action == Host::Action::\"load\", resource is Host::Image)",
    "permit (principal is Host::Component, action == Host::Action::\"svid.export\", resource is Host::TrustDomain)",
    "permit (principal in Host::SignerGroup::\"ci\", action in Host::Action::\"network\", resource is Host::Destination)",
    "permit (principal == Host::Component::\"demo:z\", action in Host::Action::\"network\", resource in Host::DnsZone::\"x\")",
    "permit (principal == Host::Component::\"demo:a\", action == Host::Action::\"svid.jwt\", resource == Host::Audience::\"n\")",
    "permit (principal is Host::Operator, action in Host::Action::\"control\", resource is Host::Node)",
    "permit (principal is Host::Anonymous, action == Host::Action::\"call\", resource is Host::Component)",
];

#[test]
fn every_raw_permit_that_is_new_or_changed_wants_to_be_looked_at() {
    let grants: &[(&str, &str)] = &[("a", "load = true")];
    for policy in ALL_KINDS {
        let (with, narrower) = (raw("p", policy), raw("p", &format!("{policy} when {{ resource == resource }}")));
        let added = between((grants, ""), (grants, &with));
        assert!(said(&added).contains("permit `p` (raw.cedar:1) is new"), "{policy}: {added:#?}");
        let changed = between((grants, &narrower), (grants, &with));
        assert!(said(&changed).contains("permit `p` (raw.cedar:1) is changed"), "{policy}: {changed:#?}");
        // The same under another name, in another place, is the same.
        let renamed = format!("// moved\n\n{}", raw("q", policy));
        assert!(between((grants, &with), (grants, &renamed)).allows_nothing_more(), "{policy}");
        // Taking it away takes away.
        assert!(between((grants, &with), (grants, "")).allows_nothing_more(), "{policy}");
    }
    let shown = between((grants, ""), (grants, &raw("p", ALL_KINDS[0])));
    let changes: Vec<&str> = shown.newly_allowed.iter().map(|change| change.question.action()).collect();
    assert!(changes.contains(&"http.send") && changes.contains(&"http.connect"), "{shown:#?}");
}

#[test]
fn a_forbid_that_is_gone_or_changed_wants_to_be_looked_at_and_a_new_one_does_not() {
    let grants: &[(&str, &str)] = &[("a", "http = [\"https://pay.example\"]")];
    let forbid =
        raw("f", "forbid (principal, action in Host::Action::\"network\", resource in Host::DnsZone::\"example\")");
    let less = forbid.replace(";", " when { context.method == \"PUT\" };");
    let gone = between((grants, &forbid), (grants, ""));
    assert_eq!(said(&gone), "forbid `f` (raw.cedar:1) is gone");
    assert!(gone.newly_allowed.iter().any(|change| change.question.action() == "http.send"), "{gone:#?}");
    assert_eq!(said(&between((grants, &forbid), (grants, &less))), "forbid `f` (raw.cedar:1) is changed");
    assert!(between((grants, ""), (grants, &forbid)).allows_nothing_more());
}

#[test]
fn demands_of_grants_are_compared_with_what_was_demanded() {
    let wider = |old: &str, new: &str| {
        let with = |rest: &str| {
            format!("http = [\"https://pay.example\"]\naudiences = [\"v\"]\nidentity = [\"x509\"]\n{rest}")
        };
        let found = between((&[("a", &with(old))], ""), (&[("a", &with(new))], ""));
        assert_eq!(found.allows_nothing_more(), found.newly_allowed.is_empty() && found.unjudged.is_empty());
        !found.allows_nothing_more()
    };
    let peer = |name: &str| format!("peer = \"spiffe://demo.example/{name}\"");
    for (old, new) in [
        ("addresses = [\"10.0.0.0/24\"]".to_owned(), "addresses = [\"10.0.0.0/16\"]".to_owned()),
        ("addresses = [\"10.0.0.0/24\"]".to_owned(), "addresses = [\"10.0.0.0/24\", \"private\"]".to_owned()),
        (String::new(), "addresses = [\"192.168.0.0/16\"]".to_owned()),
        (peer("pay"), String::new()),
        (peer("pay"), peer("other")),
        ("max_ttl = \"1m\"".to_owned(), "max_ttl = \"1h\"".to_owned()),
        // What is not written is five minutes.
        ("max_ttl = \"1m\"".to_owned(), String::new()),
    ] {
        assert!(wider(&old, &new), "{old} -> {new}");
    }
    for (old, new) in [
        ("addresses = [\"10.0.0.0/16\"]".to_owned(), "addresses = [\"10.0.0.0/24\"]".to_owned()),
        ("addresses = [\"private\"]".to_owned(), "addresses = [\"10.0.0.0/24\"]".to_owned()),
        (String::new(), peer("pay")),
        ("max_ttl = \"1h\"".to_owned(), String::new()),
        ("max_ttl = \"5m\"".to_owned(), String::new()),
        ("max_ttl = \"5m\"".to_owned(), "max_ttl = \"1m\"".to_owned()),
    ] {
        assert!(!wider(&old, &new), "{old} -> {new}");
    }
}

#[test]
fn a_peer_that_nobody_demands_any_more_shows_where_anything_else_permits_the_same() {
    let pinned = ("a", "http = [\"https://pay.example\"]\npeer = \"spiffe://demo.example/pay\"");
    let plain = ("a", "http = [\"https://pay.example\"]");
    let zone = raw(
        "z",
        "permit (principal is Host::Component, action in Host::Action::\"network\", resource in Host::DnsZone::\"example\")",
    );
    let stays = between((&[plain, pinned], ""), (&[plain], ""));
    assert!(!stays.allows_nothing_more(), "{stays:#?}");
    let elsewhere = between((&[pinned], &zone), (&[], &zone));
    assert!(said(&elsewhere).contains("demanded spiffe://demo.example/pay") || !elsewhere.newly_allowed.is_empty());
    assert!(between((&[pinned], ""), (&[], "")).allows_nothing_more());
    let pin = format!("@peer(\"spiffe://demo.example/pay\") {zone}");
    assert!(said(&between((&[plain], &pin), (&[plain], ""))).contains("@peer"));
    assert!(between((&[], &pin), (&[], "")).allows_nothing_more());
}

#[test]
fn a_policy_that_fails_was_in_the_way() {
    let grants: &[(&str, &str)] = &[("a", "audiences = [\"v\"]")];
    let scope =
        "permit (principal is Host::Component, action == Host::Action::\"svid.jwt\", resource is Host::Audience)";
    let fails = raw("p", &format!("{scope} when {{ context.ttl * 9223372036854775807 > 1 }}"));
    assert!(said(&between((grants, &fails), (grants, ""))).contains("it could fail"));
    let absent = raw(
        "p",
        &format!(
            "{scope} when {{ Host::Component::\"demo:q\".digest == \"sha256:0000000000000000000000000000000000000000000000000000000000000000\" }}"
        ),
    );
    assert!(said(&between((grants, &absent), (grants, ""))).contains("it could fail"));
    let safe = raw("p", &format!("{scope} when {{ principal.workload.path == \"/x\" || context.ttl < 5 }}"));
    assert!(between((grants, &safe), (grants, "")).allows_nothing_more());
}

pub(super) const OPERATOR: &str = "[[operator]]\nid = \"ann\"\nreason = \"r\"\nowner = \"o\"\nwho = \"spiffe://demo.example/ops/ann\"\nhosts = [\"h1\"]\ncomponents = [\"demo:a\"]\nactions = [\"start\"]\n";

pub(super) fn with_operators(lines: &[(&str, &str)], raw: &str, operators: &str) -> PolicySet {
    let text = format!("{}\n{operators}", crate::testing::grants(lines));
    let sources = [
        Source { name: "grants.toml".to_owned(), text, kind: SourceKind::Grants },
        Source { name: "raw.cedar".to_owned(), text: raw.to_owned(), kind: SourceKind::Cedar },
    ];
    PolicySet::compile(&sources, 1).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn operators_get_nothing_unseen() {
    let set = |operators: &str| with_operators(&[], "", operators);
    let found = |old: &str, new: &str| compare(&set(old), &set(new), &[], &[]);
    let new = found("", OPERATOR);
    assert_eq!(said(&new), "operator `ann` (grants.toml:4) lets spiffe://demo.example/ops/ann start demo:a on h1");
    for (from, to) in [
        ("[\"h1\"]", "[\"*\"]"),
        ("[\"h1\"]", "[\"h1\", \"h2\"]"),
        ("[\"demo:a\"]", "[\"*\"]"),
        ("[\"start\"]", "[\"start\", \"revoke\"]"),
        ("ops/ann", "ops/bob"),
    ] {
        let wider = OPERATOR.replace(from, to);
        assert!(!found(OPERATOR, &wider).allows_nothing_more(), "{to}");
        assert_eq!(found(&wider, OPERATOR).allows_nothing_more(), to != "ops/bob", "{to}");
    }
}

#[test]
fn the_baseline_shows_where_the_first_thing_is_granted() {
    let forbid = raw("f", "forbid (principal, action == Host::Action::\"svid.export\", resource)");
    assert!(said(&between((&[], ""), (&[], &forbid))).starts_with("baseline `baseline`"));
}
