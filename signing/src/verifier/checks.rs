//! Whether claims with a signer hold here and now, one by one; and whether enough signers say the same.

use super::attested::Attested;
use super::{Context, Refusal, RefusalCode, step};
use crate::bytes::ComponentBytes;
use crate::claims::Claims;
use crate::digest::Digest;
use crate::trust::{About, RoleThreshold, Signer};

/// Every reason against what one signer says, in the order of the verifier.
pub(super) fn of_one<'a>(
    one: &'a Attested<'_>,
    component: &'a ComponentBytes,
    ctx: &'a Context<'_>,
) -> impl Iterator<Item = Refusal> + 'a {
    let times = std::iter::once_with(|| step::times(&one.claims, ctx.now));
    let audience = std::iter::once_with(|| step::audience(&one.claims, ctx.audience));
    let authority =
        one.known.delegations().map(|(name, delegation)| delegation.check(name, &one.claims, ctx.audience, ctx.now));
    let denied = std::iter::once_with(|| denied(&one.about(component.digest()), ctx));
    times.chain(audience).chain(authority).chain(denied).filter_map(Result::err)
}

/// Every reason against claims that some signers agree on.
pub(super) fn of_all<'a>(
    claims: &'a Claims,
    signers: &[&Signer],
    handed_over: &[Digest],
    ctx: &'a Context<'_>,
) -> Vec<Refusal> {
    let about = ctx.trust.document().requirements().iter().filter(|requirement| requirement.is_about(claims));
    let mut refusals = Vec::new();
    for requirement in about {
        refusals.extend(requirement.all.iter().filter_map(|part| threshold(part, claims, signers)));
        refusals.extend(requirement.evidence.iter().filter_map(|kind| further(kind, claims, handed_over)));
    }
    refusals.extend(step::revision(claims, ctx).err());
    refusals
}

fn threshold(part: &RoleThreshold, claims: &Claims, signers: &[&Signer]) -> Option<Refusal> {
    // Distinct signers, not distinct keys or bundles: whoever vouches for others counts once with them, and so does whoever is
    // recognised under several entries.
    let mut counted: Vec<&Signer> = Vec::new();
    for signer in signers.iter().filter(|signer| signer.roles().contains(&part.role)) {
        if !counted.iter().any(|other| other.anchor() == signer.anchor() || other.id().is_same_as(signer.id())) {
            counted.push(signer);
        }
    }
    if counted.len() >= part.k {
        return None;
    }
    let (k, role, name, found) = (part.k, &part.role, claims.name(), counted.len());
    Some(
        Refusal::new(
            RefusalCode::SignerThreshold,
            format!("`{name}` needs {k} signers of the role `{role}` for the same claims, {found} signed"),
            "have the others sign the same claims file, and hand over all bundles",
        )
        .detail("role", [role])
        .detail("signed", counted.iter().map(|signer| signer.anchor())),
    )
}

/// Further evidence that the claims must name, with the file itself.
fn further(kind: &str, claims: &Claims, handed_over: &[Digest]) -> Option<Refusal> {
    let named: Vec<_> = claims.evidence().iter().filter(|evidence| evidence.predicate_type == kind).collect();
    let refuse = |what: String, hint: &str| {
        Some(Refusal::new(RefusalCode::ClaimsEvidence, what, hint).detail("predicateType", [crate::Excerpt(kind)]))
    };
    if named.is_empty() {
        return refuse(
            format!("the trust policy demands evidence of the type {}, the claims name none", crate::Excerpt(kind)),
            "sign with `--provenance` or `--sbom FILE`",
        );
    }
    match named.iter().find(|evidence| !handed_over.contains(&evidence.digest)) {
        None => None,
        Some(missing) => refuse(
            format!(
                "the claims name evidence of the type {} with the digest {}, which is not here",
                crate::Excerpt(kind),
                missing.digest
            ),
            "hand the file over with --bundle, unchanged",
        ),
    }
}

/// Refuses what the trust policy or the deny list denies.
pub(super) fn denied(about: &About<'_>, ctx: &Context<'_>) -> Result<(), Refusal> {
    let by_policy = ctx.trust.denied(about).map(|what| ("trust policy", what));
    let found = by_policy.or_else(|| ctx.deny_list.and_then(|list| list.denied(about)).map(|what| ("deny list", what)));
    match found {
        None => Ok(()),
        Some((by, what)) => Err(Refusal::new(
            RefusalCode::Revoked,
            format!("the {by} denies {what}"),
            "deploy something that is not revoked; the author of the trust policy knows why it is",
        )
        .detail("signer", [about.signer.name()])),
    }
}
