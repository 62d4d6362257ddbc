//! Fetches the bundle of a peer: dials, verifies the server by the peer's profile, asks, follows temporary redirects within the
//! same profile (SPIFFE_Federation section 5.2). What it returns was parsed strictly as the bundle of the peer's trust domain.

use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use super::bundle_url::BundleUrl;
use super::exchange::{Answer, ExchangeError, get};
use super::peer::{Peer, Profile};
use super::tls::SpiffeServer;
use crate::bundle_document::{BundleDocument, BundleError};
use crate::limits::{BUNDLE_FETCH, MAX_REDIRECTS};
use crate::mtls::TlsError;
use crate::trust_bundle::TrustBundle;
use crate::web::{WebConnector, WebError};

/// Opens connections to servers that the operator named.
#[async_trait]
pub trait Dial: Send + Sync {
    /// The connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// A connection to this host (an IPv6 address in brackets) and port.
    async fn dial(&self, host: &str, port: u16) -> io::Result<Self::Stream>;
}

/// Whom to trust as a server of the Web.
pub type WebTrust = Result<WebConnector, String>;

/// Why a bundle was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection. The network, or the peer is away.
    #[error("no connection to {url}: {why}")]
    Dial {
        /// Where to.
        url: BundleUrl,
        /// What the system said.
        why: io::Error,
    },
    /// The server did not prove to be the right one.
    #[error("the server of {url} is not trusted: {why}")]
    Web {
        /// Which.
        url: BundleUrl,
        /// Why not.
        why: WebError,
    },
    /// Nobody of the Web is trusted. Configuration.
    #[error("no server of the Web can be trusted: {0}")]
    NoRoots(String),
    /// The server did not present the pinned X.509-SVID.
    #[error("the server of {url} is not the endpoint: {why}")]
    Spiffe {
        /// Which.
        url: BundleUrl,
        /// Why not.
        why: TlsError,
    },
    /// The answer is of no use.
    #[error("{url}: {why}")]
    Exchange {
        /// Where.
        url: BundleUrl,
        /// Why.
        why: ExchangeError,
    },
    /// A redirect to a host that the operator did not name.
    #[error("the endpoint redirects to {0}, which is not among its redirect_hosts")]
    RedirectHost(BundleUrl),
    /// Over [`MAX_REDIRECTS`].
    #[error("the endpoint redirects more than {MAX_REDIRECTS} times")]
    Redirects,
    /// No strict bundle document.
    #[error("what the endpoint serves is no bundle: {0}")]
    Bundle(#[from] BundleError),
    /// Over [`BUNDLE_FETCH`].
    #[error("the bundle was not there within {} s", BUNDLE_FETCH.as_secs())]
    Timeout,
}

impl FetchError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Dial { .. } | Self::Timeout => "see that the peer's endpoint is up and can be reached from here",
            Self::Web { .. } => "see that the endpoint's certificate is for this host name and by a trusted authority",
            Self::NoRoots(_) => "install the system's root certificates, or name a `ca` file for this peer",
            Self::Spiffe { why, .. } => why.hint(),
            Self::Exchange { why, .. } => why.hint(),
            Self::RedirectHost(_) => "if the peer's operator confirms that host, add it to the peer's redirect_hosts",
            Self::Redirects => "ask the peer's operator for the URL of the bundle itself",
            Self::Bundle(error) => error.hint(),
        }
    }
}

/// The bundle that the peer's endpoint serves now. `trust` has what the endpoint's X.509-SVID is verified with, which for the
/// peer's own endpoint is the bundle that is held of it (section 5.2.2: the latest one).
pub async fn fetch<D: Dial>(
    peer: &Peer,
    trust: &TrustBundle,
    web: &WebTrust,
    dialer: &D,
) -> Result<BundleDocument, FetchError> {
    let fetched = async {
        let mut url = peer.url().clone();
        for _ in 0..=MAX_REDIRECTS {
            match ask(peer, &url, trust, web, dialer).await? {
                Answer::Document(bytes) => return Ok(BundleDocument::parse(peer.trust_domain(), &bytes)?),
                Answer::Redirect(to) if peer.may_ask(&to) => url = to,
                Answer::Redirect(to) => return Err(FetchError::RedirectHost(to)),
            }
        }
        Err(FetchError::Redirects)
    };
    tokio::time::timeout(BUNDLE_FETCH, fetched).await.unwrap_or(Err(FetchError::Timeout))
}

async fn ask<D: Dial>(
    peer: &Peer,
    url: &BundleUrl,
    trust: &TrustBundle,
    web: &WebTrust,
    dialer: &D,
) -> Result<Answer, FetchError> {
    let spiffe = |why| FetchError::Spiffe { url: url.clone(), why };
    // Whatever is wrong with the trust is found before anybody is dialled.
    let verifier = match peer.profile() {
        Profile::Web => None,
        Profile::Spiffe { endpoint } => Some(SpiffeServer::new(trust, endpoint).map_err(spiffe)?),
    };
    let web = match &verifier {
        None => Some(web.as_ref().map_err(|why| FetchError::NoRoots(why.clone()))?),
        Some(_) => None,
    };
    let dialled = dialer.dial(url.host(), url.port()).await;
    let stream = dialled.map_err(|why| FetchError::Dial { url: url.clone(), why })?;
    let exchange = |why| FetchError::Exchange { url: url.clone(), why };
    match (verifier, web) {
        (Some(server), _) => {
            let stream = server.connect(url.host(), stream).await.map_err(spiffe)?;
            get(url, stream).await.map_err(exchange)
        }
        (None, Some(web)) => {
            let connected = web.connect(url.host(), stream).await;
            let stream = connected.map_err(|why| FetchError::Web { url: url.clone(), why })?;
            get(url, stream).await.map_err(exchange)
        }
        (None, None) => Err(FetchError::NoRoots("no profile".to_owned())),
    }
}
