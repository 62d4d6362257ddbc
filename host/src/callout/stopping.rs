//! The end of a callout that was told to stop: no new requests, an answer to each that a server has given it already, and a word
//! in the log about both. Nothing is dropped: a login that nobody answers is held up until the server's time is up.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::service::{Shared, take};
use crate::limits::{CALLOUT_DRAIN, NATS_LEAVE};

/// Takes what was on its way, and waits for what is at work; denies what is left when time is up. `places` are those of requests.
pub async fn finish(
    shared: &Arc<Shared>,
    client: &Client,
    mut requests: Subscriber,
    places: &Arc<Semaphore>,
    told: &str,
) {
    let most = shared.config.concurrency.saturating_add(shared.config.waiting);
    let at_work = || most.saturating_sub(places.available_permits());
    let began = Instant::now();
    tracing::info!("it stops, told by {told}: {} logins are at work, no new ones are taken", at_work());
    // Servers give new ones to the other callouts from here on.
    shared.problems.set("stopping", "it was told to stop");
    let _ = timeout(NATS_LEAVE, async {
        let _ = requests.drain().await;
        let _ = client.flush().await;
    })
    .await;
    let (mut taken, mut denied) = (0_usize, 0_usize);
    let drained = async {
        while let Ok(Some(message)) = timeout(QUIET, requests.next()).await {
            taken += 1;
            take(shared, client, places, message).await;
        }
        let _ = places.acquire_many(u32::try_from(most).unwrap_or(u32::MAX)).await;
    };
    let in_time = timeout(CALLOUT_DRAIN, drained).await.is_ok();
    while let Some(Some(message)) = requests.next().now_or_never() {
        if let Some(reply) = message.reply {
            denied += 1;
            let _ = client.publish(reply, Bytes::new()).await;
        }
    }
    let left = at_work();
    // Without a server a flush waits for the next one: a callout that is to stop does not.
    let _ = timeout(NATS_LEAVE, client.flush()).await;
    let took = began.elapsed().as_millis();
    match in_time {
        true => tracing::info!("all logins are answered, {taken} of them came while it stopped; it took {took} ms"),
        false => tracing::warn!("time was up: {left} logins have no answer, {denied} were denied; it took {took} ms"),
    }
}

/// After so much time without one, no more requests are on their way.
const QUIET: Duration = Duration::from_millis(100);
