//! From the bytes of a request to those of its answer: who asks, who wants in, what policy says, what is signed. No sockets, no
//! files, no clock: all of it can run for many at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use portcullis_identity::callout::{
    Answers, ConnectionKind, CredentialError, Decision, Protocol, Proven, Received, Replays, Request, RequestError,
    Requests, Target,
};
use portcullis_identity::nats_jwt::{AccountName, AccountSigner, Denial, Rights};
use portcullis_identity::{Audience, XKey};
use portcullis_nkey::{KeyPair, Kind, PublicKey};
use portcullis_policies::WorkloadId;
use portcullis_policies::callout::{self as policy, ConnectDenial, ConnectFacts, CredentialKind, Placement, Roles};
use time::OffsetDateTime;

use super::files::Standing;
use super::service::CalloutError;
use super::{keys, rights, scope};
use crate::audit::Record;
use crate::cli::error::shown;
use crate::cli::files::read_text;
use crate::config::callout::{CalloutConfig, Mode, Signer};
use crate::limits::CONFIG_BYTES;

/// Opens requests, decides, makes answers.
#[derive(Debug)]
pub struct Answering {
    requests: Requests,
    answers: Answers,
    audience: Audience,
    replays: Mutex<Replays>,
    /// Operator mode: accounts and roles that there are keys for.
    signers: Option<BTreeSet<(String, Option<String>)>>,
}

/// A request that is a server's, for us, for the first time.
#[derive(Debug)]
pub struct Asked(Request);

/// What became of it.
#[derive(Debug)]
pub enum Verdict {
    /// Not let in.
    Denied(Denied),
    /// Let in, if it is recorded.
    Allowed(Box<Allowed>),
}

/// Why somebody is not let in, and what the server is told.
#[derive(Debug)]
pub struct Denied {
    why: Why,
    answer: Bytes,
}

#[derive(Debug)]
enum Why {
    Credential(CredentialError),
    Revoked(String),
    Policy(Box<ConnectDenial>),
    Unfit(String),
}

/// Somebody who is let in.
#[derive(Debug)]
pub struct Allowed {
    proven: Proven,
    placement: Placement,
    until: OffsetDateTime,
}

impl Answering {
    /// Reads the keys of a configuration.
    pub fn new(config: &CalloutConfig) -> Result<Self, CalloutError> {
        let account_key = |path: &std::path::Path| {
            let text = keys::read(path)?;
            KeyPair::from_seed_of(&text, Kind::Account)
                .map_err(|error| CalloutError::file(path, error.to_string(), error.hint()))
        };
        let xkey = match &config.keys.xkey {
            None => None,
            Some(path) => {
                let key = XKey::from_seed(&keys::read(path)?);
                let key = key.map_err(|error| CalloutError::file(path, error.to_string(), error.hint()))?;
                Some(Arc::new(key))
            }
        };
        let issuer = account_key(&config.keys.issuer)?;
        let wrong =
            |what: &str, why: &dyn std::fmt::Display, hint: &str| CalloutError::config(format!("{what}: {why}"), hint);
        let name = |name: &str| name.parse::<AccountName>().map_err(|error| wrong("accounts", &error, error.hint()));
        let (answers, account, signers) = match config.mode {
            Mode::Accounts => {
                let account = issuer.public();
                let accounts = config.accounts.iter().map(|account| name(account)).collect::<Result<_, _>>()?;
                let mut reserved = BTreeSet::from([name(&config.account)?]);
                if !config.dangers.system_account {
                    reserved.insert(name(&config.system_account)?);
                }
                let issuer =
                    AccountSigner::account(issuer).map_err(|error| wrong("keys.issuer", &error, error.hint()))?;
                let answers = Answers::accounts_mode(issuer, xkey.clone(), accounts, &reserved);
                (answers.map_err(|error| wrong("accounts", &error, error.hint()))?, account, None)
            }
            Mode::Operator => {
                let public = |text: &str, what: &str| {
                    PublicKey::parse(text, Kind::Account).map_err(|error| wrong(what, &error, error.hint()))
                };
                let account = public(&config.account, "account")?;
                let own = issuer.public() == account;
                let issuer =
                    if own { AccountSigner::account(issuer) } else { AccountSigner::signing_key(issuer, account) };
                let issuer = issuer.map_err(|error| wrong("keys.issuer", &error, error.hint()))?;
                let (mut targets, mut known) = (BTreeMap::new(), BTreeSet::new());
                for signer in &config.signers {
                    let of = public(&signer.public, "signer.public")?;
                    let key = account_key(&signer.key)?;
                    let own = key.public() == of;
                    if signer.role.is_some() {
                        is_scoped(signer, of, key.public())?;
                    }
                    let made = if own { AccountSigner::account(key) } else { AccountSigner::signing_key(key, of) };
                    let made = made.map_err(|error| wrong("signer.key", &error, error.hint()))?;
                    let target = match signer.role {
                        None => Target::explicit(made),
                        Some(_) => Target::scoped(made).map_err(|error| wrong("signer.key", &error, error.hint()))?,
                    };
                    known.insert((signer.account.clone(), signer.role.clone()));
                    if targets.insert((name(&signer.account)?, signer.role.clone()), target).is_some() {
                        return Err(CalloutError::config("signer: two for one account and role", "drop one"));
                    }
                }
                let system = config.system_key.as_deref().map(|key| public(key, "system_key")).transpose()?;
                let system = system.filter(|_| !config.dangers.system_account);
                let answers = Answers::operator_mode(issuer, xkey.clone(), targets, system);
                (answers.map_err(|error| wrong("signer", &error, error.hint()))?, account, Some(known))
            }
        };
        let requests = Requests::new(account, xkey).map_err(|error| wrong("account", &error, error.hint()))?;
        // Which of these are let in is policy's to say; the rest is not known.
        let requests = requests.about([
            (ConnectionKind::Client, Protocol::Nats),
            (ConnectionKind::Client, Protocol::Websocket),
            (ConnectionKind::Client, Protocol::Mqtt),
            (ConnectionKind::Leafnode, Protocol::Nats),
            (ConnectionKind::Leafnode, Protocol::Websocket),
        ]);
        let audience: Audience = config.id.parse().map_err(|error| wrong("id", &error, "a SPIFFE ID"))?;
        Ok(Self { requests, answers, audience, replays: Mutex::default(), signers })
    }

    /// Whether there is a key for every role.
    pub fn fits(&self, roles: &Roles) -> Result<(), CalloutError> {
        for role in roles.roles() {
            if self.signer_role(role.account().as_str(), role.id()).is_err() {
                let message = format!("role {}: there is no [[signer]] for the account {}", role.id(), role.account());
                return Err(CalloutError::config(message, "add one, with `role` where its key is scoped to this role"));
            }
        }
        Ok(())
    }

    /// Operator mode: under which role there is a key. The outer `Err`: there is none.
    fn signer_role(&self, account: &str, role: &str) -> Result<Option<String>, ()> {
        let Some(signers) = &self.signers else { return Ok(None) };
        let scoped = (account.to_owned(), Some(role.to_owned()));
        match (signers.contains(&scoped), signers.contains(&(account.to_owned(), None))) {
            (true, _) => Ok(scoped.1),
            (false, true) => Ok(None),
            (false, false) => Err(()),
        }
    }

    /// The request in a message: checked, and for the first time.
    pub fn open(&self, payload: &[u8], xkeys: &[&str], now: OffsetDateTime) -> Result<Asked, RequestError> {
        let request = self.requests.check(&Received { payload, xkeys }, now)?;
        // Held for two look-ups; nothing is left half done in it.
        request.once(&mut self.replays.lock().unwrap_or_else(PoisonError::into_inner), now)?;
        Ok(Asked(request))
    }

    /// Decides.
    pub fn decide(&self, asked: &Asked, standing: &Standing, now: OffsetDateTime) -> Verdict {
        let Asked(request) = asked;
        let denied = |why: Why, denial| Verdict::Denied(Denied { why, answer: self.no(request, denial, now) });
        let proven = match request.prove(&standing.bundles, &self.audience, now) {
            Ok(proven) => proven,
            Err(error) => return denied(Why::Credential(error), Denial::Credential),
        };
        let id = proven.spiffe_id().to_string();
        if standing.revoked.contains(&id) {
            return denied(Why::Revoked(id), Denial::Policy);
        }
        let Ok(workload) = id.parse::<WorkloadId>() else {
            return denied(Why::Unfit(format!("{id} names no workload")), Denial::Policy);
        };
        let mut credentials = BTreeSet::new();
        credentials.extend(proven.x509().then_some(CredentialKind::X509));
        credentials.extend(proven.jwt().map(|_| CredentialKind::Jwt));
        let facts = ConnectFacts {
            workload,
            kind: match request.kind() {
                ConnectionKind::Client => policy::ConnectionKind::Client,
                ConnectionKind::Leafnode => policy::ConnectionKind::Leafnode,
            },
            connection: match request.protocol() {
                Protocol::Nats => policy::ConnectionType::Nats,
                Protocol::Websocket => policy::ConnectionType::Websocket,
                Protocol::Mqtt => policy::ConnectionType::Mqtt,
            },
            ip: request.ip(),
            credentials,
            nkey: proven.nkey().map(|nkey| nkey.key().to_string()),
            nkey_is_bound: proven.nkey().is_some_and(|nkey| nkey.is_bound()),
        };
        let placement = match standing.roles.decide(&facts) {
            Ok(placement) => placement,
            Err(denial) => return denied(Why::Policy(Box::new(denial)), Denial::Policy),
        };
        let until = (now + Duration::from_secs(placement.lifetime())).min(proven.not_after());
        if until < now + LEAST_LIFE {
            return denied(Why::Unfit("its credential ends now".to_owned()), Denial::Credential);
        }
        Verdict::Allowed(Box::new(Allowed { proven, placement, until }))
    }

    /// Whether what was decided would be decided by this standing, too: the same rights, and no earlier end.
    pub fn holds(&self, asked: &Asked, allowed: &Allowed, standing: &Standing, now: OffsetDateTime) -> bool {
        match self.decide(asked, standing, now) {
            Verdict::Denied(_) => false,
            Verdict::Allowed(again) => {
                rights::are_the_same(&allowed.placement, &again.placement) && again.until >= allowed.until
            }
        }
    }

    /// The answer that lets somebody in.
    pub fn allow(&self, asked: &Asked, allowed: &Allowed, now: OffsetDateTime) -> Result<Bytes, String> {
        let Allowed { proven, placement, until } = allowed;
        let account = placement.account().as_str();
        let role =
            self.signer_role(account, placement.role()).map_err(|()| "there is no key for the role".to_owned())?;
        let given = match &role {
            Some(_) => Rights::Scoped(rights::tags(placement)?),
            None => Rights::Explicit(rights::permissions(placement)?),
        };
        let account = account.parse::<AccountName>().map_err(|error| error.to_string())?;
        let decision = Decision { account, role, rights: given, expires_at: *until };
        let answer = self.answers.allow(&asked.0, proven, decision, now).map_err(|error| error.to_string())?;
        Ok(answer.into_payload().into())
    }

    /// The answer where something of ours fails.
    pub fn unavailable(&self, asked: &Asked, now: OffsetDateTime) -> Bytes {
        self.no(&asked.0, Denial::Unavailable, now)
    }

    /// The system account, as servers name it.
    pub fn system_account(&self, config: &CalloutConfig) -> String {
        match config.mode {
            Mode::Accounts => config.system_account.clone(),
            Mode::Operator => config.system_key.clone().unwrap_or_default(),
        }
    }

    /// A no in the fixed words; where even that cannot be made, an empty answer is one too.
    fn no(&self, request: &Request, denial: Denial, now: OffsetDateTime) -> Bytes {
        self.answers.deny(request, denial, now).map(|answer| answer.into_payload().into()).unwrap_or_default()
    }
}

impl Asked {
    /// The server that asks.
    pub fn server(&self) -> PublicKey {
        self.0.server_id()
    }

    /// The connection's number there.
    pub fn connection(&self) -> u64 {
        self.0.client_id()
    }

    fn record_of(&self, kind: &str) -> Record {
        Record::new(kind)
            .field("server", self.server().to_string())
            .field("server_name", cut(&self.0.server().name))
            .field("connection", self.connection())
            .field("ip", self.0.ip().to_string())
            .field("kind_of_connection", self.0.kind().name())
            .field("type", self.0.protocol().name())
            .field("attempt", self.0.user_nkey().to_string())
            .field("claimed_name", cut(self.0.claimed_name()))
    }
}

impl Denied {
    /// For the operator.
    pub fn text(&self) -> String {
        match &self.why {
            Why::Credential(error) => {
                format!("denied: {}\n  fix      {}", shown(&error.to_string()), shown(error.hint()))
            }
            Why::Revoked(id) => format!("denied: `{id}` is revoked"),
            Why::Policy(denial) => denial.to_string(),
            Why::Unfit(why) => format!("denied: {}", shown(why)),
        }
    }

    /// For the audit log.
    pub fn record(&self, asked: &Asked) -> Record {
        let record = asked.record_of("callout-denial").field("text", self.text());
        match &self.why {
            Why::Credential(error) => record.field("code", error.code()),
            Why::Revoked(id) => record.field("code", "revoked").field("workload", id.as_str()),
            Why::Policy(denial) => record
                .field("code", denial.code().as_str())
                .field("denial", serde_json::to_value(denial).unwrap_or_default()),
            Why::Unfit(_) => record.field("code", "unfit"),
        }
    }

    /// The bytes of the answer.
    pub fn answer(self) -> Bytes {
        self.answer
    }
}

impl Allowed {
    /// Who.
    pub fn workload(&self) -> &WorkloadId {
        self.placement.workload()
    }

    /// Until when.
    pub fn until(&self) -> OffsetDateTime {
        self.until
    }

    /// For the audit log.
    pub fn record(&self, asked: &Asked) -> Record {
        asked
            .record_of("callout-allow")
            .field("placement", serde_json::to_value(&self.placement).unwrap_or_default())
            .field("by", self.proven.to_string())
            .field("nkey", self.proven.nkey().map(|nkey| nkey.key().to_string()).unwrap_or_default())
            .field("until", crate::clock::unix_seconds(self.until))
    }
}

/// Demands that the key of a role is a scoped one, by the account's JWT that lies beside it.
fn is_scoped(signer: &Signer, account: PublicKey, key: PublicKey) -> Result<(), CalloutError> {
    let path = signer.jwt.as_deref().ok_or_else(|| CalloutError::config("signer.jwt: is missing beside `role`", ""))?;
    let jwt = read_text(path, CONFIG_BYTES, "account's JWT")
        .map_err(|error| CalloutError::config(error.message(), error.hint().unwrap_or_default()))?;
    scope::check(&jwt, account, key).map_err(|error| CalloutError::file(path, &error, error.hint()))
}

fn cut(text: &str) -> String {
    text.escape_default().take(128).collect()
}

/// A connection that would end at once is not begun.
const LEAST_LIFE: Duration = Duration::from_secs(2);
