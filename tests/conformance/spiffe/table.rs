//! The table that the suite leaves behind, compared with the one in `docs/`.

use std::fmt::Write;

use crate::item::Outcome;
use crate::items::ITEMS;
use crate::subjects;

#[test]
fn the_table_in_the_docs_is_what_the_suite_finds() {
    let path = portcullis_tests::root().join("docs/spiffe-conformance.md");
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let ours = subjects::portcullis().expect("the host under test");
    let spire = subjects::spire();
    let mut text = String::from(HEAD);
    let (mut passed, mut failed, mut not) = (0, 0, 0);
    for item in ITEMS {
        let outcome = (item.check)(ours);
        match &outcome {
            Outcome::Pass | Outcome::Elsewhere(_) => passed += 1,
            Outcome::Fail(_) => failed += 1,
            Outcome::NotApplicable(_) => not += 1,
        }
        let control = match spire {
            Some(evidence) => cell(&(item.check)(evidence), subjects::known(evidence.name, item.id)),
            // SPIRE is not to be had here: its column stays as it was.
            None => kept(&there, item.id),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {control} |",
            item.id.replace('_', "-").to_uppercase(),
            item.level.word(),
            item.side.word(),
            item.clause,
            item.what,
            cell(&outcome, None),
        );
    }
    let _ = write!(text, "\nPortcullis: {passed} pass, {failed} fail, {not} not applicable.\n");
    assert_eq!(failed, 0, "a table with failures is not written:\n{text}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
        return;
    }
    assert!(
        there == text,
        "docs/spiffe-conformance.md is not what the suite finds; UPDATE_GOLDEN=1 writes it anew:\n{text}"
    );
}

fn cell(outcome: &Outcome, known: Option<&'static str>) -> String {
    match (outcome, known) {
        (Outcome::NotApplicable(why), _) => format!("n/a: {why}"),
        (Outcome::Elsewhere(test), _) => format!("pass: `{test}`"),
        (Outcome::Fail(_), Some(known)) => format!("differs: {known}"),
        (outcome, _) => outcome.word().to_owned(),
    }
}

/// The last cell of the item's line in the table that is there.
fn kept(there: &str, id: &str) -> String {
    let name = format!("| {} |", id.replace('_', "-").to_uppercase());
    let line = there.lines().find(|line| line.starts_with(&name)).unwrap_or_default();
    line.trim_end_matches(" |").rsplit(" | ").next().unwrap_or("-").to_owned()
}

const HEAD: &str = "# SPIFFE conformance

Made by `cargo test --workspace --test spiffe`; the suite is in `tests/conformance/spiffe` and can be pointed at any Workload API
socket (`SPIFFE_CONFORMANCE_SOCKET`). SPIRE 1.15.3 is the control: it tells a wrong test from a wrong server. \"differs\" says
where SPIRE decides otherwise where the standard leaves room or has moved on. Where a test is named, it takes more than a socket
to show the item: that test shows it, in the same run of all tests.

| item | level | side | clause | what is demanded | Portcullis | SPIRE |
| --- | --- | --- | --- | --- | --- | --- |
";
