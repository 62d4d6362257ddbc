//! A nats-server in accounts mode with a callout: TLS with SVIDs of two trust domains, an account for the callout, one for
//! applications, the system's.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nkeys::KeyPair;
use portcullis_tests::nats::pki::{Authority, Leaf, replace};
use portcullis_tests::nats::{NatsServer, folder};

pub use portcullis_tests::nats::responder::{Callout, TIMEOUT};

/// Everything of one system.
pub struct Rig {
    pub server: NatsServer,
    pub a: Authority,
    pub b: Authority,
    pub keys: Keys,
    folder: tempfile::TempDir,
}

pub struct Keys {
    pub issuer: KeyPair,
    pub callout: KeyPair,
    pub revoker: KeyPair,
    pub xkey: portcullis_identity::XKey,
}

/// What is different from the usual.
#[derive(Clone)]
pub struct Shape {
    /// `verify: true`.
    pub certificates: bool,
    /// Whether there is TLS at all.
    pub tls: bool,
    /// Further accounts and users, as text of the server's configuration.
    pub accounts: String,
    /// Further lines of the `authorization` block.
    pub authorization: String,
    /// Further lines of the server's configuration.
    pub server: String,
    /// Further lines of callout.toml, before its tables.
    pub callout: String,
    /// At work, and waiting.
    pub limits: (usize, usize),
    pub roles: String,
    pub xkey: bool,
    /// Further authorities that the server takes, PEM.
    pub authorities: String,
    /// Further trust domains, each with its bundle.
    pub domains: Vec<(String, String)>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            certificates: true,
            tls: true,
            accounts: String::new(),
            authorization: String::new(),
            server: String::new(),
            callout: String::new(),
            limits: (64, 1024),
            roles: ROLES.to_owned(),
            xkey: true,
            authorities: String::new(),
            domains: Vec::new(),
        }
    }
}

pub const ROLES: &str = r#"version = 1
[[role]]
id = "hosts"
reason = "hosts of the cluster"
owner = "team"
who = "spiffe://td-a.test/host/{host}"
account = "APP"
publish = ["lat.evt.{host}.>", "$SYS.REQ.USER.INFO"]
subscribe = ["lat.ctl.{host}.>", "_INBOX_{host}.>"]
responses = 1
lifetime = "1h"
sources = ["127.0.0.0/8"]

[[role]]
id = "bots"
reason = "bots with tokens"
owner = "team"
who = "spiffe://td-a.test/bot/{bot}"
account = "APP"
publish = ["bot.{bot}", "$SYS.REQ.USER.INFO"]
subscribe = ["_INBOX_{bot}.>"]
lifetime = "5m"
credential = "jwt"

[[role]]
id = "elsewhere"
reason = "never from here"
owner = "team"
who = "spiffe://td-a.test/elsewhere"
account = "APP"
lifetime = "5m"
sources = ["192.0.2.0/24"]

[[role]]
id = "sockets"
reason = "web sockets only"
owner = "team"
who = "spiffe://td-a.test/socket"
account = "APP"
lifetime = "5m"
types = ["websocket"]

[[role]]
id = "short"
reason = "a short life"
owner = "team"
who = "spiffe://td-a.test/short"
account = "APP"
publish = ["$SYS.REQ.USER.INFO"]
subscribe = ["_INBOX_short.>"]
lifetime = "30s"

[[role]]
id = "silent"
reason = "may do nothing at all"
owner = "team"
who = "spiffe://td-a.test/silent"
account = "APP"
lifetime = "5m"
"#;

impl Rig {
    pub fn start(test: &str) -> Option<Self> {
        Self::shaped(test, &Shape::default())
    }

    pub fn shaped(test: &str, shape: &Shape) -> Option<Self> {
        Self::made(test, shape, None)
    }

    /// With a second user in the callout account who may do anything there.
    pub fn with_second_user(test: &str, shape: &Shape, user: &KeyPair) -> Option<Self> {
        Self::made(test, shape, Some(user))
    }

    fn made(test: &str, shape: &Shape, second: Option<&KeyPair>) -> Option<Self> {
        let keys = Keys {
            issuer: KeyPair::new_account(),
            callout: KeyPair::new_user(),
            revoker: KeyPair::new_user(),
            xkey: portcullis_identity::XKey::generate().unwrap(),
        };
        let (a, b) = (Authority::of_trust_domain("td-a.test"), Authority::of_trust_domain("td-b.test"));
        let server_folder = folder();
        a.server().write(server_folder.path(), "server");
        let authorities = format!("{}{}{}", a.pem(), b.pem(), shape.authorities);
        std::fs::write(server_folder.path().join("cas.pem"), authorities).unwrap();
        let mut config = server_config(&keys, shape);
        if let Some(second) = second {
            let second = second.public_key();
            config = config.replacen("AUTH { users: [ ", &format!("AUTH {{ users: [ {{ nkey: {second} }}, "), 1);
            config = config.replacen("auth_users: [", &format!("auth_users: [{second}, "), 1);
        }
        let server = NatsServer::start_in(test, server_folder, &config)?;
        let folder = folder();
        let rig = Self { server, a, b, keys, folder };
        rig.write(shape);
        Some(rig)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, shape: &Shape) {
        for part in ["keys", "policy", "tls"] {
            std::fs::create_dir_all(self.path(part)).unwrap();
        }
        let seeds = [("issuer", &self.keys.issuer), ("callout", &self.keys.callout), ("revoker", &self.keys.revoker)];
        for (name, key) in seeds {
            replace(&self.path("keys"), &format!("{name}.nk"), &key.seed().unwrap());
        }
        replace(&self.path("keys"), "callout.xk", &self.keys.xkey.seed());
        self.a.spiffe("spiffe://td-a.test/callout").write(&self.path("tls"), "callout");
        self.a.write(&self.path("tls"), "ca");
        self.policy("roles.toml", &shape.roles);
        self.policy("revoked.toml", "version = 1\n");
        self.policy("td-a.json", &bundle(&self.a.der(), &[]));
        self.policy("td-b.json", &bundle(&self.b.der(), &[]));
        let mut domains = String::new();
        for (name, bundle) in &shape.domains {
            self.policy(&format!("{name}.json"), bundle);
            let _ = write!(domains, "[[trust_domain]]\nname = \"{name}\"\nbundle = \"policy/{name}.json\"\n");
        }
        let url = if shape.tls { self.server.tls_url() } else { self.server.url() };
        let tls =
            "[tls]\nca = \"tls/ca.pem\"\ncertificate = \"tls/callout.pem\"\nkey = \"tls/callout.key\"\nfirst = true\n";
        let tls = if shape.tls { tls } else { "" };
        let plain = if shape.tls { "" } else { "danger_plain_connection = true\n" };
        let xkey = if shape.xkey { "xkey = \"keys/callout.xk\"\n" } else { "" };
        let no_xkey = if shape.xkey { "" } else { "danger_no_xkey = true\n" };
        let text = format!(
            r#"version = 1
mode = "accounts"
id = "spiffe://td-a.test/callout"
servers = ["{url}"]
account = "AUTH"
accounts = ["APP"]
roles = ["policy/roles.toml"]
revocations = "policy/revoked.toml"
state_dir = "STATE"
{plain}{no_xkey}{}
[login]
nkey = "keys/callout.nk"
[system]
nkey = "keys/revoker.nk"
[keys]
issuer = "keys/issuer.nk"
{xkey}{tls}
[[trust_domain]]
name = "td-a.test"
bundle = "policy/td-a.json"
[[trust_domain]]
name = "td-b.test"
bundle = "policy/td-b.json"
{domains}[limits]
concurrency = {}
waiting = {}
[listen]
metrics = "127.0.0.1:0"
"#,
            shape.callout, shape.limits.0, shape.limits.1
        );
        std::fs::write(self.path("callout.toml"), text).unwrap();
    }

    /// Replaces a file of the policy folder in one step.
    pub fn policy(&self, name: &str, text: &str) {
        replace(&self.path("policy"), name, text);
    }

    /// A callout that is ready.
    pub fn callout(&self) -> Callout {
        self.callout_named("one")
    }

    /// One of several, with a state of its own.
    pub fn callout_named(&self, name: &str) -> Callout {
        self.callout_at(name, &self.path(&format!("state-{name}")))
    }

    /// One with its state in this folder.
    pub fn callout_at(&self, name: &str, state: &Path) -> Callout {
        let text = std::fs::read_to_string(self.path("callout.toml")).unwrap();
        let config = self.path(&format!("{name}.toml"));
        std::fs::write(&config, text.replace("STATE", &state.display().to_string())).unwrap();
        Callout::start(&config, state)
    }

    /// One with something else in its configuration; it may never be ready.
    pub fn begin_changed(&self, name: &str, from: &str, to: &str) -> Callout {
        let state = self.path(&format!("state-{name}"));
        let text = std::fs::read_to_string(self.path("callout.toml")).unwrap();
        let changed = text.replacen(from, to, 1).replace("STATE", &state.display().to_string());
        assert!(changed.contains(to), "{from}");
        let config = self.path(&format!("{name}.toml"));
        std::fs::write(&config, changed).unwrap();
        Callout::begin(&config, &state)
    }

    /// Runs one that must not begin, with `FROM TO` replaced in its configuration. Its exit code and what it says.
    pub fn fails_to_begin(&self, change: &str) -> (Option<i32>, String) {
        let mut text = std::fs::read_to_string(self.path("callout.toml")).unwrap();
        if let Some((from, to)) = change.split_once(' ') {
            text = text.replacen(from, to, 1);
        }
        let config = self.path("fails.toml");
        std::fs::write(&config, text.replace("STATE", &self.path("state-fails").display().to_string())).unwrap();
        let output =
            Command::new(portcullis_tests::binary()).args(["callout", "--config"]).arg(&config).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// A client with this X.509-SVID. `Err` where it is not let in.
    pub async fn connect(&self, leaf: &Leaf) -> Result<Client, String> {
        self.connect_with(leaf, "_INBOX", ConnectOptions::new()).await
    }

    pub async fn connect_with(&self, leaf: &Leaf, inbox: &str, options: ConnectOptions) -> Result<Client, String> {
        let name = KeyPair::new_user().public_key();
        let (certificate, key) = leaf.write(&self.path("tls"), &name);
        let options = options
            .add_root_certificates(self.path("tls/ca.pem"))
            .add_client_certificate(certificate, key)
            .require_tls(true)
            .tls_first()
            .custom_inbox_prefix(inbox)
            .max_reconnects(1);
        let client = tokio::time::timeout(Duration::from_secs(30), options.connect(self.server.tls_url())).await;
        client.map_err(|_| "no answer".to_owned())?.map_err(|error| format!("{error}: {error:?}"))
    }

    /// A host of the first trust domain, let in, with what the server says of it.
    pub async fn host(&self, name: &str) -> (Client, serde_json::Value) {
        let leaf = self.a.spiffe(&format!("spiffe://td-a.test/host/{name}"));
        let client = self
            .let_in(async || self.connect_with(&leaf, &format!("_INBOX_{name}"), ConnectOptions::new()).await)
            .await;
        let info = user_info(&client).await;
        (client, info)
    }

    /// Connects until it is let in: where the machine is busy, a server may not wait long enough for the callout.
    pub async fn let_in(&self, mut connect: impl AsyncFnMut() -> Result<Client, String>) -> Client {
        let end = Instant::now() + TIMEOUT;
        loop {
            match connect().await {
                Ok(client) => return client,
                Err(why) => assert!(Instant::now() < end, "not let in: {why}\n{}", self.server.log()),
            }
        }
    }

    /// Asserts that a client with this certificate is not let in, and how it was recorded.
    pub async fn refused(&self, leaf: &Leaf, callout: &Callout, says: &str) {
        let end = Instant::now() + TIMEOUT;
        loop {
            let error = self.connect(leaf).await.expect_err("it was let in").to_lowercase();
            if error.contains("authorization") {
                break;
            }
            assert!(Instant::now() < end, "{error}");
        }
        callout.wait_for_audit(says);
    }
}

/// What the server says of a connection.
pub async fn user_info(client: &Client) -> serde_json::Value {
    let answer = client.request("$SYS.REQ.USER.INFO", "".into()).await.expect("the server answers");
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    answer["data"].clone()
}

/// A SPIFFE bundle document of one authority, with JWT keys as they are given.
pub fn bundle(der: &[u8], keys: &[serde_json::Value]) -> String {
    let x509 = serde_json::json!({ "kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(der)] });
    let keys: Vec<_> = std::iter::once(x509).chain(keys.iter().cloned()).collect();
    serde_json::json!({ "keys": keys, "spiffe_sequence": 1 }).to_string()
}

pub fn server_config(keys: &Keys, shape: &Shape) -> String {
    let verify = if shape.certificates { "verify: true" } else { "" };
    let tls = match shape.tls {
        true => format!(
            "tls {{ cert_file: \"server.pem\", key_file: \"server.key\", ca_file: \"cas.pem\", {verify}\n min_version: \"1.3\", timeout: 5, handshake_first: true }}"
        ),
        false => String::new(),
    };
    let xkey = if shape.xkey { format!("xkey: {}", keys.xkey.public()) } else { String::new() };
    format!(
        r#"{tls}
accounts {{
  AUTH {{ users: [ {{ nkey: {callout}, permissions: {{
    publish: {{ allow: ["$SYS.REQ.USER.INFO"] }}
    subscribe: {{ allow: ["$SYS.REQ.USER.AUTH callout", "_INBOX_callout.>"] }}
    allow_responses: {{ max: 1, expires: "3s" }} }} }} ] }}
  APP {{}}
  SYS {{ users: [ {{ nkey: {revoker}, permissions: {{
    publish: {{ allow: ["$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.SERVER.*.CONNZ", "$SYS.REQ.SERVER.*.KICK"] }}
    subscribe: {{ allow: ["_INBOX_callout.>"] }} }} }} ] }}
  {accounts}
}}
system_account: SYS
authorization {{
  timeout: 1.5
  auth_callout {{ issuer: {issuer}, account: AUTH, auth_users: [{callout}, {revoker}], {xkey}
    {authorization}
  }}
}}
{server}
"#,
        callout = keys.callout.public_key(),
        revoker = keys.revoker.public_key(),
        issuer = keys.issuer.public_key(),
        accounts = shape.accounts,
        authorization = shape.authorization,
        server = shape.server,
    )
}

/// The subjects of a permission list of `$SYS.REQ.USER.INFO`.
pub fn allowed(info: &serde_json::Value, direction: &str) -> Vec<String> {
    let list = info["permissions"][direction]["allow"].as_array().cloned().unwrap_or_default();
    // The server keeps them in no order.
    let mut subjects: Vec<String> = list.iter().filter_map(|subject| subject.as_str().map(str::to_owned)).collect();
    subjects.sort();
    subjects
}
