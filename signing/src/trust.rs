//! The trust policy: one signed file a cluster that says who may speak for what.
//!
//! [`TrustDocument`] is the editable, unsigned form; [`TrustPolicy`] only comes out of verification against pinned root
//! keys. Unknown keys refuse the whole document. An empty policy admits nothing.

mod delegation;
mod document;
mod error;
mod policy;
mod rule;
mod sign;

pub use delegation::{Delegation, Signer, SignerEntry};
pub use document::TrustDocument;
pub use error::{SignTrustError, TrustError};
pub use policy::TrustPolicy;
pub use rule::{AllowRevision, Deny, Floor, RevisionRange};
pub use sign::{PAYLOAD_TYPE, read_document, sign_trust};
