//! Grants that write themselves: the smallest additions under which everything that was refused for want of a grant is allowed.
//!
//! Decides: which additions. Each is exact (one destination, one audience, one caller, one interface), none can be left out,
//! and nothing is added for what a guard forbids or what could not be decided. Whoever uses them reads them first: what was
//! asked for is not what ought to be allowed.

use std::fmt::Write;

use serde::Serialize;

use crate::component::ComponentFacts;
use crate::edit::GrantEdit;
use crate::engine::PolicySet;
use crate::limits::LEARNED;
use crate::question::{Answer, Outcome, Question};
use crate::source::{LoadErrors, Source, SourceKind};

/// A question that was really asked, and where it is recorded.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Who asked.
    pub facts: ComponentFacts,
    /// What.
    pub question: Question,
    /// Reference of the audit record.
    pub reference: String,
}

/// What was learnt.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Learned {
    /// The additions, as a grants file.
    pub toml: String,
    /// The additions, as arguments of `grants add`, with how often each was asked for and where first.
    pub additions: Vec<Addition>,
    /// What was refused and is not to be learnt, with the reason.
    pub left: Vec<Left>,
}

/// One addition.
#[derive(Debug, Clone, Serialize)]
pub struct Addition {
    /// The component.
    pub component: String,
    /// Arguments of `grants add` after the component.
    pub arguments: Vec<String>,
    /// How many of the questions need it.
    pub count: usize,
    /// The reference of the first of them.
    pub first: String,
    #[serde(skip)]
    edit: GrantEdit,
}

/// A refusal that no grant changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// The component.
    pub component: String,
    /// The question.
    pub question: Question,
    /// Kind of the refusal.
    pub outcome: Outcome,
    /// Code and reason.
    pub why: String,
}

/// Why nothing was learnt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// The sources are not valid as they are.
    #[error("the policy has errors already:\n{0}")]
    Existing(#[source] LoadErrors),
    /// What was learnt cannot be granted beside what there is.
    #[error("what was asked for cannot be granted beside the policy that is there:\n{0}")]
    Conflict(#[source] LoadErrors),
    /// Over [`LEARNED`].
    #[error("more than {LEARNED} different things were asked for")]
    TooMany,
}

impl LearnError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Existing(_) => "correct it first; `portcullis policy check` shows the same",
            Self::Conflict(_) => {
                "the lines say which grants do not go together; `--component` learns for one component alone"
            }
            Self::TooMany => "learn from a shorter part of the log, or from one component (--component)",
        }
    }
}

/// The smallest additions to `sources` under which every observed question that lacks a grant is allowed: one for each thing that
/// was asked for, so that each can be read and struck out by itself.
pub fn learn(sources: &[Source], observed: &[Observed]) -> Result<Learned, LearnError> {
    learn_of(sources, observed, From::Refusals)
}

/// The same of what a component imports: together one addition, since it is loaded with all of them or not at all.
pub fn learn_imports(sources: &[Source], observed: &[Observed]) -> Result<Learned, LearnError> {
    learn_of(sources, observed, From::Imports)
}

/// What was learnt from: it decides how additions are cut and put into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Refusals,
    Imports,
}

fn learn_of(sources: &[Source], observed: &[Observed], from: From) -> Result<Learned, LearnError> {
    let mut learned = Learned::default();
    let base = PolicySet::compile(sources, 1).map_err(LearnError::Existing)?;
    let with = |additions: &[Addition]| with(sources, &text(&base, additions, from));
    let mut additions: Vec<Addition> = Vec::new();
    // What is refused next may show only when the first refusal is gone: sending, then dialling.
    let mut current = base.clone();
    for _ in 0..ROUNDS {
        let before = additions.len();
        for one in observed {
            let Some(edit) = missing(&current, one) else { continue };
            if let Some(addition) = additions.iter_mut().find(|addition| addition.edit == edit) {
                addition.count += 1;
                continue;
            }
            if additions.len() == LEARNED {
                return Err(LearnError::TooMany);
            }
            additions.push(Addition {
                component: edit.component.clone(),
                arguments: edit.arguments(),
                count: 1,
                first: one.reference.clone(),
                edit,
            });
        }
        if additions.len() == before {
            break;
        }
        current = with(&additions)?;
    }
    drop_needless(&with, &mut additions, observed)?;
    if from == From::Imports {
        additions = together(additions);
    }
    let current = with(&additions)?;
    for one in observed {
        if let Ok(answer @ Answer::Denied(_)) = one.question.ask(&current.slice(&one.facts)) {
            let left = Left {
                component: one.facts.name.clone(),
                question: one.question.clone(),
                outcome: answer.outcome(),
                why: answer.why(),
            };
            if !learned.left.contains(&left) {
                learned.left.push(left);
            }
        }
    }
    learned.toml = text(&base, &additions, from);
    learned.additions = additions;
    Ok(learned)
}

/// The addition that an observed question lacks, if a grant is what it lacks.
fn missing(set: &PolicySet, one: &Observed) -> Option<GrantEdit> {
    match one.question.ask(&set.slice(&one.facts)) {
        Ok(Answer::Denied(denial)) => denial.edit().cloned(),
        _ => None,
    }
}

/// Leaves out, the broadest first, each addition without which nothing more is refused.
fn drop_needless(
    with: &impl Fn(&[Addition]) -> Result<PolicySet, LearnError>,
    additions: &mut Vec<Addition>,
    observed: &[Observed],
) -> Result<(), LearnError> {
    let allowed = |additions: &[Addition]| -> Result<usize, LearnError> {
        let set = with(additions)?;
        let of = |one: &&Observed| matches!(one.question.ask(&set.slice(&one.facts)), Ok(Answer::Allowed(_)));
        Ok(observed.iter().filter(of).count())
    };
    let all = allowed(additions)?;
    let mut n = 0;
    while n < additions.len() {
        let removed = additions.remove(n);
        if allowed(additions)? < all {
            additions.insert(n, removed);
            n += 1;
        }
    }
    Ok(())
}

/// One addition for each component. What imports need is the right to be loaded and links.
fn together(additions: Vec<Addition>) -> Vec<Addition> {
    let mut all: Vec<Addition> = Vec::new();
    for one in additions {
        match all.iter_mut().find(|addition| addition.component == one.component) {
            Some(addition) => {
                addition.edit.load |= one.edit.load;
                addition.edit.link.extend(one.edit.link);
                addition.count += one.count;
                addition.arguments = addition.edit.arguments();
            }
            None => all.push(one),
        }
    }
    all
}

fn with(sources: &[Source], text: &str) -> Result<PolicySet, LearnError> {
    let mut sources = sources.to_vec();
    sources.push(Source { name: "learnt".to_owned(), text: text.to_owned(), kind: SourceKind::Grants });
    PolicySet::compile(&sources, 1).map_err(LearnError::Conflict)
}

/// The additions as a grants file, under ids that no policy has yet. Values are quoted by the TOML library, never by hand.
fn text(base: &PolicySet, additions: &[Addition], from: From) -> String {
    let mut text = String::from("version = 1\n");
    let free = (0_u64..).map(|n| format!("learnt-{n}")).filter(|id| !base.has_id(id));
    for (id, addition) in free.zip(additions) {
        let edit = &addition.edit;
        let quoted = |value: &str| toml::Value::String(value.to_owned()).to_string();
        let list = |values: &[String]| values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ");
        let (comment, reason) = match from {
            From::Refusals => (
                format!("asked for {}, first as {}", times(addition.count), addition.first),
                "learnt from what was refused",
            ),
            From::Imports => (format!("what {} imports", addition.first), "learnt from what it imports"),
        };
        let _ = writeln!(text, "\n# {comment}\n[[grant]]\nid = \"{id}\"");
        let _ = writeln!(text, "reason = \"{reason}\"\nowner = \"operator\"");
        let _ = writeln!(text, "component = {}", quoted(&edit.component));
        if edit.load {
            text.push_str("load = true\n");
        }
        if let Some(destination) = &edit.http {
            let url = format!("{}://{}", destination.scheme().as_str(), destination.authority());
            let _ = writeln!(text, "http = [{}]", quoted(&url));
        }
        let ranges: Vec<String> = edit.addresses.iter().map(ToString::to_string).collect();
        let lists = [
            ("link", &edit.link),
            ("addresses", &ranges),
            ("identity", &edit.identity),
            ("audiences", &edit.audiences),
            ("purposes", &edit.purposes),
            ("callers", &edit.callers),
            ("publish", &edit.publish),
            ("request", &edit.request),
            ("subscribe", &edit.subscribe),
        ];
        for (key, values) in lists.into_iter().filter(|(_, values)| !values.is_empty()) {
            let _ = writeln!(text, "{key} = [{}]", list(values));
        }
    }
    text
}

fn times(count: usize) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// How often a question may turn out to lack one thing more.
const ROUNDS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{facts, grants};

    fn observed(component: &str, question: &str, reference: &str) -> Observed {
        Observed {
            facts: facts(component),
            question: serde_json::from_str(question).unwrap(),
            reference: reference.to_owned(),
        }
    }

    fn existing() -> Vec<Source> {
        let text = grants(&[("a", "load = true\naudiences = [\"known\"]")]);
        vec![Source { name: "grants.toml".to_owned(), text, kind: SourceKind::Grants }]
    }

    fn day() -> Vec<Observed> {
        vec![
            observed("a", r#"{"action": "svid.jwt", "audience": "known"}"#, "R0"),
            observed("a", r#"{"action": "svid.jwt", "audience": "vau\"lt"}"#, "R1"),
            observed("a", r#"{"action": "svid.jwt", "audience": "vau\"lt"}"#, "R2"),
            observed("a", r#"{"action": "http.send", "destination": "https://api.example"}"#, "R3"),
            observed(
                "a",
                r#"{"action": "http.connect", "destination": "https://db.internal", "address": "10.1.2.3:443"}"#,
                "R4",
            ),
            observed("b", r#"{"action": "call", "caller": "anonymous"}"#, "R5"),
            observed("b", r#"{"action": "load"}"#, "R6"),
            observed("b", r#"{"action": "link", "interface": "wasi:keyvalue/store@0.2.0"}"#, "R7"),
            observed("a", r#"{"action": "http.send", "destination": "http://169.254.169.254"}"#, "R8"),
        ]
    }

    fn denials(additions: &str) -> usize {
        let mut sources = existing();
        sources.push(Source { name: "learnt".to_owned(), text: additions.to_owned(), kind: SourceKind::Grants });
        let set = PolicySet::compile(&sources, 1).unwrap();
        let denied = |one: &&Observed| matches!(one.question.ask(&set.slice(&one.facts)), Ok(Answer::Denied(_)));
        day().iter().filter(denied).count()
    }

    #[test]
    fn what_was_refused_is_allowed_afterwards_and_nothing_can_be_left_out() {
        let learned = learn(&existing(), &day()).unwrap();
        assert_eq!(denials("version = 1\n"), 8);
        assert_eq!(denials(&learned.toml), 1, "the metadata service stays forbidden\n{}", learned.toml);
        assert_eq!(learned.left.len(), 1);
        assert_eq!(learned.left[0].outcome, Outcome::Forbidden);
        for n in 0..learned.additions.len() {
            let mut fewer = learned.additions.clone();
            fewer.remove(n);
            let base = PolicySet::compile(&existing(), 1).unwrap();
            assert!(denials(&text(&base, &fewer, From::Refusals)) > 1, "without {:?}", learned.additions[n]);
        }
    }

    #[test]
    fn an_addition_says_how_often_and_where_first_it_was_asked_for() {
        let learned = learn(&existing(), &day()).unwrap();
        let vault =
            learned.additions.iter().find(|addition| addition.arguments.contains(&"vau\"lt".to_owned())).unwrap();
        assert_eq!((vault.count, vault.first.as_str()), (2, "R1"));
        assert!(learned.toml.contains("# asked for 2 times, first as R1\n[[grant]]"), "{}", learned.toml);
    }

    #[test]
    fn what_is_granted_already_teaches_nothing() {
        let learned = learn(&existing(), &day()[..1]).unwrap();
        assert!(learned.additions.is_empty() && learned.left.is_empty());
        assert_eq!(learned.toml, "version = 1\n");
    }

    #[test]
    fn what_was_learnt_is_learnt_on_beside_what_was_learnt_before() {
        let mut sources = existing();
        let first = learn(&sources, &day()[..2]).unwrap();
        assert!(first.toml.contains("id = \"learnt-0\""), "{}", first.toml);
        sources.push(Source { name: "learnt.toml".to_owned(), text: first.toml, kind: SourceKind::Grants });
        let second = learn(&sources, &day()).unwrap();
        assert!(!second.additions.is_empty() && !second.toml.contains("id = \"learnt-0\""), "{}", second.toml);
        sources.push(Source { name: "more.toml".to_owned(), text: second.toml, kind: SourceKind::Grants });
        assert!(learn(&sources, &day()).unwrap().additions.is_empty());
    }

    #[test]
    fn what_a_component_imports_is_one_grant() {
        let observed = [
            observed("b", r#"{"action": "load"}"#, "app.wasm"),
            observed("b", r#"{"action": "link", "interface": "wasi:keyvalue/store@0.2.0"}"#, "app.wasm"),
            observed("b", r#"{"action": "link", "interface": "wasi:http/outgoing-handler@0.2.0"}"#, "app.wasm"),
        ];
        let learned = learn_imports(&existing(), &observed).unwrap();
        assert_eq!(learned.additions.len(), 1, "{}", learned.toml);
        assert!(learned.left.is_empty(), "{:?}", learned.left);
        let links = "link = [\"wasi:keyvalue/store\", \"wasi:http/outgoing-handler\"]";
        assert!(learned.toml.contains("load = true") && learned.toml.contains(links), "{}", learned.toml);
        assert!(!learned.toml.contains("asked for") && learned.toml.contains("# what app.wasm imports"));
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        let ask = |n: usize| observed("a", &format!(r#"{{"action": "svid.jwt", "audience": "a{n}"}}"#), "R");
        let many: Vec<Observed> = (0..=LEARNED).map(ask).collect();
        assert_eq!(learn(&existing(), &many).unwrap_err(), LearnError::TooMany);
    }

    #[test]
    fn a_policy_with_errors_is_not_added_to() {
        let broken = [Source { name: "g".to_owned(), text: "version = 2".to_owned(), kind: SourceKind::Grants }];
        assert!(matches!(learn(&broken, &day()), Err(LearnError::Existing(_))));
    }
}
