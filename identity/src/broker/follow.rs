//! A stream of the Broker API: the whole state at once, again when it changed, never twice the same. It ends, never with OK,
//! when the workload ends, when the broker loses its right, or when the server does (SPIFFE_Broker_API section 4).

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use prost::Message;
use ring::digest::{SHA256, digest};
use tokio::sync::watch;
use tonic::Status;
use zeroize::Zeroizing;

use super::refusal::BrokerRefusal;
use crate::limits::{BROKER_LONGEST_WAIT, BROKER_MESSAGE_BYTES, BROKER_SHORTEST_WAIT};
use crate::workload_api::Due;

/// A stream of messages.
pub(super) type Following<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// What wakes a stream.
#[derive(Debug, Clone)]
pub(super) struct Wakers {
    pub(super) changes: watch::Receiver<u64>,
    pub(super) stopping: watch::Receiver<bool>,
}

struct Stage<P> {
    produce: P,
    wakers: Wakers,
    sent: Option<Vec<u8>>,
    wait: Option<Duration>,
    ended: bool,
}

/// Follows what `produce` gives.
pub(super) fn follow<M, P, F>(wakers: Wakers, produce: P) -> Following<M>
where
    M: Message + 'static,
    P: Fn() -> F + Send + 'static,
    F: Future<Output = Result<Due<M>, BrokerRefusal>> + Send,
{
    let stage = Stage { produce, wakers, sent: None, wait: None, ended: false };
    Box::pin(futures::stream::unfold(stage, |mut stage| async move {
        if stage.ended {
            return None;
        }
        let next = stage.next().await;
        stage.ended = next.is_err();
        Some((next.map_err(|refusal| refusal.status()), stage))
    }))
}

impl<P> Stage<P> {
    async fn next<M, F>(&mut self) -> Result<M, BrokerRefusal>
    where
        M: Message,
        P: Fn() -> F,
        F: Future<Output = Result<Due<M>, BrokerRefusal>>,
    {
        loop {
            if let Some(most) = self.wait {
                tokio::select! {
                    biased;
                    _ = self.wakers.stopping.wait_for(|stopping| *stopping) => return Err(STOPPING),
                    changed = self.wakers.changes.changed() => changed.map_err(|_| STOPPING)?,
                    () = tokio::time::sleep(most) => {}
                }
            } else if *self.wakers.stopping.borrow() {
                return Err(STOPPING);
            }
            self.wakers.changes.borrow_and_update();
            let due = (self.produce)().await?;
            let again = due.again.unwrap_or(BROKER_LONGEST_WAIT);
            self.wait = Some(again.clamp(BROKER_SHORTEST_WAIT, BROKER_LONGEST_WAIT));
            let bytes = Zeroizing::new(due.answer.encode_to_vec());
            if bytes.len() > BROKER_MESSAGE_BYTES {
                return Err(BrokerRefusal::Unavailable("the answer would be larger than clients take"));
            }
            let new = digest(&SHA256, &bytes).as_ref().to_vec();
            if self.sent.as_ref() != Some(&new) {
                self.sent = Some(new);
                return Ok(due.answer);
            }
        }
    }
}

const STOPPING: BrokerRefusal = BrokerRefusal::Unavailable("the server ends");

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{FutureExt as _, StreamExt as _};
    use tonic::Code;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Bytes {
        #[prost(bytes, tag = "1")]
        value: Vec<u8>,
    }

    struct Server {
        changes: watch::Sender<u64>,
        stopping: watch::Sender<bool>,
        size: Arc<AtomicUsize>,
    }

    impl Server {
        fn say(&self, size: usize) {
            self.size.store(size, Ordering::Relaxed);
            self.changes.send_modify(|version| *version += 1);
        }
    }

    /// A stream of so many bytes; none stands for a workload that ended.
    fn server() -> (Server, Following<Bytes>) {
        let (changes, stopping) = (watch::Sender::new(0), watch::Sender::new(false));
        let server = Server { changes, stopping, size: Arc::new(AtomicUsize::new(1)) };
        let wakers = Wakers { changes: server.changes.subscribe(), stopping: server.stopping.subscribe() };
        let size = Arc::clone(&server.size);
        let stream = follow(wakers, move || {
            let size = size.load(Ordering::Relaxed);
            async move {
                let answer = Bytes { value: vec![7; size] };
                if size == 0 { Err(BrokerRefusal::NotFound) } else { Ok(Due { answer, again: None }) }
            }
        });
        (server, stream)
    }

    #[tokio::test]
    async fn the_state_comes_at_once_and_again_only_when_it_changed() {
        let (server, mut stream) = server();
        assert_eq!(stream.next().await.unwrap().unwrap().value.len(), 1);
        server.say(1);
        assert!(stream.next().now_or_never().is_none());
        server.say(2);
        assert_eq!(stream.next().await.unwrap().unwrap().value.len(), 2);
    }

    #[tokio::test]
    async fn br_05_it_ends_with_an_error_when_the_workload_or_the_server_does() {
        let (server, mut stream) = server();
        stream.next().await.unwrap().unwrap();
        server.say(0);
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::NotFound);
        assert!(stream.next().await.is_none());
        let (server, mut stream) = self::server();
        stream.next().await.unwrap().unwrap();
        server.stopping.send_replace(true);
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    }

    #[tokio::test]
    async fn the_largest_message_is_sent_and_a_larger_one_is_not() {
        let (server, mut stream) = server();
        // Tag and length take five bytes.
        server.say(BROKER_MESSAGE_BYTES - 5);
        assert!(stream.next().await.unwrap().is_ok());
        server.say(BROKER_MESSAGE_BYTES - 4);
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    }
}
