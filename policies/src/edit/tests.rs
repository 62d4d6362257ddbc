use super::*;
use crate::grants::IdentityRight;

const FILE: &str = r#"# Who may do what.
version = 1

[[grant]]                       # the first
id = "demo-greeter-http"
reason = "r"
owner = "o"
component = "demo:greeter"
http = ["https://vault.demo.internal:8443"]   # the vault
addresses = ["private"]
peer = "spiffe://demo.example/ns/demo/sa/vault"

# The end.
"#;

fn edit() -> GrantEdit {
    GrantEdit {
        component: "demo:greeter".to_owned(),
        reason: "why".to_owned(),
        owner: "who".to_owned(),
        ..GrantEdit::default()
    }
}

fn url(text: &str) -> Option<Destination> {
    Some(Destination::parse_url(text).unwrap())
}

#[test]
fn an_addition_is_a_new_grant_and_everything_else_stays_as_it_was() {
    let edit = GrantEdit { http: url("http://127.0.0.1:9999"), addresses: vec!["loopback".parse().unwrap()], ..edit() };
    let text = add_grant(FILE, &edit).unwrap();
    for line in FILE.lines() {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let source = Source { name: "g".to_owned(), text: text.clone(), kind: SourceKind::Grants };
    let grants = grants::parse(&source).unwrap();
    assert_eq!(grants.len(), 2);
    assert_eq!(grants[1].id(), "demo-greeter-http-2");
    assert_eq!(grants[1].http, [url("http://127.0.0.1:9999").unwrap()]);
    assert_eq!(grants[1].addresses.len(), 1);
    assert!(grants[1].peer.is_none() && grants[1].link.is_empty() && !grants[1].load);
    assert_eq!(add_grant(&text, &edit).unwrap(), text, "the second time changes nothing");
}

#[test]
fn only_what_is_missing_is_added() {
    let all = GrantEdit {
        load: true,
        link: vec!["wasi:keyvalue/store".to_owned(), "wasi:http/outgoing-handler".to_owned()],
        http: url("https://vault.demo.internal:8443"),
        identity: vec!["read".to_owned()],
        audiences: vec!["vault".to_owned()],
        callers: vec!["anonymous".to_owned()],
        ..edit()
    };
    let text = add_grant(FILE, &all).unwrap();
    let source = Source { name: "g".to_owned(), text: text.clone(), kind: SourceKind::Grants };
    let added = &grants::parse(&source).unwrap()[1];
    assert!(added.http.is_empty(), "it was granted already");
    assert_eq!(added.link.iter().map(ToString::to_string).collect::<Vec<_>>(), ["wasi:keyvalue/store"]);
    assert!(added.load && added.audiences == ["vault"] && added.identity == [IdentityRight::Read]);
    assert_eq!(add_grant(&text, &all).unwrap(), text);
}

#[test]
fn another_address_for_a_granted_destination_does_not_widen_the_grant_that_has_it() {
    let edit = GrantEdit {
        http: url("https://vault.demo.internal:8443"),
        addresses: vec!["loopback".parse().unwrap()],
        ..edit()
    };
    let text = add_grant(FILE, &edit).unwrap();
    assert!(text.contains("addresses = [\"private\"]") && text.contains("addresses = [\"loopback\"]"), "{text}");
}

#[test]
fn an_empty_file_gets_its_version() {
    let text = add_grant("", &GrantEdit { load: true, ..edit() }).unwrap();
    assert!(text.starts_with("version = 1\n"), "{text}");
    assert_eq!(add_grant("", &edit()).unwrap(), "", "nothing was asked for");
}

#[test]
fn what_is_not_valid_is_not_written() {
    let spoilt: [fn(&mut GrantEdit); 6] = [
        |edit| edit.component = "greeter".to_owned(),
        |edit| edit.owner = String::new(),
        |edit| edit.link = vec!["*".to_owned()],
        |edit| edit.audiences = vec!["a\"]\nload = true\nx = [\"".to_owned()],
        |edit| edit.peer = Some("spiffe://demo.example/a".to_owned()),
        |edit| edit.callers = vec!["everyone".to_owned()],
    ];
    for spoil in spoilt {
        let mut edit = GrantEdit { load: true, ..edit() };
        spoil(&mut edit);
        assert!(matches!(add_grant(FILE, &edit), Err(EditError::Addition(_))), "{edit:?}");
    }
    assert!(matches!(add_grant("version = 7", &edit()), Err(EditError::Existing(_))));
    let inline =
        "version = 1\ngrant = [{ id = \"a\", reason = \"r\", owner = \"o\", component = \"demo:a\", load = true }]\n";
    assert_eq!(add_grant(inline, &GrantEdit { load: true, ..edit() }), Err(EditError::Shape));
}

#[test]
fn the_command_line_carries_every_part_and_no_value_becomes_a_flag() {
    let edit = GrantEdit {
        load: true,
        link: vec!["wasi:keyvalue/store".to_owned()],
        http: url("https://a.example:443"),
        peer: Some("spiffe://demo.example/a".to_owned()),
        addresses: vec!["10.0.0.0/8".parse().unwrap()],
        identity: vec!["read".to_owned()],
        audiences: vec!["--load".to_owned()],
        purposes: vec!["receipts".to_owned()],
        callers: vec!["anonymous".to_owned()],
        ..edit()
    };
    let argv = edit.command("portcullis", Some(Path::new("/etc/portcullis/portcullis.toml")));
    assert_eq!(
        argv.join(" "),
        "portcullis grants add --config /etc/portcullis/portcullis.toml demo:greeter --load --link wasi:keyvalue/store \
         --identity read --audience=--load --purpose receipts --caller anonymous --http https://a.example --peer spiffe://demo.example/a \
         --addresses 10.0.0.0/8"
    );
}
