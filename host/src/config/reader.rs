//! From the text of `portcullis.toml` to a checked configuration: each section is taken out of the table once, checked by its own
//! module, and what is left over is an unknown key.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use portcullis_identity::TrustDomain;
use portcullis_signing::PublicKey;
use serde::Deserialize;

use super::broker::Broker;
use super::federation::Federation;
use super::identity::Identity;
use super::limits::Limits;
use super::nats::Nats;
use super::oidc::Oidc;
use super::problems::Problems;
use super::{
    Audit, Component, Config, Dangers, Listen, Policy, Route, Trust, VERSION, check_route, cluster, control,
    identity_source, messaging, workload_api,
};

/// A file on its way to a configuration.
pub(super) struct Reader<'a> {
    /// What is left to be read: every key is taken out of it once.
    pub(super) table: toml::Table,
    /// What paths are relative to.
    pub(super) base: &'a Path,
    /// What is wrong so far.
    pub(super) problems: &'a mut Problems,
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
    /// The configuration; `None` where it cannot be one. Problems are in the list either way.
    pub(super) fn read(mut self, path: &Path, state_default: &Path) -> Option<Config> {
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
