//! What a role may not open by itself, however plainly it is written: what lets one of its holders read or steer others.

use super::role::{Demand, Role};
use crate::subject::SubjectPattern;

/// Everything that is wrong with one role, with what to do about it.
pub(super) fn problems(role: &Role) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    let publish = role.publish.iter().map(|subject| ("publish", subject));
    let subscribe = role.subscribe.iter().map(|(subject, _)| ("subscribe", subject));
    for (key, template) in publish.clone().chain(subscribe.clone()) {
        for place in template.places() {
            if !role.who.captures().any(|name| name == place) {
                found.push((
                    format!("`{key}`: {template} has a place {{{place}}} that `who` does not fill"),
                    "name the same part in braces in `who`",
                ));
            }
        }
        let Some(sample) = template.sample() else { continue };
        if first_is_wildcard(&sample) && !role.dangers.any_subject {
            found.push((
                format!("`{key}`: {template} begins with a wildcard: it reaches inboxes, JetStream and the server"),
                "begin it with a word; or say danger_any_subject = true",
            ));
        }
        if meets(&sample, "$SYS.REQ.USER.AUTH") && !first_is_wildcard(&sample) {
            found.push((
                format!("`{key}`: {template} reaches the requests of the callout itself"),
                "nobody but the callout has them",
            ));
        }
    }
    for (_, template) in subscribe {
        let Some(sample) = template.sample() else { continue };
        if meets(&sample, "_INBOX.>") && !first_is_wildcard(&sample) && !role.dangers.shared_inbox {
            found.push((
                format!("`subscribe`: {template} reads the replies to everybody with the usual inbox prefix"),
                "give each its own, such as _INBOX_{name}.>, and set that prefix in the client; or say danger_shared_inbox = true",
            ));
        }
    }
    for (_, template) in publish {
        let Some(sample) = template.sample() else { continue };
        // With a domain between, too: `$JS.hub.API..`.
        let reached = JETSTREAM_ADMIN
            .iter()
            .find(|rest| meets(&sample, &format!("$JS.API.{rest}")) || meets(&sample, &format!("$JS.*.API.{rest}")));
        if let Some(reached) = reached.filter(|_| !first_is_wildcard(&sample) && !role.dangers.jetstream_admin) {
            found.push((
                format!("`publish`: {template} reaches $JS.API.{reached}: whoever has it reads streams or has them delivered elsewhere"),
                "let one party make streams and consumers, and give out MSG.NEXT, ACK and DIRECT.GET; or say danger_jetstream_admin = true",
            ));
        }
    }
    if role.dangers.bearer && !role.nkeys.is_empty() {
        found.push(("`danger_bearer` beside `nkeys` makes them mean nothing".to_owned(), "drop one of the two"));
    }
    if role.dangers.bearer && matches!(role.credential, Demand::X509 | Demand::Both) {
        found.push((
            "`danger_bearer` means nothing where an X.509-SVID is demanded".to_owned(),
            "drop it: the certificate's key is the proof",
        ));
    }
    found
}

/// Whether two roles could both be somebody's at the same time.
pub(super) fn collide(one: &Role, two: &Role) -> bool {
    let apart = matches!((one.credential, two.credential), (Demand::X509, Demand::Jwt) | (Demand::Jwt, Demand::X509));
    let sources = one.sources.is_empty()
        || two.sources.is_empty()
        || one.sources.iter().any(|net| two.sources.iter().any(|other| net.contains(other) || other.contains(net)));
    !apart
        && sources
        && !one.kinds.is_disjoint(&two.kinds)
        && !one.types.is_disjoint(&two.types)
        && one.who.overlaps(&two.who)
}

fn meets(sample: &SubjectPattern, other: &str) -> bool {
    other.parse::<SubjectPattern>().is_ok_and(|other| sample.overlaps(&other))
}

fn first_is_wildcard(sample: &SubjectPattern) -> bool {
    matches!(sample.as_str().split('.').next(), Some("*" | ">"))
}

/// What makes, changes or restores streams and consumers, or delivers what they hold to somewhere else.
const JETSTREAM_ADMIN: [&str; 8] = [
    "CONSUMER.CREATE.>",
    "CONSUMER.DURABLE.CREATE.>",
    "STREAM.CREATE.>",
    "STREAM.UPDATE.>",
    "STREAM.DELETE.>",
    "STREAM.RESTORE.>",
    "STREAM.SNAPSHOT.>",
    "STREAM.PURGE.>",
];
