//! `identity.source`: where components' identities come from, and how a site's SPIRE is reached.
//!
//! Each source wants its own keys and no others, so that a host never takes its identities from somewhere else than meant.

use std::path::{Path, PathBuf};

use portcullis_identity::{SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};

use super::problems::Problems;

/// Which source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// This host's own authority.
    #[default]
    Builtin,
    /// The Delegated Identity API of a SPIRE agent.
    SpireDelegated,
    /// The SPIFFE Broker API of a SPIRE agent.
    Broker,
}

/// `[identity.spire]`: the sockets of the site's agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spire {
    /// `spire-delegated`: the agent's admin socket.
    pub admin_socket: Option<PathBuf>,
    /// The agent's Workload API, where the host gets its own identity: `broker` needs it for the broker endpoint, and both for
    /// what the host itself shows and signs (NATS, clusters, control over HTTPS).
    pub workload_socket: Option<PathBuf>,
    /// `broker`: the broker endpoint.
    pub broker_socket: Option<PathBuf>,
    /// `broker`: the SPIFFE ID of the broker endpoint, which is the agent's.
    pub broker_id: Option<SpiffeId>,
    /// `broker`: the host's own SPIFFE ID at the site. Absent: `/portcullis/host` of the trust domain.
    pub host_id: Option<SpiffeId>,
}

/// A source outside of this host, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outside {
    /// The Delegated Identity API.
    SpireDelegated {
        /// The agent's admin socket.
        admin_socket: PathBuf,
        /// The agent's Workload API, for the host itself.
        workload_socket: Option<PathBuf>,
    },
    /// The Broker API.
    Broker {
        /// The agent's Workload API.
        workload_socket: PathBuf,
        /// The broker endpoint.
        broker_socket: PathBuf,
        /// Who the endpoint must be.
        broker_id: SpiffeId,
        /// Who the host is.
        host_id: SpiffeId,
    },
}

impl Spire {
    /// Resolves paths against the folder of the configuration file.
    pub(super) fn rebased(mut self, base: &Path) -> Self {
        for path in [&mut self.admin_socket, &mut self.workload_socket, &mut self.broker_socket] {
            *path = path.take().map(|path| base.join(path));
        }
        self
    }

    /// The source outside of this host, if it is one; what is missing or has no meaning otherwise.
    pub fn outside(&self, source: Source, own: &TrustDomain) -> Result<Option<Outside>, Vec<String>> {
        let given = [
            ("admin_socket", self.admin_socket.is_some(), Source::SpireDelegated),
            ("workload_socket", self.workload_socket.is_some(), Source::Broker),
            ("broker_socket", self.broker_socket.is_some(), Source::Broker),
            ("broker_id", self.broker_id.is_some(), Source::Broker),
            ("host_id", self.host_id.is_some(), Source::Broker),
        ];
        let mut wrong: Vec<String> = Vec::new();
        for (key, there, of) in given {
            // Optional beside `spire-delegated`: without it the host itself has no identity.
            if key == "workload_socket" && source == Source::SpireDelegated {
                continue;
            }
            if there && of != source {
                wrong.push(format!("{key} has no meaning with this source"));
            } else if !there && of == source && key != "host_id" {
                wrong.push(format!("{key} is missing"));
            }
        }
        let default = || format!("spiffe://{own}{HOST_PATH}").parse::<SpiffeId>().ok();
        let ids = [("broker_id", &self.broker_id), ("host_id", &self.host_id)];
        for (key, id) in ids.into_iter().filter_map(|(key, id)| Some((key, id.as_ref()?))) {
            if id.trust_domain() != own || !id.has_path() {
                wrong.push(format!("{key} must be a workload of {own}"));
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(match source {
            Source::Builtin => None,
            Source::SpireDelegated => {
                let workload_socket = self.workload_socket.clone();
                self.admin_socket.clone().map(|admin_socket| Outside::SpireDelegated { admin_socket, workload_socket })
            }
            Source::Broker => {
                let sockets = self.workload_socket.clone().zip(self.broker_socket.clone());
                let ids = self.broker_id.clone().zip(self.host_id.clone().or_else(default));
                sockets.zip(ids).map(|((workload_socket, broker_socket), (broker_id, host_id))| Outside::Broker {
                    workload_socket,
                    broker_socket,
                    broker_id,
                    host_id,
                })
            }
        })
    }

    /// Says what is wrong.
    pub(super) fn check(&self, source: Source, own: Option<&TrustDomain>, problems: &mut Problems) {
        let wrong = own.and_then(|own| self.outside(source, own).err()).unwrap_or_default();
        for why in wrong {
            problems.add("identity.spire", why, Some("see docs/identity-sources.md for what each source takes"));
        }
    }
}

impl Outside {
    /// The Workload API that gives the host its own identity.
    pub fn workload_socket(&self) -> Option<&Path> {
        match self {
            Self::SpireDelegated { workload_socket, .. } => workload_socket.as_deref(),
            Self::Broker { workload_socket, .. } => Some(workload_socket),
        }
    }

    /// Sockets that the supervisor connects to, by the names that the identity process asks for.
    pub fn dial_targets(&self) -> Vec<(&'static str, PathBuf)> {
        match self {
            Self::SpireDelegated { admin_socket, workload_socket } => {
                let admin = (ADMIN_SOCKET, admin_socket.clone());
                std::iter::once(admin).chain(workload_socket.clone().map(|socket| (WORKLOAD_SOCKET, socket))).collect()
            }
            Self::Broker { workload_socket, broker_socket, .. } => {
                vec![(WORKLOAD_SOCKET, workload_socket.clone()), (BROKER_SOCKET, broker_socket.clone())]
            }
        }
    }
}

/// The name of the agent's admin socket in the supervisor's table of dials.
pub const ADMIN_SOCKET: &str = "spire admin";
/// The name of the agent's Workload API.
pub const WORKLOAD_SOCKET: &str = "spire workload";
/// The name of the agent's broker endpoint.
pub const BROKER_SOCKET: &str = "spire broker";
/// The path of the host's own SPIFFE ID.
const HOST_PATH: &str = "/portcullis/host";

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(source: Source, text: &str) -> Result<Option<Outside>, String> {
        let spire: Spire = toml::from_str(text).map_err(|error| error.to_string())?;
        let spire = spire.rebased(Path::new("/etc/portcullis"));
        spire.outside(source, &"example.org".parse().unwrap()).map_err(|wrong| wrong.join("; "))
    }

    const BROKER: &str = "workload_socket = \"/run/w\"\nbroker_socket = \"b\"\n";

    #[test]
    fn each_source_takes_its_own_keys() {
        assert_eq!(outside(Source::Builtin, ""), Ok(None));
        let delegated = outside(Source::SpireDelegated, "admin_socket = \"a.sock\"").unwrap().unwrap();
        assert_eq!(delegated.dial_targets(), [(ADMIN_SOCKET, PathBuf::from("/etc/portcullis/a.sock"))]);
        assert_eq!(delegated.workload_socket(), None, "then the host itself has no identity");
        let both = outside(Source::SpireDelegated, "admin_socket = \"a.sock\"\nworkload_socket = \"/run/w\"")
            .unwrap()
            .unwrap();
        assert_eq!(both.dial_targets().len(), 2);
        assert_eq!(both.workload_socket(), Some(Path::new("/run/w")));
        let id = "broker_id = \"spiffe://example.org/spire/agent/a\"";
        let broker = outside(Source::Broker, &format!("{BROKER}{id}")).unwrap().unwrap();
        assert_eq!(broker.dial_targets().len(), 2);
        let Outside::Broker { host_id, .. } = broker else { panic!("no broker") };
        assert_eq!(host_id.to_string(), "spiffe://example.org/portcullis/host");
    }

    #[test]
    fn what_is_missing_and_what_has_no_meaning_is_named() {
        for (source, text, why) in [
            (Source::SpireDelegated, String::new(), "admin_socket is missing"),
            (Source::Builtin, "admin_socket = \"a\"".to_owned(), "admin_socket has no meaning"),
            (Source::Broker, BROKER.to_owned(), "broker_id is missing"),
            (Source::SpireDelegated, format!("admin_socket = \"a\"\n{BROKER}"), "broker_socket has no meaning"),
            (Source::Builtin, "workload_socket = \"a\"".to_owned(), "workload_socket has no meaning"),
            (Source::Broker, format!("{BROKER}broker_id = \"spiffe://other.example/a\""), "must be a workload of"),
            (Source::Broker, format!("{BROKER}broker_id = \"spiffe://example.org\""), "must be a workload of"),
            (Source::Builtin, "token = \"a\"".to_owned(), "unknown field"),
        ] {
            let wrong = outside(source, &text).unwrap_err();
            assert!(wrong.contains(why), "{text}: {wrong}");
        }
    }
}
