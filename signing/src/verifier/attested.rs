//! From a piece of evidence to claims with a signer: what was signed, about which file, and what it says.

use time::OffsetDateTime;

use super::piece::Piece;
use super::signature::{self, Signature};
use super::{Context, Refusal, RefusalCode, step};
use crate::bytes::ComponentBytes;
use crate::claims::Claims;
use crate::cosign::{CosignError, CosignEvidence};
use crate::digest::Digest;
use crate::excerpt::Excerpt;
use crate::statement::{AnyStatement, PROVENANCE_TYPE};
use crate::trust::{About, Known, Origin, OriginEvidence, Signer, SignerIdentity, Signers};
use crate::verified::{Proof, Signed};
use crate::wascap::{self, TokenClaims, TokenError};

/// Claims and who vouches for them. Signature, subject and form are verified; what they are worth is not yet decided.
pub(super) struct Attested<'a> {
    pub(super) claims: Claims,
    pub(super) signed: Signed,
    pub(super) known: &'a Known,
}

impl Attested<'_> {
    pub(super) fn signer(&self) -> &Signer {
        &self.signed.signer
    }

    /// What a denial may be about.
    pub(super) fn about<'b>(&'b self, digest: &'b Digest) -> About<'b> {
        About {
            digest,
            statement: &self.signed.statement,
            signer: &self.signed.signer,
            claims: &self.claims,
            signed_at: self.signed.at,
        }
    }
}

/// Reads one piece of evidence.
pub(super) fn read<'a>(
    piece: &Piece<'_>,
    component: &ComponentBytes,
    signers: &'a Signers,
    ctx: &Context<'_>,
) -> Result<Attested<'a>, Refusal> {
    match piece {
        Piece::Bundle(bundle, bytes) => {
            let signature = signature::of_bundle(bundle, bytes, component, signers, ctx)?;
            of_signature(signature, component, ctx)
        }
        Piece::Cosign(evidence) => of_cosign(evidence, component, signers, ctx),
        // INVARIANT: delegations were taken out before.
        Piece::Delegation(_) => Err(step::no_evidence()),
    }
}

fn of_signature<'a>(
    signature: Signature<'a>,
    component: &ComponentBytes,
    ctx: &Context<'_>,
) -> Result<Attested<'a>, Refusal> {
    let Some((kind, payload)) = &signature.envelope else {
        // A signature over the file itself names no other subject.
        let statement = *component.digest();
        let found = origin(&signature.signer, component, ctx, |origin| match origin.evidence {
            OriginEvidence::Signature {} => Some(Ok(())),
            _ => None,
        });
        return supplied(found?, signature, statement, ctx);
    };
    let statement = step::statement(kind, payload)?;
    let digest = Digest::of(payload);
    // Provenance is not partly right: it counts where the trust policy says what it is worth, else it is no claims.
    let takes_provenance = |origin: &&Origin| {
        origin.signer == signature.signer.name() && matches!(origin.evidence, OriginEvidence::Provenance(_))
    };
    let origins = ctx.trust.document().origins();
    if statement.predicate_type() == PROVENANCE_TYPE && origins.iter().any(|origin| takes_provenance(&origin)) {
        return of_provenance(signature, &statement, digest, component, ctx);
    }
    let statement = step::claims_statement(statement)?;
    step::subject(statement.subject(), component.digest())?;
    let claims = step::claims(statement)?;
    let at = Some(signature.at.unwrap_or(claims.issued_at()));
    Ok(attested(claims, signature, digest, at, None))
}

fn of_provenance<'a>(
    signature: Signature<'a>,
    statement: &AnyStatement,
    digest: Digest,
    component: &ComponentBytes,
    ctx: &Context<'_>,
) -> Result<Attested<'a>, Refusal> {
    if !statement.is_about(component.digest()) {
        return Err(Refusal::new(
            RefusalCode::ClaimsDigest,
            format!("the file is {}, the provenance is about others", component.digest()),
            "the file was changed after it was built, or this bundle belongs to another one",
        ));
    }
    let found = origin(&signature.signer, component, ctx, |origin| match &origin.evidence {
        OriginEvidence::Provenance(wanted) => Some(wanted.differs(statement.predicate()).map_or(Ok(()), Err)),
        _ => None,
    });
    supplied(found?, signature, digest, ctx)
}

fn of_cosign<'a>(
    evidence: &CosignEvidence,
    component: &ComponentBytes,
    signers: &'a Signers,
    ctx: &Context<'_>,
) -> Result<Attested<'a>, Refusal> {
    let (known, signer) = signature::by_key("", signers, |key| evidence.is_signed_by(key))?;
    let subject = evidence.subject().map_err(|error| {
        let code = match error {
            CosignError::Json(_) | CosignError::Form(_) | CosignError::Payload(_) => RefusalCode::EvidenceMalformed,
            CosignError::Manifest(_) => RefusalCode::CosignManifest,
            CosignError::OtherManifest { .. } => RefusalCode::ClaimsDigest,
        };
        Refusal::new(code, error.to_string(), "sign the manifest of the component itself, and pull it by its digest")
    })?;
    step::subject(&subject, component.digest())?;
    let found = origin(&signer, component, ctx, |origin| match origin.evidence {
        OriginEvidence::Cosign {} => Some(Ok(())),
        _ => None,
    });
    let signature = Signature { known, signer, at: None, proof: Proof::Key, envelope: None };
    supplied(found?, signature, evidence.digest(), ctx)
}

/// The token embedded in the component, where the trust policy opted in to any such.
pub(super) fn of_token<'a>(
    component: &ComponentBytes,
    signers: &'a Signers,
    ctx: &Context<'_>,
) -> Option<Result<Attested<'a>, Refusal>> {
    let wanted = |origin: &&Origin| matches!(origin.evidence, OriginEvidence::Wascap { .. });
    ctx.trust.document().origins().iter().find(wanted)?;
    match wascap::find(component.bytes()) {
        // Files without a token are judged by the evidence beside them.
        Err(TokenError::None | TokenError::File) => None,
        Err(error) => Some(Err(token_refused(&error))),
        Ok(token) => Some(of_found_token(&token, component, signers, ctx)),
    }
}

fn of_found_token<'a>(
    token: &wascap::Token,
    component: &ComponentBytes,
    signers: &'a Signers,
    ctx: &Context<'_>,
) -> Result<Attested<'a>, Refusal> {
    let issuer = token.issuer();
    let opted_in =
        |known: &&Known| {
            known.identity() == &SignerIdentity::from(*issuer)
                && ctx.trust.document().origins().iter().any(|origin| {
                    matches!(origin.evidence, OriginEvidence::Wascap { .. }) && origin.signer == known.name()
                })
        };
    let Some(known) = signers.iter().find(opted_in) else {
        return Err(Refusal::new(
            RefusalCode::SignerUnknown,
            format!("the trust policy takes no embedded tokens of the issuer {issuer}"),
            "sign the component with `portcullis sign`, or add an origin for this issuer to the trust policy",
        )
        .detail("key", [issuer]));
    };
    let token_claims = token.verify(issuer).map_err(|error| token_refused(&error))?;
    let signer = known.signer(known.identity().id());
    let found = origin(&signer, component, ctx, |origin| match &origin.evidence {
        OriginEvidence::Wascap { subject: None } => Some(Ok(())),
        OriginEvidence::Wascap { subject: Some(subject) } if *subject == token_claims.subject => Some(Ok(())),
        OriginEvidence::Wascap { .. } => {
            Some(Err(format!("the subject of the token is {}", Excerpt(&token_claims.subject))))
        }
        _ => None,
    })?;
    let TokenClaims { not_before, expires_at, .. } = token_claims;
    let from = ctx.trust.document().issued_at();
    let not_before = not_before.map_or(from, |at| at.max(from));
    let expires_at = expires_at.map_or(found.expires_at, |at| at.min(found.expires_at));
    if ctx.now >= expires_at {
        return Err(step::expired(expires_at, ctx.now));
    }
    let signature = Signature { known, signer, at: None, proof: Proof::Key, envelope: None };
    with_times(found, signature, token.digest(), (from, not_before, expires_at))
}

fn token_refused(error: &TokenError) -> Refusal {
    let (code, hint) = match error {
        TokenError::None | TokenError::File => (RefusalCode::EvidenceNone, "sign the component with `portcullis sign`"),
        TokenError::Several(_) => (RefusalCode::TokenSeveral, "remove all token sections and sign again"),
        TokenError::NotLast => (RefusalCode::TokenNotLast, "something was added after the token: sign again"),
        TokenError::Encoding => (RefusalCode::TokenEncoding, "the file was changed after it was signed: sign again"),
        TokenError::Malformed(_) | TokenError::Algorithm(_) => {
            (RefusalCode::TokenMalformed, "sign the component with `portcullis sign`")
        }
        TokenError::Issuer(_) => (RefusalCode::SignerUnknown, "only account keys (A...) issue tokens that count"),
        TokenError::Signature => (RefusalCode::SignatureBad, "the token was changed after it was signed"),
        TokenError::Hash => (RefusalCode::TokenHash, "the token belongs to another file, or the file was changed"),
    };
    Refusal::new(code, error.to_string(), hint)
}

/// The claims that the trust policy supplies for evidence of this signer: the first origin that fits. `fits` says nothing
/// of an origin for other evidence.
fn origin<'a>(
    signer: &Signer,
    component: &ComponentBytes,
    ctx: &Context<'a>,
    fits: impl Fn(&Origin) -> Option<Result<(), String>>,
) -> Result<&'a Origin, Refusal> {
    let mut differs = None;
    for origin in ctx.trust.document().origins() {
        if origin.signer != signer.name() || origin.digest.is_some_and(|digest| digest != *component.digest()) {
            continue;
        }
        match fits(origin) {
            Some(Ok(())) => return Ok(origin),
            Some(Err(what)) => differs = Some(what),
            None => {}
        }
    }
    Err(match differs {
        Some(what) => Refusal::new(
            RefusalCode::OriginProvenance,
            format!("the evidence of `{}` is not what the trust policy demands: {what}", signer.name()),
            "build with what the trust policy names, or change the origin in the trust policy",
        ),
        None => Refusal::new(
            RefusalCode::OriginUnknown,
            format!(
                "the evidence of `{}` proves where the file comes from, and the trust policy supplies no claims for it",
                signer.name()
            ),
            "add an origin to the trust policy, or attest claims: `portcullis sign APP.wasm --claims F --key K`",
        ),
    }
    .detail("signer", [signer.name()]))
}

fn supplied<'a>(
    origin: &Origin,
    signature: Signature<'a>,
    statement: Digest,
    ctx: &Context<'_>,
) -> Result<Attested<'a>, Refusal> {
    let from = signature.at.unwrap_or(ctx.trust.document().issued_at());
    if ctx.now >= origin.expires_at || from >= origin.expires_at {
        return Err(step::expired(origin.expires_at, ctx.now));
    }
    with_times(origin, signature, statement, (from, from, origin.expires_at))
}

fn with_times<'a>(
    origin: &Origin,
    signature: Signature<'a>,
    statement: Digest,
    (from, not_before, expires_at): (OffsetDateTime, OffsetDateTime, OffsetDateTime),
) -> Result<Attested<'a>, Refusal> {
    let claims = origin.claims(from, not_before, expires_at).map_err(|error| {
        Refusal::new(RefusalCode::ClaimsMalformed, error.to_string(), "correct the origin in the trust policy")
    })?;
    // The time from which the policy lets them hold is nobody's word about when it was signed.
    let at = signature.at;
    Ok(attested(claims, signature, statement, at, Some(origin.clone())))
}

fn attested<'a>(
    claims: Claims,
    signature: Signature<'a>,
    statement: Digest,
    at: Option<OffsetDateTime>,
    origin: Option<Origin>,
) -> Attested<'a> {
    let Signature { known, signer, proof, .. } = signature;
    let signed = Signed { signer, links: known.links().to_vec(), statement, at, proof, origin };
    Attested { claims, signed, known }
}
