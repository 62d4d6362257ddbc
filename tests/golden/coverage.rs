//! What is still to be tested can only shrink: every function that the host serves to guests and every command of its control
//! socket has a test that shows it refusing, and every action of policy an example in the documentation.
//!
//! A test says so by a comment on the line before it, `// gate: NAME, NAME`. What has none is in `files/uncovered.txt`, which may
//! lose lines (`UPDATE_GOLDEN=1`) and never get one; a comment that names nothing is an error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use portcullis_tests::root;

#[test]
fn what_has_no_test_and_no_example_only_gets_less() {
    let (functions, commands, actions) = (functions(), commands(), actions());
    assert!(
        functions.len() >= 11 && commands.len() >= 12 && actions.len() >= 13,
        "{functions:?} {commands:?} {actions:?}"
    );
    let known: BTreeSet<&String> = functions.iter().chain(&commands).collect();
    let mut gated = BTreeSet::new();
    for (place, name) in markers(&root()) {
        assert!(
            known.contains(&name),
            "{place}: `{name}` is neither a function of wit/ nor a command of control.proto"
        );
        gated.insert(name);
    }
    let examples = examples();
    let mut uncovered = BTreeSet::new();
    uncovered.extend(functions.difference(&gated).map(|name| format!("function {name}: no gate test")));
    uncovered.extend(commands.difference(&gated).map(|name| format!("command {name}: no gate test")));
    uncovered.extend(
        actions.iter().filter(|name| !examples.contains(*name)).map(|name| format!("action {name}: no example")),
    );
    let path = root().join("tests/golden/files/uncovered.txt");
    let agreed = std::fs::read_to_string(&path).expect("the list is there");
    let agreed: BTreeSet<String> = agreed.lines().map(str::to_owned).collect();
    let more: Vec<&String> = uncovered.difference(&agreed).collect();
    assert!(
        more.is_empty(),
        "these want a test (`// gate: NAME` before it) or an example in docs/policies.md: {more:#?}"
    );
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text: String = uncovered.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, text).expect("the list can be written");
        return;
    }
    let less: Vec<&String> = agreed.difference(&uncovered).collect();
    assert!(less.is_empty(), "these are covered now, take them off the list with UPDATE_GOLDEN=1: {less:#?}");
}

#[test]
fn a_marker_counts_only_right_before_a_test() {
    // Not written as one, or it would be one.
    let marker = ["// ", "gate: a:b/c.d, Stop"].concat();
    let read = |text: &str| names(text).map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(read(&format!("{marker}\n#[test]\nfn x() {{}}\n")), ["a:b/c.d", "Stop"]);
    assert_eq!(read(&format!("    {marker}\n    fn x(host: &Host) {{\n")), ["a:b/c.d", "Stop"]);
    assert_eq!(read(&format!("{marker}\n\n#[test]\n")).len(), 0);
    assert_eq!(read(&format!("{marker}\nconst X: u8 = 1;\n")).len(), 0);
}

/// `package/interface.function` of every WIT file.
fn functions() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in files(&root().join("wit"), "wit") {
        let (mut package, mut interface) = (String::new(), String::new());
        for line in std::fs::read_to_string(path).expect("a WIT file can be read").lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("package ") {
                package = name.split(['@', ';']).next().unwrap_or_default().to_owned();
            } else if let Some(name) = line.strip_prefix("interface ") {
                interface = name.trim_end_matches(['{', ' ']).to_owned();
            } else if let Some((name, rest)) = line.split_once(':')
                && rest.trim_start().starts_with("func(")
            {
                found.insert(format!("{package}/{interface}.{}", name.trim()));
            }
        }
    }
    found
}

/// Every call of the control service.
fn commands() -> BTreeSet<String> {
    let path = root().join("host/proto/portcullis/control/v1/control.proto");
    let text = std::fs::read_to_string(path).expect("control.proto can be read");
    let calls = text.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
    calls.map(|name| name.trim().to_owned()).collect()
}

/// Every action that something can be asked with; groups of actions apply to nothing themselves.
fn actions() -> BTreeSet<String> {
    let path = root().join("policies/cedar/schema.cedarschema");
    let text = std::fs::read_to_string(path).expect("the schema can be read");
    let declared = text.lines().filter_map(|line| line.trim().strip_prefix("action "));
    let applied = declared.filter(|line| line.contains("appliesTo"));
    let names = applied.flat_map(|line| {
        let before = line.split(" in [").next().unwrap_or_default().split(" appliesTo").next().unwrap_or_default();
        before.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    });
    names.collect()
}

/// The words of the examples in the documentation of policies: its indented lines.
fn examples() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("docs/policies.md")).expect("docs/policies.md can be read");
    let lines = text.lines().filter(|line| line.starts_with("    "));
    let words = lines.flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.')));
    words.map(str::to_owned).collect()
}

fn markers(folder: &Path) -> Vec<(String, String)> {
    let all = ["tests", "host/src", "identity", "policies", "signing"].map(|part| files(&folder.join(part), "rs"));
    let mut found = Vec::new();
    for path in all.into_iter().flatten() {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        found.extend(names(&text).map(|(line, name)| (format!("{}:{line}", path.display()), name)));
    }
    found
}

/// The names in markers that stand right before a test, or before a step of one.
fn names(text: &str) -> impl Iterator<Item = (usize, String)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let follows = |at: usize| lines.get(at + 1).copied().unwrap_or_default();
    let is_test = |line: &str| BEFORE.iter().any(|start| line.starts_with(start));
    let marked = lines.iter().enumerate().filter(|(at, _)| is_test(follows(*at)));
    let named = marked.filter_map(|(at, line)| Some((at + 1, line.strip_prefix("// gate: ")?.to_owned())));
    let split =
        named.flat_map(|(at, list)| list.split(',').map(|name| (at, name.trim().to_owned())).collect::<Vec<_>>());
    split.collect::<Vec<_>>().into_iter()
}

/// What a marker stands before: a test, a step of one, or a further marker.
const BEFORE: [&str; 5] = ["#[test]", "#[tokio::test", "fn ", "async fn ", "// gate: "];

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}
