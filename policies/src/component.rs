//! What the host knows of the parties to a decision. It must come from verified claims; this crate cannot check that.

use crate::interface::is_component_name;
use crate::limits::FACT_BYTES;
use crate::workload::WorkloadId;

/// A component that was admitted, or that asks to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ComponentFacts {
    /// Its name in the verified claims, `namespace:name`.
    pub name: String,
    /// Digest of its bytes, `sha256:...`.
    pub digest: String,
    /// Its SPIFFE ID, derived from the claims.
    pub spiffe_id: String,
    /// The key that signed the claims.
    pub signer: String,
    /// The group that the trust policy puts this key in.
    pub signer_group: String,
    /// The running instance.
    pub instance: String,
}

/// What is known of an image before it is compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its imports, with versions.
    pub imports: Vec<String>,
    /// Whether its claims have expired.
    pub expired: bool,
}

/// Who calls a component over the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A connection that proved no identity.
    Anonymous,
    /// A workload that proved this SPIFFE ID by mTLS.
    Workload(String),
}

impl ComponentFacts {
    /// The SPIFFE ID, or why these facts cannot be decided on.
    pub(crate) fn check(&self) -> Result<WorkloadId, &'static str> {
        if !is_component_name(&self.name) {
            return Err("the component's name is malformed");
        }
        let is_fact = |text: &str| !text.is_empty() && text.len() <= FACT_BYTES && !text.chars().any(char::is_control);
        match [&self.digest, &self.signer, &self.signer_group, &self.instance].into_iter().all(|text| is_fact(text)) {
            true => self.spiffe_id.parse().map_err(|_| "the component's SPIFFE ID is malformed"),
            false => Err("a fact about the component is missing or malformed"),
        }
    }
}

impl Caller {
    /// `anonymous`, or the SPIFFE ID.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => ANONYMOUS,
            Self::Workload(id) => id,
        }
    }
}

/// The word for a caller without identity.
pub(crate) const ANONYMOUS: &str = "anonymous";

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> ComponentFacts {
        ComponentFacts {
            name: "demo:greeter".to_owned(),
            digest: "sha256:00".to_owned(),
            spiffe_id: "spiffe://demo.example/ns/demo/sa/greeter".to_owned(),
            signer: "key".to_owned(),
            signer_group: "team".to_owned(),
            instance: "01".to_owned(),
        }
    }

    #[test]
    fn facts_that_are_missing_malformed_or_too_long_are_not_decided_on() {
        assert!(facts().check().is_ok());
        let spoilt: [fn(&mut ComponentFacts); 7] = [
            |facts| facts.name = "greeter".to_owned(),
            |facts| facts.digest = String::new(),
            |facts| facts.spiffe_id = "spiffe://demo.example".to_owned(),
            |facts| facts.signer = "a\nb".to_owned(),
            |facts| facts.signer_group = String::new(),
            |facts| facts.instance = "x".repeat(513),
            |facts| facts.name = format!("demo:{}", "a".repeat(252)),
        ];
        for spoil in spoilt {
            let mut facts = facts();
            spoil(&mut facts);
            assert!(facts.check().is_err(), "{facts:?}");
        }
    }
}
