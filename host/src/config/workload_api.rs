//! `[workload_api]` and `[[workload]]`: the SPIFFE Workload API for processes beside the host, and which of them have an identity.
//!
//! Deny by default: without an entry that fits a process there is none for it. An entry names the user id and the executable,
//! by its path, its SHA-256, or both; a user id alone is refused, because every process of that user would do.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use portcullis_identity::{Audience, SpiffeId, TrustDomain};
use portcullis_signing::Lifetime;
use serde::{Deserialize, Serialize};

use super::problems::Problems;
use crate::limits::{WORKLOAD_ENTRIES, WORKLOAD_LIST, WORKLOAD_SOCKET_PATH};

/// The socket and the registered entries.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct WorkloadApi {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Its mode, octal.
    pub mode: String,
    /// The group that it is given to: a name or a number.
    pub group: Option<String>,
    /// Serve the WIT-SVID profile, which is incubating.
    pub wit_svid: bool,
    /// The entries, in the order of the file.
    pub workloads: Vec<Entry>,
}

/// One registered process.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Entry {
    /// Names the entry in the audit log.
    pub name: String,
    /// The path of its SPIFFE ID in our trust domain.
    pub spiffe_path: String,
    /// The user that it runs as.
    pub uid: u32,
    /// The group that it runs as; absent: any.
    pub gid: Option<u32>,
    /// Its executable.
    pub executable: Option<PathBuf>,
    /// SHA-256 of its executable, hexadecimal.
    pub sha256: Option<String>,
    /// Audiences that it may have JWT-SVIDs for.
    pub audiences: Vec<Audience>,
    /// Life of its X.509-SVIDs, in seconds; absent: the issuer's.
    pub x509_ttl_seconds: Option<u64>,
    /// Life of its JWT-SVIDs and WIT-SVIDs, in seconds; absent: the issuer's.
    pub jwt_ttl_seconds: Option<u64>,
    /// How the process is to use this identity where it has several.
    pub hint: String,
    /// Foreign trust domains whose bundles it gets.
    pub federates_with: Vec<TrustDomain>,
}

impl WorkloadApi {
    /// The socket's mode as a number.
    pub fn mode_bits(&self) -> u32 {
        u32::from_str_radix(&self.mode, 8).unwrap_or(0o600)
    }
}

impl Entry {
    /// Life of its X.509-SVIDs.
    pub fn x509_ttl(&self, default: Duration) -> Duration {
        self.x509_ttl_seconds.map_or(default, Duration::from_secs)
    }

    /// Life of its JWT-SVIDs.
    pub fn jwt_ttl(&self, default: Duration) -> Duration {
        self.jwt_ttl_seconds.map_or(default, Duration::from_secs)
    }

    /// Its SPIFFE ID.
    pub fn spiffe_id(&self, trust_domain: &TrustDomain) -> Option<SpiffeId> {
        SpiffeId::new(trust_domain, &self.spiffe_path).ok()
    }
}

/// `[workload_api]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawApi {
    socket: PathBuf,
    mode: Option<String>,
    group: Option<String>,
    #[serde(default)]
    wit_svid: bool,
}

/// `[[workload]]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEntry {
    name: String,
    spiffe_path: String,
    uid: u32,
    gid: Option<u32>,
    executable: Option<PathBuf>,
    sha256: Option<String>,
    #[serde(default)]
    audiences: Vec<String>,
    x509_ttl: Option<String>,
    jwt_ttl: Option<String>,
    #[serde(default)]
    hint: String,
    #[serde(default)]
    federates_with: Vec<String>,
}

/// Checks both tables.
pub(super) fn check(
    api: Option<RawApi>,
    entries: Vec<RawEntry>,
    base: &Path,
    trust_domain: Option<&TrustDomain>,
    problems: &mut Problems,
) -> Option<WorkloadApi> {
    let Some(api) = api else {
        if !entries.is_empty() {
            let hint = Some("add [workload_api] with socket = \"...\"");
            problems.add("workload", "there are entries, but no Workload API that would serve them", hint);
        }
        return None;
    };
    let socket = base.join(&api.socket);
    if socket.as_os_str().len() > WORKLOAD_SOCKET_PATH || socket.file_name().is_none() {
        let why = format!("must name a file, with at most {WORKLOAD_SOCKET_PATH} bytes of path");
        problems.add("workload_api.socket", why, None);
    }
    let mode = api.mode.unwrap_or_else(|| "0600".to_owned());
    match u32::from_str_radix(&mode, 8) {
        Ok(bits) if mode.len() == 4 && mode.starts_with('0') && bits & !0o666 == 0 && bits & 0o600 == 0o600 => {}
        _ => problems.add(
            "workload_api.mode",
            format!("`{}` is no mode of a socket", mode.escape_default()),
            Some("\"0600\": this user, \"0660\": the group, \"0666\": everybody may ask; entries decide who gets an answer"),
        ),
    }
    if entries.len() > WORKLOAD_ENTRIES {
        problems.add("workload", format!("there are more than {WORKLOAD_ENTRIES} entries"), None);
    }
    let workloads: Vec<Entry> =
        entries.into_iter().filter_map(|raw| entry(raw, base, trust_domain, problems)).collect();
    together(&workloads, problems);
    Some(WorkloadApi { socket, mode, group: api.group, wit_svid: api.wit_svid, workloads })
}

/// What is wrong between entries.
fn together(entries: &[Entry], problems: &mut Problems) {
    let mut names = BTreeSet::new();
    let mut hints = BTreeSet::new();
    for entry in entries {
        if !names.insert(&entry.name) {
            problems.add("workload.name", format!("there are two entries `{}`", entry.name), None);
        }
        // SPIFFE_Workload_API section 5.2.1: no two SVIDs of one answer have the same hint.
        if !entry.hint.is_empty() && !hints.insert((entry.uid, &entry.hint)) {
            let why = format!("two entries of uid {} have the hint `{}`", entry.uid, entry.hint.escape_default());
            problems.add("workload.hint", why, None);
        }
    }
}

fn entry(raw: RawEntry, base: &Path, trust_domain: Option<&TrustDomain>, problems: &mut Problems) -> Option<Entry> {
    let name = raw.name.escape_default().to_string();
    let mut wrong = |key: &str, why: String, hint: Option<&'static str>| {
        problems.add(&format!("workload.{key}"), format!("{name}: {why}"), hint);
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if raw.name.is_empty() || raw.name.len() > 64 || !raw.name.bytes().all(plain) {
        wrong("name", "is no name".to_owned(), Some("1 to 64 letters, digits, `.`, `_` and `-`"));
    }
    if let Some(Err(error)) = trust_domain.map(|domain| SpiffeId::new(domain, &raw.spiffe_path)) {
        wrong("spiffe_path", error.to_string(), Some("such as /ns/prod/sa/nats-provider"));
    } else if raw.spiffe_path.is_empty() || reserved(&raw.spiffe_path) {
        wrong("spiffe_path", "is empty, or under /portcullis/, where the host's own identities are".to_owned(), None);
    }
    if raw.executable.is_none() && raw.sha256.is_none() {
        let hint = Some("name the executable, its sha256, or both: a uid alone stands for every process of that user");
        wrong("executable", "is missing, and so is sha256".to_owned(), hint);
    }
    let executable = raw.executable.map(|path| base.join(path));
    if let Some(path) = &executable
        && path.components().any(|part| matches!(part, Component::ParentDir | Component::CurDir))
    {
        wrong("executable", "has a `.` or `..` in it".to_owned(), Some("write the path as `readlink -f` gives it"));
    }
    let sha256 = raw.sha256.map(|text| text.strip_prefix("sha256:").unwrap_or(&text).to_owned());
    if let Some(text) = &sha256
        && (text.len() != 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
    {
        wrong(
            "sha256",
            "is no SHA-256".to_owned(),
            Some("64 lower-case hexadecimal digits, as `sha256sum FILE` prints them"),
        );
    }
    let mut audiences = Vec::new();
    for text in &raw.audiences {
        match text.parse::<Audience>() {
            Ok(audience) => audiences.push(audience),
            Err(error) => wrong("audiences", error.to_string(), None),
        }
    }
    let mut federates_with = Vec::new();
    for text in &raw.federates_with {
        match text.parse::<TrustDomain>() {
            Ok(domain) => federates_with.push(domain),
            Err(error) => wrong("federates_with", error.to_string(), None),
        }
    }
    if audiences.len().max(federates_with.len()) > WORKLOAD_LIST {
        wrong("audiences", format!("there are more than {WORKLOAD_LIST} audiences or trust domains"), None);
    }
    if raw.hint.len() > 1024 || raw.hint.chars().any(char::is_control) {
        wrong("hint", "is longer than 1024 bytes, or has control characters".to_owned(), None);
    }
    let mut ttl = |key: &str, text: Option<String>| {
        let parsed = text?.parse::<Lifetime>();
        match parsed {
            Ok(lifetime) => u64::try_from(lifetime.duration().whole_seconds()).ok(),
            Err(error) => {
                wrong(key, error.to_string(), None);
                None
            }
        }
    };
    let (x509_ttl_seconds, jwt_ttl_seconds) = (ttl("x509_ttl", raw.x509_ttl), ttl("jwt_ttl", raw.jwt_ttl));
    Some(Entry {
        name: raw.name,
        spiffe_path: raw.spiffe_path,
        uid: raw.uid,
        gid: raw.gid,
        executable,
        sha256,
        audiences,
        x509_ttl_seconds,
        jwt_ttl_seconds,
        hint: raw.hint,
        federates_with,
    })
}

fn reserved(path: &str) -> bool {
    path == "/portcullis" || path.starts_with("/portcullis/")
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, crate::config::ConfigError> {
        let root =
            portcullis_signing::SecretKey::generate(portcullis_signing::KeyKind::Root).unwrap().public().to_string();
        let minimal = include_str!("tests/minimal.toml").replace("ROOTKEY", &root);
        let path = std::path::Path::new("/etc/portcullis/portcullis.toml");
        Config::parse(&format!("{minimal}\n{text}"), path, std::path::Path::new("/var/lib/portcullis"))
    }

    const API: &str = "[workload_api]\nsocket = \"workload.sock\"\n";
    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn entry(text: &str) -> String {
        format!("{API}[[workload]]\nname = \"a\"\nspiffe_path = \"/ns/a/sa/b\"\nuid = 1000\n{text}\n")
    }

    #[test]
    fn an_entry_has_safe_defaults_and_paths_are_relative_to_the_file() {
        let api = parse(&entry("executable = \"/usr/bin/a\"")).unwrap().workload_api.unwrap();
        assert_eq!(api.socket, std::path::Path::new("/etc/portcullis/workload.sock"));
        assert_eq!((api.mode_bits(), api.wit_svid, api.group), (0o600, false, None));
        let entry = api.workloads.first().unwrap();
        assert!(entry.audiences.is_empty() && entry.federates_with.is_empty() && entry.gid.is_none());
        assert!(parse("").unwrap().workload_api.is_none());
    }

    #[test]
    fn entries_that_say_too_little_or_nonsense_are_refused() {
        let good = format!("sha256 = \"sha256:{SHA256}\"");
        assert!(parse(&entry(&good)).is_ok());
        for (text, wanted) in [
            (entry(""), "every process of that user"),
            (entry("sha256 = \"abc\""), "no SHA-256"),
            (entry(&format!("sha256 = \"{}\"", SHA256.to_uppercase())), "no SHA-256"),
            (entry("executable = \"/usr/../bin/a\""), "readlink -f"),
            (entry(&format!("{good}\naudiences = [\"\"]")), "audience"),
            (entry(&format!("{good}\naudiences = {:?}", vec!["a"; crate::limits::WORKLOAD_LIST + 1])), "audiences or"),
            (entry(&format!("{good}\nx509_ttl = \"soon\"")), "lifetime"),
            (entry(&format!("{good}\nhint = \"a\\nb\"")), "hint"),
            (entry(&format!("{good}\nfederates_with = [\"No Domain\"]")), "federates_with"),
            (entry(&format!("{good}\npath = \"x\"")), "unknown field"),
            (entry(&good).replace("/ns/a/sa/b", "ns"), "spiffe_path"),
            (entry(&good).replace("/ns/a/sa/b", ""), "spiffe_path"),
            (entry(&good).replace("/ns/a/sa/b", "/portcullis/host"), "host's own"),
            (entry(&good).replace("name = \"a\"", "name = \"a b\""), "no name"),
            (entry(&good).replace("uid = 1000", ""), "uid"),
            (entry(&good).replace(API, ""), "no Workload API"),
            (format!("{}{}", entry(&good), entry(&good).replace(API, "")), "two entries"),
            (API.replace("workload.sock", &"x".repeat(200)), "bytes of path"),
            (format!("{API}mode = \"0777\"\n"), "no mode"),
            (format!("{API}mode = \"660\"\n"), "no mode"),
            (format!("{API}mode = \"0066\"\n"), "no mode"),
            (format!("{API}mod = \"0660\"\n"), "unknown field"),
        ] {
            let shown = parse(&text).err().unwrap_or_else(|| panic!("{text} passed")).to_string();
            assert!(shown.contains(wanted), "{wanted} is missing in: {shown}");
        }
    }

    #[test]
    fn hints_of_one_user_differ() {
        let one = format!("sha256 = \"{SHA256}\"\nhint = \"internal\"");
        let second = entry(&one).replace(API, "").replace("name = \"a\"", "name = \"b\"");
        assert!(parse(&format!("{}{second}", entry(&one))).unwrap_err().to_string().contains("the hint `internal`"));
        let other = second.replace("uid = 1000", "uid = 1001");
        assert!(parse(&format!("{}{other}", entry(&one))).is_ok());
    }

    #[test]
    fn more_entries_than_the_limit_are_refused() {
        let many = |count: usize| {
            let entries = (0..count).map(|index| {
                entry(&format!("sha256 = \"{SHA256}\""))
                    .replace(API, "")
                    .replace("name = \"a\"", &format!("name = \"a{index}\""))
            });
            format!("{API}{}", entries.collect::<String>())
        };
        assert!(parse(&many(crate::limits::WORKLOAD_ENTRIES)).is_ok());
        assert!(parse(&many(crate::limits::WORKLOAD_ENTRIES + 1)).unwrap_err().to_string().contains("entries"));
    }
}
