//! Rotation: does what is due, and what an operator forces. One at a time; recorded, then published. A taint is published first.
//!
//! The issuer journals each step before it is in force. Here it is put into the audit log, the SVIDs that must not be used any
//! more are issued anew and recorded in one batch, and only then everybody who follows is told: but where trust is taken away,
//! which waits for no disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_identity::rpc::{RotateRequest, TaintRequest};
use portcullis_identity::{
    AuthorityEvent, AuthorityId, AuthorityIdError, AuthorityKind, Changes, InstanceId, Issuer, RotationError,
    RotationFailure, SpareKey, X509Svid,
};
use portcullis_policies::{ComponentFacts, Slice};
use serde_json::{Value, json};

use super::keeper::{Entry, Keeper, Stop, failed};
use super::minting::x509_fields;
use crate::clock;
use crate::identity_report::{AuthorityChanged, Rotated};
use crate::limits;

/// Follows the schedule for as long as the process lives.
pub(super) async fn follow(keeper: Arc<Keeper>) {
    let mut foreign = keeper.foreign.subscribe();
    let mut retry = RETRY_MIN;
    loop {
        let wait = match keeper.step().await {
            Ok(wait) => {
                retry = RETRY_MIN;
                wait
            }
            Err(why) => {
                tracing::error!(why, "rotation does not get on; it is tried again");
                let wait = retry;
                retry = (retry * 2).min(LOOK);
                wait
            }
        };
        tokio::select! {
            biased;
            changed = foreign.changed() => {
                if changed.is_ok() && keeper.publish().is_err() {
                    tracing::error!("the federated bundles could not be published");
                }
            }
            () = keeper.look.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// An instance whose X.509-SVID is to be issued anew.
type Holder = (InstanceId, ComponentFacts, Arc<Slice>);

/// What was issued anew, and what the audit log says of it.
#[derive(Default)]
struct Reissued {
    svids: Vec<(String, X509Svid)>,
    entries: Vec<Entry>,
    failed: u64,
}

impl Keeper {
    /// Has a key ready that takes long to make: made here, beside the lock that everybody needs, and not when it is needed.
    async fn make_ahead(self: &Arc<Self>) {
        if !self.issues_itself() || !matches!(self.on_issuer(|issuer| issuer.wants_spare_key()).await, Ok(true)) {
            return;
        }
        match tokio::task::spawn_blocking(SpareKey::generate).await {
            Ok(Ok(key)) => {
                let _ = self.on_issuer(move |issuer| issuer.keep_spare_key(key)).await;
            }
            Ok(Err(error)) => tracing::error!(%error, "no key could be made ahead"),
            Err(error) => tracing::error!(%error, "no key could be made ahead"),
        }
    }

    /// One look at the schedule; how long until the next.
    async fn step(self: &Arc<Self>) -> Result<Duration, String> {
        self.make_ahead().await;
        let now = clock::now();
        let _one_at_a_time = self.rotating.lock().await;
        let (changes, next) = self
            .on_issuer(move |issuer| (issuer.tick(now), issuer.next_tick(now)))
            .await
            .map_err(|_| "the issuer cannot be used".to_owned())?;
        let failures = said(&changes.failures);
        self.set_trouble(failures.clone());
        self.counts.rotation_failures.add(count(changes.failures.len()));
        let due = self.rates.lock().map(|mut rates| rates.due(Instant::now())).unwrap_or_default();
        let limited = due.iter().map(|one| self.limited(one, &self.component_of(&one.instance))).collect();
        self.append_denials(limited).await;
        if !changes.events.is_empty() || changes.bundle || changes.svids {
            self.put_in_force(changes, "schedule").await.map_err(|_| "it could not be recorded".to_owned())?;
        }
        match failures {
            Some(why) => Err(why),
            None => Ok(Duration::try_from(next - now).unwrap_or_default().clamp(RETRY_MIN, LOOK)),
        }
    }

    /// New authorities, or new SVIDs for all, now.
    pub(super) async fn rotate(self: &Arc<Self>, request: RotateRequest) -> Result<Rotated, Stop> {
        self.only_builtin()?;
        let started = Instant::now();
        let _one_at_a_time = self.rotating.lock().await;
        let now = clock::now();
        let forced = self.on_issuer(move |issuer| rotate(issuer, &request, now)).await?;
        self.forced(forced, started).await
    }

    /// Distrusts an authority, now.
    pub(super) async fn taint(self: &Arc<Self>, request: TaintRequest) -> Result<Rotated, Stop> {
        self.only_builtin()?;
        let started = Instant::now();
        let id: AuthorityId = request.authority.parse().map_err(|error: AuthorityIdError| {
            failed("invalid-argument", &format!("{error}; hint: {}", error.hint()))
        })?;
        let _one_at_a_time = self.rotating.lock().await;
        let now = clock::now();
        let forced = self.on_issuer(move |issuer| issuer.taint(&id, now)).await?;
        self.forced(forced.map_err(|error| (Changes::default(), error)), started).await
    }

    async fn forced(
        self: &Arc<Self>,
        forced: Result<Changes, (Changes, RotationError)>,
        started: Instant,
    ) -> Result<Rotated, Stop> {
        let (mut changes, error) = match forced {
            Ok(changes) => (changes, None),
            Err((changes, error)) => (changes, Some(error)),
        };
        let failures = std::mem::take(&mut changes.failures);
        // What was done before something failed is in force, too.
        let rotated =
            if changes.is_empty() { Rotated::default() } else { self.put_in_force(changes, "operator").await? };
        self.look.notify_one();
        if let Some(error) = error {
            return Err(rotation_failed(&error));
        }
        if let Some(failure) = failures.first() {
            return Err(rotation_failed(&failure.error));
        }
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Rotated { took_ms, ..rotated })
    }

    /// Records changes, issues anew what must be, and publishes.
    async fn put_in_force(self: &Arc<Self>, changes: Changes, by: &str) -> Result<Rotated, Stop> {
        self.counts.rotations.add(count(changes.events.len()));
        for event in &changes.events {
            let (kind, change, id) = (event.kind.name(), event.change.name(), event.id.as_str());
            tracing::info!(kind, change, id, by, "an authority changed");
        }
        let mut entries: Vec<_> =
            changes.events.iter().map(|event| Entry::new("authority", fields(event, by))).collect();
        // INVARIANT: what takes trust away does not wait for the audit log. Each SVID that is fetched meanwhile is recorded by itself.
        if changes.withdrawn {
            self.publish()?;
        }
        let mut reissued = Reissued::default();
        if changes.svids {
            reissued = self.reissue().await?;
            let fields = json!({ "change": "svids-replaced", "cause": by, "x509_svids": reissued.svids.len() });
            entries.push(Entry::new("authority", fields));
            entries.append(&mut reissued.entries);
        }
        let recorded = self.append_many(entries).await;
        if recorded.is_ok() {
            self.remember(&reissued.svids)?;
        }
        // Also when it could not be recorded: it is in force in the issuer, and each SVID that is fetched is recorded by itself.
        self.publish()?;
        recorded
            .map_err(|error| failed("unavailable", &format!("it is in force, but could not be recorded: {error}")))?;
        let state = self.now_published();
        let authorities = changes.events.iter().map(changed).collect();
        let x509_svids = count(reissued.svids.len());
        Ok(Rotated {
            authorities,
            x509_svids,
            x509_failed: reissued.failed,
            took_ms: 0,
            bundle_sequence: state.sequence,
            svid_epoch: state.svid_epoch,
        })
    }

    /// Issues the X.509-SVID of every instance anew that holds one, a batch at a time so that others get their turn.
    async fn reissue(self: &Arc<Self>) -> Result<Reissued, Stop> {
        let holders: Vec<Holder> = self
            .table()?
            .iter()
            .filter(|(_, held)| !held.revoked && held.x509_not_after.is_some())
            .filter_map(|(name, held)| Some((name.parse().ok()?, held.facts.clone(), Arc::clone(&held.slice))))
            .collect();
        let mut all = Reissued::default();
        for batch in holders.chunks(limits::REMINT_BATCH) {
            let batch = batch.to_vec();
            let keeper = Arc::clone(self);
            all.add(self.on_issuer(move |issuer| reissue_batch(&keeper, issuer, &batch)).await?);
        }
        // And those that are not in the table: workloads beside the host.
        all.add(self.on_issuer(reissue_others).await?);
        Ok(all)
    }

    /// Takes over what was issued anew and is on disk.
    fn remember(&self, svids: &[(String, X509Svid)]) -> Result<(), Stop> {
        self.counts.x509.add(count(svids.len()));
        let mut instances = self.table()?;
        for (instance, svid) in svids {
            if let Some(held) = instances.get_mut(instance) {
                held.remember(&svid.serial);
                held.x509_minted = held.x509_minted.saturating_add(1);
                held.x509_not_after = Some(svid.not_after.unix_timestamp());
            }
        }
        Ok(())
    }

    /// Has the issuer do something that may take long.
    async fn on_issuer<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Issuer) -> T + Send + 'static,
    ) -> Result<T, Stop> {
        let keeper = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || keeper.issuer().map(|mut issuer| work(&mut issuer))).await;
        done.map_err(|error| failed("internal", &error.to_string()))?
    }

    fn set_trouble(&self, why: Option<String>) {
        if let Ok(mut trouble) = self.trouble.lock() {
            *trouble = why;
        }
    }

    /// The claimed name of an instance; empty where it is not known.
    pub(super) fn component_of(&self, instance: &str) -> String {
        let name = |held: &super::keeper::Instance| held.facts.name.clone();
        self.table().ok().and_then(|instances| instances.get(instance).map(name)).unwrap_or_default()
    }
}

impl Reissued {
    fn add(&mut self, mut more: Self) {
        self.svids.append(&mut more.svids);
        self.entries.append(&mut more.entries);
        self.failed = self.failed.saturating_add(more.failed);
    }

    fn issued(&mut self, facts: &ComponentFacts, svid: X509Svid, generation: u64) {
        self.entries.push(Entry::new("issuance", x509_fields(facts, &svid, generation)));
        self.svids.push((facts.instance.clone(), svid));
    }
}

fn rotate(
    issuer: &mut Issuer,
    request: &RotateRequest,
    now: time::OffsetDateTime,
) -> Result<Changes, (Changes, RotationError)> {
    let kinds =
        [(request.x509, AuthorityKind::X509), (request.jwt, AuthorityKind::Jwt), (request.wit, AuthorityKind::Wit)];
    let mut all = Changes::default();
    for (_, kind) in kinds.into_iter().filter(|(wanted, _)| *wanted) {
        match issuer.rotate(kind, now) {
            Ok(changes) => merge(&mut all, changes),
            Err(error) => return Err((all, error)),
        }
    }
    if request.svids {
        merge(&mut all, issuer.rotate_svids());
    }
    Ok(all)
}

fn merge(all: &mut Changes, more: Changes) {
    all.bundle |= more.bundle;
    all.svids |= more.svids;
    all.withdrawn |= more.withdrawn;
    all.events.extend(more.events);
    all.failures.extend(more.failures);
}

fn reissue_batch(keeper: &Keeper, issuer: &mut Issuer, holders: &[Holder]) -> Reissued {
    let (mut reissued, most) = (Reissued::default(), issuer.lifetimes().x509().as_secs());
    for (id, facts, slice) in holders {
        // Who is granted none any more gets none.
        let Ok(grant) = slice.svid_x509(most) else { continue };
        let ttl = Duration::from_secs(grant.ttl_secs().min(most));
        match issuer.x509_svid(id, ttl, clock::now()) {
            Ok(minted) if minted.fresh => {
                reissued.entries.extend(grant.instead_of().map(|denial| keeper.let_through(facts, denial)));
                reissued.issued(facts, minted.svid, slice.generation());
            }
            // Somebody asked in between and it is recorded already, or the instance stopped.
            Ok(_) | Err(portcullis_identity::IssueError::UnknownInstance(_)) => {}
            Err(error) => {
                tracing::error!(%error, instance = facts.instance, "an X.509-SVID could not be issued anew");
                reissued.failed = reissued.failed.saturating_add(1);
            }
        }
    }
    reissued
}

fn reissue_others(issuer: &mut Issuer) -> Reissued {
    let mut reissued = Reissued::default();
    for (workload, minted) in issuer.remint_x509(clock::now()) {
        let facts = ComponentFacts {
            name: workload.component,
            digest: workload.digest,
            spiffe_id: workload.spiffe_id.to_string(),
            signer: String::new(),
            signer_group: String::new(),
            instance: workload.instance.to_string(),
        };
        match minted {
            Ok(svid) => reissued.issued(&facts, svid, 0),
            Err(_) => reissued.failed = reissued.failed.saturating_add(1),
        }
    }
    reissued
}

fn fields(event: &AuthorityEvent, by: &str) -> Value {
    json!({
        "change": event.change.name(), "authority_kind": event.kind.name(), "authority": event.id.as_str(),
        "slot": event.slot.map(|slot| slot.to_string()), "not_after": event.not_after.unix_timestamp(), "cause": by,
    })
}

fn changed(event: &AuthorityEvent) -> AuthorityChanged {
    AuthorityChanged {
        kind: event.kind.name().to_owned(),
        id: event.id.to_string(),
        change: event.change.name().to_owned(),
        not_after: event.not_after.unix_timestamp(),
    }
}

fn said(failures: &[RotationFailure]) -> Option<String> {
    let lines: Vec<_> = failures
        .iter()
        .map(|failure| {
            let kind = failure.kind.map(AuthorityKind::name).unwrap_or("all");
            format!("{kind} authorities: {}; hint: {}", failure.error, failure.error.hint())
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn rotation_failed(error: &RotationError) -> Stop {
    let kind = match error {
        RotationError::Disabled(_)
        | RotationError::AlreadyPrepared { .. }
        | RotationError::NothingPrepared(_)
        | RotationError::Unknown(_)
        | RotationError::AlreadyTainted(_) => "invalid-argument",
        RotationError::TooMany(_) => "too-many",
        RotationError::State(_) => "unavailable",
    };
    failed(kind, &format!("{error}; hint: {}", error.hint()))
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The schedule is looked at this often at least: clocks are set, and tokens come back.
const LOOK: Duration = Duration::from_secs(10);
/// First pause after a failure; doubles up to [`LOOK`].
const RETRY_MIN: Duration = Duration::from_millis(250);
