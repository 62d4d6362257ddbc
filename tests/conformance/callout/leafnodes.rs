//! Leaf nodes: a server that logs in like a client. Where a role lets it in, whoever is revoked is ended there, too.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis_tests::nats::{NatsServer, folder, free_port};
use portcullis_tests::patience::promised;
use portcullis_tests::processes::holds_within;
use serde_json::Value;

use crate::rig::{ROLES, Rig, Shape, TIMEOUT};

const LEAF: &str = r#"
[[role]]
id = "leaves"
reason = "sites"
owner = "team"
who = "spiffe://td-a.test/leaf/{leaf}"
account = "APP"
publish = ["leaf.{leaf}.>", "$SYS.REQ.USER.INFO"]
subscribe = ["leaf.{leaf}.>", "_INBOX_{leaf}.>"]
lifetime = "1h"
kinds = ["leafnode"]
"#;

struct Leaves {
    rig: Rig,
    port: u16,
    monitoring: u16,
}

impl Leaves {
    fn start(test: &str, role: &str) -> Option<Self> {
        let (port, monitoring) = (free_port(), free_port());
        let tls = "tls { cert_file: \"server.pem\", key_file: \"server.key\", ca_file: \"cas.pem\", verify: true, timeout: 5 }";
        let shape = Shape {
            server: format!("http: \"127.0.0.1:{monitoring}\"\nleafnodes {{ listen: \"127.0.0.1:{port}\", {tls} }}"),
            roles: format!("{ROLES}{role}"),
            ..Shape::default()
        };
        Some(Self { rig: Rig::shaped(test, &shape)?, port, monitoring })
    }

    /// A server that connects as a leaf node with an X.509-SVID.
    fn leaf(&self, name: &str, life: Duration) -> Option<NatsServer> {
        let place = folder();
        self.rig.a.write(place.path(), "ca");
        let id = format!("spiffe://td-a.test/leaf/{name}");
        let svid = self.rig.a.leaf(|params| {
            params.subject_alt_names = vec![rcgen::SanType::URI(id.as_str().try_into().unwrap())];
            params.not_after = time::OffsetDateTime::now_utc() + life;
        });
        svid.write(place.path(), "leaf");
        let port = self.port;
        let tls = "tls { cert_file: \"leaf.pem\", key_file: \"leaf.key\", ca_file: \"ca.pem\", timeout: 5 }";
        let config = format!(
            "server_name: leaf-{name}\nleafnodes {{ reconnect: 1, remotes: [ {{ url: \"tls://localhost:{port}\", {tls} }} ] }}"
        );
        NatsServer::start_in("callout::leaf", place, &config)
    }

    fn listed(&self) -> Vec<Value> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.monitoring));
        let listed = portcullis_tests::http::get(address, "/leafz?subs=1", &[]).json();
        listed["leafs"].as_array().cloned().unwrap_or_default()
    }

    fn wait_for(&self, count: usize) -> Vec<Value> {
        let begin = Instant::now();
        loop {
            let listed = self.listed();
            if listed.len() == count {
                return listed;
            }
            assert!(begin.elapsed() < TIMEOUT, "{listed:#?}\n{}", self.rig.server.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn revoked(names: &[&str]) -> String {
    let entry = |name: &&str| format!("[[revoked]]\nid = \"spiffe://td-a.test/leaf/{name}\"\nreason = \"test\"\n");
    format!("version = 1\n{}", names.iter().map(entry).collect::<String>())
}

#[test]
fn a_leaf_node_that_is_revoked_is_ended_whoever_let_it_in() {
    let Some(leaves) = Leaves::start("callout::leafnodes", LEAF) else { return };
    let callout = leaves.rig.callout();
    let Some(_one) = leaves.leaf("one", HOUR) else { return };
    leaves.wait_for(1);
    leaves.rig.policy("revoked.toml", &revoked(&["one"]));
    leaves.wait_for(0);
    callout.wait_for_audit("callout-kick");
    callout.wait_for_audit("\"code\":\"revoked\"");
    let Some(_two) = leaves.leaf("two", HOUR) else { return };
    leaves.wait_for(1);
    // One that another process let in.
    drop(callout);
    leaves.rig.policy("revoked.toml", &revoked(&["one", "two"]));
    let other = leaves.rig.callout_named("two");
    leaves.wait_for(0);
    let record = other.wait_for_audit("callout-kick");
    assert_eq!(
        (&record["workload"], &record["ended"]),
        (&"spiffe://td-a.test/leaf/two".into(), &true.into()),
        "{record}"
    );
}

#[test]
fn a_leaf_node_does_not_outlive_its_svid() {
    let Some(leaves) = Leaves::start("callout::leaf's end", LEAF) else { return };
    let _callout = leaves.rig.callout();
    // Where this machine is busy, a short one is over before it is connected.
    for life in [8, 30, 120].map(Duration::from_secs) {
        let ends = Instant::now() + life;
        let Some(_leaf) = leaves.leaf("short", life) else { return };
        if holds_within(life, || leaves.listed().len() == 1) {
            leaves.wait_for(0);
            let late = Instant::now().saturating_duration_since(ends);
            return assert!(late < promised(Duration::from_secs(4)), "ended {late:?} late");
        }
    }
    panic!("it was never connected");
}

#[test]
fn a_leaf_node_that_no_role_names_as_one_is_not_let_in() {
    let Some(leaves) = Leaves::start("callout::leaf without a role", &LEAF.replace("kinds = [\"leafnode\"]\n", ""))
    else {
        return;
    };
    let callout = leaves.rig.callout();
    let Some(_leaf) = leaves.leaf("one", HOUR) else { return };
    callout.wait_for_audit("all matches but kind");
    assert!(leaves.listed().is_empty());
}
