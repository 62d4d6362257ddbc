//! TLS to NATS servers: whom a client believes, and the certificate it shows with a key that may be elsewhere.
//!
//! TLS 1.3 only, `ring` only, no resumption: a resumed session would go on under the certificate of before, and the server would
//! not see the new one. A server is known by its name under the roots that were configured, or, where it has one, by its SPIFFE
//! ID and by nothing else. Roots and the client's certificate are asked for anew in each handshake, so both can be replaced
//! while a client lives.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureAlgorithm, SignatureScheme,
};

use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::excerpt::Excerpt;
use crate::mtls::{Authorities, HandshakeSigner, PeerError, PinnedServer, provider};
use crate::spiffe_id::SpiffeId;

/// Why TLS to NATS servers cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum NatsTlsError {
    /// The file with the authorities. Configuration.
    #[error("the CA file has no certificate that can be used")]
    NoRoots,
    /// A trust domain names no server. Configuration.
    #[error("{0} is a trust domain, not a server")]
    NoServer(SpiffeId),
    /// Our own error.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl NatsTlsError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoRoots => {
                "name a PEM file with the certificate of the authority that issued the servers' certificates"
            }
            Self::NoServer(_) => "give the SPIFFE ID with its path, such as spiffe://example.org/nats",
            Self::Setup(_) => "see the log",
        }
    }
}

/// The authorities that servers' certificates must come from. Replaceable while clients live.
#[derive(Debug)]
pub struct NatsRoots(ArcSwap<RootCertStore>);

impl NatsRoots {
    /// Those of a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, NatsTlsError> {
        Ok(Self(ArcSwap::new(roots(pem)?)))
    }

    /// Those of this system: every public authority. For services in public clouds.
    pub fn of_system() -> Result<Self, NatsTlsError> {
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 { Err(NatsTlsError::NoRoots) } else { Ok(Self(ArcSwap::from_pointee(store))) }
    }

    /// Takes those of a PEM file from the next handshake on; a file that cannot be used changes nothing.
    pub fn replace(&self, pem: &[u8]) -> Result<(), NatsTlsError> {
        self.0.store(roots(pem)?);
        Ok(())
    }

    /// Those that are current.
    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        self.0.load_full()
    }
}

fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, NatsTlsError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        // One that cannot be read would be an authority that silently is not trusted.
        store.add(certificate.map_err(|_| NatsTlsError::NoRoots)?).map_err(|_| NatsTlsError::NoRoots)?;
    }
    if store.is_empty() { Err(NatsTlsError::NoRoots) } else { Ok(Arc::new(store)) }
}

/// The certificates of a PEM file, DER; those that cannot be read are left out.
pub fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem).flatten().map(|der| der.to_vec()).collect()
}

/// From when to when the first certificate of a PEM file is valid.
pub fn validity(pem: &[u8]) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let der = CertificateDer::pem_slice_iter(pem).next()?.ok()?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    Some((parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime()))
}

/// The names (DNS, addresses, URIs) of the first certificate of a PEM file.
pub fn names(pem: &[u8]) -> Option<BTreeSet<String>> {
    let der = CertificateDer::pem_slice_iter(pem).next()?.ok()?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    let names = parsed.subject_alternative_name().ok()?;
    Some(names.into_iter().flat_map(|names| &names.value.general_names).map(ToString::to_string).collect())
}

/// The public part of a client's certificate, and who signs for it.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// What the signer knows the key by.
    pub key_id: String,
    /// The signature scheme of the key (RFC 8446 section 4.2.3).
    pub scheme: u16,
    /// Who signs.
    pub signer: Arc<dyn HandshakeSigner>,
}

/// What the next handshake shows. Empty: nothing, and a server that asks refuses.
#[derive(Debug, Default)]
pub struct CurrentCertificate(ArcSwapOption<ClientCertificate>);

impl CurrentCertificate {
    /// Shows this from the next handshake on.
    pub fn set(&self, certificate: Option<ClientCertificate>) {
        self.0.store(certificate.map(Arc::new));
    }
}

/// The configuration of a TLS client of NATS.
pub fn client_config(
    roots: Arc<NatsRoots>,
    server: Option<SpiffeId>,
    certificate: Arc<CurrentCertificate>,
) -> Result<ClientConfig, NatsTlsError> {
    if let Some(id) = server.as_ref().filter(|id| !id.has_path()) {
        return Err(NatsTlsError::NoServer(id.clone()));
    }
    let provider = provider();
    let verifier = Server { roots, pinned: server, provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| NatsTlsError::Setup(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(Resolver(certificate)));
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// Accepts the servers of some authorities, by name or by SPIFFE ID.
struct Server {
    roots: Arc<NatsRoots>,
    pinned: Option<SpiffeId>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Server {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (roots, provider) = (self.roots.0.load_full(), Arc::clone(&self.provider));
        match &self.pinned {
            Some(peer) => {
                let authorities = Authorities::File(roots);
                let pinned = PinnedServer { peer: peer.clone(), authorities, provider };
                pinned.verify_server_cert(end_entity, intermediates, name, ocsp, now).map_err(named)
            }
            None => WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| Error::General(error.to_string()))?
                .verify_server_cert(end_entity, intermediates, name, ocsp, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("pinned", &self.pinned).finish_non_exhaustive()
    }
}

/// Why a server was refused. Clients that are not ours to change show the `Debug` of it: it is the text.
#[derive(thiserror::Error)]
#[error("{0}")]
struct RefusedServer(PeerError);

impl fmt::Debug for RefusedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn named(error: Error) -> Error {
    let Error::InvalidCertificate(CertificateError::Other(other)) = &error else { return error };
    match other.0.downcast_ref::<PeerError>() {
        Some(peer) => {
            let refused = OtherError(Arc::new(RefusedServer(peer.clone())));
            Error::InvalidCertificate(CertificateError::Other(refused))
        }
        None => error,
    }
}

/// Presents what is current, whatever hints the server gives.
#[derive(Debug)]
struct Resolver(Arc<CurrentCertificate>);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let current = self.0.0.load_full()?;
        let chain = current.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        Some(Arc::new(CertifiedKey::new(chain, Arc::new(Key(current)))))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A key that is elsewhere.
#[derive(Debug, Clone)]
struct Key(Arc<ClientCertificate>);

/// The signer gave no signature.
#[derive(Debug, thiserror::Error)]
#[error("the handshake could not be signed: {0}")]
struct NotSigned(Excerpt);

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.scheme() {
            SignatureScheme::RSA_PSS_SHA256 => SignatureAlgorithm::RSA,
            SignatureScheme::ED25519 => SignatureAlgorithm::ED25519,
            _ => SignatureAlgorithm::ECDSA,
        }
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signed = self.0.signer.sign(&self.0.key_id, message);
        signed.map_err(|reason| Error::Other(OtherError(Arc::new(NotSigned(Excerpt::new(&reason))))))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::from(self.0.scheme)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    fn root() -> String {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn what_holds_no_authority_or_one_that_cannot_be_read_is_refused() {
        let good = root();
        let roots = NatsRoots::from_pem(good.as_bytes()).unwrap();
        let damaged = format!("{good}{}", good.replace("MII", "!!!"));
        for bad in ["", "nothing", damaged.as_str()] {
            assert!(matches!(NatsRoots::from_pem(bad.as_bytes()), Err(NatsTlsError::NoRoots)), "{bad}");
            let before = roots.0.load_full();
            assert!(roots.replace(bad.as_bytes()).is_err());
            assert!(Arc::ptr_eq(&before, &roots.0.load_full()), "what was there stays");
        }
        let before = roots.0.load_full();
        assert!(roots.replace(root().as_bytes()).is_ok());
        assert!(!Arc::ptr_eq(&before, &roots.0.load_full()));
    }

    #[test]
    fn sessions_are_never_resumed_and_a_trust_domain_is_no_server() {
        let roots = Arc::new(NatsRoots::from_pem(root().as_bytes()).unwrap());
        let make = |server: Option<&str>| {
            let server = server.map(|id| id.parse().unwrap());
            client_config(Arc::clone(&roots), server, Arc::new(CurrentCertificate::default()))
        };
        let config = make(Some("spiffe://example.org/nats")).unwrap();
        assert!(format!("{:?}", config.resumption).contains("NoClientSessionStorage"), "{:?}", config.resumption);
        assert!(!config.enable_early_data);
        assert!(matches!(make(Some("spiffe://example.org")), Err(NatsTlsError::NoServer(_))));
    }
}
