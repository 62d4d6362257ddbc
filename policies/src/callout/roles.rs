//! The compiled roles, and the one decision that they are for.

use std::collections::HashMap;
use std::fmt;

use cedar_policy::PolicySet;
use serde::Serialize;

use super::cedar::{self, Engine, Verdict};
use super::denial::{ConnectCode, ConnectDenial};
use super::facts::{AccountName, Accounts, ConnectFacts, CredentialKind};
use super::role::{self, Demand, Responses, Role};
use super::role_lint;
use super::who::{Captures, Match};
use crate::limits::{ROLES, SOURCE_BYTES, SOURCES};
use crate::source::{LoadError, LoadErrors, Source};
use crate::subject::SubjectPattern;
use crate::workload::WorkloadId;

/// A compiled set of roles.
pub struct Roles {
    generation: u64,
    accounts: Accounts,
    engine: Engine,
    roles: Vec<Compiled>,
    exact: HashMap<String, Vec<usize>>,
    templates: HashMap<String, Vec<usize>>,
    forbids: usize,
}

struct Compiled {
    role: Role,
    policies: PolicySet,
}

/// What somebody gets who may connect. Only [`Roles::decide`] makes it.
#[derive(Debug, Clone, Serialize)]
pub struct Placement {
    role: String,
    workload: WorkloadId,
    account: AccountName,
    publish: Vec<SubjectPattern>,
    subscribe: Vec<SubscribeRight>,
    responses: Option<Responses>,
    lifetime: u64,
    captures: Captures,
    generation: u64,
}

/// A subject that may be subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubscribeRight {
    /// The subject.
    pub subject: SubjectPattern,
    /// The queue group that the subscription must be in.
    pub queue: Option<String>,
}

impl Roles {
    /// Compiles roles (TOML) and further `forbid`s (Cedar). One problem anywhere refuses the whole.
    pub fn compile(
        roles: &[Source],
        cedar: &[Source],
        accounts: Accounts,
        generation: u64,
    ) -> Result<Self, LoadErrors> {
        Self::compiled(roles, cedar, accounts, generation).map_err(LoadErrors::new)
    }

    fn compiled(
        sources: &[Source],
        cedar: &[Source],
        accounts: Accounts,
        generation: u64,
    ) -> Result<Self, Vec<LoadError>> {
        let whole = |message: String, hint: &str| vec![LoadError::whole("roles", message, hint)];
        let defect = |why: String| whole(why, "this is a defect of the product");
        if sources.len() + cedar.len() > SOURCES {
            return Err(whole(format!("more than {SOURCES} files"), "join files"));
        }
        if let Some(large) = sources.iter().chain(cedar).find(|source| source.text.len() > SOURCE_BYTES) {
            return Err(vec![LoadError::whole(&large.name, "larger than 8 MiB", "split the file")]);
        }
        let engine = Engine::new().map_err(defect)?;
        let (mut read, mut errors) = (Vec::new(), Vec::new());
        for source in sources {
            role::parse(source, &accounts).map_or_else(|all| errors.extend(all), |roles| read.extend(roles));
        }
        if read.len() > ROLES {
            errors.push(LoadError::whole("roles", format!("more than {ROLES} roles"), "use templates"));
        }
        let forbids = cedar::forbids(&engine, cedar).unwrap_or_else(|all| {
            errors.extend(all);
            Vec::new()
        });
        errors.extend(collisions(&read));
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut set = Self {
            generation,
            accounts,
            engine,
            roles: Vec::new(),
            exact: HashMap::new(),
            templates: HashMap::new(),
            forbids: forbids.len(),
        };
        for role in read {
            let permit = cedar::permit(&role).map_err(|why| defect(format!("role {}: {why}", role.id())))?;
            let policies = PolicySet::from_policies(forbids.iter().cloned().chain([permit]))
                .map_err(|error| whole(format!("role {}: {error}", role.id()), "ids are unique over all files"))?;
            set.engine.validate(&policies).map_err(|why| defect(format!("role {}: {why}", role.id())))?;
            let (index, key) = match role.who().is_exact() {
                true => (&mut set.exact, role.who().as_str()),
                false => (&mut set.templates, role.who().trust_domain()),
            };
            index.entry(key.to_owned()).or_default().push(set.roles.len());
            set.roles.push(Compiled { role, policies });
        }
        Ok(set)
    }

    /// Decides. The reason of a refusal is for the operator; the one who is refused learns nothing of it.
    pub fn decide(&self, facts: &ConnectFacts) -> Result<Placement, ConnectDenial> {
        let denied = |code, why: String| ConnectDenial::new(code, facts, self.generation, why);
        let (mut allowed, mut not_met, mut not_token) = (Vec::new(), None, None);
        let candidates = self.candidates(&facts.workload);
        let mut matching = Vec::new();
        for compiled in candidates {
            match compiled.role.who().matches(&facts.workload) {
                Match::Yes(captures) => matching.push((compiled, captures)),
                Match::NotToken(part) => not_token = Some((compiled, part)),
                Match::No => {}
            }
        }
        let patterns: Vec<String> = matching.iter().map(|(one, _)| one.role.who().as_str().to_owned()).collect();
        for (compiled, captures) in matching {
            let patterns = patterns.iter().map(String::as_str);
            let account = compiled.role.account();
            match self.engine.decide(&compiled.policies, facts, patterns, account, &self.accounts) {
                Verdict::Allowed => allowed.push((compiled, captures)),
                Verdict::NoRole => not_met = not_met.or(Some(compiled)),
                Verdict::Forbidden(by) => {
                    return Err(denied(ConnectCode::Forbidden, format!("{} forbids it", by.join(", "))));
                }
                Verdict::Failed(errors) => {
                    return Err(denied(ConnectCode::CannotDecide, format!("policies failed: {}", errors.join("; "))));
                }
                Verdict::Unfit(why) => {
                    return Err(denied(ConnectCode::CannotDecide, format!("the question does not fit: {why}")));
                }
            }
        }
        let mut allowed = allowed.into_iter();
        match (allowed.next(), allowed.next()) {
            (Some((one, _)), Some((two, _))) => {
                let why = format!("two roles give it, {} and {}", one.role.id(), two.role.id());
                Err(denied(ConnectCode::Ambiguous, why)
                    .fix("make one of them narrower: kinds, types, sources, credential"))
            }
            (Some((compiled, captures)), None) => self.placement(&compiled.role, captures, facts),
            (None, _) => Err(match (not_met, not_token) {
                (Some(compiled), _) => self.condition(&compiled.role, facts),
                (None, Some((compiled, part))) => {
                    let why =
                        format!("the part {{{part}}} of its SPIFFE ID is no plain token and would change subjects");
                    denied(ConnectCode::NotToken, why)
                        .nearest(nearest(&compiled.role))
                        .fix("use 1 to 63 of a-z, 0-9 and - in that part of the SPIFFE ID, or write an exact role")
                }
                (None, None) => denied(ConnectCode::NoRole, "no role names it (default deny)".to_owned())
                    .fix("add a [[role]] with this SPIFFE ID in `who`"),
            }),
        }
    }

    /// Whether some role names this SPIFFE ID at all: whoever none names any more has no business being connected.
    pub fn names(&self, workload: &WorkloadId) -> bool {
        self.candidates(workload).any(|compiled| matches!(compiled.role.who().matches(workload), Match::Yes(_)))
    }

    /// The roles.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.iter().map(|compiled| &compiled.role)
    }

    /// The generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn candidates(&self, workload: &WorkloadId) -> impl Iterator<Item = &Compiled> {
        let exact = self.exact.get(workload.as_str()).into_iter().flatten();
        let templates = self.templates.get(workload.trust_domain()).into_iter().flatten();
        exact.chain(templates).filter_map(|n| self.roles.get(*n))
    }

    fn placement(&self, role: &Role, captures: Captures, facts: &ConnectFacts) -> Result<Placement, ConnectDenial> {
        let unfit = || {
            let why = "a subject of the role cannot be filled in with its SPIFFE ID".to_owned();
            ConnectDenial::new(ConnectCode::CannotDecide, facts, self.generation, why)
        };
        let publish: Option<Vec<SubjectPattern>> = role.publish().iter().map(|one| one.fill(&captures)).collect();
        let subscribe: Option<Vec<SubscribeRight>> = role
            .subscribe()
            .iter()
            .map(|(subject, queue)| {
                let queue = queue.as_ref().map(|queue| queue.as_str().to_owned());
                subject.fill(&captures).map(|subject| SubscribeRight { subject, queue })
            })
            .collect();
        Ok(Placement {
            role: role.id().to_owned(),
            workload: facts.workload.clone(),
            account: role.account().clone(),
            publish: publish.ok_or_else(unfit)?,
            subscribe: subscribe.ok_or_else(unfit)?,
            responses: role.responses(),
            lifetime: role.lifetime(),
            captures,
            generation: self.generation,
        })
    }

    /// Says which condition does not hold. Cedar has decided already: this only explains.
    fn condition(&self, role: &Role, facts: &ConnectFacts) -> ConnectDenial {
        let has = |kind| facts.credentials.contains(&kind);
        let (x509, jwt) = (has(CredentialKind::X509), has(CredentialKind::Jwt));
        let enough = match role.credential {
            Demand::X509 => x509,
            Demand::Jwt => jwt,
            Demand::Both => x509 && jwt,
            Demand::Either => x509 || jwt,
        };
        let ip = facts.ip.to_canonical();
        let (differs, fix) = if !role.kinds.contains(&facts.kind) {
            (format!("kind: it is a {}", facts.kind.name()), format!("add \"{}\" to `kinds`", facts.kind.name()))
        } else if !role.types.contains(&facts.connection) {
            let name = facts.connection.name();
            (format!("type: it came over {name}"), format!("add \"{name}\" to `types`"))
        } else if !role.sources.is_empty() && !role.sources.iter().any(|net| net.contains(&ip)) {
            (format!("source: {ip} is in none of its sources"), format!("add {ip} to `sources`"))
        } else if !enough {
            let demand = role.credential.name();
            (format!("credential: it demands {demand}"), format!("show what `credential = \"{demand}\"` demands"))
        } else {
            (
                "proof: no key that the token or the role names has signed the server's nonce".to_owned(),
                "request the token with the audience nkey:U.. of the client's nkey, or name that key in `nkeys`"
                    .to_owned(),
            )
        };
        ConnectDenial::new(ConnectCode::Condition, facts, self.generation, "a role names it, but not so")
            .nearest(format!("{}: all matches but {differs}", nearest(role)))
            .fix(fix)
    }
}

impl Placement {
    /// The role that gave it.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// Whose it is.
    pub fn workload(&self) -> &WorkloadId {
        &self.workload
    }

    /// Where.
    pub fn account(&self) -> &AccountName {
        &self.account
    }

    /// What may be published to. Empty: nothing.
    pub fn publish(&self) -> &[SubjectPattern] {
        &self.publish
    }

    /// What may be subscribed to. Empty: nothing.
    pub fn subscribe(&self) -> &[SubscribeRight] {
        &self.subscribe
    }

    /// How requests may be answered.
    pub fn responses(&self) -> Option<Responses> {
        self.responses
    }

    /// The longest that the connection may live, in seconds.
    pub fn lifetime(&self) -> u64 {
        self.lifetime
    }

    /// What the parts in braces stand for.
    pub fn captures(&self) -> &Captures {
        &self.captures
    }

    /// The generation of policy.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roles")
            .field("generation", &self.generation)
            .field("roles", &self.roles.len())
            .field("forbids", &self.forbids)
            .finish_non_exhaustive()
    }
}

fn nearest(role: &Role) -> String {
    let (source, line) = role.place();
    format!("role {}  {source}:{line}", role.id())
}

/// Ids that are there twice, and roles that could both be somebody's.
fn collisions(roles: &[Role]) -> Vec<LoadError> {
    let mut errors = Vec::new();
    let mut by_domain: HashMap<&str, Vec<&Role>> = HashMap::new();
    let mut ids: HashMap<&str, &Role> = HashMap::new();
    for role in roles {
        let (source, line) = role.place();
        if let Some(first) = ids.insert(role.id(), role) {
            let message = format!("the id `{}` is used already, by {}", role.id(), nearest(first));
            errors.push(LoadError::at_line(source, line, message, "ids are unique over all files"));
        }
        let others = by_domain.entry(role.who().trust_domain()).or_default();
        if let Some(other) = others.iter().find(|other| role_lint::collide(role, other)) {
            let message = format!("role {} and {} could both be somebody's", role.id(), nearest(other));
            errors.push(LoadError::at_line(
                source,
                line,
                message,
                "make one narrower: who, kinds, types, sources or credential",
            ));
        }
        others.push(role);
    }
    errors
}

#[cfg(test)]
mod tests;
