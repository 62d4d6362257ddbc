//! `callout.toml`: what the auth callout responder is told by its operator.
//!
//! Read as a whole and checked as a whole: every problem is reported. Unknown keys are problems. Secrets are never in it, only
//! paths. Paths are relative to the file.

mod checks;
mod raw;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_identity::TrustDomain;
use portcullis_policies::callout::{AccountName, Accounts};
use serde::{Deserialize, Serialize};

use self::raw::Raw;
use super::problems::{ConfigError, Problems};

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
    /// The JWT of that user, where servers are in operator mode. Read at each connection.
    #[serde(default)]
    pub jwt: Option<PathBuf>,
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
        let config = checks::checked(raw, path, &mut problems);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CALLOUT_CONCURRENCY_MOST, CALLOUT_DEADLINE_MOST, CALLOUT_WAITING_MOST};

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
            ("nkey = \"keys/callout.nk\"", "creds = \"b\"\njwt = \"login/c\"", "`jwt` without `nkey`"),
            ("nkey = \"keys/callout.nk\"", "nkey = \"keys/c\"\njwt = \"login/c\"", "of operator mode"),
            ("nkey = \"keys/callout.nk\"", "nkey = \"keys/c\"\njwt = \"keys/c.jwt\"", "apart from the seeds"),
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
