//! What `callout init` is given, looked at before anything is written: that keys and certificates belong together, that the
//! authorities are theirs, that names and uses fit. A site that is written must be one that comes up.

use std::path::Path;

use portcullis_identity::nats_pair::{NatsPairError, check_client, check_server};
use portcullis_identity::nats_tls::NatsRoots;
use portcullis_identity::{BundleDocument, NatsKey};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::init::InitArgs;
use crate::callout::init::Shown;
use crate::cli::error::CliError;
use crate::cli::files;
use crate::limits::CONFIG_BYTES;

/// When the two certificates end, and what should be looked at.
#[derive(Debug)]
pub struct Material {
    /// The server's.
    pub server: OffsetDateTime,
    /// The callout's.
    pub callout: Option<OffsetDateTime>,
    /// What is strange, but no mistake for certain.
    pub notes: Vec<String>,
}

/// Looks at the files of the arguments; `servers` are the addresses that the callout will have.
pub fn check(
    args: &InitArgs,
    shown: &Shown,
    servers: &[String],
    bundles: &[BundleDocument],
    now: OffsetDateTime,
) -> Result<Material, CliError> {
    let (ca, roots) = authorities("--ca", &args.ca)?;
    let of_server = args.server_ca.as_ref().map(|path| authorities("--server-ca", path)).transpose()?;
    let of_server = of_server.as_ref().map_or(&roots, |(_, of_server)| of_server);
    let server = pair("--server-certificate", &args.server_certificate, "--server-key", &args.server_key, now)?;
    for address in servers {
        let named = |error: NatsPairError| {
            let path = args.server_certificate.display();
            CliError::usage(format!("--server-certificate {path}, for {address}: {error}")).with_hint(error.hint())
        };
        check_server(of_server, &server, host_of(address), now).map_err(named)?;
    }
    let mut of_callout = vec![args.server_ca.as_ref().unwrap_or(&args.ca)];
    let (mut own, mut notes) = (None, Vec::new());
    match shown {
        Shown::X509(certificate, key) => {
            let callout = pair("--certificate", certificate, "--key", key, now)?;
            check_client(&roots, &callout, now).map_err(|error| {
                let path = certificate.display();
                CliError::usage(format!("--certificate {path}: {error}")).with_hint(error.hint())
            })?;
            own = Some(callout.not_after());
            of_callout.extend([certificate, key]);
            for bundle in bundles.iter().filter(|bundle| !knows(&ca, bundle)) {
                let (domain, path) = (bundle.trust_domain(), args.ca.display());
                notes.push(format!("{path} has none of the X.509 authorities of {domain}: the server will refuse its workloads' certificates; add them"));
            }
        }
        Shown::Jwt => {
            for bundle in bundles.iter().filter(|bundle| bundle.jwt_keys().keys().is_empty()) {
                let domain = bundle.trust_domain();
                notes.push(format!(
                    "the bundle of {domain} has no JWT authority: the callout will refuse its workloads' tokens"
                ));
            }
        }
    }
    let fixed = of_callout.into_iter().filter(|path| lies_above(path, &args.dir)).map(|path| {
        format!(
            "{} lies above {}, where the seeds are: when another file takes its place the callout must be started again; keep \
             what is renewed in a folder of its own",
            path.display(),
            args.dir.display()
        )
    });
    notes.extend(fixed);
    Ok(Material { server: server.not_after(), callout: own, notes })
}

fn authorities(what: &str, path: &Path) -> Result<(Vec<u8>, NatsRoots), CliError> {
    let pem = files::read_bytes(path, CONFIG_BYTES, "CA file")?;
    let roots = NatsRoots::from_pem(&pem)
        .map_err(|error| CliError::usage(format!("{what} {}: {error}", path.display())).with_hint(error.hint()))?;
    Ok((pem, roots))
}

/// Whether a folder lies in the folder of a file, or below.
fn lies_above(path: &Path, folder: &Path) -> bool {
    let of_file = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_path_buf));
    let folder = std::path::absolute(folder).ok();
    of_file.zip(folder).is_none_or(|(of_file, folder)| folder.starts_with(of_file))
}

/// The host of `tls://HOST:PORT`.
pub fn host_of(address: &str) -> &str {
    let rest = address.strip_prefix("tls://").unwrap_or(address);
    rest.rsplit_once(':').map_or(rest, |(host, _)| host)
}

/// A certificate with its key, that belong together and are valid now.
fn pair(what: &str, certificate: &Path, of_key: &str, key: &Path, now: OffsetDateTime) -> Result<NatsKey, CliError> {
    let chain = files::read_bytes(certificate, CONFIG_BYTES, "certificate")?;
    let secret = Zeroizing::new(files::read_bytes(key, CONFIG_BYTES, "private key")?);
    let read = NatsKey::from_pem(&chain, &secret).and_then(|pair| pair.check(now).map(|()| pair));
    read.map_err(|error| {
        let (certificate, key) = (certificate.display(), key.display());
        CliError::usage(format!("{what} {certificate} and {of_key} {key}: {error}")).with_hint(error.hint())
    })
}

/// Whether a CA file has one of the authorities of a trust domain.
fn knows(ca: &[u8], bundle: &BundleDocument) -> bool {
    let there = portcullis_identity::nats_tls::certificates(ca);
    bundle.x509_authorities().is_empty() || bundle.x509_authorities().iter().any(|der| there.contains(der))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_beside_the_new_folder_lies_above_its_seeds() {
        for (path, folder, above) in [
            ("callout.pem", "site", true),
            ("/a/callout.pem", "/a/b/site", true),
            ("tls/callout.pem", "site", false),
            ("/a/tls/callout.pem", "/a/site", false),
            ("/a/sites/callout.pem", "/a/site", false),
        ] {
            assert_eq!(lies_above(Path::new(path), Path::new(folder)), above, "{path} {folder}");
        }
    }

    #[test]
    fn the_name_of_a_server_is_what_stands_before_the_port() {
        for (address, host) in [
            ("tls://nats.example:4222", "nats.example"),
            ("tls://127.0.0.1:4222", "127.0.0.1"),
            ("tls://[::1]:4222", "[::1]"),
            ("tls://nats.example", "nats.example"),
        ] {
            assert_eq!(host_of(address), host);
        }
    }
}
