//! `operator.toml`: how an operator's command line reaches hosts, who it is, and whom it believes.
//!
//! ```toml
//! version = 1
//! trust_domain = "prod.example"           # of the hosts
//! bundle = "bundle.json"                  # of that trust domain: answers and servers are checked with it
//! cluster = "prod"                        # for NATS
//!
//! [key]                                   # who signs: an X.509-SVID, or the seed of an nkey
//! svid = "svid.pem"
//! svid_key = "svid_key.pem"
//! # nkey = "operator.nk"
//!
//! [https]                                 # hosts that are reached so; needs an SVID
//! h1 = "192.0.2.7:7443"
//!
//! [nats]                                  # as in a host's configuration; for all other hosts
//! servers = ["tls://nats.example:4222"]
//! account = "CTL"
//! tls.ca = "nats-ca.pem"
//! auth.nkey = "operator-nats.nk"
//!
//! [[member]]                              # hosts that sign with an nkey ([cluster] key): the only one who signs for it
//! host = "h2"
//! who = "U..."
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portcullis_identity::statement::Signer;
use portcullis_identity::{SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};

use super::cluster::Member;
use super::problems::Problems;
use super::{ConfigError, Nats};

/// The whole file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorConfig {
    version: i64,
    /// The trust domain of the hosts.
    pub trust_domain: TrustDomain,
    /// Its SPIFFE bundle document.
    pub bundle: PathBuf,
    /// The cluster.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Who signs.
    pub key: OperatorKey,
    /// Hosts that are reached by HTTPS: name to `ADDRESS:PORT` or `NAME:PORT`.
    #[serde(default)]
    pub https: BTreeMap<String, String>,
    /// The way to all others.
    #[serde(default)]
    pub nats: Option<Nats>,
    /// Hosts whose signer is pinned: those that sign with an nkey.
    #[serde(default)]
    pub member: Vec<Member>,
}

/// `[key]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OperatorKey {
    /// The chain of an X.509-SVID, PEM.
    pub svid: Option<PathBuf>,
    /// Its key, PEM.
    pub svid_key: Option<PathBuf>,
    /// A file with the seed of a user's nkey.
    pub nkey: Option<PathBuf>,
}

impl OperatorConfig {
    /// Whether this is the one who signs for a host with this SPIFFE ID.
    pub fn signs_for(&self, host: &str, id: &SpiffeId, signer: &Signer) -> bool {
        match (Member::pinned(&self.member, host), signer) {
            (Some(who), signer) => who.is(signer),
            (None, Signer::Svid(shown)) => shown == id,
            (None, Signer::Nkey(_)) => false,
        }
    }

    /// Parses and checks the text of a file that lies at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut problems = Problems::new(path);
        let read: Self = match toml::from_str(text) {
            Ok(read) => read,
            Err(error) => {
                problems.toml("", text, &error);
                return Err(problems.into_error());
            }
        };
        let base = path.parent().unwrap_or(Path::new("."));
        let read = read.check(base, &mut problems);
        if problems.is_empty() { Ok(read) } else { Err(problems.into_error()) }
    }

    fn check(mut self, base: &Path, problems: &mut Problems) -> Self {
        if self.version != 1 {
            problems.add("version", format!("is {}, this build reads 1", self.version), None);
        }
        self.bundle = base.join(&self.bundle);
        for path in [&mut self.key.svid, &mut self.key.svid_key, &mut self.key.nkey] {
            *path = path.take().map(|path| base.join(path));
        }
        match (&self.key.svid, &self.key.svid_key, &self.key.nkey) {
            (Some(_), Some(_), None) => {}
            (None, None, Some(_)) if self.https.is_empty() => {}
            (None, None, Some(_)) => {
                problems.add("https", "needs an X.509-SVID: TLS shows it", Some("sign with key.svid, or use NATS"));
            }
            _ => problems.add("key", "names not exactly one signer", Some("svid and svid_key, or nkey")),
        }
        if self.https.is_empty() && self.nats.is_none() {
            problems.add("nats", "no host can be reached", Some("name hosts under [https], or add [nats]"));
        }
        for name in self.https.keys().filter(|name| !portcullis_policies::is_host_name(name)) {
            let why = format!("`{}` is not the name of a host", name.escape_default());
            problems.add("https", why, Some("1 to 63 lower-case letters, digits and dashes"));
        }
        if self.nats.is_some() && !self.cluster.as_deref().is_some_and(portcullis_policies::is_host_name) {
            problems.add("cluster", "must name the cluster, a token of subjects", Some("such as cluster = \"prod\""));
        }
        Member::check(&self.member, "member", problems);
        self.nats = self.nats.take().map(|nats| nats.check(base, problems));
        if self.nats.as_ref().is_some_and(|nats| nats.host.auth.is_svid()) {
            let hint = "certificate and key of the operator's own SVID, nkey, credentials, or user and password";
            problems.add("nats.auth", "svid and jwt_audience are made by a host, for itself", Some(hint));
        }
        if self.nats.as_ref().is_some_and(|nats| nats.data.is_some()) {
            problems.add("nats.data", "is for the components of a host", Some("leave it out"));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version = 1\ntrust_domain = \"prod.example\"\nbundle = \"b.json\"\n[key]\nsvid = \"s.pem\"\nsvid_key = \"k.pem\"\n[https]\nh1 = \"127.0.0.1:1\"\n";

    fn read(text: &str) -> Result<OperatorConfig, String> {
        OperatorConfig::parse(text, Path::new("/etc/op/operator.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_are_beside_the_file() {
        let read = read(GOOD).unwrap();
        assert_eq!(read.bundle, Path::new("/etc/op/b.json"));
        assert_eq!(read.key.svid.as_deref(), Some(Path::new("/etc/op/s.pem")));
    }

    #[test]
    fn what_reaches_nobody_or_proves_nobody_is_refused() {
        let nats = |auth: &str| {
            format!("[nats]\nservers = [\"tls://n:1\"]\naccount = \"A\"\ntls.ca = \"ca\"\n[nats.auth]\n{auth}\n")
        };
        for (from, to, why) in [
            ("version = 1", "version = 2", "this build reads 1"),
            ("svid_key = \"k.pem\"\n", "", "not exactly one signer"),
            ("svid_key = \"k.pem\"", "svid_key = \"k.pem\"\nnkey = \"n\"", "not exactly one signer"),
            ("svid = \"s.pem\"\nsvid_key = \"k.pem\"", "nkey = \"n\"", "needs an X.509-SVID"),
            ("[https]\nh1 = \"127.0.0.1:1\"\n", "", "no host can be reached"),
            ("h1 =", "\"H.1\" =", "not the name of a host"),
            ("version = 1", "version = 1\nother = 1", "unknown field"),
            ("[https]\nh1 = \"127.0.0.1:1\"\n", &nats("svid = true"), "made by a host, for itself"),
            ("[https]\nh1 = \"127.0.0.1:1\"\n", &nats("jwt_audience = \"nats\""), "made by a host, for itself"),
            ("[https]\nh1 = \"127.0.0.1:1\"\n", &nats(""), "nothing that proves who connects"),
        ] {
            let wrong = read(&GOOD.replace(from, to)).unwrap_err();
            assert!(wrong.contains(why), "{to}: {wrong}");
        }
    }
}
