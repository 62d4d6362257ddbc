//! A stream of the Workload API: the whole state at once, again when it changed, never twice the same, never an end with OK
//! (clients take that for an error or stop for good).

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use prost::Message;
use ring::digest::{Digest, SHA256, digest};
use tokio::sync::watch;
use tonic::Status;
use zeroize::Zeroizing;

use super::entitlement::Due;
use super::refusal::Refusal;
use crate::limits::{WORKLOAD_LONGEST_WAIT, WORKLOAD_MESSAGE_BYTES, WORKLOAD_SHORTEST_WAIT};

/// A stream of messages.
pub(super) type Following<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// What wakes a stream.
#[derive(Debug, Clone)]
pub(super) struct Wakers {
    /// The state may have changed.
    pub(super) changes: watch::Receiver<u64>,
    /// The server ends.
    pub(super) stopping: watch::Receiver<bool>,
}

struct State<P> {
    produce: P,
    wakers: Wakers,
    /// Of the message that was sent last.
    sent: Option<Digest>,
    /// When to look again where nothing changes; `None` before the first look.
    again: Option<Duration>,
    ended: bool,
}

/// Follows what `produce` gives.
pub(super) fn follow<M, P, F>(wakers: Wakers, produce: P) -> Following<M>
where
    M: Message + 'static,
    P: Fn() -> F + Send + 'static,
    F: Future<Output = Result<Due<M>, Refusal>> + Send,
{
    let state = State { produce, wakers, sent: None, again: None, ended: false };
    Box::pin(futures::stream::unfold(state, |mut state| async move {
        if state.ended {
            return None;
        }
        let next = state.next().await;
        state.ended = next.is_err();
        Some((next.map_err(|refusal| refusal.status()), state))
    }))
}

impl<P> State<P> {
    /// The next message that differs from the one before.
    async fn next<M, F>(&mut self) -> Result<M, Refusal>
    where
        M: Message,
        P: Fn() -> F,
        F: Future<Output = Result<Due<M>, Refusal>>,
    {
        loop {
            match self.again {
                None if *self.wakers.stopping.borrow() => return Err(STOPPING),
                None => {}
                Some(wait) => self.wakers.wait(wait).await?,
            }
            self.wakers.changes.borrow_and_update();
            let Due { answer, again } = (self.produce)().await?;
            self.again =
                Some(again.unwrap_or(WORKLOAD_LONGEST_WAIT).clamp(WORKLOAD_SHORTEST_WAIT, WORKLOAD_LONGEST_WAIT));
            let bytes = Zeroizing::new(answer.encode_to_vec());
            if bytes.len() > WORKLOAD_MESSAGE_BYTES {
                return Err(Refusal::TooLarge);
            }
            let new = digest(&SHA256, &bytes);
            if self.sent.as_ref().map(AsRef::as_ref) != Some(new.as_ref()) {
                self.sent = Some(new);
                return Ok(answer);
            }
        }
    }
}

impl Wakers {
    /// Waits until there is something to look at, at most so long.
    async fn wait(&mut self, most: Duration) -> Result<(), Refusal> {
        tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stopping| *stopping) => Err(STOPPING),
            changed = self.changes.changed() => changed.map_err(|_| STOPPING),
            () = tokio::time::sleep(most) => Ok(()),
        }
    }
}

const STOPPING: Refusal = Refusal::Unavailable("the server ends");

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::StreamExt;
    use tonic::Code;

    use super::*;

    struct Server {
        changes: watch::Sender<u64>,
        stopping: watch::Sender<bool>,
        value: Arc<AtomicU64>,
    }

    /// A stream of one number; 13 stands for no identity.
    fn server() -> (Server, Following<Number>) {
        let server = Server {
            changes: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
            value: Arc::new(AtomicU64::new(1)),
        };
        let wakers = Wakers { changes: server.changes.subscribe(), stopping: server.stopping.subscribe() };
        let value = Arc::clone(&server.value);
        let stream = follow(wakers, move || {
            let now = value.load(Ordering::Relaxed);
            async move {
                match now {
                    13 => Err(Refusal::NoIdentity),
                    14 => Ok(Due { answer: Number { value: vec![0; WORKLOAD_MESSAGE_BYTES] }, again: None }),
                    now => Ok(Due { answer: Number { value: now.to_be_bytes().to_vec() }, again: None }),
                }
            }
        });
        (server, stream)
    }

    #[derive(Clone, PartialEq, Message)]
    struct Number {
        #[prost(bytes, tag = "1")]
        value: Vec<u8>,
    }

    impl Server {
        fn say(&self, value: u64) {
            self.value.store(value, Ordering::Relaxed);
            self.changes.send_modify(|version| *version += 1);
        }
    }

    fn poll(stream: &mut Following<Number>) -> Option<Option<Result<Number, Status>>> {
        futures::FutureExt::now_or_never(stream.next())
    }

    #[tokio::test]
    async fn the_state_comes_at_once_and_again_only_when_it_changed() {
        let (server, mut stream) = server();
        assert_eq!(stream.next().await.unwrap().unwrap().value, 1_u64.to_be_bytes());
        assert!(poll(&mut stream).is_none());
        server.say(1);
        assert!(poll(&mut stream).is_none(), "the same message twice");
        server.say(2);
        assert_eq!(stream.next().await.unwrap().unwrap().value, 2_u64.to_be_bytes());
        assert!(poll(&mut stream).is_none());
    }

    #[tokio::test]
    async fn a_stream_never_ends_with_ok() {
        let (server, mut stream) = server();
        stream.next().await.unwrap().unwrap();
        server.stopping.send_replace(true);
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        assert!(stream.next().await.is_none());
        let (server, mut stream) = self::server();
        stream.next().await.unwrap().unwrap();
        drop(server);
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        let (server, mut stream) = self::server();
        server.stopping.send_replace(true);
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    }

    #[tokio::test]
    async fn who_loses_its_identity_is_told_so_mid_stream() {
        let (server, mut stream) = server();
        stream.next().await.unwrap().unwrap();
        server.say(13);
        let status = stream.next().await.unwrap().unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
    }

    #[tokio::test]
    async fn a_message_that_clients_would_not_take_is_not_sent() {
        let (server, mut stream) = server();
        stream.next().await.unwrap().unwrap();
        server.say(14);
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::ResourceExhausted);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_change_the_state_is_looked_at_when_it_is_due() {
        let (_changes, changes) = watch::channel(0);
        let (_stopping, stopping) = watch::channel(false);
        let looks = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&looks);
        let mut stream = follow(Wakers { changes, stopping }, move || {
            let value = counted.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec();
            async move { Ok(Due { answer: Number { value }, again: Some(Duration::from_secs(60)) }) }
        });
        let from = tokio::time::Instant::now();
        stream.next().await.unwrap().unwrap();
        stream.next().await.unwrap().unwrap();
        assert_eq!(from.elapsed().as_secs(), 60);
        assert_eq!(looks.load(Ordering::Relaxed), 2);
    }
}
