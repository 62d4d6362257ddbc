//! What the identity process tells an operator about itself: the JSON of `portcullis identity show|rotate|taint|revoke`. Times
//! are Unix seconds. Members may be added; those that are here keep their meaning.

use serde::{Deserialize, Serialize};

/// `portcullis identity show`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Shown {
    /// Whose SVIDs are issued here.
    pub trust_domain: String,
    /// Grows with every change of the bundle.
    pub bundle_sequence: u64,
    /// Grows whenever SVIDs that were issued before must not be used any more.
    pub svid_epoch: u64,
    /// The policy in force.
    pub policy_generation: u64,
    /// Keys that sign, and those that are still trusted.
    pub authorities: Vec<AuthorityReport>,
    /// What rotation does next.
    pub next: Vec<NextReport>,
    /// Who has an identity.
    pub identities: Vec<IdentityReport>,
    /// SPIFFE IDs that are revoked.
    pub revoked: Vec<String>,
    /// Trust domains that this host federates with.
    pub peers: Vec<PeerReport>,
    /// Where identities come from, if not from the built-in issuer.
    pub source: Option<SourceReport>,
    /// What an operator must know.
    pub problems: Vec<String>,
}

/// One authority.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct AuthorityReport {
    /// `x509`, `jwt` or `wit`.
    pub kind: String,
    /// Its key id: what `taint` takes.
    pub id: String,
    /// `A` or `B`; absent for one that only stays published.
    pub slot: Option<String>,
    /// `prepared`, `active`, `old` or `tainted`.
    pub state: String,
    /// Of its key.
    pub algorithm: String,
    /// When it was made.
    pub prepared_at: i64,
    /// When it first signed.
    pub activated_at: Option<i64>,
    /// When it ends.
    pub not_after: i64,
    /// Until when it stays in the bundle, where that is settled.
    pub published_until: Option<i64>,
    /// Where its key lies: `file`, `pkcs11`, or `none` when it is destroyed.
    pub key_place: String,
    /// Whether its key can be used now: not while a PKCS#11 token is away.
    pub key_present: bool,
}

/// What is due.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct NextReport {
    /// `x509`, `jwt` or `wit`.
    pub kind: String,
    /// `prepare`, `activate` or `prune`.
    pub action: String,
    /// Which authority.
    pub authority: Option<String>,
    /// When.
    pub at: i64,
}

/// Who has an identity.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct IdentityReport {
    /// Minted by the host, per run.
    pub instance: String,
    /// The claimed name of the component.
    pub component: String,
    /// Of the component.
    pub digest: String,
    /// Derived from its verified claims.
    pub spiffe_id: String,
    /// Whether its identity is revoked.
    pub revoked: bool,
    /// End of its X.509-SVID, where it has one.
    pub x509_not_after: Option<i64>,
    /// X.509-SVIDs minted for it.
    pub x509_minted: u64,
    /// JWT-SVIDs minted for it.
    pub jwt_minted: u64,
}

/// A trust domain that this host federates with.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct PeerReport {
    /// Its name.
    pub trust_domain: String,
    /// `https_web` or `https_spiffe`.
    pub profile: String,
    /// Its bundle endpoint.
    pub url: String,
    /// Whether a bundle is in force: without one, nobody of this trust domain is believed.
    pub in_force: bool,
    /// Of the bundle that is held; absent: none is, or it has none.
    pub sequence: Option<u64>,
    /// When it was last fetched.
    pub fetched_at: Option<i64>,
    /// When it is fetched next.
    pub next_at: Option<i64>,
    /// Why the last attempt failed.
    pub problem: Option<String>,
}

/// A source of identities outside of this host.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct SourceReport {
    /// `spire-delegated` or `broker`.
    pub kind: String,
    /// Whether it answers.
    pub up: bool,
    /// Since when that is so.
    pub since: i64,
    /// Why it does not.
    pub problem: Option<String>,
}

/// `portcullis identity rotate` and `taint`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Rotated {
    /// What happened to authorities.
    pub authorities: Vec<AuthorityChanged>,
    /// X.509-SVIDs that were issued anew.
    pub x509_svids: u64,
    /// Instances for which that failed; they get one when they next ask.
    pub x509_failed: u64,
    /// From the request to the last record on the disk and the new state sent out.
    pub took_ms: u64,
    /// The bundle from now on.
    pub bundle_sequence: u64,
    /// The epoch of SVIDs from now on.
    pub svid_epoch: u64,
}

/// What happened to one authority.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct AuthorityChanged {
    /// `x509`, `jwt` or `wit`.
    pub kind: String,
    /// Its key id.
    pub id: String,
    /// `prepared`, `activated`, `retired`, `tainted`, `pruned` or `lost`.
    pub change: String,
    /// When it ends.
    pub not_after: i64,
}

/// `portcullis identity revoke`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Revoked {
    /// What was named.
    pub target: String,
    /// Whether the revocation was lifted instead.
    pub lifted: bool,
    /// Running instances whose identity ended by it.
    pub instances: Vec<String>,
}
