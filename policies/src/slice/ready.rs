//! What a slice has built beforehand: policies by action, the entities of the component, of its destinations.

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{Entities, Entity, EntityUid, PolicyId, ResourceConstraint, RestrictedExpression};

use super::callers::Callers;
use super::candidates::Candidates;
use crate::component::ComponentFacts;
use crate::decide::{Action, Engine, Kind, Meta, Rule, Type, Verdict};
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
    pub(super) metas: HashMap<PolicyId, Arc<Meta>>,
    pub(super) principal: EntityUid,
    pub(super) trust_domain: EntityUid,
    pub(super) base: Entities,
    pub(super) callers: Callers,
    by_action: Vec<Candidates>,
    destinations: HashMap<Destination, (EntityUid, Entities)>,
    /// The patterns that scopes name: of these a subject may be a member, besides of those that end in `>`.
    subjects: Vec<SubjectPattern>,
}

impl Ready {
    pub(super) fn new<'a>(
        facts: &ComponentFacts,
        compiled: Arc<Compiled>,
        rules: impl Iterator<Item = &'a Rule>,
        by_resource: bool,
    ) -> Result<Self, String> {
        let workload = facts.check()?;
        let (mut metas, mut subjects) = (HashMap::new(), Vec::new());
        let mut by_action: Vec<Vec<&Rule>> = Action::ALL.iter().map(|_| Vec::new()).collect();
        for rule in rules {
            for action in &rule.actions {
                by_action.get_mut(*action as usize).ok_or("an action is missing")?.push(rule);
            }
            metas.insert(rule.policy.id().clone(), Arc::clone(&rule.meta));
            subjects.extend(named_subject(&compiled.engine, rule));
        }
        subjects.sort_unstable();
        subjects.dedup();
        let by_action = by_action.iter().map(|rules| Candidates::new(rules, by_resource)).collect::<Result<_, _>>()?;
        let engine = &compiled.engine;
        let own = own_entities(engine, facts, &workload)?;
        let base = Entities::from_entities(own, Some(engine.schema())).map_err(|error| error.to_string())?;
        let missing = || "an entity type is missing".to_owned();
        let mut ready = Self {
            principal: engine.uid(Type::Component, &facts.name).ok_or_else(missing)?,
            trust_domain: engine.uid(Type::TrustDomain, workload.trust_domain()).ok_or_else(missing)?,
            compiled,
            metas,
            base,
            callers: Callers::default(),
            by_action,
            destinations: HashMap::new(),
            subjects,
        };
        let granted: Vec<Destination> = ready.granted(facts).cloned().collect();
        for destination in granted {
            let built = ready.destination(&destination)?;
            ready.destinations.insert(destination, built);
        }
        Ok(ready)
    }

    pub(super) fn uid(&self, kind: Type, id: &str) -> Result<EntityUid, String> {
        self.compiled.engine.uid(kind, id).ok_or_else(|| "an entity type is missing".to_owned())
    }

    /// The component's entities and one more.
    pub(super) fn with(&self, entity: Entity) -> Result<Entities, String> {
        let schema = Some(self.compiled.engine.schema());
        self.base.clone().add_entities([entity], schema).map_err(|error| error.to_string())
    }

    /// The entity of a workload.
    pub(super) fn workload(&self, id: &WorkloadId) -> Result<Entity, String> {
        workload_entity(&self.compiled.engine, id)
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
        match self.by_action.get(action as usize) {
            Some(candidates) => {
                let policies = candidates.of(&resource);
                self.compiled.engine.decide(policies, entities, (principal, action, resource), context)
            }
            None => Verdict::Unfit("an action is missing".to_owned()),
        }
    }

    /// Asks about an action on a destination.
    pub(super) fn decide_destination(
        &self,
        action: Action,
        destination: &Destination,
        context: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
    ) -> Result<Verdict, String> {
        if let Some((uid, entities)) = self.destinations.get(destination) {
            return Ok(self.decide(action, entities, uid.clone(), context));
        }
        let (uid, entities) = self.destination(destination)?;
        Ok(self.decide(action, &entities, uid, context))
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
        Ok(self.decide(action, &self.with(entity)?, resource, context))
    }

    /// The subjects that grants of this component have it receive, without those that another one of them covers.
    pub(super) fn subscriptions(&self, facts: &ComponentFacts) -> Vec<SubjectPattern> {
        let granted = self.compiled.index.of_component(&facts.name).flat_map(|grant| &grant.subscribe);
        let mut all: Vec<&SubjectPattern> = granted.collect();
        all.sort_unstable();
        all.dedup();
        let covered = |one: &SubjectPattern| all.iter().any(|other| *other != one && other.covers_all_of(one));
        all.iter().filter(|one| !covered(one)).map(|one| (*one).clone()).collect()
    }

    /// Whether nothing was granted to anybody, so that the baseline was left out.
    pub(super) fn is_without_baseline(&self) -> bool {
        !self.metas.values().any(|meta| meta.kind == Kind::Baseline)
    }

    /// The workloads that grants of this component name as callers.
    pub(super) fn named_workloads(&self, facts: &ComponentFacts) -> Vec<String> {
        let callers = self.compiled.index.of_component(&facts.name).flat_map(|grant| &grant.callers);
        let workload = |caller: &CallerPattern| match caller {
            CallerPattern::Anonymous => None,
            CallerPattern::Workload(id) => Some(id.to_string()),
        };
        callers.filter_map(workload).collect()
    }

    fn granted(&self, facts: &ComponentFacts) -> impl Iterator<Item = &Destination> {
        let own = self.compiled.index.of_component(&facts.name);
        own.flat_map(|grant| &grant.http)
    }

    fn destination(&self, destination: &Destination) -> Result<(EntityUid, Entities), String> {
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
        Ok((entity.uid(), self.with(entity)?))
    }
}

/// The pattern in the scope of a rule, where it names one.
fn named_subject(engine: &Engine, rule: &Rule) -> Option<SubjectPattern> {
    let (ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid)) =
        rule.policy.resource_constraint()
    else {
        return None;
    };
    engine.is(Type::Subject, &uid).then(|| uid.id().unescaped().parse().ok()).flatten()
}

/// Whether the shipped baseline names an interface.
pub(super) fn is_baseline(name: &InterfaceName) -> bool {
    let quoted = |pattern: &str| shipped::BASELINE.contains(&format!("\"{pattern}\""));
    quoted(name.name()) || quoted(name.package())
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
