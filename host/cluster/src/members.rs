//! Who is alive: the newest heartbeat of each host, and when it was heard.
//!
//! A heartbeat counts once: its start and its number must be higher than the last ones of its host, and it must have been signed
//! just now. So one that was kept and sent again makes no dead host look alive.

use std::collections::BTreeMap;
use std::time::Duration;

use time::OffsetDateTime;

use crate::heartbeat::Heartbeat;
use crate::limits::{DEAD_AFTER, MEMBERS, SKEW};
use crate::token::HostId;

/// A host, as it was heard last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it said.
    pub heartbeat: Heartbeat,
    /// When it was heard.
    pub heard_at: OffsetDateTime,
    /// Whether it said that it leaves.
    left: bool,
}

/// The hosts of a cluster, as one of them sees it.
#[derive(Debug, Clone, Default)]
pub struct Members {
    by_host: BTreeMap<HostId, Member>,
}

/// Why a heartbeat does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotHeard {
    /// It was heard already, or a later one was.
    #[error("it, or a later one, was heard already")]
    Replayed,
    /// It was signed too long ago.
    #[error("it was signed too long ago")]
    Stale,
    /// It was signed in the future.
    #[error("it was signed in the future: the clocks are apart")]
    Future,
    /// Too many hosts.
    #[error("there are too many hosts")]
    Full,
}

impl Member {
    fn silent_after(&self) -> Duration {
        Duration::from_millis(self.heartbeat.interval_ms).saturating_mul(DEAD_AFTER)
    }

    /// Whether it is alive.
    pub fn is_alive(&self, now: OffsetDateTime) -> bool {
        !self.left && now < self.heard_at + self.silent_after()
    }
}

impl Members {
    /// Takes a heartbeat whose signature was checked, and which its host signed at `signed_at`. Says whether its host is new, or
    /// was gone.
    pub fn heard(
        &mut self,
        heartbeat: Heartbeat,
        signed_at: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<bool, NotHeard> {
        if signed_at > now + SKEW {
            return Err(NotHeard::Future);
        }
        let interval = Duration::from_millis(heartbeat.interval_ms).saturating_mul(DEAD_AFTER);
        if now > signed_at + interval + SKEW {
            return Err(NotHeard::Stale);
        }
        let known = self.by_host.get(&heartbeat.host);
        let order = |heartbeat: &Heartbeat| (heartbeat.boot.clone(), heartbeat.sequence);
        if known.is_some_and(|known| order(&known.heartbeat) >= order(&heartbeat)) {
            return Err(NotHeard::Replayed);
        }
        if known.is_none() && self.by_host.len() >= MEMBERS {
            let dead = self
                .by_host
                .iter()
                .filter(|(_, member)| !member.is_alive(now))
                .min_by_key(|(_, member)| member.heard_at);
            let dead = dead.map(|(host, _)| host.clone()).ok_or(NotHeard::Full)?;
            self.by_host.remove(&dead);
        }
        let back = !self.by_host.get(&heartbeat.host).is_some_and(|member| member.is_alive(now));
        self.by_host.insert(heartbeat.host.clone(), Member { heartbeat, heard_at: now, left: false });
        Ok(back)
    }

    /// A host said that it leaves; only the start of it that is known is meant.
    pub fn left(&mut self, host: &HostId, boot: &str) {
        if let Some(member) = self.by_host.get_mut(host).filter(|member| member.heartbeat.boot == boot) {
            member.left = true;
        }
    }

    /// Those that are alive.
    pub fn alive(&self, now: OffsetDateTime) -> impl Iterator<Item = &Member> {
        self.by_host.values().filter(move |member| member.is_alive(now))
    }

    /// All that are known.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.by_host.values()
    }

    /// Forgets who said what, but not the order: nothing that was heard counts again. What is true after a partition must be
    /// heard anew.
    pub fn doubt(&mut self) {
        for member in self.by_host.values_mut() {
            member.left = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::tests::heartbeat;

    fn at(seconds: f64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::seconds_f64(1_000_000.0 + seconds)
    }

    fn beat(host: &str, boot: &str, sequence: u64) -> Heartbeat {
        Heartbeat { boot: boot.to_owned(), sequence, ..heartbeat(host) }
    }

    #[test]
    fn a_host_is_alive_for_three_intervals() {
        let mut members = Members::default();
        assert_eq!(members.heard(beat("h1", "a", 1), at(0.0), at(0.1)), Ok(true));
        assert_eq!(members.alive(at(3.0)).count(), 1);
        assert_eq!(members.alive(at(3.2)).count(), 0);
        assert_eq!(members.heard(beat("h1", "a", 2), at(4.0), at(4.0)), Ok(true), "it is back");
        assert_eq!(members.heard(beat("h1", "a", 3), at(5.0), at(5.0)), Ok(false));
    }

    #[test]
    fn a_heartbeat_that_was_kept_makes_nobody_alive() {
        let mut members = Members::default();
        members.heard(beat("h1", "a", 7), at(0.0), at(0.0)).unwrap();
        assert_eq!(members.heard(beat("h1", "a", 7), at(0.0), at(2.0)), Err(NotHeard::Replayed));
        assert_eq!(members.heard(beat("h1", "a", 6), at(0.0), at(2.0)), Err(NotHeard::Replayed));
        members.heard(beat("h1", "b", 1), at(3.0), at(3.0)).unwrap();
        assert_eq!(members.heard(beat("h1", "a", 8), at(3.0), at(3.0)), Err(NotHeard::Replayed), "of an earlier start");
        assert_eq!(members.heard(beat("h2", "a", 1), at(0.0), at(8.1)), Err(NotHeard::Stale), "unknown, and old");
        assert_eq!(members.heard(beat("h2", "a", 1), at(20.0), at(14.9)), Err(NotHeard::Future));
    }

    #[test]
    fn who_leaves_is_gone_at_once_and_a_partition_leaves_nobody_believed() {
        let mut members = Members::default();
        members.heard(beat("h1", "a", 1), at(0.0), at(0.0)).unwrap();
        members.left(&"h1".parse().unwrap(), "an earlier start");
        assert_eq!(members.alive(at(0.0)).count(), 1);
        members.left(&"h1".parse().unwrap(), "a");
        assert_eq!(members.alive(at(0.0)).count(), 0);
        members.heard(beat("h1", "a", 2), at(1.0), at(1.0)).unwrap();
        members.doubt();
        assert_eq!(members.alive(at(1.0)).count(), 0);
        assert_eq!(members.heard(beat("h1", "a", 2), at(1.0), at(1.0)), Err(NotHeard::Replayed));
        assert_eq!(members.heard(beat("h1", "a", 3), at(1.5), at(1.5)), Ok(true));
    }

    #[test]
    fn hosts_have_an_end_and_the_dead_make_room() {
        let mut members = Members::default();
        for n in 0..MEMBERS {
            members.heard(beat(&format!("h{n}"), "a", 1), at(0.0), at(0.0)).unwrap();
        }
        assert_eq!(members.heard(beat("new", "a", 1), at(0.0), at(0.0)), Err(NotHeard::Full));
        assert_eq!(members.heard(beat("new", "a", 1), at(5.0), at(5.0)), Ok(true));
        assert_eq!(members.all().count(), MEMBERS);
    }
}
