//! Our trust bundle as a SPIFFE bundle document (SPIFFE_Trust_Domain_and_Bundle section 4): what others verify our SVIDs with.
//! Public keys only.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

use crate::jwt_key::JwtKey;
use crate::public_key::PublicKey;
use crate::trust_domain::TrustDomain;

/// The public keys of our trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) sequence: u64,
    pub(crate) refresh_hint: Duration,
    pub(crate) x509: Vec<X509BundleKey>,
    pub(crate) jwt: Vec<JwtKey>,
    pub(crate) wit: Vec<JwtKey>,
}

/// The certificate of an X.509 authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct X509BundleKey {
    pub(crate) der: Vec<u8>,
    pub(crate) public: PublicKey,
}

impl Bundle {
    /// Whose keys these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Grows with every change of the content.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How often others should fetch it.
    pub fn refresh_hint(&self) -> Duration {
        self.refresh_hint
    }

    /// The certificates of the X.509 authorities, DER.
    pub fn x509_authorities(&self) -> Vec<&[u8]> {
        self.x509.iter().map(|key| key.der.as_slice()).collect()
    }

    /// The keys of the JWT authorities.
    pub fn jwt_authorities(&self) -> &[JwtKey] {
        &self.jwt
    }

    /// The keys of the WIT authorities.
    pub fn wit_authorities(&self) -> &[JwtKey] {
        &self.wit
    }

    /// The SPIFFE bundle document.
    pub fn to_json(&self) -> String {
        let document = Document {
            keys: self.keys(),
            spiffe_sequence: self.sequence,
            spiffe_refresh_hint: self.refresh_hint.as_secs(),
        };
        // Strings and numbers always serialise; an empty text is refused by every reader.
        serde_json::to_string(&document).unwrap_or_default()
    }

    fn keys(&self) -> Vec<Value> {
        // Section 4.2.1: x509-svid entries have no kid and one certificate.
        let x509 = self.x509.iter().map(|key| {
            let mut jwk = json!({"kty": "EC", "use": "x509-svid"});
            for (name, text) in key.public.members() {
                if let Some(members) = jwk.as_object_mut() {
                    members.insert(name.to_owned(), Value::String(text));
                }
            }
            if let Some(members) = jwk.as_object_mut() {
                members.insert("x5c".to_owned(), json!([STANDARD.encode(&key.der)]));
            }
            jwk
        });
        let jwt = self.jwt.iter().map(|key| key.to_jwk("jwt-svid"));
        let wit = self.wit.iter().map(|key| key.to_jwk("wit-svid"));
        x509.chain(jwt).chain(wit).collect()
    }
}

#[derive(Serialize)]
struct Document {
    keys: Vec<Value>,
    spiffe_sequence: u64,
    spiffe_refresh_hint: u64,
}
