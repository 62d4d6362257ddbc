//! `[broker]`: the SPIFFE Broker API for this host's own components, and which brokers may ask for which of them.
//!
//! Opt-in, and deny by default: each broker names the components that it may refer to and what it may have.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use portcullis_identity::SpiffeId;
use portcullis_identity::broker::{AllowList, AllowListError, AllowedBroker};
use serde::{Deserialize, Serialize};

use super::problems::Problems;

/// Section `[broker]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// The Unix socket. Absent: none.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Its mode, octal.
    #[serde(default = "owner_only")]
    pub mode: String,
    /// The group that it is given to: a name or a number.
    #[serde(default)]
    pub group: Option<String>,
    /// `ADDRESS:PORT`, for brokers that cannot reach the socket; port 0 picks a free one. Absent: none.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// The brokers that are let in.
    #[serde(default)]
    pub allow: Vec<Allow>,
}

/// `[[broker.allow]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// The broker's SPIFFE ID, exactly.
    pub id: SpiffeId,
    /// Claimed names of components that it may refer to.
    pub components: Vec<String>,
    /// Whether it may have X.509-SVIDs with their private keys.
    #[serde(default)]
    pub x509: bool,
    /// Whether it may have JWT-SVIDs.
    #[serde(default)]
    pub jwt: bool,
}

impl Broker {
    /// Resolves paths against the folder of the configuration file, and says what is wrong.
    pub(super) fn check(mut self, base: &Path, problems: &mut Problems) -> Self {
        self.socket = self.socket.take().map(|path| base.join(path));
        if self.socket.is_none() && self.listen.is_none() {
            problems.add("broker", "is served nowhere", Some("name a socket, such as socket = \"run/broker.sock\""));
        }
        if self.mode_bits().is_none() {
            let why = format!("`{}` is no mode of a socket", self.mode.escape_default());
            problems.add("broker.mode", why, Some("\"600\" or \"660\""));
        }
        if self.allow.is_empty() {
            problems.add("broker.allow", "is empty: nobody could ask", Some("add [[broker.allow]] entries"));
        }
        if let Err(error) = self.allow_list() {
            problems.add("broker.allow", error.to_string(), Some(error.hint()));
        }
        for name in self.allow.iter().flat_map(|allow| &allow.components) {
            if !portcullis_policies::is_component_name(name) {
                let why = format!("`{}` is not a component's name", name.escape_default());
                problems.add("broker.allow", why, Some("name components as in their claims, such as shop:orders"));
            }
        }
        self
    }

    /// The mode as a number: nothing but read and write.
    pub fn mode_bits(&self) -> Option<u32> {
        u32::from_str_radix(&self.mode, 8).ok().filter(|mode| mode & !0o666 == 0 && mode & 0o600 == 0o600)
    }

    /// The brokers that are let in.
    pub fn allow_list(&self) -> Result<AllowList, AllowListError> {
        let allowed = self.allow.iter().cloned().map(|Allow { id, components, x509, jwt }| AllowedBroker {
            id,
            components,
            x509,
            jwt,
        });
        AllowList::new(allowed.collect())
    }
}

fn owner_only() -> String {
    "600".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Broker, String> {
        let broker: Broker = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut problems = Problems::new(Path::new("portcullis.toml"));
        let broker = broker.check(Path::new("/etc/portcullis"), &mut problems);
        if problems.is_empty() { Ok(broker) } else { Err(problems.into_error().to_string()) }
    }

    const ALLOW: &str = "[[allow]]\nid = \"spiffe://example.org/mesh\"\ncomponents = [\"shop:cart\"]\n";

    #[test]
    fn a_socket_and_a_broker_are_enough() {
        let broker = read(&format!("socket = \"b.sock\"\n{ALLOW}jwt = true")).unwrap();
        assert_eq!(broker.socket.as_deref(), Some(Path::new("/etc/portcullis/b.sock")));
        assert_eq!(broker.mode_bits(), Some(0o600));
        let list = broker.allow_list().unwrap();
        let found = list.get(&"spiffe://example.org/mesh".parse().unwrap()).unwrap();
        assert!(found.jwt && !found.x509);
    }

    #[test]
    fn what_would_serve_nobody_or_too_many_is_refused() {
        for (text, why) in [
            (format!("{ALLOW}jwt = true"), "is served nowhere"),
            ("socket = \"b\"".to_owned(), "nobody could ask"),
            (format!("socket = \"b\"\n{ALLOW}"), "neither X.509-SVIDs nor JWT-SVIDs"),
            (format!("socket = \"b\"\nmode = \"0777\"\n{ALLOW}jwt = true"), "no mode of a socket"),
            (format!("socket = \"b\"\nmode = \"0060\"\n{ALLOW}jwt = true"), "no mode of a socket"),
            (format!("socket = \"b\"\n{}jwt = true", ALLOW.replace("shop:cart", "*")), "is not a component's name"),
            (format!("socket = \"b\"\n{}jwt = true", ALLOW.replace("org/mesh", "org")), "is a trust domain"),
            (format!("socket = \"b\"\nother = 1\n{ALLOW}jwt = true"), "unknown field"),
        ] {
            let wrong = read(&text).unwrap_err();
            assert!(wrong.contains(why), "{text}: {wrong}");
        }
    }
}
