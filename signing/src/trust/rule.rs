//! Revision floors, denials and permitted rollbacks.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::claims::Claims;
use crate::component_name::{Audience, ComponentName};
use crate::digest::Digest;
use crate::key::PublicKey;
use crate::timestamp;

/// No revision below this one is admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// Of which component.
    pub name: ComponentName,
    /// In which cluster; absent: in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
    /// The lowest revision that is admitted.
    pub revision: u64,
}

/// A deliberate rollback: this revision is admitted although a higher one was seen. Floors and denials still hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowRevision {
    /// Of which component.
    pub name: ComponentName,
    /// In which cluster; absent: in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
    /// Exactly this revision.
    pub revision: u64,
}

/// Something that is not admitted, whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Deny {
    /// One file.
    Digest(DenyDigest),
    /// What a signer signed.
    Signer(DenySigner),
    /// Some revisions of a component.
    Revisions(DenyRevisions),
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyDigest {
    /// Its digest.
    pub digest: Digest,
}

/// What a signer signed: all of it, or what claims to be issued after a time. Whoever holds a stolen key can backdate
/// claims, so a time limits what is lost to the signer's longest lifetime and no further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DenySigner {
    /// The signer's key.
    pub signer: PublicKey,
    /// Claims issued at this time or before are still taken; absent: none are.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::option")]
    pub signed_after: Option<OffsetDateTime>,
}

/// Some revisions of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyRevisions {
    /// Its name.
    pub name: ComponentName,
    /// Which of them.
    pub revisions: RevisionRange,
}

/// Revisions from `min` to `max`, both included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevisionRange {
    /// The first.
    pub min: u64,
    /// The last.
    pub max: u64,
}

impl Deny {
    /// Denies one file.
    pub fn digest(digest: Digest) -> Self {
        Deny::Digest(DenyDigest { digest })
    }

    /// Denies what a signer signed, all of it or what was issued after a time.
    pub fn signer(signer: PublicKey, signed_after: Option<OffsetDateTime>) -> Self {
        Deny::Signer(DenySigner { signer, signed_after })
    }

    /// Denies revisions of a component.
    pub fn revisions(name: ComponentName, min: u64, max: u64) -> Self {
        Deny::Revisions(DenyRevisions { name, revisions: RevisionRange { min, max } })
    }

    /// What is denied, where it applies.
    pub(crate) fn applies(&self, digest: &Digest, signer: &PublicKey, claims: &Claims) -> Option<String> {
        match self {
            Deny::Digest(deny) => (deny.digest == *digest).then(|| format!("the file {digest}")),
            Deny::Signer(deny) => match deny.signed_after {
                _ if deny.signer != *signer => None,
                None => Some(format!("everything that {signer} signed")),
                Some(after) => (claims.issued_at() > after)
                    .then(|| format!("what {signer} signed after {}", timestamp::format(after))),
            },
            Deny::Revisions(deny) => {
                let range = &deny.revisions;
                (deny.name == *claims.name() && (range.min..=range.max).contains(&claims.revision()))
                    .then(|| format!("revisions {} to {} of `{}`", range.min, range.max, deny.name))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Deny {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let read = if value.get("digest").is_some() {
            serde_json::from_value(value).map(Deny::Digest)
        } else if value.get("signer").is_some() {
            serde_json::from_value(value).map(Deny::Signer)
        } else if value.get("name").is_some() {
            serde_json::from_value(value).map(Deny::Revisions)
        } else {
            return Err(D::Error::custom("a denial needs `digest`, or `signer`, or `name` and `revisions`"));
        };
        read.map_err(D::Error::custom)
    }
}

/// Whether a rule for `own`, or for all clusters, is about `audience`.
pub(crate) fn is_for(own: Option<&Audience>, audience: &str) -> bool {
    own.is_none_or(|own| own.as_str() == audience)
}
