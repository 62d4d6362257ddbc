//! What a host tells its cluster: heartbeats, and what happens to components, as signed CloudEvents. All of it is in the audit log
//! besides; an event that cannot be sent is dropped, and a heartbeat follows that says what is so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::HeaderMap;
use portcullis_cluster::{CloudEvent, EventKind, Heartbeat, Replica, place};
use portcullis_identity::statement;
use serde_json::{Value, json};

use super::Cluster;
use crate::clock;
use crate::limits::{CLUSTER_EVENT_LIFE, NATS_LEAVE};
use crate::nats::{Nats, NatsError};
use crate::supervisor::Host;
use crate::supervisor::own::ToSign;

/// An event that waits to be sent.
#[derive(Debug)]
pub struct Outgoing {
    kind: EventKind,
    subject: Option<String>,
    data: Value,
    at: time::OffsetDateTime,
}

/// Has an event sent.
pub fn tell(cluster: &Cluster, kind: EventKind, subject: Option<&str>, data: Value) {
    let event = Outgoing { kind, subject: subject.map(str::to_owned), data, at: clock::now() };
    if cluster.outgoing.try_send(event).is_err() {
        let lost = LOST.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        tracing::warn!(lost, "an event for the cluster was dropped: too many wait");
    }
}

/// Sends events in their order, for as long as the host runs. One that cannot be sent is kept until the connection is back.
pub async fn send(host: Arc<Host>, cluster: Arc<Cluster>, nats: Nats) {
    let receiver = cluster.waiting.lock().ok().and_then(|mut waiting| waiting.take());
    let Some(mut waiting) = receiver else { return };
    while let Some(event) = waiting.recv().await {
        while !host.is_stopping() {
            match publish(&host, &cluster, &nats, &event).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::debug!(%error, "an event waits");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Sends heartbeats: one in each interval, and one at once where something changed.
pub async fn beat(host: Arc<Host>, cluster: Arc<Cluster>, nats: Nats) {
    let mut up = false;
    while !host.is_stopping() {
        if matches!(&*nats.state().borrow(), crate::nats::State::Verified { .. }) {
            match heartbeat(&host, &cluster, &nats).await {
                Ok(()) if !up => {
                    up = true;
                    tell(
                        &cluster,
                        EventKind::HostUp,
                        None,
                        json!({ "boot": cluster.boot, "labels": cluster.config.labels }),
                    );
                }
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "a heartbeat could not be sent"),
            }
        }
        let _ = tokio::time::timeout(cluster.config.heartbeat(), cluster.beat.notified()).await;
    }
}

async fn heartbeat(host: &Arc<Host>, cluster: &Cluster, nats: &Nats) -> Result<(), String> {
    let problems = host.problems().await;
    let heartbeat = current(host, cluster, problems.is_empty());
    let data = serde_json::to_value(&heartbeat).map_err(|error| error.to_string())?;
    let event = Outgoing { kind: EventKind::Heartbeat, subject: None, data, at: clock::now() };
    publish(host, cluster, nats, &event).await
}

/// What is so now.
fn current(host: &Host, cluster: &Cluster, ready: bool) -> Heartbeat {
    let stopped = cluster.stops_starts().is_some();
    let (revocations, policy) = match &*cluster.kept() {
        Ok(kept) => (
            kept.revoked().map(portcullis_cluster::RevocationList::epoch),
            kept.policy().filter(|_| cluster.config.policies).map(portcullis_cluster::PolicyDocument::version),
        ),
        Err(_) => (None, None),
    };
    let processes = host.identity_process.now().is_some() && host.runtime_process.now().is_some();
    let broken = host.audit_broken.load(Ordering::Acquire);
    let running = host.running();
    let mut state = cluster.state();
    state.sequence = state.sequence.saturating_add(1);
    let runs =
        state.runs.iter().filter(|(_, run)| running.iter().any(|one| one.admitted.facts().instance == run.instance));
    let replicas = runs.map(|(component, run)| Replica {
        component: component.clone(),
        version: run.version,
        digest: run.digest,
        instance: run.instance.clone(),
    });
    let now = std::time::Instant::now();
    let failed = state.failures.values().filter(|failure| now < failure.until).map(|failure| &failure.told);
    let failed = failed.chain(state.doubted.values()).cloned();
    Heartbeat {
        host: cluster.me.clone(),
        boot: cluster.boot.clone(),
        sequence: state.sequence,
        interval_ms: cluster.config.heartbeat_ms,
        labels: cluster.config.labels.clone(),
        ready,
        accepting: !stopped && processes && !broken && !host.is_stopping(),
        revocations: revocations.unwrap_or_default(),
        policy: policy.unwrap_or_default(),
        http: host.addresses().0.map(|address| address.to_string()).unwrap_or_default(),
        replicas: replicas.take(portcullis_cluster::limits::HEARTBEAT_COMPONENTS).collect(),
        failed: failed.take(portcullis_cluster::limits::HEARTBEAT_COMPONENTS).collect(),
    }
}

/// Says that this host leaves.
pub async fn leave(host: &Arc<Host>, cluster: &Cluster, nats: &Nats) {
    let data = json!({ "boot": cluster.boot });
    let event = Outgoing { kind: EventKind::HostDown, subject: None, data, at: clock::now() };
    let client = nats.client();
    let told = async {
        publish(host, cluster, nats, &event).await?;
        client.flush().await.map_err(|error| error.to_string())
    };
    // Without a server a flush waits for the next one: a host that is to stop does not.
    let told = tokio::time::timeout(NATS_LEAVE, told).await;
    if let Err(error) = told.unwrap_or_else(|_| Err("it took too long".to_owned())) {
        tracing::warn!(%error, "the cluster could not be told that this host leaves; it will notice");
    }
}

async fn publish(host: &Arc<Host>, cluster: &Cluster, nats: &Nats, event: &Outgoing) -> Result<(), String> {
    let source = host.own_id().ok_or("this host has no SPIFFE ID")?;
    let id = ulid::Ulid::generate().to_string();
    let cloud = CloudEvent::new(id, source, event.kind, event.at, event.data.clone());
    let cloud = match &event.subject {
        Some(subject) => cloud.about(subject),
        None => cloud,
    };
    let subject = match event.kind {
        EventKind::Heartbeat => place::heartbeat(&cluster.name, &cluster.me),
        kind => place::event(&cluster.name, &cluster.me, kind.word()),
    };
    let payload = cloud.to_json();
    let audience = place::audience(&cluster.name);
    let what = ToSign { audience: &audience, place: &subject, life: CLUSTER_EVENT_LIFE, answers: None, version: None };
    let signed = host.sign_statement(&what, payload.clone()).await.map_err(|error| error.to_string())?;
    let mut headers = HeaderMap::new();
    headers.insert(statement::HEADER, signed);
    headers.insert("Content-Type", portcullis_cluster::event::CONTENT_TYPE);
    nats.publish(subject, Some(headers), payload).await.map_err(|error: NatsError| error.to_string())
}

/// Text for an event, cut.
pub fn cut(text: &str) -> String {
    text.chars().take(400).collect()
}

static LOST: AtomicU64 = AtomicU64::new(0);
/// Between two attempts to send an event.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(500);
