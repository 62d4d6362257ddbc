//! The policies that one question has to be put to: found by action and resource, built when they are first asked for, and
//! shared by all slices.
//!
//! A policy whose scope says `resource == X` is not satisfied by any other resource and its conditions are not looked at there
//! (Cedar: a policy whose scope does not match cannot fail), so leaving it out decides the same. What a decision costs then
//! does not grow with the destinations of a component. Guards name no resource: they are among the policies for each.

use std::collections::HashMap;
use std::sync::OnceLock;

use cedar_policy::{EntityUid, PolicySet, ResourceConstraint};

use crate::decide::{Action, Rule};
use crate::permits::{Permit, Permits};

/// Policies that concern the same principals: everybody, or one component.
#[derive(Debug, Default)]
pub(crate) struct Part {
    general: HashMap<Action, Few>,
    exact: HashMap<EntityUid, Vec<(Action, Few)>>,
    policies: usize,
}

/// Policies of one action that can match the same resources.
#[derive(Debug, Default)]
struct Few {
    rules: Vec<usize>,
    permits: Vec<usize>,
    built: OnceLock<Box<Result<PolicySet, String>>>,
}

impl Part {
    /// How many there are.
    pub(crate) fn policies(&self) -> usize {
        self.policies
    }

    /// Adds a policy that was written out.
    pub(crate) fn add_rule(&mut self, number: usize, rule: &Rule) {
        self.policies += 1;
        for action in &rule.actions {
            let few = match rule.policy.resource_constraint() {
                ResourceConstraint::Eq(resource) => self.exact(&resource, *action),
                ResourceConstraint::Any
                | ResourceConstraint::In(_)
                | ResourceConstraint::Is(_)
                | ResourceConstraint::IsIn(..) => self.general.entry(*action).or_default(),
            };
            // A scope may admit an action twice, by name and by group.
            if !few.rules.contains(&number) {
                few.rules.push(number);
            }
        }
    }

    /// Adds a permit of grants.
    pub(crate) fn add_permit(&mut self, number: usize, permit: &Permit) {
        self.policies += 1;
        let few = match permit.only_resource() {
            Some(resource) => self.exact(resource, permit.action),
            None => self.general.entry(permit.action).or_default(),
        };
        few.permits.push(number);
    }

    /// The sets to ask about an action on a resource.
    pub(crate) fn of<'a>(
        &'a self,
        (rules, permits): (&'a [Rule], &'a Permits),
        action: Action,
        resource: &EntityUid,
    ) -> impl Iterator<Item = &'a Result<PolicySet, String>> {
        let exact = self.exact.get(resource).into_iter().flatten().find(|(own, _)| *own == action).map(|(_, few)| few);
        self.general.get(&action).into_iter().chain(exact).map(move |few| few.get(rules, permits))
    }

    fn exact(&mut self, resource: &EntityUid, action: Action) -> &mut Few {
        let of_resource = self.exact.entry(resource.clone()).or_default();
        let at = of_resource.iter().position(|(own, _)| *own == action).unwrap_or(of_resource.len());
        if at == of_resource.len() {
            of_resource.push((action, Few::default()));
        }
        // INVARIANT: `at` is there now; the other arm is for the eyes of the compiler.
        match of_resource.get_mut(at) {
            Some((_, few)) => few,
            None => self.general.entry(action).or_default(),
        }
    }
}

impl Few {
    fn get(&self, rules: &[Rule], permits: &Permits) -> &Result<PolicySet, String> {
        self.built.get_or_init(|| Box::new(self.build(rules, permits)))
    }

    fn build(&self, rules: &[Rule], permits: &Permits) -> Result<PolicySet, String> {
        let mut set = PolicySet::new();
        for number in &self.rules {
            let rule = rules.get(*number).ok_or("a policy is missing")?;
            set.add(rule.policy.clone()).map_err(|error| error.to_string())?;
        }
        for number in &self.permits {
            permits.link(&mut set, *number)?;
        }
        Ok(set)
    }
}
