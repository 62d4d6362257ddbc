//! Policy files that change while a host runs: taken up without being asked, or refused with the place, never half.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken test must stop"
)]

use std::path::Path;
use std::time::Duration;

use portcullis_tests::host::Host;
use portcullis_tests::http;
use portcullis_tests::processes::holds_within;
use portcullis_tests::site::Site;

/// Generous: a change is to be in force within a second, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(10);

fn site() -> Site {
    let mut site = Site::new();
    site.guest("hello", "");
    site
}

fn status(host: &Host) -> u16 {
    http::get(host.http(), "/hello", &[]).status
}

fn problems(host: &Host) -> String {
    host.ask_status(0)["problems"].to_string()
}

/// Writes beside and renames, as editors and deployment tools do.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

#[test]
fn a_changed_grants_file_is_in_force_without_a_reload() {
    let host = Host::ready(site());
    assert_eq!(status(&host), 200);
    let path = host.site().file("grants.toml");
    let granted = std::fs::read_to_string(&path).unwrap();
    // In place, by a rename, and back: three generations.
    std::fs::write(&path, granted.replace("callers = [\"anonymous\"]\n", "")).unwrap();
    assert!(holds_within(SOON, || status(&host) == 403), "{}", host.log());
    replace(&path, &granted);
    assert!(holds_within(SOON, || status(&host) == 200), "{}", host.log());
    let generation = host.record(&[("kind", "policy")]);
    assert!(generation["generation"].as_u64() >= Some(2), "{generation}");
}

#[test]
fn a_bad_file_keeps_the_policy_names_the_place_and_is_mended_without_a_reload() {
    let host = Host::ready(site());
    let path = host.site().file("grants.toml");
    let granted = std::fs::read_to_string(&path).unwrap();
    for (bad, said) in [
        (format!("{granted}\nx = = 1\n"), "grants.toml:"),
        (granted.replace("load = true", "laod = true"), "unknown key `laod`"),
        (granted.replace("version = 1", "version = 9"), "version 1 of the format"),
    ] {
        std::fs::write(&path, &bad).unwrap();
        assert!(holds_within(SOON, || problems(&host).contains(said)), "{said}: {}", problems(&host));
        assert_eq!(status(&host), 200, "the policy before stays in force");
        assert_eq!(host.ask_status(0)["ready"], false);
    }
    let refused = host.record(&[("kind", "policy")]);
    assert!(refused["refused"].to_string().contains("grants.toml"), "{refused}");
    std::fs::write(&path, &granted).unwrap();
    assert!(holds_within(SOON, || host.ask_status(0)["ready"] == true), "{}", problems(&host));
}

#[test]
fn a_file_that_is_taken_away_keeps_the_policy_and_says_so() {
    let host = Host::ready(site());
    std::fs::remove_file(host.site().file("grants.toml")).unwrap();
    assert!(holds_within(SOON, || problems(&host).contains("grants.toml")), "{}", problems(&host));
    assert_eq!(status(&host), 200);
}

#[test]
fn without_a_policy_at_its_start_a_host_is_up_denies_everything_and_is_not_ready() {
    for (bytes, said) in [
        (None, "grants.toml"),
        (Some(&b""[..]), "is empty"),
        (Some(b"version = 1\n"), "grant nothing"),
        (Some(b"version = ["), "grants.toml:"),
    ] {
        let mut site = site();
        site.damage("grants.toml", bytes);
        let host = Host::start(site);
        assert_eq!(host.ask_status(0)["ready"], false);
        assert!(problems(&host).contains(said), "{said}: {}", problems(&host));
        assert_ne!(status(&host), 200);
        assert!(host.record(&[("kind", "denial")])["code"].as_str().is_some());
    }
}

#[test]
fn fifty_changes_in_a_row_end_with_the_last() {
    let host = Host::ready(site());
    let path = host.site().file("grants.toml");
    let granted = std::fs::read_to_string(&path).unwrap();
    for n in 0..50 {
        let closed = granted.replace("callers = [\"anonymous\"]\n", "");
        let text = if n % 2 == 0 { &closed } else { &granted };
        replace(&path, &format!("{text}\n# change {n}\n"));
        let now = status(&host);
        assert!(now == 200 || now == 403, "{now} while policies change");
    }
    assert!(holds_within(SOON, || host.ask_status(0)["ready"] == true && status(&host) == 200), "{}", problems(&host));
}
