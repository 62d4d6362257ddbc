//! The files that a configuration names: whether they are there, are what they must be, and can be read.
//!
//! Decides what `config check` refuses, and what it only speaks of: a file that comes into being after a host was started once, or by a
//! command that needs the configuration. What is in the files is for whoever reads them to say.

use std::fs::File;
use std::io;
use std::path::Path;

use super::Config;
use super::cluster::Bundles;
use super::problems::Problems;

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Missing,
    Unusable(String),
}

/// What is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

/// Looks at all of them. What is a problem goes to the problems; what may be so is returned, a line each.
pub(super) fn check(config: &Config, problems: &mut Problems) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut must = |key: &str, path: &Path, kind: Kind, hint: &'static str| {
        if let Err(fault) = look(path, kind) {
            problems.add(key, fault.about(path), Some(hint));
        }
    };
    must("trust.policy", &config.trust.policy, Kind::File, "`portcullis trust sign` writes it");
    if let Some(path) = &config.trust.deny_list {
        must("trust.deny_list", path, Kind::File, "`portcullis trust deny` makes one");
    }
    for path in config.policy.grants.iter().skip(1) {
        must(
            "policy.grants",
            path,
            Kind::File,
            "put it there, or leave it out: with a file missing everything is denied",
        );
    }
    for path in &config.policy.cedar {
        must(
            "policy.cedar",
            path,
            Kind::File,
            "put it there, or leave it out: with a file missing everything is denied",
        );
    }
    for component in &config.components {
        must("component.path", &component.path, Kind::File, "put the component there; it is not started without");
        for path in &component.evidence {
            must(
                "component.evidence",
                path,
                Kind::File,
                "put the evidence there, or leave it out for the file beside it",
            );
        }
    }
    if let Some(nats) = &config.nats {
        let links = [Some(("nats.auth", &nats.host)), nats.data.as_ref().map(|data| ("nats.data.auth", data))];
        for (section, link) in links.into_iter().flatten() {
            for (name, path) in link.auth.named_files() {
                must(
                    &format!("{section}.{name}"),
                    path,
                    Kind::File,
                    "put it there: without it the host does not connect",
                );
            }
        }
        // The authority of servers with X.509-SVIDs may be this host's own, which it makes at its first start.
        if let Some(path) = nats.tls.ca.as_deref().filter(|_| nats.tls.server_id.is_none()) {
            must("nats.tls.ca", path, Kind::File, "put the authority of the servers' certificates there, PEM");
        }
    }
    if let Some(cluster) = &config.membership {
        if let Some(path) = &cluster.files {
            must(
                "cluster.files",
                path,
                Kind::Folder,
                "make the folder: manifests with source.file do not start without",
            );
        }
        if let Some(path) = &cluster.registry_ca {
            must("cluster.registry_ca", path, Kind::File, "put the authority of the registries there, PEM");
        }
        if let Some(path) = &cluster.key {
            must(
                "cluster.key",
                path,
                Kind::File,
                "`portcullis keys generate --kind user` makes one; pin its public half",
            );
        }
    }
    let mut may = |key: &str, path: &Path, then: &str| match look(path, Kind::File) {
        Ok(()) => {}
        Err(Fault::Missing) => warnings.push(format!("{key}: {} is not there yet: {then}", path.display())),
        Err(fault) => problems.add(key, fault.about(path), None),
    };
    if let Some(path) = config.grants_file() {
        may("policy.grants", path, "everything is denied until `portcullis grants add` makes it");
    }
    if let Some(path) =
        config.nats.as_ref().filter(|nats| nats.tls.server_id.is_some()).and_then(|nats| nats.tls.ca.as_deref())
    {
        may(
            "nats.tls.ca",
            path,
            "no server is believed until it is; `portcullis identity bundle --pem` prints this host's own",
        );
    }
    let trust = config.membership.iter().flat_map(|cluster| cluster.trust.values());
    for path in trust.flat_map(Bundles::paths) {
        may(
            "cluster.trust",
            path,
            "hosts of that trust domain are not believed until it is; `portcullis identity bundle` prints it there",
        );
    }
    warnings
}

fn look(path: &Path, kind: Kind) -> Result<(), Fault> {
    let unusable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Fault::Missing,
        _ => Fault::Unusable(format!("cannot be read: {error}")),
    };
    let meta = std::fs::metadata(path).map_err(unusable)?;
    match kind {
        Kind::Folder if !meta.is_dir() => Err(Fault::Unusable("is no folder".to_owned())),
        Kind::Folder => std::fs::read_dir(path).map(drop).map_err(unusable),
        Kind::File if meta.is_dir() => Err(Fault::Unusable("is a folder".to_owned())),
        // To open a pipe would be to wait for its writer.
        Kind::File if !meta.is_file() => Err(Fault::Unusable("is no regular file".to_owned())),
        Kind::File => File::open(path).map(drop).map_err(unusable),
    }
}

impl Fault {
    fn about(&self, path: &Path) -> String {
        match self {
            Self::Missing => format!("{} is not there", path.display()),
            Self::Unusable(why) => format!("{} {why}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A configuration that names everything, in a folder with only these.
    fn checked(more: &str, there: &[&str]) -> (Result<Vec<String>, String>, tempfile::TempDir) {
        let temp = tempfile::tempdir().unwrap();
        for name in ["trust.signed.json", "grants.toml"].iter().chain(there) {
            match name.strip_suffix('/') {
                Some(folder) => std::fs::create_dir(temp.path().join(folder)).unwrap(),
                None => put(&temp.path().join(name)),
            }
        }
        let root = portcullis_signing::SecretKey::generate(portcullis_signing::KeyKind::Root).unwrap().public();
        let text = format!(
            "version = 1\ntrust_domain = \"a.example\"\n{more}\n[trust]\npolicy = \"trust.signed.json\"\nroots = [\"{root}\"]\n[policy]\ngrants = [\"grants.toml\", \"more.toml\"]\ncedar = [\"site.cedar\"]\n"
        );
        let config = Config::parse(&text, &temp.path().join("portcullis.toml"), Path::new("/var/p"));
        let config = config.unwrap_or_else(|error| panic!("{text}\n{error}"));
        (config.check_files().map_err(|error| error.to_string()), temp)
    }

    fn put(path: &Path) {
        crate::cli::files::write(path, b"x", 0o600, false).unwrap();
    }

    const NATS: &str =
        "[nats]\nservers = [\"tls://n:4222\"]\naccount = \"A\"\ntls.ca = \"ca.pem\"\nauth.nkey = \"n.nk\"\n";

    #[test]
    fn every_file_that_is_not_there_is_named_with_its_key() {
        let key = portcullis_nkey::KeyPair::generate(portcullis_nkey::Kind::User).unwrap().public();
        let more = format!(
            "[cluster]\nname = \"c\"\nhost = \"h1\"\nfiles = \"apps\"\nkey = \"h1.nk\"\nregistry_ca = \"reg.pem\"\n[cluster.trust]\n\"a.example\" = \"hosts.json\"\n[[cluster.member]]\nhost = \"h1\"\nwho = \"{key}\"\n{NATS}[[component]]\npath = \"a.wasm\"\n"
        );
        let (wrong, temp) = checked(&more, &[]);
        let wrong = wrong.unwrap_err();
        for (key, name) in [
            ("policy.grants", "more.toml"),
            ("policy.cedar", "site.cedar"),
            ("component.path", "a.wasm"),
            ("nats.tls.ca", "ca.pem"),
            ("nats.auth.nkey", "n.nk"),
            ("cluster.files", "apps"),
            ("cluster.key", "h1.nk"),
            ("cluster.registry_ca", "reg.pem"),
        ] {
            let line = format!("{key}: {} is not there", temp.path().join(name).display());
            assert!(wrong.contains(&line), "{line}:\n{wrong}");
        }
        assert!(!wrong.contains("trust.signed.json") && !wrong.contains("hosts.json"), "{wrong}");
        let all = ["more.toml", "site.cedar", "a.wasm", "ca.pem", "n.nk", "apps/", "h1.nk", "reg.pem"];
        let (warnings, _) = checked(&more, &all);
        let warnings = warnings.unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("hosts.json is not there yet"), "{warnings:?}");
    }

    #[test]
    fn what_a_host_makes_itself_may_be_missing_and_is_spoken_of() {
        let nats =
            NATS.replace("auth.nkey = \"n.nk\"", "tls.server_id = \"spiffe://a.example/nats\"\nauth.svid = true");
        let (warnings, _) = checked(&format!("cluster = \"c\"\n{nats}"), &["more.toml", "site.cedar"]);
        let warnings = warnings.unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("nats.tls.ca"), "{warnings:?}");
        let (warnings, temp) = checked("cluster = \"c\"", &["more.toml", "site.cedar"]);
        assert_eq!(warnings, Ok(Vec::new()));
        // The first grants file is made by the first grant.
        std::fs::remove_file(temp.path().join("grants.toml")).unwrap();
        let found = look(&temp.path().join("grants.toml"), Kind::File);
        assert_eq!(found, Err(Fault::Missing));
    }

    #[test]
    fn a_folder_or_a_pipe_is_no_file_and_nothing_waits_for_it() {
        let temp = tempfile::tempdir().unwrap();
        let pipe: PathBuf = temp.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert_eq!(look(&pipe, Kind::File), Err(Fault::Unusable("is no regular file".to_owned())));
        assert_eq!(look(temp.path(), Kind::File), Err(Fault::Unusable("is a folder".to_owned())));
        assert_eq!(look(temp.path(), Kind::Folder), Ok(()));
        assert_eq!(look(&pipe, Kind::Folder), Err(Fault::Unusable("is no folder".to_owned())));
    }
}
