//! What an operator may see: authorities, identities, peers. Nothing of it is secret, and nothing of it is decided here.

use portcullis_identity::source::SourceStatus;
use portcullis_identity::{AuthorityStatus, NextAction};

use super::keeper::{Instance, Keeper, Stop, failed};
use crate::clock;
use crate::identity_report::{AuthorityReport, IdentityReport, NextReport, Shown};

impl Keeper {
    /// Everything that `identity show` prints.
    pub(super) fn show(&self) -> Result<Shown, Stop> {
        let state = self.now_published();
        let (trust_domain, authorities, next) = {
            let issuer = self.issuer()?;
            // With a source outside of this host our own authorities sign nothing: they are not to be shown as if they did.
            let builtin = self.issues_itself();
            let authorities = if builtin { issuer.authorities() } else { Vec::new() };
            let next = if builtin { issuer.next_actions(clock::now()) } else { Vec::new() };
            (issuer.trust_domain().to_string(), authorities, next)
        };
        let mut identities: Vec<_> = self.table()?.iter().map(|(name, held)| identity(name, held)).collect();
        identities.sort_by(|one, other| (&one.component, &one.instance).cmp(&(&other.component, &other.instance)));
        // Before the table below: what it locks stays locked to the end of that expression.
        let mut problems = [self.problems(), self.peer_problems()].concat();
        let outside = self.outside();
        problems.extend(outside.as_ref().and_then(source_problem));
        problems.dedup();
        if let Some(status) = &outside {
            self.report(status);
        }
        let poisoned = |_| failed("internal", "poisoned");
        Ok(Shown {
            trust_domain,
            bundle_sequence: state.sequence,
            svid_epoch: state.svid_epoch,
            policy_generation: self.policy.lock().map_err(|_| failed("internal", "poisoned"))?.generation(),
            authorities: authorities.iter().map(authority).collect(),
            next: next.iter().map(next_action).collect(),
            identities,
            revoked: state.revoked.spiffe_ids.iter().map(ToString::to_string).collect(),
            peers: self.peers.lock().map_err(poisoned)?.clone(),
            source: self.source.lock().map_err(|_| failed("internal", "poisoned"))?.clone(),
            problems,
        })
    }

    /// What keeps this process from its work, one line each: a host with one of these is not ready.
    pub(super) fn problems(&self) -> Vec<String> {
        let trouble = self.trouble.lock().ok().and_then(|trouble| trouble.clone());
        // Through an outage what is held serves on; without anything that serves the host is not ready.
        let source = self.outside().filter(|status| status.held == 0).and_then(|status| source_problem(&status));
        trouble.into_iter().chain(source).collect()
    }

    /// How a source outside of this host does. INVARIANT: asks nothing of the built-in issuer, whose lock the caller may hold.
    fn outside(&self) -> Option<SourceStatus> {
        (!self.issues_itself()).then(|| self.identities.status())
    }

    /// Trust domains that cannot be verified. A host is ready without them: two that federate with each other could never start.
    fn peer_problems(&self) -> Vec<String> {
        let peers = self.peers.lock().map(|peers| peers.clone()).unwrap_or_default();
        let without = peers.into_iter().filter(|peer| !peer.in_force);
        without
            .filter_map(|peer| Some(format!("there is no bundle of {} in force: {}", peer.trust_domain, peer.problem?)))
            .collect()
    }
}

/// Why a source outside of this host does not answer, if it does not.
fn source_problem(status: &SourceStatus) -> Option<String> {
    let why = status.problem.as_deref().unwrap_or("nothing was heard of it yet");
    (!status.connected).then(|| format!("the identity source {} does not answer: {why}", status.kind))
}

fn authority(status: &AuthorityStatus) -> AuthorityReport {
    AuthorityReport {
        kind: status.kind.name().to_owned(),
        id: status.id.to_string(),
        slot: status.slot.map(|slot| slot.to_string()),
        state: status.state.name().to_owned(),
        algorithm: status.algorithm.to_owned(),
        prepared_at: status.prepared_at.unix_timestamp(),
        activated_at: status.activated_at.map(|at| at.unix_timestamp()),
        not_after: status.not_after.unix_timestamp(),
        published_until: status.published_until.map(|at| at.unix_timestamp()),
        key_place: status.key_place.to_owned(),
        key_present: status.key_present,
    }
}

fn next_action(next: &NextAction) -> NextReport {
    NextReport {
        kind: next.kind.name().to_owned(),
        action: next.action.name().to_owned(),
        authority: next.id.as_ref().map(ToString::to_string),
        at: next.at.unix_timestamp(),
    }
}

fn identity(name: &str, held: &Instance) -> IdentityReport {
    IdentityReport {
        instance: name.to_owned(),
        component: held.facts.name.clone(),
        digest: held.facts.digest.clone(),
        spiffe_id: held.facts.spiffe_id.clone(),
        revoked: held.revoked,
        x509_not_after: held.x509_not_after,
        x509_minted: held.x509_minted,
        jwt_minted: held.jwt_minted,
    }
}
