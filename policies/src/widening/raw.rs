//! Raw policies that are new, changed or gone.

use std::collections::HashSet;

use cedar_policy::Effect;

use super::Widening;
use crate::decide::{Action, Rule};
use crate::engine::PolicySet;
use crate::written;

pub(super) fn widenings(old: &PolicySet, new: &PolicySet) -> Vec<Widening> {
    let (before, after) = (Written::of(old), Written::of(new));
    let permits = new.raw().filter(|rule| rule.policy.effect() == Effect::Permit && !before.has(rule));
    let permits = permits.map(|rule| {
        let what = if before.ids.contains(rule.meta.id.as_str()) { "is changed" } else { "is new" };
        widening(rule, what.to_owned())
    });
    let gone = old.raw().filter(|rule| !after.has(rule)).filter_map(|rule| {
        let is_there = after.ids.contains(rule.meta.id.as_str());
        let gone = if is_there { "is changed" } else { "is gone" };
        match rule.policy.effect() {
            Effect::Forbid => Some(widening(rule, gone.to_owned())),
            Effect::Permit if written::can_fail(&rule.policy) => {
                Some(widening(rule, format!("{gone}: it could fail, and where a policy fails nothing is allowed")))
            }
            Effect::Permit if rule.meta.peer.is_some() && sends_elsewhere(rule, new) => {
                Some(widening(rule, format!("{gone}: its @peer is no longer demanded where others permit the same")))
            }
            Effect::Permit => None,
        }
    });
    permits.chain(gone).collect()
}

/// What raw policies of a set say, and their ids.
struct Written<'a> {
    policies: HashSet<String>,
    ids: HashSet<&'a str>,
}

impl<'a> Written<'a> {
    fn of(set: &'a PolicySet) -> Self {
        Self {
            policies: set.raw().filter_map(written::canonical).collect(),
            ids: set.raw().map(|rule| rule.meta.id.as_str()).collect(),
        }
    }

    fn has(&self, rule: &Rule) -> bool {
        written::canonical(rule).is_some_and(|text| self.policies.contains(&text))
    }
}

/// Whether anything in a set could permit what a policy sends.
fn sends_elsewhere(rule: &Rule, set: &PolicySet) -> bool {
    let may_be = |component: Option<&str>| match (&rule.component, component) {
        (Some(own), Some(other)) => own == other,
        (None, _) | (_, None) => true,
    };
    let sends = |other: &Rule| {
        other.policy.effect() == Effect::Permit
            && other.actions.contains(&Action::HttpSend)
            && may_be(other.component.as_deref())
    };
    set.raw().any(sends) || set.grants().iter().any(|grant| !grant.http.is_empty() && may_be(Some(&grant.component)))
}

fn widening(rule: &Rule, what: String) -> Widening {
    Widening::new(written::effect(rule), &rule.meta.id, (&rule.meta.source, rule.meta.line), what)
}
