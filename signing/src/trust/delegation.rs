//! What a signer may say: names, identities, clusters, imports, for how long; and what it may hand on. Only ever narrows.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::identity::SignerKind;
use crate::claims::Claims;
use crate::component_name::{Audience, NamePattern};
use crate::identity_path::IdentityPattern;
use crate::interface::ImportPattern;
use crate::lifetime::Lifetime;
use crate::refusal::{Refusal, RefusalCode};
use crate::timestamp;

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
    /// Whether it may hand parts of this on to others; absent: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onward: Option<Onward>,
}

/// What a signer may hand on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Onward {
    /// How many further links there may be below it; at least 1.
    pub depth: usize,
    /// To which kinds of signers; not empty.
    pub kinds: Vec<SignerKind>,
}

impl Delegation {
    /// Every way in which this one goes beyond `parent`. Empty: it is a part of it.
    pub fn beyond(&self, parent: &Self) -> Vec<String> {
        let mut beyond = Vec::new();
        let mut list = |what: &str, wider: Vec<String>| {
            beyond.extend(wider.into_iter().map(|part| format!("{what} `{part}`")));
        };
        let names = self.names.iter().filter(|own| !parent.names.iter().any(|other| other.includes(own)));
        list("names", names.map(ToString::to_string).collect());
        let paths =
            self.identity_paths.iter().filter(|own| !parent.identity_paths.iter().any(|other| other.includes(own)));
        list("identityPaths", paths.map(ToString::to_string).collect());
        let audiences = self.audiences.iter().filter(|own| !parent.audiences.contains(own));
        list("audiences", audiences.map(ToString::to_string).collect());
        let imports = self.imports.iter().filter(|own| !parent.imports.iter().any(|other| other.includes(own)));
        list("imports", imports.map(ToString::to_string).collect());
        if self.max_lifetime > parent.max_lifetime {
            list("maxLifetime", vec![self.max_lifetime.to_string()]);
        }
        if let (Some(own), Some(other)) = (self.not_after, parent.not_after)
            && own > other
        {
            list("notAfter", vec![timestamp::format(own)]);
        }
        match (&self.onward, &parent.onward) {
            (_, None) => list("onward", vec!["none at all".to_owned()]),
            (None, Some(_)) => {}
            (Some(own), Some(other)) => {
                if own.depth >= other.depth {
                    list("onward.depth", vec![own.depth.to_string()]);
                }
                let kinds = own.kinds.iter().filter(|kind| !other.kinds.contains(kind));
                list("onward.kinds", kinds.map(ToString::to_string).collect());
            }
        }
        beyond
    }

    /// Refuses claims that are beyond what is delegated to the signer called `name`.
    pub(crate) fn check(
        &self,
        name: &str,
        claims: &Claims,
        audience: &str,
        now: OffsetDateTime,
    ) -> Result<(), Refusal> {
        let refuse = |code, what: String, hint: &str| {
            let message = format!("signer `{name}` {what}");
            Err(Refusal::new(code, message, hint).detail("signer", [name]))
        };
        self.check_time(name, now)?;
        if !self.names.iter().any(|pattern| pattern.matches(claims.name())) {
            let what = format!("may not speak for the component `{}`", claims.name());
            return refuse(
                RefusalCode::SignerName,
                what,
                "use a name that is delegated to the signer, or add it to `names` of its delegation",
            );
        }
        if !self.identity_paths.iter().any(|pattern| pattern.matches(claims.identity_path())) {
            let what = format!("may not give the identity `{}`", claims.identity_path());
            return refuse(
                RefusalCode::SignerIdentity,
                what,
                "claim a path that is delegated to the signer, or add it to `identityPaths` of its delegation",
            );
        }
        if !self.audiences.iter().any(|own| own.as_str() == audience) {
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
            .filter(|import| !self.imports.iter().any(|pattern| pattern.matches(import)))
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
        if claims.lifetime() > self.max_lifetime.duration() {
            let what = format!(
                "may make claims for {} at most, these hold from {} to {}",
                self.max_lifetime,
                timestamp::format(claims.issued_at().min(claims.not_before())),
                timestamp::format(claims.expires_at()),
            );
            return refuse(RefusalCode::SignerLifetime, what, "sign claims with an earlier expiresAt");
        }
        Ok(())
    }

    /// Refuses a delegation that is over.
    pub(crate) fn check_time(&self, name: &str, now: OffsetDateTime) -> Result<(), Refusal> {
        match self.not_after {
            Some(not_after) if now >= not_after => Err(Refusal::new(
                RefusalCode::SignerExpired,
                format!(
                    "signer `{name}` was trusted until {}, it is {}",
                    timestamp::format(not_after),
                    timestamp::format(now)
                ),
                "have another signer sign, or extend notAfter in the trust policy",
            )
            .detail("signer", [name])),
            _ => Ok(()),
        }
    }
}
