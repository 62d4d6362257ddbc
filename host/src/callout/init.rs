//! What a site begins with: a NATS server's configuration with the least that works, the callout's, the keys of both, and first
//! roles. Every line that is a choice says why. Pure but for the randomness of new keys: what to write comes out, nothing is
//! written here.

mod operator;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use portcullis_identity::XKey;
use portcullis_identity::nats_jwt::{AccountName, JetStreamLimits};
use portcullis_nkey::{KeyPair, Kind};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::cli::cluster::{of_host, of_operator};
use crate::config::callout::Mode;
use crate::control::inbox;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// How the servers keep accounts.
    pub mode: Mode,
    /// The SPIFFE ID of the callout.
    pub id: String,
    /// The account of the workloads.
    pub account: String,
    /// The cluster whose hosts the first role is for.
    pub cluster: String,
    /// The SPIFFE ID of an operator of that cluster, where there is to be a role for one.
    pub operator: Option<String>,
    /// Where the server listens.
    pub listen: String,
    /// Where the callout finds it, and others like it.
    pub servers: Vec<String>,
    /// Where the server keeps streams; `None`: without JetStream.
    pub store: Option<PathBuf>,
    /// Operator mode: days that the credentials of callout, revoker and sentinel are good for.
    pub days: u32,
    /// Trust domains, each with its bundle.
    pub trust_domains: Vec<(String, String)>,
    /// The authorities of clients, for the server.
    pub ca: PathBuf,
    /// The authority of the server, for the callout.
    pub server_ca: PathBuf,
    /// The server's certificate and key.
    pub server_certificate: (PathBuf, PathBuf),
    /// What hosts show.
    pub shown: Shown,
}

/// What hosts show of themselves.
#[derive(Debug, Clone)]
pub enum Shown {
    /// An X.509-SVID in the handshake. The server asks everybody for a certificate: the callout, too, has one and its key.
    X509(PathBuf, PathBuf),
    /// A JWT-SVID that names the nkey which signs the server's nonce. The server asks nobody for a certificate.
    Jwt,
}

/// A file to be written, relative to the folder.
#[derive(Debug)]
pub struct Made {
    /// Where.
    pub path: String,
    /// What. A secret or not, it is wiped.
    pub text: Zeroizing<String>,
}

/// Why nothing can be made. Says who erred.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A value cannot stand in a configuration file.
    #[error("`{0}` has a character that a configuration file would read as something else")]
    Character(String),
    /// A name is none.
    #[error("{what}: {why}")]
    Name {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// Our own error, or the machine's.
    #[error("the keys cannot be made: {0}")]
    Keys(String),
}

/// Everything that a site begins with.
pub fn make(wanted: &Wanted, now: OffsetDateTime) -> Result<Vec<Made>, InitError> {
    let paths = [&wanted.ca, &wanted.server_ca, &wanted.server_certificate.0, &wanted.server_certificate.1];
    let own = match &wanted.shown {
        Shown::X509(certificate, key) => vec![certificate, key],
        Shown::Jwt => Vec::new(),
    };
    let texts = paths.into_iter().chain(own).map(|path| path.display().to_string());
    let texts = texts.chain(wanted.servers.iter().cloned()).chain([wanted.id.clone(), wanted.listen.clone()]);
    let texts = texts.chain(wanted.store.iter().map(|path| path.display().to_string())).chain(wanted.operator.clone());
    for text in texts.chain([wanted.account.clone(), wanted.cluster.clone()]) {
        if text.is_empty() || text.contains(['"', '\\', '\'', '$', '\n']) || text.chars().any(char::is_control) {
            return Err(InitError::Character(text.escape_default().to_string()));
        }
    }
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if wanted.cluster.len() > 63 || !wanted.cluster.bytes().all(token) {
        return Err(InitError::Name { what: "cluster", why: "not 1 to 63 of a-z, 0-9 and -".to_owned() });
    }
    let account: AccountName = wanted.account.parse().map_err(|error: portcullis_identity::nats_jwt::NameError| {
        InitError::Name { what: "account", why: error.to_string() }
    })?;
    if ["AUTH", "SYS"].contains(&account.as_str()) {
        let why = "AUTH and SYS are made for the callout and the system".to_owned();
        return Err(InitError::Name { what: "account", why });
    }
    let mut files = match wanted.mode {
        Mode::Accounts => accounts(wanted)?,
        Mode::Operator => operator::files(wanted, account, now)?,
    };
    files.push(made("policy/roles.toml", roles(wanted)?));
    files.push(made("policy/revoked.toml", REVOKED.to_owned()));
    for (name, bundle) in &wanted.trust_domains {
        files.push(made(&format!("policy/{name}.json"), bundle.clone()));
    }
    Ok(files)
}

/// Operator mode: when the credentials end.
pub fn ends(wanted: &Wanted, now: OffsetDateTime) -> OffsetDateTime {
    now + std::time::Duration::from_secs(u64::from(wanted.days) * 86_400)
}

fn accounts(wanted: &Wanted) -> Result<Vec<Made>, InitError> {
    let (issuer, callout, revoker) = (pair(Kind::Account)?, pair(Kind::User)?, pair(Kind::User)?);
    let xkey = XKey::generate().map_err(keys)?;
    let text = fill(
        ACCOUNTS,
        wanted,
        &[
            ("ISSUER", issuer.public().to_string()),
            ("CALLOUT", callout.public().to_string()),
            ("REVOKER", revoker.public().to_string()),
            ("XKEY", xkey.public().to_string()),
        ],
    );
    let config = [
        ("MODE", "accounts".to_owned()),
        ("OWN", "AUTH".to_owned()),
        ("SYSTEM_KEY", String::new()),
        ("LOGIN", "nkey = \"keys/callout.nk\"".to_owned()),
        ("SYSTEM", "nkey = \"keys/revoker.nk\"".to_owned()),
        ("SIGNERS", String::new()),
    ];
    Ok(vec![
        made("server.conf", text),
        made("callout.toml", fill(CALLOUT, wanted, &config) + &domains(wanted)),
        secret("keys/issuer.nk", issuer.seed()),
        secret("keys/callout.nk", callout.seed()),
        secret("keys/revoker.nk", revoker.seed()),
        secret("keys/callout.xk", xkey.seed()),
    ])
}

/// What a host of the cluster may publish and hear: the same list that `cluster init` prints.
fn subjects(wanted: &Wanted) -> Result<(Vec<String>, Vec<String>), InitError> {
    let cluster = wanted.cluster.parse().map_err(keys)?;
    Ok(of_host(&cluster, "{host}"))
}

fn roles(wanted: &Wanted) -> Result<String, InitError> {
    let (publish, subscribe) = subjects(wanted)?;
    let list = |subjects: &[String]| {
        subjects.iter().fold(String::new(), |mut text, subject| {
            let _ = writeln!(text, "    \"{subject}\",");
            text
        })
    };
    let domain = wanted.trust_domains.first().map(|(name, _)| name.as_str()).unwrap_or_default();
    let hosts = ROLES
        .replace("@DOMAIN@", domain)
        .replace("@ACCOUNT@", &wanted.account)
        .replace("@PUBLISH@", list(&publish).trim_end())
        .replace("@SUBSCRIBE@", list(&subscribe).trim_end())
        .replace("@CREDENTIAL@", if matches!(wanted.shown, Shown::Jwt) { JWT_ROLE } else { "" });
    let Some(operator) = &wanted.operator else { return Ok(hosts) };
    let (publish, subscribe) = of_operator(&wanted.cluster.parse().map_err(keys)?, &inbox::prefix(operator));
    let operators = OPERATORS
        .replace("@OPERATOR@", operator)
        .replace("@CLUSTER@", &wanted.cluster)
        .replace("@ACCOUNT@", &wanted.account)
        .replace("@PUBLISH@", list(&publish).trim_end())
        .replace("@SUBSCRIBE@", list(&subscribe).trim_end());
    Ok(hosts + &operators)
}

fn domains(wanted: &Wanted) -> String {
    wanted.trust_domains.iter().fold(String::new(), |mut text, (name, _)| {
        let _ = write!(text, "\n[[trust_domain]]\nname = \"{name}\"\nbundle = \"policy/{name}.json\"\n");
        text
    })
}

fn fill(template: &str, wanted: &Wanted, values: &[(&str, String)]) -> String {
    let path = |path: &PathBuf| path.display().to_string();
    let (clients, own) = match &wanted.shown {
        Shown::X509(certificate, key) => (
            format!("  ca_file: \"{}\"\n  verify: true\n", path(&wanted.ca)),
            format!("certificate = \"{}\"\nkey = \"{}\"\n", path(certificate), path(key)),
        ),
        Shown::Jwt => (String::new(), String::new()),
    };
    let common = [
        ("ID", wanted.id.clone()),
        ("ACCOUNT", wanted.account.clone()),
        ("LISTEN", wanted.listen.clone()),
        ("SERVERS", wanted.servers.iter().map(|server| format!("\"{server}\"")).collect::<Vec<_>>().join(", ")),
        ("JETSTREAM", wanted.store.as_deref().map(jetstream).unwrap_or_default()),
        ("ACCOUNT_STREAMS", if wanted.store.is_some() { account_streams() } else { String::new() }),
        ("ABOUT_CLIENTS", if matches!(wanted.shown, Shown::Jwt) { ABOUT_JWT } else { ABOUT_X509 }.to_owned()),
        ("CLIENTS", clients),
        ("SERVER_CA", path(&wanted.server_ca)),
        ("SERVER_CERTIFICATE", path(&wanted.server_certificate.0)),
        ("SERVER_KEY", path(&wanted.server_certificate.1)),
        ("CERTIFICATE", own),
    ];
    let all =
        common.iter().map(|(name, value)| (*name, value)).chain(values.iter().map(|(name, value)| (*name, value)));
    all.fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

fn jetstream(store: &Path) -> String {
    format!(
        "\n# The buckets of a cluster are streams. `portcullis cluster init` makes them.\njetstream {{ store_dir: \"{}\" }}\n",
        store.display()
    )
}

/// The same limits that operator mode writes into the account's JWT.
fn account_streams() -> String {
    let JetStreamLimits { memory, disk, streams, consumers } = STREAMS;
    format!(
        " jetstream: {{ max_memory: {memory}, max_file: {disk}, max_streams: {streams}, max_consumers: {consumers} }} "
    )
}

fn made(path: &str, text: String) -> Made {
    Made { path: path.to_owned(), text: Zeroizing::new(text) }
}

fn secret(path: &str, text: Zeroizing<String>) -> Made {
    Made { path: path.to_owned(), text }
}

fn pair(kind: Kind) -> Result<KeyPair, InitError> {
    KeyPair::generate(kind).map_err(keys)
}

fn keys(error: impl std::fmt::Display) -> InitError {
    InitError::Keys(error.to_string())
}

const ACCOUNTS: &str = include_str!("init/accounts.conf");
const CALLOUT: &str = include_str!("init/callout.toml");
const ABOUT_X509: &str = "\
verify: every client shows a certificate of ca_file; the callout checks it again, by trust domain,
# because a server keeps the authorities of all of them in one pool. Clients without certificates need a listener of their own.";
const ABOUT_JWT: &str = "\
No certificate is asked for: clients show a JWT-SVID that names an nkey, and sign the nonce of their
# connection with it, so that the token alone opens nothing. With verify: true a server turns away whoever has no certificate.";
/// For the role of hosts.
const JWT_ROLE: &str = "\
# A JWT-SVID for the callout's `id`, with the host's nkey as a second audience. Never danger_bearer: then it is good for whoever has it.
credential = \"jwt\"
";
const ROLES: &str = include_str!("init/roles.toml");
const OPERATORS: &str = include_str!("init/operators.toml");
const REVOKED: &str = include_str!("init/revoked.toml");
/// What the workloads' account may use of JetStream: the buckets of a cluster are four small streams.
const STREAMS: JetStreamLimits = JetStreamLimits { memory: 64 << 20, disk: 1 << 30, streams: 32, consumers: 256 };
