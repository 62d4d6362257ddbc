//! The `[[operator]]` entry that comes nearest to what was refused, and in what it differs.

use super::{ControlQuestion, Operator};
use crate::grants::OperatorEntry;
use crate::shown;

/// An entry, where it stands, in what it differs.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Nearest {
    pub(crate) id: String,
    pub(crate) place: String,
    pub(crate) differs: String,
}

/// The best match, then the first in the files. An entry that shares nothing but the host teaches nothing.
pub(crate) fn nearest(operators: &[OperatorEntry], question: &ControlQuestion) -> Option<Nearest> {
    let Operator::Signer(who) = &question.who else { return None };
    let mut best: Option<(usize, &OperatorEntry, Vec<String>)> = None;
    for entry in operators {
        let same_who = entry.who == *who;
        let action = entry.actions.contains(&question.action);
        if !same_who && !action {
            continue;
        }
        let host = holds(&entry.hosts, &question.host);
        let component = question.component.as_deref().is_none_or(|name| holds(&entry.components, name));
        let all = [
            (same_who, 4, "who", shown::inside(&entry.who, 80)),
            (host, 2, "host", shown::inside(&entry.hosts.join(", "), 80)),
            (component, 2, "component", shown::inside(&entry.components.join(", "), 80)),
            (action, 3, "action", entry.actions.iter().map(|action| action.name()).collect::<Vec<_>>().join(", ")),
        ];
        let score = all.iter().filter(|(same, ..)| *same).map(|(_, weight, ..)| weight).sum();
        let differs = all.iter().filter(|(same, ..)| !same);
        let differs: Vec<String> = differs.map(|(_, _, what, own)| format!("the {what} (entry: {own})")).collect();
        if best.as_ref().is_none_or(|(most, ..)| score > *most) {
            best = Some((score, entry, differs));
        }
    }
    best.map(|(_, entry, differs)| Nearest {
        id: entry.id.clone(),
        place: format!("{}:{}", shown::inside(&entry.source, 120), entry.line),
        differs: match differs.is_empty() {
            // Named one by one, a change needs its component.
            true => "all matches; it is about components that it names, not about the host as a whole".to_owned(),
            false => format!("all matches but {}", differs.join(" and ")),
        },
    })
}

fn holds(list: &[String], name: &str) -> bool {
    list.iter().any(|one| one == "*" || one == name)
}
