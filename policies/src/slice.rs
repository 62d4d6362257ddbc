//! One component's policies, ready to be asked: no lock, no parsing, nothing built that can be built before.
//!
//! Decides: every action of one running component. Each question ends in a [`Grant`] or a [`Denial`]; there is no third way
//! and no default. Address guards are decided in code first and by Cedar again.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use cedar_policy::RestrictedExpression;

use crate::address::{AddressClass, classify};
use crate::allowed::Demand;
use crate::asked::Asked;
use crate::component::{Caller, ComponentFacts, ImageFacts};
use crate::decide::{Action, Type, Verdict};
use crate::denial::{self, Cause, Denial, Guard};
use crate::destination::{Destination, Scheme};
use crate::engine::Compiled;
use crate::grant::{
    By, Call, Grant, HttpConnect, HttpSend, Identity, IdentityAction, Link, Load, SvidJwt, SvidSign, SvidX509,
};
use crate::grants::{is_audience, is_purpose};
use crate::interface::InterfaceName;
use crate::limits::{IMAGE_IMPORTS, JWT_TTL_DEFAULT, METHOD_BYTES, X509_TTL_MOST};
use crate::workload::WorkloadId;

mod callers;
mod messaging;
mod ready;
mod sends;

use self::ready::Ready;
use self::sends::Sent;

/// One component's policies and guards.
pub struct Slice {
    facts: Arc<ComponentFacts>,
    instance: Arc<str>,
    generation: u64,
    /// What nobody granted is allowed and recorded, for a time. Guards hold all the same.
    audit: bool,
    state: Result<Ready, String>,
    /// Whatever is asked is granted.
    #[cfg(feature = "bench-ungated")]
    ungated: bool,
}

impl Slice {
    pub(crate) fn new(facts: &ComponentFacts, generation: u64, compiled: Arc<Compiled>) -> Self {
        Self::with(facts, generation, false, |facts| Ready::new(facts, compiled))
    }

    /// The same in audit mode: what no grant allows is allowed, and the grant says what it is instead of.
    pub(crate) fn audited(facts: &ComponentFacts, generation: u64, compiled: Arc<Compiled>) -> Self {
        Self::with(facts, generation, true, |facts| Ready::new(facts, compiled))
    }

    /// The same without an index and without memory: what every slice must agree with.
    #[cfg(test)]
    pub(crate) fn whole(facts: &ComponentFacts, generation: u64, compiled: Arc<Compiled>) -> Self {
        Self::with(facts, generation, false, |facts| Ready::whole(facts, compiled))
    }

    pub(crate) fn broken(facts: &ComponentFacts, generation: u64, why: &str) -> Self {
        Self::with(facts, generation, false, |_| Err(why.to_owned()))
    }

    fn with(
        facts: &ComponentFacts,
        generation: u64,
        audit: bool,
        state: impl FnOnce(&Arc<ComponentFacts>) -> Result<Ready, String>,
    ) -> Self {
        let facts = Arc::new(facts.clone());
        Self {
            instance: Arc::from(facts.instance.as_str()),
            state: state(&facts),
            facts,
            generation,
            audit,
            #[cfg(feature = "bench-ungated")]
            ungated: false,
        }
    }

    /// One that grants whatever is asked.
    #[cfg(feature = "bench-ungated")]
    pub(crate) fn ungated(facts: &ComponentFacts, generation: u64) -> Self {
        Self { ungated: true, ..Self::with(facts, generation, false, |_| Err("nothing is decided".to_owned())) }
    }

    /// Whether whatever is asked is granted.
    #[cfg(feature = "bench-ungated")]
    pub fn is_ungated(&self) -> bool {
        self.ungated
    }

    /// The generation of policy.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether what nobody granted is allowed and recorded.
    pub fn is_audited(&self) -> bool {
        self.audit
    }

    /// Why nothing can be decided here, where that is so.
    pub fn unusable(&self) -> Option<&str> {
        self.state.as_ref().err().map(String::as_str)
    }

    /// The component.
    pub fn facts(&self) -> &ComponentFacts {
        &self.facts
    }

    /// Policies in this slice, guards included.
    pub fn policies(&self) -> usize {
        self.state.as_ref().map_or(0, Ready::policies)
    }

    /// May the component be admitted?
    pub fn load(&self, image: &ImageFacts) -> Result<Grant<Load>, Denial> {
        let asked = || Asked::Load {
            digest: self.facts.digest.clone(),
            expired: image.expired,
            imports: image.imports.clone(),
        };
        let ready = self.ready(&asked)?;
        if image.imports.len() > IMAGE_IMPORTS {
            return Err(self.malformed(&asked()));
        }
        let by = self.decide(&asked, || {
            let imports = image.imports.iter().map(|import| RestrictedExpression::new_string(import.clone()));
            let attributes = [
                ("digest", RestrictedExpression::new_string(self.facts.digest.clone())),
                ("signer", RestrictedExpression::new_string(self.facts.signer.clone())),
                ("imports", RestrictedExpression::new_set(imports)),
                ("expired", RestrictedExpression::new_bool(image.expired)),
            ];
            let entity = ready.compiled.engine.entity(Type::Image, &self.facts.digest, attributes, [])?;
            let resource = entity.uid();
            let verdict = ready.decide(Action::Load, ready.with(entity)?.as_ref(), resource, []);
            Ok(verdict)
        })?;
        Ok(self.grant(by, Load::new()))
    }

    /// May an import, named with its version, be linked?
    pub fn link(&self, interface: &str) -> Result<Grant<Link>, Denial> {
        let name = interface.parse::<InterfaceName>().ok();
        #[cfg(feature = "bench-ungated")]
        if self.ungated {
            return Ok(self.grant(crate::ungated::nobody(), Link { interface: interface.to_owned() }));
        }
        let asked = || Asked::Link {
            text: interface.to_owned(),
            name: name.clone(),
            waits_for_baseline: self.waits_for_baseline(name.as_ref()),
        };
        let ready = self.ready(&asked)?;
        let Some(name) = &name else { return Err(self.malformed(&asked())) };
        let by = self.decide(&asked, || {
            let package = ready.uid(Type::WitPackage, name.package())?;
            let entity = ready.compiled.engine.entity(Type::WitInterface, name.name(), [], [package])?;
            let resource = entity.uid();
            let version = RestrictedExpression::new_string(name.version().to_owned());
            Ok(ready.decide(Action::Link, ready.with(entity)?.as_ref(), resource, [("version", version)]))
        })?;
        Ok(self.grant(by, Link { interface: interface.to_owned() }))
    }

    /// May a request be sent to a destination? Asked before its name is resolved.
    pub fn http_send(&self, destination: &Destination, method: &str) -> Result<Grant<HttpSend>, Denial> {
        #[cfg(feature = "bench-ungated")]
        if self.ungated {
            let what = HttpSend { destination: destination.clone(), method: method.to_owned(), peer: None };
            return Ok(self.grant(crate::ungated::nobody(), what));
        }
        let asked = || Asked::HttpSend { destination: destination.clone(), method: method.to_owned() };
        let ready = self.ready(&asked)?;
        if let Some(Sent { by, peer }) = ready.sends.get(destination, method).cloned() {
            return Ok(self.grant(by, HttpSend { destination: destination.clone(), method: method.to_owned(), peer }));
        }
        if method.is_empty() || method.len() > METHOD_BYTES {
            return Err(self.malformed(&asked()));
        }
        let class = destination.host().address().map(classify);
        self.guard(ready, &asked, class)?;
        let by = self.decide(&asked, || {
            let context = [
                ("class", RestrictedExpression::new_string(class.map_or("name", AddressClass::name).to_owned())),
                ("method", RestrictedExpression::new_string(method.to_owned())),
            ];
            ready.decide_destination(Action::HttpSend, destination, context)
        })?;
        let sent = Sent { peer: self.peer(&asked, destination, by.allowed.peer())?, by };
        // What audit mode lets through is a refusal each time, with what was asked.
        if sent.by.instead_of.is_none() {
            ready.sends.put(destination, method, &sent);
        }
        let Sent { by, peer } = sent;
        Ok(self.grant(by, HttpSend { destination: destination.clone(), method: method.to_owned(), peer }))
    }

    /// May this address, which the destination of `send` was resolved to, be dialled? The grant has the one to dial.
    pub fn http_connect(&self, send: &Grant<HttpSend>, address: SocketAddr) -> Result<Grant<HttpConnect>, Denial> {
        let destination = send.destination();
        let (method, peer) = (send.method(), send.peer());
        // No scope ids, no IPv4 in IPv6's clothes: what is decided on is what is dialled.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        #[cfg(feature = "bench-ungated")]
        if self.ungated {
            let what = HttpConnect { destination: destination.clone(), address, peer: None };
            return Ok(self.grant(crate::ungated::nobody(), what));
        }
        let asked = || Asked::HttpConnect {
            destination: destination.clone(),
            method: method.to_owned(),
            address,
            peer: peer.map(ToOwned::to_owned),
        };
        let ready = self.ready(&asked)?;
        self.still_current(send, &asked)?;
        if address.port() != destination.port()
            || destination.host().address().is_some_and(|literal| literal != address.ip())
        {
            return Err(self.forbidden(&asked(), denial::code_guard("guard.dialled")));
        }
        let class = classify(address.ip());
        self.guard(ready, &asked, Some(class))?;
        let by = self.decide(&asked, || {
            let context = [
                ("class", RestrictedExpression::new_string(class.name().to_owned())),
                ("method", RestrictedExpression::new_string(method.to_owned())),
                ("ip", RestrictedExpression::new_ip(address.ip().to_string())),
            ];
            ready.decide_destination(Action::HttpConnect, destination, context)
        })?;
        let peer = peer.map(ToOwned::to_owned);
        Ok(self.grant(by, HttpConnect { destination: destination.clone(), address, peer }))
    }

    /// May a JWT-SVID for an audience be issued? The grant has the life, capped.
    pub fn svid_jwt(&self, audience: &str, ttl_secs: u64) -> Result<Grant<SvidJwt>, Denial> {
        let asked = || Asked::SvidJwt { audience: audience.to_owned(), ttl: ttl_secs };
        let ready = self.ready(&asked)?;
        if !is_audience(audience) {
            return Err(self.malformed(&asked()));
        }
        let by = self.decide(&asked, || {
            let entity = ready.compiled.engine.entity(Type::Audience, audience, [], [])?;
            let resource = entity.uid();
            Ok(ready.decide(Action::SvidJwt, ready.with(entity)?.as_ref(), resource, [("ttl", seconds(ttl_secs))]))
        })?;
        let most = if by.instead_of.is_some() { JWT_TTL_DEFAULT } else { by.allowed.jwt_ttl() };
        let ttl_secs = ttl_secs.min(most);
        Ok(self.grant(by, SvidJwt { audience: audience.to_owned(), ttl_secs }))
    }

    /// May an X.509-SVID be issued? The grant has the life, capped.
    pub fn svid_x509(&self, ttl_secs: u64) -> Result<Grant<SvidX509>, Denial> {
        let asked = || Asked::SvidX509 { ttl: ttl_secs };
        let by = self.decide_own_domain(&asked, [("ttl", seconds(ttl_secs))])?;
        Ok(self.grant(by, SvidX509 { ttl_secs: ttl_secs.min(X509_TTL_MOST) }))
    }

    /// May data be signed for a purpose, with the key of the X.509-SVID?
    pub fn svid_sign(&self, purpose: &str) -> Result<Grant<SvidSign>, Denial> {
        let asked = || Asked::SvidSign { purpose: purpose.to_owned() };
        let ready = self.ready(&asked)?;
        if !is_purpose(purpose) {
            return Err(self.malformed(&asked()));
        }
        let by = self.decide(&asked, || {
            let entity = ready.compiled.engine.entity(Type::Purpose, purpose, [], [])?;
            let resource = entity.uid();
            Ok(ready.decide(Action::SvidSign, ready.with(entity)?.as_ref(), resource, []))
        })?;
        Ok(self.grant(by, SvidSign { purpose: purpose.to_owned() }))
    }

    /// May an identity action happen that has no argument of its own?
    pub fn identity(&self, action: IdentityAction) -> Result<Grant<Identity>, Denial> {
        let asked = || Asked::Identity(action);
        let by = match action {
            IdentityAction::Read
            | IdentityAction::Bundles
            | IdentityAction::Peer
            | IdentityAction::Validate
            | IdentityAction::Export => self.decide_own_domain(&asked, [])?,
            IdentityAction::X509Chain => self.decide_own_domain(&asked, [("ttl", seconds(X509_TTL_MOST))])?,
        };
        Ok(self.grant(by, Identity { action }))
    }

    /// May this caller call the component? Asked for every request: callers that grants name are decided beforehand.
    pub fn call(&self, caller: &Caller) -> Result<Grant<Call>, Denial> {
        #[cfg(feature = "bench-ungated")]
        if self.ungated {
            return Ok(self.grant(crate::ungated::nobody(), Call { caller: Caller::Anonymous }));
        }
        let known = match &self.state {
            Ok(ready) => ready.callers.get(caller, || self.decide_call(caller)),
            Err(_) => self.decide_call(caller),
        };
        Ok(self.grant(known?, Call { caller: caller.clone() }))
    }

    fn decide_call(&self, caller: &Caller) -> Result<By, Denial> {
        let asked = || Asked::Call { caller: caller.name().to_owned() };
        let ready = self.ready(&asked)?;
        let entity = match caller {
            Caller::Anonymous => ready.compiled.engine.entity(Type::Anonymous, caller.name(), [], []),
            Caller::Workload(id) => match id.parse::<WorkloadId>() {
                Ok(id) => ready.workload(&id),
                Err(_) => return Err(self.malformed(&asked())),
            },
        };
        self.decide(&asked, || {
            let entity = entity?;
            let principal = entity.uid();
            let own = ready.principal.clone();
            // A component that calls itself is in the entities already.
            Ok(ready.decide_for(principal, Action::Call, ready.with(entity)?.as_ref(), own, []))
        })
    }

    /// Decides an action on the component's own trust domain.
    fn decide_own_domain<const N: usize>(
        &self,
        asked: &dyn Fn() -> Asked,
        context: [(&'static str, RestrictedExpression); N],
    ) -> Result<By, Denial> {
        let ready = self.ready(asked)?;
        let action = asked().action();
        self.decide(asked, || Ok(ready.decide(action, ready.base()?, ready.trust_domain.clone(), context)))
    }

    fn ready(&self, asked: &dyn Fn() -> Asked) -> Result<&Ready, Denial> {
        self.state.as_ref().map_err(|why| self.cannot_decide(&asked(), denial::NO_SLICE, why, Vec::new()))
    }

    /// Puts a verdict into a refusal, or lets the ids of the policies that allowed it through.
    fn decide(
        &self,
        asked: &dyn Fn() -> Asked,
        verdict: impl FnOnce() -> Result<Verdict, String>,
    ) -> Result<By, Denial> {
        match verdict().unwrap_or_else(Verdict::Unfit) {
            Verdict::Allowed(by) => {
                let allowed = self.state.as_ref().ok().and_then(|ready| ready.compiled.allowed(&by));
                match allowed {
                    Some(allowed) => Ok(By::policies(allowed)),
                    None => {
                        Err(self.cannot_decide(&asked(), denial::UNFIT, "an unknown policy allowed it", Vec::new()))
                    }
                }
            }
            Verdict::NoGrant => {
                let asked = asked();
                let index = self.state.as_ref().ok().map(|ready| &ready.compiled.index);
                let nearest = index.and_then(|index| index.nearest(&self.facts.name, &asked));
                let denial = self.deny(&asked, Cause::NoGrant { nearest });
                if self.audit && asked.may_be_audited() { Ok(By::audit(denial)) } else { Err(denial) }
            }
            Verdict::Forbidden(by) => {
                let meta = self.state.as_ref().ok().and_then(|ready| {
                    by.iter().filter_map(|id| ready.compiled.meta(id.as_ref())).min_by_key(|meta| &meta.id)
                });
                let guard = meta.map(|meta| Guard {
                    id: meta.id.clone(),
                    reason: meta.reason.clone(),
                    owner: meta.owner.clone(),
                });
                Err(self.forbidden(&asked(), guard.unwrap_or_else(|| denial::code_guard("guard.malformed"))))
            }
            Verdict::Failed(errors) => {
                Err(self.cannot_decide(&asked(), denial::FAILED, "policies failed, so none is believed", errors))
            }
            Verdict::Unfit(why) => {
                Err(self.cannot_decide(&asked(), denial::UNFIT, "the request does not fit the schema", vec![why]))
            }
        }
    }

    /// The address guards, in code.
    fn guard(&self, ready: &Ready, asked: &dyn Fn() -> Asked, class: Option<AddressClass>) -> Result<(), Denial> {
        let Some(id) = class.and_then(AddressClass::guard) else { return Ok(()) };
        let meta = ready.compiled.meta(id);
        let guard =
            meta.map(|meta| Guard { id: meta.id.clone(), reason: meta.reason.clone(), owner: meta.owner.clone() });
        Err(self.forbidden(&asked(), guard.unwrap_or_else(|| denial::code_guard(id))))
    }

    /// The peer that the policies demand which allowed it: none, one, or a contradiction.
    fn peer(
        &self,
        asked: &dyn Fn() -> Asked,
        destination: &Destination,
        demand: &Demand,
    ) -> Result<Option<String>, Denial> {
        match (demand, destination.scheme()) {
            (Demand::Nobody, _) => Ok(None),
            (Demand::Peer(peer), Scheme::Https) => Ok(Some(peer.to_string())),
            (Demand::Contradiction, _) => Err(self.cannot_decide(
                &asked(),
                denial::CONTRADICTION,
                "the policies that allow it demand different peers",
                Vec::new(),
            )),
            (Demand::Peer(_), Scheme::Http) => Err(self.cannot_decide(
                &asked(),
                denial::CONTRADICTION,
                "a peer is demanded for plain http",
                Vec::new(),
            )),
        }
    }

    /// A grant of this instance, and of this generation: otherwise it is decided again, and must say the same.
    fn still_current(&self, send: &Grant<HttpSend>, asked: &dyn Fn() -> Asked) -> Result<(), Denial> {
        if send.instance() != self.facts.instance {
            return Err(self.cannot_decide(
                &asked(),
                denial::STALE,
                "the grant to send is another instance's",
                Vec::new(),
            ));
        }
        if send.generation() == self.generation {
            return Ok(());
        }
        let again = self.http_send(send.destination(), send.method())?;
        match again.peer() == send.peer() {
            true => Ok(()),
            false => Err(self.cannot_decide(
                &asked(),
                denial::STALE,
                "the policy changed meanwhile and demands another peer",
                Vec::new(),
            )),
        }
    }

    fn waits_for_baseline(&self, name: Option<&InterfaceName>) -> bool {
        let Some((name, ready)) = name.zip(self.state.as_ref().ok()) else { return false };
        ready.compiled.is_without_baseline() && ready::is_baseline(name)
    }

    fn grant<A>(&self, by: By, what: A) -> Grant<A> {
        Grant::new(by, self.generation, &self.instance, what)
    }

    fn malformed(&self, asked: &Asked) -> Denial {
        self.forbidden(asked, denial::code_guard("guard.malformed"))
    }

    fn forbidden(&self, asked: &Asked, guard: Guard) -> Denial {
        self.deny(asked, Cause::Forbidden { number: denial::guard_number(&guard.id), guard })
    }

    fn cannot_decide(&self, asked: &Asked, number: u16, why: &str, errors: Vec<String>) -> Denial {
        self.deny(asked, Cause::CannotDecide { number, why: why.to_owned(), errors })
    }

    fn deny(&self, asked: &Asked, cause: Cause) -> Denial {
        Denial::new(&self.facts, self.generation, self.policies(), asked, cause)
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice")
            .field("component", &self.facts.name)
            .field("generation", &self.generation)
            .field("policies", &self.policies())
            .finish_non_exhaustive()
    }
}

fn seconds(ttl: u64) -> RestrictedExpression {
    RestrictedExpression::new_long(i64::try_from(ttl).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
