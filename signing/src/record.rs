//! The decision record: what the CLI prints with `--json` and what the host writes to its log. One form for both verdicts.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::claims::Claims;
use crate::component_name::{ComponentName, ComponentVersion};
use crate::digest::Digest;
use crate::identity_path::IdentityPath;
use crate::key::PublicKey;
use crate::refusal::{Refusal, RefusalCode};
use crate::timestamp;
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
    claims: Option<RecordedClaims>,
    policy_version: Option<u64>,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RecordedSigner {
    name: String,
    key: PublicKey,
    group: String,
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
        let (claims, signer) = (verified.claims(), verified.signer());
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
            signer: Some(RecordedSigner {
                name: signer.name().to_owned(),
                key: *signer.key(),
                group: signer.group().to_owned(),
            }),
            claims: Some(RecordedClaims {
                digest: *verified.claims_digest(),
                name: claims.name().clone(),
                version: claims.version().clone(),
                revision: claims.revision(),
                identity_path: claims.identity_path().clone(),
                expires_at: timestamp::format(claims.expires_at()),
            }),
            policy_version: Some(verified.policy_version()),
        }
    }

    pub(crate) fn refused(refusal: &Refusal) -> Self {
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
            signer: None,
            claims: None,
            policy_version: refusal.policy_version(),
        }
    }
}
