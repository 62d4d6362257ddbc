//! A whole set of policies: compiled once for each generation, then cut into one slice for each component.
//!
//! Decides: whether sources may be used at all. One problem anywhere refuses the whole set, with every problem listed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::component::ComponentFacts;
use crate::control::{Control, ControlDenial, ControlGrant, ControlQuestion, Why};
use crate::decide::{Engine, Kind, Rule};
use crate::grants::{self, GrantEntry, OperatorEntry};
use crate::limits::{SOURCE_BYTES, SOURCES};
use crate::lint;
use crate::nearest::Index;
use crate::shipped::{BASELINE, BASELINE_SOURCE, GUARDS, GUARDS_SOURCE};
use crate::slice::Slice;
use crate::source::{LoadError, LoadErrors, Source, SourceKind};

/// A compiled set of policies. Cheap to clone; slices keep what they need of it alive.
#[derive(Clone)]
pub struct PolicySet {
    generation: u64,
    compiled: Result<Arc<Compiled>, Arc<str>>,
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

/// Engine, rules and indexes, shared by all slices.
pub(crate) struct Compiled {
    pub(crate) engine: Engine,
    pub(crate) rules: Vec<Rule>,
    pub(crate) index: Index,
    control: Control,
    by_component: HashMap<String, Vec<usize>>,
    for_all: Vec<usize>,
}

impl PolicySet {
    /// Compiles sources. No source, or empty ones, make a set that denies everything.
    pub fn compile(sources: &[Source], generation: u64) -> Result<Self, LoadErrors> {
        let compiled = Compiled::new(sources).map_err(LoadErrors::new)?;
        Ok(Self { generation, compiled: Ok(Arc::new(compiled)) })
    }

    /// The set that denies everything.
    pub fn deny_all(generation: u64) -> Self {
        let compiled = Compiled::new(&[]).map(Arc::new);
        Self { generation, compiled: compiled.map_err(|errors| Arc::from(LoadErrors::new(errors).to_string())) }
    }

    /// The generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// One component's part: every policy whose scope can match it, and all guards.
    pub fn slice(&self, facts: &ComponentFacts) -> Arc<Slice> {
        Arc::new(match &self.compiled {
            Ok(compiled) => Slice::new(facts, self.generation, Arc::clone(compiled), compiled.rules_of(facts)),
            Err(why) => Slice::broken(facts, self.generation, why),
        })
    }

    /// The same in audit mode: what no grant allows is allowed, each grant saying what refusal it stands for. Guards, failing
    /// policies, admission and key export are as ever. Whoever takes this sees to it that it ends.
    pub fn audited_slice(&self, facts: &ComponentFacts) -> Arc<Slice> {
        Arc::new(match &self.compiled {
            Ok(compiled) => Slice::audited(facts, self.generation, Arc::clone(compiled), compiled.rules_of(facts)),
            Err(why) => Slice::broken(facts, self.generation, why),
        })
    }

    /// What the set holds.
    pub fn summary(&self) -> Summary {
        let rules: &[Rule] = self.compiled.as_ref().map_or(&[], |compiled| &compiled.rules);
        let count = |kind: Kind| rules.iter().filter(|rule| rule.meta.kind == kind).count();
        let components: BTreeSet<&String> = rules.iter().filter_map(|rule| rule.component.as_ref()).collect();
        Summary {
            generation: self.generation,
            grants: self.grants().len(),
            raw_policies: count(Kind::Raw),
            guards: count(Kind::Guard),
            policies: rules.len(),
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

    /// A slice that holds all policies of all components: what every slice must agree with.
    #[cfg(test)]
    pub(crate) fn full_slice(&self, facts: &ComponentFacts) -> Slice {
        let compiled = self.compiled.as_ref().unwrap();
        Slice::unindexed(facts, self.generation, Arc::clone(compiled), compiled.rules.iter())
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicySet").field(&self.summary()).finish()
    }
}

impl Compiled {
    fn new(sources: &[Source]) -> Result<Self, Vec<LoadError>> {
        let internal = |why: String| vec![LoadError::whole("shipped", why, "this is a defect of the host")];
        let engine = Engine::new().map_err(internal)?;
        let mut rules = lint::rules(&engine, &shipped(GUARDS_SOURCE, GUARDS), Kind::Guard)?;
        let baseline = lint::rules(&engine, &shipped(BASELINE_SOURCE, BASELINE), Kind::Baseline)?;
        let (grants, raw, operators) = read(&engine, sources)?;
        let control = Control::new(&engine, operators, &raw)?;
        // With nothing granted, the baseline would be the one thing that is: then nothing at all is.
        if !grants.is_empty() || !raw.is_empty() {
            rules.extend(baseline);
        }
        rules.extend(raw);
        for grant in &grants {
            rules
                .extend(grants::cedar::rules(grant).map_err(|error| internal(format!("grant {}: {error}", grant.id)))?);
        }
        validate_shapes(&engine, &rules)?;
        let mut by_component: HashMap<String, Vec<usize>> = HashMap::new();
        let mut for_all = Vec::new();
        for (n, rule) in rules.iter().enumerate() {
            match &rule.component {
                Some(component) => by_component.entry(component.clone()).or_default().push(n),
                None => for_all.push(n),
            }
        }
        Ok(Self { engine, rules, index: Index::new(grants), control, by_component, for_all })
    }
}

impl Compiled {
    /// The rules whose scope can match a component.
    fn rules_of(&self, facts: &ComponentFacts) -> impl Iterator<Item = &Rule> {
        let own = self.by_component.get(&facts.name).into_iter().flatten();
        self.for_all.iter().chain(own).filter_map(|n| self.rules.get(*n))
    }
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
            let message = format!("line {line}: the id `{id}` is used already, at {first}:{first_line}");
            errors.push(LoadError::whole(source, message, "ids are unique over all files"));
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
                    "line {}: grant `{}` pins {destination} to another peer than grant `{}` ({}:{})",
                    grant.line, grant.id, first.id, first.source, first.line
                );
                errors.push(LoadError::whole(
                    &grant.source,
                    message,
                    "one destination has one peer for each component",
                ));
            }
        }
    }
    errors
}

/// Strict validation of one grant rule of each shape; raw rules were validated where they were read.
///
/// INVARIANT: rules of one shape differ in entity ids and in literals of the same type, which strict validation does not look
/// at, but for the text of `ip(..)` literals: those come from a parsed address range.
fn validate_shapes(engine: &Engine, rules: &[Rule]) -> Result<(), Vec<LoadError>> {
    let mut seen = HashSet::new();
    let mut one_each = Vec::new();
    for rule in rules {
        if rule.shape.as_ref().is_some_and(|shape| seen.insert(shape)) {
            one_each.push(rule.clone());
        }
    }
    let problem = |meta: &crate::decide::Meta, why: String| {
        LoadError::whole(&meta.source, format!("grant {}: {why}", meta.id), "")
    };
    let errors = lint::validate(engine, &one_each, problem);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn shipped(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned(), kind: SourceKind::Cedar }
}

#[cfg(test)]
mod tests;
