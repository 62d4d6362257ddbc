//! `[cluster]`: this host's name in its cluster, whose heartbeats and documents it believes, and how it takes part.
//!
//! Without `host` a cluster's name is only the audience of claims. With it the host reads what it is to run from NATS, so `[nats]`
//! must be there too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_cluster::limits::HEARTBEAT_INTERVAL;
use portcullis_cluster::manifest::check_labels;
use portcullis_cluster::{ClusterName, HostId};
use portcullis_identity::statement::UserKey;
use portcullis_identity::{SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};

use super::problems::Problems;
use crate::limits::{CLUSTER_MEMBERS, CLUSTER_STALE, CLUSTER_TRUST_FILES};

/// Section `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// This host's name: the end of its SPIFFE ID, a token of its subjects.
    pub host: String,
    /// What manifests may select it by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Between two heartbeats, in milliseconds.
    #[serde(default = "heartbeat_ms")]
    pub heartbeat_ms: u64,
    /// Between two looks at the buckets, in milliseconds. New values are heard of at once; this heals what was missed.
    #[serde(default = "read_ms")]
    pub read_ms: u64,
    /// How old the last look at the revocations may be, in seconds. Past it the host is not ready and starts nothing.
    #[serde(default = "stale_seconds")]
    pub stale_seconds: u64,
    /// The folder that `source.file` of manifests is in. Absent: such manifests do not start here.
    #[serde(default)]
    pub files: Option<PathBuf>,
    /// The only CA that may vouch for registries (PEM). Absent: those of this machine.
    #[serde(default)]
    pub registry_ca: Option<PathBuf>,
    /// Whether the cluster's set of policies is in force here, beside the host's own files.
    #[serde(default)]
    pub policies: bool,
    /// Further trust domains whose hosts are of this cluster, and further authorities of the own one: bundle documents.
    #[serde(default)]
    pub trust: BTreeMap<String, Bundles>,
    /// Hosts whose signer is pinned.
    #[serde(default)]
    pub member: Vec<Member>,
}

/// Bundle documents of one trust domain; of several all authorities count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Bundles {
    /// One file.
    One(PathBuf),
    /// Several.
    Several(Vec<PathBuf>),
}

/// `[[cluster.member]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The host's name.
    pub host: String,
    /// The only one that signs for it: a SPIFFE ID, or an nkey (`U...`).
    pub who: String,
}

/// Who signs for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Whoever has an SVID with this ID.
    Svid(SpiffeId),
    /// Whoever has this key.
    Nkey(UserKey),
}

impl Bundles {
    /// The files.
    pub fn paths(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }

    fn rebase(&mut self, base: &Path) {
        match self {
            Self::One(path) => *path = base.join(&*path),
            Self::Several(paths) => paths.iter_mut().for_each(|path| *path = base.join(&*path)),
        }
    }
}

impl Member {
    /// Who signs for it.
    pub fn who(&self) -> Option<Who> {
        match self.who.starts_with("spiffe:") {
            true => self.who.parse().ok().map(Who::Svid),
            false => self.who.parse().ok().map(Who::Nkey),
        }
    }
}

impl Cluster {
    /// Resolves paths against the folder of the configuration file, and says what is wrong.
    pub(super) fn check(mut self, base: &Path, cluster: Option<&str>, nats: bool, problems: &mut Problems) -> Self {
        if self.host_id().is_none() {
            let why = format!("`{}` is no host's name", self.host.escape_default());
            problems.add("cluster.host", why, Some("1 to 63 characters of a-z, 0-9 and `-`, such as eu-west-1"));
        }
        if cluster.is_some_and(|name| name.parse::<ClusterName>().is_err()) {
            let why = "must be a token of NATS subjects where [cluster] is used";
            problems.add("cluster", why, Some("1 to 63 characters of a-z, 0-9 and `-`, such as production"));
        }
        if !nats {
            problems.add("cluster", "has no way to the others", Some("add [nats]"));
        }
        if let Err(error) = check_labels(&self.labels) {
            problems.add("cluster.labels", error.to_string(), None);
        }
        let (least, most) = HEARTBEAT_INTERVAL;
        if !(least..=most).contains(&self.heartbeat()) {
            let why = format!("is {}, must be {} to {}", self.heartbeat_ms, least.as_millis(), most.as_millis());
            problems.add("cluster.heartbeat_ms", why, None);
        }
        if !(least..=most).contains(&self.read()) {
            let why = format!("is {}, must be {} to {}", self.read_ms, least.as_millis(), most.as_millis());
            problems.add("cluster.read_ms", why, None);
        }
        let (least, most) = CLUSTER_STALE;
        if !(least..=most).contains(&self.stale()) {
            let why = format!("is {}, must be {} to {}", self.stale_seconds, least.as_secs(), most.as_secs());
            problems.add("cluster.stale_seconds", why, None);
        } else if self.stale() < self.read().saturating_mul(3) {
            let hint = "a host that misses one look would stop starting anything";
            problems.add("cluster.stale_seconds", "is less than three times `read_ms`", Some(hint));
        }
        self.files = self.files.take().map(|path| base.join(path));
        self.registry_ca = self.registry_ca.take().map(|path| base.join(path));
        for (name, bundles) in &mut self.trust {
            if name.parse::<TrustDomain>().is_err() {
                let why = format!("`{}` is no trust domain", name.escape_default());
                problems.add("cluster.trust", why, Some("such as \"example.org\" = \"bundle.json\""));
            }
            bundles.rebase(base);
        }
        if self.trust.values().map(|bundles| bundles.paths().len()).sum::<usize>() > CLUSTER_TRUST_FILES {
            problems.add("cluster.trust", format!("names more than {CLUSTER_TRUST_FILES} files"), None);
        }
        self.check_members(problems);
        self
    }

    fn check_members(&self, problems: &mut Problems) {
        if self.member.len() > CLUSTER_MEMBERS {
            problems.add("cluster.member", format!("there are more than {CLUSTER_MEMBERS}"), None);
        }
        let mut names = std::collections::BTreeSet::new();
        for member in &self.member {
            if member.host.parse::<HostId>().is_err() || !names.insert(&member.host) {
                let why = format!("`{}` is no host's name, or there twice", member.host.escape_default());
                problems.add("cluster.member", why, None);
            }
            if member.who().is_none() {
                let why = format!("`{}` is neither a SPIFFE ID nor an nkey of a user", member.who.escape_default());
                problems.add(
                    "cluster.member",
                    why,
                    Some("who = \"spiffe://example.org/portcullis/host/h2\", or \"U...\""),
                );
            }
        }
    }

    /// This host's name.
    pub fn host_id(&self) -> Option<HostId> {
        self.host.parse().ok()
    }

    /// Between two heartbeats.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// Between two looks at the buckets.
    pub fn read(&self) -> Duration {
        Duration::from_millis(self.read_ms)
    }

    /// How old the last look at the revocations may be.
    pub fn stale(&self) -> Duration {
        Duration::from_secs(self.stale_seconds)
    }
}

fn heartbeat_ms() -> u64 {
    1_000
}

fn read_ms() -> u64 {
    5_000
}

fn stale_seconds() -> u64 {
    300
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, cluster: &str, nats: bool) -> Result<Cluster, String> {
        let section: Cluster = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut problems = Problems::new(Path::new("portcullis.toml"));
        let section = section.check(Path::new("/etc/portcullis"), Some(cluster), nats, &mut problems);
        if problems.is_empty() { Ok(section) } else { Err(problems.into_error().to_string()) }
    }

    #[test]
    fn a_name_is_enough_and_paths_are_beside_the_file() {
        let section = read("host = \"h1\"", "prod", true).unwrap();
        assert_eq!((section.heartbeat(), section.stale()), (Duration::from_secs(1), Duration::from_secs(300)));
        let text = "host = \"h1\"\nfiles = \"apps\"\nlabels = { zone = \"eu\" }\n[trust]\n\"example.org\" = [\"a.json\", \"b.json\"]\n\"example.com\" = \"c.json\"";
        let section = read(text, "prod", true).unwrap();
        assert_eq!(section.files.as_deref(), Some(Path::new("/etc/portcullis/apps")));
        let paths: Vec<_> = section.trust.values().flat_map(Bundles::paths).collect();
        assert_eq!(paths.len(), 3);
        assert!(paths.iter().all(|path| path.starts_with("/etc/portcullis")));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let member = |host: &str, who: &str| format!("host = \"h1\"\n[[member]]\nhost = \"{host}\"\nwho = \"{who}\"");
        let many = (0..=CLUSTER_TRUST_FILES).map(|n| format!("\"f{n}\"")).collect::<Vec<_>>().join(",");
        for (text, cluster, nats, why) in [
            ("host = \"a.b\"", "prod", true, "no host's name"),
            ("host = \"*\"", "prod", true, "no host's name"),
            ("host = \"h1\"", "prod.eu", true, "token of NATS subjects"),
            ("host = \"h1\"", "prod", false, "add [nats]"),
            ("host = \"h1\"\nheartbeat_ms = 1", "prod", true, "cluster.heartbeat_ms"),
            ("host = \"h1\"\nread_ms = 99", "prod", true, "cluster.read_ms"),
            ("host = \"h1\"\nstale_seconds = 0", "prod", true, "cluster.stale_seconds"),
            ("host = \"h1\"\nstale_seconds = 6", "prod", true, "three times"),
            ("host = \"h1\"\nother = 1", "prod", true, "unknown field"),
            ("host = \"h1\"\n[trust]\n\"a b\" = \"x\"", "prod", true, "no trust domain"),
            (&format!("host = \"h1\"\n[trust]\n\"a.b\" = [{many}]"), "prod", true, "files"),
            (&member("h2", "SUAX"), "prod", true, "neither a SPIFFE ID nor an nkey"),
            (&member(">", "spiffe://a.b/c"), "prod", true, "cluster.member"),
            ("host = \"h1\"\n[labels]\n\"\" = \"x\"", "prod", true, "cluster.labels"),
        ] {
            let wrong = read(text, cluster, nats).unwrap_err();
            assert!(wrong.contains(why), "{text}: {wrong}");
        }
    }
}
