//! Takes up changed files, and ends connections of whoever does not stand any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::files::Standing;
use super::revoking::Revoker;
use super::service::{CalloutError, Shared};
use super::watched::{Due, Watched};
use crate::audit::Record;
use crate::limits::{CALLOUT_SWEEP, CALLOUT_WATCH};

/// Runs for as long as the process.
pub async fn run(shared: Arc<Shared>, mut watched: Watched, revoker: Option<Revoker>) {
    let mut look = tokio::time::interval(CALLOUT_WATCH);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // An answer may be on its way while its subject falls: what follows a change is looked at more than once.
    let mut again: Vec<Instant> = Vec::new();
    let mut next_sweep = Instant::now() + Duration::from_secs(1);
    loop {
        look.tick().await;
        let newly = match watched.look(std::time::Instant::now()) {
            Due::Nothing => None,
            Due::List => added(&shared).await,
            Due::All => taken_up(&shared, &mut watched).await,
        };
        if newly.is_some() {
            again = after_a_change();
        }
        let due = again.iter().any(|at| *at <= Instant::now()) || next_sweep <= Instant::now();
        if due && let Some(revoker) = &revoker {
            again.retain(|at| *at > Instant::now());
            next_sweep = Instant::now() + CALLOUT_SWEEP;
            let standing = shared.standing.load_full();
            revoker.sweep(&standing, &shared.admitted, &newly.unwrap_or_default(), &shared.counts.kicked).await;
        }
    }
}

/// Takes up everything, or nothing but who is revoked more than before. Gives those; `None` where nothing changed.
async fn taken_up(shared: &Arc<Shared>, watched: &mut Watched) -> Option<Vec<String>> {
    let before = shared.standing.load_full();
    let generation = before.roles.generation() + 1;
    let config = shared.config.clone();
    let loaded = tokio::task::spawn_blocking(move || Standing::load(&config, generation)).await;
    let loaded = loaded.unwrap_or_else(|error| Err(CalloutError::Machine(error.to_string())));
    if !watched.is_unchanged() {
        // It is another change, due by itself when that is over.
        return added(shared).await;
    }
    match loaded.and_then(|loaded| shared.answering.fits(&loaded.roles).map(|()| loaded)) {
        Ok(loaded) => {
            let newly = loaded.revoked.difference(&before.revoked).cloned().collect();
            let lifted: Vec<&String> = before.revoked.difference(&loaded.revoked).collect();
            let record = Record::new("callout-policy")
                .field("generation", generation)
                .field("revoked", loaded.revoked.len())
                .field("lifted", lifted.iter().take(SHOWN).map(|id| id.as_str()).collect::<Vec<_>>())
                .field("lifted_count", lifted.len());
            if !lifted.is_empty() {
                let shown = lifted.iter().take(SHOWN).map(|id| id.as_str()).collect::<Vec<_>>().join(", ");
                tracing::warn!(count = lifted.len(), "not revoked any more: {shown}");
            }
            shared.standing.store(Arc::new(loaded));
            shared.problems.clear("files");
            tracing::info!(generation, "files taken up");
            let _ = shared.journal.note(record);
            Some(newly)
        }
        Err(error) => {
            tracing::error!("changed files cannot be used, the old ones stay: {error}");
            shared.problems.set("files", error.to_string());
            watched.unusable(std::time::Instant::now());
            added(shared).await
        }
    }
}

/// Takes up who is on the list of the revoked more than before, and nothing else: a role that is spelt wrongly keeps nobody in, nor
/// does a file that is still being written. Gives those; `None` where there is nobody.
async fn added(shared: &Shared) -> Option<Vec<String>> {
    let before = shared.standing.load_full();
    let (config, of) = (shared.config.clone(), Arc::clone(&before));
    let more = tokio::task::spawn_blocking(move || of.with_more_revoked(&config)).await.ok()?;
    // Half of a list may be none. Where that lasts, it is said when everything is taken up.
    let more = more.inspect_err(|error| tracing::info!("the list of the revoked cannot be used: {error}")).ok()??;
    let newly: Vec<String> = more.revoked.difference(&before.revoked).cloned().collect();
    let record = Record::new("callout-revocations")
        .field("generation", more.roles.generation())
        .field("revoked", more.revoked.len())
        .field("added", newly.len());
    shared.standing.store(Arc::new(more));
    tracing::warn!(added = newly.len(), "more are revoked");
    let _ = shared.journal.note(record);
    Some(newly)
}

/// When connections are looked at after a change.
fn after_a_change() -> Vec<Instant> {
    [0_u64, 300, 1_500, 3_000].map(|wait| Instant::now() + Duration::from_millis(wait)).into()
}

/// IDs that a line of the log, or a record, names.
const SHOWN: usize = 16;
