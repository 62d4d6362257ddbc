use super::*;
use crate::nats_server::{Loaded, read};

const U1: &str = "UAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA1";
const U2: &str = "UAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA2";

fn good() -> String {
    format!(
        r#"listen: "127.0.0.1:4222"
tls {{ cert_file: "a", key_file: "b", ca_file: "c", verify: true, min_version: "1.3", handshake_first: true }}
accounts {{
  AUTH {{ users: [ {{ nkey: {U1}, permissions: {{
    publish: {{ allow: ["$SYS.REQ.USER.INFO"] }}
    subscribe: {{ allow: ["$SYS.REQ.USER.AUTH callout", "_INBOX_callout.>"] }}
    allow_responses: {{ max: 1, expires: "3s" }} }} }} ] }}
  APP {{}}
  SYS {{ users: [ {{ nkey: {U2} }} ] }}
}}
system_account: SYS
authorization {{ timeout: 1.5
  auth_callout {{ issuer: A1, account: AUTH, auth_users: [{U1}, {U2}], xkey: X1 }} }}
"#
    )
}

fn codes(text: &str) -> Vec<&'static str> {
    found(text, &Context { files: vec!["server.conf".to_owned()], ..Context::default() })
}

fn found(text: &str, context: &Context) -> Vec<&'static str> {
    let first = Loaded { name: "server.conf".to_owned(), text: text.to_owned() };
    let (map, _) = read(first, &mut |_, _| Err("none".to_owned())).unwrap();
    check(&map, context).into_iter().filter(|one| one.level == Level::Danger).map(|one| one.code).collect()
}

#[test]
fn a_least_privilege_configuration_has_nothing_dangerous() {
    assert_eq!(codes(&good()), Vec::<&str>::new());
}

#[test]
fn each_dangerous_setting_is_found_by_its_name() {
    for (from, to, code) in [
        (", xkey: X1", "", "callout.no-xkey"),
        ("account: AUTH,", "", "callout.default-account"),
        ("account: AUTH,", "account: $G,", "callout.default-account"),
        ("account: AUTH,", "account: SYS,", "callout.system-account"),
        ("account: AUTH,", "account: OTHER,", "callout.no-account"),
        ("xkey: X1", "xkey: X1, allowed_accounts: [APP]", "callout.allowed-accounts"),
        ("APP {}", "APP { users: [ { user: bob, password: \"$2a$11$x\" } ] }", "callout.user-outside"),
        ("APP {}", "APP { users: [ { user: bob, password: plain } ] }", "secret.plain"),
        ("APP {}", "APP { users: [ { user: bob } ] }", "user.empty-password"),
        ("AUTH { users: [", "AUTH { users: [ { nkey: U3 },", "callout.many-users"),
        ("AUTH { users", "AUTH { exports: [ { service: x } ], users", "callout.shared-account"),
        ("\"$SYS.REQ.USER.AUTH callout\"", "\">\"", "callout.permissions"),
        ("[\"$SYS.REQ.USER.INFO\"]", "[\"$SYS.REQ.USER.AUTH\"]", "callout.permissions"),
        ("timeout: 1.5", "timeout: 2", "auth.timeout"),
        ("timeout: 1.5", "timeout: \"3s\"", "auth.timeout"),
        ("timeout: 1.5", "", "auth.timeout"),
        ("timeout: 1.5", "timeout: x", "auth.timeout"),
        ("system_account: SYS", "system_account: SYS\nno_auth_user: bob", "auth.no-auth-user"),
        (", ca_file: \"c\"", "", "tls.no-ca"),
        (", handshake_first: true", "", "tls.not-first"),
        ("handshake_first: true", "handshake_first: auto", "tls.not-first"),
        ("system_account: SYS", "system_account: SYS\nallow_non_tls: true", "tls.optional"),
        ("system_account: SYS", "system_account: SYS\nleafnodes { port: 7422 }", "listener.leafnodes"),
        ("system_account: SYS", "system_account: SYS\nwebsocket { port: 8080, no_tls: true }", "listener.websocket"),
        ("system_account: SYS", "system_account: SYS\nmqtt { port: 1883 }", "listener.mqtt"),
        ("system_account: SYS", "system_account: SYS\ncluster { port: 6222 }", "listener.routes"),
        ("system_account: SYS", "system_account: SYS\nhttp_port: 8222", "listener.monitoring"),
        ("system_account: SYS", "system_account: SYS\ntrace: true", "log.trace"),
        ("system_account: SYS", "system_account: SYS\nsystem_account: APP", "key.twice"),
        ("system_account: SYS", "system_account: SYS\nauthorization { token: abc }", "secret.plain"),
    ] {
        let text = good().replacen(from, to, 1);
        assert_ne!(text, good(), "{from}");
        assert!(codes(&text).contains(&code), "{to}: {:?}", codes(&text));
    }
    let without_tls: String = good().lines().filter(|line| !line.starts_with("tls")).collect::<Vec<_>>().join("\n");
    assert!(codes(&without_tls).contains(&"tls.absent"));
    let without_callout = good().replace("auth_callout", "other");
    assert!(codes(&without_callout).contains(&"callout.absent"));
    let without_nkeys = good().replace(U1, "alice").replace(U2, "bob");
    assert!(codes(&without_nkeys).contains(&"auth.no-nonce"));
    let names = good().replace(U1, "\"spiffe://td/callout\"").replace(U2, "\"O=SPIRE,C=US\"");
    assert!(codes(&names).contains(&"tls.dn-user"));
}

#[test]
fn files_that_others_read_and_old_servers_are_found() {
    let files = vec!["server.conf".to_owned(), "users.conf".to_owned()];
    let readable = Context { files, readable_by_others: vec!["users.conf".to_owned()], version: None };
    assert_eq!(found(&good(), &readable), ["file.readable"]);
    for (version, old) in [
        ("2.15.1", false),
        ("v2.14.0", false),
        ("2.12.7", false),
        ("2.12.6", true),
        ("2.13.9", true),
        ("2.10.29", true),
        ("1.4.1", true),
        ("3.0.0", false),
        ("nonsense", true),
        ("2.14", true),
    ] {
        let context = Context { version: Some(version.to_owned()), ..Context::default() };
        assert_eq!(found(&good(), &context).contains(&"server.old"), old, "{version}");
    }
}

#[test]
fn an_operators_accounts_are_looked_into() {
    // {"nats":{"authorization":{"auth_users":["U1","U2"],"allowed_accounts":["*"]}}}
    let claims =
        "eyJuYXRzIjp7ImF1dGhvcml6YXRpb24iOnsiYXV0aF91c2VycyI6WyJVMSIsIlUyIl0sImFsbG93ZWRfYWNjb3VudHMiOlsiKiJdfX19";
    let text = format!(
        "tls {{ ca_file: c, verify: true, min_version: \"1.3\", handshake_first: true }}\noperator: x\nsystem_account: AS\n\
         authorization {{ timeout: 1.5 }}\nresolver_preload {{ A1: e30.{claims}.x\n A2: noise }}"
    );
    assert_eq!(codes(&text), ["callout.allowed-accounts", "callout.many-users", "callout.no-xkey", "operator.preload"]);
}
