//! Rotation: authorities go from prepared to active to old, two slots for each kind, on a schedule or by force; a tainted one is
//! out at once. Each step is one journal that is written before it is in force; a key is made before the journal names it and
//! destroyed after the journal has forgotten it.

use time::OffsetDateTime;

use super::Issuer;
use super::authorities::Authorities;
use super::changes::Changes;
use crate::authority::{AuthorityChange, AuthorityId, AuthorityKind, AuthorityState, AuthorityStatus, Slot};
use crate::journal::{Entry, Journal};
use crate::limits::MAX_AUTHORITIES;
use crate::rotation_error::RotationError;
use crate::schedule::{NextAction, RotationAction, last_svid_end, next_actions};

impl Issuer {
    /// Does what is due at this time: forgets, prepares, activates. What fails is tried again at the next tick; until then
    /// what was in force stays in force.
    pub fn tick(&mut self, now: OffsetDateTime) -> Changes {
        let now = whole(now);
        let mut changes = Changes::default();
        if let Err(error) = self.authorities.settle() {
            changes.failed(None, error);
        }
        self.settle_taints(now, &mut changes);
        self.authorities.load_missing(now, &mut changes);
        for kind in AuthorityKind::ALL {
            if let Err(error) = self.authorities.follow_schedule(kind, now, &mut changes) {
                changes.failed(Some(kind), error);
            }
        }
        self.forget_tokens_after(&changes);
        changes
    }

    /// When the next thing is due.
    pub fn next_tick(&self, now: OffsetDateTime) -> OffsetDateTime {
        let actions = self.next_actions(now);
        actions.iter().map(|action| action.at).min().unwrap_or(now)
    }

    /// What comes next for each kind of authority, the earliest first.
    pub fn next_actions(&self, now: OffsetDateTime) -> Vec<NextAction> {
        let mut actions: Vec<_> =
            AuthorityKind::ALL.into_iter().flat_map(|kind| self.authorities.next_actions(kind, now)).collect();
        actions.sort_by_key(|action| action.at);
        actions
    }

    /// The authorities as they stand.
    pub fn authorities(&self) -> Vec<AuthorityStatus> {
        self.authorities.statuses()
    }

    /// Makes and publishes the next authority of this kind now.
    pub fn prepare(&mut self, kind: AuthorityKind, now: OffsetDateTime) -> Result<Changes, RotationError> {
        let mut changes = Changes::default();
        self.authorities.prune_due(kind, whole(now), &mut changes)?;
        self.authorities.prepare(kind, whole(now), &mut changes)?;
        Ok(changes)
    }

    /// Signs with the prepared authority of this kind from now on. Others may not have its public key yet: that is the price
    /// of force.
    pub fn activate(&mut self, kind: AuthorityKind, now: OffsetDateTime) -> Result<Changes, RotationError> {
        let mut changes = Changes::default();
        self.authorities.prune_due(kind, whole(now), &mut changes)?;
        self.authorities.activate(kind, whole(now), &mut changes)?;
        self.forget_tokens_after(&changes);
        Ok(changes)
    }

    /// Prepares, unless one is prepared, and activates.
    pub fn rotate(&mut self, kind: AuthorityKind, now: OffsetDateTime) -> Result<Changes, RotationError> {
        let mut changes = Changes::default();
        self.authorities.prune_due(kind, whole(now), &mut changes)?;
        match self.authorities.prepare(kind, whole(now), &mut changes) {
            Ok(()) | Err(RotationError::AlreadyPrepared { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.authorities.activate(kind, whole(now), &mut changes) {
            Ok(()) => self.forget_tokens_after(&changes),
            // What was prepared stays prepared, and must be published.
            Err(error) => changes.failed(Some(kind), error),
        }
        Ok(changes)
    }

    /// Treats an authority as known to others: its key is destroyed, it is out of the bundle, its SVIDs are invalid and
    /// forgotten here. If it was the one that signs, the prepared or a new one signs from now on; if none can be made, this
    /// kind of SVID is denied until one can. When the taint itself cannot be written it is in force in this process all the
    /// same, is among the failures, and is written at a later tick.
    pub fn taint(&mut self, id: &AuthorityId, now: OffsetDateTime) -> Result<Changes, RotationError> {
        let mut changes = Changes::default();
        match self.authorities.taint(id, whole(now), &mut changes) {
            Ok(()) => {}
            // INVARIANT: a taint does not wait for the disk. It is in force here now and written at a later tick.
            Err(error @ RotationError::State(_)) => {
                let kind = self.authorities.journal.entry(id).map(|entry| entry.kind);
                self.authorities.refuse(id, whole(now));
                changes.bundle = true;
                changes.failed(kind, error);
            }
            Err(error) => return Err(error),
        }
        self.forget_svids_of(id, &mut changes);
        Ok(changes)
    }

    fn forget_svids_of(&mut self, id: &AuthorityId, changes: &mut Changes) {
        self.registry.forget_authority(id);
        self.forget_tokens_after(changes);
        self.svid_epoch = self.svid_epoch.saturating_add(1);
        changes.svids = true;
        changes.withdrawn = true;
    }

    /// Writes the taints that could not be written.
    fn settle_taints(&mut self, now: OffsetDateTime, changes: &mut Changes) {
        for id in self.authorities.refused.clone() {
            match self.authorities.taint(&id, now, changes) {
                Ok(()) | Err(RotationError::Unknown(_) | RotationError::AlreadyTainted(_)) => {
                    self.authorities.refused.retain(|other| *other != id);
                    self.forget_svids_of(&id, changes);
                }
                Err(error) => changes.failed(None, error),
            }
        }
    }

    /// Forgets every SVID and token that was minted, so that each is minted anew when it is asked for. Keys stay until their
    /// SVIDs end: handshakes with them may be under way.
    pub fn rotate_svids(&mut self) -> Changes {
        self.registry.forget_tokens();
        self.svid_epoch = self.svid_epoch.saturating_add(1);
        Changes { svids: true, ..Changes::default() }
    }

    /// Grows whenever all SVIDs that are held must be replaced at once, and with each start: a new process has none of the
    /// keys of before.
    pub fn svid_epoch(&self) -> u64 {
        self.svid_epoch
    }

    fn forget_tokens_after(&mut self, changes: &Changes) {
        let signs_anew = changes
            .events
            .iter()
            .any(|event| event.change == AuthorityChange::Activated && event.kind != AuthorityKind::X509);
        if signs_anew {
            self.registry.forget_tokens();
        }
    }
}

impl Authorities {
    pub(super) fn next_actions(&self, kind: AuthorityKind, now: OffsetDateTime) -> Vec<NextAction> {
        let wanted = self.options.wants(kind).then_some(|entry: &Entry| self.is_as_wanted(entry));
        let mut actions = next_actions(&self.journal, kind, self.options.lifetimes, wanted, now);
        // A successor that can sign does not wait for one that cannot: its token is away, or not configured any more.
        let at_hand = |entry: Option<&Entry>| entry.is_some_and(|entry| self.signers.has(&entry.id));
        if at_hand(self.journal.prepared(kind)) && !at_hand(self.journal.active(kind)) {
            for action in actions.iter_mut().filter(|action| action.action == RotationAction::Activate) {
                action.at = action.at.min(now);
            }
            actions.sort_by_key(|action| action.at);
        }
        actions
    }

    /// Loads the keys of authorities that sign and whose keys are not at hand: after a start, and after a token was away.
    /// An authority whose key is gone for good signs no more.
    pub(super) fn load_missing(&mut self, now: OffsetDateTime, changes: &mut Changes) {
        let missing: Vec<Entry> = self
            .journal
            .entries
            .iter()
            .filter(|entry| entry.key.is_some() && !self.signers.has(&entry.id))
            .cloned()
            .collect();
        for entry in missing {
            match self.vault.load(&entry) {
                Ok(Some(key)) => match self.signer(&entry, key) {
                    Ok(signer) => self.signers.insert(entry.id.clone(), signer),
                    Err(reason) => {
                        changes.failed(Some(entry.kind), self.vault.damaged(crate::vault::JOURNAL_FILE, reason));
                    }
                },
                Ok(None) => {
                    let mut next = self.journal.clone();
                    if entry.state == AuthorityState::Prepared {
                        next.entries.retain(|other| other.id != entry.id);
                    } else {
                        retire(&mut next, &entry.id, AuthorityState::Old, now);
                    }
                    match self.commit(next, now) {
                        Ok(changed) => {
                            changes.bundle |= changed;
                            changes.event(&entry, AuthorityChange::Lost);
                        }
                        Err(error) => changes.failed(Some(entry.kind), error),
                    }
                }
                Err(error) => changes.failed(Some(entry.kind), error),
            }
        }
    }

    /// Does what is due for a kind, one thing after the other, until nothing is.
    fn follow_schedule(
        &mut self,
        kind: AuthorityKind,
        now: OffsetDateTime,
        changes: &mut Changes,
    ) -> Result<(), RotationError> {
        // Bounded: each kind has at most so many authorities to forget, and one to make and one to use.
        for _ in 0..MAX_AUTHORITIES + 3 {
            let Some(due) = self.next_actions(kind, now).into_iter().find(|action| action.at <= now) else { break };
            match (due.action, due.id) {
                (RotationAction::Prepare, _) => self.prepare(kind, now, changes)?,
                (RotationAction::Activate, _) => self.activate(kind, now, changes)?,
                (RotationAction::Prune, Some(id)) => self.prune(&id, now, changes)?,
                (RotationAction::Prune, None) => break,
            }
        }
        Ok(())
    }

    /// Forgets what is due to be: before something is done by force, so that nothing that ended is used or in the way.
    fn prune_due(
        &mut self,
        kind: AuthorityKind,
        now: OffsetDateTime,
        changes: &mut Changes,
    ) -> Result<(), RotationError> {
        let due = |action: &NextAction| action.action == RotationAction::Prune && action.at <= now;
        for _ in 0..MAX_AUTHORITIES {
            let Some(NextAction { id: Some(id), .. }) = self.next_actions(kind, now).into_iter().find(due) else {
                break;
            };
            self.prune(&id, now, changes)?;
        }
        Ok(())
    }

    fn prepare(
        &mut self,
        kind: AuthorityKind,
        now: OffsetDateTime,
        changes: &mut Changes,
    ) -> Result<(), RotationError> {
        if !self.options.wants(kind) {
            return Err(RotationError::Disabled(kind));
        }
        if let Some(prepared) = self.journal.prepared(kind) {
            return Err(RotationError::AlreadyPrepared { kind, id: prepared.id.clone() });
        }
        let (next, entry, signer) = self.with_new(kind, now)?;
        let changed = self.commit(next, now)?;
        self.signers.insert(entry.id.clone(), signer);
        changes.bundle |= changed;
        changes.event(&entry, AuthorityChange::Prepared);
        Ok(())
    }

    /// The journal with a new, prepared authority in the free slot. Whoever stands there makes room and stays published.
    fn with_new(
        &self,
        kind: AuthorityKind,
        now: OffsetDateTime,
    ) -> Result<(Journal, Entry, super::authorities::Signer), RotationError> {
        if self.journal.of(kind).count() >= MAX_AUTHORITIES {
            return Err(RotationError::TooMany(kind));
        }
        let slot = self.journal.active(kind).and_then(|active| active.slot).map_or(Slot::A, Slot::other);
        let (mut entry, signer) = self.make(kind, now)?;
        entry.slot = Some(slot);
        let mut next = self.journal.clone();
        for other in next.entries.iter_mut().filter(|other| other.kind == kind && other.slot == Some(slot)) {
            other.slot = None;
        }
        next.entries.push(entry.clone());
        Ok((next, entry, signer))
    }

    fn activate(
        &mut self,
        kind: AuthorityKind,
        now: OffsetDateTime,
        changes: &mut Changes,
    ) -> Result<(), RotationError> {
        let prepared = self.journal.prepared(kind).cloned().ok_or(RotationError::NothingPrepared(kind))?;
        let before = self.journal.active(kind).cloned();
        let mut next = self.journal.clone();
        if let Some(before) = &before {
            retire(&mut next, &before.id, AuthorityState::Old, now);
        }
        use_from(&mut next, &prepared.id, now);
        changes.bundle |= self.commit(next, now)?;
        if let Some(before) = &before {
            changes.event(before, AuthorityChange::Retired);
        }
        changes.event(&prepared, AuthorityChange::Activated);
        Ok(())
    }

    fn prune(&mut self, id: &AuthorityId, now: OffsetDateTime, changes: &mut Changes) -> Result<(), RotationError> {
        let Some(entry) = self.journal.entry(id).cloned() else { return Ok(()) };
        let mut next = self.journal.clone();
        if entry.state == AuthorityState::Active {
            // No longer wanted by the configuration, or at its end: it signs no more, and stays published for its SVIDs.
            retire(&mut next, id, AuthorityState::Old, now);
            changes.bundle |= self.commit(next, now)?;
            changes.event(&entry, AuthorityChange::Retired);
            return Ok(());
        }
        next.entries.retain(|other| other.id != *id);
        changes.bundle |= self.commit(next, now)?;
        changes.event(&entry, AuthorityChange::Pruned);
        Ok(())
    }

    fn taint(&mut self, id: &AuthorityId, now: OffsetDateTime, changes: &mut Changes) -> Result<(), RotationError> {
        let entry = self.journal.entry(id).cloned().ok_or_else(|| RotationError::Unknown(id.clone()))?;
        let kind = entry.kind;
        if entry.state == AuthorityState::Tainted {
            return Err(RotationError::AlreadyTainted(id.clone()));
        }
        let mut next = self.journal.clone();
        let mut made = None;
        if entry.state == AuthorityState::Active && self.journal.prepared(kind).is_none() {
            match self.with_new(kind, now) {
                Ok((journal, new, signer)) => {
                    next = journal;
                    made = Some((new, signer));
                }
                // The taint does not wait for a successor.
                Err(error) => changes.failed(Some(kind), error),
            }
        }
        retire(&mut next, id, AuthorityState::Tainted, now);
        let successor = next.prepared(kind).filter(|_| entry.state == AuthorityState::Active).cloned();
        if let Some(successor) = &successor {
            use_from(&mut next, &successor.id, now);
        }
        changes.bundle |= self.commit(next, now)?;
        changes.event(&entry, AuthorityChange::Tainted);
        if let Some((new, signer)) = made {
            self.signers.insert(new.id.clone(), signer);
            changes.event(&new, AuthorityChange::Prepared);
        }
        if let Some(successor) = successor {
            changes.event(&successor, AuthorityChange::Activated);
        }
        Ok(())
    }
}

/// An authority that signs no more: without a key, published or shown until its last SVID has ended.
fn retire(journal: &mut Journal, id: &AuthorityId, state: AuthorityState, now: OffsetDateTime) {
    if let Some(entry) = journal.entry_mut(id) {
        let end = last_svid_end(entry, now);
        entry.published_until = entry.published_until.or(Some(end));
        entry.state = state;
        entry.key = None;
    }
}

fn use_from(journal: &mut Journal, id: &AuthorityId, now: OffsetDateTime) {
    if let Some(entry) = journal.entry_mut(id) {
        entry.state = AuthorityState::Active;
        entry.activated_at = Some(now);
    }
}

/// Certificates and tokens know whole seconds only.
fn whole(now: OffsetDateTime) -> OffsetDateTime {
    now.replace_nanosecond(0).unwrap_or(now)
}
