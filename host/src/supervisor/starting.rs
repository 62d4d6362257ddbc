//! The whole way of one component, from files to requests: read, hashed, verified, admitted, recorded, given an identity, compiled or
//! taken from the cache, loaded, routed. What is refused on the way is recorded with its reason and its fix.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_policies::{ComponentFacts, ControlAction, Denial, Operator};
use portcullis_signing::ComponentBytes;

use super::admission::{Admitted, NotAdmitted};
use super::refused::{MendedBy, Refused};
use super::{Component, Host, audit_sink, children, trust_watch};
use crate::audit::Record;
use crate::cli::files;
use crate::clock;
use crate::config::Route;

/// What is to be started.
#[derive(Debug, Clone, Default)]
pub struct StartSpec {
    /// The `.wasm` file.
    pub path: PathBuf,
    /// Its evidence; empty: the file beside it.
    pub evidence: Vec<PathBuf>,
    /// A route for it (host, path prefix).
    pub route: Option<(Option<String>, String)>,
    /// What it must turn out to be.
    pub expect: Option<Expect>,
    /// Who asked for it, where that was an operator.
    pub by: Option<Operator>,
    /// Whether whoever asked is still believed: bytes take their time to come, and it may have changed meanwhile.
    pub again: Option<Again>,
    /// It ran here before, and its cluster cannot be asked.
    pub offline: bool,
    /// It takes nobody's place: refused where one of its name runs.
    pub yields: bool,
}

/// A question that was answered before, asked again directly before a component is admitted.
#[derive(Clone)]
pub struct Again(Arc<Question>);

type Question = dyn Fn() -> Result<(), Refused> + Send + Sync;

impl Again {
    /// Asked as often as it takes; it must say what is so now.
    pub fn new(question: impl Fn() -> Result<(), Refused> + Send + Sync + 'static) -> Self {
        Self(Arc::new(question))
    }

    /// The answer of now.
    pub fn ask(&self) -> Result<(), Refused> {
        (self.0)()
    }
}

impl std::fmt::Debug for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Again")
    }
}

/// What a component must turn out to be: whoever asks for it names these, and where its bytes lie proves neither.
#[derive(Debug, Clone)]
pub struct Expect {
    /// Its claimed name.
    pub name: String,
    /// The digest of its bytes.
    pub digest: String,
}

impl Host {
    /// The whole way of one component, from files to requests.
    pub async fn start_component(self: &Arc<Self>, spec: StartSpec) -> Result<Arc<Component>, Refused> {
        // Which policies and revocations are in force is known only then.
        if let Some(cluster) = &self.cluster {
            cluster.decided().await;
        }
        let _one_at_a_time = self.starting.lock().await;
        self.read_trust();
        let bytes =
            files::read_component(&spec.path).map_err(|error| self.refuse(&spec, Refused::from_file(&error)))?;
        check_expected_bytes(&spec, &bytes).map_err(|refused| self.refuse(&spec, refused))?;
        let admitted = self.admit(&spec, &bytes).map_err(|refused| self.refuse(&spec, refused))?;
        check_expected_name(&spec, &admitted).map_err(|refused| self.refuse(&spec, refused))?;
        self.check_free(&spec, &admitted.facts().name).map_err(|refused| self.refuse(&spec, refused))?;
        // At the start of the host, and while it is started again, the identity process is not up for a moment.
        // What can change meanwhile is asked after it: nothing is waited for from here to the record.
        if self.identity_process.wait().await.is_none() {
            return Err(self.refuse(&spec, Refused::internal("the identity process is not up")));
        }
        self.check_revoked(admitted.spiffe_id()).map_err(|refused| self.refuse(&spec, refused))?;
        self.check_cluster(&admitted, spec.offline).map_err(|refused| self.refuse(&spec, refused))?;
        // Its name is known only now: an operator may start components by name.
        if let Some(who) = &spec.by {
            self.allow(who, ControlAction::Start, Some(&admitted.facts().name))?;
        }
        if let Some(again) = &spec.again {
            again.ask().map_err(|refused| self.refuse(&spec, refused))?;
        }
        self.check_yields(&spec, &admitted.facts().name).map_err(|refused| self.refuse(&spec, refused))?;
        self.mark_revision(&admitted).map_err(|refused| self.refuse(&spec, refused))?;
        let failed = |error: &dyn std::fmt::Display| self.refuse(&spec, Refused::internal(error));
        self.record(with_fields(Record::new("admission"), &admitted)).map_err(|error| failed(&error))?;
        for denial in admitted.let_through() {
            self.record(self.let_through(denial)).map_err(|error| failed(&error))?;
        }
        self.identity.admit(&admitted, self.may_export(&admitted)).await.map_err(|error| failed(&error))?;
        let started = self.bring_up(&spec, &bytes, admitted.clone()).await;
        if started.is_err() {
            let _ = self.identity.stop(&admitted.facts().instance).await;
        } else {
            self.runs_now(&spec.path, &admitted.facts().name);
        }
        started.map_err(|refused| self.refuse(&spec, refused))
    }

    pub(super) async fn bring_up(
        self: &Arc<Self>,
        spec: &StartSpec,
        bytes: &ComponentBytes,
        admitted: Admitted,
    ) -> Result<Arc<Component>, Refused> {
        let code = self.code.code(bytes, &self.identity).await.map_err(|error| Refused::from_code(&error))?;
        let component = Arc::new(Component { admitted, code, draining: AtomicBool::new(false) });
        self.record(with_fields(Record::new("start").field("by", "supervisor"), &component.admitted))
            .map_err(Refused::internal)?;
        let name = component.admitted.facts().name.clone();
        let replaced: Vec<_> = self.running().into_iter().filter(|old| old.admitted.facts().name == name).collect();
        self.insert(Arc::clone(&component));
        let up = self.runtime_process.wait().await.ok_or_else(|| Refused::internal("the runtime process is not up"));
        let loaded = match up {
            Ok(up) => children::load(&up, &component).await.map_err(Refused::internal),
            Err(refused) => Err(refused),
        };
        if let Err(refused) = loaded {
            self.remove(&component.admitted.facts().instance);
            return Err(refused);
        }
        if let Some((host, path)) = &spec.route {
            self.add_route(Route { host: host.clone(), path: path.clone(), component: name });
        }
        for old in replaced {
            self.end_instance(&old, "replaced").await;
        }
        // What was denied while it was compiled: the watch could not see it yet.
        trust_watch::enforce(self).await;
        if !self.running().iter().any(|running| Arc::ptr_eq(running, &component)) {
            return Err(Refused {
                exit: crate::cli::error::exit::REVOKED,
                code: "revoked".to_owned(),
                message: "it was revoked while it was started".to_owned(),
                hint: "look at the log of the host".to_owned(),
                ..Refused::internal("")
            });
        }
        if self.settled.load(Ordering::Acquire) {
            self.send_routes().await;
        }
        Ok(component)
    }

    /// Verifies and decides; nothing has an effect yet.
    pub(super) fn admit(&self, spec: &StartSpec, bytes: &ComponentBytes) -> Result<Admitted, Refused> {
        let evidence = files::read_evidence(&spec.path, &spec.evidence).map_err(|error| Refused::from_file(&error))?;
        let evidence: Vec<&[u8]> = evidence.iter().map(Vec::as_slice).collect();
        let now = clock::now();
        let trust = self.trust.read().map_err(|_| Refused::internal("poisoned"))?;
        let in_force = trust.in_force(now);
        let (trust, deny_list) = in_force.map_err(|refused| Refused { mended_by: Some(MendedBy::Trust), ..refused })?;
        let marks = self.high_water.lock().map_err(|_| Refused::internal("poisoned"))?;
        let marks = marks.as_ref().map_err(Clone::clone)?;
        let context = portcullis_signing::Context {
            trust,
            deny_list,
            audience: &self.config.cluster,
            now,
            highest_seen: &|name, audience| Ok(marks.revision(&name.to_string(), audience)),
        };
        let verified = portcullis_signing::verify(bytes, &evidence, &context)
            .map_err(|refusal| Refused::from_evidence(&refusal))?;
        let policy = self.policy();
        let slice = |facts: &ComponentFacts| self.audited().slice(policy.set(), facts, clock::now());
        Admitted::decide(&verified, &slice, &self.config.trust_domain)
            .map_err(|refusal: NotAdmitted| Refused::from_admission(&refusal, &self.fix_context()))
    }

    /// Whether the configuration lets this component have its private key, where policy grants that.
    pub(super) fn may_export(&self, admitted: &Admitted) -> bool {
        self.config.dangers.exportable_keys.iter().any(|name| *name == admitted.facts().name)
    }

    /// The record of a link that audit mode lets through.
    pub(super) fn let_through(&self, denial: &Denial) -> Record {
        let reference = ulid::Ulid::generate().to_string();
        let denial = denial.clone().with_reference(reference.clone());
        let context = self.fix_context();
        Record::new("let-through")
            .reference(&reference)
            .field("by", "supervisor")
            .field("component", denial.component())
            .field("code", denial.code().to_string())
            .field("denial", serde_json::to_value(&denial).unwrap_or_default())
            .field("text", format!("{}\n{}", audit_sink::LET_THROUGH, denial.render(&context)))
            .field("fix", denial.fix(&context).unwrap_or_default())
    }

    pub(super) fn mark_revision(&self, admitted: &Admitted) -> Result<(), Refused> {
        let mut marks = self.high_water.lock().map_err(|_| Refused::internal("poisoned"))?;
        let marks = marks.as_mut().map_err(|refused| refused.clone())?;
        let name = &admitted.facts().name;
        marks.saw_revision(name, &self.config.cluster, admitted.revision()).map_err(Refused::internal)
    }

    /// Records a refused start and puts the reference into the refusal.
    pub(super) fn refuse(&self, spec: &StartSpec, refused: Refused) -> Refused {
        let reference = ulid::Ulid::generate().to_string();
        let refused = refused.with_reference(reference.clone(), &self.fix_context());
        let record = Record::new("denial")
            .reference(&reference)
            .field("by", "supervisor")
            .field("action", "start")
            .field("path", spec.path.display().to_string())
            .field("code", refused.code.clone())
            .field("text", refused.message.clone())
            .field("hint", refused.hint.clone())
            .field("fix", refused.fix.clone())
            .field("details", refused.details.clone());
        if let Err(error) = self.record(record) {
            tracing::error!(%error, "a refusal could not be recorded");
            self.audit_failed();
        }
        refused
    }
}

/// Whatever lies at the path: what was asked for is named by its digest.
fn check_expected_bytes(spec: &StartSpec, bytes: &ComponentBytes) -> Result<(), Refused> {
    let Some(expect) = &spec.expect else { return Ok(()) };
    let found = bytes.digest().to_string();
    if found == expect.digest {
        return Ok(());
    }
    Err(Refused {
        exit: crate::cli::error::exit::CLAIMS,
        code: "digest.other".to_owned(),
        message: format!("{} is {found}, {} was asked for", spec.path.display(), expect.digest),
        hint: "put the component with that digest there, or ask for this one".to_owned(),
        ..Refused::internal("")
    })
}

fn check_expected_name(spec: &StartSpec, admitted: &Admitted) -> Result<(), Refused> {
    let Some(expect) = &spec.expect else { return Ok(()) };
    let found = &admitted.facts().name;
    if *found == expect.name {
        return Ok(());
    }
    Err(Refused {
        exit: crate::cli::error::exit::CLAIMS,
        code: "component.other-name".to_owned(),
        message: format!("its claims name it {found}, {} was asked for", expect.name),
        hint: "ask for it by the name in its claims".to_owned(),
        ..Refused::internal("")
    })
}

pub(super) fn with_fields(record: Record, admitted: &Admitted) -> Record {
    admitted.audit_fields().into_iter().fold(record, |record, (name, value)| record.field(name, value))
}
