//! What the server asks about its caller: the line to whoever holds the keys and knows the registered entries.
//!
//! One [`Entitlement`] stands behind one connection, so behind one attested process. It decides each call anew: who was
//! entitled a moment ago may not be any more.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use zeroize::Zeroizing;

use super::refusal::Refusal;
use crate::audience::Audience;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// The rights of one attested caller.
#[tonic::async_trait]
pub trait Entitlement: Send + Sync + 'static {
    /// Changes whenever an answer may have changed: bundles, forced rotation, revocation.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Every X.509-SVID of the caller with its key, the default one first.
    async fn x509_svids(&self) -> Result<Due<X509Svids>, Refusal>;

    /// The X.509 authorities (DER) of each trust domain that the caller verifies, the own one among them.
    async fn x509_bundles(&self) -> Result<BTreeMap<TrustDomain, Vec<Vec<u8>>>, Refusal>;

    /// A JWT-SVID of each identity of the caller, or of the one that is named, for exactly these audiences.
    async fn jwt_svids(&self, audiences: Vec<Audience>, only: Option<SpiffeId>) -> Result<Vec<Token>, Refusal>;

    /// The JWK Set of each trust domain that the caller verifies, with keys of JWT-SVIDs only.
    async fn jwt_bundles(&self) -> Result<BTreeMap<TrustDomain, String>, Refusal>;

    /// The subject of a JWT-SVID that is valid now for this audience.
    async fn validate_jwt(&self, token: &str, audience: &Audience) -> Result<SpiffeId, Refusal>;

    /// A WIT-SVID of each identity of the caller, or of the one that is named.
    async fn wit_svids(&self, only: Option<SpiffeId>) -> Result<Due<Vec<ProofToken>>, Refusal>;

    /// The JWK Set of each trust domain that the caller verifies, with keys of WIT-SVIDs only.
    async fn wit_bundles(&self) -> Result<BTreeMap<TrustDomain, String>, Refusal>;
}

/// An answer, and when it is to be asked for again even where nothing changes.
#[derive(Debug)]
pub struct Due<T> {
    /// The answer.
    pub answer: T,
    /// When something in it is to be renewed.
    pub again: Option<Duration>,
}

/// X.509-SVIDs and the foreign authorities that go with them.
#[derive(Debug)]
pub struct X509Svids {
    /// At least one; the first is the default.
    pub svids: Vec<KeyedX509>,
    /// DER by foreign trust domain.
    pub federated: BTreeMap<TrustDomain, Vec<Vec<u8>>>,
}

/// An X.509-SVID with its private key.
pub struct KeyedX509 {
    /// Whom it names.
    pub spiffe_id: SpiffeId,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Unencrypted PKCS#8, DER.
    pub key: Zeroizing<Vec<u8>>,
    /// DER of the authorities of its trust domain.
    pub authorities: Vec<Vec<u8>>,
    /// How the operator wants it to be used; may be empty.
    pub hint: String,
}

/// A JWT-SVID.
pub struct Token {
    /// Whom it names.
    pub spiffe_id: SpiffeId,
    /// Compact JWS.
    pub token: Zeroizing<String>,
    /// How the operator wants it to be used; may be empty.
    pub hint: String,
}

/// A WIT-SVID with its private key.
pub struct ProofToken {
    /// Whom it names.
    pub spiffe_id: SpiffeId,
    /// Compact JWS.
    pub token: Zeroizing<String>,
    /// Private JWK, JSON.
    pub key: Zeroizing<String>,
    /// How the operator wants it to be used; may be empty.
    pub hint: String,
}

impl std::fmt::Debug for KeyedX509 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedX509").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ProofToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProofToken").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

/// A caller that gets nothing: each of its calls gets an answer, and the answer is this refusal.
#[derive(Debug)]
pub struct Refusing {
    refusal: Refusal,
    changes: watch::Sender<u64>,
}

impl Refusing {
    /// Refuses everything for this reason.
    pub fn new(refusal: Refusal) -> Self {
        Self { refusal, changes: watch::Sender::new(0) }
    }
}

#[tonic::async_trait]
impl Entitlement for Refusing {
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn x509_svids(&self) -> Result<Due<X509Svids>, Refusal> {
        Err(self.refusal.clone())
    }

    async fn x509_bundles(&self) -> Result<BTreeMap<TrustDomain, Vec<Vec<u8>>>, Refusal> {
        Err(self.refusal.clone())
    }

    async fn jwt_svids(&self, _: Vec<Audience>, _: Option<SpiffeId>) -> Result<Vec<Token>, Refusal> {
        Err(self.refusal.clone())
    }

    async fn jwt_bundles(&self) -> Result<BTreeMap<TrustDomain, String>, Refusal> {
        Err(self.refusal.clone())
    }

    async fn validate_jwt(&self, _: &str, _: &Audience) -> Result<SpiffeId, Refusal> {
        Err(self.refusal.clone())
    }

    async fn wit_svids(&self, _: Option<SpiffeId>) -> Result<Due<Vec<ProofToken>>, Refusal> {
        Err(self.refusal.clone())
    }

    async fn wit_bundles(&self) -> Result<BTreeMap<TrustDomain, String>, Refusal> {
        Err(self.refusal.clone())
    }
}
