//! What each key of a grant permits.

use std::sync::Arc;

use super::{CallerPattern, GrantEntry, IdentityRight};
use crate::component::ANONYMOUS;
use crate::decide::{Action, Kind, Meta};
use crate::interface::LinkPattern;
use crate::permits::{Addresses, Builder, Scope};

/// Adds all permits of a grant.
pub(crate) fn permits(grant: &GrantEntry, into: &mut Builder<'_>) -> Result<(), String> {
    let meta = Arc::new(Meta {
        id: grant.id.clone(),
        kind: Kind::Grant,
        reason: grant.reason.clone(),
        owner: grant.owner.clone(),
        source: grant.source.clone(),
        line: grant.line,
        peer: grant.peer.clone(),
        max_ttl: grant.max_ttl,
    });
    let mut permits = Permits { component: Arc::from(grant.component.as_str()), meta, into };
    let own = || equals("Component", &grant.component);
    if grant.load {
        permits.add(Action::Load, own(), is("Image"), None)?;
    }
    for link in links(grant) {
        let resource = match &link {
            LinkPattern::Interface(name) => equals("WitInterface", name.name()),
            LinkPattern::Package(package) => Scope::within("WitPackage", package),
        };
        permits.add(Action::Link, own(), resource, None)?;
    }
    for destination in &grant.http {
        let resource = || equals("Destination", &destination.to_string());
        permits.add(Action::HttpSend, own(), resource(), None)?;
        permits.add(Action::HttpConnect, own(), resource(), Some(&grant.addresses))?;
    }
    if grant.identity.contains(&IdentityRight::Read) {
        permits.add(Action::IdentityRead, own(), is("TrustDomain"), None)?;
    }
    if grant.identity.contains(&IdentityRight::Bundles) {
        permits.add(Action::BundleRead, own(), is("TrustDomain"), None)?;
    }
    if grant.identity.contains(&IdentityRight::Peer) {
        permits.add(Action::PeerRead, own(), is("TrustDomain"), None)?;
    }
    if grant.identity.contains(&IdentityRight::Validate) {
        permits.add(Action::SvidValidate, own(), is("TrustDomain"), None)?;
    }
    if grant.identity.contains(&IdentityRight::Export) {
        permits.add(Action::SvidExport, own(), is("TrustDomain"), None)?;
    }
    if grant.identity.contains(&IdentityRight::X509) || grant.peer.is_some() {
        permits.add(Action::SvidX509, own(), is("TrustDomain"), None)?;
    }
    for audience in &grant.audiences {
        permits.add(Action::SvidJwt, own(), equals("Audience", audience), None)?;
    }
    for purpose in &grant.purposes {
        permits.add(Action::SvidSign, own(), equals("Purpose", purpose), None)?;
    }
    for caller in &grant.callers {
        let principal = match caller {
            CallerPattern::Anonymous => equals("Anonymous", ANONYMOUS),
            CallerPattern::Workload(id) => equals("Workload", id.as_str()),
        };
        permits.add(Action::Call, principal, own(), None)?;
    }
    let subjects =
        [(Action::Publish, &grant.publish), (Action::Request, &grant.request), (Action::Subscribe, &grant.subscribe)];
    for (action, patterns) in subjects {
        for pattern in patterns {
            let resource = match pattern.is_literal() {
                true => equals("Subject", pattern.as_str()),
                false => Scope::within("Subject", pattern.as_str()),
            };
            permits.add(action, own(), resource, None)?;
        }
    }
    Ok(())
}

/// The interfaces of a grant: those it names, and those that what it grants cannot be used without.
pub(crate) fn links(grant: &GrantEntry) -> Vec<LinkPattern> {
    let mut implied: Vec<&str> = Vec::new();
    if !grant.http.is_empty() {
        implied.push("wasi:http/outgoing-handler");
    }
    if !grant.identity.is_empty() || !grant.audiences.is_empty() || !grant.purposes.is_empty() {
        implied.push("portcullis:identity/types");
    }
    for right in &grant.identity {
        implied.extend_from_slice(match right {
            IdentityRight::Read => &["portcullis:identity/workload"],
            IdentityRight::Bundles => &["portcullis:identity/bundle"],
            IdentityRight::Peer => &["portcullis:identity/peer"],
            IdentityRight::X509 => &["portcullis:identity/x509"],
            IdentityRight::Validate => &["portcullis:identity/jwt"],
            IdentityRight::Export => &["portcullis:identity/key-export"],
        });
    }
    if !grant.purposes.is_empty() {
        implied.push("portcullis:identity/signing");
    }
    if !grant.audiences.is_empty() {
        implied.extend_from_slice(&["portcullis:identity/jwt", "wasmcloud:identity/store"]);
    }
    if [&grant.publish, &grant.request, &grant.subscribe].iter().any(|list| !list.is_empty()) {
        // A handler answers by publishing, so it is linked with both.
        implied.extend_from_slice(&["wasmcloud:messaging/types", "wasmcloud:messaging/consumer"]);
    }
    let mut links = grant.link.clone();
    for name in implied.into_iter().filter_map(|name| name.parse::<LinkPattern>().ok()) {
        if !links.contains(&name) {
            links.push(name);
        }
    }
    links
}

struct Permits<'a, 'e> {
    component: Arc<str>,
    meta: Arc<Meta>,
    into: &'a mut Builder<'e>,
}

impl Permits<'_, '_> {
    fn add(
        &mut self,
        action: Action,
        principal: Scope,
        resource: Scope,
        when: Option<Addresses<'_>>,
    ) -> Result<(), String> {
        self.into.add(&self.meta, &self.component, action, (&principal, &resource), when)
    }
}

fn equals(kind: &'static str, id: &str) -> Scope {
    Scope::equals(kind, id)
}

fn is(kind: &'static str) -> Scope {
    Scope::is(kind)
}
