//! A host under test: started on a site, waited for, asked, stopped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::janitor::Janitor;
use crate::patience::LONG;
use crate::site::{Ended, Site};

/// A running host. Dropping it kills it; one that lives to the end of the test process, in a static, ends with that.
#[derive(Debug)]
pub struct Host {
    child: Child,
    _janitor: Janitor,
    site: Site,
    status: Value,
}

impl Host {
    /// Starts a host and waits until it is ready; its log is printed where it does not get there.
    pub fn ready(site: Site) -> Self {
        let mut host = Self::start(site);
        // What it is connected to may take a moment longer than what it starts.
        if host.status.get("ready") != Some(&Value::Bool(true)) {
            host.status = host.ask_status(LONG.as_secs());
        }
        let ready = host.status.get("ready") == Some(&Value::Bool(true));
        assert!(ready, "the host is not ready: {:#}\n{}", host.status, host.log());
        host
    }

    /// Starts a host and waits until it has done what it does at its start, ready or not (for up to 3 minutes: a debug build
    /// compiles large components slowly).
    pub fn start(site: Site) -> Self {
        let config = site.write();
        let log = std::fs::File::create(site.file("host.log")).expect("a log file");
        let mut command = Command::new(crate::binary());
        command.current_dir(site.path()).arg("host").arg("--config").arg(config);
        command.envs(site.variables().iter().map(|(name, path)| (name, path)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("the binary under test starts");
        let janitor = Janitor::new(child.id(), site.path());
        let mut host = Self { child, _janitor: janitor, site, status: Value::Null };
        let until = Instant::now() + Duration::from_secs(180);
        while Instant::now() < until && host.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            host.status = host.ask_status(0);
            if host.status.is_object() && !still_starting(&host.status) {
                return host;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the host did not come up:\n{}", host.log());
    }

    /// The site it runs on.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Where plain HTTP is served.
    pub fn http(&self) -> SocketAddr {
        self.address("http")
    }

    /// Where mTLS is served.
    pub fn mtls(&self) -> SocketAddr {
        self.address("mtls")
    }

    /// `status --json` now, waiting up to so many seconds for readiness. Null where the host does not answer.
    pub fn ask_status(&self, wait: u64) -> Value {
        let status = self.run(["status", "--wait", &wait.to_string()]).json();
        if status.get("ready").is_some() { status } else { Value::Null }
    }

    /// Runs a command against this host, with `--config` and `--json`.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ended {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
        let more = ["--config", "portcullis.toml", "--json"].map(Into::into);
        self.site.run(arguments.chain(more))
    }

    /// The process id of a role.
    pub fn pid(&self, role: &str) -> Option<u32> {
        let status = self.ask_status(0);
        let processes = status.get("processes")?.as_array()?.clone();
        let process = processes.iter().find(|process| process.get("role").and_then(Value::as_str) == Some(role))?;
        process.get("pid")?.as_u64().filter(|pid| *pid > 0).and_then(|pid| u32::try_from(pid).ok())
    }

    /// The process id of the supervisor.
    pub fn supervisor(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to a process.
    pub fn signal(pid: u32, signal: &str) {
        let sent = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{signal} {pid} failed");
    }

    /// Waits for the host to end; gives its exit code.
    pub fn wait(&mut self, within: Duration) -> Option<i32> {
        let until = Instant::now() + within;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status.code().unwrap_or(-1));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// The host's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.site.file("host.log")).unwrap_or_default()
    }

    /// The records of the audit log.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.audit_path()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Where the audit log lies.
    pub fn audit_path(&self) -> PathBuf {
        self.site.file("state/audit/audit.jsonl")
    }

    /// Waits until a record with these members is in the audit log, and gives it.
    pub fn record(&self, members: &[(&str, &str)]) -> Value {
        let fits = |record: &Value| {
            members.iter().all(|(name, text)| {
                record.get(name).and_then(Value::as_str).is_some_and(|value| value.starts_with(text))
            })
        };
        let until = Instant::now() + LONG;
        while Instant::now() < until {
            if let Some(record) = self.audit().into_iter().find(|record| fits(record)) {
                return record;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no record with {members:?} in:\n{:#?}", self.audit());
    }

    /// Ends the host and gives the site back, with its state, to start another one on it.
    pub fn stop(mut self) -> Site {
        Self::signal(self.child.id(), "TERM");
        assert!(self.wait(LONG).is_some(), "the host did not stop on SIGTERM:\n{}", self.log());
        std::mem::replace(&mut self.site, Site::hollow())
    }

    /// Kills the supervisor as a crash would and gives the site back, with its state, to start another one on it.
    pub fn killed(mut self) -> Site {
        Self::signal(self.child.id(), "KILL");
        assert!(self.wait(LONG).is_some(), "the supervisor outlived SIGKILL");
        std::mem::replace(&mut self.site, Site::hollow())
    }

    fn address(&self, name: &str) -> SocketAddr {
        let address = self.status.get(name).and_then(Value::as_str).unwrap_or_default();
        address.parse().unwrap_or_else(|_| panic!("the host has no {name} address: {:#}", self.status))
    }
}

/// Whether what keeps a host from being ready goes away by itself.
fn still_starting(status: &Value) -> bool {
    let problems = status.get("problems").and_then(Value::as_array).into_iter().flatten();
    problems
        .filter_map(Value::as_str)
        .any(|problem| problem.ends_with(" is down") || problem.ends_with("still being started"))
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
