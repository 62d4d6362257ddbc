//! Names in raw Cedar that could match nothing.
//!
//! The host writes every name once and in one way before policy sees it: `shop.example`, whatever spelling was asked for. Cedar
//! compares texts, so a policy that writes `Shop.Example` matches nothing, and a `forbid` that does forbids nothing. Refuses each
//! name of an entity, and each text that an attribute is compared with, which the host never writes so; says how it would.

use std::str::FromStr;

use serde_json::Value;

use crate::address::AddressClass;
use crate::callout::{AccountName, Who};
use crate::component::ANONYMOUS;
use crate::destination::{Destination, Host};
use crate::grants::{is_audience, is_host_name, is_nkey, is_purpose};
use crate::interface::{InterfaceName, is_component_name};
use crate::workload::WorkloadId;

/// A name that matches nothing. Whoever wrote the policy erred.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misnamed {
    /// The text, as written.
    pub(crate) text: String,
    /// What is wrong with it.
    pub(crate) message: String,
    /// How to write it.
    pub(crate) hint: String,
}

/// How the host writes a name.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    /// So.
    Same,
    /// In another way.
    Other(String),
    /// Not at all: this is what it would have to be.
    Never(&'static str),
}

/// All of a policy's names that could match nothing, from its JSON form.
pub(crate) fn check(policy: &Value) -> Vec<Misnamed> {
    let mut found = Vec::new();
    for part in ["principal", "resource", "conditions"] {
        walk(policy.get(part).unwrap_or(&Value::Null), &mut found);
    }
    found.dedup();
    found
}

fn walk(value: &Value, found: &mut Vec<Misnamed>) {
    match value {
        Value::Object(members) => {
            let text = |name: &str| members.get(name).and_then(Value::as_str);
            if let (Some(kind), Some(id)) = (text("type"), text("id")) {
                found.extend(of_entity(kind, id).and_then(|form| form.misnamed(&format!("{kind}::"), id)));
            }
            for (operator, arguments) in members {
                match operator.as_str() {
                    "==" | "!=" | "contains" | "containsAny" | "containsAll" => compared(arguments, found),
                    _ => {}
                }
            }
            members.values().for_each(|value| walk(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Looks at an attribute and the text, or the set of texts, that it is compared with, on whichever side each is.
fn compared(arguments: &Value, found: &mut Vec<Misnamed>) {
    let side = |name: &str| arguments.get(name).unwrap_or(&Value::Null);
    for (one, other) in [(side("left"), side("right")), (side("right"), side("left"))] {
        let Some(attribute) = one.get(".").and_then(|access| access.get("attr")).and_then(Value::as_str) else {
            continue;
        };
        let literals = other.get("Set").and_then(Value::as_array).map_or(std::slice::from_ref(other), Vec::as_slice);
        for text in literals.iter().filter_map(|literal| literal.get("Value").and_then(Value::as_str)) {
            found.extend(of_attribute(attribute, text).misnamed(&format!("`{attribute}`: "), text));
        }
    }
}

impl Form {
    fn misnamed(self, before: &str, text: &str) -> Option<Misnamed> {
        let text = text.to_owned();
        match self {
            Self::Same => None,
            Self::Other(written) => Some(Misnamed {
                message: format!("{before}{text:?} matches nothing: the host writes it {written:?}"),
                hint: format!("write {written:?}"),
                text,
            }),
            Self::Never(what) => Some(Misnamed {
                message: format!("{before}{text:?} matches nothing"),
                hint: format!("needed is {what}"),
                text,
            }),
        }
    }

    /// Whether it is so, else how the host would write it, where that can be told.
    fn of(text: &str, written: Option<String>, what: &'static str) -> Self {
        match written {
            Some(written) if written == text => Self::Same,
            Some(written) => Self::Other(written),
            None => Self::Never(what),
        }
    }

    /// Lower case is what the host writes.
    fn lower(text: &str, is: impl Fn(&str) -> bool, what: &'static str) -> Self {
        let lower = text.to_lowercase();
        Self::of(text, is(&lower).then_some(lower), what)
    }
}

/// The name of an entity; `None`: of a type whose names are free, or that is looked at elsewhere.
fn of_entity(kind: &str, id: &str) -> Option<Form> {
    Some(match kind {
        "Host::TrustDomain" => trust_domain(id),
        "Host::Component" => Form::lower(id, is_component_name, COMPONENT),
        "Host::Workload" => workload(id),
        "Host::Anonymous" => Form::lower(id, |id| id == ANONYMOUS, "Host::Anonymous::\"anonymous\""),
        "Host::Image" => digest(id),
        "Host::WitPackage" => package(id),
        "Host::WitInterface" => interface(id),
        "Host::DnsZone" => zone(id),
        "Host::Destination" => {
            let written = Destination::parse_url(id).ok().map(|destination| destination.to_string());
            Form::of(id, written, "scheme://host:port, such as https://pay.example:443")
        }
        "Host::Audience" => match is_audience(id) {
            true => Form::Same,
            false => Form::Never("an audience: printable ASCII without spaces"),
        },
        "Host::Purpose" => Form::lower(id, is_purpose, "a purpose, such as receipts"),
        "Host::Operator" => operator(id),
        "Host::Node" => Form::lower(id, is_host_name, "the name of a host in its cluster, or \"local\""),
        "Host::Account" => match AccountName::from_str(id) {
            Ok(_) => Form::Same,
            Err(_) => {
                Form::Never("an account's name; those of the server itself are in Host::AccountGroup::\"reserved\"")
            }
        },
        "Host::AccountGroup" => Form::lower(id, |id| id == "reserved", "Host::AccountGroup::\"reserved\""),
        "Host::WorkloadPattern" => match Who::from_str(id) {
            Ok(_) => Form::Same,
            Err(_) => Form::Never("the `who` of a role, as it stands there"),
        },
        _ => return None,
    })
}

/// A text that an attribute is compared with.
fn of_attribute(attribute: &str, text: &str) -> Form {
    let one_of = |words: &[&str], what| Form::lower(text, |lower| words.contains(&lower), what);
    match attribute {
        "host" => host(text),
        "scheme" => one_of(&["http", "https"], "http or https"),
        "class" => one_of(&CLASSES, CLASS),
        "name" => Form::lower(text, is_component_name, COMPONENT),
        "digest" => digest(text),
        "path" => match text.starts_with('/') {
            true => Form::Same,
            false => Form::Never("the path of a SPIFFE ID, which begins with a slash: /ns/shop/sa/orders"),
        },
        "imports" => match text.parse::<InterfaceName>() {
            Ok(_) => Form::Same,
            Err(_) => Form::Never("an import as the component has it, such as wasi:http/outgoing-handler@0.2.6"),
        },
        "component" if !text.is_empty() => Form::lower(text, is_component_name, COMPONENT),
        "kind" => one_of(&["client", "leafnode"], "client or leafnode"),
        "type" => one_of(&["nats", "websocket", "mqtt"], "nats, websocket or mqtt"),
        "credentials" => one_of(&["x509", "jwt"], "x509 or jwt"),
        _ => Form::Same,
    }
}

fn zone(id: &str) -> Form {
    let bare = id.trim_start_matches("*.").trim_start_matches('.');
    let written = match Destination::parse_url(&format!("https://{bare}")).map(|destination| destination.host().clone())
    {
        Ok(Host::Dns(name)) => Some(name.as_str().to_owned()),
        Ok(Host::V4(_) | Host::V6(_)) | Err(_) => None,
    };
    Form::of(id, written, "a DNS name: it holds for this name and all below it; for addresses use context.ip")
}

fn host(text: &str) -> Form {
    let parsed = |authority: String| Destination::parse_url(&format!("https://{authority}"));
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let written = parsed(text.to_owned()).or_else(|_| parsed(format!("[{bare}]")));
    Form::of(text, written.ok().map(|destination| destination.host().to_string()), "a host: a DNS name or an address")
}

fn trust_domain(id: &str) -> Form {
    let lower = id.to_lowercase();
    let bare = lower.strip_prefix("spiffe://").unwrap_or(&lower).trim_end_matches('/');
    let workload = WorkloadId::from_str(&format!("spiffe://{bare}/x"));
    let written = workload.ok().map(|workload| workload.trust_domain().to_owned()).filter(|name| name == bare);
    Form::of(id, written, "the name of a trust domain, such as prod.example")
}

fn workload(id: &str) -> Form {
    let bare = id.trim_end_matches('/');
    let mut parts = bare.splitn(4, '/');
    let (scheme, domain) = (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default());
    let written = format!("{}//{}/{}", scheme.to_lowercase(), domain.to_lowercase(), parts.next().unwrap_or_default());
    let written = WorkloadId::from_str(&written).ok().map(|workload| workload.as_str().to_owned());
    Form::of(id, written, "the SPIFFE ID of a workload, such as spiffe://prod.example/ns/shop/sa/orders")
}

fn interface(id: &str) -> Form {
    let written = id.to_lowercase().parse::<InterfaceName>().ok().map(|name| name.name().to_owned());
    Form::of(id, written, "namespace:package/interface without a version, such as wasi:http/outgoing-handler")
}

fn package(id: &str) -> Form {
    let lower = id.to_lowercase();
    let bare = lower.split(['/', '@']).next().unwrap_or_default();
    let written = format!("{bare}/x").parse::<InterfaceName>().ok().map(|name| name.package().to_owned());
    Form::of(id, written, "namespace:package, such as wasi:http")
}

fn digest(text: &str) -> Form {
    let is = |lower: &str| {
        let digits = lower.strip_prefix("sha256:");
        digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    Form::lower(text, is, "a digest: sha256: and 64 digits")
}

fn operator(id: &str) -> Form {
    let is_local = |uid: &str| uid.parse::<u32>().is_ok_and(|number| number.to_string() == uid);
    match id.strip_prefix("local:") {
        Some(uid) if is_local(uid) => Form::Same,
        None if is_nkey(id) => Form::Same,
        None if id.starts_with("spiffe:") => workload(id),
        _ => Form::Never("a SPIFFE ID, the public nkey of a user (U..), or local: and a uid"),
    }
}

const COMPONENT: &str = "the name of a component, such as shop:cart";
const CLASSES: [&str; 11] = [
    "name",
    AddressClass::Public.name(),
    AddressClass::Private.name(),
    AddressClass::Shared.name(),
    AddressClass::Loopback.name(),
    AddressClass::LinkLocal.name(),
    AddressClass::Metadata.name(),
    AddressClass::Multicast.name(),
    AddressClass::Broadcast.name(),
    AddressClass::Unspecified.name(),
    AddressClass::Reserved.name(),
];
const CLASS: &str =
    "one of name, public, private, shared, loopback, link-local, metadata, multicast, broadcast, unspecified, reserved";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entity(kind: &str, id: &str) -> Vec<String> {
        let policy = json!({ "principal": { "op": "==", "entity": { "type": kind, "id": id } }, "conditions": [] });
        check(&policy).into_iter().map(|wrong| format!("{} / {}", wrong.message, wrong.hint)).collect()
    }

    #[test]
    fn names_that_the_host_writes_are_taken() {
        for (kind, id) in [
            ("TrustDomain", "prod.example"),
            ("SignerGroup", "Any name At all"),
            ("Component", "shop:orders"),
            ("Workload", "spiffe://prod.example/ns/shop/sa/Orders"),
            ("Anonymous", "anonymous"),
            ("Image", &format!("sha256:{}", "0a".repeat(32))),
            ("WitPackage", "wasi:http"),
            ("WitInterface", "wasi:http/outgoing-handler"),
            ("DnsZone", "example"),
            ("DnsZone", "xn--bcher-kva.example"),
            ("Destination", "https://pay.example:443"),
            ("Destination", "http://[2001:db8::1]:8080"),
            ("Destination", "http://192.0.2.1:80"),
            ("Audience", "https://Vault.example/"),
            ("Purpose", "receipts"),
            ("Operator", "local:1000"),
            ("Operator", "spiffe://prod.example/ops/ann"),
            ("Operator", &format!("U{}", "A".repeat(55))),
            ("Node", "local"),
            ("Account", "APP"),
            ("AccountGroup", "reserved"),
            ("WorkloadPattern", "spiffe://prod.example/portcullis/host/{host}"),
        ] {
            assert_eq!(entity(&format!("Host::{kind}"), id), [""; 0], "{kind} {id}");
        }
    }

    #[test]
    fn other_spellings_are_refused_with_the_one_that_matches() {
        for (kind, id, written) in [
            ("TrustDomain", "Prod.example", "prod.example"),
            ("TrustDomain", "spiffe://prod.example", "prod.example"),
            ("Component", "Shop:Orders", "shop:orders"),
            ("Workload", "spiffe://Prod.example/ns/shop/sa/Orders", "spiffe://prod.example/ns/shop/sa/Orders"),
            ("Workload", "spiffe://prod.example/a/", "spiffe://prod.example/a"),
            ("Anonymous", "Anonymous", "anonymous"),
            ("Image", &format!("sha256:{}", "0A".repeat(32)), &format!("sha256:{}", "0a".repeat(32))),
            ("WitPackage", "wasi:keyvalue/*", "wasi:keyvalue"),
            ("WitInterface", "wasi:keyvalue/store@0.2.0", "wasi:keyvalue/store"),
            ("DnsZone", "Shop.Example", "shop.example"),
            ("DnsZone", "shop.internal.", "shop.internal"),
            ("DnsZone", "*.shop.internal", "shop.internal"),
            ("DnsZone", ".shop.internal", "shop.internal"),
            ("DnsZone", "bücher.example", "xn--bcher-kva.example"),
            ("Destination", "https://pay.shop.internal", "https://pay.shop.internal:443"),
            ("Destination", "HTTP://0x7f.1:80", "http://127.0.0.1:80"),
            ("Purpose", "Receipts", "receipts"),
            ("Node", "H1", "h1"),
            ("AccountGroup", "Reserved", "reserved"),
        ] {
            let said = entity(&format!("Host::{kind}"), id);
            assert!(said.len() == 1 && said[0].ends_with(&format!("write {written:?}")), "{kind} {id}: {said:?}");
        }
        for (kind, id) in [
            ("TrustDomain", "prod example"),
            ("Component", "orders"),
            ("Workload", "spiffe://prod.example"),
            ("Image", "sha256:00"),
            ("WitInterface", "wasi:keyvalue"),
            ("DnsZone", "10.0.0.1"),
            ("DnsZone", "a b"),
            ("Destination", "https://pay.example/path"),
            ("Audience", "a b"),
            ("Operator", "ann"),
            ("Operator", "local:007"),
            ("Account", "$G"),
            ("WorkloadPattern", "host/{x}"),
        ] {
            let said = entity(&format!("Host::{kind}"), id);
            assert!(said.len() == 1 && said[0].contains("needed is "), "{kind} {id}: {said:?}");
        }
    }

    #[test]
    fn texts_that_attributes_are_compared_with_are_looked_at_on_either_side_and_in_sets() {
        let access = |attribute: &str| json!({ ".": { "left": { "Var": "context" }, "attr": attribute } });
        let wrong = |body: Value| check(&json!({ "conditions": [{ "kind": "when", "body": body }] })).len();
        for (attribute, good, bad) in [
            ("host", "pay.example", "PAY.example"),
            ("host", "2001:db8::1", "[2001:db8::1]"),
            ("host", "192.0.2.1", "192.0.2.01"),
            ("scheme", "https", "HTTPS"),
            ("class", "metadata", "metdata"),
            ("class", "name", "Name"),
            ("name", "shop:orders", "orders"),
            ("path", "/ns/shop", "ns/shop"),
            ("component", "", "Shop:orders"),
            ("kind", "client", "router"),
            ("type", "websocket", "ws"),
        ] {
            let value = |text: &str| json!({ "Value": text });
            for (text, expected) in [(good, 0), (bad, 1)] {
                for operator in ["==", "!="] {
                    let (attribute, text) = (access(attribute), value(text));
                    assert_eq!(wrong(json!({ operator: { "left": attribute, "right": text } })), expected, "{text}");
                    assert_eq!(wrong(json!({ operator: { "left": text, "right": attribute } })), expected, "{text}");
                }
                let set = json!({ "Set": [value(good), value(text)] });
                let within = json!({ "!": { "arg": { "contains": { "left": set, "right": access(attribute) } } } });
                assert_eq!(wrong(within), expected, "{attribute} {text}");
            }
        }
        let imports = |text: &str| json!({ "contains": { "left": access("imports"), "right": { "Value": text } } });
        assert_eq!((wrong(imports("wasi:sockets/tcp@0.2.6")), wrong(imports("sockets"))), (0, 1));
        assert_eq!(wrong(json!({ "==": { "left": access("host"), "right": access("scheme") } })), 0);
    }
}
