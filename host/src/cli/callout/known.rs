//! Whether the server and the callout know the same authorities. The server lets a client's certificate through TLS by its
//! `ca_file`, the callout then looks for the authority in the bundle of the client's own trust domain: whoever one of them does not
//! know does not get in, and neither says why to the client. Pure, but for the files being read.

use std::path::{Path, PathBuf};

use portcullis_identity::nats_pair::check_client;
use portcullis_identity::nats_tls::{NatsRoots, certificates};
use portcullis_identity::{BundleDocument, NatsKey};
use portcullis_policies::nats_server::{Finding, Level};
use time::OffsetDateTime;

use super::server_file::ServerFile;
use crate::cli::error::CliError;
use crate::cli::{files, pem};
use crate::config::callout::CalloutConfig;
use crate::limits::CONFIG_BYTES;

/// Compares the `ca_file` of the clients' listener with the bundles of the callout.
pub fn check(config: &CalloutConfig, server: &ServerFile, now: OffsetDateTime) -> Result<Vec<Finding>, CliError> {
    let tls = server.map.map(&["tls"]);
    let verifies = tls.is_some_and(|tls| tls.is_on(&["verify"]) || tls.is_on(&["verify_and_map"]));
    let Some(entry) = tls.filter(|_| verifies).and_then(|tls| tls.entry(&["ca_file", "ca_cert_file"])) else {
        return Ok(Vec::new());
    };
    let name = server.names.get(entry.file).map_or("server.conf", String::as_str);
    let place = format!("{name}:{}", entry.line);
    let found = |level, code, reason: String, hint| Finding { level, code, place: place.clone(), reason, hint };
    let path = entry.value.as_text().map(|text| beside(server, text));
    let pool = path.as_ref().and_then(|path| files::read_bytes(path, CONFIG_BYTES, "CA file").ok());
    let Some((path, pool)) = path.zip(pool) else {
        let hint = "run this where the server's files are, and give whole paths in `tls`";
        return Ok(vec![found(
            Level::Note,
            "authority.unread",
            "ca_file cannot be read here: whether it fits the bundles of the callout was not looked at".to_owned(),
            hint,
        )]);
    };
    let pool = certificates(&pool);
    let mut bundles = Vec::new();
    for domain in &config.trust_domains {
        let json = files::read_bytes(&domain.bundle, CONFIG_BYTES, "bundle")?;
        let document = BundleDocument::parse(&domain.name, &json).map_err(|error| {
            CliError::usage(format!("{}: {error}", domain.bundle.display())).with_hint(error.hint())
        })?;
        bundles.push((domain.name.to_string(), document.x509_authorities().to_vec()));
    }
    let own = |der: &[u8]| is_servers(config, der) || issued_callouts(config, der, now);
    let all = compare(&pool, &bundles, own);
    Ok(all
        .into_iter()
        .map(|(level, code, reason, hint)| found(level, code, format!("{}: {reason}", path.display()), hint))
        .collect())
}

type Said = (Level, &'static str, String, &'static str);

/// What one of the two has and the other has not. `own` says whether an authority is there for the server or the callout itself.
fn compare(pool: &[Vec<u8>], bundles: &[(String, Vec<Vec<u8>>)], own: impl Fn(&[u8]) -> bool) -> Vec<Said> {
    let mut said = Vec::new();
    for (domain, authorities) in bundles {
        let missing = authorities.iter().filter(|der| !pool.contains(der)).count();
        match (authorities.len(), missing) {
            (_, 0) => {}
            (all, missing) if all == missing => said.push((
                Level::Danger,
                "authority.unknown",
                format!("it has none of the X.509 authorities of {domain}: the server refuses every certificate of its workloads"),
                "add them (`portcullis identity bundle --pem`), and reload the server",
            )),
            (all, missing) => said.push((
                Level::Note,
                "authority.behind",
                format!("it lacks {missing} of the {all} X.509 authorities of {domain}: the server refuses whom they issue for"),
                "add them (`portcullis identity bundle --pem`), and reload the server; authorities rotate, so have a timer do it",
            )),
        }
    }
    let is_known = |der: &Vec<u8>| bundles.iter().any(|(_, authorities)| authorities.contains(der));
    for (at, _) in pool.iter().enumerate().filter(|(_, der)| !is_known(der) && !own(der)) {
        said.push((
            Level::Note,
            "authority.stranger",
            format!("certificate {} of it is in no bundle of the callout: whom it issues for is let through TLS, and always denied", at + 1),
            "take it away, or give the callout the bundle of its trust domain",
        ));
    }
    said
}

/// The callout believes servers by it: `callout init` has one file for both where no other is named.
fn is_servers(config: &CalloutConfig, der: &[u8]) -> bool {
    let ca = config.tls.as_ref().and_then(|tls| files::read_bytes(&tls.ca, CONFIG_BYTES, "CA file").ok());
    ca.is_some_and(|pem| certificates(&pem).iter().any(|one| one == der))
}

fn issued_callouts(config: &CalloutConfig, der: &[u8], now: OffsetDateTime) -> bool {
    let Some((certificate, key)) = config.tls.as_ref().and_then(|tls| tls.certificate.as_ref().zip(tls.key.as_ref()))
    else {
        return false;
    };
    let read = |path: &PathBuf, what| files::read_bytes(path, CONFIG_BYTES, what).ok();
    let pair = read(certificate, "certificate").zip(read(key, "private key").map(zeroize::Zeroizing::new));
    let pair = pair.and_then(|(chain, key)| NatsKey::from_pem(&chain, &key).ok());
    let root = NatsRoots::from_pem(pem::block("CERTIFICATE", der).as_bytes()).ok();
    root.zip(pair).is_some_and(|(root, pair)| check_client(&root, &pair, now).is_ok())
}

/// A server reads a path that is not whole from where it was started: most often where its configuration lies.
fn beside(server: &ServerFile, text: &str) -> PathBuf {
    let folder = server.paths.first().and_then(|path| path.parent()).unwrap_or(Path::new("."));
    folder.join(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_or_the_callout_does_not_know_is_said_and_what_both_know_is_not() {
        let der = |byte: u8| vec![byte; 4];
        let bundles = |one: &[u8], two: &[u8]| {
            let all = |bytes: &[u8]| bytes.iter().map(|byte| der(*byte)).collect::<Vec<_>>();
            vec![("one.test".to_owned(), all(one)), ("two.test".to_owned(), all(two))]
        };
        let codes = |pool: &[u8], bundles: &[(String, Vec<Vec<u8>>)]| {
            let pool: Vec<_> = pool.iter().map(|byte| der(*byte)).collect();
            let said = compare(&pool, bundles, |own| own == der(9));
            said.into_iter().map(|(level, code, reason, _)| (level == Level::Danger, code, reason)).collect::<Vec<_>>()
        };
        assert!(codes(&[1, 2, 9], &bundles(&[1], &[2])).is_empty());
        // Tokens alone: no authority to know.
        assert!(codes(&[1], &bundles(&[1], &[])).is_empty());
        for (pool, one, two, is_danger, code, says) in [
            (&[1][..], &[1][..], &[2][..], true, "authority.unknown", "none of the X.509 authorities of two.test"),
            (&[1, 3], &[1], &[2, 3], false, "authority.behind", "lacks 1 of the 2 X.509 authorities of two.test"),
            (&[1, 2, 5], &[1], &[2], false, "authority.stranger", "certificate 3 of it is in no bundle"),
        ] {
            let found = codes(pool, &bundles(one, two));
            assert!(
                matches!(&found[..], [(danger, name, reason)] if *danger == is_danger && *name == code && reason.contains(says)),
                "{found:?}"
            );
        }
    }
}
