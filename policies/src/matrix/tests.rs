use super::render::{csv_field, escape};
use super::*;
use crate::testing::{facts, set};

fn matrix() -> Matrix {
    let lines = [
        ("a", "load = true\nhttp = [\"https://api.example\"]\naudiences = [\"vault\"]"),
        ("b", "callers = [\"spiffe://demo.example/ns/demo/sa/a\"]\nidentity = [\"read\"]"),
    ];
    let raw = "@id(\"no-call\") @reason(\"closed\") @owner(\"o\")\nforbid (principal, action == Host::Action::\"call\", resource == Host::Component::\"demo:b\");";
    Matrix::new(&set(&lines, raw), &["a", "b", "c"].map(|name| Known::whole(facts(name))))
}

fn cell<'a>(matrix: &'a Matrix, action: &str, resource: &str, component: usize) -> &'a Cell {
    let row = matrix.rows.iter().find(|row| row.question.action() == action && row.resource == resource);
    &row.unwrap_or_else(|| panic!("no row {action} {resource}")).cells[component]
}

#[test]
fn what_one_was_granted_is_asked_for_everybody() {
    let matrix = matrix();
    assert_eq!(cell(&matrix, "http.send", "https://api.example", 0).why, "a-0");
    assert_eq!(cell(&matrix, "http.send", "https://api.example", 1).outcome, Outcome::NoGrant);
    assert_eq!(cell(&matrix, "svid.jwt", "vault", 2).outcome, Outcome::NoGrant);
    assert_eq!(cell(&matrix, "identity.read", "", 1).outcome, Outcome::Allow);
    // A `forbid` of the operator shows where a grant alone would allow.
    assert_eq!(cell(&matrix, "call", "spiffe://demo.example/ns/demo/sa/a", 1).outcome, Outcome::Forbidden);
    assert_eq!(matrix.to_text().matches("nothing").count(), 1, "{}", matrix.to_text());
}

#[test]
fn tables_are_the_same_each_time_and_hold_every_cell() {
    let (one, two) = (matrix(), matrix());
    assert_eq!(one.to_csv(), two.to_csv());
    assert_eq!(one.to_csv().lines().count(), 1 + one.rows.len() * 3 + one.written.len());
    assert_eq!(one.to_html(), two.to_html());
    let order = |row: &Row| (row.question.action() == "load", row.resource.clone());
    assert!(order(&one.rows[0]).0, "{:?}", one.rows[0]);
}

const PERMIT: &str = "@id(\"pg\") @reason(\"r\") @owner(\"o\")\npermit (principal == Host::Component::\"demo:a\", action in Host::Action::\"network\", resource in Host::DnsZone::\"internal\");\n";
const ANYBODY: &str = "@id(\"all\") @reason(\"r\") @owner(\"o\") @peer(\"spiffe://demo.example/x\")\npermit (principal is Host::Component, action == Host::Action::\"http.send\", resource is Host::Destination) when { context.method == \"PUT\" };\n";

#[test]
fn what_raw_policies_permit_has_rows_as_questions_and_as_it_is_written() {
    let set = set(&[], &format!("{PERMIT}{ANYBODY}"));
    let matrix = Matrix::new(&set, &[Known::whole(facts("a"))]);
    let text = matrix.to_text();
    for line in [
        "  http.send     https://internal  [pg]",
        "  http.connect  https://internal at public addresses  [pg]",
        "  permit        permit(principal == Host::Component::\"demo:a\", action in [Host::Action::\"network\"], resource in Host::DnsZone::\"internal\");  [pg raw.cedar]",
        "written about others, or about all",
        "when { context.method == \"PUT\" };  [all raw.cedar]",
        "  permit        @peer(\"spiffe://demo.example/x\") permit",
    ] {
        assert!(text.replace("permit (", "permit(").contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("nothing"), "{text}");
    let (csv, page) = (matrix.to_csv(), matrix.to_html());
    assert!(
        csv.contains("demo:a,permit,") && csv.contains(",written,pg raw.cedar") && csv.contains("\r\n,permit,"),
        "{csv}"
    );
    assert!(
        page.contains("<th class=\"permit\">permit</th>") && page.contains("Host::DnsZone::&quot;internal&quot;"),
        "{page}"
    );
}

#[test]
fn addresses_peers_and_lives_show_with_the_components_that_have_them() {
    let http = |rest: &str| format!("http = [\"https://pay.example\"]\naudiences = [\"v\"]\n{rest}");
    let (a, b) = (
        http("addresses = [\"10.1.0.0/24\"]\npeer = \"spiffe://demo.example/pay\"\nmax_ttl = \"1m\""),
        http("addresses = [\"10.1.0.0/16\", \"loopback\"]"),
    );
    let matrix = Matrix::new(&set(&[("a", &a), ("b", &b)], ""), &["a", "b"].map(|name| Known::whole(facts(name))));
    let outcomes = |resource: &str| [0, 1].map(|n| cell(&matrix, "http.connect", resource, n).outcome);
    assert_eq!(outcomes("https://pay.example at public addresses"), [Outcome::Allow, Outcome::Allow]);
    assert_eq!(outcomes("https://pay.example at 10.1.0.0/24"), [Outcome::Allow, Outcome::Allow]);
    assert_eq!(outcomes("https://pay.example at 10.1.0.0/16"), [Outcome::NoGrant, Outcome::Allow]);
    assert_eq!(outcomes("https://pay.example at loopback"), [Outcome::NoGrant, Outcome::Allow]);
    let text = matrix.to_text();
    assert!(text.contains("https://pay.example  [a-0; peer spiffe://demo.example/pay]"), "{text}");
    assert!(text.contains("v  [a-0; up to 60 s]") && text.contains("v  [b-1; up to 300 s]"), "{text}");
}

#[test]
fn a_right_that_rests_on_what_is_not_known_says_so() {
    let raw = "@id(\"grp\") @reason(\"r\") @owner(\"o\")\npermit (principal in Host::SignerGroup::\"ci\", action in Host::Action::\"network\", resource == Host::Destination::\"https://grp:443\");\n";
    let set = set(&[("a", "load = true")], raw);
    let named = Known::named("demo:a", "spiffe://demo.example/ns/demo/sa/a");
    let text = Matrix::new(&set, std::slice::from_ref(&named)).to_text();
    assert!(text.contains("  http.send     https://grp  [not known: signer group]"), "{text}");
    assert!(text.contains("  load            [a-0]"), "{text}");
    let known = Matrix::new(&set, &[named.with(Fact::SignerGroup, "ci")]).to_text();
    assert!(known.contains("  http.send     https://grp  [grp]"), "{known}");
}

#[test]
fn text_from_outside_is_escaped_on_the_page_and_in_fields() {
    assert_eq!(escape("<a b=\"'&\">"), "&lt;a b=&quot;&#39;&amp;&quot;&gt;");
    assert_eq!(csv_field("=cmd()"), "'=cmd()");
    assert_eq!(csv_field("a,\"b\""), "\"a,\"\"b\"\"\"");
}
