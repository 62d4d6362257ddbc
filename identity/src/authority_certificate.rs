//! Reads the certificate of an X.509 authority, ours or one of a bundle (X509-SVID sections 4 and 5.1). It must be a
//! certificate authority that may sign certificates; if it carries a SPIFFE ID, that of its own trust domain without a path.

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::limits::MAX_CERTIFICATE_BYTES;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// An authority's certificate whose shape was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthorityCertificate {
    pub(crate) der: Vec<u8>,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) public_key: Vec<u8>,
    pub(crate) subject_key_id: Option<Vec<u8>>,
    /// DER, as leaves name it.
    pub(crate) subject: Vec<u8>,
}

impl AuthorityCertificate {
    /// The authority in these bytes; the error says what is wrong with it.
    pub(crate) fn parse(der: &[u8], trust_domain: &TrustDomain) -> Result<Self, &'static str> {
        let certificate = parse(der)?;
        if !matches!(certificate.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca) {
            return Err("its certificate is not that of a certificate authority");
        }
        if !matches!(certificate.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign()) {
            return Err("its certificate may not sign certificates");
        }
        let own = SpiffeId::of_trust_domain(trust_domain);
        let names = certificate.subject_alternative_name().map_err(|_| "its certificate's names cannot be parsed")?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            if let GeneralName::URI(uri) = name
                && !uri.parse::<SpiffeId>().is_ok_and(|id| id == own)
            {
                return Err("its certificate names another trust domain or a workload");
            }
        }
        let subject_key_id = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        Ok(Self {
            der: der.to_vec(),
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            subject_key_id,
            subject: certificate.subject().as_raw().to_vec(),
        })
    }

    /// Whether this authority, whose key is one of P-256, signed this certificate.
    pub(crate) fn signed_with_p256(&self, certificate: &X509Certificate<'_>) -> bool {
        certificate.issuer().as_raw() == self.subject
            && certificate.signature_algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256
            && certificate.tbs_certificate.signature.algorithm == OID_SIG_ECDSA_WITH_SHA256
            && UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.public_key)
                .verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data)
                .is_ok()
    }

    /// Whether this authority signed the certificate.
    pub(crate) fn signed(&self, der: &[u8]) -> bool {
        match (parse(&self.der), parse(der)) {
            (Ok(authority), Ok(leaf)) => {
                authority.subject().as_raw() == leaf.issuer().as_raw()
                    && leaf.verify_signature(Some(authority.public_key())).is_ok()
            }
            _ => false,
        }
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, &'static str> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err("its certificate is too large");
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) if certificate.extensions_map().is_ok() => Ok(certificate),
        _ => Err("its certificate cannot be parsed"),
    }
}
