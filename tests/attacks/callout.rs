//! Whoever must not get in: forged identities, wrong keys, other nonces, repeated and forged requests, misconfigured servers.

use std::time::Duration;

use async_nats::ConnectOptions;
use futures::StreamExt;
use portcullis_tests::nats::operator::token;
use portcullis_tests::patience::{LONG, ROUNDS};
use portcullis_tests::processes::holds_within;
use serde_json::json;

use crate::rig::{Rig, Shape, bundle};
use crate::tokens::{self, Issuer, Signs};

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_unfit_identities_are_refused_whatever_the_server_verified() {
    let Some(rig) = Rig::start("callout::identities") else { return };
    let callout = rig.callout();
    // The server's ca_file has both domains' authorities in one pool, so every one of these passes its own check.
    let foreign = rig.b.spiffe("spiffe://td-a.test/host/h1");
    rig.refused(&foreign, &callout, "\"code\":\"chain\"").await;
    rig.refused(&rig.b.spiffe("spiffe://td-b.test/host/h1"), &callout, "Q0201").await;
    rig.refused(&rig.a.spiffe("spiffe://td-a.test/elsewhere"), &callout, "all matches but source").await;
    rig.refused(&rig.a.spiffe("spiffe://td-a.test/socket"), &callout, "all matches but type").await;
    rig.refused(&rig.a.spiffe("spiffe://td-a.test/bot/b1"), &callout, "all matches but credential").await;
    // A subject is no identity: SPIRE's are all the same.
    let plain = rig.a.leaf(|params| params.distinguished_name.push(rcgen::DnType::CommonName, "h1"));
    rig.refused(&plain, &callout, "callout-denial").await;
    assert_eq!(callout.count("callout-allow"), 0);
    // The error that the server logs is one of a few fixed words.
    let log = rig.server.log();
    assert!(!log.contains("td-b.test") && !log.contains('%'), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spiffe_id_with_wildcards_or_dots_never_widens_a_subject() {
    let Some(rig) = Rig::start("callout::wildcards") else { return };
    let callout = rig.callout();
    for part in ["h1.h2", "H1", "h_1", "..."] {
        let leaf = rig.a.spiffe(&format!("spiffe://td-a.test/host/{part}"));
        assert!(rig.connect(&leaf).await.is_err(), "{part}");
    }
    callout.wait_for_audit("Q0203");
    for part in ["*", ">", "h1%20h2", "%3E", "a*"] {
        let leaf = rig.a.spiffe(&format!("spiffe://td-a.test/host/{part}"));
        assert!(rig.connect(&leaf).await.is_err(), "{part}");
    }
    assert_eq!(callout.count("callout-allow"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_without_the_right_proof_are_refused() {
    let shape = Shape { certificates: false, ..Shape::default() };
    let Some(rig) = Rig::shaped("callout::tokens", &shape) else { return };
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    rig.policy("td-a.json", &bundle(&rig.a.der(), &[issuer.jwk()]));
    let callout = rig.callout();
    let (key, thief) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let audience = format!("nkey:{}", key.public_key());
    let own = "spiffe://td-a.test/callout";
    let (sub, both) = ("spiffe://td-a.test/bot/b1", [own, audience.as_str()]);
    for (what, token, key, signs) in [
        ("another nonce", issuer.token(sub, &both, 300), &key, Signs::Other),
        ("no signature", issuer.token(sub, &both, 300), &key, Signs::Nothing),
        ("another key than the token names", issuer.token(sub, &both, 300), &thief, Signs::Nonce),
        ("a key that no one names", issuer.token(sub, &[own], 300), &thief, Signs::Nonce),
        ("a bearer", issuer.token(sub, &[own], 300), &key, Signs::Nothing),
        (
            "for another audience",
            issuer.token(sub, &["spiffe://td-a.test/other", audience.as_str()], 300),
            &key,
            Signs::Nonce,
        ),
        ("over", issuer.token(sub, &both, -30), &key, Signs::Nonce),
        ("of another issuer", stranger.token(sub, &both, 300), &key, Signs::Nonce),
        ("of another domain", issuer.token("spiffe://td-b.test/bot/b1", &both, 300), &key, Signs::Nonce),
        ("no token", "x".to_owned(), &key, Signs::Nonce),
    ] {
        let connected = tokens::connect(&rig, tokens::options(&token, key, signs), "_INBOX_b1").await;
        assert!(connected.is_err(), "{what} was let in");
    }
    let records = callout.audit();
    assert!(!records.iter().any(|record| record["kind"] == "callout-allow"), "{records:?}");
    let good = issuer.token(sub, &both, 300);
    rig.let_in(async || tokens::connect(&rig, tokens::options(&good, &key, Signs::Nonce), "_INBOX_b1").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_the_servers_file_are_asked_about_and_no_password_lets_them_in() {
    let accounts = "OTHER { users: [ { user: other, password: \"right\" } ] }".to_owned();
    let shape = Shape { accounts, certificates: false, ..Shape::default() };
    let Some(rig) = Rig::shaped("callout::passwords", &shape) else { return };
    let callout = rig.callout();
    for password in ["right", "wrong", ""] {
        let options = ConnectOptions::with_user_and_password("other".to_owned(), password.to_owned());
        assert!(tokens::connect(&rig, options, "_INBOX").await.is_err(), "{password}");
    }
    // Nor does the name of a workload, or of the callout.
    for user in ["spiffe://td-a.test/host/h1", "spiffe://td-a.test/callout"] {
        let options = ConnectOptions::with_user_and_password(user.to_owned(), String::new());
        assert!(tokens::connect(&rig, options, "_INBOX").await.is_err(), "{user}");
    }
    callout.wait_for_audit("\"code\":\"none\"");
    assert_eq!(callout.count("callout-allow"), 0);
    let text = std::fs::read_to_string(callout.state.join("audit.jsonl")).unwrap() + &callout.log();
    assert!(!text.contains("right\"") && !text.contains("wrong\""), "no password is kept");
}

/// A second user in the callout account, on a server whose `allowed_accounts` lets it publish there: what `callout check` warns of.
#[tokio::test(flavor = "multi_thread")]
async fn forged_and_repeated_requests_of_a_second_user_get_no_answer() {
    let spy = nkeys::KeyPair::new_user();
    let shape = Shape { authorization: "allowed_accounts: [APP]".to_owned(), ..Shape::default() };
    let Some(rig) = Rig::with_second_user("callout::forged", &shape, &spy) else { return };
    let callout = rig.callout();
    let seed = spy.seed().unwrap();
    let leaf = rig.a.spiffe("spiffe://td-a.test/spy");
    let spies = async || rig.connect_with(&leaf, "_INBOX_spy", ConnectOptions::with_nkey(seed.clone())).await;
    let client = rig.let_in(spies).await;
    // Listens in on a real request.
    let mut requests = client.subscribe("$SYS.REQ.USER.AUTH").await.unwrap();
    client.flush().await.unwrap();
    for round in 0..ROUNDS {
        let (_host, _) = rig.host("h1").await;
        // Of several the last one: the one before may be over.
        let mut real = tokio::time::timeout(LONG, requests.next()).await.unwrap().unwrap();
        while let Ok(Some(later)) = tokio::time::timeout(Duration::from_millis(50), requests.next()).await {
            real = later;
        }
        assert!(real.payload.starts_with(b"xkv1"), "requests are sealed");
        // Says it again, which may be too late where this machine is busy.
        let headers = real.headers.clone().unwrap();
        let ask = async_nats::Request::new().headers(headers).payload(real.payload.clone()).timeout(Some(LONG));
        let answer = client.send_request("$SYS.REQ.USER.AUTH", ask).await.unwrap();
        assert!(answer.payload.is_empty(), "a repeated request was answered");
        // What is said again is heard here, too.
        while tokio::time::timeout(Duration::from_millis(50), requests.next()).await.is_ok() {}
        let said = || callout.audit().iter().any(|record| record.to_string().contains("came before"));
        if holds_within(Duration::from_secs(5), said) {
            break;
        }
        assert!(round + 1 < ROUNDS, "a repeated request was not known: {:#?}", callout.audit());
    }
    // Forges one, as a server of its own making would send it.
    let (server, user) = (nkeys::KeyPair::new_server(), nkeys::KeyPair::new_user());
    let own = portcullis_identity::XKey::generate().unwrap();
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let claims = json!({
        "iss": server.public_key(), "sub": rig.keys.issuer.public_key(), "aud": "nats-authorization-request",
        "iat": now, "exp": now + 2,
        "nats": { "type": "authorization_request", "version": 2, "user_nkey": user.public_key(),
            "server_id": { "id": server.public_key(), "name": "x", "host": "127.0.0.1", "version": "2.15.1", "xkey": own.public().to_string() },
            "client_info": { "host": "127.0.0.1", "id": 7, "kind": "Client", "type": "nats" }, "connect_opts": { "protocol": 1 } }
    });
    let sealed = own.seal(&rig.keys.xkey.public(), token(&server, claims).as_bytes()).unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Server-Xkey", own.public().to_string().as_str());
    let ask = async_nats::Request::new().headers(headers).payload(sealed.into()).timeout(Some(LONG));
    let answer = client.send_request("$SYS.REQ.USER.AUTH", ask).await.unwrap();
    assert!(answer.payload.is_empty(), "a forged request was answered");
    callout.wait_for_audit("no server's that the system account knows");
    // Noise of all sorts.
    for noise in [&b""[..], b"{}", b"eyJ0.e30.x", b"xkv1", &[0xff; 4096], &[b'e'; 300_000]] {
        let ask = async_nats::Request::new().payload(noise.to_vec().into()).timeout(Some(LONG));
        let answer = client.send_request("$SYS.REQ.USER.AUTH", ask).await.unwrap();
        assert!(answer.payload.is_empty());
    }
    let allowed: Vec<_> = callout.audit().into_iter().filter(|record| record["kind"] == "callout-allow").collect();
    let only_the_host = |record: &serde_json::Value| record["placement"]["workload"] == "spiffe://td-a.test/host/h1";
    assert!(!allowed.is_empty() && allowed.iter().all(only_the_host), "{allowed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callout_with_another_xkey_or_issuer_lets_nobody_in() {
    let Some(rig) = Rig::start("callout::keys") else { return };
    let other = portcullis_identity::XKey::generate().unwrap();
    let keys = rig.path("keys");
    portcullis_tests::nats::pki::replace(&keys, "callout.xk", &other.seed());
    let callout = rig.callout_named("xkey");
    let leaf = rig.a.spiffe("spiffe://td-a.test/host/h1");
    assert!(rig.connect(&leaf).await.is_err());
    callout.wait_for_audit("callout-rejected");
    drop(callout);
    portcullis_tests::nats::pki::replace(&keys, "callout.xk", &rig.keys.xkey.seed());
    let issuer = nkeys::KeyPair::new_account().seed().unwrap();
    portcullis_tests::nats::pki::replace(&keys, "issuer.nk", &issuer);
    let callout = rig.callout_named("issuer");
    assert!(rig.connect(&leaf).await.is_err());
    callout.wait_for_audit("for the callout of another account");
}

#[test]
fn configurations_that_would_be_insecure_do_not_start() {
    let Some(rig) = Rig::start("callout::config") else { return };
    let text = std::fs::read_to_string(rig.path("callout.toml")).unwrap();
    let run = |text: &str| {
        std::fs::write(rig.path("bad.toml"), text).unwrap();
        let mut command = std::process::Command::new(portcullis_tests::binary());
        let output = command.args(["callout", "--config"]).arg(rig.path("bad.toml")).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (from, to, says) in [
        ("accounts = [\"APP\"]", "accounts = [\"$G\"]", "$G"),
        ("accounts = [\"APP\"]", "accounts = [\"SYS\"]", "system account"),
        ("accounts = [\"APP\"]", "accounts = [\"APP\", \"AUTH\"]", "callout's own account"),
        ("accounts = [\"APP\"]", "accounts = [\"OTHER\"]", "not in `accounts`"),
        ("xkey = \"keys/callout.xk\"", "", "keys.xkey"),
        ("[system]\nnkey = \"keys/revoker.nk\"", "", "danger_no_system"),
        ("version = 1", "version = 1\nunknown = 1", "unknown"),
        ("policy/roles.toml", "keys/roles.toml", "keep what is read again apart"),
        ("concurrency = 64", "concurrency = 0", "limits.concurrency"),
        ("waiting = 1024", "deadline_ms = 5000", "deadline"),
        ("keys/issuer.nk", "keys/callout.nk", "of the kind account"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let (code, error) = run(&changed);
        assert_eq!(code, Some(64), "{to}: {error}");
        assert!(error.contains(says), "{to}: {error}");
    }
    let tls = text.split("[tls]").next().unwrap().to_owned()
        + "[[trust_domain]]"
        + text.split_once("[[trust_domain]]").unwrap().1;
    assert!(run(&tls).1.contains("danger_plain_connection"));
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(rig.path("keys/issuer.nk"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, error) = run(&text);
    assert_eq!(code, Some(64), "{error}");
    assert!(error.contains("0644") && error.contains("chmod 600"), "{error}");
}
