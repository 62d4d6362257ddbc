//! Makes the evidence for one component: claims in a statement in an envelope in a bundle.
//!
//! Refuses to sign what no host would admit: a key of the wrong kind, claims that are over, a file that is not a
//! component, imports that the claims do not name.

use time::OffsetDateTime;

use crate::bundle::Bundle;
use crate::bytes::ComponentBytes;
use crate::claims::Claims;
use crate::component::{ComponentError, read_interfaces};
use crate::envelope::{Envelope, EnvelopeSignature, pae};
use crate::key::{KeyError, KeyKind, SecretKey};
use crate::statement::{PAYLOAD_TYPE, Statement};
use crate::timestamp;

/// Why nothing was signed. The caller erred in all but the last.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Not a signer key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not a component.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// The claims hide imports.
    #[error("the component imports what its claims do not name: {}", imports.join(", "))]
    HiddenImports {
        /// All that are missing in the claims.
        imports: Vec<String>,
    },
    /// The claims are over.
    #[error("the claims expired at {}, it is {}", timestamp::format(*expires_at), timestamp::format(*now))]
    Expired {
        /// When they expired.
        expires_at: OffsetDateTime,
        /// The time now.
        now: OffsetDateTime,
    },
    /// The bundle could not be written as JSON.
    #[error("the bundle could not be written: {0}")]
    Internal(String),
}

impl SignError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            SignError::Key(error) => error.hint(),
            SignError::Component(error) => error.hint(),
            SignError::HiddenImports { .. } => "add them to `imports` of the claims, or remove them from the component",
            SignError::Expired { .. } => "set a later expiresAt in the claims, or run `portcullis claims init` again",
            SignError::Internal(_) => "this is a defect of portcullis; please report it",
        }
    }
}

/// Signs `claims` about `component` with `key`: the JSON of a Sigstore bundle v0.3. The same input gives the same bytes.
pub fn sign_component(
    component: &ComponentBytes,
    claims: &Claims,
    key: &SecretKey,
    now: OffsetDateTime,
) -> Result<Vec<u8>, SignError> {
    let public = key.public().require(KeyKind::Signer)?;
    if now >= claims.expires_at() {
        return Err(SignError::Expired { expires_at: claims.expires_at(), now });
    }
    let actual = read_interfaces(component.bytes())?;
    let hidden = claims.hidden_imports(&actual.imports);
    if !hidden.is_empty() {
        return Err(SignError::HiddenImports { imports: hidden.iter().map(ToString::to_string).collect() });
    }
    let internal = |error: serde_json::Error| SignError::Internal(error.to_string());
    let payload = Statement::encode(component.digest(), claims).map_err(internal)?;
    let signature = EnvelopeSignature { keyid: String::new(), sig: key.sign(&pae(PAYLOAD_TYPE, &payload)).to_vec() };
    let envelope = Envelope::new(PAYLOAD_TYPE, payload, vec![signature]);
    Bundle::new(public.to_string(), envelope).to_json().map_err(internal)
}
