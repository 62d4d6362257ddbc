//! mTLS connections that stand, inbound and outbound, each with what it was proven with, so that it ends when the proof does.
//!
//! A handshake is checked once; bundles change, identities are revoked, instances stop afterwards. Then every live connection is
//! checked again here, both sides of it, and what would not pass now is cut. Rotation alone cuts nothing: the old authority
//! stays in the bundle for as long as its SVIDs live.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use portcullis_identity::SpiffeId;
use portcullis_identity::mtls::Peer;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::identity::trust::{Trust, Unfit};

/// The table of live connections.
#[derive(Debug, Default)]
pub struct Live {
    entries: Mutex<HashMap<u64, Entry>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    instance: String,
    peer: Arc<Peer>,
    end: oneshot::Sender<Unfit>,
}

/// A connection's entry in the table. Dropping it takes the entry out.
#[derive(Debug)]
pub struct Place {
    live: Arc<Live>,
    number: u64,
    end: oneshot::Receiver<Unfit>,
    until: OffsetDateTime,
}

/// A connection that was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Whose it was.
    pub instance: String,
    /// The other side.
    pub peer: SpiffeId,
    /// Whether the other side had called.
    pub inbound: bool,
    /// Why it was cut.
    pub why: Unfit,
}

/// A stream that ends with its entry: each read and write fails from then on.
#[derive(Debug)]
pub struct Guarded<S> {
    stream: S,
    place: Place,
    expiry: Pin<Box<Sleep>>,
    over: Option<Unfit>,
}

impl Live {
    /// Enters a connection of `instance` to or from `peer`.
    pub fn enter(self: &Arc<Self>, instance: &str, peer: &Peer) -> Place {
        let (end, ended) = oneshot::channel();
        let until = peer.not_after().min(peer.presented().not_after);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { instance: instance.to_owned(), peer: Arc::new(peer.clone()), end };
        if let Ok(mut entries) = self.entries.lock() {
            entries.insert(number, entry);
        }
        Place { live: Arc::clone(self), number, end: ended, until }
    }

    /// Checks every connection again and cuts those that would not be made now. Does not wait: run it where computing is fine.
    pub fn review(&self, trust: &Trust, now: OffsetDateTime) -> Vec<Cut> {
        let all: Vec<(u64, String, Arc<Peer>)> = match self.entries.lock() {
            Ok(entries) => entries
                .iter()
                .map(|(number, entry)| (*number, entry.instance.clone(), Arc::clone(&entry.peer)))
                .collect(),
            Err(_) => return Vec::new(),
        };
        // Many connections show the same chains: each is verified once.
        let mut known = HashMap::new();
        let mut cut = Vec::new();
        for (number, instance, peer) in all {
            let checked = own(&mut known, trust, &instance, &peer, now)
                .and_then(|()| other(&mut known, trust, &peer, now));
            if let Err(why) = checked {
                cut.extend(self.end(number, why));
            }
        }
        cut
    }

    /// Cuts every connection of an instance that was stopped.
    pub fn stop(&self, instance: &str) -> usize {
        let numbers: Vec<u64> = match self.entries.lock() {
            Ok(entries) => {
                entries.iter().filter(|(_, entry)| entry.instance == instance).map(|(number, _)| *number).collect()
            }
            Err(_) => return 0,
        };
        numbers.into_iter().filter_map(|number| self.end(number, Unfit::Stopped)).count()
    }

    /// Connections in the table.
    pub fn len(&self) -> usize {
        self.entries.lock().map(|entries| entries.len()).unwrap_or_default()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn end(&self, number: u64, why: Unfit) -> Option<Cut> {
        let entry = self.entries.lock().ok()?.remove(&number)?;
        let peer = entry.peer.spiffe_id().clone();
        let inbound = entry.peer.server_name().is_some();
        // Nobody there any more: it ended by itself meanwhile.
        entry.end.send(why.clone()).ok()?;
        Some(Cut { instance: entry.instance, peer, inbound, why })
    }
}

type Known = HashMap<(String, Vec<u8>), Result<(), Unfit>>;

fn own(known: &mut Known, trust: &Trust, instance: &str, peer: &Peer, now: OffsetDateTime) -> Result<(), Unfit> {
    let svid = peer.presented();
    let key = (instance.to_owned(), svid.chain.concat());
    known.entry(key).or_insert_with(|| trust.check_own(instance, svid, now)).clone()
}

fn other(known: &mut Known, trust: &Trust, peer: &Peer, now: OffsetDateTime) -> Result<(), Unfit> {
    // No instance has this name; a chain is checked as a client's or as a server's.
    let side = if peer.server_name().is_some() { "/client" } else { "/server" };
    let key = (side.to_owned(), peer.certificates().collect::<Vec<_>>().concat());
    known.entry(key).or_insert_with(|| trust.check_peer(peer, now)).clone()
}

impl Place {
    /// When the first of the two SVIDs ends.
    pub fn until(&self) -> OffsetDateTime {
        self.until
    }

    /// Waits until the connection is cut.
    pub async fn cut(&mut self) -> Unfit {
        match (&mut self.end).await {
            Ok(why) => why,
            // Not cut, and nobody left who could.
            Err(_) => std::future::pending().await,
        }
    }

    /// The stream, for as long as the connection may live.
    pub fn guard<S>(self, stream: S) -> Guarded<S> {
        let expiry = Box::pin(tokio::time::sleep(left(self.until)));
        Guarded { stream, place: self, expiry, over: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(mut entries) = self.live.entries.lock() {
            entries.remove(&self.number);
        }
    }
}

/// How long from now until then; nothing if that is past.
pub fn left(until: OffsetDateTime) -> std::time::Duration {
    (until - crate::clock::now()).try_into().unwrap_or_default()
}

impl<S> Guarded<S> {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.over.is_none() {
            if let Poll::Ready(Ok(why)) = Pin::new(&mut self.place.end).poll(cx) {
                self.over = Some(why);
            } else if self.expiry.as_mut().poll(cx).is_ready() {
                self.over = Some(Unfit::Expired);
            }
        }
        match &self.over {
            Some(why) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.clone())),
            None => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
