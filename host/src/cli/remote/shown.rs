//! What a host says of itself, as people and programs read it.

use crate::cli::output::table;
use crate::rpc::control::{Component, StatusReply};

fn ready(reply: &StatusReply) -> &'static str {
    match (reply.ready, reply.warnings.is_empty()) {
        (true, true) => "yes",
        (true, false) => "yes, with warnings",
        (false, _) => "no",
    }
}

/// The status for people.
pub(super) fn status_text(reply: &StatusReply) -> String {
    let mut rows = vec![
        vec!["ready".to_owned(), ready(reply).to_owned()],
        vec!["http".to_owned(), reply.http_address.clone()],
        vec!["mtls".to_owned(), or_off(&reply.mtls_address)],
        vec!["policy".to_owned(), format!("generation {}", reply.policy_generation)],
        vec!["trust".to_owned(), format!("version {}", reply.trust_version)],
        vec!["audit".to_owned(), reply.audit_path.clone()],
        vec!["requests".to_owned(), format!("{}, spoilt by guests {}", reply.requests, reply.guest_failures)],
    ];
    if !reply.nats.is_empty() {
        rows.push(vec!["nats".to_owned(), reply.nats.clone()]);
    }
    rows.extend(reply.listening.iter().map(|socket| vec![socket.name.clone(), socket.address.clone()]));
    rows.extend(reply.processes.iter().map(|process| {
        let up = if process.up { format!("pid {}", process.pid) } else { "down".to_owned() };
        vec![process.role.clone(), format!("{up}, {} restarts", process.restarts)]
    }));
    rows.extend(reply.problems.iter().map(|problem| vec!["problem".to_owned(), problem.clone()]));
    rows.extend(reply.warnings.iter().map(|warning| vec!["warning".to_owned(), warning.clone()]));
    rows.extend(reply.audited.iter().map(|audited| {
        let until = crate::cli::policy::audit_mode::shown(audited.until);
        let what = format!("AUDIT MODE: {} until {until}, what nobody granted is let through", audited.component);
        vec!["warning".to_owned(), what]
    }));
    rows.extend(reply.dangers.iter().map(|danger| vec!["danger".to_owned(), danger.clone()]));
    format!("{}\n{}", table(&rows), components_text(&reply.components))
}

/// An address, or that there is none: `[listen] mtls` may be left out.
fn or_off(address: &str) -> String {
    if address.is_empty() { "off".to_owned() } else { address.to_owned() }
}

/// Components for people: what runs, and what was refused with its reason.
pub(super) fn components_text(components: &[Component]) -> String {
    let head = ["COMPONENT", "VERSION", "STATE", "SPIFFE ID", "DIGEST", "INSTANCE"].map(str::to_owned).to_vec();
    let rows = components.iter().map(|component| {
        let digest: String = component.digest.chars().take(19).collect();
        let refused = component.detail.lines().next().unwrap_or_default().chars().take(REFUSAL_CHARS).collect();
        let what = if component.state == "refused" { refused } else { component.spiffe_id.clone() };
        vec![
            component.name.clone(),
            component.version.clone(),
            component.state.clone(),
            what,
            digest,
            component.instance.clone(),
        ]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()).trim_end().to_owned()
}

/// A component as JSON.
pub(super) fn component_json(component: &Component) -> serde_json::Value {
    serde_json::json!({
        "name": component.name, "version": component.version, "digest": component.digest, "instance": component.instance,
        "spiffe_id": component.spiffe_id, "signer": component.signer, "signer_group": component.signer_group,
        "state": component.state, "detail": component.detail,
    })
}

/// The status as JSON.
pub(super) fn status_json(reply: &StatusReply) -> serde_json::Value {
    let processes = reply.processes.iter().map(|process| {
        serde_json::json!({ "role": process.role, "pid": process.pid, "restarts": process.restarts, "up": process.up })
    });
    let audited = reply
        .audited
        .iter()
        .map(|audited| serde_json::json!({ "component": audited.component, "until": audited.until }));
    let listening: serde_json::Map<_, _> =
        reply.listening.iter().map(|socket| (socket.name.clone(), socket.address.clone().into())).collect();
    serde_json::json!({
        "ready": reply.ready, "problems": reply.problems, "policy_generation": reply.policy_generation,
        "trust_version": reply.trust_version, "processes": processes.collect::<Vec<_>>(),
        "components": reply.components.iter().map(component_json).collect::<Vec<_>>(),
        "http": reply.http_address, "mtls": reply.mtls_address, "audit": reply.audit_path, "pool_profile": reply.pool_profile,
        "requests": reply.requests, "guest_failures": reply.guest_failures, "events_lost": reply.events_lost,
        "dangers": reply.dangers, "listening": listening, "audited": audited.collect::<Vec<_>>(),
        "nats": reply.nats, "warnings": reply.warnings,
    })
}

/// Milliseconds since 1970 for people, in UTC.
pub(super) fn moment(at: i64) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000);
    let text = moment.ok().and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| at.to_string())
}

/// How much of a refusal fits into a table; `status` has the whole.
const REFUSAL_CHARS: usize = 72;
