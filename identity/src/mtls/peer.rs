//! A peer whose certificate was verified, with what it showed.
//!
//! A handshake proves who a peer is at that time. The connection may live long after: the chain is kept so that it can be
//! verified again when a bundle changes, and the end of the SVID so that the connection can end with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use super::peer_check::{self, PeerError};
use super::{Svid, TlsError};
use crate::leaf::Leaf;
use crate::spiffe_id::SpiffeId;
use crate::trust_bundle::TrustBundle;

/// A verified peer. Comes only out of a handshake: [`Acceptor::accept`](super::Acceptor::accept) or
/// [`Connector::connect`](super::Connector::connect).
#[derive(Clone, PartialEq, Eq)]
pub struct Peer {
    spiffe_id: SpiffeId,
    not_after: OffsetDateTime,
    chain: Vec<CertificateDer<'static>>,
    side: Side,
    server_name: Option<String>,
    presented: Arc<Svid>,
}

/// What the peer is on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Peer {
    /// Who showed these certificates in a handshake that succeeded.
    pub(super) fn shown(
        certificates: Option<&[CertificateDer<'_>]>,
        side: Side,
        server_name: Option<String>,
        presented: Arc<Svid>,
    ) -> Result<Self, TlsError> {
        let certificates = certificates.unwrap_or_default();
        let leaf = Leaf::parse(certificates.first().ok_or(TlsError::NoCertificate)?).map_err(PeerError::Leaf)?;
        let chain = certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Ok(Self { spiffe_id: leaf.spiffe_id, not_after: leaf.not_after, chain, side, server_name, presented })
    }

    /// Who it is.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// When its SVID ends: from then on it proves nothing.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// What a client asked for (lower case): the identity that was presented to it. A request for another name must not pass.
    /// `None` for a server.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The SVID of ours that was presented to it.
    pub fn presented(&self) -> &Arc<Svid> {
        &self.presented
    }

    /// The certificates that it showed, DER, leaf first.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.chain.iter().map(|certificate| certificate.as_ref())
    }

    /// Verifies what it showed again, with the bundles as they are now, as in the handshake: by the authorities of the trust
    /// domain that its SVID names, and of no other.
    pub fn check_again(&self, bundle: &TrustBundle, now: OffsetDateTime) -> Result<(), PeerError> {
        check(&self.chain, self.side, bundle, now)
    }
}

impl Svid {
    /// Whether peers with these bundles would accept this SVID now.
    pub fn check(&self, bundle: &TrustBundle, now: OffsetDateTime) -> Result<(), PeerError> {
        let chain: Vec<CertificateDer<'_>> =
            self.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        check(&chain, Side::Client, bundle, now)
    }
}

/// Who showed these certificates to another server, and when its SVID ends: verified as a client of ours would be.
pub(crate) fn check_client(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: OffsetDateTime,
) -> Result<(SpiffeId, OffsetDateTime), PeerError> {
    check(chain, Side::Client, bundle, now)?;
    let leaf = Leaf::parse(chain.first().ok_or(PeerError::NoChain)?)?;
    Ok((leaf.spiffe_id, leaf.not_after))
}

fn check(chain: &[CertificateDer<'_>], side: Side, bundle: &TrustBundle, now: OffsetDateTime) -> Result<(), PeerError> {
    let (leaf, rest) = chain.split_first().ok_or(PeerError::NoChain)?;
    let found = peer_check::shape(leaf, rest)?;
    let domain = found.trust_domain();
    let now = Duration::from_secs(u64::try_from(now.unix_timestamp()).unwrap_or_default());
    let (now, provider) = (UnixTime::since_unix_epoch(now), super::provider());
    let roots = bundle.roots(domain, now).ok_or_else(|| PeerError::UnknownTrustDomain(domain.clone()))?;
    match side {
        Side::Client => peer_check::client_path(leaf, rest, roots, now, &provider),
        Side::Server => peer_check::server_path(leaf, rest, &roots, now, &provider),
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("spiffe_id", &self.spiffe_id)
            .field("not_after", &self.not_after)
            .field("side", &self.side)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}
