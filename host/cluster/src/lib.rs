//! What a cluster of hosts agrees on, and how each of them decides alike without a leader.
//!
//! Decides: what a manifest, a revocation list, a set of policies, a heartbeat and an event look like; which hosts are alive;
//! which of them run a component ([`placement`]); which version is too old to be believed ([`Seen`]). Trusts: nothing that
//! is read here says who signed it; that is the statement's, which comes beside each of these payloads and is bound to its
//! place. Refuses: unknown members, lists over their limits, names that could be read in two ways, versions of zero.
//!
//! Pure: no sockets, no clock, no files. Bytes and the time come in as arguments.

pub mod document;
pub mod event;
pub mod heartbeat;
pub mod limits;
pub mod manifest;
pub mod members;
pub mod place;
pub mod placement;
pub mod policy_set;
pub mod ran;
pub mod revocation;
pub mod seen;
pub mod token;

pub use document::DocumentError;
pub use event::{CloudEvent, EventKind};
pub use heartbeat::{Failed, Heartbeat, Replica};
pub use manifest::{Evidence, Manifest, ManifestFile, RelativePath, Route, Selector, Source};
pub use members::{Member, Members, NotHeard};
pub use place::{Bucket, Place};
pub use placement::{Candidate, Mine, Step};
pub use policy_set::{PolicyDocument, PolicyKind, PolicyText};
pub use ran::Ran;
pub use revocation::{RevocationEdit, RevocationList};
pub use seen::{Mark, Seen, SeenError, Verdict};
pub use token::{ClusterName, HostId, TokenError};
