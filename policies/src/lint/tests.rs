use super::*;
use crate::limits::RAW_DEPTH;
use crate::shipped::{BASELINE, GUARDS};
use crate::source::SourceKind;

fn lint(text: &str) -> Result<Vec<Rule>, Vec<String>> {
    let engine = Engine::new().unwrap();
    let source = Source { name: "p.cedar".to_owned(), text: text.to_owned(), kind: SourceKind::Cedar };
    rules(&engine, &source, Kind::Raw).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

const HEAD: &str = "@id(\"p\") @reason(\"r\") @owner(\"o\")\n";
const SCOPE: &str =
    "principal is Host::Component, action == Host::Action::\"http.send\", resource is Host::Destination";

#[test]
fn a_well_formed_policy_passes_and_knows_its_scope() {
    let rules = lint(&format!(
        "// a comment\n{HEAD}permit (principal == Host::Component::\"demo:a\", action in Host::Action::\"network\", resource is Host::Destination)\n\
         when {{ resource in Host::DnsZone::\"pay.example\" }};"
    ))
    .unwrap();
    let [rule] = rules.as_slice() else { panic!("one rule") };
    assert_eq!(rule.actions, [Action::HttpSend, Action::HttpConnect]);
    assert_eq!(rule.component.as_deref(), Some("demo:a"));
    assert_eq!((rule.meta.id.as_str(), rule.meta.line), ("p", 2));
}

#[test]
fn the_shipped_policies_pass_their_own_lint() {
    let engine = Engine::new().unwrap();
    for (text, kind, count) in [(GUARDS, Kind::Guard, 8), (BASELINE, Kind::Baseline, 1)] {
        let source = Source { name: "shipped".to_owned(), text: text.to_owned(), kind: SourceKind::Cedar };
        assert_eq!(rules(&engine, &source, kind).unwrap().len(), count);
    }
}

#[test]
fn what_an_operator_would_regret_is_refused() {
    for (text, expected) in [
        (format!("permit ({SCOPE});"), "policy number 1: @id is missing"),
        (format!("@id(\"p\") @owner(\"o\") permit ({SCOPE});"), "@reason is missing"),
        (format!("@id(\"p\") @reason(\"r\") permit ({SCOPE});"), "@owner is missing"),
        (format!("@id(\"p\") @reason(\"\") @owner(\"o\") permit ({SCOPE});"), "@reason is missing"),
        (format!("@id(\"P q\") @reason(\"r\") @owner(\"o\") permit ({SCOPE});"), "@id is missing or malformed"),
        (format!("@danger(\"x\") {HEAD} permit ({SCOPE});"), "an annotation is unknown"),
        (format!("@peer(\"spiffe://x\") {HEAD} permit ({SCOPE});"), "@peer is no SPIFFE ID"),
        (format!("{} permit ({SCOPE});", HEAD.replace("\"p\"", "\"guard.metadata\"")), "this id is reserved"),
        (format!("{} permit ({SCOPE});", HEAD.replace("\"p\"", "\"baseline\"")), "this id is reserved"),
        (format!("{HEAD} permit (principal, action, resource);"), "leaves principal, action, resource open"),
        (
            format!("{HEAD} permit (principal is Host::Component, action, resource is Host::Destination);"),
            "leaves action open",
        ),
        (format!("{HEAD} permit ({SCOPE}) when {{ resource.host like \"*example.com\" }};"), "`like` is not taken"),
        (
            format!("{HEAD} permit ({SCOPE}) unless {{ if true then !(resource.host like \"*\") else false }};"),
            "`like` is not taken",
        ),
        (format!("{HEAD} permit ({SCOPE}) when {{ resource.prot == 1 }};"), "attribute `prot`"),
        (format!("{HEAD} permit ({SCOPE}) when {{ resource.host == 1 }};"), ""),
        (format!("{HEAD} permit ({SCOPE}) when {{ context.peer == \"x\" }};"), "attribute `peer`"),
        (format!("{HEAD} permit ({SCOPE}) when {{ false }};"), ""),
        (
            format!(
                "{HEAD} permit (principal is Host::Robot, action == Host::Action::\"link\", resource is Host::WitInterface);"
            ),
            "Robot",
        ),
        (
            format!(
                "{HEAD} permit (principal is Host::Component, action == Host::Action::\"fly\", resource is Host::WitInterface);"
            ),
            "fly",
        ),
        (
            format!(
                "{HEAD} permit (principal == ?principal, action == Host::Action::\"link\", resource is Host::WitInterface);"
            ),
            "templates",
        ),
        ("permit (".to_owned(), "p.cedar:1:"),
        ("when".to_owned(), "p.cedar:1:"),
    ] {
        let problems = lint(&text).map(|_| ()).expect_err(&text);
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{text}\n{problems:#?}");
    }
}

#[test]
fn a_record_or_a_literal_may_use_the_word_like() {
    let text = format!("{HEAD} permit ({SCOPE}) when {{ {{ \"like\": resource.host }}[\"like\"] == \"like\" }};");
    assert_eq!(lint(&text).map(drop), Ok(()));
}

#[test]
fn problems_name_their_place_and_their_policy_and_come_all_at_once() {
    let text = format!(
        "\n\n{HEAD}permit ({SCOPE})\nwhen {{ resource.prot == 1 }};\n\n// no id; here\nforbid ({SCOPE});\n\n\
         @id(\"q\") @reason(\"r\") @owner(\"o\")\nforbid (principal, action, resource in Host::DnsZone::\"Pay.example\");\n\
         {HEAD}forbid ({SCOPE});\n@id(\"n\") @reason(\"r\") @owner(\"o\") forbid ({SCOPE}) when {{ 1 == resource.host }};"
    );
    let problems = lint(&text).map(drop).unwrap_err();
    for (place, what) in [
        ("p.cedar:5:8: ", "policy `p`: "),
        ("p.cedar:8:1: ", "policy number 2: @id is missing"),
        ("p.cedar:11:", "Host::DnsZone::\"Pay.example\" matches nothing: the host writes it \"pay.example\""),
        ("p.cedar:12:1: ", "the id `p` is used already, at p.cedar:3"),
        ("p.cedar:14:", "policy `n`: "),
    ] {
        assert!(
            problems.iter().any(|one| one.starts_with(place) && one.contains(what)),
            "{place} {what} {problems:#?}"
        );
    }
}

#[test]
fn a_forbid_that_would_forbid_nothing_is_refused_in_scopes_and_in_conditions() {
    for (scope, condition, expected) in [
        ("principal, action, resource in Host::DnsZone::\"Shop.Example\"", "true", "write \"shop.example\""),
        ("principal == Host::Component::\"Shop:Orders\", action, resource", "true", "write \"shop:orders\""),
        (
            "principal, action, resource is Host::Destination",
            "resource.host == \"PAY.example\"",
            "write \"pay.example\"",
        ),
        (
            "principal, action in Host::Action::\"network\", resource",
            "context.class == \"metdata\"",
            "needed is one of name",
        ),
        (
            "principal, action, resource is Host::Destination",
            "[\"a.example\", \"B.example\"].contains(resource.host)",
            "write \"b.example\"",
        ),
        (
            "principal, action, resource",
            "resource in [Host::DnsZone::\"a.example\", Host::DnsZone::\"*.b.example\"]",
            "write \"b.example\"",
        ),
    ] {
        let text = format!("{HEAD}forbid ({scope}) when {{ {condition} }};");
        let problems = lint(&text).map(drop).expect_err(&text);
        assert!(problems.iter().any(|one| one.contains(expected)), "{text}\n{problems:#?}");
    }
}

#[test]
fn size_and_number_of_raw_policies_are_limited() {
    let sized = |n: usize| lint(&" ".repeat(n)).map(drop);
    assert_eq!(sized(RAW_BYTES), Ok(()));
    assert!(sized(RAW_BYTES + 1).unwrap_err()[0].contains("larger than 1 MiB"));
    let many = |n: usize| {
        (0..n).map(|n| format!("@id(\"p{n}\") @reason(\"r\") @owner(\"o\") forbid ({SCOPE});\n")).collect::<String>()
    };
    assert!(lint(&many(RAW_POLICIES)).is_ok());
    assert!(lint(&many(RAW_POLICIES + 1)).unwrap_err()[0].contains("more than 1000 policies"));
}

#[test]
fn deeply_nested_and_damaged_policies_do_not_panic() {
    let when = |expression: String| lint(&format!("{HEAD} forbid ({SCOPE}) when {{ {expression} }};")).map(drop);
    let deep = |n: usize| when(format!("{}resource.port == 1{}", "(".repeat(n), ")".repeat(n)));
    assert_eq!(deep(RAW_DEPTH - 1), Ok(()));
    assert!(deep(RAW_DEPTH).is_err());
    // On the 2 MiB of a test's thread: the worst that the limits let through is parsed, validated and dropped.
    assert_eq!(when(format!("resource.port == 1{}", " && resource.port == 1".repeat(55))), Ok(()));
    assert_eq!(when(format!("resource.port == 1{}", " || resource.port == 1".repeat(55))), Ok(()));
    assert_eq!(when(format!("resource.port{} == 1", " + 1".repeat(250))), Ok(()));
    assert_eq!(when(format!("resource.port{} == 1", " * 1".repeat(250))), Ok(()));
    assert_eq!(when(format!("{}true", "if resource.port == 1 then true else ".repeat(45))), Ok(()));
    assert!(when(format!("resource{}", ".host".repeat(290))).is_err());
    assert!(when(format!("resource{}", "[\"host\"]".repeat(20_000))).is_err());
    for repeated in [
        "(",
        "[",
        "{",
        "{a:",
        "!",
        "-",
        "if ",
        "resource.",
        "true && ",
        "1 + ",
        "\"",
        "ip(",
        "x::",
        "@id(\"a\")",
        "when {",
    ] {
        assert!(when(repeated.repeat(20_000)).is_err(), "{repeated}");
        assert!(lint(&repeated.repeat(20_000)).is_err(), "{repeated}");
    }
    let good = format!("{HEAD} permit ({SCOPE}) when {{ resource in Host::DnsZone::\"pay.example\" }};");
    let mut random = crate::testing::Random::new(9);
    let engine = Engine::new().unwrap();
    for _ in 0..2_000 {
        let mut text: Vec<char> = good.chars().collect();
        for _ in 0..random.below(3) + 1 {
            let at = random.below(text.len().max(1));
            match random.below(3) {
                0 if text.len() > 1 => drop(text.remove(at)),
                0 | 1 => text.insert(at, *random.pick(&['"', '(', ')', '{', '\\', '\u{0}', 'ü', ':', '?', '9'])),
                _ => text.truncate(at.max(1)),
            }
        }
        let source = Source { name: "p".to_owned(), text: text.into_iter().collect(), kind: SourceKind::Cedar };
        let _ = rules(&engine, &source, Kind::Raw);
    }
}
