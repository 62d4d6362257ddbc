//! Raw policies as they are written: what their scopes say, and the questions that they give rise to.
//!
//! Decides nothing. Where a scope leaves something open, a stand-in is asked about (`any`): what a question shows of a raw
//! policy is an example of it, never all of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use cedar_policy::{Effect, EntityUid, Policy, PrincipalConstraint, ResourceConstraint};
use serde_json::Value;

use crate::component::ANONYMOUS;
use crate::decide::{Action, Rule};
use crate::destination::{Destination, Host};
use crate::question::Question;
use crate::subject::SubjectPattern;

/// What two policies are the same by: effect, scope, conditions and the peer that is demanded, not what they are called.
/// None where a policy cannot be looked at: then it is the same as no other.
pub(crate) fn canonical(rule: &Rule) -> Option<String> {
    let mut json = rule.policy.to_json().ok()?;
    json.as_object_mut()?.remove("annotations");
    let peer = rule.meta.peer.as_ref().map_or("", |peer| peer.as_str());
    Some(format!("{json} {peer}"))
}

/// The policy in one line, without its annotations.
pub(crate) fn line(policy: &Policy) -> String {
    let bare = policy.to_json().ok().and_then(|mut json| {
        json.as_object_mut()?.remove("annotations");
        Policy::from_json(None, json).ok()?.to_cedar()
    });
    one_line(&bare.unwrap_or_else(|| policy.to_string()))
}

/// White space as one space, and none within parentheses; texts in quotes stay as they are.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let (mut is_quoted, mut is_escaped, mut is_apart) = (false, false, false);
    for c in text.trim().chars() {
        if !is_quoted && c.is_whitespace() {
            is_apart = true;
            continue;
        }
        if is_apart && !line.ends_with('(') && c != ')' {
            line.push(' ');
        }
        is_apart = false;
        is_quoted ^= c == '"' && !is_escaped;
        is_escaped = is_quoted && c == '\\' && !is_escaped;
        line.push(c);
    }
    line
}

/// `permit` or `forbid`.
pub(crate) fn effect(rule: &Rule) -> &'static str {
    match rule.policy.effect() {
        Effect::Permit => "permit",
        Effect::Forbid => "forbid",
    }
}

/// Whether evaluation can end in an error, after which nothing is allowed: arithmetic that overflows, an attribute of an
/// entity that is not there. What is not known to be safe can.
pub(crate) fn can_fail(policy: &Policy) -> bool {
    let Ok(json) = policy.to_json() else { return true };
    let bodies = json.get("conditions").and_then(Value::as_array);
    bodies.is_none_or(|conditions| conditions.iter().any(|one| one.get("body").is_none_or(|body| !is_safe(body))))
}

fn is_safe(expression: &Value) -> bool {
    let Some(members) = expression.as_object() else { return false };
    members.iter().all(|(operator, operands)| match operator.as_str() {
        "Value" | "Var" => true,
        "." | "has" => operands.get("left").is_some_and(is_path),
        "Set" | "isInRange" | "isIpv4" | "isIpv6" | "isLoopback" | "isMulticast" => {
            operands.as_array().is_some_and(|operands| operands.iter().all(is_safe))
        }
        // Strict validation takes literals alone, and reads them.
        "ip" => true,
        "is" => operands.get("left").is_some_and(is_safe) && operands.get("in").is_none_or(is_safe),
        "==" | "!=" | "in" | "<" | "<=" | ">" | ">=" | "&&" | "||" | "!" | "contains" | "containsAll"
        | "containsAny" | "isEmpty" | "if-then-else" => {
            operands.as_object().is_some_and(|operands| operands.values().all(is_safe))
        }
        _ => false,
    })
}

/// Attributes of the request's own principal, resource and context: the host builds all of them.
fn is_path(expression: &Value) -> bool {
    match expression.get(".") {
        Some(operands) => operands.get("left").is_some_and(is_path),
        None => expression.get("Var").is_some(),
    }
}

/// Whether a scope can match a request of a component to a destination.
pub(crate) fn can_send(rule: &Rule, component: &str, destination: &Destination) -> bool {
    rule.actions.contains(&Action::HttpSend)
        && rule.component.as_deref().is_none_or(|own| own == component)
        && match rule.policy.resource_constraint() {
            ResourceConstraint::Eq(uid) => uid.id().unescaped() == destination.to_string(),
            ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => match destination.host() {
                Host::Dns(name) => name.zones().any(|zone| zone == uid.id().unescaped()) || !is(&uid, "DnsZone"),
                Host::V4(_) | Host::V6(_) => !is(&uid, "DnsZone"),
            },
            ResourceConstraint::Any | ResourceConstraint::Is(_) => true,
        }
}

/// The questions that show what a raw policy does, with stand-ins for what it leaves open.
pub(crate) fn questions(rule: &Rule) -> Vec<Question> {
    rule.actions.iter().flat_map(|action| of_action(rule, *action)).collect()
}

fn of_action(rule: &Rule, action: Action) -> Vec<Question> {
    let named = named(rule);
    let id = |kind: &str, any: &str| match &named {
        Some(uid) if is(uid, kind) => uid.id().unescaped().to_owned(),
        _ => any.to_owned(),
    };
    let subject = || id("Subject", ">").parse::<SubjectPattern>();
    vec![match action {
        Action::Load => Question::Load { imports: Vec::new(), expired: false },
        Action::Link => Question::Link {
            interface: match &named {
                Some(uid) if is(uid, "WitPackage") => format!("{}/any", uid.id().unescaped()),
                _ => id("WitInterface", "any:any/any"),
            },
        },
        Action::HttpSend => Question::HttpSend { destination: destination(named.as_ref()), method: "GET".to_owned() },
        Action::HttpConnect => {
            let destination = destination(named.as_ref());
            return stand_ins(&destination)
                .into_iter()
                .map(|address| Question::HttpConnect {
                    destination: destination.clone(),
                    method: "GET".to_owned(),
                    address,
                })
                .collect();
        }
        Action::SvidJwt => Question::SvidJwt { audience: id("Audience", "any"), ttl: 1 },
        Action::SvidX509 => Question::SvidX509 { ttl: 1 },
        Action::SvidValidate => Question::SvidValidate {},
        Action::IdentityRead => Question::IdentityRead {},
        Action::SvidSign => Question::SvidSign { purpose: id("Purpose", "any") },
        Action::SvidExport => Question::SvidExport {},
        Action::BundleRead => Question::BundleRead {},
        Action::PeerRead => Question::PeerRead {},
        Action::Call => Question::Call { caller: caller(rule) },
        Action::Publish | Action::Request => {
            let Ok(pattern) = subject() else { return Vec::new() };
            let subject = within(&pattern);
            match action {
                Action::Publish => Question::Publish { subject },
                _ => Question::Request { subject },
            }
        }
        Action::Subscribe => {
            let Ok(pattern) = subject() else { return Vec::new() };
            // Nobody may be granted all subjects: one that stands for them.
            let subject = if pattern.as_str() == ">" { "any".to_owned() } else { pattern.to_string() };
            Question::Subscribe { subject, queue: String::new() }
        }
    }]
}

/// A subject that stands for a pattern: messages have no wildcards.
pub(crate) fn within(pattern: &SubjectPattern) -> String {
    let literal = |token| if matches!(token, "*" | ">") { "any" } else { token };
    pattern.as_str().split('.').map(literal).collect::<Vec<_>>().join(".")
}

/// A destination as questions have it.
pub(crate) fn url(destination: &Destination) -> String {
    format!("{}://{}", destination.scheme().as_str(), destination.authority())
}

/// Addresses to ask about for a destination: a public and a private one, or the one that it is.
fn stand_ins(destination: &str) -> Vec<SocketAddr> {
    let Ok(destination) = Destination::parse_url(destination) else { return Vec::new() };
    let port = destination.port();
    match destination.host().address() {
        Some(address) => vec![SocketAddr::new(address, port)],
        None => [PUBLIC, PRIVATE].map(|address| SocketAddr::new(IpAddr::V4(address), port)).to_vec(),
    }
}

fn destination(named: Option<&EntityUid>) -> String {
    let id = named.map(|uid| uid.id().unescaped());
    match (named, id) {
        (Some(uid), Some(id)) if is(uid, "Destination") => {
            Destination::parse_url(id).map_or_else(|_| id.to_owned(), |destination| url(&destination))
        }
        (Some(uid), Some(id)) if is(uid, "DnsZone") => format!("https://{id}"),
        _ => "https://any.example".to_owned(),
    }
}

fn caller(rule: &Rule) -> String {
    match rule.policy.principal_constraint() {
        PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => {
            match (is(&uid, "Workload"), is(&uid, "TrustDomain")) {
                (true, _) => uid.id().unescaped().to_owned(),
                (_, true) => format!("spiffe://{}/any", uid.id().unescaped()),
                _ => ANONYMOUS.to_owned(),
            }
        }
        PrincipalConstraint::Is(kind) if kind.basename() == "Workload" => "spiffe://any.example/any".to_owned(),
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => ANONYMOUS.to_owned(),
    }
}

fn named(rule: &Rule) -> Option<EntityUid> {
    match rule.policy.resource_constraint() {
        ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => Some(uid),
        ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
    }
}

fn is(uid: &EntityUid, kind: &str) -> bool {
    uid.type_name().basename() == kind
}

/// Stands for all public addresses.
pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 4);
/// Stands for all private ones.
pub(crate) const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_one_line_and_its_texts_stay_as_they_are() {
        let policy: Policy = r#"@id("x") permit (principal ,
            action, resource) when { context.a == "b  )\" ( c"  };"#
            .parse()
            .unwrap();
        let line = line(&policy).replace("permit (", "permit(");
        assert!(line.starts_with("permit(principal, action, resource) when {"), "{line}");
        assert!(line.contains(r#""b  )\" ( c""#) && !line.contains('\n'), "{line}");
    }
}
