//! Names to addresses: the operator's static names first, then the system's resolver. One of the two places that look names up.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use portcullis_policies::{Destination, Host};

use crate::limits::RESOLVE_TIMEOUT;

/// Addresses tried for one destination.
const ADDRESSES: usize = 8;

/// The resolver of this process.
#[derive(Debug, Default)]
pub struct Resolver {
    names: BTreeMap<String, Vec<IpAddr>>,
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The resolver said no.
    #[error("{0} cannot be resolved: {1}")]
    Failed(String, String),
    /// The resolver said nothing.
    #[error("{0} was not resolved in time")]
    Timeout(String),
}

impl Resolver {
    /// A resolver with the operator's static names.
    pub fn new(names: BTreeMap<String, Vec<IpAddr>>) -> Self {
        Self { names }
    }

    /// The addresses of a destination, at most eight. They are not checked here.
    pub async fn resolve(&self, destination: &Destination) -> Result<Vec<SocketAddr>, ResolveError> {
        let port = destination.port();
        let name = match destination.host() {
            Host::V4(address) => return Ok(vec![SocketAddr::from((*address, port))]),
            Host::V6(address) => return Ok(vec![SocketAddr::from((*address, port))]),
            Host::Dns(name) => name.to_string(),
        };
        if let Some(addresses) = self.names.get(&name) {
            return Ok(addresses.iter().map(|address| SocketAddr::from((*address, port))).collect());
        }
        let looked_up = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name.as_str(), port))).await;
        match looked_up {
            Ok(Ok(addresses)) => Ok(addresses.take(ADDRESSES).collect()),
            Ok(Err(error)) => Err(ResolveError::Failed(name.clone(), error.to_string())),
            Err(_) => Err(ResolveError::Timeout(name.clone())),
        }
    }
}
