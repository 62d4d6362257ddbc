//! The files of TLS, looked at once before a callout begins: the client library reads them at each connect and says little about
//! one that is not there.

use std::path::Path;

use portcullis_identity::NatsKey;
use portcullis_identity::nats_tls::NatsRoots;
use zeroize::Zeroizing;

use super::service::CalloutError;
use crate::cli::files::read_bytes;
use crate::config::callout::CalloutConfig;
use crate::limits::CONFIG_BYTES;

/// Refuses authorities, certificates and keys that cannot be read, or do not belong together. A certificate out of its time is not
/// refused here: its issuer may put a new one in its place.
pub fn check(config: &CalloutConfig) -> Result<(), CalloutError> {
    let Some(tls) = &config.tls else { return Ok(()) };
    let ca = read(&tls.ca, "CA file")?;
    NatsRoots::from_pem(&ca).map_err(|error| CalloutError::file(&tls.ca, &error, error.hint()))?;
    let logins = [Some(&config.login), config.system.as_ref()].into_iter().flatten();
    let pairs = logins.map(|login| (&login.certificate, &login.key)).chain([(&tls.certificate, &tls.key)]);
    for (certificate, key) in pairs.filter_map(|(certificate, key)| certificate.as_ref().zip(key.as_ref())) {
        let (chain, secret) = (read(certificate, "certificate")?, read(key, "private key")?);
        NatsKey::from_pem(&chain, &secret).map_err(|error| CalloutError::file(certificate, error, error.hint()))?;
    }
    Ok(())
}

fn read(path: &Path, what: &str) -> Result<Zeroizing<Vec<u8>>, CalloutError> {
    read_bytes(path, CONFIG_BYTES, what)
        .map(Zeroizing::new)
        .map_err(|error| CalloutError::config(error.message(), error.hint().unwrap_or_default()))
}
