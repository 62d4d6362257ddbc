//! Who has an identity, and under which policy: admission, stop, and new generations of the policy.

use std::sync::Arc;

use portcullis_identity::rpc::{AdmitRequest, PushPolicyRequest};
use portcullis_identity::source::Vouched;
use portcullis_identity::{InstanceId, Workload};
use portcullis_policies::ComponentFacts;

use super::keeper::{Instance, Keeper, Stop, failed};
use super::own;
use crate::policy::Pushed;

impl Keeper {
    pub(super) fn admit(&self, request: AdmitRequest) -> Result<(), Stop> {
        let refuse = |error: String| failed("not-admitted", &error);
        let workload = Workload {
            instance: request
                .instance
                .parse()
                .map_err(|error: portcullis_identity::InstanceIdError| refuse(error.to_string()))?,
            spiffe_id: request
                .spiffe_id
                .parse()
                .map_err(|error: portcullis_identity::SpiffeIdError| refuse(error.to_string()))?,
            digest: request.digest.clone(),
            component: request.component.clone(),
            exportable: request.exportable,
        };
        if workload.spiffe_id.path().starts_with(own::RESERVED) {
            return Err(refuse(format!("IDs below {} are the host's own", own::RESERVED)));
        }
        let facts = ComponentFacts {
            name: request.component,
            digest: request.digest,
            spiffe_id: request.spiffe_id,
            signer: request.signer,
            signer_group: request.signer_group,
            instance: request.instance.clone(),
        };
        // Both held until the instance is in the table, so that neither a new policy nor a revocation passes it by.
        let policy = self.policy.lock().map_err(|_| failed("internal", "poisoned"))?;
        let mut instances = self.table()?;
        let revoked = self.now_published().revoked.hold(&request.instance, &workload.spiffe_id);
        if !revoked {
            let vouched = Vouched { workload, signer: facts.signer.clone(), signer_group: facts.signer_group.clone() };
            self.identities.admit(vouched).map_err(|error| refuse(error.to_string()))?;
        }
        let slice = policy.slice(&facts);
        instances.insert(request.instance, Instance::new(facts, slice, revoked));
        self.note_change();
        Ok(())
    }

    /// Ends the identity of an instance; says whether there was one.
    pub(super) fn stop(&self, instance: &str) -> Result<bool, Stop> {
        if let Ok(mut instances) = self.instances.lock() {
            instances.remove(instance);
        }
        self.note_change();
        let unrecorded = self.rates.lock().map(|mut rates| rates.forget(instance)).unwrap_or_default();
        for refusals in unrecorded {
            tracing::warn!(
                instance,
                refused = refusals.refused,
                what = refusals.what.name(),
                "over the rate limit before its end"
            );
        }
        match instance.parse::<InstanceId>() {
            Ok(id) => Ok(self.identities.stop(&id)),
            Err(_) => Ok(false),
        }
    }

    pub(super) fn push_policy(self: &Arc<Self>, request: PushPolicyRequest) -> Result<u64, Stop> {
        let sources = request.sources.into_iter().map(|source| (source.name, source.kind, source.text));
        let audited = request.audited.into_iter().map(|audited| (audited.component, audited.until));
        let new =
            Pushed::compile(sources, audited, request.generation).map_err(|why| failed("invalid-policy", &why))?;
        let mut policy = self.policy.lock().map_err(|_| failed("internal", "poisoned"))?;
        if new.generation() <= policy.generation() {
            return Err(failed("stale-policy", "not a newer generation"));
        }
        let mut instances = self.instances.lock().map_err(|_| failed("internal", "poisoned"))?;
        for instance in instances.values_mut() {
            instance.slice = new.slice(&instance.facts);
        }
        let (keeper, generation) = (Arc::downgrade(self), new.generation());
        self.ending.follow(&new, move |component| {
            if let Some(keeper) = keeper.upgrade() {
                keeper.end_audit_mode(generation, component);
            }
        });
        *policy = Arc::new(new);
        self.note_change();
        Ok(request.generation)
    }

    /// The audit mode of a component is over: decides strictly from now on, if that policy is still in force.
    fn end_audit_mode(&self, generation: u64, component: &str) {
        let (Ok(mut policy), Ok(mut instances)) = (self.policy.lock(), self.instances.lock()) else { return };
        if policy.generation() != generation {
            return;
        }
        let strict = policy.without(component);
        for instance in instances.values_mut().filter(|instance| instance.facts.name == component) {
            instance.slice = strict.slice(&instance.facts);
        }
        *policy = Arc::new(strict);
        self.note_change();
        tracing::info!(component, "audit mode is over");
    }
}
