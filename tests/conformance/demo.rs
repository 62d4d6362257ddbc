//! `portcullis demo`, as a newcomer would run it: nine steps, nothing failed, nothing left behind.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use portcullis_tests::binary;
use portcullis_tests::processes::{holds_within, in_group};
use serde_json::Value;

#[test]
fn the_demo_holds_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.args(["demo", "--json"]).env("TMPDIR", temporary.path()).env("HOME", "/nonexistent");
    let child =
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let group = child.id();
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);

    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
    let lines = report.get("steps").and_then(Value::as_array).cloned().unwrap_or_default();
    let steps: BTreeSet<u64> = lines.iter().filter_map(|line| line.get("step")?.as_u64()).collect();
    assert_eq!(steps, (1..=9).collect(), "a step is missing: {report:#}");
    assert_eq!(report.get("failed"), Some(&Value::from(0)));
    for line in &lines {
        let (step, verdict) = (line.get("step").and_then(Value::as_u64), line.get("verdict").and_then(Value::as_str));
        // Only the memory of another process may be out of reach, by the kernel's leave.
        assert!(verdict == Some("ok") || (verdict == Some("skipped") && step == Some(8)), "{line:#}");
    }
    // Seven ways in which something must not run, each with its own refusal.
    let refusals: BTreeSet<&str> = lines
        .iter()
        .filter(|line| line.get("step") == Some(&Value::from(4)))
        .filter_map(|line| line.get("what")?.as_str())
        .collect();
    assert!(refusals.len() >= 7, "{refusals:?}");

    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "left in the temporary folder: {left:?}");
    assert!(
        holds_within(portcullis_tests::patience::LONG, || in_group(group).is_empty()),
        "left running: {:?}",
        in_group(group)
    );
}
