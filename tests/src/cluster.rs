//! A cluster under test: a real nats-server with TLS and the permissions that `cluster init --print` gives, or with a callout that
//! lets SPIFFE IDs in ([`guarded`]); hosts with an identity authority each; an operator with an nkey. Nothing here decides
//! whether a test passes.

pub mod alone;
pub mod guarded;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nkeys::KeyPair;
use serde_json::{Value, json};

use self::guarded::Guard;
use crate::host::Host;
use crate::nats::{self, NatsServer, pki};
use crate::site::{CLUSTER, Ended, Site, TRUST_DOMAIN};
use crate::{guests, http};

/// The account of hosts and operator.
const ACCOUNT: &str = "APP";

/// A cluster. Dropping it ends all of its processes.
#[derive(Debug)]
pub struct Lattice {
    /// The server.
    pub server: NatsServer,
    /// The hosts that run, by name.
    pub hosts: BTreeMap<String, Host>,
    /// Who signs what hosts are to run.
    pub operator: KeyPair,
    /// The callouts, where they decide who logs in.
    pub guard: Option<Guard>,
    ca: PathBuf,
    folder: Site,
}

/// How a cluster is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The hosts' names.
    pub hosts: Vec<String>,
    /// More lines for `[cluster]` of each host.
    pub section: String,
    /// More entries of each host's grants file; `OPERATOR` in it becomes the operator's key.
    pub grants: String,
    /// Users of the server besides, as its configuration has them.
    pub users: String,
    /// Lets the first host make consumers: what `cluster init` never prints.
    pub danger_consumers: bool,
    /// Whether a callout lets hosts and operator in, by their SVIDs. Else they have passwords.
    pub callout: bool,
    /// Hosts that sign what they say with an nkey of their own (`member.nk` in their folder), which everybody pins.
    pub keyed: Vec<String>,
}

/// What all hosts are made of.
struct Ground<'a> {
    from: &'a Site,
    operator: &'a KeyPair,
    ca: &'a Path,
    url: &'a str,
    plan: &'a Plan,
    members: &'a BTreeMap<String, KeyPair>,
}

impl Plan {
    /// So many hosts, `h1` to `hN`, with quick heartbeats.
    pub fn of(hosts: usize) -> Self {
        Self {
            hosts: (1..=hosts).map(|n| format!("h{n}")).collect(),
            section: "heartbeat_ms = 300\nread_ms = 1000\n".to_owned(),
            grants: String::new(),
            users: String::new(),
            danger_consumers: false,
            callout: false,
            keyed: Vec::new(),
        }
    }

    /// The same behind a callout.
    pub fn guarded(hosts: usize) -> Self {
        Self { callout: true, ..Self::of(hosts) }
    }
}

impl Lattice {
    /// Starts server and hosts, makes the buckets, and waits until the hosts know one another; `None` after a loud skip.
    pub fn start(test: &str, plan: &Plan) -> Option<Self> {
        let folder = nats::folder();
        let authority = pki::Authority::new("NATS of a test");
        authority.server().write(folder.path(), "server");
        let ca = authority.write(folder.path(), "ca");
        let site = Site::new();
        site.sign("hello", &guests::ours("hello"));
        let operator = KeyPair::new_user();
        pki::replace(site.path(), "operator.nk", &operator.seed().expect("a seed"));
        for name in plan.hosts.iter().map(String::as_str).chain(["operator"]) {
            pki::replace(site.path(), &format!("{name}.pw"), &format!("password of {name}"));
        }
        let members = plan.keyed.iter().map(|name| (name.clone(), KeyPair::new_user())).collect();
        let port = nats::free_port();
        let url = format!("tls://localhost:{port}");
        let ground = Ground { from: &site, operator: &operator, ca: &ca, url: &url, plan, members: &members };
        let start = |name: &String| (name.clone(), Host::start(host_site(&ground, name)));
        let lattice = match plan.callout {
            false => {
                let server = NatsServer::start_on(test, folder, &server_config(&site, plan), port)?;
                write_operator(&ground, "user = \"operator\"\npassword = \"operator.pw\"\n");
                site.run(["cluster", "init", "--operator", "operator.toml"]).ok();
                let hosts = plan.hosts.iter().map(start).collect();
                Self { server, hosts, operator, guard: None, ca, folder: site }
            }
            true => {
                nats::program(test)?;
                // The server and the callout must know the authorities of the hosts, which make them at their first start.
                let hosts: BTreeMap<_, _> = plan.hosts.iter().map(start).collect();
                let mut guard = Guard::init(&site, folder.path(), port, &hosts);
                let server = NatsServer::start_on(test, folder, &guard.server_config(), port)?;
                guard.start(0);
                guard.start(1);
                write_operator(&ground, guarded::operator_login());
                site.run(["cluster", "init", "--operator", "operator.toml"]).ok();
                Self { server, hosts, operator, guard: Some(guard), ca, folder: site }
            }
        };
        lattice.exchange_bundles();
        lattice.wait("the hosts know one another", |lattice| {
            let status = lattice.status();
            status["hosts"].as_array().is_some_and(|hosts| {
                hosts.len() == plan.hosts.len() && hosts.iter().all(|host| host["accepting"] == true)
            })
        });
        // A host reads the bundles once a second; until then it says that it believes nobody.
        lattice.wait("the hosts have read the bundles", |lattice| {
            let says = |host: &Host| host.ask_status(0)["problems"].to_string();
            lattice.hosts.values().all(|host| !says(host).contains("cluster.trust"))
        });
        Some(lattice)
    }

    /// Runs a command in the operator's folder.
    pub fn cli<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ended {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
        self.folder.run(arguments.chain(["--json".into()]))
    }

    /// The operator's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `cluster status` says, whether all is well or not.
    pub fn status(&self) -> Value {
        let ended = self.cli(["cluster", "status", "--operator", "operator.toml", "--listen", "0.8"]);
        let mut documents = serde_json::Deserializer::from_str(&ended.out).into_iter::<Value>();
        documents.next().and_then(Result::ok).unwrap_or_default()
    }

    /// The hosts that run a component by the newest version of its manifest, as they say themselves.
    pub fn running(&self, component: &str) -> Vec<String> {
        let status = self.status();
        let component = status["components"].as_array().into_iter().flatten().find(|one| one["component"] == component);
        let hosts = component.and_then(|one| one["hosts"].as_array().cloned()).unwrap_or_default();
        hosts.iter().filter_map(|host| host.as_str().map(str::to_owned)).collect()
    }

    /// The hosts that answer `/hello`, asked themselves.
    pub fn answering(&self) -> Vec<String> {
        let answers = |host: &&Host| http::get(host.http(), "/hello", &[]).status == 200;
        self.hosts.iter().filter(|(_, host)| answers(host)).map(|(name, _)| name.clone()).collect()
    }

    /// Writes a manifest of `test:hello` and deploys it.
    pub fn deploy(&self, replicas: usize, more: &str) -> Ended {
        let digest = self.digest("hello.wasm");
        let text = format!(
            "component = \"test:hello\"\ndigest = \"{digest}\"\nreplicas = {replicas}\n{more}\n[source]\nfile = \"hello.wasm\"\n\n[[route]]\npath = \"/hello\"\n"
        );
        std::fs::write(self.folder.file("hello.toml"), text).expect("a manifest can be written");
        self.cli(["cluster", "deploy", "hello.toml", "--operator", "operator.toml"])
    }

    /// The digest of a file of the operator's.
    pub fn digest(&self, name: &str) -> String {
        let bytes = std::fs::read(self.folder.file(name)).expect("the file is there");
        portcullis_signing::Digest::of(&bytes).to_string()
    }

    /// Waits until something is so.
    pub fn wait(&self, what: &str, so: impl FnMut(&Self) -> bool) -> Duration {
        self.wait_within(Duration::from_secs(90), what, so)
    }

    /// The same for so long.
    pub fn wait_within(&self, most: Duration, what: &str, mut so: impl FnMut(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !so(self) {
            assert!(began.elapsed() < most, "{what}: not within {most:?}\n{:#}\n{}", self.status(), self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
        began.elapsed()
    }

    /// The ends of all hosts' logs.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for (name, host) in &self.hosts {
            let log = host.log();
            let from = log.lines().count().saturating_sub(25);
            let _ = writeln!(text, "--- {name}");
            for line in log.lines().skip(from) {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    /// Connects to the server as a user.
    pub async fn connect(&self, user: &str) -> async_nats::Client {
        self.connect_with(user, &format!("password of {user}")).await
    }

    /// The same with another password.
    pub async fn connect_with(&self, user: &str, password: &str) -> async_nats::Client {
        let options = async_nats::ConnectOptions::new()
            .user_and_password(user.to_owned(), password.to_owned())
            .add_root_certificates(self.ca.clone())
            .custom_inbox_prefix(match user.starts_with("operator") {
                true => inbox_of(user),
                false => format!("_INBOX_{user}"),
            })
            .require_tls(true);
        options.connect(self.server.tls_url()).await.expect("the server lets this user in")
    }

    /// Gives everybody the bundles of all hosts, as an operator would whose hosts have no authority in common.
    pub fn exchange_bundles(&self) {
        let mut keys = guarded::keys(&self.hosts);
        keys.retain(|key| key["use"] == "x509-svid");
        let text = json!({ "keys": keys }).to_string();
        let folders = self.hosts.values().map(|host| host.site().path()).chain([self.folder.path()]);
        for folder in folders {
            pki::replace(folder, "hosts.json", &text);
        }
    }
}

/// The inbox of an operator whom the server takes for `who`, as docs/control-plane.md has it.
pub fn inbox_of(who: &str) -> String {
    let hash = portcullis_signing::Digest::of(who.as_bytes()).hex();
    format!("_INBOX_op_{}", hash.get(..20).expect("64 digits"))
}

/// Everything that one host has.
fn host_site(ground: &Ground<'_>, name: &str) -> Site {
    let Ground { from, plan, url, .. } = ground;
    let mut site = Site::new();
    for file in ["root.key", "signer.key", "trust.json", "trust.signed.json"] {
        std::fs::copy(from.file(file), site.file(file)).expect("a file can be copied");
    }
    std::fs::create_dir(site.file("apps")).expect("a folder can be made");
    for file in ["hello.wasm", "hello.wasm.sigstore.json"] {
        std::fs::copy(from.file(file), site.file("apps").join(file)).expect("a file can be copied");
    }
    pki::replace(site.path(), "nats.pw", &format!("password of {name}"));
    std::fs::copy(ground.ca, site.file("ca.pem")).expect("a file can be copied");
    let login = match plan.callout {
        true => guarded::login(&site, name, plan),
        false => format!("user = \"{name}\"\npassword = \"nats.pw\"\n"),
    };
    let key = ground.members.get(name).map(|key| {
        pki::replace(site.path(), "member.nk", &key.seed().expect("a seed"));
        "key = \"member.nk\"\n"
    });
    site.config(&format!(
        "[cluster]\nname = \"{CLUSTER}\"\nhost = \"{name}\"\nfiles = \"apps\"\n{}{}\n[cluster.trust]\n\"{TRUST_DOMAIN}\" = \"hosts.json\"\n\n\
         {}[nats]\nservers = [\"{url}\"]\naccount = \"{ACCOUNT}\"\n[nats.tls]\nca = \"ca.pem\"\nfirst = {}\n[nats.auth]\n{login}",
        plan.section,
        key.unwrap_or_default(),
        members(ground, "cluster.member"),
        plan.callout
    ));
    site.grants(&format!(
        "\n[[grant]]\nid = \"hello\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:hello\"\nload = true\ncallers = [\"anonymous\"]\n\n\
         [[operator]]\nid = \"ann\"\nreason = \"a test\"\nowner = \"tests\"\nwho = \"{}\"\nhosts = [\"*\"]\ncomponents = [\"*\"]\nactions = [\"deploy\", \"revoke\", \"list\"]\n",
        ground.operator.public_key()
    ));
    site.grants(&format!("\n{}", plan.grants.replace("OPERATOR", &ground.operator.public_key())));
    site
}

/// Whose key everybody pins for whom.
fn members(ground: &Ground<'_>, section: &str) -> String {
    let one = |(host, key): (&String, &KeyPair)| {
        format!("[[{section}]]\nhost = \"{host}\"\nwho = \"{}\"\n\n", key.public_key())
    };
    ground.members.iter().map(one).collect()
}

fn write_operator(ground: &Ground<'_>, login: &str) {
    let Ground { from, url, plan, .. } = ground;
    let text = format!(
        "version = 1\ntrust_domain = \"{TRUST_DOMAIN}\"\nbundle = \"hosts.json\"\ncluster = \"{CLUSTER}\"\n[key]\nnkey = \"operator.nk\"\n\n{}\
         [nats]\nservers = [\"{url}\"]\naccount = \"{ACCOUNT}\"\n[nats.tls]\nca = \"{}\"\nfirst = {}\n[nats.auth]\n{login}",
        members(ground, "member"),
        ground.ca.display(),
        plan.callout
    );
    std::fs::write(from.file("operator.toml"), text).expect("a file can be written");
    std::fs::write(from.file("hosts.json"), r#"{"keys":[]}"#).expect("a file can be written");
}

fn server_config(site: &Site, plan: &Plan) -> String {
    let mut arguments = vec!["cluster".to_owned(), "init".to_owned(), "--print".to_owned()];
    arguments.extend(["--cluster", CLUSTER, "--json", "--login", "operator"].map(str::to_owned));
    arguments.extend(plan.hosts.iter().flat_map(|host| ["--host".to_owned(), host.clone()]));
    let printed = site.run(arguments).ok().json();
    let mut users = String::new();
    for (n, host) in plan.hosts.iter().enumerate() {
        let mut permissions = printed["hosts"][host].clone();
        if plan.danger_consumers && n == 0 {
            let publish = permissions["publish"].as_array_mut().expect("a list");
            publish.push(json!("$JS.API.CONSUMER.CREATE.>"));
        }
        users.push_str(&user(host, &permissions));
    }
    users.push_str(&user("operator", &printed["operators"]["operator"]));
    users.push_str(&plan.users);
    format!(
        "tls {{ cert_file: \"server.pem\", key_file: \"server.key\", timeout: 5 }}\njetstream {{ store_dir: \"js\" }}\n\
         accounts {{\n  {ACCOUNT} {{ jetstream: enabled, users: [\n{users}  ] }}\n  SYS {{ users: [ {{ user: \"sys\", password: \"password of sys\" }} ] }}\n}}\nsystem_account: SYS\n"
    )
}

/// A user of the server's configuration with a password, and with what `cluster init` prints.
pub fn user(name: &str, permissions: &Value) -> String {
    format!(
        "    {{ user: \"{name}\", password: \"password of {name}\", permissions: {{ publish: {{ allow: {} }}, subscribe: {{ allow: {} }}, allow_responses: {{ max: 1, expires: \"60s\" }} }} }}\n",
        permissions["publish"], permissions["subscribe"]
    )
}
