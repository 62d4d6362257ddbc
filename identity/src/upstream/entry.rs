//! What is held for one instance: its X.509-SVIDs with their keys, its tokens, and whether the upstream refused it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::watch;

use super::Task;
use super::checking::{HeldKey, Unfit};
use crate::audience::Audience;
use crate::jwt_svid::JwtSvid;
use crate::limits::{MAX_CACHED_TOKENS, MAX_X509_KEYS};
use crate::source::Vouched;

/// What is known of an instance's X.509-SVID.
#[derive(Clone)]
pub(super) enum State {
    /// The upstream has not spoken of it yet.
    Waiting,
    /// Held; it may have ended meanwhile.
    Held(Arc<Held>),
    /// The upstream gives none, or none that can be used.
    Refused(Unfit),
}

/// The X.509-SVID in use, and those before it, whose handshakes may still be under way.
pub(super) struct Held {
    pub(super) current: Arc<HeldKey>,
    before: Vec<Arc<HeldKey>>,
}

pub(super) struct Entry {
    pub(super) vouched: Arc<Vouched>,
    state: watch::Sender<State>,
    tokens: HashMap<Vec<Audience>, JwtSvid>,
    shown: HashSet<String>,
    _task: Option<Task>,
}

/// The following task's end of an entry.
pub(super) type StateSender = watch::Sender<State>;

impl Held {
    pub(super) fn new(current: HeldKey, before: Option<&Self>, now: OffsetDateTime) -> Self {
        let older = before.into_iter().flat_map(|held| std::iter::once(&held.current).chain(&held.before));
        let still = older.filter(|key| key.svid.not_after > now).take(MAX_X509_KEYS - 1).cloned();
        Self { before: still.collect(), current: Arc::new(current) }
    }

    pub(super) fn key(&self, key_id: &str) -> Option<&HeldKey> {
        self.keys().find(|held| held.svid.key_id == key_id)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &HeldKey> {
        std::iter::once(&self.current).chain(&self.before).map(Arc::as_ref)
    }
}

impl Entry {
    pub(super) fn new(vouched: Arc<Vouched>) -> (Self, StateSender) {
        let state = watch::Sender::new(State::Waiting);
        let (tokens, shown) = (HashMap::new(), HashSet::new());
        (Self { vouched, state: state.clone(), tokens, shown, _task: None }, state)
    }

    pub(super) fn with(self, task: Task) -> Self {
        Self { _task: Some(task), ..self }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(super) fn held(&self) -> Option<Arc<Held>> {
        match &*self.state.borrow() {
            State::Held(held) => Some(Arc::clone(held)),
            State::Waiting | State::Refused(_) => None,
        }
    }

    pub(super) fn token(&self, audiences: &[Audience]) -> Option<JwtSvid> {
        self.tokens.get(audiences).cloned()
    }

    /// Keeps a token; where there are too many the one that ends first makes room.
    pub(super) fn keep(&mut self, audiences: Vec<Audience>, svid: JwtSvid, now: OffsetDateTime) {
        self.tokens.retain(|_, old| old.expires_at() > now);
        if self.tokens.len() >= MAX_CACHED_TOKENS && !self.tokens.contains_key(&audiences) {
            let first = self.tokens.iter().min_by_key(|(_, old)| old.expires_at()).map(|(name, _)| name.clone());
            first.and_then(|name| self.tokens.remove(&name));
        }
        self.tokens.insert(audiences, svid);
    }

    /// Whether this SVID is given out for the first time.
    pub(super) fn show(&mut self, id: &str) -> bool {
        if self.shown.len() >= MAX_CACHED_TOKENS + MAX_X509_KEYS {
            // Forgetting means that one is recorded twice, never that one is not.
            self.shown.clear();
        }
        self.shown.insert(id.to_owned())
    }

    /// Takes everything away; whether there was something.
    pub(super) fn refuse(&mut self, why: Unfit) -> bool {
        let had_tokens = !self.tokens.is_empty();
        self.tokens.clear();
        matches!(self.state.send_replace(State::Refused(why)), State::Held(_)) || had_tokens
    }

    /// Takes the SVIDs away where the one in use does not pass; whether it was so.
    pub(super) fn recheck(&mut self, passes: impl Fn(&[Vec<u8>]) -> bool) -> bool {
        let Some(held) = self.held() else { return false };
        if passes(&held.current.svid.chain) {
            return false;
        }
        self.refuse(Unfit::Unverified("its authority left the bundle".to_owned()))
    }
}
