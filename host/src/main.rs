//! Portcullis: runs WebAssembly components only when it knows who made them.
//!
//! One binary, several roles: see ARCHITECTURE.md. This file parses the command line and nothing else.
#![allow(unreachable_pub, reason = "in a binary, pub is what other modules may use")]

mod audit;
mod cli;
mod clock;
mod config;
mod identity_report;
mod limits;
mod logging;
mod metrics;
mod policy;
mod process;
mod roles;
mod rpc;
mod runtime;
mod state;
mod supervisor;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
