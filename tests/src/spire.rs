//! SPIRE itself as a peer: a server and one agent on loopback, in folders of their own, stopped when dropped.
//!
//! The agent serves the Workload API, the Delegated Identity API (for [`DELEGATE`]) and, where asked for, the Broker API. Every
//! process of the user that runs the tests is attested by `unix:uid`. Needs Go the first time, see [`build`]; without it the
//! test is skipped loudly. `PORTCULLIS_SPIRE_BIN` names a folder with programs that are there already.

mod build;
mod settings;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::janitor::Janitor;
pub use build::VERSION;
pub use settings::Settings;

/// The trust domain of the SPIRE under test.
pub const TRUST_DOMAIN: &str = "spire.example";
/// The path of the ID that may use the Delegated Identity API. Give it to a process with [`Spire::register_this_user`].
pub const DELEGATE: &str = "/delegate";

/// A running SPIRE server with one agent.
#[derive(Debug)]
pub struct Spire {
    bin: PathBuf,
    settings: Settings,
    attestor: Option<PathBuf>,
    port: u16,
    agent_id: String,
    agent: Option<Process>,
    server: Option<Process>,
    agent_folder: tempfile::TempDir,
    server_folder: tempfile::TempDir,
    _place: Place,
}

/// One of the few SPIREs of a test process that run at once: a dozen on two cores would be slower than what they wait for.
#[derive(Debug)]
struct Place;

static TAKEN: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());
const MOST_AT_ONCE: usize = 4;

impl Place {
    fn wait() -> Self {
        let (taken, freed) = &TAKEN;
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = freed.wait_while(taken, |taken| *taken >= MOST_AT_ONCE).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *TAKEN.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        TAKEN.1.notify_one();
    }
}

impl Spire {
    /// A SPIRE with the usual settings, or `None` after a loud skip of this test.
    pub fn start(test: &str) -> Option<Self> {
        Self::start_with(test, Settings::default())
    }

    /// The same with other settings.
    pub fn start_with(test: &str, settings: Settings) -> Option<Self> {
        let attestor = settings.broker.as_ref().map(|_| build::attestor()).transpose();
        let bin = build::programs().and_then(|bin| attestor.map(|attestor| (bin, attestor)));
        let (bin, attestor) = match bin {
            Ok(found) => found,
            Err(why) => {
                crate::skip(test, &format!("SPIRE is not to be had: {why}"), no_go());
                return None;
            }
        };
        let folder = || tempfile::Builder::new().prefix("portcullis-spire-").tempdir().expect("a folder for a test");
        let mut spire = Self {
            bin,
            settings,
            attestor,
            port: crate::port::reserved(),
            agent_id: String::new(),
            agent: None,
            server: None,
            agent_folder: folder(),
            server_folder: folder(),
            _place: Place::wait(),
        };
        for name in ["api", "admin", "broker"] {
            std::fs::create_dir(spire.agent_folder.path().join(name)).expect("a folder for a socket");
        }
        spire.start_server();
        let token = spire.server_says(["token", "generate", "-output", "json"]);
        let token = token.get("value").and_then(Value::as_str).expect("a join token").to_owned();
        spire.agent_id = format!("spiffe://{TRUST_DOMAIN}/spire/agent/join_token/{token}");
        spire.agent = Some(spire.spawn_agent(&["-joinToken", &token]));
        spire.wait_for_agent();
        Some(spire)
    }

    /// `unix:///...` of the Workload API.
    pub fn workload_api(&self) -> String {
        format!("unix://{}", self.workload_socket().display())
    }

    /// The path of the Workload API's socket.
    pub fn workload_socket(&self) -> PathBuf {
        self.agent_folder.path().join("api/agent.sock")
    }

    /// The path of the socket with the Delegated Identity API.
    pub fn admin_socket(&self) -> PathBuf {
        self.agent_folder.path().join("admin/admin.sock")
    }

    /// The path of the Broker API's socket, served where [`Settings::broker`] is set.
    pub fn broker_socket(&self) -> PathBuf {
        self.agent_folder.path().join("broker/broker.sock")
    }

    /// The SPIFFE ID of the agent: the parent of every entry, and what its Broker API presents.
    pub fn agent_id(&self) -> &str {
        &self.agent_id
    }

    /// Registers an entry for these selectors (`type:value`). Gives its id.
    pub fn register(&self, path: &str, selectors: &[&str]) -> String {
        self.register_with(path, selectors, &[])
    }

    /// The same with more arguments of `spire-server entry create`.
    pub fn register_with(&self, path: &str, selectors: &[&str], more: &[&str]) -> String {
        let id = format!("spiffe://{TRUST_DOMAIN}{path}");
        let mut arguments = vec!["entry", "create", "-output", "json", "-parentID", &self.agent_id, "-spiffeID", &id];
        for selector in selectors {
            arguments.extend(["-selector", selector]);
        }
        arguments.extend(more);
        let told = self.server_says(arguments);
        let entry = told.pointer("/results/0/entry/id").and_then(Value::as_str);
        entry.unwrap_or_else(|| panic!("no entry was made: {told:#}")).to_owned()
    }

    /// Registers an entry for every process of the user that runs the tests.
    pub fn register_this_user(&self, path: &str) -> String {
        self.register(path, &[&this_user()])
    }

    /// Takes an entry away.
    pub fn unregister(&self, entry: &str) {
        let told = self.server_says(["entry", "delete", "-output", "json", "-entryID", entry]);
        assert_eq!(told.pointer("/results/0/status/code").and_then(Value::as_i64).unwrap_or(0), 0, "{told:#}");
    }

    /// A new X.509 authority, in use at once. The one before stays in the bundle.
    pub fn rotate_x509_authority(&self) {
        self.rotate("x509");
    }

    /// A new JWT authority, in use at once.
    pub fn rotate_jwt_authority(&self) {
        self.rotate("jwt");
    }

    fn rotate(&self, kind: &str) {
        let prepared = self.server_says(["localauthority", kind, "prepare", "-output", "json"]);
        let authority = prepared.pointer("/prepared_authority/authority_id").and_then(Value::as_str);
        let authority = authority.unwrap_or_else(|| panic!("nothing was prepared: {prepared:#}")).to_owned();
        self.server_says(["localauthority", kind, "activate", "-output", "json", "-authorityID", &authority]);
    }

    /// Kills the agent: its sockets answer nobody any more.
    pub fn stop_agent(&mut self) {
        self.agent = None;
    }

    /// Starts the agent again, with the keys that it had.
    pub fn start_agent(&mut self) {
        self.agent = Some(self.spawn_agent(&[]));
        self.wait_for_agent();
    }

    /// Kills the server; the agent serves on from its cache.
    pub fn stop_server(&mut self) {
        self.server = None;
    }

    /// Starts the server, on the same port, with the keys and entries that it had.
    pub fn start_server(&mut self) {
        let config = self.settings.server(self.server_folder.path(), self.port);
        self.server = Some(self.spawn("spire-server", "server", self.server_folder.path(), &config, &[]));
        self.wait(|spire| spire.ask_server(["healthcheck"]).is_ok());
    }

    /// What `spire-server` answers on its local socket, as JSON.
    pub fn server_says<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Value {
        let text = self.ask_server(arguments).unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// What both have logged so far.
    pub fn log(&self) -> String {
        let read = |folder: &tempfile::TempDir| std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        format!("server:\n{}\nagent:\n{}", read(&self.server_folder), read(&self.agent_folder))
    }

    fn ask_server<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String, String> {
        let mut command = Command::new(self.bin.join("spire-server"));
        command.args(arguments).arg("-socketPath").arg(self.server_folder.path().join("api.sock"));
        let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fine = output.status.success();
        if fine { Ok(text(&output.stdout)) } else { Err(text(&output.stderr) + &text(&output.stdout)) }
    }

    fn spawn_agent(&self, more: &[&str]) -> Process {
        let config = self.settings.agent(self.agent_folder.path(), self.port, self.attestor.as_deref());
        for socket in [self.workload_socket(), self.admin_socket(), self.broker_socket()] {
            let _ = std::fs::remove_file(socket);
        }
        self.spawn("spire-agent", "agent", self.agent_folder.path(), &config, more)
    }

    fn wait_for_agent(&mut self) {
        self.wait(|spire| {
            let mut command = Command::new(spire.bin.join("spire-agent"));
            command.arg("healthcheck").arg("-socketPath").arg(spire.workload_socket());
            let output = command.stdin(Stdio::null()).output();
            let broker = spire.settings.broker.is_none() || spire.broker_socket().exists();
            broker && spire.admin_socket().exists() && output.is_ok_and(|output| output.status.success())
        });
    }

    fn spawn(&self, program: &str, name: &str, folder: &Path, config: &str, more: &[&str]) -> Process {
        let path = folder.join(format!("{name}.conf"));
        std::fs::write(&path, config).expect("a configuration can be written");
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log file");
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(folder).arg("run").arg("-config").arg(path).args(more);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log file")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        let janitor = Janitor::new(child.id(), folder);
        Process { child, _janitor: janitor }
    }

    fn wait(&mut self, mut until: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(180);
        while Instant::now() < end {
            if until(self) {
                return;
            }
            let ended = [&mut self.server, &mut self.agent]
                .into_iter()
                .flatten()
                .any(|process| process.child.try_wait().is_ok_and(|status| status.is_some()));
            assert!(!ended, "a process of SPIRE ended:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("SPIRE did not come up:\n{}", self.log());
    }
}

/// The selector of every process of the user that runs the tests.
pub fn this_user() -> String {
    let output = Command::new("id").arg("-u").output().expect("`id` of coreutils starts");
    format!("unix:uid:{}", String::from_utf8_lossy(&output.stdout).trim())
}

#[derive(Debug)]
struct Process {
    child: Child,
    _janitor: Janitor,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where what takes long to make is kept.
fn cache() -> PathBuf {
    let given = std::env::var_os("PORTCULLIS_TEST_CACHE").map(PathBuf::from);
    given.unwrap_or_else(|| crate::root().join("target/test-cache"))
}

/// Whether there is no Go here: then a skip is nothing that CI could have helped.
fn no_go() -> bool {
    Command::new("go").arg("version").output().is_err()
}
