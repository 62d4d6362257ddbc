//! Roles as Cedar policies, made through Cedar's JSON form, and the engine that they are asked with.

use std::collections::HashSet;
use std::str::FromStr;

use cedar_policy::{
    Authorizer, Context, Decision, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy, PolicyId,
    PolicySet, Request, RestrictedExpression, Schema, ValidationMode, Validator,
};
use serde_json::{Value, json};

use super::facts::{AccountName, Accounts, ConnectFacts};
use super::role::{Demand, Role};
use crate::grants::{is_id, is_line};
use crate::limits::{OWNER_BYTES, RAW_BYTES, RAW_POLICIES, REASON_BYTES};
use crate::lint::names;
use crate::nesting;
use crate::source::{LoadError, Source};

/// The schema of connections.
pub(super) const SCHEMA: &str = include_str!("../../cedar/callout.cedarschema");
/// What no role can give.
const GUARDS: &str = include_str!("../../cedar/callout-guards.cedar");
const GUARD_PREFIX: &str = "guard.";

/// Schema, names and authorizer.
#[derive(Debug)]
pub(super) struct Engine {
    schema: Schema,
    authorizer: Authorizer,
    types: Types,
}

#[derive(Debug)]
struct Types {
    workload: EntityTypeName,
    domain: EntityTypeName,
    pattern: EntityTypeName,
    account: EntityTypeName,
    group: EntityTypeName,
    connect: EntityUid,
}

/// What Cedar said, in our words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    NoRole,
    Forbidden(Vec<String>),
    Failed(Vec<String>),
    Unfit(String),
}

impl Engine {
    pub(super) fn new() -> Result<Self, String> {
        let (schema, warnings) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| error.to_string())?;
        if let Some(warning) = warnings.into_iter().next() {
            return Err(warning.to_string());
        }
        let name = |name: &str| name.parse::<EntityTypeName>().map_err(|error| error.to_string());
        let types = Types {
            workload: name("Host::Workload")?,
            domain: name("Host::TrustDomain")?,
            pattern: name("Host::WorkloadPattern")?,
            account: name("Host::Account")?,
            group: name("Host::AccountGroup")?,
            connect: EntityUid::from_type_name_and_id(name("Host::Action")?, EntityId::new("connect")),
        };
        Ok(Self { schema, authorizer: Authorizer::new(), types })
    }

    /// Asks Cedar whether this may connect into this account. `patterns` are those that its SPIFFE ID matches.
    pub(super) fn decide<'a>(
        &self,
        policies: &PolicySet,
        facts: &ConnectFacts,
        patterns: impl IntoIterator<Item = &'a str>,
        account: &AccountName,
        accounts: &Accounts,
    ) -> Verdict {
        match self.request(facts, patterns, account, accounts) {
            Err(why) => Verdict::Unfit(why),
            Ok((request, entities)) => {
                let response = self.authorizer.is_authorized(&request, policies, &entities);
                let failed: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
                if !failed.is_empty() {
                    // Cedar skips a policy that fails, guards included: then nothing is allowed.
                    return Verdict::Failed(failed);
                }
                let by: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
                match response.decision() {
                    Decision::Allow if !by.is_empty() => Verdict::Allowed,
                    Decision::Allow => Verdict::Unfit("allowed by no policy".to_owned()),
                    Decision::Deny if by.is_empty() => Verdict::NoRole,
                    Decision::Deny => Verdict::Forbidden(by),
                }
            }
        }
    }

    fn request<'a>(
        &self,
        facts: &ConnectFacts,
        patterns: impl IntoIterator<Item = &'a str>,
        account: &AccountName,
        accounts: &Accounts,
    ) -> Result<(Request, Entities), String> {
        let uid = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
        let principal = uid(&self.types.workload, facts.workload.as_str());
        let domain = uid(&self.types.domain, facts.workload.trust_domain());
        let patterns: Vec<EntityUid> = patterns.into_iter().map(|who| uid(&self.types.pattern, who)).collect();
        let reserved = uid(&self.types.group, "reserved");
        let resource = uid(&self.types.account, account.as_str());
        let parents: HashSet<EntityUid> = patterns.iter().cloned().chain([domain.clone()]).collect();
        let path = RestrictedExpression::new_string(facts.workload.path().to_owned());
        let workload = Entity::new(principal.clone(), [("path".to_owned(), path)].into(), parents)
            .map_err(|error| error.to_string())?;
        let is_reserved = account.as_str().starts_with('$') || !accounts.allows(account);
        let groups: HashSet<EntityUid> = is_reserved.then(|| reserved.clone()).into_iter().collect();
        let account = Entity::new_no_attrs(resource.clone(), groups);
        let bare = patterns.into_iter().chain([domain, reserved]).map(|uid| Entity::new_no_attrs(uid, HashSet::new()));
        let entities = Entities::from_entities(bare.chain([workload, account]), Some(&self.schema))
            .map_err(|error| error.to_string())?;
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let credentials = RestrictedExpression::new_set(facts.credentials.iter().map(|one| text(one.name())));
        let mut context = vec![
            ("kind".to_owned(), text(facts.kind.name())),
            ("type".to_owned(), text(facts.connection.name())),
            ("ip".to_owned(), RestrictedExpression::new_ip(facts.ip.to_canonical().to_string())),
            ("credentials".to_owned(), credentials),
            ("proof".to_owned(), RestrictedExpression::new_bool(facts.proof())),
        ];
        context.extend(facts.nkey.as_deref().map(|nkey| ("nkey".to_owned(), text(nkey))));
        let context = Context::from_pairs(context).map_err(|error| error.to_string())?;
        let request = Request::new(principal, self.types.connect.clone(), resource, context, Some(&self.schema))
            .map_err(|error| error.to_string())?;
        Ok((request, entities))
    }

    /// Strict validation; warnings count as errors.
    pub(super) fn validate(&self, set: &PolicySet) -> Result<(), String> {
        let result = Validator::new(self.schema.clone()).validate(set, ValidationMode::Strict);
        let errors = result.validation_errors().map(ToString::to_string);
        match errors.chain(result.validation_warnings().map(ToString::to_string)).next() {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }
}

/// A role as one permit.
pub(super) fn permit(role: &Role) -> Result<Policy, String> {
    let principal = match role.who.is_exact() {
        true => json!({ "op": "==", "entity": entity("Workload", role.who.as_str()) }),
        false => json!({ "op": "in", "entity": entity("WorkloadPattern", role.who.as_str()) }),
    };
    let condition = conditions(role).into_iter().reduce(|left, right| binary("&&", &left, &right));
    let policy = json!({
        "effect": "permit",
        "principal": principal,
        "action": { "op": "==", "entity": entity("Action", "connect") },
        "resource": { "op": "==", "entity": entity("Account", role.account.as_str()) },
        "conditions": condition.map(|body| json!({ "kind": "when", "body": body })).into_iter().collect::<Vec<_>>(),
        "annotations": { "id": role.id, "reason": role.reason, "owner": role.owner },
    });
    Policy::from_json(Some(PolicyId::new(&role.id)), policy).map_err(|error| error.to_string())
}

/// Every condition of a role on the context.
fn conditions(role: &Role) -> Vec<Value> {
    let one_of = |attribute: &str, words: Vec<&str>| binary("contains", &set(&words), &context(attribute));
    let shows = |kind: &str| binary("contains", &context("credentials"), &json!({ "Value": kind }));
    let mut all = vec![
        one_of("kind", role.kinds.iter().map(|kind| kind.name()).collect()),
        one_of("type", role.types.iter().map(|kind| kind.name()).collect()),
    ];
    match role.credential {
        Demand::X509 => all.push(shows("x509")),
        Demand::Jwt => all.push(shows("jwt")),
        Demand::Both => all.extend([shows("x509"), shows("jwt")]),
        Demand::Either => all.push(binary("||", &shows("x509"), &shows("jwt"))),
    }
    if !role.dangers.bearer && role.nkeys.is_empty() {
        all.push(context("proof"));
    } else if !role.dangers.bearer {
        let keys: Vec<&str> = role.nkeys.iter().map(String::as_str).collect();
        let has = json!({ "has": { "left": { "Var": "context" }, "attr": "nkey" } });
        let one_of = binary("&&", &has, &binary("contains", &set(&keys), &context("nkey")));
        all.push(binary("||", &context("proof"), &one_of));
    }
    let nets = role
        .sources
        .iter()
        .map(|net| json!({ "isInRange": [context("ip"), { "ip": [{ "Value": net.to_string() }] }] }));
    all.extend(nets.reduce(|left, right| binary("||", &left, &right)));
    all
}

/// The guards, and the operator's own `forbid`s.
pub(super) fn forbids(engine: &Engine, sources: &[Source]) -> Result<Vec<Policy>, Vec<LoadError>> {
    let shipped =
        |why: String| vec![LoadError::whole("shipped/callout-guards.cedar", why, "this is a defect of the product")];
    let mut all = Vec::new();
    for policy in PolicySet::from_str(GUARDS).map_err(|error| shipped(error.to_string()))?.policies() {
        let id = policy.annotation("id").unwrap_or_default().to_owned();
        all.push(policy.new_id(PolicyId::new(id)));
    }
    let mut errors = Vec::new();
    for source in sources {
        match own(source) {
            Ok(policies) => all.extend(policies),
            Err(problems) => errors.extend(problems),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let set = PolicySet::from_policies(all.iter().cloned())
        .map_err(|error| vec![LoadError::whole("cedar", error.to_string(), "ids are unique over all files")])?;
    engine
        .validate(&set)
        .map_err(|why| vec![LoadError::whole("cedar", why, "see the schema in docs/auth-callout.md")])?;
    Ok(all)
}

fn own(source: &Source) -> Result<Vec<Policy>, Vec<LoadError>> {
    let whole = |message: String, hint: &str| vec![LoadError::whole(&source.name, message, hint)];
    if source.text.len() > RAW_BYTES {
        return Err(whole(format!("larger than {} MiB", RAW_BYTES >> 20), "split the file"));
    }
    if let Err(deep) = nesting::check(&source.text) {
        return Err(vec![source.places().problem(&(deep.at..deep.at), deep.why, "write it as several policies")]);
    }
    let parsed = PolicySet::from_str(&source.text).map_err(|errors| whole(errors.to_string(), ""))?;
    if parsed.num_of_templates() > 0 || parsed.num_of_policies() > RAW_POLICIES {
        return Err(whole(format!("templates, or more than {RAW_POLICIES} policies"), "write each policy out"));
    }
    let (mut policies, mut errors) = (Vec::new(), Vec::new());
    for policy in parsed.policies() {
        let id = policy.annotation("id").unwrap_or_default();
        let mut demand = |holds: bool, message: &str, hint: &str| {
            if !holds {
                let name = if id.is_empty() { policy.id().to_string() } else { id.to_owned() };
                errors.push(LoadError::whole(&source.name, format!("{name}: {message}"), hint));
            }
        };
        demand(is_id(id) && !id.starts_with(GUARD_PREFIX), "`@id` is missing or not taken", "give it an id of its own");
        demand(
            is_line(policy.annotation("reason").unwrap_or_default(), REASON_BYTES),
            "`@reason` is missing",
            "say why",
        );
        demand(
            is_line(policy.annotation("owner").unwrap_or_default(), OWNER_BYTES),
            "`@owner` is missing",
            "say whose it is",
        );
        demand(
            policy.effect() == Effect::Forbid,
            "a permit has no subjects, account or lifetime to give",
            "write a role; raw Cedar can only forbid here",
        );
        demand(
            !uses_like(policy),
            "`like` is not taken",
            "use principal in Host::TrustDomain or Host::WorkloadPattern",
        );
        for wrong in policy.to_json().map(|json| names::check(&json)).unwrap_or_default() {
            errors.push(LoadError::whole(&source.name, format!("{id}: {}", wrong.message), wrong.hint));
        }
        policies.push(policy.new_id(PolicyId::new(id)));
    }
    if errors.is_empty() { Ok(policies) } else { Err(errors) }
}

fn uses_like(policy: &Policy) -> bool {
    // What cannot be looked at is not let through. A text that says so is not let through either.
    policy.to_json().map_or(true, |json| json.get("conditions").is_none_or(|all| all.to_string().contains("\"like\"")))
}

fn entity(kind: &str, id: &str) -> Value {
    json!({ "type": format!("Host::{kind}"), "id": id })
}

fn context(attribute: &str) -> Value {
    json!({ ".": { "left": { "Var": "context" }, "attr": attribute } })
}

fn set(words: &[&str]) -> Value {
    json!({ "Set": words.iter().map(|word| json!({ "Value": word })).collect::<Vec<_>>() })
}

fn binary(operator: &str, left: &Value, right: &Value) -> Value {
    json!({ operator: { "left": left, "right": right } })
}
