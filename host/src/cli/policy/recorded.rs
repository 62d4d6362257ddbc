//! What an audit log recorded as refused, for the commands that learn from it or replay it.
//!
//! A log is believed as far as its chain holds, the parts that it follows on included: one that was changed teaches nothing. What no
//! question could be made of is counted and said. A last line that a crash tore, or that is just being written, is left out.

use std::io::BufReader;
use std::path::Path;

use portcullis_policies::Recorded;
use serde_json::Value;

use super::sources;
use crate::audit::Verifier;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::{audit, files};

/// The questions of a log, with who asked and the reference of each.
#[derive(Debug, Default)]
struct Found {
    questions: Vec<(Recorded, String)>,
    /// Refusals by policy that no question could be made of.
    not_understood: u64,
    over: bool,
}

/// The questions that a log recorded as refused of the components that are `wanted`, with the reference of each. Ends as
/// `audit verify` does where the chain is broken.
pub(super) fn refusals(
    log: &Path,
    wanted: impl Fn(&str) -> bool,
    out: &mut Output,
) -> Result<Vec<(Recorded, String)>, CliError> {
    let parts = audit::parts(log);
    let (mut verifier, mut found, mut torn) = (Verifier::default(), Found::default(), 0);
    for part in &parts {
        let opened = BufReader::new(files::open_to_read(part, "audit log")?);
        let is_last = parts.last() == Some(part);
        let read = verifier.part_with(opened, is_last, |line| found.take(line, &wanted));
        torn = read.map_err(|error| audit::broken(part, error))?;
        if found.over {
            return Err(CliError::usage(format!("{}: more than {RECORDS} refusals", log.display()))
                .with_hint("name one part of the log, such as the newest audit-<number>.jsonl, or one component"));
        }
    }
    verifier.finish().map_err(|error| audit::broken(log, error))?;
    if torn > 0 {
        out.note(format!("{}: the last line has no end and was not read", log.display()));
    }
    if found.not_understood > 0 {
        let count = found.not_understood;
        out.note(format!("{}: {count} refusals were not understood by this version and are left out", log.display()));
    }
    Ok(found.questions)
}

impl Found {
    fn take(&mut self, line: &[u8], wanted: &impl Fn(&str) -> bool) {
        let Ok(record) = serde_json::from_slice::<Value>(line) else {
            self.not_understood += 1;
            return;
        };
        let reference = record.get("ref").and_then(Value::as_str).unwrap_or_default();
        let (questions, not_understood) = sources::read_record(&record);
        self.not_understood += not_understood;
        let questions = questions.into_iter().filter(|one| wanted(&one.facts.name));
        self.questions.extend(questions.map(|one| (one, reference.to_owned())));
        self.over |= self.questions.len() > RECORDS;
        if self.over {
            self.questions.clear();
        }
    }
}

/// Refusals that are taken from one log.
const RECORDS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{AuditLog, Durability, Parts, Record};

    fn denial(audience: &str) -> String {
        let question = format!(r#"{{"action":"svid.jwt","audience":"{audience}"}}"#);
        let facts =
            r#""component":"shop:a","digest":"d","spiffe_id":"s","signer":"k","signer_group":"g","instance":"i""#;
        format!(
            r#"{{"kind":"denial","ref":"R","denial":{{"code":"I0201","kind":"no-grant",{facts},"question":{question}}}}}"#
        )
    }

    #[test]
    fn refusals_of_policy_without_a_question_that_is_known_are_counted() {
        let mut found = Found::default();
        found.take(denial("vault").as_bytes(), &|_| true);
        found.take(denial("vault").replace("svid.jwt", "svid.new").as_bytes(), &|_| true);
        found.take(denial("vault").as_bytes(), &|name| name != "shop:a");
        // No refusals by policy: nothing to understand.
        found.take(br#"{"kind":"denial","code":"signature.bad","details":{"code":"signature.bad"}}"#, &|_| true);
        found.take(br#"{"kind":"issuance"}"#, &|_| true);
        assert_eq!((found.questions.len(), found.not_understood), (1, 1));
    }

    #[test]
    fn all_parts_of_a_log_are_read_in_one_chain_and_a_gap_among_them_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("audit.jsonl");
        let now = crate::clock::now();
        let parts = Parts { bytes: 1500, keep: 0 };
        let mut log = AuditLog::open(&path, parts, now).unwrap();
        for audience in ["a"; 12] {
            let denial: Value = serde_json::from_str(&denial(audience)).unwrap();
            let record = Record::new("denial").field("denial", denial["denial"].clone());
            log.append(now, record, Durability::Durable).unwrap();
        }
        let mut out = Output::new(true);
        assert_eq!(refusals(&path, |_| true, &mut out).unwrap().len(), 12);
        let files = audit::parts(&path);
        assert!(files.len() > 3, "{files:?}");
        // The oldest may have been carried away; one in the middle may not.
        std::fs::remove_file(&files[0]).unwrap();
        assert!(!refusals(&path, |_| true, &mut out).unwrap().is_empty());
        std::fs::remove_file(&files[files.len() / 2]).unwrap();
        assert_eq!(refusals(&path, |_| true, &mut out).unwrap_err().exit(), 13);
    }

    #[test]
    fn more_refusals_than_the_limit_are_not_taken() {
        let mut found = Found::default();
        let line = denial("vault");
        for _ in 0..=RECORDS {
            found.take(line.as_bytes(), &|_| true);
        }
        assert!(found.over && found.questions.is_empty());
    }
}
