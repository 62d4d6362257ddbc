//! Messages of components over NATS: what they send, and what is delivered to them.
//!
//! Every message that goes out is decided on before it leaves, every subscription is decided anew whenever policy changes. Nobody
//! is believed because of a subject: who sent a message is not known, and is not told. No header of NATS reaches a component and
//! none of its making leaves, since the interface has none.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use tokio::sync::{OnceCell, watch};

use super::component::{Loaded, Shared};
use crate::config::messaging::Messaging as Settings;
use crate::nats::{FromIdentity, Nats};

mod backlog;
pub mod delivery;
mod interfaces;
pub mod line;
mod receiving;
mod sending;
pub mod subscribing;
pub mod told;

use self::line::Line;
use self::told::Told;

/// What all components of this process share of it.
pub struct Messaging {
    told: Option<Told>,
    /// The connection that all share.
    shared: OnceLock<Nats>,
    own: Mutex<HashMap<String, Arc<OnceCell<Line>>>>,
    draining: watch::Sender<bool>,
    counts: Counts,
}

/// What happened to messages.
#[derive(Debug, Default)]
pub struct Counts {
    /// Published, requests included.
    pub sent: AtomicU64,
    /// Given to a handler.
    pub delivered: AtomicU64,
    /// Not given to one: too many waited, too large, malformed, or of a reserved subject.
    pub dropped: AtomicU64,
}

/// Why a component has no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLine {
    /// Not configured.
    #[error("this host is not configured for messages")]
    NotConfigured,
    /// The instance may not do anything any more.
    #[error("this instance was stopped or revoked")]
    Over,
    /// Not there at the moment.
    #[error("no connection to NATS at the moment")]
    Down,
}

impl Messaging {
    /// As the supervisor told; where it told nothing, nothing is sent and nothing is received.
    pub fn new(told: Option<Told>) -> Self {
        Self {
            told,
            shared: OnceLock::new(),
            own: Mutex::new(HashMap::new()),
            draining: watch::Sender::new(false),
            counts: Counts::default(),
        }
    }

    /// Begins the connection that all share, where there is to be one.
    pub async fn start(of: Arc<Shared>) {
        let Some(told) = of.messaging.told.as_ref().filter(|told| !told.settings.per_component) else { return };
        let weak = Arc::downgrade(&of);
        let credentials = FromIdentity::new(Arc::new(move || weak.upgrade()?.identity.channel()));
        match Nats::start(told.line.clone(), credentials).await {
            Ok(nats) => drop(of.messaging.shared.set(nats)),
            // The configuration was checked: this is a file that changed since. Readiness of messages stays away.
            Err(error) => tracing::error!(%error, "there is no connection for messages"),
        }
    }

    /// The settings, where there are any.
    pub fn settings(&self) -> Option<&Settings> {
        self.told.as_ref().map(|told| &told.settings)
    }

    /// What happened to messages.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The connection for a component. It may not stand at the moment.
    pub async fn line(&self, who: &Arc<Loaded>) -> Result<Line, NoLine> {
        if is_over(who) {
            return Err(NoLine::Over);
        }
        let told = self.told.as_ref().ok_or(NoLine::NotConfigured)?;
        if !told.settings.per_component {
            return self.shared.get().map(|nats| Line::shared(nats.clone(), &told.line, who)).ok_or(NoLine::Down);
        }
        let cell = {
            let mut own = self.own.lock().map_err(|_| NoLine::Down)?;
            // One that was stopped in between must not come back into the table.
            if who.is_stopped() {
                return Err(NoLine::Over);
            }
            Arc::clone(own.entry(who.instance().to_owned()).or_default())
        };
        let line = cell.get_or_try_init(|| Line::of_component(who, &told.line)).await?;
        if who.is_stopped() {
            // It was forgotten while it was being made.
            line.close().await;
            return Err(NoLine::Over);
        }
        Ok(line.clone())
    }

    /// Closes the connection of an instance that was stopped.
    pub fn forget(&self, instance: &str) {
        let cell = self.own.lock().ok().and_then(|mut own| own.remove(instance));
        if let Some(line) = cell.and_then(|cell| cell.get().cloned()) {
            tokio::spawn(async move { line.close().await });
        }
    }

    /// Takes no messages from now on; those at work go on.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    fn dropped(&self, count: u64) {
        self.counts.dropped.fetch_add(count, Ordering::Relaxed);
    }
}

/// Whether nothing may be done in the name of an instance any more.
fn is_over(who: &Loaded) -> bool {
    let trust = who.shared().identity.trust();
    who.is_stopped() || trust.is_none_or(|trust| trust.is_revoked(who.instance(), who.spiffe_id()))
}

/// A token that stands for a component in its inboxes: the same on every host, and nothing that a SPIFFE ID could widen.
fn private_token(spiffe_id: &str) -> String {
    let hash = digest(&SHA256, spiffe_id.as_bytes());
    hash.as_ref().iter().take(TOKEN_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// The queue group of a component: its replicas on all hosts share what it gets.
fn queue_of(component: &str) -> String {
    format!("component.{}", component.replace(':', "."))
}

impl fmt::Debug for Messaging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messaging").field("told", &self.told).field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// Bytes of a hash in an inbox.
const TOKEN_BYTES: usize = 10;
/// Pause before a subscription that was refused by the server is tried again.
const RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inboxes_are_one_token_that_says_nothing_and_differs_by_identity() {
        let one = private_token("spiffe://a.example/ns/shop/sa/a");
        // printf %s spiffe://a.example/ns/shop/sa/a | sha256sum | cut -c1-20
        assert_eq!(one, "38688e9c78b09b1e9eee");
        assert_ne!(one, private_token("spiffe://a.example/ns/shop/sa/b"));
        for hostile in ["spiffe://a/>", "spiffe://a/*", "spiffe://a/b.c", ""] {
            let token = private_token(hostile);
            assert!(token.len() == 20 && token.bytes().all(|b| b.is_ascii_hexdigit()), "{token}");
        }
    }

    #[test]
    fn a_queue_group_is_a_word_of_the_protocol() {
        assert_eq!(queue_of("shop:cart-2"), "component.shop.cart-2");
        assert!(queue_of("shop:cart").parse::<portcullis_policies::Subject>().is_ok());
    }
}
