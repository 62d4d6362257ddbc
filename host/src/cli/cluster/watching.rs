//! `portcullis cluster status` and `cluster events`: what hosts say of themselves, by their signatures, beside what is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use portcullis_cluster::{
    Bucket, CloudEvent, EventKind, Heartbeat, HostId, Manifest, Place, PolicyDocument, RevocationList, place,
};
use portcullis_identity::statement::{Envelope, Expected, HEADER, Signer, Signers, check};
use portcullis_identity::{Excerpt, SpiffeId};
use portcullis_signing::ComponentName;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::operator::{Operator, no_bucket, unreachable};
use super::unbelieved::{Reason, Unbelieved};
use super::{EventsArgs, StatusArgs, refusals};
use crate::cli::error::{CliError, exit};
use crate::cli::output::{Output, table};
use crate::clock;
use crate::config::cluster::Member;
use crate::supervisor::cluster::bucket;

/// `cluster status`: exit 0 where everything that is wanted runs, else 1.
pub async fn status(args: &StatusArgs, out: &mut Output) -> Result<(), CliError> {
    let operator = Operator::open(&args.operator.operator).await?;
    let mut listening = Listening::begin(&operator).await?;
    listening.hear(&operator, Duration::from_secs_f64(args.listen.clamp(0.1, 120.0))).await;
    let Listening { heard, by, unbelieved, .. } = listening;
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
    let mut shown = text(&heard, &by, &wanted, epoch);
    let refused = refusals::all(&heard);
    let (set, _) = operator.read::<PolicyDocument>(&Place::Policy).await?;
    let behind = behind(&heard, epoch, set.document().map(PolicyDocument::version));
    let remarks = revoked.remark(&Place::Revoked).into_iter().chain(unbelieved.lines());
    for line in refusals::lines(&refused).into_iter().chain(behind).chain(remarks) {
        shown.push('\n');
        shown.push_str(&line);
    }
    out.result(shown, &as_json(&heard, &by, &wanted, epoch, &unbelieved))?;
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
        _ => {
            let why =
                "the lines below the tables say why a host does not run one; `cluster events` shows it as it happens";
            let hint = refusals::hint(&refused).unwrap_or_else(|| why.to_owned());
            Err(failed("fewer replicas run than are wanted").with_hint(hint))
        }
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
            Ok((event, _)) => event,
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
) -> Result<(CloudEvent, Signer), Reason> {
    let token = message.headers.as_ref().and_then(|headers| headers.get(HEADER)).ok_or_else(Reason::unsigned)?;
    let audience = place::audience(&operator.cluster);
    let expected = Expected::message(&audience, message.subject.as_str());
    let statement = check(token.as_str(), &message.payload, &expected, signers, clock::now())
        .map_err(|error| Reason::statement(&error, &operator.config.bundle))?;
    let id: SpiffeId =
        format!("spiffe://{}/portcullis/host/{host}", operator.config.trust_domain).parse().map_err(Reason::form)?;
    if !operator.config.signs_for(host.as_str(), &id, statement.signer()) {
        return Err(Reason::stranger(statement.signer(), &operator.config.member));
    }
    let source = match statement.signer() {
        Signer::Svid(signer) => signer.clone(),
        Signer::Nkey(_) => id,
    };
    let event = CloudEvent::parse(&message.payload).map_err(Reason::form)?;
    match event.source == source {
        true => Ok((event, statement.signer().clone())),
        false => Err(Reason::form("it names another source")),
    }
}

/// The same of a heartbeat, which is about its own host alone.
fn heartbeat(
    operator: &Operator,
    signers: &Signers,
    host: &HostId,
    message: &async_nats::Message,
) -> Result<(Heartbeat, Signer), Reason> {
    let (event, signer) = believed(operator, signers, host, message)?;
    if event.kind != EventKind::Heartbeat {
        return Err(Reason::form("it is an event of another kind"));
    }
    // What serde says may quote what came.
    let heartbeat: Heartbeat =
        serde_json::from_value(event.data).map_err(|error| Reason::form(Excerpt::new(&error.to_string())))?;
    heartbeat.check().map_err(Reason::form)?;
    if heartbeat.host == *host { Ok((heartbeat, signer)) } else { Err(Reason::form("it is about another host")) }
}

/// Whom hosts are checked with.
fn signers(operator: &Operator) -> Result<Signers, CliError> {
    Ok(Signers::new(Arc::new(operator.trust()?), Member::keys(&operator.config.member)))
}

/// The heartbeats of hosts, as they come: the last one of each that is believed.
#[derive(Debug)]
pub struct Listening {
    messages: async_nats::Subscriber,
    signers: Signers,
    heard: BTreeMap<HostId, Heartbeat>,
    /// Who signed them.
    by: BTreeMap<HostId, Signer>,
    unbelieved: Unbelieved,
}

impl Listening {
    /// Begins to hear.
    pub async fn begin(operator: &Operator) -> Result<Self, CliError> {
        let signers = signers(operator)?;
        let subject = place::all_heartbeats(&operator.cluster);
        let messages = operator.nats.subscribe(subject, None).await.map_err(|error| unreachable(&error))?;
        Ok(Self { messages, signers, heard: BTreeMap::new(), by: BTreeMap::new(), unbelieved: Unbelieved::default() })
    }

    /// Hears for so long.
    pub async fn hear(&mut self, operator: &Operator, listen: Duration) {
        let until = Instant::now() + listen;
        while let Ok(Some(message)) = tokio::time::timeout_at(until, self.messages.next()).await {
            let Some(host) = place::heartbeat_host(&operator.cluster, message.subject.as_str()) else { continue };
            match heartbeat(operator, &self.signers, &host, &message) {
                Ok((heartbeat, signer)) => {
                    self.by.insert(host.clone(), signer);
                    self.heard.insert(host, heartbeat);
                }
                Err(reason) => self.unbelieved.add(host, reason),
            }
        }
    }

    /// What was heard and is believed.
    pub fn heard(&self) -> &BTreeMap<HostId, Heartbeat> {
        &self.heard
    }

    /// What is not.
    pub fn unbelieved(&self) -> &Unbelieved {
        &self.unbelieved
    }

    /// The longest time between two heartbeats of a host.
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.heard.values().map(|heartbeat| heartbeat.interval_ms).max().unwrap_or_default())
    }
}

/// Hosts that do not have what is stored: they have not heard of it yet, or do not believe it.
fn behind(heard: &BTreeMap<HostId, Heartbeat>, epoch: Option<u64>, set: Option<u64>) -> Vec<String> {
    let line = |host: &HostId, has: u64, stored: Option<u64>, what: &str| {
        let stored = stored.filter(|stored| *stored > has)?;
        Some(format!(
            "{host} has {what} {has}, {stored} is stored: `portcullis status` there says why, where that stays so"
        ))
    };
    let of = |heartbeat: &Heartbeat| {
        // A host that takes no policies of its cluster has none, too.
        let set = set.filter(|_| heartbeat.policy > 0);
        [
            line(&heartbeat.host, heartbeat.revocations, epoch, "revocations of epoch"),
            line(&heartbeat.host, heartbeat.policy, set, "policies of version"),
        ]
    };
    heard.values().flat_map(of).flatten().collect()
}

fn running(heard: &BTreeMap<HostId, Heartbeat>, name: &ComponentName, manifest: &Manifest) -> usize {
    heard.values().filter(|heartbeat| heartbeat.runs(name) == Some(manifest.version())).count()
}

fn text(
    heard: &BTreeMap<HostId, Heartbeat>,
    by: &BTreeMap<HostId, Signer>,
    wanted: &BTreeMap<ComponentName, Manifest>,
    revoked: Option<u64>,
) -> String {
    let head = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let mut hosts =
        vec![head(&["HOST", "READY", "PLACES", "REVOCATIONS", "POLICIES", "HTTP", "LABELS", "RUNS", "SIGNED BY"])];
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
            by.get(&heartbeat.host).map(ToString::to_string).unwrap_or_default(),
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
    by: &BTreeMap<HostId, Signer>,
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
        let refused = refusals::of(heard, name, manifest.version());
        json!({
            "component": name, "version": manifest.version(), "wanted": manifest.wanted().replicas,
            "running": running(heard, name, manifest), "hosts": on, "digest": manifest.wanted().digest,
            "refused": refused.iter().map(refusals::Refusal::to_json).collect::<Vec<_>>(),
        })
    });
    json!({
        "hosts": heard.values().collect::<Vec<_>>(), "components": apps.collect::<Vec<_>>(), "revocations": revoked,
        "signers": by.iter().map(|(host, by)| (host.to_string(), by.to_string().into())).collect::<serde_json::Map<_, _>>(),
        "unbelieved": unbelieved.to_json(),
    })
}

fn cannot(error: bucket::BucketError) -> CliError {
    match error {
        bucket::BucketError::NoAnswer(name) => no_bucket(&name),
        bucket::BucketError::Transport(_) | bucket::BucketError::Status { .. } | bucket::BucketError::TooMany(_) => {
            CliError::new(exit::TRANSPORT, "cluster.no-bucket", error.to_string()).with_hint(
                "see the server's log, and that JetStream of this account is as `portcullis cluster init` made it",
            )
        }
    }
}
