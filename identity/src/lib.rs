//! SPIFFE identities for the components of one host.
//!
//! The [`Issuer`] holds the private keys and mints SVIDs for instances that were admitted; [`mtls`] makes TLS connections whose
//! keys stay with the issuer; [`rpc`] is the line between the two processes. Deciding code is pure: time and bytes come in as
//! arguments, randomness from the system through `ring`.
//!
//! Trusts the supervisor about who was admitted. Refuses everything else that is not proven: see each module.

mod audience;
mod authority_certificate;
mod bundle;
mod excerpt;
mod handshake_message;
mod hex;
mod host_mac;
mod issuer;
mod issuer_error;
mod jwk;
mod jwt_authority;
mod jwt_check;
mod jwt_svid;
mod key_scan;
mod key_store;
mod leaf;
mod lifetimes;
pub mod limits;
pub mod mtls;
mod p256_key;
pub mod rpc;
mod secret;
mod spiffe_id;
mod stored_key;
mod trust_bundle;
mod trust_domain;
pub mod web;
mod workload;
mod x509_authority;

pub use audience::{Audience, AudienceError};
pub use bundle::{Bundle, JwtBundleKey};
pub use excerpt::Excerpt;
pub use issuer::{AdmitError, IssueError, Issuer, Minted, SignError, X509Svid};
pub use issuer_error::IssuerError;
pub use jwt_check::TokenError;
pub use jwt_svid::{JwtClaims, JwtSvid};
pub use key_scan::KeyScan;
pub use leaf::LeafError;
pub use lifetimes::Lifetimes;
pub use spiffe_id::{SpiffeId, SpiffeIdError};
pub use trust_bundle::{BundleError, TrustBundle};
pub use trust_domain::{TrustDomain, TrustDomainError};
pub use workload::{InstanceId, InstanceIdError, Workload};
