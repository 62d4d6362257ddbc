//! Credentials of a registry, from where Docker keeps them: its config file, and the helpers that this names.
//!
//! No entry is anonymous access. An entry that cannot be read is an error: going on without it would be a guess.

use std::io::ErrorKind;
use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::secrets::RegistryAuth;

use super::RegistryError;
use crate::config::environment;
use crate::limits::{CONFIG_BYTES, CREDENTIAL_HELPER};

/// The key that Docker keeps its own registry under.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What to show to `registry`.
pub(super) async fn of(registry: &str) -> Result<RegistryAuth, RegistryError> {
    let failed = |why: String| RegistryError::Credentials { registry: registry.to_owned(), why };
    let Some(path) = place() else { return Ok(RegistryAuth::Anonymous) };
    let bytes = match std::fs::metadata(&path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(RegistryAuth::Anonymous);
        }
        Ok(meta) if meta.len() > CONFIG_BYTES => return Err(failed(format!("{} is too large", path.display()))),
        _ => std::fs::read(&path).map_err(|error| failed(format!("{}: {error}", path.display())))?,
    };
    let server = if matches!(registry, "docker.io" | "index.docker.io") { DOCKER_HUB } else { registry }.to_owned();
    // A helper is another program, and may wait for somebody.
    let asked = tokio::task::spawn_blocking(move || docker_credential::get_credential_from_reader(&*bytes, &server));
    let asked = tokio::time::timeout(CREDENTIAL_HELPER, asked).await;
    match asked.map_err(|_| failed("the helper gave no answer in time".to_owned()))? {
        Ok(Ok(DockerCredential::UsernamePassword(user, password))) => Ok(RegistryAuth::Basic(user, password)),
        Ok(Ok(DockerCredential::IdentityToken(_))) => Err(failed(
            "an identity token is not supported; log in with a user and a password or an access token".to_owned(),
        )),
        // A helper that does not know the registry says so by failing: Docker itself then goes on without.
        Ok(Err(CredentialRetrievalError::HelperFailure { stdout, .. })) if stdout.contains("credentials not found") => {
            Ok(RegistryAuth::Anonymous)
        }
        Ok(Err(CredentialRetrievalError::NoCredentialConfigured)) => Ok(RegistryAuth::Anonymous),
        // The output of a helper is not repeated: it may hold what it should have handed over.
        Ok(Err(CredentialRetrievalError::HelperFailure { helper, .. })) => Err(failed(format!("{helper} failed"))),
        Ok(Err(CredentialRetrievalError::ConfigReadError)) => {
            Err(failed(format!("{} is no Docker config", path.display())))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(error) => Err(failed(format!("the helper could not be asked: {error}"))),
    }
}

fn place() -> Option<PathBuf> {
    if let Some(file) = environment::read(environment::REGISTRY_AUTH_FILE) {
        return Some(PathBuf::from(file));
    }
    let folder = environment::read(environment::DOCKER_CONFIG).map(PathBuf::from);
    let home = || environment::read(environment::HOME).map(|home| PathBuf::from(home).join(".docker"));
    folder.or_else(home).map(|folder| folder.join("config.json"))
}
