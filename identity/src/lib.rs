//! SPIFFE identities for the components of one host.
//!
//! The [`Issuer`] holds the private keys and mints SVIDs for instances that were admitted; [`mtls`] makes TLS connections whose
//! keys stay with the issuer; [`rpc`] is the line between the two processes. Deciding code is pure: time and bytes come in as
//! arguments, randomness from the system through `ring`.
//!
//! Trusts the supervisor about who was admitted. Refuses everything else that is not proven: see each module.

mod audience;
mod authority;
mod authority_certificate;
mod authority_key;
#[cfg(feature = "pkcs11")]
mod bounded;
pub mod broker;
mod bundle;
mod bundle_document;
mod bundle_set;
pub mod callout;
mod checked_file;
mod endpoint;
mod excerpt;
pub mod federation;
mod handshake_message;
mod hex;
mod host_mac;
mod issuer;
mod issuer_error;
mod issuer_options;
mod journal;
mod jws_algorithm;
mod jwt_authority;
mod jwt_check;
mod jwt_issuer;
mod jwt_key;
mod jwt_svid;
mod key_scan;
mod key_store;
mod leaf;
mod lifetimes;
pub mod limits;
pub mod mtls;
mod nats_credentials;
pub mod nats_jwt;
mod nats_key;
pub mod nats_pair;
pub mod nats_tls;
mod p256_key;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod pkcs8;
mod protocols;
mod public_key;
mod rotation_error;
pub mod rpc;
mod rsa_key;
mod schedule;
mod secret;
pub mod source;
mod spare_key;
mod spiffe_id;
pub mod spire;
pub mod statement;
mod stored_key;
#[cfg(feature = "pkcs11")]
mod token_key;
mod trust_bundle;
mod trust_domain;
mod upstream;
mod vault;
pub mod web;
mod wit_svid;
mod workload;
pub mod workload_api;
mod x509_authority;
mod xkey;

pub use audience::{Audience, AudienceError};
pub use authority::{
    AuthorityChange, AuthorityEvent, AuthorityId, AuthorityIdError, AuthorityKind, AuthorityState, AuthorityStatus,
    Slot,
};
pub use bundle::Bundle;
pub use bundle_document::{BundleDocument, BundleError};
pub use bundle_set::{BundleSet, BundleSetError};
pub use endpoint::Documents;
pub use excerpt::Excerpt;
pub use issuer::{
    AdmitError, Changes, ExportedX509, IssueError, Issuer, Minted, RotationFailure, SignError, X509Svid, signed_message,
};
pub use issuer_error::IssuerError;
pub use issuer_options::{IssuerOptions, JwtAlgorithm, KeyPlace, Pkcs11Options};
pub use jwt_check::{TokenError, check_jwt, jwt_subject_domain};
pub use jwt_issuer::{JwtIssuer, JwtIssuerError};
pub use jwt_key::{JwtKey, JwtKeys};
pub use jwt_svid::{JwtClaims, JwtSvid};
pub use key_scan::KeyScan;
pub use leaf::LeafError;
pub use lifetimes::Lifetimes;
pub use nats_credentials::{NatsCredentialError, NatsCredentials, NatsSeed};
pub use nats_key::{NatsKey, NatsKeyError, is_client_handshake};
pub use pkcs8::{Pkcs8Error, p256_scalar};
pub use rotation_error::RotationError;
pub use schedule::{NextAction, RotationAction};
pub use spare_key::SpareKey;
pub use spiffe_id::{SpiffeId, SpiffeIdError};
pub use trust_bundle::TrustBundle;
pub use trust_domain::{TrustDomain, TrustDomainError};
pub use upstream::{Clock, Upstream};
pub use wit_svid::{WitClaims, WitSvid, check_wit};
pub use workload::{InstanceId, InstanceIdError, Workload};
pub use xkey::{XKey, XKeyError};
