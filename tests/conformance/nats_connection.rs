//! The way to a real nats-server: every kind of credential, and its rotation while the host runs.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt as _;
use nkeys::KeyPair;
use portcullis_tests::host::Host;
use portcullis_tests::nats::callout::Callout;
use portcullis_tests::nats::hosted::{
    HOST_ID, authority, site, wait_connection, wait_problem, wait_ready, wait_warning,
};
use portcullis_tests::nats::operator::Operator;
use portcullis_tests::nats::pki::{Authority, replace};
use portcullis_tests::nats::relay::Relay;
use portcullis_tests::nats::{NatsServer, folder, free_port};
use portcullis_tests::patience::promised;
use serde_json::{Value, json};

/// Most that a rotation may take.
const ROTATION: Duration = Duration::from_secs(5);
const TLS: &str = "tls { cert_file: server.pem, key_file: server.key, ca_file: ca.pem }";
const MTLS: &str = "tls { cert_file: server.pem, key_file: server.key, ca_file: ca.pem, verify_and_map: true }";

/// A server with a certificate of a private authority and a monitoring port. Gives that port.
fn server(test: &str, authority: &Authority, config: &str) -> Option<(NatsServer, u16)> {
    let (place, monitoring) = (folder(), free_port());
    authority.write(place.path(), "ca");
    authority.server().write(place.path(), "server");
    let config = format!("http: \"127.0.0.1:{monitoring}\"\n{config}");
    Some((NatsServer::start_in(test, place, &config)?, monitoring))
}

fn toml(server: &NatsServer, more: &str) -> String {
    format!("servers = [\"{}\"]\naccount = \"APP\"\ntls.ca = \"ca.pem\"\n{more}", server.tls_url())
}

fn who(connection: &Value) -> &str {
    connection.get("authorized_user").and_then(Value::as_str).unwrap_or_default()
}

fn cid(connection: &Value) -> u64 {
    connection.get("cid").and_then(Value::as_u64).unwrap_or_default()
}

fn subscriptions(connection: &Value) -> Vec<String> {
    let list = connection.get("subscriptions_list").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut list: Vec<_> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    list.sort();
    list
}

/// A ready host is given something new to show: within 5 s the server sees it, and every subscription is there again.
fn rotates(
    server: &NatsServer,
    monitoring: u16,
    host: &Host,
    rotate: impl FnOnce(&Path),
    fits: impl Fn(&Value) -> bool,
) {
    wait_ready(host);
    let (before, _) = wait_connection(server, monitoring, |one| !subscriptions(one).is_empty());
    rotate(host.site().path());
    let (_, took) = wait_connection(server, monitoring, |after| {
        cid(after) != cid(&before) && fits(after) && subscriptions(after) == subscriptions(&before)
    });
    assert!(took <= promised(ROTATION), "it took {took:?}\n{}", host.log());
    wait_ready(host);
}

#[tokio::test]
async fn the_server_of_the_tests_takes_spiffe_certificates_and_credentials_files() {
    let test = "the_server_of_the_tests_takes_spiffe_certificates_and_credentials_files";
    let ca = Authority::new("A test root");
    let config = format!("{MTLS}\naccounts {{ APP {{ users: [ {{ user: \"{HOST_ID}\" }} ] }} }}");
    let Some((mut server, _)) = server(test, &ca, &config) else { return };
    let (certificate, key) = ca.spiffe(HOST_ID).write(server.folder(), "host");
    let connect = || {
        let options = async_nats::ConnectOptions::new().require_tls(true);
        let options = options.add_root_certificates(server.folder().join("ca.pem"));
        options.add_client_certificate(certificate.clone(), key.clone()).connect(server.tls_url())
    };
    let client = connect().await.unwrap();
    let info = client.request("$SYS.REQ.USER.INFO", "".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&info.payload).contains(HOST_ID), "{info:?}");
    drop(client);
    server.reload();
    server.restart();
}

#[test]
fn a_certificate_from_files_is_shown_and_rotated() {
    let test = "a_certificate_from_files_is_shown_and_rotated";
    let ca = Authority::new("A test root");
    let users = ["spiffe://site.example/a", "spiffe://site.example/b"];
    let listed: String = users.iter().map(|user| format!("{{ user: \"{user}\" }},")).collect();
    let Some((server, monitoring)) =
        server(test, &ca, &format!("{MTLS}\naccounts {{ APP {{ users: [ {listed} ] }} }}"))
    else {
        return;
    };
    let auth = "user = \"*\"\nauth.certificate = \"host.pem\"\nauth.key = \"host.key\"";
    let site = site(&toml(&server, auth));
    ca.write(site.path(), "ca");
    ca.spiffe(users[0]).write(site.path(), "host");
    let host = Host::start(site);
    wait_ready(&host);
    assert_eq!(who(&wait_connection(&server, monitoring, |_| true).0), users[0]);
    let renew = |folder: &Path| drop(ca.spiffe(users[1]).write(folder, "host"));
    rotates(&server, monitoring, &host, renew, |one| who(one) == users[1]);
}

#[test]
fn the_hosts_own_svid_is_shown_and_rotated() {
    let test = "the_hosts_own_svid_is_shown_and_rotated";
    let ca = Authority::new("A test root");
    // The server must trust the host's authority, which is there when the host has started.
    let relay = Relay::to("127.0.0.1:1");
    let nats = format!(
        "servers = [\"tls://localhost:{}\"]\naccount = \"APP\"\ntls.ca = \"ca.pem\"\ntls.first = true\nauth.svid = true",
        relay.port()
    );
    let site = site(&nats);
    ca.write(site.path(), "ca");
    let host = Host::start(site);
    wait_problem(&host, "nats: ");
    let (place, monitoring) = (folder(), free_port());
    replace(place.path(), "ca.pem", &authority(&host));
    ca.server().write(place.path(), "server");
    let tls = MTLS.replace("verify_and_map", "handshake_first: true, min_version: \"1.3\", verify_and_map");
    let config = format!(
        "http: \"127.0.0.1:{monitoring}\"\n{tls}\naccounts {{ APP {{ users: [ {{ user: \"{HOST_ID}\" }} ] }} }}"
    );
    let Some(server) = NatsServer::start_in(test, place, &config) else { return };
    relay.redirect(&server.address());
    wait_ready(&host);
    assert_eq!(who(&wait_connection(&server, monitoring, |_| true).0), HOST_ID);
    let leaf = |one: &Value| one.pointer("/tls_peer_certs/0/cert_sha256").and_then(Value::as_str).map(str::to_owned);
    let (before, _) = wait_connection(&server, monitoring, |_| true);
    assert!(leaf(&before).is_some(), "{before:#}");
    let renew = |_: &Path| drop(host.run(["identity", "rotate", "--svids"]).ok());
    rotates(&server, monitoring, &host, renew, |one| leaf(one) != leaf(&before));
}

#[test]
fn a_credentials_file_is_shown_and_rotated() {
    let test = "a_credentials_file_is_shown_and_rotated";
    let ca = Authority::new("A test root");
    let mut operator = Operator::new();
    let account = operator.account("APP", json!({}));
    let Some((server, monitoring)) = server(test, &ca, &format!("{TLS}\n{}", operator.config())) else { return };
    let nats = toml(&server, "auth.credentials = \"host.creds\"").replace("APP", &account.key.public_key());
    let site = site(&nats);
    ca.write(site.path(), "ca");
    replace(site.path(), "host.creds", &account.credentials("one", json!({}), None));
    let host = Host::start(site);
    wait_ready(&host);
    let (before, _) = wait_connection(&server, monitoring, |_| true);
    let renew = |folder: &Path| drop(replace(folder, "host.creds", &account.credentials("two", json!({}), None)));
    rotates(&server, monitoring, &host, renew, |one| who(one) != who(&before));
}

#[test]
fn an_nkey_is_shown_and_rotated() {
    let test = "an_nkey_is_shown_and_rotated";
    let ca = Authority::new("A test root");
    let users = [KeyPair::new_user(), KeyPair::new_user()];
    let listed: String = users.iter().map(|user| format!("{{ nkey: {} }},", user.public_key())).collect();
    let Some((server, monitoring)) = server(test, &ca, &format!("{TLS}\naccounts {{ APP {{ users: [ {listed} ] }} }}"))
    else {
        return;
    };
    let site = site(&toml(&server, "auth.nkey = \"host.seed\""));
    ca.write(site.path(), "ca");
    replace(site.path(), "host.seed", &users[0].seed().unwrap());
    let host = Host::start(site);
    wait_ready(&host);
    assert_eq!(who(&wait_connection(&server, monitoring, |_| true).0), users[0].public_key());
    let renew = |folder: &Path| drop(replace(folder, "host.seed", &format!("{}\n", users[1].seed().unwrap())));
    rotates(&server, monitoring, &host, renew, |one| who(one) == users[1].public_key());
}

#[test]
fn passwords_and_tokens_are_shown_and_taken_up_when_they_change_on_both_sides() {
    let test = "passwords_and_tokens_are_shown_and_taken_up_when_they_change_on_both_sides";
    let ca = Authority::new("A test root");
    let ways = [
        (
            "accounts { APP { users: [ { user: host, password: \"SECRET\" } ] } }",
            "user = \"host\"\nauth.user = \"host\"\nauth.password = \"secret\"",
            "APP",
        ),
        ("authorization { token: \"SECRET\" }\naccounts { OTHER {} }", "auth.token = \"secret\"", "$G"),
    ];
    for (config, auth, account) in ways {
        let config = format!("{TLS}\n{config}");
        let Some((mut server, monitoring)) = server(test, &ca, &config.replace("SECRET", "first-secret")) else {
            return;
        };
        let site = site(&toml(&server, auth));
        ca.write(site.path(), "ca");
        replace(site.path(), "secret", "first-secret\n");
        let host = Host::start(site);
        if account == "$G" {
            // A server whose one token lands in the global account: what the host is told to expect is not there.
            wait_problem(&host, "put this host into the account $G, not into APP");
            continue;
        }
        wait_ready(&host);
        let (before, _) = wait_connection(&server, monitoring, |_| true);
        let text = std::fs::read_to_string(server.folder().join("server.conf")).unwrap();
        std::fs::write(server.folder().join("server.conf"), text.replace("first-secret", "second-secret")).unwrap();
        server.reload();
        wait_warning(&host, "does not let this host in");
        replace(host.site().path(), "secret", "second-secret\n");
        let (_, took) = wait_connection(&server, monitoring, |one| cid(one) != cid(&before));
        assert!(took <= promised(ROTATION), "it took {took:?}\n{}", host.log());
        wait_ready(&host);
        server.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_svid_goes_into_the_token_with_a_signature_over_the_nonce() {
    let test = "a_jwt_svid_goes_into_the_token_with_a_signature_over_the_nonce";
    let (ca, callout, user) = (Authority::new("A test root"), Callout::new(), KeyPair::new_user());
    let Some((server, _)) = server(test, &ca, &format!("{TLS}\n{}", callout.config("1.5"))) else { return };
    let options = async_nats::ConnectOptions::with_user_and_password("callout".into(), "callout".into());
    let options = options.require_tls(true).add_root_certificates(server.folder().join("ca.pem"));
    let service = options.connect(server.tls_url()).await.unwrap();
    let mut asked = service.subscribe("$SYS.REQ.USER.AUTH").await.unwrap();
    let site = site(&toml(&server, "auth.jwt_audience = \"nats-of-the-site\"\nauth.nkey = \"host.seed\""));
    ca.write(site.path(), "ca");
    replace(site.path(), "host.seed", &user.seed().unwrap());
    let (seen, mut shown) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let request = Callout::request(&message.payload);
            let answer = callout.allow(&request, "APP", HOST_ID);
            service.publish(message.reply.unwrap(), answer.into()).await.unwrap();
            let _ = seen.send(request);
        }
    });
    let host = tokio::task::spawn_blocking(move || {
        let host = Host::start(site);
        wait_ready(&host);
        host
    });
    let host = host.await.unwrap();
    let request = shown.recv().await.unwrap();
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let token = text("/nats/connect_opts/auth_token");
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["sub"], HOST_ID);
    // Whoever gets hold of the token has no use for it without the key that it names.
    let audiences = json!(["nats-of-the-site", format!("nkey:{}", user.public_key())]);
    assert_eq!(claims["aud"], audiences, "{claims}");
    assert!(claims["exp"].as_i64().unwrap() - time::OffsetDateTime::now_utc().unix_timestamp() <= 300);
    assert_eq!(text("/nats/connect_opts/nkey"), user.public_key());
    let signature = URL_SAFE_NO_PAD.decode(text("/nats/connect_opts/sig")).unwrap();
    user.verify(text("/nats/client_info/nonce").as_bytes(), &signature).unwrap();
    // It is never put where the server would print it.
    assert_eq!(text("/nats/connect_opts/jwt"), "");
    tokio::task::spawn_blocking(move || {
        let recorded = host.record(&[("kind", "issuance"), ("svid", "jwt"), ("spiffe_id", HOST_ID)]);
        assert_eq!(recorded["audiences"], audiences);
    })
    .await
    .unwrap();
}

#[test]
fn the_next_server_is_tried_and_the_connection_comes_back_after_an_outage() {
    let test = "the_next_server_is_tried_and_the_connection_comes_back_after_an_outage";
    let (ca, user) = (Authority::new("A test root"), KeyPair::new_user());
    let config = format!("{TLS}\naccounts {{ APP {{ users: [ {{ nkey: {} }} ] }} }}", user.public_key());
    let Some((mut one, at_one)) = server(test, &ca, &config) else { return };
    let Some((mut other, at_other)) = server(test, &ca, &config) else { return };
    let nats = toml(&one, "auth.nkey = \"host.seed\"").replace("\"]", &format!("\", \"{}\"]", other.tls_url()));
    let mut site = site(&nats);
    site.config("[listen]\nmetrics = \"127.0.0.1:0\"\n");
    // A host that nobody let in yet is told apart from one that lost its server.
    replace(site.path(), "host.seed", &KeyPair::new_user().seed().unwrap());
    ca.write(site.path(), "ca");
    let host = Host::start(site);
    wait_problem(&host, "does not let this host in");
    let probes = host.ask_status(0)["listening"]["metrics"].as_str().unwrap().parse().unwrap();
    let probe = |path: &str| {
        let answer = portcullis_tests::http::get(probes, path, &[]);
        (answer.status, answer.text().trim().to_owned())
    };
    assert_eq!(probe("/readyz"), (503, "not ready".to_owned()));
    assert_eq!(probe("/livez"), (200, "alive".to_owned()));
    replace(host.site().path(), "host.seed", &user.seed().unwrap());
    wait_ready(&host);
    assert_eq!(probe("/readyz"), (200, "ready".to_owned()));
    one.kill();
    wait_connection(&other, at_other, |_| true);
    wait_ready(&host);
    other.kill();
    // It was let in before: what it serves is served on, and a probe is told so.
    wait_warning(&host, "nats: ");
    assert_eq!(probe("/readyz"), (200, "ready, with warnings".to_owned()));
    let page = probe("/metrics").1;
    for line in ["portcullis_ready 1", "portcullis_warnings 1", "portcullis_nats_verified 0"] {
        assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
    }
    one.restart();
    wait_connection(&one, at_one, |_| true);
    wait_ready(&host);
    // The authorities of servers can be replaced, too.
    let new = Authority::new("Another root");
    new.write(host.site().path(), "ca");
    new.server().write(one.folder(), "server");
    one.restart();
    wait_ready(&host);
}
