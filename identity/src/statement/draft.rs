//! A statement that is not signed yet: what to sign, and the token once there is a signature. Holds no key.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use std::time::Duration;

use super::jti::Jti;
use super::signers::Signer;
use super::user_key::UserKey;
use super::{EDDSA, ES256, TYPE, digest_of};
use crate::leaf::{Leaf, LeafError};
use crate::limits::{MAX_AUDIENCE_TEXT_BYTES, MAX_PLACE_BYTES, MAX_STATEMENT_BYTES};
use crate::spiffe_id::SpiffeId;

/// Who is to sign: the public part of an X.509-SVID with a P-256 key, leaf first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SvidSigner {
    spiffe_id: SpiffeId,
    chain: Vec<Vec<u8>>,
}

/// What is to be said.
#[derive(Debug, Clone)]
pub struct Draft {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    signer: Signer,
    jti: Jti,
}

/// Why there is no statement. Whoever wanted it erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// Over a limit, or empty.
    #[error("audience or place of the statement is empty or too long")]
    Text,
    /// A chain that does not fit into a statement.
    #[error("the statement would be larger than {MAX_STATEMENT_BYTES} bytes: the certificate chain is too long")]
    TooLarge,
    /// The leaf is none.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// No certificate.
    #[error("the SVID has no certificate")]
    NoChain,
    /// A key that makes no ES256.
    #[error("the key of the SVID is not of P-256")]
    Key,
}

impl SvidSigner {
    /// The SVID with this chain, DER, leaf first.
    pub fn new(chain: Vec<Vec<u8>>) -> Result<Self, DraftError> {
        let leaf = Leaf::parse(chain.first().ok_or(DraftError::NoChain)?)?;
        if leaf.public_key.len() != crate::p256_key::POINT_BYTES {
            return Err(DraftError::Key);
        }
        Ok(Self { spiffe_id: leaf.spiffe_id, chain })
    }

    /// Whom it names.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// Its certificates, DER, leaf first.
    #[cfg(test)]
    pub(super) fn chain_der(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The same in base64.
    #[cfg(test)]
    pub(super) fn chain_base64(&self) -> Vec<String> {
        self.chain.iter().map(|der| STANDARD.encode(der)).collect()
    }
}

impl Draft {
    /// A statement of an SVID's holder. It is valid from the moment in its name on, for so long.
    pub fn by_svid(
        signer: &SvidSigner,
        audience: &str,
        place: &str,
        jti: Jti,
        life: Duration,
        payload: &[u8],
    ) -> Result<Self, DraftError> {
        let x5c: Vec<String> = signer.chain.iter().map(|der| STANDARD.encode(der)).collect();
        let header = [("alg", json!(ES256)), ("typ", json!(TYPE)), ("x5c", json!(x5c))];
        Self::new(header, Signer::Svid(signer.spiffe_id.clone()), audience, place, jti, life, payload)
    }

    /// A statement of an nkey's holder.
    pub fn by_nkey(
        key: UserKey,
        audience: &str,
        place: &str,
        jti: Jti,
        life: Duration,
        payload: &[u8],
    ) -> Result<Self, DraftError> {
        let header = [("alg", json!(EDDSA)), ("typ", json!(TYPE)), ("kid", json!(key.to_string()))];
        Self::new(header, Signer::Nkey(key), audience, place, jti, life, payload)
    }

    fn new(
        header: [(&str, Value); 3],
        signer: Signer,
        audience: &str,
        place: &str,
        jti: Jti,
        life: Duration,
        payload: &[u8],
    ) -> Result<Self, DraftError> {
        let fits = |text: &str, most: usize| (1..=most).contains(&text.len());
        if !fits(audience, MAX_AUDIENCE_TEXT_BYTES) || !fits(place, MAX_PLACE_BYTES) {
            return Err(DraftError::Text);
        }
        let iat = jti.seconds();
        let exp = iat.saturating_add(i64::try_from(life.as_secs()).unwrap_or(i64::MAX));
        let claims = [
            ("iss", json!(signer.to_string())),
            ("aud", json!(audience)),
            ("sub", json!(place)),
            ("jti", json!(jti.to_string())),
            ("iat", json!(iat)),
            ("exp", json!(exp)),
            ("sha256", json!(digest_of(payload))),
        ];
        let map = |members: &[(&str, Value)]| members.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        let draft = Self { header: map(&header), claims: map(&claims), signer, jti };
        match draft.signing_input().len() + SIGNATURE_CHARACTERS + OPTIONAL_CHARACTERS <= MAX_STATEMENT_BYTES {
            true => Ok(draft),
            false => Err(DraftError::TooLarge),
        }
    }

    /// In answer to this request.
    #[must_use]
    pub fn answering(mut self, request: Jti) -> Self {
        self.claims.insert("re".to_owned(), json!(request.to_string()));
        self
    }

    /// About this version of the thing.
    #[must_use]
    pub fn version(mut self, version: u64) -> Self {
        self.claims.insert("ver".to_owned(), json!(version));
        self
    }

    /// Its name.
    pub fn jti(&self) -> Jti {
        self.jti
    }

    /// Who is to sign.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// What is to be signed: ES256 in its fixed form (`r || s`), or Ed25519.
    pub fn signing_input(&self) -> String {
        let part = |members: &Map<String, Value>| URL_SAFE_NO_PAD.encode(Value::Object(members.clone()).to_string());
        format!("{}.{}", part(&self.header), part(&self.claims))
    }

    /// The statement with this signature.
    pub fn token(&self, signature: &[u8]) -> String {
        format!("{}.{}", self.signing_input(), URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A dot and 64 bytes in base64url.
const SIGNATURE_CHARACTERS: usize = 1 + 86;
/// `re` and `ver`, in base64url.
const OPTIONAL_CHARACTERS: usize = 96;
