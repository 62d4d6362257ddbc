//! Who runs what, without a leader: rendezvous hashing over the hosts that are alive. Hosts that see the same heartbeats decide
//! alike; hosts that do not run a replica too many for a moment, never one too few.
//!
//! INVARIANT: a host gives a replica up only when as many others as are wanted say, freshly, that they run it.

use std::collections::BTreeMap;

use portcullis_signing::{ComponentName, Digest};

use crate::manifest::Manifest;
use crate::token::HostId;

/// A host that is alive, as far as one component is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Who.
    pub host: &'a HostId,
    /// What it can be selected by.
    pub labels: &'a BTreeMap<String, String>,
    /// Whether it starts components that it is chosen for.
    pub accepting: bool,
    /// The version of the manifest that it runs by.
    pub runs: Option<u64>,
    /// Whether this version did not start there a short while ago.
    pub failed: bool,
}

/// What is so on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mine {
    /// The version of the manifest that the component runs by here.
    pub runs: Option<u64>,
}

/// What this host does about a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Start it, or replace it by this version.
    Start,
    /// It runs, and goes on.
    Keep,
    /// It runs, and is stopped.
    Stop,
    /// It does not run here.
    Nothing,
}

/// The hosts that are to run a component, the first choice first; fewer than are wanted where there are no more.
pub fn chosen<'a>(manifest: &Manifest, candidates: &[Candidate<'a>]) -> Vec<&'a HostId> {
    let wanted = manifest.wanted();
    let mut fit: Vec<([u8; 32], &HostId)> = candidates
        .iter()
        .filter(|host| host.accepting && !host.failed && wanted.hosts.fits(host.host, host.labels))
        .map(|host| (score(manifest.component(), host.host), host.host))
        .collect();
    fit.sort_unstable_by(|a, b| b.cmp(a));
    fit.truncate(usize::try_from(wanted.replicas).unwrap_or(usize::MAX));
    fit.into_iter().map(|(_, host)| host).collect()
}

/// What `me` does. `candidates` are the hosts that are alive, `me` among them.
pub fn step(manifest: &Manifest, me: &HostId, mine: Mine, candidates: &[Candidate<'_>]) -> Step {
    let replicas = usize::try_from(manifest.wanted().replicas).unwrap_or(usize::MAX);
    if replicas == 0 {
        return if mine.runs.is_some() { Step::Stop } else { Step::Nothing };
    }
    let chosen = chosen(manifest, candidates);
    if chosen.contains(&me) {
        return if mine.runs == Some(manifest.version()) { Step::Keep } else { Step::Start };
    }
    if mine.runs.is_none() {
        return Step::Nothing;
    }
    let may_run_here =
        candidates.iter().any(|host| host.host == me && manifest.wanted().hosts.fits(host.host, host.labels));
    // Where the operator does not want it at all, fewer than are wanted elsewhere are enough.
    let enough = if may_run_here { chosen.len() >= replicas } else { !chosen.is_empty() };
    let all_run = chosen
        .iter()
        .all(|chosen| candidates.iter().any(|host| host.host == *chosen && host.runs == Some(manifest.version())));
    if enough && all_run { Step::Stop } else { Step::Keep }
}

fn score(component: &ComponentName, host: &HostId) -> [u8; 32] {
    // Neither name has a line end.
    *Digest::of(format!("portcullis placement v1\n{component}\n{host}").as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn manifest(name: &str, replicas: u32, more: &str) -> Manifest {
        let digest = Digest::of(b"x");
        let text = format!(
            r#"{{"format":1,"version":1,"manifest":{{"component":"{name}","digest":"{digest}","source":{{"store":"digest"}},"replicas":{replicas}{more}}}}}"#
        );
        Manifest::parse(text.as_bytes()).unwrap()
    }

    fn ids(count: usize) -> Vec<HostId> {
        (1..=count).map(|n| format!("h{n}").parse().unwrap()).collect()
    }

    fn candidate<'a>(host: &'a HostId, labels: &'a BTreeMap<String, String>) -> Candidate<'a> {
        Candidate { host, labels, accepting: true, runs: None, failed: false }
    }

    #[test]
    fn every_host_chooses_alike_whatever_order_it_sees_the_others_in() {
        let (hosts, none) = (ids(5), BTreeMap::new());
        let mut all: Vec<_> = hosts.iter().map(|host| candidate(host, &none)).collect();
        let manifest = manifest("shop:cart", 2, "");
        let first: Vec<_> = chosen(&manifest, &all).into_iter().cloned().collect();
        for _ in 0..5 {
            all.rotate_left(1);
            assert_eq!(chosen(&manifest, &all).into_iter().cloned().collect::<Vec<_>>(), first);
        }
        assert_eq!(first.len(), 2);
    }

    #[test]
    fn components_are_spread_and_a_host_that_goes_moves_its_own_alone() {
        let (hosts, none) = (ids(4), BTreeMap::new());
        let all: Vec<_> = hosts.iter().map(|host| candidate(host, &none)).collect();
        let (gone, rest) = all.split_first().unwrap();
        let mut each = BTreeMap::<&HostId, u32>::new();
        for n in 0..400 {
            let manifest = manifest(&format!("shop:c{n}"), 1, "");
            let before = chosen(&manifest, &all);
            let after = chosen(&manifest, rest);
            *each.entry(before[0]).or_default() += 1;
            if before[0] != gone.host {
                assert_eq!(before, after, "shop:c{n} moved without a need");
            }
        }
        assert!(each.len() == 4 && each.values().all(|count| (60..=140).contains(count)), "{each:?}");
    }

    #[test]
    fn who_is_not_accepting_failed_or_is_not_selected_is_not_chosen() {
        let (hosts, none) = (ids(3), BTreeMap::new());
        let eu: BTreeMap<String, String> = [("zone".to_owned(), "eu".to_owned())].into();
        let mut all: Vec<_> = hosts.iter().map(|host| candidate(host, &none)).collect();
        all[0].accepting = false;
        all[1].failed = true;
        assert_eq!(chosen(&manifest("shop:cart", 3, ""), &all), [&hosts[2]]);
        assert!(chosen(&manifest("shop:cart", 3, r#","hosts":{"ids":["h1","h2"]}"#), &all).is_empty());
        all[2].labels = &eu;
        assert_eq!(chosen(&manifest("shop:cart", 3, r#","hosts":{"labels":{"zone":"eu"}}"#), &all), [&hosts[2]]);
        assert!(chosen(&manifest("shop:cart", 3, r#","hosts":{"labels":{"zone":"us"}}"#), &all).is_empty());
    }

    #[test]
    fn a_replica_is_given_up_only_when_all_that_are_wanted_run_elsewhere() {
        let (hosts, none) = (ids(3), BTreeMap::new());
        let manifest = manifest("shop:cart", 2, "");
        let mut all: Vec<_> = hosts.iter().map(|host| candidate(host, &none)).collect();
        let chosen: Vec<HostId> = chosen(&manifest, &all).into_iter().cloned().collect();
        let third = hosts.iter().find(|host| !chosen.contains(host)).unwrap();
        let running = Mine { runs: Some(1) };
        assert_eq!(step(&manifest, third, running, &all), Step::Keep, "nobody else runs it");
        for host in &mut all {
            host.runs = (*host.host == chosen[0]).then_some(1);
        }
        assert_eq!(step(&manifest, third, running, &all), Step::Keep, "one more is wanted");
        for host in &mut all {
            host.runs = chosen.contains(host.host).then_some(1);
        }
        assert_eq!(step(&manifest, third, running, &all), Step::Stop);
        assert_eq!(step(&manifest, third, Mine { runs: None }, &all), Step::Nothing);
        for host in &mut all {
            host.accepting &= *host.host != chosen[0];
        }
        assert_eq!(step(&manifest, third, Mine { runs: None }, &all), Step::Start, "it takes over");
        // An older version elsewhere is not what is wanted.
        for host in &mut all {
            (host.accepting, host.runs) = (true, chosen.contains(host.host).then_some(0));
        }
        assert_eq!(step(&manifest, third, running, &all), Step::Keep);
    }

    #[test]
    fn what_is_undeployed_stops_everywhere() {
        let (hosts, none) = (ids(1), BTreeMap::new());
        let all = [candidate(&hosts[0], &none)];
        let manifest = manifest("shop:cart", 0, "");
        assert_eq!(step(&manifest, &hosts[0], Mine { runs: Some(1) }, &all), Step::Stop);
        assert_eq!(step(&manifest, &hosts[0], Mine { runs: None }, &all), Step::Nothing);
    }

    /// Hosts that see one another's heartbeats late, lose them, and come and go: once two replicas run, there are never fewer
    /// than two, or as many as there are hosts; and when the views agree again, there are exactly two.
    #[test]
    fn hosts_with_different_views_never_give_up_too_much() {
        const HOSTS: usize = 5;
        let (hosts, none) = (ids(HOSTS), BTreeMap::new());
        let mut random = 7_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for round in 0..300 {
            let manifest = manifest(&format!("shop:r{round}"), 2, "");
            let mut runs = [false; HOSTS];
            // What each host last heard of each other: whether it runs it; `None`: it counts as gone.
            let mut views = [[Some(false); HOSTS]; HOSTS];
            let act = |me: usize, runs: &mut [bool; HOSTS], view: &[Option<bool>; HOSTS]| {
                let candidates: Vec<_> = (0..HOSTS)
                    .filter(|other| *other == me || view[*other].is_some())
                    .map(|other| {
                        let has = if other == me { runs[me] } else { view[other] == Some(true) };
                        Candidate { runs: has.then_some(1), ..candidate(&hosts[other], &none) }
                    })
                    .collect();
                match step(&manifest, &hosts[me], Mine { runs: runs[me].then_some(1) }, &candidates) {
                    Step::Start => runs[me] = true,
                    Step::Stop => runs[me] = false,
                    Step::Keep | Step::Nothing => {}
                }
            };
            for (me, view) in views.iter().enumerate() {
                act(me, &mut runs, view);
            }
            assert!(runs.iter().filter(|runs| **runs).count() >= 2);
            for _ in 0..60 {
                let (me, other) = (next(HOSTS as u64) as usize, next(HOSTS as u64) as usize);
                match next(4) {
                    0 => views[me][other] = None,
                    1 | 2 => views[me][other] = Some(runs[other]),
                    _ => {
                        // A stop is heard of at once where it can be: hosts send a heartbeat with each change.
                        let before = runs;
                        act(me, &mut runs, &views[me]);
                        for view in &mut views {
                            if before[me] != runs[me] && view[me].is_some() {
                                view[me] = Some(runs[me]);
                            }
                        }
                    }
                }
                assert!(runs.iter().filter(|runs| **runs).count() >= 2, "round {round}: {runs:?}");
            }
            for _ in 0..3 {
                views = [runs.map(Some); HOSTS];
                for me in 0..HOSTS {
                    act(me, &mut runs, &views[me]);
                    views = [runs.map(Some); HOSTS];
                }
            }
            let found: BTreeSet<_> = (0..HOSTS).filter(|n| runs[*n]).map(|n| &hosts[n]).collect();
            let all: Vec<_> = hosts.iter().map(|host| candidate(host, &none)).collect();
            assert_eq!(found, chosen(&manifest, &all).into_iter().collect(), "round {round}");
        }
    }
}
