//! What `[[grant]]` entries give that none gave before, with the demands that go with it.
//!
//! A grant gives to one component, by its name, whatever else is known of it: so rights are compared as values. Ranges of
//! addresses are compared by containment, subjects and interfaces by what their patterns cover, the life of tokens by the
//! longest that any entry gives, a peer by whether the same one is still demanded.

use std::collections::{HashMap, HashSet};

use cedar_policy::Effect;

use super::Widening;
use crate::address::AddressRange;
use crate::destination::Destination;
use crate::engine::PolicySet;
use crate::grants::{CallerPattern, GrantEntry, IdentityRight, cedar};
use crate::interface::LinkPattern;
use crate::limits::JWT_TTL_DEFAULT;
use crate::question::Question;
use crate::subject::SubjectPattern;
use crate::workload::WorkloadId;
use crate::written::{self, url, within};

pub(super) fn widenings(old: &PolicySet, new: &PolicySet) -> Vec<Widening> {
    let (before, after) = (of_components(old), of_components(new));
    let nothing = Rights::default();
    let mut found = Vec::new();
    for grant in new.grants() {
        let had = before.get(grant.component.as_str()).unwrap_or(&nothing);
        let mut compare = Compare { grant, had, found: &mut found };
        compare.plain();
        compare.http();
        compare.messages();
    }
    found.extend(pins_that_are_gone(old, new, &before, &after));
    found
}

/// What the grants of one component give together.
#[derive(Debug, Default)]
struct Rights<'a> {
    load: bool,
    links: Vec<LinkPattern>,
    http: HashMap<&'a Destination, Reach<'a>>,
    identity: HashSet<IdentityRight>,
    audiences: HashMap<&'a str, u64>,
    purposes: HashSet<&'a str>,
    callers: HashSet<&'a CallerPattern>,
    publish: Vec<&'a SubjectPattern>,
    request: Vec<&'a SubjectPattern>,
    subscribe: Vec<&'a SubjectPattern>,
}

/// What goes with a destination.
#[derive(Debug, Default)]
struct Reach<'a> {
    addresses: Vec<AddressRange>,
    /// The peer that is demanded, and by which grant.
    pin: Option<(&'a WorkloadId, &'a GrantEntry)>,
}

fn of_components(set: &PolicySet) -> HashMap<&str, Rights<'_>> {
    let mut all: HashMap<&str, Rights<'_>> = HashMap::new();
    for grant in set.grants() {
        all.entry(&grant.component).or_default().add(grant);
    }
    all
}

impl<'a> Rights<'a> {
    fn add(&mut self, grant: &'a GrantEntry) {
        self.load |= grant.load;
        for link in cedar::links(grant) {
            if !self.links.contains(&link) {
                self.links.push(link);
            }
        }
        for destination in &grant.http {
            let reach = self.http.entry(destination).or_default();
            reach.addresses.extend_from_slice(&grant.addresses);
            if let Some(peer) = &grant.peer {
                reach.pin = Some((peer, grant));
            }
        }
        self.identity.extend(identity(grant));
        for audience in &grant.audiences {
            let most = self.audiences.entry(audience).or_default();
            *most = (*most).max(ttl(grant));
        }
        self.purposes.extend(grant.purposes.iter().map(String::as_str));
        self.callers.extend(&grant.callers);
        self.publish.extend(&grant.publish);
        self.request.extend(&grant.request);
        self.subscribe.extend(&grant.subscribe);
    }
}

/// The rights of a grant, with the one that a pin gives.
fn identity(grant: &GrantEntry) -> impl Iterator<Item = IdentityRight> {
    let pinned = grant.peer.is_some() && !grant.identity.contains(&IdentityRight::X509);
    grant.identity.iter().copied().chain(pinned.then_some(IdentityRight::X509))
}

fn ttl(grant: &GrantEntry) -> u64 {
    grant.max_ttl.unwrap_or(JWT_TTL_DEFAULT)
}

struct Compare<'a, 'f> {
    grant: &'a GrantEntry,
    had: &'a Rights<'a>,
    found: &'f mut Vec<Widening>,
}

impl Compare<'_, '_> {
    fn add(&mut self, what: String, shown_by: Option<Question>) {
        let place = (self.grant.source.as_str(), self.grant.line);
        let mut widening = Widening::new("grant", &self.grant.id, place, what);
        widening.shown_by = shown_by.map(|question| (self.grant.component.clone(), question));
        self.found.push(widening);
    }

    fn gives(&mut self, what: &str, question: Question) {
        self.add(format!("gives {} {what}", self.grant.component), Some(question));
    }

    fn plain(&mut self) {
        let (grant, had) = (self.grant, self.had);
        if grant.load && !had.load {
            self.gives("load", Question::Load { imports: Vec::new(), expired: false });
        }
        for link in cedar::links(grant) {
            let covers = |own: &LinkPattern| match &link {
                LinkPattern::Interface(name) => own.matches(name),
                LinkPattern::Package(_) => *own == link,
            };
            if !had.links.iter().any(covers) {
                match &link {
                    LinkPattern::Interface(name) => {
                        let interface = name.name().to_owned();
                        self.gives(&format!("link {link}"), Question::Link { interface });
                    }
                    LinkPattern::Package(_) => self.add(format!("gives {} link {link}", grant.component), None),
                }
            }
        }
        for right in identity(grant).filter(|right| !had.identity.contains(right)) {
            let question = match right {
                IdentityRight::Read => Question::IdentityRead {},
                IdentityRight::Bundles => Question::BundleRead {},
                IdentityRight::Peer => Question::PeerRead {},
                IdentityRight::X509 => Question::SvidX509 { ttl: 1 },
                IdentityRight::Validate => Question::SvidValidate {},
                IdentityRight::Export => Question::SvidExport {},
            };
            self.gives(question.action(), question);
        }
        for audience in &grant.audiences {
            let question = || Question::SvidJwt { audience: audience.clone(), ttl: 1 };
            match had.audiences.get(audience.as_str()) {
                None => self.gives(&format!("svid.jwt {audience}"), question()),
                Some(before) if ttl(grant) > *before => {
                    let what = format!("svid.jwt {audience} for {} s, before for {before} s", ttl(grant));
                    self.gives(&what, question());
                }
                Some(_) => {}
            }
        }
        for purpose in grant.purposes.iter().filter(|purpose| !had.purposes.contains(purpose.as_str())) {
            self.gives(&format!("svid.sign {purpose}"), Question::SvidSign { purpose: purpose.clone() });
        }
        for caller in grant.callers.iter().filter(|caller| !had.callers.contains(caller)) {
            self.gives(&format!("call {}", caller.name()), Question::Call { caller: caller.name().to_owned() });
        }
    }

    fn http(&mut self) {
        let (grant, had) = (self.grant, self.had);
        for destination in &grant.http {
            let before = had.http.get(destination);
            if before.is_none() {
                let question = Question::HttpSend { destination: url(destination), method: "GET".to_owned() };
                self.gives(&format!("http {}", url(destination)), question);
            }
            let opened = before.map_or(&[][..], |reach| &reach.addresses);
            let new = grant.addresses.iter().filter(|range| !range.lies_in(opened));
            let new: Vec<String> = new.map(ToString::to_string).collect();
            if !new.is_empty() {
                let what = format!("opens {} at {} to {}", url(destination), new.join(", "), grant.component);
                self.add(what, None);
            }
        }
    }

    fn messages(&mut self) {
        let (grant, had) = (self.grant, self.had);
        let lists = [
            ("publish", &grant.publish, &had.publish),
            ("request", &grant.request, &had.request),
            ("subscribe", &grant.subscribe, &had.subscribe),
        ];
        for (action, patterns, before) in lists {
            for pattern in patterns.iter().filter(|new| !before.iter().any(|own| own.covers_all_of(new))) {
                let question = match action {
                    "publish" => Question::Publish { subject: within(pattern) },
                    "request" => Question::Request { subject: within(pattern) },
                    _ => Question::Subscribe { subject: pattern.to_string(), queue: String::new() },
                };
                // One message shows all of a pattern only where that has no wildcard.
                let shows_all = pattern.is_literal() || action == "subscribe";
                self.add(format!("gives {} {action} {pattern}", grant.component), shows_all.then_some(question));
            }
        }
    }
}

/// Destinations that may still be sent to, without the peer that was demanded before.
fn pins_that_are_gone(
    old: &PolicySet,
    new: &PolicySet,
    before: &HashMap<&str, Rights<'_>>,
    after: &HashMap<&str, Rights<'_>>,
) -> Vec<Widening> {
    let mut found = Vec::new();
    // In the order of the grants, so that it is the same each time.
    for grant in old.grants().iter().filter(|grant| grant.peer.is_some()) {
        let component = grant.component.as_str();
        for destination in &grant.http {
            let pin = before.get(component).and_then(|rights| rights.http.get(destination)).and_then(|reach| reach.pin);
            let Some((peer, _)) = pin.filter(|(_, by)| std::ptr::eq(*by, grant)) else { continue };
            let now = after.get(component).and_then(|rights| rights.http.get(destination));
            if now.and_then(|reach| reach.pin).is_some_and(|(now, _)| now == peer) {
                continue;
            }
            let permits = |rule: &&crate::decide::Rule| rule.policy.effect() == Effect::Permit;
            let elsewhere = || new.raw().filter(permits).any(|rule| written::can_send(rule, component, destination));
            if now.is_some() || elsewhere() {
                let instead = match now.and_then(|reach| reach.pin) {
                    Some((peer, _)) => format!("now demanded is {peer}"),
                    None => "now nobody is".to_owned(),
                };
                let what = format!("demanded {peer} at {} of {component}; {instead}", url(destination));
                let mut widening = Widening::new("grant", &grant.id, (&grant.source, grant.line), what);
                let question = Question::HttpSend { destination: url(destination), method: "GET".to_owned() };
                widening.shown_by = Some((component.to_owned(), question));
                found.push(widening);
            }
        }
    }
    found
}
