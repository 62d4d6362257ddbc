//! `[oidc]`: the documents by which AWS, GCP, Vault, Istio and others check this host's JWT-SVIDs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use portcullis_identity::JwtIssuer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::problems::Problems;
use super::wide_folder;

/// Section `[oidc]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// The URL that others reach the documents under, `https://...`. It becomes `iss` of every JWT-SVID.
    #[serde(serialize_with = "text", deserialize_with = "parsed")]
    pub issuer: JwtIssuer,
    /// `ADDRESS:PORT`; port 0 picks a free one. Absent: `iss` is set, and something else serves the documents.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// PEM: the server's certificate, then its intermediates. Absent: plain HTTP for a proxy on this machine.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// PEM: the private key, readable by nobody else. Only the identity process opens it.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

impl Oidc {
    /// Resolves paths against the folder of the configuration file, and says what is wrong.
    pub(super) fn check(mut self, base: &Path, problems: &mut Problems) -> Self {
        self.certificate = self.certificate.map(|path| base.join(path));
        self.key = self.key.map(|path| base.join(path));
        for (key, path) in [("oidc.certificate", &self.certificate), ("oidc.key", &self.key)] {
            path.iter().for_each(|path| wide_folder::check(key, path, problems));
        }
        if self.certificate.is_some() != self.key.is_some() {
            problems.add("oidc", "certificate and key belong together", Some("name both, or neither"));
        }
        match self.listen {
            None if self.certificate.is_some() => {
                problems.add("oidc.certificate", "has no meaning without listen", Some("add listen, or leave it out"));
            }
            Some(address) if self.certificate.is_none() && !address.ip().is_loopback() => {
                let hint = "name certificate and key, or listen on 127.0.0.1 for a proxy that has them";
                problems.add("oidc.listen", format!("{address} would serve keys without TLS"), Some(hint));
            }
            _ => {}
        }
        self
    }
}

fn text<S: Serializer>(issuer: &JwtIssuer, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(issuer.as_str())
}

fn parsed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<JwtIssuer, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        let mut problems = Problems::new(Path::new("/etc/p/portcullis.toml"));
        toml::from_str::<Oidc>(text).unwrap().check(Path::new("/etc/p"), &mut problems);
        if problems.is_empty() { String::new() } else { problems.into_error().to_string() }
    }

    #[test]
    fn an_issuer_alone_and_one_with_a_listener_pass() {
        let issuer = "issuer = \"https://oidc.example.org\"\n";
        assert_eq!(problems(issuer), "");
        assert_eq!(problems(&format!("{issuer}listen = \"127.0.0.1:0\"")), "");
        assert_eq!(problems(&format!("{issuer}listen = \"0.0.0.0:8444\"\ncertificate = \"c\"\nkey = \"k\"")), "");
    }

    #[test]
    fn keys_are_not_served_to_others_without_tls() {
        let issuer = "issuer = \"https://oidc.example.org\"\n";
        assert!(problems(&format!("{issuer}listen = \"0.0.0.0:8444\"")).contains("without TLS"));
        assert!(
            problems(&format!("{issuer}listen = \"0.0.0.0:8444\"\ncertificate = \"c\"")).contains("belong together")
        );
        assert!(problems(&format!("{issuer}certificate = \"c\"\nkey = \"k\"")).contains("without listen"));
    }

    #[test]
    fn an_issuer_that_is_no_https_url_is_refused() {
        for issuer in ["http://oidc.example.org", "https://", "oidc.example.org", "https://a/?x", "https://a/"] {
            assert!(toml::from_str::<Oidc>(&format!("issuer = \"{issuer}\"")).is_err(), "{issuer}");
        }
    }
}
