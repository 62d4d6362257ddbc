//! Real registries on loopback: the one of Debian (distribution 2.8, without the referrers API), and one with that API, built from a Go
//! module. Each lives as long as its value; its data lies in a folder that goes with it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::janitor::Janitor;

/// The user that a registry with a login lets in.
pub const USER: &str = "tester";
/// Their password.
pub const PASSWORD: &str = "secret";

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    _janitor: Janitor,
    folder: tempfile::TempDir,
    address: String,
}

/// What kind of registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Debian's `docker-registry`: no referrers API, so the fallback tag is what there is.
    Fallback,
    /// The same, and it wants a user and a password.
    Login,
    /// The same, over TLS with a certificate of its own.
    Tls,
    /// With the referrers API.
    Referrers,
    /// With the referrers API, and it wants a bearer token that it hands out itself.
    Token,
}

impl Registry {
    /// Starts a registry; `None`, with the reason, where it cannot be had on this machine.
    pub fn start(kind: Kind) -> Result<Self, String> {
        let folder =
            tempfile::Builder::new().prefix("portcullis-registry-").tempdir().map_err(|error| error.to_string())?;
        let mut command = match kind {
            Kind::Referrers | Kind::Token => Command::new(built()?),
            Kind::Fallback | Kind::Login | Kind::Tls => {
                let mut command = Command::new(installed()?);
                let config = folder.path().join("config.yml");
                std::fs::write(&config, distribution(kind, &folder)?).map_err(|error| error.to_string())?;
                command.arg("serve").arg(config);
                command
            }
        };
        if kind == Kind::Token {
            command.args(["-token", "a-token-of-the-tests"]);
        }
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let janitor = Janitor::new(child.id(), folder.path());
        // One writes its address to standard output, the other to its log; both keep writing.
        let (found, heard) = std::sync::mpsc::channel();
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let streams: [Box<dyn std::io::Read + Send>; 2] = [Box::new(out), Box::new(err)];
        for stream in streams {
            let found = found.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if let Some((_, rest)) = line.split_once("listening on ") {
                        let address: String =
                            rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
                        let _ = found.send(address);
                    }
                }
            });
        }
        let address = heard.recv_timeout(crate::patience::LONG);
        let registry = Self { child, _janitor: janitor, folder, address: address.unwrap_or_default() };
        if registry.address.is_empty() { Err("it does not say where it listens".to_owned()) } else { Ok(registry) }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A reference in it.
    pub fn reference(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.address)
    }

    /// The certificate of a registry with TLS.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("tls.pem")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's package `docker-registry`.
fn installed() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("docker-registry")).find(|path| path.is_file());
    found.ok_or_else(|| "docker-registry is not installed (Debian package docker-registry)".to_owned())
}

/// The Go program in `tests/registry`, built once by Go's own client.
fn built() -> Result<PathBuf, String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let to = crate::binary().with_file_name("test-registry");
            let mut go = Command::new("go");
            go.args(["build", "-mod=readonly", "-o"])
                .arg(&to)
                .arg(".")
                .current_dir(crate::root().join("tests/registry"));
            go.env("GOFLAGS", "-buildvcs=false").env("CGO_ENABLED", "0");
            match go.output() {
                Ok(output) if output.status.success() => Ok(to),
                Ok(output) => Err(format!("go build: {}", String::from_utf8_lossy(&output.stderr))),
                Err(error) => Err(format!("go cannot be run: {error}")),
            }
        })
        .clone()
}

fn distribution(kind: Kind, folder: &tempfile::TempDir) -> Result<String, String> {
    let data = folder.path().join("data");
    let mut text = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: 127.0.0.1:0\n",
        data.display()
    );
    if kind == Kind::Tls {
        let (certificate, key) = (folder.path().join("tls.pem"), folder.path().join("tls.key"));
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ]);
        openssl.args(["-subj", "/CN=test registry", "-addext", "subjectAltName=IP:127.0.0.1"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]);
        openssl.arg(&key).arg("-out").arg(&certificate);
        let made = openssl.output().map_err(|error| format!("openssl cannot be run: {error}"))?;
        if !made.status.success() {
            return Err(format!("openssl: {}", String::from_utf8_lossy(&made.stderr)));
        }
        text.push_str(&format!("  tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display()));
    }
    if kind == Kind::Login {
        let users = folder.path().join("htpasswd");
        std::fs::write(&users, format!("{USER}:{PASSWORD_HASH}\n")).map_err(|error| error.to_string())?;
        text.push_str(&format!("auth:\n  htpasswd: {{realm: tests, path: {}}}\n", users.display()));
    }
    Ok(text)
}

/// bcrypt of [`PASSWORD`].
const PASSWORD_HASH: &str = "$2a$04$SqhPOr145u09YRNS0RMzYuwFajVs/j9JdTg11uIB/r/3BrPGgraRy";
