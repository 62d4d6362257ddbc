//! The listening sockets of the Broker API: bound here, handed down to each identity process, which does the mutual TLS.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use super::workload_api::Socket;
use crate::config::Config;
use crate::process::child::Child;

/// Bound sockets.
#[derive(Debug, Default)]
pub struct BrokerSockets {
    unix: Option<(Socket, UnixListener)>,
    tcp: Option<TcpListener>,
}

impl BrokerSockets {
    /// Binds what is configured.
    pub fn bind(config: &Config) -> io::Result<Self> {
        let Some(broker) = &config.broker else { return Ok(Self::default()) };
        let failed = |what: &dyn std::fmt::Display, error: io::Error| {
            io::Error::new(error.kind(), format!("the Broker API cannot listen on {what}: {error}"))
        };
        let unix = broker.socket.as_deref().map(|path| {
            let mode = broker.mode_bits().unwrap_or(0o600);
            Socket::at(path, mode, broker.group.as_deref()).map_err(|error| failed(&path.display(), error))
        });
        let tcp = broker.listen.map(|address| TcpListener::bind(address).map_err(|error| failed(&address, error)));
        Ok(Self { unix: unix.transpose()?, tcp: tcp.transpose()? })
    }

    /// Gives them to an identity process.
    pub fn hand_down(&self, identity: &Child) -> io::Result<()> {
        let handover = &identity.handover;
        if let Some((_, listener)) = &self.unix {
            handover.send("broker", 0, serde_json::json!("unix"), &[listener.as_fd()])?;
        }
        if let Some(listener) = &self.tcp {
            handover.send("broker", 0, serde_json::json!("tcp"), &[listener.as_fd()])?;
        }
        Ok(())
    }

    /// Refuses connections from now on.
    pub fn close(&self) {
        let shut = |listener: &dyn AsFd| rustix::net::shutdown(listener.as_fd(), rustix::net::Shutdown::Both);
        if let Some((socket, listener)) = &self.unix {
            socket.remove();
            let _ = shut(listener);
        }
        if let Some(listener) = &self.tcp {
            let _ = shut(listener);
        }
    }

    /// Where it listens on TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }
}
