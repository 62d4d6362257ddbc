//! What some components need beyond one signature: several signers by role, and further evidence.

use serde::{Deserialize, Serialize};

use crate::claims::Claims;
use crate::component_name::NamePattern;

/// What components with these names need. All requirements that match a name hold together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Requirement {
    /// Component names; not empty.
    pub names: Vec<NamePattern>,
    /// So many distinct signers of each role must have signed the same claims.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<RoleThreshold>,
    /// Predicate types that the claims must name as evidence, each with the file that is handed over beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// So many distinct signers of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleThreshold {
    /// The role.
    pub role: String,
    /// How many.
    pub k: usize,
}

impl Requirement {
    /// Whether it is about these claims.
    pub(crate) fn is_about(&self, claims: &Claims) -> bool {
        self.names.iter().any(|pattern| pattern.matches(claims.name()))
    }
}
