//! Certificates for NATS: authorities, server certificates by DNS name or address, client certificates with a SPIFFE ID as
//! SPIRE issues them. All sorts of wrong ones too: expired, for another name, of another authority.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// An authority that signs what a test wants.
#[derive(Debug)]
pub struct Authority {
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

impl Authority {
    /// A root with this common name, valid from an hour ago for a day.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        within(&mut params, Duration::hours(-1), Duration::hours(24));
        Self { ca: CertifiedIssuer::self_signed(params, key()).expect("a root can be made") }
    }

    /// The root of a SPIFFE trust domain.
    pub fn of_trust_domain(domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "SPIFFE");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))];
        within(&mut params, Duration::hours(-1), Duration::hours(24));
        Self { ca: CertifiedIssuer::self_signed(params, key()).expect("a root can be made") }
    }

    /// The root certificate, PEM.
    pub fn pem(&self) -> String {
        self.ca.pem()
    }

    /// The root certificate, DER.
    pub fn der(&self) -> Vec<u8> {
        self.ca.der().to_vec()
    }

    /// A server certificate for `localhost` and 127.0.0.1.
    pub fn server(&self) -> Leaf {
        self.server_for(&["localhost", "127.0.0.1"])
    }

    /// A server certificate for these DNS names and addresses.
    pub fn server_for(&self, names: &[&str]) -> Leaf {
        self.leaf(|params| {
            params.subject_alt_names = names.iter().map(|name| name_or_address(name)).collect();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    /// A server certificate for `localhost` and 127.0.0.1 that ended an hour ago.
    pub fn expired_server(&self) -> Leaf {
        self.leaf(|params| {
            params.subject_alt_names = ["localhost", "127.0.0.1"].map(name_or_address).into();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            within(params, Duration::hours(-2), Duration::hours(-1));
        })
    }

    /// A certificate with one SPIFFE ID for both directions and an empty subject: an X.509-SVID.
    pub fn spiffe(&self, id: &str) -> Leaf {
        self.leaf(|params| params.subject_alt_names = vec![uri(id)])
    }

    /// The same with the subject that every SVID of SPIRE has.
    pub fn spiffe_like_spire(&self, id: &str) -> Leaf {
        self.leaf(|params| {
            params.subject_alt_names = vec![uri(id)];
            params.distinguished_name.push(DnType::CountryName, "US");
            params.distinguished_name.push(DnType::OrganizationName, "SPIRE");
        })
    }

    /// An X.509-SVID that ended an hour ago.
    pub fn expired_spiffe(&self, id: &str) -> Leaf {
        self.leaf(|params| {
            params.subject_alt_names = vec![uri(id)];
            within(params, Duration::hours(-2), Duration::hours(-1));
        })
    }

    /// Any leaf: valid from an hour ago for an hour, for both directions, without a name, changed as the test wants.
    pub fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = key();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        within(&mut params, Duration::hours(-1), Duration::hours(1));
        change(&mut params);
        let certificate = params.signed_by(&key, &self.ca).expect("a certificate can be made");
        Leaf { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Writes the root as `NAME.pem` into a folder.
    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        replace(folder, &format!("{name}.pem"), &self.pem())
    }
}

impl Leaf {
    /// Writes `NAME.pem` and `NAME.key` (0600) into a folder, each replaced in one step. Gives their paths.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = replace(folder, &format!("{name}.key"), &self.key);
        (replace(folder, &format!("{name}.pem"), &self.certificate), key)
    }
}

/// Replaces a file of mode 0600 in one step, as whoever rotates secrets does.
pub fn replace(folder: &Path, name: &str, text: &str) -> PathBuf {
    let (new, path) = (folder.join(format!(".{name}.new")), folder.join(name));
    std::fs::write(&new, text).expect("a file can be written");
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).expect("a mode can be set");
    std::fs::rename(&new, &path).expect("a file can be renamed");
    path
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}

fn within(params: &mut CertificateParams, from: Duration, to: Duration) {
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now + from, now + to);
}

fn uri(id: &str) -> SanType {
    SanType::URI(id.try_into().expect("an ASCII URI"))
}

fn name_or_address(name: &str) -> SanType {
    match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().expect("an ASCII name")),
    }
}
