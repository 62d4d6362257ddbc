//! `callout renew`: what ends is made anew while server and callout run, and nothing else is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use portcullis_tests::nats::operator::token;
use portcullis_tests::nats::pki::{Authority, replace};
use portcullis_tests::nats::{NatsServer, folder};
use serde_json::{Value, json};

use crate::init::{Ran, portcullis, prepare};
use crate::rig::{Callout, user_info};

/// How long the material of the first life lives. The test sleeps through it: a server and a callout must have come up by then.
const LIFE: i64 = 75;

/// A site of operator mode with its files in a folder of their own.
struct Site {
    authority: Authority,
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Site {
    fn new(mode: &str) -> Self {
        let (authority, folder) = (Authority::of_trust_domain("td-a.test"), folder());
        let tls = folder.path().join("tls");
        std::fs::create_dir(&tls).unwrap();
        let (ran, site) = prepare(&authority, &tls, mode, 4222, &[]);
        assert_eq!(ran.code, 0, "{}", ran.text);
        // Beside the certificates and not above them, as the documentation has it.
        let path = folder.path().join("site");
        std::fs::rename(site, &path).unwrap();
        Self { authority, folder, path }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        replace(path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap(), text);
    }

    fn key(&self, name: &str) -> KeyPair {
        KeyPair::from_seed(self.read(name).trim()).unwrap()
    }

    fn renew(&self, more: &[&str]) -> Ran {
        portcullis(&[&["callout", "renew", self.path.to_str().unwrap()][..], more].concat())
    }

    fn sentinel(&self) -> String {
        let text = self.read("server.conf");
        text.split_once("default_sentinel: \"").unwrap().1.split_once('"').unwrap().0.to_owned()
    }

    /// Signs a token of the site again, with other claims.
    fn changed(&self, jwt: &str, key: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims(jwt);
        change(&mut claims);
        token(&self.key(key), claims)
    }

    /// Everything that ends, ends then.
    fn ends(&self, at: i64) {
        let until = |claims: &mut Value| claims["exp"] = at.into();
        for (name, key) in [("callout", "account-auth"), ("revoker", "account-sys")] {
            let (file, key) = (format!("login/{name}.jwt"), format!("offline/{key}.nk"));
            self.write(&file, &self.changed(self.read(&file).trim(), &key, until));
        }
        let old = self.sentinel();
        let new = self.changed(&old, "offline/account-auth.nk", until);
        self.write("server.conf", &self.read("server.conf").replace(&old, &new));
    }

    /// Every file with its text, but for the state.
    fn all(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all = Vec::new();
        for folder in ["", "keys", "login", "offline", "policy"] {
            // Accounts mode has fewer folders.
            for entry in std::fs::read_dir(self.file(folder)).into_iter().flatten().map(Result::unwrap) {
                if entry.file_type().unwrap().is_file() {
                    all.push((entry.path(), std::fs::read(entry.path()).unwrap()));
                }
            }
        }
        all.sort();
        all
    }
}

fn claims(jwt: &str) -> Value {
    let part = jwt.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The server's configuration without the line that says where it listens, which the harness has.
fn without_listen(text: &str) -> String {
    let (before, rest) = text.split_once("listen: ").unwrap();
    format!("{before}{}", rest.split_once('\n').unwrap().1)
}

async fn connect(site: &Site, server: &NatsServer, name: &str) -> Result<Client, String> {
    let leaf = site.authority.spiffe(&format!("spiffe://td-a.test/portcullis/host/{name}"));
    let (certificate, key) = leaf.write(site.folder.path(), name);
    let options = ConnectOptions::new()
        .add_root_certificates(site.folder.path().join("tls/ca.pem"))
        .add_client_certificate(certificate, key)
        .require_tls(true)
        .tls_first()
        .custom_inbox_prefix(format!("_INBOX_{name}"))
        .max_reconnects(1);
    let client = tokio::time::timeout(Duration::from_secs(10), options.connect(server.tls_url())).await;
    client.map_err(|_| "no answer".to_owned())?.map_err(|error| format!("{error:?}"))
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_site_of_operator_mode_is_renewed_and_goes_on_past_the_old_end() {
    // Got before the clock runs.
    let Some(_) = portcullis_tests::nats::program("callout::renew") else { return };
    let site = Site::new("operator");
    let end = now() + LIFE;
    site.ends(end);
    let config = without_listen(&site.read("server.conf"));
    let Some(mut server) = NatsServer::start("callout::renew", &config) else { return };
    let text = site.read("callout.toml").replace(":4222\"", &format!(":{}\"", server.port()));
    site.write("callout.toml", &text.replace(":9222", ":0"));
    let callout = Callout::start(&site.file("callout.toml"), &site.file("state"));
    let client = connect(&site, &server, "h1").await;
    let client = client.unwrap_or_else(|error| panic!("{error}\n{}\n{}", callout.log(), server.log()));
    assert!(now() < end, "this machine is too busy: the first life is over");

    let before = site.all();
    let ran = site.renew(&["--valid", "30"]);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert!(ran.text.contains("login/callout.jwt") && ran.text.contains("reload"), "{}", ran.text);
    // Three files are others, and in the server's only the sentinel is.
    let changed: Vec<String> = before
        .iter()
        .zip(site.all())
        .filter(|(old, new)| *old != new)
        .map(|(old, _)| old.0.strip_prefix(&site.path).unwrap().display().to_string())
        .collect();
    assert_eq!(changed, ["login/callout.jwt", "login/revoker.jwt", "server.conf"]);
    server.set_config(&without_listen(&site.read("server.conf")));
    server.reload();
    assert_eq!(user_info(&client).await["user"], "spiffe://td-a.test/portcullis/host/h1", "a reload ends nothing");

    // The old end comes: the server ends both connections of the callout, which come back with what is there now.
    let until = Instant::now() + Duration::from_secs(180);
    let renewed = |callout: &Callout| callout.log().matches("logs in with the token that is there now").count();
    while renewed(&callout) < 2 || now() <= end + 1 {
        assert!(Instant::now() < until, "{}\n{}", callout.log(), server.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let late = loop {
        match connect(&site, &server, "h2").await {
            Ok(client) => break client,
            Err(why) => assert!(Instant::now() < until, "{why}\n{}\n{}", callout.log(), server.log()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(user_info(&late).await["user"], "spiffe://td-a.test/portcullis/host/h2");
    callout.wait_until_ready();
    // Revocation works by the second login, renewed too.
    let revoked = "version = 1\n[[revoked]]\nid = \"spiffe://td-a.test/portcullis/host/h1\"\nreason = \"test\"\n";
    replace(&site.file("policy"), "revoked.toml", revoked);
    callout.wait_for_audit("callout-kick");
    let (conf, toml) = (site.file("server.conf"), site.file("callout.toml"));
    let checked = portcullis(&["callout", "check", conf.to_str().unwrap(), "--callout", toml.to_str().unwrap()]);
    assert_eq!(checked.code, 0, "{}", checked.text);
}

#[test]
fn a_renewal_changes_ends_alone_and_a_dry_run_nothing() {
    use std::os::unix::fs::MetadataExt;
    let site = Site::new("operator");
    site.ends(now() - 5);
    let before = site.all();
    let dry = site.renew(&["--dry-run"]);
    assert!(dry.code == 0 && dry.text.contains("nothing was written"), "{}", dry.text);
    assert_eq!(site.all(), before);
    // Lines of the operator's stay.
    site.write("server.conf", &format!("# mine\nhttp: \"127.0.0.1:8222\"\n{}", site.read("server.conf")));
    let old = [site.read("login/callout.jwt"), site.read("login/revoker.jwt"), site.sentinel()];
    let ran = site.renew(&["--valid", "10", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let said: Value = serde_json::from_str(&ran.text).unwrap();
    assert_eq!(said["renewed"].as_array().unwrap().len(), 3, "{said}");
    assert!(site.read("server.conf").starts_with("# mine\nhttp:"));
    let new = [site.read("login/callout.jwt"), site.read("login/revoker.jwt"), site.sentinel()];
    for (old, new) in old.iter().zip(&new) {
        let (mut old, mut new) = (claims(old), claims(new));
        assert!((new["exp"].as_i64().unwrap() - now() - 10 * 86_400).abs() < 600, "{new}");
        for token in [&mut old, &mut new] {
            for changing in ["exp", "iat", "jti"] {
                token.as_object_mut().unwrap().remove(changing);
            }
        }
        assert_eq!(old, new);
    }
    for name in ["login/callout.jwt", "login/revoker.jwt", "server.conf"] {
        assert_eq!(std::fs::metadata(site.file(name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::metadata(site.file("login")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn what_was_changed_by_hand_or_has_no_key_at_hand_is_refused_and_nothing_is_written() {
    let site = Site::new("operator");
    let refused = |what: &str, says: &str, more: &[&str]| {
        let before = site.all();
        let ran = site.renew(more);
        assert!([2, 64].contains(&ran.code), "{what}: {}", ran.text);
        assert!(ran.text.contains(says) && ran.text.contains("hint:"), "{what}: {}", ran.text);
        assert_eq!(site.all(), before, "{what}: something was written");
    };
    let with = |name: &str, text: &str, what: &str, says: &str| {
        let kept = site.read(name);
        site.write(name, text);
        refused(what, says, &[]);
        site.write(name, &kept);
    };
    let (callout, revoker, sentinel) =
        (site.read("login/callout.jwt"), site.read("login/revoker.jwt"), site.sentinel());
    let auth = "offline/account-auth.nk";
    let wider = site.changed(callout.trim(), auth, |claims| claims["nats"]["pub"] = json!({ "allow": [">"] }));
    with("login/callout.jwt", &wider, "more rights", "(rights): somebody changed it");
    let narrower = site.changed(callout.trim(), auth, |claims| claims["nats"]["sub"] = json!({ "deny": [">"] }));
    with("login/callout.jwt", &narrower, "fewer rights", "(rights): somebody changed it");
    with("login/callout.jwt", &revoker, "another's", "signed by");
    with("login/revoker.jwt", "noise", "no token", "no user's JWT");
    let strange = KeyPair::new_user().public_key();
    let other = site.changed(callout.trim(), auth, |claims| claims["sub"] = strange.clone().into());
    with("login/callout.jwt", &other, "another user", "whose key is not that of `nkey`");
    let config = site.read("server.conf");
    let open = site.changed(&sentinel, auth, |claims| claims["nats"]["pub"] = json!({ "allow": ["a"] }));
    with("server.conf", &config.replace(&sentinel, &open), "a sentinel with rights", "(rights): somebody changed it");
    with("server.conf", &format!("# {sentinel}\n{config}"), "twice", "2 times");
    let variable = config.replace(&format!("default_sentinel: \"{sentinel}\""), "default_sentinel: $SENTINEL");
    with("server.conf", &variable, "a variable", "default_sentinel stands");
    with(auth, &KeyPair::new_account().seed().unwrap(), "another account's key", "it is the key of the account");
    refused("sooner", "ends later", &["--valid", "364"]);
    let away = site.folder.path().join("away");
    std::fs::rename(site.file("offline"), &away).unwrap();
    std::fs::create_dir(site.file("offline")).unwrap();
    refused("no keys", "account-auth.nk is not there", &[]);
    // A link is somebody else's file.
    let elsewhere = site.folder.path().join("callout.jwt");
    std::fs::rename(site.file("login/callout.jwt"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, site.file("login/callout.jwt")).unwrap();
    let offline = ["--offline", away.to_str().unwrap()];
    let before = std::fs::read(&elsewhere).unwrap();
    refused("a link", "is a link", &offline);
    assert_eq!(std::fs::read(&elsewhere).unwrap(), before);
    std::fs::rename(&elsewhere, site.file("login/callout.jwt")).unwrap();
    // The keys may be elsewhere.
    let ran = site.renew(&offline);
    assert_eq!(ran.code, 0, "{}", ran.text);
}

#[test]
fn new_certificates_come_in_the_place_of_the_old_ones_in_either_mode_when_they_fit() {
    for mode in ["accounts", "operator"] {
        let site = Site::new(mode);
        let (a, tls) = (&site.authority, site.folder.path().join("tls"));
        let new = site.folder.path().join("new");
        std::fs::create_dir(&new).unwrap();
        let give = |leaf: portcullis_tests::nats::pki::Leaf, side: &str| -> Ran {
            let (certificate, key) = leaf.write(&new, "new");
            let options = match side {
                "server" => ["--server-certificate", "--server-key"],
                _ => ["--certificate", "--key"],
            };
            site.renew(&[options[0], certificate.to_str().unwrap(), options[1], key.to_str().unwrap()])
        };
        let there = |name: &str| {
            [tls.join(format!("{name}.pem")), tls.join(format!("{name}.key"))]
                .map(|path| std::fs::read_to_string(path).unwrap())
        };
        let other = Authority::of_trust_domain("td-a.test");
        let own = "spiffe://td-a.test/callout";
        for (side, leaf, says) in [
            ("server", other.server(), "not of an authority"),
            ("server", a.expired_server(), "ended at"),
            ("server", a.server_for(&["nats.example"]), "not for the name"),
            ("server", a.server_for(&["localhost", "127.0.0.1", "more.example"]), "other names"),
            ("callout", other.spiffe(own), "not of an authority"),
            ("callout", a.expired_spiffe(own), "ended at"),
            ("callout", a.spiffe("spiffe://td-a.test/other"), "other names"),
        ] {
            let before = (there("server"), there("callout"), site.all());
            let ran = give(leaf, side);
            assert_eq!(ran.code, 2, "{mode} {says}: {}", ran.text);
            assert!(ran.text.contains(says) && ran.text.contains("hint:"), "{mode} {says}: {}", ran.text);
            assert_eq!((there("server"), there("callout"), site.all()), before, "{mode} {says}: something was written");
        }
        for (side, leaf) in [("server", a.server()), ("callout", a.spiffe(own))] {
            let ran = give(leaf.clone(), side);
            assert_eq!(ran.code, 0, "{mode} {side}: {}", ran.text);
            assert_eq!(there(side), [leaf.certificate, leaf.key], "{mode} {side}");
        }
        // A key without its certificate: what a stop between the two leaves. The same command again mends it.
        let leaf = a.server();
        replace(&tls, "server.key", &leaf.key);
        assert_eq!(give(leaf.clone(), "server").code, 0);
        assert_eq!(there("server"), [leaf.certificate, leaf.key]);
    }
    let site = Site::new("accounts");
    let ran = site.renew(&[]);
    assert!(ran.code == 0 && ran.text.contains("nothing to renew"), "{}", ran.text);
    assert!(ran.text.contains("the server's certificate ends 20"), "{}", ran.text);
    assert_eq!(site.renew(&["--valid", "3"]).code, 2);
}

/// `callout check` says who is known to one of the two alone.
#[test]
fn a_server_that_does_not_know_the_authorities_of_the_callout_is_found() {
    let site = Site::new("accounts");
    let (conf, toml) = (site.file("server.conf"), site.file("callout.toml"));
    let check = || portcullis(&["callout", "check", conf.to_str().unwrap(), "--callout", toml.to_str().unwrap()]);
    let ran = check();
    assert!(ran.code == 0 && !ran.text.contains("authority."), "{}", ran.text);
    let ca: &Path = &site.folder.path().join("tls/ca.pem");
    let (a, other) = (&site.authority, Authority::of_trust_domain("td-a.test"));
    // The domain has a second authority, which rotated in; the server knows a third one.
    site.write("policy/td-a.test.json", &bundle_of(&[a, &other]));
    let ran = check();
    assert!(ran.code == 0 && ran.text.contains("authority.behind"), "{}", ran.text);
    replace(ca.parent().unwrap(), "ca.pem", &format!("{}{}", a.pem(), other.pem()));
    assert!(!check().text.contains("authority."), "{}", check().text);
    let stranger = Authority::of_trust_domain("td-c.test");
    let clients =
        replace(ca.parent().unwrap(), "clients.pem", &format!("{}{}{}", a.pem(), other.pem(), stranger.pem()));
    let text = site
        .read("server.conf")
        .replace(&format!("ca_file: \"{}\"", ca.display()), &format!("ca_file: \"{}\"", clients.display()));
    site.write("server.conf", &text);
    let ran = check();
    assert!(
        ran.code == 0 && ran.text.contains("authority.stranger") && ran.text.contains("certificate 3"),
        "{}",
        ran.text
    );
    replace(ca.parent().unwrap(), "clients.pem", &stranger.pem());
    let ran = check();
    assert!(ran.code == 64 && ran.text.contains("authority.unknown"), "{}", ran.text);
    std::fs::remove_file(clients).unwrap();
    let ran = check();
    assert!(ran.code == 0 && ran.text.contains("authority.unread"), "{}", ran.text);
}

fn bundle_of(authorities: &[&Authority]) -> String {
    let keys: Vec<Value> = authorities
        .iter()
        .map(|authority| {
            let der = base64::engine::general_purpose::STANDARD.encode(authority.der());
            json!({ "kty": "EC", "use": "x509-svid", "x5c": [der] })
        })
        .collect();
    json!({ "keys": keys, "spiffe_sequence": 2 }).to_string()
}
