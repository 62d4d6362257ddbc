//! in-toto Statements v1: which file (by SHA-256) a predicate speaks about, and what kind of predicate it is.
//!
//! Exactly one subject with exactly one digest; a valid statement of another predicate type is not "partly right".
//! Unknown fields beside these are ignored, as the in-toto parsing rules demand; inside our predicate none is.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::claims::{Claims, PREDICATE_TYPE};
use crate::digest::{Digest, digest_set};
use crate::excerpt::Excerpt;
use crate::json::{self, JsonError};
use crate::limits::{BUNDLE_BYTES, SUBJECTS};

/// The DSSE payload type of statements.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The `_type` of statements.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// The predicate type of SLSA provenance v1.
pub const PROVENANCE_TYPE: &str = "https://slsa.dev/provenance/v1";

/// A parsed statement about anything. Its signature is not its own affair.
#[derive(Debug, Clone, PartialEq)]
pub struct AnyStatement {
    subjects: Vec<Value>,
    predicate_type: String,
    predicate: Value,
}

/// A parsed statement of component claims. Its signature is not its own affair.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    subject: Digest,
    predicate: Value,
}

/// Why a payload is not a statement about claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Not JSON.
    #[error("the signed statement cannot be read: {0}")]
    Json(#[from] JsonError),
    /// JSON of another form.
    #[error("the signed payload is not an in-toto statement: {0}")]
    Form(String),
    /// Not a Statement v1.
    #[error("the signed payload has the type `{0}`, not {STATEMENT_TYPE}")]
    Type(String),
    /// Not about component claims.
    #[error("the signed statement is a `{0}`, not {PREDICATE_TYPE}")]
    PredicateType(String),
    /// Not exactly one subject.
    #[error("the signed statement has {0} subjects, exactly one is accepted")]
    Subjects(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Value>,
    predicate_type: String,
    predicate: Value,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    #[serde(default)]
    name: String,
    #[serde(with = "digest_set")]
    digest: Digest,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    #[serde(rename = "_type")]
    kind: &'a str,
    subject: [Subject; 1],
    predicate_type: &'a str,
    predicate: &'a Claims,
}

impl AnyStatement {
    /// Parses the payload of a verified envelope.
    pub fn parse(payload: &[u8]) -> Result<Self, StatementError> {
        let value = json::parse(payload, BUNDLE_BYTES)?;
        let raw: Raw = serde_json::from_value(value).map_err(|error| form(&error.to_string()))?;
        if raw.kind != STATEMENT_TYPE {
            return Err(StatementError::Type(Excerpt(&raw.kind).to_string()));
        }
        if !(1..=SUBJECTS).contains(&raw.subject.len()) {
            return Err(StatementError::Subjects(raw.subject.len()));
        }
        Ok(Self { subjects: raw.subject, predicate_type: raw.predicate_type, predicate: raw.predicate })
    }

    /// What kind of predicate it is.
    pub fn predicate_type(&self) -> &str {
        &self.predicate_type
    }

    /// The predicate.
    pub fn predicate(&self) -> &Value {
        &self.predicate
    }

    /// Whether the SHA-256 of one of its subjects is this. Other algorithms beside it do not count.
    pub fn is_about(&self, file: &Digest) -> bool {
        let hex = file.hex();
        self.subjects.iter().any(|subject| subject.pointer("/digest/sha256").and_then(Value::as_str) == Some(&hex))
    }
}

impl TryFrom<AnyStatement> for Statement {
    type Error = StatementError;

    fn try_from(any: AnyStatement) -> Result<Self, StatementError> {
        if any.predicate_type != PREDICATE_TYPE {
            return Err(StatementError::PredicateType(Excerpt(&any.predicate_type).to_string()));
        }
        match any.subjects.as_slice() {
            [subject] => {
                let subject = Subject::deserialize(subject).map_err(|error| form(&error.to_string()))?;
                Ok(Self { subject: subject.digest, predicate: any.predicate })
            }
            several => Err(StatementError::Subjects(several.len())),
        }
    }
}

fn form(what: &str) -> StatementError {
    StatementError::Form(Excerpt(what).to_string())
}

impl Statement {
    /// Parses the payload of a verified envelope.
    pub fn parse(payload: &[u8]) -> Result<Self, StatementError> {
        AnyStatement::parse(payload)?.try_into()
    }

    /// The digest of the file that the statement is about.
    pub fn subject(&self) -> &Digest {
        &self.subject
    }

    /// The predicate, to be parsed as claims. There is no second decoding of the payload.
    pub fn into_predicate(self) -> Value {
        self.predicate
    }

    /// The payload that says `claims` about the file with this digest.
    pub(crate) fn encode(subject: &Digest, claims: &Claims) -> Result<Vec<u8>, serde_json::Error> {
        let name = format!("{}@{}", claims.name(), claims.version());
        serde_json::to_vec(&Written {
            kind: STATEMENT_TYPE,
            subject: [Subject { name, digest: *subject }],
            predicate_type: PREDICATE_TYPE,
            predicate: claims,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "_type": STATEMENT_TYPE,
            "subject": [{"name": "x", "digest": {"sha256": "ab".repeat(32)}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {"any": "thing"}
        })
    }

    fn changed(pointer: &str, to: Value) -> Result<Statement, StatementError> {
        let mut value = good();
        *value.pointer_mut(pointer).unwrap() = to;
        Statement::parse(value.to_string().as_bytes())
    }

    #[test]
    fn subject_and_predicate_are_read_and_unknown_fields_ignored() {
        let mut value = good();
        value["future"] = json!(1);
        let statement = Statement::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!(statement.subject().hex(), "ab".repeat(32));
        assert_eq!(statement.into_predicate(), json!({"any": "thing"}));
    }

    #[test]
    fn types_must_be_exact() {
        assert!(matches!(changed("/_type", json!("https://in-toto.io/Statement/v0.1")), Err(StatementError::Type(_))));
        for other in [
            "https://slsa.dev/provenance/v1",
            "https://portcullis.dev/component-claims/v2",
            "https://portcullis.dev/component-claims/v1/",
        ] {
            assert!(matches!(changed("/predicateType", json!(other)), Err(StatementError::PredicateType(_))));
        }
    }

    #[test]
    fn exactly_one_subject_with_exactly_one_digest() {
        let subject = good()["subject"][0].clone();
        assert_eq!(changed("/subject", json!([subject, subject])), Err(StatementError::Subjects(2)));
        assert_eq!(changed("/subject", json!([])), Err(StatementError::Subjects(0)));
        for digest in [
            json!({}),
            json!({"sha1": "ab"}),
            json!({"sha256": "AB".repeat(32)}),
            json!({"sha256": "ab".repeat(32), "sha512": ""}),
        ] {
            assert!(matches!(changed("/subject/0/digest", digest), Err(StatementError::Form(_))));
        }
    }

    #[test]
    fn a_statement_of_another_kind_may_have_many_subjects_of_which_only_sha256_counts() {
        let digest = Digest::of(b"x");
        let mut value = good();
        value["predicateType"] = json!(PROVENANCE_TYPE);
        value["subject"] = json!([
            {"name": "a", "digest": {"sha512": "00", "sha256": digest.hex()}},
            {"name": "b", "digest": {"sha1": Digest::of(b"y").hex()}},
        ]);
        let any = AnyStatement::parse(value.to_string().as_bytes()).unwrap();
        assert!(any.is_about(&digest) && !any.is_about(&Digest::of(b"y")) && !any.is_about(&Digest::of(b"z")));
        assert!(matches!(Statement::try_from(any), Err(StatementError::PredicateType(_))));
        let many = |count| {
            let mut value = value.clone();
            value["subject"] = json!(vec![json!({}); count]);
            AnyStatement::parse(value.to_string().as_bytes()).map(drop)
        };
        assert!(many(SUBJECTS).is_ok());
        assert_eq!(many(SUBJECTS + 1), Err(StatementError::Subjects(SUBJECTS + 1)));
    }

    #[test]
    fn a_key_twice_is_refused() {
        let text = good().to_string().replacen('{', r#"{"predicate":{},"#, 1);
        assert!(matches!(Statement::parse(text.as_bytes()), Err(StatementError::Json(_))));
    }
}
