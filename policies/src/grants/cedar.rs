//! Grants as Cedar policies, made through Cedar's JSON form: no policy text is ever put together from values.

use std::sync::Arc;

use cedar_policy::{Policy, PolicyId};
use serde_json::{Value, json};

use super::{CallerPattern, GrantEntry, IdentityRight};
use crate::address::{AddressClass, AddressRange};
use crate::component::ANONYMOUS;
use crate::decide::{Action, Kind, Meta, Rule};
use crate::interface::LinkPattern;

/// All permits of a grant.
pub(crate) fn rules(grant: &GrantEntry) -> Result<Vec<Rule>, String> {
    let meta = Arc::new(Meta {
        id: grant.id.clone(),
        kind: Kind::Grant,
        reason: grant.reason.clone(),
        owner: grant.owner.clone(),
        source: grant.source.clone(),
        line: grant.line,
        peer: grant.peer.clone(),
        max_ttl: grant.max_ttl,
    });
    let mut permits = Permits { grant, meta, rules: Vec::new() };
    let own = || equals("Component", &grant.component);
    if grant.load {
        permits.add(Action::Load, own(), is("Image"), None)?;
    }
    for link in links(grant) {
        let resource = match &link {
            LinkPattern::Interface(name) => equals("WitInterface", name.name()),
            LinkPattern::Package(package) => json!({ "op": "in", "entity": entity("WitPackage", package) }),
        };
        permits.add(Action::Link, own(), resource, None)?;
    }
    for destination in &grant.http {
        let resource = equals("Destination", &destination.to_string());
        permits.add(Action::HttpSend, own(), resource.clone(), None)?;
        permits.add(Action::HttpConnect, own(), resource, Some(address_condition(&grant.addresses)))?;
    }
    if grant.identity.contains(&IdentityRight::Read) {
        permits.add(Action::IdentityRead, own(), is("TrustDomain"), None)?;
    }
    if grant.identity.contains(&IdentityRight::Bundles) {
        permits.add(Action::BundleRead, own(), is("TrustDomain"), None)?;
    }
    if grant.identity.contains(&IdentityRight::Peer) {
        permits.add(Action::PeerRead, own(), is("TrustDomain"), None)?;
    }
    if grant.identity.contains(&IdentityRight::Validate) {
        permits.add(Action::SvidValidate, own(), is("TrustDomain"), None)?;
    }
    if grant.identity.contains(&IdentityRight::Export) {
        permits.add(Action::SvidExport, own(), is("TrustDomain"), None)?;
    }
    if grant.identity.contains(&IdentityRight::X509) || grant.peer.is_some() {
        permits.add(Action::SvidX509, own(), is("TrustDomain"), None)?;
    }
    for audience in &grant.audiences {
        permits.add(Action::SvidJwt, own(), equals("Audience", audience), None)?;
    }
    for purpose in &grant.purposes {
        permits.add(Action::SvidSign, own(), equals("Purpose", purpose), None)?;
    }
    for caller in &grant.callers {
        let principal = match caller {
            CallerPattern::Anonymous => equals("Anonymous", ANONYMOUS),
            CallerPattern::Workload(id) => equals("Workload", id.as_str()),
        };
        permits.add(Action::Call, principal, own(), None)?;
    }
    let subjects =
        [(Action::Publish, &grant.publish), (Action::Request, &grant.request), (Action::Subscribe, &grant.subscribe)];
    for (action, patterns) in subjects {
        for pattern in patterns {
            let resource = match pattern.is_literal() {
                true => equals("Subject", pattern.as_str()),
                false => json!({ "op": "in", "entity": entity("Subject", pattern.as_str()) }),
            };
            permits.add(action, own(), resource, None)?;
        }
    }
    Ok(permits.rules)
}

/// The interfaces of a grant: those it names, and those that what it grants cannot be used without.
pub(crate) fn links(grant: &GrantEntry) -> Vec<LinkPattern> {
    let mut implied: Vec<&str> = Vec::new();
    if !grant.http.is_empty() {
        implied.push("wasi:http/outgoing-handler");
    }
    if !grant.identity.is_empty() || !grant.audiences.is_empty() || !grant.purposes.is_empty() {
        implied.push("portcullis:identity/types");
    }
    for right in &grant.identity {
        implied.extend_from_slice(match right {
            IdentityRight::Read => &["portcullis:identity/workload"],
            IdentityRight::Bundles => &["portcullis:identity/bundle"],
            IdentityRight::Peer => &["portcullis:identity/peer"],
            IdentityRight::X509 => &["portcullis:identity/x509"],
            IdentityRight::Validate => &["portcullis:identity/jwt"],
            IdentityRight::Export => &["portcullis:identity/key-export"],
        });
    }
    if !grant.purposes.is_empty() {
        implied.push("portcullis:identity/signing");
    }
    if !grant.audiences.is_empty() {
        implied.extend_from_slice(&["portcullis:identity/jwt", "wasmcloud:identity/store"]);
    }
    if [&grant.publish, &grant.request, &grant.subscribe].iter().any(|list| !list.is_empty()) {
        // A handler answers by publishing, so it is linked with both.
        implied.extend_from_slice(&["wasmcloud:messaging/types", "wasmcloud:messaging/consumer"]);
    }
    let mut links = grant.link.clone();
    for name in implied.into_iter().filter_map(|name| name.parse::<LinkPattern>().ok()) {
        if !links.contains(&name) {
            links.push(name);
        }
    }
    links
}

struct Permits<'a> {
    grant: &'a GrantEntry,
    meta: Arc<Meta>,
    rules: Vec<Rule>,
}

impl Permits<'_> {
    fn add(&mut self, action: Action, principal: Value, resource: Value, when: Option<Value>) -> Result<(), String> {
        let conditions: Vec<Value> = when.map(|body| json!({ "kind": "when", "body": body })).into_iter().collect();
        let text =
            |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let nets = conditions.iter().any(|condition| condition.to_string().contains("isInRange"));
        let shape = format!("{action:?} {} {} {nets}", text(&resource, "/op"), text(&principal, "/entity/type"));
        let policy = json!({
            "effect": "permit",
            "principal": principal,
            "action": { "op": "==", "entity": entity("Action", action.name()) },
            "resource": resource,
            "conditions": conditions,
            "annotations": { "id": self.grant.id, "reason": self.grant.reason, "owner": self.grant.owner },
        });
        // A slash is in no id that an operator can choose.
        let id = PolicyId::new(format!("{}/{}/{}", self.grant.id, action.name(), self.rules.len()));
        self.rules.push(Rule {
            policy: Policy::from_json(Some(id), policy).map_err(|error| error.to_string())?,
            meta: Arc::clone(&self.meta),
            actions: vec![action],
            component: Some(self.grant.component.clone()),
            shape: Some(shape),
        });
        Ok(())
    }
}

fn address_condition(ranges: &[AddressRange]) -> Value {
    let context = |attribute: &str| json!({ ".": { "left": { "Var": "context" }, "attr": attribute } });
    let mut classes = vec![json!({ "Value": AddressClass::Public.name() })];
    let mut nets = Vec::new();
    for range in ranges {
        match range {
            AddressRange::Class(class) => classes.push(json!({ "Value": class.name() })),
            AddressRange::Net(_) => {
                nets.push(json!({ "isInRange": [context("ip"), { "ip": [{ "Value": range.to_string() }] }] }));
            }
        }
    }
    let of_class = json!({ "contains": { "left": { "Set": classes }, "right": context("class") } });
    nets.into_iter().fold(of_class, |left, right| json!({ "||": { "left": left, "right": right } }))
}

fn entity(kind: &str, id: &str) -> Value {
    json!({ "type": format!("Host::{kind}"), "id": id })
}

fn equals(kind: &str, id: &str) -> Value {
    json!({ "op": "==", "entity": entity(kind, id) })
}

fn is(kind: &str) -> Value {
    json!({ "op": "is", "entity_type": format!("Host::{kind}") })
}
