//! `portcullis callout` as a process of its own: started, asked for its metrics and its audit log, killed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for something of a callout.
pub const TIMEOUT: Duration = crate::patience::LONG;

/// A running callout. Dropping it kills it.
#[derive(Debug)]
pub struct Callout {
    /// The process.
    pub child: Child,
    /// Its state folder.
    pub state: PathBuf,
    /// Where its metrics are.
    pub metrics: String,
    log: PathBuf,
}

impl Callout {
    /// Starts one and waits until it is ready.
    pub fn start(config: &Path, state: &Path) -> Self {
        let callout = Self::begin(config, state);
        callout.wait_until_ready();
        callout
    }

    /// Starts one.
    pub fn begin(config: &Path, state: &Path) -> Self {
        let log = config.with_extension("log");
        let mut command = Command::new(crate::binary());
        command.args(["callout", "--json", "--config"]).arg(config).env("PORTCULLIS_LOG", "info");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(std::fs::File::options().create(true).append(true).open(&log).expect("a log file"));
        let mut child = command.spawn().expect("the binary under test starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut text = String::new();
        // One JSON value, of which nothing says how many lines it has.
        let said = loop {
            let count = out.read_line(&mut text).expect("what it says");
            assert!(count > 0, "it ended: {text}{}", std::fs::read_to_string(&log).unwrap_or_default());
            if let Ok(said) = serde_json::from_str::<Value>(&text) {
                break said;
            }
        };
        let metrics =
            said.get("metrics").and_then(Value::as_str).unwrap_or_else(|| panic!("no metrics: {text}")).to_owned();
        Self { child, state: state.to_path_buf(), metrics, log }
    }

    /// Waits until it says that it is ready.
    pub fn wait_until_ready(&self) {
        let end = Instant::now() + TIMEOUT;
        while self.get("/readyz").0 != 200 {
            assert!(Instant::now() < end, "not ready: {:?}\n{}", self.get("/readyz"), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it says that it is not.
    pub fn wait_until_not_ready(&self) {
        let end = Instant::now() + TIMEOUT;
        while self.get("/readyz").0 == 200 {
            assert!(Instant::now() < end, "still ready\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let Ok(mut stream) = TcpStream::connect(&self.metrics) else { return (0, String::new()) };
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("a request can be sent");
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    /// A number of the metrics page.
    pub fn metric(&self, name: &str) -> u64 {
        let page = self.get("/metrics").1;
        let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{page}"))
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The records of its audit log.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.state.join("audit.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a record with this text in it.
    pub fn wait_for_audit(&self, text: &str) -> Value {
        let end = Instant::now() + TIMEOUT;
        loop {
            if let Some(record) = self.audit().into_iter().rev().find(|record| record.to_string().contains(text)) {
                return record;
            }
            let kinds: Vec<String> = self.audit().iter().map(ToString::to_string).collect();
            assert!(Instant::now() < end, "no record says {text:?}:\n{}\n{}", kinds.join("\n"), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many records of a kind there are.
    pub fn count(&self, kind: &str) -> usize {
        self.audit().iter().filter(|record| record.get("kind").and_then(Value::as_str) == Some(kind)).count()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }
}

impl Drop for Callout {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
