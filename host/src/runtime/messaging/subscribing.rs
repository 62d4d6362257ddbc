//! Keeps the subscriptions of one component as its grants say: after each change of policy, until it is stopped or revoked.
//!
//! Which ones there are is a matter of the grants; a component asks for none itself. Each is in the queue group of the component's
//! name, so that its replicas on all hosts share what comes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use portcullis_policies::{Grant, SubjectPattern, Subscribe};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::receiving::Receiving;
use super::{NoLine, RETRY, is_over, queue_of};
use crate::rpc::runtime::{Failure, event::What};
use crate::runtime::component::Loaded;
use crate::runtime::standing::{linked, messaged};

/// A subscription.
struct Open {
    /// Those that get first what they match, too.
    before: Vec<SubjectPattern>,
    task: Task,
}

/// Ends a task with itself.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Subscribes for a component, and handles what comes, until it is stopped.
pub async fn run(who: Arc<Loaded>) {
    let messaging = &who.shared().messaging;
    let Some(settings) = messaging.settings().filter(|_| who.handler().is_some()) else { return };
    let own = Arc::new(Semaphore::new(usize::try_from(settings.concurrent).unwrap_or(1)));
    let mut changes = who.changes();
    let mut trust = who.shared().identity.changes();
    let mut open: BTreeMap<SubjectPattern, Open> = BTreeMap::new();
    let mut reported = Vec::new();
    while !who.is_stopped() {
        changes.borrow_and_update();
        trust.borrow_and_update();
        let wanted = wanted(&who, &mut reported);
        for pattern in open.keys().filter(|pattern| !wanted.contains_key(*pattern)) {
            report_end(&who, pattern);
        }
        let patterns: Vec<SubjectPattern> = wanted.keys().cloned().collect();
        let before = |pattern: &SubjectPattern| -> Vec<SubjectPattern> {
            let earlier = patterns.iter().take_while(|other| *other != pattern);
            earlier.filter(|other| other.overlaps(pattern)).cloned().collect()
        };
        open.retain(|pattern, one| {
            wanted.contains_key(pattern) && one.before == before(pattern) && !one.task.0.is_finished()
        });
        for (pattern, under) in wanted {
            let before = before(&pattern);
            if let Entry::Vacant(place) = open.entry(pattern) {
                let receiving = Receiving {
                    who: Arc::clone(&who),
                    under: Arc::new(under),
                    before: before.clone(),
                    own: Arc::clone(&own),
                };
                let task = Task(tokio::spawn(subscribe(receiving)).abort_handle());
                place.insert(Open { before, task });
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            _ = trust.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// What it is to receive now. A grant that policy takes back by a `forbid` is reported once.
fn wanted(who: &Arc<Loaded>, reported: &mut Vec<String>) -> BTreeMap<SubjectPattern, Grant<Subscribe>> {
    let mut wanted = BTreeMap::new();
    if is_over(who) {
        return wanted;
    }
    let in_force = who.in_force();
    let slice = in_force.slice();
    let mut refused = Vec::new();
    let mut report = |code: String, what: What| {
        let key = format!("{} {code} {what:?}", slice.generation());
        if !reported.contains(&key) {
            who.shared().events.report(who.instance(), slice.generation(), &code, what);
        }
        refused.push(key);
    };
    if let Err((interface, denial)) = in_force.links() {
        report(denial.code().to_string(), linked(interface));
    } else {
        let queue = queue_of(who.name());
        for pattern in slice.subscriptions() {
            match slice.subscribe(pattern.as_str(), &queue) {
                Ok(grant) => drop(wanted.insert(pattern, grant)),
                Err(denial) => report(denial.code().to_string(), messaged("subscribe", pattern.as_str(), &queue)),
            }
        }
    }
    *reported = refused;
    wanted
}

/// Reports that a subscription ended, and all that was at work under it, since policy does not grant it any more.
fn report_end(who: &Arc<Loaded>, pattern: &SubjectPattern) {
    let slice = who.slice();
    let queue = queue_of(who.name());
    if let Err(denial) = slice.subscribe(pattern.as_str(), &queue) {
        let what = messaged("subscribe", pattern.as_str(), &queue);
        who.shared().events.ended(who.instance(), slice.generation(), &denial.code().to_string(), what);
    }
}

/// Subscribes, again and again where it cannot be, and handles what comes.
async fn subscribe(receiving: Receiving) {
    let who = Arc::clone(&receiving.who);
    let (pattern, queue) = (receiving.under.pattern().clone(), receiving.under.queue().to_owned());
    let mut told = false;
    loop {
        let line = match who.shared().messaging.line(&who).await {
            Ok(line) => line,
            Err(NoLine::Over | NoLine::NotConfigured) => return,
            Err(NoLine::Down) => {
                tokio::time::sleep(RETRY.min(DOWN)).await;
                continue;
            }
        };
        line.stands().await;
        match line.subscribe(&pattern, &queue).await {
            Ok(messages) => {
                tracing::info!(component = who.name(), %pattern, queue, "messages are received");
                return receiving.run(messages).await;
            }
            Err(error) => {
                let detail = format!("no subscription to {pattern}: {error}");
                tracing::warn!(component = who.name(), detail);
                if !std::mem::replace(&mut told, true) {
                    let what = What::Failure(Failure { kind: "nats".to_owned(), detail });
                    who.shared().events.report(who.instance(), who.slice().generation(), "M0402", what);
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// How often it is looked whether a subscription ended by itself.
const LOOK: Duration = Duration::from_secs(5);
/// Pause while there is no connection yet.
const DOWN: Duration = Duration::from_millis(200);
