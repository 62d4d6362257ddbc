//! New certificates for a site: looked at as `callout init` looks at them, and put where the configurations say. They are issued
//! elsewhere; what is decided here is that a site which takes them goes on.

use std::path::{Path, PathBuf};

use portcullis_identity::NatsKey;
use portcullis_identity::nats_pair::{check_client, check_server};
use portcullis_identity::nats_tls::{NatsRoots, names, validity};
use portcullis_policies::nats_server::Map;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::material::host_of;
use super::renew::Step;
use crate::cli::error::CliError;
use crate::cli::files;
use crate::config::callout::CalloutConfig;
use crate::limits::CONFIG_BYTES;

/// Where one lies, and its key.
#[derive(Debug)]
pub struct Place {
    what: &'static str,
    certificate: PathBuf,
    key: PathBuf,
}

/// What is to be put there: a certificate, and its key where it is another one.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// The certificate.
    pub certificate: &'a Path,
    /// Its key.
    pub key: Option<&'a Path>,
}

impl Place {
    /// The server's, where its configuration names it by a whole path: a server reads others from where it was started.
    pub fn of_server(map: &Map) -> Option<Self> {
        let tls = map.map(&["tls"])?;
        let path = |key| tls.text(&[key]).map(PathBuf::from).filter(|path| path.is_absolute());
        Some(Self { what: "the server's certificate", certificate: path("cert_file")?, key: path("key_file")? })
    }

    /// The callout's.
    pub fn of_callout(config: &CalloutConfig) -> Option<Self> {
        let tls = config.tls.as_ref()?;
        let (certificate, key) = (tls.certificate.clone()?, tls.key.clone()?);
        Some(Self { what: "the callout's certificate", certificate, key })
    }

    /// What it is, and when the one there ends.
    pub fn end(&self) -> Option<(&'static str, OffsetDateTime)> {
        let pem = files::read_bytes(&self.certificate, CONFIG_BYTES, "certificate").ok()?;
        Some((self.what, validity(&pem)?.1))
    }

    /// What is to be written. The key first: a certificate is looked at against what is in its place now, and a command that was
    /// stopped between the two can so be given again.
    pub fn take(
        &self,
        new: New<'_>,
        check: impl Fn(&NatsKey) -> Result<(), CliError>,
        now: OffsetDateTime,
    ) -> Result<Vec<Step>, CliError> {
        let shown = new.certificate.display();
        let wrong = |why: &str, hint: &str| CliError::usage(format!("{shown}: {why}")).with_hint(hint);
        let pem = files::read_bytes(new.certificate, CONFIG_BYTES, "certificate")?;
        let old = files::read_bytes(&self.certificate, CONFIG_BYTES, "certificate")?;
        let key = Zeroizing::new(files::read_bytes(new.key.unwrap_or(&self.key), CONFIG_BYTES, "private key")?);
        let pair = NatsKey::from_pem(&pem, &key).and_then(|pair| pair.check(now).map(|()| pair));
        let pair = pair.map_err(|error| wrong(&error.to_string(), error.hint()))?;
        check(&pair)?;
        if names(&pem) != names(&old) {
            let why =
                format!("it is for other names than {}, in whose place it is to come", self.certificate.display());
            return Err(wrong(
                &why,
                "have it issued for the same names; other ones are for a change by hand, and a look by `callout check`",
            ));
        }
        let before = validity(&old).map(|(_, end)| end);
        let certificate = Step {
            what: self.what,
            path: self.certificate.clone(),
            bytes: Zeroizing::new(pem),
            before,
            until: Some(pair.not_after()),
        };
        let of_key =
            new.key.map(|_| Step { what: "its key", path: self.key.clone(), bytes: key, before: None, until: None });
        Ok(of_key.into_iter().chain([certificate]).collect())
    }
}

/// Whether callouts will take it for the server's.
pub fn server(config: &CalloutConfig, pair: &NatsKey, now: OffsetDateTime) -> Result<(), CliError> {
    let Some(tls) = &config.tls else { return Ok(()) };
    let roots = authorities(&tls.ca)?;
    for address in &config.servers {
        check_server(&roots, pair, host_of(address), now).map_err(|error| {
            CliError::usage(format!("--server-certificate, for {address}: {error}")).with_hint(error.hint())
        })?;
    }
    Ok(())
}

/// Whether the server will take it for a client's, where it asks for one.
pub fn client(map: &Map, pair: &NatsKey, now: OffsetDateTime) -> Result<(), CliError> {
    let tls = map.map(&["tls"]);
    let Some(ca) = tls.and_then(|tls| tls.text(&["ca_file"])).map(Path::new).filter(|path| path.is_absolute()) else {
        return Ok(());
    };
    check_client(&authorities(ca)?, pair, now)
        .map_err(|error| CliError::usage(format!("--certificate: {error}")).with_hint(error.hint()))
}

fn authorities(path: &Path) -> Result<NatsRoots, CliError> {
    let pem = files::read_bytes(path, CONFIG_BYTES, "CA file")?;
    NatsRoots::from_pem(&pem)
        .map_err(|error| CliError::usage(format!("{}: {error}", path.display())).with_hint(error.hint()))
}
