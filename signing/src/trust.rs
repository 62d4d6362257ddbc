//! The trust policy: one signed file a cluster that says who may speak for what.
//!
//! [`TrustDocument`] is the editable, unsigned form; [`TrustPolicy`] only comes out of verification against pinned root
//! keys. Unknown keys refuse the whole document. An empty policy admits nothing. Beside it may be a [`DenyList`], and
//! delegations that signers made themselves ([`sign_delegation`]).

mod check;
mod delegation;
mod deny_list;
mod document;
mod error;
mod identity;
mod link;
mod origin;
mod policy;
mod requirement;
mod rotation;
mod rule;
mod sign;
mod signer;

pub use delegation::{Delegation, Onward};
pub use deny_list::{DENY_LIST_TYPE, DenyList, DenyListDocument, DenyListError, DenyListRule};
pub use document::{OnExpiry, TrustDocument};
pub use error::{SignTrustError, TrustError};
pub use identity::{OidcIdentity, SignerId, SignerIdentity, SignerKind, SpiffeIdentity};
pub use link::{DELEGATION_TYPE, sign_delegation};
pub use origin::{Origin, OriginEvidence, Provenance};
pub use policy::TrustPolicy;
pub use requirement::{Requirement, RoleThreshold};
pub use rotation::{ROTATION_TYPE, Roots, sign_rotation};
pub use rule::{AllowRevision, Deny, DenyClaims, DenyDigest, DenyRevisions, DenySigner, Floor, RevisionRange};
pub use sign::{PAYLOAD_TYPE, read_document, sign_trust};
pub use signer::{Signer, SignerEntry};

pub(crate) use link::{Known, Signers};
pub(crate) use rule::About;
