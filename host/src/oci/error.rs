//! What can go wrong between here and a registry, who erred, and what to do.

use oci_client::errors::OciDistributionError;
use portcullis_signing::oci::OciError;
use portcullis_signing::{Digest, Excerpt};

use crate::cli::error::{CliError, exit};

/// A failed exchange with a registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No answer, or none in time.
    #[error("the registry {registry} cannot be reached: {why}")]
    Unreachable {
        /// Which.
        registry: String,
        /// Why.
        why: String,
    },
    /// It wants other credentials.
    #[error("the registry {registry} does not let this user {what}")]
    Unauthorized {
        /// Which.
        registry: String,
        /// What was tried.
        what: &'static str,
    },
    /// It does not have it.
    #[error("the registry has no {0}")]
    Missing(String),
    /// An answer that makes no sense.
    #[error("the registry {registry} answered {status} when asked to {what}")]
    Answer {
        /// Which.
        registry: String,
        /// The HTTP status, and what was said with it.
        status: String,
        /// What was asked for.
        what: String,
    },
    /// Other bytes than were asked for.
    #[error("the registry gave other bytes than those of {wanted}: they are {found}")]
    OtherBytes {
        /// What was asked for.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// More bytes than are taken.
    #[error("{what} is larger than {max} bytes")]
    TooLarge {
        /// What.
        what: String,
        /// The limit.
        max: u64,
    },
    /// A manifest that is not accepted.
    #[error("{what}: {error}")]
    Manifest {
        /// Which.
        what: String,
        /// Why.
        error: OciError,
    },
    /// Credentials cannot be had.
    #[error("credentials for {registry}: {why}")]
    Credentials {
        /// For which registry.
        registry: String,
        /// Why.
        why: String,
    },
    /// The local end failed.
    #[error("{0}")]
    Local(String),
}

impl RegistryError {
    /// A failure of the library, while something was done.
    pub(super) fn from_library(registry: &str, what: &'static str, error: &OciDistributionError) -> Self {
        let registry = registry.to_owned();
        match error {
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
                RegistryError::Unauthorized { registry, what }
            }
            OciDistributionError::ServerError { code: 401 | 403, .. } => RegistryError::Unauthorized { registry, what },
            OciDistributionError::ServerError { code, message, .. } => {
                let status = format!("{code} ({})", Excerpt(message.trim()));
                RegistryError::Answer { registry, status, what: what.to_owned() }
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let said: Vec<&str> = envelope.errors.iter().map(|error| error.message.as_str()).collect();
                let status = format!("an error ({})", Excerpt(&said.join("; ")));
                RegistryError::Answer { registry, status, what: what.to_owned() }
            }
            OciDistributionError::RequestError(error) if error.status().is_some() => {
                match error.status().map(|status| status.as_u16()) {
                    Some(401 | 403) => RegistryError::Unauthorized { registry, what },
                    status => {
                        let status = status.unwrap_or_default().to_string();
                        RegistryError::Answer { registry, status, what: what.to_owned() }
                    }
                }
            }
            OciDistributionError::RequestError(error) => RegistryError::Unreachable { registry, why: reason(error) },
            other => {
                let status = format!("what makes no sense ({})", Excerpt(&other.to_string()));
                RegistryError::Answer { registry, status, what: what.to_owned() }
            }
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            RegistryError::Unreachable { .. } => {
                "check the name, the network and the registry's certificate; --ca FILE names the CA of a private registry"
            }
            RegistryError::Unauthorized { .. } => {
                "log in with `docker login` (or any tool that writes the Docker config), or ask for the right to this repository"
            }
            RegistryError::Missing(_) => "check the repository and the tag, or push it first",
            RegistryError::Answer { .. } => "try again; look at the registry's log if it stays",
            RegistryError::OtherBytes { .. } => {
                "the registry, or something before it, is broken or lies; nothing was kept. Fetch from another place"
            }
            RegistryError::TooLarge { .. } => "the limit is fixed; make it smaller",
            RegistryError::Manifest { error, .. } => error.hint(),
            RegistryError::Credentials { .. } => {
                "mend the Docker config or its helper; remove the entry of this registry to go without credentials"
            }
            RegistryError::Local(_) => "check the disk and the rights to the folder",
        }
    }
}

/// The innermost reason, without the address that may hold a query.
pub(super) fn reason(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let timed_out = if error.is_timeout() { "no answer in time: " } else { "" };
    format!("{timed_out}{}", Excerpt(&inner.to_string()))
}

impl From<RegistryError> for CliError {
    fn from(error: RegistryError) -> Self {
        let (exit, code) = match &error {
            RegistryError::Unreachable { .. } => (exit::TRANSPORT, "registry.unreachable"),
            RegistryError::Unauthorized { .. } => (exit::TRANSPORT, "registry.unauthorized"),
            RegistryError::Missing(_) => (exit::TRANSPORT, "registry.missing"),
            RegistryError::Answer { .. } => (exit::TRANSPORT, "registry.answer"),
            RegistryError::OtherBytes { .. } => (exit::CLAIMS, "registry.other-bytes"),
            RegistryError::TooLarge { .. } => (exit::CLAIMS, "registry.too-large"),
            RegistryError::Manifest { error: OciError::Referrers(_), .. } => (exit::EVIDENCE, "evidence.too-many"),
            RegistryError::Manifest { .. } => (exit::CLAIMS, "registry.manifest"),
            RegistryError::Credentials { .. } => (exit::USAGE, "registry.credentials"),
            RegistryError::Local(_) => (exit::USAGE, "usage"),
        };
        Self::new(exit, code, error.to_string()).with_hint(error.hint())
    }
}
