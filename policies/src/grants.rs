//! The operator's grants: a short TOML form of the common permissions.
//!
//! Decides: what each grant means. Refuses the whole file for one unknown key, wrong type or value that is not canonical, and
//! lists every problem with its line and column. A grant never says "any": it names component, destination, audience, caller.
//!
//! ```toml
//! version = 1
//!
//! [[grant]]
//! id = "greeter-vault"                              # unique
//! reason = "greets with the secret of the day"
//! owner = "team-demo"
//! component = "demo:greeter"                        # the name in its verified claims
//! load = true                                       # may be admitted
//! link = ["wasi:keyvalue/store"]                    # interfaces; http, identity and audiences imply those they need
//! http = ["https://vault.demo.internal:8443"]       # exact destinations
//! peer = "spiffe://demo.example/ns/demo/sa/vault"   # mTLS, and only with this peer
//! addresses = ["loopback", "10.1.0.0/16"]           # beyond public ones, for these destinations only
//! identity = ["read", "peer", "x509"]               # or bundles, validate, export
//! audiences = ["vault"]                             # of JWT-SVIDs
//! max_ttl = "5m"                                    # of JWT-SVIDs
//! purposes = ["receipts"]                           # of signatures with the key of its X.509-SVID
//! callers = ["anonymous"]                           # who may call it over the gateway
//! publish = ["orders.eu.*"]                         # NATS subjects that it may send messages to
//! request = ["stock.ask"]                           # .. and have one answer to
//! subscribe = ["orders.>"]                          # whose messages it gets, shared among its replicas
//! ```
//!
//! `peer` and `callers` may name workloads of federated trust domains. Signatures (`purposes`) and the private key (`export`) are
//! those of the X.509-SVID, so both need `x509` beside them. For the key, the configuration must name the component, too.

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::address::AddressRange;
use crate::component::ANONYMOUS;
use crate::destination::Destination;
use crate::interface::{LinkPattern, is_component_name};
use crate::limits::{GRANTS, ID_BYTES, JWT_TTL_MOST, LIST_ENTRIES, OWNER_BYTES, PROBLEMS, REASON_BYTES};
use crate::source::{LoadError, Source};
use crate::subject::{SubjectError, SubjectPattern};
use crate::workload::WorkloadId;

pub(crate) mod cedar;
mod operator;
mod reader;

pub use self::operator::{ControlAction, OperatorEntry, is_host_name};
pub(crate) use self::operator::{is_nkey, parse as operators};

use self::reader::Reader;

/// One `[[grant]]`.
#[derive(Debug, Clone)]
pub struct GrantEntry {
    pub(crate) id: String,
    pub(crate) reason: String,
    pub(crate) owner: String,
    pub(crate) component: String,
    pub(crate) load: bool,
    pub(crate) link: Vec<LinkPattern>,
    pub(crate) http: Vec<Destination>,
    pub(crate) peer: Option<WorkloadId>,
    pub(crate) addresses: Vec<AddressRange>,
    pub(crate) identity: Vec<IdentityRight>,
    pub(crate) audiences: Vec<String>,
    pub(crate) max_ttl: Option<u64>,
    pub(crate) purposes: Vec<String>,
    pub(crate) callers: Vec<CallerPattern>,
    pub(crate) publish: Vec<SubjectPattern>,
    pub(crate) request: Vec<SubjectPattern>,
    pub(crate) subscribe: Vec<SubjectPattern>,
    pub(crate) source: String,
    pub(crate) line: usize,
}

/// An entry of `identity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentityRight {
    /// Read the own SPIFFE ID.
    Read,
    /// Read trust bundles, the own one and federated ones.
    Bundles,
    /// Learn who is calling.
    Peer,
    /// Have an X.509-SVID, and read its chain.
    X509,
    /// Check JWT-SVIDs of others.
    Validate,
    /// Have the private key of an X.509-SVID.
    Export,
}

/// An entry of `callers`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CallerPattern {
    /// Whoever shows no identity.
    Anonymous,
    /// One workload.
    Workload(WorkloadId),
}

/// Reads all grants of a source.
pub fn parse(source: &Source) -> Result<Vec<GrantEntry>, Vec<LoadError>> {
    let (document, syntax) = DeTable::parse_recoverable(&source.text);
    if !syntax.is_empty() {
        let places = source.places();
        let place = |error: &toml::de::Error| places.problem(&error.span().unwrap_or_default(), error.message(), "");
        return Err(syntax.iter().take(PROBLEMS + 1).map(place).collect());
    }
    let mut reader = Reader::new(source);
    let grants = document_grants(&mut reader, document.get_ref());
    reader.finish(grants)
}

impl GrantEntry {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The component that it is for.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// The source and the line that it begins at.
    pub fn place(&self) -> (&str, usize) {
        (&self.source, self.line)
    }

    fn grants_something(&self) -> bool {
        self.load
            || !self.link.is_empty()
            || !self.http.is_empty()
            || !self.identity.is_empty()
            || !self.audiences.is_empty()
            || !self.purposes.is_empty()
            || !self.callers.is_empty()
            || [&self.publish, &self.request, &self.subscribe].iter().any(|list| !list.is_empty())
    }
}

impl IdentityRight {
    pub(crate) const ALL: [(&'static str, Self); 6] = [
        ("read", Self::Read),
        ("bundles", Self::Bundles),
        ("peer", Self::Peer),
        ("x509", Self::X509),
        ("validate", Self::Validate),
        ("export", Self::Export),
    ];

    /// The word in grants.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, right)| *right == self).map_or("", |(name, _)| *name)
    }
}

impl CallerPattern {
    /// `anonymous`, or the SPIFFE ID.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => ANONYMOUS,
            Self::Workload(id) => id.as_str(),
        }
    }
}

fn document_grants(reader: &mut Reader<'_>, document: &DeTable<'_>) -> Vec<GrantEntry> {
    let mut grants = Vec::new();
    let mut version = None;
    for (key, value) in document {
        match key.get_ref().as_ref() {
            "version" => version = reader.integer(value),
            "grant" => match value.get_ref().as_array() {
                Some(tables) if tables.len() <= GRANTS => {
                    grants.extend(tables.iter().filter_map(|table| entry(reader, table)));
                }
                Some(_) => {
                    reader.problem(&key.span(), format!("more than {GRANTS} grants in one file"), "split the file")
                }
                None => reader.problem(
                    &value.span(),
                    "`grant` is not an array of tables",
                    "begin each grant with [[grant]]",
                ),
            },
            // Read by a reader of their own.
            "operator" => {}
            other => reader.unknown(key.span(), other, "version, grant, operator"),
        }
    }
    match version {
        Some(1) => {}
        Some(_) => reader.problem(&(0..0), "this host reads version 1 of the format", "set version = 1"),
        // An empty file grants nothing, in every version.
        None if document.is_empty() => {}
        None => reader.problem(&(0..0), "`version` is missing", "begin the file with version = 1"),
    }
    grants
}

fn entry(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<GrantEntry> {
    let before = reader.problems();
    let Some(table) = value.get_ref().as_table() else {
        reader.problem(&value.span(), "a grant is not a table", "begin each grant with [[grant]]");
        return None;
    };
    let mut grant = GrantEntry {
        id: String::new(),
        reason: String::new(),
        owner: String::new(),
        component: String::new(),
        load: false,
        link: Vec::new(),
        http: Vec::new(),
        peer: None,
        addresses: Vec::new(),
        identity: Vec::new(),
        audiences: Vec::new(),
        max_ttl: None,
        purposes: Vec::new(),
        callers: Vec::new(),
        publish: Vec::new(),
        request: Vec::new(),
        subscribe: Vec::new(),
        source: reader.places().source().name.clone(),
        line: reader.places().line(value.span().start),
    };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "id" => {
                grant.id = reader.text(value, is_id, "1 to 64 lower-case letters, digits, dots, dashes, underscores")
            }
            "reason" => {
                grant.reason = reader.text(value, |text| is_line(text, REASON_BYTES), "one line of up to 512 bytes")
            }
            "owner" => {
                grant.owner = reader.text(value, |text| is_line(text, OWNER_BYTES), "one line of up to 128 bytes")
            }
            "component" => {
                grant.component = reader.text(value, is_component_name, "a component's name, such as demo:greeter")
            }
            "load" => grant.load = reader.boolean(value),
            "link" => {
                grant.link =
                    list(reader, value, |text| text.parse().map_err(explain("name an interface without its version")))
            }
            "http" => grant.http = list(reader, value, destination),
            "peer" => grant.peer = reader.parsed(value, |text| text.parse().map_err(explain(""))),
            "addresses" => grant.addresses = list(reader, value, |text| text.parse().map_err(explain(""))),
            "identity" => grant.identity = list(reader, value, identity),
            "audiences" => grant.audiences = list(reader, value, audience),
            "max_ttl" => grant.max_ttl = reader.parsed(value, ttl),
            "purposes" => grant.purposes = list(reader, value, purpose),
            "callers" => grant.callers = list(reader, value, caller),
            "publish" => grant.publish = list(reader, value, subject),
            "request" => grant.request = list(reader, value, subject),
            "subscribe" => grant.subscribe = list(reader, value, subject),
            other => reader.unknown(key.span(), other, KEYS),
        }
    }
    complete(reader, value, table, &grant);
    (reader.problems() == before).then_some(grant)
}

fn complete(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>, table: &DeTable<'_>, grant: &GrantEntry) {
    for key in ["id", "reason", "owner", "component"] {
        if !table.iter().any(|(own, _)| own.get_ref() == key) {
            reader.problem(
                &value.span(),
                format!("`{key}` is missing"),
                "every grant has id, reason, owner and component",
            );
        }
    }
    let mut demand = |holds: bool, message: &str, hint: &str| {
        if !holds {
            reader.problem(&value.span(), message, hint);
        }
    };
    let tls = grant.http.iter().all(|destination| destination.scheme() == crate::Scheme::Https);
    demand(
        grant.peer.is_none() || tls,
        "`peer` needs https in every destination of `http`",
        "put the http:// destinations into a grant of their own",
    );
    let has = |key: &str| table.iter().any(|(own, _)| own.get_ref() == key);
    demand(!has("peer") || has("http"), "`peer` without `http` means nothing", "name the destinations in http");
    demand(
        !has("addresses") || has("http"),
        "`addresses` without `http` means nothing",
        "name the destinations in http",
    );
    demand(!has("max_ttl") || has("audiences"), "`max_ttl` without `audiences` means nothing", "name the audiences");
    // Where a value was refused, the list is short for that reason.
    let lists =
        ["load", "link", "http", "identity", "audiences", "purposes", "callers", "publish", "request", "subscribe"];
    // And a key that is mistyped is the one thing that is wrong.
    let mistyped = table.iter().any(|(own, _)| !KEYS.split(", ").any(|key| own.get_ref() == key));
    demand(
        mistyped || grant.grants_something() || lists.iter().any(|key| has(key) && *key != "load"),
        "this grant grants nothing",
        "add one of load, link, http, identity, audiences, purposes, callers, publish, request, subscribe",
    );
}

fn list<T: PartialEq>(
    reader: &mut Reader<'_>,
    value: &Spanned<DeValue<'_>>,
    parse: impl Fn(&str) -> Result<T, (String, String)>,
) -> Vec<T> {
    let Some(entries) = value.get_ref().as_array() else {
        reader.problem(&value.span(), "this is not a list", "write it in brackets, such as [\"..\"]");
        return Vec::new();
    };
    if entries.len() > LIST_ENTRIES || entries.is_empty() {
        reader.problem(
            &value.span(),
            format!("a list has 1 to {LIST_ENTRIES} entries"),
            "leave an empty list out; make two grants of a long one",
        );
        return Vec::new();
    }
    let mut out = Vec::new();
    for entry in entries.iter() {
        match reader.parsed(entry, &parse) {
            Some(parsed) if out.contains(&parsed) => {
                reader.problem(&entry.span(), "this entry is there twice", "drop one")
            }
            Some(parsed) => out.push(parsed),
            None => {}
        }
    }
    out
}

fn explain<E: std::fmt::Display>(hint: &'static str) -> impl Fn(E) -> (String, String) {
    move |error| (error.to_string(), hint.to_owned())
}

fn destination(text: &str) -> Result<Destination, (String, String)> {
    Destination::parse_url(text).map_err(|error| (error.to_string(), error.hint().to_owned()))
}

fn identity(text: &str) -> Result<IdentityRight, (String, String)> {
    let found = IdentityRight::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, right)| *right).ok_or_else(|| {
        ("not an identity right".to_owned(), "one of read, bundles, peer, x509, validate, export".to_owned())
    })
}

fn caller(text: &str) -> Result<CallerPattern, (String, String)> {
    match text {
        ANONYMOUS => Ok(CallerPattern::Anonymous),
        id => id.parse().map(CallerPattern::Workload).map_err(explain("or the word anonymous")),
    }
}

fn subject(text: &str) -> Result<SubjectPattern, (String, String)> {
    let pattern: SubjectPattern =
        text.parse().map_err(|error: SubjectError| (error.to_string(), error.hint().to_owned()))?;
    match pattern.reaches_reserved() {
        true => Err((
            "a subject that is nobody's: of the server, of JetStream, an inbox, or the host's own".to_owned(),
            "answers to requests need no grant; name subjects of your own, such as orders.>".to_owned(),
        )),
        false => Ok(pattern),
    }
}

fn audience(text: &str) -> Result<String, (String, String)> {
    match is_audience(text) {
        true => Ok(text.to_owned()),
        false => Err(("not an audience".to_owned(), "1 to 255 printable ASCII characters without spaces".to_owned())),
    }
}

fn purpose(text: &str) -> Result<String, (String, String)> {
    match is_purpose(text) {
        true => Ok(text.to_owned()),
        false => Err((
            "not a purpose".to_owned(),
            "1 to 64 lower-case letters, digits, dots, dashes, underscores, slashes, colons".to_owned(),
        )),
    }
}

fn ttl(text: &str) -> Result<u64, (String, String)> {
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).unwrap_or((text, ""));
    let unit = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        _ => None,
    };
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    let seconds = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    match seconds {
        Some(seconds @ 1..=JWT_TTL_MOST) => Ok(seconds),
        _ => Err(("not a time from 1s to 1h".to_owned(), "write it as 90s, 5m or 1h".to_owned())),
    }
}

/// An id of a grant or of a raw policy.
pub(crate) fn is_id(text: &str) -> bool {
    let byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    (1..=ID_BYTES).contains(&text.len())
        && text.bytes().all(byte)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// One line for people to read.
pub(crate) fn is_line(text: &str, most: usize) -> bool {
    !text.trim().is_empty() && text.len() <= most && !text.chars().any(char::is_control)
}

/// Text that can be an audience.
pub(crate) fn is_audience(text: &str) -> bool {
    (1..=crate::limits::AUDIENCE_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Text that can be the purpose of a signature.
pub(crate) fn is_purpose(text: &str) -> bool {
    let byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_' | b'/' | b':');
    (1..=crate::limits::PURPOSE_BYTES).contains(&text.len()) && text.bytes().all(byte)
}

const KEYS: &str = "id, reason, owner, component, load, link, http, peer, addresses, identity, audiences, max_ttl, purposes, callers, publish, request, \
     subscribe";

#[cfg(test)]
mod tests;
