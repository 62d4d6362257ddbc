//! A throw-away site: trust domain, keys, signed trust policy, grants, two signed components, one configuration file.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use portcullis_signing::{
    ClaimsDraft, ComponentBytes, Delegation, KeyKind, Lifetime, SecretKey, SignerEntry, TrustDocument, read_interfaces,
    sign_component, sign_trust,
};
use time::OffsetDateTime;

use crate::cli::error::CliError;
use crate::cli::files;

/// The trust domain of the demo.
pub const TRUST_DOMAIN: &str = "demo.portcullis.internal";
/// The cluster name that claims must be for.
pub const CLUSTER: &str = "demo";
/// The host name under which the vault is reached.
pub const VAULT_HOST: &str = "vault.demo.internal";

const GREETER: &[u8] = include_bytes!("../../../../tests/guests/wasm/greeter.wasm");
const VAULT: &[u8] = include_bytes!("../../../../tests/guests/wasm/vault.wasm");

/// The files of a throw-away site, removed when dropped.
#[derive(Debug)]
pub struct Site {
    folder: tempfile::TempDir,
    signer: SecretKey,
    ports: Ports,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    mtls: u16,
}

/// A host process of the demo.
#[derive(Debug)]
pub struct HostProcess(Child);

/// Which claims to sign, where they differ from honest ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claims {
    /// What the component is and imports, valid for a day.
    Honest,
    /// Valid until an hour ago.
    Expired,
}

impl Site {
    /// Makes the site in a new folder that only this user can read.
    pub fn make() -> Result<Self, CliError> {
        let folder = tempfile::Builder::new()
            .prefix("portcullis-demo-")
            .permissions(PermissionsExt::from_mode(0o700))
            .tempdir()
            .map_err(CliError::internal)?;
        let generate = |kind| SecretKey::generate(kind).map_err(CliError::internal);
        let (root, signer) = (generate(KeyKind::Root)?, generate(KeyKind::Signer)?);
        let ports = Ports { http: free_port()?, mtls: free_port()? };
        let site = Self { folder, signer, ports };
        site.write("root.key", root.seed().as_bytes(), 0o600)?;
        site.write("signer.key", site.signer.seed().as_bytes(), 0o600)?;
        site.write("trust.signed.json", &site.trust(&root)?, 0o600)?;
        site.write("grants.toml", grants(ports.mtls).as_bytes(), 0o600)?;
        site.write("portcullis.toml", site.config(&root).as_bytes(), 0o600)?;
        for (name, bytes) in [("greeter", GREETER), ("vault", VAULT)] {
            site.write(&format!("{name}.wasm"), bytes, 0o600)?;
        }
        Ok(site)
    }

    /// Signs the two components as a CI would.
    pub fn sign(&self) -> Result<Vec<(String, String)>, CliError> {
        let mut signed = Vec::new();
        for name in ["greeter", "vault"] {
            let path = self.path(&format!("{name}.wasm"));
            let component = files::read_component(&path)?;
            let bundle = self.bundle(&component, name, Claims::Honest, &self.signer)?;
            files::write(&files::evidence_beside(&path), &bundle, 0o600, true)?;
            signed.push((format!("demo:{name}"), component.digest().to_string()));
        }
        Ok(signed)
    }

    /// A bundle over `component` with claims for the name `demo:<name>`.
    pub fn bundle(
        &self,
        component: &ComponentBytes,
        name: &str,
        which: Claims,
        key: &SecretKey,
    ) -> Result<Vec<u8>, CliError> {
        let interfaces = read_interfaces(component.bytes()).map_err(CliError::internal)?;
        let claims = draft(&interfaces, name, which)?.build().map_err(CliError::internal)?;
        match which {
            Claims::Honest => sign_component(component, &claims, key, crate::clock::now()).map_err(CliError::internal),
            Claims::Expired => super::bad::sign_as_is(component, &claims, key),
        }
    }

    /// The signer that the trust policy names.
    pub fn signer(&self) -> &SecretKey {
        &self.signer
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.path("portcullis.toml")
    }

    /// The control socket of the host.
    pub fn control_socket(&self) -> PathBuf {
        self.path("state/run/control.sock")
    }

    /// The audit log of the host.
    pub fn audit_log(&self) -> PathBuf {
        self.path("state/audit/audit.jsonl")
    }

    /// The folder with the keys of the identity process.
    pub fn key_folder(&self) -> PathBuf {
        self.path("state/identity")
    }

    /// The gateway's port.
    pub fn http_port(&self) -> u16 {
        self.ports.http
    }

    /// Where greeter is told to find the vault.
    pub fn vault_url(&self) -> String {
        format!("https://{VAULT_HOST}:{}/secret", self.ports.mtls)
    }

    /// Writes a file of the site.
    pub fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), CliError> {
        files::write(&self.path(name), bytes, mode, true)
    }

    /// Starts `portcullis host` on this site. Its log goes to `host.log`.
    pub fn start_host(&self) -> Result<HostProcess, CliError> {
        let log = std::fs::File::create(self.path("host.log")).map_err(CliError::internal)?;
        let child = program()
            .arg("host")
            .arg("--die-with-parent")
            .arg("--config")
            .arg(self.config_path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        child.map(HostProcess).map_err(CliError::internal)
    }

    /// Commands for a person to try.
    pub fn commands(&self) -> String {
        let config = self.config_path();
        let config = config.display();
        format!(
            "  curl -H 'x-vault-url: {}' http://127.0.0.1:{}/greeter\n  portcullis status --config {config}\n  portcullis list --config {config}\n  portcullis audit verify --config {config}\n  portcullis identity bundle --config {config}",
            self.vault_url(),
            self.ports.http
        )
    }

    fn trust(&self, root: &SecretKey) -> Result<Vec<u8>, CliError> {
        let now = crate::clock::now();
        let mut document = TrustDocument::new(1, now, now + time::Duration::days(1), vec![root.public()], 1)
            .map_err(CliError::internal)?;
        let entry = SignerEntry {
            name: "demo-ci".to_owned(),
            key: self.signer.public(),
            group: Some("team-demo".to_owned()),
            delegation: Delegation {
                names: vec!["demo:*".parse().map_err(CliError::internal)?],
                identity_paths: vec!["ns/demo/sa/*".parse().map_err(CliError::internal)?],
                audiences: vec![CLUSTER.parse().map_err(CliError::internal)?],
                imports: ["wasi:*", "portcullis:identity/*", "wasmcloud:identity/*"]
                    .iter()
                    .map(|pattern| pattern.parse().map_err(CliError::internal))
                    .collect::<Result<_, _>>()?,
                max_lifetime: "48h".parse().map_err(CliError::internal)?,
                not_after: None,
            },
        };
        document.add_signer(entry).map_err(CliError::internal)?;
        sign_trust(&document, None, root).map_err(CliError::internal)
    }

    fn config(&self, root: &SecretKey) -> String {
        format!(
            r#"version = 1
trust_domain = "{TRUST_DOMAIN}"
cluster = "{CLUSTER}"
state_dir = "state"
danger_inspectable_runtime = true    # lets step 8 read the runtime's memory to look for keys

[listen]
http = "127.0.0.1:{http}"
mtls = "127.0.0.1:{mtls}"

[trust]
policy = "trust.signed.json"
roots = ["{root}"]

[policy]
grants = ["grants.toml"]

[[component]]
path = "vault.wasm"

[[component]]
path = "greeter.wasm"

[[route]]
path = "/greeter"
component = "demo:greeter"

[[route]]
host = "{VAULT_HOST}"
component = "demo:vault"

[names]
"{VAULT_HOST}" = ["127.0.0.1"]
"#,
            http = self.ports.http,
            mtls = self.ports.mtls,
            root = root.public(),
        )
    }
}

impl HostProcess {
    /// Whether it is gone.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Asks it to stop and waits.
    pub fn stop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let (Some(pid), Ok(None)) = (pid, self.0.try_wait()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        self.stop();
    }
}

/// This very program, to be started again.
pub fn program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.stdin(Stdio::null());
    command
}

/// Claims for a component of the demo.
pub fn draft(interfaces: &portcullis_signing::Interfaces, name: &str, which: Claims) -> Result<ClaimsDraft, CliError> {
    let lifetime: Lifetime = "24h".parse().map_err(CliError::internal)?;
    let now = crate::clock::now();
    let mut draft = ClaimsDraft::new(interfaces, now, lifetime);
    draft.name = format!("demo:{name}");
    draft.version = "1.0.0".to_owned();
    draft.identity_path = format!("ns/demo/sa/{name}");
    draft.audience = vec![CLUSTER.to_owned()];
    if which == Claims::Expired {
        let ago = |hours| whole(now - time::Duration::hours(hours));
        (draft.issued_at, draft.not_before, draft.expires_at) = (ago(3), ago(3), ago(1));
    }
    Ok(draft)
}

fn whole(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}

fn grants(mtls: u16) -> String {
    format!(
        r#"version = 1

[[grant]]
id = "greeter"
reason = "greets whoever asks, and asks the vault for the secret"
owner = "team-demo"
component = "demo:greeter"
load = true
link = ["portcullis:identity/*", "wasmcloud:identity/*"]
identity = ["read", "x509"]
audiences = ["vault"]
callers = ["anonymous"]

[[grant]]
id = "greeter-vault"
reason = "the secret that greetings are made of"
owner = "team-demo"
component = "demo:greeter"
http = ["https://{VAULT_HOST}:{mtls}"]
peer = "spiffe://{TRUST_DOMAIN}/ns/demo/sa/vault"
addresses = ["loopback"]

[[grant]]
id = "vault"
reason = "keeps the secret, and tells greeter alone"
owner = "team-demo"
component = "demo:vault"
load = true
link = ["portcullis:identity/*"]
identity = ["peer", "x509", "validate"]
callers = ["spiffe://{TRUST_DOMAIN}/ns/demo/sa/greeter"]
"#
    )
}

fn free_port() -> Result<u16, CliError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(CliError::internal)?;
    listener.local_addr().map(|address| address.port()).map_err(CliError::internal)
}
