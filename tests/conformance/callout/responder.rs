//! A callout under test: its process, and what it says of itself.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::rig::TIMEOUT;

/// A running callout. Dropping it kills it.
pub struct Callout {
    pub child: Child,
    pub state: PathBuf,
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
        let mut command = Command::new(portcullis_tests::binary());
        command.args(["callout", "--json", "--config"]).arg(config).env("PORTCULLIS_LOG", "info");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(std::fs::File::options().create(true).append(true).open(&log).unwrap());
        let mut child = command.spawn().expect("the binary under test starts");
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        while !text.trim_end().ends_with('}') {
            let count = out.read_line(&mut text).unwrap();
            assert!(count > 0, "it ended: {}", std::fs::read_to_string(&log).unwrap_or_default());
        }
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        let metrics = said["metrics"].as_str().expect(&text).to_owned();
        Self { child, state: state.to_path_buf(), metrics, log }
    }

    pub fn wait_until_ready(&self) {
        let end = Instant::now() + TIMEOUT;
        while self.get("/readyz").0 != 200 {
            assert!(Instant::now() < end, "not ready: {:?}\n{}", self.get("/readyz"), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

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
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
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

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.state.join("audit.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a record with this text in it.
    pub fn wait_for_audit(&self, text: &str) -> serde_json::Value {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(record) = self.audit().into_iter().rev().find(|record| record.to_string().contains(text)) {
                return record;
            }
            let kinds: Vec<String> = self.audit().iter().map(ToString::to_string).collect();
            assert!(Instant::now() < end, "no record says {text:?}:\n{}\n{}", kinds.join("\n"), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn count(&self, kind: &str) -> usize {
        self.audit().iter().filter(|record| record["kind"] == kind).count()
    }

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
