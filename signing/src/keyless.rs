//! Bundles that are signed with a certificate from Fulcio: who signed, and when, as far as a pinned trusted root proves it.
//!
//! The one place that names `sigstore-verify`, behind [`Keyless`]. It trusts the trusted root that the trust policy pins
//! and nothing else: no network, no trust root of its own, no identity by pattern. Demanded are the certificate chain, its
//! embedded SCT, a log entry with inclusion proof and signed checkpoint that describes this very bundle, a proven time
//! inside of the certificate's validity, the exact issuer and the exact identity. Bundles below v0.3 never get here.
//!
//! The library looks at the clock of the machine for one thing, that a log's time is not in the future; the caller's time
//! is compared as well. A panic in it is a refusal of its own.

mod provider;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sigstore_trust_root::TrustedRoot;
use sigstore_types::{Bundle, Sha256Hash, SignatureContent};
use sigstore_verify::crypto::{FulcioCiClaims, parse_certificate_info};
use sigstore_verify::{Error, VerificationPolicy, VerificationResult, Verifier};
use time::OffsetDateTime;

use crate::digest::Digest;
use crate::excerpt::Excerpt;
use crate::limits::CLOCK_SKEW;

/// What proves the time of a signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transparency {
    /// A log entry with inclusion proof, and an SCT in the certificate. What the public instance gives.
    #[default]
    Log,
    /// A timestamp by an authority in the trusted root, for instances without logs (private repositories on GitHub).
    Timestamp,
}

/// Whose signature is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The exact issuer.
    pub issuer: &'a str,
    /// The exact identity; absent: any, and the caller decides on [`Proven::identity`].
    pub identity: Option<&'a str>,
    /// What must prove the time.
    pub transparency: Transparency,
}

/// Who a certificate says it is for, before anything was verified: selects candidates, proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// The first e-mail address or URI among its names.
    pub identity: String,
    /// The OIDC issuer.
    pub issuer: String,
}

/// What a verified bundle proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The identity in the certificate.
    pub identity: String,
    /// The earliest proven time of the signature.
    pub at: OffsetDateTime,
    /// What the certificate says of the CI run, by name.
    pub ci: BTreeMap<&'static str, String>,
    /// Payload type and payload of its envelope; absent: it signs the file alone.
    pub envelope: Option<(String, Vec<u8>)>,
}

/// Why a bundle proves nothing. The first word of each says what was wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeylessError {
    /// It cannot be read.
    #[error("the bundle cannot be read: {0}")]
    Malformed(String),
    /// It uses what is not supported.
    #[error("the bundle uses what is not supported: {0}")]
    Unsupported(String),
    /// The signature does not fit.
    #[error("the signature is not the certificate's over this content: {0}")]
    Signature(String),
    /// The certificate is not one of the pinned authorities'.
    #[error("the certificate is not accepted: {0}")]
    Certificate(String),
    /// The log's evidence does not hold.
    #[error("the log entry does not hold: {0}")]
    Log(String),
    /// No time is proven, or one that cannot be.
    #[error("the time of the signature is not proven: {0}")]
    Time(String),
    /// It is about other bytes.
    #[error("the bundle is about another file: {0}")]
    OtherFile(String),
    /// Another identity or issuer.
    #[error("the certificate is for {0}")]
    OtherSigner(String),
    /// The library failed.
    #[error("the verifier of certificates failed")]
    Failed,
}

/// Verifies bundles that are signed with certificates. One for each trusted root.
pub trait Keyless: fmt::Debug + Send + Sync {
    /// Verifies `bundle`, the JSON of a bundle v0.3, as one about `file`.
    fn verify(
        &self,
        bundle: &[u8],
        file: &Digest,
        wanted: &Wanted<'_>,
        now: OffsetDateTime,
    ) -> Result<Proven, KeylessError>;
}

/// [`Keyless`] over one pinned trusted root.
pub struct PinnedRoot {
    verifier: Verifier,
}

impl PinnedRoot {
    /// Prepares a `trusted_root.json`. Says what is wrong with it.
    pub fn new(trusted_root: &str) -> Result<Self, String> {
        let text = |error: &dyn fmt::Display| Excerpt(&error.to_string()).to_string();
        if !provider::install() {
            return Err("another provider of cryptography was installed in this process".to_owned());
        }
        let prepare = || {
            let root = TrustedRoot::from_json(trusted_root).map_err(|error| text(&error))?;
            if root.certificate_authorities.is_empty() {
                return Err("it names no certificate authority".to_owned());
            }
            Verifier::new(&root).map_err(|error| text(&error))
        };
        let verifier = catch_unwind(prepare).unwrap_or_else(|_| Err("it cannot be prepared".to_owned()))?;
        Ok(Self { verifier })
    }

    fn verify_parsed(
        &self,
        bundle: &Bundle,
        file: &Digest,
        wanted: &Wanted<'_>,
    ) -> Result<VerificationResult, KeylessError> {
        let mut policy = VerificationPolicy::any_identity().require_issuer(wanted.issuer);
        if let Some(identity) = wanted.identity {
            policy = policy.require_identity(identity);
        }
        match wanted.transparency {
            // `has_inclusion_proof` of the library asks for one in any entry; each must have one.
            Transparency::Log => {
                let entries = &bundle.verification_material.tlog_entries;
                if entries.is_empty() || entries.iter().any(|entry| entry.inclusion_proof.is_none()) {
                    return Err(KeylessError::Log("an entry without inclusion proof, or none at all".to_owned()));
                }
                let mut checkpoints = entries.iter().filter_map(|entry| entry.inclusion_proof.as_ref());
                if !checkpoints.all(|proof| is_signed_by_its_origin(proof.checkpoint.envelope())) {
                    return Err(KeylessError::Log("a checkpoint without a signature of its own log".to_owned()));
                }
            }
            Transparency::Timestamp => policy = policy.skip_tlog_unsafe().skip_sct(),
        }
        let digest = Sha256Hash::from(*file.as_bytes());
        let result = self.verifier.verify(digest, bundle, &policy).map_err(refused)?;
        let logged =
            wanted.transparency == Transparency::Timestamp || (result.tlog_verified() && result.sct_verified());
        if result.certificate_verified() && logged { Ok(result) } else { Err(KeylessError::Failed) }
    }
}

impl Keyless for PinnedRoot {
    fn verify(
        &self,
        bundle: &[u8],
        file: &Digest,
        wanted: &Wanted<'_>,
        now: OffsetDateTime,
    ) -> Result<Proven, KeylessError> {
        catch_unwind(AssertUnwindSafe(|| {
            let bundle = parse(bundle)?;
            let result = self.verify_parsed(&bundle, file, wanted)?;
            let time = |error: &dyn fmt::Display| KeylessError::Time(error.to_string());
            let mut earliest: Option<OffsetDateTime> = None;
            for at in result.verified_timestamps() {
                let at = OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|error| time(&error))?;
                if at > now.saturating_add(CLOCK_SKEW) {
                    return Err(KeylessError::Time("it is in the future".to_owned()));
                }
                earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
            }
            let at = earliest.ok_or_else(|| KeylessError::Time("there is none".to_owned()))?;
            let identity = result.identity().map(|identity| identity.as_str().to_owned());
            let identity = identity.ok_or_else(|| KeylessError::OtherSigner("nobody".to_owned()))?;
            let ci = result.certificate().map(|certificate| ci_claims(&certificate.ci_claims)).unwrap_or_default();
            let envelope = match &bundle.content {
                SignatureContent::DsseEnvelope(envelope) => {
                    Some((envelope.payload_type.clone(), envelope.payload.as_bytes().to_vec()))
                }
                SignatureContent::MessageSignature(_) => None,
                _ => return Err(KeylessError::Unsupported("its content".to_owned())),
            };
            Ok(Proven { identity, at, ci, envelope })
        }))
        .unwrap_or(Err(KeylessError::Failed))
    }
}

/// Who a bundle's certificate says it is for.
pub fn present(certificate: &[u8]) -> Result<Presented, KeylessError> {
    let der = sigstore_types::DerCertificate::from_bytes(certificate);
    let info = catch_unwind(|| parse_certificate_info(&der)).map_err(|_| KeylessError::Failed)?;
    let info = info.map_err(|error| KeylessError::Certificate(Excerpt(&error.to_string()).to_string()))?;
    Ok(Presented {
        identity: info.identity.map(|identity| identity.as_str().to_owned()).unwrap_or_default(),
        issuer: info.issuer.unwrap_or_default(),
    })
}

fn parse(bundle: &[u8]) -> Result<Bundle, KeylessError> {
    let malformed = |error: &dyn fmt::Display| KeylessError::Malformed(Excerpt(&error.to_string()).to_string());
    let text = std::str::from_utf8(bundle).map_err(|error| malformed(&error))?;
    Bundle::from_json(text).map_err(|error| malformed(&error))
}

/// Whether one of the signatures under a checkpoint (a signed note) bears the name of the log that its first line names.
/// Whose key made it, the library verifies; it does not look at the name.
fn is_signed_by_its_origin(note: &str) -> bool {
    let mut lines = note.lines();
    let Some(origin) = lines.next().and_then(|line| line.split(' ').next()) else { return false };
    lines.any(|line| {
        let named = line.strip_prefix("\u{2014} ").and_then(|rest| rest.strip_prefix(origin));
        named.is_some_and(|rest| rest.starts_with(' '))
    })
}

fn refused(error: Error) -> KeylessError {
    let text = Excerpt(&error.to_string()).to_string();
    match error {
        Error::IdentityMismatch { .. } | Error::IssuerMismatch { .. } => KeylessError::OtherSigner(text),
        Error::SignatureInvalid(_) | Error::Crypto(_) => KeylessError::Signature(text),
        Error::ArtifactMismatch(_) => KeylessError::OtherFile(text),
        Error::UnsupportedArtifact(_) | Error::UnsupportedBundle(_) => KeylessError::Unsupported(text),
        Error::Certificate(_) | Error::TrustedCertificate(_) => KeylessError::Certificate(text),
        Error::TransparencyLog(_) => KeylessError::Log(text),
        Error::Timestamp(_) => KeylessError::Time(text),
        Error::InvalidBundle(_) | Error::Types(_) | Error::Bundle(_) => KeylessError::Malformed(text),
        // The root was prepared when the policy was loaded; whatever else is wrong is no reason to accept.
        _ => KeylessError::Failed,
    }
}

/// The claims that a policy can pin, by the names that it uses for them.
fn ci_claims(claims: &FulcioCiClaims) -> BTreeMap<&'static str, String> {
    [
        ("buildSignerUri", &claims.build_signer_uri),
        ("buildSignerDigest", &claims.build_signer_digest),
        ("runnerEnvironment", &claims.runner_environment),
        ("sourceRepositoryUri", &claims.source_repository_uri),
        ("sourceRepositoryRef", &claims.source_repository_ref),
        ("sourceRepositoryDigest", &claims.source_repository_digest),
        ("sourceRepositoryIdentifier", &claims.source_repository_identifier),
        ("sourceRepositoryOwnerIdentifier", &claims.source_repository_owner_identifier),
        ("buildConfigUri", &claims.build_config_uri),
        ("buildTrigger", &claims.build_trigger),
        ("deploymentEnvironment", &claims.deployment_environment),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value.clone()?)))
    .collect()
}

/// The names of [`Proven::ci`].
pub const CI_CLAIMS: [&str; 11] = [
    "buildSignerUri",
    "buildSignerDigest",
    "runnerEnvironment",
    "sourceRepositoryUri",
    "sourceRepositoryRef",
    "sourceRepositoryDigest",
    "sourceRepositoryIdentifier",
    "sourceRepositoryOwnerIdentifier",
    "buildConfigUri",
    "buildTrigger",
    "deploymentEnvironment",
];

impl fmt::Debug for PinnedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedRoot").finish_non_exhaustive()
    }
}
