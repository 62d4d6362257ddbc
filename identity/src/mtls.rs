//! Mutual TLS between workloads, with keys that stay elsewhere.
//!
//! TLS 1.3 only, `ring` only, no resumption, no tickets, no early data: a resumed session would skip the check of the peer's
//! chain. Peers are known by their X.509-SVID and never by a DNS name or common name. The configurations made here cannot
//! load a private key at all; signatures come from a [`HandshakeSigner`].
//!
//! `rustls` asks for the signature synchronously, so a handshake blocks its thread for as long as the signer takes. Run
//! handshakes where that is fine, give the signer a time-out of its own, and bound the handshake as a whole: nothing here
//! reads a clock, `rustls` passes its own time to the path validation.

mod acceptor;
mod connector;
mod peer;
mod peer_check;
mod remote_key;
mod tls_error;

use std::fmt::Debug;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use time::OffsetDateTime;
pub use tokio_rustls::TlsStream;

pub use acceptor::{Acceptor, Resolve, ServedIdentity, acceptor};
pub use connector::{Connector, connector};
pub use peer::Peer;
pub(crate) use peer::check_client;
pub use peer_check::PeerError;
pub(crate) use peer_check::{Authorities, PinnedServer};
pub(crate) use remote_key::certified;
pub use tls_error::TlsError;

use crate::spiffe_id::SpiffeId;

/// Signs handshakes with a key that it alone can reach.
pub trait HandshakeSigner: Send + Sync + Debug {
    /// The signature (ECDSA P-256, SHA-256, ASN.1 DER) of the content of a TLS 1.3 CertificateVerify, or why there is none.
    /// Called within the handshake, on its thread.
    fn sign(&self, key_id: &str, message: &[u8]) -> Result<Vec<u8>, String>;
}

/// The public part of a workload's X.509-SVID: all that a process without keys holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    /// Whom it names.
    pub spiffe_id: SpiffeId,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// What the signer knows the key by.
    pub key_id: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// `ring`, given to each configuration and never installed for the process; it loads no private keys.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { key_provider: &NoPrivateKeys, ..rustls::crypto::ring::default_provider() })
}

#[derive(Debug)]
struct NoPrivateKeys;

impl rustls::crypto::KeyProvider for NoPrivateKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn rustls::sign::SigningKey>, rustls::Error> {
        Err(rustls::Error::General("private keys are not loaded into this process".to_owned()))
    }
}
