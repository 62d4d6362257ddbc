//! `[[role]]`: who may connect, from where and with what, into which account, with which subjects, for how long.
//!
//! ```toml
//! version = 1
//!
//! [[role]]
//! id = "hosts"                                          # unique
//! reason = "hosts of the cluster"
//! owner = "team-platform"
//! who = "spiffe://prod.example/portcullis/host/{host}"  # a SPIFFE ID, or a template; {host} is a token [a-z0-9-]{1,63}
//! account = "APP"
//! publish = ["portcullis.prod.hb.{host}"]               # nothing else; an empty list is nothing at all
//! subscribe = ["portcullis.prod.ctl.{host}.>", "_INBOX_{host}.>", "jobs.> workers"]   # with a queue group after a space
//! responses = 1                                         # may answer requests so often ..
//! responses_within = "3s"                               # .. for so long
//! lifetime = "1h"                                       # then it connects anew; never longer than its SVID lives
//! sources = ["10.0.0.0/8"]                              # absent: from anywhere
//! kinds = ["client"]                                    # or leafnode
//! types = ["nats"]                                      # or websocket, mqtt
//! credential = "x509"                                   # or jwt, both, either
//! nkeys = ["U.."]                                       # a JWT-SVID that names no nkey itself comes with one of these
//! ```
//!
//! A JWT-SVID is good for whoever has it. So it must name the client's nkey, in an audience `nkey:U..`, or the role must; the
//! client signs the server's nonce with it. `danger_bearer = true` does without.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::facts::{AccountName, Accounts, ConnectionKind, ConnectionType};
use super::role_lint;
use super::subjects::{QueueName, SubjectTemplate};
use super::who::Who;
use crate::grants::{is_id, is_line};
use crate::limits::{
    ID_BYTES, OWNER_BYTES, REASON_BYTES, ROLE_LIFETIME_LEAST, ROLE_LIFETIME_MOST, ROLE_RESPONSES,
    ROLE_RESPONSES_WITHIN, ROLE_SOURCES, ROLE_SUBJECTS, ROLES,
};
use crate::shown;
use crate::source::{LoadError, Places, Source};

/// One role, checked.
#[derive(Debug, Clone)]
pub struct Role {
    pub(super) id: String,
    pub(super) reason: String,
    pub(super) owner: String,
    pub(super) who: Who,
    pub(super) account: AccountName,
    pub(super) publish: Vec<SubjectTemplate>,
    pub(super) subscribe: Vec<(SubjectTemplate, Option<QueueName>)>,
    pub(super) responses: Option<Responses>,
    pub(super) lifetime: u64,
    pub(super) sources: Vec<IpNet>,
    pub(super) kinds: BTreeSet<ConnectionKind>,
    pub(super) types: BTreeSet<ConnectionType>,
    pub(super) credential: Demand,
    pub(super) nkeys: BTreeSet<String>,
    pub(super) dangers: Dangers,
    pub(super) source: String,
    pub(super) line: usize,
}

/// How often and for how long a request may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Responses {
    /// Messages for each request.
    pub max: u32,
    /// Seconds after it.
    pub seconds: u64,
}

/// What must be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Demand {
    /// An X.509-SVID.
    X509,
    /// A JWT-SVID, and a signature over the server's nonce.
    Jwt,
    /// Both, for the same SPIFFE ID.
    Both,
    /// One of the two.
    Either,
}

/// Knobs that weaken a role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a knob of its own in the file")]
pub(super) struct Dangers {
    pub(super) bearer: bool,
    pub(super) any_subject: bool,
    pub(super) shared_inbox: bool,
    pub(super) jetstream_admin: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "as the file has them")]
struct Raw {
    id: String,
    reason: String,
    owner: String,
    who: String,
    account: String,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    responses: Option<u32>,
    #[serde(default)]
    responses_within: Option<String>,
    lifetime: String,
    #[serde(default)]
    sources: Option<Vec<String>>,
    #[serde(default = "clients")]
    kinds: BTreeSet<ConnectionKind>,
    #[serde(default = "plain_nats")]
    types: BTreeSet<ConnectionType>,
    #[serde(default = "x509")]
    credential: Demand,
    #[serde(default)]
    nkeys: BTreeSet<String>,
    #[serde(default)]
    danger_bearer: bool,
    #[serde(default)]
    danger_any_subject: bool,
    #[serde(default)]
    danger_shared_inbox: bool,
    #[serde(default)]
    danger_jetstream_admin: bool,
}

fn clients() -> BTreeSet<ConnectionKind> {
    BTreeSet::from([ConnectionKind::Client])
}

fn plain_nats() -> BTreeSet<ConnectionType> {
    BTreeSet::from([ConnectionType::Nats])
}

fn x509() -> Demand {
    Demand::X509
}

impl Role {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who it is for.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// Where it places them.
    pub fn account(&self) -> &AccountName {
        &self.account
    }

    /// The subjects that it may publish to.
    pub fn publish(&self) -> &[SubjectTemplate] {
        &self.publish
    }

    /// The subjects that it may subscribe to, with the queue group that it must be in.
    pub fn subscribe(&self) -> &[(SubjectTemplate, Option<QueueName>)] {
        &self.subscribe
    }

    /// How it may answer.
    pub fn responses(&self) -> Option<Responses> {
        self.responses
    }

    /// The longest that a connection lives, in seconds.
    pub fn lifetime(&self) -> u64 {
        self.lifetime
    }

    /// The source and the line that it begins at.
    pub fn place(&self) -> (&str, usize) {
        (&self.source, self.line)
    }

    /// The knobs that weaken it and are on.
    pub fn dangers(&self) -> Vec<&'static str> {
        let knobs = [
            (self.dangers.bearer, "danger_bearer"),
            (self.dangers.any_subject, "danger_any_subject"),
            (self.dangers.shared_inbox, "danger_shared_inbox"),
            (self.dangers.jetstream_admin, "danger_jetstream_admin"),
        ];
        knobs.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect()
    }
}

impl Demand {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::X509 => "x509",
            Self::Jwt => "jwt",
            Self::Both => "both",
            Self::Either => "either",
        }
    }
}

/// Reads the roles of a source, or says everything that is wrong with them.
pub(super) fn parse(source: &Source, accounts: &Accounts) -> Result<Vec<Role>, Vec<LoadError>> {
    let places = source.places();
    let document: toml::Table = source.text.parse().map_err(|error: toml::de::Error| {
        vec![places.problem(&error.span().unwrap_or_default(), error.message(), "")]
    })?;
    let (mut roles, mut errors) = (Vec::new(), Vec::new());
    let whole = |message: String, hint: &str| LoadError::whole(&source.name, message, hint);
    match document.get("version").and_then(toml::Value::as_integer) {
        Some(1) => {}
        None if document.is_empty() => {}
        _ => errors.push(whole("`version` is missing or not 1".to_owned(), "begin the file with version = 1")),
    }
    for key in document.keys().filter(|key| !matches!(key.as_str(), "version" | "role")) {
        errors.push(whole(format!("unknown key `{}`", shown::inside(key, 64)), "known keys: version, role"));
    }
    let lines = lines(source, &places);
    match document.get("role") {
        None => {}
        Some(toml::Value::Array(tables)) if tables.len() <= ROLES => {
            for (n, table) in tables.iter().enumerate() {
                let line = lines.get(n).copied().unwrap_or(1);
                let mut reader = RoleReader { source, line, errors: Vec::new() };
                let role = reader.role(table, accounts);
                errors.append(&mut reader.errors);
                roles.extend(role);
            }
        }
        Some(toml::Value::Array(_)) => errors.push(whole(format!("more than {ROLES} roles"), "split the file")),
        Some(_) => errors.push(whole("`role` is not an array of tables".to_owned(), "begin each role with [[role]]")),
    }
    if errors.is_empty() { Ok(roles) } else { Err(errors) }
}

/// The lines that the roles begin at.
fn lines(source: &Source, places: &Places<'_>) -> Vec<usize> {
    let Ok(document) = DeTable::parse(&source.text) else { return Vec::new() };
    let roles = document.get_ref().get("role").and_then(|roles| roles.get_ref().as_array());
    roles.into_iter().flat_map(|roles| roles.iter()).map(|role| places.line(role.span().start)).collect()
}

struct RoleReader<'a> {
    source: &'a Source,
    line: usize,
    errors: Vec<LoadError>,
}

impl RoleReader<'_> {
    fn problem(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.errors.push(LoadError::at_line(&self.source.name, self.line, message, hint));
    }

    fn role(&mut self, value: &toml::Value, accounts: &Accounts) -> Option<Role> {
        let raw: Raw = match value.clone().try_into() {
            Ok(raw) => raw,
            Err(error) => {
                let error: toml::de::Error = error;
                self.problem(error.message(), "every role has id, reason, owner, who, account and lifetime");
                return None;
            }
        };
        if !is_id(&raw.id) {
            self.problem("`id` is not taken", format!("1 to {ID_BYTES} lower-case letters, digits, dots, dashes"));
        }
        if !is_line(&raw.reason, REASON_BYTES) || !is_line(&raw.owner, OWNER_BYTES) {
            self.problem("`reason` and `owner` are one line each", "say why, and who answers for it");
        }
        let who: Option<Who> = self.parsed(&raw.who, |error: &super::who::WhoError| error.hint());
        let account: Option<AccountName> = self.parsed(
            &raw.account,
            |_: &super::facts::AccountNameError| "name an account of the server's configuration, such as APP",
        );
        if let Some(account) = account.as_ref().filter(|account| !accounts.allows(account)) {
            let names: Vec<&str> = accounts.names().map(AccountName::as_str).collect();
            let why = if accounts.is_reserved(account) { "is the system account" } else { "is not in `accounts`" };
            self.problem(format!("the account {account} {why}"), format!("allowed: {}", names.join(", ")));
        }
        let lifetime = self.seconds("lifetime", &raw.lifetime, ROLE_LIFETIME_LEAST, ROLE_LIFETIME_MOST);
        let responses = self.responses(&raw);
        let sources = self.sources(raw.sources.as_deref());
        let publish: Vec<SubjectTemplate> = self.list("publish", &raw.publish, |text| text.parse());
        let subscribe = self.list("subscribe", &raw.subscribe, |text| match text.split_once(' ') {
            None => text.parse().map(|subject| (subject, None)),
            Some((subject, queue)) => Ok((subject.parse()?, Some(queue.parse()?))),
        });
        let is_nkey = |text: &str| {
            text.len() == 56 && text.starts_with('U') && text.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'))
        };
        if raw.nkeys.len() > ROLE_SOURCES || !raw.nkeys.iter().all(|text| is_nkey(text)) {
            self.problem("`nkeys` has something that is no public user nkey", "write U.. with 55 more characters");
        }
        if raw.kinds.is_empty() || raw.types.is_empty() {
            self.problem("`kinds` and `types` are not empty", "leave them out for [\"client\"] and [\"nats\"]");
        }
        let role = Role {
            id: raw.id,
            reason: raw.reason,
            owner: raw.owner,
            who: who?,
            account: account?,
            publish,
            subscribe,
            responses,
            lifetime: lifetime?,
            sources,
            kinds: raw.kinds,
            types: raw.types,
            credential: raw.credential,
            nkeys: raw.nkeys,
            dangers: Dangers {
                bearer: raw.danger_bearer,
                any_subject: raw.danger_any_subject,
                shared_inbox: raw.danger_shared_inbox,
                jetstream_admin: raw.danger_jetstream_admin,
            },
            source: self.source.name.clone(),
            line: self.line,
        };
        for (message, hint) in role_lint::problems(&role) {
            self.problem(message, hint);
        }
        self.errors.is_empty().then_some(role)
    }

    fn parsed<T: std::str::FromStr>(&mut self, text: &str, hint: impl Fn(&T::Err) -> &'static str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        match text.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problem(format!("\"{}\": {error}", shown::inside(text, 96)), hint(&error));
                None
            }
        }
    }

    fn list<T: PartialEq>(
        &mut self,
        key: &str,
        texts: &[String],
        parse: impl Fn(&str) -> Result<T, super::subjects::TemplateError>,
    ) -> Vec<T> {
        if texts.len() > ROLE_SUBJECTS {
            self.problem(format!("`{key}` has more than {ROLE_SUBJECTS} entries"), "use wildcards below an own prefix");
            return Vec::new();
        }
        let mut out = Vec::new();
        for text in texts {
            match parse(text) {
                Ok(parsed) if out.contains(&parsed) => self.problem(format!("`{key}` names {text} twice"), "drop one"),
                Ok(parsed) => out.push(parsed),
                Err(error) => self.problem(
                    format!("`{key}`: \"{}\": {error}", shown::inside(text, 96)),
                    "tokens between dots, {name} for a part of the SPIFFE ID, a queue group after a space",
                ),
            }
        }
        out
    }

    fn responses(&mut self, raw: &Raw) -> Option<Responses> {
        let within = raw.responses_within.as_deref();
        match (raw.responses, within) {
            (None, None) => None,
            (None, Some(_)) => {
                self.problem("`responses_within` without `responses` means nothing", "say how many: responses = 1");
                None
            }
            (Some(max), _) if max == 0 || max > ROLE_RESPONSES => {
                self.problem(format!("`responses` is not 1 to {ROLE_RESPONSES}"), "1 is enough for request and reply");
                None
            }
            (Some(max), within) => {
                let seconds = self.seconds("responses_within", within.unwrap_or("3s"), 1, ROLE_RESPONSES_WITHIN);
                seconds.map(|seconds| Responses { max, seconds })
            }
        }
    }

    fn sources(&mut self, raw: Option<&[String]>) -> Vec<IpNet> {
        let Some(texts) = raw else { return Vec::new() };
        if texts.is_empty() || texts.len() > ROLE_SOURCES {
            self.problem(format!("`sources` has 1 to {ROLE_SOURCES} entries"), "leave it out for anywhere");
        }
        let mut nets = Vec::new();
        for text in texts {
            match text.parse::<IpNet>() {
                Ok(net) if net.trunc() == net => nets.push(net),
                Ok(net) => self
                    .problem(format!("`sources`: {text} has bits beyond its prefix"), format!("write {}", net.trunc())),
                Err(_) => self.problem(
                    format!("`sources`: \"{}\" is no range of addresses", shown::inside(text, 64)),
                    "write 10.0.0.0/8 or 10.1.2.3/32",
                ),
            }
        }
        nets
    }

    fn seconds(&mut self, key: &str, text: &str, least: u64, most: u64) -> Option<u64> {
        let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).unwrap_or((text, ""));
        let unit = match unit {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(3_600),
            _ => None,
        };
        let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
        let seconds = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
        let seconds = seconds.filter(|seconds| (least..=most).contains(seconds));
        if seconds.is_none() {
            self.problem(format!("`{key}` is not a time from {least} to {most} seconds"), "write it as 90s, 5m or 1h");
        }
        seconds
    }
}
