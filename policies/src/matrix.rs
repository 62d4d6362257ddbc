//! The matrix: what each component may do, as a table of questions, and everything that is written beside grants.
//!
//! The questions are those that grants and the scopes of raw policies give rise to, put to every component: what one was granted
//! is asked for all the others, so that a grant that reaches too far shows as a row. Decides nothing: each cell is a decision of
//! the component's own slice, or says which fact it rests on that is not known.
//! Questions about raw policies are examples of what they match. So each raw policy is a row of its own, as it is written, and so
//! is each operator's entry: nothing can be permitted without a row.

use serde::Serialize;

use crate::engine::PolicySet;
use crate::known::{Asker, Fact, Known, Sure, not_known};
use crate::question::{Outcome, Question};
use crate::written;

mod asking;
mod render;

pub(crate) use self::asking::questions_of;
pub use self::asking::{Asking, questions};

/// Rows of questions, columns of components.
#[derive(Debug, Clone, Serialize)]
pub struct Matrix {
    /// The generation of policy.
    pub generation: u64,
    /// Names of the components.
    pub components: Vec<String>,
    /// One row for each question.
    pub rows: Vec<Row>,
    /// One row for each raw policy and each operator's entry.
    pub written: Vec<Written>,
}

/// One question, put to every component.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The question; of a range of addresses, the one about its first.
    pub question: Question,
    /// What it is asked about, as people read it.
    pub resource: String,
    /// The answers, in the order of the components.
    pub cells: Vec<Cell>,
}

/// One answer.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Allow, or the kind of refusal; `cannot-decide` where it rests on what is not known.
    pub outcome: Outcome,
    /// The policies that allow it, or the code and reason of the refusal.
    pub why: String,
    /// What goes with an allow: the peer that must answer, how long a token may live.
    pub terms: Option<String>,
    /// The facts that it rests on and that are not known.
    pub not_known: Vec<Fact>,
}

/// Something in force that is written beside grants.
#[derive(Debug, Clone, Serialize)]
pub struct Written {
    /// `permit`, `forbid` or `operator`.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// The name of its file, without folders and lines: what is committed is the same on every machine.
    pub file: String,
    /// The one component that it names; none: it may be about any.
    pub component: Option<String>,
    /// As it is written, in one line.
    pub text: String,
}

impl Matrix {
    /// Asks everything of everybody.
    pub fn new(set: &PolicySet, components: &[Known]) -> Self {
        let askers: Vec<_> = components.iter().map(|known| Asker::new(set, known)).collect();
        let rows = questions(set).into_iter().filter_map(|asking| {
            let cells: Option<Vec<Cell>> = askers.iter().map(|asker| Cell::of(set, asker, &asking)).collect();
            cells.map(|cells| Row { question: asking.question().clone(), resource: asking.resource(), cells })
        });
        Self {
            generation: set.generation(),
            components: components.iter().map(|known| known.facts().name.clone()).collect(),
            rows: rows.collect(),
            written: written(set),
        }
    }

    /// What is written about a component by its name.
    fn written_about(&self, component: &str) -> impl Iterator<Item = &Written> {
        self.written.iter().filter(move |one| one.component.as_deref() == Some(component))
    }

    /// What is written about no component that the table has.
    fn written_elsewhere(&self) -> impl Iterator<Item = &Written> {
        let has = |name: &String| self.components.contains(name);
        self.written.iter().filter(move |one| !one.component.as_ref().is_some_and(has))
    }
}

impl Cell {
    /// None where there is nothing to ask about.
    fn of(set: &PolicySet, asker: &Asker<'_>, asking: &Asking) -> Option<Self> {
        let cells: Option<Vec<Self>> = asking.questions().map(|question| Self::of_one(asker, question)).collect();
        let mut cells = cells?;
        // Of a range that a grant of the component itself opens, one end may be a guard's. Any other range is allowed as a
        // whole or not at all.
        let is_own = asking.is_own(set, asker.name());
        let at = cells.iter().position(|cell| (cell.outcome == Outcome::Allow) == is_own).unwrap_or(0);
        (at < cells.len()).then(|| cells.swap_remove(at))
    }

    fn of_one(asker: &Asker<'_>, question: &Question) -> Option<Self> {
        Some(match asker.ask(question).ok()? {
            Sure::Answered(answer) => Self {
                outcome: answer.outcome(),
                why: answer.why(),
                terms: (answer.outcome() == Outcome::Allow).then(|| asker.terms(question)).flatten(),
                not_known: Vec::new(),
            },
            Sure::NotKnown(facts) => {
                Self { outcome: Outcome::CannotDecide, why: not_known(&facts), terms: None, not_known: facts }
            }
        })
    }

    /// The reason, with what goes with an allow.
    fn reason(&self) -> String {
        match &self.terms {
            Some(terms) => format!("{}; {terms}", self.why),
            None => self.why.clone(),
        }
    }

    /// Whether it is allowed, or may be for all that is known.
    fn may_be_allowed(&self) -> bool {
        self.outcome == Outcome::Allow || !self.not_known.is_empty()
    }
}

fn written(set: &PolicySet) -> Vec<Written> {
    let raw = set.raw().map(|rule| Written {
        kind: written::effect(rule),
        id: rule.meta.id.clone(),
        file: file(&rule.meta.source),
        component: rule.component.clone(),
        text: match &rule.meta.peer {
            Some(peer) => format!("@peer(\"{peer}\") {}", written::line(&rule.policy)),
            None => written::line(&rule.policy),
        },
    });
    let operators = set.operators().iter().map(|entry| {
        let actions: Vec<&str> = entry.actions.iter().map(|action| action.name()).collect();
        Written {
            kind: "operator",
            id: entry.id.clone(),
            file: file(&entry.source),
            component: None,
            text: format!(
                "{} may {} {} on {}",
                entry.who,
                actions.join(", "),
                entry.components.join(", "),
                entry.hosts.join(", ")
            ),
        }
    });
    raw.chain(operators).collect()
}

fn file(source: &str) -> String {
    source.rsplit('/').next().unwrap_or(source).to_owned()
}

#[cfg(test)]
mod tests;
