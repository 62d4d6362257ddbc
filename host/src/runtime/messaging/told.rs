//! What the supervisor tells this process about messages, in `Configure`.

use serde::{Deserialize, Serialize};

use crate::config::messaging::Messaging;
use crate::nats::Settings;

/// Settings, and the connection: the one that all share, or what those of components have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    /// `[messaging]`.
    pub settings: Messaging,
    /// The connection.
    pub line: Settings,
}
