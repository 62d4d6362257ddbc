//! What one connection needs to know, secrets apart. The supervisor makes it from the configuration; the runtime is told.

use portcullis_identity::SpiffeId;
use portcullis_identity::nats_tls::{NatsRoots, NatsTlsError};
use serde::{Deserialize, Serialize};

use crate::config::nats::{Nats, NatsLink};

/// Settings of one connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// What the server's lists of connections call it.
    pub name: String,
    /// `tls://HOST:PORT`.
    pub servers: Vec<String>,
    /// Whom to believe; `None`: no TLS.
    pub roots: Option<Roots>,
    /// TLS before anything else is said.
    pub tls_first: bool,
    /// The servers' SPIFFE ID.
    pub server_id: Option<SpiffeId>,
    /// Whether TLS shows a certificate.
    pub certificate: bool,
    /// The account that it must land in.
    pub account: String,
    /// The user that it must be.
    pub user: Option<String>,
    /// Subjects of replies begin with it.
    pub inbox_prefix: String,
}

/// The authorities of servers' certificates.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Roots {
    /// Those of a PEM text.
    Pem(String),
    /// Those of this system.
    System,
}

impl Roots {
    /// Ready for use.
    pub fn read(&self) -> Result<NatsRoots, NatsTlsError> {
        match self {
            Self::Pem(pem) => NatsRoots::from_pem(pem.as_bytes()),
            Self::System => NatsRoots::of_system(),
        }
    }
}

impl Settings {
    /// Those of one link of the configuration. `own`: who it is with an SVID; `host`: a name for inboxes and lists.
    pub fn of(nats: &Nats, link: &NatsLink, own: &SpiffeId, host: &str, ca: Option<String>) -> Self {
        let roots = match (nats.danger_plaintext, ca) {
            (true, _) => None,
            (false, Some(pem)) => Some(Roots::Pem(pem)),
            (false, None) if nats.tls.system_roots => Some(Roots::System),
            // Nobody is believed: setting it up fails.
            (false, None) => Some(Roots::Pem(String::new())),
        };
        Self {
            name: format!("portcullis {host}"),
            servers: nats.servers.clone(),
            roots,
            tls_first: nats.tls.first,
            server_id: nats.tls.server_id.clone(),
            certificate: link.auth.presents_certificate(),
            account: link.account.clone(),
            user: link.expected_user(own),
            inbox_prefix: link.inbox_prefix.clone().unwrap_or_else(|| format!("_INBOX_{host}")),
        }
    }
}
