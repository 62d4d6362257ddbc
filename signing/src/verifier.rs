//! The verdict about one component: bytes and evidence in, [`Verified`] claims or a [`Refusal`] out.
//!
//! One order for the CLI, CI and the host; it is part of the contract. Each step fails closed:
//!
//! 1. the trust policy and, where it demands one, the deny list are in force now
//! 2. the size of the bytes; their digest was computed while they were read
//! 3. each piece of evidence is of a kind that is accepted; delegations beside it narrow
//! 4. the signature, by a signer that the trust policy names; hints and certificates only select candidates
//! 5. the verified payload, parsed once: statement, predicate type, one subject, its digest; then the claims
//! 6. the times, against the host's clock
//! 7. the delegation of the signer and of everybody above it: name, identity, cluster, imports, lifetime
//! 8. what is denied, then thresholds of signers over the same claims, and further evidence
//! 9. revision floor, highest revision seen
//! 10. only now a parser sees the component: it must be one, and its imports must all be claimed
//!
//! No network, no clock, no files: everything comes in as an argument.

mod again;
mod attested;
mod checks;
mod piece;
mod signature;
mod step;

use time::OffsetDateTime;

use self::attested::Attested;
use self::piece::Piece;
use crate::bundle::Bundle;
use crate::bytes::ComponentBytes;
use crate::claims::Claims;
use crate::component_name::ComponentName;
use crate::digest::Digest;
use crate::limits::EVIDENCE_COUNT;
use crate::record::Report;
use crate::refusal::{Refusal, RefusalCode};
use crate::trust::{DenyList, DenyListError, Signer, Signers, TrustPolicy};
use crate::verified::{Signed, Verified};

/// What a verdict depends on besides the component and its evidence.
#[expect(missing_debug_implementations, reason = "a borrowed closure has no Debug")]
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Who may speak for what.
    pub trust: &'a TrustPolicy,
    /// What is denied besides. Where the trust policy demands a deny list and there is none here, everything is refused.
    pub deny_list: Option<&'a DenyList>,
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

/// A verdict with everything that was found on the way: what a dry run shows.
#[derive(Debug, Clone)]
pub struct Examination {
    /// The verdict, the same as that of [`verify`].
    pub verdict: Result<Verified<Claims>, Refusal>,
    /// Every reason against every piece of evidence and against the component, not the first; in order, each once. A
    /// component may be verified although some evidence beside it is refused.
    pub refusals: Vec<Refusal>,
}

/// Verifies `component` with `evidence`: bundles, delegations, signatures and what claims refer to, in any order.
pub fn verify(component: &ComponentBytes, evidence: &[&[u8]], ctx: &Context<'_>) -> Result<Verified<Claims>, Refusal> {
    judge(component, evidence, ctx, &mut Found::default())
}

/// Verifies, and lists all that would be refused: it goes on where [`verify`] stops.
pub fn examine(component: &ComponentBytes, evidence: &[&[u8]], ctx: &Context<'_>) -> Examination {
    let mut found = Found { goes_on: true, ..Found::default() };
    let verdict = judge(component, evidence, ctx, &mut found);
    let about = |refusal: Refusal| refusal.about(component.digest(), ctx.trust.version(), 0);
    let mut refusals: Vec<Refusal> = found.all.into_iter().map(about).collect();
    if let Err(refusal) = &verdict
        && !refusals.iter().any(|other| other.code() == refusal.code() && other.message() == refusal.message())
    {
        refusals.push(refusal.clone());
    }
    refusals.sort_by_key(Refusal::code);
    refusals.dedup();
    Examination { verdict, refusals }
}

fn judge(
    component: &ComponentBytes,
    evidence: &[&[u8]],
    ctx: &Context<'_>,
    found: &mut Found,
) -> Result<Verified<Claims>, Refusal> {
    decide(component, evidence, ctx, found).map_err(|refusal| {
        let others = found.pieces.saturating_sub(1);
        refusal.about(component.digest(), ctx.trust.version(), others)
    })
}

/// Whether what was verified before is still to be trusted: by a newer trust policy, a newer deny list. Expiry of the claims
/// is the host's to act on, and revisions seen since do not count.
pub fn recheck(
    verified: &Verified<Claims>,
    trust: &TrustPolicy,
    deny_list: Option<&DenyList>,
    audience: &str,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let never = |_: &ComponentName, _: &str| Ok(None);
    let ctx = Context { trust, deny_list, audience, now, highest_seen: &never };
    let about = |refusal: Refusal| refusal.about(verified.digest(), trust.version(), 0);
    let claims = verified.claims();
    let signers = Signers::of(trust);
    let mut counted: Vec<Signer> = Vec::new();
    for (position, signed) in verified.signed().enumerate() {
        match again::still(signed, verified, &signers, &ctx) {
            // Whoever signed first gave the component its standing with policies: without it nothing is left.
            Err(refusal) if position == 0 => return Err(about(refusal)),
            Ok(signer) if position == 0 && signer.group() != signed.signer.group() => {
                return Err(about(again::other_group(&signed.signer, &signer)));
            }
            Ok(signer) => counted.push(signer),
            // The thresholds say whether the others are enough.
            Err(_) => {}
        }
    }
    let counted: Vec<&Signer> = counted.iter().collect();
    // Further evidence was there when it was verified, and is not kept.
    let evidence: Vec<Digest> = claims.evidence().iter().map(|evidence| evidence.digest).collect();
    match checks::of_all(claims, &counted, &evidence, &ctx).into_iter().next() {
        Some(refusal) => Err(about(refusal)),
        None => Ok(()),
    }
}

/// What was refused on the way.
#[derive(Default)]
struct Found {
    /// Whether to look for further reasons after the first one against the same thing.
    goes_on: bool,
    /// The first reason against each piece of evidence, or against what some signers agree on.
    firsts: Vec<Refusal>,
    /// Every reason; the same unless it goes on.
    all: Vec<Refusal>,
    pieces: usize,
}

impl Found {
    /// Adds the reasons against one thing, as many as are wanted; whether there was one.
    fn against(&mut self, refusals: impl Iterator<Item = Refusal>) -> bool {
        let refusals: Vec<Refusal> = refusals.take(if self.goes_on { usize::MAX } else { 1 }).collect();
        self.firsts.extend(refusals.first().cloned());
        let any = !refusals.is_empty();
        self.all.extend(refusals);
        any
    }

    /// The reason that got furthest; of equal ones the first.
    fn furthest(&self) -> Refusal {
        let mut furthest: Option<&Refusal> = None;
        for refusal in &self.firsts {
            if furthest.is_none_or(|other| other.code() < refusal.code()) {
                furthest = Some(refusal);
            }
        }
        furthest.cloned().unwrap_or_else(step::no_evidence)
    }
}

fn decide(
    component: &ComponentBytes,
    evidence: &[&[u8]],
    ctx: &Context<'_>,
    found: &mut Found,
) -> Result<Verified<Claims>, Refusal> {
    in_force(ctx)?;
    step::size(component, ctx.trust)?;
    step::count(evidence)?;
    let mut signers = Signers::of(ctx.trust);
    let pieces = pieces(evidence, &mut signers, ctx, found);
    let handed_over = piece::digests(evidence);
    let mut attested = Vec::new();
    for piece in &pieces {
        keep(attested::read(piece, component, &signers, ctx), component, ctx, &mut attested, found);
    }
    if let Some(token) = attested::of_token(component, &signers, ctx) {
        found.pieces += 1;
        keep(token, component, ctx, &mut attested, found);
    }
    // Signers in the order of the trust policy: the order of the evidence is anybody's.
    attested.sort_by_key(|one| signers.position(one.signer()));
    while let Some(first) = attested.first() {
        let claims = first.claims.clone();
        let (same, rest): (Vec<_>, Vec<_>) = attested.into_iter().partition(|one| one.claims == claims);
        attested = rest;
        if let Some(verified) = agreed(claims, same, component, &handed_over, ctx, found) {
            return Ok(verified);
        }
    }
    Err(found.furthest())
}

fn in_force(ctx: &Context<'_>) -> Result<(), Refusal> {
    ctx.trust.check_time(ctx.now)?;
    match (ctx.trust.deny_list(), ctx.deny_list) {
        (Some(rule), Some(list)) => Ok(list.check_time(rule, ctx.now)?),
        (Some(_), None) => Err(DenyListError::Missing.into()),
        (None, _) => Ok(()),
    }
}

/// The pieces of evidence by their form; delegations are taken in.
fn pieces<'a>(evidence: &[&'a [u8]], signers: &mut Signers, ctx: &Context<'_>, found: &mut Found) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut delegations: Vec<Bundle> = Vec::new();
    for bytes in evidence {
        match piece::read(bytes) {
            Ok(Piece::Delegation(bundle)) => delegations.push(bundle),
            Ok(piece) => pieces.push(piece),
            Err(refusal) => {
                found.against(std::iter::once(refusal));
            }
        }
    }
    found.pieces = evidence.len();
    let links: Vec<&Bundle> = delegations.iter().collect();
    for refusal in signers.extend(&links, ctx.trust) {
        found.against(std::iter::once(refusal));
    }
    pieces
}

/// Keeps claims against which nothing speaks so far.
fn keep<'a>(
    read: Result<Attested<'a>, Refusal>,
    component: &ComponentBytes,
    ctx: &Context<'_>,
    attested: &mut Vec<Attested<'a>>,
    found: &mut Found,
) {
    match read {
        Err(refusal) => {
            found.against(std::iter::once(refusal));
        }
        Ok(one) => {
            let report = Report::new(&one.claims, &one.signed.statement, [one.signer()]);
            let against = checks::of_one(&one, component, ctx).map(|refusal| refusal.reporting(report.clone()));
            if !found.against(against) {
                attested.push(one);
            }
        }
    }
}

/// The proof about claims that some signers agree on, or nothing where something speaks against them.
fn agreed(
    claims: Claims,
    same: Vec<Attested<'_>>,
    component: &ComponentBytes,
    handed_over: &[Digest],
    ctx: &Context<'_>,
    found: &mut Found,
) -> Option<Verified<Claims>> {
    let signers: Vec<&Signer> = same.iter().map(Attested::signer).collect();
    let report = Report::new(&claims, &same.first()?.signed.statement, signers.iter().copied());
    let against = checks::of_all(&claims, &signers, handed_over, ctx);
    let refused = found.against(against.into_iter().map(|refusal| refusal.reporting(report.clone())));
    if refused && !found.goes_on {
        return None;
    }
    // INVARIANT: only a dry run parses a component against which something speaks already, and it gives no proof of it.
    let interfaces = match step::interfaces(component.bytes(), &claims) {
        Ok(interfaces) if !refused => interfaces,
        Ok(_) => return None,
        Err(refusal) => {
            let refusal = refusal.reporting(report);
            // The reasons against the same claims have their first one already.
            if refused {
                found.all.push(refusal);
            } else {
                found.against(std::iter::once(refusal));
            }
            return None;
        }
    };
    let mut signed = same.into_iter().map(|one| one.signed);
    let first = signed.next()?;
    let mut others: Vec<Signed> = Vec::new();
    for one in signed {
        if one.signer != first.signer && !others.iter().any(|other| other.signer == one.signer) {
            others.push(one);
        }
    }
    Some(Verified::new(claims, component, (first, others), (ctx.trust, ctx.deny_list), interfaces))
}
