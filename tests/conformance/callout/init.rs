//! What `callout init` writes works as it was written, in both modes, and `callout check` finds nothing in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use async_nats::ConnectOptions;
use portcullis_tests::nats::pki::Authority;
use portcullis_tests::nats::{NatsServer, folder, free_port};

use crate::rig::{Callout, allowed, bundle, user_info};

struct Ran {
    code: i32,
    text: String,
}

fn portcullis(arguments: &[&str]) -> Ran {
    let output = Command::new(portcullis_tests::binary()).args(arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ran { code: output.status.code().unwrap_or(-1), text }
}

fn prepare(a: &Authority, dir: &Path, mode: &str, port: u16) -> (Ran, PathBuf) {
    std::fs::write(dir.join("td-a.json"), bundle(&a.der(), &[])).unwrap();
    let ca = a.write(dir, "ca");
    let (server, server_key) = a.server().write(dir, "server");
    let (own, own_key) = a.spiffe("spiffe://td-a.test/callout").write(dir, "callout");
    let site = dir.join("site");
    let (listen, url) = (format!("127.0.0.1:{port}"), format!("tls://localhost:{port}"));
    let domain = format!("td-a.test={}", dir.join("td-a.json").display());
    let text = |path: &Path| path.display().to_string();
    let ran = portcullis(&[
        "callout",
        "init",
        &text(&site),
        "--mode",
        mode,
        "--operator",
        "spiffe://td-a.test/operator/ann",
        "--trust-domain",
        &domain,
        "--listen",
        &listen,
        "--server",
        &url,
        "--ca",
        &text(&ca),
        "--server-certificate",
        &text(&server),
        "--server-key",
        &text(&server_key),
        "--certificate",
        &text(&own),
        "--key",
        &text(&own_key),
    ]);
    (ran, site)
}

async fn works_as_written(mode: &str) {
    let (a, dir) = (Authority::of_trust_domain("td-a.test"), folder());
    let port = free_port();
    let (ran, site) = prepare(&a, dir.path(), mode, port);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let config = site.join("server.conf");
    let checked = portcullis(&["callout", "check", config.to_str().unwrap(), "--server-version", "2.15.1"]);
    assert_eq!(checked.code, 0, "{}", checked.text);
    assert!(checked.text.contains("nothing dangerous found"), "{}", checked.text);
    // The harness adds its own listen line, so the written one is taken out.
    let text = std::fs::read_to_string(&config).unwrap();
    let (before, written) = text.split_once("listen: ").unwrap();
    let text = format!("{before}{}", written.split_once('\n').unwrap().1);
    let Some(server) = NatsServer::start(&format!("callout::init {mode}"), &text) else { return };
    let callout_toml = std::fs::read_to_string(site.join("callout.toml")).unwrap();
    let here = callout_toml.replace(&format!(":{port}\""), &format!(":{}\"", server.port())).replace(":9222", ":0");
    std::fs::write(site.join("callout.toml"), here).unwrap();
    let callout = Callout::start(&site.join("callout.toml"), &site.join("state"));
    let leaf = a.spiffe("spiffe://td-a.test/portcullis/host/h1");
    let (certificate, key) = leaf.write(dir.path(), "h1");
    let options = |certificate: PathBuf, key: PathBuf| {
        ConnectOptions::new()
            .add_root_certificates(dir.path().join("ca.pem"))
            .add_client_certificate(certificate, key)
            .require_tls(true)
            .tls_first()
            .max_reconnects(1)
    };
    let client = options(certificate, key).custom_inbox_prefix("_INBOX_h1").connect(server.tls_url()).await;
    let client = client.unwrap_or_else(|error| panic!("{error:?}\n{}\n{}", callout.log(), server.log()));
    let info = user_info(&client).await;
    let publish = allowed(&info, "publish");
    assert!(publish.contains(&"portcullis.main.hb.h1".to_owned()), "{info}");
    assert!(publish.iter().all(|subject| !subject.contains("{{") && subject != ">"), "{info}");
    assert!(allowed(&info, "subscribe").contains(&"_INBOX_h1.>".to_owned()), "{info}");
    assert!(info["expires"].as_u64().is_some_and(|left| left > 0), "{info}");
    // The operator of the second role has the subjects of `cluster init`, and JetStream is there to make the buckets in.
    let (certificate, key) = a.spiffe("spiffe://td-a.test/operator/ann").write(dir.path(), "ann");
    let operator = options(certificate, key).custom_inbox_prefix("_INBOX_operator").connect(server.tls_url()).await;
    let operator = operator.unwrap_or_else(|error| panic!("{error:?}\n{}\n{}", callout.log(), server.log()));
    let publish = allowed(&user_info(&operator).await, "publish");
    assert!(publish.contains(&"$KV.portcullis-main-desired.>".to_owned()), "{publish:?}");
    let stream =
        serde_json::json!({ "name": "KV_portcullis-main-desired", "subjects": ["$KV.portcullis-main-desired.>"] });
    let made =
        operator.request("$JS.API.STREAM.CREATE.KV_portcullis-main-desired", stream.to_string().into()).await.unwrap();
    let made: serde_json::Value = serde_json::from_slice(&made.payload).unwrap();
    assert!(made["error"].is_null() && made["config"].is_object(), "{made}");
    // Whoever has no role is refused there too, and a second set of keys over the first is not written.
    let (certificate, key) = a.spiffe("spiffe://td-a.test/nobody").write(dir.path(), "nobody");
    assert!(options(certificate, key).connect(server.tls_url()).await.is_err());
    callout.wait_for_audit("Q0201");
    let again = prepare(&a, dir.path(), mode, port).0;
    assert_ne!(again.code, 0);
    assert!(again.text.contains("nothing was written"), "{}", again.text);
    // A revocation ends the connection in this mode, too.
    let mut disconnected = client.connection_state();
    std::fs::write(
        site.join("policy/revoked.toml"),
        "version = 1\n[[revoked]]\nid = \"spiffe://td-a.test/portcullis/host/h1\"\nreason = \"test\"\n",
    )
    .unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while disconnected == async_nats::connection::State::Connected {
        assert!(std::time::Instant::now() < end, "still connected\n{}", callout.log());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        disconnected = client.connection_state();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_init_writes_for_accounts_mode_works_as_written() {
    works_as_written("accounts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_init_writes_for_operator_mode_works_as_written_with_a_scoped_key() {
    works_as_written("operator").await;
}

#[test]
fn secrets_are_written_for_their_owner_alone() {
    use std::os::unix::fs::MetadataExt;
    let (a, dir) = (Authority::of_trust_domain("td-a.test"), folder());
    let (ran, site) = prepare(&a, dir.path(), "operator", 4222);
    assert_eq!(ran.code, 0, "{}", ran.text);
    for folder in ["", "keys", "offline", "policy"] {
        assert_eq!(std::fs::metadata(site.join(folder)).unwrap().mode() & 0o777, 0o700, "{folder}");
        for file in std::fs::read_dir(site.join(folder)).unwrap().map(Result::unwrap) {
            let meta = file.metadata().unwrap();
            assert!(meta.is_dir() || meta.mode() & 0o777 == 0o600, "{}", file.path().display());
        }
    }
}

#[test]
fn a_dangerous_configuration_ends_with_64_and_says_why_as_text_and_as_json() {
    let dir = folder();
    let config = dir.path().join("server.conf");
    std::fs::write(&config, "include users.conf\nauthorization { auth_callout { issuer: A } }\n").unwrap();
    std::fs::write(dir.path().join("users.conf"), "accounts { A { users: [ { user: bob, password: hunter2 } ] } }")
        .unwrap();
    let path = config.to_str().unwrap();
    let ran = portcullis(&["callout", "check", path]);
    assert_eq!(ran.code, 64, "{}", ran.text);
    for says in ["callout.no-xkey", "callout.default-account", "secret.plain", "file.readable", "users.conf:1", "hint:"]
    {
        assert!(ran.text.contains(says), "{says}: {}", ran.text);
    }
    assert!(!ran.text.contains("hunter2"), "a secret is not repeated");
    let ran = portcullis(&["callout", "check", path, "--json", "--server-version", "nats-server: v2.10.1"]);
    assert_eq!(ran.code, 64);
    let json: serde_json::Value = serde_json::Deserializer::from_str(&ran.text).into_iter().next().unwrap().unwrap();
    let findings = json["error"]["details"]["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["code"] == "server.old"), "{json}");
    assert!(findings.iter().all(|finding| finding["reason"].is_string() && finding["hint"].is_string()));
    std::fs::write(&config, "a {").unwrap();
    let ran = portcullis(&["callout", "check", path]);
    assert_eq!(ran.code, 64);
    assert!(ran.text.contains("server.conf:1"), "{}", ran.text);
}
