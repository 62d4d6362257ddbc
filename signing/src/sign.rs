//! Makes the evidence for one component: claims in a statement in an envelope in a bundle.
//!
//! Two steps, so that the secret may be anywhere: [`Prepared`] has the bytes to sign, [`Prepared::finish`] takes the signature and gives
//! nothing before it has verified it. Refuses to sign what no host would admit: a key of the wrong kind, claims that are over, a
//! file that is not a component, imports that the claims do not name.

use serde_json::Value;
use time::OffsetDateTime;

use crate::bundle::{Bundle, MEDIA_TYPE};
use crate::bytes::ComponentBytes;
use crate::claims::Claims;
use crate::component::{ComponentError, read_interfaces};
use crate::envelope::{Envelope, EnvelopeSignature, pae};
use crate::json;
use crate::key::{KeyError, KeyKind, SecretKey};
use crate::limits::BUNDLE_BYTES;
use crate::signer_key::{SignerKey, SignerKeyError};
use crate::statement::{PAYLOAD_TYPE, STATEMENT_TYPE, Statement};
use crate::timestamp;

/// Why nothing was signed. The caller erred in all but the last.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Not a signer key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not the public key of a signer.
    #[error(transparent)]
    PublicKey(#[from] SignerKeyError),
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
    /// The evidence to sign once more is none.
    #[error("the evidence to sign once more cannot be used: {0}")]
    Existing(String),
    /// What came back is not a signature of the key.
    #[error("what came back from the signer is not a signature of the key {0} over what it was given")]
    NotASignature(SignerKey),
    /// The bundle could not be written as JSON.
    #[error("the bundle could not be written: {0}")]
    Internal(String),
}

/// A statement that waits for its signature.
#[derive(Debug, Clone)]
pub struct Prepared {
    key: SignerKey,
    payload: Vec<u8>,
    message: Vec<u8>,
}

impl SignError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            SignError::Key(error) => error.hint(),
            SignError::PublicKey(error) => error.hint(),
            SignError::Component(error) => error.hint(),
            SignError::HiddenImports { .. } => "add them to `imports` of the claims, or remove them from the component",
            SignError::Expired { .. } => "set a later expiresAt in the claims, or run `portcullis claims init` again",
            SignError::Existing(_) => "sign with --claims instead, or name the evidence of this very file",
            SignError::NotASignature(_) => {
                "is it another key than --public-key says, or another algorithm? Ed25519 signs the bytes themselves, P-256 their SHA-256"
            }
            SignError::Internal(_) => "this is a defect of portcullis; please report it",
        }
    }
}

impl Prepared {
    /// `claims` about `component`, to be signed with `key`.
    pub fn claims(
        component: &ComponentBytes,
        claims: &Claims,
        key: SignerKey,
        now: OffsetDateTime,
    ) -> Result<Self, SignError> {
        let key = key.checked()?;
        admissible(component, claims, now)?;
        let payload = Statement::encode(component.digest(), claims).map_err(internal)?;
        Ok(Self::new(key, payload))
    }

    /// The very statement that an existing bundle holds about `component`, to be signed once more: a threshold counts signers
    /// of the same claims. Its signature is not looked at; the new one is made over content that the caller has seen.
    pub fn again(
        component: &ComponentBytes,
        existing: &[u8],
        key: SignerKey,
        now: OffsetDateTime,
    ) -> Result<(Self, Claims), SignError> {
        let key = key.checked()?;
        let payload = payload_of(existing)?;
        let statement = Statement::parse(&payload).map_err(|error| SignError::Existing(error.to_string()))?;
        if statement.subject() != component.digest() {
            let message = format!("it is for {}, the file is {}", statement.subject(), component.digest());
            return Err(SignError::Existing(message));
        }
        let claims = Claims::from_value(statement.into_predicate());
        let claims = claims.map_err(|error| SignError::Existing(error.to_string()))?;
        admissible(component, &claims, now)?;
        Ok((Self::new(key, payload), claims))
    }

    /// Another statement about `component`, such as its provenance.
    pub fn attestation(
        component: &ComponentBytes,
        name: &str,
        predicate_type: &str,
        predicate: &Value,
        key: SignerKey,
    ) -> Result<Self, SignError> {
        let statement = serde_json::json!({
            "_type": STATEMENT_TYPE,
            "subject": [{ "name": name, "digest": { "sha256": component.digest().hex() } }],
            "predicateType": predicate_type,
            "predicate": predicate,
        });
        Ok(Self::new(key.checked()?, statement.to_string().into_bytes()))
    }

    /// The bytes to sign: the DSSE pre-authentication encoding.
    pub fn to_sign(&self) -> &[u8] {
        &self.message
    }

    /// The JSON of a Sigstore bundle v0.3, if this is the key's signature over [`Prepared::to_sign`].
    pub fn finish(self, signature: &[u8]) -> Result<Vec<u8>, SignError> {
        if !self.key.verify(&self.message, signature) {
            return Err(SignError::NotASignature(self.key));
        }
        let signature = EnvelopeSignature { keyid: String::new(), sig: signature.to_vec() };
        let envelope = Envelope::new(PAYLOAD_TYPE, self.payload, vec![signature]);
        Bundle::new(self.key.to_string(), envelope).to_json().map_err(internal)
    }

    fn new(key: SignerKey, payload: Vec<u8>) -> Self {
        let message = pae(PAYLOAD_TYPE, &payload);
        Self { key, payload, message }
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
    let prepared = Prepared::claims(component, claims, public.into(), now)?;
    let signature = key.sign(prepared.to_sign());
    prepared.finish(&signature)
}

/// What no host would admit is not signed.
fn admissible(component: &ComponentBytes, claims: &Claims, now: OffsetDateTime) -> Result<(), SignError> {
    if now >= claims.expires_at() {
        return Err(SignError::Expired { expires_at: claims.expires_at(), now });
    }
    let actual = read_interfaces(component.bytes())?;
    let hidden = claims.hidden_imports(&actual.imports);
    if hidden.is_empty() {
        return Ok(());
    }
    Err(SignError::HiddenImports { imports: hidden.iter().map(ToString::to_string).collect() })
}

/// The payload of a bundle, unverified.
fn payload_of(bundle: &[u8]) -> Result<Vec<u8>, SignError> {
    let refused = |why: String| SignError::Existing(why);
    let mut value = json::parse(bundle, BUNDLE_BYTES).map_err(|error| refused(error.to_string()))?;
    if value.get("mediaType").and_then(Value::as_str) != Some(MEDIA_TYPE) {
        return Err(refused("it is not a Sigstore bundle v0.3".to_owned()));
    }
    let envelope = value.get_mut("dsseEnvelope").map(Value::take).unwrap_or_default();
    let envelope = Envelope::from_value(envelope).map_err(|error| refused(error.to_string()))?;
    Ok(envelope.payload().to_vec())
}

fn internal(error: serde_json::Error) -> SignError {
    SignError::Internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::ClaimsDraft;
    use crate::interface::Interfaces;

    fn component() -> ComponentBytes {
        ComponentBytes::from_vec(b"\0asm\x0d\0\x01\0".to_vec())
    }

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn claims() -> Claims {
        let mut draft = ClaimsDraft::new(&Interfaces::default(), now(), "1d".parse().unwrap());
        draft.name = "acme:orders".to_owned();
        draft.identity_path = "ns/acme/sa/orders".to_owned();
        draft.audience = vec!["prod".to_owned()];
        draft.build().unwrap()
    }

    #[test]
    fn nothing_is_given_for_a_signature_that_is_not_the_keys() {
        let (key, other) =
            (SecretKey::generate(KeyKind::Signer).unwrap(), SecretKey::generate(KeyKind::Signer).unwrap());
        let prepared = Prepared::claims(&component(), &claims(), key.public().into(), now()).unwrap();
        let good = key.sign(prepared.to_sign());
        for bad in
            [other.sign(prepared.to_sign()).to_vec(), key.sign(b"else").to_vec(), good[..63].to_vec(), Vec::new()]
        {
            let refused = prepared.clone().finish(&bad);
            assert_eq!(refused, Err(SignError::NotASignature(key.public().into())));
        }
        assert_eq!(prepared.finish(&good), sign_component(&component(), &claims(), &key, now()));
    }

    #[test]
    fn a_second_signer_signs_the_very_same_statement() {
        let (one, two) = (SecretKey::generate(KeyKind::Signer).unwrap(), SecretKey::generate(KeyKind::Signer).unwrap());
        let first = sign_component(&component(), &claims(), &one, now()).unwrap();
        let (prepared, read) = Prepared::again(&component(), &first, two.public().into(), now()).unwrap();
        assert_eq!(read, claims());
        let signature = two.sign(prepared.to_sign());
        let second = prepared.finish(&signature).unwrap();
        assert_eq!(payload_of(&first).unwrap(), payload_of(&second).unwrap());
        let other = ComponentBytes::from_vec(b"\0asm\x0d\0\x01\0\0\x02\x01x".to_vec());
        assert!(matches!(Prepared::again(&other, &first, two.public().into(), now()), Err(SignError::Existing(_))));
        assert!(matches!(
            Prepared::again(&component(), b"{}", two.public().into(), now()),
            Err(SignError::Existing(_))
        ));
        let late = now() + time::Duration::days(2);
        assert!(matches!(
            Prepared::again(&component(), &first, two.public().into(), late),
            Err(SignError::Expired { .. })
        ));
    }

    #[test]
    fn a_root_key_signs_no_claims() {
        let root = SecretKey::generate(KeyKind::Root).unwrap();
        assert!(sign_component(&component(), &claims(), &root, now()).is_err());
        assert!(Prepared::claims(&component(), &claims(), root.public().into(), now()).is_err());
    }
}
