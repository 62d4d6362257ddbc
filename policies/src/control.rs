//! What an operator may do to a host: Cedar over `[[operator]]` entries and the operators' own `forbid`s, deny by default.
//!
//! Decides about a signer that was proven elsewhere. The local user of a host and root are allowed by a shipped policy, and an
//! operator's `forbid` holds for them, too. Refuses names that are none before Cedar is asked.

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{
    ActionConstraint, Authorizer, Context, Decision, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    Policy, PolicyId, PolicySet as CedarSet, Request, RestrictedExpression, Schema,
};
use serde_json::{Value, json};

use crate::decide::{Engine, Kind, Meta, Rule};
use crate::grants::{ControlAction, OperatorEntry, is_host_name, is_nkey};
use crate::interface::is_component_name;
use crate::lint;
use crate::shipped::{CONTROL, CONTROL_SOURCE};
use crate::source::{LoadError, Source, SourceKind};
use crate::workload::WorkloadId;

mod denial;
mod nearest;

pub use self::denial::{ControlDenial, OperatorEdit, add_operator};

/// Who asks a host for something, proven.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The user of the host's own machine who runs it, or root: the kernel said so.
    Local(u32),
    /// Whoever signed: a SPIFFE ID or a public nkey.
    Signer(String),
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlQuestion {
    /// Who.
    pub who: Operator,
    /// What.
    pub action: ControlAction,
    /// On which host.
    pub host: String,
    /// About which component, by its claimed name; none: about the host as a whole.
    pub component: Option<String>,
}

/// An allowed action: only [`PolicySet::control`](crate::PolicySet::control) makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlGrant {
    by: Vec<String>,
    generation: u64,
}

/// The policies about control, compiled.
#[derive(Debug)]
pub(crate) struct Control {
    policies: CedarSet,
    metas: HashMap<PolicyId, Arc<Meta>>,
    schema: Schema,
    operators: Vec<OperatorEntry>,
}

/// Why it was refused, before it is put into words.
#[derive(Debug)]
pub(crate) enum Why {
    NoGrant,
    Forbidden(Arc<Meta>),
    Malformed,
    Failed(Vec<String>),
    Unfit(String),
}

impl Operator {
    /// `local:UID`, the SPIFFE ID or the nkey.
    pub fn name(&self) -> String {
        match self {
            Self::Local(uid) => format!("local:{uid}"),
            Self::Signer(name) => name.clone(),
        }
    }

    fn is_well_formed(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Signer(name) => is_nkey(name) || name.parse::<WorkloadId>().is_ok(),
        }
    }
}

impl ControlGrant {
    /// The entries and policies that allow it.
    pub fn by(&self) -> &[String] {
        &self.by
    }

    /// The generation of policy.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl Control {
    /// Entries and raw rules, compiled and validated.
    pub(crate) fn new(engine: &Engine, operators: Vec<OperatorEntry>, raw: &[Rule]) -> Result<Self, Vec<LoadError>> {
        let internal = |why: String| vec![LoadError::whole("shipped", why, "this is a defect of the host")];
        let shipped = Source { name: CONTROL_SOURCE.to_owned(), text: CONTROL.to_owned(), kind: SourceKind::Cedar };
        let mut rules = lint::rules(engine, &shipped, Kind::Baseline)?;
        rules.extend(raw.iter().filter(|rule| is_about_control(&rule.policy)).cloned());
        for operator in &operators {
            rules.extend(entry_rules(operator).map_err(|why| internal(format!("operator {}: {why}", operator.id)))?);
        }
        let problem = |meta: &Meta, _, why: String| LoadError::whole(&meta.source, format!("{}: {why}", meta.id), "");
        let errors = lint::validate(engine, &rules, problem);
        if !errors.is_empty() {
            return Err(errors);
        }
        let policies = CedarSet::from_policies(rules.iter().map(|rule| rule.policy.clone()));
        let metas = rules.iter().map(|rule| (rule.policy.id().clone(), Arc::clone(&rule.meta))).collect();
        let policies = policies.map_err(|error| internal(error.to_string()))?;
        Ok(Self { policies, metas, schema: engine.schema().clone(), operators })
    }

    pub(crate) fn operators(&self) -> &[OperatorEntry] {
        &self.operators
    }

    pub(crate) fn decide(&self, question: &ControlQuestion, generation: u64) -> Result<ControlGrant, Why> {
        let component_is_name = question.component.as_deref().is_none_or(is_component_name);
        if !question.who.is_well_formed() || !is_host_name(&question.host) || !component_is_name {
            return Err(Why::Malformed);
        }
        let (request, entities) = self.request(question).map_err(Why::Unfit)?;
        let response = Authorizer::new().is_authorized(&request, &self.policies, &entities);
        let failed: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
        if !failed.is_empty() {
            // Cedar skips a policy that fails: then nothing is allowed.
            return Err(Why::Failed(failed));
        }
        let metas = response.diagnostics().reason().filter_map(|id| self.metas.get(id));
        let mut by: Vec<&Arc<Meta>> = metas.collect();
        by.sort_by(|a, b| a.id.cmp(&b.id));
        match (response.decision(), by.first()) {
            (Decision::Allow, Some(_)) => {
                let mut by: Vec<String> = by.into_iter().map(|meta| meta.id.clone()).collect();
                by.dedup();
                Ok(ControlGrant { by, generation })
            }
            (Decision::Allow, None) => Err(Why::Unfit("allowed by no policy".to_owned())),
            (Decision::Deny, Some(meta)) => Err(Why::Forbidden(Arc::clone(meta))),
            (Decision::Deny, None) => Err(Why::NoGrant),
        }
    }

    fn request(&self, question: &ControlQuestion) -> Result<(Request, Entities), String> {
        let local = matches!(question.who, Operator::Local(_));
        let who = uid("Operator", &question.who.name())?;
        let attributes = HashMap::from([("local".to_owned(), RestrictedExpression::new_bool(local))]);
        let operator = Entity::new(who.clone(), attributes, Default::default()).map_err(|error| error.to_string())?;
        let host = Entity::new_no_attrs(uid("Node", &question.host)?, Default::default());
        let component = RestrictedExpression::new_string(question.component.clone().unwrap_or_default());
        let context = Context::from_pairs([("component".to_owned(), component)]).map_err(|error| error.to_string())?;
        let (action, node) = (uid("Action", question.action.name())?, host.uid());
        let request =
            Request::new(who, action, node, context, Some(&self.schema)).map_err(|error| error.to_string())?;
        let entities =
            Entities::from_entities([operator, host], Some(&self.schema)).map_err(|error| error.to_string())?;
        Ok((request, entities))
    }
}

/// Whether a Cedar text permits anybody anything about control. One that cannot be read does.
pub fn permits_control(text: &str) -> bool {
    let Ok(set) = text.parse::<CedarSet>() else { return true };
    let permits = |policy: &Policy| policy.effect() == Effect::Permit && is_about_control(policy);
    set.num_of_templates() > 0 || set.policies().any(permits)
}

/// Whether the scope of a rule admits an action of control.
fn is_about_control(policy: &Policy) -> bool {
    let names = |uid: &EntityUid| {
        let name = uid.id().unescaped();
        name == GROUP || ControlAction::named(name).is_some()
    };
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => names(&uid),
        ActionConstraint::In(uids) => uids.iter().any(names),
    }
}

/// The permits of an entry: one for each action and host, through Cedar's JSON form.
fn entry_rules(operator: &OperatorEntry) -> Result<Vec<Rule>, String> {
    let meta = Arc::new(Meta {
        id: operator.id.clone(),
        kind: Kind::Grant,
        reason: operator.reason.clone(),
        owner: operator.owner.clone(),
        source: operator.source.clone(),
        line: operator.line,
        peer: None,
        max_ttl: None,
    });
    let entity = |kind: &str, id: &str| json!({ "type": format!("Host::{kind}"), "id": id });
    let mut rules = Vec::new();
    for (action, host) in
        operator.actions.iter().flat_map(|action| operator.hosts.iter().map(move |host| (action, host)))
    {
        let resource = match host.as_str() {
            "*" => json!({ "op": "is", "entity_type": "Host::Node" }),
            host => json!({ "op": "==", "entity": entity("Node", host) }),
        };
        let condition = condition(operator, *action);
        let policy = json!({
            "effect": "permit",
            "principal": { "op": "==", "entity": entity("Operator", &operator.who) },
            "action": { "op": "==", "entity": entity("Action", action.name()) },
            "resource": resource,
            "conditions": condition.map(|body| json!({ "kind": "when", "body": body })).into_iter().collect::<Vec<_>>(),
            "annotations": { "id": operator.id, "reason": operator.reason, "owner": operator.owner },
        });
        // A slash is in no id that an operator can choose.
        let id = PolicyId::new(format!("{}/{}/{}", operator.id, action.name(), rules.len()));
        rules.push(Rule {
            policy: Policy::from_json(Some(id), policy).map_err(|error| error.to_string())?,
            meta: Arc::clone(&meta),
            actions: Vec::new(),
            component: None,
        });
    }
    Ok(rules)
}

/// About which components; about the host as a whole only where that shows something and changes nothing.
fn condition(operator: &OperatorEntry, action: ControlAction) -> Option<Value> {
    if operator.components.iter().any(|name| name == "*") {
        return None;
    }
    let whole = action.only_shows().then_some("");
    let names = operator.components.iter().map(String::as_str).chain(whole);
    let names: Vec<Value> = names.map(|name| json!({ "Value": name })).collect();
    let component = json!({ ".": { "left": { "Var": "context" }, "attr": "component" } });
    Some(json!({ "contains": { "left": { "Set": names }, "right": component } }))
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, String> {
    let name: EntityTypeName = format!("Host::{kind}").parse().map_err(|_| "an entity type is missing".to_owned())?;
    Ok(EntityUid::from_type_name_and_id(name, EntityId::new(id)))
}

/// The group of all actions of control.
pub(crate) const GROUP: &str = "control";

#[cfg(test)]
mod tests;
