use std::collections::BTreeSet;

use super::*;
use crate::callout::{ConnectionKind, ConnectionType, SubjectTemplate};
use crate::source::SourceKind;

const HOSTS: &str = r#"
version = 1
[[role]]
id = "hosts"
reason = "hosts of the cluster"
owner = "team"
who = "spiffe://td-a.test/portcullis/host/{host}"
account = "APP"
publish = ["portcullis.c.hb.{host}", "$SYS.REQ.USER.INFO"]
subscribe = ["portcullis.c.ctl.{host}.>", "_INBOX_{host}.>", "jobs.> workers"]
responses = 1
lifetime = "1h"
sources = ["127.0.0.0/8", "10.0.0.0/8"]
"#;

const TOKENS: &str = r#"
version = 1
[[role]]
id = "bot"
reason = "a bot"
owner = "team"
who = "spiffe://td-a.test/bot"
account = "BOTS"
publish = ["bots.>"]
lifetime = "5m"
credential = "jwt"
types = ["nats", "websocket"]
"#;

fn source(text: &str) -> Source {
    Source { name: "roles.toml".to_owned(), text: text.to_owned(), kind: SourceKind::Grants }
}

fn accounts() -> Accounts {
    let name = |text: &str| text.parse::<AccountName>().unwrap();
    Accounts::new([name("APP"), name("BOTS"), name("SYS")], name("SYS"), false)
}

fn compile(texts: &[&str], cedar: &[&str]) -> Result<Roles, LoadErrors> {
    let named = |(n, text): (usize, &&str)| Source { name: format!("roles-{n}.toml"), ..source(text) };
    let roles: Vec<Source> = texts.iter().enumerate().map(named).collect();
    let cedar: Vec<Source> = cedar.iter().map(|text| source(text)).collect();
    Roles::compile(&roles, &cedar, accounts(), 7)
}

fn facts(id: &str) -> ConnectFacts {
    ConnectFacts {
        workload: id.parse().unwrap(),
        kind: ConnectionKind::Client,
        connection: ConnectionType::Nats,
        ip: "127.0.0.1".parse().unwrap(),
        credentials: BTreeSet::from([CredentialKind::X509]),
        nkey: None,
        nkey_is_bound: false,
    }
}

fn code(roles: &Roles, facts: &ConnectFacts) -> &'static str {
    roles.decide(facts).expect_err("it was allowed").code().as_str()
}

#[test]
fn a_role_gives_an_account_subjects_with_the_parts_filled_in_and_a_lifetime() {
    let roles = compile(&[HOSTS, TOKENS], &[]).unwrap();
    let placed = roles.decide(&facts("spiffe://td-a.test/portcullis/host/h1")).unwrap();
    assert_eq!((placed.account().as_str(), placed.role(), placed.lifetime()), ("APP", "hosts", 3600));
    let publish: Vec<&str> = placed.publish().iter().map(SubjectPattern::as_str).collect();
    assert_eq!(publish, ["portcullis.c.hb.h1", "$SYS.REQ.USER.INFO"]);
    let subscribe: Vec<_> =
        placed.subscribe().iter().map(|right| (right.subject.as_str(), right.queue.as_deref())).collect();
    assert_eq!(subscribe, [("portcullis.c.ctl.h1.>", None), ("_INBOX_h1.>", None), ("jobs.>", Some("workers"))]);
    assert_eq!(placed.responses(), Some(Responses { max: 1, seconds: 3 }));
    assert_eq!(placed.generation(), 7);
}

#[test]
fn whoever_no_role_names_is_denied_with_the_fix() {
    let roles = compile(&[HOSTS], &[]).unwrap();
    for id in [
        "spiffe://td-b.test/portcullis/host/h1",
        "spiffe://td-a.test/portcullis/host",
        "spiffe://td-a.test/portcullis/host/h1/more",
        "spiffe://td-a.test/other",
    ] {
        let denial = roles.decide(&facts(id)).unwrap_err();
        assert_eq!(denial.code(), ConnectCode::NoRole, "{id}");
        assert!(denial.to_string().contains("add a [[role]]"), "{denial}");
    }
    let nobody = compile(&[], &[]).unwrap();
    assert_eq!(code(&nobody, &facts("spiffe://td-a.test/portcullis/host/h1")), "Q0201");
}

#[test]
fn a_part_that_would_change_subjects_is_denied() {
    let roles = compile(&[HOSTS], &[]).unwrap();
    for part in ["h1.h2", "H1", "a_b"] {
        assert_eq!(code(&roles, &facts(&format!("spiffe://td-a.test/portcullis/host/{part}"))), "Q0203", "{part}");
    }
}

#[test]
fn each_condition_of_a_role_is_demanded_and_named() {
    let roles = compile(&[HOSTS, TOKENS], &[]).unwrap();
    let host = facts("spiffe://td-a.test/portcullis/host/h1");
    let bot = ConnectFacts {
        credentials: BTreeSet::from([CredentialKind::Jwt]),
        nkey: Some("U1".to_owned()),
        nkey_is_bound: true,
        ..facts("spiffe://td-a.test/bot")
    };
    assert!(roles.decide(&host).is_ok() && roles.decide(&bot).is_ok());
    let jwt = BTreeSet::from([CredentialKind::Jwt]);
    for (facts, differs) in [
        (ConnectFacts { kind: ConnectionKind::Leafnode, ..host.clone() }, "kind"),
        (ConnectFacts { connection: ConnectionType::Mqtt, ..host.clone() }, "type"),
        (ConnectFacts { ip: "192.0.2.1".parse().unwrap(), ..host.clone() }, "source"),
        (ConnectFacts { ip: "::1".parse().unwrap(), ..host.clone() }, "source"),
        (ConnectFacts { credentials: jwt, nkey: Some("U1".to_owned()), ..host.clone() }, "credential"),
        (ConnectFacts { nkey: None, ..bot.clone() }, "proof"),
        (ConnectFacts { nkey_is_bound: false, ..bot.clone() }, "proof"),
    ] {
        let denial = roles.decide(&facts).unwrap_err();
        assert_eq!(denial.code(), ConnectCode::Condition, "{denial}");
        assert!(denial.to_string().contains(&format!("all matches but {differs}")), "{denial}");
    }
    // Nothing that was checked: a guard, whatever a role says.
    assert_eq!(code(&roles, &ConnectFacts { credentials: BTreeSet::new(), ..host.clone() }), "Q0301");
    // An address of IPv4 within IPv6 is that address.
    assert!(roles.decide(&ConnectFacts { ip: "::ffff:10.1.2.3".parse().unwrap(), ..host }).is_ok());
}

#[test]
fn a_token_that_names_no_key_needs_one_that_the_role_names() {
    let (own, other) = (format!("U{}", "A".repeat(55)), format!("U{}", "B".repeat(55)));
    let text = TOKENS.replace("types =", &format!("nkeys = [\"{own}\"]\ntypes ="));
    let roles = compile(&[&text], &[]).unwrap();
    let bot = |nkey: Option<&str>, nkey_is_bound| ConnectFacts {
        credentials: BTreeSet::from([CredentialKind::Jwt]),
        nkey: nkey.map(str::to_owned),
        nkey_is_bound,
        ..facts("spiffe://td-a.test/bot")
    };
    assert!(roles.decide(&bot(Some(&own), false)).is_ok());
    assert!(roles.decide(&bot(Some(&other), true)).is_ok(), "bound by its issuer");
    assert_eq!(code(&roles, &bot(Some(&other), false)), "Q0202");
    assert_eq!(code(&roles, &bot(None, false)), "Q0202");
    let bearer = compile(&[&TOKENS.replace("types =", "danger_bearer = true\ntypes =")], &[]).unwrap();
    assert!(bearer.decide(&bot(None, false)).is_ok());
    assert!(compile(&[&text.replace(&own, "UA")], &[]).is_err());
}

#[test]
fn the_default_account_and_the_system_account_are_never_given() {
    for account in ["$G", "$SYS", "SYS", "OTHER", "", "A B", "a>"] {
        let text = HOSTS.replace("\"APP\"", &format!("\"{account}\""));
        assert!(compile(&[&text], &[]).is_err(), "{account:?}");
    }
    let name = |text: &str| text.parse::<AccountName>().unwrap();
    let sys = HOSTS.replace("\"APP\"", "\"SYS\"");
    let told = Accounts::new([name("SYS")], name("SYS"), true);
    let roles = Roles::compile(&[source(&sys)], &[], told, 1).unwrap();
    assert!(roles.decide(&facts("spiffe://td-a.test/portcullis/host/h1")).is_ok());
    // The guard stands in Cedar too: a set whose accounts were taken away decides anew.
    let mut roles = compile(&[HOSTS], &[]).unwrap();
    roles.accounts = Accounts::new([], name("SYS"), false);
    assert_eq!(code(&roles, &facts("spiffe://td-a.test/portcullis/host/h1")), "Q0301");
}

#[test]
fn an_operators_forbid_beats_roles_and_a_permit_in_cedar_is_refused() {
    let forbid = r#"
        @id("no-h9") @reason("stolen") @owner("sec")
        forbid (principal == Host::Workload::"spiffe://td-a.test/portcullis/host/h9", action, resource);"#;
    let roles = compile(&[HOSTS], &[forbid]).unwrap();
    assert!(roles.decide(&facts("spiffe://td-a.test/portcullis/host/h1")).is_ok());
    assert_eq!(code(&roles, &facts("spiffe://td-a.test/portcullis/host/h9")), "Q0301");
    for text in [
        &forbid.replace("forbid", "permit"),
        &forbid.replace("@id(\"no-h9\")", ""),
        &forbid.replace("no-h9", "guard.x"),
        &forbid.replace("resource)", "resource) when { context.typo == \"x\" }"),
        &forbid.replace("resource)", "resource) when { context.kind like \"c*\" }"),
        "nonsense",
    ] {
        assert!(compile(&[HOSTS], &[text]).is_err(), "{text}");
    }
}

#[test]
fn two_roles_that_could_be_one_workloads_are_refused() {
    let exact = HOSTS.replace("\"hosts\"", "\"h1\"").replace("{host}", "h1");
    let errors = compile(&[HOSTS, &exact], &[]).unwrap_err().to_string();
    assert!(errors.contains("could both be somebody's"), "{errors}");
    let apart = exact.replace("lifetime", "types = [\"websocket\"]\nlifetime");
    assert!(compile(&[HOSTS, &apart], &[]).is_ok());
    // One by certificate, one by token: who shows both has both, and gets neither.
    let token = exact.replace("lifetime", "credential = \"jwt\"\nlifetime");
    let roles = compile(&[HOSTS, &token], &[]).unwrap();
    let both = ConnectFacts {
        credentials: BTreeSet::from([CredentialKind::X509, CredentialKind::Jwt]),
        ..facts("spiffe://td-a.test/portcullis/host/h1")
    };
    assert_eq!(code(&roles, &both), "Q0104");
}

#[test]
fn what_a_role_opens_beyond_its_words_is_refused() {
    for (from, to, says) in [
        ("\"jobs.> workers\"", "\">\"", "begins with a wildcard"),
        ("\"jobs.> workers\"", "\"*.x\"", "begins with a wildcard"),
        ("\"jobs.> workers\"", "\"_INBOX.>\"", "replies"),
        ("\"jobs.> workers\"", "\"$SYS.>\"", "the callout itself"),
        ("\"$SYS.REQ.USER.INFO\"", "\"$SYS.REQ.USER.*\"", "the callout itself"),
        ("\"$SYS.REQ.USER.INFO\"", "\"$JS.API.>\"", "$JS.API."),
        ("\"$SYS.REQ.USER.INFO\"", "\"$JS.API.CONSUMER.CREATE.S.c\"", "CONSUMER.CREATE"),
        ("\"$SYS.REQ.USER.INFO\"", "\"$JS.hub.API.STREAM.UPDATE.S\"", "STREAM.UPDATE"),
        ("\"$SYS.REQ.USER.INFO\"", "\"x.{other}\"", "does not fill"),
        ("\"$SYS.REQ.USER.INFO\"", "\"x.{host}-{host}\"", "two places"),
        ("\"1h\"", "\"25h\"", "lifetime"),
        ("\"1h\"", "\"1s\"", "lifetime"),
        ("lifetime = \"1h\"", "", "lifetime"),
        ("responses = 1", "responses = 0", "responses"),
        ("responses = 1", "responses = 1\nresponses_within = \"301s\"", "responses_within"),
        ("10.0.0.0/8", "10.0.0.1/8", "beyond its prefix"),
        ("responses = 1", "unknown = 1", "unknown field"),
        ("id = \"hosts\"", "id = \"Hosts!\"", "`id`"),
        ("{host}\"\naccount", "*\"\naccount", "SPIFFE ID"),
        ("version = 1", "version = 2", "version"),
    ] {
        let text = HOSTS.replacen(from, to, 1);
        assert_ne!(text, HOSTS, "{from}");
        let errors = compile(&[&text], &[]).expect_err(to).to_string();
        assert!(errors.contains(says), "{to}: {errors}");
    }
    for (knob, from, to) in [
        ("danger_any_subject", "jobs.> workers", ">"),
        ("danger_shared_inbox", "jobs.> workers", "_INBOX.>"),
        ("danger_jetstream_admin", "$SYS.REQ.USER.INFO", "$JS.API.>"),
    ] {
        let text = HOSTS.replacen(from, to, 1).replace("responses = 1", &format!("{knob} = true"));
        let roles = compile(&[&text], &[]).unwrap();
        assert_eq!(roles.roles().next().unwrap().dangers(), [knob]);
    }
}

#[test]
fn all_problems_of_all_roles_are_listed() {
    let errors = compile(&[&HOSTS.replace("1h", "x").replace("\"APP\"", "\"NOPE\""), &TOKENS.replace("5m", "y")], &[]);
    let lines = errors.unwrap_err().lines();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains(":3:1: ")), "{lines:?}");
}

#[test]
fn whoever_no_role_names_any_more_is_known() {
    let roles = compile(&[HOSTS], &[]).unwrap();
    assert!(roles.names(&"spiffe://td-a.test/portcullis/host/h1".parse().unwrap()));
    assert!(!roles.names(&"spiffe://td-a.test/bot".parse().unwrap()));
    let template: Vec<String> =
        roles.roles().flat_map(|role| role.publish().iter().map(SubjectTemplate::for_scope)).collect();
    assert_eq!(template, ["portcullis.c.hb.{{tag(host)}}", "$SYS.REQ.USER.INFO"]);
}

#[test]
fn too_many_roles_are_refused() {
    let role = |n: usize| {
        format!(
            "[[role]]\nid = \"r{n}\"\nreason = \"x\"\nowner = \"x\"\nwho = \"spiffe://td/r{n}\"\naccount = \"APP\"\nlifetime = \"1h\"\n"
        )
    };
    let text = |count: usize| format!("version = 1\n{}", (0..count).map(role).collect::<String>());
    assert!(compile(&[&text(ROLES)], &[]).is_ok());
    assert!(compile(&[&text(ROLES + 1)], &[]).is_err());
}
