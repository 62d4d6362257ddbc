//! What must keep a host from believing that it is connected to NATS, on a real nats-server: wrong servers, wrong secrets, a
//! callout that is silent, an account that is not meant. And what never leaves the host.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use nkeys::KeyPair;
use portcullis_tests::host::Host;
use portcullis_tests::nats::callout::Callout;
use portcullis_tests::nats::hosted::{HOST_ID, site, wait_problem, wait_ready};
use portcullis_tests::nats::operator::{Operator, credentials};
use portcullis_tests::nats::pki::{Authority, Leaf, replace};
use portcullis_tests::nats::relay::Relay;
use portcullis_tests::nats::{NatsServer, folder};
use portcullis_tests::site::Site;
use serde_json::json;

const SECRET: &str = "a-secret-that-must-not-leave-7f3a";
const TLS: &str = "tls { cert_file: server.pem, key_file: server.key, ca_file: ca.pem }";
const TOKEN: &str = "accounts { APP { users: [ { user: host, password: \"a-secret-that-must-not-leave-7f3a\" } ] }, OTHER {}, SYS {} }\nsystem_account: SYS";
const AUTH: &str = "user = \"host\"\nauth.user = \"host\"\nauth.password = \"secret\"";

fn server(test: &str, ca: &Authority, leaf: &Leaf, config: &str) -> Option<NatsServer> {
    let place = folder();
    ca.write(place.path(), "ca");
    leaf.write(place.path(), "server");
    NatsServer::start_in(test, place, config)
}

fn toml(url: &str, more: &str) -> String {
    format!("servers = [\"{url}\"]\naccount = \"APP\"\ntls.ca = \"ca.pem\"\n{more}")
}

/// A site with the secret and with the authority that it believes.
fn believing(ca: &Authority, nats: &str) -> Site {
    let site = site(nats);
    ca.write(site.path(), "ca");
    replace(site.path(), "secret", SECRET);
    site
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn servers_that_are_not_who_they_should_be_see_no_secret() {
    let test = "servers_that_are_not_who_they_should_be_see_no_secret";
    let (ca, other) = (Authority::new("A test root"), Authority::new("Another root"));
    for (leaf, more, why) in [
        (other.server(), "", "of an authority that is not trusted"),
        (ca.server_for(&["elsewhere.example"]), "", "for another name"),
        (ca.expired_server(), "", "has expired"),
        (ca.server(), "tls.server_id = \"spiffe://site.example/nats\"", "not who it should be"),
        (
            ca.spiffe("spiffe://site.example/other"),
            "tls.server_id = \"spiffe://site.example/nats\"",
            "not who it should be",
        ),
    ] {
        let Some(server) = server(test, &ca, &leaf, &format!("{TLS}\n{TOKEN}")) else { return };
        let host = Host::start(believing(&ca, &toml(&server.tls_url(), &format!("{AUTH}\n{more}"))));
        let problem = wait_problem(&host, why);
        assert!(problem.contains("hint: "), "{problem}");
        assert!(!server.log().contains("authentication error"), "it got as far as CONNECT\n{}", server.log());
    }
    // The same name in the certificate and in the configuration: it is let in.
    let leaf = ca.spiffe("spiffe://site.example/nats");
    let Some(server) = server(test, &ca, &leaf, &format!("{TLS}\n{TOKEN}")) else { return };
    let more = format!("{AUTH}\ntls.server_id = \"spiffe://site.example/nats\"");
    wait_ready(&Host::start(believing(&ca, &toml(&server.tls_url(), &more))));
}

#[test]
fn nothing_of_a_secret_leaves_where_tls_is_not_offered() {
    let test = "nothing_of_a_secret_leaves_where_tls_is_not_offered";
    let ca = Authority::new("A test root");
    let Some(server) = NatsServer::start(test, TOKEN) else { return };
    for (more, why) in [("", "does not offer TLS"), ("tls.first = true", "does not offer TLS")] {
        let relay = Relay::to(&server.address());
        let url = format!("tls://localhost:{}", relay.port());
        let host = Host::start(believing(&ca, &toml(&url, &format!("{AUTH}\n{more}"))));
        wait_problem(&host, why);
        while relay.connections() < 3 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let sent = relay.sent();
        assert_eq!(sent.first(), Some(&0x16), "the first byte is that of a TLS handshake");
        for text in [SECRET, "CONNECT", "host\"", "auth"] {
            assert!(!has(&sent, text), "{text} left the host");
        }
    }
}

#[test]
fn a_server_that_waits_for_tls_first_is_named_as_such() {
    let test = "a_server_that_waits_for_tls_first_is_named_as_such";
    let ca = Authority::new("A test root");
    let tls = TLS.replace("ca_file", "handshake_first: true, ca_file");
    let Some(server) = server(test, &ca, &ca.server(), &format!("{tls}\n{TOKEN}")) else { return };
    let host = Host::start(believing(&ca, &toml(&server.tls_url(), AUTH)));
    assert!(wait_problem(&host, "waits for TLS first").contains("tls.first = true"));
}

#[test]
fn certificates_that_the_server_does_not_take_are_named() {
    let test = "certificates_that_the_server_does_not_take_are_named";
    let (ca, other) = (Authority::new("A test root"), Authority::new("Another root"));
    let id = "spiffe://site.example/host";
    let config = format!(
        "{}\naccounts {{ APP {{ users: [ {{ user: \"{id}\" }}, {{ user: \"O=SPIRE,C=US\" }} ] }} }}",
        TLS.replace("ca_file", "verify_and_map: true, ca_file")
    );
    let Some(server) = server(test, &ca, &ca.server(), &config) else { return };
    let auth = format!("user = \"{id}\"\nauth.certificate = \"host.pem\"\nauth.key = \"host.key\"");
    let good = ca.spiffe(id);
    let mismatched = Leaf { certificate: good.certificate.clone(), key: ca.spiffe(id).key };
    for (leaf, why) in [
        (other.spiffe(id), "refused this host's certificate"),
        (ca.expired_spiffe(id), "the client certificate ended at"),
        (mismatched, "the key is not that of the certificate"),
        (Leaf { certificate: "nothing".into(), key: good.key.clone() }, "no certificate chain"),
        // Not mapped by its SPIFFE ID, it falls through to the subject that all SVIDs have.
        (ca.spiffe_like_spire("spiffe://site.example/unknown"), "the server takes this host for"),
    ] {
        let site = believing(&ca, &toml(&server.tls_url(), &auth));
        leaf.write(site.path(), "host");
        let host = Host::start(site);
        wait_problem(&host, why);
        // What is right is taken up at once.
        good.write(host.site().path(), "host");
        let began = Instant::now();
        wait_ready(&host);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}\n{}", began.elapsed(), host.log());
    }
}

#[test]
fn credentials_that_cannot_be_right_are_not_even_shown() {
    let test = "credentials_that_cannot_be_right_are_not_even_shown";
    let ca = Authority::new("A test root");
    let mut operator = Operator::new();
    let account = operator.account("APP", json!({}));
    let (one, other) = (KeyPair::new_user(), KeyPair::new_user());
    let Some(server) = server(test, &ca, &ca.server(), &format!("{TLS}\n{}", operator.config())) else { return };
    let nats = toml(&server.tls_url(), "auth.credentials = \"host.creds\"").replace("APP", &account.key.public_key());
    let good = credentials(&account.user(&one, "one", json!({}), None), &one);
    for (file, why) in [
        ("nothing of use".to_owned(), "it is no credentials file"),
        (good.replace("eyJ", "eyK"), "is no NATS user token"),
        (credentials(&account.user(&one, "one", json!({}), None), &other), "not that of the seed in it"),
        (credentials(&account.user(&one, "one", json!({}), Some(1_000)), &one), "the token in it ended"),
    ] {
        let site = believing(&ca, &nats);
        replace(site.path(), "host.creds", &file);
        let host = Host::start(site);
        wait_problem(&host, why);
        assert!(!server.log().contains("authentication error"), "it was shown\n{}", server.log());
        replace(host.site().path(), "host.creds", &good);
        wait_ready(&host);
    }
    // One that another operator's account signed is well-formed: the server refuses it.
    let stranger = Operator::new().account("APP", json!({}));
    let site = believing(&ca, &nats);
    replace(site.path(), "host.creds", &stranger.credentials("one", json!({}), None));
    wait_problem(&Host::start(site), "does not let this host in");
}

#[test]
fn a_secret_that_others_can_read_is_not_used() {
    let test = "a_secret_that_others_can_read_is_not_used";
    let ca = Authority::new("A test root");
    let Some(server) = server(test, &ca, &ca.server(), &format!("{TLS}\n{TOKEN}")) else { return };
    let site = believing(&ca, &toml(&server.tls_url(), AUTH));
    let path = site.file("secret");
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    site.write();
    let checked = site.run(["config", "check", "--config", "portcullis.toml"]);
    assert_eq!(checked.exit, 64, "{checked:?}");
    assert!(checked.err.contains("others can read it (mode 0644)"), "{checked:?}");
    mode(0o600);
    let host = Host::start(site);
    wait_ready(&host);
    // Later it is a problem of its own; the connection that stands is not ended by it.
    mode(0o644);
    wait_problem(&host, "others can read it");
    mode(0o600);
    wait_ready(&host);
}

#[test]
fn config_check_refuses_what_would_be_insecure_with_its_reason() {
    let tls = "servers = [\"tls://n.example\"]\naccount = \"APP\"\nauth.svid = true\n";
    for (nats, why) in [
        (tls.to_owned(), "anybody could be the server"),
        (
            format!("{tls}tls.ca = \"ca.pem\"\n").replace("tls://", "nats://"),
            "takes TLS only if the server asks for it",
        ),
        (format!("{tls}tls.ca = \"ca.pem\"\nuser = \"CN=host,O=SPIRE\"\n"), "all SVIDs may have the same"),
        (format!("{tls}tls.ca = \"ca.pem\"\n").replace("APP", "$G"), "must not be `$G`"),
        (format!("{tls}tls.ca = \"ca.pem\"\ninbox_prefix = \"_INBOX\"\n"), "is everybody's"),
    ] {
        let site = site(&nats);
        site.write();
        let checked = site.run(["config", "check", "--config", "portcullis.toml"]);
        assert_eq!(checked.exit, 64, "{nats}: {checked:?}");
        assert!(checked.err.contains(why), "{nats}: {checked:?}");
    }
}

#[test]
fn config_check_names_the_files_that_are_not_there() {
    let ca = Authority::new("A test root");
    let site = believing(&ca, &toml("tls://n.example", AUTH));
    site.write();
    let check = || site.run(["config", "check", "--config", "portcullis.toml"]);
    check().ok();
    for (name, key) in
        [("ca.pem", "nats.tls.ca"), ("secret", "nats.auth.password"), ("trust.signed.json", "trust.policy")]
    {
        let (there, away) = (site.file(name), site.file("away"));
        std::fs::rename(&there, &away).unwrap();
        let checked = check();
        assert_eq!(checked.exit, 64, "{name}: {checked:?}");
        let line = format!("{key}: {} is not there (", there.display());
        assert!(checked.err.contains(&line), "{line}: {}", checked.err);
        std::fs::rename(&away, &there).unwrap();
    }
    // The first grants file is made by the first grant: nothing is granted until then.
    std::fs::remove_file(site.file("grants.toml")).unwrap();
    let checked = check().ok();
    assert!(checked.err.contains("warning: policy.grants: ") && checked.err.contains("grants add"), "{checked:?}");
}

#[test]
fn a_host_in_another_account_or_for_somebody_else_is_not_connected() {
    let test = "a_host_in_another_account_or_for_somebody_else_is_not_connected";
    let ca = Authority::new("A test root");
    for (account, why) in
        [("OTHER", "into the account OTHER, not into APP"), ("SYS", "into the account SYS, not into APP")]
    {
        let users = format!("{account} {{ users: [ {{ user: host, password: \"{SECRET}\" }} ] }}");
        let names = ["APP", "OTHER", "SYS"].into_iter().filter(|name| *name != account);
        let rest: String = names.map(|name| format!("{name} {{}}, ")).collect();
        let config = format!("{TLS}\naccounts {{ {rest} {users} }}\nsystem_account: SYS");
        let Some(server) = server(test, &ca, &ca.server(), &config) else { return };
        wait_problem(&Host::start(believing(&ca, &toml(&server.tls_url(), AUTH))), why);
    }
    let Some(server) = server(test, &ca, &ca.server(), &format!("{TLS}\n{TOKEN}")) else { return };
    let other = AUTH.replacen("\"host\"", "\"somebody\"", 1);
    wait_problem(
        &Host::start(believing(&ca, &toml(&server.tls_url(), &other))),
        "takes this host for host, not for somebody",
    );
}

#[test]
fn a_host_that_may_not_ask_who_it_is_does_not_count_as_connected() {
    let test = "a_host_that_may_not_ask_who_it_is_does_not_count_as_connected";
    let ca = Authority::new("A test root");
    let narrow = TOKEN
        .replace("7f3a\" }", "7f3a\", permissions: { publish: { allow: [\"a\"] }, subscribe: { allow: [\">\"] } } }");
    let Some(server) = server(test, &ca, &ca.server(), &format!("{TLS}\n{narrow}")) else { return };
    let host = Host::start(believing(&ca, &toml(&server.tls_url(), AUTH)));
    assert!(wait_problem(&host, "may not ask the server").contains("$SYS.REQ.USER.INFO"));
}

#[test]
fn a_host_that_is_refused_does_not_hammer_at_the_server_and_begins_anew_with_a_new_secret() {
    let test = "a_host_that_is_refused_does_not_hammer_at_the_server_and_begins_anew_with_a_new_secret";
    let ca = Authority::new("A test root");
    let Some(server) = server(test, &ca, &ca.server(), &format!("{TLS}\n{TOKEN}")) else { return };
    let relay = Relay::to(&server.address());
    let site = believing(&ca, &toml(&format!("tls://localhost:{}", relay.port()), AUTH));
    replace(site.path(), "secret", "wrong");
    let host = Host::start(site);
    wait_problem(&host, "does not let this host in");
    let before = relay.connections();
    std::thread::sleep(Duration::from_secs(10));
    let attempts = relay.connections() - before;
    assert!(attempts <= 5, "{attempts} attempts in 10 s\n{}", host.log());
    replace(host.site().path(), "secret", SECRET);
    let began = Instant::now();
    wait_ready(&host);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callout_that_is_silent_or_slow_is_no_connection() {
    let test = "a_callout_that_is_silent_or_slow_is_no_connection";
    let (ca, callout) = (Authority::new("A test root"), Callout::new());
    // With 3 s the client library takes the server's first PING for its consent, and calls itself connected.
    let Some(server) = server(test, &ca, &ca.server(), &format!("{TLS}\n{}", callout.config("3"))) else { return };
    let site = believing(&ca, &toml(&server.tls_url(), "auth.user = \"host\"\nauth.password = \"secret\""));
    let host = tokio::task::spawn_blocking(move || {
        let host = Host::start(site);
        let until = Instant::now() + Duration::from_secs(12);
        while Instant::now() < until {
            assert_eq!(host.ask_status(0).get("ready"), Some(&json!(false)), "{}", host.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = host.log();
        assert!(!log.contains("connected to NATS"), "{log}");
        let named = ["did not decide in time", "does not let this host in", "does not say whom it takes this host for"];
        assert!(named.iter().any(|why| log.contains(why)), "{log}");
        host
    });
    let host = host.await.unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password("callout".into(), "callout".into());
    let options = options.require_tls(true).add_root_certificates(server.folder().join("ca.pem"));
    let service = options.connect(server.tls_url()).await.unwrap();
    let mut asked = service.subscribe("$SYS.REQ.USER.AUTH").await.unwrap();
    tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let answer = callout.allow(&Callout::request(&message.payload), "APP", HOST_ID);
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            service.publish(message.reply.unwrap(), answer.into()).await.unwrap();
        }
    });
    // Slow, but within the server's time: it counts once the server has really decided.
    tokio::task::spawn_blocking(move || {
        let status = host.ask_status(90);
        assert_eq!(status.get("ready"), Some(&json!(true)), "{status:#}\n{}", host.log());
    })
    .await
    .unwrap();
}
