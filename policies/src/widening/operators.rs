//! What `[[operator]]` entries give that none gave before.

use std::collections::HashMap;

use super::Widening;
use crate::engine::PolicySet;
use crate::grants::OperatorEntry;

pub(super) fn widenings(old: &PolicySet, new: &PolicySet) -> Vec<Widening> {
    let mut before: HashMap<&str, Vec<&OperatorEntry>> = HashMap::new();
    for entry in old.operators() {
        before.entry(&entry.who).or_default().push(entry);
    }
    new.operators()
        .iter()
        .filter_map(|entry| {
            let had = before.get(entry.who.as_str()).map_or(&[][..], Vec::as_slice);
            let more = more(entry, had);
            (!more.is_empty()).then(|| {
                let what = format!("lets {} {}", entry.who, more.join("; "));
                Widening::new("operator", &entry.id, (&entry.source, entry.line), what)
            })
        })
        .collect()
}

/// Each action, with where and about what, that no entry of the same signer gave.
fn more(entry: &OperatorEntry, had: &[&OperatorEntry]) -> Vec<String> {
    let within = |names: &[String], name: &String| names.iter().any(|own| own == "*" || own == name);
    let mut more = Vec::new();
    for action in &entry.actions {
        for host in &entry.hosts {
            let new: Vec<&str> = entry
                .components
                .iter()
                .filter(|component| {
                    !had.iter().any(|had| {
                        had.actions.contains(action) && within(&had.hosts, host) && within(&had.components, component)
                    })
                })
                .map(String::as_str)
                .collect();
            if !new.is_empty() {
                more.push(format!("{} {} on {host}", action.name(), new.join(", ")));
            }
        }
    }
    more
}
