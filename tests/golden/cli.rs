//! What a person reads, word for word: help of every command, the version, refusals, tables.
//!
//! After a wanted change: `UPDATE_GOLDEN=1 cargo test -p portcullis-tests --test cli`, and read the difference.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use portcullis_tests::host::Host;
use portcullis_tests::site::{Ended, Site, ended};
use portcullis_tests::{binary, guests, root};
use serde_json::Value;

#[test]
fn help_of_every_command_reads_as_agreed() {
    let mut commands = vec![Vec::new()];
    let mut files = BTreeSet::new();
    while let Some(command) = commands.pop() {
        let help = plain(command.iter().map(String::as_str).chain(["--help"])).ok().out;
        commands.extend(subcommands(&help).into_iter().map(|name| [command.clone(), vec![name]].concat()));
        let name = [vec!["portcullis".to_owned()], command].concat().join("-");
        golden(&format!("help/{name}.txt"), &help);
        files.insert(format!("{name}.txt"));
    }
    assert!(files.len() > 20, "the commands were not found in the help: {files:?}");
    let there: BTreeSet<String> = std::fs::read_dir(folder().join("help"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, files, "there are golden files of commands that are gone");
}

#[test]
fn the_version_reads_as_agreed() {
    golden("version.txt", &plain(["--version"]).ok().out.replace(env!("CARGO_PKG_VERSION"), "<version>"));
}

#[test]
fn a_wrong_command_line_reads_as_agreed() {
    let ended = plain(["verify"]);
    assert_eq!(ended.exit, 2);
    golden("usage.txt", &ended.err);
}

/// The matrix of a small shop, as text, as CSV and as a page: what a change of the policy engine lets anybody do shows here.
#[test]
fn the_matrix_of_a_policy_reads_as_agreed() {
    let mut site = Site::new();
    site.policy("cedar = [\"site.cedar\"]\n");
    site.write();
    for file in ["grants.toml", "site.cedar"] {
        std::fs::copy(root().join("tests/golden/shop").join(file), site.file(file)).unwrap();
    }
    let matrix = |more: &[&str]| {
        site.run(["policy", "matrix", "--config", "portcullis.toml"].iter().chain(more).copied()).ok().out
    };
    golden("matrix.txt", &matrix(&[]));
    golden("matrix.csv", &matrix(&["--csv"]));
    matrix(&["--html", "matrix.html"]);
    golden("matrix.html", &std::fs::read_to_string(site.file("matrix.html")).unwrap());
}

#[test]
fn refusals_and_tables_read_as_agreed() {
    let mut site = Site::new();
    site.sign("hello", &guests::ours("hello"));
    site.guest(
        "greeter",
        "link = [\"wasi:http/outgoing-handler\"]\nidentity = [\"read\", \"x509\"]\naudiences = [\"vault\"]\n",
    );
    site.write();
    let place = Place::of(&site);

    let inspected = site.run(["inspect", "hello.wasm", "--config", "portcullis.toml"]).ok();
    golden("inspect.txt", &place.plain(&inspected.out));
    let verified = site.run(["verify", "hello.wasm", "--config", "portcullis.toml"]).ok();
    golden("verify.txt", &place.plain(&verified.out));
    let shown = site.run(["trust", "show", "trust.signed.json"]).ok();
    golden("trust-show.txt", &place.plain(&shown.out));

    // No evidence; evidence for other bytes; a file that is not there; a configuration with several mistakes.
    std::fs::write(site.file("bare.wasm"), guests::ours("echo")).unwrap();
    golden(
        "refused-no-evidence.txt",
        &place.refusal(&site.run(["verify", "bare.wasm", "--config", "portcullis.toml"]), 10),
    );
    let other = ["verify", "bare.wasm", "--bundle", "hello.wasm.sigstore.json", "--config", "portcullis.toml"];
    golden("refused-other-bytes.txt", &place.refusal(&site.run(other), 13));
    golden("missing-file.txt", &place.refusal(&site.run(["verify", "none.wasm", "--config", "portcullis.toml"]), 2));
    std::fs::write(site.file("wrong.toml"), "version = 2\ncluster = \"\"\ncolour = 1\n[listen]\nhttp = \"x\"\n")
        .unwrap();
    golden("bad-configuration.txt", &place.refusal(&site.run(["config", "check", "--config", "wrong.toml"]), 64));

    let host = Host::ready(site);
    let place = Place { ports: vec![(host.http().port(), "<http>"), (host.mtls().port(), "<mtls>")], ..place };
    golden("status.txt", &place.plain(&host.site().run(["status", "--config", "portcullis.toml"]).ok().out));
    golden("list.txt", &place.plain(&host.site().run(["list", "--config", "portcullis.toml"]).ok().out));

    // Denied by policy at its start, and at a request.
    let started = host.site().run(["start", "hello.wasm", "--config", "portcullis.toml"]);
    golden("refused-no-grant.txt", &place.refusal(&started, 20));
    let answer = portcullis_tests::http::get(host.http(), "/greeter/fetch?url=http%3A%2F%2Fapi.example%2Fv1", &[]);
    assert_eq!(answer.status, 403, "{}", answer.text());
    let record = host.record(&[("kind", "denial"), ("by", "runtime")]);
    let reference = record.get("ref").and_then(Value::as_str).unwrap();
    let explained = host.site().run(["policy", "explain", reference, "--config", "portcullis.toml"]).ok();
    golden("explained-denial.txt", &place.plain(&explained.out));
    let unknown = host.site().run(["stop", "test:nothing", "--config", "portcullis.toml"]);
    golden("stop-unknown.txt", &place.refusal(&unknown, 2));
}

/// What differs from run to run, and what stands for it.
struct Place {
    folder: String,
    ports: Vec<(u16, &'static str)>,
}

impl Place {
    fn of(site: &Site) -> Self {
        Self { folder: site.path().canonicalize().unwrap().display().to_string(), ports: Vec::new() }
    }

    fn refusal(&self, ended: &Ended, exit: i32) -> String {
        assert_eq!(ended.exit, exit, "{ended:?}");
        assert!(ended.out.is_empty(), "a refusal is on standard error: {}", ended.out);
        self.plain(&ended.err)
    }

    /// The text with placeholders. Columns are as wide as what is in them, so blanks in a row count as two.
    fn plain(&self, text: &str) -> String {
        let mut text = text.replace(&self.folder, "<site>");
        for (port, name) in &self.ports {
            text = text.replace(&format!(":{port}"), &format!(":{name}"));
        }
        let lines = text.lines().map(|line| {
            let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
            let words: Vec<String> =
                rest.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(cell).collect();
            format!("{indent}{}\n", words.join("  "))
        });
        lines.collect()
    }
}

fn cell(text: &str) -> String {
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// One word with its variable core replaced; punctuation around it stays.
fn word(word: &str) -> String {
    let core = word.trim_matches(|c: char| "()[],;:.'\"`".contains(c));
    let all = |text: &str, of: &dyn Fn(char) -> bool| !text.is_empty() && text.chars().all(of);
    let hex = |text: &str| all(text, &|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
    let upper = |text: &str| all(text, &|c| c.is_ascii_digit() || c.is_ascii_uppercase());
    let digest = core.strip_prefix("sha256:").is_some_and(hex);
    let stands_for = match core {
        _ if digest => "<digest>",
        _ if core.len() == 64 && hex(core) => "<hash>",
        _ if core.len() == 56 && upper(core) => "<key>",
        // The first characters of a key, where a row has no room for all of them.
        _ if core.len() == 16 && core.starts_with('A') && upper(core) => "<key>",
        _ if core.len() == 26 && upper(core) => "<reference>",
        _ if core.len() == 26
            && core.starts_with("01")
            && all(core, &|c| c.is_ascii_digit() || c.is_ascii_lowercase()) =>
        {
            "<instance>"
        }
        _ if core.len() == 20 && core.ends_with('Z') && core.contains('T') && core.starts_with("20") => "<time>",
        _ if core.parse::<u32>().is_ok_and(|number| number >= 100) => "<number>",
        _ => return word.to_owned(),
    };
    word.replace(core, stands_for)
}

fn subcommands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A text that goes on in the next line is indented deeper than a name.
    let names = list
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Runs the binary without a terminal and without what would change its width.
fn plain<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Ended {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env_remove("COLUMNS")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_STATE_HOME")
        .env("HOME", "/nonexistent");
    ended(command.output().unwrap())
}

fn golden(name: &str, text: &str) {
    let path = folder().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let agreed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        agreed == text,
        "{name} reads differently now; after a wanted change set UPDATE_GOLDEN=1\n--- agreed\n{agreed}\n--- now\n{text}"
    );
}

fn folder() -> PathBuf {
    root().join("tests/golden/files")
}
