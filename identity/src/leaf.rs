//! Reads the leaf of an X.509-SVID, ours or a peer's (X509-SVID sections 2 to 5), with `x509-parser`: other code than the one
//! that makes our certificates. Decides the shape only; who signed it and whether it is valid now is path validation's.
//!
//! Never looks at the common name or at DNS names. Stricter than the specification in one thing that SPIFFE's clients demand
//! too: BasicConstraints must be there.

use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::excerpt::Excerpt;
use crate::limits::MAX_CERTIFICATE_BYTES;
use crate::spiffe_id::{SpiffeId, SpiffeIdError};

/// A leaf whose shape is that of an X.509-SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) serial: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
    pub(crate) subject_key_id: Option<Vec<u8>>,
    pub(crate) authority_key_id: Option<Vec<u8>>,
    pub(crate) subject_empty: bool,
    pub(crate) digital_signature_only: bool,
    pub(crate) extended_key_usage: bool,
}

/// Why a certificate is no X.509-SVID of a workload. Whoever made it erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Over [`MAX_CERTIFICATE_BYTES`].
    #[error("the certificate is larger than {MAX_CERTIFICATE_BYTES} bytes")]
    TooLarge,
    /// No X.509 v3 certificate in DER, or an extension that is there twice.
    #[error("the certificate cannot be parsed")]
    Malformed,
    /// X509-SVID section 2: exactly one.
    #[error("the certificate has {0} URI names, an X.509-SVID has exactly one")]
    UriNames(usize),
    /// The URI is no SPIFFE ID.
    #[error("the certificate's URI name is no SPIFFE ID: {0}")]
    SpiffeId(#[from] SpiffeIdError),
    /// X509-SVID section 5.2: the ID of a leaf has a path.
    #[error("the certificate names a trust domain, not a workload: {0}")]
    RootPath(Excerpt),
    /// X509-SVID section 4.1.
    #[error("the certificate is that of a certificate authority")]
    Authority,
    /// X509-SVID section 4.1, as clients demand it.
    #[error("the certificate has no basic constraints")]
    NoBasicConstraints,
    /// X509-SVID section 4.3.
    #[error("the certificate's key usage must be critical, digitalSignature, and neither keyCertSign nor cRLSign")]
    KeyUsage,
    /// X509-SVID section 4.4.
    #[error("the certificate's extended key usage must name both serverAuth and clientAuth")]
    ExtendedKeyUsage,
    /// RFC 5280 section 4.2.1.6.
    #[error("the certificate has an empty subject, so its names must be critical")]
    NamesNotCritical,
}

impl LeafError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "the peer must present an X.509-SVID: a leaf with one spiffe:// URI name, CA:FALSE and key usage digitalSignature"
    }
}

impl Leaf {
    /// The leaf in these bytes.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, LeafError> {
        Self::of(&Self::certificate(der)?)
    }

    /// The certificate in these bytes, whatever it is for.
    pub(crate) fn certificate(der: &[u8]) -> Result<X509Certificate<'_>, LeafError> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(LeafError::TooLarge);
        }
        let certificate = match X509Certificate::from_der(der) {
            Ok(([], certificate)) if certificate.version() == X509Version::V3 => certificate,
            _ => return Err(LeafError::Malformed),
        };
        // RFC 5280 section 4.2: no extension twice.
        certificate.extensions_map().map_err(|_| LeafError::Malformed)?;
        Ok(certificate)
    }

    /// The leaf that this certificate is.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Result<Self, LeafError> {
        let spiffe_id = spiffe_id(certificate)?;
        let constraints = certificate.basic_constraints().map_err(|_| LeafError::Malformed)?;
        match constraints {
            Some(constraints) if constraints.value.ca => return Err(LeafError::Authority),
            Some(_) => {}
            None => return Err(LeafError::NoBasicConstraints),
        }
        let digital_signature_only = key_usage(certificate)?;
        let extended_key_usage = extended_key_usage(certificate)?;
        let key_id = |wanted: fn(&ParsedExtension<'_>) -> Option<Vec<u8>>| {
            certificate.iter_extensions().find_map(|extension| wanted(extension.parsed_extension()))
        };
        Ok(Self {
            spiffe_id,
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            serial: certificate.raw_serial().to_vec(),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            subject_key_id: key_id(|extension| match extension {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            }),
            authority_key_id: key_id(|extension| match extension {
                ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
                _ => None,
            }),
            subject_empty: certificate.subject().iter().next().is_none(),
            digital_signature_only,
            extended_key_usage,
        })
    }
}

fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, LeafError> {
    let names = certificate.subject_alternative_name().map_err(|_| LeafError::Malformed)?;
    let Some(names) = names else { return Err(LeafError::UriNames(0)) };
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (first, others) = (uris.next(), uris.count());
    let uri = match (first, others) {
        (Some(uri), 0) => uri,
        (None, _) => return Err(LeafError::UriNames(0)),
        (Some(_), others) => return Err(LeafError::UriNames(others + 1)),
    };
    // A name that the parser could not read could be anything.
    if names.value.general_names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return Err(LeafError::Malformed);
    }
    if certificate.subject().iter().next().is_none() && !names.critical {
        return Err(LeafError::NamesNotCritical);
    }
    let id: SpiffeId = uri.parse()?;
    if !id.has_path() {
        return Err(LeafError::RootPath(Excerpt::new(uri)));
    }
    Ok(id)
}

fn key_usage(certificate: &X509Certificate<'_>) -> Result<bool, LeafError> {
    let usage = certificate.key_usage().map_err(|_| LeafError::Malformed)?.ok_or(LeafError::KeyUsage)?;
    if !usage.critical || !usage.value.digital_signature() || usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(LeafError::KeyUsage);
    }
    Ok(usage.value.flags == 1)
}

fn extended_key_usage(certificate: &X509Certificate<'_>) -> Result<bool, LeafError> {
    match certificate.extended_key_usage().map_err(|_| LeafError::Malformed)? {
        None => Ok(false),
        Some(usage) if usage.value.server_auth && usage.value.client_auth => Ok(true),
        Some(_) => Err(LeafError::ExtendedKeyUsage),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        KeyUsagePurpose, SanType,
    };

    use super::*;

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    /// A leaf like ours, then changed.
    fn leaf(change: impl FnOnce(&mut CertificateParams)) -> Result<Leaf, LeafError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri("spiffe://example.org/a")];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        Leaf::parse(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn x5_01_other_names_beside_the_one_uri_are_ignored() {
        let parsed = leaf(|p| p.subject_alt_names.push(SanType::DnsName("example.com".try_into().unwrap()))).unwrap();
        assert_eq!(parsed.spiffe_id.to_string(), "spiffe://example.org/a");
    }

    #[test]
    fn x5_01_no_uri_or_two_are_refused() {
        assert_eq!(leaf(|p| p.subject_alt_names.clear()), Err(LeafError::UriNames(0)));
        let dns = leaf(|p| p.subject_alt_names = vec![SanType::DnsName("example.org".try_into().unwrap())]);
        assert_eq!(dns, Err(LeafError::UriNames(0)));
        let two = leaf(|p| p.subject_alt_names.push(uri("spiffe://example.org/b")));
        assert_eq!(two, Err(LeafError::UriNames(2)));
        let other = leaf(|p| p.subject_alt_names.push(uri("https://example.org")));
        assert_eq!(other, Err(LeafError::UriNames(2)));
    }

    #[test]
    fn x5_01_the_common_name_is_never_looked_at() {
        let named = leaf(|p| {
            p.subject_alt_names.clear();
            p.distinguished_name.push(DnType::CommonName, "spiffe://example.org/a");
        });
        assert_eq!(named, Err(LeafError::UriNames(0)));
    }

    #[test]
    fn x5_02_a_root_path_is_refused() {
        assert!(matches!(
            leaf(|p| p.subject_alt_names = vec![uri("spiffe://example.org")]),
            Err(LeafError::RootPath(_))
        ));
    }

    #[test]
    fn x5_09_another_scheme_or_a_malformed_id_is_refused() {
        for text in ["https://example.org/a", "spiffe://example.org/a/", "spiffe://example.org:1/a"] {
            let refused = leaf(|p| p.subject_alt_names = vec![uri(text)]);
            assert!(matches!(refused, Err(LeafError::SpiffeId(_))), "{text}");
        }
    }

    #[test]
    fn x5_04_an_authority_or_missing_basic_constraints_are_refused() {
        assert_eq!(leaf(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))), Err(LeafError::Authority));
        assert_eq!(leaf(|p| p.is_ca = IsCa::NoCa), Err(LeafError::NoBasicConstraints));
    }

    #[test]
    fn x5_05_wrong_key_usage_is_refused() {
        for usages in [
            vec![],
            vec![KeyUsagePurpose::KeyEncipherment],
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign],
        ] {
            assert_eq!(leaf(|p| p.key_usages = usages.clone()), Err(LeafError::KeyUsage), "{usages:?}");
        }
    }

    #[test]
    fn x5_06_extended_key_usage_names_both_or_is_absent() {
        assert!(leaf(|p| p.extended_key_usages.clear()).is_ok());
        for one in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth] {
            assert_eq!(leaf(|p| p.extended_key_usages = vec![one.clone()]), Err(LeafError::ExtendedKeyUsage));
        }
    }

    #[test]
    fn cut_trailing_random_and_huge_bytes_are_refused() {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri("spiffe://example.org/a")];
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        for end in 0..der.len() {
            assert_eq!(Leaf::parse(&der[..end]), Err(LeafError::Malformed), "cut at {end}");
        }
        assert_eq!(Leaf::parse(&[&der[..], &[0]].concat()), Err(LeafError::Malformed));
        assert_eq!(Leaf::parse(&vec![0x30; MAX_CERTIFICATE_BYTES]), Err(LeafError::Malformed));
        assert_eq!(Leaf::parse(&vec![0x30; MAX_CERTIFICATE_BYTES + 1]), Err(LeafError::TooLarge));
    }
}
