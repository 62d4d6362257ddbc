//! Why a connection was not made, and who erred: the peer, the configuration, the signer or the network.

use std::io;

use rustls::{CertificateError, Error};

use super::peer_check::PeerError;
use super::remote_key::SignerError;
use crate::excerpt::Excerpt;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Our own SVID cannot be used. Our error.
    #[error("our own X.509-SVID cannot be used: {0}")]
    OwnSvid(&'static str),
    /// The pinned ID is that of a trust domain. Configuration.
    #[error("the peer {0} is a trust domain, not a workload")]
    PinnedTrustDomain(SpiffeId),
    /// Nobody could be verified. Configuration.
    #[error("the bundle has no X.509 authority for the trust domain {0}")]
    NoAuthority(TrustDomain),
    /// Neither DNS name nor address. The caller erred.
    #[error("{0} is no server name")]
    ServerName(Excerpt),
    /// The client asked for a name that is not served. The peer erred.
    #[error("the client asked for a server name that is not served here")]
    NotServed,
    /// The peer's certificate was refused by us.
    #[error("the peer's certificate was refused: {0}")]
    Peer(#[from] PeerError),
    /// The client presented no certificate.
    #[error("the client presented no certificate")]
    NoCertificate,
    /// The peer refused us.
    #[error("the peer ended the handshake: {0}")]
    RefusedByPeer(String),
    /// The signer gave no signature. Our error.
    #[error("the handshake could not be signed: {0}")]
    Signer(Excerpt),
    /// The peer speaks another TLS, or none.
    #[error("the handshake failed: {0}")]
    Handshake(String),
    /// The network, or a peer that hung up.
    #[error("the connection failed: {0}")]
    Io(io::Error),
}

impl TlsError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OwnSvid(_) => "fetch the X.509-SVID again",
            Self::PinnedTrustDomain(_) => {
                "pin the SPIFFE ID of the workload, such as spiffe://example.org/ns/shop/sa/vault"
            }
            Self::NoAuthority(_) => "add the bundle of the peer's trust domain",
            Self::ServerName(_) => "use a DNS name or an IP address",
            Self::NotServed => "the client must use the server name of a component that is served over mTLS",
            Self::Peer(error) => error.hint(),
            Self::NoCertificate => "the client must present its X.509-SVID",
            Self::RefusedByPeer(_) => "see the peer's log: it may trust another authority or expect another SPIFFE ID",
            Self::Signer(_) => "see that the identity process runs and that the instance was not stopped",
            Self::Handshake(_) => "the peer must speak TLS 1.3 with X.509-SVIDs",
            Self::Io(_) => "see that the peer is up and that the network lets the connection through",
        }
    }

    /// What an error of a handshake means.
    pub(crate) fn of_handshake(error: io::Error) -> Self {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
            return Self::Io(error);
        };
        match tls {
            Error::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref::<PeerError>() {
                Some(peer) => Self::Peer(peer.clone()),
                None => Self::Handshake(tls.to_string()),
            },
            Error::Other(other) => match other.0.downcast_ref::<SignerError>() {
                Some(SignerError(reason)) => Self::Signer(reason.clone()),
                None => Self::Handshake(tls.to_string()),
            },
            Error::InvalidCertificate(reason) => Self::Peer(PeerError::Path(format!("{reason:?}"))),
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::AlertReceived(alert) => Self::RefusedByPeer(format!("{alert:?}")),
            Error::General(text) if text == NOT_RESOLVED => Self::NotServed,
            other => Self::Handshake(other.to_string()),
        }
    }
}

/// What `rustls` says when its certificate resolver has none; a test pins it.
const NOT_RESOLVED: &str = "no server certificate chain resolved";
