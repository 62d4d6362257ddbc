//! Whether a signer that counted would count now, under a newer trust policy or deny list: everything that made it count is
//! asked again, but what only a new load is asked. Expiry is the host's to act on, and revisions seen since do not count.

use super::{Context, Refusal, RefusalCode, Signed, checks, signature};
use crate::claims::Claims;
use crate::trust::{About, Signer, Signers};
use crate::verified::Verified;

/// The signer as it is known now, or why it does not count any more.
pub(super) fn still(
    signed: &Signed,
    verified: &Verified<Claims>,
    signers: &Signers,
    ctx: &Context<'_>,
) -> Result<Signer, Refusal> {
    let (claims, file) = (verified.claims(), verified.digest());
    let denied = |signer: &Signer| {
        let about = About { digest: file, statement: &signed.statement, signer, claims, signed_at: signed.at };
        checks::denied(&about, ctx)
    };
    denied(&signed.signer)?;
    let known = signers.again(&signed.signer, &signed.links)?;
    let signer = known.signer(signed.signer.id().clone());
    denied(&signer)?;
    signature::still_proves(&signed.proof, known.identity(), file, ctx)?;
    for (name, delegation) in known.delegations() {
        delegation.check(name, claims, ctx.audience, ctx.now)?;
    }
    if let Some(before) = &signed.origin {
        let mut origins = ctx.trust.document().origins().iter();
        if !origins.any(|origin| origin.still_supplies(before, file, ctx.audience, ctx.now)) {
            return Err(Refusal::new(
                RefusalCode::OriginUnknown,
                format!("the trust policy does not supply these claims for evidence of `{}` any more", signer.name()),
                "add the origin to the trust policy again, or attest claims",
            )
            .detail("signer", [signer.name()]));
        }
    }
    Ok(signer)
}

/// Grants were for the group that the signer had.
pub(super) fn other_group(before: &Signer, now: &Signer) -> Refusal {
    let message =
        format!("the signer `{}` is in the group `{}` now, not in `{}`", now.name(), now.group(), before.group());
    Refusal::new(RefusalCode::SignerUnknown, message, "start the component again: it gets the grants of its new group")
        .detail("signer", [now.name()])
}
