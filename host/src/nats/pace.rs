//! How soon to try again: at once after a rotation, soon after an outage, ever more seldom where the server refuses us.
//!
//! Every pause is spread at random, so that the hosts of a site do not come all at once after an outage.

use std::time::Duration;

use crate::limits::{NATS_PAUSE, NATS_REFUSED_PAUSE};

/// Attempts since the connection last stood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    failures: u32,
    refusals: u32,
}

impl Pace {
    /// An attempt failed, or a connection did not last.
    pub fn failed(&mut self, refused: bool) {
        self.failures = self.failures.saturating_add(1);
        if refused {
            self.refusals = self.refusals.saturating_add(1);
        }
    }

    /// The connection stood, or there is something new to show: everything begins anew.
    pub fn begin_anew(&mut self) {
        *self = Self::default();
    }

    /// How often the server refused us in a row.
    pub fn refusals(&self) -> u32 {
        self.refusals
    }

    /// How long to wait before the next attempt, with so many servers to try in turn; `random` is 0 to 255.
    pub fn pause(&self, servers: usize, random: u8) -> Duration {
        let servers = u32::try_from(servers.max(1)).unwrap_or(1);
        let rounds = self.failures / servers;
        let full = match (self.refusals, rounds) {
            (0, 0) => return spread(FIRST, random),
            (0, rounds) => doubled(NATS_PAUSE, rounds - 1),
            (refusals, _) => doubled(NATS_REFUSED_PAUSE, refusals - 1),
        };
        full / 2 + spread(full / 2, random)
    }
}

fn doubled((first, most): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times.min(16)).unwrap_or(u32::MAX)).min(most)
}

fn spread(most: Duration, random: u8) -> Duration {
    most.saturating_mul(u32::from(random)) / 255
}

/// Most that is waited where nothing failed yet.
const FIRST: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_tried_again_soon_and_refusals_ever_more_seldom() {
        let mut outage = Pace::default();
        assert!(outage.pause(1, 255) <= FIRST);
        let mut refused = Pace::default();
        for _ in 0..40 {
            outage.failed(false);
            refused.failed(true);
        }
        assert_eq!(outage.pause(1, 255), NATS_PAUSE.1);
        assert_eq!(refused.pause(1, 255), NATS_REFUSED_PAUSE.1);
        assert_eq!(refused.pause(1, 0), NATS_REFUSED_PAUSE.1 / 2);
        refused.begin_anew();
        assert!(refused.pause(1, 255) <= FIRST);
    }

    #[test]
    fn in_twenty_seconds_a_refused_host_tries_at_most_six_times() {
        let (mut pace, mut at, mut attempts) = (Pace::default(), Duration::ZERO, 0);
        while at < Duration::from_secs(20) {
            attempts += 1;
            pace.failed(true);
            at += pace.pause(3, 0);
        }
        assert!(attempts <= 6, "{attempts}");
    }

    #[test]
    fn other_servers_are_tried_before_it_is_waited() {
        let mut pace = Pace::default();
        pace.failed(false);
        assert!(pace.pause(2, 255) <= FIRST);
        pace.failed(false);
        assert!(pace.pause(2, 255) > FIRST);
    }
}
