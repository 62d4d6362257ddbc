//! What a signer may say: names, identities, clusters, imports, for how long. Only ever narrows.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::claims::Claims;
use crate::component_name::{Audience, NamePattern};
use crate::identity_path::IdentityPattern;
use crate::interface::ImportPattern;
use crate::key::PublicKey;
use crate::lifetime::Lifetime;
use crate::refusal::{Refusal, RefusalCode};
use crate::timestamp;

/// A signer as it is named in decisions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signer {
    name: String,
    key: PublicKey,
    group: String,
}

/// A signer and what is delegated to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SignerEntry {
    /// A label, unique in the policy.
    pub name: String,
    /// A signer key, unique in the policy.
    pub key: PublicKey,
    /// A label that policies can refer to; absent: the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What it may say.
    pub delegation: Delegation,
}

/// What a signer may say. A component must fit into every part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Delegation {
    /// Component names; not empty.
    pub names: Vec<NamePattern>,
    /// Paths of SPIFFE IDs; not empty.
    pub identity_paths: Vec<IdentityPattern>,
    /// Clusters; not empty.
    pub audiences: Vec<Audience>,
    /// What its components may import at most; empty: nothing.
    pub imports: Vec<ImportPattern>,
    /// How long its claims may hold at most.
    pub max_lifetime: Lifetime,
    /// When the delegation ends.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::option")]
    pub not_after: Option<OffsetDateTime>,
}

impl Signer {
    /// Its name in the trust policy.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Its group; the signer's own name where none is given.
    pub fn group(&self) -> &str {
        &self.group
    }
}

impl SignerEntry {
    /// The signer as it is named in decisions.
    pub fn signer(&self) -> Signer {
        let group = self.group.clone().unwrap_or_else(|| self.name.clone());
        Signer { name: self.name.clone(), key: self.key, group }
    }

    /// Refuses claims that are beyond what is delegated to this signer.
    pub(crate) fn check(&self, claims: &Claims, audience: &str, now: OffsetDateTime) -> Result<(), Refusal> {
        let own = &self.delegation;
        let refuse = |code, what: String, hint: &str| {
            let message = format!("signer `{}` {what}", self.name);
            Err(Refusal::new(code, message, hint).detail("signer", [&self.name]))
        };
        if let Some(not_after) = own.not_after
            && now >= not_after
        {
            let what = format!("was trusted until {}, it is {}", timestamp::format(not_after), timestamp::format(now));
            return refuse(
                RefusalCode::SignerExpired,
                what,
                "have another signer sign, or extend notAfter in the trust policy",
            );
        }
        if !own.names.iter().any(|pattern| pattern.matches(claims.name())) {
            let what = format!("may not speak for the component `{}`", claims.name());
            return refuse(
                RefusalCode::SignerName,
                what,
                "use a name that is delegated to the signer, or add it to `names` of its delegation",
            );
        }
        if !own.identity_paths.iter().any(|pattern| pattern.matches(claims.identity_path())) {
            let what = format!("may not give the identity `{}`", claims.identity_path());
            return refuse(
                RefusalCode::SignerIdentity,
                what,
                "claim a path that is delegated to the signer, or add it to `identityPaths` of its delegation",
            );
        }
        if !own.audiences.iter().any(|own| own.as_str() == audience) {
            let what = format!("may not speak for the cluster `{}`", crate::Excerpt(audience));
            return refuse(
                RefusalCode::SignerAudience,
                what,
                "add the cluster to `audiences` of the signer's delegation",
            );
        }
        let beyond: Vec<_> = claims
            .imports()
            .iter()
            .filter(|import| !own.imports.iter().any(|pattern| pattern.matches(import)))
            .collect();
        if !beyond.is_empty() {
            let listed = beyond.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let what = format!("may not let a component import {listed}");
            return refuse(
                RefusalCode::SignerImports,
                what,
                "claim fewer imports, or add them to `imports` of the signer's delegation",
            )
            .map_err(|refusal| refusal.detail("imports", beyond));
        }
        if claims.lifetime() > own.max_lifetime.duration() {
            let what = format!(
                "may make claims for {} at most, these hold from {} to {}",
                own.max_lifetime,
                timestamp::format(claims.issued_at().min(claims.not_before())),
                timestamp::format(claims.expires_at()),
            );
            return refuse(RefusalCode::SignerLifetime, what, "sign claims with an earlier expiresAt");
        }
        Ok(())
    }
}
