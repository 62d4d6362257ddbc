//! `[control]`: the control plane over HTTPS with mTLS. The local socket is always there; NATS is by `[nats]` and `[cluster]`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Section `[control]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// `ADDRESS:PORT`; port 0 picks a free one. Absent: not served.
    #[serde(default)]
    pub https: Option<SocketAddr>,
}
