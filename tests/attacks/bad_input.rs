//! Every file that a user hands over, in every bad state: a clear error with the path and a hint, a documented exit code,
//! nothing lost and nothing half-made behind it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use portcullis_tests::host::Host;
use portcullis_tests::site::{CLUSTER, Ended, Site};
use portcullis_tests::{guests, skip};
use serde_json::Value;

/// A file of the user's, bad in one way.
struct Bad {
    how: String,
    make: Make,
    /// Whether the file itself is the trouble, so that no command may end well on it. Bad content may be none of a command's business.
    never_passes: bool,
}

enum Make {
    Missing,
    Folder,
    Pipe,
    Sparse(u64),
    Bytes(Vec<u8>),
}

/// A command with `BAD` where the bad file goes.
struct Try {
    args: Vec<&'static str>,
    /// Whether it may end well on bad content: it only shows things, or part of a file is a file.
    lenient: bool,
}

fn strict(args: &[&'static str]) -> Try {
    Try { args: args.to_vec(), lenient: false }
}

fn lenient(args: &[&'static str]) -> Try {
    Try { args: args.to_vec(), lenient: true }
}

#[test]
fn bad_components_are_refused_by_every_command() {
    let site = site();
    let bads = bads(&guests::ours("hello"), HUGE);
    let out = [
        "--name",
        "test:x",
        "--version",
        "1.0.0",
        "--revision",
        "1",
        "--audience",
        CLUSTER,
        "--out",
        "new.claims.json",
    ];
    let tries = [
        strict(&["verify", "BAD", "--config", "portcullis.toml"]),
        strict(&["verify", "BAD", "--config", "portcullis.toml", "--bundle", "hello.wasm.sigstore.json"]),
        lenient(&["inspect", "BAD"]),
        lenient(&[&["claims", "init", "BAD"][..], &out].concat()),
        lenient(&["sign", "BAD", "--claims", "hello.claims.json", "--key", "signer.key", "--out", "new.sigstore.json"]),
    ];
    all(&site, "bad.wasm", &bads, &tries);
}

#[test]
fn bad_bundles_are_refused_by_every_command() {
    let site = site();
    let good = std::fs::read(site.file("hello.wasm.sigstore.json")).unwrap();
    let tries = [
        strict(&["verify", "hello.wasm", "--config", "portcullis.toml", "--bundle", "BAD"]),
        lenient(&["inspect", "hello.wasm", "--bundle", "BAD"]),
        lenient(&["inspect", "hello.wasm", "--bundle", "BAD", "--config", "portcullis.toml"]),
    ];
    all(&site, "bad.sigstore.json", &bads(&good, HUGE), &tries);
}

#[test]
fn bad_trust_policies_are_refused_by_every_command() {
    let site = site();
    let signed = std::fs::read(site.file("trust.signed.json")).unwrap();
    let signer = leak(site.public("signer.key"));
    let root = leak(site.public("root.key"));
    let given = ["--trust", "BAD", "--root", root, "--audience", CLUSTER];
    let tries = [
        strict(&[&["verify", "hello.wasm"][..], &given].concat()),
        strict(&[&["inspect", "hello.wasm"][..], &given].concat()),
        strict(&["trust", "show", "BAD"]),
        strict(&["trust", "show", "BAD", "--root", root]),
    ];
    all(&site, "bad.signed.json", &bads(&signed, HUGE), &tries);

    let document = std::fs::read(site.file("trust.json")).unwrap();
    let add =
        ["--signer", signer, "--name", "x", "--names", "x:*", "--identity-paths", "ns/x/sa/*", "--audiences", "x"];
    let tries = [
        strict(&["trust", "show", "BAD"]),
        strict(&["trust", "sign", "BAD", "--key", "root.key", "--out", "new.signed.json"]),
        strict(&[&["trust", "add", "BAD"][..], &add].concat()),
    ];
    all(&site, "bad.json", &bads(&document, HUGE), &tries);
    // What was signed before is added to, so it is input too. That there is nothing yet is the usual case.
    let existing = [strict(&["trust", "sign", "trust.json", "--key", "root.key", "--out", "BAD"])];
    let bads: Vec<Bad> = bads(&signed, HUGE).into_iter().filter(|bad| bad.how != "missing").collect();
    all(&site, "old.signed.json", &bads, &existing);
}

#[test]
fn bad_claims_and_keys_are_refused_by_every_command() {
    let site = site();
    let claims = std::fs::read(site.file("hello.claims.json")).unwrap();
    let tries =
        [strict(&["sign", "hello.wasm", "--claims", "BAD", "--key", "signer.key", "--out", "new.sigstore.json"])];
    all(&site, "bad.claims.json", &bads(&claims, HUGE), &tries);

    let key = std::fs::read(site.file("signer.key")).unwrap();
    let tries = [
        strict(&["keys", "show", "BAD"]),
        strict(&["sign", "hello.wasm", "--claims", "hello.claims.json", "--key", "BAD", "--out", "new.sigstore.json"]),
        strict(&["trust", "sign", "trust.json", "--key", "BAD", "--out", "new.signed.json"]),
    ];
    // The line end of a seed is no part of it.
    let bads: Vec<Bad> = bads(key.trim_ascii_end(), HUGE).into_iter().collect();
    let secret = String::from_utf8(key.trim_ascii_end().to_vec()).unwrap();
    for ended in all(&site, "bad.key", &bads, &tries) {
        let shown = format!("{}{}", ended.out, ended.err);
        assert!(!shown.contains(&secret[..20]), "a message repeats a part of the seed: {shown}");
    }
}

#[test]
fn bad_configurations_grants_and_audit_logs_are_refused_by_every_command() {
    let site = site();
    let good = std::fs::read(site.file("portcullis.toml")).unwrap();
    let tries = [
        lenient(&["config", "check", "--config", "BAD"]),
        lenient(&["config", "print", "--config", "BAD"]),
        lenient(&["policy", "check", "--config", "BAD"]),
        strict(&["verify", "hello.wasm", "--config", "BAD"]),
        strict(&["status", "--config", "BAD"]),
        strict(&["start", "hello.wasm", "--config", "BAD"]),
    ];
    let all_bads = bads(&good, HUGE);
    all(&site, "bad.toml", &all_bads, &tries);
    // Half a configuration may be a whole one; then `host` and `run` would stay up.
    let refused: Vec<Bad> =
        all_bads.into_iter().filter(|bad| !bad.how.starts_with("cut") && !bad.how.starts_with("changed")).collect();
    for ended in all(
        &site,
        "bad.toml",
        &refused,
        &[strict(&["host", "--config", "BAD"]), strict(&["run", "hello.wasm", "--config", "BAD"])],
    ) {
        assert_eq!(ended.exit, 64, "{ended:?}");
    }

    let text = std::fs::read_to_string(site.file("portcullis.toml")).unwrap().replace("grants.toml", "bad.grants.toml");
    std::fs::write(site.file("with-bad-grants.toml"), text).unwrap();
    let grants = std::fs::read(site.file("grants.toml")).unwrap();
    let check = lenient(&["policy", "check", "--config", "with-bad-grants.toml"]);
    let add = lenient(&["grants", "add", "test:hello", "--load", "--config", "with-bad-grants.toml"]);
    all(&site, "bad.grants.toml", &bads(&grants, HUGE), &[check]);
    // The first grant of a site makes its file: a missing one is not bad input for `grants add`.
    let there: Vec<Bad> = bads(&grants, HUGE).into_iter().filter(|bad| bad.how != "missing").collect();
    assert!(there.len() < bads(&grants, HUGE).len());
    all(&site, "bad.grants.toml", &there, &[add]);
    std::fs::remove_file(site.file("bad.grants.toml")).ok();
    let made = site.run(["grants", "add", "test:hello", "--load", "--config", "with-bad-grants.toml"]);
    assert_eq!(made.exit, 0, "{made:?}");
    assert!(std::fs::read_to_string(site.file("bad.grants.toml")).unwrap().contains("test:hello"));

    let log = br#"{"v":1,"seq":0,"ts":"2026-01-01T00:00:00Z","kind":"genesis","log":"0","prev":"0","hash":"0"}"#;
    all(&site, "bad.jsonl", &bads(log, HUGE), &[strict(&["audit", "verify", "BAD"])]);
}

// gate: Start
#[test]
fn bad_files_given_to_a_running_host_change_nothing_in_it() {
    let mut site = Site::new();
    site.guest("hello", "");
    let host = Host::ready(site);
    let running = || {
        let list = host.run(["list"]).ok().json();
        let (running, refused): (Vec<Value>, Vec<Value>) =
            list.as_array().unwrap().iter().cloned().partition(|one| one.get("state") == Some(&"running".into()));
        assert!(refused.iter().all(|one| one.get("state") == Some(&"refused".into())), "{refused:?}");
        (running, refused.len())
    };
    let (before, none) = running();
    assert_eq!(none, 0);
    let component = guests::ours("hello");
    let start = [
        strict(&["start", "BAD", "--config", "portcullis.toml"]),
        strict(&["start", "BAD", "--bundle", "hello.wasm.sigstore.json", "--config", "portcullis.toml"]),
    ];
    all(host.site(), "bad.wasm", &bads(&component, HUGE), &start);
    let good = std::fs::read(host.site().file("hello.wasm.sigstore.json")).unwrap();
    let start = [strict(&["start", "hello.wasm", "--bundle", "BAD", "--config", "portcullis.toml"])];
    all(host.site(), "bad.sigstore.json", &bads(&good, HUGE), &start);
    let (after, refused) = running();
    assert_eq!(after, before, "a refused start changed what runs");
    assert!(refused > 0, "the operator sees nowhere what was refused");
    assert_eq!(host.ask_status(0).get("ready"), Some(&Value::Bool(true)));
}

#[test]
fn a_host_for_one_bad_component_ends_with_the_refusal() {
    let site = site();
    let few = |bad: &Bad| {
        ["missing", "empty", "folder", "pipe", "huge", "random", "cut in half", "NUL bytes"].contains(&bad.how.as_str())
    };
    let run = [strict(&["run", "BAD", "--config", "portcullis.toml", "--http", "127.0.0.1:0"])];
    let bads_of = |good: &[u8]| bads(good, HUGE).into_iter().filter(few).collect::<Vec<_>>();
    all(&site, "bad.wasm", &bads_of(&guests::ours("hello")), &run);
    let good = std::fs::read(site.file("hello.wasm.sigstore.json")).unwrap();
    let run =
        [strict(&["run", "hello.wasm", "--bundle", "BAD", "--config", "portcullis.toml", "--http", "127.0.0.1:0"])];
    all(&site, "bad.sigstore.json", &bads_of(&good), &run);
}

#[test]
fn a_write_that_fails_in_the_middle_leaves_the_old_file_and_no_half_one() {
    let site = site();
    let before = listing(site.path());
    // No file may grow: what `write` is cut short by on a full disk. The signal that comes with it is ignored, as EFBIG is then.
    let commands = [
        "sign hello.wasm --claims hello.claims.json --key signer.key --force",
        "sign hello.wasm --claims hello.claims.json --key signer.key --out new.sigstore.json",
        "claims init hello.wasm --out new.claims.json",
        "keys generate --out new.key",
        "trust sign trust.json --key root.key --out trust.signed.json",
        "trust add trust.json --signer SIGNER --name y --names y:* --identity-paths ns/y/sa/* --audiences y",
        "grants add test:other --load --config portcullis.toml",
    ];
    for command in commands {
        let command = command.replace("SIGNER", &site.public("other.key"));
        let script = format!("trap '' XFSZ; ulimit -f 0; exec \"$0\" {}", command.replace('*', "\\*"));
        let output = Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg(portcullis_tests::binary())
            .current_dir(site.path())
            .output()
            .unwrap();
        let ended = portcullis_tests::site::ended(output);
        assert_eq!(ended.exit, 2, "{command}: {ended:?}");
        assert!(
            ended.err.contains("error: ") && ended.err.contains("cannot be written") && ended.err.contains("hint: "),
            "{command}: {}",
            ended.err
        );
        assert_eq!(listing(site.path()), before, "{command} left something behind, or took something away");
    }
}

#[test]
fn a_command_that_is_killed_while_it_writes_leaves_no_half_file() {
    let site = site();
    let before = listing(site.path());
    // The signal that comes with the first byte over the limit kills the process in the middle of its write.
    for out in ["hello.wasm.sigstore.json", "new.sigstore.json"] {
        let command = format!("sign hello.wasm --claims hello.claims.json --key signer.key --force --out {out}");
        let script = format!("ulimit -c 0; ulimit -f 0; exec \"$0\" {command}");
        let output = Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg(portcullis_tests::binary())
            .current_dir(site.path())
            .output()
            .unwrap();
        assert_eq!(portcullis_tests::site::ended(output).exit, -1, "it was not killed");
        let changed = changed(&before, &listing(site.path()));
        // What a killed process cannot take away is hidden and never taken for a file of the user's.
        let temporary =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".portcullis-"));
        assert!(changed.iter().all(temporary), "{changed:?}");
    }
    site.run(["verify", "hello.wasm", "--config", "portcullis.toml"]).ok();
    site.run(["sign", "hello.wasm", "--claims", "hello.claims.json", "--key", "signer.key", "--force"]).ok();
}

#[test]
fn a_file_that_may_not_be_read_is_refused() {
    let site = site();
    let path = guests::put(site.path(), "bad.wasm", b"x");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::read(&path).is_ok() {
        return skip("a_file_that_may_not_be_read_is_refused", "root may read every file", true);
    }
    let ended = site.run(["inspect", "bad.wasm"]);
    assert_eq!(ended.exit, 2);
    assert!(ended.err.contains("bad.wasm") && ended.err.contains("hint: "), "{}", ended.err);
}

/// Tries every command on every bad file and checks what holds for all of them.
fn all(site: &Site, name: &str, bads: &[Bad], tries: &[Try]) -> Vec<Ended> {
    let path = site.file(name);
    let (mut endings, mut wrong) = (Vec::new(), Vec::new());
    for bad in bads {
        for attempt in tries {
            bad.make(&path);
            let before = listing(site.path());
            let args: Vec<&str> = attempt.args.iter().map(|arg| if *arg == "BAD" { name } else { arg }).collect();
            let ended = site.run_within(SECONDS, args.iter().chain(&["--json"]));
            let may_pass = attempt.lenient && !bad.never_passes;
            if let Err(why) = judge(&ended, name, may_pass) {
                wrong.push(format!("{} with {name} {}: {why}", args.join(" "), bad.how));
            }
            if ended.exit == 0 {
                for made in ["new.claims.json", "new.sigstore.json"] {
                    let _ = std::fs::remove_file(site.file(made));
                }
            } else if listing(site.path()) != before {
                wrong.push(format!(
                    "{} with {name} {}: files changed: {:#?}",
                    args.join(" "),
                    bad.how,
                    changed(&before, &listing(site.path()))
                ));
            }
            endings.push(ended);
        }
    }
    remove(&path);
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), endings.len(), wrong.join("\n"));
    endings
}

fn judge(ended: &Ended, name: &str, may_pass: bool) -> Result<(), String> {
    let json: Value = match serde_json::Deserializer::from_str(&ended.out).into_iter().last() {
        Some(Ok(json)) => json,
        other => {
            return Err(format!(
                "exit {}, standard output is no JSON ({other:?}): {} {}",
                ended.exit, ended.out, ended.err
            ));
        }
    };
    if ended.exit == 0 && may_pass {
        return Ok(());
    }
    if !DOCUMENTED.contains(&ended.exit) {
        return Err(format!("exit {} is not documented for bad input: {}", ended.exit, ended.err));
    }
    if json.pointer("/error/exit").and_then(Value::as_i64) != Some(ended.exit.into()) {
        return Err(format!("exit {} is not what the JSON says: {json}", ended.exit));
    }
    if ended.err.contains("panicked") || ended.out.contains("panicked") {
        return Err(format!("it panicked: {}", ended.err));
    }
    for part in ["error: ", "hint: ", name] {
        if !ended.err.contains(part) {
            return Err(format!("standard error is without `{part}`: {}", ended.err));
        }
    }
    Ok(())
}

/// What can be wrong with a file that should hold `good`.
fn bads(good: &[u8], huge: u64) -> Vec<Bad> {
    let file = |how: &str, make| Bad { how: how.to_owned(), make, never_passes: true };
    let content =
        |how: &str, bytes: Vec<u8>| Bad { how: how.to_owned(), make: Make::Bytes(bytes), never_passes: false };
    let mut bads = vec![
        file("missing", Make::Missing),
        file("empty", Make::Bytes(Vec::new())),
        file("folder", Make::Folder),
        file("pipe", Make::Pipe),
        file("huge", Make::Sparse(huge)),
        content("random", random(4096)),
        content("not UTF-8", [&b"version = 1\n\xff\xfe"[..], good].concat()),
        content("NUL bytes", vec![0; 4096]),
        content("a NUL in front", [&b"\0"[..], good].concat()),
        content("deep arrays", "[".repeat(200_000).into_bytes()),
        content("deep objects", "{\"a\":".repeat(100_000).into_bytes()),
        content("deep TOML", format!("a = {}", "[".repeat(200_000)).into_bytes()),
        content("cut in half", good[..good.len() / 2].to_vec()),
    ];
    for part in 1..CUTS {
        bads.push(content(&format!("cut at {part}/{CUTS}"), good[..(good.len() * part / CUTS).max(1)].to_vec()));
    }
    bads.push(content(
        "cut by one byte",
        good.trim_ascii_end().split_last().map(|(_, rest)| rest.to_vec()).unwrap_or_default(),
    ));
    bads
}

impl Bad {
    fn make(&self, path: &Path) {
        remove(path);
        match &self.make {
            Make::Missing => return,
            Make::Folder => std::fs::create_dir(path).unwrap(),
            Make::Pipe => assert!(Command::new("mkfifo").arg("-m").arg("600").arg(path).status().unwrap().success()),
            Make::Sparse(size) => std::fs::File::create(path).unwrap().set_len(*size).unwrap(),
            Make::Bytes(bytes) => std::fs::write(path, bytes).unwrap(),
        }
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
}

/// A site with one signed component, a configuration and no host.
fn site() -> Site {
    let mut site = Site::new();
    site.guest("hello", "");
    site.run(["keys", "generate", "--out", "other.key"]).ok();
    site.write();
    site
}

/// All files but those of a running host: path, size, time of change.
fn listing(folder: &Path) -> BTreeMap<PathBuf, (u64, u128)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if ["state", "host.log"].iter().any(|name| path.ends_with(name)) {
            continue;
        }
        let changed = meta
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .map_or(0, |since| since.as_nanos());
        if meta.is_dir() {
            found.extend(listing(&path));
        }
        found.insert(path, (meta.len(), changed));
    }
    found
}

fn changed(before: &BTreeMap<PathBuf, (u64, u128)>, after: &BTreeMap<PathBuf, (u64, u128)>) -> Vec<PathBuf> {
    let all = before.keys().chain(after.keys());
    all.filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

fn remove(path: &Path) {
    let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
}

fn random(length: usize) -> Vec<u8> {
    // xorshift: the same bytes in every run, so that a failure can be seen again.
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn leak(text: String) -> &'static str {
    text.leak()
}

/// What bad input may end with: neither "internal" nor, of course, a panic or a signal.
const DOCUMENTED: &[i32] = &[2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 64];
/// More than any file of a user's may have; sparse, so that it costs nothing.
const HUGE: u64 = 8 << 30;
const CUTS: usize = 8;
const SECONDS: u32 = 60;
