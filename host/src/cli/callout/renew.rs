//! `portcullis callout renew DIR`: everything is looked at first, and nothing written where something is not as it must be. Each
//! file is replaced in one step and is good beside the old ones of the others, so that a stop half-way leaves a site that works. One
//! pair of files cannot be replaced in one step: a certificate with a new key. A stop between the two is mended by the same command.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use portcullis_identity::nats_jwt::AccountSigner;
use portcullis_nkey::{KeyPair, Kind, PublicKey};
use portcullis_policies::nats_server::Value;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::certificates::{self, New, Place};
use super::init::{VALID_DAYS, shown};
use super::server_file::ServerFile;
use crate::callout::keys;
use crate::callout::renew::{RenewError, token, with_sentinel};
use crate::callout::site_user::SiteUser;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::{examples, files};
use crate::config::callout::{CalloutConfig, Login, Mode};
use crate::limits::CONFIG_BYTES;

/// Arguments of `portcullis callout renew`.
#[derive(Debug, clap::Args)]
#[command(after_help = examples::CALLOUT_RENEW)]
pub struct RenewArgs {
    /// The folder that `callout init` wrote, with server.conf and callout.toml.
    dir: PathBuf,
    /// Operator mode: days that the new JWTs are good for, 1 to 3650. Otherwise 365.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    valid: Option<u32>,
    /// Operator mode: the folder with the accounts' keys. Otherwise DIR/offline.
    #[arg(long, value_name = "DIR")]
    offline: Option<PathBuf>,
    /// A new certificate of the server, PEM: it takes the place of the one that server.conf names.
    #[arg(long, value_name = "FILE")]
    server_certificate: Option<PathBuf>,
    /// Its key, PEM, where it is another one than before.
    #[arg(long, value_name = "FILE", requires = "server_certificate")]
    server_key: Option<PathBuf>,
    /// A new certificate of the callout, PEM: it takes the place of the one that callout.toml names.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Its key, PEM, where it is another one than before.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Look at everything and say what would be done; write nothing.
    #[arg(long)]
    dry_run: bool,
}

/// A file that is to be replaced.
#[derive(Debug)]
pub struct Step {
    /// What it is.
    pub what: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// What is to stand there.
    pub bytes: Zeroizing<Vec<u8>>,
    /// When what is there ends.
    pub before: Option<OffsetDateTime>,
    /// When the new one does.
    pub until: Option<OffsetDateTime>,
}

/// What there is to do, and what is left as it is.
#[derive(Debug, Default)]
struct Plan {
    steps: Vec<Step>,
    notes: Vec<String>,
}

/// Runs the command.
pub fn run(args: &RenewArgs, out: &mut Output) -> Result<(), CliError> {
    let now = crate::clock::now();
    let path = args.dir.join("callout.toml");
    let absolute = std::path::absolute(&path).map_err(CliError::internal)?;
    let text = files::read_text(&path, CONFIG_BYTES, "configuration")?;
    let config = CalloutConfig::parse(&text, &absolute)
        .map_err(|error| CliError::usage(error.to_string()).with_hint("mend what is listed; nothing was written"))?;
    let server = ServerFile::read(&args.dir.join("server.conf"))?;
    let mut plan = Plan::default();
    match config.mode {
        Mode::Operator => tokens(args, &config, &server, now, &mut plan)?,
        Mode::Accounts if args.valid.is_some() || args.offline.is_some() => {
            let hint = "in accounts mode the callout logs in with nkeys, which have no end; certificates have one";
            return Err(CliError::usage("--valid and --offline are of operator mode").with_hint(hint));
        }
        Mode::Accounts => {}
    }
    let places = (Place::of_server(&server.map), Place::of_callout(&config));
    let missing = |option: &str, what: &str| {
        CliError::usage(format!("{option}: {what} names no certificate and key to put it in the place of"))
            .with_hint("give whole paths in `tls` there, or put it in place by hand")
    };
    if let Some(certificate) = &args.server_certificate {
        let place = places.0.as_ref().ok_or_else(|| missing("--server-certificate", "server.conf"))?;
        let new = New { certificate, key: args.server_key.as_deref() };
        plan.steps.extend(place.take(new, |pair| certificates::server(&config, pair, now), now)?);
    }
    if let Some(certificate) = &args.certificate {
        let place = places.1.as_ref().ok_or_else(|| missing("--certificate", "callout.toml"))?;
        let new = New { certificate, key: args.key.as_deref() };
        plan.steps.extend(place.take(new, |pair| certificates::client(&server.map, pair, now), now)?);
    }
    for step in &plan.steps {
        if step.path.is_symlink() {
            let message = format!("{} is a link: nothing was written", step.path.display());
            return Err(CliError::usage(message).with_hint("renew the file where it lies, or put the file itself here"));
        }
    }
    // When the others end, which whoever issued them renews.
    let given = [args.server_certificate.is_some(), args.certificate.is_some()];
    let others = [places.0, places.1].into_iter().zip(given).filter(|(_, given)| !given);
    for (what, end) in others.filter_map(|(place, _)| place.and_then(|place| place.end())) {
        plan.notes.push(format!("{what} ends {}: have whoever issued it issue a new one", shown(end)));
    }
    if !args.dry_run {
        for step in &plan.steps {
            files::replace(&step.path, &step.bytes)?;
        }
    }
    report(args, &plan, out)
}

/// The logins' tokens and the sentinel, in an order that does not matter: each is good beside the old ones of the others.
fn tokens(
    args: &RenewArgs,
    config: &CalloutConfig,
    server: &ServerFile,
    now: OffsetDateTime,
    plan: &mut Plan,
) -> Result<(), CliError> {
    let until = now + std::time::Duration::from_secs(u64::from(args.valid.unwrap_or(VALID_DAYS)) * 86_400);
    let offline = args.offline.clone().unwrap_or_else(|| args.dir.join("offline"));
    let auth = account(&offline.join("account-auth.nk"), &config.account, "account")?;
    let system =
        account(&offline.join("account-sys.nk"), config.system_key.as_deref().unwrap_or_default(), "system_key")?;
    let logins = [
        ("login", SiteUser::Callout, Some(&config.login), &auth),
        ("system", SiteUser::Revoker, config.system.as_ref(), &system),
    ];
    for (name, user, login, signer) in logins {
        let Some((path, key)) = login.and_then(|login| login.jwt.as_ref().zip(key_of(login))) else {
            plan.notes.push(format!("[{name}] of callout.toml has no `jwt`: what it logs in with is left as it is"));
            continue;
        };
        let old = files::read_text(path, CONFIG_BYTES, "login's JWT")?;
        let new = token(user, &old, Some(key?), signer, until, now).map_err(|error| refused(path, &error))?;
        let bytes = Zeroizing::new(format!("{}\n", new.jwt).into_bytes());
        let what = if user == SiteUser::Callout { "the callout's login" } else { "its login in the system account" };
        plan.steps.push(Step { what, path: path.clone(), bytes, before: new.before, until: Some(until) });
    }
    let path = args.dir.join("server.conf");
    match server.map.get(&["default_sentinel"]) {
        None => plan.notes.push("server.conf has no default_sentinel".to_owned()),
        Some(Value::Text(old)) => {
            let new =
                token(SiteUser::Sentinel, old, None, &auth, until, now).map_err(|error| refused(&path, &error))?;
            let text = with_sentinel(&server.text, old.trim(), &new.jwt).map_err(|error| refused(&path, &error))?;
            let bytes = Zeroizing::new(text.into_bytes());
            let what = "default_sentinel, and nothing else in the file";
            plan.steps.push(Step { what, path, bytes, before: new.before, until: Some(until) });
        }
        Some(_) => return Err(refused(&path, &RenewError::Place(0))),
    }
    Ok(())
}

/// The public key of a login, from its seed.
fn key_of(login: &Login) -> Option<Result<PublicKey, CliError>> {
    let path = login.nkey.as_ref()?;
    let read = || {
        let seed = keys::read(path)?;
        let key = KeyPair::from_seed_of(&seed, Kind::User)
            .map_err(|error| CliError::usage(format!("{}: {error}", path.display())).with_hint(error.hint()))?;
        Ok(key.public())
    };
    Some(read())
}

/// The key of an account, which must be the one that callout.toml names.
fn account(path: &Path, public: &str, named: &str) -> Result<AccountSigner, CliError> {
    if !path.exists() {
        let message = format!("{} is not there: nothing was written", path.display());
        let hint = "bring the offline folder of the site back to this machine, or name it with --offline; `callout init` wrote it";
        return Err(CliError::usage(message).with_hint(hint));
    }
    let wrong = |why: String, hint: &str| CliError::usage(format!("{}: {why}", path.display())).with_hint(hint);
    let key = KeyPair::from_seed_of(&keys::read(path)?, Kind::Account)
        .map_err(|error| wrong(error.to_string(), error.hint()))?;
    if key.public().to_string() != public {
        let why = format!("it is the key of the account {}, and `{named}` of callout.toml is {public}", key.public());
        return Err(wrong(why, "bring the offline folder of this very site"));
    }
    AccountSigner::account(key).map_err(|error| wrong(error.to_string(), error.hint()))
}

fn refused(path: &Path, error: &RenewError) -> CliError {
    CliError::usage(format!("{}: {error}; nothing was written", path.display())).with_hint(error.hint())
}

fn report(args: &RenewArgs, plan: &Plan, out: &mut Output) -> Result<(), CliError> {
    let dir = args.dir.display();
    let mut text = match (plan.steps.is_empty(), args.dry_run) {
        (true, _) => format!("{dir}: there is nothing to renew"),
        (false, true) => format!("{dir}: this would be renewed, and nothing was written:"),
        (false, false) => format!("{dir}: renewed:"),
    };
    let mut renewed = Vec::new();
    for step in &plan.steps {
        let (before, until) = (step.before.map(shown), step.until.map(shown));
        let _ = write!(text, "\n  {}  {}", step.path.display(), step.what);
        if let (Some(before), Some(until)) = (&before, &until) {
            let _ = write!(text, "\n    ends {until} (before: {before})");
        }
        renewed.push(serde_json::json!({ "path": step.path, "what": step.what, "before": before, "ends": until }));
    }
    for note in &plan.notes {
        let _ = write!(text, "\nnote: {note}");
    }
    if !plan.steps.is_empty() {
        let _ = write!(
            text,
            "\n\nnext:\n  put server.conf and what else is new on each server, and `nats-server --signal reload` there\n  \
             callouts read their JWTs and certificates at their next connection; those on other machines need the new files\n  \
             portcullis callout check {dir}/server.conf --callout {dir}/callout.toml"
        );
        if args.offline.is_none() && args.dir.join("offline").exists() {
            text.push_str("\ntake offline/ away from this machine again");
        }
    }
    let json = serde_json::json!({
        "dir": args.dir, "dry_run": args.dry_run, "renewed": renewed, "notes": plan.notes,
    });
    out.result(text, &json)
}
