//! Tests: a crash, or a disk that fails, at each step that the issuer takes on disk, in every transition of an authority. After
//! it the issuer opens, signs, accepts what it had handed out, and never shows one sequence with two contents.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;

use super::Issuer;
use super::opening;
use crate::authority::{AuthorityKind, AuthorityState};
use crate::issuer_error::IssuerError;
use crate::issuer_options::IssuerOptions;
use crate::key_store::{KeyStore, Step};
use crate::lifetimes::Lifetimes;
use crate::workload::{InstanceId, Workload};

const HOUR: Duration = Duration::from_secs(3600);

fn at(hours: f64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap() + HOUR.mul_f64(hours)
}

type Watch = Box<dyn FnMut(&Path, Step) -> io::Result<()> + Send>;

fn open(dir: &Path, now: OffsetDateTime, watch: Option<Watch>) -> Result<Issuer, IssuerError> {
    let store = KeyStore::open(dir)?;
    *store.watch.borrow_mut() = watch;
    let mut issuer =
        opening::open(store, &"example.org".parse().unwrap(), IssuerOptions::new(Lifetimes::default()), now)?;
    let spiffe_id = "spiffe://example.org/a".parse().unwrap();
    let (digest, component, exportable) = (String::new(), String::new(), false);
    issuer.admit(Workload { instance: one(), spiffe_id, digest, component, exportable }).unwrap();
    Ok(issuer)
}

fn one() -> InstanceId {
    "one".parse().unwrap()
}

/// What the outside has seen.
#[derive(Clone, Default)]
struct Seen {
    bundles: BTreeMap<u64, String>,
    /// The `kid`, the token, its end.
    tokens: Vec<(String, String, OffsetDateTime)>,
}

impl Seen {
    /// Looks at everything that a consumer would.
    fn look(&mut self, issuer: &mut Issuer, now: OffsetDateTime, why: &str) {
        let bundle = issuer.bundle();
        if let Some(before) = self.bundles.insert(bundle.sequence(), bundle.to_json()) {
            assert_eq!(before, bundle.to_json(), "{why}: one sequence, two contents");
        }
        let last = self.bundles.last_key_value().map(|(sequence, _)| *sequence);
        assert_eq!(last, Some(bundle.sequence()), "{why}: the sequence went back");
        for (kid, token, end) in &self.tokens {
            let tainted = issuer
                .authorities()
                .iter()
                .any(|status| status.id.as_str() == kid && status.state == AuthorityState::Tainted);
            match issuer.validate_jwt(token, "vault", now) {
                Ok(_) => assert!(!tainted, "{why}: a token of a tainted authority is valid"),
                Err(error) => {
                    assert!(tainted || now >= *end, "{why}: a token that was handed out is refused: {error}");
                }
            }
        }
        let audience = ["vault".parse().unwrap()];
        let minted = issuer.jwt_svid(&one(), &audience, Duration::from_secs(300), now).unwrap();
        assert!(issuer.validate_jwt(minted.svid.token(), "vault", now).is_ok(), "{why}");
        let kid = issuer
            .authorities()
            .into_iter()
            .find(|status| status.kind == AuthorityKind::Jwt && status.state == AuthorityState::Active);
        let (kid, end) = (kid.unwrap().id.to_string(), minted.svid.expires_at());
        self.tokens.push((kid, minted.svid.token().to_owned(), end));
        issuer.x509_svid(&one(), HOUR, now).unwrap();
    }
}

/// One thing that is done to an issuer that was opened before.
struct Scenario {
    name: &'static str,
    /// Brings a new directory to the state before.
    before: fn(&mut Issuer),
    now: f64,
    act: fn(&mut Issuer, OffsetDateTime),
}

fn scenarios() -> Vec<Scenario> {
    let taint = |issuer: &mut Issuer, now| taint(issuer, AuthorityKind::X509, now);
    let taint_jwt = |issuer: &mut Issuer, now| super::crashes::taint(issuer, AuthorityKind::Jwt, now);
    vec![
        Scenario { name: "prepare", before: |_| (), now: 12.0, act: |issuer, now| drop(issuer.tick(now)) },
        Scenario {
            name: "activate",
            before: |issuer| drop(issuer.tick(at(12.0))),
            now: 20.0,
            act: |issuer, now| drop(issuer.tick(now)),
        },
        Scenario {
            name: "prune",
            before: |issuer| {
                issuer.tick(at(12.0));
                issuer.tick(at(20.0));
            },
            now: 21.5,
            act: |issuer, now| drop(issuer.tick(now)),
        },
        Scenario {
            name: "rotate by force",
            before: |_| (),
            now: 1.0,
            act: |issuer, now| AuthorityKind::ALL.into_iter().for_each(|kind| drop(issuer.rotate(kind, now))),
        },
        Scenario { name: "taint", before: |_| (), now: 1.0, act: taint },
        Scenario { name: "taint of the JWT authority", before: |_| (), now: 1.0, act: taint_jwt },
        Scenario {
            name: "taint with a successor prepared",
            before: |issuer| drop(issuer.tick(at(12.0))),
            now: 12.5,
            act: taint,
        },
    ]
}

fn taint(issuer: &mut Issuer, kind: AuthorityKind, now: OffsetDateTime) {
    let active = issuer.authorities().into_iter();
    let active = active.filter(|status| status.kind == kind).find(|status| status.state == AuthorityState::Active);
    let active = active.unwrap().id;
    issuer.taint(&active, now).unwrap();
    let shown = issuer.authorities().into_iter().find(|status| status.id == active).unwrap();
    assert_eq!(shown.state, AuthorityState::Tainted, "in force, whatever the disk did");
}

fn copy(from: &Path, to: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A directory in the state before the scenario, and what was seen of it.
fn prepared(scenario: &Scenario, dir: &Path) -> Seen {
    let mut seen = Seen::default();
    let mut issuer = open(dir, at(0.0), None).unwrap();
    seen.look(&mut issuer, at(0.0), scenario.name);
    (scenario.before)(&mut issuer);
    seen.look(&mut issuer, at(scenario.now), scenario.name);
    seen
}

/// Reopens after a crash and looks; then goes on for a day as if nothing had been.
fn recovers(dir: &Path, now: OffsetDateTime, mut seen: Seen, why: &str) {
    let mut issuer = open(dir, now, None).unwrap_or_else(|error| panic!("{why}: {error}"));
    seen.look(&mut issuer, now, why);
    let named = issuer.authorities().iter().filter(|status| status.key_place == "file").count();
    let files = fs::read_dir(dir).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_str().unwrap().ends_with(".key")
    });
    assert_eq!(files.count(), named + 1, "{why}: a key that nothing names is left");
    for hour in 1..30 {
        let later = now + HOUR * hour;
        let changes = issuer.tick(later);
        assert!(changes.failures.is_empty(), "{why}: {changes:?}");
        seen.look(&mut issuer, later, why);
    }
}

#[test]
fn a_copy_of_the_directory_from_each_step_of_each_transition_recovers() {
    for scenario in scenarios() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("identity");
        let seen = prepared(&scenario, &dir);
        let copies: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
        let (to, root) = (Arc::clone(&copies), temporary.path().to_owned());
        let watch: Watch = Box::new(move |dir, step| {
            let mut copies = to.lock().unwrap();
            let name = root.join(format!("{}-{step:?}", copies.len()));
            copy(dir, &name);
            copies.push(name);
            Ok(())
        });
        // The opening's own steps are copied, too.
        let mut issuer = open(&dir, at(scenario.now), Some(watch));
        if let Ok(issuer) = &mut issuer {
            (scenario.act)(issuer, at(scenario.now));
        }
        drop(issuer);
        let copies = copies.lock().unwrap().clone();
        assert!(copies.len() >= 6, "{}: {} steps", scenario.name, copies.len());
        for copy in copies {
            recovers(&copy, at(scenario.now), seen.clone(), &format!("{} {}", scenario.name, copy.display()));
        }
    }
}

#[test]
fn a_disk_that_fails_for_good_at_any_step_of_any_transition_leaves_a_state_that_recovers() {
    each_step(&|fail_from, step| step < fail_from);
}

#[test]
fn a_disk_that_fails_once_at_any_step_of_any_transition_leaves_an_issuer_that_goes_on() {
    each_step(&|fail_at, step| step != fail_at);
}

fn each_step(works: &(impl Fn(usize, usize) -> bool + Sync)) {
    for scenario in scenarios() {
        for fail in 0.. {
            assert!(fail < 100, "{}: it never ends", scenario.name);
            let temporary = tempfile::tempdir().unwrap();
            let dir = temporary.path().join("identity");
            let mut seen = prepared(&scenario, &dir);
            let why = format!("{} with a failure at step {fail}", scenario.name);
            let mut issuer = open(&dir, at(scenario.now) - Duration::from_secs(1), None).unwrap();
            seen.look(&mut issuer, at(scenario.now) - Duration::from_secs(1), &why);
            let outcome: Vec<bool> = (0..100).map(|step| works(fail, step)).collect();
            let counter = Arc::new(Mutex::new((0, false)));
            let count = Arc::clone(&counter);
            *issuer.authorities.vault.store.watch.borrow_mut() = Some(Box::new(move |_, _| {
                let mut count = count.lock().unwrap();
                let works = outcome.get(count.0).copied().unwrap_or(true);
                count.0 += 1;
                count.1 |= !works;
                if works { Ok(()) } else { Err(io::Error::from(io::ErrorKind::StorageFull)) }
            }));
            (scenario.act)(&mut issuer, at(scenario.now));
            let failed = counter.lock().unwrap().1;
            // What is in force in memory must be fit to be seen; a taint waits neither for a successor nor for the disk.
            let audience = ["vault".parse().unwrap()];
            let jwt = issuer.jwt_svid(&one(), &audience, Duration::from_secs(300), at(scenario.now)).map(drop);
            match issuer.x509_svid(&one(), HOUR, at(scenario.now)).map(drop).and(jwt) {
                Ok(()) => seen.look(&mut issuer, at(scenario.now), &why),
                Err(denied) => {
                    assert!(scenario.name.starts_with("taint"), "{why}");
                    assert_eq!(denied, super::minting::IssueError::AuthorityExpired);
                    let statuses = issuer.authorities();
                    let tainted: Vec<_> =
                        statuses.iter().filter(|status| status.state == AuthorityState::Tainted).collect();
                    assert!(!tainted.is_empty(), "{why}");
                    for (kid, token, _) in &seen.tokens {
                        let valid = issuer.validate_jwt(token, "vault", at(scenario.now)).is_ok();
                        assert!(!valid || tainted.iter().all(|status| status.id.as_str() != kid), "{why}");
                    }
                }
            }
            if !failed {
                break;
            }
            // The same process goes on once the disk works again.
            *issuer.authorities.vault.store.watch.borrow_mut() = None;
            let mut later = seen.clone();
            let crashed = temporary.path().join("crashed");
            copy(&dir, &crashed);
            issuer.tick(at(scenario.now));
            later.look(&mut issuer, at(scenario.now), &why);
            drop(issuer);
            recovers(&dir, at(scenario.now), later, &why);
            // Or it crashed there and then.
            recovers(&crashed, at(scenario.now), seen, &format!("{why}, crashed"));
        }
    }
}

#[test]
fn the_first_opening_recovers_from_a_failure_at_any_step() {
    for fail in 0.. {
        assert!(fail < 100);
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("identity");
        let mut step = 0;
        let watch: Watch = Box::new(move |_, _| {
            step += 1;
            if step > fail { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
        });
        let opened = open(&dir, at(0.0), Some(watch));
        let complete = opened.is_ok();
        let mut seen = Seen::default();
        if let Ok(mut issuer) = opened {
            seen.look(&mut issuer, at(0.0), "first opening");
        }
        recovers(&dir, at(0.0), seen, &format!("first opening with a failure at step {fail}"));
        if complete && fail > 20 {
            break;
        }
    }
}
