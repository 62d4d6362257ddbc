//! Components and their evidence in an OCI registry: fetched by digest, hashed again, never believed.
//!
//! A tag is resolved once, to the digest of what came back; everything after that is fetched by digest. Evidence is what refers
//! to that manifest, found through the referrers API or the fallback tag; what a list says about its entries is not looked at.
//! Whether evidence is worth anything is not decided here. The wire is TLS; plain HTTP is for this machine alone.
//!
//! Whatever is read is read here, up to a limit: rights by [`login`], manifests and lists by [`reader`], blobs by [`download`].
//! `oci-client` pushes.

mod credentials;
mod download;
mod error;
mod login;
mod push;
mod reader;
mod registry;

pub use download::Resume;
pub use error::RegistryError;
pub use push::{Attachment, Pushed};
pub use registry::{Fetched, Options, Piece, Registry};

/// Media type of an SPDX document.
pub const SPDX: &str = "application/spdx+json";
/// Media type of a CycloneDX document.
pub const CYCLONE_DX: &str = "application/vnd.cyclonedx+json";
/// Media type of what cosign 2 signs: a small document that names a manifest.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the signature of it.
const SIMPLE_SIGNATURE: &str = "dev.cosignproject.cosign/signature";
