//! Changes of root keys: each link names the next root keys and is signed by k of the old and k of the new.
//!
//! A host that pins old root keys walks from them, link by link, to those that must have signed the trust policy; so one
//! file is enough, however many changes a host has missed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::TrustError;
use crate::envelope::{Envelope, EnvelopeSignature, pae};
use crate::excerpt::Excerpt;
use crate::json;
use crate::key::{KeyError, KeyKind, PublicKey, SecretKey};
use crate::limits::{ROOT_KEYS, ROTATIONS, TRUST_BYTES};

/// The DSSE payload type of a change of root keys.
pub const ROTATION_TYPE: &str = "application/vnd.portcullis.root-rotation.v1+json";

/// Root keys, and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roots {
    /// The keys.
    pub roots: Vec<PublicKey>,
    /// How many of them must sign.
    pub threshold: usize,
}

impl Roots {
    /// Checks that the keys are distinct root keys and that the threshold can be reached.
    pub fn checked(self) -> Result<Self, TrustError> {
        let distinct = self.roots.iter().enumerate().all(|(index, key)| {
            key.kind() == KeyKind::Root && !self.roots.iter().take(index).any(|other| other == key)
        });
        if distinct && self.roots.len() <= ROOT_KEYS && (1..=self.roots.len()).contains(&self.threshold) {
            Ok(self)
        } else {
            Err(TrustError::Roots { roots: self.roots.len(), threshold: self.threshold })
        }
    }

    /// How many of these keys have signed.
    pub(super) fn count(&self, envelope: &Envelope) -> usize {
        let signed = |key: &&PublicKey| {
            key.kind() == KeyKind::Root && envelope.signatures().iter().any(|signature| envelope.verify(signature, key))
        };
        self.roots.iter().filter(signed).count()
    }

    /// Whether these are the same keys, in any order, with the same threshold.
    pub fn same(&self, other: &Self) -> bool {
        self.threshold == other.threshold
            && self.roots.len() == other.roots.len()
            && self.roots.iter().all(|key| other.roots.contains(key))
    }
}

/// Walks from `start` along `links`; gives the root keys that are in force at their end.
pub(super) fn walk(start: &Roots, links: &[Envelope]) -> Result<Roots, TrustError> {
    let links: Vec<(&Envelope, Roots)> =
        links.iter().map(|link| Ok((link, read(link)?))).collect::<Result<_, TrustError>>()?;
    // A host that knows the outcome of a link already starts behind it.
    let from = links.iter().rposition(|(_, roots)| roots.same(start)).map_or(0, |index| index + 1);
    let mut current = start.clone();
    for (link, next) in links.into_iter().skip(from) {
        let (old, new) = (current.count(link), next.count(link));
        if old < current.threshold || new < next.threshold {
            return Err(TrustError::Rotation { old, old_needed: current.threshold, new, new_needed: next.threshold });
        }
        current = next;
    }
    Ok(current)
}

/// The links in a trust policy that nobody has verified yet.
pub(super) fn links(document: &Value) -> Result<Vec<Envelope>, TrustError> {
    let links = match document.get("rotations") {
        None => return Ok(Vec::new()),
        Some(links) => Vec::<Envelope>::deserialize(links).map_err(|error| TrustError::form(&error))?,
    };
    if links.len() > ROTATIONS {
        return Err(TrustError::Form(format!("rotations has more than {ROTATIONS} entries")));
    }
    Ok(links)
}

/// The root keys that a link names. Its signatures are not looked at.
pub(super) fn read(link: &Envelope) -> Result<Roots, TrustError> {
    if link.payload_type() != ROTATION_TYPE {
        return Err(TrustError::PayloadType(Excerpt(link.payload_type()).to_string()));
    }
    let value = json::parse(link.payload(), TRUST_BYTES)?;
    serde_json::from_value::<Roots>(value).map_err(|error| TrustError::form(&error))?.checked()
}

/// Adds a signature of `key` to a change to `next`; `existing` is the link with the signatures so far.
pub fn sign_rotation(next: &Roots, existing: Option<&[u8]>, key: &SecretKey) -> Result<Vec<u8>, TrustError> {
    let next = next.clone().checked()?;
    let public = key.public().require(KeyKind::Root).map_err(|error: KeyError| TrustError::Form(error.to_string()))?;
    let internal = |error: serde_json::Error| TrustError::form(&error);
    let payload = serde_json::to_vec(&next).map_err(internal)?;
    let mut signatures: Vec<EnvelopeSignature> = match existing {
        None => Vec::new(),
        Some(bytes) => {
            let link = Envelope::parse(bytes, TRUST_BYTES)?;
            if !read(&link)?.same(&next) || link.payload() != payload {
                return Err(TrustError::Form("the existing file is about other root keys".to_owned()));
            }
            link.signatures().to_vec()
        }
    };
    let keyid = public.to_string();
    signatures.retain(|signature| signature.keyid != keyid);
    signatures.push(EnvelopeSignature { keyid, sig: key.sign(&pae(ROTATION_TYPE, &payload)).to_vec() });
    json::pretty(&Envelope::new(ROTATION_TYPE, payload, signatures)).map_err(internal)
}
