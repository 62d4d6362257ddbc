//! The X.509-SVID that a client showed to the server. The server says which certificates it verified, with the authorities of
//! every trust domain in one pool; here the leaf must be an X.509-SVID with a path to an authority of its own trust domain.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;

use crate::limits::MAX_CALLOUT_CHAINS;
use crate::mtls::{self, PeerError};
use crate::nats_jwt::Tls;
use crate::spiffe_id::SpiffeId;
use crate::trust_bundle::TrustBundle;

/// Why a client's certificates prove nothing. The client erred, or trust is configured otherwise than meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Over [`MAX_CALLOUT_CHAINS`].
    #[error("the server found more than {MAX_CALLOUT_CHAINS} paths for the client's certificate")]
    TooMany,
    /// Not one certificate in PEM for each entry.
    #[error("the client's certificates cannot be parsed")]
    Malformed,
    /// The server's paths begin with different certificates.
    #[error("the server's paths are for different certificates")]
    Leaves,
    /// No X.509-SVID, or none of a trust domain that is trusted.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

impl ChainError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooMany => "give the server fewer cross-signed authorities",
            Self::Malformed | Self::Leaves => "see that the peer is a nats-server",
            Self::Peer(error) => error.hint(),
        }
    }
}

/// Whose certificate it is and when it ends, if the client showed one.
pub(super) fn check(
    tls: &Tls,
    bundle: &TrustBundle,
    now: OffsetDateTime,
) -> Result<Option<(SpiffeId, OffsetDateTime)>, ChainError> {
    if tls.verified_chains.len() > MAX_CALLOUT_CHAINS {
        return Err(ChainError::TooMany);
    }
    let chains = tls.verified_chains.iter().map(|chain| parsed(chain)).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = chains.first() else { return Ok(None) };
    if chains.iter().any(|chain| chain.first() != first.first()) {
        return Err(ChainError::Leaves);
    }
    // The server may have found a path to another domain's authority too: one path to the right one is enough.
    let mut refused = None;
    for chain in &chains {
        match mtls::check_client(chain, bundle, now) {
            Ok(found) => return Ok(Some(found)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or(PeerError::NoChain).into())
}

/// One certificate in each entry, leaf first.
fn parsed(chain: &[String]) -> Result<Vec<CertificateDer<'static>>, ChainError> {
    if chain.is_empty() {
        return Err(ChainError::Malformed);
    }
    let one = |pem: &String| {
        let mut found = CertificateDer::pem_slice_iter(pem.as_bytes());
        match (found.next(), found.next()) {
            (Some(Ok(certificate)), None) => Ok(certificate),
            _ => Err(ChainError::Malformed),
        }
    };
    chain.iter().map(one).collect()
}
