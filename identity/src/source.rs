//! Where the identities of components come from: one trait, behind which stand the built-in issuer and a site's SPIRE.
//!
//! Whoever stands behind it, the same holds. The SPIFFE ID that a component gets is the one that was derived from its verified
//! claims: a source that gives another one is refused, not followed. Keys stay in this process; signatures come out. What
//! cannot be reached, checked or found gives a typed error and never an identity. Nothing here decides policy: whether an
//! instance may have an SVID, and for how long, is the caller's to decide before it asks.

mod builtin;
mod error;
mod published;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;
use tokio::sync::watch;

pub use builtin::BuiltIn;
pub use error::SourceError;
pub use published::SourcePublished;

use crate::audience::Audience;
use crate::issuer::{Minted, SignError, X509Svid};
use crate::jwt_svid::JwtSvid;
use crate::key_scan::KeyScan;
use crate::statement::Draft;
use crate::trust_domain::TrustDomain;
use crate::workload::{InstanceId, Workload};

/// Which source it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKind {
    /// This host's own authority.
    BuiltIn,
    /// The Delegated Identity API of a SPIRE agent.
    SpireDelegated,
    /// The Broker API of a SPIRE agent, or of whoever serves it.
    Broker,
    /// The Workload API of a SPIRE agent: for the host itself.
    WorkloadApi,
}

/// An admitted workload with what was verified about who signed it. Comes from the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    /// The instance and the SPIFFE ID that follows from its verified claims.
    pub workload: Workload,
    /// The public key that signed the claims.
    pub signer: String,
    /// The signer's group in the trust policy.
    pub signer_group: String,
}

/// How a source is doing, for `status` and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// Which.
    pub kind: SourceKind,
    /// Whether it answers now. Always true for the built-in issuer.
    pub connected: bool,
    /// When it was last heard of.
    pub last_contact: Option<OffsetDateTime>,
    /// The last thing that went wrong, escaped and cut; `None` once all is well.
    pub problem: Option<String>,
    /// Instances that have an X.509-SVID now.
    pub held: usize,
    /// Instances that were refused one.
    pub refused: usize,
    /// Instances that wait for the first answer.
    pub waiting: usize,
}

/// A source of identities. Every method but the two that mint returns at once.
#[async_trait]
pub trait IdentitySource: Send + Sync + fmt::Debug {
    /// Which source it is.
    fn kind(&self) -> SourceKind;

    /// Whose SVIDs these are.
    fn trust_domain(&self) -> &TrustDomain;

    /// Begins the identity of an instance.
    fn admit(&self, vouched: Vouched) -> Result<(), SourceError>;

    /// Ends it: keys and tokens are wiped. Whether there was one.
    fn stop(&self, instance: &InstanceId) -> bool;

    /// An X.509-SVID that lives no longer than `ttl`; its key stays here.
    async fn x509_svid(
        &self,
        instance: &InstanceId,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<X509Svid>, SourceError>;

    /// A JWT-SVID for exactly these audiences that lives no longer than `ttl`.
    async fn jwt_svid(
        &self,
        instance: &InstanceId,
        audiences: &[Audience],
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<JwtSvid>, SourceError>;

    /// Signs the content of a TLS 1.3 CertificateVerify, and nothing else.
    fn sign_handshake(&self, instance: &InstanceId, key_id: &str, message: &[u8]) -> Result<Vec<u8>, SignError>;

    /// Signs data for a purpose: what a verifier checks is [`signed_message`](crate::signed_message).
    fn sign(&self, instance: &InstanceId, key_id: &str, purpose: &str, data: &[u8]) -> Result<Vec<u8>, SignError>;

    /// Signs a statement (ES256) with a key of the instance that the statement says it is by: its token. For the host's own
    /// identity; nobody who was admitted can ask for it.
    fn sign_statement(&self, instance: &InstanceId, key_id: &str, draft: &Draft) -> Result<String, SignError>;

    /// The bundles as they are now and after each change.
    fn published(&self) -> watch::Receiver<SourcePublished>;

    /// How it is doing.
    fn status(&self) -> SourceStatus;

    /// A search for every private key that it holds now.
    fn key_scan(&self) -> KeyScan;
}

impl SourceKind {
    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "builtin",
            Self::SpireDelegated => "spire-delegated",
            Self::Broker => "broker",
            Self::WorkloadApi => "workload-api",
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
