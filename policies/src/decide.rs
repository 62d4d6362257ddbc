//! One decision by Cedar. Allow is: Cedar says Allow, and no policy failed, and the request fits the schema. All else is not.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet,
    Request, RestrictedExpression, Schema,
};

use crate::shipped::SCHEMA;
use crate::workload::WorkloadId;

/// The actions of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Action {
    Load,
    Link,
    HttpSend,
    HttpConnect,
    SvidJwt,
    SvidX509,
    SvidValidate,
    IdentityRead,
    SvidSign,
    SvidExport,
    BundleRead,
    PeerRead,
    Call,
    Publish,
    Request,
    Subscribe,
}

/// The entity types of the schema that requests are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Type {
    TrustDomain,
    SignerGroup,
    Component,
    Workload,
    Anonymous,
    Image,
    WitPackage,
    WitInterface,
    DnsZone,
    Destination,
    Audience,
    Purpose,
    Subject,
}

/// Where a policy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Guard,
    Baseline,
    Grant,
    Raw,
}

/// What is known of a policy besides its text.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) reason: String,
    pub(crate) owner: String,
    pub(crate) source: String,
    pub(crate) line: usize,
    pub(crate) peer: Option<WorkloadId>,
    pub(crate) max_ttl: Option<u64>,
}

/// A policy that somebody wrote out, ready to be put into slices.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) policy: Policy,
    pub(crate) meta: Arc<Meta>,
    /// The actions that its scope admits.
    pub(crate) actions: Vec<Action>,
    /// The one component that its scope admits, where it names one.
    pub(crate) component: Option<String>,
}

/// What Cedar said, in our words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed(Vec<PolicyId>),
    NoGrant,
    Forbidden(Vec<PolicyId>),
    /// Policies that failed.
    Failed(Vec<String>),
    /// The request could not be made, or does not fit the schema.
    Unfit(String),
}

/// Schema, names and authorizer.
#[derive(Debug)]
pub(crate) struct Engine {
    schema: Schema,
    authorizer: Authorizer,
    types: Vec<EntityTypeName>,
    actions: Vec<EntityUid>,
    scopes: HashMap<EntityUid, Vec<Action>>,
}

impl Rule {
    /// Whether its scope admits an action, or one that is asked about on the way to it.
    pub(crate) fn concerns(&self, action: &str) -> bool {
        let first = if action == Action::HttpConnect.name() { Action::HttpSend.name() } else { action };
        self.actions.iter().any(|own| own.name() == action || own.name() == first)
    }
}

impl Action {
    pub(crate) const ALL: [Self; 16] = [
        Self::Load,
        Self::Link,
        Self::HttpSend,
        Self::HttpConnect,
        Self::SvidJwt,
        Self::SvidX509,
        Self::SvidValidate,
        Self::IdentityRead,
        Self::SvidSign,
        Self::SvidExport,
        Self::BundleRead,
        Self::PeerRead,
        Self::Call,
        Self::Publish,
        Self::Request,
        Self::Subscribe,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Link => "link",
            Self::HttpSend => "http.send",
            Self::HttpConnect => "http.connect",
            Self::SvidJwt => "svid.jwt",
            Self::SvidX509 => "svid.x509",
            Self::SvidValidate => "svid.validate",
            Self::IdentityRead => "identity.read",
            Self::SvidSign => "svid.sign",
            Self::SvidExport => "svid.export",
            Self::BundleRead => "bundle.read",
            Self::PeerRead => "peer.read",
            Self::Call => "call",
            Self::Publish => "publish",
            Self::Request => "request",
            Self::Subscribe => "subscribe",
        }
    }

    fn group(self) -> Option<&'static str> {
        match self {
            Self::HttpSend | Self::HttpConnect => Some("network"),
            Self::SvidJwt
            | Self::SvidX509
            | Self::SvidValidate
            | Self::IdentityRead
            | Self::SvidSign
            | Self::SvidExport
            | Self::BundleRead
            | Self::PeerRead => Some("identity"),
            Self::Publish | Self::Request | Self::Subscribe => Some("messaging"),
            Self::Load | Self::Link | Self::Call => None,
        }
    }
}

impl Type {
    const ALL: [(Self, &'static str); 13] = [
        (Self::TrustDomain, "Host::TrustDomain"),
        (Self::SignerGroup, "Host::SignerGroup"),
        (Self::Component, "Host::Component"),
        (Self::Workload, "Host::Workload"),
        (Self::Anonymous, "Host::Anonymous"),
        (Self::Image, "Host::Image"),
        (Self::WitPackage, "Host::WitPackage"),
        (Self::WitInterface, "Host::WitInterface"),
        (Self::DnsZone, "Host::DnsZone"),
        (Self::Destination, "Host::Destination"),
        (Self::Audience, "Host::Audience"),
        (Self::Purpose, "Host::Purpose"),
        (Self::Subject, "Host::Subject"),
    ];
}

impl Engine {
    /// The engine over the shipped schema.
    pub(crate) fn new() -> Result<Self, String> {
        let (schema, warnings) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| error.to_string())?;
        if let Some(warning) = warnings.into_iter().next() {
            return Err(warning.to_string());
        }
        let parse = |name: &str| name.parse::<EntityTypeName>().map_err(|error| error.to_string());
        let types: Vec<EntityTypeName> = Type::ALL.iter().map(|(_, name)| parse(name)).collect::<Result<_, _>>()?;
        let action_type = parse("Host::Action")?;
        let action = |name: &str| EntityUid::from_type_name_and_id(action_type.clone(), EntityId::new(name));
        let mut scopes: HashMap<EntityUid, Vec<Action>> = HashMap::new();
        for one in Action::ALL {
            for name in std::iter::once(one.name()).chain(one.group()) {
                scopes.entry(action(name)).or_default().push(one);
            }
        }
        Ok(Self {
            schema,
            authorizer: Authorizer::new(),
            types,
            actions: Action::ALL.iter().map(|one| action(one.name())).collect(),
            scopes,
        })
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The actions that an action or a group in a scope admits; nothing for one that the schema does not have.
    pub(crate) fn scope(&self, uid: &EntityUid) -> &[Action] {
        self.scopes.get(uid).map_or(&[], Vec::as_slice)
    }

    /// The component that a uid names, if it names one.
    pub(crate) fn component_of<'a>(&self, uid: &'a EntityUid) -> Option<&'a str> {
        let is_component = self.types.get(Type::Component as usize) == Some(uid.type_name());
        is_component.then(|| uid.id().unescaped())
    }

    /// A uid, its type by its name in the schema's namespace. `None` for a type that the host does not know.
    pub(crate) fn named(&self, kind: &str, id: &str) -> Option<EntityUid> {
        let (kind, _) = Type::ALL.iter().find(|(_, name)| name.strip_prefix("Host::") == Some(kind))?;
        self.uid(*kind, id)
    }

    /// Whether a uid is of a type.
    pub(crate) fn is(&self, kind: Type, uid: &EntityUid) -> bool {
        self.types.get(kind as usize) == Some(uid.type_name())
    }

    /// A uid. `None` only if the table of types were broken.
    pub(crate) fn uid(&self, kind: Type, id: &str) -> Option<EntityUid> {
        let kind = self.types.get(kind as usize)?.clone();
        Some(EntityUid::from_type_name_and_id(kind, EntityId::new(id)))
    }

    /// An entity with attributes.
    pub(crate) fn entity(
        &self,
        kind: Type,
        id: &str,
        attributes: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
        parents: impl IntoIterator<Item = EntityUid>,
    ) -> Result<Entity, String> {
        let uid = self.uid(kind, id).ok_or("an entity type is missing")?;
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let parents: HashSet<EntityUid> = parents.into_iter().collect();
        Entity::new(uid, attributes, parents).map_err(|error| error.to_string())
    }

    /// Asks Cedar. Sets of policies decide together as if they were one: what Cedar does with a policy depends on no other.
    pub(crate) fn decide<'p>(
        &self,
        policies: impl Iterator<Item = &'p PolicySet>,
        entities: &Entities,
        (principal, action, resource): (EntityUid, Action, EntityUid),
        context: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
    ) -> Verdict {
        let Some(action) = self.actions.get(action as usize).cloned() else {
            return Verdict::Unfit("an action is missing".to_owned());
        };
        let pairs = context.into_iter().map(|(name, value)| (name.to_owned(), value));
        let context = match Context::from_pairs(pairs) {
            Ok(context) => context,
            Err(error) => return Verdict::Unfit(error.to_string()),
        };
        let request = match Request::new(principal, action, resource, context, Some(&self.schema)) {
            Ok(request) => request,
            Err(error) => return Verdict::Unfit(error.to_string()),
        };
        let (mut failed, mut permits, mut forbids) = (Vec::new(), Vec::new(), Vec::new());
        for policies in policies {
            let response = self.authorizer.is_authorized(&request, policies, entities);
            failed.extend(response.diagnostics().errors().map(ToString::to_string));
            // The reasons of a denial are the policies that forbid; nobody's permit is among them.
            let by = response.diagnostics().reason().cloned();
            match response.decision() {
                Decision::Allow => permits.extend(by),
                Decision::Deny => forbids.extend(by),
            }
        }
        if !failed.is_empty() {
            // Cedar skips a policy that fails, guards included: then nothing is allowed.
            return Verdict::Failed(failed);
        }
        match (forbids.is_empty(), permits.is_empty()) {
            (false, _) => Verdict::Forbidden(forbids),
            (true, false) => Verdict::Allowed(permits),
            (true, true) => Verdict::NoGrant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_schema_is_read_without_a_warning_and_has_our_types_and_actions() {
        let engine = Engine::new().unwrap();
        for (kind, name) in Type::ALL {
            assert_eq!(engine.uid(kind, "x").unwrap().type_name().to_string(), name, "{kind:?}");
        }
        let in_schema: HashSet<String> = engine.schema.actions().map(|uid| uid.id().unescaped().to_owned()).collect();
        let ours = Action::ALL.iter().flat_map(|one| std::iter::once(one.name()).chain(one.group()));
        // Those of control are asked of no component's slice.
        let ours = ours.chain(crate::grants::ControlAction::ALL.map(|one| one.name())).chain([crate::control::GROUP]);
        assert_eq!(in_schema, ours.map(ToOwned::to_owned).collect());
        for (n, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, n);
        }
    }
}
