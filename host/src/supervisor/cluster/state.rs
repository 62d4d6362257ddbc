//! What a host knows of its cluster now, in memory: what is wanted, what runs here by that, what did not start, what was refused.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portcullis_cluster::limits::DEAD_AFTER;
use portcullis_cluster::{Failed, HostId, Manifest, Members};
use portcullis_identity::statement::Signer;
use portcullis_signing::{ComponentName, Digest};

use crate::limits::{CLUSTER_REFUSED, CLUSTER_RETRY};

/// The state of one host.
#[derive(Debug, Default)]
pub struct State {
    /// The manifests that are believed.
    pub desired: BTreeMap<ComponentName, Wanted>,
    /// What runs here by one.
    pub runs: BTreeMap<ComponentName, Run>,
    /// What did not start.
    pub failures: BTreeMap<ComponentName, Failure>,
    /// Who is alive.
    pub members: Members,
    /// Values that are not believed, by their place: code and reason.
    pub refused: BTreeMap<String, (String, String)>,
    /// Manifests that are not believed, as other hosts and operators are told.
    pub doubted: BTreeMap<ComponentName, Failed>,
    /// What is wrong with files of the configuration.
    pub trust_problems: Vec<String>,
    /// The cluster's set of policies that cannot be used.
    pub bad_set: Option<BadSet>,
    /// Why the set of policies on disk is not in force.
    pub disk_problem: Option<String>,
    /// A list of revocations was found, and is not believed.
    pub unbelieved: bool,
    /// What ran here may be started by what is on disk.
    pub restoring: bool,
    /// All of that was checked, and started where that may be.
    pub restored: bool,
    /// Why nothing is started from the disk.
    pub offline_problem: Option<String>,
    /// A look has read all manifests: what the cluster wants is known.
    pub wanted_read: bool,
    /// Why the buckets cannot be read.
    pub read_problem: Option<String>,
    /// From when on this host places, after the connection came.
    pub places_from: Option<Instant>,
    /// When this host last heard its own heartbeat.
    pub echo: Option<Instant>,
    /// The number of its last heartbeat.
    pub sequence: u64,
    /// The highest number that it heard of itself.
    echoed: u64,
}

/// A set of policies that cannot be used beside this host's own files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSet {
    /// Its version.
    pub version: u64,
    /// The generation of policy that it was tried with: beside other files it may fit.
    pub generation: u64,
    /// What is wrong.
    pub why: String,
}

/// A manifest that is believed, for as long as its statement holds: then what runs goes on, and nothing is started by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What is wanted.
    pub manifest: Manifest,
    /// Until when, in seconds since 1970.
    pub until: i64,
    /// Who signed it: asked for again before something is started by it.
    pub by: Signer,
}

/// A component that runs here by a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The manifest's version.
    pub version: u64,
    /// The instance.
    pub instance: String,
    /// Its digest.
    pub digest: Digest,
}

/// A component that did not start.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What is told of it.
    pub told: Failed,
    /// When it is tried again.
    pub until: Instant,
    times: u32,
}

impl State {
    /// Takes up a manifest, where no higher version of it is known: it is heard and read at once. Says whether it was.
    pub fn want(&mut self, wanted: Wanted) -> bool {
        let name = wanted.manifest.component().clone();
        if self.desired.get(&name).is_some_and(|known| known.manifest.version() > wanted.manifest.version()) {
            return false;
        }
        self.desired.insert(name, wanted);
        true
    }

    /// The connection came: what was heard before it went is not believed, and nothing is placed for two intervals.
    pub fn connected(&mut self, heartbeat: Duration, now: Instant) {
        self.members.doubt();
        self.echo = None;
        self.places_from = Some(now + heartbeat * 2);
    }

    /// The connection is gone: what runs goes on, nothing new is started.
    pub fn disconnected(&mut self) {
        self.places_from = None;
        self.echo = None;
    }

    /// This host heard itself. After a silence that is a new connection, whatever the client says. A heartbeat counts once, and
    /// none does that was not sent: one that somebody sends again keeps no host that is cut off in the belief that it is heard.
    pub fn heard_myself(&mut self, sequence: u64, heartbeat: Duration, now: Instant) {
        if sequence <= self.echoed || sequence > self.sequence {
            return;
        }
        self.echoed = sequence;
        if self.echo.is_some_and(|echo| now.duration_since(echo) > heartbeat * DEAD_AFTER) {
            self.connected(heartbeat, now);
        }
        self.echo = Some(now);
    }

    /// Whether this host places now: connected for long enough, and heard by itself just now.
    pub fn places(&self, heartbeat: Duration, now: Instant) -> bool {
        let heard = self.echo.is_some_and(|echo| now.duration_since(echo) <= heartbeat * 2 + SLACK);
        self.places_from.is_some_and(|from| now >= from) && heard
    }

    /// A component did not start; says whether that is new.
    pub fn fail(&mut self, told: Failed, now: Instant) -> bool {
        let before = self.failures.get(&told.component).filter(|failure| failure.told.version == told.version);
        let times = before.map_or(1, |failure| failure.times.saturating_add(1));
        let (first, longest) = CLUSTER_RETRY;
        let pause = first.saturating_mul(1 << times.saturating_sub(1).min(10)).min(longest);
        let new = before.is_none_or(|failure| failure.told.code != told.code);
        self.failures.insert(told.component.clone(), Failure { told, until: now + pause, times });
        new
    }

    /// Whether this version of a component did not start a short while ago.
    pub fn failed(&self, component: &ComponentName, version: u64, now: Instant) -> bool {
        self.failures.get(component).is_some_and(|failure| failure.told.version == version && now < failure.until)
    }

    /// Forgets what did not start and is not wanted here any more: it was undeployed, another version replaced it, or it is for other hosts.
    pub fn forget_unwanted(&mut self, me: &HostId, labels: &BTreeMap<String, String>) {
        let desired = &self.desired;
        self.failures.retain(|name, failure| {
            desired.get(name).map(|wanted| &wanted.manifest).is_some_and(|manifest| {
                let wanted = manifest.wanted();
                manifest.version() == failure.told.version && wanted.replicas > 0 && wanted.hosts.fits(me, labels)
            })
        });
    }

    /// Remembers a manifest that is not believed, `claimed` its version by its own words; says whether that is new. A version that is
    /// believed already is not told: what somebody forged says nothing about it.
    pub fn doubt(&mut self, name: &ComponentName, claimed: Option<u64>, code: &str, why: &str) -> bool {
        let known = self.desired.get(name).map_or(0, |wanted| wanted.manifest.version());
        let version = claimed.filter(|version| *version > known).unwrap_or(NO_VERSION);
        let told = Failed::new(name.clone(), version, code, why);
        let room = self.doubted.contains_key(name) || self.doubted.len() < CLUSTER_REFUSED;
        room && self.doubted.insert(name.clone(), told.clone()) != Some(told)
    }

    /// Remembers a value that is not believed; says whether that is new.
    pub fn refuse(&mut self, place: String, code: &str, why: String) -> bool {
        let known = self.refused.get(&place).is_some_and(|(had, text)| had == code && *text == why);
        if !known && (self.refused.contains_key(&place) || self.refused.len() < CLUSTER_REFUSED) {
            self.refused.insert(place, (code.to_owned(), why));
            return true;
        }
        false
    }
}

/// No manifest has it: theirs begin with 1.
const NO_VERSION: u64 = 0;
/// What a heartbeat may be late by.
const SLACK: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_secs(1);

    #[test]
    fn a_host_places_two_intervals_after_it_connected_and_while_it_hears_itself() {
        let mut state = State { sequence: 5, ..State::default() };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!state.places(BEAT, at(0)), "not connected");
        state.connected(BEAT, at(0));
        state.heard_myself(1, BEAT, at(100));
        state.heard_myself(2, BEAT, at(1_100));
        assert!(!state.places(BEAT, at(1_900)));
        assert!(state.places(BEAT, at(2_000)));
        // Nothing is heard any more, and the client has not noticed.
        assert!(!state.places(BEAT, at(3_700)));
        state.heard_myself(3, BEAT, at(9_000));
        assert!(!state.places(BEAT, at(9_000)), "after a silence it waits again");
        state.heard_myself(4, BEAT, at(10_000));
        state.heard_myself(5, BEAT, at(11_000));
        assert!(state.places(BEAT, at(11_000)));
        state.disconnected();
        assert!(!state.places(BEAT, at(11_100)));
    }

    fn wanted(version: u64, replicas: u32) -> Wanted {
        let json = format!(
            r#"{{"format":1,"version":{version},"manifest":{{"component":"shop:cart","digest":"sha256:{}","replicas":{replicas},"source":{{"file":"cart.wasm"}},"hosts":{{"ids":["h1"]}}}}}}"#,
            "a".repeat(64)
        );
        let manifest = Manifest::parse(json.as_bytes()).unwrap();
        Wanted { manifest, until: 100, by: Signer::Svid("spiffe://example.org/deployer".parse().unwrap()) }
    }

    #[test]
    fn what_did_not_start_is_forgotten_when_it_is_not_wanted_any_more() {
        let (h1, h2): (HostId, HostId) = ("h1".parse().unwrap(), "h2".parse().unwrap());
        let name: ComponentName = "shop:cart".parse().unwrap();
        let shown = |now: Wanted, me: &HostId| {
            let mut state = State::default();
            state.want(wanted(2, 1));
            state.fail(Failed::new(name.clone(), 2, "x", "y"), Instant::now());
            state.want(now);
            state.forget_unwanted(me, &BTreeMap::new());
            !state.failures.is_empty()
        };
        assert!(shown(wanted(2, 1), &h1), "it is wanted still");
        assert!(!shown(wanted(3, 0), &h1), "undeployed");
        assert!(!shown(wanted(3, 1), &h1), "replaced");
        assert!(!shown(wanted(2, 1), &h2), "for another host");
    }

    #[test]
    fn a_manifest_that_is_not_believed_is_told_by_its_version_only_where_none_is_believed_above_it() {
        let name: ComponentName = "shop:cart".parse().unwrap();
        let mut state = State::default();
        assert!(state.doubt(&name, Some(3), "statement.unknown-key", "no operator"));
        assert!(!state.doubt(&name, Some(3), "statement.unknown-key", "no operator"), "told once");
        assert_eq!(state.doubted[&name].version, 3);
        // A forged copy of what runs takes no replica away from this host.
        state.want(wanted(3, 1));
        assert!(state.doubt(&name, Some(3), "statement.payload", "changed"));
        assert_eq!(state.doubted[&name].version, NO_VERSION);
        assert!(state.doubt(&name, None, "statement.malformed", "no value"));
        assert_eq!(state.doubted[&name].version, NO_VERSION);
        for n in 0..2 * CLUSTER_REFUSED {
            state.doubt(&format!("a:b{n}").parse().unwrap(), None, "c", "w");
        }
        assert_eq!(state.doubted.len(), CLUSTER_REFUSED);
        assert!(state.doubt(&name, None, "other", "w"), "what is known is kept up to date");
    }

    #[test]
    fn a_manifest_does_not_take_the_place_of_a_newer_one_that_came_meanwhile() {
        let mut state = State::default();
        let version = |state: &State| state.desired.values().next().unwrap().manifest.version();
        assert!(state.want(wanted(2, 1)) && state.want(wanted(3, 0)));
        assert!(!state.want(wanted(2, 1)), "it was judged before the third came");
        assert_eq!(version(&state), 3);
        assert!(state.want(wanted(3, 0)), "the same again may hold for longer");
        assert!(state.want(wanted(4, 1)));
        assert_eq!(version(&state), 4);
    }

    #[test]
    fn an_own_heartbeat_that_comes_again_or_was_never_sent_is_not_heard() {
        let mut state = State { sequence: 3, ..State::default() };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        state.connected(BEAT, at(0));
        state.heard_myself(2, BEAT, at(2_000));
        assert!(state.places(BEAT, at(2_000)));
        for replayed in [2, 1, 0, 4, u64::MAX] {
            state.heard_myself(replayed, BEAT, at(4_000));
            assert!(!state.places(BEAT, at(4_600)), "number {replayed}");
        }
        state.heard_myself(3, BEAT, at(4_000));
        assert!(state.places(BEAT, at(4_600)));
        // A new connection forgets no number.
        state.connected(BEAT, at(5_000));
        state.heard_myself(3, BEAT, at(7_000));
        assert!(!state.places(BEAT, at(7_000)));
    }

    #[test]
    fn what_does_not_start_is_tried_again_later_and_later() {
        let mut state = State::default();
        let name: ComponentName = "a:b".parse().unwrap();
        let told = |version| Failed::new("a:b".parse().unwrap(), version, "x", "y");
        let now = Instant::now();
        assert!(state.fail(told(1), now));
        assert!(state.failed(&name, 1, now + CLUSTER_RETRY.0 - Duration::from_millis(1)));
        assert!(!state.failed(&name, 1, now + CLUSTER_RETRY.0));
        assert!(!state.failed(&name, 2, now), "another version is another try");
        assert!(!state.fail(told(1), now), "the same again is told once");
        assert!(state.failed(&name, 1, now + CLUSTER_RETRY.0 * 2 - Duration::from_millis(1)));
        for _ in 0..20 {
            state.fail(told(1), now);
        }
        assert!(!state.failed(&name, 1, now + CLUSTER_RETRY.1));
    }

    #[test]
    fn refused_values_are_remembered_once_each_and_have_an_end() {
        let mut state = State::default();
        assert!(state.refuse("a".to_owned(), "c", "w".to_owned()));
        assert!(!state.refuse("a".to_owned(), "c", "w".to_owned()));
        assert!(state.refuse("a".to_owned(), "d", "w".to_owned()));
        for n in 0..2 * CLUSTER_REFUSED {
            state.refuse(format!("x{n}"), "c", String::new());
        }
        assert_eq!(state.refused.len(), CLUSTER_REFUSED);
    }
}
