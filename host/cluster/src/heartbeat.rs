//! A heartbeat: what a host says of itself every few seconds. It is believed about its own host only, and only as long as it is
//! fresh; nothing in it makes another host trust a component.

use std::collections::BTreeMap;

use portcullis_signing::{ComponentName, Digest};
use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentError};
use crate::limits::{EVENT_BYTES, HEARTBEAT_COMPONENTS, HEARTBEAT_INTERVAL};
use crate::manifest::check_labels;
use crate::token::HostId;

/// The data of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Who.
    pub host: HostId,
    /// Changes with each start of the host.
    pub boot: String,
    /// Rises by one with each heartbeat of one start.
    pub sequence: u64,
    /// When the next one comes, in milliseconds.
    pub interval_ms: u64,
    /// What it can be selected by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it starts components that it is chosen for.
    pub accepting: bool,
    /// The epoch of the revocation list in force; zero: none yet.
    pub revocations: u64,
    /// The version of the cluster's set of policies in force; zero: the host's own files.
    pub policy: u64,
    /// Where HTTP is served.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub http: String,
    /// What runs by a manifest.
    #[serde(default)]
    pub replicas: Vec<Replica>,
    /// What did not start.
    #[serde(default)]
    pub failed: Vec<Failed>,
}

/// A component that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    /// Its name.
    pub component: ComponentName,
    /// The version of the manifest that it runs by.
    pub version: u64,
    /// Its digest.
    pub digest: Digest,
    /// Its instance.
    pub instance: String,
}

/// A component that did not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// Its name.
    pub component: ComponentName,
    /// The version of the manifest that asked for it.
    pub version: u64,
    /// The stable code of the refusal.
    pub code: String,
    /// What happened.
    pub message: String,
}

impl Heartbeat {
    /// Reads the data of a heartbeat.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let heartbeat: Self = document::read("the heartbeat", bytes, EVENT_BYTES)?;
        heartbeat.check()?;
        Ok(heartbeat)
    }

    /// Whether it says what can be.
    pub fn check(&self) -> Result<(), DocumentError> {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        if !(millis(HEARTBEAT_INTERVAL.0)..=millis(HEARTBEAT_INTERVAL.1)).contains(&self.interval_ms) {
            return Err(DocumentError::member("interval_ms", "is out of bounds"));
        }
        if self.replicas.len() > HEARTBEAT_COMPONENTS || self.failed.len() > HEARTBEAT_COMPONENTS {
            return Err(DocumentError::member("replicas", format!("there are more than {HEARTBEAT_COMPONENTS}")));
        }
        document::text("boot", &self.boot)?;
        document::text("http", &self.http)?;
        for replica in &self.replicas {
            document::text("instance", &replica.instance)?;
        }
        for failed in &self.failed {
            document::text("code", &failed.code)?;
            document::text("message", &failed.message)?;
        }
        check_labels(&self.labels)
    }

    /// The version of a component's manifest that it runs by.
    pub fn runs(&self, component: &ComponentName) -> Option<u64> {
        self.replicas.iter().find(|replica| replica.component == *component).map(|replica| replica.version)
    }

    /// Whether a component did not start by this version of its manifest.
    pub fn failed(&self, component: &ComponentName, version: u64) -> bool {
        self.failed.iter().any(|failed| failed.component == *component && failed.version == version)
    }
}

impl Failed {
    /// With its texts cut to what a heartbeat may hold.
    pub fn new(component: ComponentName, version: u64, code: &str, message: &str) -> Self {
        let plain =
            |text: &str| -> String { text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(100).collect() };
        Self { component, version, code: plain(code), message: plain(message) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn heartbeat(host: &str) -> Heartbeat {
        Heartbeat {
            host: host.parse().unwrap(),
            boot: "b1".to_owned(),
            sequence: 1,
            interval_ms: 1_000,
            labels: BTreeMap::new(),
            ready: true,
            accepting: true,
            revocations: 0,
            policy: 0,
            http: String::new(),
            replicas: Vec::new(),
            failed: Vec::new(),
        }
    }

    #[test]
    fn what_a_host_says_is_bounded() {
        let read = |heartbeat: &Heartbeat| Heartbeat::parse(&serde_json::to_vec(heartbeat).unwrap());
        let good = heartbeat("h1");
        assert_eq!(read(&good).unwrap(), good);
        let replica = |n: usize| Replica {
            component: format!("a:b{n}").parse().unwrap(),
            version: 1,
            digest: Digest::of(b""),
            instance: String::new(),
        };
        assert!(read(&Heartbeat { interval_ms: 0, ..good.clone() }).is_err());
        assert!(read(&Heartbeat { interval_ms: 60_001, ..good.clone() }).is_err());
        assert!(read(&Heartbeat { boot: "\n".to_owned(), ..good.clone() }).is_err());
        assert!(
            read(&Heartbeat { replicas: (0..=HEARTBEAT_COMPONENTS).map(replica).collect(), ..good.clone() }).is_err()
        );
        let failed = Failed::new("a:b".parse().unwrap(), 3, "x.y", &"é\n".repeat(1_000));
        let failing = Heartbeat { failed: vec![failed], ..good };
        assert!(read(&failing).unwrap().failed(&"a:b".parse().unwrap(), 3));
        assert!(Heartbeat::parse(&vec![b' '; EVENT_BYTES + 1]).is_err());
    }
}
