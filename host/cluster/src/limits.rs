//! Sizes and counts of what a cluster exchanges. Each has a test that crosses it.

use std::time::Duration;

/// Longest name of a host or a cluster.
pub const TOKEN_BYTES: usize = 63;
/// Largest payload of a manifest, a revocation list or a set of policies. Under what a NATS server takes by default (1 MiB), in
/// base64 and with its statement.
pub const DOCUMENT_BYTES: usize = 700 << 10;
/// Largest heartbeat or event.
pub const EVENT_BYTES: usize = 256 << 10;
/// Replicas of one component.
pub const REPLICAS: u32 = 1_000;
/// Routes of one component.
pub const ROUTES: usize = 64;
/// Evidence files that a manifest names.
pub const EVIDENCE: usize = 16;
/// Labels of a host, and of a selection.
pub const LABELS: usize = 32;
/// Hosts that a selection names.
pub const SELECTED_HOSTS: usize = 256;
/// Entries of a revocation list, all kinds together.
pub const REVOKED: usize = 10_000;
/// Texts of one set of policies.
pub const POLICY_TEXTS: usize = 64;
/// Longest text of a reason, a path, a label's value, an error.
pub const TEXT_BYTES: usize = 512;
/// Hosts that are remembered.
pub const MEMBERS: usize = 1_024;
/// Components in one heartbeat.
pub const HEARTBEAT_COMPONENTS: usize = 1_024;
/// Components that a cluster wants.
pub const MANIFESTS: usize = 4_096;
/// Intervals without a heartbeat after which a host counts as gone.
pub const DEAD_AFTER: u32 = 3;
/// How far apart the clocks of hosts may be.
pub const SKEW: Duration = Duration::from_secs(5);
/// Shortest and longest distance between two heartbeats.
pub const HEARTBEAT_INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
