//! The questions that policies give rise to, in the order of a table.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::address::AddressRange;
use crate::destination::Destination;
use crate::engine::PolicySet;
use crate::grants::{CallerPattern, GrantEntry, IdentityRight, cedar};
use crate::interface::LinkPattern;
use crate::question::Question;
use crate::written::{self, PUBLIC, url, within};

/// One row: a question, or the two that a range of addresses is asked about by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    question: Question,
    range: Option<Range>,
}

/// Addresses of a destination, asked about at their ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    destination: Destination,
    range: AddressRange,
    last: Question,
}

/// Every question that grants, and the scopes of raw policies, give rise to.
pub fn questions(set: &PolicySet) -> BTreeSet<Asking> {
    questions_of(set, |_| true)
}

/// Those of some grants alone, and of the scopes of all raw policies.
pub(crate) fn questions_of(set: &PolicySet, which: impl Fn(&GrantEntry) -> bool) -> BTreeSet<Asking> {
    let grants = || set.grants().iter().filter(|grant| which(grant));
    let mut all = BTreeSet::new();
    let mut add = |question: Question| {
        all.insert(Asking::new(question));
    };
    add(Question::Load { imports: Vec::new(), expired: false });
    add(Question::Call { caller: crate::component::ANONYMOUS.to_owned() });
    add(Question::SvidX509 { ttl: 1 });
    grants().for_each(|grant| of_grant(grant, &mut add));
    set.raw().flat_map(written::questions).for_each(&mut add);
    for grant in grants() {
        all.extend(ranges(grant));
    }
    all
}

fn of_grant(grant: &GrantEntry, add: &mut impl FnMut(Question)) {
    for link in cedar::links(grant) {
        add(Question::Link {
            interface: match link {
                LinkPattern::Interface(name) => name.name().to_owned(),
                // One that stands for the package: no component has an interface of this name.
                LinkPattern::Package(package) => format!("{package}/any"),
            },
        });
    }
    for destination in &grant.http {
        let (destination, method) = (url(destination), "GET".to_owned());
        add(Question::HttpSend { destination, method });
    }
    for right in &grant.identity {
        match right {
            IdentityRight::Read => add(Question::IdentityRead {}),
            IdentityRight::Bundles => add(Question::BundleRead {}),
            IdentityRight::Peer => add(Question::PeerRead {}),
            IdentityRight::Validate => add(Question::SvidValidate {}),
            IdentityRight::Export => add(Question::SvidExport {}),
            IdentityRight::X509 => {}
        }
    }
    for purpose in &grant.purposes {
        add(Question::SvidSign { purpose: purpose.clone() });
    }
    for audience in &grant.audiences {
        add(Question::SvidJwt { audience: audience.clone(), ttl: 1 });
    }
    for pattern in &grant.publish {
        add(Question::Publish { subject: within(pattern) });
    }
    for pattern in &grant.request {
        add(Question::Request { subject: within(pattern) });
    }
    for pattern in &grant.subscribe {
        add(Question::Subscribe { subject: pattern.to_string(), queue: String::new() });
    }
    for caller in &grant.callers {
        if let CallerPattern::Workload(id) = caller {
            add(Question::Call { caller: id.to_string() });
        }
    }
}

/// What may be dialled for the destinations of a grant: one address that stands for all public ones, and what it opens beyond.
fn ranges(grant: &GrantEntry) -> Vec<Asking> {
    let mut all = Vec::new();
    for destination in &grant.http {
        let port = destination.port();
        let connect = |address: IpAddr| Question::HttpConnect {
            destination: url(destination),
            method: "GET".to_owned(),
            address: SocketAddr::new(address, port),
        };
        if let Some(literal) = destination.host().address() {
            all.push(Asking::new(connect(literal)));
            continue;
        }
        all.push(Asking::new(connect(IpAddr::V4(PUBLIC))));
        for range in &grant.addresses {
            let ends = range.ends();
            let Some((first, last)) = ends.first().zip(ends.last()) else { continue };
            let range = Range { destination: destination.clone(), range: *range, last: connect(*last) };
            all.push(Asking { question: connect(*first), range: Some(range) });
        }
    }
    all
}

impl Asking {
    pub(super) fn new(question: Question) -> Self {
        Self { question, range: None }
    }

    /// The question; of a range, the one about its first address.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// All that is asked.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        std::iter::once(&self.question).chain(self.range.as_ref().map(|range| &range.last))
    }

    /// Whether a grant of the component itself names the range.
    pub(super) fn is_own(&self, set: &PolicySet, component: &str) -> bool {
        self.range.as_ref().is_some_and(|range| {
            let opens = |grant: &GrantEntry| {
                grant.component == component
                    && grant.http.contains(&range.destination)
                    && grant.addresses.contains(&range.range)
            };
            set.grants().iter().any(opens)
        })
    }

    /// What it is asked about, as rows have it.
    pub(super) fn resource(&self) -> String {
        match (&self.question, &self.range) {
            (_, Some(range)) => format!("{} at {}", url(&range.destination), range.range),
            (Question::HttpConnect { destination, address, .. }, None) if address.ip() == IpAddr::V4(PUBLIC) => {
                format!("{destination} at public addresses")
            }
            (Question::HttpConnect { destination, address, .. }, None) => format!("{destination} at {}", address.ip()),
            (question, None) => question.resource(),
        }
    }

    fn rank(&self) -> (usize, String) {
        let order = ["load", "link", "call", "http.send", "http.connect", "svid.jwt"];
        let place = order.iter().position(|action| *action == self.question.action()).unwrap_or(order.len());
        (place, format!("{} {}", self.question.action(), self.resource()))
    }
}

impl PartialOrd for Asking {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Asking {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}
