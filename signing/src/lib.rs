//! Signed component claims: who made a component, what it may be called, what it may ask for, for how long.
//!
//! [`verify`] turns the bytes of a component and its evidence into [`Verified`]`<`[`Claims`]`>`, which nothing else can
//! make, or into a [`Refusal`] with a stable code. It trusts one thing: a [`TrustPolicy`] that pinned root keys have
//! signed. [`sign_component`] and [`sign_trust`] make what it reads.
//!
//! The formats are public ones: Sigstore bundle v0.3, DSSE, in-toto Statement v1, Ed25519 keys as nkeys. Everything here
//! is pure: bytes, keys and the time come in as arguments; there is no network, no file, no clock, no environment.
//! Everything refuses what it does not know.
//!
//! Signing: [`SecretKey::generate`], [`ClaimsDraft::new`] (from [`read_interfaces`]), [`sign_component`], which takes the
//! time. Trust: [`TrustDocument::new`], [`TrustDocument::add_signer`], [`sign_trust`], [`TrustPolicy::verify`]. Verdict:
//! [`verify`] with a [`Context`], [`DecisionRecord::new`] for the log; [`RefusalCode::exit_code`] for commands.

mod bytes;
mod claims;
mod component;
mod component_name;
mod digest;
mod draft;
mod excerpt;
mod fields;
mod identity_path;
mod interface;
mod json;
mod key;
mod lifetime;
mod malformed;
mod metadata;
mod record;
mod refusal;
mod sign;
mod signer_key;
mod verified;
mod verifier;

pub mod bundle;
pub mod cosign;
pub mod envelope;
pub mod keyless;
pub mod limits;
pub mod oci;
pub mod statement;
pub mod svid;
pub mod timestamp;
pub mod trust;
pub mod wascap;

pub use bytes::{ComponentBytes, ReadError};
pub use claims::{Claims, ClaimsError, EvidenceRef, PREDICATE_TYPE, Source};
pub use component::{ComponentError, read_interfaces};
pub use component_name::{Audience, ComponentName, ComponentVersion, NamePattern};
pub use digest::Digest;
pub use draft::ClaimsDraft;
pub use excerpt::Excerpt;
pub use fields::Problem;
pub use identity_path::{IdentityPath, IdentityPattern};
pub use interface::{ImportName, ImportPattern, InterfaceName, Interfaces};
pub use json::JsonError;
pub use key::{KeyError, KeyKind, PublicKey, SIGNATURE_BYTES, SecretKey};
pub use lifetime::Lifetime;
pub use malformed::Malformed;
pub use metadata::{Metadata, read_metadata};
pub use record::{DecisionRecord, Verdict};
pub use refusal::{Refusal, RefusalCode};
pub use sign::{Prepared, SignError, sign_component};
pub use signer_key::{P256Key, SignerKey, SignerKeyError};
pub use trust::{
    Delegation, DenyList, OnExpiry, SignTrustError, Signer, SignerEntry, SignerId, SignerIdentity, SignerKind,
    TrustDocument, TrustError, TrustPolicy, sign_delegation, sign_trust,
};
pub use verified::Verified;
pub use verifier::{Context, Examination, HighWaterError, HighestSeen, examine, recheck, verify};
