//! The proof that an action was allowed. Only this crate's slices make one; there is no other way to get it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::allowed::Allowed;
use crate::component::Caller;
use crate::denial::Denial;
use crate::destination::Destination;
use crate::subject::{Subject, SubjectPattern};

/// An action was allowed: by which policies, in which generation, with which limits. `A` says what.
#[derive(Debug)]
#[must_use = "a grant is the proof that an action may happen: hand it to what acts"]
pub struct Grant<A> {
    by: By,
    generation: u64,
    instance: Arc<str>,
    what: A,
}

/// What allowed it: policies, or audit mode in the place of a refusal.
#[derive(Debug, Clone)]
pub(crate) struct By {
    pub(crate) allowed: Arc<Allowed>,
    pub(crate) instead_of: Option<Arc<Denial>>,
}

/// A component may be admitted.
#[derive(Debug, Clone)]
pub struct Load(());

/// An interface may be linked.
#[derive(Debug, Clone)]
pub struct Link {
    pub(crate) interface: String,
}

/// A request may be sent to a destination, if its address is allowed too.
#[derive(Debug, Clone)]
pub struct HttpSend {
    pub(crate) destination: Destination,
    pub(crate) method: String,
    pub(crate) peer: Option<String>,
}

/// An address may be dialled for a destination.
#[derive(Debug, Clone)]
pub struct HttpConnect {
    pub(crate) destination: Destination,
    pub(crate) address: SocketAddr,
    pub(crate) peer: Option<String>,
}

/// A JWT-SVID may be issued.
#[derive(Debug, Clone)]
pub struct SvidJwt {
    pub(crate) audience: String,
    pub(crate) ttl_secs: u64,
}

/// An X.509-SVID may be issued.
#[derive(Debug, Clone)]
pub struct SvidX509 {
    pub(crate) ttl_secs: u64,
}

/// Data may be signed for a purpose.
#[derive(Debug, Clone)]
pub struct SvidSign {
    pub(crate) purpose: String,
}

/// An identity action may happen.
#[derive(Debug, Clone)]
pub struct Identity {
    pub(crate) action: IdentityAction,
}

/// A caller may call the component.
#[derive(Debug, Clone)]
pub struct Call {
    pub(crate) caller: Caller,
}

/// A message may be published.
#[derive(Debug, Clone)]
pub struct Publish {
    pub(crate) subject: Subject,
}

/// A message may be published, and one answer to it received.
#[derive(Debug, Clone)]
pub struct AskFor {
    pub(crate) subject: Subject,
}

/// Messages may be received, in a queue group where one is named.
#[derive(Debug, Clone)]
pub struct Subscribe {
    pub(crate) pattern: SubjectPattern,
    pub(crate) queue: String,
}

/// Identity actions without an argument of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdentityAction {
    /// Read the own SPIFFE ID.
    Read,
    /// Read trust bundles, the own one and federated ones.
    Bundles,
    /// Learn who is calling.
    Peer,
    /// Check somebody's JWT-SVID.
    Validate,
    /// Read the own certificate chain.
    X509Chain,
    /// Have an X.509-SVID with its private key.
    Export,
}

impl IdentityAction {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Read, Self::Bundles, Self::Peer, Self::Validate, Self::X509Chain, Self::Export];

    /// The name of the policy action.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "identity.read",
            Self::Bundles => "bundle.read",
            Self::Peer => "peer.read",
            Self::Validate => "svid.validate",
            Self::X509Chain => "svid.x509",
            Self::Export => "svid.export",
        }
    }

    /// The action of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

impl By {
    pub(crate) fn policies(allowed: Arc<Allowed>) -> Self {
        Self { allowed, instead_of: None }
    }

    /// Audit mode in the place of this refusal.
    pub(crate) fn audit(denial: Denial) -> Self {
        Self { allowed: Arc::new(Allowed::new(Vec::new())), instead_of: Some(Arc::new(denial)) }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        let audit = self.instead_of.as_ref().map(|_| AUDIT_MODE);
        self.allowed.metas().iter().map(|meta| meta.id.as_str()).chain(audit)
    }

    /// As if a policy of this id had allowed it.
    #[cfg(test)]
    pub(crate) fn test(id: &str) -> Self {
        let meta = crate::decide::Meta {
            id: id.to_owned(),
            kind: crate::decide::Kind::Grant,
            reason: String::new(),
            owner: String::new(),
            source: String::new(),
            line: 0,
            peer: None,
            max_ttl: None,
        };
        Self::policies(Arc::new(Allowed::new(vec![Arc::new(meta)])))
    }
}

/// What a grant of audit mode names as its policy. A colon is in no id that an operator can choose.
pub(crate) const AUDIT_MODE: &str = "audit:mode";

impl Load {
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

impl<A> Grant<A> {
    pub(crate) fn new(by: By, generation: u64, instance: &Arc<str>, what: A) -> Self {
        Self { by, generation, instance: Arc::clone(instance), what }
    }

    /// The ids of the grants and policies that allowed it.
    pub fn policies(&self) -> impl Iterator<Item = &str> {
        self.by.ids()
    }

    /// The refusal that audit mode let through: whoever acts on this grant records it.
    pub fn instead_of(&self) -> Option<&Denial> {
        self.by.instead_of.as_deref()
    }

    /// The generation of policy that it was decided under.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The instance that it is for.
    pub fn instance(&self) -> &str {
        &self.instance
    }
}

impl Grant<Link> {
    /// The interface, with the version that was asked for.
    pub fn interface(&self) -> &str {
        &self.what.interface
    }
}

impl Grant<HttpSend> {
    /// Where the request may go.
    pub fn destination(&self) -> &Destination {
        &self.what.destination
    }

    /// The method that was decided on.
    pub fn method(&self) -> &str {
        &self.what.method
    }

    /// The SPIFFE ID that the other side must prove, where the grant names one.
    pub fn peer(&self) -> Option<&str> {
        self.what.peer.as_deref()
    }
}

impl Grant<HttpConnect> {
    /// The destination that the address was resolved from.
    pub fn destination(&self) -> &Destination {
        &self.what.destination
    }

    /// The one address that may be dialled.
    pub fn address(&self) -> SocketAddr {
        self.what.address
    }

    /// The SPIFFE ID that the other side must prove, where the grant names one.
    pub fn peer(&self) -> Option<&str> {
        self.what.peer.as_deref()
    }
}

impl Grant<SvidJwt> {
    /// The audience.
    pub fn audience(&self) -> &str {
        &self.what.audience
    }

    /// The life that was asked for, capped by the grant, in seconds.
    pub fn ttl_secs(&self) -> u64 {
        self.what.ttl_secs
    }
}

impl Grant<SvidX509> {
    /// The life that was asked for, capped, in seconds.
    pub fn ttl_secs(&self) -> u64 {
        self.what.ttl_secs
    }
}

impl Grant<SvidSign> {
    /// What the signature is for.
    pub fn purpose(&self) -> &str {
        &self.what.purpose
    }
}

impl Grant<Identity> {
    /// The action.
    pub fn action(&self) -> IdentityAction {
        self.what.action
    }
}

impl Grant<Publish> {
    /// The subject that was decided on.
    pub fn subject(&self) -> &Subject {
        &self.what.subject
    }
}

impl Grant<AskFor> {
    /// The subject that was decided on.
    pub fn subject(&self) -> &Subject {
        &self.what.subject
    }
}

impl Grant<Subscribe> {
    /// The subjects that were decided on.
    pub fn pattern(&self) -> &SubjectPattern {
        &self.what.pattern
    }

    /// The queue group; empty: none.
    pub fn queue(&self) -> &str {
        &self.what.queue
    }
}

impl Grant<Call> {
    /// `anonymous`, or the SPIFFE ID of the caller.
    pub fn caller(&self) -> &str {
        self.what.caller.name()
    }
}
