//! `portcullis cluster status` and `cluster events`: what hosts say of themselves, by their signatures, beside what is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use portcullis_cluster::{Bucket, CloudEvent, EventKind, Heartbeat, HostId, Manifest, Place, RevocationList, place};
use portcullis_identity::statement::{Envelope, Expected, HEADER, Signer, Signers, check};
use portcullis_identity::{Excerpt, SpiffeId};
use portcullis_signing::ComponentName;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::operator::{Operator, unreachable};
use super::unbelieved::{Reason, Unbelieved};
use super::{EventsArgs, StatusArgs};
use crate::cli::error::{CliError, exit};
use crate::cli::output::{Output, table};
use crate::clock;
use crate::config::cluster::Member;
use crate::supervisor::cluster::bucket;

/// `cluster status`: exit 0 where everything that is wanted runs, else 1.
pub async fn status(args: &StatusArgs, out: &mut Output) -> Result<(), CliError> {
    let operator = Operator::open(&args.operator.operator).await?;
    let (heard, unbelieved) = heartbeats(&operator, Duration::from_secs_f64(args.listen.clamp(0.1, 120.0))).await?;
    let contents = bucket::read(&operator.nats.client(), &operator.cluster, Bucket::Desired).await.map_err(cannot)?;
    let mut wanted: BTreeMap<ComponentName, Manifest> = BTreeMap::new();
    for value in contents.values {
        let manifest = Envelope::parse(&value.bytes).ok().and_then(|envelope| Manifest::parse(&envelope.payload).ok());
        if let (Some(manifest), Place::App(name)) = (manifest, value.place) {
            wanted.insert(name, manifest);
        }
    }
    let (revoked, _) = operator.read::<RevocationList>(&Place::Revoked).await?;
    let epoch = revoked.document().map(RevocationList::epoch);
    let complete =
        wanted.iter().all(|(name, manifest)| running(&heard, name, manifest) >= manifest.wanted().replicas as usize);
    let mut shown = text(&heard, &wanted, epoch);
    for line in revoked.remark(&Place::Revoked).into_iter().chain(unbelieved.lines()) {
        shown.push('\n');
        shown.push_str(&line);
    }
    out.result(shown, &as_json(&heard, &wanted, epoch, &unbelieved))?;
    if complete {
        return Ok(());
    }
    let failed = |message: &str| CliError::new(exit::INTERNAL, "cluster.not-settled", message);
    match (unbelieved.hosts(|host| heard.contains_key(host)).as_slice(), unbelieved.hint()) {
        (hosts @ [_, ..], Some(hint)) => {
            let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
            let message = format!(
                "fewer replicas run than are wanted, as far as hosts are believed: {} not, whatever runs there",
                hosts.join(", ")
            );
            Err(failed(&message).with_hint(hint))
        }
        _ => Err(failed("fewer replicas run than are wanted").with_hint(
            "the column FAILED says why a host does not start one; `cluster events` shows it as it happens",
        )),
    }
}

/// `cluster events`: prints what is signed by the host that its subject names.
pub async fn events(args: &EventsArgs, out: &mut Output) -> Result<(), CliError> {
    let operator = Operator::open(&args.operator.operator).await?;
    let signers = signers(&operator)?;
    let subject = place::all_events(&operator.cluster);
    let mut heard = operator.nats.subscribe(subject, None).await.map_err(|error| unreachable(&error))?;
    let until =
        args.seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds.clamp(0.1, 86_400.0 * 366.0)));
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let next = match until {
            Some(until) => match tokio::time::timeout_at(until, heard.next()).await {
                Ok(next) => next,
                Err(_) => return Ok(()),
            },
            None => heard.next().await,
        };
        let Some(message) = next else { return Ok(()) };
        let Some((host, _)) = place::event_host(&operator.cluster, message.subject.as_str()) else { continue };
        let event = match believed(&operator, &signers, &host, &message) {
            Ok(event) => event,
            Err(reason) => {
                out.note(format!(
                    "not believed: an event on {}: {}",
                    message.subject.as_str().escape_debug(),
                    reason.why()
                ));
                continue;
            }
        };
        let line = format!(
            "{} {host} {} {} {}",
            event.time,
            event.kind.word(),
            event.subject.clone().unwrap_or_default(),
            event.data
        );
        out.result(line, &serde_json::to_value(&event).map_err(CliError::internal)?)?;
        left -= 1;
    }
    Ok(())
}

fn believed(
    operator: &Operator,
    signers: &Signers,
    host: &HostId,
    message: &async_nats::Message,
) -> Result<CloudEvent, Reason> {
    let token = message.headers.as_ref().and_then(|headers| headers.get(HEADER)).ok_or_else(Reason::unsigned)?;
    let audience = place::audience(&operator.cluster);
    let expected = Expected::message(&audience, message.subject.as_str());
    let statement = check(token.as_str(), &message.payload, &expected, signers, clock::now())
        .map_err(|error| Reason::statement(&error, &operator.config.bundle))?;
    let id: SpiffeId =
        format!("spiffe://{}/portcullis/host/{host}", operator.config.trust_domain).parse().map_err(Reason::form)?;
    if !operator.config.signs_for(host.as_str(), &id, statement.signer()) {
        return Err(Reason::stranger(statement.signer()));
    }
    let source = match statement.signer() {
        Signer::Svid(signer) => signer.clone(),
        Signer::Nkey(_) => id,
    };
    let event = CloudEvent::parse(&message.payload).map_err(Reason::form)?;
    if event.source == source { Ok(event) } else { Err(Reason::form("it names another source")) }
}

/// The same of a heartbeat, which is about its own host alone.
fn heartbeat(
    operator: &Operator,
    signers: &Signers,
    host: &HostId,
    message: &async_nats::Message,
) -> Result<Heartbeat, Reason> {
    let event = believed(operator, signers, host, message)?;
    if event.kind != EventKind::Heartbeat {
        return Err(Reason::form("it is an event of another kind"));
    }
    // What serde says may quote what came.
    let heartbeat: Heartbeat =
        serde_json::from_value(event.data).map_err(|error| Reason::form(Excerpt::new(&error.to_string())))?;
    heartbeat.check().map_err(Reason::form)?;
    if heartbeat.host == *host { Ok(heartbeat) } else { Err(Reason::form("it is about another host")) }
}

/// Whom hosts are checked with.
fn signers(operator: &Operator) -> Result<Signers, CliError> {
    Ok(Signers::new(Arc::new(operator.trust()?), Member::keys(&operator.config.member)))
}

async fn heartbeats(
    operator: &Operator,
    listen: Duration,
) -> Result<(BTreeMap<HostId, Heartbeat>, Unbelieved), CliError> {
    let signers = signers(operator)?;
    let subject = place::all_heartbeats(&operator.cluster);
    let mut messages = operator.nats.subscribe(subject, None).await.map_err(|error| unreachable(&error))?;
    let (until, mut heard, mut unbelieved) = (Instant::now() + listen, BTreeMap::new(), Unbelieved::default());
    while let Ok(Some(message)) = tokio::time::timeout_at(until, messages.next()).await {
        let Some(host) = place::heartbeat_host(&operator.cluster, message.subject.as_str()) else { continue };
        match heartbeat(operator, &signers, &host, &message) {
            Ok(heartbeat) => drop(heard.insert(host, heartbeat)),
            Err(reason) => unbelieved.add(host, reason),
        }
    }
    Ok((heard, unbelieved))
}

fn running(heard: &BTreeMap<HostId, Heartbeat>, name: &ComponentName, manifest: &Manifest) -> usize {
    heard.values().filter(|heartbeat| heartbeat.runs(name) == Some(manifest.version())).count()
}

fn text(
    heard: &BTreeMap<HostId, Heartbeat>,
    wanted: &BTreeMap<ComponentName, Manifest>,
    revoked: Option<u64>,
) -> String {
    let head = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let mut hosts = vec![head(&["HOST", "READY", "PLACES", "REVOCATIONS", "POLICIES", "HTTP", "LABELS", "RUNS"])];
    hosts.extend(heard.values().map(|heartbeat| {
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        let labels: Vec<_> = heartbeat.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        vec![
            heartbeat.host.to_string(),
            yes(heartbeat.ready),
            yes(heartbeat.accepting),
            heartbeat.revocations.to_string(),
            heartbeat.policy.to_string(),
            heartbeat.http.clone(),
            labels.join(","),
            heartbeat.replicas.len().to_string(),
        ]
    }));
    let mut apps = vec![head(&["COMPONENT", "VERSION", "WANTED", "RUNNING", "HOSTS", "FAILED"])];
    apps.extend(wanted.iter().map(|(name, manifest)| {
        let on = |heartbeat: &&Heartbeat| heartbeat.runs(name).is_some();
        let on: Vec<_> = heard.values().filter(on).map(|heartbeat| heartbeat.host.to_string()).collect();
        let failed: Vec<_> = heard
            .values()
            .flat_map(|heartbeat| heartbeat.failed.iter().map(move |failed| (&heartbeat.host, failed)))
            .filter(|(_, failed)| failed.component == *name)
            .map(|(host, failed)| format!("{host}: {}", failed.code))
            .collect();
        vec![
            name.to_string(),
            manifest.version().to_string(),
            manifest.wanted().replicas.to_string(),
            running(heard, name, manifest).to_string(),
            on.join(","),
            failed.join(", "),
        ]
    }));
    let revoked = revoked.map_or_else(|| "none".to_owned(), |epoch| format!("epoch {epoch}"));
    format!("{}\n{}\nrevocations  {revoked}", table(&hosts), table(&apps))
}

fn as_json(
    heard: &BTreeMap<HostId, Heartbeat>,
    wanted: &BTreeMap<ComponentName, Manifest>,
    revoked: Option<u64>,
    unbelieved: &Unbelieved,
) -> Value {
    let apps = wanted.iter().map(|(name, manifest)| {
        let on: Vec<_> = heard
            .values()
            .filter(|heartbeat| heartbeat.runs(name).is_some())
            .map(|heartbeat| &heartbeat.host)
            .collect();
        json!({
            "component": name, "version": manifest.version(), "wanted": manifest.wanted().replicas,
            "running": running(heard, name, manifest), "hosts": on, "digest": manifest.wanted().digest,
        })
    });
    json!({
        "hosts": heard.values().collect::<Vec<_>>(), "components": apps.collect::<Vec<_>>(), "revocations": revoked,
        "unbelieved": unbelieved.to_json(),
    })
}

fn cannot(error: bucket::BucketError) -> CliError {
    CliError::new(exit::TRANSPORT, "cluster.no-bucket", error.to_string())
}
