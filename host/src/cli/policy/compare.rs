//! `portcullis policy diff`: what a change allows and denies, also of what was really asked for.

use std::path::PathBuf;

use portcullis_policies::{Change, Comparison, Recorded, Widening, compare};
use serde_json::json;

use super::recorded;
use super::sources::{Knob, Read};
use crate::cli::error::{CliError, exit};
use crate::cli::output::{Output, table};

/// Arguments of `portcullis policy diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The policy before: a configuration, a folder of grants and policies, or one such file.
    old: PathBuf,
    /// The policy after.
    new: PathBuf,
    /// Ask also what this audit log recorded as refused.
    #[arg(long, value_name = "AUDIT-LOG")]
    replay: Option<PathBuf>,
    /// What is or may be newly allowed was looked at: end well all the same.
    #[arg(long)]
    acknowledge: bool,
}

pub(super) fn run(args: DiffArgs, out: &mut Output) -> Result<(), CliError> {
    let (old, new) = (Read::at(&args.old)?, Read::at(&args.new)?);
    let recorded: Vec<Recorded> = match &args.replay {
        Some(log) => recorded::refusals(log, |_| true, out)?.into_iter().map(|(recorded, _)| recorded).collect(),
        None => Vec::new(),
    };
    let comparison = compared(&old, &new, &recorded);
    out.result(text(&comparison).trim_end(), &json!(comparison))?;
    if comparison.allows_nothing_more() || args.acknowledge {
        return Ok(());
    }
    let message = match (comparison.newly_allowed.len(), comparison.unjudged.len()) {
        (allowed, 0) => format!("the change allows {allowed} more"),
        (0, unjudged) => format!("the change may allow more: {unjudged} of it cannot be judged by questions"),
        (allowed, unjudged) => {
            format!("the change allows {allowed} more, and {unjudged} of it cannot be judged by questions")
        }
    };
    Err(CliError::new(exit::DENIED, "policy.allows-more", message)
        .with_hint("look at each; if all are meant, run the command again with --acknowledge"))
}

/// Compares two policies over the components of both.
pub(super) fn compared(old: &Read, new: &Read, recorded: &[Recorded]) -> Comparison {
    let mut components = new.components();
    for facts in old.components() {
        if !components.iter().any(|known| known.name == facts.name) {
            components.push(new.facts(&facts.name));
        }
    }
    // Raw policies may be about anybody: somebody is asked about whom nothing is known.
    components.push(new.facts(ANYBODY));
    let mut comparison = compare(&old.set, &new.set, &components, recorded);
    comparison.unjudged.extend(loosened(old, new));
    comparison
}

/// What the configuration of the new policy leaves open beyond that of the old one; nothing where either is no configuration.
fn loosened(old: &Read, new: &Read) -> Vec<Widening> {
    let (Some(had), Some(has)) = (&old.knobs, &new.knobs) else { return Vec::new() };
    let widening = |knob: &Knob| Widening::new(knob.key, &knob.value, (&new.name, 0), "is new".to_owned());
    has.iter().filter(|knob| !had.contains(knob)).map(widening).collect()
}

/// The lists as tables.
pub(super) fn text(comparison: &Comparison) -> String {
    let rows = |changes: &[Change]| -> Vec<Vec<String>> {
        let row = |change: &Change| {
            let asked = if change.recorded == 0 { String::new() } else { format!("asked {} times", change.recorded) };
            vec![
                format!("  {}", change.component),
                change.question.action().to_owned(),
                change.question.resource(),
                format!("{} -> {}", change.before.name(), change.after.name()),
                change.why.clone(),
                asked,
            ]
        };
        changes.iter().map(row).collect()
    };
    let mut text = String::new();
    let mut list = |title: &str, count: usize, lines: String| {
        let count = if count == 0 { "nothing".to_owned() } else { count.to_string() };
        text.push_str(&format!("{title}: {count}\n{lines}"));
    };
    if !comparison.newly_allowed.is_empty() || comparison.unjudged.is_empty() {
        list("newly allowed", comparison.newly_allowed.len(), table(&rows(&comparison.newly_allowed)));
    }
    if !comparison.unjudged.is_empty() {
        let lines = comparison.unjudged.iter().map(|one| format!("  {}\n", one.text())).collect();
        list("cannot be judged by questions, may allow more", comparison.unjudged.len(), lines);
    }
    list("newly denied", comparison.newly_denied.len(), table(&rows(&comparison.newly_denied)));
    text.push_str(&format!("{} questions were asked of both\n", comparison.asked));
    text
}

/// Stands for a component that no grant names.
const ANYBODY: &str = "any:component";
