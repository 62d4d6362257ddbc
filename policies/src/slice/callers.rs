//! Decisions on callers, remembered: those that grants name have a place each, others a bounded table.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::component::Caller;
use crate::denial::{Denial, DenialKind};
use crate::grant::By;
use crate::limits::REMEMBERED_CALLERS;
use crate::remembered::Remembered;

/// The policies that allow a call, or the refusal.
pub(super) type Decision = Result<By, Denial>;

/// What was decided on callers. A decision holds as long as the slice: nothing that it depends on changes.
pub(super) struct Callers {
    anonymous: OnceLock<Box<Decision>>,
    named: HashMap<String, OnceLock<Box<Decision>>>,
    others: Remembered<String, Decision>,
}

impl Callers {
    /// Nothing decided yet; those that grants name.
    pub(super) fn new(named: Vec<String>) -> Self {
        let named = named.into_iter().map(|name| (name, OnceLock::new())).collect();
        Self { anonymous: OnceLock::new(), named, others: Remembered::new(REMEMBERED_CALLERS) }
    }

    /// What was decided on a caller, deciding now if it was not.
    pub(super) fn get(&self, caller: &Caller, decide: impl FnOnce() -> Decision) -> Decision {
        // Kept apart by kind: a workload that calls itself "anonymous" is not the caller without identity.
        let name = match caller {
            Caller::Anonymous => return once(&self.anonymous, decide),
            Caller::Workload(name) => name.as_str(),
        };
        if let Some(own) = self.named.get(name) {
            return once(own, decide);
        }
        if let Some(known) = self.others.get(name, |own| own == name) {
            return known.clone();
        }
        let decision = decide();
        if is_final(&decision) {
            self.others.put(name, name.to_owned(), decision.clone());
        }
        decision
    }
}

fn once(place: &OnceLock<Box<Decision>>, decide: impl FnOnce() -> Decision) -> Decision {
    if let Some(known) = place.get() {
        return known.as_ref().clone();
    }
    let decision = decide();
    if is_final(&decision) {
        let _ = place.set(Box::new(decision.clone()));
    }
    decision
}

/// What could not be decided may be decided next time.
fn is_final(decision: &Decision) -> bool {
    decision.as_ref().err().is_none_or(|denial| denial.kind() != DenialKind::CannotDecide)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_callers_than_are_remembered_are_still_decided_right() {
        let callers = Callers::new(vec!["named".to_owned()]);
        for round in 0..2 {
            let mut asked = 0;
            for n in 0..REMEMBERED_CALLERS * 4 {
                let id = n.to_string();
                let decision = callers.get(&Caller::Workload(id.clone()), || {
                    asked += 1;
                    Ok(By::test(&id))
                });
                assert_eq!(decision.unwrap().ids().collect::<Vec<_>>(), [id.as_str()]);
            }
            let remembered = REMEMBERED_CALLERS * 4 - asked;
            assert!(
                remembered <= REMEMBERED_CALLERS && (round == 0 || remembered > REMEMBERED_CALLERS / 2),
                "{remembered}"
            );
        }
        // However many others there were, there is a place for who is named and for who has no name.
        for caller in [Caller::Workload("named".to_owned()), Caller::Anonymous] {
            callers.get(&caller, || Ok(By::test("first"))).unwrap();
            let again = callers.get(&caller, || Ok(By::test("second"))).unwrap();
            assert_eq!(again.ids().collect::<Vec<_>>(), ["first"]);
        }
    }
}
