//! The decision record: what the CLI prints with `--json` and what the host writes to its log. One form for both verdicts.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::claims::Claims;
use crate::component_name::{ComponentName, ComponentVersion};
use crate::digest::Digest;
use crate::identity_path::IdentityPath;
use crate::refusal::{Refusal, RefusalCode};
use crate::timestamp;
use crate::trust::{Signer, SignerId, SignerKind};
use crate::verified::Verified;

/// One decision about one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionRecord {
    verdict: Verdict,
    digest: Option<Digest>,
    code: Option<RefusalCode>,
    id: Option<&'static str>,
    exit_code: u8,
    message: Option<String>,
    hint: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<&'static str, Vec<String>>,
    others_refused: usize,
    signer: Option<RecordedSigner>,
    signers: Vec<RecordedSigner>,
    claims: Option<RecordedClaims>,
    policy_version: Option<u64>,
    deny_list_version: Option<u64>,
}

/// The verdict of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All checks passed.
    Verified,
    /// One did not.
    Refused,
}

/// Whose claims a decision is about, once a signature over them is known to be good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    signers: Vec<RecordedSigner>,
    claims: RecordedClaims,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordedSigner {
    name: String,
    /// A key, an OIDC identity or a SPIFFE ID.
    key: SignerId,
    kind: SignerKind,
    group: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    delegated_by: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordedClaims {
    digest: Digest,
    name: ComponentName,
    version: ComponentVersion,
    revision: u64,
    identity_path: IdentityPath,
    expires_at: String,
}

impl Report {
    pub(crate) fn new<'a>(claims: &Claims, statement: &Digest, signers: impl IntoIterator<Item = &'a Signer>) -> Self {
        let signers = signers.into_iter().map(|signer| RecordedSigner {
            name: signer.name().to_owned(),
            key: signer.id().clone(),
            kind: signer.kind(),
            group: signer.group().to_owned(),
            roles: signer.roles().to_vec(),
            delegated_by: signer.delegated_by().map(ToOwned::to_owned).collect(),
        });
        Self {
            signers: signers.collect(),
            claims: RecordedClaims {
                digest: *statement,
                name: claims.name().clone(),
                version: claims.version().clone(),
                revision: claims.revision(),
                identity_path: claims.identity_path().clone(),
                expires_at: timestamp::format(claims.expires_at()),
            },
        }
    }
}

impl DecisionRecord {
    /// The record of a verdict.
    pub fn new(verdict: Result<&Verified<Claims>, &Refusal>) -> Self {
        match verdict {
            Ok(verified) => Self::verified(verified),
            Err(refusal) => Self::refused(refusal),
        }
    }

    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn verified(verified: &Verified<Claims>) -> Self {
        let report = Report::new(verified.claims(), verified.claims_digest(), verified.signers());
        Self {
            verdict: Verdict::Verified,
            digest: Some(*verified.digest()),
            code: None,
            id: None,
            exit_code: 0,
            message: None,
            hint: None,
            details: BTreeMap::new(),
            others_refused: 0,
            signer: report.signers.first().cloned(),
            signers: report.signers,
            claims: Some(report.claims),
            policy_version: Some(verified.policy_version()),
            deny_list_version: verified.deny_list_version(),
        }
    }

    pub(crate) fn refused(refusal: &Refusal) -> Self {
        let report = refusal.report();
        let signers = report.map(|report| report.signers.clone()).unwrap_or_default();
        Self {
            verdict: Verdict::Refused,
            digest: refusal.digest().copied(),
            code: Some(refusal.code()),
            id: Some(refusal.code().id()),
            exit_code: refusal.code().exit_code(),
            message: Some(refusal.message().to_owned()),
            hint: Some(refusal.hint().to_owned()),
            details: refusal.details().clone(),
            others_refused: refusal.others(),
            signer: signers.first().cloned(),
            signers,
            claims: report.map(|report| report.claims.clone()),
            policy_version: refusal.policy_version(),
            deny_list_version: None,
        }
    }
}
