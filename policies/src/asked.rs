//! What was asked for, in words for people, as a fix, and as a code.

use std::net::SocketAddr;

use crate::address::{AddressRange, classify};
use crate::decide::Action;
use crate::destination::Destination;
use crate::edit::GrantEdit;
use crate::grant::IdentityAction;
use crate::interface::InterfaceName;
use crate::shown;

/// One question to a slice. Text from outside is in it as it came; whoever shows it escapes it.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    Load { digest: String, expired: bool, imports: Vec<String> },
    Link { text: String, name: Option<InterfaceName>, waits_for_baseline: bool },
    HttpSend { destination: Destination, method: String },
    HttpConnect { destination: Destination, method: String, address: SocketAddr, peer: Option<String> },
    SvidJwt { audience: String, ttl: u64 },
    SvidX509 { ttl: u64 },
    SvidSign { purpose: String },
    Identity(IdentityAction),
    Call { caller: String },
    Publish { subject: String },
    Request { subject: String },
    Subscribe { subject: String, queue: String },
}

impl Asked {
    pub(crate) fn action(&self) -> Action {
        match self {
            Self::Load { .. } => Action::Load,
            Self::Link { .. } => Action::Link,
            Self::HttpSend { .. } => Action::HttpSend,
            Self::HttpConnect { .. } => Action::HttpConnect,
            Self::SvidJwt { .. } => Action::SvidJwt,
            Self::SvidX509 { .. } | Self::Identity(IdentityAction::X509Chain) => Action::SvidX509,
            Self::SvidSign { .. } => Action::SvidSign,
            Self::Identity(IdentityAction::Read) => Action::IdentityRead,
            Self::Identity(IdentityAction::Bundles) => Action::BundleRead,
            Self::Identity(IdentityAction::Peer) => Action::PeerRead,
            Self::Identity(IdentityAction::Validate) => Action::SvidValidate,
            Self::Identity(IdentityAction::Export) => Action::SvidExport,
            Self::Call { .. } => Action::Call,
            Self::Publish { .. } => Action::Publish,
            Self::Request { .. } => Action::Request,
            Self::Subscribe { .. } => Action::Subscribe,
        }
    }

    /// Whether audit mode may let it through. Never an admission, and never a private key.
    pub(crate) fn may_be_audited(&self) -> bool {
        match self.action() {
            Action::Load | Action::SvidExport => false,
            Action::Link
            | Action::HttpSend
            | Action::HttpConnect
            | Action::SvidJwt
            | Action::SvidX509
            | Action::SvidValidate
            | Action::IdentityRead
            | Action::SvidSign
            | Action::BundleRead
            | Action::PeerRead
            | Action::Call
            | Action::Publish
            | Action::Request
            | Action::Subscribe => true,
        }
    }

    /// Letter and number of "no grant".
    pub(crate) fn letter(&self) -> char {
        match self.action() {
            Action::Load => 'A',
            Action::Link => 'L',
            Action::HttpSend | Action::HttpConnect => 'N',
            Action::SvidJwt
            | Action::SvidX509
            | Action::SvidValidate
            | Action::IdentityRead
            | Action::SvidSign
            | Action::SvidExport
            | Action::BundleRead
            | Action::PeerRead => 'I',
            Action::Call => 'C',
            Action::Publish | Action::Request | Action::Subscribe => 'M',
        }
    }

    /// The number of "no grant" for this action.
    pub(crate) fn no_grant(&self) -> u16 {
        match self.action() {
            Action::Load | Action::Link | Action::HttpSend | Action::SvidJwt | Action::Call | Action::Publish => 201,
            Action::HttpConnect | Action::SvidX509 | Action::Request => 202,
            Action::SvidValidate | Action::IdentityRead | Action::BundleRead | Action::PeerRead | Action::Subscribe => {
                203
            }
            Action::SvidSign => 204,
            Action::SvidExport => 205,
        }
    }

    /// The resource, canonical where it could be parsed.
    pub(crate) fn resource(&self) -> String {
        match self {
            Self::Load { digest, .. } => shown::outside(digest, 80),
            Self::Link { text, .. } => shown::outside(text, 128),
            Self::HttpSend { destination, .. } | Self::HttpConnect { destination, .. } => {
                shown::outside(&destination.to_string(), 300)
            }
            Self::SvidJwt { audience, .. } => shown::outside(audience, 128),
            Self::SvidSign { purpose } => shown::outside(purpose, 128),
            Self::SvidX509 { .. } | Self::Identity(_) => String::new(),
            Self::Call { caller } => shown::outside(caller, 256),
            Self::Publish { subject } | Self::Request { subject } | Self::Subscribe { subject, .. } => {
                shown::outside(subject, 256)
            }
        }
    }

    /// What follows "may not".
    pub(crate) fn phrase(&self) -> String {
        let resource = self.resource();
        match self {
            Self::Load { .. } => "be loaded here".to_owned(),
            Self::Link { .. } => format!("link {resource}"),
            Self::HttpSend { .. } => format!("http.send to {resource}"),
            Self::HttpConnect { address, .. } => format!("http.connect to {resource} at {address}"),
            Self::SvidJwt { .. } => format!("get a JWT-SVID for the audience {resource}"),
            Self::SvidX509 { .. } => "get an X.509-SVID".to_owned(),
            Self::SvidSign { .. } => format!("sign for the purpose {resource}"),
            Self::Identity(IdentityAction::Read) => "read its SPIFFE ID".to_owned(),
            Self::Identity(IdentityAction::Bundles) => "read trust bundles".to_owned(),
            Self::Identity(IdentityAction::Peer) => "learn who is calling it".to_owned(),
            Self::Identity(IdentityAction::Validate) => "validate JWT-SVIDs".to_owned(),
            Self::Identity(IdentityAction::Export) => "have the private key of its X.509-SVID".to_owned(),
            Self::Identity(IdentityAction::X509Chain) => "read its certificate chain".to_owned(),
            Self::Call { .. } => format!("be called by {resource}"),
            Self::Publish { .. } => format!("publish to {resource}"),
            Self::Request { .. } => format!("request from {resource}"),
            Self::Subscribe { .. } => format!("subscribe to {resource}"),
        }
    }

    /// The details of the question.
    pub(crate) fn details(&self) -> String {
        match self {
            Self::Load { digest, expired, imports } => {
                let claims = if *expired { "expired" } else { "in force" };
                format!("load, image {}, {} imports, claims {claims}", shown::outside(digest, 80), imports.len())
            }
            Self::Link { text, .. } => format!("import {}", shown::outside(text, 128)),
            Self::HttpSend { method, destination } => match destination.host().address() {
                Some(address) => format!("{}, {} address", shown::outside(method, 32), classify(address)),
                None => format!("{}, not resolved yet", shown::outside(method, 32)),
            },
            Self::HttpConnect { method, address, peer, .. } => {
                let class = classify(address.ip());
                let peer = peer.as_deref().map(|peer| format!(", peer {} (mTLS)", shown::outside(peer, 200)));
                let method = shown::outside(method, 32);
                format!("{method}, resolved {} ({class} address){}", address.ip(), peer.unwrap_or_default())
            }
            Self::SvidJwt { ttl, .. } => format!("svid.jwt, {ttl} s"),
            Self::SvidX509 { ttl } => format!("svid.x509, {ttl} s"),
            Self::SvidSign { .. } => "svid.sign".to_owned(),
            Self::Identity(action) => action.name().to_owned(),
            Self::Call { .. } => "call over the gateway".to_owned(),
            Self::Publish { .. } => "publish".to_owned(),
            Self::Request { .. } => "request, one answer to an inbox of its own".to_owned(),
            Self::Subscribe { queue, .. } if queue.is_empty() => "subscribe".to_owned(),
            Self::Subscribe { queue, .. } => format!("subscribe, queue group {}", shown::outside(queue, 256)),
        }
    }

    /// The smallest grant that allows exactly this.
    pub(crate) fn edit(&self, component: &str) -> Option<GrantEdit> {
        let mut edit = GrantEdit { component: component.to_owned(), ..GrantEdit::default() };
        match self {
            Self::Load { .. } => edit.load = true,
            // The baseline comes into force with the first policy that an operator writes.
            Self::Link { waits_for_baseline: true, .. } => edit.load = true,
            Self::Link { name, .. } => edit.link = vec![name.as_ref()?.name().to_owned()],
            Self::HttpSend { destination, .. } => {
                edit.addresses.extend(destination.host().address().and_then(needed));
                edit.http = Some(destination.clone());
            }
            Self::HttpConnect { destination, address, .. } => {
                let range = match destination.host().address() {
                    Some(literal) => needed(literal),
                    None => AddressRange::exactly(address.ip()),
                };
                edit.addresses.extend(range);
                edit.http = Some(destination.clone());
            }
            Self::SvidJwt { audience, .. } => edit.audiences = vec![audience.clone()],
            Self::SvidX509 { .. } | Self::Identity(IdentityAction::X509Chain) => {
                edit.identity = vec!["x509".to_owned()]
            }
            Self::SvidSign { purpose } => edit.purposes = vec![purpose.clone()],
            Self::Identity(IdentityAction::Read) => edit.identity = vec!["read".to_owned()],
            Self::Identity(IdentityAction::Bundles) => edit.identity = vec!["bundles".to_owned()],
            Self::Identity(IdentityAction::Peer) => edit.identity = vec!["peer".to_owned()],
            Self::Identity(IdentityAction::Export) => edit.identity = vec!["export".to_owned()],
            Self::Identity(IdentityAction::Validate) => edit.identity = vec!["validate".to_owned()],
            Self::Call { caller } => edit.callers = vec![caller.clone()],
            Self::Publish { subject } => edit.publish = vec![subject.clone()],
            Self::Request { subject } => edit.request = vec![subject.clone()],
            Self::Subscribe { subject, .. } => edit.subscribe = vec![subject.clone()],
        }
        Some(edit)
    }
}

/// The range that opens the address that stands in a URL: there its class is no broader than itself.
fn needed(address: std::net::IpAddr) -> Option<AddressRange> {
    AddressRange::class_of(address)
}
