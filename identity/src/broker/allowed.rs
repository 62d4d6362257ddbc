//! Which brokers may ask, and about which components. Deny by default: an empty list serves nobody.

use crate::limits::{MAX_BROKER_COMPONENTS, MAX_BROKERS};
use crate::spiffe_id::SpiffeId;

/// What the operator lets one broker do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedBroker {
    /// The broker's SPIFFE ID, exactly.
    pub id: SpiffeId,
    /// Claimed names of components that it may refer to, exactly.
    pub components: Vec<String>,
    /// Whether it may have X.509-SVIDs with their private keys.
    pub x509: bool,
    /// Whether it may have JWT-SVIDs, for the audiences that the component itself was granted.
    pub jwt: bool,
}

/// The brokers that are let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Vec<AllowedBroker>);

/// Why a list is none. Configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowListError {
    /// Over [`MAX_BROKERS`].
    #[error("there are more than {MAX_BROKERS} brokers")]
    TooMany,
    /// Twice the same.
    #[error("the broker {0} is listed twice")]
    Twice(SpiffeId),
    /// The ID of a trust domain.
    #[error("the broker {0} is a trust domain, not a workload")]
    RootPath(SpiffeId),
    /// It could never get anything, or too many names.
    #[error("the broker {0} must name 1 to {MAX_BROKER_COMPONENTS} components")]
    Components(SpiffeId),
    /// It could never get anything.
    #[error("the broker {0} may have neither X.509-SVIDs nor JWT-SVIDs")]
    Nothing(SpiffeId),
}

impl AllowListError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooMany => "let brokers share an identity, or run more hosts",
            Self::Twice(_) => "put all that a broker may do into one entry",
            Self::RootPath(_) => "name the broker's own SPIFFE ID, such as spiffe://example.org/ns/mesh/sa/proxy",
            Self::Components(_) => "list the claimed names of the components, such as components = [\"shop:cart\"]",
            Self::Nothing(_) => "set x509 = true, jwt = true, or both",
        }
    }
}

impl AllowList {
    /// These brokers.
    pub fn new(brokers: Vec<AllowedBroker>) -> Result<Self, AllowListError> {
        if brokers.len() > MAX_BROKERS {
            return Err(AllowListError::TooMany);
        }
        for (at, broker) in brokers.iter().enumerate() {
            if brokers.iter().take(at).any(|other| other.id == broker.id) {
                return Err(AllowListError::Twice(broker.id.clone()));
            }
            if !broker.id.has_path() {
                return Err(AllowListError::RootPath(broker.id.clone()));
            }
            if broker.components.is_empty() || broker.components.len() > MAX_BROKER_COMPONENTS {
                return Err(AllowListError::Components(broker.id.clone()));
            }
            if !broker.x509 && !broker.jwt {
                return Err(AllowListError::Nothing(broker.id.clone()));
            }
        }
        Ok(Self(brokers))
    }

    /// What this broker may do; `None`: nothing at all.
    pub fn get(&self, id: &SpiffeId) -> Option<&AllowedBroker> {
        self.0.iter().find(|broker| broker.id == *id)
    }
}

impl AllowedBroker {
    /// Whether it may refer to this component.
    pub fn may_name(&self, component: &str) -> bool {
        self.components.iter().any(|name| name == component)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(id: &str) -> AllowedBroker {
        AllowedBroker { id: id.parse().unwrap(), components: vec!["shop:cart".to_owned()], x509: false, jwt: true }
    }

    #[test]
    fn only_listed_brokers_are_found_and_only_listed_components_may_be_named() {
        let list = AllowList::new(vec![broker("spiffe://example.org/a")]).unwrap();
        let found = list.get(&"spiffe://example.org/a".parse().unwrap()).unwrap();
        assert!(found.may_name("shop:cart") && !found.may_name("shop:cart2") && !found.may_name("*"));
        for other in ["spiffe://example.org/b", "spiffe://example.org/a/b", "spiffe://example.com/a"] {
            assert_eq!(list.get(&other.parse().unwrap()), None, "{other}");
        }
        assert_eq!(AllowList::default().get(&"spiffe://example.org/a".parse().unwrap()), None);
    }

    #[test]
    fn lists_that_could_not_be_meant_are_refused() {
        let one = broker("spiffe://example.org/a");
        let id = one.id.clone();
        assert_eq!(AllowList::new(vec![one.clone(), one.clone()]), Err(AllowListError::Twice(id.clone())));
        let root = broker("spiffe://example.org");
        assert_eq!(AllowList::new(vec![root.clone()]), Err(AllowListError::RootPath(root.id)));
        let none = AllowedBroker { components: Vec::new(), ..one.clone() };
        assert_eq!(AllowList::new(vec![none]), Err(AllowListError::Components(id.clone())));
        let many = AllowedBroker { components: vec!["a:b".to_owned(); MAX_BROKER_COMPONENTS + 1], ..one.clone() };
        assert_eq!(AllowList::new(vec![many]), Err(AllowListError::Components(id.clone())));
        let nothing = AllowedBroker { jwt: false, ..one };
        assert_eq!(AllowList::new(vec![nothing]), Err(AllowListError::Nothing(id)));
        let many = |count: usize| (0..count).map(|i| broker(&format!("spiffe://example.org/{i}"))).collect();
        assert!(AllowList::new(many(MAX_BROKERS)).is_ok());
        assert_eq!(AllowList::new(many(MAX_BROKERS + 1)), Err(AllowListError::TooMany));
    }
}
