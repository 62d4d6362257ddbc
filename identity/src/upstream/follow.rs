//! The tasks that follow an upstream, for ever: one for each instance, two for the bundles.
//!
//! What ends a stream decides what becomes of what is held: the upstream's own refusal takes it away, everything else is an
//! outage.

use std::sync::Arc;

use futures::StreamExt as _;
use tonic::{Code, Status};

use super::backoff::Backoff;
use super::bundles::{Heard, Kind};
use super::checking::{self, Unfit};
use super::entry::{Held, State, StateSender};
use super::wire::{ByDomain, HandedX509};
use super::{Part, Shared};
use crate::bundle_set::BundleSet;
use crate::excerpt::Excerpt;
use crate::limits::UPSTREAM_BUNDLE_WAIT;
use crate::source::Vouched;

/// Whether the upstream itself says no, rather than being away or shedding load.
pub(super) fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::NotFound
            | Code::Unimplemented
            | Code::FailedPrecondition
    )
}

/// Follows the X.509-SVIDs of one instance.
pub(super) async fn x509(shared: Arc<Shared>, vouched: Arc<Vouched>, state: StateSender) {
    let mut backoff = Backoff::new();
    loop {
        let ended = match shared.wire.x509(&vouched).await {
            Ok(mut messages) => loop {
                match messages.next().await {
                    Some(Ok(handed)) => {
                        shared.heard(Part::Svids);
                        backoff.reset();
                        take(&shared, &vouched, &state, &handed).await;
                    }
                    Some(Err(status)) => break status,
                    None => break Status::unavailable("the upstream ended the stream"),
                }
            },
            Err(status) => status,
        };
        if is_refusal(&ended) {
            shared.heard(Part::Svids);
            shared.withdraw(&vouched.workload.instance, &vouched, Unfit::Nothing);
        } else {
            shared.failed(Part::Svids, &ended);
        }
        let why = super::whole_story(&ended);
        tracing::debug!(instance = %vouched.workload.instance, code = ?ended.code(), %why, "the identity source is asked again");
        tokio::time::sleep(backoff.pause()).await;
    }
}

/// Decides about one message, which is the full state.
async fn take(shared: &Arc<Shared>, vouched: &Arc<Vouched>, state: &StateSender, handed: &[HandedX509]) {
    let instance = &vouched.workload.instance;
    let mut published = shared.published.subscribe();
    let until = tokio::time::Instant::now() + UPSTREAM_BUNDLE_WAIT;
    let why = loop {
        let bundles = published.borrow_and_update().bundles.clone();
        let now = (shared.clock)();
        match checking::x509(&vouched.workload.spiffe_id, handed, bundles.as_deref(), now) {
            Ok(key) => {
                state.send_modify(|before| {
                    let older = match &*before {
                        State::Held(held) => Some(Arc::clone(held)),
                        State::Waiting | State::Refused(_) => None,
                    };
                    // The same again is no change.
                    if older.as_ref().is_none_or(|held| held.current.svid.serial != key.svid.serial) {
                        *before = State::Held(Arc::new(Held::new(key, older.as_deref(), now)));
                    }
                });
                return;
            }
            // A new authority may be in use a moment before its bundle arrives here.
            Err(Unfit::Unverified(why)) => {
                let waited = tokio::time::timeout_at(until, published.changed()).await;
                if !matches!(waited, Ok(Ok(()))) {
                    break Unfit::Unverified(why);
                }
            }
            Err(why) => break why,
        }
    };
    match why {
        Unfit::Invalid(_) | Unfit::Unverified(_) if matches!(&*state.borrow(), State::Held(_)) => {
            // A broken message is no withdrawal: what is held was checked, and ends by itself.
            tracing::warn!(%instance, why = %described(&why), "a message of the identity source was discarded");
        }
        why => {
            tracing::warn!(%instance, why = %described(&why), "the identity source gives no usable identity");
            shared.withdraw(instance, vouched, why);
        }
    }
}

fn described(why: &Unfit) -> Excerpt {
    match why {
        Unfit::Nothing => Excerpt::new("no identity issued"),
        Unfit::Other(id) => Excerpt::new(&format!("it is for {id}")),
        Unfit::Invalid(why) | Unfit::Unverified(why) => Excerpt::new(why),
    }
}

/// Follows the X.509 authorities.
pub(super) async fn x509_bundles(shared: Arc<Shared>) {
    bundles(shared, Kind::X509).await;
}

/// Follows the JWT keys.
pub(super) async fn jwt_bundles(shared: Arc<Shared>) {
    bundles(shared, Kind::Jwt).await;
}

/// Why nothing more comes, and whether the stream was open before.
struct Ended(Status, bool);

/// Publishes what is left of what was heard.
fn republish(shared: &Arc<Shared>, heard: &Heard) {
    let known = shared.published.borrow().bundles.clone();
    match heard.read(&shared.trust_domain, next_sequence(shared, known.as_deref())) {
        Ok(Some(bundles)) => shared.publish(bundles),
        Ok(None) | Err(_) => shared.publish_none(),
    }
}

/// Grows over restarts, too: nothing is stored, so the clock begins it.
fn next_sequence(shared: &Shared, known: Option<&BundleSet>) -> u64 {
    let before = known.and_then(|known| known.own().sequence()).unwrap_or_default();
    let seconds = u64::try_from((shared.clock)().unix_timestamp()).unwrap_or_default();
    seconds.max(before.saturating_add(1))
}

async fn bundles(shared: Arc<Shared>, kind: Kind) {
    let mut backoff = Backoff::new();
    loop {
        let opened = match kind {
            Kind::X509 => shared.wire.x509_bundles().await,
            Kind::Jwt => shared.wire.jwt_bundles().await,
        };
        let ended = match opened {
            Ok(mut messages) => loop {
                match messages.next().await {
                    Some(Ok(by_domain)) => {
                        backoff.reset();
                        take_bundles(&shared, kind, by_domain).await;
                    }
                    Some(Err(status)) => break Ended(status, true),
                    None => break Ended(Status::unavailable("the upstream ended the stream"), true),
                }
            },
            Err(status) => Ended(status, false),
        };
        let Ended(status, was_open) = ended;
        shared.failed(Part::Bundles, &status);
        // Bundles that are held stay for a while: they verify what was issued, and the SVIDs under them end by themselves.
        let mut heard = shared.heard_bundles.lock().await;
        let now = (shared.clock)();
        heard.opened(kind, false);
        if was_open {
            // An open stream says whatever changes: until it ended, what it said last was so.
            heard.confirm(kind, now);
        }
        if heard.forget_old(now) {
            tracing::error!(source = %shared.wire.kind(), "a bundle of the identity source is too old and verifies nobody any more");
            republish(&shared, &heard);
        }
        drop(heard);
        tokio::time::sleep(backoff.pause()).await;
    }
}

async fn take_bundles(shared: &Arc<Shared>, kind: Kind, by_domain: ByDomain) {
    let mut heard = shared.heard_bundles.lock().await;
    heard.opened(kind, true);
    match kind {
        Kind::X509 => heard.x509 = Some(by_domain),
        Kind::Jwt => heard.jwt = Some(by_domain),
    }
    let known = shared.published.borrow().bundles.clone();
    let read = heard.read(&shared.trust_domain, next_sequence(shared, known.as_deref()));
    match read {
        Ok(changed) => {
            shared.heard(Part::Bundles);
            heard.spoilt = false;
            heard.confirm(kind, (shared.clock)());
            let new = changed.filter(|new| known.as_ref().is_none_or(|known| !known.same_keys(new)));
            if let Some(bundles) = new {
                shared.publish(bundles);
            }
        }
        Err(why) => {
            heard.spoilt = true;
            let status = Status::invalid_argument(why);
            tracing::warn!(source = %shared.wire.kind(), why = %Excerpt::new(status.message()), "a bundle of the identity source was discarded");
            shared.failed(Part::Bundles, &status);
        }
    }
}
