//! The X.509 authority of the trust domain: a self-signed CA that signs leaves and nothing else (path length 0), and every
//! certificate that it mints, read back by other code before it leaves.
//!
//! The library's defaults are not used for serial, validity, names, basic constraints or key identifiers; each is set here.
//! No URI name constraints: verifiers built on webpki refuse every chain that carries one.

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use time::OffsetDateTime;

use crate::authority::AuthorityId;
use crate::authority_certificate::AuthorityCertificate;
use crate::authority_key::AuthorityKey;
use crate::hex::hex;
use crate::leaf::Leaf;
use crate::limits::X509_BACKDATE;
use crate::p256_key::{P256Key, SignatureForm};
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// The CA's key and certificate.
#[derive(Debug)]
pub(crate) struct X509Authority {
    key: AuthorityKey,
    certificate: AuthorityCertificate,
    /// What leaves take from the certificate: name, key id and key usage.
    issuing: CertificateParams,
    trust_domain: TrustDomain,
}

/// A leaf that was made, read back and found right.
#[derive(Debug)]
pub(crate) struct MintedLeaf {
    pub(crate) der: Vec<u8>,
    pub(crate) leaf: Leaf,
    pub(crate) key: P256Key,
}

impl X509Authority {
    /// A new authority with this key.
    pub(crate) fn create(
        key: AuthorityKey,
        trust_domain: &TrustDomain,
        created_at: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<Self, &'static str> {
        let mut params = CertificateParams::default();
        params.not_before = created_at - X509_BACKDATE;
        params.not_after = not_after;
        params.serial_number = Some(serial()?);
        params.distinguished_name = name(key.der_bytes());
        params.subject_alt_names = vec![uri(&SpiffeId::of_trust_domain(trust_domain))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.key_identifier_method = KeyIdMethod::Sha256;
        let der = params.self_signed(&key).map_err(|_| "no certificate")?.der().to_vec();
        let authority = Self::from_parts(key, &der, trust_domain)?;
        if authority.certificate.not_after != not_after {
            return Err("the certificate made ends at another time");
        }
        Ok(authority)
    }

    /// The authority of this key and certificate, if they fit together; the error says what does not.
    pub(crate) fn from_parts(key: AuthorityKey, der: &[u8], trust_domain: &TrustDomain) -> Result<Self, &'static str> {
        let certificate = AuthorityCertificate::parse(der, trust_domain)?;
        if certificate.public_key != key.der_bytes() {
            return Err("its certificate is for another key");
        }
        if !certificate.signed(der) {
            return Err("its certificate is not signed by its key");
        }
        let mut issuing = CertificateParams::default();
        issuing.distinguished_name = name(key.der_bytes());
        issuing.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        issuing.key_identifier_method = KeyIdMethod::Sha256;
        Ok(Self { key, certificate, issuing, trust_domain: trust_domain.clone() })
    }

    /// Its subject key id in hexadecimal.
    pub(crate) fn id(&self) -> Result<AuthorityId, &'static str> {
        let id = self.certificate.subject_key_id.as_deref().ok_or("its certificate has no subject key id")?;
        hex(id).parse().map_err(|_| "its subject key id is malformed")
    }

    /// A new key and a certificate for it. Both times are whole seconds.
    pub(crate) fn mint(
        &self,
        id: &SpiffeId,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<MintedLeaf, &'static str> {
        let key = P256Key::generate(SignatureForm::Asn1).map_err(|_| "no key")?;
        let mut params = CertificateParams::default();
        params.not_before = not_before;
        params.not_after = not_after;
        params.serial_number = Some(serial()?);
        // X509-SVID section 2 and RFC 5280 section 4.1.2.6: no subject, so the names are critical.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(id)?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.key_identifier_method = KeyIdMethod::Sha256;
        let issuer = Issuer::from_params(&self.issuing, &self.key);
        let der = params.signed_by(&key, &issuer).map_err(|_| "no certificate")?.der().to_vec();
        let leaf = self.check(&der, &key, id, not_before, not_after)?;
        Ok(MintedLeaf { der, leaf, key })
    }

    /// The certificate, DER.
    pub(crate) fn certificate(&self) -> &AuthorityCertificate {
        &self.certificate
    }

    /// The private key.
    pub(crate) fn key(&self) -> &AuthorityKey {
        &self.key
    }

    /// Reads back what was made: a certificate that is not exactly what was meant does not leave.
    fn check(
        &self,
        der: &[u8],
        key: &P256Key,
        id: &SpiffeId,
        not_before: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<Leaf, &'static str> {
        let certificate = Leaf::certificate(der).map_err(|_| "the certificate made cannot be parsed")?;
        let leaf = Leaf::of(&certificate).map_err(|_| "the certificate made is no X.509-SVID")?;
        let as_meant = leaf.spiffe_id == *id
            && id.trust_domain() == &self.trust_domain
            && leaf.public_key == key.public()
            && leaf.not_before == not_before
            && leaf.not_after == not_after
            && leaf.subject_empty
            && leaf.digital_signature_only
            && leaf.extended_key_usage
            && leaf.subject_key_id.is_some()
            && leaf.authority_key_id.is_some()
            && leaf.authority_key_id == self.certificate.subject_key_id;
        if !as_meant {
            return Err("the certificate made is not as meant");
        }
        if !self.certificate.signed_with_p256(&certificate) {
            return Err("the certificate made does not verify");
        }
        Ok(leaf)
    }
}

/// Unique for each authority: verifiers that see one name for several roots try them all.
fn name(public: &[u8]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    let id = digest(&SHA256, public);
    name.push(
        DnType::CommonName,
        format!("Portcullis X.509 authority {}", hex(id.as_ref().get(..16).unwrap_or_default())),
    );
    name
}

/// 128 random bits, written as a positive number.
fn serial() -> Result<SerialNumber, &'static str> {
    let mut bytes = [0u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "no randomness")?;
    Ok(SerialNumber::from_slice(&bytes))
}

fn uri(id: &SpiffeId) -> Result<SanType, &'static str> {
    Ia5String::try_from(id.to_string()).map(SanType::URI).map_err(|_| "the SPIFFE ID is not ASCII")
}
