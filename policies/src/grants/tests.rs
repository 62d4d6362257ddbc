use super::*;
use crate::source::SourceKind;

fn source(text: &str) -> Source {
    Source { name: "grants.toml".to_owned(), text: text.to_owned(), kind: SourceKind::Grants }
}

fn problems(text: &str) -> Vec<String> {
    parse(&source(text)).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect()
}

fn with(lines: &str) -> String {
    format!("version = 1\n[[grant]]\nid = \"a\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"demo:a\"\n{lines}\n")
}

const FULL: &str = r#"
link = ["wasi:keyvalue/store", "portcullis:identity/*"]
http = ["https://vault.demo.internal:8443"]
peer = "spiffe://demo.example/ns/demo/sa/vault"
addresses = ["loopback", "private", "10.0.0.0/8", "127.0.0.1/32"]
identity = ["read", "bundles", "peer", "x509", "validate", "export"]
purposes = ["receipts", "shop/orders:v1"]
audiences = ["vault"]
max_ttl = "5m"
callers = ["anonymous", "spiffe://demo.example/ns/demo/sa/greeter"]
load = true
"#;

#[test]
fn every_key_is_read() {
    let grants = parse(&source(&with(FULL))).unwrap();
    let [grant] = grants.as_slice() else { panic!("one grant") };
    assert_eq!((grant.id(), grant.component(), grant.place()), ("a", "demo:a", ("grants.toml", 2)));
    assert!(grant.load);
    assert_eq!(grant.link.len(), 2);
    assert_eq!(grant.http[0].to_string(), "https://vault.demo.internal:8443");
    assert_eq!(grant.peer.as_ref().unwrap().path(), "/ns/demo/sa/vault");
    assert_eq!(grant.addresses.len(), 4);
    assert_eq!(grant.identity, IdentityRight::ALL.map(|(_, right)| right));
    assert_eq!(grant.purposes, ["receipts", "shop/orders:v1"]);
    assert_eq!((grant.audiences.as_slice(), grant.max_ttl), (["vault".to_owned()].as_slice(), Some(300)));
    assert_eq!(grant.callers[0], CallerPattern::Anonymous);
}

#[test]
fn an_empty_file_grants_nothing() {
    for text in ["", "  \n", "# nothing yet\n", "version = 1\n"] {
        assert!(parse(&source(text)).unwrap().is_empty(), "{text:?}");
    }
}

#[test]
fn all_problems_are_listed_with_line_and_column() {
    let text = "version = 2\nextra = 1\n\n[[grant]]\nid = \"A\"\nreason = \"r\"\ncomponent = \"greeter\"\nhttps = [\"x\"]\n\
                http = [\"https://a.example/path\", 5]\naddresses = [\"metadata\"]\nload = \"yes\"\n[[grant]]\n";
    let found = problems(text);
    for expected in [
        "grants.toml:1:1: this host reads version 1",
        "grants.toml:2:1: unknown key `extra`",
        "grants.toml:4:1: `owner` is missing",
        "grants.toml:5:6: \"A\": this value is not taken",
        "grants.toml:7:13: \"greeter\": this value is not taken",
        "grants.toml:8:1: unknown key `https`",
        "grants.toml:9:9: \"https://a.example/path\": a path",
        "grants.toml:9:35: this is not text",
        "grants.toml:10:14: \"metadata\": no grant can open metadata addresses",
        "grants.toml:11:8: this is neither true nor false",
        "grants.toml:12:1: `id` is missing",
        "grants.toml:12:1: this grant grants nothing",
    ] {
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{expected} is not among {found:#?}");
    }
}

#[test]
fn a_key_that_is_mistyped_is_the_one_problem_and_says_what_was_meant() {
    for (typed, meant) in [("lod = true", "load"), ("htpp = [\"https://a.example\"]", "http")] {
        let found = problems(&with(typed));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains(&format!("did you mean `{meant}`? known keys: ")), "{found:#?}");
    }
}

#[test]
fn syntax_errors_name_their_place_and_duplicate_keys_are_errors() {
    assert!(
        problems("version = 1\n[[grant]\n")[0].starts_with("grants.toml:2:"),
        "{:?}",
        problems("version = 1\n[[grant]\n")
    );
    let twice = problems(&with("load = true\nload = false"));
    assert!(twice[0].starts_with("grants.toml:8:"), "{twice:?}");
}

#[test]
fn values_that_are_not_canonical_or_not_known_are_refused() {
    for lines in [
        "load = false",
        "load = 1",
        "link = []",
        "link = \"wasi:http/outgoing-handler\"",
        "link = [\"wasi:http/outgoing-handler@0.2.3\"]",
        "link = [\"wasi:*\"]",
        "link = [\"*\"]",
        "http = [\"https://*.example\"]",
        "http = [\"a.example\"]",
        "http = [\"https://u@a.example\"]",
        "http = [\"https://a.example\", \"HTTPS://A.example:443\"]",
        "http = [\"http://a.example\"]\npeer = \"spiffe://demo.example/a\"",
        "http = [\"https://a.example\"]\npeer = \"spiffe://demo.example\"",
        "load = true\npeer = \"spiffe://demo.example/a\"",
        "load = true\naddresses = [\"loopback\"]",
        "http = [\"https://a.example\"]\naddresses = [\"0.0.0.0/0\"]",
        "http = [\"https://a.example\"]\naddresses = [\"link-local\"]",
        "identity = [\"all\"]",
        "identity = [\"Read\"]",
        "audiences = [\"\"]",
        "audiences = [\"a b\"]",
        "audiences = [\"a\\nb\"]",
        "load = true\nmax_ttl = \"5m\"",
        "audiences = [\"a\"]\nmax_ttl = \"0s\"",
        "audiences = [\"a\"]\nmax_ttl = \"61m\"",
        "audiences = [\"a\"]\nmax_ttl = \"5\"",
        "audiences = [\"a\"]\nmax_ttl = \"+5m\"",
        "audiences = [\"a\"]\nmax_ttl = \"99999999999999999999h\"",
        "audiences = [\"a\"]\nmax_ttl = \"é\"",
        "callers = [\"anyone\"]",
        "callers = [\"spiffe://demo.example/*\"]",
        "load = true\nnot_a_key = true",
    ] {
        assert!(parse(&source(&with(lines))).is_err(), "{lines}");
    }
}

#[test]
fn limits_of_a_grant_hold() {
    let list = |n: usize| with(&format!("audiences = [{}]", (0..n).map(|n| format!("\"a{n}\",")).collect::<String>()));
    assert!(parse(&source(&list(LIST_ENTRIES))).is_ok());
    assert!(parse(&source(&list(LIST_ENTRIES + 1))).is_err());
    let id = |n: usize| with("load = true").replace("\"a\"", &format!("\"{}\"", "a".repeat(n)));
    assert!(parse(&source(&id(ID_BYTES))).is_ok());
    assert!(parse(&source(&id(ID_BYTES + 1))).is_err());
    let reason = |n: usize| with("load = true").replace("\"r\"", &format!("\"{}\"", "r".repeat(n)));
    assert!(parse(&source(&reason(REASON_BYTES))).is_ok());
    assert!(parse(&source(&reason(REASON_BYTES + 1))).is_err());
    let owner = |n: usize| with("load = true").replace("\"o\"", &format!("\"{}\"", "o".repeat(n)));
    assert!(parse(&source(&owner(OWNER_BYTES))).is_ok());
    assert!(parse(&source(&owner(OWNER_BYTES + 1))).is_err());
    let many = |n: usize| format!("version = 1\ngrant = [{}]", "{},".repeat(n));
    let is_too_many = |n: usize| problems(&many(n)).iter().any(|problem| problem.contains("more than 20000 grants"));
    assert!(!is_too_many(GRANTS));
    assert!(is_too_many(GRANTS + 1));
}

#[test]
fn arbitrary_and_damaged_text_never_panics() {
    let full = with(FULL);
    let mut random = crate::testing::Random::new(3);
    for _ in 0..3_000 {
        let mut text: Vec<char> = full.chars().collect();
        for _ in 0..random.below(4) + 1 {
            let at = random.below(text.len().max(1));
            match random.below(3) {
                0 if text.len() > 1 => drop(text.remove(at)),
                0 | 1 => text.insert(at, *random.pick(&['"', '[', ']', '=', '\n', '\u{0}', 'ü', '.', '{'])),
                _ => text.truncate(at.max(1)),
            }
        }
        let _ = parse(&source(&text.into_iter().collect::<String>()));
    }
}

#[test]
fn what_is_granted_implies_the_links_that_it_needs() {
    let links = |lines: &str| {
        let grants = parse(&source(&with(lines))).unwrap();
        cedar::links(&grants[0]).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(links("load = true"), [""; 0]);
    assert_eq!(links("http = [\"https://a.example\"]"), ["wasi:http/outgoing-handler"]);
    assert_eq!(
        links("audiences = [\"a\"]"),
        ["portcullis:identity/types", "portcullis:identity/jwt", "wasmcloud:identity/store"]
    );
    assert!(!links("identity = [\"read\"]").contains(&"portcullis:identity/jwt".to_owned()));
}
