//! Signatures made with the key of an X.509-SVID, over the authorities of a pinned SPIFFE bundle.
//!
//! X509-SVID section 5.2: the path must lead to an authority of the bundle; the leaf is no authority, may sign, and has
//! exactly one URI name, its SPIFFE ID. An SVID proves nothing about the time of a signature, so it must be valid now: such
//! evidence lasts as long as the SVID. For evidence that lasts longer, a signature needs a log or a timestamp.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::digest::Digest;
use crate::excerpt::Excerpt;
use crate::limits::ROOT_KEYS;

/// The X.509 authorities of one trust domain.
#[derive(Clone)]
pub struct SvidAuthorities {
    anchors: Vec<TrustAnchor<'static>>,
}

/// Why an SVID or a signature with it is not accepted, or a bundle cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// The bundle is not a JWK set with X.509 authorities.
    #[error("it is not a SPIFFE bundle with X.509 authorities: {0}")]
    Bundle(String),
    /// The certificate is no X.509-SVID.
    #[error("the certificate is not an X.509-SVID: {0}")]
    Form(String),
    /// The path does not lead to the pinned authorities, or not now.
    #[error("the X.509-SVID is not accepted: {0}")]
    Path(String),
    /// The signature is not the SVID's.
    #[error("the signature is not that of the X.509-SVID over this content")]
    Signature,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    #[serde(rename = "use")]
    usage: Option<String>,
    x5c: Option<Vec<String>>,
}

impl SvidAuthorities {
    /// The authorities in a SPIFFE bundle: a JWK set, of which the keys for X.509-SVIDs count.
    pub fn new(bundle: &Value) -> Result<Self, SvidError> {
        let form = |what: &dyn fmt::Display| SvidError::Bundle(Excerpt(&what.to_string()).to_string());
        let keys = KeySet::deserialize(bundle).map_err(|error| form(&error))?.keys;
        let mut anchors = Vec::new();
        for key in keys.into_iter().filter(|key| key.usage.as_deref() == Some("x509-svid")) {
            // SPIFFE Trust Domain and Bundle section 4.2.2: exactly one certificate.
            let Some([certificate]) = key.x5c.as_deref() else { return Err(form(&"x5c must have one certificate")) };
            let der = CertificateDer::from(STANDARD.decode(certificate).map_err(|_| form(&"x5c is not base64"))?);
            anchors.push(anchor_from_trusted_cert(&der).map_err(|error| form(&error))?.to_owned());
        }
        if (1..=ROOT_KEYS).contains(&anchors.len()) {
            Ok(Self { anchors })
        } else {
            Err(form(&format!("it has {} X.509 authorities, 1 to {ROOT_KEYS} are accepted", anchors.len())))
        }
    }

    /// Verifies that `signature` over `message` was made with the key of the SVID at the head of `chain`, which is valid
    /// at `now`; gives its SPIFFE ID.
    pub fn verify(
        &self,
        chain: &[Vec<u8>],
        message: &[u8],
        signature: &[u8],
        now: OffsetDateTime,
    ) -> Result<String, SvidError> {
        self.verify_under(chain, message, signature, now).map(|(id, _)| id)
    }

    /// The same, and the digest of the authority that the path leads to.
    pub(crate) fn verify_under(
        &self,
        chain: &[Vec<u8>],
        message: &[u8],
        signature: &[u8],
        now: OffsetDateTime,
    ) -> Result<(String, Digest), SvidError> {
        let (leaf, above) = chain.split_first().ok_or_else(|| SvidError::Form("there is none".to_owned()))?;
        let id = spiffe_id(leaf)?;
        let path = |error: webpki::Error| SvidError::Path(Excerpt(&error.to_string()).to_string());
        let der = CertificateDer::from(leaf.as_slice());
        let certificate = EndEntityCert::try_from(&der).map_err(path)?;
        let above: Vec<CertificateDer<'_>> = above.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let seconds =
            u64::try_from(now.unix_timestamp()).map_err(|_| SvidError::Path("the clock is before 1970".to_owned()))?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        // Section 4.4: an SVID with extended key usages names those of both sides of TLS.
        let usage = KeyUsage::client_auth();
        let verified = certificate
            .verify_for_usage(ALL_VERIFICATION_ALGS, &self.anchors, &above, at, usage, None, None)
            .map_err(path)?;
        let authority = authority(verified.anchor());
        let made = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            certificate.verify_signature(*algorithm, message, signature).is_ok()
        };
        if SIGNATURES.iter().any(made) { Ok((id, authority)) } else { Err(SvidError::Signature) }
    }

    /// Whether it has the authority with this digest.
    pub(crate) fn has(&self, authority_digest: &Digest) -> bool {
        self.anchors.iter().any(|anchor| authority(anchor) == *authority_digest)
    }
}

/// The digest of an authority's name and key.
fn authority(anchor: &TrustAnchor<'_>) -> Digest {
    let key = Digest::of(&anchor.subject_public_key_info);
    Digest::of(&[key.as_bytes().as_slice(), &anchor.subject].concat())
}

/// The SPIFFE ID in a certificate. Nothing about the certificate is verified.
pub fn spiffe_id(leaf: &[u8]) -> Result<String, SvidError> {
    let form = |what: &str| SvidError::Form(what.to_owned());
    let (rest, certificate) = X509Certificate::from_der(leaf).map_err(|_| form("it cannot be read"))?;
    if !rest.is_empty() {
        return Err(form("something follows it"));
    }
    if certificate.basic_constraints().map_err(|_| form("its basic constraints"))?.is_some_and(|own| own.value.ca) {
        return Err(form("it is an authority"));
    }
    // Section 4.3: digitalSignature, and neither keyCertSign nor cRLSign.
    let usage =
        certificate.key_usage().map_err(|_| form("its key usage"))?.ok_or_else(|| form("it has no key usage"))?;
    if !usage.value.digital_signature() || usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(form("its key usage"));
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| form("its names"))?
        .ok_or_else(|| form("it has no names"))?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(id), None) if id.starts_with("spiffe://") => Ok(id.to_owned()),
        _ => Err(form("it has not exactly one SPIFFE ID")),
    }
}

/// The algorithm is a property of the key; each of these fits one kind of key.
static SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::ED25519,
    webpki::ring::RSA_PKCS1_2048_8192_SHA256,
];

impl fmt::Debug for SvidAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SvidAuthorities({})", self.anchors.len())
    }
}
