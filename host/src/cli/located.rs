//! Where a command finds a component: a file with its evidence beside it, or `oci://...` with what refers to it there.
//!
//! The two are told apart by the scheme alone: whether a file of some name exists never decides what is fetched from where.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use portcullis_signing::ComponentBytes;
use portcullis_signing::oci::OciReference;

use super::error::CliError;
use super::output::Output;
use super::{block_on, files};
use crate::limits::CONFIG_BYTES;
use crate::oci::{Fetched, Options, Registry};

/// A component on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// A file.
    File(PathBuf),
    /// A reference, not parsed yet: what is wrong with it is told as an error of the command.
    Registry(String),
}

/// How the registry of a reference is reached.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RegistryArgs {
    /// The only CA that may vouch for the registry (PEM); by default those of this machine.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// A component and its evidence, from wherever.
#[derive(Debug)]
pub struct Found {
    /// The component.
    pub component: ComponentBytes,
    /// Its evidence.
    pub evidence: Vec<Vec<u8>>,
    /// What to call it: the file, or the reference by digest.
    pub label: String,
}

impl Located {
    /// Reads the component and its evidence. Evidence that is named replaces what lies beside it, or refers to it.
    pub fn read(&self, bundles: &[PathBuf], registry: &RegistryArgs, out: &mut Output) -> Result<Found, CliError> {
        match self {
            Located::File(path) => Ok(Found {
                component: files::read_component(path)?,
                evidence: files::read_evidence(path, bundles)?,
                label: files::with_evidence(path, bundles),
            }),
            Located::Registry(text) => {
                let reference = reference(text)?;
                let fetched = fetch(&reference, registry, None, out)?;
                let evidence = if bundles.is_empty() {
                    fetched.evidence.iter().map(|piece| piece.bytes().to_vec()).collect()
                } else {
                    files::read_evidence(Path::new(""), bundles)?
                };
                Ok(Found { component: fetched.component, evidence, label: fetched.reference.to_string() })
            }
        }
    }
}

/// Parses a reference.
pub fn reference(text: &str) -> Result<OciReference, CliError> {
    text.parse().map_err(|error: portcullis_signing::Malformed| {
        CliError::usage(error.to_string()).with_hint("for instance oci://registry.example/acme/orders:1.4.2")
    })
}

/// Fetches a component; what came of an unfinished download is kept in a folder.
pub fn fetch(
    reference: &OciReference,
    args: &RegistryArgs,
    keep_in: Option<&Path>,
    out: &mut Output,
) -> Result<Fetched, CliError> {
    let options = args.options(false)?;
    let bar = out.bar("fetching");
    let (asked, shown, folder) = (reference.clone(), bar.clone(), keep_in.map(Path::to_path_buf));
    let fetched = contained(async move {
        let registry = Registry::connect(&asked, &options).await?;
        let resolved = registry.resolve().await?;
        Ok(registry.fetch(&resolved, folder.as_deref(), &shown).await?)
    });
    bar.finish_and_clear();
    let fetched = fetched?;
    for note in &fetched.notes {
        out.note(note);
    }
    Ok(fetched)
}

/// Runs an exchange with a registry. A library that panics about what a registry said ends the exchange, not more.
pub fn contained<T: Send + 'static>(
    exchange: impl Future<Output = Result<T, CliError>> + Send + 'static,
) -> Result<T, CliError> {
    block_on(async {
        tokio::spawn(exchange).await.map_err(|_| {
            CliError::new(
                super::error::exit::TRANSPORT,
                "registry.answer",
                "the registry's answer could not be handled",
            )
        })?
    })
}

impl RegistryArgs {
    /// As options of a connection.
    pub fn options(&self, push: bool) -> Result<Options, CliError> {
        let ca = self.ca.as_deref().map(|path| files::read_bytes(path, CONFIG_BYTES, "CA file")).transpose()?;
        Ok(Options { ca, push })
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Located::File(path) => write!(f, "{}", path.display()),
            Located::Registry(text) => f.write_str(text),
        }
    }
}

impl FromStr for Located {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if OciReference::has_scheme(text) {
            Located::Registry(text.to_owned())
        } else {
            Located::File(PathBuf::from(text))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_scheme_makes_a_reference() {
        let located = |text: &str| text.parse::<Located>().unwrap();
        assert!(matches!(located("oci://registry.example/a:1"), Located::Registry(_)));
        for path in ["registry.example/a:1", "build.out/app.wasm", "./oci://x", "OCI://registry.example/a:1"] {
            assert!(matches!(located(path), Located::File(_)), "{path}");
        }
        assert_eq!(reference("oci://nowhere").unwrap_err().exit(), crate::cli::error::exit::USAGE);
    }
}
