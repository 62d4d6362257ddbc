//! Outgoing connections of the identity process: it has none of its own and asks the supervisor by name.
//!
//! The process that holds the keys may not make a socket at all. The supervisor knows which names the operator's configuration
//! stands for, connects, and hands the connected socket down; any other name is refused there.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_identity::rpc::DialWanted;
use tokio::sync::{mpsc, oneshot};

use crate::limits::{DIAL_TIMEOUT, DIALS_WAITING};
use crate::process::handover::Packet;

/// Connections that are wanted and those that are waited for.
pub(super) struct Dials {
    next: AtomicU64,
    wanted: mpsc::Sender<DialWanted>,
    asked: Mutex<Option<mpsc::Receiver<DialWanted>>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<io::Result<OwnedFd>>>>,
}

/// Takes its place out of the table when the wait ends, however it ends.
struct Waiting<'a> {
    dials: &'a Dials,
    transfer: u64,
}

impl Dials {
    /// Nobody serves them yet; what is wanted waits.
    pub(super) fn new() -> Self {
        let (wanted, asked) = mpsc::channel(DIALS_WAITING);
        let (asked, waiting) = (Mutex::new(Some(asked)), Mutex::default());
        Self { next: AtomicU64::new(1), wanted, asked, waiting }
    }

    /// A connected socket to what the supervisor knows by this name.
    pub(super) async fn dial(&self, name: &str) -> io::Result<OwnedFd> {
        let transfer = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().map_err(|_| io::Error::other("poisoned"))?.insert(transfer, sender);
        let _waiting = Waiting { dials: self, transfer };
        let wanted = DialWanted { transfer, target: name.to_owned() };
        let came = async {
            self.wanted.send(wanted).await.map_err(io::Error::other)?;
            receiver.await.map_err(io::Error::other)?
        };
        let came = tokio::time::timeout(DIAL_TIMEOUT, came).await;
        came.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time"))?
    }

    /// What is wanted, for the supervisor. There is one: who asks again gets nothing.
    pub(super) fn wanted(&self) -> Option<mpsc::Receiver<DialWanted>> {
        self.asked.lock().ok()?.take()
    }

    /// A socket came down, or the reason why there is none.
    pub(super) fn arrived(&self, packet: Packet) {
        let why = packet.payload.get("error").and_then(serde_json::Value::as_str).unwrap_or("no connection");
        let came = packet.fds.into_iter().next().ok_or_else(|| io::Error::other(why.to_owned()));
        let waiting = self.waiting.lock().ok().and_then(|mut waiting| waiting.remove(&packet.transfer));
        if let Some(waiting) = waiting {
            let _ = waiting.send(came);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Ok(mut waiting) = self.dials.waiting.lock() {
            waiting.remove(&self.transfer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::*;

    fn packet(transfer: u64, payload: serde_json::Value, fds: Vec<OwnedFd>) -> Packet {
        Packet { label: "dial".to_owned(), transfer, payload, fds }
    }

    #[tokio::test]
    async fn a_socket_goes_to_the_one_who_asked_and_a_refusal_says_why() {
        let dials = Arc::new(Dials::new());
        let mut wanted = dials.wanted().unwrap();
        assert!(dials.wanted().is_none(), "there is one supervisor");
        let asked: Vec<_> = ["a", "b"]
            .map(|name| {
                let dials = Arc::clone(&dials);
                tokio::spawn(async move { dials.dial(name).await })
            })
            .into();
        for _ in 0..2 {
            let one = wanted.recv().await.unwrap();
            match one.target.as_str() {
                "a" => dials.arrived(packet(
                    one.transfer,
                    serde_json::Value::Null,
                    vec![UnixStream::pair().unwrap().0.into()],
                )),
                _ => dials.arrived(packet(one.transfer, serde_json::json!({"error": "unknown"}), Vec::new())),
            }
        }
        let mut results = Vec::new();
        for one in asked {
            results.push(one.await.unwrap());
        }
        assert!(results[0].is_ok());
        assert_eq!(results[1].as_ref().unwrap_err().to_string(), "unknown");
        dials.arrived(packet(99, serde_json::Value::Null, Vec::new()));
        assert!(dials.waiting.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_nobody_makes_is_given_up() {
        let dials = Dials::new();
        assert_eq!(dials.dial("a").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(dials.waiting.lock().unwrap().is_empty());
    }
}
