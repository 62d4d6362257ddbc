//! `portcullis policy diff`: what a change allows and denies, also of what was really asked for.

use std::path::PathBuf;

use portcullis_policies::{Change, Comparison, Recorded, compare};
use serde_json::json;

use super::recorded;
use super::sources::Read;
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
    /// What is newly allowed was looked at: end well all the same.
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
    if comparison.newly_allowed.is_empty() || args.acknowledge {
        return Ok(());
    }
    let count = comparison.newly_allowed.len();
    Err(CliError::new(exit::DENIED, "policy.allows-more", format!("the change allows {count} more"))
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
    compare(&old.set, &new.set, &components, recorded)
}

/// Both lists as tables.
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
    for (title, changes) in [("newly allowed", &comparison.newly_allowed), ("newly denied", &comparison.newly_denied)] {
        text.push_str(&format!(
            "{title}: {}\n",
            if changes.is_empty() { "nothing".to_owned() } else { changes.len().to_string() }
        ));
        text.push_str(&table(&rows(changes)));
    }
    text.push_str(&format!("{} questions were asked of both\n", comparison.asked));
    text
}
