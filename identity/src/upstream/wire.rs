//! What the engine needs of an upstream, whichever protocol it speaks. A wire carries; it decides nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use tonic::Status;
use zeroize::Zeroizing;

use crate::audience::Audience;
use crate::source::{SourceKind, Vouched};

/// Messages until the upstream ends the stream, which is always an error of its own.
pub(crate) type Messages<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

/// An X.509-SVID with its key as it was handed over, not checked yet.
pub(crate) struct HandedX509 {
    pub(crate) spiffe_id: String,
    /// DER, leaf first.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) pkcs8: Zeroizing<Vec<u8>>,
}

/// A JWT-SVID as it was handed over, not checked yet.
pub(crate) struct HandedJwt {
    pub(crate) spiffe_id: String,
    pub(crate) token: Zeroizing<String>,
}

/// Bundles by the SPIFFE IDs of their trust domains.
pub(crate) type ByDomain = BTreeMap<String, Vec<u8>>;

/// One upstream.
#[async_trait]
pub(crate) trait Wire: Send + Sync + fmt::Debug {
    /// Which it is.
    fn kind(&self) -> SourceKind;

    /// X.509-SVIDs of a workload, at once and after each change; each message is the full state.
    async fn x509(&self, who: &Vouched) -> Result<Messages<Vec<HandedX509>>, Status>;

    /// JWT-SVIDs of a workload.
    async fn jwt(&self, who: &Vouched, audiences: &[Audience]) -> Result<Vec<HandedJwt>, Status>;

    /// X.509 authorities, DER one behind the other.
    async fn x509_bundles(&self) -> Result<Messages<ByDomain>, Status>;

    /// JWT keys, JWK Sets.
    async fn jwt_bundles(&self) -> Result<Messages<ByDomain>, Status>;
}

impl HandedJwt {
    /// The same once more, for a second look.
    pub(crate) fn copied(&self) -> Self {
        Self { spiffe_id: self.spiffe_id.clone(), token: self.token.clone() }
    }
}

impl fmt::Debug for HandedX509 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedX509").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for HandedJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedJwt").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}
