//! When an authority is prepared, activated and forgotten. Prepared when half of the life of the active one is left, activated
//! when a sixth is left: so others had a third of a life to fetch the new bundle before the first SVID under it, and the old
//! authority is out of its slot before that is wanted again.

use std::time::Duration;

use time::OffsetDateTime;

use crate::authority::{AuthorityId, AuthorityKind, AuthorityState};
use crate::journal::{Entry, Journal};
use crate::lifetimes::Lifetimes;
use crate::limits::PUBLISHED_HINTS;

/// What is to be done about an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationAction {
    /// Make the next one and publish it.
    Prepare,
    /// Sign with the next one.
    Activate,
    /// Forget one whose last SVID ended.
    Prune,
}

/// What comes next for a kind of authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextAction {
    /// Which kind.
    pub kind: AuthorityKind,
    /// What.
    pub action: RotationAction,
    /// The authority that it is about; for [`RotationAction::Prepare`] the one that will be replaced.
    pub id: Option<AuthorityId>,
    /// When; perhaps in the past.
    pub at: OffsetDateTime,
}

impl RotationAction {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Activate => "activate",
            Self::Prune => "prune",
        }
    }
}

/// What comes for the authorities of a kind, the earliest first. `wanted` says whether an authority is as the configuration
/// wants it (its algorithm, the place of its key); without it the kind is not wanted at all.
pub(crate) fn next_actions(
    journal: &Journal,
    kind: AuthorityKind,
    lifetimes: Lifetimes,
    wanted: Option<impl Fn(&Entry) -> bool>,
    now: OffsetDateTime,
) -> Vec<NextAction> {
    let next = |action, id: Option<&Entry>, at| NextAction { kind, action, id: id.map(|entry| entry.id.clone()), at };
    let mut actions: Vec<_> = journal
        .of(kind)
        .filter_map(|entry| {
            let at = match (entry.state, &wanted) {
                (AuthorityState::Old | AuthorityState::Tainted, _) => entry.published_until,
                (AuthorityState::Active | AuthorityState::Prepared, None) => Some(now),
                // A prepared one that ended while nobody was there to use it is forgotten, as is one that is not wanted so.
                (AuthorityState::Prepared, Some(wanted)) => Some(if wanted(entry) { entry.not_after } else { now }),
                (AuthorityState::Active, Some(_)) => None,
            };
            at.map(|at| next(RotationAction::Prune, Some(entry), at))
        })
        .collect();
    if let Some(wanted) = &wanted {
        let active = journal.active(kind).filter(|entry| entry.not_after > now);
        match (active, journal.prepared(kind).filter(|entry| entry.not_after > now && wanted(entry))) {
            (Some(active), Some(prepared)) => {
                let at = activate_at(active, prepared, lifetimes, wanted(active));
                actions.push(next(RotationAction::Activate, Some(prepared), at));
            }
            (Some(active), None) => {
                let at = if wanted(active) { left(active, 2) } else { now };
                actions.push(next(RotationAction::Prepare, Some(active), at));
            }
            (None, Some(prepared)) => actions.push(next(RotationAction::Activate, Some(prepared), now)),
            (None, None) => actions.push(next(RotationAction::Prepare, None, now)),
        }
    }
    // Forget first: it makes room.
    actions.sort_by_key(|action| (action.at, action.action != RotationAction::Prune));
    actions
}

/// A sixth of the active one's life is left, or it is not as wanted; but not before the prepared one was published for long
/// enough, unless the active one would end over it.
fn activate_at(active: &Entry, prepared: &Entry, lifetimes: Lifetimes, wanted: bool) -> OffsetDateTime {
    let hint = lifetimes.refresh_hint();
    let published = later(prepared.prepared_at, hint * PUBLISHED_HINTS);
    let latest = active.not_after.checked_sub(signed(hint)).unwrap_or(active.not_after);
    let due = if wanted { left(active, 6) } else { prepared.prepared_at };
    due.max(published.min(latest))
}

/// When this part of its life is left.
fn left(entry: &Entry, part: i32) -> OffsetDateTime {
    let life = (entry.not_after - entry.prepared_at).max(time::Duration::ZERO);
    entry.not_after.checked_sub(life / part).unwrap_or(entry.not_after)
}

/// When the last SVID of an authority has ended that signs no more from now on.
pub(crate) fn last_svid_end(entry: &Entry, now: OffsetDateTime) -> OffsetDateTime {
    later(now, Duration::from_secs(entry.longest_svid)).min(entry.not_after).max(now)
}

fn later(from: OffsetDateTime, by: Duration) -> OffsetDateTime {
    from.checked_add(signed(by)).unwrap_or(from)
}

fn signed(duration: Duration) -> time::Duration {
    time::Duration::try_from(duration).unwrap_or(time::Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::AuthorityState::{Active, Old, Prepared};
    use crate::authority::Slot::{A, B};
    use crate::journal::tests::{at, entry};

    const DAY: i64 = 86_400;
    const HOUR: i64 = 3600;

    fn first(entries: Vec<Entry>, now: i64) -> (RotationAction, i64) {
        let trust_domain = "example.org".parse().unwrap();
        let journal = Journal { trust_domain, sequence: 1, content: String::new(), svid_epoch: 1, entries };
        let actions = next_actions(&journal, AuthorityKind::Jwt, Lifetimes::default(), Some(|_: &Entry| true), at(now));
        (actions[0].action, (actions[0].at - at(0)).whole_seconds())
    }

    fn active() -> Entry {
        entry(AuthorityKind::Jwt, Some(A), Active)
    }

    fn prepared(seconds: i64) -> Entry {
        let mut prepared = entry(AuthorityKind::Jwt, Some(B), Prepared);
        prepared.prepared_at = at(seconds);
        prepared.not_after = at(seconds + DAY);
        prepared
    }

    #[test]
    fn the_next_one_is_prepared_at_half_and_used_at_a_sixth_of_the_life_that_is_left() {
        assert_eq!(first(vec![active()], 0), (RotationAction::Prepare, DAY / 2));
        assert_eq!(first(vec![active(), prepared(DAY / 2)], 0), (RotationAction::Activate, DAY - DAY / 6));
    }

    #[test]
    fn the_next_one_is_published_for_five_hints_before_its_first_use_unless_the_active_one_ends_before() {
        let hint = 300;
        let late = DAY - 2 * HOUR;
        assert_eq!(first(vec![active(), prepared(late)], late), (RotationAction::Activate, late + 5 * hint));
        let very_late = DAY - 2 * hint;
        assert_eq!(first(vec![active(), prepared(very_late)], very_late), (RotationAction::Activate, DAY - hint));
    }

    #[test]
    fn without_an_active_one_the_prepared_one_is_used_and_without_any_one_is_made_at_once() {
        assert_eq!(first(vec![prepared(0)], 60), (RotationAction::Activate, 60));
        assert_eq!(first(vec![], 60), (RotationAction::Prepare, 60));
        assert_eq!(first(vec![active(), prepared(HOUR)], DAY).0, RotationAction::Activate);
        assert_eq!(first(vec![active(), prepared(0)], DAY), (RotationAction::Prune, DAY), "both ended");
    }

    #[test]
    fn an_old_one_is_forgotten_when_its_last_svid_ended_and_no_later_than_its_own_end() {
        let mut old = active();
        assert_eq!(last_svid_end(&old, at(100)), at(400));
        assert_eq!(last_svid_end(&old, at(DAY - 10)), at(DAY));
        assert_eq!(last_svid_end(&old, at(DAY + 10)), at(DAY + 10));
        old = entry(AuthorityKind::Jwt, Some(A), Old);
        let mut next = prepared(0);
        next.state = Active;
        assert_eq!(first(vec![old, next], 0), (RotationAction::Prune, 300));
    }

    /// A whole life: the slot of the one before is empty when the next one is prepared.
    #[test]
    fn the_slot_of_the_one_before_is_empty_when_it_is_wanted() {
        let activated = DAY - DAY / 6;
        let (mut old, new) = (active(), prepared(DAY / 2));
        old.longest_svid = 3600;
        let free = last_svid_end(&old, at(activated));
        assert!(free <= left(&new, 2), "{free} {}", left(&new, 2));
    }
}
