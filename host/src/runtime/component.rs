//! A component that was admitted and loaded: its identity as the supervisor gave it, its pre-linked code, its slice of policy.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use portcullis_identity::SpiffeId;
use portcullis_identity::web::WebConnector;
use portcullis_policies::{ComponentFacts, Denial, Grant, Identity, IdentityAction, Slice};
use tokio::sync::{Semaphore, watch};
use wasmtime::Engine;
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::context::Ctx;
use super::events::Events;
use super::guest::Lanes;
use super::handshake::SignerThread;
use super::identity::IdentityClient;
use super::lines::Lines;
use super::live::Live;
use super::messaging::Messaging;
use super::resolve::Resolver;
use super::standing::linked;
use super::wit::messaging::MessagesPre as HandlerPre;
use crate::config::Limits;
use crate::rpc::runtime::event::What;

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
    /// Places for requests and messages at work.
    pub places: Arc<Semaphore>,
    /// The last lines that guests wrote.
    pub lines: Lines,
    /// Messages over NATS.
    pub messaging: Messaging,
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
    /// The first import that is linked and not granted any more.
    unlinked: Option<(String, Denial)>,
}

impl InForce {
    fn new(slice: Arc<Slice>, links: &[String]) -> Self {
        let identity = IdentityAction::ALL.map(|action| (action, slice.identity(action)));
        let unlinked = links.iter().find_map(|link| Some((link.clone(), slice.link(link).err()?)));
        Self { slice, identity, unlinked }
    }

    /// The slice.
    pub fn slice(&self) -> &Slice {
        &self.slice
    }

    /// Whether all that the component is linked with is still granted; if not, what is not.
    pub fn links(&self) -> Result<(), &(String, Denial)> {
        self.unlinked.as_ref().map_or(Ok(()), Err)
    }

    /// What was decided on an identity action; `None` only for an action that policy does not know.
    pub fn identity(&self, action: IdentityAction) -> Option<&Result<Grant<Identity>, Denial>> {
        self.identity.iter().find(|(known, _)| *known == action).map(|(_, decided)| decided)
    }
}

/// What a component can be called by, pre-linked: at least one of them.
pub struct Entries {
    http: Option<ProxyPre<Ctx>>,
    messages: Option<HandlerPre<Ctx>>,
}

impl Entries {
    /// Those that a component has. One without any is of no use.
    pub fn of(pre: &InstancePre<Ctx>) -> wasmtime::Result<Self> {
        let messages = HandlerPre::new(pre.clone()).ok();
        match ProxyPre::new(pre.clone()) {
            Ok(http) => Ok(Self { http: Some(http), messages }),
            Err(_) if messages.is_some() => Ok(Self { http: None, messages }),
            Err(error) => Err(error),
        }
    }
}

/// One instance, in the sense of an admission: the code may run many times at once.
pub struct Loaded {
    facts: ComponentFacts,
    spiffe_id: SpiffeId,
    entries: Entries,
    links: Vec<String>,
    in_force: ArcSwap<InForce>,
    /// Counts changes of what is in force.
    change: AtomicU64,
    /// The same count for those who wait: told after it was counted.
    changes: watch::Sender<u64>,
    stopped: AtomicBool,
    shared: Arc<Shared>,
}

impl Loaded {
    /// Puts together what the supervisor admitted.
    pub fn new(
        facts: ComponentFacts,
        spiffe_id: SpiffeId,
        entries: Entries,
        links: Vec<String>,
        slice: Arc<Slice>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            facts,
            spiffe_id,
            entries,
            in_force: ArcSwap::from_pointee(InForce::new(slice, &links)),
            links,
            change: AtomicU64::new(0),
            changes: watch::Sender::new(0),
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

    /// The code that serves HTTP, where it does.
    pub fn http(&self) -> Option<&ProxyPre<Ctx>> {
        self.entries.http.as_ref()
    }

    /// The code that handles messages, where it does.
    pub fn handler(&self) -> Option<&HandlerPre<Ctx>> {
        self.entries.messages.as_ref()
    }

    /// The slice of policy in force.
    pub fn slice(&self) -> Arc<Slice> {
        Arc::clone(&self.in_force.load().slice)
    }

    /// The slice of policy in force, without counting a reference: for the request path.
    pub fn in_force(&self) -> arc_swap::Guard<Arc<InForce>> {
        self.in_force.load()
    }

    /// Puts a new slice of policy in force. What is at work under the one before is decided anew.
    pub fn swap_slice(&self, slice: Arc<Slice>) {
        let was_audited = self.in_force().slice().is_audited();
        // A link that audit mode keeps is used from here on: one record for each generation, the first made at admission.
        let is_next = slice.generation() != self.in_force().slice().generation();
        for link in self.links.iter().filter(|_| is_next) {
            if let Ok(grant) = slice.link(link) {
                self.note(&grant, || linked(link));
            }
        }
        self.in_force.store(Arc::new(InForce::new(slice, &self.links)));
        if was_audited {
            // What audit mode had issued is not for the time after.
            self.shared.identity.forget(self.instance());
        }
        self.changed();
    }

    /// The number of the last change of policy: for the request path, where nothing that is shared is written to.
    pub fn change(&self) -> u64 {
        self.change.load(Ordering::SeqCst)
    }

    /// Has seen every change of policy up to now, and sees those to come. A change that is not in [`Self::change`] yet comes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        let count = self.change.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        self.changes.send_modify(|told| *told = count);
    }

    /// Reports the use of a grant that is audit mode's. Others are not reported.
    pub fn note<A>(&self, grant: &Grant<A>, what: impl FnOnce() -> What) {
        if let Some(denial) = grant.instead_of() {
            self.shared.events.let_through(self.instance(), grant.generation(), &denial.code().to_string(), what());
        }
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
        self.shared.messaging.forget(self.instance());
        // Whoever follows changes sees that it is over.
        self.changed();
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (http, messages) = (self.http.is_some(), self.messages.is_some());
        f.debug_struct("Entries").field("http", &http).field("messages", &messages).finish()
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("facts", &self.facts).field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}
