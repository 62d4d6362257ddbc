//! Messages and server trait of the SPIFFE Workload API, generated from `proto/spiffe/workload.proto` and checked in.
//!
//! Messages that carry a key or a bearer token get their `Debug` here, without it; a private key is wiped when its message is
//! dropped.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

use std::fmt;

use zeroize::Zeroize;

include!("../generated/_.rs");

/// What gRPC reflection tells of the service: the compiled `.proto`.
pub const DESCRIPTORS: &[u8] = include_bytes!("../generated/workload.bin");

impl fmt::Debug for X509svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509svid")
            .field("spiffe_id", &self.spiffe_id)
            .field("x509_svid_key", &"<redacted>")
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

impl Drop for X509svid {
    fn drop(&mut self) {
        self.x509_svid_key.zeroize();
    }
}

impl fmt::Debug for Jwtsvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwtsvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("svid", &"<redacted>")
            .field("hint", &self.hint)
            .finish()
    }
}

impl fmt::Debug for Witsvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witsvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("wit_svid_key", &"<redacted>")
            .field("hint", &self.hint)
            .finish_non_exhaustive()
    }
}

impl Drop for Witsvid {
    fn drop(&mut self) {
        self.wit_svid_key.zeroize();
    }
}

impl fmt::Debug for ValidateJwtsvidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidateJwtsvidRequest").field("audience", &self.audience).field("svid", &"<redacted>").finish()
    }
}
