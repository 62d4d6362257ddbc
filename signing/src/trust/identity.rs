//! How a signer is recognised: by a key, by an exact OIDC identity, or by a SPIFFE ID. No patterns but for SPIFFE paths.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::excerpt::{Excerpt, serde_as_text};
use crate::fields::Problems;
use crate::identity_path::IdentityPattern;
use crate::key::PublicKey;
use crate::keyless::{CI_CLAIMS, Transparency};
use crate::limits::TEXT_BYTES;
use crate::malformed::Malformed;
use crate::signer_key::SignerKey;

/// How a signer is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SignerIdentity {
    /// By its key.
    Key(SignerKey),
    /// By a certificate from Fulcio for exactly this identity.
    Oidc(OidcIdentity),
    /// By a SPIFFE ID.
    Spiffe(SpiffeIdentity),
}

/// What kind of signer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignerKind {
    /// An Ed25519 key.
    Ed25519,
    /// An ECDSA P-256 key.
    P256,
    /// An OIDC identity.
    Oidc,
    /// A SPIFFE ID.
    Spiffe,
}

/// An exact OIDC identity in certificates under one pinned trusted root.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OidcIdentity {
    /// The name of the pinned trusted root, in `sigstoreRoots`.
    pub root: String,
    /// The exact issuer.
    pub issuer: String,
    /// The exact identity: the subject alternative name of the certificate.
    pub identity: String,
    /// What proves the time of a signature.
    #[serde(default)]
    pub transparency: Transparency,
    /// Further claims of the certificate about the CI run that must be exactly these, such as
    /// `sourceRepositoryIdentifier`, which survives a rename.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
}

/// SPIFFE IDs of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SpiffeIdentity {
    /// The trust domain. Its bundle is in `spiffeBundles`, unless `root` is named.
    pub trust_domain: String,
    /// The path: one, or with `/*` at the end all below it.
    pub path: IdentityPattern,
    /// The pinned trusted root of a private Fulcio that issues certificates for these IDs; absent: X.509-SVIDs, which
    /// count only as long as they are valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The issuer that such certificates must name. With `root` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What proves the time of a signature. With `root` only.
    #[serde(default)]
    pub transparency: Transparency,
}

/// A signer by the text that stands for it: a key, `oidc:ISSUER#IDENTITY`, or a SPIFFE ID.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignerId(String);

impl SignerIdentity {
    /// What kind of signer it is.
    pub fn kind(&self) -> SignerKind {
        match self {
            SignerIdentity::Key(SignerKey::Ed25519(_)) => SignerKind::Ed25519,
            SignerIdentity::Key(SignerKey::P256(_)) => SignerKind::P256,
            SignerIdentity::Oidc(_) => SignerKind::Oidc,
            SignerIdentity::Spiffe(_) => SignerKind::Spiffe,
        }
    }

    /// The text that stands for it; for SPIFFE the pattern.
    pub fn id(&self) -> SignerId {
        SignerId(match self {
            SignerIdentity::Key(key) => key.to_string(),
            SignerIdentity::Oidc(oidc) => format!("oidc:{}#{}", oidc.issuer, oidc.identity),
            SignerIdentity::Spiffe(spiffe) => format!("spiffe://{}/{}", spiffe.trust_domain, spiffe.path),
        })
    }

    /// The key, where it is one.
    pub fn key(&self) -> Option<&SignerKey> {
        match self {
            SignerIdentity::Key(key) => Some(key),
            SignerIdentity::Oidc(_) | SignerIdentity::Spiffe(_) => None,
        }
    }

    /// The names of the pinned trusted root and SPIFFE bundle that it needs.
    pub(super) fn needs(&self) -> (Option<&str>, Option<&str>) {
        match self {
            SignerIdentity::Key(_) => (None, None),
            SignerIdentity::Oidc(oidc) => (Some(&oidc.root), None),
            SignerIdentity::Spiffe(spiffe) => match &spiffe.root {
                Some(root) => (Some(root), None),
                None => (None, Some(&spiffe.trust_domain)),
            },
        }
    }

    pub(super) fn check(&self, at: &str, problems: &mut Problems) {
        let mut text = |key: &str, text: &str| {
            if !is_text(text) {
                problems.add(format!("{at}.{key}"), "must be 1 to 255 printable ASCII characters without spaces");
            }
        };
        match self {
            SignerIdentity::Key(key) => {
                if let Err(error) = key.checked() {
                    problems.add(format!("{at}.key"), error.to_string());
                }
            }
            SignerIdentity::Oidc(oidc) => {
                text("oidc.issuer", &oidc.issuer);
                text("oidc.identity", &oidc.identity);
                for (name, value) in &oidc.claims {
                    text("oidc.claims", value);
                    if !CI_CLAIMS.contains(&name.as_str()) {
                        let what = format!("`{}` is not one of {}", Excerpt(name), CI_CLAIMS.join(", "));
                        problems.add(format!("{at}.oidc.claims"), what);
                        return;
                    }
                }
                if oidc.issuer.contains('#') {
                    problems.add(format!("{at}.oidc.issuer"), "must not contain `#`");
                }
            }
            SignerIdentity::Spiffe(spiffe) => {
                if !is_trust_domain(&spiffe.trust_domain) {
                    let what = "must be a trust domain: lower-case letters, digits, `.`, `-`, `_`";
                    problems.add(format!("{at}.spiffe.trustDomain"), what);
                }
                match (&spiffe.root, &spiffe.issuer) {
                    (Some(_), Some(issuer)) if is_text(issuer) => {}
                    (None, None) if spiffe.transparency == Transparency::Log => {}
                    (None, None) => problems.add(format!("{at}.spiffe.transparency"), "needs `root`"),
                    _ => problems.add(format!("{at}.spiffe"), "needs `root` and `issuer`, or neither"),
                }
            }
        }
    }
}

/// SPIFFE-ID section 2.1, at most 255 bytes.
pub(super) fn is_trust_domain(text: &str) -> bool {
    (1..=TEXT_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

fn is_text(text: &str) -> bool {
    (1..=TEXT_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

impl SignerKind {
    /// As it is written in a trust policy.
    pub fn name(self) -> &'static str {
        match self {
            SignerKind::Ed25519 => "ed25519",
            SignerKind::P256 => "p256",
            SignerKind::Oidc => "oidc",
            SignerKind::Spiffe => "spiffe",
        }
    }
}

impl SignerId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this text, in a denial, means that signer: the same, or for SPIFFE a pattern that it fits.
    pub(crate) fn means(&self, other: &Self) -> bool {
        self == other
            || match (self.0.strip_prefix("spiffe://"), other.0.strip_prefix("spiffe://")) {
                (Some(own), Some(other)) => {
                    own.strip_suffix('*').is_some_and(|above| above.ends_with('/') && other.starts_with(above))
                }
                _ => false,
            }
    }

    /// Whether both stand for one: the same key, the same SPIFFE ID, or the same name in certificates whoever issued them.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        fn name(id: &SignerId) -> &str {
            id.0.strip_prefix("oidc:").and_then(|rest| rest.split_once('#')).map_or(&id.0, |(_, identity)| identity)
        }
        name(self) == name(other)
    }

    /// The ID of a SPIFFE ID that was verified.
    pub(crate) fn spiffe(id: &str) -> Self {
        Self(id.to_owned())
    }
}

impl From<SignerKey> for SignerIdentity {
    fn from(key: SignerKey) -> Self {
        SignerIdentity::Key(key)
    }
}

impl From<PublicKey> for SignerIdentity {
    fn from(key: PublicKey) -> Self {
        SignerIdentity::Key(key.into())
    }
}

impl From<PublicKey> for SignerId {
    fn from(key: PublicKey) -> Self {
        Self(key.to_string())
    }
}

impl FromStr for SignerId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let known = if let Some(oidc) = text.strip_prefix("oidc:") {
            oidc.split_once('#').is_some_and(|(issuer, identity)| is_text(issuer) && is_text(identity))
        } else if let Some(id) = text.strip_prefix("spiffe://") {
            id.split_once('/')
                .is_some_and(|(domain, path)| is_trust_domain(domain) && path.parse::<IdentityPattern>().is_ok())
        } else {
            text.parse::<SignerKey>().is_ok_and(|key| key.checked().is_ok())
        };
        if known {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::new("a signer", "A..., p256:..., oidc:ISSUER#IDENTITY or spiffe://DOMAIN/PATH", text))
        }
    }
}

impl fmt::Display for SignerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SignerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SignerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

serde_as_text!(SignerId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_is_recognised_in_several_ways_is_the_same() {
        let id = |text: &str| text.parse::<SignerId>().unwrap();
        let same = |one: &str, two: &str| id(one).is_same_as(&id(two));
        assert!(same("spiffe://td/ci/a", "spiffe://td/ci/a"));
        assert!(same("oidc:https://one.example#anna@example.org", "oidc:https://two.example#anna@example.org"));
        assert!(same("oidc:https://one.example#spiffe://td/ci/a", "spiffe://td/ci/a"));
        assert!(!same("oidc:https://one.example#anna@example.org", "oidc:https://one.example#bert@example.org"));
        assert!(!same("spiffe://td/ci/a", "spiffe://td/ci/b"));
    }
}
