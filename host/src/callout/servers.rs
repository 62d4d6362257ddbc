//! Which servers there are, by what the system account says: a request of a key that is no server's is not answered. Server keys
//! are made anew at each start of a server, so they are asked for, not configured.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::Client;
use futures::StreamExt;
use portcullis_nkey::{Kind, PublicKey};
use serde_json::Value;
use tokio::sync::Notify;

use crate::limits::{CALLOUT_SERVER_LIFE, CALLOUT_SERVER_LOOK, CALLOUT_SERVERS};

/// The servers.
#[derive(Debug)]
pub struct Servers {
    client: Client,
    known: Mutex<HashMap<PublicKey, Instant>>,
    wanted: Notify,
    news: Notify,
}

impl Servers {
    /// The servers that this client's system account knows.
    pub fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, known: Mutex::default(), wanted: Notify::new(), news: Notify::new() })
    }

    /// Takes answers and asks again from time to time. Runs for as long as the process.
    pub async fn keep_looking(self: Arc<Self>) {
        let inbox = self.client.new_inbox();
        tokio::join!(self.keep_taking(&inbox), self.keep_asking(&inbox));
    }

    async fn keep_taking(&self, inbox: &str) {
        loop {
            if let Ok(mut answers) = self.client.subscribe(inbox.to_owned()).await {
                while let Some(answer) = answers.next().await {
                    self.take(&answer.payload);
                }
            }
            tokio::time::sleep(CALLOUT_SERVER_LOOK).await;
        }
    }

    async fn keep_asking(&self, inbox: &str) {
        let mut look = tokio::time::interval(CALLOUT_SERVER_LOOK);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = self.wanted.notified() => {}
            }
            let asked = self.client.publish_with_reply("$SYS.REQ.SERVER.PING", inbox.to_owned(), Default::default());
            let _ = asked.await;
            // A flood of requests with made-up keys makes no flood of questions.
            tokio::time::sleep(BETWEEN).await;
        }
    }

    /// Whether this is a server's key; asks once, and waits until `until`, where it is not known yet.
    pub async fn knows(&self, server: PublicKey, until: tokio::time::Instant) -> bool {
        if self.has(server) {
            return true;
        }
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.has(server) {
                return true;
            }
            self.wanted.notify_one();
            if tokio::time::timeout_at(until, news).await.is_err() {
                return self.has(server);
            }
        }
    }

    /// The servers that have answered lately.
    pub fn all(&self) -> Vec<PublicKey> {
        self.known.lock().map(|known| known.keys().copied().collect()).unwrap_or_default()
    }

    fn has(&self, server: PublicKey) -> bool {
        self.known.lock().is_ok_and(|known| known.get(&server).is_some_and(|seen| seen.elapsed() < CALLOUT_SERVER_LIFE))
    }

    fn take(&self, answer: &[u8]) {
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let id = answer.pointer("/server/id").and_then(Value::as_str).unwrap_or_default();
        let Ok(id) = PublicKey::parse(id, Kind::Server) else { return };
        if let Ok(mut known) = self.known.lock() {
            known.retain(|_, seen| seen.elapsed() < CALLOUT_SERVER_LIFE);
            if known.len() < CALLOUT_SERVERS || known.contains_key(&id) {
                known.insert(id, Instant::now());
            }
        }
        self.news.notify_waiters();
    }
}

/// Between two questions.
const BETWEEN: Duration = Duration::from_millis(20);
