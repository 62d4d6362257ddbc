use super::*;
use crate::denial::FixContext;
use crate::engine::PolicySet;
use crate::grants::OperatorEntry;
use crate::testing;

const ANN: &str = "spiffe://prod.example/ops/ann";
const BOB: &str = "UABCDEFGHIJKLMNOPQRSTUVWXYZ234567ABCDEFGHIJKLMNOPQRSTUVW";

fn file() -> String {
    format!(
        r#"version = 1

[[operator]]
id = "ann"
reason = "runs the shop"
owner = "team-shop"
who = "{ANN}"
hosts = ["h1"]
components = ["shop:cart"]
actions = ["status", "list", "start", "stop", "logs"]

[[operator]]
id = "bob"
reason = "on call"
owner = "team-ops"
who = "{BOB}"
hosts = ["*"]
components = ["*"]
actions = ["status", "list", "revoke"]
"#
    )
}

fn compiled(text: &str, raw: &str) -> PolicySet {
    let sources = [
        Source { name: "grants.toml".to_owned(), text: text.to_owned(), kind: SourceKind::Grants },
        Source { name: "raw.cedar".to_owned(), text: raw.to_owned(), kind: SourceKind::Cedar },
    ];
    PolicySet::compile(&sources, 7).unwrap_or_else(|errors| panic!("{errors}"))
}

fn asked(who: &str, action: ControlAction, host: &str, component: &str) -> ControlQuestion {
    let component = (!component.is_empty()).then(|| component.to_owned());
    ControlQuestion { who: Operator::Signer(who.to_owned()), action, host: host.to_owned(), component }
}

fn local(action: ControlAction) -> ControlQuestion {
    ControlQuestion { who: Operator::Local(1000), ..asked("", action, "h1", "shop:cart") }
}

fn context() -> FixContext {
    FixContext { program: "portcullis".to_owned(), config: Some("/etc/portcullis/portcullis.toml".into()) }
}

#[test]
fn an_operator_may_do_what_the_entry_says_and_nothing_else() {
    let set = compiled(&file(), "");
    for (who, action, host, component, allowed) in [
        (ANN, ControlAction::Start, "h1", "shop:cart", true),
        (ANN, ControlAction::Status, "h1", "", true),
        (ANN, ControlAction::Logs, "h1", "", true),
        (ANN, ControlAction::List, "h1", "shop:other", false),
        (ANN, ControlAction::Start, "h1", "", false),
        (ANN, ControlAction::Start, "h2", "shop:cart", false),
        (ANN, ControlAction::Start, "h1", "shop:other", false),
        (ANN, ControlAction::Revoke, "h1", "shop:cart", false),
        (ANN, ControlAction::Deploy, "h1", "shop:cart", false),
        (BOB, ControlAction::Revoke, "h9", "", true),
        (BOB, ControlAction::List, "h1", "shop:other", true),
        (BOB, ControlAction::Start, "h1", "shop:cart", false),
        ("spiffe://prod.example/ops/annabel", ControlAction::Start, "h1", "shop:cart", false),
        ("spiffe://other.example/ops/ann", ControlAction::Start, "h1", "shop:cart", false),
    ] {
        let question = asked(who, action, host, component);
        let decided = set.control(&question);
        assert_eq!(decided.is_ok(), allowed, "{question:?}: {decided:?}");
        if let Err(denial) = decided {
            assert_eq!(denial.code(), "C0202", "{question:?}");
        }
    }
    let grant = set.control(&asked(ANN, ControlAction::Start, "h1", "shop:cart")).unwrap();
    assert_eq!((grant.by(), grant.generation()), (&["ann".to_owned()][..], 7));
}

#[test]
fn the_local_user_needs_no_entry_also_where_nothing_is_granted_at_all() {
    for set in [compiled("version = 1", ""), compiled("", ""), PolicySet::deny_all(1)] {
        for action in ControlAction::ALL {
            assert!(set.control(&local(action)).is_ok(), "{action:?}");
            assert!(set.control(&asked(ANN, action, "h1", "shop:cart")).is_err(), "{action:?}");
        }
    }
}

#[test]
fn an_operators_forbid_holds_for_everybody() {
    let raw = r#"@id("no-stop") @reason("the shop is always open") @owner("ops")
        forbid (principal, action == Host::Action::"stop", resource) when { context.component == "shop:cart" };"#;
    let set = compiled(&file(), raw);
    for question in [local(ControlAction::Stop), asked(ANN, ControlAction::Stop, "h1", "shop:cart")] {
        let denial = set.control(&question).unwrap_err();
        assert_eq!(denial.code(), "C0390");
        assert!(denial.why().contains("the shop is always open") && denial.fix(&context()).is_none());
    }
    assert!(set.control(&asked(ANN, ControlAction::Start, "h1", "shop:cart")).is_ok());
}

#[test]
fn a_raw_permit_by_group_is_taken_and_a_policy_that_fails_denies_all() {
    let raw = format!(
        r#"@id("carl") @reason("r") @owner("o")
        permit (principal == Host::Operator::"spiffe://prod.example/ops/carl", action in Host::Action::"control", resource is Host::Node);
        @id("broken") @reason("r") @owner("o")
        forbid (principal is Host::Operator, action == Host::Action::"revoke", resource is Host::Node)
        when {{ {} + {} > 0 }};"#,
        i64::MAX,
        1
    );
    let set = compiled(&file(), &raw);
    let carl = |action| set.control(&asked("spiffe://prod.example/ops/carl", action, "h3", "shop:cart"));
    assert_eq!(carl(ControlAction::Deploy).unwrap().by(), ["carl"]);
    assert_eq!(carl(ControlAction::Revoke).unwrap_err().code(), "C0102");
    assert_eq!(set.control(&local(ControlAction::Revoke)).unwrap_err().code(), "C0102");
}

#[test]
fn names_that_are_none_are_refused_before_cedar_is_asked() {
    let set = compiled(&file(), "");
    for question in [
        asked("local:0", ControlAction::Status, "h1", ""),
        asked("", ControlAction::Status, "h1", ""),
        asked("spiffe://prod.example/*", ControlAction::Status, "h1", ""),
        asked(ANN, ControlAction::Status, "h1.>", ""),
        asked(ANN, ControlAction::Status, "*", ""),
        asked(ANN, ControlAction::Start, "h1", "*"),
        asked(ANN, ControlAction::Start, "h1", "shop"),
    ] {
        assert_eq!(set.control(&question).unwrap_err().code(), "C0309", "{question:?}");
    }
}

#[test]
fn ids_are_unique_over_grants_operators_and_policies() {
    let twice = format!("{}{}", testing::grants(&[("a", "load = true")]), file().replace("version = 1", ""));
    let twice = twice.replace("id = \"bob\"", "id = \"a-0\"");
    let source = Source { name: "g".to_owned(), text: twice, kind: SourceKind::Grants };
    let errors = PolicySet::compile(&[source], 1).unwrap_err();
    assert!(errors.to_string().contains("the id `a-0` is used already"), "{errors}");
}

#[test]
fn the_fix_of_a_refusal_allows_exactly_what_was_refused() {
    let text = file();
    for question in [
        asked(ANN, ControlAction::Start, "h2", "shop:cart"),
        asked("spiffe://prod.example/ops/new", ControlAction::Status, "h1", ""),
        asked(BOB, ControlAction::Deploy, "h1", "shop:cart"),
    ] {
        let denial = compiled(&text, "").control(&question).unwrap_err();
        let edit = OperatorEdit { reason: "asked".into(), owner: "ops".into(), ..denial.edit().unwrap().clone() };
        let added = add_operator(&text, &edit).unwrap();
        let set = compiled(&added, "");
        assert!(set.control(&question).is_ok(), "{added}");
        assert_eq!(set.operators().len(), 3);
        assert_eq!(add_operator(&added, &edit).unwrap(), added, "twice changes nothing");
        let other = ControlQuestion { host: "h7".to_owned(), ..question };
        assert!(set.control(&other).is_err() || other.who.name() == BOB);
    }
    assert_eq!(compiled(&text, "").operators().iter().map(OperatorEntry::id).collect::<Vec<_>>(), ["ann", "bob"]);
}

#[test]
fn refusals_teach() {
    let set = compiled(&file(), "");
    let shown: Vec<String> = [
        asked(ANN, ControlAction::Start, "h1", "shop:other"),
        asked(ANN, ControlAction::Stop, "h2", "shop:cart"),
        asked(ANN, ControlAction::Deploy, "h1", "shop:cart"),
        asked("spiffe://prod.example/ops/eve", ControlAction::Start, "h1", "shop:cart"),
        asked(BOB, ControlAction::Start, "h1", "shop:cart"),
        asked("UAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ControlAction::Deploy, "h1", "shop:cart"),
        asked(ANN, ControlAction::Status, "\u{1b}[31m", ""),
    ]
    .iter()
    .map(|question| set.control(question).unwrap_err().render(&context()))
    .collect();
    let text = format!("{}\n", shown.join("\n\n"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/control.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(path).unwrap_or_default(), "UPDATE_GOLDEN=1 writes it");
    let json = serde_json::to_value(set.control(&asked(ANN, ControlAction::Stop, "h2", "shop:cart")).unwrap_err());
    let json = json.unwrap();
    assert_eq!(
        (json["code"].as_str(), json["action"].as_str(), json["host"].as_str()),
        (Some("C0202"), Some("stop"), Some("h2"))
    );
    assert_eq!(json["fix"][1], "operator");
}

#[test]
fn a_text_that_permits_control_is_told_from_one_that_does_not() {
    for permits in [
        "permit (principal == Host::Operator::\"a\", action == Host::Action::\"start\", resource is Host::Node);",
        "permit (principal is Host::Operator, action in [Host::Action::\"link\", Host::Action::\"revoke\"], resource is Host::Node);",
        "permit (principal, action in Host::Action::\"control\", resource);",
        "permit (principal, action, resource);",
        "permit (principal == ?principal, action == Host::Action::\"link\", resource);",
        "this is no policy",
    ] {
        assert!(permits_control(permits), "{permits}");
    }
    for none in [
        "",
        "forbid (principal, action in Host::Action::\"control\", resource);",
        "permit (principal == Host::Component::\"a:b\", action == Host::Action::\"link\", resource is Host::WitInterface);",
    ] {
        assert!(!permits_control(none), "{none}");
    }
}
