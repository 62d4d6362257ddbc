//! `cluster events` beside everything else that a test does.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::Lattice;

/// A running `cluster events`: what it believes on standard output, what it does not on standard error. Dropping it ends it.
#[derive(Debug)]
pub struct Listener {
    child: Child,
    out: PathBuf,
}

impl Listener {
    /// Starts one; what it says lies in a file of this name in the operator's folder.
    pub fn start(lattice: &Lattice, name: &str) -> Self {
        let out = lattice.folder().join(name);
        let file = |name: &str| std::fs::File::create(lattice.folder().join(name)).expect("a file can be made");
        let child = Command::new(crate::binary())
            .current_dir(lattice.folder())
            .args(["cluster", "events", "--operator", "operator.toml", "--json", "--seconds", "3600"])
            .stdin(Stdio::null())
            .stdout(file(name))
            .stderr(file(&format!("{name}.err")))
            .spawn()
            .expect("the binary under test starts");
        Self { child, out }
    }

    /// Starts one and waits until it hears: components that run are given a higher version until it tells of that.
    pub fn listening(lattice: &Lattice, name: &str, replicas: usize) -> Self {
        let listener = Self::start(lattice, name);
        lattice.wait("the listener hears", |lattice| {
            lattice.deploy(replicas, "").ok();
            !listener.events().is_empty()
        });
        listener
    }

    /// The events that it told of so far.
    pub fn events(&self) -> Vec<Value> {
        let text = std::fs::read(&self.out).expect("the file is there");
        serde_json::Deserializer::from_slice(&text).into_iter().map_while(Result::ok).collect()
    }

    /// What it did not believe.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.out.with_extension("err")).expect("the file is there")
    }

    /// Whether it told of something of this kind on this host.
    pub fn heard(&self, host: &str, kind: &str) -> bool {
        self.events().iter().any(|event| {
            event["source"] == format!("spiffe://test.example/portcullis/host/{host}")
                && event["type"] == format!("dev.portcullis.{kind}.v1")
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
