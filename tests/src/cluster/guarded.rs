//! The way into a cluster's server by SPIFFE ID: what `portcullis callout init` writes, two callouts that share the logins, and
//! hosts that show their SVIDs. Only addresses are changed in what `init` wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{ACCOUNT, Plan};
use crate::host::Host;
use crate::nats::pki::{Authority, replace};
use crate::nats::responder::Callout;
use crate::site::{CLUSTER, Site, TRUST_DOMAIN};

/// The audience of JWT-SVIDs for the callout.
pub const CALLOUT: &str = "spiffe://test.example/callout";
/// Who the operator is for NATS.
const OPERATOR: &str = "spiffe://test.example/operator/ann";

/// What `callout init` wrote, and the callouts that run by it.
#[derive(Debug)]
pub struct Guard {
    /// The callouts, by number; `None`: killed.
    pub callouts: Vec<Option<Callout>>,
    folder: PathBuf,
}

/// `[nats.auth]` of a host: its X.509-SVID in the handshake; the last one also has a JWT-SVID that is bound to its nkey.
pub(super) fn login(site: &Site, name: &str, plan: &Plan) -> String {
    if plan.hosts.last().map(String::as_str) != Some(name) {
        return "svid = true\n".to_owned();
    }
    let key = nkeys::KeyPair::new_user();
    replace(site.path(), "host.nk", &key.seed().expect("a seed"));
    format!("svid = true\njwt_audience = \"{CALLOUT}\"\nnkey = \"host.nk\"\n")
}

/// `[nats.auth]` of the operator.
pub(super) fn operator_login() -> &'static str {
    "certificate = \"operator.pem\"\nkey = \"operator.key\"\n"
}

/// All keys of these hosts' bundles.
pub(super) fn keys(hosts: &BTreeMap<String, Host>) -> Vec<Value> {
    let bundles = hosts.values().map(|host| host.run(["identity", "bundle"]).ok().json());
    bundles.flat_map(|bundle| bundle["keys"].as_array().cloned().unwrap_or_default()).collect()
}

impl Guard {
    /// Has `callout init` write everything for a server on this port with the certificate in `server`, and for these hosts.
    pub(super) fn init(site: &Site, server: &Path, port: u16, hosts: &BTreeMap<String, Host>) -> Self {
        use base64::Engine as _;
        let domain = Authority::of_trust_domain(TRUST_DOMAIN);
        domain.spiffe(CALLOUT).write(site.path(), "callout");
        domain.spiffe(OPERATOR).write(site.path(), "operator");
        let mut keys = keys(hosts);
        let own = base64::engine::general_purpose::STANDARD.encode(domain.der());
        keys.push(json!({ "kty": "EC", "use": "x509-svid", "x5c": [own] }));
        let pems: String = keys.iter().filter_map(|key| key["x5c"][0].as_str()).map(pem).collect();
        replace(site.path(), "clients.pem", &pems);
        replace(site.path(), "bundle.json", &json!({ "keys": keys, "spiffe_sequence": 1 }).to_string());
        let text = |path: PathBuf| path.display().to_string();
        let here = |name: &str| text(site.file(name));
        let folder = site.file("nats");
        let written = [
            ("--cluster", CLUSTER.to_owned()),
            ("--account", ACCOUNT.to_owned()),
            ("--operator", OPERATOR.to_owned()),
            ("--trust-domain", format!("{TRUST_DOMAIN}={}", here("bundle.json"))),
            ("--listen", format!("127.0.0.1:{port}")),
            ("--server", format!("tls://localhost:{port}")),
            ("--ca", here("clients.pem")),
            ("--server-ca", text(server.join("ca.pem"))),
            ("--server-certificate", text(server.join("server.pem"))),
            ("--server-key", text(server.join("server.key"))),
            ("--certificate", here("callout.pem")),
            ("--key", here("callout.key")),
        ];
        let arguments = ["callout".to_owned(), "init".to_owned(), here("nats"), "--jetstream".to_owned()].into_iter();
        site.run(arguments.chain(written.into_iter().flat_map(|(name, value)| [name.to_owned(), value]))).ok();
        let config = text(folder.join("server.conf"));
        site.run(["callout", "check", &config, "--server-version", "2.15.1"]).ok();
        Self { callouts: Vec::new(), folder }
    }

    /// The server's configuration without the line that says where it listens, which the harness has.
    pub(super) fn server_config(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("server.conf")).expect("init wrote it");
        let (before, rest) = text.split_once("listen: ").expect("a line");
        format!("{before}{}", rest.split_once('\n').expect("a line").1)
    }

    /// Starts the callout of this number and waits until it is ready.
    pub fn start(&mut self, number: usize) {
        let text = std::fs::read_to_string(self.folder.join("callout.toml")).expect("init wrote it");
        let state = format!("state-{number}");
        let text =
            text.replace(":9222\"", ":0\"").replace("state_dir = \"state\"", &format!("state_dir = \"{state}\""));
        let config = replace(&self.folder, &format!("callout-{number}.toml"), &text);
        let callout = Callout::start(&config, &self.folder.join(state));
        self.callouts.resize_with(self.callouts.len().max(number + 1), || None);
        self.callouts[number] = Some(callout);
    }

    /// Kills the callout of this number as a crash would.
    pub fn kill(&mut self, number: usize) {
        self.callouts[number] = None;
    }

    /// The audit logs of all callouts that ever ran.
    pub fn audit_logs(&self) -> Vec<PathBuf> {
        let logs = (0..self.callouts.len()).map(|number| self.folder.join(format!("state-{number}/audit.jsonl")));
        logs.filter(|log| log.is_file()).collect()
    }

    /// How many records of all callouts have this text.
    pub fn recorded(&self, text: &str) -> usize {
        let logs = self.audit_logs().into_iter().filter_map(|log| std::fs::read_to_string(log).ok());
        logs.map(|log| log.lines().filter(|line| line.contains(text)).count()).sum()
    }
}

fn pem(der: &str) -> String {
    let lines: Vec<&str> = der.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
