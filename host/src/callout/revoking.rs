//! Ends connections of whoever may not be connected any more: revoked, of a trust domain that is not trusted any more, named by no
//! role any more. Servers do not ask again while a connection lives.
//!
//! Those that this callout let in itself are known by server and number and are ended at once; what others let in, or what came
//! before this process, is found by asking every server for its connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::Client;
use futures::StreamExt;
use portcullis_nkey::{Kind, PublicKey};
use portcullis_policies::WorkloadId;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::files::Standing;
use super::journal::Journal;
use super::servers::Servers;
use crate::audit::Record;
use crate::limits::{CALLOUT_ADMITTED, CALLOUT_PAGE};
use crate::metrics::Counter;

/// Who was let in by this process: by server and number of the connection.
#[derive(Debug, Default)]
pub struct Admitted(Mutex<HashMap<(PublicKey, u64), Entry>>);

#[derive(Debug)]
struct Entry {
    workload: WorkloadId,
    until: OffsetDateTime,
}

/// Ends connections.
#[derive(Debug)]
pub struct Revoker {
    client: Client,
    servers: Arc<Servers>,
    journal: Journal,
    tried: Mutex<HashMap<(PublicKey, u64), Instant>>,
}

impl Admitted {
    /// Remembers a connection until it ends by itself. Whether there was room.
    pub fn remember(&self, server: PublicKey, number: u64, workload: WorkloadId, until: OffsetDateTime) -> bool {
        let Ok(mut all) = self.0.lock() else { return false };
        if all.len() >= CALLOUT_ADMITTED {
            let now = crate::clock::now();
            all.retain(|_, entry| entry.until > now);
        }
        let fits = all.len() < CALLOUT_ADMITTED;
        if fits {
            all.insert((server, number), Entry { workload, until });
        }
        fits
    }

    /// Takes out those that do not stand any more.
    fn fallen(&self, stands: impl Fn(&WorkloadId) -> bool) -> Vec<((PublicKey, u64), Entry)> {
        let Ok(mut all) = self.0.lock() else { return Vec::new() };
        all.extract_if(|_, entry| !stands(&entry.workload)).collect()
    }

    /// Nobody said that it is ended: it is looked at again, for as long as it can live.
    fn put_back(&self, connection: (PublicKey, u64), entry: Entry, now: OffsetDateTime) {
        let Ok(mut all) = self.0.lock() else { return };
        if entry.until > now && all.len() < CALLOUT_ADMITTED {
            all.entry(connection).or_insert(entry);
        }
    }
}

impl Revoker {
    /// One that acts through the system account.
    pub fn new(client: Client, servers: Arc<Servers>, journal: Journal) -> Self {
        Self { client, servers, journal, tried: Mutex::default() }
    }

    /// Ends what does not stand any more. `newly` are the IDs that were revoked just now: they are asked for by name first.
    pub async fn sweep(&self, standing: &Standing, admitted: &Admitted, newly: &[String], kicked: &Counter) {
        let own = futures::stream::iter(admitted.fallen(|workload| standing.still_stands(workload)));
        let kick = |((server, number), entry): ((PublicKey, u64), Entry)| async move {
            if !self.kick(server, number, &entry.workload, kicked).await {
                admitted.put_back((server, number), entry, crate::clock::now());
            }
        };
        own.for_each_concurrent(AT_ONCE, kick).await;
        for id in newly {
            let question = json!({ "auth": true, "user": id, "limit": CALLOUT_PAGE });
            for (server, page) in self.ask_all(&question).await {
                self.end(server, fallen(&page, standing), kicked).await;
            }
        }
        for server in self.servers.all() {
            // All pages first: a connection that ends moves those after it onto a page that has been read.
            let (mut found, mut offset) = (Vec::new(), 0_u64);
            loop {
                let question = json!({ "auth": true, "limit": CALLOUT_PAGE, "offset": offset });
                let Some(page) = self.ask(server, &question).await else { break };
                found.extend(fallen(&page, standing));
                let count = page.get("num_connections").and_then(Value::as_u64).unwrap_or_default();
                let total = page.get("total").and_then(Value::as_u64).unwrap_or_default();
                offset = offset.saturating_add(count.max(1));
                if count == 0 || offset >= total || found.len() >= CALLOUT_ADMITTED {
                    break;
                }
            }
            self.end(server, found, kicked).await;
        }
    }

    async fn end(&self, server: PublicKey, fallen: Vec<(u64, WorkloadId)>, kicked: &Counter) {
        let kick = |(number, workload): (u64, WorkloadId)| async move {
            self.kick(server, number, &workload, kicked).await;
        };
        futures::stream::iter(fallen).for_each_concurrent(AT_ONCE, kick).await;
    }

    /// Whether the server answered: then it is ended, or was not there any more.
    async fn kick(&self, server: PublicKey, number: u64, workload: &WorkloadId, kicked: &Counter) -> bool {
        if !self.is_due(server, number) {
            return false;
        }
        // A server ends nothing for a request that nobody waits for.
        let question = json!({ "cid": number }).to_string();
        let subject = format!("$SYS.REQ.SERVER.{server}.KICK");
        let answer = tokio::time::timeout(ANSWER, self.client.request(subject, question.into())).await;
        let answer = answer.ok().and_then(Result::ok).map(|answer| answer.payload);
        let answer = answer.and_then(|payload| serde_json::from_slice::<Value>(&payload).ok());
        // One that has ended by itself meanwhile is an error there, too.
        let answered = answer.is_some();
        let ended = answer.is_some_and(|answer| answer.get("error").is_none());
        if ended {
            kicked.up();
            tracing::warn!(%workload, %server, number, "its connection is ended");
        } else {
            tracing::info!(%workload, %server, number, "its connection is not there any more, or its server does not answer");
        }
        let record = Record::new("callout-kick")
            .field("workload", workload.as_str())
            .field("server", server.to_string())
            .field("connection", number)
            .field("ended", ended);
        self.journal.note(record);
        answered
    }

    /// Whether this connection was not tried just now: it is in lists for a moment longer.
    fn is_due(&self, server: PublicKey, number: u64) -> bool {
        let Ok(mut tried) = self.tried.lock() else { return true };
        tried.retain(|_, at| at.elapsed() < AGAIN);
        let is_due = !tried.contains_key(&(server, number));
        if is_due {
            tried.insert((server, number), Instant::now());
        }
        is_due
    }

    async fn ask(&self, server: PublicKey, question: &Value) -> Option<Value> {
        let subject = format!("$SYS.REQ.SERVER.{server}.CONNZ");
        let answer = tokio::time::timeout(ANSWER, self.client.request(subject, question.to_string().into())).await;
        let answer: Value = serde_json::from_slice(&answer.ok()?.ok()?.payload).ok()?;
        answer.get("data").cloned()
    }

    /// Asks every server at once; takes what comes until all that are known have answered.
    async fn ask_all(&self, question: &Value) -> Vec<(PublicKey, Value)> {
        let inbox = self.client.new_inbox();
        let Ok(mut answers) = self.client.subscribe(inbox.clone()).await else { return Vec::new() };
        let asked = self.client.publish_with_reply("$SYS.REQ.SERVER.PING.CONNZ", inbox, question.to_string().into());
        if asked.await.is_err() {
            return Vec::new();
        }
        let (mut pages, expected) = (Vec::new(), self.servers.all().len().max(1));
        let until = tokio::time::Instant::now() + ANSWER;
        while pages.len() < expected {
            let Ok(Some(answer)) = tokio::time::timeout_at(until, answers.next()).await else { break };
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
            let server = answer.pointer("/server/id").and_then(Value::as_str).unwrap_or_default();
            if let (Ok(server), Some(data)) = (PublicKey::parse(server, Kind::Server), answer.get("data")) {
                pages.push((server, data.clone()));
            }
        }
        pages
    }
}

/// Who of a page of connections does not stand any more.
fn fallen(page: &Value, standing: &Standing) -> Vec<(u64, WorkloadId)> {
    let mut fallen = Vec::new();
    for connection in page.get("connections").and_then(Value::as_array).into_iter().flatten() {
        let Some(number) = connection.get("cid").and_then(Value::as_u64) else { continue };
        let user = connection.get("authorized_user").and_then(Value::as_str).unwrap_or_default();
        // Users that are no SPIFFE IDs are not ours to end: the callout itself, break-glass users.
        if let Ok(workload) = user.parse::<WorkloadId>()
            && !standing.still_stands(&workload)
        {
            fallen.push((number, workload));
        }
    }
    fallen
}

/// Connections that are ended at once.
const AT_ONCE: usize = 32;
/// How soon a connection that was to be ended is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// How long a server may take to list its connections.
const ANSWER: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_whose_end_nobody_confirms_is_looked_at_again_for_as_long_as_it_can_live() {
        let admitted = Admitted::default();
        let server = PublicKey::new(Kind::Server, [7; 32]);
        let (fallen, stands): (WorkloadId, WorkloadId) =
            ("spiffe://td/a".parse().unwrap(), "spiffe://td/b".parse().unwrap());
        let now = crate::clock::now();
        let until = now + Duration::from_secs(60);
        assert!(
            admitted.remember(server, 1, fallen.clone(), until) && admitted.remember(server, 2, stands.clone(), until)
        );
        let look = || admitted.fallen(|workload| *workload == stands);
        for _ in 0..3 {
            let mut found = look();
            let (connection, entry) = found.pop().unwrap();
            assert!(found.is_empty() && connection == (server, 1) && entry.workload == fallen);
            assert!(look().is_empty(), "it is taken out while it is being ended");
            admitted.put_back(connection, entry, now);
        }
        let (connection, entry) = look().pop().unwrap();
        admitted.put_back(connection, entry, until);
        assert!(look().is_empty(), "it has ended by itself");
    }

    #[test]
    fn no_more_connections_are_remembered_than_may_be_and_those_that_ended_make_room() {
        let admitted = Admitted::default();
        let server = PublicKey::new(Kind::Server, [7; 32]);
        let workload: WorkloadId = "spiffe://td/a".parse().unwrap();
        let (past, future) =
            (crate::clock::now() - Duration::from_secs(1), crate::clock::now() + Duration::from_secs(60));
        for number in 0..u64::try_from(CALLOUT_ADMITTED).unwrap() {
            let until = if number == 0 { past } else { future };
            assert!(admitted.remember(server, number, workload.clone(), until));
        }
        assert!(admitted.remember(server, u64::MAX, workload.clone(), future), "one has ended");
        assert!(!admitted.remember(server, u64::MAX - 1, workload, future));
    }
}
