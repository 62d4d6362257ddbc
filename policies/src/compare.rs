//! What a change of policy changes: questions that come out differently under two sets, and what no question can judge.
//!
//! Asked are the questions that grants and the scopes of raw policies of either set give rise to, and those that were really
//! asked (an audit log). They are examples. That nothing more is allowed rests on what is written ([`Widening`]): whatever may
//! allow more and is not shown whole by a question that was asked is listed as it is written. What is newly allowed, and what
//! cannot be judged, is what somebody has to look at; what is newly denied breaks something.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::component::ComponentFacts;
use crate::engine::PolicySet;
use crate::matrix::{Asking, questions, questions_of};
use crate::question::{Outcome, Question};
use crate::terms::Terms;
use crate::widening::{Widening, widenings};
use crate::written;

/// What comes out differently.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Comparison {
    /// Allowed under the new set, not under the old one, or with lesser demands.
    pub newly_allowed: Vec<Change>,
    /// What may allow more and cannot be judged by questions.
    pub unjudged: Vec<Widening>,
    /// Allowed under the old set, not under the new one.
    pub newly_denied: Vec<Change>,
    /// How many questions were asked.
    pub asked: usize,
}

/// One question that comes out differently.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// Whose question.
    pub component: String,
    /// The question.
    pub question: Question,
    /// Under the old set.
    pub before: Outcome,
    /// Under the new set.
    pub after: Outcome,
    /// The policies that allow it, or the code and reason of the refusal, under the new set.
    pub why: String,
    /// How often it was really asked; 0 for one that only the policies give rise to.
    pub recorded: usize,
}

/// A question that was really asked, by whom.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Who asked.
    pub facts: ComponentFacts,
    /// What.
    pub question: Question,
}

impl Comparison {
    /// Whether it is certain that nothing more is allowed than before.
    pub fn allows_nothing_more(&self) -> bool {
        self.newly_allowed.is_empty() && self.unjudged.is_empty()
    }
}

/// Who asks something, what it is, and how often it was asked.
type Asker = (ComponentFacts, Question, usize);

/// Compares two sets. `components` are those that policies are asked about; recorded questions bring their own.
pub fn compare(old: &PolicySet, new: &PolicySet, components: &[ComponentFacts], recorded: &[Recorded]) -> Comparison {
    let mut comparison = Comparison::default();
    // Where raw policies say the same on both sides, what is granted to one component changes nothing for another.
    let is_raw_same = raw(old) == raw(new);
    let of_all: BTreeSet<Asking> = match is_raw_same {
        true => BTreeSet::new(),
        false => questions(old).into_iter().chain(questions(new)).collect(),
    };
    // By component and question: what was really asked is asked with the facts of whoever asked, once for all instances.
    let mut all: BTreeMap<(String, String), Vec<Asker>> = BTreeMap::new();
    for one in recorded {
        let askers = all.entry((one.facts.name.clone(), format!("{:?}", one.question))).or_default();
        let same =
            |facts: &ComponentFacts| ComponentFacts { instance: facts.instance.clone(), ..one.facts.clone() } == *facts;
        match askers.iter_mut().find(|(facts, ..)| same(facts)) {
            Some((.., count)) => *count += 1,
            None => askers.push((one.facts.clone(), one.question.clone(), 1)),
        }
    }
    for facts in components {
        let own = |set: &PolicySet| questions_of(set, |grant| is_raw_same && grant.component == facts.name);
        let of_own: BTreeSet<Asking> = own(old).into_iter().chain(own(new)).collect();
        for question in of_all.union(&of_own).flat_map(Asking::questions) {
            let askers = all.entry((facts.name.clone(), format!("{question:?}"))).or_default();
            if askers.is_empty() {
                askers.push((facts.clone(), question.clone(), 0));
            }
        }
    }
    let mut slices = HashMap::new();
    for (facts, question, recorded) in all.into_values().flatten() {
        let (of_old, of_new) = slices.entry(facts.clone()).or_insert_with(|| (old.slice(&facts), new.slice(&facts)));
        let (before, after) = (question.ask(of_old), question.ask(of_new));
        let (Ok(before), Ok(after)) = (before, after) else { continue };
        comparison.asked += 1;
        let change = |why: String| Change {
            component: facts.name.clone(),
            question: question.clone(),
            before: before.outcome(),
            after: after.outcome(),
            why,
            recorded,
        };
        match (before.outcome() == Outcome::Allow, after.outcome() == Outcome::Allow) {
            (false, true) => comparison.newly_allowed.push(change(after.why())),
            (true, false) => comparison.newly_denied.push(change(after.why())),
            (true, true) => {
                let (then, now) = (Terms::of(&question, of_old), Terms::of(&question, of_new));
                if let Some(wider) = now.wider_than(&then) {
                    comparison.newly_allowed.push(change(format!("{}: {wider}", after.why())));
                }
            }
            (false, false) => {}
        }
    }
    let shown = |one: &Widening| match &one.shown_by {
        Some((component, question)) => {
            let shows = |change: &Change| change.component == *component && change.question == *question;
            comparison.newly_allowed.iter().any(shows)
        }
        None => false,
    };
    comparison.unjudged = widenings(old, new).into_iter().filter(|one| !shown(one)).collect();
    comparison
}

/// What raw policies say, in any order.
fn raw(set: &PolicySet) -> BTreeSet<Option<String>> {
    set.raw().map(written::canonical).collect()
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
