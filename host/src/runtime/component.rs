//! A component that was admitted and loaded: its identity as the supervisor gave it, its pre-linked code, its slice of policy.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use portcullis_identity::SpiffeId;
use portcullis_identity::web::WebConnector;
use portcullis_policies::{ComponentFacts, Denial, Grant, Identity, IdentityAction, Slice};
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::context::Ctx;
use super::events::Events;
use super::guest::Lanes;
use super::handshake::SignerThread;
use super::identity::IdentityClient;
use super::live::Live;
use super::resolve::Resolver;
use crate::config::Limits;

/// What all components of this process share.
#[derive(Debug)]
pub struct Shared {
    /// The engine that serves.
    pub engine: Engine,
    /// Limits of requests and guests.
    pub limits: Limits,
    /// The ring to the audit log.
    pub events: Events,
    /// The identity process.
    pub identity: IdentityClient,
    /// mTLS connections that stand.
    pub live: Arc<Live>,
    /// Signatures in handshakes.
    pub signer: SignerThread,
    /// TLS to servers of the Web, or why there is none.
    pub web: Result<WebConnector, String>,
    /// Names to addresses.
    pub resolver: Resolver,
    /// Where guests run that overran.
    pub lanes: Arc<Lanes>,
    /// Places for outgoing connections.
    pub outgoing: Arc<Semaphore>,
    /// Requests taken.
    pub requests: AtomicU64,
    /// Requests refused since all places were taken.
    pub refused_busy: AtomicU64,
    /// Requests that a guest spoilt.
    pub guest_failures: AtomicU64,
}

/// A slice of policy, with what it says to the identity actions that take no argument.
///
/// Those are asked by guests from the stack of a fiber, which Cedar takes for exhausted and then cannot decide. They have one
/// answer for as long as the slice is in force, so it is decided here, once.
#[derive(Debug)]
pub struct InForce {
    slice: Arc<Slice>,
    identity: [(IdentityAction, Result<Grant<Identity>, Denial>); IdentityAction::ALL.len()],
}

impl InForce {
    fn new(slice: Arc<Slice>) -> Self {
        let identity = IdentityAction::ALL.map(|action| (action, slice.identity(action)));
        Self { slice, identity }
    }

    /// The slice.
    pub fn slice(&self) -> &Slice {
        &self.slice
    }

    /// What was decided on an identity action; `None` only for an action that policy does not know.
    pub fn identity(&self, action: IdentityAction) -> Option<&Result<Grant<Identity>, Denial>> {
        self.identity.iter().find(|(known, _)| *known == action).map(|(_, decided)| decided)
    }
}

/// One instance, in the sense of an admission: the code may run many times at once.
pub struct Loaded {
    facts: ComponentFacts,
    spiffe_id: SpiffeId,
    pre: ProxyPre<Ctx>,
    in_force: ArcSwap<InForce>,
    stopped: AtomicBool,
    shared: Arc<Shared>,
}

impl Loaded {
    /// Puts together what the supervisor admitted.
    pub fn new(
        facts: ComponentFacts,
        spiffe_id: SpiffeId,
        pre: ProxyPre<Ctx>,
        slice: Arc<Slice>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            facts,
            spiffe_id,
            pre,
            in_force: ArcSwap::from_pointee(InForce::new(slice)),
            stopped: AtomicBool::new(false),
            shared,
        }
    }

    /// The claimed name.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// The host-minted instance id.
    pub fn instance(&self) -> &str {
        &self.facts.instance
    }

    /// What policy knows of it.
    pub fn facts(&self) -> &ComponentFacts {
        &self.facts
    }

    /// The SPIFFE ID that others authorise.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The pre-linked code.
    pub fn pre(&self) -> &ProxyPre<Ctx> {
        &self.pre
    }

    /// The slice of policy in force.
    pub fn slice(&self) -> Arc<Slice> {
        Arc::clone(&self.in_force.load().slice)
    }

    /// The slice of policy in force, without counting a reference: for the request path.
    pub fn in_force(&self) -> arc_swap::Guard<Arc<InForce>> {
        self.in_force.load()
    }

    /// Puts a new generation of policy in force.
    pub fn swap_slice(&self, slice: Arc<Slice>) {
        self.in_force.store(Arc::new(InForce::new(slice)));
    }

    /// What all components share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// From here on nothing may be done in this instance's name.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.shared.identity.forget(self.instance());
        self.shared.live.stop(self.instance());
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("facts", &self.facts).field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}
