//! Components and their evidence in an OCI registry: fetched by digest, hashed again, never believed.
//!
//! A tag is resolved once, to the digest of what came back; everything after that is fetched by digest. Evidence is what refers
//! to that manifest, found through the referrers API or the fallback tag; what a list says about its entries is not looked at.
//! Whether evidence is worth anything is not decided here. The wire is TLS; plain HTTP is for this machine alone.
//!
//! `oci-client` makes tokens, streams blobs and pushes; manifests and lists are read by [`reader`], which stops at a limit.

mod credentials;
mod download;
mod error;
mod push;
mod reader;
mod registry;

pub use download::Resume;
pub use error::RegistryError;
pub use push::{Attachment, Pushed};
pub use registry::{Fetched, Options, Registry};
