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
        (", xkey: X1", ", xkey: \"\"", "callout.no-xkey"),
        ("account: AUTH,", "account: \"\",", "callout.default-account"),
        ("account: AUTH,", "account: $UNSET,", "callout.default-account"),
        ("auth_users: [", "auth_users: [], other: [", "callout.no-users"),
        ("APP {}", "APP { users: [ { user: bob, password: \"\" } ] }", "user.empty-password"),
        ("APP {}", "APP { users: [ { user: bob, pass: '' } ] }", "user.empty-password"),
        ("APP {}", "APP { users: [ { nkey: \"\", user: bob } ] }", "user.empty-password"),
        ("timeout: 1.5", "timeout: 1.5, users: [ { user: bob, password: \"\" } ]", "user.empty-password"),
        ("timeout: 1.5", "timeout: 1.5, user: bob, password: \"\"", "user.empty-password"),
        ("timeout: 1.5", "timeout: 1.5, user: bob, password: \"$2a$11$x\"", "callout.user-outside"),
        ("timeout: 1.5", "timeout: 1.5, user: bob, password: \"$2notahash\"", "secret.plain"),
        ("timeout: 1.5", "timeout: 1.5, token: \"$2a$11$x\"", "auth.token"),
        ("timeout: 1.5", "timeout: 1.5, token: \"\"", "auth.token"),
        (
            "AUTH { users",
            "AUTH { imports: [ { service: { account: APP, subject: x } } ], users",
            "callout.shared-account",
        ),
        ("AUTH { users", "AUTH { mappings: { a: b }, users", "callout.shared-account"),
        ("[\"$SYS.REQ.USER.INFO\"]", "[]", "callout.permissions"),
        ("[\"$SYS.REQ.USER.AUTH callout\", \"_INBOX_callout.>\"]", "[]", "callout.permissions"),
        ("\"_INBOX_callout.>\"", "\"_INBOX_*.>\"", "callout.permissions"),
        ("\"_INBOX_callout.>\"", "\"$SYS.REQ.>\"", "callout.permissions"),
        ("min_version: \"1.3\"", "min_version: \"1.0\"", "tls.version"),
        ("ca_file: \"c\"", "ca_file: \"\"", "tls.no-ca"),
        ("ca_file: \"c\"", "ca_file: \"c\", insecure: true", "tls.optional"),
        ("handshake_first: true", "handshake_first: \"300ms\"", "tls.not-first"),
        ("handshake_first: true", "handshake_first: false", "tls.not-first"),
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
        ("system_account: SYS", "system_account: SYS\nhttp: \"0.0.0.0:8222\"", "listener.monitoring"),
        ("system_account: SYS", "system_account: SYS\nhttp: \"127.0.0.1.example:8222\"", "listener.monitoring"),
        ("system_account: SYS", "system_account: SYS\nprof_port: 6060", "listener.profiling"),
        ("system_account: SYS", "system_account: SYS\ncluster { port: 6222, tls { cert_file: a } }", "listener.routes"),
        (
            "system_account: SYS",
            "system_account: SYS\ncluster { port: 6222, tls { ca_file: c, insecure: true } }",
            "listener.routes",
        ),
        ("system_account: SYS", "system_account: SYS\ngateway { name: a, port: 7222 }", "listener.routes"),
        ("system_account: SYS", "system_account: SYS\ngateway: $GATEWAY", "listener.routes"),
        (
            "system_account: SYS",
            "system_account: SYS\ncluster { routes: [ \"nats-route://a:b@c:6222\" ] }",
            "secret.plain",
        ),
        (
            "system_account: SYS",
            "system_account: SYS\nleafnodes { remotes: [ { url: \"tls://a:b@c:7422\" } ] }",
            "secret.plain",
        ),
        ("system_account: SYS", "system_account: SYS\njetstream { store_dir: a, key: b }", "secret.plain"),
        (
            "system_account: SYS",
            "system_account: SYS\nleafnodes { port: 7422, tls { ca_file: c, verify: true }, authorization { timeout: 1 } }",
            "listener.leafnodes",
        ),
        (
            "system_account: SYS",
            "system_account: SYS\nleafnodes { port: 7422, tls { ca_file: c, verify: true }, authorization { user: a, password: \"$2a$11$x\" } }",
            "auth.beside",
        ),
        (
            "system_account: SYS",
            "system_account: SYS\nwebsocket { port: 443, tls { cert_file: a }, authorization { token: \"$2a$11$x\" } }",
            "auth.beside",
        ),
        (
            "system_account: SYS",
            "system_account: SYS\nwebsocket { port: 443, tls { cert_file: a, verify: true } }",
            "tls.no-ca",
        ),
        (
            "system_account: SYS",
            "system_account: SYS\nwebsocket { port: 443, tls { cert_file: a }, token_cookie: t }",
            "listener.websocket",
        ),
        (
            "system_account: SYS",
            "system_account: SYS\nmqtt { port: 8883, tls { cert_file: a }, no_auth_user: bob }",
            "auth.no-auth-user",
        ),
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
fn users_by_certificate_need_it_on_every_listener() {
    let by_certificate = good().replace(&format!("nkey: {U2}"), &format!("user: {U2}"));
    let mapped = by_certificate.replace("verify: true", "verify_and_map: true").replace(U2, "\"spiffe://td/revoker\"");
    assert_eq!(codes(&mapped), Vec::<&str>::new());
    let with = |more: &str| codes(&format!("{mapped}{more}"));
    assert!(with("websocket { port: 443, tls { cert_file: a } }").contains(&"user.empty-password"));
    let all = "websocket { port: 443, tls { cert_file: a, ca_file: c, verify_and_map: true } }";
    assert_eq!(with(all), Vec::<&str>::new());
}

#[test]
fn what_is_no_danger_is_not_called_one() {
    for (from, to) in [
        ("timeout: 1.5", "timeout: \"1500ms\""),
        ("handshake_first: true", "first: yes"),
        ("verify: true", "verify_and_map: true"),
        ("xkey: X1", "xkey: X1, allowed_accounts: [AUTH, APP]"),
        ("APP {}", "APP { jetstream: { max_file: 1 } }\nMORE { jetstream: enabled }"),
        ("APP {}", "APP { exports: [ { service: x } ] }"),
        ("system_account: SYS", "system_account: SYS\nhttp: \"127.0.0.1:8222\""),
        ("system_account: SYS", "system_account: SYS\nhttp: \"localhost:8222\""),
        ("system_account: SYS", "system_account: SYS\nhttp: \"[::1]:8222\""),
        ("system_account: SYS", "system_account: SYS\nhttps_port: 8222"),
        ("system_account: SYS", "system_account: SYS\nprof_port: 0"),
        ("system_account: SYS", "system_account: SYS\njetstream { store_dir: a, max_file: 1G }"),
        ("system_account: SYS", "system_account: SYS\njetstream { store_dir: a, key: $JS_KEY }"),
        (
            "system_account: SYS",
            "system_account: SYS\nleafnodes { remotes: [ { url: \"tls://c:7422\", credentials: a } ] }",
        ),
        ("system_account: SYS", "system_account: SYS\ncluster { port: 6222, tls { cert_file: a, ca_file: c } }"),
        ("system_account: SYS", "system_account: SYS\ncluster { routes: [ \"nats-route://c:6222\" ] }"),
        (
            "system_account: SYS",
            "system_account: SYS\nwebsocket { port: 443, same_origin: true, jwt_cookie: a, tls { cert_file: a, ca_file: c, verify: true } }",
        ),
        ("system_account: SYS", "system_account: SYS\nmqtt { port: 8883, tls { cert_file: a } }"),
        ("system_account: SYS", "system_account: SYS\nmax_payload: 1MB\nwrite_deadline: \"10s\"\nserver_name: n1"),
    ] {
        let text = good().replacen(from, to, 1);
        assert_ne!(text, good(), "{from}");
        assert_eq!(codes(&text), Vec::<&str>::new(), "{to}");
    }
}

/// What is worth a look and no danger: every one is found, and none of them in what has none.
#[test]
fn notes_are_made_of_what_may_be_meant() {
    let notes = |text: &str| {
        let first = Loaded { name: "server.conf".to_owned(), text: text.to_owned() };
        let (map, _) = read(first, &mut |_, _| Err("none".to_owned())).unwrap();
        let found = check(&map, &Context::default());
        found.into_iter().filter(|one| one.level == Level::Note).map(|one| one.code).collect::<Vec<_>>()
    };
    let usual = ["callout.accounts-mode", "callout.system-user"];
    assert_eq!(notes(&good()), usual);
    for (from, to, code) in [
        ("timeout: 1.5", "timeout: 0.5", "auth.timeout"),
        ("verify: true, ", "", "tls.no-verify"),
        ("min_version: \"1.3\", ", "", "tls.version"),
        ("AUTH { users", "AUTH { jetstream: enabled, users", "callout.shared-account"),
        ("USER.AUTH callout\"", "USER.AUTH\"", "callout.permissions"),
        ("max: 1", "max: 5", "callout.permissions"),
        ("system_account: SYS", "system_account: SYS\nhttps: \"0.0.0.0:8222\"", "listener.monitoring"),
        ("APP {}", "APP { users: [ { user: bob, password: $BOB } ] }", "user.empty-password"),
        ("xkey: X1", "xkey: X1, allowed_accounts: [AUTH]", "callout.allowed-accounts"),
    ] {
        let text = good().replacen(from, to, 1);
        assert_ne!(text, good(), "{from}");
        assert!(notes(&text).contains(&code), "{to}: {:?}", notes(&text));
    }
    let bypass = good().replacen("APP {}", "APP { users: [ { nkey: U3 } ] }", 1).replacen(
        "auth_users: [",
        "auth_users: [U3, ",
        1,
    );
    assert!(notes(&bypass).contains(&"callout.bypass"));
    assert!(
        notes(&good().replace("users: [ { nkey: UAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA2 } ]", ""))
            .contains(&"callout.no-system-user")
    );
}

#[test]
fn files_that_others_read_and_old_servers_are_found() {
    let files = vec!["server.conf".to_owned(), "users.conf".to_owned()];
    let readable = Context { files, readable_by_others: vec!["users.conf".to_owned()], ..Context::default() };
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

/// Base64url without padding: the inverse of what is read.
fn encoded(claims: &serde_json::Value) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::from("e30.");
    for chunk in claims.to_string().as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            let value = (bits >> (18 - 6 * at)) & 63;
            text.push(char::from(ALPHABET[usize::try_from(value).unwrap()]));
        }
    }
    text + ".x"
}

/// An operator's configuration with a callout account A1 that places into A2, and a sentinel.
fn operators(auth: &serde_json::Value, apps: &serde_json::Value, sentinel: &serde_json::Value) -> String {
    format!(
        "tls {{ ca_file: c, verify: true, min_version: \"1.3\", handshake_first: true }}\noperator: x\nsystem_account: AS\n\
         authorization {{ timeout: 1.5 }}\ndefault_sentinel: \"{}\"\nresolver_preload {{ A1: {}\n A2: {} }}",
        encoded(sentinel),
        encoded(auth),
        encoded(apps)
    )
}

#[test]
fn an_operators_accounts_are_looked_into() {
    use serde_json::json;
    let auth =
        json!({ "nats": { "authorization": { "auth_users": ["U1"], "allowed_accounts": ["A2"], "xkey": "X1" } } });
    let template = json!({ "pub": { "allow": ["a"] }, "sub": { "deny": [">"] } });
    let apps = json!({ "nats": { "signing_keys": [{ "kind": "user_scope", "key": "A3", "template": template }] } });
    let nothing = json!({ "deny": [">"] });
    let sentinel = json!({ "iss": "A1", "nats": { "pub": nothing, "sub": nothing } });
    assert_eq!(codes(&operators(&auth, &apps, &sentinel)), Vec::<&str>::new());
    let changed = |value: &serde_json::Value, pointer: &str, new: serde_json::Value| {
        let mut value = value.clone();
        *value.pointer_mut(pointer).unwrap() = new;
        value
    };
    let block = "/nats/authorization";
    for (pointer, new, code) in [
        ("/auth_users", json!(["U1", "U2"]), "callout.many-users"),
        ("/allowed_accounts", json!(["*"]), "callout.allowed-accounts"),
        ("/allowed_accounts", json!(["A2", "AS"]), "callout.allowed-accounts"),
        ("/xkey", json!(""), "callout.no-xkey"),
    ] {
        let auth = changed(&auth, &format!("{block}{pointer}"), new.clone());
        assert_eq!(codes(&operators(&auth, &apps, &sentinel)), [code], "{pointer} {new}");
    }
    for (pointer, new) in [("/pub", json!({})), ("/pub/allow", json!([])), ("/sub", json!({ "deny": ["a"] }))] {
        let apps = changed(&apps, &format!("/nats/signing_keys/0/template{pointer}"), new);
        assert_eq!(codes(&operators(&auth, &apps, &sentinel)), ["operator.open-template"], "{pointer}");
    }
    for (pointer, new) in [("/iss", json!("A2")), ("/nats/pub", json!({})), ("/nats/sub", json!({ "allow": ["a"] }))] {
        let sentinel = changed(&sentinel, pointer, new);
        assert_eq!(codes(&operators(&auth, &apps, &sentinel)), ["operator.sentinel"], "{pointer}");
    }
    let text = operators(&auth, &apps, &sentinel);
    assert!(codes(&text.replace("system_account: AS", "system_account: A1")).contains(&"callout.system-account"));
    assert_eq!(codes(&text.replace("A2: ", "A2: noise A3: ").replace(" A3: ", "\n A3: ")), ["operator.preload"]);
    assert!(
        codes(&format!("{text}\nauthorization {{ timeout: 1.5, auth_callout {{ issuer: A }} }}"))
            .contains(&"callout.wrong-mode")
    );
}

#[test]
fn a_jwt_that_ends_within_thirty_days_is_spoken_of_and_one_that_has_ended_is_a_danger() {
    use serde_json::json;
    let nothing = json!({ "deny": [">"] });
    let text = |exp: i64| {
        let auth =
            json!({ "nats": { "authorization": { "auth_users": ["U1"], "allowed_accounts": ["A2"], "xkey": "X1" } } });
        operators(&auth, &json!({}), &json!({ "iss": "A1", "exp": exp, "nats": { "pub": nothing, "sub": nothing } }))
    };
    let now = 1_000_000_000;
    let found = |exp: i64, now: Option<i64>| {
        let first = Loaded { name: "server.conf".to_owned(), text: text(exp) };
        let (map, _) = read(first, &mut |_, _| Err("none".to_owned())).unwrap();
        let found = check(&map, &Context { now, ..Context::default() });
        found.into_iter().map(|one| one.code).find(|code| code.starts_with("jwt."))
    };
    let days = crate::limits::SERVER_END_DAYS * 86_400;
    for (exp, code) in [
        (now + days, None),
        (now + days - 1, Some("jwt.ends")),
        (now + 1, Some("jwt.ends")),
        (now, Some("jwt.ended")),
        (1, Some("jwt.ended")),
        (0, None),
        (i64::MAX, None),
    ] {
        assert_eq!(found(exp, Some(now)), code, "{exp}");
        assert_eq!(found(exp, None), None, "without a clock nothing is said");
    }
}
