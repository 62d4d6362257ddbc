//! The policies of one action that can match one resource: those whose scope names it, and all whose scope names none.
//!
//! A policy whose scope says `resource == X` is not satisfied by any other resource and its conditions are not looked at there
//! (Cedar: a policy whose scope does not match cannot fail), so leaving it out decides the same. What a decision costs then
//! does not grow with the destinations of a component. Guards name no resource: they are among the candidates of each.

use std::collections::HashMap;

use cedar_policy::{EntityUid, PolicySet, ResourceConstraint};

use crate::decide::Rule;

/// Candidates by resource.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    general: PolicySet,
    exact: HashMap<EntityUid, PolicySet>,
}

impl Candidates {
    /// The candidates among the rules of one action: by resource, or all for each, which must decide the same.
    pub(super) fn new(rules: &[&Rule], by_resource: bool) -> Result<Self, String> {
        let mut candidates = Self::default();
        let mut named: HashMap<EntityUid, Vec<&Rule>> = HashMap::new();
        for rule in rules {
            match rule.policy.resource_constraint() {
                ResourceConstraint::Eq(resource) if by_resource => named.entry(resource).or_default().push(rule),
                _ => add(&mut candidates.general, rule)?,
            }
        }
        for (resource, rules) in named {
            let mut set = candidates.general.clone();
            for rule in rules {
                add(&mut set, rule)?;
            }
            candidates.exact.insert(resource, set);
        }
        Ok(candidates)
    }

    /// The policies to ask about this resource.
    pub(super) fn of(&self, resource: &EntityUid) -> &PolicySet {
        self.exact.get(resource).unwrap_or(&self.general)
    }
}

fn add(set: &mut PolicySet, rule: &Rule) -> Result<(), String> {
    // A scope may admit an action twice, by name and by group.
    if set.policy(rule.policy.id()).is_none() {
        set.add(rule.policy.clone()).map_err(|error| error.to_string())?;
    }
    Ok(())
}
