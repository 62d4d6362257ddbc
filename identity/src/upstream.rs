//! Identities that a site's own authority issues: one engine behind SPIRE's Delegated Identity API, the Broker API and the
//! Workload API, which differ only in their wire.
//!
//! Each instance has a task that follows its X.509-SVIDs; two more follow the bundles. What arrives is checked before it is held
//! (see `checking`). An outage changes nothing until what is held ends; a refusal by the upstream, an SVID for somebody else, or
//! an authority that left the bundle takes the SVID away at once and bumps the epoch. Attempts go on for ever, with growing
//! pauses and jitter, so nothing needs a restart. Private keys that the upstream made live in this process only.

mod backoff;
mod bundles;
mod checking;
mod entry;
mod follow;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) use bundles::split;
pub(crate) use wire::{ByDomain, HandedJwt, HandedX509, Messages, Wire};

use self::checking::Unfit;
use self::entry::{Entry, Held, State};
use crate::audience::Audience;
use crate::bundle_set::BundleSet;
use crate::excerpt::Excerpt;
use crate::issuer::{AdmitError, IssueError, Minted, SignError, X509Svid};
use crate::jwt_svid::JwtSvid;
use crate::key_scan::KeyScan;
use crate::limits::{
    MAX_AUDIENCES, MAX_INSTANCES, MAX_UPSTREAM_PROBLEM_CHARS, UPSTREAM_CALL, UPSTREAM_FIRST_ANSWER,
    UPSTREAM_LIFETIME_SLACK,
};
use crate::source::{IdentitySource, SourceError, SourceKind, SourcePublished, SourceStatus, Vouched};
use crate::spiffe_id::SpiffeId;
use crate::statement::{Draft, Signer};
use crate::trust_domain::TrustDomain;
use crate::workload::InstanceId;

/// Reads the time; the host's one clock.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// A source behind a wire. Dropping it ends its tasks and wipes its keys.
pub struct Upstream {
    shared: Arc<Shared>,
    _tasks: Vec<Task>,
}

pub(crate) struct Shared {
    wire: Box<dyn Wire>,
    trust_domain: TrustDomain,
    clock: Clock,
    entries: Mutex<HashMap<InstanceId, Entry>>,
    published: watch::Sender<SourcePublished>,
    heard_bundles: tokio::sync::Mutex<bundles::Heard>,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    last_contact: Option<OffsetDateTime>,
    svids: PartHealth,
    bundles: PartHealth,
}

/// SVIDs and bundles may come by different ways: one may be open while the other is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Svids,
    Bundles,
}

#[derive(Debug, Default)]
enum PartHealth {
    #[default]
    Silent,
    Well,
    Failed(String),
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Upstream {
    /// Begins to follow the bundles. Must be called within a tokio runtime.
    pub(crate) fn start(wire: Box<dyn Wire>, trust_domain: TrustDomain, clock: Clock) -> Self {
        let shared = Arc::new(Shared {
            wire,
            trust_domain,
            clock,
            entries: Mutex::new(HashMap::new()),
            published: watch::Sender::new(SourcePublished::default()),
            heard_bundles: tokio::sync::Mutex::default(),
            health: Mutex::new(Health::default()),
        });
        let tasks = vec![
            Task(tokio::spawn(follow::x509_bundles(Arc::clone(&shared)))),
            Task(tokio::spawn(follow::jwt_bundles(Arc::clone(&shared)))),
        ];
        Self { shared, _tasks: tasks }
    }

    /// Waits until there is a bundle of our own trust domain; says whether there was one in time.
    pub async fn ready(&self, within: Duration) -> bool {
        let mut published = self.shared.published.subscribe();
        timeout(within, published.wait_for(|now| now.bundles.is_some())).await.is_ok_and(|waited| waited.is_ok())
    }
}

#[async_trait]
impl IdentitySource for Upstream {
    fn kind(&self) -> SourceKind {
        self.shared.wire.kind()
    }

    fn trust_domain(&self) -> &TrustDomain {
        &self.shared.trust_domain
    }

    fn admit(&self, vouched: Vouched) -> Result<(), SourceError> {
        let id = &vouched.workload.spiffe_id;
        if id.trust_domain() != &self.shared.trust_domain {
            let trust_domain = self.shared.trust_domain.clone();
            return Err(AdmitError::ForeignDomain { id: id.clone(), trust_domain }.into());
        }
        if !id.has_path() {
            return Err(AdmitError::RootPath(id.clone()).into());
        }
        let instance = vouched.workload.instance.clone();
        let mut entries = self.shared.entries();
        if entries.contains_key(&instance) {
            return Err(AdmitError::AlreadyAdmitted(instance).into());
        }
        if entries.len() >= MAX_INSTANCES {
            return Err(AdmitError::TooMany.into());
        }
        let (entry, state) = Entry::new(Arc::new(vouched));
        let task = tokio::spawn(follow::x509(Arc::clone(&self.shared), Arc::clone(&entry.vouched), state));
        entries.insert(instance, entry.with(Task(task)));
        Ok(())
    }

    fn stop(&self, instance: &InstanceId) -> bool {
        self.shared.entries().remove(instance).is_some()
    }

    async fn x509_svid(
        &self,
        instance: &InstanceId,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<X509Svid>, SourceError> {
        let (expected, mut state) = self.shared.watched(instance)?;
        // A component that starts together with its entry need not fail at once.
        let told = timeout(UPSTREAM_FIRST_ANSWER, state.wait_for(|state| !matches!(state, State::Waiting))).await;
        let told = match told {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => return Err(SourceError::UnknownInstance(instance.clone())),
            Err(_) => return Err(self.shared.unavailable("it has not answered yet")),
        };
        let svid = match told {
            State::Held(held) => held.current.svid.clone(),
            State::Refused(why) => return Err(refused(&expected, why)),
            State::Waiting => return Err(self.shared.unavailable("it has not answered yet")),
        };
        let left = svid.not_after - now;
        if !left.is_positive() {
            return Err(self.shared.unavailable("the X.509-SVID that was held has ended"));
        }
        granted(left, ttl)?;
        let mut entries = self.shared.entries();
        let entry = entries.get_mut(instance).ok_or_else(|| SourceError::UnknownInstance(instance.clone()))?;
        let fresh = entry.show(&svid.serial);
        Ok(Minted { svid, fresh })
    }

    async fn jwt_svid(
        &self,
        instance: &InstanceId,
        audiences: &[Audience],
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<JwtSvid>, SourceError> {
        let mut audiences = audiences.to_vec();
        audiences.sort_unstable();
        audiences.dedup();
        if audiences.is_empty() || audiences.len() > MAX_AUDIENCES {
            return Err(IssueError::Audiences.into());
        }
        let (vouched, known) = self.shared.token(instance, &audiences)?;
        // Keys leave the site's bundle while tokens under them are held.
        let bundles = self.shared.published.borrow().bundles.clone();
        let known = known.filter(|svid| checking::still(svid, &audiences, bundles.as_deref(), now));
        if let Some(svid) = known.as_ref().filter(|svid| before_half(svid, now)) {
            granted(svid.expires_at() - now, ttl)?;
            return Ok(Minted { svid: svid.clone(), fresh: false });
        }
        let expected = &vouched.workload.spiffe_id;
        let asked = timeout(UPSTREAM_CALL, self.shared.wire.jwt(&vouched, &audiences)).await;
        let handed = match asked.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer in time"))) {
            Ok(handed) => handed,
            Err(status) if follow::is_refusal(&status) => {
                self.shared.withdraw(instance, &vouched, Unfit::Nothing);
                let said = Excerpt::new(status.message());
                return Err(SourceError::NoIdentity { spiffe_id: expected.clone(), said });
            }
            Err(status) => {
                self.shared.failed(Part::Svids, &status);
                // An outage: what is held serves until it ends.
                let still = known.filter(|svid| svid.expires_at() - now > time::Duration::SECOND);
                let svid = still.ok_or_else(|| self.shared.unavailable("no token that serves is held"))?;
                granted(svid.expires_at() - now, ttl)?;
                return Ok(Minted { svid, fresh: false });
            }
        };
        self.shared.heard(Part::Svids);
        let svid = self.checked_token(expected, &audiences, handed).await?;
        granted(svid.expires_at() - now, ttl)?;
        let mut entries = self.shared.entries();
        let entry = entries.get_mut(instance).ok_or_else(|| SourceError::UnknownInstance(instance.clone()))?;
        entry.keep(audiences, svid.clone(), now);
        let fresh = entry.show(svid.jti());
        Ok(Minted { svid, fresh })
    }

    fn sign_handshake(&self, instance: &InstanceId, key_id: &str, message: &[u8]) -> Result<Vec<u8>, SignError> {
        crate::handshake_message::check_certificate_verify(message).map_err(|_| SignError::NotAHandshake)?;
        self.shared.sign(instance, key_id, message)
    }

    fn sign(&self, instance: &InstanceId, key_id: &str, purpose: &str, data: &[u8]) -> Result<Vec<u8>, SignError> {
        self.shared.sign(instance, key_id, &crate::signed_message(purpose, data)?)
    }

    fn sign_statement(&self, instance: &InstanceId, key_id: &str, draft: &Draft) -> Result<String, SignError> {
        let held = self.shared.key(instance, key_id)?;
        let key = held.key(key_id).ok_or(SignError::UnknownKey)?;
        if draft.signer() != &Signer::Svid(key.svid.spiffe_id.clone()) {
            return Err(SignError::UnknownKey);
        }
        let signature = key.key.sign_fixed(draft.signing_input().as_bytes()).map_err(|_| SignError::Signing)?;
        Ok(draft.token(&signature))
    }

    fn published(&self) -> watch::Receiver<SourcePublished> {
        self.shared.published.subscribe()
    }

    fn status(&self) -> SourceStatus {
        let (mut held, mut refused, mut waiting) = (0, 0, 0);
        let now = (self.shared.clock)();
        for entry in self.shared.entries().values() {
            match entry.state() {
                State::Held(keys) if keys.current.svid.not_after > now => held += 1,
                State::Refused(_) => refused += 1,
                State::Held(_) | State::Waiting => waiting += 1,
            }
        }
        let health = self.shared.health();
        SourceStatus {
            kind: self.kind(),
            connected: health.connected(),
            last_contact: health.last_contact,
            problem: health.problem().map(str::to_owned),
            held,
            refused,
            waiting,
        }
    }

    fn key_scan(&self) -> KeyScan {
        let held: Vec<_> = self.shared.entries().values().filter_map(Entry::held).collect();
        let keys = held.iter().flat_map(|held| held.keys());
        KeyScan::new(keys.map(|held| held.key.scalar()), std::iter::empty())
    }
}

impl Health {
    fn of(&mut self, part: Part) -> &mut PartHealth {
        match part {
            Part::Svids => &mut self.svids,
            Part::Bundles => &mut self.bundles,
        }
    }

    /// Bundles are always asked for; SVIDs only once somebody was admitted.
    fn connected(&self) -> bool {
        matches!(self.bundles, PartHealth::Well) && !matches!(self.svids, PartHealth::Failed(_))
    }

    fn problem(&self) -> Option<&str> {
        [&self.svids, &self.bundles].into_iter().find_map(|part| match part {
            PartHealth::Failed(why) => Some(why.as_str()),
            PartHealth::Silent | PartHealth::Well => None,
        })
    }
}

/// What a status says, with what caused it (the transport hides its reasons there), escaped and cut.
fn whole_story(status: &tonic::Status) -> String {
    let mut story = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = error.to_string();
        if !story.ends_with(&text) {
            story = format!("{story}: {text}");
        }
        cause = error.source();
    }
    story.chars().flat_map(char::escape_debug).take(MAX_UPSTREAM_PROBLEM_CHARS).collect()
}

impl Upstream {
    /// A token whose key is not known yet waits for the bundle that has it.
    async fn checked_token(
        &self,
        expected: &SpiffeId,
        audiences: &[Audience],
        handed: Vec<HandedJwt>,
    ) -> Result<JwtSvid, SourceError> {
        let mut published = self.shared.published.subscribe();
        let until = tokio::time::Instant::now() + crate::limits::UPSTREAM_BUNDLE_WAIT;
        let mut handed = handed;
        loop {
            let bundles = published.borrow_and_update().bundles.clone();
            let again = handed.iter().map(HandedJwt::copied).collect();
            match checking::jwt(expected, audiences, handed, bundles.as_deref(), (self.shared.clock)()) {
                Ok(svid) => return Ok(svid),
                Err(Unfit::Unverified(why)) => {
                    let waited = tokio::time::timeout_at(until, published.changed()).await;
                    if !matches!(waited, Ok(Ok(()))) {
                        return Err(SourceError::Invalid(Excerpt::new(&why)));
                    }
                    handed = again;
                }
                Err(why) => return Err(refused(expected, why)),
            }
        }
    }
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, HashMap<InstanceId, Entry>> {
        // Nothing that runs under this lock can leave an entry half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is signed was checked: a handshake, or data under the heading of its purpose.
    fn sign(&self, instance: &InstanceId, key_id: &str, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let held = self.key(instance, key_id)?;
        held.key(key_id).ok_or(SignError::UnknownKey)?.key.sign(message).map_err(|_| SignError::Signing)
    }

    /// What an instance holds, if this key is among it and its SVID has not ended.
    fn key(&self, instance: &InstanceId, key_id: &str) -> Result<Arc<Held>, SignError> {
        let held = {
            let entries = self.entries();
            let entry = entries.get(instance).ok_or_else(|| SignError::UnknownInstance(instance.clone()))?;
            entry.held().ok_or(SignError::UnknownKey)?
        };
        let now = (self.clock)();
        let valid = held.key(key_id).is_some_and(|held| held.svid.not_after > now);
        if valid { Ok(held) } else { Err(SignError::UnknownKey) }
    }

    fn watched(&self, instance: &InstanceId) -> Result<(SpiffeId, watch::Receiver<State>), SourceError> {
        let entries = self.entries();
        let entry = entries.get(instance).ok_or_else(|| SourceError::UnknownInstance(instance.clone()))?;
        Ok((entry.vouched.workload.spiffe_id.clone(), entry.subscribe()))
    }

    fn token(
        &self,
        instance: &InstanceId,
        audiences: &[Audience],
    ) -> Result<(Arc<Vouched>, Option<JwtSvid>), SourceError> {
        let entries = self.entries();
        let entry = entries.get(instance).ok_or_else(|| SourceError::UnknownInstance(instance.clone()))?;
        Ok((Arc::clone(&entry.vouched), entry.token(audiences)))
    }

    /// The upstream answered.
    fn heard(&self, part: Part) {
        let now = (self.clock)();
        let mut health = self.health();
        health.last_contact = Some(now);
        *health.of(part) = PartHealth::Well;
    }

    /// The upstream failed.
    fn failed(&self, part: Part, status: &tonic::Status) {
        *self.health().of(part) = PartHealth::Failed(whole_story(status));
    }

    fn unavailable(&self, why: &str) -> SourceError {
        let text = match self.health().problem() {
            Some(problem) => format!("{why}; last error: {problem}"),
            None => why.to_owned(),
        };
        SourceError::Unavailable(Excerpt::new(&text))
    }

    /// Takes the SVIDs and tokens of an instance away.
    fn withdraw(&self, instance: &InstanceId, vouched: &Arc<Vouched>, why: Unfit) {
        let mut entries = self.entries();
        // The instance may have been stopped and another run begun under the same name.
        let entry = entries.get_mut(instance).filter(|entry| Arc::ptr_eq(&entry.vouched, vouched));
        let had = entry.is_some_and(|entry| entry.refuse(why));
        drop(entries);
        if had {
            tracing::warn!(%instance, source = %self.wire.kind(), "the identity source took an identity away");
            self.published.send_modify(|now| now.svid_epoch += 1);
        }
    }

    /// Trusts nobody any more: what is held of the bundles is too old.
    fn publish_none(&self) {
        self.published.send_if_modified(|before| before.bundles.take().is_some());
    }

    /// Publishes bundles. SVIDs that they do not verify any more are taken away.
    fn publish(&self, bundles: BundleSet) {
        let now = (self.clock)();
        let mut lost = 0;
        for entry in self.entries().values_mut() {
            let id = entry.vouched.workload.spiffe_id.clone();
            lost += u64::from(entry.recheck(|chain| checking::verify(&id, chain, Some(&bundles), now).is_ok()));
        }
        self.published.send_modify(|before| {
            before.bundles = Some(Arc::new(bundles));
            before.svid_epoch += u64::from(lost > 0);
        });
    }
}

fn refused(expected: &SpiffeId, why: Unfit) -> SourceError {
    match why {
        Unfit::Nothing => {
            SourceError::NoIdentity { spiffe_id: expected.clone(), said: Excerpt::new("no identity issued") }
        }
        Unfit::Other(found) => SourceError::OtherIdentity { expected: expected.clone(), found: Excerpt::new(&found) },
        Unfit::Invalid(why) | Unfit::Unverified(why) => SourceError::Invalid(Excerpt::new(&why)),
    }
}

fn granted(left: time::Duration, ttl: Duration) -> Result<(), SourceError> {
    let left = Duration::try_from(left).unwrap_or_default();
    if left > ttl.saturating_add(UPSTREAM_LIFETIME_SLACK) {
        return Err(SourceError::LongerThanGranted { found: left.as_secs(), granted: ttl.as_secs() });
    }
    Ok(())
}

fn before_half(svid: &JwtSvid, now: OffsetDateTime) -> bool {
    let from = svid.claims().issued_at().unwrap_or(now);
    now >= from && now - from < (svid.expires_at() - from) / 2
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("wire", &self.shared.wire).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
