//! What a slice knows of its component: its entities, its part of the policies, and what was decided already.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use cedar_policy::{Entities, Entity, EntityUid, PolicySet, RestrictedExpression};

use super::callers::Callers;
use super::sends::Sends;
use crate::component::ComponentFacts;
use crate::decide::{Action, Engine, Type, Verdict};
use crate::destination::{Destination, Host};
use crate::engine::Compiled;
use crate::grants::CallerPattern;
use crate::interface::InterfaceName;
use crate::shipped;
use crate::subject::SubjectPattern;
use crate::workload::WorkloadId;

/// A slice that can decide.
pub(super) struct Ready {
    pub(super) compiled: Arc<Compiled>,
    pub(super) principal: EntityUid,
    pub(super) trust_domain: EntityUid,
    pub(super) callers: Callers,
    pub(super) sends: Sends,
    /// The patterns that scopes name: of these a subject may be a member, besides of those that end in `>`.
    subjects: Vec<SubjectPattern>,
    facts: Arc<ComponentFacts>,
    workload: WorkloadId,
    /// The component's own entities, made when something is first decided.
    base: OnceLock<Entities>,
    /// Every policy of every component, in one set: what the index must agree with.
    #[cfg(test)]
    whole: Option<PolicySet>,
}

impl Ready {
    pub(super) fn new(facts: &Arc<ComponentFacts>, compiled: Arc<Compiled>) -> Result<Self, String> {
        let workload = facts.check()?;
        let engine = &compiled.engine;
        let missing = || "an entity type is missing".to_owned();
        Ok(Self {
            principal: engine.uid(Type::Component, &facts.name).ok_or_else(missing)?,
            trust_domain: engine.uid(Type::TrustDomain, workload.trust_domain()).ok_or_else(missing)?,
            callers: Callers::new(named_workloads(&compiled, facts)),
            sends: Sends::new(compiled.index.of_component(&facts.name).map(|grant| grant.http.len()).sum()),
            subjects: compiled.subjects_of(&facts.name),
            facts: Arc::clone(facts),
            workload,
            base: OnceLock::new(),
            compiled,
            #[cfg(test)]
            whole: None,
        })
    }

    /// The same, asking all policies each time.
    #[cfg(test)]
    pub(super) fn whole(facts: &Arc<ComponentFacts>, compiled: Arc<Compiled>) -> Result<Self, String> {
        let whole = Some(compiled.whole()?);
        Ok(Self { whole, sends: Sends::forgetful(), ..Self::new(facts, compiled)? })
    }

    /// Policies that can match the component, guards included.
    pub(super) fn policies(&self) -> usize {
        self.compiled.policies_of(&self.facts.name)
    }

    pub(super) fn uid(&self, kind: Type, id: &str) -> Result<EntityUid, String> {
        self.compiled.engine.uid(kind, id).ok_or_else(|| "an entity type is missing".to_owned())
    }

    /// The component's entities.
    pub(super) fn base(&self) -> Result<&Entities, String> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        let engine = &self.compiled.engine;
        let own = own_entities(engine, &self.facts, &self.workload)?;
        let base = Entities::from_entities(own, Some(engine.schema())).map_err(|error| error.to_string())?;
        Ok(self.base.get_or_init(|| base))
    }

    /// The component's entities and one more. One that is among them already, and the same, is not added.
    pub(super) fn with(&self, entity: Entity) -> Result<Cow<'_, Entities>, String> {
        let base = self.base()?;
        let uid = entity.uid();
        if uid == self.principal || base.get(&uid).is_some() {
            return Ok(Cow::Borrowed(base));
        }
        let schema = Some(self.compiled.engine.schema());
        base.clone().add_entities([entity], schema).map(Cow::Owned).map_err(|error| error.to_string())
    }

    /// The entity of a workload.
    pub(super) fn workload(&self, id: &WorkloadId) -> Result<Entity, String> {
        workload_entity(self.compiled.engine, id)
    }

    /// Asks about an action of the component.
    pub(super) fn decide(
        &self,
        action: Action,
        entities: &Entities,
        resource: EntityUid,
        context: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
    ) -> Verdict {
        self.decide_for(self.principal.clone(), action, entities, resource, context)
    }

    /// Asks about an action of somebody else.
    pub(super) fn decide_for(
        &self,
        principal: EntityUid,
        action: Action,
        entities: &Entities,
        resource: EntityUid,
        context: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
    ) -> Verdict {
        match self.sets(action, &resource) {
            Ok(sets) => self.compiled.engine.decide(sets.into_iter(), entities, (principal, action, resource), context),
            Err(why) => Verdict::Unfit(why),
        }
    }

    /// The policies to ask about an action on a resource.
    fn sets(&self, action: Action, resource: &EntityUid) -> Result<Vec<&PolicySet>, String> {
        #[cfg(test)]
        if let Some(whole) = &self.whole {
            return Ok(vec![whole]);
        }
        let sets = self.compiled.sets_of(&self.facts.name, action, resource);
        sets.map(|set| set.as_ref().map_err(Clone::clone)).collect()
    }

    /// Asks about an action on a destination.
    pub(super) fn decide_destination(
        &self,
        action: Action,
        destination: &Destination,
        context: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
    ) -> Result<Verdict, String> {
        let zones: Vec<EntityUid> = match destination.host() {
            Host::Dns(name) => name.zones().map(|zone| self.uid(Type::DnsZone, zone)).collect::<Result<_, _>>()?,
            Host::V4(_) | Host::V6(_) => Vec::new(),
        };
        let attributes = [
            ("scheme", RestrictedExpression::new_string(destination.scheme().as_str().to_owned())),
            ("host", RestrictedExpression::new_string(destination.host().to_string())),
            ("port", RestrictedExpression::new_long(i64::from(destination.port()))),
        ];
        let entity = self.compiled.engine.entity(Type::Destination, &destination.to_string(), attributes, zones)?;
        let uid = entity.uid();
        Ok(self.decide(action, self.with(entity)?.as_ref(), uid, context))
    }

    /// Asks about an action on a subject, or on all that a pattern covers.
    pub(super) fn decide_subject(
        &self,
        action: Action,
        subject: &SubjectPattern,
        context: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
    ) -> Result<Verdict, String> {
        let named = self.subjects.iter().filter(|own| *own != subject && own.covers_all_of(subject));
        let covering = subject.parents().chain(named.map(ToString::to_string));
        let parents: Vec<EntityUid> = covering.map(|id| self.uid(Type::Subject, &id)).collect::<Result<_, _>>()?;
        let attributes = [("reserved", RestrictedExpression::new_bool(subject.reaches_reserved()))];
        let entity = self.compiled.engine.entity(Type::Subject, subject.as_str(), attributes, parents)?;
        let resource = entity.uid();
        Ok(self.decide(action, self.with(entity)?.as_ref(), resource, context))
    }

    /// The subjects that grants of this component have it receive, without those that another one of them covers.
    pub(super) fn subscriptions(&self) -> Vec<SubjectPattern> {
        let granted = self.compiled.index.of_component(&self.facts.name).flat_map(|grant| &grant.subscribe);
        let mut all: Vec<&SubjectPattern> = granted.collect();
        all.sort_unstable();
        all.dedup();
        let covered = |one: &SubjectPattern| all.iter().any(|other| *other != one && other.covers_all_of(one));
        all.iter().filter(|one| !covered(one)).map(|one| (*one).clone()).collect()
    }
}

/// Whether the shipped baseline names an interface.
pub(super) fn is_baseline(name: &InterfaceName) -> bool {
    let quoted = |pattern: &str| shipped::BASELINE.contains(&format!("\"{pattern}\""));
    quoted(name.name()) || quoted(name.package())
}

/// The workloads that grants of a component name as callers.
fn named_workloads(compiled: &Compiled, facts: &ComponentFacts) -> Vec<String> {
    let callers = compiled.index.of_component(&facts.name).flat_map(|grant| &grant.callers);
    let workload = |caller: &CallerPattern| match caller {
        CallerPattern::Anonymous => None,
        CallerPattern::Workload(id) => Some(id.to_string()),
    };
    callers.filter_map(workload).collect()
}

fn own_entities(engine: &Engine, facts: &ComponentFacts, workload: &WorkloadId) -> Result<Vec<Entity>, String> {
    let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
    let missing = || "an entity type is missing".to_owned();
    let group = engine.uid(Type::SignerGroup, &facts.signer_group).ok_or_else(missing)?;
    let workload_uid = engine.uid(Type::Workload, workload.as_str()).ok_or_else(missing)?;
    let attributes = [
        ("name", text(&facts.name)),
        ("digest", text(&facts.digest)),
        ("signer", text(&facts.signer)),
        ("instance", text(&facts.instance)),
        ("workload", RestrictedExpression::new_entity_uid(workload_uid)),
    ];
    let component = engine.entity(Type::Component, &facts.name, attributes, [group])?;
    Ok(vec![component, workload_entity(engine, workload)?])
}

fn workload_entity(engine: &Engine, id: &WorkloadId) -> Result<Entity, String> {
    let trust_domain = engine.uid(Type::TrustDomain, id.trust_domain()).ok_or("an entity type is missing")?;
    let path = RestrictedExpression::new_string(id.path().to_owned());
    engine.entity(Type::Workload, id.as_str(), [("path", path)], [trust_domain])
}
