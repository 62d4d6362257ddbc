//! What a host hears: new values at once, by core NATS; heartbeats and farewells of others; and all values by a look at the buckets,
//! at the start, after each connect and every few seconds, which heals whatever was missed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Message;
use futures::StreamExt as _;
use portcullis_cluster::{Bucket, EventKind, Manifest, Place, Verdict, place};
use portcullis_identity::statement::{self, Envelope};

use super::belief::{Document, MemberTrust};
use super::bucket;
use super::kept::TakeError;
use super::state::Wanted;
use super::{Cluster, policies, revoking, telling};
use crate::audit::Record;
use crate::clock;
use crate::nats::Nats;
use crate::supervisor::Host;

/// Hears until the host stops. Whom to believe is read again every second whether anybody speaks or not: what an operator breaks or
/// mends while NATS is away shows at once.
pub async fn hear(host: Arc<Host>, cluster: Arc<Cluster>, nats: Nats) {
    let mut again = tokio::time::interval(TRUST_AGE);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut trust = members(&host, &cluster);
    let mut subscribed = std::pin::pin!(subscribe(&host, &cluster, &nats));
    let mut heard = loop {
        tokio::select! {
            all = &mut subscribed => match all {
                Some(all) => break futures::stream::select_all(all),
                None => return,
            },
            _ = again.tick() => trust = members(&host, &cluster),
        }
    };
    // What came before this host heard is in the buckets.
    cluster.look.notify_one();
    while !host.is_stopping() {
        tokio::select! {
            message = heard.next() => match message {
                Some(message) => take(&host, &cluster, &trust, message).await,
                None => return,
            },
            _ = again.tick() => trust = members(&host, &cluster),
        }
    }
}

/// Asked for once there is a connection that counts; they live through reconnects then. `None`: the host stops.
async fn subscribe(host: &Host, cluster: &Cluster, nats: &Nats) -> Option<Vec<async_nats::Subscriber>> {
    let subjects = [
        place::all_values(&cluster.name),
        place::all_heartbeats(&cluster.name),
        format!("portcullis.{}.evt.*.{}", cluster.name, EventKind::HostDown.word()),
    ];
    while !host.is_stopping() {
        let all = async {
            nats.verified(VERIFIED).await?;
            let mut all = Vec::new();
            for subject in &subjects {
                all.push(nats.subscribe(subject.clone(), None).await?);
            }
            Ok::<_, crate::nats::NatsError>(all)
        };
        match all.await {
            Ok(all) => return Some(all),
            Err(error) => {
                tracing::warn!(%error, "the cluster cannot be heard yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
    None
}

fn members(host: &Host, cluster: &Cluster) -> MemberTrust {
    let (trust, problems) = MemberTrust::now(&cluster.config, host.own(), &host.config.trust_domain);
    cluster.state().trust_problems = problems;
    trust
}

async fn take(host: &Arc<Host>, cluster: &Arc<Cluster>, trust: &MemberTrust, message: Message) {
    let subject = message.subject.as_str();
    if let Some(at) = Place::of_subject(&cluster.name, subject) {
        if !message.payload.is_empty() {
            value(host, cluster, &at, &message.payload).await;
        }
        return;
    }
    let Some(token) = message.headers.as_ref().and_then(|headers| headers.get(statement::HEADER)) else { return };
    let now = clock::now();
    if let Some(id) = place::heartbeat_host(&cluster.name, subject) {
        let believed = trust.event(&cluster.name, subject, &id, token.as_str(), &message.payload, now);
        let heartbeat = believed.and_then(|from| Ok((MemberTrust::heartbeat(&from.event, &id)?, from.signed_at)));
        let (heartbeat, signed_at) = match heartbeat {
            Ok(heard) => heard,
            Err(why) => {
                tracing::warn!(host = %id, %why, "a heartbeat is not believed");
                return;
            }
        };
        if id == cluster.me {
            if heartbeat.boot == cluster.boot {
                cluster.state().heard_myself(heartbeat.sequence, cluster.config.heartbeat(), Instant::now());
            } else {
                tracing::error!(host = %id, "another host has this host's name: give each its own cluster.host");
            }
            return;
        }
        let moves = {
            let mut state = cluster.state();
            let before =
                state.members.all().find(|member| member.heartbeat.host == id).map(|member| member.heartbeat.clone());
            let changes = before.is_none_or(|before| {
                (before.accepting, &before.replicas, &before.failed, &before.labels)
                    != (heartbeat.accepting, &heartbeat.replicas, &heartbeat.failed, &heartbeat.labels)
            });
            match state.members.heard(heartbeat, signed_at, now) {
                Ok(back) => back || changes,
                Err(why) => {
                    tracing::debug!(host = %id, %why, "a heartbeat does not count");
                    false
                }
            }
        };
        if moves {
            cluster.place.notify_one();
        }
    } else if let Some((id, _)) = place::event_host(&cluster.name, subject)
        && id != cluster.me
        && let Ok(from) = trust.event(&cluster.name, subject, &id, token.as_str(), &message.payload, now)
        && from.event.kind == EventKind::HostDown
        && let Some(boot) = from.event.data.get("boot").and_then(|boot| boot.as_str())
    {
        cluster.state().members.left(&id, boot);
        cluster.place.notify_one();
    }
}

/// Looks at the buckets until the host stops.
pub async fn keep_looking(host: Arc<Host>, cluster: Arc<Cluster>, nats: Nats) {
    while !host.is_stopping() {
        let _ = tokio::time::timeout(cluster.config.read(), cluster.look.notified()).await;
        if matches!(&*nats.state().borrow(), crate::nats::State::Verified { .. }) {
            look(&host, &cluster, &nats).await;
        }
    }
}

/// One look at all buckets, the revocations first. They count as looked at once the policies were read, too: what waits for that starts
/// by both.
async fn look(host: &Arc<Host>, cluster: &Arc<Cluster>, nats: &Nats) {
    // Nobody can be believed before it is known whom the host trusts.
    let mut own = host.own.subscribe();
    let _ = tokio::time::timeout(VERIFIED, own.wait_for(|own| own.spiffe_id().is_some())).await;
    let client = nats.client();
    let mut problem = None;
    let mut found = Vec::new();
    let mut revoked = None;
    for bucket in [Bucket::Revoked, Bucket::Policy, Bucket::Desired] {
        if matches!(bucket, Bucket::Desired)
            && let Some((any, good)) = revoked.take()
        {
            revocations_seen(cluster, any, good);
        }
        let contents = match bucket::read(&client, &cluster.name, bucket).await {
            Ok(contents) => contents,
            Err(error) => {
                problem.get_or_insert_with(|| error.to_string());
                continue;
            }
        };
        let (any, mut good) = (contents.has(&Place::Revoked), true);
        for value in &contents.values {
            found.push(value.place.clone());
            good &= self::value(host, cluster, &value.place, &value.bytes).await;
        }
        for strange in contents.strange {
            refuse(host, cluster, &strange, "cluster.strange-key", "this is no key of the cluster's");
        }
        match bucket {
            Bucket::Revoked => revoked = Some((any, good)),
            Bucket::Desired => cluster.state().wanted_read = true,
            Bucket::Policy => drop(cluster.policies_read.send_replace(true)),
        }
    }
    missing(host, cluster, &found);
    cluster.state().read_problem = problem;
    cluster.place.notify_one();
}

/// The revocations count as looked at when what is there is believed, or when nothing is there and nothing ever was.
fn revocations_seen(cluster: &Cluster, any: bool, good: bool) {
    let counts = match &mut *cluster.kept() {
        Ok(kept) if good && (any || !kept.knows(&Place::Revoked)) => {
            kept.confirm(clock::now());
            true
        }
        Ok(_) | Err(_) => false,
    };
    {
        let mut state = cluster.state();
        state.unbelieved = !counts;
        if counts {
            // What is on disk is not asked any more.
            state.offline_problem = None;
        }
    }
    if counts {
        cluster.looks.send_modify(|looks| *looks = looks.saturating_add(1));
    }
}

/// A key that is gone undeploys nothing and lifts nothing: only a signed value does.
fn missing(host: &Arc<Host>, cluster: &Cluster, found: &[Place]) {
    let gone: Vec<String> = {
        let state = cluster.state();
        let apps = state.desired.keys().map(|name| Place::App(name.clone()));
        apps.filter(|at| !found.contains(at)).map(|at| at.statement()).collect()
    };
    for at in gone {
        refuse(
            host,
            cluster,
            &at,
            "cluster.missing",
            "its key is gone; nothing is undeployed by that, `cluster undeploy` does",
        );
    }
}

/// Takes up one value, if it is believed. Says whether it is, as a new one or the one that is known.
async fn value(host: &Arc<Host>, cluster: &Arc<Cluster>, at: &Place, bytes: &[u8]) -> bool {
    let believed = match host.believe(cluster, at, bytes, clock::now()) {
        Ok(believed) => believed,
        Err(why) => {
            disbelieve(host, cluster, at, bytes, why.code(), &why.to_string());
            return false;
        }
    };
    let version = believed.document.version();
    let wanted = match &believed.document {
        Document::App(manifest) => Some(manifest.wanted().replicas > 0),
        Document::Revoked(_) => Some(true),
        // It is kept where it is put in force.
        Document::Policy(_) => None,
    };
    let taken = match believed.document {
        Document::App(manifest) => {
            let wanted = Wanted { manifest: *manifest, until: believed.until, by: believed.by.clone() };
            app(host, cluster, at, wanted, &believed.payload)
        }
        Document::Revoked(list) => revoking::take(host, cluster, list, &believed.by, &believed.payload).await,
        Document::Policy(set) => {
            let offered = policies::Offered { set, by: &believed.by, payload: &believed.payload, envelope: bytes };
            policies::take(host, cluster, offered).await
        }
    };
    match taken {
        Ok(verdict) => {
            believe_again(cluster, at);
            if let Some(wanted) = wanted
                && let Err(error) = cluster.shelf().put(at, version, bytes, wanted)
            {
                tracing::warn!(place = at.statement(), %error, "a value cannot be kept for when NATS is away");
            }
            if verdict == Verdict::New {
                let by = believed.by.to_string();
                tracing::info!(place = at.statement(), version, by, "a new value of the cluster is taken up");
                let record = Record::new("cluster").field("by", "supervisor").field("place", at.statement());
                if host.record(record.field("version", version).field("signer", by)).is_err() {
                    host.audit_failed();
                }
                cluster.place.notify_one();
                cluster.beat.notify_one();
            }
            true
        }
        Err(error) => {
            disbelieve(host, cluster, at, bytes, error.code(), &error.to_string());
            false
        }
    }
}

/// What is not believed is refused, and what it is about is told: others count on this host for it, and an operator waits for it.
fn disbelieve(host: &Arc<Host>, cluster: &Cluster, at: &Place, bytes: &[u8], code: &str, why: &str) {
    if let Place::App(name) = at {
        let claimed = Envelope::parse(bytes).ok().and_then(|envelope| Manifest::parse(&envelope.payload).ok());
        let claimed = claimed.filter(|manifest| manifest.component() == name).map(|manifest| manifest.version());
        if cluster.state().doubt(name, claimed, code, why) {
            cluster.beat.notify_one();
        }
    }
    refuse(host, cluster, &at.statement(), code, why);
}

fn believe_again(cluster: &Cluster, at: &Place) {
    let mut state = cluster.state();
    state.refused.remove(&at.statement());
    if let Place::App(name) = at
        && state.doubted.remove(name).is_some()
    {
        cluster.beat.notify_one();
    }
}

fn app(host: &Host, cluster: &Cluster, at: &Place, wanted: Wanted, payload: &[u8]) -> Result<Verdict, TakeError> {
    let taken = match &mut *cluster.kept() {
        Ok(kept) => {
            kept.still_trusts(&wanted.by, |id| host.revokes_itself(id))?;
            kept.take(at, wanted.manifest.version(), payload)?
        }
        Err(error) => return Err(TakeError::Disk(std::io::Error::other(error.clone()))),
    };
    let mut state = cluster.state();
    let known = state.desired.get(wanted.manifest.component()).is_some_and(|known| known.manifest == wanted.manifest);
    Ok(match state.want(wanted) {
        true if known => taken,
        true => Verdict::New,
        // A newer one came between the two locks.
        false => Verdict::Same,
    })
}

/// What is not believed is recorded and told once, and shown until it is gone.
pub(super) fn refuse(host: &Arc<Host>, cluster: &Cluster, at: &str, code: &str, why: &str) {
    let at: String = at.chars().take(200).flat_map(char::escape_debug).collect();
    let why: String = why.chars().take(400).collect();
    if !cluster.state().refuse(at.clone(), code, why.clone()) {
        return;
    }
    tracing::warn!(place = at, code, "a value of the cluster is not believed: {why}");
    let record = Record::new("denial")
        .reference(&ulid::Ulid::generate().to_string())
        .field("by", "supervisor")
        .field("action", "cluster")
        .field("place", at.clone())
        .field("code", code)
        .field("text", why.clone());
    if host.record(record).is_err() {
        host.audit_failed();
    }
    telling::tell(cluster, EventKind::Refused, None, serde_json::json!({ "place": at, "code": code, "text": why }));
}

/// How long the first steps wait for a connection at a time.
const VERIFIED: Duration = Duration::from_secs(5);
/// Between two attempts to hear.
const AGAIN: Duration = Duration::from_millis(500);
/// How long keys and bundles of members are used before they are read again.
const TRUST_AGE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::kept::Kept;
    use super::super::shelf::Shelf;
    use super::*;

    /// A host that started again: its last look was just now.
    fn restarted(folder: &std::path::Path) -> Cluster {
        let name: portcullis_cluster::ClusterName = "prod".parse().unwrap();
        let mut kept = Kept::open(folder, &name).unwrap();
        kept.confirm(clock::now());
        let (shelf, _) = Shelf::open(folder, &name);
        Cluster::new(name, "h1".parse().unwrap(), toml::from_str("host = 'h1'").unwrap(), Ok(kept), shelf)
    }

    #[test]
    fn a_host_that_has_not_seen_its_cluster_since_its_start_is_not_ready_however_short_that_took() {
        let temp = tempfile::tempdir().unwrap();
        let cluster = restarted(temp.path());
        assert!(cluster.stops_starts().is_none(), "the look before counts for starts");
        cluster.state().read_problem = Some("bucket does not answer".to_owned());
        let problems = cluster.problems().join("\n");
        assert!(problems.contains("cluster.unseen") && problems.contains("bucket does not answer"), "{problems}");
        // Its buckets are read on their own: the revocations say nothing of what is wanted.
        revocations_seen(&cluster, false, true);
        assert!(!cluster.problems().is_empty());
        cluster.state().wanted_read = true;
        cluster.state().read_problem = None;
        assert!(cluster.was_let_in() && cluster.problems().is_empty(), "{:?}", cluster.problems());
        // It was let in: a list that it does not believe takes it out of service past `stale_seconds` alone.
        revocations_seen(&cluster, true, false);
        assert!(cluster.problems().is_empty(), "{:?}", cluster.problems());
    }

    #[test]
    fn what_was_wrong_with_the_disk_is_no_matter_once_the_cluster_was_looked_at() {
        let temp = tempfile::tempdir().unwrap();
        let cluster = restarted(temp.path());
        cluster.state().offline_problem = Some("cluster.disk: gone".to_owned());
        assert!(cluster.problems().join("\n").contains("cluster.disk"));
        cluster.state().wanted_read = true;
        revocations_seen(&cluster, true, false);
        assert!(cluster.problems().join("\n").contains("cluster.disk"), "a list that is not believed is no look");
        revocations_seen(&cluster, true, true);
        assert!(cluster.problems().is_empty() && cluster.warnings().is_empty(), "{:?}", cluster.warnings());
    }

    #[test]
    fn a_host_that_starts_by_its_disk_is_let_in_when_all_of_that_was_checked() {
        let temp = tempfile::tempdir().unwrap();
        let cluster = restarted(temp.path());
        cluster.state().restoring = true;
        assert!(!cluster.was_let_in() && !cluster.was_restored() && !cluster.problems().is_empty());
        cluster.state().restored = true;
        assert!(cluster.was_let_in() && cluster.was_restored() && cluster.problems().is_empty());
    }
}
