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
use portcullis_identity::statement::{Signer, UserKey};
use portcullis_identity::{SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};

use super::nats::readable_by_others;
use super::problems::Problems;
use crate::limits::{CLUSTER_MEMBERS, CLUSTER_OFFLINE_HOURS, CLUSTER_STALE, CLUSTER_TRUST_FILES};

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
    /// For how many hours after the last look at the revocations a host that starts without NATS starts what it ran. Zero: never.
    #[serde(default = "offline_h")]
    pub offline_h: u64,
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
    /// The seed of an nkey that signs what this host says, instead of its X.509-SVID. The other hosts pin it: `[[cluster.member]]`.
    #[serde(default)]
    pub key: Option<PathBuf>,
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

impl Who {
    /// Whether this is who signed something.
    pub fn is(&self, signer: &Signer) -> bool {
        match (self, signer) {
            (Self::Svid(pinned), Signer::Svid(id)) => pinned == id,
            (Self::Nkey(pinned), Signer::Nkey(key)) => pinned == key,
            (Self::Svid(_), Signer::Nkey(_)) | (Self::Nkey(_), Signer::Svid(_)) => false,
        }
    }
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
    /// Checks a list of members.
    pub(super) fn check(members: &[Self], section: &str, problems: &mut Problems) {
        if members.len() > CLUSTER_MEMBERS {
            problems.add(section, format!("there are more than {CLUSTER_MEMBERS}"), None);
        }
        let (mut names, mut signers) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        for member in members {
            if member.host.parse::<HostId>().is_err() || !names.insert(&member.host) {
                let why = format!("`{}` is no host's name, or there twice", member.host.escape_default());
                problems.add(section, why, None);
            }
            if member.who().is_none() {
                let why = format!("`{}` is neither a SPIFFE ID nor an nkey of a user", member.who.escape_default());
                let hint = "who = \"spiffe://example.org/portcullis/host/h2\", or \"U...\"";
                problems.add(section, why, Some(hint));
            } else if !signers.insert(&member.who) {
                let why = format!("{} signs for two hosts: each could speak for the other", member.who);
                problems.add(section, why, Some("a key for each host"));
            }
        }
    }

    /// Who signs for a host, of those that are pinned.
    pub fn pinned(members: &[Self], host: &str) -> Option<Who> {
        members.iter().find(|member| member.host == host).and_then(Self::who)
    }

    /// The host whose statements this one signs, by SPIFFE ID or key, of those that are pinned.
    pub fn signed_by<'a>(members: &'a [Self], who: &str) -> Option<&'a str> {
        members.iter().find(|member| member.who == who).map(|member| member.host.as_str())
    }

    /// The keys of these members.
    pub fn keys(members: &[Self]) -> impl Iterator<Item = UserKey> {
        members.iter().filter_map(Self::who).filter_map(|who| match who {
            Who::Nkey(key) => Some(key),
            Who::Svid(_) => None,
        })
    }

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
        if self.offline_h > CLUSTER_OFFLINE_HOURS {
            let why = format!("is {}, must be at most {CLUSTER_OFFLINE_HOURS}", self.offline_h);
            problems.add("cluster.offline_h", why, Some("0 starts nothing without NATS"));
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
        Member::check(&self.member, "cluster.member", problems);
        self.key = self.key.take().map(|path| base.join(path));
        if let Some(why) = self.key.as_deref().and_then(readable_by_others) {
            problems.add("cluster.key", why, Some("chmod 600 it, and make a new key"));
        }
        if self.key.is_some() && self.own_key().is_none() {
            let hint =
                "[[cluster.member]] with host = this host's name and who = the key's public half, U..., on every host";
            problems.add("cluster.key", "is pinned by nobody: not even this host would believe it", Some(hint));
        }
        self
    }

    /// The key that signs for this host, as it is pinned, where one does.
    pub fn own_key(&self) -> Option<UserKey> {
        match Member::pinned(&self.member, &self.host) {
            Some(Who::Nkey(key)) => Some(key),
            Some(Who::Svid(_)) | None => None,
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

    /// For how long after the last look at the revocations what ran is started again without NATS.
    pub fn offline(&self) -> Duration {
        Duration::from_secs(self.offline_h.saturating_mul(3_600))
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

fn offline_h() -> u64 {
    24
}

fn stale_seconds() -> u64 {
    300
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "UAI2BB2S4FQ24RWDTYA2CRWMGKUAUR5WMQREV4PTAV244G4B22PJNEMG";

    #[test]
    fn a_key_that_others_can_read_or_that_is_not_pinned_for_this_host_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("host.nk");
        let text = format!("host = \"h1\"\nkey = \"{}\"\n[[member]]\nhost = \"h1\"\nwho = \"{KEY}\"", path.display());
        std::fs::write(&path, "SU").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let section = read(&text, "prod", true).unwrap();
        assert_eq!(section.own_key().unwrap().to_string(), KEY);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&text, "prod", true).unwrap_err().contains("others can read it"));
    }

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
            ("host = \"h1\"\noffline_h = 721", "prod", true, "cluster.offline_h"),
            ("host = \"h1\"\nother = 1", "prod", true, "unknown field"),
            ("host = \"h1\"\n[trust]\n\"a b\" = \"x\"", "prod", true, "no trust domain"),
            (&format!("host = \"h1\"\n[trust]\n\"a.b\" = [{many}]"), "prod", true, "files"),
            (&member("h2", "SUAX"), "prod", true, "neither a SPIFFE ID nor an nkey"),
            (&member(">", "spiffe://a.b/c"), "prod", true, "cluster.member"),
            ("host = \"h1\"\nkey = \"host.nk\"", "prod", true, "pinned by nobody"),
            (
                &format!("host = \"h1\"\nkey = \"k\"\n[[member]]\nhost = \"h2\"\nwho = \"{KEY}\""),
                "prod",
                true,
                "pinned by nobody",
            ),
            (&format!("{}\n[[member]]\nhost = \"h3\"\nwho = \"{KEY}\"", member("h2", KEY)), "prod", true, "two hosts"),
            ("host = \"h1\"\n[labels]\n\"\" = \"x\"", "prod", true, "cluster.labels"),
        ] {
            let wrong = read(text, cluster, nats).unwrap_err();
            assert!(wrong.contains(why), "{text}: {wrong}");
        }
    }
}
