//! Portcullis: runs WebAssembly components only when it knows who made them.
//!
//! One binary, several roles: see ARCHITECTURE.md. This file parses the command line and nothing else.
#![allow(unreachable_pub, reason = "in a binary, pub is what other modules may use")]
#![cfg_attr(not(feature = "host"), allow(dead_code, reason = "the signing commands use a part of what is shared"))]

#[cfg(feature = "host")]
mod audit;
#[cfg(feature = "host")]
mod callout;
mod cli;
mod clock;
#[cfg(feature = "host")]
mod config;
#[cfg(feature = "host")]
mod control;
#[cfg(feature = "host")]
mod identity_report;
mod limits;
#[cfg(feature = "host")]
mod logging;
#[cfg(feature = "host")]
mod metrics;
#[cfg(feature = "host")]
mod nats;
mod oci;
#[cfg(feature = "host")]
mod policy;
#[cfg(feature = "host")]
mod process;
#[cfg(feature = "host")]
mod roles;
#[cfg(feature = "host")]
mod rpc;
#[cfg(feature = "host")]
mod runtime;
mod signer;
#[cfg(feature = "host")]
mod state;
#[cfg(feature = "host")]
mod supervisor;
#[cfg(feature = "bench-ungated")]
mod ungated;

/// Of the configuration, the signing commands have the environment alone.
#[cfg(not(feature = "host"))]
mod config {
    pub mod environment;
}

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
