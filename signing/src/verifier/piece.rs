//! What a piece of evidence is, by its form alone.

use serde_json::Value;

use crate::bundle::{self, Bundle, BundleError};
use crate::cosign::{self, CosignEvidence};
use crate::digest::Digest;
use crate::envelope::EnvelopeError;
use crate::json;
use crate::limits::BUNDLE_BYTES;
use crate::refusal::{Refusal, RefusalCode};
use crate::trust::DELEGATION_TYPE;

/// One piece of evidence. Nothing in it has been verified.
pub(super) enum Piece<'a> {
    /// A bundle, and the bytes that it was read from.
    Bundle(Bundle, &'a [u8]),
    /// A delegation by a signer.
    Delegation(Bundle),
    /// A cosign v2 signature.
    Cosign(CosignEvidence),
}

/// Reads a piece of evidence.
pub(super) fn read(bytes: &[u8]) -> Result<Piece<'_>, Refusal> {
    let value = json::parse(bytes, BUNDLE_BYTES).map_err(|error| refused(&error.into()))?;
    if value.get("mediaType").and_then(Value::as_str) == Some(cosign::MEDIA_TYPE) {
        return CosignEvidence::from_value(value).map(Piece::Cosign).map_err(|error| {
            Refusal::new(RefusalCode::EvidenceMalformed, error.to_string(), "pull the signature again")
        });
    }
    let bundle = bundle::parse_value(value).map_err(|error| refused(&error))?;
    match bundle.envelope() {
        Some(envelope) if envelope.payload_type() == DELEGATION_TYPE => Ok(Piece::Delegation(bundle)),
        _ => Ok(Piece::Bundle(bundle, bytes)),
    }
}

fn refused(error: &BundleError) -> Refusal {
    let code = match error {
        BundleError::MediaType(_) => RefusalCode::EvidenceMediaType,
        BundleError::Signatures(_) | BundleError::Envelope(EnvelopeError::Signatures(_)) => {
            RefusalCode::EvidenceSignatures
        }
        BundleError::Json(_) | BundleError::Form(_) | BundleError::Envelope(_) => RefusalCode::EvidenceMalformed,
    };
    Refusal::new(code, error.to_string(), error.hint())
}

/// The digests of everything that was handed over: what claims refer to is found by these.
pub(super) fn digests(evidence: &[&[u8]]) -> Vec<Digest> {
    evidence.iter().map(|bytes| Digest::of(bytes)).collect()
}
