//! What of a change may allow more, by what is written: the part of a comparison that rests on no example.
//!
//! Decides: every raw permit that is new or changed, every raw forbid that is changed or gone, and everything that a grant or an
//! operator's entry gives which no entry gave before, may allow more. Nothing else can: a decision to allow needs a permit, and
//! the host's own guards are the same on both sides. So an empty list proves that nothing more is allowed; a list that is not
//! empty proves nothing, and somebody has to look.
//! Counted, too, are demands that fall away (a peer, a life of tokens) and policies that were in the way by failing.

use serde::Serialize;

use crate::engine::PolicySet;
use crate::question::Question;
use crate::shown;

mod granted;
mod operators;
mod raw;

/// Something written that may allow more than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Widening {
    /// `permit`, `forbid`, `grant`, `operator`, `baseline`, or a key of the configuration.
    pub kind: &'static str,
    /// The id of the policy or entry.
    pub id: String,
    /// Where it is written; of one that is gone, where it was.
    pub source: String,
    /// The line there; 0: none.
    pub line: usize,
    /// What about it, as in `is new`.
    pub what: String,
    /// The component and the question that shows all of it, where there is one.
    #[serde(skip)]
    pub(crate) shown_by: Option<(String, Question)>,
}

impl Widening {
    /// One that no question shows.
    pub fn new(kind: &'static str, id: &str, (source, line): (&str, usize), what: String) -> Self {
        Self { kind, id: id.to_owned(), source: source.to_owned(), line, what, shown_by: None }
    }

    /// `permit `pg` (site.cedar:3) is new`.
    pub fn text(&self) -> String {
        let source = shown::inside(&self.source, 256);
        let place = match self.line {
            0 => source,
            line => format!("{source}:{line}"),
        };
        format!("{} `{}` ({place}) {}", self.kind, self.id, self.what)
    }
}

/// Everything written that may allow more under the new set.
pub(crate) fn widenings(old: &PolicySet, new: &PolicySet) -> Vec<Widening> {
    let mut found = raw::widenings(old, new);
    found.extend(granted::widenings(old, new));
    found.extend(operators::widenings(old, new));
    if old.is_without_baseline() && !new.is_without_baseline() {
        let place = (crate::shipped::BASELINE_SOURCE, 0);
        let what = "is in force as soon as anything is granted: every component may link what reaches nothing outside";
        found.push(Widening::new("baseline", "baseline", place, what.to_owned()));
    }
    found
}
