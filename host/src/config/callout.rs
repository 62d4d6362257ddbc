//! `callout.toml`: what the auth callout responder is told by its operator.
//!
//! Read as a whole and checked as a whole: every problem is reported. Unknown keys are problems. Secrets are never in it, only
//! paths. Paths are relative to the file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_identity::TrustDomain;
use portcullis_policies::callout::{AccountName, Accounts};
use serde::{Deserialize, Serialize};

use super::problems::{ConfigError, Problems};
use crate::limits::{CALLOUT_CONCURRENCY_MOST, CALLOUT_DEADLINE_MOST, CALLOUT_WAITING_MOST};

/// A checked configuration.
#[derive(Debug, Clone, Serialize)]
pub struct CalloutConfig {
    /// The file it came from.
    pub path: PathBuf,
    /// How the servers keep accounts.
    pub mode: Mode,
    /// The SPIFFE ID of the callout: the audience that JWT-SVIDs must have.
    pub id: String,
    /// Servers, `nats://HOST:PORT` or `tls://HOST:PORT`.
    pub servers: Vec<String>,
    /// The callout account, by name (accounts mode) or public key (operator mode).
    pub account: String,
    /// Files of roles.
    pub roles: Vec<PathBuf>,
    /// Files of further `forbid`s.
    pub cedar: Vec<PathBuf>,
    /// Where roles may place.
    pub accounts: Vec<String>,
    /// The name of the system account.
    pub system_account: String,
    /// Operator mode: the public key of the system account.
    pub system_key: Option<String>,
    /// Whose connections are ended and who is not let in any more.
    pub revocations: Option<PathBuf>,
    /// The audit log.
    pub state_dir: PathBuf,
    /// How it logs in to the callout account.
    pub login: Login,
    /// How it logs in to the system account.
    pub system: Option<Login>,
    /// What it signs and opens with.
    pub keys: Keys,
    /// Operator mode: the keys of the accounts that roles place into.
    pub signers: Vec<Signer>,
    /// TLS to the servers.
    pub tls: Option<Tls>,
    /// The trust domains whose SVIDs are taken.
    pub trust_domains: Vec<Domain>,
    /// Requests at work at once.
    pub concurrency: usize,
    /// Requests that wait for their turn; more are denied at once.
    pub waiting: usize,
    /// How long a request may take.
    pub deadline: Duration,
    /// Metrics and readiness.
    pub metrics: Option<SocketAddr>,
    /// Knobs that weaken something.
    pub dangers: Dangers,
}

/// How the servers keep accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In their configuration file.
    Accounts,
    /// As JWTs of an operator.
    Operator,
}

/// A login: one of these.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// A user nkey's seed.
    #[serde(default)]
    pub nkey: Option<PathBuf>,
    /// A credentials file.
    #[serde(default)]
    pub creds: Option<PathBuf>,
    /// A certificate of its own, instead of that in `[tls]`.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// The key of that certificate.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// What it signs and opens with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The account's seed (`SA...`) whose public key is `issuer` in the servers' configuration, or of the callout account.
    pub issuer: PathBuf,
    /// The curve's seed (`SX...`) whose public key is `xkey` there.
    #[serde(default)]
    pub xkey: Option<PathBuf>,
}

/// Operator mode: a key of an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// The account's name, as roles have it.
    pub account: String,
    /// Its public key.
    pub public: String,
    /// The seed of a signing key of it.
    pub key: PathBuf,
    /// The role whose scoped signing key it is: the server gives what its template says. Absent: not scoped.
    #[serde(default)]
    pub role: Option<String>,
    /// The JWT of the account, which says that the key of this role is a scoped one.
    #[serde(default)]
    pub jwt: Option<PathBuf>,
}

/// TLS to the servers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Authorities that the servers' certificates must come from.
    pub ca: PathBuf,
    /// A certificate to show.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// TLS before the first byte of NATS, as `handshake_first` on the servers.
    #[serde(default)]
    pub first: bool,
}

/// A trust domain.
#[derive(Debug, Clone, Serialize)]
pub struct Domain {
    /// Its name.
    pub name: TrustDomain,
    /// Its bundle, a SPIFFE bundle document.
    pub bundle: PathBuf,
}

/// Knobs that weaken something.
#[derive(Debug, Clone, Default, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a knob of its own in the file")]
pub struct Dangers {
    /// Credentials and answers cross the network in the clear.
    pub plain_connection: bool,
    /// Requests and answers are not sealed.
    pub no_xkey: bool,
    /// A request of any server key is answered, and revocation ends no connection.
    pub no_system: bool,
    /// Roles may place into the system account.
    pub system_account: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "as the file has them")]
struct Raw {
    version: i64,
    mode: Mode,
    id: String,
    servers: Vec<String>,
    account: String,
    roles: Vec<PathBuf>,
    #[serde(default)]
    cedar: Vec<PathBuf>,
    accounts: Vec<String>,
    #[serde(default = "sys")]
    system_account: String,
    #[serde(default)]
    system_key: Option<String>,
    #[serde(default)]
    revocations: Option<PathBuf>,
    #[serde(default = "state")]
    state_dir: PathBuf,
    login: Login,
    #[serde(default)]
    system: Option<Login>,
    keys: Keys,
    #[serde(default)]
    signer: Vec<Signer>,
    #[serde(default)]
    tls: Option<Tls>,
    trust_domain: Vec<RawDomain>,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    listen: RawListen,
    #[serde(default)]
    danger_plain_connection: bool,
    #[serde(default)]
    danger_no_xkey: bool,
    #[serde(default)]
    danger_no_system: bool,
    #[serde(default)]
    danger_system_account: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDomain {
    name: String,
    bundle: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    concurrency: usize,
    waiting: usize,
    deadline_ms: u64,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawListen {
    #[serde(default)]
    metrics: Option<SocketAddr>,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self { concurrency: 64, waiting: 1024, deadline_ms: 1000 }
    }
}

/// The paths of a file, by what they are for.
struct RawPaths {
    reread: Vec<PathBuf>,
    secrets: Vec<PathBuf>,
}

impl RawPaths {
    fn of(raw: &Raw) -> Self {
        let logins = std::iter::once(&raw.login).chain(&raw.system);
        let logins = logins.flat_map(|login| [&login.nkey, &login.creds]).flatten();
        let signers = raw.signer.iter().map(|signer| &signer.key);
        Self {
            reread: raw.roles.iter().chain(&raw.cedar).chain(&raw.revocations).cloned().collect(),
            secrets: logins.chain(signers).chain([&raw.keys.issuer]).chain(&raw.keys.xkey).cloned().collect(),
        }
    }
}

fn sys() -> String {
    "SYS".to_owned()
}

fn state() -> PathBuf {
    PathBuf::from("state")
}

impl CalloutConfig {
    /// Parses and checks the text of a configuration file that lies at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut problems = Problems::new(path);
        let raw: Raw = match toml::from_str(text) {
            Ok(raw) => raw,
            Err(error) => {
                problems.toml("", text, &error);
                return Err(problems.into_error());
            }
        };
        let config = checked(raw, path, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(problems.into_error()) }
    }

    /// The accounts that roles may place into. Names that are none were refused when the file was read.
    pub fn allowed_accounts(&self) -> Option<Accounts> {
        let names: Result<Vec<AccountName>, _> = self.accounts.iter().map(|name| name.parse()).collect();
        Some(Accounts::new(names.ok()?, self.system_account.parse().ok()?, self.dangers.system_account))
    }
}

impl Dangers {
    /// The names of those that are on.
    pub fn on(&self) -> Vec<&'static str> {
        let knobs = [
            (self.plain_connection, "danger_plain_connection"),
            (self.no_xkey, "danger_no_xkey"),
            (self.no_system, "danger_no_system"),
            (self.system_account, "danger_system_account"),
        ];
        knobs.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect()
    }
}

fn checked(raw: Raw, path: &Path, problems: &mut Problems) -> CalloutConfig {
    let base = path.parent().unwrap_or(Path::new("."));
    let within = |path: PathBuf| base.join(path);
    if raw.version != 1 {
        problems.add("version", format!("is {}, this build reads 1", raw.version), None);
    }
    if raw.id.parse::<portcullis_policies::WorkloadId>().is_err() {
        let hint = "such as spiffe://prod.example/callout: JWT-SVIDs must be made for exactly it";
        problems.add("id", "is not a SPIFFE ID", Some(hint));
    }
    servers(&raw, problems);
    names(&raw, problems);
    if raw.keys.xkey.is_none() && !raw.danger_no_xkey {
        let hint = "make one with `portcullis callout init`, or say danger_no_xkey = true";
        problems.add("keys.xkey", "is missing: credentials would cross the servers' bus in the clear", Some(hint));
    }
    if raw.system.is_none() && !raw.danger_no_system {
        let hint = "give it a user of the system account, or say danger_no_system = true";
        let why = "is missing: servers cannot be told from others, and a revocation ends no connection";
        problems.add("system", why, Some(hint));
    }
    for (name, login) in [("login", Some(&raw.login)), ("system", raw.system.as_ref())] {
        let Some(login) = login else { continue };
        let certificate = login.certificate.is_some() || raw.tls.as_ref().is_some_and(|tls| tls.certificate.is_some());
        match (&login.nkey, &login.creds) {
            (Some(_), Some(_)) => problems.add(name, "has both `nkey` and `creds`", Some("give one")),
            (None, None) if !certificate => {
                problems.add(name, "has neither `nkey`, `creds` nor a certificate", Some("give one"));
            }
            _ => {}
        }
        if login.certificate.is_some() != login.key.is_some() {
            problems.add(name, "has one of `certificate` and `key` without the other", None);
        }
    }
    match raw.mode {
        Mode::Operator if raw.signer.is_empty() => {
            problems.add("signer", "is missing", Some("operator mode needs a [[signer]] for each account"));
        }
        Mode::Operator if raw.system_key.is_none() => {
            let hint = "name the public key (A...) of the system account: nobody is placed there";
            problems.add("system_key", "is missing", Some(hint));
        }
        Mode::Accounts if !raw.signer.is_empty() => {
            problems.add("signer", "is of operator mode", Some("in accounts mode keys.issuer signs for every account"));
        }
        _ => {}
    }
    for signer in &raw.signer {
        match (&signer.role, &signer.jwt) {
            (Some(_), None) => {
                let hint =
                    "name the file of the account's JWT: it says that the key is a scoped one, or nothing confines it";
                problems.add("signer.jwt", "is missing beside `role`", Some(hint));
            }
            (None, Some(_)) => {
                problems.add("signer.role", "is missing beside `jwt`", Some("name the role, or drop both"))
            }
            _ => {}
        }
    }
    if raw.limits.concurrency == 0 || raw.limits.concurrency > CALLOUT_CONCURRENCY_MOST {
        problems.add("limits.concurrency", format!("must be 1 to {CALLOUT_CONCURRENCY_MOST}"), None);
    }
    if raw.limits.waiting > CALLOUT_WAITING_MOST {
        problems.add("limits.waiting", format!("must be 0 to {CALLOUT_WAITING_MOST}"), None);
    }
    let deadline = Duration::from_millis(raw.limits.deadline_ms);
    if deadline < Duration::from_millis(50) || deadline > CALLOUT_DEADLINE_MOST {
        let hint = "it must end before the server's authorization timeout, which must be below 2 s";
        problems.add("limits.deadline_ms", format!("must be 50 to {}", CALLOUT_DEADLINE_MOST.as_millis()), Some(hint));
    }
    let paths = RawPaths::of(&raw);
    let mut trust_domains: Vec<Domain> = Vec::new();
    for RawDomain { name, bundle } in raw.trust_domain {
        match name.parse::<TrustDomain>() {
            Ok(name) if trust_domains.iter().any(|other| other.name == name) => {
                problems.add("trust_domain", format!("{name} is there twice"), None);
            }
            Ok(name) => trust_domains.push(Domain { name, bundle: within(bundle) }),
            Err(error) => problems.add("trust_domain.name", error.to_string(), None),
        }
    }
    if trust_domains.is_empty() {
        problems.add("trust_domain", "is missing", Some("name at least one, with its bundle"));
    }
    secrets_apart(&paths, base, &trust_domains, problems);
    let login = |login: Login| Login {
        nkey: login.nkey.map(within),
        creds: login.creds.map(within),
        certificate: login.certificate.map(within),
        key: login.key.map(within),
    };
    let signer = |signer: Signer| Signer { key: within(signer.key), jwt: signer.jwt.map(within), ..signer };
    CalloutConfig {
        path: path.to_path_buf(),
        mode: raw.mode,
        id: raw.id,
        servers: raw.servers,
        account: raw.account,
        roles: raw.roles.into_iter().map(within).collect(),
        cedar: raw.cedar.into_iter().map(within).collect(),
        accounts: raw.accounts,
        system_account: raw.system_account,
        system_key: raw.system_key,
        revocations: raw.revocations.map(within),
        state_dir: within(raw.state_dir),
        login: login(raw.login),
        system: raw.system.map(login),
        keys: Keys { issuer: within(raw.keys.issuer), xkey: raw.keys.xkey.map(within) },
        signers: raw.signer.into_iter().map(signer).collect(),
        tls: raw.tls.map(|tls| Tls {
            ca: within(tls.ca),
            certificate: tls.certificate.map(within),
            key: tls.key.map(within),
            first: tls.first,
        }),
        trust_domains,
        concurrency: raw.limits.concurrency,
        waiting: raw.limits.waiting,
        deadline,
        metrics: raw.listen.metrics,
        dangers: Dangers {
            plain_connection: raw.danger_plain_connection,
            no_xkey: raw.danger_no_xkey,
            no_system: raw.danger_no_system,
            system_account: raw.danger_system_account,
        },
    }
}

/// What is read again must lie in folders without seeds: the fence lets a running callout into those folders as a whole.
fn secrets_apart(raw: &RawPaths, base: &Path, domains: &[Domain], problems: &mut Problems) {
    let reread =
        raw.reread.iter().map(|path| base.join(path)).chain(domains.iter().map(|domain| domain.bundle.clone()));
    for path in reread {
        let Some(folder) = path.parent() else { continue };
        if let Some(secret) =
            raw.secrets.iter().map(|secret| base.join(secret)).find(|secret| secret.starts_with(folder))
        {
            let why = format!("{} lies in a folder that holds {}", path.display(), secret.display());
            problems.add(
                "roles, cedar, revocations, bundle",
                why,
                Some("keep what is read again apart from the seeds"),
            );
        }
    }
}

fn servers(raw: &Raw, problems: &mut Problems) {
    if raw.servers.is_empty() {
        problems.add("servers", "is empty", Some("name at least one, such as tls://nats.example:4222"));
    }
    for server in &raw.servers {
        let address = server.strip_prefix("tls://").or_else(|| server.strip_prefix("nats://"));
        if address.is_none_or(|address| address.is_empty() || address.contains(['@', '/', '?', '#', ' '])) {
            let why = format!("`{}` is not tls://HOST:PORT or nats://HOST:PORT", server.escape_default());
            problems.add("servers", why, Some("credentials are never part of it"));
        }
    }
    if let Some(tls) = &raw.tls
        && tls.certificate.is_some() != tls.key.is_some()
    {
        problems.add("tls", "has one of `certificate` and `key` without the other", None);
    }
    if raw.tls.is_none() && !raw.danger_plain_connection {
        let hint = "name the authority of the servers' certificates in [tls] ca, or say danger_plain_connection = true";
        problems.add("tls", "is missing: whoever is on the way could answer for the callout", Some(hint));
    }
}

fn names(raw: &Raw, problems: &mut Problems) {
    for name in raw.accounts.iter().chain([&raw.system_account]) {
        if let Err(error) = name.parse::<AccountName>() {
            problems.add("accounts", format!("`{}`: {error}", name.escape_default()), None);
        }
    }
    if raw.accounts.is_empty() {
        problems.add("accounts", "is empty", Some("name the accounts that roles may place into"));
    }
    if raw.accounts.contains(&raw.account) {
        let why = format!("{} is the callout's own account: one more user in it could forge requests", raw.account);
        problems.add("accounts", why, Some("keep exactly one user in the callout account"));
    }
    if raw.roles.is_empty() {
        problems.add("roles", "is empty", Some("name a file of [[role]] entries"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if raw.account.is_empty() || !raw.account.bytes().all(plain) || raw.account == raw.system_account {
        problems.add("account", "is not the name or key of an account of the callout's own", None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"version = 1
mode = "accounts"
id = "spiffe://td-a.test/callout"
servers = ["tls://nats.example:4222"]
account = "AUTH"
accounts = ["APP"]
roles = ["policy/roles.toml"]
[login]
nkey = "keys/callout.nk"
[system]
nkey = "keys/revoker.nk"
[keys]
issuer = "keys/issuer.nk"
xkey = "keys/callout.xk"
[tls]
ca = "ca.pem"
[[trust_domain]]
name = "td-a.test"
bundle = "policy/td-a.json"
"#;

    fn parse(text: &str) -> Result<CalloutConfig, ConfigError> {
        CalloutConfig::parse(text, Path::new("/etc/callout/callout.toml"))
    }

    #[test]
    fn paths_are_relative_to_the_file_and_defaults_are_the_safe_ones() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.keys.issuer, Path::new("/etc/callout/keys/issuer.nk"));
        assert_eq!((config.concurrency, config.deadline), (64, Duration::from_secs(1)));
        assert!(config.dangers.on().is_empty() && config.metrics.is_none());
        assert_eq!(config.system_account, "SYS");
    }

    #[test]
    fn every_problem_is_listed_and_each_weakness_needs_its_knob() {
        for (from, to, says) in [
            ("version = 1", "version = 2", "version"),
            ("spiffe://td-a.test/callout", "callout", "not a SPIFFE ID"),
            ("tls://nats.example:4222", "nats://user:pass@nats.example", "credentials are never part"),
            ("[\"tls://nats.example:4222\"]", "[]", "servers"),
            ("[\"APP\"]", "[\"$G\"]", "nobody is ever placed in $G"),
            ("[\"APP\"]", "[]", "accounts"),
            ("\"AUTH\"", "\"SYS\"", "account"),
            ("[tls]\nca = \"ca.pem\"\n", "", "danger_plain_connection"),
            ("xkey = \"keys/callout.xk\"\n", "", "danger_no_xkey"),
            ("[system]\nnkey = \"keys/revoker.nk\"\n", "", "danger_no_system"),
            ("nkey = \"keys/callout.nk\"", "", "login"),
            ("nkey = \"keys/callout.nk\"", "nkey = \"a\"\ncreds = \"b\"", "both"),
            ("\"accounts\"", "\"operator\"", "[[signer]]"),
            ("policy/roles.toml", "roles.toml", "apart from the seeds"),
            ("ca = \"ca.pem\"", "ca = \"ca.pem\"\nkey = \"k\"", "without the other"),
            ("name = \"td-a.test\"", "name = \"t d\"", "trust_domain"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{to}: {error}");
        }
        let two = GOOD.replace("version = 1", "version = 2").replace("[\"APP\"]", "[]");
        assert!(parse(&two).unwrap_err().to_string().lines().count() >= 3);
    }

    #[test]
    fn a_key_for_a_role_comes_with_the_jwt_of_its_account() {
        let signer = |more: &str| {
            let text =
                GOOD.replacen("\"accounts\"", "\"operator\"", 1).replacen("[login]", "system_key = \"A\"\n[login]", 1);
            parse(&format!("{text}[[signer]]\naccount = \"APP\"\npublic = \"A\"\nkey = \"keys/hosts.nk\"\n{more}"))
        };
        assert!(signer("").is_ok());
        let config = signer("role = \"hosts\"\njwt = \"keys/app.jwt\"\n").unwrap();
        let jwt = config.signers.iter().find_map(|signer| signer.jwt.as_deref());
        assert_eq!(jwt, Some(Path::new("/etc/callout/keys/app.jwt")));
        assert!(signer("role = \"hosts\"\n").unwrap_err().to_string().contains("signer.jwt"));
        assert!(signer("jwt = \"keys/app.jwt\"\n").unwrap_err().to_string().contains("signer.role"));
    }

    #[test]
    fn limits_have_ends() {
        let limits = |text: &str| parse(&format!("{GOOD}[limits]\n{text}\n"));
        assert!(limits(&format!("concurrency = {CALLOUT_CONCURRENCY_MOST}")).is_ok());
        assert!(limits(&format!("concurrency = {}", CALLOUT_CONCURRENCY_MOST + 1)).is_err());
        assert!(limits("concurrency = 0").is_err());
        assert!(limits(&format!("waiting = {CALLOUT_WAITING_MOST}")).is_ok());
        assert!(limits(&format!("waiting = {}", CALLOUT_WAITING_MOST + 1)).is_err());
        assert!(limits(&format!("deadline_ms = {}", CALLOUT_DEADLINE_MOST.as_millis())).is_ok());
        assert!(limits(&format!("deadline_ms = {}", CALLOUT_DEADLINE_MOST.as_millis() + 1)).is_err());
        assert!(limits("deadline_ms = 49").is_err());
    }
}
