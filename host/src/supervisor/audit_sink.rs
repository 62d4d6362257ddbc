//! Everything that reaches the audit log: from the supervisor itself, from the identity process, from the request path.
//!
//! What another process sends is input from outside: bounded, checked for its kind, and never the text that an operator
//! reads. A denial of the request path is derived again here, from this process's own policy and its own record of the
//! instance; the runtime only contributes what was asked.

use std::sync::{Arc, Mutex};

use portcullis_policies::{Caller, Denial, Destination, Grant, IdentityAction, PolicySet, Slice};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::Host;
use crate::audit::{AuditLog, Durability, Record};
use crate::limits::AUDIT_BATCH;
use crate::process::child::Killer;
use crate::rpc::audit::audit_server::Audit;
use crate::rpc::audit::{AppendManyReply, AppendManyRequest, AppendReply, AppendRequest};
use crate::rpc::runtime::runtime_client::RuntimeClient;
use crate::rpc::runtime::{Event, EventsRequest, event::What};

/// The audit log, shared by all that write to it.
pub type SharedLog = Arc<Mutex<AuditLog>>;

/// Serves the identity process.
#[derive(Debug)]
pub struct AuditSink {
    host: Arc<Host>,
}

impl AuditSink {
    /// A sink that writes to the log of `host`.
    pub fn new(host: Arc<Host>) -> Self {
        Self { host }
    }
}

/// Appends a record; on disk when this returns, if that was asked for.
pub fn append(log: &SharedLog, record: Record, durability: Durability) -> std::io::Result<u64> {
    append_many(log, std::slice::from_ref(&record), durability)
}

fn append_many(log: &SharedLog, records: &[Record], durability: Durability) -> std::io::Result<u64> {
    let mut log = log.lock().map_err(|_| std::io::Error::other("the audit log is poisoned"))?;
    log.append_many(crate::clock::now(), records, durability).map(|receipt| receipt.seq)
}

#[tonic::async_trait]
impl Audit for AuditSink {
    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendReply>, Status> {
        let (record, reference) = taken(request.into_inner()).map_err(|status| *status)?;
        let said = said(&record);
        let sequence = self.write(vec![record]).await?;
        said.iter().for_each(|said| tracing::warn!("{said}"));
        Ok(Response::new(AppendReply { sequence, reference }))
    }

    async fn append_many(&self, request: Request<AppendManyRequest>) -> Result<Response<AppendManyReply>, Status> {
        let records = request.into_inner().records;
        if records.is_empty() || records.len() > AUDIT_BATCH {
            return Err(Status::invalid_argument("number of records"));
        }
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let records: Result<Vec<_>, _> = records.into_iter().map(|record| Ok(taken(record)?.0)).collect();
        let records = records.map_err(|status: Box<Status>| *status)?;
        let said: Vec<String> = records.iter().filter_map(said).collect();
        let last = self.write(records).await?;
        said.iter().for_each(|said| tracing::warn!("{said}"));
        Ok(Response::new(AppendManyReply { sequence: last.saturating_sub(count.saturating_sub(1)) }))
    }
}

impl AuditSink {
    /// Appends in one write; on disk when this returns. The number of the last record.
    async fn write(&self, records: Vec<Record>) -> Result<u64, Status> {
        let log = Arc::clone(&self.host.audit);
        let appended = tokio::task::spawn_blocking(move || append_many(&log, &records, Durability::Durable)).await;
        appended.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| {
            self.host.audit_failed();
            Status::unavailable(format!("the audit log cannot be written: {error}"))
        })
    }
}

/// A record of the identity process, with its reference.
fn taken(request: AppendRequest) -> Result<(Record, String), Box<Status>> {
    if !KINDS.contains(&request.kind.as_str()) || request.fields_json.len() > FIELDS_BYTES {
        return Err(Box::new(Status::invalid_argument("kind or size of the record")));
    }
    let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&request.fields_json)
        .map_err(|error| Box::new(Status::invalid_argument(error.to_string())))?;
    let reference = match request.reference.is_empty() {
        true => ulid::Ulid::generate().to_string(),
        false => request.reference,
    };
    let mut record = Record::new(&request.kind).reference(&reference).field("by", "identity");
    for (name, value) in fields {
        record = record.field(&name, value);
    }
    Ok((record, reference))
}

/// What the host's log says of a record of the identity process: its refusals, and what audit mode let through, with the reference.
fn said(record: &Record) -> Option<String> {
    let text = matches!(record.kind(), "denial" | "let-through").then(|| record.text("text")).flatten()?;
    let text = crate::cli::error::shown(text);
    let reference = record.shown_reference();
    Some(if text.contains(reference) { text } else { format!("{text}\n  ref      {reference}") })
}

/// Follows the decisions of a runtime process until it is gone. One whose decisions cannot be followed does not go on.
pub async fn follow(host: Arc<Host>, mut runtime: RuntimeClient<Channel>, killer: Killer) {
    match runtime.events(EventsRequest {}).await {
        Ok(events) => take(&host, events.into_inner()).await,
        Err(error) => tracing::error!(%error, "the decisions of the runtime are not followed"),
    }
    killer.kill();
    if !host.is_stopping() {
        let why = "the runtime process ended; decisions that it had not handed over are lost";
        let record = Record::new("lost").field("by", "supervisor").field("why", why);
        let _ = tokio::task::spawn_blocking(move || write(&host, record)).await;
    }
}

async fn take(host: &Arc<Host>, mut events: tonic::Streaming<Event>) {
    while let Ok(Some(event)) = events.message().await {
        let host = Arc::clone(host);
        if tokio::task::spawn_blocking(move || record(&host, event)).await.is_err() {
            tracing::error!("a decision of the runtime could not be recorded");
        }
    }
}

fn record(host: &Arc<Host>, event: Event) {
    if event.lost > 0 {
        let lost = Record::new("lost").field("by", "runtime").field("records", event.lost);
        write(host, lost);
    }
    let Event { reference, instance, generation, code, what, let_through, ended, .. } = event;
    let (Some(what), true) =
        (what, reference.len() == REFERENCE_CHARS && reference.bytes().all(|b| b.is_ascii_alphanumeric()))
    else {
        tracing::error!("the runtime sent a decision that makes no sense");
        return;
    };
    let record = match what {
        What::Failure(failure) => Record::new("failure")
            .reference(&reference)
            .field("by", "runtime")
            .field("kind_of_failure", cut(&failure.kind))
            .field("detail", cut(&failure.detail))
            .field("instance", cut(&instance))
            .field("component", host.name_of(&instance)),
        asked => {
            let how = match (let_through, ended) {
                (true, _) => How::LetThrough,
                (false, true) => How::Ended,
                (false, false) => How::Denied,
            };
            denial_record(host, how, &reference, &instance, generation, &code, &asked)
        }
    };
    write(host, record);
}

/// What became of what policy does not grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// It was refused.
    Denied,
    /// It was at work when policy changed, and was ended.
    Ended,
    /// Audit mode let it happen.
    LetThrough,
}

fn denial_record(
    host: &Arc<Host>,
    how: How,
    reference: &str,
    instance: &str,
    generation: u64,
    code: &str,
    asked: &What,
) -> Record {
    let policy = host.policy();
    let facts = host.facts_of(instance);
    let denial = facts.as_ref().and_then(|facts| derive(policy.set(), facts, how, host.is_audited(&facts.name), asked));
    let (kind, first_line) = match how {
        How::Denied => ("denial", None),
        How::Ended => ("denial", Some(ENDED)),
        How::LetThrough => ("let-through", Some(LET_THROUGH)),
    };
    let record = Record::new(kind)
        .reference(reference)
        .field("component", facts.map(|facts| facts.name).unwrap_or_default())
        .field("by", "runtime")
        .field("instance", cut(instance))
        .field("generation", generation)
        .field("seen_code", cut(code));
    let record = if how == How::Ended { record.field("ended", true) } else { record };
    match denial {
        Some(denial) => {
            let denial = denial.with_reference(reference.to_owned());
            let context = host.fix_context();
            let text = denial.render(&context);
            let text = first_line.map_or_else(|| text.clone(), |line| format!("{line}\n{text}"));
            tracing::warn!("{text}");
            record
                .field("code", denial.code().to_string())
                .field("denial", serde_json::to_value(&denial).unwrap_or_default())
                .field("text", text)
                .field("fix", denial.fix(&context).unwrap_or_default())
        }
        None => record
            .field("code", cut(code))
            .field("text", format!("not granted by policy generation {generation}; the policy in force now allows it, or the instance is gone")),
    }
}

/// The denial that this process's own policy gives for what the runtime says was asked.
///
/// What audit mode lets through is asked of an audited slice. So is what was refused while it was on: only guards refuse then,
/// and they refuse first.
fn derive(
    set: &PolicySet,
    facts: &portcullis_policies::ComponentFacts,
    how: How,
    is_audited: bool,
    asked: &What,
) -> Option<Denial> {
    match how {
        How::LetThrough => ask(&set.audited_slice(facts), asked).unwrap_or_else(Some),
        How::Denied | How::Ended => {
            let guarded = is_audited.then(|| ask(&set.audited_slice(facts), asked).err()).flatten();
            guarded.or_else(|| ask(&set.slice(facts), asked).err())
        }
    }
}

/// The answer of a slice: a denial, or, where it is allowed, the denial that audit mode stands for.
fn ask(slice: &Slice, asked: &What) -> Result<Option<Denial>, Denial> {
    fn instead<A>(grant: &Grant<A>) -> Option<Denial> {
        grant.instead_of().cloned()
    }
    match asked {
        What::HttpSend(send) => {
            let Ok(destination) = Destination::parse_url(&send.destination) else { return Ok(None) };
            slice.http_send(&destination, &send.method).map(|grant| instead(&grant))
        }
        What::HttpConnect(connect) => {
            let Ok(destination) = Destination::parse_url(&connect.destination) else { return Ok(None) };
            let Ok(address) = connect.address.parse() else { return Ok(None) };
            let send = slice.http_send(&destination, &connect.method)?;
            slice.http_connect(&send, address).map(|grant| instead(&grant))
        }
        What::Call(call) if call.caller.is_empty() => slice.call(&Caller::Anonymous).map(|grant| instead(&grant)),
        What::Call(call) => slice.call(&Caller::Workload(call.caller.clone())).map(|grant| instead(&grant)),
        What::Identity(used) => match IdentityAction::from_name(&used.action) {
            Some(action) => slice.identity(action).map(|grant| instead(&grant)),
            None => Ok(None),
        },
        What::Link(link) => slice.link(&link.interface).map(|grant| instead(&grant)),
        What::Messaging(used) => match used.action.as_str() {
            "publish" => slice.publish(&used.subject).map(|grant| instead(&grant)),
            "request" => slice.request(&used.subject).map(|grant| instead(&grant)),
            "subscribe" => slice.subscribe(&used.subject, &used.queue).map(|grant| instead(&grant)),
            _ => Ok(None),
        },
        What::Failure(_) => Ok(None),
    }
}

fn write(host: &Arc<Host>, record: Record) {
    if let Err(error) = append(&host.audit, record, Durability::Buffered) {
        tracing::error!(%error, "the audit log cannot be written: the host is not ready");
        host.audit_failed();
    }
}

fn cut(text: &str) -> String {
    crate::runtime::stdio::escape(text.as_bytes().get(..TEXT_BYTES).unwrap_or(text.as_bytes()), text.len() > TEXT_BYTES)
}

/// The first line of a record of audit mode.
pub const LET_THROUGH: &str = "let through by audit mode, which is for a time; without it:";
/// The first line of a record of something that was ended.
const ENDED: &str = "ended, since policy changed and does not grant it any more:";
const REFERENCE_CHARS: usize = 26;
const TEXT_BYTES: usize = 512;
/// Largest set of fields that the identity process may send.
const FIELDS_BYTES: usize = 8 << 10;
/// What the identity process may record.
const KINDS: [&str; 8] =
    ["issuance", "denial", "let-through", "authority", "signature", "key-export", "delivery", "federation"];

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: &str, fields_json: &str) -> AppendRequest {
        AppendRequest { kind: kind.to_owned(), reference: String::new(), fields_json: fields_json.to_owned() }
    }

    #[test]
    fn the_identity_process_records_its_own_kinds_and_no_others() {
        for kind in KINDS {
            assert!(taken(request(kind, "{\"a\":1}")).is_ok(), "{kind}");
        }
        for kind in ["", "genesis", "control", "admission", "start", "stop", "policy", "lost", "Issuance"] {
            assert!(taken(request(kind, "{}")).is_err(), "{kind} passed");
        }
    }

    #[test]
    fn refusals_of_the_identity_process_are_said_in_the_log_with_their_reference_and_nothing_else_is() {
        let of = |kind: &str, fields: &str| taken(request(kind, fields)).unwrap();
        for kind in ["denial", "let-through"] {
            let (record, reference) = of(kind, "{\"text\":\"denied I0201: \\u001b[2J\\n  why\"}");
            let said = said(&record).unwrap();
            assert!(said.starts_with("denied I0201: ") && said.contains(&reference), "{said}");
            assert!(!said.contains('\u{1b}'), "{said}");
            assert_eq!(super::said(&of(kind, "{}").0), None);
            assert_eq!(super::said(&of(kind, "{\"text\":1}").0), None);
        }
        assert_eq!(said(&of("issuance", "{\"text\":\"a\"}").0), None);
    }

    #[test]
    fn fields_that_are_no_object_or_too_large_are_refused() {
        for fields in ["", "[]", "1", "{", "null", "{} {}"] {
            assert!(taken(request("issuance", fields)).is_err(), "{fields} passed");
        }
        let fields = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - 8));
        assert!(taken(request("issuance", &fields(FIELDS_BYTES))).is_ok());
        assert!(taken(request("issuance", &fields(FIELDS_BYTES + 1))).is_err());
    }
}
