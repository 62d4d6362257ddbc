//! What hosts say that they do not run, and why: a start that failed, or a manifest that they do not believe. Their words are signed,
//! bounded and escaped; the next step is ours.

use std::collections::BTreeMap;

use portcullis_cluster::{Failed, Heartbeat, HostId};
use portcullis_signing::ComponentName;
use serde_json::{Value, json};

/// One host's word about one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal<'a> {
    host: &'a HostId,
    failed: &'a Failed,
}

/// Everything that hosts refuse, by host.
pub fn all(heard: &BTreeMap<HostId, Heartbeat>) -> Vec<Refusal<'_>> {
    heard.values().flat_map(|from| from.failed.iter().map(|failed| Refusal { host: &from.host, failed })).collect()
}

/// What they refuse of one component: by this version of its manifest, or because they do not believe what is stored.
pub fn of<'a>(heard: &'a BTreeMap<HostId, Heartbeat>, name: &ComponentName, version: u64) -> Vec<Refusal<'a>> {
    let about =
        |refusal: &Refusal<'_>| refusal.failed.component == *name && [0, version].contains(&refusal.failed.version);
    all(heard).into_iter().filter(about).collect()
}

impl Refusal<'_> {
    /// Who.
    pub fn host(&self) -> &HostId {
        self.host
    }

    /// A line for people.
    pub fn line(&self) -> String {
        let Failed { component, version, code, message } = self.failed;
        let by = if *version == 0 { String::new() } else { format!(" by version {version}") };
        format!("{} does not run {component}{by}: {code}: {message}", self.host)
    }

    /// What to do about it, where that is not for the host's own log to say.
    pub fn hint(&self) -> Option<String> {
        let Self { host, failed } = self;
        let name = &failed.component;
        let hint = match failed.code.as_str() {
            "statement.unknown-key" | "cluster.denied" => format!(
                "on {host} whoever signed it may not deploy {name}: name the signer in an [[operator]] of its grants, with action `deploy`"
            ),
            "statement.chain" => format!(
                "{host} does not know the authority of whoever signed it, or the SVID has ended: sign with an nkey what is to last"
            ),
            "statement.expired" => "deploy it again: its statement has ended (--valid-for)".to_owned(),
            "cluster.rolled-back" | "cluster.version-reused" => {
                format!("{host} has seen a higher version: deploy again with a --version above it")
            }
            code if code.starts_with("statement.") => {
                "somebody else may have written to the bucket: deploy it again, and look at who may".to_owned()
            }
            _ => return None,
        };
        Some(hint)
    }

    /// For `--json`.
    pub fn to_json(&self) -> Value {
        let Failed { component, version, code, message } = self.failed;
        json!({ "host": self.host, "component": component, "version": version, "code": code, "message": message })
    }
}

/// Lines for people, and one hint at the end; so many that each can be read.
pub fn lines(refusals: &[Refusal<'_>]) -> Vec<String> {
    let mut lines: Vec<_> = refusals.iter().take(LINES).map(Refusal::line).collect();
    if let Some(more) = refusals.len().checked_sub(LINES).filter(|more| *more > 0) {
        lines.push(format!("{more} more: `--json` has all"));
    }
    lines
}

/// The first next step that is known.
pub fn hint(refusals: &[Refusal<'_>]) -> Option<String> {
    refusals.iter().find_map(Refusal::hint)
}

/// Refusals that are shown to people.
const LINES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(failed: Vec<Failed>) -> BTreeMap<HostId, Heartbeat> {
        let json = json!({
            "host": "h1", "boot": "b", "sequence": 1, "interval_ms": 1000, "ready": true, "accepting": true,
            "revocations": 0, "policy": 0, "failed": failed,
        });
        let heartbeat: Heartbeat = serde_json::from_value(json).unwrap();
        BTreeMap::from([(heartbeat.host.clone(), heartbeat)])
    }

    fn failed(version: u64, code: &str) -> Failed {
        Failed::new("shop:cart".parse().unwrap(), version, code, "why")
    }

    #[test]
    fn a_host_that_does_not_believe_a_manifest_is_shown_with_what_to_do_there() {
        let name: ComponentName = "shop:cart".parse().unwrap();
        let heard = heard(vec![failed(0, "statement.unknown-key"), failed(6, "evidence.none"), failed(7, "other")]);
        let shown: Vec<_> = of(&heard, &name, 7).iter().map(Refusal::line).collect();
        assert_eq!(
            shown,
            [
                "h1 does not run shop:cart: statement.unknown-key: why",
                "h1 does not run shop:cart by version 7: other: why"
            ]
        );
        assert!(of(&heard, &"shop:other".parse().unwrap(), 7).is_empty());
        let hint = hint(&all(&heard)).unwrap();
        assert!(hint.contains("[[operator]]") && hint.contains("on h1"), "{hint}");
    }

    #[test]
    fn many_are_counted() {
        let heard = heard((0..LINES as u64 + 5).map(|n| failed(n, "x")).collect());
        let lines = lines(&all(&heard));
        assert_eq!(lines.len(), LINES + 1);
        assert!(lines.last().unwrap().starts_with("5 more"), "{lines:?}");
    }
}
