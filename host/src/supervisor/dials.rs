//! Makes the connections that the identity process asks for, by names that only the configuration gives a meaning.
//!
//! The process with the keys may not make sockets. Whatever it asks, it reaches nothing but the servers and sockets that the
//! operator named: a name that is not in the table is refused, and an address is never taken from a request.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;

use super::Host;
use crate::config::Config;
use crate::config::identity_source::Outside;
use crate::limits::{DIAL_ATTEMPT, DIALS_WAITING, RESOLVE_TIMEOUT};
use crate::process::handover::Handover;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A Unix socket.
    Unix(PathBuf),
    /// A server; an IPv6 address in brackets.
    Tcp {
        /// Its name or address.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// Every server and socket that the identity process may be connected to.
#[derive(Debug, Default)]
pub struct DialTable {
    targets: BTreeMap<String, Target>,
    names: BTreeMap<String, Vec<IpAddr>>,
}

impl DialTable {
    /// What the configuration names.
    pub fn of(config: &Config) -> Self {
        let federation = config.federation.dial_targets().into_iter();
        let targets = federation.map(|(name, host, port)| (name, Target::Tcp { host, port }));
        let outside = config.identity.outside(&config.trust_domain);
        let sockets = outside.iter().flat_map(Outside::dial_targets);
        let sockets = sockets.map(|(name, path)| (name.to_owned(), Target::Unix(path)));
        Self { targets: targets.chain(sockets).collect(), names: config.names.clone() }
    }

    /// Whether there is nothing to connect to.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// A connected socket.
    pub async fn connect(&self, name: &str) -> io::Result<OwnedFd> {
        match self.targets.get(name) {
            Some(Target::Unix(path)) => {
                let stream = tokio::time::timeout(DIAL_ATTEMPT, UnixStream::connect(path)).await??;
                Ok(stream.into_std()?.into())
            }
            Some(Target::Tcp { host, port }) => {
                let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in self.resolve(host, *port).await?.into_iter().take(MOST_ADDRESSES) {
                    match tokio::time::timeout(DIAL_ATTEMPT, TcpStream::connect(address)).await {
                        Ok(Ok(stream)) => {
                            stream.set_nodelay(true)?;
                            return Ok(stream.into_std()?.into());
                        }
                        Ok(Err(error)) => failed = error,
                        Err(_) => failed = io::ErrorKind::TimedOut.into(),
                    }
                }
                Err(failed)
            }
            None => Err(io::Error::new(io::ErrorKind::PermissionDenied, "not in the configuration")),
        }
    }

    /// The addresses of a host: as written, as in `[names]`, or as the system resolves it.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        if let Some(addresses) = self.names.get(host) {
            return Ok(addresses.iter().map(|address| SocketAddr::new(*address, port)).collect());
        }
        let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, port))).await??;
        Ok(found.collect())
    }
}

/// Serves one identity process until it is gone.
pub async fn follow(host: Arc<Host>, handover: Handover) {
    let table = Arc::new(DialTable::of(&host.config));
    if table.is_empty() {
        return;
    }
    let mut wanted = match host.identity.wanted_dials().await {
        Ok(wanted) => wanted,
        Err(error) => return tracing::error!(%error, "the identity process gets no connections"),
    };
    let (handover, room) = (Arc::new(handover), Arc::new(Semaphore::new(DIALS_WAITING)));
    while let Ok(Some(one)) = wanted.message().await {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (table, handover) = (Arc::clone(&table), Arc::clone(&handover));
        tokio::spawn(async move {
            let sent = match table.connect(&one.target).await {
                Ok(fd) => handover.send("dial", one.transfer, serde_json::Value::Null, &[fd.as_fd()]),
                Err(error) => {
                    let payload = serde_json::json!({ "error": error.to_string() });
                    handover.send("dial", one.transfer, payload, &[])
                }
            };
            if let Err(error) = sent {
                tracing::warn!(%error, "a connection could not be handed down");
            }
            drop(permit);
        });
    }
}

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn table(port: u16) -> DialTable {
        let target = |host: &str| Target::Tcp { host: host.to_owned(), port };
        let targets =
            [("a", target("127.0.0.1")), ("b", target("peer.example")), ("c", Target::Unix("/nowhere".into()))];
        DialTable {
            targets: targets.into_iter().map(|(name, target)| (name.to_owned(), target)).collect(),
            names: [("peer.example".to_owned(), vec![IpAddr::from([127, 0, 0, 1])])].into(),
        }
    }

    #[tokio::test]
    async fn names_of_the_configuration_are_connected_and_no_others() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let table = table(port);
        for name in ["a", "b"] {
            assert!(table.connect(name).await.is_ok(), "{name}");
        }
        for name in [String::new(), "A".into(), format!("127.0.0.1:{port}"), "peer.example".into(), "a ".into()] {
            let refused = table.connect(&name).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{name}");
        }
        assert!(table.connect("c").await.is_err());
    }
}
