//! Claims in the making: what `claims init` writes and a person completes. Any text is allowed until [`ClaimsDraft::build`].

use serde::Serialize;
use time::OffsetDateTime;

use crate::claims::{Claims, ClaimsError};
use crate::interface::{ImportName, Interfaces};
use crate::json;
use crate::lifetime::Lifetime;
use crate::timestamp;

/// Claims that may still be incomplete.
#[derive(Debug, Clone)]
pub struct ClaimsDraft {
    /// `namespace:name`; empty until somebody says.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// Must grow with every release.
    pub revision: u64,
    /// Imports, from the component.
    pub imports: Vec<ImportName>,
    /// Exports, from the component.
    pub exports: Vec<ImportName>,
    /// Path of the SPIFFE ID; empty until somebody says.
    pub identity_path: String,
    /// When the claims were made.
    pub issued_at: OffsetDateTime,
    /// From when they hold.
    pub not_before: OffsetDateTime,
    /// Until when they hold.
    pub expires_at: OffsetDateTime,
    /// Names of clusters; empty until somebody says.
    pub audience: Vec<String>,
}

/// The same in the form of a claims file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    component: Component<'a>,
    kind: &'a str,
    imports: &'a [ImportName],
    exports: &'a [ImportName],
    identity: Identity<'a>,
    issued_at: String,
    not_before: String,
    expires_at: String,
    audience: &'a [String],
    evidence: [(); 0],
    critical: [(); 0],
}

#[derive(Serialize)]
struct Component<'a> {
    name: &'a str,
    version: &'a str,
    revision: u64,
}

#[derive(Serialize)]
struct Identity<'a> {
    path: &'a str,
}

impl ClaimsDraft {
    /// A draft that names what the component imports and exports, valid from `now` for `lifetime`. The rest is to be filled in.
    pub fn new(interfaces: &Interfaces, now: OffsetDateTime, lifetime: Lifetime) -> Self {
        // Whole seconds: people edit this.
        let now = now.replace_nanosecond(0).unwrap_or(now);
        Self {
            name: String::new(),
            version: "0.1.0".to_owned(),
            revision: 1,
            imports: interfaces.imports.clone(),
            exports: interfaces.exports.clone(),
            identity_path: String::new(),
            issued_at: now,
            not_before: now,
            expires_at: now.saturating_add(lifetime.duration()),
            audience: Vec::new(),
        }
    }

    /// Checks everything and gives the claims, or every problem.
    pub fn build(&self) -> Result<Claims, ClaimsError> {
        match serde_json::to_vec(&self.file()) {
            Ok(bytes) => Claims::parse(&bytes),
            Err(error) => Err(json::JsonError::Syntax(error.to_string()).into()),
        }
    }

    /// Indented JSON with a line end: a claims file, complete or not.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        json::pretty(&self.file())
    }

    fn file(&self) -> File<'_> {
        File {
            component: Component { name: &self.name, version: &self.version, revision: self.revision },
            kind: "component",
            imports: &self.imports,
            exports: &self.exports,
            identity: Identity { path: &self.identity_path },
            issued_at: timestamp::format(self.issued_at),
            not_before: timestamp::format(self.not_before),
            expires_at: timestamp::format(self.expires_at),
            audience: &self.audience,
            evidence: [],
            critical: [],
        }
    }
}
