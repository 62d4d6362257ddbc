//! Signers: how each is recognised, which roles it has, what is delegated to it, and by whom.

use serde::{Deserialize, Serialize};

use super::delegation::Delegation;
use super::identity::{OidcIdentity, SignerId, SignerIdentity, SignerKind, SpiffeIdentity};
use crate::signer_key::SignerKey;

/// A signer as it is named in decisions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signer {
    name: String,
    id: SignerId,
    kind: SignerKind,
    group: String,
    roles: Vec<String>,
    /// Names and IDs of those that it has its delegation from, nearest first.
    chain: Vec<(String, SignerId)>,
    /// The entry of the policy that it counts as: its own, or that of the signer who vouched for it outside of the policy.
    anchor: String,
}

/// A signer and what is delegated to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawEntry", into = "RawEntry")]
pub struct SignerEntry {
    /// A label, unique in the policy.
    pub name: String,
    /// How it is recognised; unique in the policy.
    pub identity: SignerIdentity,
    /// A label that policies can refer to; absent: the name.
    pub group: Option<String>,
    /// What it may count as where several must sign.
    pub roles: Vec<String>,
    /// The name of the signer that its delegation is a part of; absent: it has it from the roots.
    pub parent: Option<String>,
    /// What it may say.
    pub delegation: Delegation,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawEntry {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<SignerKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oidc: Option<OidcIdentity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spiffe: Option<SpiffeIdentity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    delegation: Delegation,
}

impl TryFrom<RawEntry> for SignerEntry {
    type Error = String;

    fn try_from(raw: RawEntry) -> Result<Self, String> {
        let identity = match (raw.key, raw.oidc, raw.spiffe) {
            (Some(key), None, None) => SignerIdentity::Key(key),
            (None, Some(oidc), None) => SignerIdentity::Oidc(oidc),
            (None, None, Some(spiffe)) => SignerIdentity::Spiffe(spiffe),
            _ => {
                return Err(format!(
                    "the signer `{}` needs exactly one of `key`, `oidc` and `spiffe`",
                    crate::Excerpt(&raw.name)
                ));
            }
        };
        Ok(Self {
            name: raw.name,
            identity,
            group: raw.group,
            roles: raw.roles,
            parent: raw.parent,
            delegation: raw.delegation,
        })
    }
}

impl From<SignerEntry> for RawEntry {
    fn from(entry: SignerEntry) -> Self {
        let (mut key, mut oidc, mut spiffe) = (None, None, None);
        match entry.identity {
            SignerIdentity::Key(own) => key = Some(own),
            SignerIdentity::Oidc(own) => oidc = Some(own),
            SignerIdentity::Spiffe(own) => spiffe = Some(own),
        }
        Self {
            name: entry.name,
            key,
            oidc,
            spiffe,
            group: entry.group,
            roles: entry.roles,
            parent: entry.parent,
            delegation: entry.delegation,
        }
    }
}

impl Signer {
    pub(crate) fn new(entry: &SignerEntry, id: SignerId, chain: Vec<(String, SignerId)>, anchor: &str) -> Self {
        Self {
            name: entry.name.clone(),
            id,
            kind: entry.identity.kind(),
            group: entry.group.clone().unwrap_or_else(|| entry.name.clone()),
            roles: entry.roles.clone(),
            chain,
            anchor: anchor.to_owned(),
        }
    }

    /// Its name in the trust policy, or in the delegation that another signer made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text that stands for it: a key, an OIDC identity, a SPIFFE ID.
    pub fn id(&self) -> &SignerId {
        &self.id
    }

    /// What kind of signer it is.
    pub fn kind(&self) -> SignerKind {
        self.kind
    }

    /// Its group; the signer's own name where none is given.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// What it may count as where several must sign.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// The names of those that it has its delegation from, nearest first; empty: from the roots.
    pub fn delegated_by(&self) -> impl Iterator<Item = &str> {
        self.chain.iter().map(|(name, _)| name.as_str())
    }

    /// The ID of one that it has its delegation from.
    pub(crate) fn id_above(&self, name: &str) -> Option<&SignerId> {
        self.chain.iter().find(|(above, _)| above == name).map(|(_, id)| id)
    }

    /// Its own ID and those of all that it has its delegation from.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &SignerId> {
        std::iter::once(&self.id).chain(self.chain.iter().map(|(_, id)| id))
    }

    /// The entry of the policy that it counts as: whoever vouches for many counts once.
    pub(crate) fn anchor(&self) -> &str {
        &self.anchor
    }
}
