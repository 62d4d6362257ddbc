//! The one configuration file, `portcullis.toml`: what a host is told by its operator.
//!
//! Read as a whole and checked as a whole: every problem is reported, not the first. Unknown keys are problems. Secrets
//! are never in it, only paths. Paths are relative to the file.

pub mod audit;
pub mod broker;
pub mod callout;
pub mod cluster;
pub mod control;
pub mod environment;
pub mod federation;
mod files;
pub mod identity;
pub mod identity_source;
pub mod limits;
pub mod messaging;
pub mod nats;
pub mod oidc;
pub mod operator;
mod problems;
mod reader;
mod wide_folder;
pub mod workload_api;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use portcullis_identity::TrustDomain;
use portcullis_signing::PublicKey;
use serde::{Deserialize, Serialize};

pub use audit::Audit;
pub use broker::Broker;
pub use federation::Federation;
pub use identity::Identity;
pub use limits::Limits;
pub use nats::Nats;
pub use oidc::Oidc;
pub use problems::ConfigError;
use problems::Problems;
use reader::Reader;
use workload_api::WorkloadApi;

/// The version of the format that this build reads.
pub const VERSION: i64 = 1;

/// A checked configuration.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// The SPIFFE trust domain of the built-in issuer.
    pub trust_domain: TrustDomain,
    /// The name that claims must have in their `audience`.
    pub cluster: String,
    /// Where state is kept: keys, cache, audit log, control socket.
    pub state_dir: PathBuf,
    /// Addresses to listen on.
    pub listen: Listen,
    /// The signed trust policy and the root keys that it must be signed with.
    pub trust: Trust,
    /// Grants and policies.
    pub policy: Policy,
    /// Components to start.
    pub components: Vec<Component>,
    /// Where requests go.
    pub routes: Vec<Route>,
    /// Names that the host resolves itself, before any resolver.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// Limits of requests and guests.
    pub limits: Limits,
    /// The files of the audit log.
    pub audit: Audit,
    /// Authorities and SVIDs.
    pub identity: Identity,
    /// The SPIFFE Workload API for processes beside the host. Absent: not served.
    pub workload_api: Option<WorkloadApi>,
    /// Where our bundle is served, and whose bundles are fetched.
    pub federation: Federation,
    /// How others check JWT-SVIDs.
    pub oidc: Option<Oidc>,
    /// The SPIFFE Broker API for this host's components. Absent: not served.
    pub broker: Option<Broker>,
    /// The control plane over HTTPS.
    pub control: control::Control,
    /// This host's part in its cluster. Absent: it takes none.
    pub membership: Option<cluster::Cluster>,
    /// The NATS servers. Absent: no connection.
    pub nats: Option<Nats>,
    /// Messages of components. Absent: there are none.
    pub messaging: Option<messaging::Messaging>,
    /// Knobs that weaken something.
    pub dangers: Dangers,
}

/// Addresses to listen on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Plain HTTP, `ADDRESS:PORT`; port 0 picks a free one.
    #[serde(default = "Listen::http")]
    pub http: SocketAddr,
    /// mTLS with X.509-SVIDs on both sides. Absent: no such listener.
    #[serde(default)]
    pub mtls: Option<SocketAddr>,
    /// Prometheus metrics, plain HTTP without a login: whoever reaches the address reads them. Absent: no such listener.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// Accept HTTP/2 with prior knowledge. Off: wasmtime 48.0.8 has an open memory issue with it.
    #[serde(default)]
    pub http2: bool,
}

/// The trust policy and its roots.
#[derive(Debug, Clone, Serialize)]
pub struct Trust {
    /// The signed trust policy.
    pub policy: PathBuf,
    /// Root keys (`O...`).
    pub roots: Vec<PublicKey>,
    /// How many of them must have signed.
    pub threshold: usize,
    /// The signed deny list, where the trust policy demands one.
    pub deny_list: Option<PathBuf>,
}

/// Grants and raw policies.
#[derive(Debug, Clone, Serialize)]
pub struct Policy {
    /// Grants files (TOML). The first is the one that `grants add` writes to.
    pub grants: Vec<PathBuf>,
    /// Cedar files.
    pub cedar: Vec<PathBuf>,
    /// Components, by their claimed names, that a command may put into audit mode for a time. None are by this alone.
    pub audit_mode: Vec<String>,
}

/// A component to start.
#[derive(Debug, Clone, Serialize)]
pub struct Component {
    /// The `.wasm` file.
    pub path: PathBuf,
    /// Its evidence; empty: `PATH.sigstore.json`.
    pub evidence: Vec<PathBuf>,
}

/// Where requests go.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Exact host name; absent: any.
    #[serde(default)]
    pub host: Option<String>,
    /// Path prefix on whole segments.
    #[serde(default = "Route::root")]
    pub path: String,
    /// The claimed name of the component, `namespace:name`.
    pub component: String,
}

/// Knobs that weaken something. Each is named in `status` and in the log while it is on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Dangers {
    /// Leave the runtime process readable by a debugger of the same uid. The demo uses it to scan that memory for keys.
    pub inspectable_runtime: bool,
    /// Components, by their claimed names, that may have the private key of an X.509-SVID where policy grants `svid.export`.
    pub exportable_keys: Vec<String>,
    /// Ask policy nothing on the path of requests, for a measurement.
    #[cfg(feature = "bench-ungated")]
    pub ungated: bool,
    /// Connect to NATS servers on the loopback without TLS.
    pub nats_plaintext: bool,
}

impl Listen {
    fn http() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 8080))
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self { http: Self::http(), mtls: None, metrics: None, http2: false }
    }
}

impl Route {
    fn root() -> String {
        "/".to_owned()
    }
}

impl Dangers {
    /// The names of those that are on.
    pub fn on(&self) -> Vec<&'static str> {
        let knobs = [
            (self.inspectable_runtime, "danger_inspectable_runtime"),
            (!self.exportable_keys.is_empty(), "danger_exportable_keys"),
            // A build that could is named for it, whatever it does.
            #[cfg(feature = "bench-ungated")]
            (true, crate::ungated::KEY),
            (self.nats_plaintext, "nats.danger_plaintext"),
        ];
        knobs.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect()
    }
}

impl Config {
    /// Parses and checks the text of a configuration file that lies at `path`.
    pub fn parse(text: &str, path: &Path, state_default: &Path) -> Result<Self, ConfigError> {
        let mut problems = Problems::new(path);
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                problems.toml("", text, &error);
                return Err(problems.into_error());
            }
        };
        let base = path.parent().unwrap_or(Path::new("."));
        let config = Reader { table, base, problems: &mut problems }.read(path, state_default);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems.into_error()),
        }
    }

    /// Looks at the files that it names, too: says which are not there or cannot be read, and which secrets others can read. What may
    /// be missing now is returned, a line each.
    pub fn check_files(&self) -> Result<Vec<String>, ConfigError> {
        let mut problems = Problems::new(&self.path);
        let warnings = files::check(self, &mut problems);
        if let Some(nats) = &self.nats {
            nats.check_files(&mut problems);
        }
        if problems.is_empty() { Ok(warnings) } else { Err(problems.into_error()) }
    }

    /// The grants file that `grants add` writes to.
    pub fn grants_file(&self) -> Option<&Path> {
        self.policy.grants.first().map(PathBuf::as_path)
    }

    /// The owner-only socket of the control plane.
    pub fn control_socket(&self) -> PathBuf {
        self.state_dir.join("run").join("control.sock")
    }
}

/// Whether a route's host and path are of the form that the gateway compares with.
pub fn check_route(route: &Route) -> Result<(), String> {
    let host_ok = route.host.as_deref().is_none_or(|host| {
        !host.is_empty()
            && host.len() <= 253
            && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b))
    });
    if !host_ok {
        return Err(format!(
            "host of `{}` must be a lower-case host name without a port",
            route.component.escape_default()
        ));
    }
    let path = &route.path;
    let path_ok = path.starts_with('/')
        && (path == "/" || !path.ends_with('/'))
        && path
            .split('/')
            .skip(1)
            .all(|segment| segment != "." && segment != ".." && (path == "/" || !segment.is_empty()))
        && path.bytes().all(|b| b.is_ascii_graphic() && !b"%?#\\".contains(&b));
    if path_ok {
        Ok(())
    } else {
        Err(format!("path `{}` must be like /a/b, plain, without a trailing slash", path.escape_default()))
    }
}

#[cfg(test)]
mod tests;
