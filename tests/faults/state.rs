//! What happens when files that a host lives on are damaged, missing or cannot be written: it says so, and admits nothing on them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_tests::host::Host;
use portcullis_tests::patience::LONG;
use portcullis_tests::processes::holds_within;
use portcullis_tests::site::Site;
use portcullis_tests::{guests, http, skip};
use serde_json::Value;

#[test]
fn a_warm_start_uses_the_cache_and_a_damaged_entry_is_made_again() {
    let mut site = site();
    site.guest("echo", "");
    let host = Host::ready(site);
    assert_eq!(detail(&host, "test:hello"), "native code made now");
    let host = Host::ready(host.stop());
    assert_eq!(detail(&host, "test:hello"), "native code from the cache");
    let digest = component(&host, "test:hello").get("digest").and_then(Value::as_str).unwrap().replace("sha256:", "");
    let (entry, other) = entries(&host, &digest);
    let mut site = host.stop();

    let good = std::fs::read(&entry).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damages: [(&str, Vec<u8>); 6] = [
        ("its MAC changed", flipped(0)),
        ("its first byte of code changed", flipped(32)),
        ("its last byte changed", flipped(good.len() - 1)),
        ("cut in half", good[..good.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("another component's", std::fs::read(&other).unwrap()),
    ];
    for (how, bytes) in damages {
        std::fs::write(&entry, bytes).unwrap();
        let host = Host::ready(site);
        assert_eq!(detail(&host, "test:hello"), "native code made now", "an entry that is {how} was loaded");
        assert!(host.log().contains("cannot be used and is made again"), "{how}: {}", host.log());
        assert_eq!(http::get(host.http(), "/hello", &[]).text(), "Hello, world!\n", "{how}");
        site = host.stop();
    }
    // Whatever else has its name is no entry either.
    let good = std::fs::read(&entry).unwrap();
    std::fs::set_permissions(&entry, PermissionsExt::from_mode(0o644)).unwrap();
    let host = Host::ready(site);
    assert_eq!(detail(&host, "test:hello"), "native code made now", "an entry that others may read was loaded");
    let site = host.stop();
    let elsewhere = site.file("elsewhere");
    std::fs::write(&elsewhere, good).unwrap();
    std::fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::remove_file(&entry).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &entry).unwrap();
    let host = Host::ready(site);
    assert_eq!(detail(&host, "test:hello"), "native code made now", "a link was followed");
    let host = Host::ready(host.stop());
    assert_eq!(detail(&host, "test:hello"), "native code from the cache", "it is not kept any more");
}

#[test]
fn a_torn_last_line_of_the_audit_log_is_set_aside_and_recorded() {
    let host = Host::ready(site());
    let path = host.audit_path();
    let site = host.killed();
    let torn = br#"{"v":1,"seq":99,"kind":"admission","te"#;
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], torn].concat()).unwrap();
    let host = Host::ready(site);
    let record = host.record(&[("kind", "torn")]);
    assert_eq!(record.get("bytes").and_then(Value::as_u64), u64::try_from(torn.len()).ok());
    let aside = std::fs::read(path.with_extension("jsonl.torn")).unwrap();
    assert!(aside.starts_with(torn), "the torn line was dropped");
    assert!(std::fs::read(&path).unwrap().starts_with(&whole), "whole lines were changed");
    host.run(["audit", "verify"]).ok();
}

#[test]
fn a_host_does_not_go_on_after_an_audit_log_whose_last_line_was_changed() {
    let host = Host::ready(site());
    let path = host.audit_path();
    let site = host.stop();
    let whole = std::fs::read_to_string(&path).unwrap();
    let changed = whole
        .trim_end()
        .rsplit_once('\n')
        .map(|(before, last)| format!("{before}\n{}\n", last.replacen("\"host\"", "\"nobody\"", 1)))
        .unwrap();
    assert_ne!(changed, whole);
    std::fs::write(&path, &changed).unwrap();
    let ended = site.run_within(60, ["host", "--config", "portcullis.toml", "--json"]);
    assert!(ended.exit > 0 && ended.exit != 101 && ended.exit != 137, "{ended:?}");
    for part in ["error: ", "hint: ", "was changed", &path.display().to_string()] {
        assert!(ended.err.contains(part), "no `{part}`: {}", ended.err);
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), changed, "evidence of the change was touched");
    assert_eq!(site.run(["audit", "verify", "--config", "portcullis.toml"]).exit, 13);
}

#[test]
fn nothing_is_admitted_that_cannot_be_recorded() {
    let mut site = site();
    sign_granted(&mut site, "echo");
    let folder = site.file("state/audit");
    std::fs::create_dir_all(&folder).unwrap();
    for folder in [site.file("state"), folder.clone()] {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).unwrap();
    }
    let Some(_disk) = SmallDisk::mount(&folder) else {
        return skip("nothing_is_admitted_that_cannot_be_recorded", "this user may not mount a small disk", true);
    };
    let host = Host::ready(site);
    fill(&folder.join("filler"));
    // What is left of the last block takes a few records; after that each start must be refused.
    let refused = (0..64).map(|_| host.run(["start", "echo.wasm"])).find(|ended| ended.exit != 0);
    let refused = refused.expect("the disk is full, and yet every start was recorded");
    assert_ne!(refused.exit, 101, "{refused:?}");
    assert!(refused.err.contains("error: ") && !refused.err.contains("panicked"), "{refused:?}");
    let before = host.run(["list"]).ok().json();
    for _ in 0..3 {
        assert_ne!(host.run(["start", "echo.wasm"]).exit, 0, "an admission was not recorded");
    }
    assert_eq!(host.run(["list"]).ok().json(), before, "a component runs whose admission was not recorded");
    // Each instance that runs has its admission in the log.
    let audit = host.audit();
    for running in before.as_array().unwrap().iter().filter(|one| one["state"] == "running") {
        let instance = running.get("instance").unwrap();
        assert!(
            audit
                .iter()
                .any(|record| record.get("kind") == Some(&"admission".into())
                    && record.get("instance") == Some(instance)),
            "{running:#}"
        );
    }
    let status = host.ask_status(0);
    assert_eq!(status.get("ready"), Some(&Value::Bool(false)));
    assert!(problems(&status).contains("the audit log cannot be written"), "{status:#}");
    host.run(["audit", "verify"]).ok();
}

#[test]
fn damaged_marks_of_the_highest_revisions_admit_nothing() {
    let host = Host::ready(site());
    let marks = host.site().file("state/high-water.json");
    let mut site = host.stop();
    let good = std::fs::read(&marks).unwrap();
    for (how, bytes) in [("cut", good[..good.len() / 2].to_vec()), ("empty", Vec::new()), ("random", vec![0xff; 64])] {
        std::fs::write(&marks, &bytes).unwrap();
        let host = Host::start(site);
        let status = host.ask_status(0);
        assert_eq!(status.get("ready"), Some(&Value::Bool(false)), "{how}: {status:#}");
        assert!(problems(&status).contains("high-water.json"), "{how}: it does not say why: {status:#}");
        let refused = host.run(["start", "hello.wasm", "--route", "/hello"]);
        assert!(refused.exit > 0 && refused.exit != 101, "{how}: {refused:?}");
        assert!(refused.err.contains("high-water.json"), "{how}: {}", refused.err);
        assert_eq!(http::get(host.http(), "/hello", &[]).status, 404, "{how}");
        let checked = host.site().run(["verify", "hello.wasm", "--config", "portcullis.toml", "--json"]);
        assert_ne!(checked.exit, 0, "{how}: `verify` says yes where the host says no: {checked:?}");
        site = host.stop();
        assert_eq!(
            std::fs::read(&marks).unwrap(),
            bytes,
            "{how}: the damaged file was replaced, and rollback protection forgotten"
        );
    }
    std::fs::write(&marks, good).unwrap();
    let host = Host::ready(site);
    assert_eq!(http::get(host.http(), "/hello", &[]).status, 200);
}

#[test]
fn without_usable_grants_everything_is_denied_and_the_host_says_so() {
    let mut site = site();
    let bad: [(&str, Option<&[u8]>); 4] = [
        ("missing", None),
        ("empty", Some(b"")),
        ("no TOML", Some(b"version = 1\n[[grant]\n")),
        ("an unknown key", Some(b"version = 1\nallow_all = true\n")),
    ];
    for (how, bytes) in bad {
        site.damage("grants.toml", bytes);
        let host = Host::start(site);
        let status = host.ask_status(0);
        assert_eq!(status.get("ready"), Some(&Value::Bool(false)), "{how}");
        assert!(problems(&status).contains("grants.toml"), "{how}: {status:#}");
        assert_eq!(http::get(host.http(), "/hello", &[]).status, 404, "{how}");
        let refused = host.run(["start", "hello.wasm", "--route", "/hello"]);
        assert_eq!(refused.exit, 20, "{how}: {refused:?}");
        assert_eq!(http::get(host.http(), "/hello", &[]).status, 404, "{how}");
        site = host.stop();
        site.undamage();
    }
    let host = Host::ready(site);
    assert_eq!(http::get(host.http(), "/hello", &[]).status, 200);
}

// gate: ReloadPolicy
#[test]
fn a_bad_reload_keeps_the_policy_in_force_and_says_line_and_column() {
    let host = Host::ready(site());
    let grants = host.site().file("grants.toml");
    let good = std::fs::read_to_string(&grants).unwrap();
    let generation = |status: &Value| status.get("policy_generation").and_then(Value::as_u64).unwrap();
    let before = generation(&host.ask_status(0));
    // The mistake is on a line that can be counted: one after the text that was there.
    let line = good.lines().count() + 1;
    std::fs::write(&grants, format!("{good}[[grant]\n")).unwrap();
    Host::signal(host.supervisor(), "HUP");
    let place = format!("grants.toml:{line}:");
    let said = holds_within(LONG, || problems(&host.ask_status(0)).contains(&place));
    let status = host.ask_status(0);
    assert!(said, "no `{place}`: {status:#}");
    assert_eq!(status.get("ready"), Some(&Value::Bool(false)));
    assert_eq!(generation(&status), before);
    assert_eq!(http::get(host.http(), "/hello", &[]).status, 200, "the policy in force is gone");

    std::fs::write(&grants, &good).unwrap();
    Host::signal(host.supervisor(), "HUP");
    assert!(
        holds_within(LONG, || host.ask_status(0).get("ready") == Some(&Value::Bool(true))),
        "{:#}",
        host.ask_status(0)
    );
    assert!(generation(&host.ask_status(0)) > before);
    // Taken back: what is not granted any more ends with the reload, not with the next start.
    std::fs::write(&grants, good.replace("callers = [\"anonymous\"]\n", "")).unwrap();
    Host::signal(host.supervisor(), "HUP");
    assert!(
        holds_within(LONG, || http::get(host.http(), "/hello", &[]).status == 403),
        "a grant that was taken back still holds"
    );
}

#[test]
fn without_a_usable_trust_policy_nothing_is_admitted_and_the_host_says_so() {
    let mut site = site();
    let good = std::fs::read(site.file("trust.signed.json")).unwrap();
    let unsigned = std::fs::read(site.file("trust.json")).unwrap();
    let bad: [(&str, Option<&[u8]>); 4] = [
        ("missing", None),
        ("empty", Some(b"")),
        ("cut", Some(&good[..good.len() / 2])),
        ("not signed", Some(&unsigned)),
    ];
    for (how, bytes) in bad {
        site.damage("trust.signed.json", bytes);
        let host = Host::start(site);
        let status = host.ask_status(0);
        assert_eq!(status.get("ready"), Some(&Value::Bool(false)), "{how}");
        let problems = problems(&status);
        assert!(problems.contains("trust.signed.json") && problems.contains("trust."), "{how}: {status:#}");
        let refused = host.run(["start", "hello.wasm", "--route", "/hello"]);
        assert_eq!(refused.exit, 17, "{how}: {refused:?}");
        assert!(refused.code().starts_with("trust."), "{how}: {}", refused.code());
        assert!(refused.err.contains("hint: "), "{how}: {}", refused.err);
        assert_eq!(http::get(host.http(), "/hello", &[]).status, 404, "{how}");
        site = host.stop();
        site.undamage();
    }
    std::fs::write(site.file("trust.signed.json"), good).unwrap();
    let host = Host::ready(site);
    assert_eq!(http::get(host.http(), "/hello", &[]).status, 200);
}

#[test]
fn a_component_that_was_refused_at_the_start_runs_once_it_is_granted_and_the_host_gets_ready() {
    let mut site = site();
    site.damage("grants.toml", Some(b"version = 1\n"));
    let host = Host::start(site);
    assert!(problems(&host.ask_status(0)).contains("hello.wasm"), "{:#}", host.ask_status(0));
    host.run(["grants", "add", "test:hello", "--load", "--caller", "anonymous"]).ok();
    // A grant alone starts nothing.
    assert_eq!(host.ask_status(0).get("ready"), Some(&Value::Bool(false)));
    host.run(["start", "hello.wasm"]).ok();
    assert_eq!(http::get(host.http(), "/hello", &[]).status, 200);
    let status = host.ask_status(LONG.as_secs());
    assert_eq!(status.get("ready"), Some(&Value::Bool(true)), "it runs, and is held against the host: {status:#}");
    let components = host.run(["list"]).ok().json();
    assert_eq!(components.as_array().map(Vec::len), Some(1), "{components:#}");
}

/// A disk of a few blocks, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs"]).arg(at).output().ok()?;
        mounted.status.success().then(|| Self(at.to_path_buf()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&[0; 1024]).is_ok() {}
}

fn site() -> Site {
    let mut site = Site::new();
    site.guest("hello", "");
    site
}

fn sign_granted(site: &mut Site, name: &str) {
    site.sign(name, &guests::ours(name));
    site.grants(&format!("\n[[grant]]\nid = \"{name}\"\nreason = \"a test\"\nowner = \"tests\"\ncomponent = \"test:{name}\"\nload = true\n"));
}

fn component(host: &Host, name: &str) -> Value {
    let list = host.run(["list"]).ok().json();
    let list = list.as_array().cloned().unwrap_or_default();
    list.into_iter()
        .find(|component| component.get("name").and_then(Value::as_str) == Some(name))
        .unwrap_or_else(|| panic!("{name} does not run"))
}

fn detail(host: &Host, name: &str) -> String {
    component(host, name).get("detail").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The cache entry of a digest, and one of another.
fn entries(host: &Host, digest: &str) -> (PathBuf, PathBuf) {
    let folder = host.site().file("state/cache");
    let all: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (mut own, mut others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|path| path.display().to_string().contains(digest));
    (own.pop().expect("an entry for the component"), others.pop().expect("an entry of another component"))
}

fn problems(status: &Value) -> String {
    let problems = status.get("problems").and_then(Value::as_array).cloned().unwrap_or_default();
    problems.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}
