//! Federation with other trust domains over their bundle endpoints (SPIFFE_Federation).
//!
//! A relationship is configured in three parts that are never inferred from one another (section 4): the trust domain, the URL
//! of its bundle, and the profile by which the server proves to be the right one. What is fetched becomes the bundle of exactly
//! that trust domain; a sequence never goes back; what was fetched last is kept on disk and stays in force while its endpoint is
//! away, up to an age that the operator sets. Refuses permanent redirects, redirects to hosts that were not named, answers over
//! their size or time, and whatever is no strict bundle document.

mod bundle_url;
mod client;
mod exchange;
mod holding;
mod peer;
mod store;
mod tls;

pub use bundle_url::{BundleUrl, BundleUrlError};
pub use client::{Dial, FetchError, WebTrust, fetch};
pub use exchange::ExchangeError;
pub use holding::{Holding, OfferError, Offered, next_poll};
pub use peer::{Peer, PeerError, Profile};
pub use store::{FederationStore, Stored, bootstrap_digest};
pub use tls::{CertificateError, EndpointAcceptor, WebCertificate, ca_certificates, spiffe_endpoint, web_endpoint};
