//! A throw-away site, made the way an operator would: with the real command line.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The cluster name that claims are made for.
pub const CLUSTER: &str = "test";
/// The trust domain.
pub const TRUST_DOMAIN: &str = "test.example";

/// Keys, trust policy, grants, components and configuration in one folder, removed when dropped.
#[derive(Debug)]
pub struct Site {
    folder: tempfile::TempDir,
    components: Vec<String>,
    routes: String,
    top: String,
    policy: String,
    extra: String,
    trust_domain: String,
    grants: String,
    trust: String,
    damaged: Vec<(String, Option<Vec<u8>>)>,
    environment: Vec<(String, PathBuf)>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Exit code; -1 where a signal ended it.
    pub exit: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_default()
    }

    /// The stable code of a failed command run with `--json`.
    pub fn code(&self) -> String {
        self.json().pointer("/error/code").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Stops the test unless the command succeeded.
    pub fn ok(self) -> Self {
        assert_eq!(self.exit, 0, "a command failed\nstdout: {}\nstderr: {}", self.out, self.err);
        self
    }
}

/// Runs the binary under test with arguments.
pub fn portcullis<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ended {
    let mut command = Command::new(crate::binary());
    command.args(arguments).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").env("HOME", "/nonexistent");
    ended(command.output().expect("the binary under test starts"))
}

/// How a finished process ended.
pub fn ended(output: Output) -> Ended {
    Ended {
        exit: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Site {
    /// A site with a root key, a signer and a signed trust policy, without components, routes or grants.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("portcullis-test-").tempdir().expect("a folder for a test");
        let site = Self {
            folder,
            components: Vec::new(),
            routes: String::new(),
            top: String::new(),
            policy: String::new(),
            extra: String::new(),
            trust_domain: TRUST_DOMAIN.to_owned(),
            grants: "version = 1\n".to_owned(),
            trust: String::new(),
            damaged: Vec::new(),
            environment: Vec::new(),
        };
        site.run(["keys", "generate", "--kind", "root", "--out", "root.key"]).ok();
        site.run(["keys", "generate", "--kind", "signer", "--out", "signer.key"]).ok();
        let root = site.public("root.key");
        site.run(["trust", "init", "--out", "trust.json", "--root", &root, "--valid-for", "30d"]).ok();
        let signer = site.public("signer.key");
        site.run([
            "trust",
            "add",
            "trust.json",
            "--signer",
            &signer,
            "--name",
            "test-ci",
            "--names",
            "test:*",
            "--identity-paths",
            "ns/test/sa/*,ns/demo/sa/*",
            "--audiences",
            CLUSTER,
            "--imports",
            "wasi:*",
            "--imports",
            "portcullis:identity/*",
            "--imports",
            "wasmcloud:*",
            "--max-lifetime",
            "720h",
        ])
        .ok();
        site.run(["trust", "sign", "trust.json", "--key", "root.key", "--out", "trust.signed.json"]).ok();
        site
    }

    /// An empty place holder.
    pub(crate) fn hollow() -> Self {
        let folder = tempfile::tempdir().expect("a folder for a test");
        Self {
            folder,
            components: Vec::new(),
            routes: String::new(),
            top: String::new(),
            policy: String::new(),
            extra: String::new(),
            trust_domain: TRUST_DOMAIN.to_owned(),
            grants: String::new(),
            trust: String::new(),
            damaged: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the binary under test within the folder.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ended {
        let mut command = Command::new(crate::binary());
        command.current_dir(self.path()).args(arguments);
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").env("HOME", "/nonexistent");
        ended(command.output().expect("the binary under test starts"))
    }

    /// The same, with more environment variables.
    pub fn run_with<S: AsRef<std::ffi::OsStr>>(
        &self,
        variables: &[(&str, &str)],
        arguments: impl IntoIterator<Item = S>,
    ) -> Ended {
        let mut command = Command::new(crate::binary());
        command.current_dir(self.path()).args(arguments);
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").env("HOME", "/nonexistent");
        command.envs(variables.iter().copied());
        ended(command.output().expect("the binary under test starts"))
    }

    /// Runs the binary under test within the folder; killed (exit 137) where it takes longer than so many seconds.
    pub fn run_within<S: AsRef<std::ffi::OsStr>>(&self, seconds: u32, arguments: impl IntoIterator<Item = S>) -> Ended {
        let mut command = Command::new("timeout");
        command
            .current_dir(self.path())
            .args(["-s", "KILL", &seconds.to_string()])
            .arg(crate::binary())
            .args(arguments);
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").env("HOME", "/nonexistent");
        ended(command.output().expect("timeout of coreutils starts"))
    }

    /// Damages a file of the site each time the configuration has been written: other bytes, or none at all.
    pub fn damage(&mut self, name: &str, bytes: Option<&[u8]>) {
        self.damaged.push((name.to_owned(), bytes.map(<[u8]>::to_vec)));
    }

    /// Leaves all files as they are written from now on.
    pub fn undamage(&mut self) {
        self.damaged.clear();
    }

    /// The public key in a key file.
    pub fn public(&self, file: &str) -> String {
        let shown = self.run(["keys", "show", file, "--json"]).ok().json();
        shown.get("publicKey").and_then(Value::as_str).expect("`keys show --json` has a member `publicKey`").to_owned()
    }

    /// Writes a component and signs honest claims for `test:<name>`.
    pub fn sign(&self, name: &str, bytes: &[u8]) -> PathBuf {
        self.sign_as(name, bytes, &format!("ns/test/sa/{name}"))
    }

    /// The same, for another path of its SPIFFE ID than `ns/test/sa/<name>`. Evidence that is there is replaced.
    pub fn sign_as(&self, name: &str, bytes: &[u8], identity_path: &str) -> PathBuf {
        let path = crate::guests::put(self.path(), &format!("{name}.wasm"), bytes);
        let claims = format!("{name}.claims.json");
        let file = format!("{name}.wasm");
        self.run([
            "claims",
            "init",
            &file,
            "--name",
            &format!("test:{name}"),
            "--version",
            "1.0.0",
            "--revision",
            "1",
            "--audience",
            CLUSTER,
            "--identity-path",
            identity_path,
            "--valid-for",
            "24h",
            "--out",
            &claims,
            "--force",
        ])
        .ok();
        self.run(["sign", &file, "--claims", &claims, "--key", "signer.key", "--force"]).ok();
        path
    }

    /// Signs a component, lets it be loaded and called by anyone, and routes `/<name>` to it. `grant` is more TOML for its grant.
    pub fn component(&mut self, name: &str, bytes: &[u8], grant: &str) {
        self.sign(name, bytes);
        self.components.push(format!("{name}.wasm"));
        let _ = write!(self.routes, "[[route]]\npath = \"/{name}\"\ncomponent = \"test:{name}\"\n\n");
        let callers = if grant.contains("callers") { "" } else { "callers = [\"anonymous\"]\n" };
        let _ = write!(
            self.grants,
            "\n[[grant]]\nid = \"{name}\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:{name}\"\nload = true\n{callers}{grant}\n"
        );
    }

    /// One of our own guests, by its name.
    pub fn guest(&mut self, name: &str, grant: &str) {
        self.component(name, &crate::guests::ours(name), grant);
    }

    /// More grants (TOML).
    pub fn grants(&mut self, text: &str) {
        self.grants.push_str(text);
    }

    /// Another trust domain than [`TRUST_DOMAIN`].
    pub fn trust_domain(&mut self, name: &str) {
        name.clone_into(&mut self.trust_domain);
    }

    /// More configuration (TOML): sections such as `[limits]`.
    pub fn config(&mut self, text: &str) {
        self.extra.push_str(text);
    }

    /// Leaves out the configuration that was added so far.
    pub fn forget_config(&mut self) {
        self.extra.clear();
    }

    /// A variable of the host's environment that names a path.
    pub fn environment(&mut self, name: &str, path: &Path) {
        self.environment.push((name.to_owned(), path.to_owned()));
    }

    /// The variables that were added to the host's environment.
    pub fn variables(&self) -> &[(String, PathBuf)] {
        &self.environment
    }

    /// More keys (TOML) outside of any section.
    pub fn top(&mut self, text: &str) {
        self.top.push_str(text);
    }

    /// More configuration (TOML) of the section `[trust]`.
    pub fn trust(&mut self, text: &str) {
        self.trust.push_str(text);
    }

    /// More keys (TOML) of the section `[policy]`.
    pub fn policy(&mut self, text: &str) {
        self.policy.push_str(text);
    }

    /// Writes the configuration and the grants; gives the configuration's path.
    pub fn write(&self) -> PathBuf {
        let mut text = format!("version = 1\ntrust_domain = \"{}\"\nstate_dir = \"state\"\n\n", self.trust_domain);
        if !self.extra.contains("[cluster]") {
            let _ = writeln!(text, "cluster = \"{CLUSTER}\"\n");
        }
        text.push_str(&self.top);
        let _ = write!(
            text,
            "[trust]\npolicy = \"trust.signed.json\"\nroots = [\"{}\"]\n{}\n",
            self.public("root.key"),
            self.trust
        );
        let _ = write!(text, "[policy]\ngrants = [\"grants.toml\"]\n{}\n", self.policy);
        if !self.extra.contains("[listen]") {
            text.push_str("[listen]\nhttp = \"127.0.0.1:0\"\nmtls = \"127.0.0.1:0\"\n\n");
        }
        for component in &self.components {
            let _ = write!(text, "[[component]]\npath = \"{component}\"\n\n");
        }
        text.push_str(&self.routes);
        text.push_str(&self.extra);
        std::fs::write(self.file("grants.toml"), &self.grants).expect("grants can be written");
        let path = self.file("portcullis.toml");
        std::fs::write(&path, text).expect("a configuration can be written");
        for (name, bytes) in &self.damaged {
            match bytes {
                Some(bytes) => std::fs::write(self.file(name), bytes).expect("a file of the site can be written"),
                None => drop(std::fs::remove_file(self.file(name))),
            }
        }
        path
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}
