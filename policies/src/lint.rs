//! What is demanded of raw Cedar before it is loaded: what Cedar itself lets pass, but an operator would regret.
//!
//! Refuses: a policy without a unique `@id`, a `@reason` and an `@owner`; other annotations than these and `@peer`; a permit
//! that leaves principal, action or resource open; `like` (it matches `evilexample.com` for `*example.com`: use
//! `resource in Host::DnsZone::"example.com"`); names in a form that the host never writes, which match nothing; templates;
//! whatever Cedar's strict validator warns of.

use std::collections::HashMap;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{
    ActionConstraint, Effect, Policy, PolicyId, PolicySet, PrincipalConstraint, ResourceConstraint, ValidationMode,
    Validator,
};
use serde_json::Value;

use crate::decide::{Action, Engine, Kind, Meta, Rule};
use crate::grants::{is_id, is_line};
use crate::limits::{OWNER_BYTES, PROBLEMS, RAW_BYTES, RAW_POLICIES, REASON_BYTES};
use crate::nesting;
use crate::shipped::{BASELINE_ID, GUARD_PREFIX};
use crate::source::{LoadError, Places, Source};
use crate::subject::SubjectPattern;
use crate::workload::WorkloadId;

/// The rules of a source of raw Cedar, or everything that is wrong with it.
pub(crate) fn rules(engine: &Engine, source: &Source, kind: Kind) -> Result<Vec<Rule>, Vec<LoadError>> {
    let whole = |message: String, hint: &str| vec![LoadError::whole(&source.name, message, hint)];
    if source.text.len() > RAW_BYTES {
        return Err(whole(format!("larger than {} MiB", RAW_BYTES >> 20), "use grants, or split the file"));
    }
    let places = source.places();
    if let Err(deep) = nesting::check(&source.text) {
        return Err(vec![places.problem(&(deep.at..deep.at), deep.why, "write it as several policies")]);
    }
    let parsed = PolicySet::from_str(&source.text).map_err(|errors| {
        let place = |error: DetailedError| {
            let at = error.source_locations.first().map_or(0..0, |label| label.loc.start..label.loc.end);
            places.problem(&at, error.message, error.help.unwrap_or_default())
        };
        errors.iter().take(PROBLEMS + 1).map(|error| place(DetailedError::from(error))).collect::<Vec<_>>()
    })?;
    if parsed.num_of_templates() > 0 {
        return Err(whole("templates (?principal, ?resource) are not taken".to_owned(), "write each policy out"));
    }
    if parsed.num_of_policies() > RAW_POLICIES {
        return Err(whole(format!("more than {RAW_POLICIES} policies in one file"), "use grants, or split the file"));
    }
    let starts = nesting::statements(&source.text);
    let mut all: Vec<(usize, &Policy)> = parsed.policies().map(|policy| (number(policy), policy)).collect();
    all.sort_by_key(|(number, _)| *number);
    let (mut rules, mut errors, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
    for (number, policy) in all {
        let start = number.checked_sub(1).and_then(|number| starts.get(number)).copied().unwrap_or_default();
        let place = Place { places: &places, start, end: starts.get(number).copied().unwrap_or(source.text.len()) };
        match rule(engine, &place, number, policy, kind) {
            Ok(rule) => {
                if let Some(first) = seen.insert(rule.meta.id.clone(), rule.meta.line) {
                    let message = format!("the id `{}` is used already, at {}:{first}", rule.meta.id, source.name);
                    errors.push(places.problem(&(start..start), message, "ids are unique over all files"));
                    continue;
                }
                rules.push((start, rule));
            }
            Err(problems) => errors.extend(problems),
        }
    }
    // What is well-formed is validated beside what is not: all problems at once.
    let starts: HashMap<&str, usize> = rules.iter().map(|(start, rule)| (rule.meta.id.as_str(), *start)).collect();
    let well: Vec<Rule> = rules.iter().map(|(_, rule)| rule.clone()).collect();
    errors.extend(validate(engine, &well, |meta, at, message| {
        let start = starts.get(meta.id.as_str()).copied().unwrap_or_default();
        let at = at.filter(|at| at.start >= start && at.end <= source.text.len());
        places.problem(&at.unwrap_or(start..start), format!("policy `{}`: {message}", meta.id), "")
    }));
    if errors.is_empty() { Ok(well) } else { Err(errors) }
}

/// Where a policy stands in its source.
struct Place<'a> {
    places: &'a Places<'a>,
    start: usize,
    end: usize,
}

impl Place<'_> {
    /// A problem of the policy, at a text in it where it is found there.
    fn problem(&self, quoted: Option<&str>, message: String, hint: &str) -> LoadError {
        let text = self.places.source().text.get(self.start..self.end).unwrap_or_default();
        let within = quoted.and_then(|quoted| text.find(&format!("\"{quoted}\""))).unwrap_or_default();
        let at = self.start.saturating_add(within);
        self.places.problem(&(at..at), message, hint)
    }
}

/// Strict validation; warnings count as errors.
pub(crate) fn validate(
    engine: &Engine,
    rules: &[Rule],
    problem: impl Fn(&Meta, Option<Range<usize>>, String) -> LoadError,
) -> Vec<LoadError> {
    let nameless = |why: String| vec![LoadError::whole("policies", why, "")];
    let set = match PolicySet::from_policies(rules.iter().map(|rule| rule.policy.clone())) {
        Ok(set) => set,
        Err(error) => return nameless(error.to_string()),
    };
    validate_set(engine, &set, |id, at, text| match rules.iter().find(|rule| rule.policy.id() == id) {
        Some(rule) => problem(&rule.meta, at, text),
        None => LoadError::whole("policies", text, ""),
    })
}

/// Strict validation of a set; warnings count as errors.
pub(crate) fn validate_set(
    engine: &Engine,
    set: &PolicySet,
    of: impl Fn(&PolicyId, Option<Range<usize>>, String) -> LoadError,
) -> Vec<LoadError> {
    let result = Validator::new(engine.schema().clone()).validate(set, ValidationMode::Strict);
    let at = |error: DetailedError| error.source_locations.first().map(|label| label.loc.start..label.loc.end);
    let errors = result.validation_errors();
    let errors = errors.map(|error| of(error.policy_id(), at(DetailedError::from(error)), error.to_string()));
    let warnings = result.validation_warnings();
    let warnings = warnings.map(|one| of(one.policy_id(), at(DetailedError::from(one)), one.to_string()));
    errors.chain(warnings).collect()
}

fn rule(
    engine: &Engine,
    place: &Place<'_>,
    number: usize,
    policy: &Policy,
    kind: Kind,
) -> Result<Rule, Vec<LoadError>> {
    let id = policy.annotation("id").unwrap_or_default().to_owned();
    let which = match id.as_str() {
        "" => format!("policy number {number}"),
        id => format!("policy `{id}`"),
    };
    let mut errors = Vec::new();
    let mut demand = |holds: bool, message: &str, hint: &str| {
        if !holds {
            errors.push(place.problem(None, format!("{which}: {message}"), hint));
        }
    };
    let line_of = |key: &str, most: usize| policy.annotation(key).is_some_and(|text| is_line(text, most));
    demand(
        is_id(&id),
        "@id is missing or malformed",
        "put @id(\"..\") before it: 1 to 64 lower-case letters, digits, dots, dashes, underscores",
    );
    demand(line_of("reason", REASON_BYTES), "@reason is missing", "say why it is there in @reason(\"..\"), one line");
    demand(line_of("owner", OWNER_BYTES), "@owner is missing", "say who answers for it in @owner(\"..\"), one line");
    let known = |key: &str| matches!(key, "id" | "reason" | "owner" | "peer");
    demand(
        policy.annotations().all(|(key, _)| known(key)),
        "an annotation is unknown",
        "known: @id, @reason, @owner, @peer",
    );
    let peer = policy.annotation("peer").map(WorkloadId::from_str);
    demand(!matches!(peer, Some(Err(_))), "@peer is no SPIFFE ID of a workload", "");
    if kind == Kind::Raw {
        let reserved = id.starts_with(GUARD_PREFIX) || id == BASELINE_ID;
        demand(!reserved, "this id is reserved", "ids that begin with `guard.`, and `baseline`, are the host's own");
    }
    let open: Vec<&str> = [
        ("principal", matches!(policy.principal_constraint(), PrincipalConstraint::Any)),
        ("action", matches!(policy.action_constraint(), ActionConstraint::Any)),
        ("resource", matches!(policy.resource_constraint(), ResourceConstraint::Any)),
    ]
    .into_iter()
    .filter_map(|(name, is_open)| is_open.then_some(name))
    .collect();
    demand(
        policy.effect() == Effect::Forbid || open.is_empty(),
        &format!("a permit leaves {} open", open.join(", ")),
        "name all three, at least by type or group: principal is Host::Component, action in Host::Action::\"network\", resource is Host::Destination",
    );
    demand(
        !uses_like(policy),
        "`like` is not taken",
        "use entity parents, such as resource in Host::DnsZone::\"example.com\"",
    );
    demand(
        subjects_can_match(policy),
        "a subject that no message can lie in",
        "name subjects as tokens between dots; one with `*`, or `>` alone, in the scope: resource in Host::Subject::\"a.*.b\"",
    );
    // What cannot be looked at was refused above.
    for wrong in policy.to_json().map(|json| names::check(&json)).unwrap_or_default() {
        errors.push(place.problem(Some(&wrong.text), format!("{which}: {}", wrong.message), &wrong.hint));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let meta = Meta {
        kind,
        reason: policy.annotation("reason").unwrap_or_default().to_owned(),
        owner: policy.annotation("owner").unwrap_or_default().to_owned(),
        source: place.places.source().name.clone(),
        line: place.places.line(place.start),
        peer: peer.and_then(Result::ok),
        max_ttl: None,
        id,
    };
    Ok(Rule {
        policy: policy.new_id(PolicyId::new(&meta.id)),
        meta: Arc::new(meta),
        actions: actions(engine, policy),
        component: component(engine, policy),
    })
}

/// The actions that the scope admits.
fn actions(engine: &Engine, policy: &Policy) -> Vec<Action> {
    match policy.action_constraint() {
        ActionConstraint::Any => Action::ALL.to_vec(),
        ActionConstraint::Eq(uid) => engine.scope(&uid).to_vec(),
        ActionConstraint::In(uids) => uids.iter().flat_map(|uid| engine.scope(uid)).copied().collect(),
    }
}

/// The one component that the scope admits. A slice of another component never sees a request that this policy matches.
fn component(engine: &Engine, policy: &Policy) -> Option<String> {
    let of = |uid: &cedar_policy::EntityUid| engine.component_of(uid).map(ToOwned::to_owned);
    match (policy.principal_constraint(), policy.resource_constraint()) {
        (PrincipalConstraint::Eq(uid), _) if of(&uid).is_some() => of(&uid),
        (_, ResourceConstraint::Eq(uid)) => of(&uid),
        _ => None,
    }
}

/// Whether every subject that it names is one, and is written where it can match: a message lies in the patterns of scopes,
/// and in those that end in `>` with nothing else open.
fn subjects_can_match(policy: &Policy) -> bool {
    // What cannot be looked at is not let through.
    let Ok(json) = policy.to_json() else { return false };
    let part = |name: &str| {
        let mut found = Vec::new();
        subjects(json.get(name).unwrap_or(&Value::Null), &mut found);
        found
    };
    let always = |pattern: &SubjectPattern| {
        let text = pattern.as_str();
        pattern.is_literal() || text.strip_suffix(".>").is_some_and(|prefix| !prefix.contains(['*', '>']))
    };
    let is_one = |text: &String| text.parse::<SubjectPattern>().ok();
    part("resource").iter().all(|text| is_one(text).is_some())
        && part("conditions").iter().all(|text| is_one(text).is_some_and(|pattern| always(&pattern)))
}

/// The ids of the subjects in a piece of a policy's JSON form.
fn subjects(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            let text = |name: &str| members.get(name).and_then(Value::as_str);
            if let (Some("Host::Subject"), Some(id)) = (text("type"), text("id")) {
                found.push(id.to_owned());
            }
            members.values().for_each(|value| subjects(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| subjects(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn uses_like(policy: &Policy) -> bool {
    // What cannot be looked at is not let through.
    let Ok(json) = policy.to_json() else { return true };
    json.get("conditions").is_none_or(has_like)
}

fn has_like(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(key, value)| match (key.as_str(), value) {
            ("like", _) => true,
            // Keys of a record are the policy's own words, not operators.
            ("Record", Value::Object(fields)) => fields.values().any(has_like),
            // Literals contain no operators.
            ("Value", _) => false,
            (_, value) => has_like(value),
        }),
        Value::Array(values) => values.iter().any(has_like),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Cedar numbers policies from 0 in the order of the text.
fn number(policy: &Policy) -> usize {
    let number = policy.id().to_string();
    number.strip_prefix("policy").and_then(|digits| digits.parse::<usize>().ok()).map_or(0, |n| n.saturating_add(1))
}

pub(crate) mod names;

#[cfg(test)]
mod tests;
