//! How often refusals are written down: the first of a user at once, further ones in bulk, so that nobody can fill the audit log.

use std::collections::HashMap;
use std::time::Instant;

use crate::limits::{WORKLOAD_RECORD, WORKLOAD_RECORD_USERS};

/// Refusals by user id. Pure: the time comes in.
#[derive(Debug, Default)]
pub struct Refusals {
    users: HashMap<u32, (Instant, u64)>,
    others: Option<(Instant, u64)>,
}

impl Refusals {
    /// Counts a refusal. Where it is to be written down: how many there were since the last that was, with this one.
    pub fn refused(&mut self, uid: u32, now: Instant) -> Option<u64> {
        if self.users.len() >= WORKLOAD_RECORD_USERS {
            self.users.retain(|_, (last, unrecorded)| *unrecorded > 0 || now.duration_since(*last) < WORKLOAD_RECORD);
        }
        if self.users.len() >= WORKLOAD_RECORD_USERS && !self.users.contains_key(&uid) {
            return count(self.others.get_or_insert((now, u64::MAX)), now);
        }
        count(self.users.entry(uid).or_insert((now, u64::MAX)), now)
    }
}

/// A new counter is at the end of its numbers: its first refusal is written down.
fn count((last, unrecorded): &mut (Instant, u64), now: Instant) -> Option<u64> {
    let first = *unrecorded == u64::MAX;
    let number = if first { 1 } else { unrecorded.saturating_add(1) };
    if first || now.duration_since(*last) >= WORKLOAD_RECORD {
        (*last, *unrecorded) = (now, 0);
        return Some(number);
    }
    *unrecorded = number;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_is_recorded_at_once_and_further_ones_with_their_number() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        assert_eq!(refusals.refused(7, now), Some(1));
        for _ in 0..99 {
            assert_eq!(refusals.refused(7, now), None);
        }
        assert_eq!(refusals.refused(8, now), Some(1), "another user has a count of its own");
        assert_eq!(refusals.refused(7, now + WORKLOAD_RECORD), Some(100));
        assert_eq!(refusals.refused(7, now + WORKLOAD_RECORD), None);
    }

    #[test]
    fn more_users_than_the_limit_share_a_count() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        for uid in 0..u32::try_from(WORKLOAD_RECORD_USERS).unwrap() {
            assert_eq!(refusals.refused(uid, now), Some(1));
        }
        assert_eq!(refusals.refused(70_000, now), Some(1));
        assert_eq!(refusals.refused(70_001, now), None);
        assert_eq!(refusals.users.len(), WORKLOAD_RECORD_USERS);
        assert_eq!(refusals.refused(70_002, now + WORKLOAD_RECORD), Some(1), "the others were quiet long enough");
        assert!(refusals.users.len() < WORKLOAD_RECORD_USERS);
    }
}
