//! A whole set of policies: compiled once for each generation, then cut into one slice for each component.
//!
//! Decides: whether sources may be used at all. One problem anywhere refuses the whole set, with every problem listed.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};

use cedar_policy::{EntityUid, PolicyId, PolicySet as CedarSet, ResourceConstraint};
use serde::Serialize;

use crate::allowed::Allowed;
use crate::component::ComponentFacts;
use crate::control::{Control, ControlDenial, ControlGrant, ControlQuestion, Why};
use crate::decide::{Action, Engine, Kind, Meta, Rule, Type};
use crate::grants::{self, GrantEntry, OperatorEntry};
use crate::limits::{SOURCE_BYTES, SOURCES};
use crate::lint;
use crate::nearest::Index;
use crate::parts::Part;
use crate::permits::{Builder, Permits};
use crate::shipped::{BASELINE, BASELINE_SOURCE, GUARDS, GUARDS_SOURCE};
use crate::slice::Slice;
use crate::source::{LoadError, LoadErrors, Source, SourceKind};
use crate::subject::SubjectPattern;

/// A compiled set of policies. Cheap to clone; slices keep what they need of it alive.
#[derive(Clone)]
pub struct PolicySet {
    generation: u64,
    compiled: Result<Arc<Compiled>, Arc<str>>,
    /// Why components are answered nothing but this: there are policies, and they cannot be used.
    unusable: Option<Arc<str>>,
}

/// What a set holds, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The generation.
    pub generation: u64,
    /// Grants of the operator.
    pub grants: usize,
    /// Raw Cedar policies of the operator.
    pub raw_policies: usize,
    /// Guards.
    pub guards: usize,
    /// Cedar policies all together.
    pub policies: usize,
    /// The components that anything is granted to by name.
    pub components: Vec<String>,
}

/// Engine, policies and indexes, shared by all slices.
pub(crate) struct Compiled {
    pub(crate) engine: &'static Engine,
    pub(crate) index: Index,
    control: Control,
    /// Policies that somebody wrote out.
    rules: Vec<Rule>,
    /// What grants permit.
    permits: Permits,
    by_id: HashMap<String, usize>,
    for_all: Part,
    of_component: HashMap<String, Part>,
}

/// What does not change while a process runs: the schema, and the policies that come with the host.
struct Shipped {
    engine: Engine,
    guards: Vec<Rule>,
    baseline: Vec<Rule>,
}

impl PolicySet {
    /// Compiles sources. No source, or empty ones, make a set that denies everything.
    pub fn compile(sources: &[Source], generation: u64) -> Result<Self, LoadErrors> {
        let compiled = Compiled::new(sources).map_err(LoadErrors::new)?;
        Ok(Self { generation, compiled: Ok(Arc::new(compiled)), unusable: None })
    }

    /// The set that denies everything.
    pub fn deny_all(generation: u64) -> Self {
        let compiled = Compiled::new(&[]).map(Arc::new);
        let compiled = compiled.map_err(|errors| Arc::from(LoadErrors::new(errors).to_string()));
        Self { generation, compiled, unusable: None }
    }

    /// The set that stands in for policies that cannot be used: denies everything, and each refusal of a component says why that is so,
    /// rather than that nobody granted it.
    pub fn unusable(generation: u64, why: &str) -> Self {
        Self { unusable: Some(Arc::from(why)), ..Self::deny_all(generation) }
    }

    /// The generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// One component's part: every policy whose scope can match it, and all guards.
    pub fn slice(&self, facts: &ComponentFacts) -> Arc<Slice> {
        Arc::new(match self.usable() {
            Ok(compiled) => Slice::new(facts, self.generation, Arc::clone(compiled)),
            Err(why) => Slice::broken(facts, self.generation, why),
        })
    }

    /// The same in audit mode: what no grant allows is allowed, each grant saying what refusal it stands for. Guards, failing
    /// policies, admission and key export are as ever. Whoever takes this sees to it that it ends.
    pub fn audited_slice(&self, facts: &ComponentFacts) -> Arc<Slice> {
        Arc::new(match self.usable() {
            Ok(compiled) => Slice::audited(facts, self.generation, Arc::clone(compiled)),
            Err(why) => Slice::broken(facts, self.generation, why),
        })
    }

    fn usable(&self) -> Result<&Arc<Compiled>, &str> {
        match &self.unusable {
            Some(why) => Err(why),
            None => self.compiled.as_ref().map_err(AsRef::as_ref),
        }
    }

    /// Whether a policy has this id already, whoever wrote it: ids are unique over all of them.
    pub(crate) fn has_id(&self, id: &str) -> bool {
        let grant = self.grants().iter().any(|grant| grant.id == id);
        let operator = self.operators().iter().any(|operator| operator.id == id);
        grant || operator || self.compiled.as_ref().is_ok_and(|compiled| compiled.meta(id).is_some())
    }

    /// What the set holds.
    pub fn summary(&self) -> Summary {
        let rules: &[Rule] = self.compiled.as_ref().map_or(&[], |compiled| &compiled.rules);
        let count = |kind: Kind| rules.iter().filter(|rule| rule.meta.kind == kind).count();
        let components: BTreeSet<&String> =
            self.compiled.iter().flat_map(|compiled| compiled.of_component.keys()).collect();
        let permits = self.compiled.as_ref().map_or(0, |compiled| compiled.permits.iter().count());
        Summary {
            generation: self.generation,
            grants: self.grants().len(),
            raw_policies: count(Kind::Raw),
            guards: count(Kind::Guard),
            policies: rules.len() + permits,
            components: components.into_iter().cloned().collect(),
        }
    }

    /// May an operator do this to a host?
    pub fn control(&self, question: &ControlQuestion) -> Result<ControlGrant, ControlDenial> {
        let control = self.compiled.as_ref().map(|compiled| &compiled.control);
        let decided = match control {
            Ok(control) => control.decide(question, self.generation),
            Err(why) => Err(Why::Unfit(why.to_string())),
        };
        decided.map_err(|why| ControlDenial::new(control.ok(), question, why, self.generation))
    }

    /// Who may control hosts.
    pub fn operators(&self) -> &[OperatorEntry] {
        self.compiled.as_ref().map_or(&[], |compiled| compiled.control.operators())
    }

    /// The operator's grants.
    pub fn grants(&self) -> &[GrantEntry] {
        self.compiled.as_ref().map_or(&[], |compiled| compiled.index.grants())
    }

    /// The operator's raw policies, in the order of their sources.
    pub(crate) fn raw(&self) -> impl Iterator<Item = &Rule> {
        let rules: &[Rule] = self.compiled.as_ref().map_or(&[], |compiled| &compiled.rules);
        rules.iter().filter(|rule| rule.meta.kind == Kind::Raw)
    }

    /// Whether nothing is granted to anybody, so that not even the baseline is in force.
    pub(crate) fn is_without_baseline(&self) -> bool {
        self.compiled.as_ref().map_or(true, |compiled| compiled.is_without_baseline())
    }

    /// A slice that holds all policies of all components: what every slice must agree with.
    #[cfg(test)]
    pub(crate) fn full_slice(&self, facts: &ComponentFacts) -> Slice {
        let compiled = self.compiled.as_ref().unwrap();
        Slice::whole(facts, self.generation, Arc::clone(compiled))
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicySet").field(&self.summary()).finish()
    }
}

impl Compiled {
    fn new(sources: &[Source]) -> Result<Self, Vec<LoadError>> {
        let Shipped { engine, guards, baseline } = Shipped::get()?;
        let (grants, raw, operators) = read(engine, sources)?;
        let control = Control::new(engine, operators, &raw)?;
        let mut rules = guards.clone();
        // With nothing granted, the baseline would be the one thing that is: then nothing at all is.
        if !grants.is_empty() || !raw.is_empty() {
            rules.extend_from_slice(baseline);
        }
        rules.extend(raw);
        let mut builder = Builder::new(engine);
        for grant in &grants {
            grants::cedar::permits(grant, &mut builder)
                .map_err(|error| internal(format!("grant {}: {error}", grant.id)))?;
        }
        let permits = builder.finish();
        validate_templates(engine, &permits)?;
        let mut for_all = Part::default();
        let mut of_component: HashMap<String, Part> = HashMap::new();
        for (n, rule) in rules.iter().enumerate() {
            match &rule.component {
                Some(component) => of_component.entry(component.clone()).or_default().add_rule(n, rule),
                None => for_all.add_rule(n, rule),
            }
        }
        for (n, permit) in permits.iter().enumerate() {
            match of_component.get_mut(permit.component.as_ref()) {
                Some(part) => part.add_permit(n, permit),
                None => of_component.entry(permit.component.to_string()).or_default().add_permit(n, permit),
            }
        }
        let by_id = rules.iter().enumerate().map(|(n, rule)| (rule.meta.id.clone(), n)).collect();
        Ok(Self { engine, index: Index::new(grants), control, rules, permits, by_id, for_all, of_component })
    }

    /// The sets of policies that can match a component's action on a resource.
    pub(crate) fn sets_of<'a>(
        &'a self,
        component: &str,
        action: Action,
        resource: &EntityUid,
    ) -> impl Iterator<Item = &'a Result<CedarSet, String>> {
        let parts = std::iter::once(&self.for_all).chain(self.of_component.get(component));
        parts.flat_map(move |part| part.of((&self.rules, &self.permits), action, resource).collect::<Vec<_>>())
    }

    /// How many policies can match a component, guards included.
    pub(crate) fn policies_of(&self, component: &str) -> usize {
        self.for_all.policies() + self.of_component.get(component).map_or(0, Part::policies)
    }

    /// The subject patterns that scopes of a component's policies name.
    pub(crate) fn subjects_of(&self, component: &str) -> Vec<SubjectPattern> {
        let of_component = |rule: &&Rule| rule.component.as_deref().is_none_or(|name| name == component);
        let written = self.rules.iter().filter(of_component).filter_map(|rule| named_subject(self.engine, rule));
        let grants = self.index.of_component(component);
        let granted = grants.flat_map(|grant| grant.publish.iter().chain(&grant.request).chain(&grant.subscribe));
        let mut subjects: Vec<SubjectPattern> = written.chain(granted.cloned()).collect();
        subjects.sort_unstable();
        subjects.dedup();
        subjects
    }

    /// Whether nothing was granted to anybody, so that the baseline was left out.
    pub(crate) fn is_without_baseline(&self) -> bool {
        !self.rules.iter().any(|rule| rule.meta.kind == Kind::Baseline)
    }

    /// A policy that was written out, by its id.
    pub(crate) fn meta(&self, id: &str) -> Option<&Arc<Meta>> {
        self.by_id.get(id).and_then(|n| self.rules.get(*n)).map(|rule| &rule.meta)
    }

    /// What policies demand that allowed something together. `None` if one of them is unknown.
    pub(crate) fn allowed(&self, by: &[PolicyId]) -> Option<Arc<Allowed>> {
        if let [one] = by
            && let Some(allowed) = self.permits.allowed(one)
        {
            return Some(Arc::clone(allowed));
        }
        let mut metas = Vec::new();
        for id in by {
            match self.meta(id.as_ref()) {
                Some(meta) => metas.push(Arc::clone(meta)),
                None => metas.extend(self.permits.allowed(id)?.metas().iter().map(Arc::clone)),
            }
        }
        Some(Arc::new(Allowed::new(metas)))
    }

    /// Every policy of every component in one set.
    #[cfg(test)]
    pub(crate) fn whole(&self) -> Result<CedarSet, String> {
        let rules = self.rules.iter().map(|rule| rule.policy.clone());
        let mut set = CedarSet::from_policies(rules).map_err(|error| error.to_string())?;
        for (n, _) in self.permits.iter().enumerate() {
            self.permits.link(&mut set, n)?;
        }
        Ok(set)
    }
}

impl Shipped {
    /// Read once: a set that is compiled at every change of a file starts from here.
    fn get() -> Result<&'static Self, Vec<LoadError>> {
        static SHIPPED: OnceLock<Result<Shipped, Vec<LoadError>>> = OnceLock::new();
        SHIPPED.get_or_init(Self::read).as_ref().map_err(Clone::clone)
    }

    fn read() -> Result<Self, Vec<LoadError>> {
        let engine = Engine::new().map_err(internal)?;
        let guards = lint::rules(&engine, &shipped(GUARDS_SOURCE, GUARDS), Kind::Guard)?;
        let baseline = lint::rules(&engine, &shipped(BASELINE_SOURCE, BASELINE), Kind::Baseline)?;
        Ok(Self { engine, guards, baseline })
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

fn internal(why: String) -> Vec<LoadError> {
    vec![LoadError::whole("shipped", why, "this is a defect of the host")]
}

type Read = (Vec<GrantEntry>, Vec<Rule>, Vec<OperatorEntry>);

fn read(engine: &Engine, sources: &[Source]) -> Result<Read, Vec<LoadError>> {
    let (mut grants, mut raw, mut operators, mut errors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    if sources.len() > SOURCES {
        return Err(vec![LoadError::whole("policy", format!("more than {SOURCES} sources"), "join files")]);
    }
    for source in sources {
        if source.text.len() > SOURCE_BYTES {
            let message = format!("larger than {} MiB", SOURCE_BYTES >> 20);
            errors.push(LoadError::whole(&source.name, message, "split the file"));
            continue;
        }
        match source.kind {
            SourceKind::Grants => {
                grants::parse(source).map_or_else(|problems| errors.extend(problems), |read| grants.extend(read));
                grants::operators(source)
                    .map_or_else(|problems| errors.extend(problems), |read| operators.extend(read));
            }
            SourceKind::Cedar => {
                lint::rules(engine, source, Kind::Raw)
                    .map_or_else(|problems| errors.extend(problems), |read| raw.extend(read));
            }
        }
    }
    errors.extend(duplicates(&grants, &raw, &operators));
    errors.extend(contradictions(&grants));
    if errors.is_empty() { Ok((grants, raw, operators)) } else { Err(errors) }
}

fn duplicates(grants: &[GrantEntry], raw: &[Rule], operators: &[OperatorEntry]) -> Vec<LoadError> {
    let ids = grants.iter().map(|grant| (&grant.id, &grant.source, grant.line));
    let ids = ids.chain(operators.iter().map(|operator| (&operator.id, &operator.source, operator.line)));
    let ids = ids.chain(raw.iter().map(|rule| (&rule.meta.id, &rule.meta.source, rule.meta.line)));
    let mut seen: HashMap<&String, (&String, usize)> = HashMap::new();
    let mut errors = Vec::new();
    for (id, source, line) in ids {
        if let Some((first, first_line)) = seen.insert(id, (source, line)) {
            let message = format!("the id `{id}` is used already, at {first}:{first_line}");
            errors.push(LoadError::at_line(source, line, message, "ids are unique over all files"));
        }
    }
    errors
}

/// Two grants that pin one destination of one component to different peers.
fn contradictions(grants: &[GrantEntry]) -> Vec<LoadError> {
    let mut seen = HashMap::new();
    let mut errors = Vec::new();
    for grant in grants {
        let Some(peer) = &grant.peer else { continue };
        for destination in &grant.http {
            let first: &GrantEntry = seen.entry((&grant.component, destination)).or_insert(grant);
            if first.peer.as_ref() != Some(peer) {
                let message = format!(
                    "grant `{}` pins {destination} to another peer than grant `{}` ({}:{})",
                    grant.id, first.id, first.source, first.line
                );
                errors.push(LoadError::at_line(
                    &grant.source,
                    grant.line,
                    message,
                    "one destination has one peer for each component",
                ));
            }
        }
    }
    errors
}

/// Strict validation of each template of grants, with one permit linked to it; raw policies were validated where they were read.
///
/// INVARIANT: permits of one template differ in the ids of entities of the same types, which strict validation does not look at.
fn validate_templates(engine: &Engine, permits: &Permits) -> Result<(), Vec<LoadError>> {
    let mut set = CedarSet::new();
    for number in permits.one_of_each() {
        permits.link(&mut set, number).map_err(internal)?;
    }
    let errors = lint::validate_set(engine, &set, |id, _, why| {
        let meta = permits.allowed(id).and_then(|allowed| allowed.metas().first());
        match meta {
            Some(meta) => LoadError::whole(&meta.source, format!("grant {}: {why}", meta.id), ""),
            None => LoadError::whole("grants", why, ""),
        }
    });
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn shipped(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned(), kind: SourceKind::Cedar }
}

#[cfg(test)]
mod tests;
