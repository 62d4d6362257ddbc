//! Component claims: what a signer says about one component. The predicate of [`PREDICATE_TYPE`].
//!
//! Claims are plain until the verifier has seen a signature over them: only `Verified<Claims>` may decide anything. Parsing
//! refuses unknown keys, unknown entries of `critical`, an empty audience, a missing or impossible time.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::component_name::{Audience, ComponentName, ComponentVersion};
use crate::digest::{Digest, digest_set};
use crate::fields::{Fields, Problem, Problems};
use crate::identity_path::IdentityPath;
use crate::interface::ImportName;
use crate::json::{self, JsonError};
use crate::limits::{CLAIMS_BYTES, EVIDENCE_COUNT, INTERFACES, TEXT_BYTES};
use crate::malformed::Malformed;
use crate::timestamp;

/// The in-toto predicate type of these claims.
pub const PREDICATE_TYPE: &str = "https://portcullis.dev/component-claims/v1";

/// Well-formed claims. Says nothing about who made them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claims {
    component: ComponentId,
    kind: Kind,
    imports: Vec<ImportName>,
    exports: Vec<ImportName>,
    identity: Identity,
    #[serde(with = "timestamp")]
    issued_at: OffsetDateTime,
    #[serde(with = "timestamp")]
    not_before: OffsetDateTime,
    #[serde(with = "timestamp")]
    expires_at: OffsetDateTime,
    audience: Vec<Audience>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    evidence: Vec<EvidenceRef>,
    critical: Vec<String>,
}

/// Where a component was built from. For people and for provenance; decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// For example `git+https://example.org/acme/orders`.
    pub uri: String,
    /// For example `gitCommit` and its hex digits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
}

/// A further attestation that belongs to the component, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceRef {
    /// Its predicate type.
    pub predicate_type: String,
    /// The digest of the file.
    #[serde(with = "digest_set")]
    pub digest: Digest,
}

/// What is wrong with claims: every problem, not the first. The signer erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// Not JSON.
    #[error("the claims cannot be read: {0}")]
    Json(#[from] JsonError),
    /// Not claims.
    #[error("the claims have {} problem{}: {}", problems.len(), if problems.len() == 1 { "" } else { "s" }, list(problems))]
    Invalid {
        /// All that was found.
        problems: Vec<Problem>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ComponentId {
    name: ComponentName,
    version: ComponentVersion,
    revision: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Component,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Identity {
    path: IdentityPath,
}

impl Claims {
    /// Reads a claims file: the same JSON that is signed as the predicate.
    pub fn parse(bytes: &[u8]) -> Result<Self, ClaimsError> {
        Self::from_value(json::parse(bytes, CLAIMS_BYTES)?)
    }

    /// Indented JSON with a line end.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        json::pretty(self)
    }

    /// The claimed name.
    pub fn name(&self) -> &ComponentName {
        &self.component.name
    }

    /// The claimed version.
    pub fn version(&self) -> &ComponentVersion {
        &self.component.version
    }

    /// Grows with every release; what rollback protection compares.
    pub fn revision(&self) -> u64 {
        self.component.revision
    }

    /// What the component may ask the host for.
    pub fn imports(&self) -> &[ImportName] {
        &self.imports
    }

    /// What it offers.
    pub fn exports(&self) -> &[ImportName] {
        &self.exports
    }

    /// The path of the SPIFFE ID that it asks for.
    pub fn identity_path(&self) -> &IdentityPath {
        &self.identity.path
    }

    /// When the claims were made, as the signer says.
    pub fn issued_at(&self) -> OffsetDateTime {
        self.issued_at
    }

    /// From when they hold.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// Until when they hold; not at this instant any more.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }

    /// The clusters that they are for; never empty.
    pub fn audience(&self) -> &[Audience] {
        &self.audience
    }

    /// Where the component was built from.
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// Further attestations, by digest.
    pub fn evidence(&self) -> &[EvidenceRef] {
        &self.evidence
    }

    /// From the earlier of the two beginnings to the end: what a delegation's longest lifetime is compared with.
    pub fn lifetime(&self) -> time::Duration {
        self.expires_at - self.issued_at.min(self.not_before)
    }

    /// Those of `actual` that the claims do not name.
    pub fn hidden_imports<'a>(&self, actual: &'a [ImportName]) -> Vec<&'a ImportName> {
        actual.iter().filter(|import| !self.imports.iter().any(|claimed| claimed.covers(import))).collect()
    }

    pub(crate) fn from_value(value: Value) -> Result<Self, ClaimsError> {
        let mut problems = Problems::default();
        match Self::read(value, &mut problems) {
            Some(claims) if problems.is_empty() => Ok(claims),
            _ => Err(ClaimsError::Invalid { problems: problems.into_vec() }),
        }
    }

    fn read(value: Value, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::open("", value, problems)?;
        let component = fields.object("component", problems).and_then(|mut fields| {
            let name = fields.text("name", problems);
            let version = fields.text("version", problems);
            let revision = fields.number("revision", problems);
            fields.finish(problems);
            Some(ComponentId { name: name?, version: version?, revision: revision? })
        });
        let kind = fields.text("kind", problems);
        let imports = fields.texts("imports", true, INTERFACES, problems);
        let exports = fields.texts("exports", true, INTERFACES, problems);
        let identity = fields.object("identity", problems).and_then(|mut fields| {
            let path = fields.text("path", problems);
            fields.finish(problems);
            Some(Identity { path: path? })
        });
        let mut instant = |key| fields.text::<Instant>(key, problems).map(|Instant(at)| at);
        let (issued_at, not_before, expires_at) = (instant("issuedAt"), instant("notBefore"), instant("expiresAt"));
        if let (Some(not_before), Some(expires_at)) = (not_before, expires_at)
            && expires_at <= not_before
        {
            problems.add("expiresAt", "is not after notBefore");
        }
        if let (Some(issued_at), Some(expires_at)) = (issued_at, expires_at)
            && expires_at <= issued_at
        {
            problems.add("expiresAt", "is not after issuedAt");
        }
        let had_audience = problems.count();
        let audience: Vec<Audience> = fields.texts("audience", true, INTERFACES, problems);
        if audience.is_empty() && problems.count() == had_audience {
            problems.add("audience", "is empty: name the clusters that may run this component");
        }
        let source = fields.optional("source").and_then(|value| read_source(value, problems));
        let evidence = fields.list("evidence", false, EVIDENCE_COUNT, problems);
        let evidence = evidence.into_iter().filter_map(|(path, value)| read_evidence(&path, value, problems)).collect();
        for (path, value) in fields.list("critical", false, INTERFACES, problems) {
            let name = value.as_str().unwrap_or("?");
            problems
                .add(path, format!("`{}` must be understood, and this version does not know it", crate::Excerpt(name)));
        }
        fields.finish(problems);
        Some(Self {
            component: component?,
            kind: kind?,
            imports,
            exports,
            identity: identity?,
            issued_at: issued_at?,
            not_before: not_before?,
            expires_at: expires_at?,
            audience,
            source,
            evidence,
            critical: Vec::new(),
        })
    }
}

fn read_source(value: Value, problems: &mut Problems) -> Option<Source> {
    let mut fields = Fields::open("source", value, problems)?;
    let uri = fields.text::<Text>("uri", problems).map(|Text(uri)| uri);
    let mut digest = BTreeMap::new();
    let named = fields.optional("digest").unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    if let Value::Object(map) = named {
        for (algorithm, value) in map {
            match value.as_str().map(str::parse::<Text>) {
                Some(Ok(Text(value))) if algorithm.len() <= TEXT_BYTES => {
                    digest.insert(algorithm, value);
                }
                _ => problems.add("source.digest", "must map names to short texts"),
            }
        }
    } else {
        problems.add("source.digest", "must map names to short texts");
    }
    fields.finish(problems);
    Some(Source { uri: uri?, digest })
}

fn read_evidence(path: &str, value: Value, problems: &mut Problems) -> Option<EvidenceRef> {
    let mut fields = Fields::open(path, value, problems)?;
    let predicate_type = fields.text::<Text>("predicateType", problems).map(|Text(text)| text);
    let digest = fields.required("digest", problems).and_then(|value| match digest_set::deserialize(value) {
        Ok(digest) => Some(digest),
        Err(error) => {
            problems.add(format!("{path}.digest"), crate::Excerpt(&error.to_string()).to_string());
            None
        }
    });
    fields.finish(problems);
    Some(EvidenceRef { predicate_type: predicate_type?, digest: digest? })
}

struct Instant(OffsetDateTime);

impl FromStr for Instant {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        timestamp::parse(text).map(Self)
    }
}

/// Short printable ASCII.
struct Text(String);

impl FromStr for Text {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if (1..=TEXT_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::new("accepted here", "1 to 255 printable ASCII characters without spaces", text))
        }
    }
}

impl FromStr for Kind {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "component" => Ok(Kind::Component),
            _ => Err(Malformed::new("a kind that can be admitted", "component", text)),
        }
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl ClaimsError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ClaimsError::Json(_) => "`portcullis claims init APP.wasm` writes a claims file to start from",
            ClaimsError::Invalid { .. } => {
                "edit the claims file; `portcullis claims init APP.wasm` shows a complete one"
            }
        }
    }

    /// All problems, one for a file that is not JSON.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            ClaimsError::Json(error) => vec![Problem { at: String::new(), what: error.to_string() }],
            ClaimsError::Invalid { problems } => problems.clone(),
        }
    }
}

fn list(problems: &[Problem]) -> impl fmt::Display {
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    shown.join("; ")
}

#[cfg(test)]
mod tests;
