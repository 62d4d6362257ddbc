//! TLS to servers of the ordinary Web: a certificate chain to the system's roots, for the host name that was asked for.
//!
//! For destinations whose grant names no SPIFFE peer. It shows no client certificate and holds no key; TLS 1.2 and 1.3. It
//! trusts the roots given and nothing else; without roots it refuses to be made.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::mtls::provider;

/// Connects to servers of the Web.
#[derive(Clone)]
pub struct WebConnector {
    tls: TlsConnector,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// Nothing to trust: the machine's configuration.
    #[error("no root certificates: {0}")]
    NoRoots(String),
    /// Not a host name or address. The caller erred.
    #[error("no TLS server name")]
    Name(#[from] InvalidDnsNameError),
    /// The peer did not prove to be that server, or the handshake failed.
    #[error("TLS handshake: {0}")]
    Handshake(#[source] io::Error),
    /// Our own error.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
}

impl WebConnector {
    /// Trusts the roots of this system.
    pub fn system() -> Result<Self, WebError> {
        let found = rustls_native_certs::load_native_certs();
        let why = found.errors.first().map_or_else(|| "this system has none".to_owned(), ToString::to_string);
        Self::with_roots(found.certs.iter().map(|der| der.to_vec()), &why)
    }

    /// Trusts these roots (DER). Those that cannot be parsed are left out.
    pub fn with_roots(roots: impl IntoIterator<Item = Vec<u8>>, why_none: &str) -> Result<Self, WebError> {
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(roots.into_iter().map(CertificateDer::from));
        if added == 0 {
            return Err(WebError::NoRoots(why_none.to_owned()));
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(WebError::Setup)?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// A connection to a server that proved to be `name`.
    pub async fn connect<S>(&self, name: &str, io: S) -> Result<TlsStream<S>, WebError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned())?;
        self.tls.connect(name, io).await.map_err(WebError::Handshake)
    }
}

impl fmt::Debug for WebConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebConnector")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::TlsAcceptor;

    struct Site {
        root: Vec<u8>,
        acceptor: TlsAcceptor,
    }

    fn site(name: &str) -> Site {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.distinguished_name.push(DnType::CommonName, "root");
        let root_der = root.self_signed(&root_key).unwrap();
        let issuer = Issuer::new(root, root_key);
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        Site { root: root_der.der().to_vec(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    async fn connect(site: &Site, roots: Vec<Vec<u8>>, name: &str) -> Result<(), WebError> {
        let (near, far) = tokio::io::duplex(16 << 10);
        let acceptor = site.acceptor.clone();
        tokio::spawn(async move { acceptor.accept(far).await.map(|_| ()) });
        WebConnector::with_roots(roots, "none")?.connect(name, near).await.map(|_| ())
    }

    #[tokio::test]
    async fn a_server_of_a_trusted_root_and_the_right_name_is_taken() {
        let site = site("api.example");
        connect(&site, vec![site.root.clone()], "api.example").await.unwrap();
    }

    #[tokio::test]
    async fn another_name_another_root_and_no_root_are_refused() {
        let (site, other) = (site("api.example"), site("api.example"));
        assert!(matches!(connect(&site, vec![site.root.clone()], "evil.example").await, Err(WebError::Handshake(_))));
        assert!(matches!(connect(&site, vec![other.root], "api.example").await, Err(WebError::Handshake(_))));
        assert!(matches!(connect(&site, vec![], "api.example").await, Err(WebError::NoRoots(_))));
        assert!(matches!(connect(&site, vec![vec![1, 2, 3]], "api.example").await, Err(WebError::NoRoots(_))));
    }
}
