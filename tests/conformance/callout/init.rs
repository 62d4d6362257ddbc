//! What `callout init` writes works as it was written, in both modes, and `callout check` finds nothing in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use async_nats::ConnectOptions;
use portcullis_tests::nats::pki::Authority;
use portcullis_tests::nats::{NatsServer, folder, free_port};

use crate::rig::{Callout, allowed, bundle, user_info};

pub struct Ran {
    pub code: i32,
    pub text: String,
}

pub fn portcullis(arguments: &[&str]) -> Ran {
    let output = Command::new(portcullis_tests::binary()).args(arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ran { code: output.status.code().unwrap_or(-1), text }
}

pub fn prepare(a: &Authority, dir: &Path, mode: &str, port: u16, more: &[&str]) -> (Ran, PathBuf) {
    std::fs::write(dir.join("td-a.json"), bundle(&a.der(), &[])).unwrap();
    let ca = a.write(dir, "ca");
    let (server, server_key) = a.server().write(dir, "server");
    let (own, own_key) = a.spiffe("spiffe://td-a.test/callout").write(dir, "callout");
    let site = dir.join("site");
    let (listen, url) = (format!("127.0.0.1:{port}"), format!("tls://localhost:{port}"));
    let domain = format!("td-a.test={}", dir.join("td-a.json").display());
    let text = |path: &Path| path.display().to_string();
    let arguments = [
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
    ];
    let ran = portcullis(&[&arguments[..], more].concat());
    (ran, site)
}

async fn works_as_written(mode: &str) {
    let (a, dir) = (Authority::of_trust_domain("td-a.test"), folder());
    let port = free_port();
    let (ran, site) = prepare(&a, dir.path(), mode, port, &["--jetstream"]);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let (config, own) = (site.join("server.conf"), site.join("callout.toml"));
    let (config, own) = (config.to_str().unwrap(), own.to_str().unwrap());
    let checked = portcullis(&["callout", "check", config, "--callout", own, "--server-version", "2.15.1"]);
    assert_eq!(checked.code, 0, "{}", checked.text);
    assert!(checked.text.contains("nothing dangerous found") && !checked.text.contains("ends in"), "{}", checked.text);
    // The harness adds its own listen line, so the written one is taken out.
    let text = std::fs::read_to_string(config).unwrap();
    let (before, written) = text.split_once("listen: ").unwrap();
    let monitoring = free_port();
    let text = format!("http: \"127.0.0.1:{monitoring}\"\n{before}{}", written.split_once('\n').unwrap().1);
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
    // The workloads' account has JetStream, and no other.
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], monitoring));
    let streams = portcullis_tests::http::get(address, "/jsz?accounts=true", &[]).json();
    let account = info["account"].as_str().unwrap();
    let listed: Vec<&str> =
        streams["account_details"].as_array().unwrap().iter().filter_map(|one| one["id"].as_str()).collect();
    assert_eq!(listed, [account], "{streams:#}");
    // The operator of the second role has the subjects of `cluster init`, and JetStream is there to make the buckets in.
    let (certificate, key) = a.spiffe("spiffe://td-a.test/operator/ann").write(dir.path(), "ann");
    let inbox = portcullis_tests::cluster::inbox_of("spiffe://td-a.test/operator/ann");
    let operator = options(certificate, key).custom_inbox_prefix(&inbox).connect(server.tls_url()).await;
    let operator = operator.unwrap_or_else(|error| panic!("{error:?}\n{}\n{}", callout.log(), server.log()));
    let info = user_info(&operator).await;
    let inboxes: Vec<String> =
        allowed(&info, "subscribe").into_iter().filter(|subject| subject.starts_with("_INBOX")).collect();
    assert_eq!(inboxes, [format!("{inbox}.>")], "its own alone");
    let publish = allowed(&info, "publish");
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
    let again = prepare(&a, dir.path(), mode, port, &[]).0;
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
    let (ran, site) = prepare(&a, dir.path(), "operator", 4222, &[]);
    assert_eq!(ran.code, 0, "{}", ran.text);
    for folder in ["", "keys", "login", "offline", "policy"] {
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

#[test]
fn a_site_is_not_written_from_files_that_do_not_fit_together() {
    let (a, b, dir) = (Authority::of_trust_domain("td-a.test"), Authority::of_trust_domain("td-b.test"), folder());
    let ended = |what: &str, change: &dyn Fn(), says: &str, more: &[&str]| {
        prepare(&a, dir.path(), "accounts", 4222, more);
        std::fs::remove_dir_all(dir.path().join("site")).ok();
        // What init is given is written by `prepare`: it is changed between two runs of the same command.
        change();
        let ran = again(dir.path(), more);
        assert_eq!(ran.code, 2, "{what}: {}", ran.text);
        assert!(ran.text.contains(says) && ran.text.contains("hint:"), "{what}: {}", ran.text);
        assert!(!dir.path().join("site").exists(), "{what}: something was written");
    };
    let place = dir.path();
    let other = |leaf: portcullis_tests::nats::pki::Leaf, name: &str| {
        leaf.write(place, "other");
        std::fs::rename(place.join("other.key"), place.join(name)).unwrap();
    };
    let own = "spiffe://td-a.test/callout";
    ended("another key", &|| other(a.server(), "server.key"), "not that of the certificate", &[]);
    ended("another own key", &|| other(a.spiffe(own), "callout.key"), "not that of the certificate", &[]);
    let write = |leaf: portcullis_tests::nats::pki::Leaf, name: &str| drop(leaf.write(place, name));
    ended("of another authority", &|| write(b.server(), "server"), "not of an authority of the CA file", &[]);
    ended("own of another authority", &|| write(b.spiffe(own), "callout"), "not of an authority", &[]);
    ended("ended", &|| write(a.expired_server(), "server"), "ended at", &[]);
    ended("own ended", &|| write(a.expired_spiffe(own), "callout"), "ended at", &[]);
    ended("another name", &|| write(a.server_for(&["nats.example"]), "server"), "not for the name", &[]);
    ended("a second server", &|| (), "not for the name", &["--server", "tls://nats-2.example:4222"]);
    ended("a server's for a client", &|| write(a.server(), "callout"), "may not be used by a client", &[]);
    let client = |params: &mut rcgen::CertificateParams| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    };
    ended("a client's for a server", &|| write(a.leaf(client), "server"), "may not be used by a server", &[]);
    ended(
        "no authority",
        &|| std::fs::write(place.join("ca.pem"), "noise").unwrap(),
        "no certificate that can be used",
        &[],
    );
    ended("no file", &|| std::fs::remove_file(place.join("server.key")).unwrap(), "server.key", &[]);
    for more in [
        &["--listen", "4222"][..],
        &["--listen", "127.0.0.1:0"],
        &["--server", "nats://localhost:4222"],
        &["--server", "tls://localhost"],
        &["--server", "tls://user:pass@localhost:4222"],
        &["--valid", "90"],
        &["--mode", "operator", "--valid", "0"],
        &["--mode", "operator", "--valid", "3651"],
        &["--mode", "none"],
        &["--operator", "spiffe://td-b.test/operator/ann"],
        &["--operator", "ann"],
        &["--credential", "jwt"],
        &["--credential", "none"],
    ] {
        prepare(&a, place, "accounts", 4222, &[]);
        std::fs::remove_dir_all(place.join("site")).ok();
        let ran = again(place, more);
        assert!(ran.code == 2 && !place.join("site").exists(), "{more:?}: {}", ran.text);
    }
    // Workloads that the server would not take are no mistake for certain, but spoken of.
    prepare(&a, place, "accounts", 4222, &[]);
    std::fs::remove_dir_all(place.join("site")).ok();
    let another = Authority::of_trust_domain("td-a.test");
    std::fs::write(place.join("td-a.json"), bundle(&another.der(), &[])).unwrap();
    let ran = again(place, &[]);
    assert!(ran.code == 0 && ran.text.contains("none of the X.509 authorities of td-a.test"), "{}", ran.text);
}

/// `callout init` over the files that are there; later options take the place of earlier ones.
fn again(place: &Path, more: &[&str]) -> Ran {
    let file = |name: &str| place.join(name).display().to_string();
    let domain = format!("td-a.test={}", file("td-a.json"));
    let mut arguments: Vec<String> = ["callout", "init"].map(str::to_owned).to_vec();
    arguments.push(file("site"));
    for (option, value) in [
        ("--trust-domain", domain),
        ("--ca", file("ca.pem")),
        ("--server-certificate", file("server.pem")),
        ("--server-key", file("server.key")),
        ("--certificate", file("callout.pem")),
        ("--key", file("callout.key")),
    ] {
        arguments.extend([option.to_owned(), value]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
    portcullis(&arguments)
}

#[test]
fn addresses_and_ends_are_written_as_they_were_asked_for_and_what_ends_soon_is_spoken_of() {
    let (a, dir) = (Authority::of_trust_domain("td-a.test"), folder());
    prepare(&a, dir.path(), "operator", 4222, &[]);
    std::fs::remove_dir_all(dir.path().join("site")).unwrap();
    let servers = ["--server", "tls://localhost:4333", "--server", "tls://127.0.0.1:4444"];
    let more = [&["--mode", "operator", "--valid", "10", "--listen", "0.0.0.0:4333"][..], &servers].concat();
    let ran = again(dir.path(), &more);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let end = time::OffsetDateTime::now_utc() + time::Duration::days(10);
    let day = end.date().to_string();
    assert!(ran.text.contains("the JWTs of the callout's logins") && ran.text.contains(&day), "{}", ran.text);
    let site = dir.path().join("site");
    let (server, own) = (site.join("server.conf"), site.join("callout.toml"));
    assert!(std::fs::read_to_string(&server).unwrap().contains("listen: \"0.0.0.0:4333\""));
    let written = std::fs::read_to_string(&own).unwrap();
    assert!(written.contains("servers = [\"tls://localhost:4333\", \"tls://127.0.0.1:4444\"]"), "{written}");
    let (server, own) = (server.to_str().unwrap(), own.to_str().unwrap());
    let checked = portcullis(&["callout", "check", server, "--callout", own]);
    assert_eq!(checked.code, 0, "{}", checked.text);
    for says in ["jwt.ends", "default_sentinel ends in ", "login.ends", "callout.jwt ends in 9 days"] {
        assert!(checked.text.contains(says), "{says}: {}", checked.text);
    }
    // The port of the server that is not named is that of the listener.
    std::fs::remove_dir_all(&site).unwrap();
    assert_eq!(again(dir.path(), &["--listen", "127.0.0.1:4555"]).code, 0);
    assert!(std::fs::read_to_string(site.join("callout.toml")).unwrap().contains("[\"tls://localhost:4555\"]"));
    // Keys of one site and a server of another are no pair.
    let checked = portcullis(&["callout", "check", site.join("server.conf").to_str().unwrap(), "--callout", own]);
    assert_eq!(checked.code, 0, "{}", checked.text);
    let text = std::fs::read_to_string(site.join("server.conf")).unwrap();
    let issuer = format!("issuer: {}", nkeys::KeyPair::new_account().public_key());
    let at = text.find("issuer: ").unwrap();
    std::fs::write(site.join("server.conf"), format!("{}{issuer}{}", &text[..at], &text[at + issuer.len()..])).unwrap();
    let checked = portcullis(&["callout", "check", site.join("server.conf").to_str().unwrap(), "--callout", own]);
    assert_eq!(checked.code, 64, "{}", checked.text);
    assert!(checked.text.contains("callout.mismatch") && checked.text.contains("`issuer`"), "{}", checked.text);
}

#[test]
fn a_callout_whose_credentials_have_ended_does_not_begin_and_says_when() {
    let Some(rig) = crate::rig::Rig::start("callout::ended") else { return };
    let account = portcullis_tests::nats::operator::Operator::new().account("A", serde_json::json!({}));
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let creds = account.credentials("callout", serde_json::json!({}), Some(now - 60));
    portcullis_tests::nats::pki::replace(&rig.path("keys"), "old.creds", &creds);
    let text = std::fs::read_to_string(rig.path("callout.toml")).unwrap();
    let text = text.replace("nkey = \"keys/callout.nk\"", "creds = \"keys/old.creds\"");
    std::fs::write(rig.path("callout.toml"), text).unwrap();
    let (code, error) = rig.fails_to_begin("");
    assert_eq!(code, Some(64), "{error}");
    assert!(error.contains("old.creds ended at 20") && error.contains("hint:"), "{error}");
}

/// What `callout check` says of an empty password is so.
#[tokio::test]
async fn an_empty_password_in_the_file_lets_anybody_in_and_is_found() {
    let (issuer, key) = (nkeys::KeyPair::new_account().public_key(), nkeys::KeyPair::new_user().public_key());
    let config = format!(
        "accounts {{ AUTH {{ users: [ {{ nkey: {key} }} ] }}, APP {{ users: [ {{ user: bob, password: \"\" }} ] }} }}\n\
         authorization {{ timeout: 1.5, auth_callout {{ issuer: {issuer}, account: AUTH, auth_users: [ {key}, bob ] }} }}"
    );
    let Some(server) = NatsServer::start("callout::empty password", &config) else { return };
    let options = ConnectOptions::with_user_and_password("bob".to_owned(), String::new());
    let client = options.connect(server.url()).await.expect("an empty password is one");
    assert_eq!(user_info(&client).await["account"], "APP");
    let path = server.folder().join("server.conf");
    let checked = portcullis(&["callout", "check", path.to_str().unwrap()]);
    assert!(checked.code == 64 && checked.text.contains("user.empty-password"), "{}", checked.text);
}
