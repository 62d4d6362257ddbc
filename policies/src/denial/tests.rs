use std::net::SocketAddr;

use super::*;
use crate::edit::add_grant;
use crate::testing::{facts, grants, set};
use crate::{Caller, Destination, IdentityAction, ImageFacts, PolicySet, Slice, Source, SourceKind};

const GRANTS: &[(&str, &str)] = &[
    (
        "greeter",
        "load = true\nhttp = [\"https://vault.demo.internal:8443\"]\npeer = \"spiffe://demo.example/ns/demo/sa/vault\"\naudiences = [\"vault\"]",
    ),
    (
        "vault",
        "http = [\"https://api.pay.example\"]\nidentity = [\"read\"]\ncallers = [\"spiffe://demo.example/ns/demo/sa/greeter\"]",
    ),
];

fn url(text: &str) -> Destination {
    Destination::parse_url(text).unwrap()
}

fn context() -> FixContext {
    FixContext { program: "portcullis".to_owned(), config: Some("/etc/portcullis/portcullis.toml".into()) }
}

/// Every kind of refusal that a grant can lift, as a question.
type Question = (&'static str, fn(&Slice) -> Result<(), Denial>);

const QUESTIONS: &[Question] = &[
    ("load", |slice| {
        slice.load(&ImageFacts { imports: vec!["wasi:io/poll@0.2.3".to_owned()], expired: false }).map(drop)
    }),
    ("link", |slice| slice.link("wasi:keyvalue/store@0.2.0").map(drop)),
    ("http-port", |slice| slice.http_send(&url("https://vault.demo.internal"), "GET").map(drop)),
    ("http-foreign", |slice| slice.http_send(&url("https://api.pay.example"), "POST").map(drop)),
    ("http-loopback", |slice| {
        let send = slice.http_send(&url("http://127.0.0.1:9999"), "GET")?;
        slice.http_connect(&send, SocketAddr::from(([127, 0, 0, 1], 9999))).map(drop)
    }),
    ("http-address", |slice| {
        let send = slice.http_send(&url("https://vault.demo.internal:8443"), "GET")?;
        slice.http_connect(&send, SocketAddr::from(([10, 1, 2, 3], 8443))).map(drop)
    }),
    ("jwt", |slice| {
        slice.svid_jwt("it's a $(trap);", 300).map(drop).or_else(|_| slice.svid_jwt("it's-a-$(trap);", 300).map(drop))
    }),
    ("x509", |slice| slice.svid_x509(3_600).map(drop)),
    ("read", |slice| slice.identity(IdentityAction::Read).map(drop)),
    ("validate", |slice| slice.identity(IdentityAction::Validate).map(drop)),
    ("bundles", |slice| slice.identity(IdentityAction::Bundles).map(drop)),
    ("peer", |slice| slice.identity(IdentityAction::Peer).map(drop)),
    ("sign", |slice| slice.svid_sign("receipts").map(drop)),
    ("export", |slice| slice.identity(IdentityAction::Export).map(drop)),
    ("chain", |slice| slice.identity(IdentityAction::X509Chain).map(drop)),
    ("call", |slice| slice.call(&Caller::Workload("spiffe://demo.example/ns/demo/sa/other".to_owned())).map(drop)),
    ("call-anonymous", |slice| slice.call(&Caller::Anonymous).map(drop)),
];

/// Compares with a golden file; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.txt"));
    let text = format!("{text}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "{}", path.display());
}

#[test]
fn refusals_read_as_the_golden_files_have_them() {
    let set = set(GRANTS, "");
    for component in ["greeter", "vault", "stranger"] {
        let slice = set.slice(&facts(component));
        let texts: Vec<String> = QUESTIONS
            .iter()
            .filter_map(|(name, ask)| {
                let denial = ask(&slice).err()?.with_reference("01JD8Z0000000000000000TEST".to_owned());
                Some(format!("# {name}\n{}\n", denial.render(&context())))
            })
            .collect();
        golden(&format!("no-grant-{component}"), texts.join("\n").trim_end());
    }
}

#[test]
fn guards_and_failures_read_as_the_golden_files_have_them() {
    let raw = "@id(\"no-delete\") @reason(\"nothing is deleted from here\") @owner(\"ops\")\n\
        forbid (principal, action == Host::Action::\"http.send\", resource) when { context.method == \"DELETE\" };\n\
        @id(\"broken\") @reason(\"r\") @owner(\"ops\")\n\
        forbid (principal, action == Host::Action::\"svid.jwt\", resource) when { context.ttl + 9223372036854775000 < 0 };";
    let slice = set(GRANTS, raw).slice(&facts("greeter"));
    let texts = [
        slice.http_send(&url("http://169.254.169.254"), "GET").unwrap_err().render(&context()),
        slice.http_send(&url("https://vault.demo.internal:8443"), "DELETE").unwrap_err().render(&context()),
        slice.link("env").unwrap_err().render(&context()),
        slice.svid_jwt("vault", 900).unwrap_err().render(&context()),
    ];
    golden("forbidden", &texts.join("\n\n"));
}

#[test]
fn the_json_form_has_all_fields() {
    let slice = set(GRANTS, "").slice(&facts("greeter"));
    let denial = slice.http_send(&url("http://127.0.0.1:9999"), "GET").unwrap_err().with_reference("REF".to_owned());
    let json = serde_json::to_string_pretty(&denial).unwrap();
    golden("denial-json", &json);
}

/// A fix that works: the request passes, and of all the other questions of all components, none passes that did not before.
#[test]
fn the_fix_allows_the_request_and_nothing_else() {
    for component in ["greeter", "vault", "stranger"] {
        for (name, ask) in QUESTIONS {
            let mut text = grants(GRANTS);
            let before = compile(&text);
            let mut after = before.clone();
            // A request is refused twice where neither its name nor its address is granted.
            for _ in 0..2 {
                let Err(denial) = ask(&after.slice(&facts(component))) else { break };
                let mut edit = denial.edit().unwrap_or_else(|| panic!("{name} has a fix")).clone();
                (edit.reason, edit.owner) = ("because".to_owned(), "me".to_owned());
                text = add_grant(&text, &edit).unwrap();
                after = compile(&text);
            }
            assert!(ask(&after.slice(&facts(component))).is_ok(), "{component} {name}");
            for other in ["greeter", "vault", "stranger"] {
                for (n, (question, asks)) in QUESTIONS.iter().enumerate() {
                    let newly =
                        asks(&before.slice(&facts(other))).is_err() && asks(&after.slice(&facts(other))).is_ok();
                    // An X.509-SVID and the chain in it are one right.
                    let same = *question == *name
                        || (name == &"x509" && *question == "chain")
                        || (name == &"chain" && *question == "x509");
                    assert!(
                        !newly || (other == component && same),
                        "{component} {name} newly allows {other} {question} ({n})"
                    );
                }
            }
        }
    }
}

fn compile(text: &str) -> PolicySet {
    PolicySet::compile(
        &[Source { name: "grants.toml".to_owned(), text: text.to_owned(), kind: SourceKind::Grants }],
        41,
    )
    .unwrap()
}

#[test]
fn the_fix_names_the_class_of_an_address_in_the_url() {
    let slice = set(GRANTS, "").slice(&facts("greeter"));
    let denial = slice.http_send(&url("http://127.0.0.1:9999"), "GET").unwrap_err();
    assert_eq!(
        denial.fix_line(&context()).unwrap(),
        "portcullis grants add --config /etc/portcullis/portcullis.toml demo:greeter --http http://127.0.0.1:9999 --addresses loopback"
    );
}

#[test]
fn hostile_text_is_escaped_and_the_whole_is_at_most_2_kib() {
    let slice = set(GRANTS, "").slice(&facts("greeter"));
    let long_host = format!("https://{0}.{0}.{0}.{1}:65535", "a".repeat(63), "a".repeat(61));
    let denials = [
        slice.http_send(&url(&long_host), &"\u{1b}[31m".repeat(12)).unwrap_err(),
        slice.link(&"\u{1b}\n".repeat(1 << 19)).unwrap_err(),
        slice.svid_jwt(&"\u{202e}".repeat(1 << 19), 1).unwrap_err(),
        slice.svid_jwt(&"'".repeat(255), 1).unwrap_err(),
        slice.call(&Caller::Workload(format!("spiffe://demo.example/{}", "a".repeat(2_000)))).unwrap_err(),
        slice.call(&Caller::Workload("\u{1b}".repeat(1 << 19))).unwrap_err(),
    ];
    let contexts = [context(), FixContext { program: "p".to_owned(), config: Some("/\u{1b}[31m'".repeat(600).into()) }];
    for denial in denials {
        for context in &contexts {
            let text = denial.clone().with_reference("\u{1b}x".repeat(99)).render(context);
            assert!(text.len() <= 2 << 10, "{} bytes", text.len());
            assert!(text.bytes().all(|b| b == b'\n' || b == b' ' || b.is_ascii_graphic()), "{text}");
            assert!(text.lines().count() <= 7, "{text}");
            assert!(text.starts_with("denied "), "{text}");
        }
        assert!(serde_json::to_vec(&denial).unwrap().len() < 8 << 10);
    }
}

#[test]
fn shell_lines_are_quoted() {
    let line = |words: &[&str]| render::shell_line(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    assert_eq!(
        line(&["a", "https://a.example:1", "", "it's", "$(x)", "*", "a b"]),
        "a https://a.example:1 '' 'it'\\''s' '$(x)' '*' 'a b'"
    );
    assert_eq!(line(&["a\nb", "\u{1b}'"]), "$'a\\x0ab' $'\\x1b\\''");
    assert_eq!(line(&["http://[2001:db8::1]:80"]), "'http://[2001:db8::1]:80'");
}
