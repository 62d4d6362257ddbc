//! What a change of policy changes: questions that come out differently under two sets.
//!
//! Asked are the questions that the grants of either set give rise to, and those that were really asked (an audit log). What
//! is newly allowed is what somebody has to look at; what is newly denied breaks something.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::component::ComponentFacts;
use crate::engine::PolicySet;
use crate::matrix::questions;
use crate::question::{Outcome, Question};

/// The questions that come out differently.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Comparison {
    /// Allowed under the new set, not under the old one.
    pub newly_allowed: Vec<Change>,
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
    /// How often it was really asked; 0 for one that only the grants give rise to.
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

/// Compares two sets. `components` are those that grants are asked about; recorded questions bring their own.
pub fn compare(old: &PolicySet, new: &PolicySet, components: &[ComponentFacts], recorded: &[Recorded]) -> Comparison {
    let mut comparison = Comparison::default();
    let of_grants: BTreeSet<_> = questions(old).into_iter().chain(questions(new)).collect();
    let mut all: BTreeMap<(String, String), (ComponentFacts, Question, usize)> = BTreeMap::new();
    for facts in components {
        for asking in &of_grants {
            let key = (facts.name.clone(), format!("{:?}", asking.question()));
            all.entry(key).or_insert_with(|| (facts.clone(), asking.question().clone(), 0));
        }
    }
    for one in recorded {
        let key = (one.facts.name.clone(), format!("{:?}", one.question));
        all.entry(key).or_insert_with(|| (one.facts.clone(), one.question.clone(), 0)).2 += 1;
    }
    let mut slices = HashMap::new();
    for (facts, question, recorded) in all.into_values() {
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
            (true, true) | (false, false) => {}
        }
    }
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{facts, set};

    #[test]
    fn a_change_shows_what_is_newly_allowed_and_what_is_newly_denied() {
        let old = set(&[("a", "http = [\"https://old.example\"]\ncallers = [\"anonymous\"]")], "");
        let new = set(&[("a", "http = [\"https://new.example\"]\ncallers = [\"anonymous\"]")], "");
        let asked = Question::HttpSend { destination: "https://new.example".to_owned(), method: "GET".to_owned() };
        let recorded =
            [Recorded { facts: facts("a"), question: asked.clone() }, Recorded { facts: facts("b"), question: asked }];
        let found = compare(&old, &new, &[facts("a"), facts("b")], &recorded);
        let [allowed] = found.newly_allowed.as_slice() else { panic!("{found:#?}") };
        assert_eq!((allowed.component.as_str(), allowed.recorded, allowed.why.as_str()), ("demo:a", 1, "a-0"));
        let [denied] = found.newly_denied.as_slice() else { panic!("{found:#?}") };
        assert_eq!((denied.question.resource().as_str(), denied.recorded), ("https://old.example", 0));
        assert!(found.asked >= 10, "{}", found.asked);
    }

    #[test]
    fn a_set_differs_in_nothing_from_itself() {
        let one = set(&[("a", "load = true\naudiences = [\"x\"]")], "");
        let found = compare(&one, &one, &[facts("a")], &[]);
        assert!(found.newly_allowed.is_empty() && found.newly_denied.is_empty() && found.asked > 0);
    }
}
