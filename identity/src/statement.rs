//! Signed statements: what the control plane, the state of a cluster and its events are believed by, whatever way they came.
//!
//! A statement is a compact JWS (RFC 7515) about a payload that travels beside it: who says it (`iss`), to whom (`aud`), for which
//! one place (`sub`: a method, a subject, a key), once (`jti`), when and for how long (`iat`, `exp`), about which bytes (`sha256`),
//! and where it is so, in answer to what (`re`) and which version of the thing (`ver`). A subject, a connection or a header
//! proves nothing.
//!
//! Trusts [`Signers`]: nkeys that were pinned, and X.509-SVIDs whose chain leads to the bundle of the trust domain that they
//! name themselves. Refuses everything that is not exactly of this form: other header members, other algorithms than ES256 (SVID)
//! and EdDSA (nkey), missing, unknown or doubled claims, other audiences and places, what is not valid now or is valid for longer
//! than its use allows, another payload. What must outlive an SVID is to be signed with an nkey: a chain is checked at the time
//! of reading.
//!
//! The signing input begins with the base64url of `{"alg"`; neither a TLS handshake nor a signature for a purpose
//! ([`signed_message`](crate::signed_message)) begins so, so none of the three can be taken for another.

mod check;
mod draft;
mod envelope;
mod error;
mod jti;
mod replay;
mod signers;
mod svid_key;
mod user_key;

pub use check::{Expected, Statement, check};
pub use draft::{Draft, DraftError, SvidSigner};
pub use envelope::Envelope;
pub use error::StatementError;
pub use jti::Jti;
pub use replay::{Order, Replay};
pub use signers::{Signer, Signers};
pub use svid_key::{SvidKey, SvidKeyError};
pub use user_key::{UserKey, UserKeyError, UserSeed};

/// The name of the header that a statement travels in, in NATS and in HTTP.
pub const HEADER: &str = "Portcullis-Statement";
/// `typ` of the header: it keeps statements apart from every other token.
const TYPE: &str = "portcullis-statement+jwt";
const ES256: &str = "ES256";
const EDDSA: &str = "EdDSA";

/// The hexadecimal SHA-256 of a payload.
fn digest_of(payload: &[u8]) -> String {
    crate::hex::hex(ring::digest::digest(&ring::digest::SHA256, payload).as_ref())
}

#[cfg(test)]
mod tests;
