//! `portcullis callout`: answers the auth callout of NATS servers. SPIFFE identity in, account and least permissions out.
//!
//! Decides nothing by itself: [`portcullis_identity`] checks requests and credentials and makes answers, and
//! [`portcullis_policies::callout`] decides by Cedar. This is what stands around them: connections to the servers, one task for
//! each request up to a bound (beyond it the answer is no, at once), files that are watched, the audit log that a yes waits for,
//! and the end of connections of whoever was revoked.
//!
//! Trusts: its files, the servers that the system account names. Refuses: what comes from anybody else, what it saw before,
//! what it cannot decide or cannot record.

pub mod answering;
pub mod attempts;
pub mod connection;
pub mod counts;
pub mod ends;
pub mod fence;
pub mod files;
pub mod init;
pub mod journal;
pub mod keys;
pub mod listener;
pub mod login_token;
pub mod renew;
pub mod revocations;
pub mod revoking;
pub mod rights;
pub mod scope;
pub mod servers;
pub mod service;
pub mod site_user;
pub mod standing;
pub mod stopping;
pub mod tls_files;
pub mod watched;
pub mod watching;

pub use service::run;
