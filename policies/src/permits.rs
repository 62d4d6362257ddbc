//! Grants as Cedar permits: few templates, and for each permit what it fills in. No policy text is ever put together from values.
//!
//! Permits of one component that say the same are one permit that stands for several grants, so a decision costs the same
//! however many grants name one thing. A template is made through Cedar's JSON form and strictly validated, with one permit
//! linked to it, before anything is decided by it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use cedar_policy::{EntityUid, PolicyId, PolicySet, SlotId, Template};
use serde_json::{Value, json};

use crate::address::{AddressClass, AddressRange};
use crate::allowed::Allowed;
use crate::decide::{Action, Engine, Meta};

/// All permits of a set, in the order of the grants.
#[derive(Debug, Default)]
pub(crate) struct Permits {
    templates: Vec<(PolicyId, Template)>,
    permits: Vec<Permit>,
}

/// One permit: a template, what fills its slots, and the grants that it stands for.
#[derive(Debug)]
pub(crate) struct Permit {
    template: usize,
    pub(crate) action: Action,
    /// The component whose grants these are.
    pub(crate) component: Arc<str>,
    principal: EntityUid,
    /// The resource, where the scope names one.
    resource: Option<EntityUid>,
    /// Whether the scope admits that resource alone.
    exact: bool,
    allowed: Arc<Allowed>,
}

/// One side of a permit's scope.
#[derive(Debug)]
pub(crate) struct Scope {
    relation: Relation,
    kind: &'static str,
    id: String,
}

/// Under which addresses a permit holds: public ones, and these.
pub(crate) type Addresses<'a> = &'a [AddressRange];

/// Collects the permits of grants.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    engine: &'a Engine,
    all: Permits,
    /// The grants of each permit so far.
    metas: Vec<Vec<Arc<Meta>>>,
    shapes: HashMap<Shape, usize>,
    same: HashMap<(usize, EntityUid, Option<EntityUid>), usize>,
    nothing: Arc<Allowed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Relation {
    Equals,
    In,
    Is,
}

/// Permits of one shape differ in ids alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Shape {
    action: Action,
    principal: (Relation, &'static str),
    resource: (Relation, &'static str),
    addresses: Option<Vec<AddressRange>>,
}

impl Scope {
    /// This very entity.
    pub(crate) fn equals(kind: &'static str, id: &str) -> Self {
        Self { relation: Relation::Equals, kind, id: id.to_owned() }
    }

    /// This entity and what lies in it.
    pub(crate) fn within(kind: &'static str, id: &str) -> Self {
        Self { relation: Relation::In, kind, id: id.to_owned() }
    }

    /// Whatever is of this type.
    pub(crate) fn is(kind: &'static str) -> Self {
        Self { relation: Relation::Is, kind, id: String::new() }
    }
}

impl<'a> Builder<'a> {
    pub(crate) fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            all: Permits::default(),
            metas: Vec::new(),
            shapes: HashMap::new(),
            same: HashMap::new(),
            nothing: Arc::new(Allowed::new(Vec::new())),
        }
    }

    /// Adds a permit of a grant, which must name its principal.
    pub(crate) fn add(
        &mut self,
        meta: &Arc<Meta>,
        component: &Arc<str>,
        action: Action,
        (principal, resource): (&Scope, &Scope),
        when: Option<Addresses<'_>>,
    ) -> Result<(), String> {
        let shape = Shape {
            action,
            principal: (principal.relation, principal.kind),
            resource: (resource.relation, resource.kind),
            addresses: when.map(<[AddressRange]>::to_vec),
        };
        if shape.principal.0 != Relation::Equals {
            return Err("a grant names its principal".to_owned());
        }
        let template = self.template(shape)?;
        let unknown = || "an entity type is missing".to_owned();
        let exact = resource.relation == Relation::Equals;
        let principal = self.engine.named(principal.kind, &principal.id).ok_or_else(unknown)?;
        let resource = match resource.relation {
            Relation::Equals | Relation::In => {
                Some(self.engine.named(resource.kind, &resource.id).ok_or_else(unknown)?)
            }
            Relation::Is => None,
        };
        match self.same.entry((template, principal.clone(), resource.clone())) {
            Entry::Occupied(same) => {
                let metas = self.metas.get_mut(*same.get()).ok_or("a permit is missing")?;
                // Grants come one after the other.
                if !metas.last().is_some_and(|last| Arc::ptr_eq(last, meta)) {
                    metas.push(Arc::clone(meta));
                }
            }
            Entry::Vacant(new) => {
                new.insert(self.all.permits.len());
                self.metas.push(vec![Arc::clone(meta)]);
                self.all.permits.push(Permit {
                    template,
                    action,
                    component: Arc::clone(component),
                    principal,
                    resource,
                    exact,
                    allowed: Arc::clone(&self.nothing),
                });
            }
        }
        Ok(())
    }

    /// All of them.
    pub(crate) fn finish(mut self) -> Permits {
        for (permit, metas) in self.all.permits.iter_mut().zip(self.metas) {
            permit.allowed = Arc::new(Allowed::new(metas));
        }
        self.all
    }

    fn template(&mut self, shape: Shape) -> Result<usize, String> {
        if let Some(known) = self.shapes.get(&shape) {
            return Ok(*known);
        }
        let number = self.all.templates.len();
        // Operators' ids have no slash.
        let id = PolicyId::new(format!("/template/{number}"));
        let template = Template::from_json(Some(id.clone()), shape.json()).map_err(|error| error.to_string())?;
        self.all.templates.push((id, template));
        self.shapes.insert(shape, number);
        Ok(number)
    }
}

impl Permits {
    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Permit> {
        self.permits.iter()
    }

    /// Puts a permit into a set, and its template where that is not there yet.
    pub(crate) fn link(&self, set: &mut PolicySet, number: usize) -> Result<(), String> {
        let permit = self.permits.get(number).ok_or("a permit is missing")?;
        let (id, template) = self.templates.get(permit.template).ok_or("a template is missing")?;
        if set.template(id).is_none() {
            set.add_template(template.clone()).map_err(|error| error.to_string())?;
        }
        let mut slots = HashMap::from([(SlotId::principal(), permit.principal.clone())]);
        slots.extend(permit.resource.clone().map(|resource| (SlotId::resource(), resource)));
        set.link(id.clone(), self.id(number), slots).map_err(|error| error.to_string())
    }

    /// The grants that a linked permit stands for.
    pub(crate) fn allowed(&self, id: &PolicyId) -> Option<&Arc<Allowed>> {
        let id: &str = id.as_ref();
        let (_, number) = id.rsplit_once('/')?;
        self.permits.get(number.parse::<usize>().ok()?).map(|permit| &permit.allowed)
    }

    /// One permit of each template.
    pub(crate) fn one_of_each(&self) -> Vec<usize> {
        let mut first = vec![None; self.templates.len()];
        for (number, permit) in self.permits.iter().enumerate() {
            if let Some(slot) = first.get_mut(permit.template) {
                slot.get_or_insert(number);
            }
        }
        first.into_iter().flatten().collect()
    }

    /// The first grant's id and a number: a slash is in no id that an operator can choose.
    fn id(&self, number: usize) -> PolicyId {
        let permit = self.permits.get(number);
        let grant = permit.and_then(|permit| permit.allowed.metas().first()).map_or("", |meta| meta.id.as_str());
        PolicyId::new(format!("{grant}/{number}"))
    }
}

impl Permit {
    /// The one resource that its scope admits.
    pub(crate) fn only_resource(&self) -> Option<&EntityUid> {
        self.resource.as_ref().filter(|_| self.exact)
    }
}

impl Shape {
    fn json(&self) -> Value {
        let side = |(relation, kind): (Relation, &str), slot: &str| match relation {
            Relation::Equals => json!({ "op": "==", "slot": slot }),
            Relation::In => json!({ "op": "in", "slot": slot }),
            Relation::Is => json!({ "op": "is", "entity_type": format!("Host::{kind}") }),
        };
        let when = self.addresses.as_deref().map(address_condition);
        let conditions: Vec<Value> = when.map(|body| json!({ "kind": "when", "body": body })).into_iter().collect();
        json!({
            "effect": "permit",
            "principal": side(self.principal, "?principal"),
            "action": { "op": "==", "entity": { "type": "Host::Action", "id": self.action.name() } },
            "resource": side(self.resource, "?resource"),
            "conditions": conditions,
        })
    }
}

fn address_condition(ranges: &[AddressRange]) -> Value {
    let context = |attribute: &str| json!({ ".": { "left": { "Var": "context" }, "attr": attribute } });
    let mut classes = vec![json!({ "Value": AddressClass::Public.name() })];
    let mut nets = Vec::new();
    for range in ranges {
        match range {
            AddressRange::Class(class) => classes.push(json!({ "Value": class.name() })),
            AddressRange::Net(_) => {
                nets.push(json!({ "isInRange": [context("ip"), { "ip": [{ "Value": range.to_string() }] }] }));
            }
        }
    }
    let of_class = json!({ "contains": { "left": { "Set": classes }, "right": context("class") } });
    nets.into_iter().fold(of_class, |left, right| json!({ "||": { "left": left, "right": right } }))
}
