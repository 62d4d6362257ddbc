//! The SPIFFE Workload API server: identities for processes beside the host, over one connected Unix socket each.
//!
//! Decides what is a well-formed call and what its answer looks like on the wire; follows changes and pushes them. Trusts its
//! [`Entitlement`] about who the caller is and what it may have. Refuses calls without the security header, malformed
//! arguments, and whatever the entitlement refuses, each with the status that the standard names. A caller without an identity
//! gets an answer, too: see [`Refusing`].
//!
//! Connections are read through [`AuthorityShim`], which makes the calls of gRPC C-core clients (Python, C++) well-formed.

mod authority_filter;
mod authority_shim;
mod authority_value;
mod claims;
mod connection;
mod entitlement;
mod following;
mod header_block;
mod header_table;
mod huffman;
pub mod pb;
mod refusal;
mod service;

pub use authority_filter::AuthorityFilter;
pub use authority_shim::AuthorityShim;
pub use connection::serve;
pub use entitlement::{Due, Entitlement, KeyedX509, ProofToken, Refusing, Token, X509Svids};
pub use refusal::Refusal;
