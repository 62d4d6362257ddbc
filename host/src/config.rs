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

struct Reader<'a> {
    table: toml::Table,
    base: &'a Path,
    problems: &'a mut Problems,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTrust {
    policy: PathBuf,
    roots: Vec<String>,
    #[serde(default = "one")]
    threshold: usize,
    #[serde(default)]
    deny_list: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    #[serde(default)]
    grants: Vec<PathBuf>,
    #[serde(default)]
    cedar: Vec<PathBuf>,
    #[serde(default)]
    audit_mode: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawComponent {
    path: PathBuf,
    #[serde(default)]
    evidence: Vec<PathBuf>,
}

fn one() -> usize {
    1
}

impl Reader<'_> {
    fn read(mut self, path: &Path, state_default: &Path) -> Option<Config> {
        match self.table.remove("version") {
            Some(toml::Value::Integer(VERSION)) => {}
            Some(other) => self.problems.add("version", format!("is {other}, this build reads {VERSION}"), None),
            None => self.problems.add("version", "is missing", Some("put `version = 1` on the first line")),
        }
        let trust_domain: Option<String> = self.required("trust_domain");
        let trust_domain = trust_domain.and_then(|name| match name.parse::<TrustDomain>() {
            Ok(domain) => Some(domain),
            Err(error) => {
                self.problems.add("trust_domain", error.to_string(), Some("lower-case letters, digits, `.`, `-`, `_`"));
                None
            }
        });
        let (cluster, membership) = self.cluster();
        if cluster.as_deref().is_some_and(|name| name.is_empty() || name.len() > 255) {
            self.problems.add("cluster", "must have 1 to 255 characters", None);
        }
        let state_dir = self.optional::<PathBuf>("state_dir").map(|dir| self.base.join(dir));
        let listen = self.optional::<Listen>("listen").unwrap_or_default();
        let trust = self.trust();
        let policy = self.optional::<RawPolicy>("policy").unwrap_or_default();
        for name in policy.audit_mode.iter().filter(|name| !portcullis_policies::is_component_name(name)) {
            let why = format!("`{}` is not a component's name", name.escape_default());
            self.problems.add(
                "policy.audit_mode",
                why,
                Some("name components as in their claims, such as shop:orders"),
            );
        }
        if policy.audit_mode.len() > crate::limits::AUDIT_MODE_COMPONENTS {
            let why = format!("names more than {} components", crate::limits::AUDIT_MODE_COMPONENTS);
            self.problems.add("policy.audit_mode", why, Some("audit mode is for the few that are being moved in"));
        }
        let components = self.optional::<Vec<RawComponent>>("component").unwrap_or_default();
        let routes = self.optional::<Vec<Route>>("route").unwrap_or_default();
        for route in &routes {
            if let Err(why) = check_route(route) {
                self.problems.add("route", why, None);
            }
        }
        let names = self.optional::<BTreeMap<String, Vec<IpAddr>>>("names").unwrap_or_default();
        for (name, addresses) in &names {
            if addresses.is_empty() || name.is_empty() || name.to_ascii_lowercase() != *name {
                let why = format!("`{}` needs a lower-case name and at least one address", name.escape_default());
                self.problems.add("names", why, None);
            }
        }
        let limits = self.optional::<Limits>("limits").unwrap_or_default();
        for why in limits.problems() {
            self.problems.add("limits", why, None);
        }
        let audit = self.optional::<Audit>("audit").unwrap_or_default().check(self.problems);
        let identity = self.optional::<Identity>("identity").unwrap_or_default();
        let identity = identity.check(self.base, trust_domain.as_ref(), self.problems);
        let raw_api = self.optional("workload_api");
        let entries = self.optional("workload").unwrap_or_default();
        let workload_api = workload_api::check(raw_api, entries, self.base, trust_domain.as_ref(), self.problems);
        let federation = self.optional::<Federation>("federation").unwrap_or_default();
        let federation = federation.check(self.base, trust_domain.as_ref(), self.problems);
        let oidc = self.optional::<Oidc>("oidc").map(|oidc| oidc.check(self.base, self.problems));
        let broker = self.optional::<Broker>("broker").map(|broker| broker.check(self.base, self.problems));
        let nats = self.optional::<Nats>("nats").map(|nats| nats.check(self.base, self.problems));
        let membership =
            membership.map(|section| section.check(self.base, cluster.as_deref(), nats.is_some(), self.problems));
        let nats_plaintext = nats.as_ref().is_some_and(|nats| nats.danger_plaintext);
        let control = self.optional::<control::Control>("control").unwrap_or_default();
        let messaging = self.optional::<messaging::Messaging>("messaging");
        let messaging = messaging.map(|messaging| messaging.check(nats.as_ref(), self.problems));
        if identity.source != identity_source::Source::Builtin {
            // Their SVIDs would come from an authority that nobody at the site trusts.
            let served = [
                ("workload_api", workload_api.is_some()),
                ("broker", broker.is_some()),
                ("federation.https_spiffe", federation.https_spiffe.is_some()),
                ("federation.https_web", federation.https_web.is_some()),
                ("federation.peer", !federation.peer.is_empty()),
                ("oidc", oidc.is_some()),
            ];
            for (key, _) in served.into_iter().filter(|(_, on)| *on) {
                let hint = "the site's SPIRE serves this; leave it out, or set identity.source = \"builtin\"";
                self.problems.add(key, "needs the built-in issuer", Some(hint));
            }
            let of_host = [
                ("control.https", control.https.is_some()),
                ("cluster.host", membership.is_some()),
                ("nats.auth", nats.iter().flat_map(Nats::links).any(|link| link.auth.is_svid())),
            ];
            let none = identity.spire.workload_socket.is_none();
            for (key, _) in of_host.into_iter().filter(|(_, on)| none && *on) {
                let hint =
                    "name the agent's Workload API in identity.spire.workload_socket, and register the host there";
                self.problems.add(
                    key,
                    "needs an identity of the host itself, which this source does not give",
                    Some(hint),
                );
            }
        }
        let inspectable_runtime = self.optional("danger_inspectable_runtime").unwrap_or(false);
        let exportable_keys: Vec<String> = self.optional("danger_exportable_keys").unwrap_or_default();
        for name in exportable_keys.iter().filter(|name| !portcullis_policies::is_component_name(name)) {
            let why = format!("`{}` is not a component's name", name.escape_default());
            self.problems.add(
                "danger_exportable_keys",
                why,
                Some("name components as in their claims, such as shop:orders"),
            );
        }
        #[cfg(feature = "bench-ungated")]
        let ungated = {
            let gate: Option<String> = self.optional(crate::ungated::KEY);
            let listens = std::iter::once(listen.http).chain(listen.mtls).chain(listen.metrics);
            crate::ungated::configured(gate.as_deref(), listens).unwrap_or_else(|why| {
                self.problems.add(crate::ungated::KEY, why, Some("build without the feature bench-ungated"));
                false
            })
        };
        for key in self.table.keys() {
            self.problems.add(key, "unknown key", Some("`portcullis config print` shows all that there are"));
        }
        let rebase = |paths: Vec<PathBuf>| paths.into_iter().map(|path| self.base.join(path)).collect::<Vec<_>>();
        Some(Config {
            path: path.to_path_buf(),
            trust_domain: trust_domain?,
            cluster: cluster?,
            state_dir: state_dir.unwrap_or_else(|| state_default.to_path_buf()),
            listen,
            trust: trust?,
            policy: Policy {
                grants: rebase(policy.grants),
                cedar: rebase(policy.cedar),
                audit_mode: policy.audit_mode,
            },
            components: components
                .into_iter()
                .map(|raw| Component { path: self.base.join(raw.path), evidence: rebase(raw.evidence) })
                .collect(),
            routes,
            names,
            limits,
            audit,
            federation,
            oidc,
            broker,
            identity,
            workload_api,
            control,
            membership,
            nats,
            messaging,
            dangers: Dangers {
                inspectable_runtime,
                exportable_keys,
                #[cfg(feature = "bench-ungated")]
                ungated,
                nats_plaintext,
            },
        })
    }

    /// `cluster = "NAME"`, or the section `[cluster]` with its `name`.
    fn cluster(&mut self) -> (Option<String>, Option<cluster::Cluster>) {
        match self.table.get_mut("cluster") {
            Some(toml::Value::Table(section)) => {
                let name = section.remove("name");
                let Some(toml::Value::String(name)) = name else {
                    self.problems.add("cluster.name", "is missing, or is no text", Some("name the cluster"));
                    return (None, self.optional("cluster"));
                };
                (Some(name), self.optional("cluster"))
            }
            _ => (self.required("cluster"), None),
        }
    }

    fn trust(&mut self) -> Option<Trust> {
        let raw: RawTrust = self.required("trust")?;
        let mut roots = Vec::new();
        for text in &raw.roots {
            match text.parse::<PublicKey>() {
                Ok(key) if key.kind() == portcullis_signing::KeyKind::Root => roots.push(key),
                Ok(_) => self.problems.add(
                    "trust.roots",
                    format!("{text} is not a root key"),
                    Some("root keys begin with O"),
                ),
                Err(error) => self.problems.add("trust.roots", error.to_string(), Some("root keys begin with O")),
            }
        }
        if raw.roots.is_empty() {
            self.problems.add("trust.roots", "is empty", Some("name the root keys, they begin with O"));
        } else if raw.threshold == 0 || raw.threshold > raw.roots.len() {
            let why = format!("is {}, with {} root keys it must be 1 to {0}", raw.threshold, raw.roots.len());
            self.problems.add("trust.threshold", why, None);
        }
        let deny_list = raw.deny_list.map(|path| self.base.join(path));
        Some(Trust { policy: self.base.join(raw.policy), roots, threshold: raw.threshold, deny_list })
    }

    fn required<T: serde::de::DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        if !self.table.contains_key(key) {
            self.problems.add(key, "is missing", None);
            return None;
        }
        self.optional(key)
    }

    fn optional<T: serde::de::DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.table.remove(key)?;
        match value.try_into() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.add(key, error.message().to_owned(), None);
                None
            }
        }
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
