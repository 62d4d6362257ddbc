//! How long to wait before the next attempt: twice as long each time, within limits, and never two hosts in step.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

use crate::limits::{UPSTREAM_BACKOFF_MAX, UPSTREAM_BACKOFF_MIN};

/// The pauses between attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: UPSTREAM_BACKOFF_MIN }
    }

    /// After a success the next failure starts again with the shortest pause.
    pub(crate) fn reset(&mut self) {
        self.next = UPSTREAM_BACKOFF_MIN;
    }

    /// The pause before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        let mut random = [0; 2];
        // Without randomness the pause is the whole one.
        let part = SystemRandom::new().fill(&mut random).map_or(u16::MAX, |()| u16::from_le_bytes(random));
        self.pause_of(part)
    }

    /// Between half of the pause and all of it.
    fn pause_of(&mut self, part: u16) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(UPSTREAM_BACKOFF_MAX);
        let half = whole / 2;
        half + half * u32::from(part) / u32::from(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_again_after_a_success() {
        let mut backoff = Backoff::new();
        let pauses: Vec<Duration> = (0..12).map(|_| backoff.pause_of(u16::MAX)).collect();
        assert_eq!(pauses[0], UPSTREAM_BACKOFF_MIN);
        assert_eq!(pauses[1], UPSTREAM_BACKOFF_MIN * 2);
        assert_eq!(pauses[11], UPSTREAM_BACKOFF_MAX);
        backoff.reset();
        assert_eq!(backoff.pause_of(u16::MAX), UPSTREAM_BACKOFF_MIN);
    }

    #[test]
    fn jitter_takes_up_to_half_of_a_pause() {
        assert_eq!(Backoff::new().pause_of(0), UPSTREAM_BACKOFF_MIN / 2);
        for _ in 0..100 {
            let pause = Backoff::new().pause();
            assert!((UPSTREAM_BACKOFF_MIN / 2..=UPSTREAM_BACKOFF_MIN).contains(&pause), "{pause:?}");
        }
    }
}
