//! Messages of one subscription: taken as they come, let wait within limits, each handled by a fresh instance.
//!
//! The limits are those of requests: the same places, memory, processor time and wall-clock time. Whatever a guest does wrong costs
//! that message alone. Delivery is at most once, as NATS has it: what does not fit is dropped, counted and reported.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Message;
use futures::StreamExt;
use portcullis_policies::{Grant, Subject, SubjectPattern, Subscribe};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backlog::Backlog;
use super::delivery::{Delivery, reply_of};
use crate::rpc::runtime::{Failure, event::What};
use crate::runtime::component::Loaded;
use crate::runtime::context::Ctx;
use crate::runtime::guest::{GuestCall, GuestFailure};
use crate::runtime::serving::{failure_report, store};
use crate::runtime::standing::{Granted, Standing, messaged};
use crate::runtime::wit::messaging::wasmcloud::messaging::types::BrokerMessage;

/// A subscription that stands.
pub(super) struct Receiving {
    pub(super) who: Arc<Loaded>,
    pub(super) under: Arc<Grant<Subscribe>>,
    /// Other subscriptions of the same component, of which the first that matches gets a message.
    pub(super) before: Vec<SubjectPattern>,
    /// Places of this component.
    pub(super) own: Arc<Semaphore>,
}

/// A message that may be handled.
#[derive(Debug)]
struct Taken {
    subject: Subject,
    reply: Option<Subject>,
    body: Vec<u8>,
}

/// A place of the component and one of the host.
type Places = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Receiving {
    /// Handles what comes until the subscription ends, or the process drains. Dropping it ends all that is at work.
    pub(super) async fn run(self, mut messages: async_nats::Subscriber) {
        let mut draining = self.who.shared().messaging.draining();
        let (mut backlog, mut running) = (Backlog::default(), JoinSet::new());
        let mut dropped = Dropped::default();
        let mut place: Pin<Box<dyn Future<Output = Option<Places>> + Send>> = Box::pin(self.place());
        loop {
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => break,
                _ended = running.join_next(), if !running.is_empty() => {}
                Some(places) = &mut place, if !backlog.is_empty() => {
                    if let Some(taken) = backlog.pop() {
                        running.spawn(handle(Arc::clone(&self.who), Arc::clone(&self.under), taken, places));
                    }
                    place = Box::pin(self.place());
                }
                message = messages.next() => match message {
                    Some(message) => self.take(message, &mut backlog, &mut dropped),
                    None => break,
                },
            }
        }
        drop((messages, place));
        dropped.more(&self.who, u64::try_from(backlog.len()).unwrap_or(u64::MAX), "the host is stopping");
        while running.join_next().await.is_some() {}
    }

    fn place(&self) -> impl Future<Output = Option<Places>> + Send + use<> {
        let (own, shared) = (Arc::clone(&self.own), Arc::clone(&self.who.shared().places));
        async move { Some((own.acquire_owned().await.ok()?, shared.acquire_owned().await.ok()?)) }
    }

    fn take(&self, message: Message, backlog: &mut Backlog<Taken>, dropped: &mut Dropped) {
        let Ok(subject) = message.subject.as_str().parse::<Subject>() else {
            return dropped.more(&self.who, 1, "a malformed subject");
        };
        // A wildcard lets the server deliver what is nobody's. Nobody asked for that, so nobody is told.
        if !self.under.pattern().covers(&subject) {
            return self.who.shared().messaging.dropped(1);
        }
        // Another subscription of this component has it, here or at another replica.
        if self.before.iter().any(|other| other.covers(&subject)) {
            return;
        }
        let settings = self.who.shared().messaging.settings();
        let most = settings.map_or(0, |settings| usize::try_from(settings.message_bytes).unwrap_or(usize::MAX));
        let bytes = message.payload.len();
        if bytes > most {
            return dropped.more(&self.who, 1, "larger than [messaging] message_bytes");
        }
        let reply = reply_of(message.reply.as_deref());
        let taken = Taken { subject, reply, body: message.payload.to_vec() };
        if !backlog.push(taken, bytes) {
            dropped.more(&self.who, 1, "more messages wait than this host lets wait");
        }
    }
}

/// Handles one message in a fresh instance, for as long as policy grants that it is received.
async fn handle(who: Arc<Loaded>, under: Arc<Grant<Subscribe>>, taken: Taken, places: Places) {
    let change = who.change();
    let slice = who.slice();
    let (pattern, queue) = (under.pattern().as_str(), under.queue());
    // What waited is decided anew; the task that subscribed reports the refusal.
    if super::is_over(&who) || slice.subscribe(pattern, queue).is_err() || who.in_force().links().is_err() {
        return who.shared().messaging.dropped(1);
    }
    // A wide pattern lies in no rule about something narrower: the message's own subject is asked about, too.
    if let Err(denial) = slice.subscribe(taken.subject.as_str(), queue) {
        let what = messaged("subscribe", taken.subject.as_str(), queue);
        who.shared().events.report(who.instance(), slice.generation(), &denial.code().to_string(), what);
        return who.shared().messaging.dropped(1);
    }
    let granted = Granted::Messages(Arc::clone(&under), taken.subject.clone());
    let mut standing = Standing::new(&who, change, granted);
    let Some(handler) = who.handler().cloned() else { return };
    who.shared().messaging.counts().delivered.fetch_add(1, Ordering::Relaxed);
    let delivery = Arc::new(Delivery::new(under, taken.reply.as_ref()));
    let (fresh, meter) = store(&who, Ctx::for_message(&who, delivery));
    let ending = meter.ending();
    let name = who.name().to_owned();
    let future = Box::pin(async move {
        // Dropped from below: the end is marked, then the store goes, and only then its place is free for another.
        let _places = places;
        let mut store = fresh;
        let _ending = ending;
        let instance = handler.instantiate_async(&mut store).await?;
        let message = BrokerMessage {
            subject: taken.subject.to_string(),
            body: taken.body,
            reply_to: taken.reply.map(|reply| reply.to_string()),
        };
        let handled = instance.wasmcloud_messaging_handler().call_handle_message(&mut store, &message).await?;
        if let Err(text) = handled {
            let text = crate::runtime::stdio::escape(
                text.as_bytes().get(..SHOWN).unwrap_or(text.as_bytes()),
                text.len() > SHOWN,
            );
            tracing::info!(component = name, text, "the component handled a message with an error");
        }
        Ok(())
    });
    let call = GuestCall::new(future, meter, Arc::clone(&who.shared().lanes));
    let failed = tokio::select! {
        biased;
        // Reported where it was decided.
        _over = standing.over() => return,
        done = call => done.err(),
        () = tokio::time::sleep(who.shared().limits.request()) => Some(GuestFailure::Late),
    };
    if let Some(failure) = failed {
        failure_report(&who)(&failure);
    }
}

/// What is not delivered: counted each time, reported at most every few seconds.
#[derive(Debug, Default)]
struct Dropped {
    count: u64,
    reported: Option<Instant>,
}

impl Dropped {
    fn more(&mut self, who: &Loaded, count: u64, why: &str) {
        if count == 0 {
            return;
        }
        self.count = self.count.saturating_add(count);
        who.shared().messaging.dropped(count);
        if self.reported.is_some_and(|at| at.elapsed() < REPORT) {
            return;
        }
        self.reported = Some(Instant::now());
        let detail = format!("{} messages were not delivered: {why}", std::mem::take(&mut self.count));
        tracing::warn!(component = who.name(), detail);
        let what = What::Failure(Failure { kind: "messages-dropped".to_owned(), detail });
        who.shared().events.report(who.instance(), who.slice().generation(), "M0401", what);
    }
}

/// Least time between two reports of messages that were dropped.
const REPORT: Duration = Duration::from_secs(5);
/// Bytes of a guest's error that are logged.
const SHOWN: usize = 256;
