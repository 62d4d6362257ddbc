//! `portcullis callout` against a real nats-server: what it lets in, what it refuses, what becomes of it when something fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test stops at once where something is not as it must be"
)]

mod accounts;
#[path = "../../attacks/callout.rs"]
mod attacks;
#[path = "../../bench/callout.rs"]
mod bench;
#[path = "../../faults/callout.rs"]
mod faults;
mod hosts;
mod init;
mod leafnodes;
mod renew;
mod rig;
mod tokens;
