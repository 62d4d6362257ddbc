//! What each process of a host does, once [`crate::process`] has started and fenced it.

pub mod compile;
pub mod identity;
pub mod runtime;

use std::io;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::process::Role;
use crate::process::handover::{Handover, Packet};

/// Runs `role` in this process until it ends.
pub fn run(role: Role) -> io::Result<()> {
    let handover = Handover::from_stdin()?;
    match role {
        Role::Identity => identity::run(handover),
        Role::Runtime => runtime::run(handover),
        Role::Compile => compile::run(&handover),
    }
}

/// Signals that end a process by default are the supervisor's to act on: a child that gets one goes on. Kept as long as the
/// process serves.
fn ignore_signals() -> io::Result<Vec<tokio::signal::unix::Signal>> {
    use tokio::signal::unix::{SignalKind, signal};
    [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()]
        .into_iter()
        .map(signal)
        .collect()
}

/// The parent's process id and the role's own configuration in a boot packet.
fn parse_boot<T: DeserializeOwned>(packet: &Packet) -> io::Result<(u32, T)> {
    #[derive(Deserialize)]
    struct Frame<T> {
        parent: u32,
        config: T,
    }
    if packet.label != "boot" {
        return Err(io::Error::other("the first packet must be the boot packet"));
    }
    let frame: Frame<T> = serde_json::from_value(packet.payload.clone())?;
    Ok((frame.parent, frame.config))
}
