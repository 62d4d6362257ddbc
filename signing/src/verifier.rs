//! The verdict about one component: bytes and evidence in, [`Verified`] claims or a [`Refusal`] out.
//!
//! One order for the CLI, CI and the host; it is part of the contract. Each step fails closed:
//!
//! 1. the size of the bytes; their digest was computed while they were read
//! 2. each piece of evidence is a bundle of the accepted kind
//! 3. the signature, by a key that the trust policy names; the hint only selects candidates
//! 4. the verified payload, parsed once: statement, predicate type, one subject, its digest; then the claims
//! 5. the times, against the host's clock
//! 6. the signer's delegation: name, identity, cluster, imports, lifetime
//! 7. thresholds of signers: one is enough for now
//! 8. revision floor, highest revision seen, denials
//! 9. only now a parser sees the component: it must be one, and its imports must all be claimed
//!
//! No network, no clock, no files: everything comes in as an argument. One piece of evidence that passes is enough.

mod step;

use time::OffsetDateTime;

use crate::bundle;
use crate::bytes::ComponentBytes;
use crate::claims::Claims;
use crate::component_name::ComponentName;
use crate::digest::Digest;
use crate::interface::Interfaces;
use crate::limits::EVIDENCE_COUNT;
use crate::refusal::{Refusal, RefusalCode};
use crate::trust::TrustPolicy;
use crate::verified::Verified;

/// What a verdict depends on besides the component and its evidence.
#[expect(missing_debug_implementations, reason = "a borrowed closure has no Debug")]
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Who may speak for what.
    pub trust: &'a TrustPolicy,
    /// The name of this cluster.
    pub audience: &'a str,
    /// The time now.
    pub now: OffsetDateTime,
    /// The highest revision seen of a component in a cluster. An error refuses.
    pub highest_seen: HighestSeen<'a>,
}

/// Looks up the highest revision seen of a component in a cluster.
pub type HighestSeen<'a> = &'a (dyn Fn(&ComponentName, &str) -> Result<Option<u64>, HighWaterError> + 'a);

/// The highest revision seen cannot be read. We erred, or the disk did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the highest revision seen cannot be read: {0}")]
pub struct HighWaterError(pub String);

/// Verifies `component` with `evidence`: whole Sigstore bundles, in any order.
pub fn verify(component: &ComponentBytes, evidence: &[&[u8]], ctx: &Context<'_>) -> Result<Verified<Claims>, Refusal> {
    let about = |refusal: Refusal, others| refusal.about(component.digest(), ctx.trust.version(), others);
    ctx.trust.check_time(ctx.now).map_err(|error| about(error.into(), 0))?;
    step::size(component, ctx.trust).and_then(|()| step::count(evidence)).map_err(|refusal| about(refusal, 0))?;
    let mut furthest: Option<Refusal> = None;
    for bytes in evidence {
        match verify_one(component, bytes, ctx) {
            Ok(verified) => return Ok(verified),
            Err(refusal) => match &furthest {
                Some(other) if other.code() >= refusal.code() => {}
                _ => furthest = Some(refusal),
            },
        }
    }
    // INVARIANT: there was at least one piece of evidence and each was refused.
    Err(about(furthest.unwrap_or_else(step::no_evidence), evidence.len().saturating_sub(1)))
}

fn verify_one(component: &ComponentBytes, evidence: &[u8], ctx: &Context<'_>) -> Result<Verified<Claims>, Refusal> {
    let bundle = bundle::parse(evidence).map_err(step::evidence)?;
    let entry = step::signature(&bundle, ctx.trust)?;
    let payload = bundle.envelope().payload();
    let statement = step::statement(bundle.envelope())?;
    step::subject(statement.subject(), component.digest())?;
    let claims = step::claims(statement)?;
    step::times(&claims, ctx.now)?;
    step::audience(&claims, ctx.audience)?;
    entry.check(&claims, ctx.audience, ctx.now)?;
    let signer = entry.signer();
    step::revision(&claims, ctx)?;
    step::denied(component.digest(), &signer, &claims, ctx.trust)?;
    let interfaces: Interfaces = step::interfaces(component.bytes(), &claims)?;
    Ok(Verified::new(claims, component, Digest::of(payload), signer, ctx.trust, interfaces))
}
