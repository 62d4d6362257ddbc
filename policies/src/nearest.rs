//! The grant that comes closest to what was refused, and what it differs in. For the operator only.

use std::collections::HashMap;

use serde::Serialize;

use crate::asked::Asked;
use crate::destination::{Destination, Host};
use crate::grants::GrantEntry;
use crate::shown;
use crate::subject::SubjectPattern;

/// A grant that nearly matches.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Nearest {
    pub(crate) id: String,
    pub(crate) place: String,
    pub(crate) differs: String,
}

/// The grants of a set, findable by what refusals ask for.
#[derive(Debug, Default)]
pub(crate) struct Index {
    grants: Vec<GrantEntry>,
    by_component: HashMap<String, Vec<usize>>,
    by_host: HashMap<Host, Vec<usize>>,
    by_audience: HashMap<String, Vec<usize>>,
    by_subject: HashMap<String, Vec<usize>>,
}

impl Index {
    pub(crate) fn new(grants: Vec<GrantEntry>) -> Self {
        let mut index = Self::default();
        for (n, grant) in grants.iter().enumerate() {
            index.by_component.entry(grant.component.clone()).or_default().push(n);
            for destination in &grant.http {
                index.by_host.entry(destination.host().clone()).or_default().push(n);
            }
            for audience in &grant.audiences {
                index.by_audience.entry(audience.clone()).or_default().push(n);
            }
            for (_, patterns) in subjects(grant) {
                for pattern in patterns {
                    index.by_subject.entry(pattern.to_string()).or_default().push(n);
                }
            }
        }
        Self { grants, ..index }
    }

    pub(crate) fn grants(&self) -> &[GrantEntry] {
        &self.grants
    }

    pub(crate) fn of_component(&self, component: &str) -> impl Iterator<Item = &GrantEntry> {
        self.by_component.get(component).into_iter().flatten().filter_map(|n| self.grants.get(*n))
    }

    /// The nearest grant to what a component asked, the best match first, then the first in the files.
    pub(crate) fn nearest(&self, component: &str, asked: &Asked) -> Option<Nearest> {
        let own = self.by_component.get(component).into_iter().flatten().map(|n| (true, *n));
        let others = match asked {
            Asked::HttpSend { destination, .. } | Asked::HttpConnect { destination, .. } => {
                self.by_host.get(destination.host())
            }
            Asked::SvidJwt { audience, .. } => self.by_audience.get(audience),
            Asked::Publish { subject } | Asked::Request { subject } | Asked::Subscribe { subject, .. } => {
                self.by_subject.get(subject)
            }
            _ => None,
        };
        let others = others.into_iter().flatten().map(|n| (false, *n));
        let candidates = own.take(CANDIDATES).chain(others.take(CANDIDATES));
        let mut best: Option<(u32, Nearest)> = None;
        for (is_own, n) in candidates {
            let Some(grant) = self.grants.get(n).filter(|grant| is_own || grant.component != component) else {
                continue;
            };
            let Some((score, differs)) = (if is_own { near(grant, asked) } else { foreign(grant, asked) }) else {
                continue;
            };
            if best.as_ref().is_none_or(|(most, _)| score > *most) {
                let place = format!("{}:{}", shown::inside(&grant.source, 128), grant.line);
                best = Some((score, Nearest { id: grant.id.clone(), place, differs }));
            }
        }
        best.map(|(_, nearest)| nearest)
    }
}

/// How near a grant of the same component comes.
fn near(grant: &GrantEntry, asked: &Asked) -> Option<(u32, String)> {
    match asked {
        Asked::Load { .. } => Some((1, "all matches but load (not true)".to_owned())),
        Asked::Link { name, .. } => {
            let package = name.as_ref()?.package();
            let link = crate::grants::cedar::links(grant);
            let same = link
                .iter()
                .find(|link| link.to_string().strip_prefix(package).is_some_and(|rest| rest.starts_with('/')));
            match same {
                Some(link) => Some((
                    2,
                    format!("same package, another interface (grant: {})", shown::outside(&link.to_string(), 128)),
                )),
                None => Some((1, "same component, other permissions".to_owned())),
            }
        }
        Asked::HttpSend { destination, .. } => {
            let ranked = grant.http.iter().map(|own| (rank(own, destination), own));
            let (rank, own) = ranked.reduce(|best, next| if next.0 > best.0 { next } else { best })?;
            Some((rank, differs(own, destination)))
        }
        Asked::HttpConnect { destination, address, .. } => match grant.http.contains(destination) {
            true => {
                let granted: Vec<String> = std::iter::once("public".to_owned())
                    .chain(grant.addresses.iter().map(ToString::to_string))
                    .collect();
                let granted = shown::outside(&granted.join(", "), 128);
                Some((9, format!("all matches but the address {} (grant: {granted})", address.ip())))
            }
            false => None,
        },
        Asked::SvidJwt { .. } => {
            let audience = grant.audiences.first()?;
            Some((1, format!("all matches but the audience (grant: {})", shown::outside(audience, 128))))
        }
        Asked::SvidSign { .. } => {
            let purpose = grant.purposes.first()?;
            Some((1, format!("all matches but the purpose (grant: {})", shown::outside(purpose, 128))))
        }
        Asked::SvidX509 { .. } | Asked::Identity(_) => {
            let right = grant.identity.first()?;
            Some((1, format!("all matches but the right (grant: {})", right.name())))
        }
        Asked::Call { .. } => {
            let caller = grant.callers.first()?;
            Some((1, format!("all matches but the caller (grant: {})", shown::outside(caller.name(), 200))))
        }
        Asked::Publish { subject } | Asked::Request { subject } | Asked::Subscribe { subject, .. } => {
            near_subject(grant, asked.action().name(), subject)
        }
    }
}

/// How near a grant of another component comes: only the very same resource counts.
fn foreign(grant: &GrantEntry, asked: &Asked) -> Option<(u32, String)> {
    let same = match asked {
        Asked::HttpSend { destination, .. } | Asked::HttpConnect { destination, .. } => {
            grant.http.contains(destination)
        }
        Asked::SvidJwt { audience, .. } => grant.audiences.contains(audience),
        Asked::Publish { subject } | Asked::Request { subject } | Asked::Subscribe { subject, .. } => {
            let action = asked.action().name();
            let of_action = subjects(grant).into_iter().filter(|(own, _)| *own == action);
            of_action.flat_map(|(_, patterns)| patterns).any(|own| own.as_str() == subject)
        }
        Asked::Load { .. }
        | Asked::Link { .. }
        | Asked::SvidX509 { .. }
        | Asked::SvidSign { .. }
        | Asked::Identity(_)
        | Asked::Call { .. } => false,
    };
    same.then(|| (FOREIGN, format!("all matches but the component (grant: {})", shown::outside(&grant.component, 128))))
}

/// The subjects of a grant, by action.
fn subjects(grant: &GrantEntry) -> [(&'static str, &[SubjectPattern]); 3] {
    [("publish", &grant.publish), ("request", &grant.request), ("subscribe", &grant.subscribe)]
}

/// The same subject for another action, then subjects of this action that begin alike.
fn near_subject(grant: &GrantEntry, action: &str, subject: &str) -> Option<(u32, String)> {
    let asked = subject.parse::<SubjectPattern>().ok()?;
    let alike = |own: &SubjectPattern| {
        own.as_str().split('.').zip(subject.split('.')).take_while(|(one, two)| one == two).count()
    };
    let mut best: Option<(u32, String)> = None;
    for (own_action, patterns) in subjects(grant) {
        for own in patterns {
            let shown = shown::outside(own.as_str(), 128);
            let found = match own_action == action {
                true => {
                    let score = 1 + u32::try_from(alike(own)).unwrap_or(0).min(15);
                    let what = if own.overlaps(&asked) { "covers only a part of it" } else { "another subject" };
                    (score, format!("{what} (grant: {action} {shown})"))
                }
                false if own.covers_all_of(&asked) => {
                    (20, format!("all matches but the action (grant: {own_action} {shown})"))
                }
                false => continue,
            };
            if best.as_ref().is_none_or(|(score, _)| found.0 > *score) {
                best = Some(found);
            }
        }
    }
    best
}

fn rank(own: &Destination, asked: &Destination) -> u32 {
    let score = |same: bool, weight: u32| if same { weight } else { 0 };
    // Below a grant of another component for the very same destination, unless the host is the same.
    1 + score(own.host() == asked.host(), 4)
        + score(own.port() == asked.port(), 1)
        + score(own.scheme() == asked.scheme(), 1)
}

fn differs(own: &Destination, asked: &Destination) -> String {
    let own_text = shown::outside(&own.to_string(), 300);
    if own.host() != asked.host() {
        return format!("another host (grant: {own_text})");
    }
    let parts = [("scheme", own.scheme() != asked.scheme()), ("port", own.port() != asked.port())];
    let parts: Vec<&str> = parts.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    match parts.is_empty() {
        true => format!("same destination; another condition of the grant fails (grant: {own_text})"),
        false => format!("all matches but the {} (grant: {own_text})", parts.join(" and ")),
    }
}

/// Grants looked at for one refusal.
const CANDIDATES: usize = 256;
/// Rank of the same resource granted to another component.
const FOREIGN: u32 = 4;
