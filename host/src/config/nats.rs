//! `[nats]`: the servers, whom the host believes there, and how it proves who it is.
//!
//! TLS is not optional: a server is named `tls://`, and the authority that its certificate comes from is named beside it. A
//! connection without TLS exists on the loopback alone, behind a `danger_` knob. Secrets are files that nobody else can read.

mod server;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use portcullis_identity::{Audience, SpiffeId};
use serde::{Deserialize, Serialize};

use self::server::check_server;
use super::problems::Problems;
use crate::limits::NATS_SERVERS;

/// `[nats]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawNats")]
pub struct Nats {
    /// `tls://HOST[:PORT]`, tried in turn.
    pub servers: Vec<String>,
    /// Whom the host believes.
    pub tls: NatsTls,
    /// The connection of the host itself: commands, state, events.
    #[serde(flatten)]
    pub host: NatsLink,
    /// The connection of the runtime: messages of components. Absent: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<NatsLink>,
    /// Allow `nats://` without TLS, to servers on the loopback.
    pub danger_plaintext: bool,
}

/// The keys of `[nats]`, those of the host's own link beside the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNats {
    servers: Vec<String>,
    #[serde(default)]
    tls: NatsTls,
    account: String,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    inbox_prefix: Option<String>,
    #[serde(default)]
    auth: NatsAuth,
    #[serde(default)]
    data: Option<NatsLink>,
    #[serde(default)]
    danger_plaintext: bool,
}

/// `[nats.tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsTls {
    /// The authorities of the servers' certificates, PEM. Read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Instead: every public authority that this system trusts.
    pub system_roots: bool,
    /// TLS before anything else is said, for servers with `handshake_first`.
    pub first: bool,
    /// The servers' SPIFFE ID, where they have X.509-SVIDs; then their names are not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<SpiffeId>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsLink {
    /// The account that it must land in: its name, or its key (`A...`) in operator mode.
    pub account: String,
    /// The user that it must be for the server; `*`: any. Absent: with an SVID the SPIFFE ID, any else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Subjects of replies begin with it. Absent: one of the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox_prefix: Option<String>,
    /// How it proves who it is.
    #[serde(default)]
    pub auth: NatsAuth,
}

/// `[nats.auth]`: a certificate for TLS, something for CONNECT, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsAuth {
    /// TLS: the X.509-SVID of the host.
    pub svid: bool,
    /// TLS: a certificate chain, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// TLS: the key of `certificate`, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// CONNECT: a credentials file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// CONNECT: a file with the seed of an nkey, alone or beside `jwt_audience`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nkey: Option<PathBuf>,
    /// CONNECT: a JWT-SVID of the host for this audience, as the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt_audience: Option<String>,
    /// CONNECT: a user name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// CONNECT: a file with the password of `user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<PathBuf>,
    /// CONNECT: a file with a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<PathBuf>,
}

impl From<RawNats> for Nats {
    fn from(raw: RawNats) -> Self {
        let RawNats { servers, tls, account, user, inbox_prefix, auth, data, danger_plaintext } = raw;
        Self { servers, tls, host: NatsLink { account, user, inbox_prefix, auth }, data, danger_plaintext }
    }
}

impl Nats {
    /// Resolves paths against the folder of the configuration file and says what is wrong.
    pub(super) fn check(mut self, base: &Path, problems: &mut Problems) -> Self {
        if self.servers.is_empty() || self.servers.len() > NATS_SERVERS {
            let why = format!("must name 1 to {NATS_SERVERS} servers");
            problems.add("nats.servers", why, Some("such as [\"tls://nats.example.org:4222\"]"));
        }
        for server in &self.servers {
            if let Err((why, hint)) = check_server(server, self.danger_plaintext) {
                problems.add("nats.servers", format!("`{}` {why}", server.escape_default()), Some(hint));
            }
        }
        self.tls.check(base, self.danger_plaintext, problems);
        self.host.check("nats", base, problems);
        if let Some(data) = &mut self.data {
            data.check("nats.data", base, problems);
        }
        if self.danger_plaintext && self.links().any(|link| link.auth.presents_certificate()) {
            let hint = "use tls:// and leave danger_plaintext out";
            problems.add("nats.auth", "a certificate cannot be shown without TLS", Some(hint));
        }
        self
    }

    /// Says which secrets others can read. The host starts all the same and does not use them.
    pub(super) fn check_files(&self, problems: &mut Problems) {
        self.host.auth.check_files("nats.auth", problems);
        if let Some(data) = &self.data {
            data.auth.check_files("nats.data.auth", problems);
        }
    }

    /// Both connections.
    pub fn links(&self) -> impl Iterator<Item = &NatsLink> {
        std::iter::once(&self.host).chain(&self.data)
    }

    /// The folders with secrets, for the fence of the process that reads them.
    pub fn secret_folders(&self) -> Vec<PathBuf> {
        let files = self.links().flat_map(|link| link.auth.files());
        files.filter_map(|file| file.parent().map(Path::to_path_buf)).collect()
    }
}

impl NatsTls {
    fn check(&mut self, base: &Path, plaintext: bool, problems: &mut Problems) {
        self.ca = self.ca.take().map(|path| base.join(path));
        let given = self.ca.is_some() || self.system_roots;
        if plaintext {
            if *self != Self::default() {
                let hint = "use tls:// and leave danger_plaintext out";
                problems.add("nats.tls", "has no meaning with danger_plaintext", Some(hint));
            }
        } else if !given {
            let hint = "name the PEM file of the authority that issued the servers' certificates; system_roots = true for a service with a public certificate";
            problems.add("nats.tls.ca", "is missing: anybody could be the server", Some(hint));
        } else if self.ca.is_some() && self.system_roots {
            problems.add("nats.tls", "has ca and system_roots: which is it?", Some("leave one of them out"));
        }
        if self.server_id.as_ref().is_some_and(|id| !id.has_path()) {
            let hint = "give the SPIFFE ID with its path, such as spiffe://example.org/nats";
            problems.add("nats.tls.server_id", "is a trust domain, not a server", Some(hint));
        }
        if self.server_id.is_some() && self.system_roots {
            let hint = "name the authority of that trust domain with ca";
            problems.add("nats.tls.server_id", "is vouched for by no public authority", Some(hint));
        }
    }
}

impl NatsLink {
    fn check(&mut self, key: &str, base: &Path, problems: &mut Problems) {
        let account = &self.account;
        if account.is_empty() || account.len() > MOST_NAME || account.contains(char::is_whitespace) {
            problems.add(&format!("{key}.account"), "is no name of an account", None);
        } else if account.starts_with('$') {
            let hint =
                "give the host an account of its own: who shares $G or the system account is not fenced in at all";
            problems.add(&format!("{key}.account"), format!("must not be `{}`", account.escape_default()), Some(hint));
        }
        let svid = self.auth.svid || self.auth.jwt_audience.is_some();
        if let Some(user) = &self.user {
            let name = format!("{key}.user");
            if user.is_empty() || user.len() > MOST_NAME {
                problems.add(&name, "is no name of a user", None);
            } else if self.auth.svid && user.contains('=') {
                let hint =
                    "have the server map SPIFFE IDs (verify_and_map) and remove users that are named by a subject";
                problems.add(&name, "is a subject, and all SVIDs may have the same", Some(hint));
            } else if svid && user.starts_with("spiffe://") && user.parse::<SpiffeId>().is_err() {
                problems.add(&name, "is no SPIFFE ID", None);
            }
        }
        if let Some(prefix) = &self.inbox_prefix
            && let Err(why) = check_inbox(prefix)
        {
            let hint = "one to four tokens of letters, digits, `_` and `-`, such as _INBOX_h1";
            problems.add(&format!("{key}.inbox_prefix"), why, Some(hint));
        }
        self.auth.check(&format!("{key}.auth"), base, problems);
    }

    /// The user that it must be for the server, where that is to be checked. `own` is the host's SPIFFE ID.
    pub fn expected_user(&self, own: &SpiffeId) -> Option<String> {
        match self.user.as_deref() {
            Some("*") => None,
            Some(user) => Some(user.to_owned()),
            None => (self.auth.svid || self.auth.jwt_audience.is_some()).then(|| own.to_string()),
        }
    }
}

impl NatsAuth {
    /// Whether TLS shows a certificate.
    pub fn presents_certificate(&self) -> bool {
        self.svid || self.certificate.is_some()
    }

    /// Whether it is an SVID of this host that is shown, in TLS or as the token.
    pub fn is_svid(&self) -> bool {
        self.svid || self.jwt_audience.is_some()
    }

    /// Every file that it is made of.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.certificate.iter().map(PathBuf::as_path).chain(self.secrets().map(|(_, path)| path))
    }

    /// The same with their keys.
    pub(super) fn named_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.certificate.iter().map(|path| ("certificate", path.as_path())).chain(self.secrets())
    }

    fn secrets(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [
            ("key", &self.key),
            ("credentials", &self.credentials),
            ("nkey", &self.nkey),
            ("password", &self.password),
            ("token", &self.token),
        ];
        files.into_iter().filter_map(|(name, path)| Some((name, path.as_deref()?)))
    }

    fn check(&mut self, key: &str, base: &Path, problems: &mut Problems) {
        let files = [
            &mut self.certificate,
            &mut self.key,
            &mut self.credentials,
            &mut self.nkey,
            &mut self.password,
            &mut self.token,
        ];
        for path in files {
            *path = path.take().map(|path| base.join(path));
        }
        if self.certificate.is_some() != self.key.is_some() {
            problems.add(key, "certificate and key belong together", Some("give both, or leave both out"));
        }
        if self.svid && self.certificate.is_some() {
            problems.add(key, "has svid and certificate: which is shown?", Some("leave one of them out"));
        }
        if self.user.is_some() != self.password.is_some() {
            problems.add(key, "user and password belong together", Some("give both, or leave both out"));
        }
        let connect = [
            ("credentials", self.credentials.is_some()),
            ("jwt_audience", self.jwt_audience.is_some()),
            ("nkey", self.nkey.is_some() && self.jwt_audience.is_none()),
            ("user", self.user.is_some()),
            ("token", self.token.is_some()),
        ];
        let given: Vec<_> = connect.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
        if given.len() > 1 {
            let why = format!("has {}: the server would take one of them", given.join(" and "));
            problems.add(key, why, Some("keep the one that the server expects"));
        }
        if given.is_empty() && !self.presents_certificate() {
            let hint = "such as nkey or credentials; a host also svid = true";
            problems.add(key, "has nothing that proves who connects", Some(hint));
        }
        if let Some(audience) = &self.jwt_audience
            && let Err(error) = audience.parse::<Audience>()
        {
            problems.add(&format!("{key}.jwt_audience"), error.to_string(), None);
        }
    }

    fn check_files(&self, key: &str, problems: &mut Problems) {
        for (name, path) in self.secrets() {
            if let Some(why) = readable_by_others(path) {
                problems.add(&format!("{key}.{name}"), why, Some("chmod 600 it, and think of its secret as known"));
            }
        }
    }
}

/// Says so if somebody else can read a file. One that is not there is not read by anybody; the host waits for it.
pub(super) fn readable_by_others(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.mode() & 0o7777;
    (mode & 0o077 != 0).then(|| format!("{}: others can read it (mode {mode:04o})", path.display()))
}

/// A prefix that is one's own: everybody may listen to `_INBOX.>` where nobody thought of it.
fn check_inbox(prefix: &str) -> Result<(), &'static str> {
    let tokens: Vec<&str> = prefix.split('.').collect();
    let plain =
        |token: &&str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    if tokens.len() > MOST_INBOX_TOKENS || prefix.len() > MOST_NAME || !tokens.iter().all(plain) {
        return Err("is no prefix of a subject");
    }
    match tokens.first() {
        Some(&"_INBOX") => Err("is everybody's: who may listen to _INBOX.> reads the host's replies"),
        Some(&"portcullis") => Err("is reserved for the host's own subjects"),
        _ => Ok(()),
    }
}

/// Longest name of an account, a user or an inbox.
const MOST_NAME: usize = 512;
/// Tokens of a prefix.
const MOST_INBOX_TOKENS: usize = 4;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read_in(base: &Path, text: &str) -> (Option<Nats>, String) {
        let mut problems = Problems::new(&base.join("portcullis.toml"));
        let nats = match toml::from_str::<Nats>(text) {
            Ok(nats) => nats.check(base, &mut problems),
            Err(error) => return (None, error.to_string()),
        };
        nats.check_files(&mut problems);
        (Some(nats), if problems.is_empty() { String::new() } else { problems.into_error().to_string() })
    }

    fn problems(text: &str) -> String {
        read_in(Path::new("/etc/p"), text).1
    }

    fn with(auth: &str) -> String {
        format!("servers = [\"tls://n.example:4222\"]\naccount = \"APP\"\ntls.ca = \"ca.pem\"\n{auth}\n")
    }

    #[test]
    fn every_way_to_prove_who_one_is_can_be_configured() {
        for auth in [
            "auth.svid = true",
            "auth.certificate = \"c.pem\"\nauth.key = \"k.pem\"",
            "auth.credentials = \"h.creds\"",
            "auth.nkey = \"h.seed\"",
            "auth.jwt_audience = \"nats\"",
            "auth.jwt_audience = \"nats\"\nauth.nkey = \"h.seed\"",
            "auth.jwt_audience = \"nats\"\nauth.svid = true",
            "auth.user = \"h\"\nauth.password = \"h.pass\"",
            "auth.token = \"h.token\"",
        ] {
            assert_eq!(problems(&with(auth)), "", "{auth}");
        }
        let (nats, _) = read_in(Path::new("/etc/p"), &with("auth.credentials = \"h.creds\"\ntls.first = true"));
        let nats = nats.unwrap();
        assert_eq!(nats.host.auth.credentials.as_deref(), Some(Path::new("/etc/p/h.creds")));
        assert_eq!(nats.tls.ca.as_deref(), Some(Path::new("/etc/p/ca.pem")));
        assert_eq!(nats.secret_folders(), [Path::new("/etc/p")]);
    }

    #[test]
    fn what_would_be_insecure_is_refused_with_its_reason() {
        let svid = "auth.svid = true";
        for (text, why) in [
            (with(svid).replace("tls.ca = \"ca.pem\"", ""), "anybody could be the server"),
            (with(svid).replace("tls.ca = \"ca.pem\"", "tls.ca = \"ca.pem\"\ntls.system_roots = true"), "which is it?"),
            (with(svid).replace("tls://", "nats://"), "whoever is in between"),
            (with(svid).replace("tls://", "tls://user:pass@"), "has a secret in it"),
            (with(svid).replace("tls://", "wss://"), "is a websocket"),
            (with(svid).replace("tls://", "http://"), "is no server"),
            (with(svid).replace(":4222", ":0"), "is no server"),
            (with(svid).replace(":4222", "/path"), "is no server"),
            (with(svid).replace("\"tls://n.example:4222\"", ""), "1 to 16 servers"),
            (with(svid).replace("\"APP\"", "\"$G\""), "must not be `$G`"),
            (with(svid).replace("\"APP\"", "\"$SYS\""), "must not be `$SYS`"),
            (with(svid).replace("\"APP\"", "\"A B\""), "no name of an account"),
            (with(&format!("{svid}\nuser = \"CN=host,O=SPIRE\"")), "is a subject"),
            (with(&format!("{svid}\nuser = \"spiffe://A B/\"")), "is no SPIFFE ID"),
            (with(&format!("{svid}\ninbox_prefix = \"_INBOX\"")), "is everybody's"),
            (with(&format!("{svid}\ninbox_prefix = \"_INBOX.h1\"")), "is everybody's"),
            (with(&format!("{svid}\ninbox_prefix = \"portcullis.x\"")), "is reserved"),
            (with(&format!("{svid}\ninbox_prefix = \"a.*\"")), "no prefix of a subject"),
            (with(&format!("{svid}\ninbox_prefix = \"a.>\"")), "no prefix of a subject"),
            (with(&format!("{svid}\ntls.server_id = \"spiffe://example.org\"")), "is a trust domain"),
            (with(""), "nothing that proves"),
            (with("auth.certificate = \"c.pem\""), "belong together"),
            (with("auth.user = \"h\""), "belong together"),
            (with("auth.svid = true\nauth.certificate = \"c\"\nauth.key = \"k\""), "which is shown"),
            (with("auth.token = \"t\"\nauth.credentials = \"c\""), "credentials and token"),
            (with("auth.nkey = \"t\"\nauth.token = \"c\""), "nkey and token"),
            (with("auth.password = \"p\"\nauth.user = \"u\"\nauth.jwt_audience = \"n\""), "jwt_audience and user"),
            (with("auth.secret = \"p\""), "unknown field"),
            (with("auth.svid = true\nverify = false"), "unknown field"),
        ] {
            let found = problems(&text);
            assert!(found.contains(why), "{text}: {found}");
        }
    }

    #[test]
    fn a_connection_without_tls_stays_on_this_machine() {
        let plain = |server: &str| {
            format!("servers = [\"{server}\"]\naccount = \"APP\"\ndanger_plaintext = true\nauth.token = \"t\"\n")
        };
        for server in ["nats://127.0.0.1:4222", "nats://[::1]:4222", "nats://localhost"] {
            assert_eq!(problems(&plain(server)), "", "{server}");
        }
        for (server, why) in [
            ("nats://10.0.0.1", "not on this machine"),
            ("nats://localhost.example.org", "not on this machine"),
            ("tls://127.0.0.1", "says otherwise"),
        ] {
            assert!(problems(&plain(server)).contains(why), "{server}");
        }
        let certificate = plain("nats://localhost").replace("auth.token = \"t\"", "auth.svid = true");
        assert!(problems(&certificate).contains("without TLS"));
    }

    #[test]
    fn secrets_that_others_can_read_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.creds");
        std::fs::write(&path, "secret").unwrap();
        for (mode, fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o666, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = read_in(dir.path(), &with("auth.credentials = \"h.creds\"")).1;
            assert_eq!(found.is_empty(), fine, "{mode:o}: {found}");
            assert_eq!(found.contains("others can read it"), !fine);
        }
    }

    #[test]
    fn the_most_servers_pass_and_one_more_is_refused() {
        let many = |count: usize| {
            let servers: Vec<_> = (0..count).map(|i| format!("\"tls://n{i}.example\"")).collect();
            with("auth.svid = true").replace("\"tls://n.example:4222\"", &servers.join(","))
        };
        assert_eq!(problems(&many(NATS_SERVERS)), "");
        assert!(problems(&many(NATS_SERVERS + 1)).contains("1 to 16 servers"));
    }

    #[test]
    fn with_an_svid_the_user_must_be_the_spiffe_id_unless_said_otherwise() {
        let own = "spiffe://example.org/portcullis/host".parse().unwrap();
        let user = |more: &str| read_in(Path::new("/"), &with(more)).0.unwrap().host.expected_user(&own);
        assert_eq!(user("auth.svid = true").as_deref(), Some("spiffe://example.org/portcullis/host"));
        assert_eq!(user("auth.svid = true\nuser = \"*\""), None);
        assert_eq!(user("auth.token = \"t\""), None);
        assert_eq!(user("auth.token = \"t\"\nuser = \"bob\"").as_deref(), Some("bob"));
    }
}
