//! What a site begins with: a NATS server's configuration with the least that works, the callout's, the keys of both, and first
//! roles. Every line that is a choice says why. Pure but for the randomness of new keys: what to write comes out, nothing is
//! written here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use portcullis_identity::XKey;
use portcullis_identity::nats_jwt::{
    AccountName, AccountSigner, AccountToken, CalloutBlock, Creds, JetStreamLimits, OperatorToken, Permissions, Queue,
    Responses, Rights, SigningKey, Subject, SubjectTemplate, Subscription, UserName, UserToken,
};
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
    /// The callout's own certificate and key.
    pub certificate: (PathBuf, PathBuf),
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
    let paths = [
        &wanted.ca,
        &wanted.server_ca,
        &wanted.server_certificate.0,
        &wanted.server_certificate.1,
        &wanted.certificate.0,
        &wanted.certificate.1,
    ];
    let texts = paths.iter().map(|path| path.display().to_string());
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
        Mode::Operator => operator(wanted, account, now)?,
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

fn operator(wanted: &Wanted, account: AccountName, now: OffsetDateTime) -> Result<Vec<Made>, InitError> {
    let operator = pair(Kind::Operator)?;
    let (system, auth, apps) = (pair(Kind::Account)?, pair(Kind::Account)?, pair(Kind::Account)?);
    let (issuer, hosts, operators) = (pair(Kind::Account)?, pair(Kind::Account)?, pair(Kind::Account)?);
    let (callout, revoker, sentinel) = (pair(Kind::User)?, pair(Kind::User)?, pair(Kind::User)?);
    let xkey = XKey::generate().map_err(keys)?;
    let name = |text: &str| text.parse::<AccountName>().map_err(keys);
    let operator_token = OperatorToken::new(name("operator")?, system.public()).map_err(keys)?;
    let operator_token = operator_token.sign(&operator, false, now).map_err(keys)?;
    let block = CalloutBlock {
        auth_users: vec![callout.public()],
        allowed_accounts: vec![apps.public()],
        xkey: Some(xkey.public()),
    };
    let auth_token = AccountToken::new(auth.public(), name("AUTH")?)
        .and_then(|token| token.signing_keys(vec![SigningKey::Unscoped(issuer.public())]))
        .and_then(|token| token.callout(block))
        .and_then(|token| token.sign(&operator, now))
        .map_err(keys)?;
    let scope = SigningKey::Scoped { key: hosts.public(), role: "hosts".to_owned(), template: template(wanted)? };
    let mut scopes = vec![scope];
    if wanted.operator.is_some() {
        let (role, template) = ("operators".to_owned(), operators_template(wanted)?);
        scopes.push(SigningKey::Scoped { key: operators.public(), role, template });
    }
    let apps_token = AccountToken::new(apps.public(), account)
        .map(|token| if wanted.store.is_some() { token.jetstream(STREAMS) } else { token })
        .and_then(|token| token.signing_keys(scopes))
        .and_then(|token| token.sign(&operator, now))
        .map_err(keys)?;
    let system_token =
        AccountToken::new(system.public(), name("SYS")?).and_then(|token| token.sign(&operator, now)).map_err(keys)?;
    let (system_key, auth_key, apps_key) = (system.public(), auth.public(), apps.public());
    let until = ends(wanted, now);
    let user = |name: &str, key: &KeyPair, rights: Permissions, bearer: bool, signer: &AccountSigner| {
        let name: UserName = name.parse().map_err(keys)?;
        let token = UserToken::new(key.public(), name, Rights::Explicit(rights), until).map_err(keys)?;
        let token = if bearer { token.danger_bearer() } else { token };
        token.sign(signer, now).map_err(keys)
    };
    let (auth_signer, system_signer) =
        (AccountSigner::account(auth).map_err(keys)?, AccountSigner::account(system).map_err(keys)?);
    let callout_token = user("callout", &callout, callout_rights()?, false, &auth_signer)?;
    let revoker_token = user("revoker", &revoker, revoker_rights()?, false, &system_signer)?;
    let sentinel_token = user("sentinel", &sentinel, Permissions::none(), true, &auth_signer)?;
    let creds = |token: &str, key: KeyPair| Creds::new(token, key).map(|creds| creds.to_text()).map_err(keys);
    let scoped = made("keys/account-apps.jwt", format!("{apps_token}\n"));
    let values = [
        ("OPERATOR_JWT", operator_token),
        ("SYSTEM_KEY", system_key.to_string()),
        ("AUTH_KEY", auth_key.to_string()),
        ("APPS_KEY", apps_key.to_string()),
        ("SYSTEM_JWT", system_token),
        ("AUTH_JWT", auth_token),
        ("APPS_JWT", apps_token),
        ("SENTINEL", sentinel_token),
    ];
    let mut signers = String::new();
    let _ = write!(
        signers,
        "\n# The key that places hosts into {}: the server gives what the key's template says, whatever the token says.\n\
         [[signer]]\naccount = \"{}\"\npublic = \"{apps_key}\"\nkey = \"keys/hosts.nk\"\nrole = \"hosts\"\njwt = \"keys/account-apps.jwt\"\n",
        wanted.account, wanted.account
    );
    if wanted.operator.is_some() {
        let _ = write!(
            signers,
            "\n# The same for operators of the cluster.\n[[signer]]\naccount = \"{}\"\npublic = \"{apps_key}\"\nkey = \"keys/operators.nk\"\n\
             role = \"operators\"\njwt = \"keys/account-apps.jwt\"\n",
            wanted.account
        );
    }
    let config = [
        ("MODE", "operator".to_owned()),
        ("OWN", auth_key.to_string()),
        ("SYSTEM_KEY", format!("system_key = \"{system_key}\"\n")),
        ("LOGIN", "creds = \"keys/callout.creds\"".to_owned()),
        ("SYSTEM", "creds = \"keys/revoker.creds\"".to_owned()),
        ("SIGNERS", signers),
    ];
    let operators = wanted.operator.is_some().then(|| secret("keys/operators.nk", operators.seed()));
    let files = vec![
        made("server.conf", fill(OPERATOR, wanted, &values)),
        made("callout.toml", fill(CALLOUT, wanted, &config) + &domains(wanted)),
        secret("keys/issuer.nk", issuer.seed()),
        secret("keys/hosts.nk", hosts.seed()),
        scoped,
        secret("keys/callout.xk", xkey.seed()),
        secret("keys/callout.creds", creds(&callout_token, callout)?),
        secret("keys/revoker.creds", creds(&revoker_token, revoker)?),
        secret("offline/operator.nk", operator.seed()),
        secret("offline/account-apps.nk", apps.seed()),
    ];
    Ok(files.into_iter().chain(operators).collect())
}

/// What a host of the cluster may publish and hear: the same list that `cluster init` prints.
fn subjects(wanted: &Wanted) -> Result<(Vec<String>, Vec<String>), InitError> {
    let cluster = wanted.cluster.parse().map_err(keys)?;
    Ok(of_host(&cluster, "{host}"))
}

fn template(wanted: &Wanted) -> Result<Permissions<SubjectTemplate>, InitError> {
    let (publish, subscribe) = subjects(wanted)?;
    let scoped = |text: &String| text.replace("{host}", "{{tag(host)}}").parse::<SubjectTemplate>().map_err(keys);
    let publish = publish.iter().map(scoped).collect::<Result<_, _>>()?;
    let subscribe = subscribe.iter().map(|text| scoped(text).map(|subject| Subscription { subject, queue: None }));
    let answers = Responses::new(1, std::time::Duration::from_secs(150));
    Permissions::new(publish, subscribe.collect::<Result<_, _>>()?, Some(answers)).map_err(keys)
}

/// What an operator of the cluster may publish and hear: the same list that `cluster init` prints.
fn operators_template(wanted: &Wanted) -> Result<Permissions<SubjectTemplate>, InitError> {
    let who = wanted.operator.as_deref().unwrap_or_default();
    let (publish, subscribe) = of_operator(&wanted.cluster.parse().map_err(keys)?, &inbox::prefix(who));
    let literal = |text: &String| text.parse::<SubjectTemplate>().map_err(keys);
    let publish = publish.iter().map(literal).collect::<Result<_, _>>()?;
    let subscribe = subscribe.iter().map(|text| literal(text).map(|subject| Subscription { subject, queue: None }));
    Permissions::new(publish, subscribe.collect::<Result<_, _>>()?, None).map_err(keys)
}

fn callout_rights() -> Result<Permissions, InitError> {
    let queue: Queue = "callout".parse().map_err(keys)?;
    let subscribe = vec![
        Subscription { subject: subject("$SYS.REQ.USER.AUTH")?, queue: Some(queue) },
        Subscription { subject: subject("_INBOX_callout.>")?, queue: None },
    ];
    let answers = Responses::new(1, std::time::Duration::from_secs(3));
    Permissions::new(vec![subject("$SYS.REQ.USER.INFO")?], subscribe, Some(answers)).map_err(keys)
}

fn revoker_rights() -> Result<Permissions, InitError> {
    let publish = REVOKER_SUBJECTS.iter().map(|text| subject(text)).collect::<Result<_, _>>()?;
    let subscribe = vec![Subscription { subject: subject("_INBOX_callout.>")?, queue: None }];
    Permissions::new(publish, subscribe, None).map_err(keys)
}

fn subject(text: &str) -> Result<Subject, InitError> {
    text.parse().map_err(keys)
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
        .replace("@SUBSCRIBE@", list(&subscribe).trim_end());
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
    let common = [
        ("ID", wanted.id.clone()),
        ("ACCOUNT", wanted.account.clone()),
        ("LISTEN", wanted.listen.clone()),
        ("SERVERS", wanted.servers.iter().map(|server| format!("\"{server}\"")).collect::<Vec<_>>().join(", ")),
        ("JETSTREAM", wanted.store.as_deref().map(jetstream).unwrap_or_default()),
        ("ACCOUNT_STREAMS", if wanted.store.is_some() { account_streams() } else { String::new() }),
        ("CA", path(&wanted.ca)),
        ("SERVER_CA", path(&wanted.server_ca)),
        ("SERVER_CERTIFICATE", path(&wanted.server_certificate.0)),
        ("SERVER_KEY", path(&wanted.server_certificate.1)),
        ("CERTIFICATE", path(&wanted.certificate.0)),
        ("KEY", path(&wanted.certificate.1)),
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
const OPERATOR: &str = include_str!("init/operator.conf");
const CALLOUT: &str = include_str!("init/callout.toml");
const ROLES: &str = include_str!("init/roles.toml");
const OPERATORS: &str = include_str!("init/operators.toml");
const REVOKED: &str = include_str!("init/revoked.toml");
const REVOKER_SUBJECTS: [&str; 5] = [
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "$SYS.REQ.SERVER.*.CONNZ",
    "$SYS.REQ.SERVER.*.KICK",
];
/// What the workloads' account may use of JetStream: the buckets of a cluster are four small streams.
const STREAMS: JetStreamLimits = JetStreamLimits { memory: 64 << 20, disk: 1 << 30, streams: 32, consumers: 256 };
