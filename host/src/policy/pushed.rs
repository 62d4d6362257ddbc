//! A policy as a process was given it: the compiled set, and who is in audit mode, which this process ends by itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_policies::{ComponentFacts, PolicySet, Slice};
use tokio::task::AbortHandle;

use super::audited::{Audited, left};
use crate::clock;

/// One generation of policy in a process that decides by it.
#[derive(Debug, Clone)]
pub struct Pushed {
    set: PolicySet,
    audited: Audited,
}

/// The timer that ends audit mode; a new one takes the place of the one before.
#[derive(Debug, Default)]
pub struct Ending(Mutex<Option<AbortHandle>>);

impl Pushed {
    /// Nothing was pushed yet: everything is denied.
    pub fn nothing() -> Self {
        Self { set: PolicySet::deny_all(0), audited: Audited::default() }
    }

    /// Compiles sources given as (name, kind, text). Any problem refuses the whole set.
    pub fn compile(
        sources: impl Iterator<Item = (String, String, String)>,
        audited: impl Iterator<Item = (String, i64)>,
        generation: u64,
    ) -> Result<Self, String> {
        Ok(Self { set: super::compile(sources, generation)?, audited: Audited::pushed(audited, clock::now()) })
    }

    /// The generation.
    pub fn generation(&self) -> u64 {
        self.set.generation()
    }

    /// The slice of a component now.
    pub fn slice(&self, facts: &ComponentFacts) -> Arc<Slice> {
        #[cfg(feature = "bench-ungated")]
        if crate::ungated::is_open() {
            return self.set.ungated_slice(facts);
        }
        self.audited.slice(&self.set, facts, clock::now())
    }

    /// The same policy without the audit mode of a component.
    pub fn without(&self, component: &str) -> Self {
        let mut strict = self.clone();
        strict.audited.end(component);
        strict
    }
}

/// The end of an audit mode, by both clocks: a wall clock may be set back, and the other stands still while a machine sleeps.
#[derive(Debug, Clone, Copy)]
pub struct End {
    until: i64,
    at: tokio::time::Instant,
}

impl End {
    /// The end at `until`, as seen now.
    pub fn of(until: i64, now: time::OffsetDateTime) -> Self {
        Self { until, at: tokio::time::Instant::now() + left(until, now) }
    }
}

/// Waits for an end, by whichever clock comes first.
pub async fn over(end: End) {
    loop {
        let by_run = end.at.saturating_duration_since(tokio::time::Instant::now());
        match next_look(by_run, left(end.until, clock::now())) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return,
        }
    }
}

/// When to look again, `None` if it is over.
fn next_look(by_run: Duration, by_wall: Duration) -> Option<Duration> {
    let left = by_run.min(by_wall);
    (!left.is_zero()).then(|| left.min(LOOK))
}

/// How long a machine that slept may go on in an audit mode that was over meanwhile.
const LOOK: Duration = Duration::from_secs(1);

impl Ending {
    /// Calls `end` with each component of `policy` when its audit mode is over, by this process's own clock.
    pub fn follow(&self, policy: &Pushed, end: impl Fn(&str) + Send + 'static) {
        let now = clock::now();
        let mut ends: Vec<_> = policy.audited.iter().map(|(name, until)| (until, name.to_owned())).collect();
        ends.sort();
        let ends: Vec<_> = ends.into_iter().map(|(until, name)| (End::of(until, now), name)).collect();
        let timer = (!ends.is_empty()).then(|| {
            let timer = tokio::spawn(async move {
                for (until, component) in ends {
                    over(until).await;
                    end(&component);
                }
            });
            timer.abort_handle()
        });
        if let Ok(mut slot) = self.0.lock()
            && let Some(old) = std::mem::replace(&mut *slot, timer)
        {
            old.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_clock_to_say_so_ends_it() {
        const NONE: Duration = Duration::ZERO;
        const HOUR: Duration = Duration::from_secs(3_600);
        const BRIEF: Duration = Duration::from_millis(5);
        assert_eq!(next_look(NONE, HOUR), None, "a wall clock that was set back does not prolong it");
        assert_eq!(next_look(HOUR, NONE), None, "nor does a machine that slept");
        assert_eq!(next_look(HOUR, HOUR), Some(LOOK));
        assert_eq!((next_look(BRIEF, HOUR), next_look(HOUR, BRIEF)), (Some(BRIEF), Some(BRIEF)));
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_by_the_time_that_ran_though_the_wall_clock_stands() {
        let end = End::of((clock::now() + Duration::from_secs(3_600)).unix_timestamp(), clock::now());
        let began = tokio::time::Instant::now();
        over(end).await;
        let ran = began.elapsed();
        assert!(ran > Duration::from_secs(3_590) && ran <= Duration::from_secs(3_601), "{ran:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_by_the_wall_clock_though_no_time_ran() {
        let mut end = End::of((clock::now() + Duration::from_secs(3_600)).unix_timestamp(), clock::now());
        end.until = clock::now().unix_timestamp() - 1;
        let began = tokio::time::Instant::now();
        over(end).await;
        assert!(began.elapsed() < LOOK);
    }
}
