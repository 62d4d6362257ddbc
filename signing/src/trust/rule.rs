//! Revision floors, denials and permitted rollbacks.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use super::identity::SignerId;
use super::signer::Signer;
use crate::claims::Claims;
use crate::component_name::{Audience, ComponentName};
use crate::digest::Digest;
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
    /// One signed statement, or whatever else carried the claims.
    Claims(DenyClaims),
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

/// One signed statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyClaims {
    /// The digest of the claims, as decision records show it.
    pub claims: Digest,
}

/// What a signer signed: all of it, or what claims to be issued after a time. Whoever holds a stolen key can backdate
/// claims, so a time limits what is lost to the signer's longest lifetime and no further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DenySigner {
    /// The signer, or one that it has its delegation from: a key, `oidc:ISSUER#IDENTITY`, a SPIFFE ID or a pattern of them.
    pub signer: SignerId,
    /// What was signed at this time or before is still taken; absent: nothing is. The time is the proven one where evidence
    /// proves it, else the one that the claims state. Where neither says a time, it is denied.
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

    /// Denies one signed statement.
    pub fn claims(claims: Digest) -> Self {
        Deny::Claims(DenyClaims { claims })
    }

    /// Denies what a signer signed, all of it or what was signed after a time.
    pub fn signer(signer: impl Into<SignerId>, signed_after: Option<OffsetDateTime>) -> Self {
        Deny::Signer(DenySigner { signer: signer.into(), signed_after })
    }

    /// Denies revisions of a component.
    pub fn revisions(name: ComponentName, min: u64, max: u64) -> Self {
        Deny::Revisions(DenyRevisions { name, revisions: RevisionRange { min, max } })
    }

    /// Whether it is a range that can hold something.
    pub(super) fn is_sound(&self) -> bool {
        !matches!(self, Deny::Revisions(deny) if deny.revisions.min > deny.revisions.max)
    }

    /// What is denied, where it applies.
    pub(crate) fn applies(&self, about: &About<'_>) -> Option<String> {
        match self {
            Deny::Digest(deny) => (deny.digest == *about.digest).then(|| format!("the file {}", deny.digest)),
            Deny::Claims(deny) => (deny.claims == *about.statement).then(|| format!("the claims {}", deny.claims)),
            Deny::Signer(deny) => {
                let signer = about.signer.ids().find(|id| deny.signer.means(id))?;
                match deny.signed_after {
                    None => Some(format!("everything that {signer} signed")),
                    Some(after) => about.signed_at.is_none_or(|at| at > after).then(|| {
                        let when = if about.signed_at.is_none() { ", and when this was is not known" } else { "" };
                        format!("what {signer} signed after {}{when}", timestamp::format(after))
                    }),
                }
            }
            Deny::Revisions(deny) => {
                let (range, claims) = (&deny.revisions, about.claims);
                (deny.name == *claims.name() && (range.min..=range.max).contains(&claims.revision()))
                    .then(|| format!("revisions {} to {} of `{}`", range.min, range.max, deny.name))
            }
        }
    }
}

/// What a denial may be about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) statement: &'a Digest,
    pub(crate) signer: &'a Signer,
    pub(crate) claims: &'a Claims,
    /// Absent: neither the evidence nor the claims say.
    pub(crate) signed_at: Option<OffsetDateTime>,
}

impl<'de> Deserialize<'de> for Deny {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let read = if value.get("digest").is_some() {
            serde_json::from_value(value).map(Deny::Digest)
        } else if value.get("claims").is_some() {
            serde_json::from_value(value).map(Deny::Claims)
        } else if value.get("signer").is_some() {
            serde_json::from_value(value).map(Deny::Signer)
        } else if value.get("name").is_some() {
            serde_json::from_value(value).map(Deny::Revisions)
        } else {
            return Err(D::Error::custom("a denial needs `digest`, `claims`, `signer`, or `name` and `revisions`"));
        };
        read.map_err(D::Error::custom)
    }
}

/// Whether a rule for `own`, or for all clusters, is about `audience`.
pub(crate) fn is_for(own: Option<&Audience>, audience: &str) -> bool {
    own.is_none_or(|own| own.as_str() == audience)
}
