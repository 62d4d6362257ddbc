//! Signs a trust policy with one root key after the other.

use super::document::TrustDocument;
use super::error::{SignTrustError, TrustError};
use crate::envelope::{Envelope, EnvelopeSignature, pae};
use crate::excerpt::Excerpt;
use crate::json;
use crate::key::{KeyKind, SecretKey};
use crate::limits::TRUST_BYTES;

/// The DSSE payload type of trust policies.
pub const PAYLOAD_TYPE: &str = "application/vnd.portcullis.trust-policy.v1+json";

/// Signs `document`: the JSON of a DSSE envelope. Signatures of other roots over the same document in `existing` are kept;
/// an older version in it is replaced, the same or a newer version with another content is refused.
pub fn sign_trust(
    document: &TrustDocument,
    existing: Option<&[u8]>,
    key: &SecretKey,
) -> Result<Vec<u8>, SignTrustError> {
    let public = key.public().require(KeyKind::Root)?;
    if !document.roots().contains(&public) {
        return Err(SignTrustError::NotARoot(public));
    }
    let internal = |error: serde_json::Error| SignTrustError::Internal(error.to_string());
    let payload = document.payload().map_err(internal)?;
    let mut signatures = match existing {
        Some(bytes) => kept(bytes, document, &payload).map_err(|error| match error {
            Kept::Unusable(error) => SignTrustError::Existing(error),
            Kept::NotOlder(existing) => SignTrustError::Version { existing, version: document.version() },
        })?,
        None => Vec::new(),
    };
    let keyid = public.to_string();
    signatures.retain(|signature| signature.keyid != keyid);
    signatures.push(EnvelopeSignature { keyid, sig: key.sign(&pae(PAYLOAD_TYPE, &payload)).to_vec() });
    json::pretty(&Envelope::new(PAYLOAD_TYPE, payload, signatures)).map_err(internal)
}

/// The document in a signed trust policy, without any check of the signatures: for showing, never for deciding. Also the
/// names of the keys that claim to have signed.
pub fn read_document(bytes: &[u8]) -> Result<(TrustDocument, Vec<String>), TrustError> {
    let envelope = Envelope::parse(bytes, TRUST_BYTES)?;
    let document = document_of(&envelope)?;
    let keys = envelope.signatures().iter().map(|signature| Excerpt(&signature.keyid).to_string()).collect();
    Ok((document, keys))
}

fn document_of(envelope: &Envelope) -> Result<TrustDocument, TrustError> {
    if envelope.payload_type() != PAYLOAD_TYPE {
        return Err(TrustError::PayloadType(Excerpt(envelope.payload_type()).to_string()));
    }
    TrustDocument::from_value(json::parse(envelope.payload(), TRUST_BYTES)?)
}

enum Kept {
    Unusable(TrustError),
    NotOlder(u64),
}

/// The valid signatures of the document's roots in an existing envelope over the same payload.
fn kept(bytes: &[u8], document: &TrustDocument, payload: &[u8]) -> Result<Vec<EnvelopeSignature>, Kept> {
    let envelope = Envelope::parse(bytes, TRUST_BYTES).map_err(|error| Kept::Unusable(error.into()))?;
    let existing = document_of(&envelope).map_err(Kept::Unusable)?;
    if envelope.payload() != payload {
        return if existing.version() < document.version() {
            Ok(Vec::new())
        } else {
            Err(Kept::NotOlder(existing.version()))
        };
    }
    let mut kept = Vec::new();
    for root in document.roots() {
        if let Some(signature) = envelope.signatures().iter().find(|signature| envelope.verify(signature, root)) {
            kept.push(EnvelopeSignature { keyid: root.to_string(), sig: signature.sig.clone() });
        }
    }
    Ok(kept)
}
