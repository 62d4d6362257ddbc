//! Every size and count that this crate refuses to go beyond. Each has a test that crosses it.

use time::Duration;

/// Largest component that any trust policy can admit.
pub const COMPONENT_BYTES: u64 = 256 << 20;
/// Largest component that is admitted where the trust policy names no size.
pub const COMPONENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Largest piece of evidence: one bundle.
pub const BUNDLE_BYTES: usize = 1 << 20;
/// All evidence for one component together.
pub const EVIDENCE_BYTES: usize = 64 << 20;
/// Certificates in one bundle, leaf included.
pub const CERTIFICATES: usize = 4;
/// Links between a signer and the root: operator to account to team to CI.
pub const DELEGATION_DEPTH: usize = 3;
/// Subjects of a statement by somebody else.
pub const SUBJECTS: usize = 1024;
/// Changes of root keys that one trust policy carries.
pub const ROTATIONS: usize = 64;
/// Pinned Sigstore trusted roots in one trust policy.
pub const TRUSTED_ROOTS: usize = 8;
/// Pinned SPIFFE bundles in one trust policy.
pub const SPIFFE_BUNDLES: usize = 64;
/// Roles of one signer, kinds, and parts of one requirement.
pub const ROLES: usize = 16;
/// Largest deny list.
pub const DENY_LIST_BYTES: usize = 4 << 20;
/// Largest token that the strict reader of embedded tokens takes.
pub const TOKEN_BYTES: usize = 64 << 10;
/// Pieces of evidence that are looked at for one component.
pub const EVIDENCE_COUNT: usize = 64;
/// Largest claims file.
pub const CLAIMS_BYTES: usize = 1 << 20;
/// Largest trust policy, signed or not.
pub const TRUST_BYTES: usize = 4 << 20;
/// Largest manifest or index of a registry that is read.
pub const OCI_MANIFEST_BYTES: usize = 4 << 20;
/// Deepest nesting of JSON.
pub const JSON_DEPTH: usize = 16;
/// Values in one JSON document.
pub const JSON_VALUES: usize = 100_000;
/// Signatures on one trust policy, and root keys in it.
pub const ROOT_KEYS: usize = 16;
/// Entries in each list of a trust policy.
pub const TRUST_ENTRIES: usize = 10_000;
/// Entries in each list of claims, and imports or exports of a component.
pub const INTERFACES: usize = 1024;
/// Longest name of an import or export.
pub const NAME_BYTES: usize = 512;
/// Sections of a component, nested components included.
pub const SECTIONS: usize = 100_000;
/// Components inside components.
pub const COMPONENT_DEPTH: usize = 16;
/// Longest identity path.
pub const IDENTITY_PATH_BYTES: usize = 1024;
/// Segments of an identity path.
pub const IDENTITY_PATH_SEGMENTS: usize = 16;
/// Longest label: one half of a component name, a signer's name, a group.
pub const LABEL_BYTES: usize = 63;
/// Longest free text in claims: a source URI, an audience.
pub const TEXT_BYTES: usize = 255;
/// Characters of text from outside that a message repeats.
pub const EXCERPT_CHARS: usize = 96;
/// Problems that one report of a file lists.
pub const PROBLEMS: usize = 100;
/// How far a signer's clock may be ahead of ours. Expiry has no such margin.
pub const CLOCK_SKEW: Duration = Duration::seconds(60);
