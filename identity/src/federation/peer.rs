//! One federation relationship, as the operator configured it (SPIFFE_Federation section 4).

use std::time::Duration;

use super::bundle_url::BundleUrl;
use crate::limits::MAX_REDIRECT_HOSTS;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// A foreign trust domain and where its bundle comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    trust_domain: TrustDomain,
    url: BundleUrl,
    profile: Profile,
    redirect_hosts: Vec<String>,
    max_age: Duration,
}

/// How the server of the endpoint proves that it is the right one (SPIFFE_Federation section 5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// By a certificate of the Web for the host name in the URL.
    Web,
    /// By an X.509-SVID of this ID.
    Spiffe {
        /// The ID of the endpoint.
        endpoint: SpiffeId,
    },
}

/// Why a relationship cannot be. The configuration erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Our own trust domain.
    #[error("{0} is our own trust domain")]
    OwnDomain(TrustDomain),
    /// The endpoint's ID is a trust domain.
    #[error("{0} is a trust domain, not the ID of an endpoint")]
    EndpointWithoutPath(SpiffeId),
    /// Over [`MAX_REDIRECT_HOSTS`].
    #[error("more than {MAX_REDIRECT_HOSTS} hosts for redirects")]
    RedirectHosts,
}

impl PeerError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OwnDomain(_) => "federate with other trust domains; our own bundle comes from our own authorities",
            Self::EndpointWithoutPath(_) => {
                "write the ID that the endpoint's X.509-SVID has, such as spiffe://example.com/spire/server"
            }
            Self::RedirectHosts => "name the hosts that the endpoint really redirects to",
        }
    }
}

impl Peer {
    /// A relationship of `own` with a foreign trust domain. Redirects lead to the URL's own server or to one of these hosts
    /// (`host`, which is port 443, or `host:port`). A bundle older than `max_age` is no longer used.
    pub fn new(
        own: &TrustDomain,
        trust_domain: TrustDomain,
        url: BundleUrl,
        profile: Profile,
        redirect_hosts: Vec<String>,
        max_age: Duration,
    ) -> Result<Self, PeerError> {
        if trust_domain == *own {
            return Err(PeerError::OwnDomain(trust_domain));
        }
        if let Profile::Spiffe { endpoint } = &profile
            && !endpoint.has_path()
        {
            return Err(PeerError::EndpointWithoutPath(endpoint.clone()));
        }
        if redirect_hosts.len() > MAX_REDIRECT_HOSTS {
            return Err(PeerError::RedirectHosts);
        }
        Ok(Self { trust_domain, url, profile, redirect_hosts, max_age })
    }

    /// Whose bundle it is.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Where it is fetched.
    pub fn url(&self) -> &BundleUrl {
        &self.url
    }

    /// How the server proves itself.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// For how long a bundle is used after it was last fetched.
    pub fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Whether the bundle may be fetched from this server: the configured one, or one that it may redirect to.
    pub fn may_ask(&self, url: &BundleUrl) -> bool {
        url.same_server(&self.url)
            || self.redirect_hosts.iter().any(|allowed| {
                let with_port = format!("{}:{}", url.host(), url.port());
                *allowed == with_port || (*allowed == url.host() && url.authority() == url.host())
            })
    }
}

impl Profile {
    /// The name in SPIFFE_Federation section 5.2.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Web => "https_web",
            Self::Spiffe { .. } => "https_spiffe",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(domain: &str, profile: Profile, redirects: Vec<String>) -> Result<Peer, PeerError> {
        let url = "https://a:8443/x".parse().unwrap();
        let own = "example.org".parse().unwrap();
        Peer::new(&own, domain.parse().unwrap(), url, profile, redirects, Duration::from_secs(60))
    }

    #[test]
    fn our_own_domain_and_an_endpoint_without_a_path_are_refused() {
        assert!(matches!(peer("EXAMPLE.org", Profile::Web, vec![]), Err(PeerError::OwnDomain(_))));
        let endpoint = "spiffe://example.com".parse().unwrap();
        let refused = peer("example.com", Profile::Spiffe { endpoint }, vec![]);
        assert!(matches!(refused, Err(PeerError::EndpointWithoutPath(_))));
    }

    #[test]
    fn redirects_lead_to_the_same_server_or_to_named_hosts() {
        let peer = peer("example.com", Profile::Web, vec!["b".into(), "c:9000".into()]).unwrap();
        let may = |url: &str| peer.may_ask(&url.parse().unwrap());
        assert!(may("https://a:8443/y") && may("https://b/") && may("https://b:443/") && may("https://c:9000/"));
        assert!(!may("https://a/") && !may("https://b:444/") && !may("https://c/") && !may("https://d/"));
    }

    #[test]
    fn the_most_redirect_hosts_pass_and_one_more_is_refused() {
        assert!(peer("example.com", Profile::Web, vec!["h".into(); MAX_REDIRECT_HOSTS]).is_ok());
        let more = peer("example.com", Profile::Web, vec!["h".into(); MAX_REDIRECT_HOSTS + 1]);
        assert_eq!(more, Err(PeerError::RedirectHosts));
    }
}
