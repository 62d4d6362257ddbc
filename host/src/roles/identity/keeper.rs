//! What the identity process keeps: the issuer, the policy, and the instances that were admitted.
//!
//! An instance that is not in the table here has no identity, and one that is revoked gets nothing more. What is issued or
//! denied is on disk in the audit log before the answer leaves; an issuance that cannot be recorded does not leave.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use portcullis_identity::rpc::{Denied, Failed};
use portcullis_identity::source::{BuiltIn, IdentitySource};
use portcullis_identity::{BundleDocument, InstanceId, IssueError, Issuer};
use portcullis_policies::{ComponentFacts, Denial, FixContext, Grant, Slice};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tonic::Request;
use tonic::transport::Channel;

use super::counts::Counts;
use super::dials::Dials;
use super::publishing::Published;
use super::rate::{Over, Rates, Unrecorded, Use};
use crate::identity_report::{PeerReport, SourceReport};
use crate::limits;
use crate::policy::{Ending, Pushed};
use crate::rpc::audit::audit_client::AuditClient;
use crate::rpc::audit::{AppendManyRequest, AppendRequest};

/// The state behind all services of the process.
///
/// Locks are taken in this order: `policy`, `instances`, `publishing`, `issuer`. Whoever holds the issuer's waits for no other,
/// and none is held over an `await`.
pub(super) struct Keeper {
    pub(super) issuer: Arc<Mutex<Issuer>>,
    /// The host's name in its cluster: the end of its own SPIFFE ID.
    pub(super) host_name: Option<portcullis_cluster::HostId>,
    /// Where components' identities come from: the issuer above, or a source outside of this host.
    pub(super) identities: Arc<dyn IdentitySource>,
    /// Where the host's own identity comes from, beside a source outside of this host.
    pub(super) of_host: Option<Arc<dyn IdentitySource>>,
    /// Counts what may change the answer to a broker: admissions, stops, policies.
    pub(super) changed: watch::Sender<u64>,
    pub(super) policy: Mutex<Arc<Pushed>>,
    /// Ends audit mode in time, also where nobody says so.
    pub(super) ending: Ending,
    pub(super) instances: Mutex<HashMap<String, Instance>>,
    pub(super) audit: AuditClient<Channel>,
    pub(super) fix: FixContext,
    pub(super) counts: Counts,
    pub(super) rates: Mutex<Rates>,
    /// What everything that streams follows.
    pub(super) published: watch::Sender<Arc<Published>>,
    /// One publishes at a time, so that an older state never takes the place of a newer one.
    pub(super) publishing: Mutex<()>,
    /// The bundles of other trust domains, as federation has them now.
    pub(super) foreign: watch::Sender<Arc<Vec<Arc<BundleDocument>>>>,
    /// What federation says of itself.
    pub(super) peers: Mutex<Vec<PeerReport>>,
    /// What a source of identities outside of this host says of itself.
    pub(super) source: Mutex<Option<SourceReport>>,
    /// Connections to servers of the configuration.
    pub(super) dials: Arc<Dials>,
    /// Why rotation does not get on, if it does not.
    pub(super) trouble: Mutex<Option<String>>,
    /// One rotation at a time, forced or due.
    pub(super) rotating: tokio::sync::Mutex<()>,
    /// Has the rotation task look again.
    pub(super) look: Notify,
}

/// An instance that was admitted.
pub(super) struct Instance {
    pub(super) facts: ComponentFacts,
    pub(super) slice: Arc<Slice>,
    /// Serials and token ids whose issuance is on disk. An SVID that is not in here does not leave.
    pub(super) recorded: HashSet<String>,
    /// Its identity was taken from it while it runs.
    pub(super) revoked: bool,
    /// End of its newest X.509-SVID.
    pub(super) x509_not_after: Option<i64>,
    pub(super) x509_minted: u64,
    pub(super) jwt_minted: u64,
}

/// Why a call ended without its result.
pub(super) enum Stop {
    Denied(Denied),
    Failed(Failed),
}

/// A record to be.
pub(super) struct Entry {
    /// `issuance`, `denial` or `authority`.
    pub(super) kind: &'static str,
    pub(super) reference: String,
    pub(super) fields: Value,
}

impl Entry {
    /// A record with a reference of its own.
    pub(super) fn new(kind: &'static str, fields: Value) -> Self {
        Self { kind, reference: ulid::Ulid::generate().to_string(), fields }
    }
}

impl Instance {
    /// A new instance.
    pub(super) fn new(facts: ComponentFacts, slice: Arc<Slice>, revoked: bool) -> Self {
        let (x509_not_after, x509_minted, jwt_minted) = (None, 0, 0);
        Self { facts, slice, recorded: HashSet::new(), revoked, x509_not_after, x509_minted, jwt_minted }
    }

    /// Remembers that an issuance is on disk.
    pub(super) fn remember(&mut self, id: &str) {
        if self.recorded.len() >= RECORDED {
            self.recorded.clear();
        }
        self.recorded.insert(id.to_owned());
    }
}

impl Keeper {
    /// A keeper that nobody has told anything yet: no policy, no instances.
    pub(super) fn new(issuer: Issuer, audit: AuditClient<Channel>, fix: FixContext) -> Result<Self, String> {
        let published = Published::of(&issuer)?;
        let trust_domain = issuer.trust_domain().clone();
        let issuer = Arc::new(Mutex::new(issuer));
        let identities = Arc::new(BuiltIn::new(Arc::clone(&issuer), trust_domain));
        Ok(Self {
            issuer,
            host_name: None,
            identities,
            of_host: None,
            changed: watch::Sender::new(0),
            policy: Mutex::new(Arc::new(Pushed::nothing())),
            ending: Ending::default(),
            instances: Mutex::new(HashMap::new()),
            audit,
            fix,
            counts: Counts::default(),
            rates: Mutex::new(Rates::default()),
            published: watch::Sender::new(Arc::new(published)),
            publishing: Mutex::new(()),
            foreign: watch::Sender::new(Arc::new(Vec::new())),
            peers: Mutex::new(Vec::new()),
            source: Mutex::new(None),
            dials: Arc::new(Dials::new()),
            trouble: Mutex::new(None),
            rotating: tokio::sync::Mutex::new(()),
            look: Notify::new(),
        })
    }

    /// Takes identities from a source outside of this host from now on. Nobody is admitted yet.
    pub(super) fn take_from(&mut self, source: Arc<dyn IdentitySource>, of_host: Option<Arc<dyn IdentitySource>>) {
        self.identities = source;
        self.of_host = of_host;
    }

    /// Tells who follows that an answer may be another one now.
    pub(super) fn note_change(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn issuer(&self) -> Result<MutexGuard<'_, Issuer>, Stop> {
        self.issuer.lock().map_err(|_| failed("internal", "the issuer is poisoned"))
    }

    pub(super) fn table(&self) -> Result<MutexGuard<'_, HashMap<String, Instance>>, Stop> {
        self.instances.lock().map_err(|_| failed("internal", "poisoned"))
    }

    /// An instance that may ask for something.
    pub(super) fn instance(&self, name: &str) -> Result<(InstanceId, ComponentFacts, Arc<Slice>), Stop> {
        let instances = self.table()?;
        let known = instances
            .get(name)
            .ok_or_else(|| failed("unknown-instance", "this instance has no identity on this host"))?;
        if known.revoked {
            return Err(revoked());
        }
        let id = name.parse().map_err(|_| failed("unknown-instance", "a malformed instance id"))?;
        Ok((id, known.facts.clone(), Arc::clone(&known.slice)))
    }

    /// Takes one from the allowance of an instance, or refuses. The first refusal is recorded at once, later ones in bulk.
    pub(super) async fn take(&self, facts: &ComponentFacts, what: Use) -> Result<(), Stop> {
        let taken = self.rates.lock().map_err(|_| failed("internal", "poisoned"))?;
        let taken = { taken }.take(&facts.instance, what, Instant::now());
        let Err(Over { retry_after, host, record }) = taken else { return Ok(()) };
        self.counts.limited(what).up();
        let whose = if host { "this host" } else { "this instance" };
        let message =
            format!("too many at once ({}) for {whose}: try again in {} ms", what.name(), retry_after.as_millis());
        let mut reference = String::new();
        if let Some(refused) = record {
            let unrecorded = Unrecorded { instance: facts.instance.clone(), what, refused };
            let entry = self.limited(&unrecorded, &facts.name);
            reference.clone_from(&entry.reference);
            self.append_denials(vec![entry]).await;
        }
        Err(Stop::Failed(Failed { kind: "rate-limited".to_owned(), message, reference }))
    }

    /// The record of refusals over a limit.
    pub(super) fn limited(&self, unrecorded: &Unrecorded, component: &str) -> Entry {
        let Unrecorded { instance, what, refused } = unrecorded;
        let what = what.name();
        let text = format!("{component} asked for more than its rate allows: {refused} refused ({what})");
        let fields = json!({
            "instance": instance, "component": component, "code": "identity.rate-limited", "what": what,
            "refused": refused, "text": text,
        });
        Entry::new("denial", fields)
    }

    /// Records denials. One that cannot be recorded is a denial all the same.
    pub(super) async fn append_denials(&self, entries: Vec<Entry>) {
        if let Err(error) = self.append_many(entries).await {
            tracing::error!(%error, "a denial could not be recorded");
        }
    }

    /// Records a denial, then gives it the form of a reply. A denial that cannot be recorded is a denial all the same.
    pub(super) async fn denied(&self, facts: &ComponentFacts, denial: Denial) -> Stop {
        self.counts.denied.up();
        let reference = ulid::Ulid::generate().to_string();
        let denial = denial.with_reference(reference.clone());
        let fields = json!({
            "instance": facts.instance,
            "component": facts.name,
            "code": denial.code().to_string(),
            "denial": denial,
            "text": denial.render(&self.fix),
            "fix": denial.fix(&self.fix).unwrap_or_default(),
        });
        if let Err(error) = self.append("denial", &reference, &fields).await {
            tracing::error!(%error, "a denial could not be recorded");
        }
        let code = denial.code().to_string();
        let denial_json = serde_json::to_string(&denial).unwrap_or_default();
        Stop::Denied(Denied { code, reference, denial_json })
    }

    /// What policy decided. What audit mode lets through is on disk before it happens, and does not happen without that.
    pub(super) async fn decided<A>(
        &self,
        facts: &ComponentFacts,
        decided: Result<Grant<A>, Denial>,
    ) -> Result<Grant<A>, Stop> {
        let grant = match decided {
            Ok(grant) => grant,
            Err(denial) => return Err(self.denied(facts, denial).await),
        };
        if let Some(denial) = grant.instead_of() {
            let entry = self.let_through(facts, denial);
            if let Err(error) = self.append_many(vec![entry]).await {
                tracing::error!(%error, "what audit mode lets through could not be recorded and is denied");
                return Err(self.denied(facts, denial.clone()).await);
            }
        }
        Ok(grant)
    }

    /// The record of what audit mode lets through.
    pub(super) fn let_through(&self, facts: &ComponentFacts, denial: &Denial) -> Entry {
        let reference = ulid::Ulid::generate().to_string();
        let denial = denial.clone().with_reference(reference.clone());
        let fields = json!({
            "instance": facts.instance,
            "component": facts.name,
            "code": denial.code().to_string(),
            "denial": denial,
            "text": format!("{}\n{}", crate::supervisor::audit_sink::LET_THROUGH, denial.render(&self.fix)),
            "fix": denial.fix(&self.fix).unwrap_or_default(),
        });
        Entry { kind: "let-through", reference, fields }
    }

    /// Records a refusal that is not the policy engine's, then gives it the form of a reply.
    pub(super) async fn refused(&self, facts: &ComponentFacts, code: &str, text: &str) -> Stop {
        self.counts.denied.up();
        let fields = json!({ "instance": facts.instance, "component": facts.name, "code": code, "text": text });
        let entry = Entry::new("denial", fields);
        let reference = entry.reference.clone();
        self.append_denials(vec![entry]).await;
        Stop::Denied(Denied { code: code.to_owned(), reference, denial_json: String::new() })
    }

    /// Records what is about to leave. Without that it does not.
    pub(super) async fn must_record(&self, kind: &str, fields: &Value) -> Result<(), Stop> {
        let recorded = self.append(kind, &ulid::Ulid::generate().to_string(), fields).await;
        recorded.map_err(|error| failed("unavailable", &format!("it could not be recorded: {error}")))
    }

    /// Sees to it that an issuance is on disk. Without that the SVID does not leave.
    pub(super) async fn recorded(&self, instance: &str, id: &str, fields: Value) -> Result<(), Stop> {
        if self.is_recorded(instance, id) {
            return Ok(());
        }
        let reference = ulid::Ulid::generate().to_string();
        self.append("issuance", &reference, &fields)
            .await
            .map_err(|error| failed("unavailable", &format!("the issuance could not be recorded: {error}")))?;
        let mut instances = self.table()?;
        let held =
            instances.get_mut(instance).ok_or_else(|| failed("unknown-instance", "this instance was stopped"))?;
        if held.revoked {
            return Err(revoked());
        }
        held.remember(id);
        Ok(())
    }

    pub(super) fn is_recorded(&self, instance: &str, id: &str) -> bool {
        self.instances.lock().is_ok_and(|all| all.get(instance).is_some_and(|held| held.recorded.contains(id)))
    }

    /// Appends one record; on disk when this returns.
    pub(super) async fn append(&self, kind: &str, reference: &str, fields: &Value) -> Result<(), String> {
        let mut request = Request::new(AppendRequest {
            kind: kind.to_owned(),
            reference: reference.to_owned(),
            fields_json: fields.to_string(),
        });
        request.set_timeout(limits::RPC_TIMEOUT);
        self.audit.clone().append(request).await.map(|_| ()).map_err(|status| status.message().to_owned())
    }

    /// Appends many records, each batch of at most [`limits::AUDIT_BATCH`] in one write; on disk when this returns.
    pub(super) async fn append_many(&self, entries: Vec<Entry>) -> Result<(), String> {
        let mut records = entries.into_iter().map(|entry| AppendRequest {
            kind: entry.kind.to_owned(),
            reference: entry.reference,
            fields_json: entry.fields.to_string(),
        });
        loop {
            let batch: Vec<_> = records.by_ref().take(limits::AUDIT_BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let mut request = Request::new(AppendManyRequest { records: batch });
            request.set_timeout(limits::RPC_TIMEOUT);
            self.audit.clone().append_many(request).await.map_err(|status| status.message().to_owned())?;
        }
    }
}

/// The answer to an instance whose identity was revoked.
pub(super) fn revoked() -> Stop {
    failed("revoked", "the identity of this instance is revoked")
}

pub(super) fn failed(kind: &str, message: &str) -> Stop {
    Stop::Failed(Failed { kind: kind.to_owned(), message: message.to_owned(), reference: String::new() })
}

pub(super) fn issue_failed(error: IssueError) -> Stop {
    let kind = match &error {
        IssueError::UnknownInstance(_) => "unknown-instance",
        IssueError::Audiences | IssueError::Lifetime => "invalid-argument",
        IssueError::NotExportable(_) => "not-exportable",
        IssueError::NoWit => "not-served",
        IssueError::AuthorityExpired | IssueError::KeyUnavailable | IssueError::Minting(_) => "unavailable",
    };
    failed(kind, &format!("{error}; hint: {}", error.hint()))
}

/// Issuances remembered as recorded for one instance; beyond, the memory starts anew and an issuance may be recorded twice.
const RECORDED: usize = 4096;
