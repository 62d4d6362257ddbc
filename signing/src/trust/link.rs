//! Delegations that a signer makes itself, outside of the trust policy: a signed statement that hands a part of its own
//! delegation to another signer. It travels beside the evidence.
//!
//! A link counts only where the policy lets its maker hand on, to this kind of signer, so deep; only as far as it narrows; and
//! only until it ends. Whoever vouches for many signers counts once where several must sign, and lends them its own group.

use serde::{Deserialize, Serialize};

use super::delegation::Delegation;
use super::identity::SignerId;
use super::policy::TrustPolicy;
use super::signer::{Signer, SignerEntry};
use super::{check, identity::SignerIdentity};
use crate::bundle::{Bundle, Material};
use crate::envelope::{Envelope, EnvelopeSignature, pae};
use crate::excerpt::Excerpt;
use crate::fields::Problems;
use crate::json;
use crate::key::SecretKey;
use crate::limits::{BUNDLE_BYTES, DELEGATION_DEPTH};
use crate::refusal::{Refusal, RefusalCode};

/// The DSSE payload type of delegations by signers.
pub const DELEGATION_TYPE: &str = "application/vnd.portcullis.delegation.v1+json";

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    /// The signer that makes it, so that it cannot be taken for another one's.
    from: SignerId,
    /// The signer that it is for.
    signer: SignerEntry,
}

/// Signers that may count: those of the policy, and those that they vouch for in accepted links.
#[derive(Debug, Clone)]
pub(crate) struct Signers {
    known: Vec<Known>,
}

/// One of them, with all that bounds it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    entry: SignerEntry,
    /// Name, ID and delegation of each signer above it, nearest first.
    above: Vec<(String, SignerId, Delegation)>,
    anchor: String,
    /// The links that led to it, as they were made; the one by a signer of the policy first.
    links: Vec<SignerEntry>,
}

/// Signs a delegation of a part of `key`'s own to `entry`: the JSON of a bundle.
pub fn sign_delegation(entry: &SignerEntry, key: &SecretKey) -> Result<Vec<u8>, Refusal> {
    let invalid = |what: String| Refusal::new(RefusalCode::DelegationInvalid, what, "correct the delegation");
    check_entry(entry).map_err(invalid)?;
    let public = key.public().require(crate::KeyKind::Signer).map_err(|error| invalid(error.to_string()))?;
    let link = Link { from: public.into(), signer: entry.clone() };
    let internal = |error: serde_json::Error| invalid(error.to_string());
    let payload = serde_json::to_vec(&link).map_err(internal)?;
    let signature = EnvelopeSignature { keyid: String::new(), sig: key.sign(&pae(DELEGATION_TYPE, &payload)).to_vec() };
    let envelope = Envelope::new(DELEGATION_TYPE, payload, vec![signature]);
    Bundle::new(public.to_string(), envelope).to_json().map_err(internal)
}

fn check_entry(entry: &SignerEntry) -> Result<(), String> {
    let mut problems = Problems::default();
    check::signer("signer", entry, &mut problems);
    if entry.parent.is_some() {
        problems.add("signer.parent", "is who signs the delegation, and not named in it");
    }
    if entry.group.is_some() {
        problems.add("signer.group", "is that of the signer who delegates");
    }
    if entry.delegation.not_after.is_none() {
        problems.add("signer.delegation.notAfter", "is missing: a delegation outside of the policy must end");
    }
    let problems = problems.into_vec();
    if problems.is_empty() {
        return Ok(());
    }
    Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

impl Signers {
    /// The signers of the policy, each with the chain that leads to the roots.
    pub(crate) fn of(policy: &TrustPolicy) -> Self {
        let entries = policy.signers();
        let known = entries.iter().map(|entry| {
            let mut above = Vec::new();
            let mut next = entry.parent.as_deref();
            // INVARIANT: chains were checked when the policy was loaded; they are short and end.
            while let Some(parent) = next.and_then(|name| entries.iter().find(|other| other.name == name)) {
                above.push((parent.name.clone(), parent.identity.id(), parent.delegation.clone()));
                next = parent.parent.as_deref().filter(|_| above.len() < DELEGATION_DEPTH);
            }
            Known { entry: entry.clone(), above, anchor: entry.name.clone(), links: Vec::new() }
        });
        Self { known: known.collect() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.known.iter()
    }

    /// Where a signer stands: those of the policy first, in its order.
    pub(crate) fn position(&self, signer: &Signer) -> usize {
        self.known.iter().position(|known| known.name() == signer.name()).unwrap_or(usize::MAX)
    }

    /// A signer that counted before, as it is known now: these are the signers of a policy, and `links` were accepted once.
    pub(crate) fn again(&self, signer: &Signer, links: &[SignerEntry]) -> Result<Known, Refusal> {
        let refuse = |name: &str, what: &str| {
            let message = format!("the signer `{name}` is {what}");
            Refusal::new(RefusalCode::SignerUnknown, message, "have a trusted signer sign").detail("signer", [name])
        };
        let anchor = signer.anchor();
        let mut known = self
            .known
            .iter()
            .find(|known| known.name() == anchor)
            .cloned()
            .ok_or_else(|| refuse(anchor, "not in the trust policy any more"))?;
        // The signer of the policy made the first link with the key that it had.
        let own = if links.is_empty() { Some(signer.id()) } else { signer.id_above(anchor) };
        if !own.is_some_and(|id| known.entry.identity.id().means(id)) {
            return Err(refuse(anchor, "somebody else in the trust policy now"));
        }
        for link in links {
            let id = link.identity.id();
            if self.known.iter().any(|known| known.entry.identity.id() == id) {
                return Err(refuse(signer.name(), "a signer of its own in the trust policy now"));
            }
            known = known.narrow(link.clone())?;
        }
        if !known.entry.identity.id().means(signer.id()) {
            return Err(refuse(signer.name(), "somebody else in the trust policy now"));
        }
        Ok(known)
    }

    /// Takes in those of `links` that count; the refusals of the others.
    pub(crate) fn extend(&mut self, links: &[&Bundle], trust: &TrustPolicy) -> Vec<Refusal> {
        let mut open: Vec<&Bundle> = links.to_vec();
        let mut refusals = Vec::new();
        // One round for each level: a link may be about the maker of another one.
        for _ in 0..DELEGATION_DEPTH {
            let mut left = Vec::new();
            refusals.clear();
            for link in open {
                match self.accept(link, trust) {
                    Ok(known) => self.known.push(known),
                    Err(refusal) => {
                        left.push(link);
                        refusals.push(refusal);
                    }
                }
            }
            open = left;
        }
        refusals
    }

    fn accept(&self, bundle: &Bundle, trust: &TrustPolicy) -> Result<Known, Refusal> {
        let refuse = |code, what: String, hint: &'static str| Refusal::new(code, what, hint);
        let (Material::Key(hint), Some(envelope)) = (bundle.material(), bundle.envelope()) else {
            let what = "a delegation must be signed with a key".to_owned();
            return Err(refuse(RefusalCode::DelegationInvalid, what, "make it with `portcullis trust delegate`"));
        };
        let made = |known: &&Known| {
            known.entry.identity.key().is_some_and(|key| {
                (hint.is_empty() || key.matches_hint(hint))
                    && envelope.signatures().iter().any(|one| key.verify(&envelope.signed_bytes(), &one.sig))
            })
        };
        let Some(maker) = self.known.iter().find(made) else {
            let what = format!("a delegation was not signed by a signer that is known here (`{}`)", Excerpt(hint));
            return Err(refuse(
                RefusalCode::DelegationUnsigned,
                what,
                "hand over the delegations of its maker as well, or have a trusted signer make it",
            ));
        };
        let invalid = |what: String| {
            refuse(RefusalCode::DelegationInvalid, what, "make the delegation again with `portcullis trust delegate`")
        };
        let value = json::parse(envelope.payload(), BUNDLE_BYTES).map_err(|error| invalid(error.to_string()))?;
        let link: Link = serde_json::from_value(value)
            .map_err(|error| invalid(format!("a delegation is malformed: {}", Excerpt(&error.to_string()))))?;
        check_entry(&link.signer).map_err(|what| invalid(format!("a delegation is malformed: {what}")))?;
        if link.from != maker.entry.identity.id() {
            return Err(invalid(format!("a delegation was made by `{}`, not by `{}`", maker.name(), link.from)));
        }
        let id = link.signer.identity.id();
        if self.known.iter().any(|known| known.entry.identity.id() == id) {
            return Err(invalid(format!("the signer `{}` of a delegation is known already", Excerpt(id.as_str()))));
        }
        let (root, domain) = link.signer.identity.needs();
        let pinned = root.is_none_or(|root| trust.document().sigstore_roots().contains_key(root))
            && domain.is_none_or(|domain| trust.document().spiffe_bundles().contains_key(domain));
        if !pinned {
            return Err(invalid("a delegation needs a trusted root or SPIFFE bundle that is not pinned".to_owned()));
        }
        maker.narrow(link.signer)
    }
}

impl Known {
    /// The signer that this one may vouch for.
    fn narrow(&self, mut entry: SignerEntry) -> Result<Self, Refusal> {
        let (name, kind) = (self.name(), entry.identity.kind());
        let refuse = |code, what: String| {
            let hint = "have `onward` of the signer's delegation extended in the trust policy, or delegate less";
            Refusal::new(code, what, hint).detail("signer", [name])
        };
        let levels = self.above.len() + 2;
        if levels > DELEGATION_DEPTH {
            let what = format!("the delegation by `{name}` makes a chain longer than {DELEGATION_DEPTH} signers");
            return Err(refuse(RefusalCode::DelegationDepth, what));
        }
        let Some(onward) = &self.entry.delegation.onward else {
            return Err(refuse(RefusalCode::DelegationWidens, format!("`{name}` may not delegate to others")));
        };
        if !onward.kinds.contains(&kind) {
            let what = format!("`{name}` may not delegate to signers of the kind {kind}");
            return Err(refuse(RefusalCode::SignerKind, what));
        }
        let beyond = entry.delegation.beyond(&self.entry.delegation);
        if !beyond.is_empty() {
            let what = format!("the delegation is wider than that of `{name}`: {}", beyond.join(", "));
            return Err(refuse(RefusalCode::DelegationWidens, what).detail("beyond", beyond));
        }
        if let Some(role) = entry.roles.iter().find(|role| !self.entry.roles.contains(role)) {
            return Err(refuse(RefusalCode::DelegationWidens, format!("`{name}` has no role `{role}` to hand on")));
        }
        let links = self.links.iter().chain(std::iter::once(&entry)).cloned().collect();
        entry.group = Some(self.entry.group.clone().unwrap_or_else(|| self.entry.name.clone()));
        entry.name = format!("{name}/{}", entry.name);
        let own = (self.entry.name.clone(), self.entry.identity.id(), self.entry.delegation.clone());
        let above = std::iter::once(own).chain(self.above.iter().cloned()).collect();
        Ok(Self { entry, above, anchor: self.anchor.clone(), links })
    }

    pub(crate) fn name(&self) -> &str {
        &self.entry.name
    }

    pub(crate) fn identity(&self) -> &SignerIdentity {
        &self.entry.identity
    }

    pub(crate) fn links(&self) -> &[SignerEntry] {
        &self.links
    }

    /// Names and delegations from its own up to the roots: claims must fit into each of them, at every use.
    pub(crate) fn delegations(&self) -> impl Iterator<Item = (&str, &Delegation)> {
        let own = std::iter::once((self.entry.name.as_str(), &self.entry.delegation));
        own.chain(self.above.iter().map(|(name, _, delegation)| (name.as_str(), delegation)))
    }

    /// As it is named in decisions, recognised as `id`.
    pub(crate) fn signer(&self, id: SignerId) -> Signer {
        let chain = self.above.iter().map(|(name, id, _)| (name.clone(), id.clone())).collect();
        Signer::new(&self.entry, id, chain, &self.anchor)
    }
}
