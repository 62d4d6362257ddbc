//! How often one instance, and all of them together, may have something minted or signed. Decides by token buckets; the time
//! comes in as an argument. What is over the limit is refused and recorded once in a while with its number, so that neither the
//! keys nor the audit log can be worn out by a guest that asks in a loop.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::limits;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Use {
    /// An SVID, cached or new, and any decision that a refusal of one needs.
    Mint,
    /// A signature.
    Sign,
    /// A check of a token.
    Check,
}

/// How much is allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// In a second, over time.
    pub per_second: u32,
    /// At once, after a pause.
    pub burst: u32,
}

/// The buckets of all instances.
#[derive(Debug, Default)]
pub(super) struct Rates {
    all: HashMap<Use, Bucket>,
    each: HashMap<(String, Use), Watched>,
}

/// Over the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Over {
    /// When it is worth asking again.
    pub retry_after: Duration,
    /// Whether it is the host's limit, and not the instance's.
    pub host: bool,
    /// Refusals since the last record, this one included, if one is due now.
    pub record: Option<u64>,
}

/// Refusals that are not in the audit log yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unrecorded {
    pub instance: String,
    pub what: Use,
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Watched {
    bucket: Bucket,
    refused: u64,
    recorded_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// How much of the burst is used up; a new bucket is full.
    used: f64,
    at: Option<Instant>,
}

impl Use {
    /// The word for it in records and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mint => "mint",
            Self::Sign => "signature",
            Self::Check => "check",
        }
    }

    fn each(self) -> Rate {
        match self {
            Self::Mint => limits::MINTS_EACH,
            Self::Sign => limits::SIGNATURES_EACH,
            Self::Check => limits::CHECKS_EACH,
        }
        .into()
    }

    fn all(self) -> Rate {
        match self {
            Self::Mint => limits::MINTS_ALL,
            Self::Sign => limits::SIGNATURES_ALL,
            Self::Check => limits::CHECKS_ALL,
        }
        .into()
    }
}

impl From<(u32, u32)> for Rate {
    fn from((per_second, burst): (u32, u32)) -> Self {
        Self { per_second, burst }
    }
}

impl Rates {
    /// Takes one from the buckets of an instance and of the host, or from neither.
    pub(super) fn take(&mut self, instance: &str, what: Use, now: Instant) -> Result<(), Over> {
        let watched = self.each.entry((instance.to_owned(), what)).or_default();
        let own = watched.bucket.wait(what.each(), now);
        let all = self.all.entry(what).or_default();
        let shared = all.wait(what.all(), now);
        if own.is_zero() && shared.is_zero() {
            watched.bucket.used += 1.0;
            all.used += 1.0;
            return Ok(());
        }
        watched.refused = watched.refused.saturating_add(1);
        let due = watched.recorded_at.is_none_or(|at| now.saturating_duration_since(at) >= limits::RATE_RECORD);
        let record = due.then(|| {
            watched.recorded_at = Some(now);
            std::mem::take(&mut watched.refused)
        });
        Err(Over { retry_after: own.max(shared), host: own.is_zero(), record })
    }

    /// Refusals that went unrecorded for a whole pause. Forgets instances that have been silent for long.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Unrecorded> {
        let mut due = Vec::new();
        for ((instance, what), watched) in &mut self.each {
            let waited = watched.recorded_at.is_none_or(|at| now.saturating_duration_since(at) >= limits::RATE_RECORD);
            if watched.refused > 0 && waited {
                watched.recorded_at = Some(now);
                let refused = std::mem::take(&mut watched.refused);
                due.push(Unrecorded { instance: instance.clone(), what: *what, refused });
            }
        }
        self.each.retain(|(_, what), watched| watched.refused > 0 || !watched.bucket.is_full(what.each(), now));
        due
    }

    /// Takes out an instance that stopped; what it was refused and nobody recorded yet.
    pub(super) fn forget(&mut self, instance: &str) -> Vec<Unrecorded> {
        let gone = self.each.extract_if(|(name, _), _| name == instance);
        gone.filter(|(_, watched)| watched.refused > 0)
            .map(|((instance, what), watched)| Unrecorded { instance, what, refused: watched.refused })
            .collect()
    }
}

impl Bucket {
    /// How long until one can be taken; zero: now.
    fn wait(&mut self, rate: Rate, now: Instant) -> Duration {
        self.refill(rate, now);
        let missing = self.used + 1.0 - f64::from(rate.burst);
        if missing <= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(missing / f64::from(rate.per_second)) }
    }

    fn is_full(&mut self, rate: Rate, now: Instant) -> bool {
        self.refill(rate, now);
        self.used <= 0.0
    }

    fn refill(&mut self, rate: Rate, now: Instant) {
        let passed = self.at.map(|at| now.saturating_duration_since(at)).unwrap_or_default();
        self.at = Some(now);
        self.used = (self.used - passed.as_secs_f64() * f64::from(rate.per_second)).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(rates: &mut Rates, instance: &str, what: Use, now: Instant) -> u32 {
        let mut taken = 0;
        while rates.take(instance, what, now).is_ok() {
            taken += 1;
        }
        taken
    }

    #[test]
    fn an_instance_gets_its_burst_and_then_its_rate_and_no_more() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        assert_eq!(burst(&mut rates, "a", Use::Mint, start), limits::MINTS_EACH.1);
        assert_eq!(burst(&mut rates, "a", Use::Mint, start + Duration::from_secs(1)), limits::MINTS_EACH.0);
        let over = rates.take("a", Use::Mint, start + Duration::from_secs(1)).unwrap_err();
        assert!(!over.host && over.retry_after <= Duration::from_secs(1) && !over.retry_after.is_zero());
        assert!(rates.take("a", Use::Mint, start + Duration::from_secs(1) + over.retry_after).is_ok());
    }

    #[test]
    fn one_instance_does_not_use_up_what_another_has_and_one_use_not_that_of_another() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        burst(&mut rates, "a", Use::Sign, start);
        assert_eq!(burst(&mut rates, "b", Use::Sign, start), limits::SIGNATURES_EACH.1);
        assert_eq!(burst(&mut rates, "a", Use::Mint, start), limits::MINTS_EACH.1);
        assert_eq!(burst(&mut rates, "a", Use::Check, start), limits::CHECKS_EACH.1);
    }

    #[test]
    fn all_instances_together_get_the_burst_of_the_host_and_no_more() {
        for (what, all) in [
            (Use::Mint, limits::MINTS_ALL.1),
            (Use::Sign, limits::SIGNATURES_ALL.1),
            (Use::Check, limits::CHECKS_ALL.1),
        ] {
            let (mut rates, start) = (Rates::default(), Instant::now());
            let taken: u32 = (0..1_000).map(|n| burst(&mut rates, &format!("i{n}"), what, start)).sum();
            assert_eq!(taken, all);
            assert!(rates.take("new", what, start).unwrap_err().host);
        }
    }

    #[test]
    fn refusals_are_recorded_at_once_then_once_in_a_while_with_their_number() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for _ in 0..limits::SIGNATURES_EACH.1 {
            rates.take("a", Use::Sign, start).unwrap();
        }
        let over = |rates: &mut Rates, at| rates.take("a", Use::Sign, at).unwrap_err().record;
        assert_eq!(over(&mut rates, start), Some(1));
        assert_eq!(over(&mut rates, start), None);
        assert_eq!(over(&mut rates, start), None);
        assert!(rates.due(start).is_empty());
        let later = start + limits::RATE_RECORD;
        assert_eq!(rates.due(later), [Unrecorded { instance: "a".to_owned(), what: Use::Sign, refused: 2 }]);
        assert!(rates.due(later + limits::RATE_RECORD).is_empty(), "nothing is recorded twice");
    }

    #[test]
    fn a_stopped_instance_leaves_its_unrecorded_refusals_and_a_silent_one_leaves_nothing() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        burst(&mut rates, "a", Use::Mint, start);
        assert!(rates.take("a", Use::Mint, start).is_err());
        assert_eq!(rates.forget("a"), [Unrecorded { instance: "a".to_owned(), what: Use::Mint, refused: 1 }]);
        rates.take("b", Use::Mint, start).unwrap();
        assert!(rates.due(start + Duration::from_secs(3600)).is_empty());
        assert!(rates.each.is_empty());
    }
}
