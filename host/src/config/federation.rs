//! `[federation]`: where our bundle is served, and with which trust domains this host federates.
//!
//! A relationship names its trust domain, its URL and its profile, none inferred from another (SPIFFE_Federation section 4).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_identity::federation::{BundleUrl, Peer, Profile};
use portcullis_identity::{SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};

use super::problems::Problems;
use super::wide_folder;
use crate::limits::{FEDERATION_BYTES, FEDERATION_PEERS};

/// Section `[federation]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Federation {
    /// Our bundle endpoint with a certificate of the Web. Absent: there is none.
    pub https_web: Option<WebEndpoint>,
    /// Our bundle endpoint with this host's X.509-SVID. Absent: there is none.
    pub https_spiffe: Option<SpiffeEndpoint>,
    /// Trust domains whose bundles are fetched.
    pub peer: Vec<FederationPeer>,
}

/// `[federation.https_web]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebEndpoint {
    /// `ADDRESS:PORT`; port 0 picks a free one.
    pub listen: SocketAddr,
    /// PEM: the server's certificate, then its intermediates. Read again when it changes.
    pub certificate: PathBuf,
    /// PEM: the private key, readable by nobody else. Only the identity process opens it.
    pub key: PathBuf,
    /// The path of the bundle.
    #[serde(default = "root")]
    pub path: String,
}

/// `[federation.https_spiffe]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpiffeEndpoint {
    /// `ADDRESS:PORT`; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The path of the bundle.
    #[serde(default = "root")]
    pub path: String,
}

/// `[[federation.peer]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FederationPeer {
    /// Whose bundle it is.
    pub trust_domain: TrustDomain,
    /// Where it is fetched.
    pub url: BundleUrl,
    /// How the server proves to be the right one.
    pub profile: ProfileName,
    /// `https_spiffe`: the ID of the endpoint's X.509-SVID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_spiffe_id: Option<SpiffeId>,
    /// A bundle document that the operator got by a trusted way; `https_spiffe` needs it for its first fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<PathBuf>,
    /// `https_web`: PEM certificates to trust in place of the system's roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Hosts (`host` or `host:port`) that the endpoint may redirect to; its own host always is one.
    #[serde(default)]
    pub redirect_hosts: Vec<String>,
    /// Seconds between two fetches, in place of the bundle's refresh hint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_seconds: Option<u32>,
    /// After so many hours without a successful fetch the bundle is no longer used.
    #[serde(default = "week")]
    pub max_age_hours: u32,
}

/// The profiles of SPIFFE_Federation section 5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileName {
    /// A certificate of the Web.
    HttpsWeb,
    /// An X.509-SVID.
    HttpsSpiffe,
}

impl Federation {
    /// Servers that may be dialled for peers' bundles: host and port, and the name by which the identity process asks for it.
    pub fn dial_targets(&self) -> Vec<(String, String, u16)> {
        let mut servers = BTreeSet::new();
        for peer in &self.peer {
            servers.insert((peer.url.host().to_owned(), peer.url.port()));
            servers.extend(peer.redirect_hosts.iter().filter_map(|text| host_and_port(text)));
        }
        servers.into_iter().map(|(host, port)| (dial_name(&host, port), host, port)).collect()
    }

    /// Resolves paths against the folder of the configuration file, and says what is wrong.
    pub(super) fn check(mut self, base: &Path, own: Option<&TrustDomain>, problems: &mut Problems) -> Self {
        if let Some(web) = &mut self.https_web {
            web.certificate = base.join(&web.certificate);
            web.key = base.join(&web.key);
            wide_folder::check("federation.https_web.certificate", &web.certificate, problems);
            wide_folder::check("federation.https_web.key", &web.key, problems);
            check_path("federation.https_web", &web.path, problems);
        }
        if let Some(spiffe) = &self.https_spiffe {
            check_path("federation.https_spiffe", &spiffe.path, problems);
        }
        let mut seen = BTreeSet::new();
        for peer in &mut self.peer {
            peer.bootstrap = peer.bootstrap.take().map(|path| base.join(path));
            peer.ca = peer.ca.take().map(|path| base.join(path));
            if !seen.insert(peer.trust_domain.clone()) {
                problems.add("federation.peer", format!("{} is there twice", peer.trust_domain), None);
            }
            for (why, hint) in own.into_iter().flat_map(|own| peer.problems(own)) {
                problems.add("federation.peer", format!("{}: {why}", peer.trust_domain), Some(hint));
            }
        }
        for peer in &self.peer {
            if let Some(endpoint) = &peer.endpoint_spiffe_id
                && own != Some(endpoint.trust_domain())
                && !seen.contains(endpoint.trust_domain())
            {
                let why = format!("{}: nobody can verify {endpoint}", peer.trust_domain);
                problems.add("federation.peer", why, Some("federate with the trust domain of the endpoint, too"));
            }
        }
        let bytes = serde_json::to_vec(&self).map_or(usize::MAX, |bytes| bytes.len());
        if self.peer.len() > FEDERATION_PEERS || bytes > FEDERATION_BYTES {
            let why = format!("is larger than {FEDERATION_PEERS} peers or {FEDERATION_BYTES} bytes");
            problems.add("federation", why, None);
        }
        self
    }
}

impl FederationPeer {
    /// The relationship; `own` is our trust domain.
    pub fn relationship(&self, own: &TrustDomain) -> Result<Peer, (String, &'static str)> {
        let profile = match (self.profile, &self.endpoint_spiffe_id) {
            (ProfileName::HttpsWeb, None) => Profile::Web,
            (ProfileName::HttpsSpiffe, Some(endpoint)) => Profile::Spiffe { endpoint: endpoint.clone() },
            (ProfileName::HttpsWeb, Some(_)) => {
                return Err(("endpoint_spiffe_id has no meaning with https_web".into(), "leave it out"));
            }
            (ProfileName::HttpsSpiffe, None) => {
                return Err(("endpoint_spiffe_id is missing".into(), "name the ID of the endpoint's X.509-SVID"));
            }
        };
        let (hosts, age) = (self.redirect_hosts.clone(), Duration::from_secs(u64::from(self.max_age_hours) * 3600));
        Peer::new(own, self.trust_domain.clone(), self.url.clone(), profile, hosts, age)
            .map_err(|error| (error.to_string(), error.hint()))
    }

    /// How often it is polled, if the operator says so.
    pub fn poll(&self) -> Option<Duration> {
        self.poll_seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }

    fn problems(&self, own: &TrustDomain) -> Vec<(String, &'static str)> {
        let mut found: Vec<_> = self.relationship(own).err().into_iter().collect();
        if self.profile == ProfileName::HttpsSpiffe && self.ca.is_some() {
            found.push(("ca has no meaning with https_spiffe".into(), "leave it out"));
        }
        if self.profile == ProfileName::HttpsSpiffe && self.bootstrap.is_none() {
            let hint = "get the peer's bundle document by a trusted way and name the file";
            found.push(("https_spiffe needs a bootstrap bundle".into(), hint));
        }
        if self.redirect_hosts.iter().any(|text| host_and_port(text).is_none()) {
            found.push((
                "redirect_hosts has what is no `host` or `host:port`".into(),
                "write it as in a URL, lower case",
            ));
        }
        if self.poll_seconds.is_some_and(|seconds| !(1..=86_400).contains(&seconds)) {
            found.push(("poll_seconds must be 1 to 86400".into(), "leave it out to follow the bundle's refresh hint"));
        }
        if !(1..=8_760).contains(&self.max_age_hours) {
            found.push(("max_age_hours must be 1 to 8760".into(), "a week is the default"));
        }
        found
    }
}

/// The name of a server in the supervisor's table of dials.
pub fn dial_name(host: &str, port: u16) -> String {
    format!("federation {host}:{port}")
}

/// A path that an endpoint serves at.
fn check_path(key: &str, path: &str, problems: &mut Problems) {
    let plain = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && !b"?#%\\".contains(&b));
    if !plain || path.len() > 255 {
        problems.add(&format!("{key}.path"), "must be a plain path such as /bundle.json", None);
    }
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let url: BundleUrl = format!("https://{text}/").parse().ok()?;
    let same = url.authority() == text || format!("{}:{}", url.host(), url.port()) == text;
    (same && url.target() == "/").then(|| (url.host().to_owned(), url.port()))
}

fn root() -> String {
    "/".to_owned()
}

fn week() -> u32 {
    168
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Federation, String) {
        let mut problems = Problems::new(Path::new("/etc/p/portcullis.toml"));
        let own = "example.org".parse().unwrap();
        let federation: Federation = toml::from_str(text).unwrap();
        let federation = federation.check(Path::new("/etc/p"), Some(&own), &mut problems);
        (federation, if problems.is_empty() { String::new() } else { problems.into_error().to_string() })
    }

    fn peer(more: &str) -> String {
        format!("[[peer]]\ntrust_domain = \"example.com\"\nurl = \"https://a.example.com:8443/b\"\n{more}\n")
    }

    #[test]
    fn both_profiles_can_be_configured_with_paths_relative_to_the_file() {
        let spiffe =
            "profile = \"https_spiffe\"\nendpoint_spiffe_id = \"spiffe://example.com/e\"\nbootstrap = \"b.json\"";
        let (federation, problems) = read(&peer(spiffe));
        assert_eq!(problems, "");
        assert_eq!(federation.peer[0].bootstrap.as_deref(), Some(Path::new("/etc/p/b.json")));
        assert_eq!(federation.peer[0].max_age_hours, 168);
        let (federation, problems) = read(&peer("profile = \"https_web\"\nca = \"/x/ca.pem\""));
        assert_eq!((problems.as_str(), federation.peer[0].ca.as_deref()), ("", Some(Path::new("/x/ca.pem"))));
        let web = "[https_web]\nlisten = \"0.0.0.0:0\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"";
        assert_eq!(read(web).0.https_web.unwrap().key, Path::new("/etc/p/k.pem"));
    }

    #[test]
    fn fe_08_nothing_is_inferred_and_contradictions_are_refused() {
        for (more, why) in [
            ("profile = \"https_spiffe\"\nbootstrap = \"b\"", "endpoint_spiffe_id is missing"),
            ("profile = \"https_spiffe\"\nendpoint_spiffe_id = \"spiffe://example.com/e\"", "needs a bootstrap"),
            (
                "profile = \"https_spiffe\"\nendpoint_spiffe_id = \"spiffe://example.com\"\nbootstrap = \"b\"",
                "not the ID of an endpoint",
            ),
            (
                "profile = \"https_spiffe\"\nendpoint_spiffe_id = \"spiffe://example.net/e\"\nbootstrap = \"b\"",
                "nobody can verify",
            ),
            ("profile = \"https_web\"\nendpoint_spiffe_id = \"spiffe://example.com/e\"", "no meaning with https_web"),
            ("profile = \"https_web\"\nredirect_hosts = [\"a/b\"]", "redirect_hosts"),
            ("profile = \"https_web\"\nredirect_hosts = [\"A\"]", "redirect_hosts"),
            ("profile = \"https_web\"\npoll_seconds = 0", "poll_seconds"),
            ("profile = \"https_web\"\nmax_age_hours = 0", "max_age_hours"),
        ] {
            let problems = read(&peer(more)).1;
            assert!(problems.contains(why), "{more}: {problems}");
        }
        for text in ["profile = \"https\"", "", "profile = \"https_web\"\nother = 1"] {
            assert!(toml::from_str::<Federation>(&peer(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn our_own_domain_and_one_that_is_there_twice_are_refused() {
        let own = peer("profile = \"https_web\"").replace("\"example.com\"", "\"example.org\"");
        assert!(read(&own).1.contains("our own trust domain"));
        let twice = peer("profile = \"https_web\"").repeat(2);
        assert!(read(&twice).1.contains("twice"));
    }

    #[test]
    fn only_named_servers_may_be_dialled() {
        let (federation, _) = read(&peer("profile = \"https_web\"\nredirect_hosts = [\"b\", \"[::1]:9000\"]"));
        let names: Vec<_> = federation.dial_targets().into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["federation [::1]:9000", "federation a.example.com:8443", "federation b:443"]);
    }

    #[test]
    fn the_most_peers_pass_and_one_more_is_refused() {
        let many = |count: usize| {
            (0..count)
                .map(|i| peer("profile = \"https_web\"").replace("\"example.com\"", &format!("\"d{i}\"")))
                .collect::<String>()
        };
        assert_eq!(read(&many(FEDERATION_PEERS)).1, "");
        assert!(read(&many(FEDERATION_PEERS + 1)).1.contains("is larger"));
        let long = peer("profile = \"https_web\"").replace("/b", &format!("/{}", "x".repeat(2000)));
        let large: String = (0..20).map(|i| long.replace("\"example.com\"", &format!("\"d{i}\""))).collect();
        assert!(read(&large).1.contains("is larger"));
    }
}
