//! Processes: one binary, several roles. How a child is started, handed sockets and memory, fenced in, and noticed dead.

pub mod child;
pub mod handover;
pub mod sandbox;

use std::fmt;

/// A role that the supervisor starts as a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Role {
    /// Holds the keys: CA, JWT authority, keys of components.
    Identity,
    /// Runs components: engine, gateway, gate.
    Runtime,
    /// Turns the verified bytes of one component into native code.
    Compile,
}

impl Role {
    /// The name on the command line and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Role::Identity => "identity",
            Role::Runtime => "runtime",
            Role::Compile => "compile",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
