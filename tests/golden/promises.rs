//! SECURITY.md promises nothing without a test: each row of its tables of promises names tests that exist.

use std::path::Path;

use portcullis_tests::root;

#[test]
fn every_promise_names_tests_that_exist() {
    let text = std::fs::read_to_string(root().join("SECURITY.md")).expect("SECURITY.md is there");
    let sources = sources(&root());
    let (mut promises, mut wrong) = (0, Vec::new());
    for row in rows(&text) {
        promises += 1;
        let named: Vec<&str> = row.last().map(|cell| in_backticks(cell)).unwrap_or_default();
        if named.is_empty() {
            wrong.push(format!("no test is named for: {}", row.join(" | ")));
        }
        for name in named {
            // `file::name` and `module::name` name the function at their end.
            let function = format!("fn {}(", name.rsplit("::").next().unwrap_or(name));
            if !sources.iter().any(|source| source.contains(&function)) {
                wrong.push(format!("there is no test `{name}`, named for: {}", row.first().map_or("", String::as_str)));
            }
        }
    }
    assert!(promises > 0, "SECURITY.md has no table with the columns promise, how, test");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_promise_without_a_test_would_be_found() {
    let text = "| Promise | How | Test |\n|---|---|---|\n| a | b | `c` and `d::e` |\n| f | g | none |\n\n| Other | Table |\n|--|--|\n| x | `y` |\n";
    let found = rows(text);
    assert_eq!(found.iter().map(|row| in_backticks(&row[2])).collect::<Vec<_>>(), [vec!["c", "d::e"], vec![]]);
}

/// The rows below headings whose first column is "promise" and whose last is "test".
fn rows(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut within) = (Vec::new(), false);
    for line in text.lines() {
        let Some(cells) = cells(line) else {
            within = false;
            continue;
        };
        let is = |cell: Option<&String>, word: &str| cell.is_some_and(|cell| cell.to_lowercase().starts_with(word));
        if is(cells.first(), "promise") && is(cells.last(), "test") {
            within = true;
        } else if within && !cells.iter().all(|cell| cell.chars().all(|c| "-: ".contains(c))) {
            rows.push(cells);
        }
    }
    rows
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

fn in_backticks(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Every source file of the project that may hold a test; not what is built from them.
fn sources(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") {
            found.extend(std::fs::read_to_string(&path).ok());
        }
    }
    found
}
