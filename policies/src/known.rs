//! What is known of a component, and answers where not all of it is.
//!
//! Decides: whether what is not known could matter. Each fact that a policy looks at and nobody knows is tried with every value
//! that a policy names and with values that none names; policies compare facts for equality alone, so these stand for all. One
//! answer to all of them is the answer. Otherwise there is none: nothing is made up.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::component::ComponentFacts;
use crate::destination::DestinationError;
use crate::engine::PolicySet;
use crate::limits::GUESSES;
use crate::question::{Answer, Outcome, Question};
use crate::slice::Slice;
use crate::terms::Terms;

/// A fact about a component that does not follow from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// The group that the trust policy puts its signer in.
    SignerGroup,
    /// The key that signed its claims.
    Signer,
    /// The digest of its bytes.
    Digest,
    /// The running instance.
    Instance,
}

/// A component, and what of its facts is a mere stand-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    facts: ComponentFacts,
    unknown: BTreeSet<Fact>,
}

/// An answer, or that there is none.
#[derive(Debug, Clone)]
pub enum Sure {
    /// The answer, whatever it is that is not known.
    Answered(Answer),
    /// It depends on these.
    NotKnown(Vec<Fact>),
}

/// Puts questions to a set about one component.
#[derive(Debug)]
pub struct Asker<'a> {
    set: &'a PolicySet,
    known: &'a Known,
    slices: RefCell<HashMap<ComponentFacts, Arc<Slice>>>,
}

impl Fact {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::SignerGroup, Self::Signer, Self::Digest, Self::Instance];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::SignerGroup => "signer group",
            Self::Signer => "signer",
            Self::Digest => "digest",
            Self::Instance => "instance",
        }
    }

    fn of(self, facts: &mut ComponentFacts) -> &mut String {
        match self {
            Self::SignerGroup => &mut facts.signer_group,
            Self::Signer => &mut facts.signer,
            Self::Digest => &mut facts.digest,
            Self::Instance => &mut facts.instance,
        }
    }
}

impl Known {
    /// One of which all is known.
    pub fn whole(facts: ComponentFacts) -> Self {
        Self { facts, unknown: BTreeSet::new() }
    }

    /// One of which nothing is known but the name and the SPIFFE ID.
    pub fn named(name: &str, spiffe_id: &str) -> Self {
        let unknown = || UNKNOWN.to_owned();
        let facts = ComponentFacts {
            name: name.to_owned(),
            spiffe_id: spiffe_id.to_owned(),
            digest: unknown(),
            signer: unknown(),
            signer_group: unknown(),
            instance: unknown(),
        };
        Self { facts, unknown: BTreeSet::from(Fact::ALL) }
    }

    /// The same, with this fact known.
    #[must_use]
    pub fn with(mut self, fact: Fact, value: &str) -> Self {
        value.clone_into(fact.of(&mut self.facts));
        self.unknown.remove(&fact);
        self
    }

    /// The facts, stand-ins for those that are not known.
    pub fn facts(&self) -> &ComponentFacts {
        &self.facts
    }
}

impl<'a> Asker<'a> {
    /// Asks this set about this component.
    pub fn new(set: &'a PolicySet, known: &'a Known) -> Self {
        Self { set, known, slices: RefCell::default() }
    }

    /// The name of the component.
    pub fn name(&self) -> &str {
        &self.known.facts.name
    }

    /// The answer, where there is one whatever it is that is not known.
    pub fn ask(&self, question: &Question) -> Result<Sure, DestinationError> {
        let answer = question.ask(&self.slice(&self.known.facts))?;
        let looked_at = self.looked_at(question);
        let combinations = looked_at.values().try_fold(1_usize, |all, values| all.checked_mul(values.len()));
        if combinations.is_none_or(|combinations| combinations > GUESSES) {
            return Ok(Sure::NotKnown(looked_at.into_keys().collect()));
        }
        let mut all = vec![self.known.facts.clone()];
        for (fact, values) in &looked_at {
            all = all.iter().flat_map(|facts| values.iter().map(|value| with(facts, *fact, value))).collect();
        }
        let came = |answer: &Answer, slice: &Slice| match answer.outcome() {
            Outcome::Allow => (Outcome::Allow, Terms::of(question, slice)),
            outcome => (outcome, Terms::default()),
        };
        let first = came(&answer, &self.slice(&self.known.facts));
        for facts in &all {
            let slice = self.slice(facts);
            if came(&question.ask(&slice)?, &slice) != first {
                return Ok(Sure::NotKnown(looked_at.into_keys().collect()));
            }
        }
        Ok(Sure::Answered(answer))
    }

    /// What goes with an allow: which peer must answer, how long a token may live.
    pub(crate) fn terms(&self, question: &Question) -> Option<String> {
        Terms::of(question, &self.slice(&self.known.facts)).text()
    }

    /// The facts which are not known that policies look at for this question, with the values to try.
    fn looked_at(&self, question: &Question) -> BTreeMap<Fact, BTreeSet<String>> {
        let mut found: BTreeMap<Fact, BTreeSet<String>> = BTreeMap::new();
        let name = self.known.facts.name.as_str();
        let mut strings = BTreeSet::new();
        for rule in self.set.raw() {
            let concerns = rule.component.as_deref().is_none_or(|own| own == name);
            if self.known.unknown.is_empty() || !concerns || !rule.concerns(question.action()) {
                continue;
            }
            // What cannot be looked at may look at everything.
            let Ok(json) = rule.policy.to_json() else {
                return Fact::ALL.map(|fact| (fact, BTreeSet::new())).into();
            };
            for part in ["principal", "resource", "conditions"] {
                mentions(json.get(part).unwrap_or(&Value::Null), &mut found, &mut strings);
            }
        }
        found.retain(|fact, _| self.known.unknown.contains(fact));
        for values in found.values_mut() {
            values.extend(strings.iter().cloned());
            values.extend([UNKNOWN, UNKNOWN_TOO].map(ToOwned::to_owned));
        }
        found
    }

    fn slice(&self, facts: &ComponentFacts) -> Arc<Slice> {
        let mut slices = self.slices.borrow_mut();
        Arc::clone(slices.entry(facts.clone()).or_insert_with(|| self.set.slice(facts)))
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `not known: signer group, digest`.
pub fn not_known(facts: &[Fact]) -> String {
    let mut names: Vec<&str> = facts.iter().map(|fact| fact.name()).collect();
    names.sort_unstable();
    format!("not known: {}", names.join(", "))
}

fn with(facts: &ComponentFacts, fact: Fact, value: &str) -> ComponentFacts {
    let mut facts = facts.clone();
    value.clone_into(fact.of(&mut facts));
    facts
}

/// The facts that a piece of a policy's JSON form looks at, and the texts that it names.
fn mentions(value: &Value, found: &mut BTreeMap<Fact, BTreeSet<String>>, strings: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            let text = |name: &str| members.get(name).and_then(Value::as_str);
            let of_entity = match text("type") {
                Some("Host::SignerGroup") => Some(Fact::SignerGroup),
                Some("Host::Image") => Some(Fact::Digest),
                _ => None,
            };
            if let Some((fact, id)) = of_entity.zip(text("id")) {
                found.entry(fact).or_default().insert(id.to_owned());
            }
            let of_attribute = match text("attr") {
                Some("digest") => Some(Fact::Digest),
                Some("signer") => Some(Fact::Signer),
                Some("instance") => Some(Fact::Instance),
                _ => None,
            };
            if let Some(fact) = of_attribute {
                found.entry(fact).or_default();
            }
            texts(members.get("Value").unwrap_or(&Value::Null), strings);
            members.values().for_each(|value| mentions(value, found, strings));
        }
        Value::Array(values) => values.iter().for_each(|value| mentions(value, found, strings)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The texts of a literal.
fn texts(value: &Value, strings: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(strings.insert(text.clone())),
        Value::Array(values) => values.iter().for_each(|value| texts(value, strings)),
        Value::Object(members) => members.values().for_each(|value| texts(value, strings)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What stands for a fact that is not known, and another value that no policy names.
const UNKNOWN: &str = "not known";
const UNKNOWN_TOO: &str = "not known, another";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::set;

    const GROUP: &str = "@id(\"p\") @reason(\"r\") @owner(\"o\") permit (principal in Host::SignerGroup::\"ci\", action in Host::Action::\"network\", resource in Host::DnsZone::\"zone\");\n";
    const FORBID: &str = "@id(\"f\") @reason(\"r\") @owner(\"o\") forbid (principal, action == Host::Action::\"svid.jwt\", resource) when { principal.digest == \"sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\" || principal.signer == \"mallory\" };\n";

    fn known() -> Known {
        Known::named("demo:a", "spiffe://demo.example/ns/demo/sa/a")
    }

    fn ask(known: &Known, question: &str) -> String {
        let set = set(&[("a", "audiences = [\"v\"]")], &format!("{GROUP}{FORBID}"));
        let question: Question = serde_json::from_str(question).unwrap();
        match Asker::new(&set, known).ask(&question).unwrap() {
            Sure::Answered(answer) => answer.outcome().name().to_owned(),
            Sure::NotKnown(facts) => not_known(&facts),
        }
    }

    #[test]
    fn an_answer_that_rests_on_what_nobody_knows_is_none() {
        let send = "{\"action\": \"http.send\", \"destination\": \"https://x.zone\"}";
        let jwt = "{\"action\": \"svid.jwt\", \"audience\": \"v\"}";
        assert_eq!(ask(&known(), send), "not known: signer group");
        assert_eq!(ask(&known().with(Fact::SignerGroup, "ci"), send), "allow");
        assert_eq!(ask(&known().with(Fact::SignerGroup, "other"), send), "no-grant");
        assert_eq!(ask(&known(), jwt), "not known: digest, signer");
        assert_eq!(
            ask(
                &known().with(Fact::Digest, "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"),
                jwt
            ),
            "not known: signer"
        );
        assert_eq!(
            ask(
                &known().with(Fact::Digest, "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"),
                jwt
            ),
            "forbidden"
        );
        let whole = known()
            .with(Fact::Digest, "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc")
            .with(Fact::Signer, "ann");
        assert_eq!(ask(&whole, jwt), "allow");
    }

    #[test]
    fn what_does_not_rest_on_it_is_answered_all_the_same() {
        let elsewhere = "{\"action\": \"http.send\", \"destination\": \"https://x.elsewhere\"}";
        assert_eq!(ask(&known(), elsewhere), "no-grant");
        assert_eq!(ask(&known(), "{\"action\": \"svid.jwt\", \"audience\": \"w\"}"), "not known: digest, signer");
        assert_eq!(ask(&known(), "{\"action\": \"load\"}"), "no-grant");
    }

    #[test]
    fn more_combinations_than_are_tried_are_no_answer() {
        let texts = |n: usize| (0..n).map(|n| format!("\"sha256:{n:064x}\"")).collect::<Vec<_>>().join(", ");
        let asked = |n: usize| {
            let raw = format!(
                "@id(\"p\") @reason(\"r\") @owner(\"o\") permit (principal is Host::Component, action == Host::Action::\"load\", resource is Host::Image) when {{ resource.expired && [{}].contains(principal.digest) }};",
                texts(n)
            );
            let (set, known) = (set(&[], &raw), known());
            let asked = Asker::new(&set, &known).ask(&Question::Load { imports: Vec::new(), expired: false });
            matches!(asked.unwrap(), Sure::Answered(_))
        };
        assert!(asked(GUESSES - 2) && !asked(GUESSES - 1));
    }
}
