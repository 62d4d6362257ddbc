//! Where the bytes of a manifest's component lie on this host. Nothing that is found here is believed: the start hashes it and
//! verifies its evidence.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;
use portcullis_cluster::{Manifest, Source};
use portcullis_signing::Digest;
use portcullis_signing::oci::OciReference;

use crate::cli::error::{CliError, exit};
use crate::cli::{files, pull};
use crate::limits::CONFIG_BYTES;
use crate::oci::{Options, Registry};
use crate::supervisor::refused::Refused;
use crate::supervisor::{Host, StartSpec};

/// The files to start, as this host has them.
pub async fn locate(host: &Arc<Host>, manifest: &Manifest) -> Result<StartSpec, Refused> {
    let wanted = manifest.wanted();
    let (path, evidence) = match &wanted.source {
        Source::File(file) => {
            let config = host.config.membership.as_ref();
            let Some(folder) = config.and_then(|config| config.files.as_ref()) else {
                return Err(refused(
                    "cluster.no-files",
                    "this host has no folder for components",
                    "name it in cluster.files",
                ));
            };
            let evidence = wanted.evidence.paths().map(|path| folder.join(path)).collect();
            (inside(folder, &folder.join(file.as_str()))?, evidence)
        }
        Source::Store(_) => (stored(host, &wanted.digest), Vec::new()),
        Source::Oci(reference) => (fetched(host, reference, &wanted.digest).await?, Vec::new()),
    };
    Ok(StartSpec { path, evidence, ..StartSpec::default() })
}

/// Where the store has a component.
pub(in crate::supervisor) fn stored(host: &Host, digest: &Digest) -> PathBuf {
    host.config.state_dir.join("components").join(digest.hex()).join("component.wasm")
}

/// A link may not lead out of the folder either.
fn inside(folder: &Path, path: &Path) -> Result<PathBuf, Refused> {
    let real = |path: &Path| {
        path.canonicalize().map_err(|error| {
            refused(
                "file.unusable",
                &format!("component {} cannot be read: {error}", path.display()),
                "put it there on every host",
            )
        })
    };
    let (folder, real) = (real(folder)?, real(path)?);
    match real.starts_with(&folder) {
        true => Ok(path.to_path_buf()),
        false => {
            Err(refused("cluster.outside", "a link leads out of the folder of components", "put the file there itself"))
        }
    }
}

/// Fetches a component to the store, unless it is there already with its digest.
pub(in crate::supervisor) async fn fetched(
    host: &Arc<Host>,
    reference: &OciReference,
    digest: &Digest,
) -> Result<PathBuf, Refused> {
    let path = stored(host, digest);
    if files::read_component(&path).is_ok_and(|bytes| bytes.digest() == digest) {
        return Ok(path);
    }
    let ca = host.config.membership.as_ref().and_then(|config| config.registry_ca.as_deref());
    let ca = ca.map(|path| files::read_bytes(path, CONFIG_BYTES, "CA file")).transpose();
    let options = Options { ca: ca.map_err(|error| from_cli(&error))?, push: false };
    let asked = reference.clone();
    // A task of its own: a library that panics about what a registry said ends this attempt, not more.
    let fetching = tokio::spawn(async move {
        let registry = Registry::connect(&asked, &options).await?;
        let resolved = registry.resolve().await?;
        Ok::<_, CliError>(registry.fetch(&resolved, None, &ProgressBar::hidden()).await?)
    });
    let fetched = fetching.await.map_err(|_| Refused::internal("the registry's answer could not be handled"))?;
    let fetched = fetched.map_err(|error| from_cli(&error))?;
    if fetched.component.digest() != digest {
        let message = format!("{reference} holds {}, the manifest names {digest}", fetched.component.digest());
        return Err(refused(
            "cluster.other-bytes",
            &message,
            "deploy a manifest whose digest is that of the component's bytes",
        ));
    }
    let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    let written = std::fs::create_dir_all(&folder).map_err(Refused::internal);
    written?;
    pull::write(&fetched, &path, true).map_err(|error| from_cli(&error))?;
    Ok(path)
}

fn refused(code: &str, message: &str, hint: &str) -> Refused {
    Refused {
        exit: exit::USAGE,
        code: code.to_owned(),
        message: message.to_owned(),
        hint: hint.to_owned(),
        ..Refused::internal("")
    }
}

fn from_cli(error: &CliError) -> Refused {
    Refused { code: error.stable_code().to_owned(), ..Refused::from_file(error) }
}
