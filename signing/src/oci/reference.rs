//! Where a component lies in a registry: `oci://HOST[:PORT]/REPOSITORY` and a tag, a digest, or both.
//!
//! Nothing is filled in: no default registry, no `latest`. Where a digest is given, it alone decides what is fetched.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::excerpt::serde_as_text;
use crate::limits::TEXT_BYTES;
use crate::malformed::Malformed;

/// The scheme that tells a reference from a path.
const SCHEME: &str = "oci://";
/// Longest tag, as the distribution specification says.
const TAG_BYTES: usize = 128;

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciReference {
    registry: String,
    repository: String,
    pick: Pick,
    tag: Option<String>,
}

/// What decides which manifest is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// Whatever the tag points to now.
    Tag(String),
    /// Exactly this one.
    Digest(Digest),
}

impl OciReference {
    /// Whether a text is meant as a reference where a path may stand as well: only with its scheme.
    pub fn has_scheme(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// The registry: host, and port where given.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// What decides.
    pub fn pick(&self) -> &Pick {
        &self.pick
    }

    /// The tag, also where a digest decides.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The same place, by digest.
    pub fn at(&self, digest: Digest) -> Self {
        Self { pick: Pick::Digest(digest), ..self.clone() }
    }

    /// Whether the registry is on this machine: the only kind that is spoken to without TLS.
    pub fn is_loopback(&self) -> bool {
        let (host, _) = split_port(&self.registry);
        host == "localhost"
            || host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .unwrap_or(host)
                .parse()
                .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    }
}

impl FromStr for OciReference {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = |expected| Malformed::new("a reference to a registry", expected, text);
        let form = || malformed("[oci://]HOST[:PORT]/REPOSITORY:TAG or ...@sha256:DIGEST");
        let rest = text.strip_prefix(SCHEME).unwrap_or(text);
        if rest.len() > 2 * TEXT_BYTES {
            return Err(form());
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|_| form())?)),
            None => (rest, None),
        };
        let (registry, path) = rest.split_once('/').ok_or_else(form)?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if !is_registry(registry) {
            return Err(malformed("a registry with its full name first, such as registry.example or localhost:5000"));
        }
        if !is_repository(repository) {
            return Err(malformed("a repository of lower-case letters, digits, . _ - and /"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(malformed("a tag of letters, digits, . _ and -, at most 128"));
        }
        let pick = match (tag, digest) {
            (_, Some(digest)) => Pick::Digest(digest),
            (Some(tag), None) => Pick::Tag(tag.to_owned()),
            (None, None) => {
                return Err(malformed("a tag or a digest at the end: :1.4.2 or @sha256:...; there is no default"));
            }
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            pick,
            tag: tag.map(ToOwned::to_owned),
        })
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.pick {
            Pick::Tag(_) => Ok(()),
            Pick::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

serde_as_text!(OciReference);

fn split_port(registry: &str) -> (&str, Option<&str>) {
    match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    }
}

/// A host that cannot be taken for the first part of a repository: with a dot or a port, or `localhost`.
fn is_registry(text: &str) -> bool {
    let (host, port) = split_port(text);
    let named = |host: &str| {
        host.len() <= TEXT_BYTES
            && host.split('.').all(|label| {
                !label.is_empty()
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            })
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => named(host),
    };
    is_host
        && port.is_none_or(|port| !port.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
        && (host == "localhost" || host.contains('.') || bracketed.is_some() || port.is_some())
}

/// The grammar of the distribution specification.
fn is_repository(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let part = |part: &str| {
        edge(part.bytes().next())
            && edge(part.bytes().last())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
            && !part.contains("..")
            && !part.contains("___")
    };
    (1..=TEXT_BYTES).contains(&text.len()) && text.split('/').all(part)
}

fn is_tag(text: &str) -> bool {
    (1..=TAG_BYTES).contains(&text.len())
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> OciReference {
        text.parse().unwrap()
    }

    #[test]
    fn a_reference_survives_its_text_with_and_without_the_scheme() {
        let digest = Digest::of(b"x");
        for text in [
            "registry.example/acme/orders:1.4.2".to_owned(),
            "localhost:5000/orders:v1".to_owned(),
            "[::1]:5000/a/b/c:_x".to_owned(),
            format!("127.0.0.1:5000/orders@{digest}"),
            format!("registry.example/acme/orders:1.4.2@{digest}"),
        ] {
            let reference = parsed(&text);
            assert_eq!(reference.to_string(), format!("oci://{text}"));
            assert_eq!(parsed(&reference.to_string()), reference);
        }
    }

    #[test]
    fn a_digest_decides_over_a_tag() {
        let digest = Digest::of(b"x");
        let reference = parsed(&format!("registry.example/orders:1@{digest}"));
        assert_eq!((reference.pick(), reference.tag()), (&Pick::Digest(digest), Some("1")));
        assert_eq!(parsed("registry.example/orders:1").at(digest), reference);
    }

    #[test]
    fn nothing_is_filled_in() {
        for text in
            ["orders:1", "acme/orders:1", "registry.example/orders", "registry.example/:1", "registry.example:1"]
        {
            assert!(text.parse::<OciReference>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_could_steer_a_request_elsewhere_is_refused() {
        let digest = Digest::of(b"x").hex();
        for text in [
            "registry.example/../v2/other:1",
            "registry.example/a//b:1",
            "registry.example/a?b:1",
            "registry.example/a%2fb:1",
            "registry.example/Acme:1",
            "user@registry.example/a:1",
            "registry.example:0/a:1",
            "registry.example:70000/a:1",
            "registry.example:/a:1",
            "-x.example/a:1",
            "registry.example/a:1/2",
            "registry.example/a:.1",
            "oci://oci://registry.example/a:1",
            "https://registry.example/a:1",
            &format!("registry.example/a@sha512:{digest}"),
            &format!("registry.example/a@sha256:{}", digest.to_uppercase()),
            &format!("registry.example/{}:1", "a".repeat(256)),
            &format!("registry.example/a:{}", "a".repeat(129)),
        ] {
            assert!(text.parse::<OciReference>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (text, loopback) in [
            ("localhost:5000/a:1", true),
            ("127.0.0.1:5000/a:1", true),
            ("127.9.9.9:5000/a:1", true),
            ("[::1]:5000/a:1", true),
            ("localhost.example/a:1", false),
            ("127.0.0.1.example/a:1", false),
            ("10.0.0.1:5000/a:1", false),
            ("[::2]:5000/a:1", false),
        ] {
            assert_eq!(parsed(text).is_loopback(), loopback, "{text}");
        }
    }
}
