//! What is wrong with a file, all of it at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_identity::TrustDomain;
use portcullis_policies::callout::AccountName;

use super::raw::{Raw, RawDomain};
use super::{CalloutConfig, Dangers, Domain, Keys, Login, Mode, Signer, Tls};
use crate::config::problems::Problems;
use crate::limits::{CALLOUT_CONCURRENCY_MOST, CALLOUT_DEADLINE_MOST, CALLOUT_WAITING_MOST};

/// Checks what was read; whatever is wrong is added to the problems.
pub(super) fn checked(raw: Raw, path: &Path, problems: &mut Problems) -> CalloutConfig {
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
        if login.jwt.is_some() && login.nkey.is_none() {
            problems.add(name, "has `jwt` without `nkey`", Some("name the seed of the JWT's user"));
        }
        if login.jwt.is_some() && raw.mode == Mode::Accounts {
            let hint = "servers that keep accounts in their file know the user by its nkey";
            problems.add(name, "has `jwt`, which is of operator mode", Some(hint));
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
        jwt: login.jwt.map(within),
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
                "roles, cedar, revocations, bundle, jwt",
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
        let tokens = std::iter::once(&raw.login).chain(&raw.system).filter_map(|login| login.jwt.as_ref());
        Self {
            reread: raw.roles.iter().chain(&raw.cedar).chain(&raw.revocations).chain(tokens).cloned().collect(),
            secrets: logins.chain(signers).chain([&raw.keys.issuer]).chain(&raw.keys.xkey).cloned().collect(),
        }
    }
}
