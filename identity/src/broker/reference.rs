//! Reads a workload reference (SPIFFE_Broker_API section 3). Decides its form only: whether it names somebody is for whoever
//! knows the components. Refuses every type but ours, references to other hosts' components, and fields that are malformed.

use prost::Message as _;

use super::component_reference::ComponentReference;
use super::pb::WorkloadReference;
use super::refusal::BrokerRefusal;
use crate::limits::{MAX_BROKER_REFERENCE_BYTES, MAX_WORKLOAD_TEXT_BYTES};
use crate::spiffe_id::SpiffeId;
use crate::workload::InstanceId;

/// The type of reference that is served, verbatim.
pub const COMPONENT_REFERENCE: &str = "type.googleapis.com/portcullis.broker.v1.ComponentReference";

/// A well-formed reference to a component of this host. Says nothing about whether there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The run.
    pub instance: InstanceId,
    /// What its digest must be, where the broker says so.
    pub digest: Option<String>,
    /// What its claimed name must be.
    pub component: Option<String>,
    /// Who must have signed its claims.
    pub signer: Option<String>,
}

/// A reference of this type, as it travels.
pub fn packed(type_url: &str, value: Vec<u8>) -> prost_types::Any {
    prost_types::Any { type_url: type_url.to_owned(), value }
}

/// The component that the packed reference names, if it is one of this host.
pub fn read_reference(any: prost_types::Any, host: &SpiffeId) -> Result<Named, BrokerRefusal> {
    read(Some(WorkloadReference { reference: Some(any) }), host)
}

/// The component that the reference names, if it is one of this host.
pub(super) fn read(reference: Option<WorkloadReference>, host: &SpiffeId) -> Result<Named, BrokerRefusal> {
    let any = reference.and_then(|reference| reference.reference).ok_or(BrokerRefusal::Reference("it is missing"))?;
    if any.type_url != COMPONENT_REFERENCE {
        return Err(BrokerRefusal::Reference("its type is not portcullis.broker.v1.ComponentReference"));
    }
    if any.value.len() > MAX_BROKER_REFERENCE_BYTES {
        return Err(BrokerRefusal::Reference("it is too large"));
    }
    let read = ComponentReference::decode(any.value.as_slice())
        .map_err(|_| BrokerRefusal::Reference("it cannot be decoded"))?;
    let of: SpiffeId =
        read.host_spiffe_id.parse().map_err(|_| BrokerRefusal::Reference("host_spiffe_id is no SPIFFE ID"))?;
    // Section 3.1.2: references are local, they never cross nodes.
    if of != *host {
        return Err(BrokerRefusal::NotFound);
    }
    let instance = read.instance_id.parse().map_err(|_| BrokerRefusal::Reference("instance_id is malformed"))?;
    let text = |text: String| match text.len() {
        0 => Ok(None),
        1..=MAX_WORKLOAD_TEXT_BYTES => Ok(Some(text)),
        _ => Err(BrokerRefusal::Reference("a field is too long")),
    };
    Ok(Named {
        instance,
        digest: text(read.component_digest)?,
        component: text(read.component)?,
        signer: text(read.signer)?,
    })
}

impl Named {
    /// Whether a component with these facts is the one that is named: every field that is set is equal.
    pub fn is(&self, digest: &str, component: &str, signer: &str) -> bool {
        let equal = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        equal(&self.digest, digest) && equal(&self.component, component) && equal(&self.signer, signer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "spiffe://example.org/portcullis/host";

    fn reference(change: impl FnOnce(&mut ComponentReference)) -> Result<Named, BrokerRefusal> {
        let mut reference = ComponentReference {
            host_spiffe_id: HOST.to_owned(),
            instance_id: "one".to_owned(),
            ..ComponentReference::default()
        };
        change(&mut reference);
        sent(COMPONENT_REFERENCE, reference.encode_to_vec())
    }

    fn sent(type_url: &str, value: Vec<u8>) -> Result<Named, BrokerRefusal> {
        read_reference(packed(type_url, value), &HOST.parse().unwrap())
    }

    #[test]
    fn br_03_our_own_type_is_read() {
        let named = reference(|r| r.component = "shop:cart".to_owned()).unwrap();
        assert_eq!(named.instance.as_str(), "one");
        assert!(named.is("sha256:00", "shop:cart", "A"));
        assert!(!named.is("sha256:00", "shop:other", "A"));
        let all = reference(|r| (r.component_digest, r.signer) = ("sha256:00".to_owned(), "A".to_owned())).unwrap();
        assert!(all.is("sha256:00", "any:thing", "A"));
        assert!(!all.is("sha256:01", "any:thing", "A") && !all.is("sha256:00", "any:thing", "B"));
    }

    #[test]
    fn br_03_other_types_are_refused() {
        let good =
            ComponentReference { host_spiffe_id: HOST.to_owned(), instance_id: "one".to_owned(), ..Default::default() };
        for type_url in [
            "type.googleapis.com/spiffe.broker.WorkloadPIDReference",
            "portcullis.broker.v1.ComponentReference",
            "type.googleapis.com/portcullis.broker.v1.ComponentReference/",
            "evil.example/portcullis.broker.v1.ComponentReference",
            "",
        ] {
            assert!(matches!(sent(type_url, good.encode_to_vec()), Err(BrokerRefusal::Reference(_))), "{type_url}");
        }
        assert!(matches!(read(None, &HOST.parse().unwrap()), Err(BrokerRefusal::Reference(_))));
        let empty = WorkloadReference { reference: None };
        assert!(matches!(read(Some(empty), &HOST.parse().unwrap()), Err(BrokerRefusal::Reference(_))));
    }

    #[test]
    fn malformed_and_large_references_are_refused() {
        assert!(matches!(sent(COMPONENT_REFERENCE, vec![0xff]), Err(BrokerRefusal::Reference(_))));
        let long = vec![0; MAX_BROKER_REFERENCE_BYTES + 1];
        assert!(matches!(sent(COMPONENT_REFERENCE, long), Err(BrokerRefusal::Reference("it is too large"))));
        assert!(matches!(reference(|r| r.host_spiffe_id.clear()), Err(BrokerRefusal::Reference(_))));
        assert!(matches!(reference(|r| r.instance_id.clear()), Err(BrokerRefusal::Reference(_))));
        assert!(matches!(reference(|r| r.instance_id = "../one".to_owned()), Err(BrokerRefusal::Reference(_))));
        let long = "x".repeat(MAX_WORKLOAD_TEXT_BYTES + 1);
        assert!(matches!(reference(|r| r.signer = long), Err(BrokerRefusal::Reference(_))));
    }

    #[test]
    fn components_of_other_hosts_are_not_found() {
        let other = "spiffe://example.org/portcullis/other".to_owned();
        assert!(matches!(reference(|r| r.host_spiffe_id = other), Err(BrokerRefusal::NotFound)));
    }
}
