use std::net::{IpAddr, SocketAddr};

use cedar_policy::PolicyId;

use super::*;
use crate::denial::DenialKind;
use crate::limits::AUDIENCE_BYTES;
use crate::testing::{facts, grants, set, slice};
use crate::{PolicySet, Source, SourceKind};

mod reach;

fn url(text: &str) -> Destination {
    Destination::parse_url(text).unwrap()
}

fn address(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(text.parse::<IpAddr>().unwrap(), port)
}

fn code<A>(result: Result<Grant<A>, Denial>) -> String {
    match result {
        Ok(_) => "allowed".to_owned(),
        Err(denial) => denial.code().to_string(),
    }
}

#[test]
fn a_grant_of_one_component_never_helps_another() {
    let lines = [
        (
            "a",
            "load = true\nlink = [\"wasi:keyvalue/store\"]\nhttp = [\"https://vault.example\"]\nidentity = [\"read\", \"bundles\", \"peer\", \"x509\", \"validate\", \"export\"]\npurposes = [\"receipts\"]\naudiences = [\"vault\"]\ncallers = [\"anonymous\"]",
        ),
        ("b", "link = [\"wasi:sockets/tcp\"]"),
    ];
    let (a, b) = (slice(&lines, "", "a"), slice(&lines, "", "b"));
    let codes = |slice: &Slice| {
        [
            code(slice.load(&ImageFacts::default())),
            code(slice.link("wasi:keyvalue/store@0.2.0")),
            code(slice.link("wasi:http/outgoing-handler@0.2.3")),
            code(slice.http_send(&url("https://vault.example"), "GET")),
            code(slice.svid_jwt("vault", 60)),
            code(slice.svid_x509(60)),
            code(slice.identity(IdentityAction::Read)),
            code(slice.identity(IdentityAction::Validate)),
            code(slice.identity(IdentityAction::X509Chain)),
            code(slice.identity(IdentityAction::Bundles)),
            code(slice.identity(IdentityAction::Peer)),
            code(slice.identity(IdentityAction::Export)),
            code(slice.svid_sign("receipts")),
            code(slice.call(&Caller::Anonymous)),
        ]
    };
    assert_eq!(codes(&a), ["allowed"; 14]);
    assert_eq!(
        codes(&b),
        [
            "A0201", "L0201", "L0201", "N0201", "I0201", "I0202", "I0203", "I0203", "I0202", "I0203", "I0203", "I0205",
            "I0204", "C0201"
        ]
    );
}

#[test]
fn without_sources_everything_is_denied() {
    let empty = |text: &str| Source { name: "g".to_owned(), text: text.to_owned(), kind: SourceKind::Grants };
    for set in [
        PolicySet::deny_all(1),
        PolicySet::compile(&[], 1).unwrap(),
        PolicySet::compile(&[empty(""), empty("version = 1")], 1).unwrap(),
    ] {
        let slice = set.slice(&facts("a"));
        assert_eq!(slice.policies(), 8, "the guards");
        assert_eq!(code(slice.load(&ImageFacts::default())), "A0201");
        assert_eq!(code(slice.http_send(&url("https://a.example"), "GET")), "N0201");
        assert_eq!(code(slice.svid_jwt("a", 60)), "I0201");
        assert_eq!(code(slice.svid_x509(60)), "I0202");
        assert_eq!(code(slice.identity(IdentityAction::Read)), "I0203");
        assert_eq!(code(slice.call(&Caller::Anonymous)), "C0201");
        let link = slice.link("wasi:io/streams@0.2.3").unwrap_err();
        assert!(
            link.edit().unwrap().load && link.edit().unwrap().link.is_empty(),
            "the baseline comes with the first grant"
        );
    }
}

#[test]
fn the_baseline_is_linked_and_everything_else_needs_a_grant() {
    let slice = slice(&[("a", "load = true")], "", "a");
    for interface in [
        "wasi:io/streams@0.2.3",
        "wasi:io/poll",
        "wasi:random/insecure-seed@0.2.0",
        "wasi:clocks/monotonic-clock@0.2.3",
        "wasi:clocks/wall-clock@0.2.3",
        "wasi:cli/environment@0.2.3",
        "wasi:cli/exit@0.2.3",
        "wasi:cli/terminal-stdout@0.2.3",
        "wasi:filesystem/preopens@0.2.3",
        "wasi:http/types@0.2.3",
    ] {
        let grant = slice.link(interface).unwrap();
        assert_eq!((grant.interface(), grant.policies().collect::<Vec<_>>()), (interface, vec!["baseline"]));
    }
    for interface in [
        "wasi:http/outgoing-handler@0.2.3",
        "wasi:sockets/tcp@0.2.3",
        "wasi:keyvalue/store@0.2.0",
        "wasi:blobstore/container",
        "wasi:cli/run",
        "wasi:clocks/timezone",
        "wasmcloud:identity/store@0.0.1",
        "portcullis:identity/jwt@0.1.0",
        "wasi:io-more/streams",
    ] {
        assert_eq!(code(slice.link(interface)), "L0201", "{interface}");
    }
    for interface in ["", "env", "wasi:http", "wasi:io/streams@", "wasi:io/*", "wasi:io/streams\n", &"a".repeat(300)] {
        assert_eq!(code(slice.link(interface)), "L0309", "{interface}");
    }
}

#[test]
fn lives_of_svids_are_capped_and_positive() {
    let slice = slice(
        &[("a", "audiences = [\"short\"]\nmax_ttl = \"90s\""), ("a", "audiences = [\"plain\"]\nidentity = [\"x509\"]")],
        "",
        "a",
    );
    assert_eq!(slice.svid_jwt("short", 60).unwrap().ttl_secs(), 60);
    assert_eq!(slice.svid_jwt("short", 300).unwrap().ttl_secs(), 90);
    assert_eq!(slice.svid_jwt("plain", u64::MAX).unwrap().ttl_secs(), 300);
    assert_eq!(code(slice.svid_jwt("plain", 0)), "I0307");
    assert_eq!(code(slice.svid_x509(0)), "I0307");
    assert_eq!(slice.svid_x509(u64::MAX).unwrap().ttl_secs(), 3_600);
}

#[test]
fn grants_that_permit_the_same_are_all_named_and_the_widest_limit_holds() {
    let peer = "spiffe://demo.example/ns/demo/sa/vault";
    let pinned = format!("http = [\"https://x.example\"]\naddresses = [\"loopback\"]\npeer = \"{peer}\"");
    let lines = [
        ("a", "audiences = [\"vault\"]\nmax_ttl = \"90s\""),
        ("b", "audiences = [\"vault\"]\nmax_ttl = \"1h\""),
        ("a", "audiences = [\"vault\", \"bank\"]\nmax_ttl = \"10m\""),
        ("a", "http = [\"https://x.example\"]"),
        ("a", &pinned),
    ];
    let (a, b) = (slice(&lines, "", "a"), slice(&lines, "", "b"));
    let ids = |grant: Vec<&str>| grant.join(" ");
    let vault = a.svid_jwt("vault", 3_600).unwrap();
    assert_eq!((ids(vault.policies().collect()).as_str(), vault.ttl_secs()), ("a-0 a-2", 600));
    let bank = a.svid_jwt("bank", 3_600).unwrap();
    assert_eq!((ids(bank.policies().collect()).as_str(), bank.ttl_secs()), ("a-2", 600));
    let of_b = b.svid_jwt("vault", 3_600).unwrap();
    assert_eq!((ids(of_b.policies().collect()).as_str(), of_b.ttl_secs()), ("b-1", 3_600));
    assert_eq!(code(b.svid_jwt("bank", 60)), "I0201");
    // The second time it is remembered: the same is said of it.
    for _ in 0..2 {
        let send = a.http_send(&url("https://x.example"), "GET").unwrap();
        assert_eq!((ids(send.policies().collect()).as_str(), send.peer()), ("a-3 a-4", Some(peer)));
        // Each grant opens its own addresses, and no other's.
        let near = a.http_connect(&send, address("127.0.0.1", 443)).unwrap();
        assert_eq!(ids(near.policies().collect()), "a-4");
        assert_eq!(a.http_connect(&send, address("8.8.8.8", 443)).unwrap().policies().count(), 2);
    }
}

#[test]
fn what_is_malformed_or_over_its_limit_is_forbidden() {
    let slice = slice(&[("a", "load = true\nhttp = [\"https://x.example\"]")], "", "a");
    for audience in ["", "a b", "a\n", "ü", &"a".repeat(AUDIENCE_BYTES + 1)] {
        assert_eq!(code(slice.svid_jwt(audience, 60)), "I0309", "{audience}");
    }
    assert_eq!(code(slice.svid_jwt(&"a".repeat(AUDIENCE_BYTES), 60)), "I0201");
    assert_eq!(code(slice.http_send(&url("https://x.example"), "")), "N0309");
    assert_eq!(code(slice.http_send(&url("https://x.example"), &"G".repeat(METHOD_BYTES + 1))), "N0309");
    assert_eq!(code(slice.http_send(&url("https://x.example"), &"G".repeat(METHOD_BYTES))), "allowed");
    let image = |n: usize| ImageFacts { imports: vec!["wasi:io/poll".to_owned(); n], expired: false };
    assert_eq!(code(slice.load(&image(IMAGE_IMPORTS))), "allowed");
    assert_eq!(code(slice.load(&image(IMAGE_IMPORTS + 1))), "A0309");
    for caller in ["", "anyone", "spiffe://x", "spiffe://demo.example/a/"] {
        assert_eq!(code(slice.call(&Caller::Workload(caller.to_owned()))), "C0309", "{caller}");
    }
}

#[test]
fn expired_claims_are_not_loaded() {
    let slice = slice(&[("a", "load = true")], "", "a");
    let image = ImageFacts { imports: vec![], expired: true };
    assert_eq!(slice.load(&image).unwrap_err().guard(), Some("guard.expired-claims"));
}

#[test]
fn callers_are_told_apart() {
    let id = |name: &str| Caller::Workload(format!("spiffe://demo.example/ns/demo/sa/{name}"));
    let slice = slice(&[("a", "callers = [\"spiffe://demo.example/ns/demo/sa/greeter\"]")], "", "a");
    for _ in 0..2 {
        assert_eq!(code(slice.call(&id("greeter"))), "allowed");
        assert_eq!(code(slice.call(&id("other"))), "C0201");
        assert_eq!(code(slice.call(&id("a"))), "C0201", "not even itself");
        assert_eq!(code(slice.call(&Caller::Anonymous)), "C0201");
        // The word must not be taken for the one without identity, nor the other way round.
        assert_eq!(code(slice.call(&Caller::Workload("anonymous".to_owned()))), "C0309");
    }
    let open = crate::testing::slice(&[("a", "callers = [\"anonymous\"]")], "", "a");
    assert_eq!(open.call(&Caller::Anonymous).unwrap().caller(), "anonymous");
    assert_eq!(code(open.call(&Caller::Workload("anonymous".to_owned()))), "C0309");
    assert_eq!(code(open.call(&id("greeter"))), "C0201");
}

#[test]
fn a_trust_domain_can_be_let_in_by_raw_cedar() {
    let raw = "@id(\"p\") @reason(\"r\") @owner(\"o\")\n\
        permit (principal in Host::TrustDomain::\"partner.example\", action == Host::Action::\"call\", resource == Host::Component::\"demo:a\");";
    let (a, b) = (slice(&[], raw, "a"), slice(&[], raw, "b"));
    let partner = Caller::Workload("spiffe://partner.example/x".to_owned());
    assert_eq!(code(a.call(&partner)), "allowed");
    assert_eq!(code(a.call(&Caller::Workload("spiffe://demo.example/x".to_owned()))), "C0201");
    assert_eq!(code(b.call(&partner)), "C0201");
}

#[test]
fn an_operators_forbid_beats_every_grant() {
    let raw = "@id(\"no-delete\") @reason(\"nothing is deleted from here\") @owner(\"ops\")\n\
        forbid (principal, action == Host::Action::\"http.send\", resource) when { context.method == \"DELETE\" };";
    let slice = slice(&[("a", "http = [\"https://x.example\"]")], raw, "a");
    assert_eq!(code(slice.http_send(&url("https://x.example"), "GET")), "allowed");
    let denial = slice.http_send(&url("https://x.example"), "DELETE").unwrap_err();
    assert_eq!(
        (denial.code().to_string(), denial.guard(), denial.edit()),
        ("N0390".to_owned(), Some("no-delete"), None)
    );
}

#[test]
fn a_policy_that_fails_takes_every_permit_with_it() {
    // The guard overflows for a large ttl: Cedar would skip it and let the permit win.
    let raw = "@id(\"broken\") @reason(\"r\") @owner(\"o\")\n\
        forbid (principal, action == Host::Action::\"svid.jwt\", resource) when { context.ttl + 9223372036854775000 < 0 };";
    let slice = slice(&[("a", "audiences = [\"vault\"]")], raw, "a");
    assert_eq!(code(slice.svid_jwt("vault", 60)), "allowed");
    let denial = slice.svid_jwt("vault", 900).unwrap_err();
    assert_eq!(
        (denial.code().to_string(), denial.kind(), denial.edit()),
        ("I0102".to_owned(), DenialKind::CannotDecide, None)
    );
}

#[test]
fn facts_that_cannot_be_decided_on_are_denied_everything() {
    let set = set(&[("a", "load = true\nhttp = [\"https://x.example\"]\ncallers = [\"anonymous\"]")], "");
    let mut bad = facts("a");
    bad.spiffe_id = "not an id".to_owned();
    let slice = set.slice(&bad);
    assert_eq!(code(slice.load(&ImageFacts::default())), "A0103");
    assert_eq!(code(slice.http_send(&url("https://x.example"), "GET")), "N0103");
    assert_eq!(code(slice.link("wasi:io/poll")), "L0103");
    assert_eq!(code(slice.svid_x509(60)), "I0103");
    assert_eq!(code(slice.call(&Caller::Anonymous)), "C0103");
}

#[test]
fn signing_and_the_export_are_rights_of_their_own_and_a_purpose_is_compared_whole() {
    let signer = slice(&[("a", "purposes = [\"receipts\"]")], "", "a");
    assert_eq!(signer.svid_sign("receipts").unwrap().purpose(), "receipts");
    for other in ["receipt", "receipts2", "orders", &"r".repeat(64)] {
        assert_eq!(code(signer.svid_sign(other)), "I0204", "{other}");
    }
    for malformed in ["", "Receipts", "receipts\0", "re ceipts", "receipts\n", &"r".repeat(65)] {
        assert_eq!(signer.svid_sign(malformed).unwrap_err().kind(), DenialKind::Forbidden, "{malformed:?}");
    }
    assert_eq!(code(signer.link("portcullis:identity/signing@0.1.0")), "allowed");
    assert_eq!(code(signer.link("portcullis:identity/key-export@0.1.0")), "L0201");
    assert_eq!(code(signer.identity(IdentityAction::Export)), "I0205");
    assert_eq!(code(signer.svid_x509(60)), "I0202");
    let exporter = slice(&[("a", "identity = [\"export\"]")], "", "a");
    assert_eq!(code(exporter.identity(IdentityAction::Export)), "allowed");
    assert_eq!(code(exporter.link("portcullis:identity/key-export@0.1.0")), "allowed");
    assert_eq!(code(exporter.svid_sign("receipts")), "I0204");
    let rights = "identity = [\"read\", \"bundles\", \"peer\", \"x509\", \"validate\"]\npurposes = [\"receipts\"]";
    let everything_else = slice(&[("a", rights)], "", "a");
    assert_eq!(code(everything_else.identity(IdentityAction::Export)), "I0205", "no other right brings the key");
    assert_eq!(code(everything_else.link("portcullis:identity/key-export@0.1.0")), "L0201");
}

#[test]
fn callers_and_peers_may_be_of_a_foreign_trust_domain_and_are_compared_whole() {
    let foreign = "spiffe://partner.example/ns/pay/sa/ledger";
    let lines = format!("http = [\"https://ledger.example\"]\npeer = \"{foreign}\"\ncallers = [\"{foreign}\"]");
    let slice = slice(&[("a", &lines)], "", "a");
    assert_eq!(slice.http_send(&url("https://ledger.example"), "GET").unwrap().peer(), Some(foreign));
    assert_eq!(code(slice.call(&Caller::Workload(foreign.to_owned()))), "allowed");
    for other in [
        "spiffe://demo.example/ns/pay/sa/ledger",
        "spiffe://partner.example.evil.example/ns/pay/sa/ledger",
        "spiffe://partner.example/ns/pay/sa/ledger2",
    ] {
        assert_eq!(code(slice.call(&Caller::Workload(other.to_owned()))), "C0201", "{other}");
    }
}

/// Audit mode lets through what nobody granted, and nothing else.
#[test]
fn audit_mode_allows_what_nobody_granted_and_holds_the_refusal() {
    let raw = "@id(\"closed\") @reason(\"r\") @owner(\"o\")\nforbid (principal, action == Host::Action::\"svid.jwt\", resource == Host::Audience::\"bank\");";
    let set = set(&[("a", "load = true\naudiences = [\"vault\"]")], raw);
    let (strict, audited) = (set.slice(&facts("a")), set.audited_slice(&facts("a")));
    assert!(!strict.is_audited() && audited.is_audited());
    let granted = audited.svid_jwt("vault", 60).unwrap();
    assert!(granted.instead_of().is_none(), "what is granted is granted");
    for audience in ["other", "third"] {
        let through = audited.svid_jwt(audience, 60).unwrap();
        let refused = strict.svid_jwt(audience, 60).unwrap_err();
        assert_eq!(through.instead_of().map(|denial| denial.code()), Some(refused.code()));
        assert_eq!(through.policies().collect::<Vec<_>>(), ["audit:mode"]);
    }
    let destination = Destination::parse_url("http://127.0.0.1:9").unwrap();
    let send = audited.http_send(&destination, "GET").unwrap();
    assert!(send.instead_of().is_some());
    assert!(audited.http_connect(&send, "127.0.0.1:9".parse().unwrap()).unwrap().instead_of().is_some());
    assert!(audited.link("wasi:keyvalue/store@0.2.0").unwrap().instead_of().is_some());
    assert!(audited.call(&Caller::Anonymous).unwrap().instead_of().is_some());
    // Guards, an operator's `forbid`, admission and private keys.
    assert_eq!(audited.svid_jwt("bank", 60).unwrap_err().kind(), DenialKind::Forbidden);
    let metadata = Destination::parse_url("http://169.254.169.254").unwrap();
    assert_eq!(audited.http_send(&metadata, "GET").unwrap_err().kind(), DenialKind::Forbidden);
    assert_eq!(audited.svid_jwt("vault", 0).unwrap_err().kind(), DenialKind::Forbidden);
    assert_eq!(audited.identity(IdentityAction::Export).unwrap_err().kind(), DenialKind::NoGrant);
    let stranger = set.audited_slice(&facts("b"));
    assert_eq!(stranger.load(&ImageFacts::default()).unwrap_err().kind(), DenialKind::NoGrant);
}

/// What cannot be decided is refused in audit mode, too.
#[test]
fn audit_mode_does_not_let_failures_through() {
    let broken = "@id(\"broken\") @reason(\"r\") @owner(\"o\")\nforbid (principal is Host::Component, action == Host::Action::\"svid.jwt\", resource is Host::Audience) when { 9223372036854775807 + (if resource == resource then 1 else 2) > 0 };";
    let audited = set(&[("a", "load = true")], broken).audited_slice(&facts("a"));
    assert_eq!(audited.svid_jwt("x", 60).unwrap_err().kind(), DenialKind::CannotDecide);
    let mut unknown = facts("a");
    unknown.digest = String::new();
    let audited = set(&[("a", "load = true")], "").audited_slice(&unknown);
    assert_eq!(audited.svid_jwt("x", 60).unwrap_err().kind(), DenialKind::CannotDecide);
}
