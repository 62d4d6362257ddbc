//! Hosts whose logins the callout decides: what they show is replaced while they run, without the loss of a subscription; and what the
//! server denies them is told to whoever asks for their status.

use std::time::{Duration, Instant};

use nkeys::KeyPair;
use portcullis_tests::host::Host;
use portcullis_tests::nats::free_port;
use portcullis_tests::nats::hosted::{authority, connections, wait_problem};
use portcullis_tests::nats::pki::{Authority, replace};
use portcullis_tests::nats::relay::Relay;
use portcullis_tests::patience::promised;
use portcullis_tests::site::{CLUSTER, Site, TRUST_DOMAIN};
use serde_json::Value;

use crate::rig::{Callout, Rig, Shape, TIMEOUT};

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
        let end = Instant::now() + TIMEOUT;
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
        assert!(took <= promised(ROTATION), "it took {took:?}\n{}", self.host.log());
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
