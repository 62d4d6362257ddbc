//! The tools around policy: what is refused teaches, fixes work as printed and allow nothing else, changes are shown before
//! they are made.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::process::Command;

use portcullis_tests::guests;
use portcullis_tests::host::Host;
use portcullis_tests::http;
use portcullis_tests::site::{Ended, Site, ended};
use serde_json::Value;

/// `greeter` asks for a token and sends to the vault; nothing of it is granted.
fn site() -> Site {
    let mut site = Site::new();
    site.component(
        "greeter",
        &guests::ours("greeter"),
        "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\", \"wasi:http/*\"]",
    );
    site
}

/// The same where it knows who it is, and is refused the token for `vault`.
fn asking() -> Site {
    let mut site = Site::new();
    site.guest(
        "greeter",
        "link = [\"portcullis:identity/*\", \"wasmcloud:identity/*\", \"wasi:http/*\"]\nidentity = [\"read\"]",
    );
    site
}

fn greet(host: &Host) {
    let request =
        "GET /greeter HTTP/1.1\r\nhost: test.example\r\nx-vault-url: http://127.0.0.1:9/\r\nconnection: close\r\n\r\n";
    let _ = http::raw(host.http(), request.as_bytes());
}

/// Every refusal in the audit log, as `policy learn` sees them.
fn refusals(host: &Host) -> Vec<Value> {
    host.audit().into_iter().filter(|record| record["kind"] == "denial" && record["denial"].is_object()).collect()
}

/// Runs a fix as it was printed, through a shell, with the binary under test as `portcullis`.
fn shell(site: &Site, line: &str) -> Ended {
    let folder = portcullis_tests::binary().parent().unwrap().to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    ended(Command::new("sh").current_dir(site.path()).env("PATH", path).args(["-c", line]).output().unwrap())
}

#[test]
fn each_fix_works_as_printed_and_allows_nothing_else() {
    let host = Host::ready(site());
    let before = host.site().file("before.toml");
    let mut fixed = Vec::new();
    // A refusal hides the next one: fix what is refused until nothing is.
    for _ in 0..12 {
        let seen = refusals(&host).len();
        greet(&host);
        let Some(record) =
            (seen < refusals(&host).len() || wait_for_more(&host, seen)).then(|| refusals(&host).pop().unwrap())
        else {
            break;
        };
        let reference = record["ref"].as_str().unwrap();
        let text = host.record(&[("ref", reference)])["text"].as_str().unwrap().to_owned();
        let Some(line) = text.lines().find_map(|line| line.trim().strip_prefix("fix")).map(str::trim) else { break };
        std::fs::copy(host.site().file("grants.toml"), &before).unwrap();
        shell(host.site(), line).ok();
        let replayed = host.run(["policy", "explain", reference, "--again"]).ok().json();
        assert_eq!(replayed[0]["outcome"], "allow", "{text}\n{replayed:#}");
        let diff = host.site().run([
            "policy",
            "diff",
            "before.toml",
            "grants.toml",
            "--replay",
            "state/audit/audit.jsonl",
            "--acknowledge",
            "--json",
        ]);
        let diff = diff.ok().json();
        let allowed: Vec<String> = diff["newly_allowed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| format!("{} {}", change["component"], change["question"]["action"]))
            .collect();
        let asked = record["denial"]["question"]["action"].to_string();
        assert!(!allowed.is_empty() && allowed.iter().all(|one| one.starts_with("\"test:greeter\"")), "{allowed:?}");
        // Sending and dialling are two questions about one destination; links come with what needs them.
        let near = |one: &String| {
            one.ends_with(&asked)
                || one.ends_with("\"http.send\"")
                || one.ends_with("\"http.connect\"")
                || one.ends_with("\"link\"")
        };
        assert!(allowed.iter().all(near), "{asked} was fixed, and {allowed:?} is allowed");
        assert_eq!(diff["newly_denied"].as_array().unwrap().len(), 0);
        fixed.push(asked);
    }
    assert!(fixed.len() >= 3, "too little was refused to be worth the name: {fixed:?}");
}

fn wait_for_more(host: &Host, seen: usize) -> bool {
    portcullis_tests::processes::holds_within(std::time::Duration::from_secs(10), || refusals(host).len() > seen)
}

#[test]
fn what_was_refused_in_a_day_becomes_the_smallest_grants() {
    let host = Host::ready(site());
    greet(&host);
    assert!(wait_for_more(&host, 0), "{:#?}", host.audit());
    let log = "state/audit/audit.jsonl";
    let learned = host.run(["policy", "learn", log]).ok().json();
    let additions = learned["learned"]["additions"].as_array().unwrap().clone();
    assert!(!additions.is_empty(), "{learned:#}");
    let toml = learned["toml"].as_str().unwrap();
    assert!(toml.contains("# asked for once, first as 0"), "{toml}");
    // The operator uses what was learnt: nothing that was refused is refused any more.
    std::fs::write(host.site().file("learnt.toml"), toml).unwrap();
    let config = std::fs::read_to_string(host.site().file("portcullis.toml")).unwrap();
    let with = config.replace("grants = [\"grants.toml\"]", "grants = [\"grants.toml\", \"learnt.toml\"]");
    std::fs::write(host.site().file("with.toml"), with).unwrap();
    for record in refusals(&host) {
        let question = record["denial"]["question"].to_string();
        let asked = ["policy", "explain", &question, "--component", "test:greeter", "--config", "with.toml"];
        host.site().run(asked).ok();
    }
    // Without any one of them, something is.
    let again = host.site().run(["policy", "learn", log, "--config", "with.toml", "--json"]).ok().json();
    assert_eq!(again["learned"]["additions"].as_array().unwrap().len(), 0, "{again:#}");
    let out = host.site().run(["policy", "learn", log, "--config", "portcullis.toml", "--out", "learnt.toml"]);
    assert_eq!(out.exit, 2, "an existing file is not written over: {}", out.out);
    assert!(!out.err.contains("--force"), "there is no such flag: {}", out.err);
    // What was learnt before is learnt on, under ids that are free.
    std::fs::write(host.site().file("learnt.toml"), GRANTED_BEFORE).unwrap();
    let more = host.site().run(["policy", "learn", log, "--config", "with.toml", "--json"]).ok().json();
    let more = more["toml"].as_str().unwrap();
    assert!(more.contains("[[grant]]") && !more.contains("\"learnt-0\""), "{more}");
}

/// A grant as it was learnt of another component.
const GRANTED_BEFORE: &str = "version = 1\n[[grant]]\nid = \"learnt-0\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"test:other\"\nload = true\n";

#[test]
fn a_log_whose_chain_is_broken_teaches_nothing_and_is_not_replayed() {
    let host = Host::ready(asking());
    greet(&host);
    assert!(wait_for_more(&host, 0), "{:#?}", host.audit());
    let site = host.stop();
    let whole = std::fs::read_to_string(site.file("state/audit/audit.jsonl")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let refusal = lines.iter().position(|line| line.contains("\"kind\":\"denial\"") && line.contains("vault")).unwrap();
    let with = |line: &str| {
        let mut lines = lines.clone();
        lines[refusal] = line;
        format!("{}\n", lines.join("\n"))
    };
    let changed = lines[refusal].replace("vault", "admin");
    for (log, why) in [
        (with(&changed), "was changed"),
        (with("{\"kind\":\"denial\"}"), "too short"),
        (with(&"x".repeat(200)), "does not end with its hash"),
        ("nothing of the kind\n".to_owned(), "line 1"),
    ] {
        std::fs::write(site.file("other.jsonl"), log).unwrap();
        let commands: [&[&str]; 2] = [
            &["policy", "learn", "other.jsonl", "--config", "portcullis.toml"],
            &["policy", "diff", "grants.toml", "grants.toml", "--replay", "other.jsonl"],
        ];
        for command in commands {
            let ended = site.run(command);
            assert_eq!(ended.exit, 13, "{why}: {command:?}: {}{}", ended.out, ended.err);
            assert!(ended.err.contains(why) && ended.out.is_empty(), "{why}: {}{}", ended.out, ended.err);
        }
        assert_eq!(site.run(["audit", "verify", "other.jsonl"]).exit, 13);
    }
    std::fs::write(site.file("other.jsonl"), "").unwrap();
    assert_eq!(site.run(["policy", "learn", "other.jsonl", "--config", "portcullis.toml"]).exit, 2, "no log");
    // A line that a crash tore is not read, and is no broken chain.
    let torn = &lines[lines.len() - 1][..40];
    std::fs::write(site.file("other.jsonl"), format!("{whole}{torn}")).unwrap();
    let learned = site.run(["policy", "learn", "other.jsonl", "--config", "portcullis.toml"]).ok();
    assert!(learned.out.contains("[[grant]]") && learned.err.contains("has no end"), "{}{}", learned.out, learned.err);
}

#[test]
fn what_the_identity_process_refuses_is_in_the_log_of_the_host_with_its_reference() {
    let host = Host::ready(asking());
    greet(&host);
    let record = host.record(&[("kind", "denial"), ("by", "identity")]);
    let reference = record["ref"].as_str().unwrap();
    let named = || host.log().contains(reference);
    assert!(portcullis_tests::processes::holds_within(std::time::Duration::from_secs(60), named), "{}", host.log());
    assert!(host.log().contains(&format!("denied {}", record["code"].as_str().unwrap())), "{}", host.log());
}

#[test]
fn a_component_teaches_what_its_bytes_can_tell_and_names_what_they_cannot() {
    let site = Site::new();
    site.write();
    guests::put(site.path(), "greeter.wasm", &guests::ours("greeter"));
    let learned = site.run([
        "policy",
        "learn",
        "greeter.wasm",
        "--component",
        "test:greeter",
        "--config",
        "portcullis.toml",
        "--json",
    ]);
    let learned = learned.ok().json();
    let toml = learned["toml"].as_str().unwrap();
    for wanted in [
        "load = true",
        "wasi:http/outgoing-handler",
        "# Not to be seen in the file: where it sends requests",
        "# Not to be seen in the file: for which audiences",
    ] {
        assert!(toml.contains(wanted), "{wanted} is not in\n{toml}");
    }
    assert!(!toml.contains("wasi:io"), "the baseline needs no grant:\n{toml}");
    for once in ["[[grant]]", "audiences = [..]", "callers = [..]"] {
        assert_eq!(toml.matches(once).count(), 1, "{once} in\n{toml}");
    }
    assert!(!toml.contains("asked for "), "nothing was asked for:\n{toml}");
    let malformed = ["policy", "learn", "greeter.wasm", "--component", "greeter", "--config", "portcullis.toml"];
    assert_eq!(site.run(malformed).exit, 2);
    let nameless = site.run(["policy", "learn", "greeter.wasm", "--config", "portcullis.toml"]);
    assert_eq!(nameless.exit, 2);
    assert!(nameless.err.contains("--component"), "{}", nameless.err);
}

#[test]
fn a_change_that_allows_more_wants_to_be_acknowledged() {
    let mut site = site();
    site.write();
    std::fs::copy(site.file("grants.toml"), site.file("old.toml")).unwrap();
    site.grants("\n[[grant]]\nid = \"more\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"test:greeter\"\naudiences = [\"bank\"]\n");
    site.write();
    let refused = site.run(["policy", "diff", "old.toml", "grants.toml"]);
    assert_eq!(refused.exit, 20, "{}", refused.out);
    assert!(refused.out.contains("newly allowed: ") && refused.out.contains("svid.jwt  bank"), "{}", refused.out);
    assert!(refused.err.contains("--acknowledge"), "{}", refused.err);
    // One document on standard output, however it ends.
    let told = site.run(["policy", "diff", "old.toml", "grants.toml", "--json"]);
    assert_eq!((told.exit, told.json()["newly_allowed"].is_array()), (20, true), "{}", told.out);
    assert!(told.err.starts_with("error: "), "{}", told.err);
    assert_eq!(site.run(["policy", "diff", "old.toml", "grants.toml", "--acknowledge"]).exit, 0);
    // The other way round it only takes away.
    let less = site.run(["policy", "diff", "grants.toml", "old.toml"]);
    assert_eq!(less.exit, 0);
    assert!(less.out.contains("newly allowed: nothing") && less.out.contains("allow -> no-grant"), "{}", less.out);
    let checked =
        site.run(["policy", "check", "--config", "portcullis.toml", "--against", "old.toml", "--json"]).ok().json();
    assert!(!checked["changes"]["newly_allowed"].as_array().unwrap().is_empty(), "{checked:#}");
}

#[test]
fn a_change_that_no_question_can_judge_wants_to_be_acknowledged() {
    let mut site = site();
    site.policy("cedar = [\"site.cedar\"]\n");
    site.grants(
        "\n[[grant]]\nid = \"net\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"test:greeter\"\nhttp = [\"https://pay.internal\"]\naddresses = [\"10.0.0.0/24\"]\n",
    );
    site.write();
    let grants = std::fs::read_to_string(site.file("grants.toml")).unwrap();
    let cedar = |text: &str| std::fs::write(site.file("site.cedar"), text).unwrap();
    let policy = |text: &str| format!("@id(\"p\") @reason(\"r\") @owner(\"o\") {text};\n");
    cedar("// nothing\n");
    for folder in ["old", "new"] {
        std::fs::create_dir(site.file(folder)).unwrap();
        std::fs::write(site.file(folder).join("grants.toml"), &grants).unwrap();
    }
    let wider = |grants: &str, policy: &str| {
        std::fs::write(site.file("new/grants.toml"), grants).unwrap();
        std::fs::write(site.file("new/site.cedar"), format!("{policy}// the end\n")).unwrap();
        let refused = site.run(["policy", "diff", "old", "new"]);
        assert_eq!(refused.exit, 20, "{grants}{policy}\n{}", refused.out);
        assert!(refused.err.contains("--acknowledge") && !refused.out.contains("allowed: nothing"), "{}", refused.out);
        assert_eq!(site.run(["policy", "diff", "old", "new", "--acknowledge"]).exit, 0);
        refused.out
    };
    for scope in [
        "principal is Host::Component, action in Host::Action::\"network\", resource is Host::Destination",
        "principal in Host::SignerGroup::\"ci\", action in Host::Action::\"network\", resource in Host::DnsZone::\"x\"",
        "principal is Host::Component, action == Host::Action::\"load\", resource is Host::Image",
        "principal == Host::Component::\"test:greeter\", action == Host::Action::\"svid.jwt\", resource == Host::Audience::\"bank\"",
        "principal is Host::Operator, action in Host::Action::\"control\", resource is Host::Node",
    ] {
        let said = wider(&grants, &policy(&format!("permit ({scope})")));
        assert!(said.contains("permit `p` (new/site.cedar:1) is new"), "{said}");
    }
    let range = wider(&grants.replace("10.0.0.0/24", "10.0.0.0/16"), "");
    assert!(range.contains("opens https://pay.internal at 10.0.0.0/16 to test:greeter"), "{range}");
    let operator = "\n[[operator]]\nid = \"ann\"\nreason = \"r\"\nowner = \"o\"\nwho = \"spiffe://test.example/ann\"\nhosts = [\"*\"]\ncomponents = [\"*\"]\nactions = [\"start\", \"revoke\"]\n";
    let operators = wider(&format!("{grants}{operator}"), "");
    assert!(operators.contains("operator `ann`") && operators.contains("start * on *; revoke * on *"), "{operators}");
    // What the running host would take is compared by the same rules, and so is what the configuration leaves open.
    cedar(&policy(
        "permit (principal is Host::Component, action in Host::Action::\"network\", resource is Host::Destination)",
    ));
    let checked = site.run(["policy", "check", "--config", "portcullis.toml", "--against", "grants.toml"]).ok().out;
    assert!(checked.contains("permit `p`") && checked.contains("http.connect"), "{checked}");
    let config = std::fs::read_to_string(site.file("portcullis.toml")).unwrap();
    let audited = config.replace("[policy]\n", "[policy]\naudit_mode = [\"test:greeter\"]\n");
    assert_ne!(config, audited, "{config}");
    std::fs::write(site.file("audited.toml"), audited).unwrap();
    let audit = site.run(["policy", "diff", "portcullis.toml", "audited.toml"]);
    assert_eq!(audit.exit, 20, "{}", audit.out);
    assert!(audit.out.contains("policy.audit_mode `test:greeter`"), "{}", audit.out);
    assert_eq!(site.run(["policy", "diff", "audited.toml", "portcullis.toml"]).exit, 0);
}

#[test]
fn expected_decisions_are_tested_and_a_wrong_one_fails_the_command() {
    let site = site();
    site.write();
    let case = |ask: &str, expect: &str| {
        format!("[[case]]\ncomponent = \"test:greeter\"\nask = {ask}\nexpect = \"{expect}\"\n")
    };
    let right = format!(
        "version = 1\n{}{}",
        case("{ action = \"load\" }", "allow"),
        case("{ action = \"svid.jwt\", audience = \"bank\" }", "no-grant")
    );
    std::fs::write(site.file("right.toml"), &right).unwrap();
    std::fs::write(site.file("wrong.toml"), right.replace("no-grant", "allow")).unwrap();
    std::fs::write(site.file("empty.toml"), "version = 1\n").unwrap();
    let run = |file: &str| site.run(["policy", "test", file, "--config", "portcullis.toml"]);
    let passed = run("right.toml").ok();
    assert!(passed.out.contains("2 as expected, 0 not"), "{}", passed.out);
    let failed = run("wrong.toml");
    assert_eq!(failed.exit, 20);
    let told = site.run(["policy", "test", "wrong.toml", "--config", "portcullis.toml", "--json"]);
    assert_eq!((told.exit, &told.json()["failed"]), (20, &1.into()), "{}", told.out);
    assert!(failed.out.contains("FAILED") && failed.out.contains("expected allow, got no-grant"), "{}", failed.out);
    let empty = run("empty.toml");
    assert_eq!(empty.exit, 2);
    assert!(empty.err.contains("nothing would be tested"), "{}", empty.err);
}

#[test]
fn the_matrix_is_there_to_read_to_commit_and_to_look_at() {
    let site = site();
    site.write();
    let run = |more: &[&str]| {
        let arguments = ["policy", "matrix", "--config", "portcullis.toml"];
        site.run(arguments.iter().chain(more).copied())
    };
    let text = run(&[]).ok().out;
    assert!(text.starts_with("test:greeter\n") && text.contains("load") && text.contains("[greeter]"), "{text}");
    assert_eq!(text, run(&[]).ok().out, "the same each time");
    let csv = run(&["--csv"]).ok().out;
    assert!(csv.starts_with("component,action,resource,outcome,why\r\n"), "{csv}");
    run(&["--html", "matrix.html"]).ok();
    let page = std::fs::read_to_string(site.file("matrix.html")).unwrap();
    assert!(page.contains("<td class=\"allow\"") && !page.contains("<script") && !page.contains("http://"), "{page}");
    let other = run(&["--component", "test:nobody"]).ok().out;
    assert!(other.contains("nothing"), "{other}");
}

#[test]
fn explain_asks_the_running_host_what_policies_look_at_and_makes_nothing_up() {
    let mut site = site();
    site.policy("cedar = [\"site.cedar\"]\n");
    site.grants("\n[[grant]]\nid = \"pay\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"test:greeter\"\naudiences = [\"pay\"]\n");
    site.write();
    let policy = |effect: &str, audience: &str| {
        format!(
            "@id(\"{effect}-{audience}\") @reason(\"r\") @owner(\"o\") {effect} (principal in Host::SignerGroup::\"test-ci\", action == Host::Action::\"svid.jwt\", resource == Host::Audience::\"{audience}\");\n"
        )
    };
    std::fs::write(site.file("site.cedar"), policy("permit", "grp") + &policy("forbid", "pay")).unwrap();
    let explain = |site: &Site, audience: &str, more: &[&str]| {
        let question = format!("{{\"action\": \"svid.jwt\", \"audience\": \"{audience}\"}}");
        let asked = ["policy", "explain", &question, "--component", "test:greeter", "--config", "portcullis.toml"];
        site.run(asked.iter().chain(more).copied())
    };
    for audience in ["grp", "pay"] {
        let none = explain(&site, audience, &[]);
        assert_eq!(none.exit, 20, "{}", none.out);
        assert!(none.out.starts_with("not known: signer group: test:greeter svid.jwt"), "{}", none.out);
        assert!(none.err.contains("--signer-group"), "{}", none.err);
        for word in ["allowed", "denied", "000000"] {
            assert!(!none.out.contains(word), "{}", none.out);
        }
    }
    assert!(explain(&site, "grp", &["--signer-group", "test-ci"]).ok().out.contains("by   permit-grp"));
    let other = explain(&site, "grp", &["--signer-group", "other"]);
    assert!(other.exit == 20 && other.out.contains("denied I0201"), "{}", other.out);
    // What rests on nothing else is answered.
    let plain = explain(&site, "elsewhere", &[]);
    assert!(plain.exit == 20 && plain.out.contains("denied I0201"), "{}", plain.out);
    let matrix = site.run(["policy", "matrix", "--config", "portcullis.toml"]).ok().out;
    for line in ["svid.jwt      grp  [not known: signer group]", "svid.jwt      pay  [not known: signer group]"] {
        assert!(matrix.contains(line), "{matrix}");
    }
    assert!(matrix.contains("[permit-grp ") && matrix.contains("Host::SignerGroup::\"test-ci\""), "{matrix}");
    let host = Host::ready(site);
    assert!(explain(host.site(), "grp", &[]).ok().out.contains("by   permit-grp"));
    let forbidden = explain(host.site(), "pay", &[]);
    assert!(forbidden.exit == 20 && forbidden.out.contains("forbid-pay"), "{}", forbidden.out);
    assert!(forbidden.out.contains("group test-ci"), "{}", forbidden.out);
}

#[test]
fn a_reference_is_explained_after_the_host_is_gone() {
    let host = Host::ready(site());
    greet(&host);
    let is_recorded = || !refusals(&host).is_empty();
    let recorded = portcullis_tests::processes::holds_within(std::time::Duration::from_secs(60), is_recorded);
    assert!(recorded, "{:#?}", host.audit());
    let record = refusals(&host).remove(0);
    let reference = record["ref"].as_str().unwrap().to_owned();
    let lives = host.site().run(["policy", "explain", &reference, "--config", "portcullis.toml"]).ok();
    let site = host.killed();
    let explain = |reference: &str| site.run(["policy", "explain", reference, "--config", "portcullis.toml"]);
    let left = explain(&reference).ok();
    assert_eq!(left.out, lives.out);
    assert!(left.err.contains("no host answers") && left.err.contains("audit verify"), "{}", left.err);
    let unknown = explain("01ARZ3NDEKTSV4RRFFQ69G5FAV");
    assert_eq!(unknown.exit, 18, "{}", unknown.err);
}

#[test]
fn bad_input_to_the_tools_is_refused_with_a_hint() {
    let site = site();
    site.write();
    std::fs::create_dir(site.file("empty")).unwrap();
    std::fs::write(site.file("bad.cedar"), "permit (principal, action, resource);").unwrap();
    let bad: &[(&[&str], i32, &str)] = &[
        (&["policy", "diff", "missing", "grants.toml"], 2, "missing"),
        (&["policy", "diff", "empty", "grants.toml"], 2, "holds no"),
        (&["policy", "diff", "bad.cedar", "grants.toml"], 64, "@id"),
        (
            &["policy", "explain", "{\"action\": \"fly\"}", "--component", "a:b", "--config", "portcullis.toml"],
            2,
            "not a request",
        ),
        (&["policy", "explain", "{\"action\": \"load\"}", "--config", "portcullis.toml"], 2, "--component"),
        (&["policy", "explain", "01", "--component", "a:b", "--config", "portcullis.toml"], 2, "goes with a request"),
        (&["policy", "learn", "missing.jsonl", "--config", "portcullis.toml"], 2, "missing.jsonl"),
        (&["policy", "test", "--config", "portcullis.toml"], 2, "FILES"),
        (&["policy", "matrix", "--csv", "--html", "x", "--config", "portcullis.toml"], 2, "cannot be used with"),
    ];
    for (arguments, exit, said) in bad {
        let ended = site.run(arguments.iter());
        assert_eq!(ended.exit, *exit, "{arguments:?}: {}{}", ended.out, ended.err);
        assert!(ended.err.contains(said), "{arguments:?}: {}", ended.err);
    }
}
