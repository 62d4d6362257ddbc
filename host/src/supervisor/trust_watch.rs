//! Acts on what the host trusts: reads the trust policy and the deny list again when their files change, stops what is denied
//! since, and sees to components whose claims expire.
//!
//! Nothing here waits for a start that is under way: a revocation takes hold within a second, whatever else the host does.
//! Each stop is recorded with its reason; the identity goes first, then the code, then the routes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use portcullis_signing::{OnExpiry, Refusal, timestamp};

use super::starting::with_fields;
use super::{Component, Host, settle};
use crate::audit::Record;
use crate::rpc::runtime::UnloadRequest;
use crate::{clock, limits};

/// Looks at the files and at the clock until the host goes down.
pub async fn watch(host: Arc<Host>) {
    let stopping = || host.is_stopping();
    kept_up(stopping, || look_and_act(Arc::clone(&host))).await;
}

/// Begins again what panicked: without it nothing that is denied would be stopped any more, and nobody would notice.
async fn kept_up<F: Future<Output = ()> + Send + 'static>(stopping: impl Fn() -> bool, begin: impl Fn() -> F) {
    while !stopping() {
        if let Err(error) = tokio::spawn(begin()).await {
            tracing::error!(%error, "the watch over trust failed and is begun again");
            tokio::time::sleep(limits::TRUST_POLL).await;
        }
    }
}

async fn look_and_act(host: Arc<Host>) {
    // What changed while nobody looked is taken up, too.
    host.read_trust();
    let mut tick = tokio::time::interval(limits::TRUST_POLL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = look(&host);
    while !host.is_stopping() {
        tick.tick().await;
        let now = look(&host);
        if now != seen {
            seen = now;
            host.read_trust();
        }
        enforce(&host).await;
    }
}

/// Stops what the last usable trust policy or deny list does not let run, and sees to claims that are over.
pub async fn enforce(host: &Arc<Host>) {
    super::cluster::enforce(host).await;
    let now = clock::now();
    let mut doomed: Vec<(Arc<Component>, Why)> = Vec::new();
    {
        // Replaced as a whole: whoever panicked with it in hand left nothing half done.
        let trust = host.trust.read().unwrap_or_else(PoisonError::into_inner);
        for component in host.running() {
            let verified = component.admitted.verified();
            if let Some(refusal) = trust.against(verified, &host.config.cluster, now) {
                doomed.push((component, Why::NotTrusted(Box::new(refusal))));
            } else if now >= verified.claims().expires_at() {
                doomed.push((component, Why::Expired(trust.on_expiry())));
            }
        }
    }
    for (component, why) in doomed {
        match why {
            Why::NotTrusted(refusal) => {
                tracing::warn!(
                    component = component.admitted.facts().name,
                    code = refusal.code().as_str(),
                    "a running component is not trusted any more and is stopped: {refusal}"
                );
                end_now(host, &component, refusal.code().as_str(), refusal.message()).await;
            }
            Why::Expired(OnExpiry::Keep) => {}
            Why::Expired(OnExpiry::Stop) => expire(host, &component).await,
            Why::Expired(OnExpiry::Drain) => drain(host, &component),
        }
    }
}

enum Why {
    NotTrusted(Box<Refusal>),
    Expired(OnExpiry),
}

async fn expire(host: &Arc<Host>, component: &Component) {
    let at = timestamp::format(component.admitted.verified().claims().expires_at());
    end_now(host, component, "time.expired", &format!("its claims expired at {at}")).await;
}

/// Takes the routes away at once, and the rest when requests under way have had their time.
fn drain(host: &Arc<Host>, component: &Arc<Component>) {
    if component.draining.swap(true, Ordering::AcqRel) {
        return;
    }
    let name = &component.admitted.facts().name;
    tracing::warn!(component = name, "the claims of a running component expired; it takes no new requests");
    let record = Record::new("drain").field("by", "supervisor").field("why", "time.expired");
    if host.record(with_fields(record, &component.admitted)).is_err() {
        host.audit_failed();
    }
    settle::soon(host);
    let (host, component) = (Arc::clone(host), Arc::clone(component));
    tokio::spawn(async move {
        tokio::time::sleep(limits::DRAIN).await;
        expire(&host, &component).await;
    });
}

/// Ends an instance without waiting for anything else: recorded, then its identity, then its code; its routes follow.
pub(super) async fn end_now(host: &Arc<Host>, component: &Component, code: &str, message: &str) {
    let instance = &component.admitted.facts().instance;
    if !host.running().iter().any(|running| running.admitted.facts().instance == *instance) {
        return;
    }
    let record = Record::new("stop").field("by", "supervisor").field("why", code).field("text", message);
    if let Err(error) = host.record(with_fields(record, &component.admitted)) {
        tracing::error!(%error, "a stop could not be recorded; it goes on, since it takes rights away");
        host.audit_failed();
    }
    host.remove(instance);
    if let Err(error) = host.identity.stop(instance).await {
        tracing::error!(%error, instance, "the identity process did not end an identity; it is started again without it");
        if let Some(up) = host.identity_process.now().filter(|_| !host.is_stopping()) {
            up.child.kill();
        }
    }
    if let Some(up) = host.runtime_process.now().filter(|_| !host.is_stopping()) {
        let request = UnloadRequest { instance: instance.clone() };
        if let Err(error) = up.client().unload(request).await {
            tracing::error!(%error, instance, "the runtime did not unload an instance; it is started again without it");
            up.child.kill();
        }
    }
    settle::soon(host);
}

/// What tells a file from what it was: device, inode, size, times. Absent: there is none.
type Seen = Option<(u64, u64, u64, i64, i64, i64, i64)>;

fn look(host: &Host) -> [Seen; 2] {
    let trust = &host.config.trust;
    [see(&trust.policy), trust.deny_list.as_deref().and_then(see)]
}

fn see(path: &Path) -> Seen {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_panics_is_begun_again_until_the_host_goes_down() {
        let begun = Arc::new(AtomicU32::new(0));
        let count = || begun.load(Ordering::Acquire);
        kept_up(
            || count() == 3,
            || {
                let begun = Arc::clone(&begun);
                async move {
                    assert!(begun.fetch_add(1, Ordering::AcqRel) == 2, "as the test wants");
                }
            },
        )
        .await;
        assert_eq!(count(), 3);
    }
}
