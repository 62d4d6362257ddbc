//! Our trust bundle as a SPIFFE bundle document (SPIFFE_Trust_Domain_and_Bundle section 4): what others verify our SVIDs with.
//! Public keys only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use crate::hex::hex;
use crate::jwk::EcCoordinates;
use crate::limits::BUNDLE_REFRESH_HINT;
use crate::trust_domain::TrustDomain;

/// The public keys of our trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) sequence: u64,
    pub(crate) x509: Vec<X509BundleKey>,
    pub(crate) jwt: Vec<JwtBundleKey>,
}

/// The certificate of an X.509 authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct X509BundleKey {
    pub(crate) der: Vec<u8>,
    pub(crate) coordinates: EcCoordinates,
}

/// The public key of a JWT authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtBundleKey {
    pub(crate) kid: String,
    pub(crate) coordinates: EcCoordinates,
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

    /// The certificates of the X.509 authorities, DER.
    pub fn x509_authorities(&self) -> Vec<&[u8]> {
        self.x509.iter().map(|key| key.der.as_slice()).collect()
    }

    /// The keys of the JWT authorities.
    pub fn jwt_authorities(&self) -> &[JwtBundleKey] {
        &self.jwt
    }

    /// The SPIFFE bundle document.
    pub fn to_json(&self) -> String {
        let document = Document {
            keys: self.keys(),
            spiffe_sequence: self.sequence,
            spiffe_refresh_hint: BUNDLE_REFRESH_HINT.as_secs(),
        };
        // Strings and numbers always serialise; an empty text is refused by every reader.
        serde_json::to_string(&document).unwrap_or_default()
    }

    /// Tells one content from another, without the sequence.
    pub(crate) fn fingerprint(&self) -> String {
        let content = (&self.trust_domain, self.keys());
        hex(digest(&SHA256, &serde_json::to_vec(&content).unwrap_or_default()).as_ref())
    }

    fn keys(&self) -> Vec<Jwk<'_>> {
        let x509 = self.x509.iter().map(|key| Jwk {
            kty: "EC",
            usage: "x509-svid",
            // Section 4.2.1: x509-svid entries have no kid and one certificate.
            kid: None,
            crv: "P-256",
            x: &key.coordinates.x,
            y: &key.coordinates.y,
            x5c: Some([STANDARD.encode(&key.der)]),
        });
        let jwt = self.jwt.iter().map(|key| Jwk {
            kty: "EC",
            usage: "jwt-svid",
            kid: Some(&key.kid),
            crv: "P-256",
            x: &key.coordinates.x,
            y: &key.coordinates.y,
            x5c: None,
        });
        x509.chain(jwt).collect()
    }
}

impl JwtBundleKey {
    /// Names the key in a token's header.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The P-256 coordinates in base64url.
    pub fn x_y(&self) -> (&str, &str) {
        (&self.coordinates.x, &self.coordinates.y)
    }
}

#[derive(Serialize)]
struct Document<'a> {
    keys: Vec<Jwk<'a>>,
    spiffe_sequence: u64,
    spiffe_refresh_hint: u64,
}

#[derive(Serialize)]
struct Jwk<'a> {
    kty: &'a str,
    #[serde(rename = "use")]
    usage: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    crv: &'a str,
    x: &'a str,
    y: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    x5c: Option<[String; 1]>,
}
