//! The auth callout of a NATS server: who asks, who wants in, and the answer. Pure: bytes, keys, bundles and the time come in.
//!
//! [`Requests::open`] turns a message into a [`Request`], [`Request::prove`] what the client showed into [`Proven`], and
//! [`Answers::allow`] both, with a decision, into the bytes of an [`Answer`]; nothing else makes them.
//!
//! Trusts: that nobody but servers can publish in the callout's account. A request's signature proves only that somebody holds
//! the server key that it names; servers make theirs anew at each start. Trusts the server about where a connection comes from
//! and about the certificate it showed; not about whom that certificate names: the chain is checked again here, with the
//! authorities of the trust domain of its own SPIFFE ID, because a server keeps those of all domains in one pool.
//!
//! Refuses: whatever is not exactly what a server asks, twice the same, passwords, NATS JWTs as credentials, a signature over
//! no nonce, two credentials that do not agree. Says so to the server in four fixed texts, because it logs them unescaped.

mod answer;
mod chain;
mod credential;
#[cfg(test)]
mod forge;
mod nonce;
mod replays;
mod request;

pub use answer::{Answer, AnswerError, Answers, Decision, Target, Targets};
pub use chain::ChainError;
pub use credential::{CredentialError, Proven, ProvenNkey};
pub use nonce::NonceError;
pub use replays::{ReplayError, Replays};
pub use request::{ConnectionKind, Protocol, Received, Request, RequestError, Requests};
