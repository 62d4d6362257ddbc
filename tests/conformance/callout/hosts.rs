//! Hosts whose logins the callout decides: what they show is replaced while they run, without the loss of a subscription; and what the
//! server denies them is told to whoever asks for their status.

use std::time::{Duration, Instant};

use nkeys::KeyPair;
use portcullis_tests::host::Host;
use portcullis_tests::nats::free_port;
use portcullis_tests::nats::hosted::{authority, connections, wait_problem};
use portcullis_tests::nats::pki::{Authority, replace};
use portcullis_tests::nats::relay::Relay;
use portcullis_tests::site::{CLUSTER, Site, TRUST_DOMAIN};
use serde_json::Value;

use crate::rig::{Callout, Rig, Shape};
use crate::tokens::{Issuer, Signs, options};

/// Most that it may take until something new is in use.
const ROTATION: Duration = Duration::from_secs(5);

/// A host of a cluster, a server, a callout that knows the host's trust domain.
struct Hosted {
    rig: Rig,
    callout: Callout,
    host: Host,
    monitoring: u16,
    _relay: Relay,
}

impl Hosted {
    /// `auth` is what the host shows; `more` stands in its role.
    fn start(test: &str, certificates: bool, auth: &str, key: &KeyPair, more: &str, without: &str) -> Option<Self> {
        let relay = Relay::to("127.0.0.1:1");
        let mut site = Site::new();
        Authority::new("not yet").write(site.path(), "ca");
        replace(site.path(), "host.seed", &key.seed().unwrap());
        site.config(&format!(
            "[cluster]\nname = \"{CLUSTER}\"\nhost = \"h1\"\nheartbeat_ms = 300\n\n\
             [nats]\nservers = [\"tls://localhost:{}\"]\naccount = \"APP\"\ntls.ca = \"ca.pem\"\ntls.first = true\n{auth}\n",
            relay.port()
        ));
        let host = Host::start(site);
        wait_problem(&host, "nats: ");
        let monitoring = free_port();
        let shape = Shape {
            certificates,
            authorities: authority(&host),
            domains: vec![(TRUST_DOMAIN.to_owned(), host.run(["identity", "bundle"]).ok().out)],
            roles: role(more).replace(without, ""),
            server: format!("http: \"127.0.0.1:{monitoring}\""),
            ..Shape::default()
        };
        let rig = Rig::shaped(test, &shape)?;
        let callout = rig.callout();
        rig.a.write(host.site().path(), "ca");
        relay.redirect(&rig.server.address());
        Some(Self { rig, callout, host, monitoring, _relay: relay })
    }

    /// Waits for a connection of the host with all its subscriptions, other than this one.
    fn connection(&self, other_than: Option<u64>) -> (u64, Vec<String>) {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            for one in connections(&self.rig.server, self.monitoring) {
                let user = one["authorized_user"].as_str().unwrap_or_default();
                let cid = one["cid"].as_u64().unwrap_or_default();
                let mut list: Vec<String> = one["subscriptions_list"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect();
                // An inbox for one answer comes and goes.
                list.retain(|subject| !subject.starts_with("_INBOX_") || subject.ends_with(".*"));
                list.sort();
                let whole = SUBSCRIPTIONS.iter().all(|part| list.iter().any(|subject| subject.contains(part)));
                if user.ends_with("/portcullis/host/h1") && Some(cid) != other_than && whole {
                    return (cid, list);
                }
            }
            assert!(Instant::now() < end, "{}\n{}\n{}", self.host.log(), self.callout.log(), self.rig.server.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Within 5 s the host is connected with something new, every subscription is there again, and the callout let it in anew.
    fn rotates(&self, rotate: impl FnOnce(&Host)) {
        let (before, subscriptions) = self.connection(None);
        let allowed = self.callout.count("callout-allow");
        let begin = Instant::now();
        rotate(&self.host);
        let (_, after) = self.connection(Some(before));
        let took = begin.elapsed();
        println!("rotated: {took:?}");
        assert!(took <= ROTATION, "it took {took:?}\n{}", self.host.log());
        assert_eq!(after, subscriptions);
        assert!(self.callout.count("callout-allow") > allowed);
    }

    /// How many JWT-SVIDs the host was given for its logins.
    fn tokens(&self) -> usize {
        self.host.audit().iter().filter(|record| record["kind"] == "issuance" && record["svid"] == "jwt").count()
    }
}

fn role(more: &str) -> String {
    format!(
        r#"version = 1
[[role]]
id = "hosts"
reason = "hosts of the cluster"
owner = "team"
who = "spiffe://{TRUST_DOMAIN}/portcullis/host/{{host}}"
account = "APP"
publish = ["portcullis.{CLUSTER}.hb.{{host}}", "portcullis.{CLUSTER}.evt.{{host}}.>", "$SYS.REQ.USER.INFO", "$JS.API.DIRECT.GET.>"]
subscribe = ["portcullis.{CLUSTER}.kv.>", "portcullis.{CLUSTER}.hb.*", "portcullis.{CLUSTER}.evt.*.host-down", "portcullis.{CLUSTER}.ctl.{{host}}.*", "_INBOX_{{host}}.>"]
responses = 1
lifetime = "1h"
{more}
"#
    )
}

/// A site that `callout init --credential jwt` wrote: no certificate is asked for, and the token alone opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_a_cluster_that_shows_a_jwt_svid_alone_is_let_in_where_init_wrote_so() {
    for mode in ["accounts", "operator"] {
        let key = KeyPair::new_user();
        let relay = Relay::to("127.0.0.1:1");
        let mut site = Site::new();
        let folder = portcullis_tests::nats::folder();
        let authority = Authority::new("NATS of a test");
        let ca = authority.write(folder.path(), "ca");
        let (certificate, of_certificate) = authority.server().write(folder.path(), "server");
        std::fs::copy(&ca, site.file("ca.pem")).unwrap();
        replace(site.path(), "host.seed", &key.seed().unwrap());
        let audience = format!("spiffe://{TRUST_DOMAIN}/callout");
        let path = |path: &std::path::Path| path.display().to_string();
        let config = |account: &str| {
            format!(
                "[cluster]\nname = \"{CLUSTER}\"\nhost = \"h1\"\nheartbeat_ms = 300\n\n\
                 [nats]\nservers = [\"tls://localhost:{}\"]\naccount = \"{account}\"\ntls.ca = \"ca.pem\"\ntls.first = true\n\
                 auth.jwt_audience = \"{audience}\"\nauth.nkey = \"host.seed\"\n",
                relay.port()
            )
        };
        // The host makes its authority at its first start; in operator mode the account has a key, which `init` makes.
        site.config(&config("APP"));
        let host = Host::start(site);
        wait_problem(&host, "nats: ");
        let issuer = Issuer::new();
        let mut keys = host.run(["identity", "bundle"]).ok().json();
        keys["keys"].as_array_mut().unwrap().push(issuer.jwk());
        let bundle = replace(folder.path(), "bundle.json", &keys.to_string());
        let domain = format!("{TRUST_DOMAIN}={}", path(&bundle));
        let port = free_port();
        let (listen, url) = (format!("127.0.0.1:{port}"), format!("tls://localhost:{port}"));
        let (certificate, of_certificate, ca) = (path(&certificate), path(&of_certificate), path(&ca));
        let made = folder.path().join("site");
        let made_text = path(&made);
        let init = |more: &[&str]| {
            let arguments = [
                &["callout", "init", &made_text, "--mode", mode, "--credential", "jwt", "--cluster", CLUSTER][..],
                &["--trust-domain", &domain, "--listen", &listen, "--server", &url, "--ca", &ca],
                &["--server-certificate", &certificate, "--server-key", &of_certificate],
                more,
            ];
            crate::init::portcullis(&arguments.concat())
        };
        for wrong in [
            &["--certificate", &certificate, "--key", &of_certificate][..],
            &["--operator", &format!("spiffe://{TRUST_DOMAIN}/a")],
        ] {
            let ran = init(wrong);
            assert!(ran.code == 2 && ran.text.contains("hint:") && !made.exists(), "{}", ran.text);
        }
        let ran = init(&[]);
        assert_eq!(ran.code, 0, "{}", ran.text);
        let (conf, toml) = (made.join("server.conf"), made.join("callout.toml"));
        let checked = crate::init::portcullis(&["callout", "check", &path(&conf), "--callout", &path(&toml)]);
        assert!(checked.code == 0 && checked.text.contains("tls.no-verify"), "{}", checked.text);
        let text = std::fs::read_to_string(&conf).unwrap();
        let (before, rest) = text.split_once("listen: ").unwrap();
        let text = format!("{before}{}", rest.split_once('\n').unwrap().1);
        let Some(server) = portcullis_tests::nats::NatsServer::start(&format!("callout::init jwt {mode}"), &text)
        else {
            return;
        };
        let text = std::fs::read_to_string(&toml).unwrap();
        let text = text.replace(&format!(":{port}\""), &format!(":{}\"", server.port())).replace(":9222", ":0");
        std::fs::write(&toml, &text).unwrap();
        let callout = Callout::start(&toml, &made.join("state"));
        let account = match text.split_once("\npublic = \"") {
            Some((_, rest)) => rest.split_once('"').unwrap().0.to_owned(),
            None => "APP".to_owned(),
        };
        let mut site = host.stop();
        site.forget_config();
        site.config(&config(&account));
        let host = Host::start(site);
        relay.redirect(&server.address());
        let end = Instant::now() + Duration::from_secs(90);
        while !host.ask_status(0)["nats"].as_str().is_some_and(|nats| nats.contains("/portcullis/host/h1")) {
            assert!(
                Instant::now() < end,
                "{:#}\n{}\n{}\n{}",
                host.ask_status(0),
                host.log(),
                callout.log(),
                server.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let record = callout.wait_for_audit("callout-allow");
        assert!(record.to_string().contains("/portcullis/host/h1"), "{record}");

        // A token in other hands than its key is, and one that names no key.
        let (id, key) = (format!("spiffe://{TRUST_DOMAIN}/portcullis/host/h9"), KeyPair::new_user());
        let bound = issuer.token(&id, &[&audience, &format!("nkey:{}", key.public_key())], 300);
        let bearer = issuer.token(&id, &[&audience], 300);
        let connect = async |token: &str, key: &KeyPair, signs: Signs| {
            let options = options(token, key, signs).add_root_certificates(folder.path().join("ca.pem"));
            let options = options.require_tls(true).tls_first().custom_inbox_prefix("_INBOX_h9").max_reconnects(1);
            options.connect(server.tls_url()).await
        };
        let stranger = KeyPair::new_user();
        for (token, by, signs) in [
            (&bound, &key, Signs::Nothing),
            (&bound, &key, Signs::Other),
            (&bound, &stranger, Signs::Nonce),
            (&bearer, &key, Signs::Nonce),
            (&bearer, &key, Signs::Nothing),
        ] {
            assert!(connect(token, by, signs).await.is_err(), "it was let in\n{}", callout.log());
        }
        let client = connect(&bound, &key, Signs::Nonce).await;
        client.unwrap_or_else(|error| panic!("{error:?}\n{}\n{}", callout.log(), server.log()));
    }
}

/// What a host of a cluster hears; its inbox besides.
const SUBSCRIPTIONS: [&str; 4] = [".kv.>", ".hb.*", ".host-down", ".ctl.h1."];

#[test]
fn a_hosts_own_x509_svid_is_replaced_through_the_callout_without_the_loss_of_a_subscription() {
    let key = KeyPair::new_user();
    let Some(hosted) = Hosted::start("callout::host x509", true, "auth.svid = true", &key, "", "\0") else { return };
    hosted.rotates(|host| drop(host.run(["identity", "rotate", "--svids"]).ok()));
}

#[test]
fn a_hosts_jwt_svid_is_replaced_through_the_callout_without_the_loss_of_a_subscription() {
    let key = KeyPair::new_user();
    let auth = "auth.jwt_audience = \"spiffe://td-a.test/callout\"\nauth.nkey = \"host.seed\"";
    let nkeys = format!("credential = \"jwt\"\nnkeys = [\"{}\"]", key.public_key());
    let Some(hosted) = Hosted::start("callout::host jwt", false, auth, &key, &nkeys, "\0") else { return };
    hosted.connection(None);
    let before = hosted.tokens();
    hosted.rotates(|host| drop(host.run(["identity", "rotate", "--svids"]).ok()));
    assert!(hosted.tokens() > before, "it showed the token of before");
}

#[test]
fn a_host_whose_heartbeats_the_server_denies_says_so_and_what_to_do() {
    let key = KeyPair::new_user();
    let heartbeat = format!("\"portcullis.{CLUSTER}.hb.{{host}}\", ");
    let test = "callout::host denied";
    let Some(hosted) = Hosted::start(test, true, "auth.svid = true", &key, "", &heartbeat) else { return };
    let problem = wait_problem(&hosted.host, &format!("the server denies publishing to portcullis.{CLUSTER}.hb.h1"));
    assert!(problem.contains(&format!("cluster init --print --cluster {CLUSTER}")), "{problem}");
}
