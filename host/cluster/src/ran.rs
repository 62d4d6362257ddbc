//! What ran on a host by manifests: what it may start again where it cannot ask anybody. Only names: which version, and whether
//! at all, the signed manifests say.

use std::collections::BTreeSet;

use portcullis_signing::ComponentName;
use serde::{Deserialize, Serialize};

use crate::document::{self, DocumentError};
use crate::limits::{DOCUMENT_BYTES, MANIFESTS};
use crate::token::ClusterName;

/// The components that ran on one host of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ran {
    format: u32,
    cluster: ClusterName,
    components: BTreeSet<ComponentName>,
}

impl Ran {
    /// These components.
    pub fn new(cluster: ClusterName, components: BTreeSet<ComponentName>) -> Self {
        Self { format: FORMAT, cluster, components }
    }

    /// Reads what was kept. That of another cluster is no one's.
    pub fn parse(bytes: &[u8], cluster: &ClusterName) -> Result<Self, DocumentError> {
        let ran: Self = document::read("what ran here", bytes, DOCUMENT_BYTES)?;
        document::format("what ran here", ran.format, FORMAT)?;
        if ran.cluster != *cluster {
            let why = format!("is {}, this host is of {cluster}", ran.cluster);
            return Err(DocumentError::member("cluster", why));
        }
        if ran.components.len() > MANIFESTS {
            return Err(DocumentError::member("components", format!("are more than {MANIFESTS}")));
        }
        Ok(ran)
    }

    /// Writes it.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The components.
    pub fn components(&self) -> &BTreeSet<ComponentName> {
        &self.components
    }
}

const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_is_read_as_it_was_written_and_not_for_another_cluster() {
        let cluster: ClusterName = "prod".parse().unwrap();
        let ran = Ran::new(cluster.clone(), ["shop:cart".parse().unwrap()].into());
        assert_eq!(Ran::parse(&ran.to_json(), &cluster).unwrap(), ran);
        assert!(Ran::parse(&ran.to_json(), &"other".parse().unwrap()).is_err());
        for bad in [
            "",
            "{}",
            r#"{"format":2,"cluster":"prod","components":[]}"#,
            r#"{"format":1,"cluster":"prod","components":["x"]}"#,
            r#"{"format":1,"cluster":"prod","components":[],"more":1}"#,
        ] {
            assert!(Ran::parse(bad.as_bytes(), &cluster).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_ran_has_an_end() {
        let cluster: ClusterName = "prod".parse().unwrap();
        let names = |count: usize| (0..count).map(|n| format!("a:b{n}").parse().unwrap()).collect();
        let full = Ran::new(cluster.clone(), names(MANIFESTS));
        assert!(Ran::parse(&full.to_json(), &cluster).is_ok());
        assert!(Ran::parse(&Ran::new(cluster.clone(), names(MANIFESTS + 1)).to_json(), &cluster).is_err());
    }
}
