//! Claims that the trust policy supplies where evidence proves only where a file comes from: provenance, a signature over
//! the file alone, a cosign signature, an embedded token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::claims::{Claims, ClaimsError};
use crate::component_name::{Audience, ComponentName, ComponentVersion};
use crate::digest::Digest;
use crate::identity_path::IdentityPath;
use crate::interface::ImportName;
use crate::timestamp;

/// What a signer's evidence about a file's origin is worth: these claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Origin {
    /// The name of the signer.
    pub signer: String,
    /// What the evidence must be.
    pub evidence: OriginEvidence,
    /// Only this file; absent: any that the signer vouches for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Its name.
    pub name: ComponentName,
    /// Its version.
    pub version: ComponentVersion,
    /// Its revision, for rollback protection.
    pub revision: u64,
    /// What it may ask the host for.
    pub imports: Vec<ImportName>,
    /// The path of its SPIFFE ID.
    pub identity_path: IdentityPath,
    /// The clusters that may run it; not empty.
    pub audience: Vec<Audience>,
    /// Until when.
    #[serde(with = "timestamp")]
    pub expires_at: OffsetDateTime,
}

/// What the evidence of an origin must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum OriginEvidence {
    /// SLSA provenance v1 in a bundle, with exactly this content.
    Provenance(Provenance),
    /// A bundle with a signature over the file alone.
    Signature {},
    /// A cosign v2 signature over the manifest that the file is the one layer of.
    Cosign {},
    /// A wascap token embedded in the file, of this subject (`M...`) where one is named.
    Wascap {
        /// The subject.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
    },
}

/// The fields of SLSA provenance that say how something was built (slsa.dev, verifying artifacts).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provenance {
    /// `runDetails.builder.id`, exactly.
    pub builder_id: String,
    /// `buildDefinition.buildType`, exactly.
    pub build_type: String,
    /// Every value in `buildDefinition.externalParameters` by its JSON pointer; `null`: any value. One that is not listed
    /// refuses the provenance: it could change what was built.
    pub external_parameters: BTreeMap<String, Option<String>>,
}

impl Origin {
    /// The claims about a file that was signed at `from`.
    pub(crate) fn claims(
        &self,
        from: OffsetDateTime,
        not_before: OffsetDateTime,
        expires_at: OffsetDateTime,
    ) -> Result<Claims, ClaimsError> {
        Claims::from_value(json!({
            "component": { "name": self.name, "version": self.version, "revision": self.revision },
            "kind": "component",
            "imports": self.imports,
            "exports": [],
            "identity": { "path": self.identity_path },
            "issuedAt": timestamp::format(from),
            "notBefore": timestamp::format(not_before),
            "expiresAt": timestamp::format(expires_at),
            "audience": self.audience,
        }))
    }

    /// Whether this one, of a policy in force now, supplies what `before` once did for that file, so that it may run on. Version
    /// and revision are for new loads, and a later end changes nothing.
    pub(crate) fn still_supplies(&self, before: &Self, file: &Digest, audience: &str, now: OffsetDateTime) -> bool {
        self.signer == before.signer
            && self.evidence == before.evidence
            && self.digest.is_none_or(|digest| digest == *file)
            && self.name == before.name
            && self.identity_path == before.identity_path
            && before.imports.iter().all(|import| self.imports.iter().any(|own| own.covers(import)))
            && self.audience.iter().any(|own| own.as_str() == audience)
            && now < self.expires_at
    }
}

impl OriginEvidence {
    /// As it is written in a trust policy.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            OriginEvidence::Provenance(_) => "provenance",
            OriginEvidence::Signature {} => "signature",
            OriginEvidence::Cosign {} => "cosign",
            OriginEvidence::Wascap { .. } => "wascap",
        }
    }
}

impl Provenance {
    /// The first way in which `predicate`, of SLSA provenance v1, is another.
    pub(crate) fn differs(&self, predicate: &Value) -> Option<String> {
        let text = |pointer: &str| predicate.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        for (pointer, wanted) in
            [("/runDetails/builder/id", &self.builder_id), ("/buildDefinition/buildType", &self.build_type)]
        {
            if text(pointer) != wanted {
                return Some(format!("{pointer} is `{}`", crate::Excerpt(text(pointer))));
            }
        }
        let parameters = match predicate.pointer("/buildDefinition/externalParameters") {
            Some(parameters @ Value::Object(_)) => parameters,
            _ => return Some("/buildDefinition/externalParameters is missing".to_owned()),
        };
        let mut found = BTreeMap::new();
        leaves(String::new(), parameters, &mut found);
        for (pointer, value) in &found {
            let shown = || format!("the external parameter {} is `{}`", crate::Excerpt(pointer), crate::Excerpt(value));
            match self.external_parameters.get(pointer) {
                Some(None) => {}
                Some(Some(wanted)) if wanted == value => {}
                Some(Some(_)) => return Some(shown()),
                None => return Some(format!("{}, which the trust policy does not name", shown())),
            }
        }
        let missing = self.external_parameters.iter().find(|(at, value)| value.is_some() && !found.contains_key(*at));
        missing.map(|(pointer, _)| format!("the external parameter {} is missing", crate::Excerpt(pointer)))
    }
}

/// Every value that is not a list or an object, or is an empty one, by its JSON pointer (RFC 6901). Texts stand as they are.
fn leaves(at: String, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                leaves(format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), value, found);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (index, value) in list.iter().enumerate() {
                leaves(format!("{at}/{index}"), value, found);
            }
        }
        Value::String(text) => drop(found.insert(at, text.clone())),
        other => drop(found.insert(at, other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Provenance {
        let parameters = [("/workflow/ref", Some("refs/heads/main")), ("/inputs/note", None)];
        Provenance {
            builder_id: "https://ci.example/builder".to_owned(),
            build_type: "https://ci.example/type/v1".to_owned(),
            external_parameters: parameters
                .map(|(at, value)| (at.to_owned(), value.map(ToOwned::to_owned)))
                .into_iter()
                .collect(),
        }
    }

    fn predicate() -> Value {
        json!({
            "buildDefinition": {
                "buildType": "https://ci.example/type/v1",
                "externalParameters": { "workflow": { "ref": "refs/heads/main" }, "inputs": { "note": "x" } }
            },
            "runDetails": { "builder": { "id": "https://ci.example/builder" } }
        })
    }

    #[test]
    fn provenance_must_be_exactly_what_the_policy_says() {
        assert_eq!(wanted().differs(&predicate()), None);
        for (pointer, value) in [
            ("/buildDefinition/buildType", json!("https://ci.example/type/v2")),
            ("/buildDefinition/externalParameters", json!(null)),
            ("/buildDefinition/externalParameters", json!({})),
            ("/buildDefinition/externalParameters/workflow/ref", json!("refs/heads/evil")),
            ("/buildDefinition/externalParameters/workflow", json!({"ref": "refs/heads/main", "extra": [1]})),
            ("/buildDefinition/externalParameters/workflow", json!({"ref": ["refs/heads/main"]})),
            ("/runDetails/builder/id", json!("https://ci.example/builder/")),
            ("/runDetails/builder", json!({})),
        ] {
            let mut changed = predicate();
            *changed.pointer_mut(pointer).unwrap() = value.clone();
            assert!(wanted().differs(&changed).is_some(), "{pointer} {value}");
        }
    }

    #[test]
    fn a_parameter_whose_value_does_not_matter_may_be_missing_but_not_unnamed() {
        let mut changed = predicate();
        changed["buildDefinition"]["externalParameters"]["inputs"] = json!({"note": 7});
        assert_eq!(wanted().differs(&changed), None);
        changed["buildDefinition"]["externalParameters"]["inputs"] = json!({});
        assert_eq!(
            wanted().differs(&changed).as_deref(),
            Some("the external parameter /inputs is `{}`, which the trust policy does not name")
        );
    }
}
