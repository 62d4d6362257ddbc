//! The fence of the callout: it reads its own files, writes its audit log, talks TCP, and starts nothing.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::callout::CalloutConfig;
use crate::process::sandbox::{self, Report};

/// Puts the fence up around this process, which must have one thread. Secrets have been read before and are not readable after,
/// but for keys of certificates, which are read at each connection.
pub fn enter(config: &CalloutConfig) -> io::Result<Report> {
    let certificates = certificates(config);
    let bundles = config.trust_domains.iter().map(|domain| &domain.bundle);
    let tokens =
        [Some(&config.login), config.system.as_ref()].into_iter().flatten().filter_map(|login| login.jwt.as_ref());
    let own = config.roles.iter().chain(&config.cedar).chain(&config.revocations).chain(bundles).chain(tokens);
    // Whole folders: a file that is replaced is another file, and a link into a folder beside it is how clusters mount them.
    let folders = own.chain(certificates.iter().copied()).filter_map(|path| path.parent());
    let mut read: Vec<PathBuf> =
        folders.filter(|folder| !holds_secrets(folder, config)).map(Path::to_path_buf).collect();
    read.extend(certificates.into_iter().cloned());
    read.extend(RESOLVER.map(PathBuf::from));
    read.sort();
    read.dedup();
    let read: Vec<&Path> = read.iter().map(PathBuf::as_path).collect();
    sandbox::enter_alone(&read, &[&config.state_dir])
}

/// Files of TLS that are read at each connection and cannot be read once another file has taken their place.
pub fn fixed(config: &CalloutConfig) -> Vec<&PathBuf> {
    let folder = |path: &&PathBuf| path.parent().is_none_or(|folder| holds_secrets(folder, config));
    let mut fixed: Vec<&PathBuf> = certificates(config).into_iter().filter(folder).collect();
    fixed.sort();
    fixed.dedup();
    fixed
}

fn certificates(config: &CalloutConfig) -> Vec<&PathBuf> {
    let logins = [Some(&config.login), config.system.as_ref()];
    let certificates = logins.into_iter().flatten().flat_map(|login| [&login.certificate, &login.key]).flatten();
    let tls = config.tls.iter().flat_map(|tls| [Some(&tls.ca), tls.certificate.as_ref(), tls.key.as_ref()]).flatten();
    certificates.chain(tls).collect()
}

/// Whether the seeds lie in this folder or below: then only the files that are needed may be read, and replacing one by a rename
/// needs a restart.
fn holds_secrets(folder: &Path, config: &CalloutConfig) -> bool {
    let logins = [Some(&config.login), config.system.as_ref()];
    let logins = logins.into_iter().flatten().flat_map(|login| [&login.nkey, &login.creds]).flatten();
    let signers = config.signers.iter().map(|signer| &signer.key);
    let mut secrets = logins.chain(signers).chain([&config.keys.issuer]).chain(&config.keys.xkey);
    secrets.any(|secret| secret.starts_with(folder))
}

/// What looking up a server's name reads.
const RESOLVER: [&str; 5] = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/host.conf"];
