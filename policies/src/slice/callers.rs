//! Decisions on callers, remembered: those that grants name from the start, others in a bounded table without a lock.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use super::Slice;
use crate::component::Caller;
use crate::denial::Denial;
use crate::grant::By;
use crate::limits::REMEMBERED_CALLERS;

/// The policies that allow a call, or the refusal.
pub(super) type Decision = Result<By, Denial>;

/// What was decided on callers. A decision holds as long as the slice: nothing that it depends on changes.
pub(super) struct Callers {
    anonymous: Option<Decision>,
    named: HashMap<String, Decision>,
    others: Box<[OnceLock<(String, Decision)>]>,
    hasher: RandomState,
}

impl Callers {
    /// What was decided on a caller, deciding now if it was not.
    pub(super) fn get(&self, caller: &Caller, decide: impl FnOnce() -> Decision) -> Decision {
        // Kept apart by kind: a workload that calls itself "anonymous" is not the caller without identity.
        let name = match caller {
            Caller::Anonymous => return self.anonymous.clone().unwrap_or_else(decide),
            Caller::Workload(name) => name.as_str(),
        };
        if let Some(decision) = self.named.get(name) {
            return decision.clone();
        }
        let start = usize::try_from(self.hasher.hash_one(name) % REMEMBERED_CALLERS as u64).unwrap_or(0);
        let slots = self.others.iter().cycle().skip(start).take(PROBES);
        for slot in slots {
            match slot.get() {
                Some((own, decision)) if own == name => return decision.clone(),
                Some(_) => {}
                None => {
                    let decision = decide();
                    // Somebody else may have filled it meanwhile: then this one is decided anew next time.
                    let _ = slot.set((name.to_owned(), decision.clone()));
                    return decision;
                }
            }
        }
        decide()
    }
}

impl Default for Callers {
    fn default() -> Self {
        let others = (0..REMEMBERED_CALLERS).map(|_| OnceLock::new()).collect();
        Self { anonymous: None, named: HashMap::new(), others, hasher: RandomState::new() }
    }
}

/// Decides on all callers that grants name, and on the one without a name.
pub(super) fn fill(slice: &mut Slice) {
    let Ok(ready) = &slice.state else { return };
    let names = ready.named_workloads(&slice.facts);
    let decided = names.into_iter().map(|name| (name.clone(), slice.decide_call(&Caller::Workload(name))));
    let named: HashMap<String, Decision> = decided.collect();
    let anonymous = Some(slice.decide_call(&Caller::Anonymous));
    if let Ok(ready) = &mut slice.state {
        (ready.callers.named, ready.callers.anonymous) = (named, anonymous);
    }
}

const PROBES: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cedar_policy::PolicyId;

    use super::*;

    #[test]
    fn more_callers_than_are_remembered_are_still_decided_right() {
        let callers = Callers::default();
        for round in 0..2 {
            let mut asked = 0;
            for n in 0..REMEMBERED_CALLERS * 4 {
                let ids: Arc<[PolicyId]> = Arc::from([PolicyId::new(n.to_string())]);
                let decision = callers.get(&Caller::Workload(n.to_string()), || {
                    asked += 1;
                    Ok(By::policies(Arc::clone(&ids)))
                });
                assert_eq!(decision.unwrap().policies, ids);
            }
            let remembered = REMEMBERED_CALLERS * 4 - asked;
            assert!(
                remembered <= REMEMBERED_CALLERS && (round == 0 || remembered > REMEMBERED_CALLERS / 2),
                "{remembered}"
            );
        }
    }
}
