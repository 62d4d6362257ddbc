//! Brings what runs here in step with what the cluster wants, for as long as this host may: connected, heard, and sure of the
//! revocations. Each start goes the way of every start; one that fails is told, and tried again later.

use std::sync::Arc;
use std::time::Instant;

use portcullis_cluster::placement::{self, Candidate, Mine};
use portcullis_cluster::{EventKind, Failed, Manifest, Step};
use portcullis_identity::SpiffeId;
use portcullis_identity::statement::Signer;
use portcullis_policies::{ControlAction, Operator};
use portcullis_signing::ComponentName;
use serde_json::json;

use super::state::{Run, Wanted};
use super::{Cluster, disk, offline, sources, telling};
use crate::cli::error::exit;
use crate::clock;
use crate::config::Route;
use crate::supervisor::refused::Refused;
use crate::supervisor::{Again, Component, Expect, Host, settle, trust_watch};

/// Reconciles until the host stops: when something changed, and with each heartbeat.
pub async fn keep_reconciling(host: Arc<Host>, cluster: Arc<Cluster>) {
    while !host.is_stopping() {
        let _ = tokio::time::timeout(cluster.config.heartbeat(), cluster.place.notified()).await;
        prune(&host, &cluster);
        disk::look_again(&host, &cluster).await;
        if may_place(&cluster) {
            reconcile(&host, &cluster).await;
        }
        // NATS may be there and have no buckets: connected is not looked at.
        offline::restore(&host, &cluster).await;
        keep(&host, &cluster);
    }
}

/// Keeps what runs here, for a start without NATS. What ends because the host does is to run again.
fn keep(host: &Host, cluster: &Cluster) {
    let runs: Vec<ComponentName> = cluster.state().runs.keys().cloned().collect();
    let mut shelf = cluster.shelf();
    if !host.is_stopping()
        && let Err(error) = shelf.keep(runs.into_iter())
    {
        tracing::warn!(%error, "what runs here cannot be kept for when NATS is away");
    }
}

fn may_place(cluster: &Cluster) -> bool {
    cluster.stops_starts().is_none() && cluster.state().places(cluster.config.heartbeat(), Instant::now())
}

/// What ended by itself, by a revocation or by a command does not run any more.
fn prune(host: &Host, cluster: &Cluster) {
    let running = host.running();
    let runs = |run: &Run| running.iter().any(|component| component.admitted.facts().instance == run.instance);
    let mut state = cluster.state();
    let before = state.runs.len();
    state.runs.retain(|_, run| runs(run));
    if state.runs.len() != before {
        cluster.beat.notify_one();
    }
    state.forget_unwanted(&cluster.me, &cluster.config.labels);
}

async fn reconcile(host: &Arc<Host>, cluster: &Arc<Cluster>) {
    let names: Vec<ComponentName> = cluster.state().desired.keys().cloned().collect();
    for name in &names {
        // A start takes its time: each decision is made on what is known then.
        if host.is_stopping() || !may_place(cluster) {
            return;
        }
        let wanted = cluster.state().desired.get(name).cloned();
        let Some(wanted) = wanted else { continue };
        match decide(cluster, &wanted.manifest) {
            Step::Start if may_start(host, &wanted) => {
                start(host, cluster, &wanted.manifest, false).await;
            }
            Step::Stop => stop(host, cluster, name).await,
            Step::Start | Step::Keep | Step::Nothing => {}
        }
    }
    // Before that it is not known what the cluster wants.
    if cluster.knows() {
        cluster.shelf().settled(&names);
    }
}

/// Whether something may be started by a manifest now.
fn may_start(host: &Host, wanted: &Wanted) -> bool {
    let name = wanted.manifest.component().as_str();
    let may = |who: &Operator| host.may(who, ControlAction::Deploy, Some(name)).is_ok();
    starts(wanted, clock::now().unix_timestamp(), |id| host.revokes(id), may)
}

/// The same when its bytes are here, which took its time: the manifest is still the newest, and may still start something.
fn still_wanted(host: &Host, cluster: &Cluster, manifest: &Manifest) -> Result<(), Refused> {
    let wanted = cluster.state().desired.get(manifest.component()).cloned();
    match wanted {
        Some(wanted) if wanted.manifest.version() == manifest.version() && may_start(host, &wanted) => Ok(()),
        Some(_) | None => Err(Refused {
            exit: exit::DENIED,
            code: "cluster.not-wanted".to_owned(),
            message: "while it was fetched its manifest was replaced, or came to an end, or its signer lost the right to deploy it"
                .to_owned(),
            hint: "deploy it again, signed by somebody who may".to_owned(),
            ..Refused::internal("")
        }),
    }
}

/// Whether something may be started by a manifest: its statement holds still, and whoever signed it may still have it deployed.
/// Past that, what runs goes on.
fn starts(wanted: &Wanted, now: i64, revoked: impl Fn(&SpiffeId) -> bool, may: impl Fn(&Operator) -> bool) -> bool {
    let revoked = match &wanted.by {
        Signer::Svid(id) => revoked(id),
        Signer::Nkey(_) => false,
    };
    now < wanted.until && !revoked && may(&Operator::Signer(wanted.by.to_string()))
}

fn decide(cluster: &Cluster, manifest: &Manifest) -> Step {
    let (state, now) = (cluster.state(), Instant::now());
    let (name, version) = (manifest.component(), manifest.version());
    let mine = Mine { runs: state.runs.get(name).map(|run| run.version) };
    let me = Candidate {
        host: &cluster.me,
        labels: &cluster.config.labels,
        accepting: true,
        runs: mine.runs,
        failed: state.failed(name, version, now),
    };
    let others = state.members.alive(clock::now()).map(|member| &member.heartbeat).map(|heartbeat| Candidate {
        host: &heartbeat.host,
        labels: &heartbeat.labels,
        accepting: heartbeat.accepting,
        runs: heartbeat.runs(name),
        failed: heartbeat.failed(name, version),
    });
    let candidates: Vec<_> = std::iter::once(me).chain(others).collect();
    placement::step(manifest, &cluster.me, mine, &candidates)
}

/// Starts a component by a manifest, or says why not. `offline`: from the disk, where the cluster cannot be looked at.
pub(super) async fn start(host: &Arc<Host>, cluster: &Arc<Cluster>, manifest: &Manifest, offline: bool) {
    let (name, version) = (manifest.component().clone(), manifest.version());
    let began = Instant::now();
    match bring_up(host, cluster, manifest, offline).await {
        Ok(component) => {
            let facts = component.admitted.facts();
            let run = Run { version, instance: facts.instance.clone(), digest: manifest.wanted().digest };
            let data = json!({
                "version": version, "instance": facts.instance, "digest": facts.digest, "spiffe_id": facts.spiffe_id,
                "took_ms": u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            });
            {
                let mut state = cluster.state();
                state.failures.remove(&name);
                state.runs.insert(name.clone(), run);
            }
            telling::tell(cluster, EventKind::Started, Some(name.as_str()), data);
        }
        Err(refused) => {
            let told = Failed::new(name.clone(), version, &refused.code, &refused.message);
            let data = json!({
                "version": version, "code": refused.code, "text": telling::cut(&refused.message), "hint": telling::cut(&refused.hint),
                "reference": refused.reference,
            });
            if cluster.state().fail(told, Instant::now()) {
                tracing::error!(component = %name, version, code = refused.code, "the cluster's component does not start here: {}", refused.message);
                telling::tell(cluster, EventKind::StartFailed, Some(name.as_str()), data);
            }
        }
    }
    cluster.beat.notify_one();
}

/// Starts a component, or lets the one that runs with these bytes go on under the new version.
async fn bring_up(
    host: &Arc<Host>,
    cluster: &Arc<Cluster>,
    manifest: &Manifest,
    offline: bool,
) -> Result<Arc<Component>, Refused> {
    let (name, digest) = (manifest.component().as_str(), manifest.wanted().digest.to_string());
    let same = |component: &&Arc<Component>| {
        let facts = component.admitted.facts();
        facts.name == name && facts.digest == digest && !component.draining.load(std::sync::atomic::Ordering::Acquire)
    };
    let routes: Vec<Route> = manifest
        .wanted()
        .routes
        .iter()
        .map(|route| Route { host: route.host.clone(), path: route.path.clone(), component: name.to_owned() })
        .collect();
    for route in &routes {
        host.check_route_free(route)?;
    }
    let component = match host.running().iter().find(same).cloned() {
        Some(component) => component,
        None => {
            let mut spec = sources::locate(host, manifest).await?;
            spec.offline = offline;
            spec.expect = Some(Expect { name: name.to_owned(), digest });
            let (asked, of, wanted) = (Arc::clone(host), Arc::clone(cluster), manifest.clone());
            spec.again = Some(Again::new(move || still_wanted(&asked, &of, &wanted)));
            let host = Arc::clone(host);
            // A task of its own: what has begun is finished.
            let started = tokio::spawn(async move { host.start_component(spec).await }).await;
            started.map_err(Refused::internal)??
        }
    };
    host.replace_routes(name, routes);
    let _one_at_a_time = host.starting.lock().await;
    settle::settle(host).await;
    Ok(component)
}

async fn stop(host: &Arc<Host>, cluster: &Arc<Cluster>, name: &ComponentName) {
    let Some(run) = cluster.state().runs.get(name).cloned() else { return };
    let running = host.running().into_iter().find(|component| component.admitted.facts().instance == run.instance);
    if let Some(component) = running {
        trust_watch::end_now(host, &component, "cluster.unwanted", "the cluster does not want it here").await;
    }
    host.replace_routes(name.as_str(), Vec::new());
    cluster.state().runs.remove(name);
    let data = json!({ "version": run.version, "instance": run.instance, "digest": run.digest });
    telling::tell(cluster, EventKind::Stopped, Some(name.as_str()), data);
    cluster.beat.notify_one();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_started_by_a_manifest_whose_signer_lost_the_right_meanwhile() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let json = json!({
            "format": 1, "version": 1,
            "manifest": { "component": "shop:cart", "digest": digest, "source": { "file": "cart.wasm" } },
        });
        let id: SpiffeId = "spiffe://example.org/deployer".parse().unwrap();
        let manifest = Manifest::parse(json.to_string().as_bytes()).unwrap();
        let wanted = Wanted { manifest, until: 100, by: Signer::Svid(id.clone()) };
        let named = |who: &Operator| *who == Operator::Signer(id.to_string());
        assert!(starts(&wanted, 99, |_| false, named));
        assert!(!starts(&wanted, 100, |_| false, named), "its statement is over");
        assert!(!starts(&wanted, 99, |revoked| *revoked == id, named), "its signer is revoked");
        assert!(!starts(&wanted, 99, |_| false, |_| false), "its signer may not deploy it any more");
    }
}
