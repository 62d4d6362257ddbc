//! A connection to NATS that is believed only when the server has said whom it takes us for.
//!
//! The client library keeps subscriptions through reconnects; everything else about a connection is decided here: which server is
//! tried when, what is shown to it, whether it counts. It counts ([`State::Verified`]) only after the server named the account and
//! the user that are expected; until then nothing is published and nobody is ready. Servers that the other servers speak of are
//! ignored: the operator names them. Secrets come from [`credentials`] anew at each connect; a rotation connects again.

pub mod cause;
mod credentials;
mod driver;
mod pace;
pub mod secrets;
mod settings;
mod standing;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::{Client, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use tokio::sync::{broadcast, watch};

pub use self::cause::Cause;
pub use self::credentials::{ConnectSecrets, Credentials, FromFiles, FromIdentity};
use self::driver::{Driver, Shared};
pub use self::settings::Settings;
pub use self::standing::{Denied, Standing};
use crate::limits::{NATS_LEAVE, NATS_VERIFY};

/// One connection. Cheap to clone; the last clone that is dropped ends it.
#[derive(Debug, Clone)]
pub struct Nats {
    client: Client,
    shared: Arc<Shared>,
    _end: Arc<End>,
}

/// Ends the connection when it is dropped.
#[derive(Debug)]
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Whether it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does not.
    Down {
        /// Why not.
        cause: Cause,
    },
    /// The server said whom it takes us for, and that is as it should be.
    Verified {
        /// What it said.
        standing: Standing,
        /// Since when.
        since: SystemTime,
    },
}

/// Counters for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts to connect.
    pub attempts: u64,
    /// Times that the connection came to count.
    pub verified: u64,
    /// Times that the server refused who we are.
    pub refused: u64,
    /// Publishing or subscribing that the server denied.
    pub denied: u64,
}

/// Why something could not be done over a connection.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The connection cannot be set up. Configuration.
    #[error("{0}")]
    Setup(String),
    /// It does not count at the moment.
    #[error("no connection to NATS: {0}")]
    Down(Cause),
    /// The server denied it.
    #[error("the server denies {0}")]
    Denied(String),
    /// Nobody serves that subject.
    #[error("nobody answers at {0}")]
    NoResponders(String),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The caller erred, or the client library failed.
    #[error("{0}")]
    Failed(String),
}

impl NatsError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Setup(_) => "see [nats] in the configuration",
            Self::Down(cause) => cause.hint(),
            Self::Denied(_) => "allow it to this user at the server, or leave it",
            Self::NoResponders(_) => "see that whoever serves it is up and in the same account",
            Self::TimedOut => "see that whoever serves it is up, and that replies to the inbox prefix are allowed",
            Self::Failed(_) => "see the log",
        }
    }
}

impl Nats {
    /// Begins to connect, and keeps on until it is closed. Returns at once: see [`Self::verified`].
    pub async fn start(settings: Settings, credentials: Arc<dyn Credentials>) -> Result<Self, NatsError> {
        let driver = Driver::new(settings, credentials)?;
        let shared = driver.shared();
        let client = driver.run().await?;
        Ok(Self { client, _end: Arc::new(End(Arc::clone(&shared))), shared })
    }

    /// The client, for what is not here. It lives through reconnects, and so do its subscriptions. Whoever uses it looks at
    /// [`Self::state`] first.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Whether it counts, now and from now on.
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state()
    }

    /// Waits until it counts.
    pub async fn verified(&self, within: Duration) -> Result<(), NatsError> {
        let mut state = self.state();
        let waited =
            tokio::time::timeout(within, state.wait_for(|state| matches!(state, State::Verified { .. }))).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => self.counts_now(),
        }
    }

    /// What the server denies, from now on.
    pub fn denied(&self) -> broadcast::Receiver<Denied> {
        self.shared.denied()
    }

    /// Why a secret that was replaced is not in use.
    pub fn problem(&self) -> Option<String> {
        self.shared.problem()
    }

    /// Counters.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Takes other authorities of servers from the next connect on, and connects again.
    pub fn replace_roots(&self, pem: &[u8]) -> Result<(), NatsError> {
        self.shared.replace_roots(pem)?;
        self.reconnect();
        Ok(())
    }

    /// Publishes. Refused while the connection does not count.
    pub async fn publish(
        &self,
        subject: impl Into<String>,
        headers: Option<HeaderMap>,
        payload: impl Into<Bytes>,
    ) -> Result<(), NatsError> {
        self.counts_now()?;
        let (subject, payload) = (subject.into(), payload.into());
        let done = match headers {
            Some(headers) => self.client.publish_with_headers(subject, headers, payload).await,
            None => self.client.publish(subject, payload).await,
        };
        done.map_err(|error| NatsError::Failed(error.to_string()))
    }

    /// Asks, and waits for one answer. Refused while the connection does not count, and at once where the server denies it.
    pub async fn request(
        &self,
        subject: impl Into<String>,
        headers: Option<HeaderMap>,
        payload: impl Into<Bytes>,
        timeout: Duration,
    ) -> Result<Message, NatsError> {
        self.counts_now()?;
        let (subject, mut denied) = (subject.into(), self.denied());
        let request = async_nats::Request::new().payload(payload.into()).timeout(Some(timeout));
        let request = match headers {
            Some(headers) => request.headers(headers),
            None => request,
        };
        let refused = async {
            while let Ok(what) = denied.recv().await {
                match what {
                    Denied::Publish { subject: that } if that == subject => return,
                    _ => {}
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            () = refused => Err(NatsError::Denied(format!("publishing to {subject}"))),
            answer = self.client.send_request(subject.clone(), request) => {
                use async_nats::RequestErrorKind as Kind;
                answer.map_err(|error| match error.kind() {
                    Kind::TimedOut => NatsError::TimedOut,
                    Kind::NoResponders => NatsError::NoResponders(subject.clone()),
                    _ => NatsError::Failed(error.to_string()),
                })
            }
        }
    }

    /// Subscribes, and waits until the server has taken or denied it.
    pub async fn subscribe(&self, subject: impl Into<String>, queue: Option<&str>) -> Result<Subscriber, NatsError> {
        self.counts_now()?;
        let (subject, mut denied) = (subject.into(), self.denied());
        let subscribed = match queue {
            Some(queue) => self.client.queue_subscribe(subject.clone(), queue.to_owned()).await,
            None => self.client.subscribe(subject.clone()).await,
        };
        let subscriber = subscribed.map_err(|error| NatsError::Failed(error.to_string()))?;
        let refused = async {
            while let Ok(what) = denied.recv().await {
                match what {
                    Denied::Subscribe { subject: that, queue: of } if that == subject && of.as_deref() == queue => {
                        return;
                    }
                    _ => {}
                }
            }
            std::future::pending().await
        };
        // The server reads in order: when it answers what came later, it has decided on this.
        let taken = async {
            let answered = self.shared.ask(&self.client, NATS_VERIFY).await;
            // What it denied came before the answer, but by way of another task.
            tokio::time::sleep(BEHIND).await;
            answered
        };
        tokio::select! {
            biased;
            () = refused => Err(NatsError::Denied(format!("subscribing to {subject}"))),
            answered = taken => answered.map(|_| subscriber).map_err(NatsError::Down),
        }
    }

    /// Connects again at once, with what is to be shown now.
    pub fn reconnect(&self) {
        self.shared.reconnect(&self.client);
    }

    /// Ends it: what was published is sent, then nothing is tried any more.
    pub async fn close(&self) {
        self.shared.close();
        if self.client.connection_state() == async_nats::connection::State::Connected {
            let _ = tokio::time::timeout(NATS_LEAVE, self.client.drain()).await;
        }
    }

    fn counts_now(&self) -> Result<(), NatsError> {
        match &*self.shared.state().borrow() {
            State::Verified { .. } => Ok(()),
            State::Down { cause } => Err(NatsError::Down(cause.clone())),
        }
    }
}

/// How far an event of the client library may be behind an answer that came after it.
const BEHIND: Duration = Duration::from_millis(20);
