//! The listening sockets of the endpoints that the identity process serves: bound here, handed down at each of its starts, so
//! that it opens none itself and a restarted one loses no client in the queue.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

use super::HostError;
use crate::config::Config;
use crate::process::child::Child;
use crate::roles::identity::endpoint::Kind;

/// Bound sockets and what each is for.
#[derive(Debug)]
pub struct Endpoints(Vec<(Kind, TcpListener)>);

impl Endpoints {
    /// Binds what is configured.
    pub fn bind(config: &Config) -> Result<Self, HostError> {
        let federation = &config.federation;
        let wanted = [
            (Kind::BundleWeb, federation.https_web.as_ref().map(|endpoint| endpoint.listen)),
            (Kind::BundleSpiffe, federation.https_spiffe.as_ref().map(|endpoint| endpoint.listen)),
            (Kind::Oidc, config.oidc.as_ref().and_then(|oidc| oidc.listen)),
        ];
        let mut bound = Vec::new();
        for (kind, address) in wanted {
            let Some(address) = address else { continue };
            bound.push((kind, TcpListener::bind(address).map_err(|error| HostError::Listen(address, error))?));
        }
        Ok(Self(bound))
    }

    /// Gives them to an identity process.
    pub fn hand_down(&self, identity: &Child) -> io::Result<()> {
        for (kind, listener) in &self.0 {
            identity.handover.send("endpoint", 0, serde_json::to_value(kind)?, &[listener.as_fd()])?;
        }
        Ok(())
    }

    /// The sockets, to be closed with the others.
    pub fn sockets(&self) -> impl Iterator<Item = &TcpListener> {
        self.0.iter().map(|(_, listener)| listener)
    }

    /// Where each listens, by its name in `status`.
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.0.iter().filter_map(|(kind, listener)| Some((kind.name(), listener.local_addr().ok()?))).collect()
    }
}
