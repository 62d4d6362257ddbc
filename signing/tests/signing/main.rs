//! The verifier, the trust policy and the signer from outside: what must pass passes, everything else is refused.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    reason = "a test that fails says so by panicking"
)]

mod fixture;

mod accepted;
mod again;
mod authority;
mod foreign;
mod fulcio;
mod keyless;
mod limits;
mod lists;
mod own_claims;
mod refused;
mod svids;
mod tampering;
mod tokens;
mod trust;
mod vectors;
