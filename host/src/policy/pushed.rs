//! A policy as a process was given it: the compiled set, and who is in audit mode, which this process ends by itself.

use std::sync::{Arc, Mutex};

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

impl Ending {
    /// Calls `end` with each component of `policy` when its audit mode is over, by this process's own clock.
    pub fn follow(&self, policy: &Pushed, end: impl Fn(&str) + Send + 'static) {
        let now = clock::now();
        let mut ends: Vec<_> = policy.audited.iter().map(|(name, until)| (left(until, now), name.to_owned())).collect();
        ends.sort();
        let began = tokio::time::Instant::now();
        let timer = (!ends.is_empty()).then(|| {
            let timer = tokio::spawn(async move {
                for (after, component) in ends {
                    tokio::time::sleep_until(began + after).await;
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
