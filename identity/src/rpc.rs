//! The gRPC services of the identity process: messages, clients and server traits.
//!
//! Generated from `proto/portcullis/identity/v1/identity.proto` and checked in. The servers live in the host; nothing is
//! decided here. To generate again, with `protox` 0.10 and `tonic-prost-build` 0.14.9 (default features off, `transport` on):
//!
//! ```text
//! let files = protox::compile(["proto/portcullis/identity/v1/identity.proto"], ["proto"])?;
//! tonic_prost_build::configure()
//!     .build_transport(false)
//!     .skip_debug([".portcullis.identity.v1.ExportedX509", ".portcullis.identity.v1.JwtSvid", ..])
//!     .out_dir("src/generated")
//!     .compile_fds(files)?;
//! ```
//!
//! Messages that carry a bearer token or a private key get their `Debug` below, without it.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

use std::fmt;

include!("generated/portcullis.identity.v1.rs");

/// What the identity process does for the host itself. Generated from `proto/portcullis/own/v1/own.proto`.
pub mod own {
    include!("generated/portcullis.own.v1.rs");
}

/// What connections to NATS need. Generated from `proto/portcullis/nats/v1/nats.proto`.
pub mod nats {
    include!("generated/portcullis.nats.v1.rs");
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid")
            .field("token", &"<redacted>")
            .field("spiffe_id", &self.spiffe_id)
            .field("expires_at", &self.expires_at)
            .finish()
    }
}

impl fmt::Debug for ValidateJwtSvidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidateJwtSvidRequest")
            .field("instance", &self.instance)
            .field("token", &"<redacted>")
            .field("audience", &self.audience)
            .finish()
    }
}

impl fmt::Debug for ExportedX509 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportedX509")
            .field("private_key", &"<redacted>")
            .field("spiffe_id", &self.spiffe_id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for nats::Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("nkey", &self.nkey).field("user", &self.user).finish_non_exhaustive()
    }
}
