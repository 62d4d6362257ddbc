//! The single steps of a verdict, in their order. Each knows one reason to refuse and says what to do about it.

use time::OffsetDateTime;

use super::{Context, EVIDENCE_COUNT, Refusal, RefusalCode};
use crate::bytes::ComponentBytes;
use crate::claims::Claims;
use crate::component::read_interfaces;
use crate::digest::Digest;
use crate::excerpt::Excerpt;
use crate::interface::Interfaces;
use crate::limits::{CLOCK_SKEW, EVIDENCE_BYTES};
use crate::statement::{AnyStatement, PAYLOAD_TYPE, Statement, StatementError};
use crate::timestamp;
use crate::trust::TrustPolicy;

pub(super) fn size(component: &ComponentBytes, trust: &TrustPolicy) -> Result<(), Refusal> {
    let (length, max) = (component.bytes().len() as u64, trust.max_component_size());
    if length <= max {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::ComponentTooLarge,
        format!("the component has {length} bytes, the trust policy allows {max}"),
        "make it smaller, or raise maxComponentSize in the trust policy",
    ))
}

pub(super) fn count(evidence: &[&[u8]]) -> Result<(), Refusal> {
    let too_many = |what: String| {
        Err(Refusal::new(RefusalCode::EvidenceTooMany, what, "hand over only the bundles of this component"))
    };
    if evidence.len() > EVIDENCE_COUNT {
        return too_many(format!(
            "there are {} pieces of evidence, at most {EVIDENCE_COUNT} are looked at",
            evidence.len()
        ));
    }
    let bytes: usize = evidence.iter().map(|piece| piece.len()).sum();
    if bytes > EVIDENCE_BYTES {
        return too_many(format!("the evidence has {bytes} bytes, at most {EVIDENCE_BYTES} are looked at"));
    }
    Ok(())
}

pub(super) fn no_evidence() -> Refusal {
    Refusal::new(
        RefusalCode::EvidenceNone,
        "there is no evidence who made this component",
        "sign it with `portcullis sign APP.wasm --claims F --key K`; evidence is looked for in APP.wasm.sigstore.json and --bundle",
    )
}

pub(super) fn statement(kind: &str, payload: &[u8]) -> Result<AnyStatement, Refusal> {
    if kind != PAYLOAD_TYPE {
        return Err(not_claims(format!("what is signed is a `{}`, not {PAYLOAD_TYPE}", Excerpt(kind))));
    }
    AnyStatement::parse(payload).map_err(|error| not_claims_but(&error))
}

pub(super) fn claims_statement(statement: AnyStatement) -> Result<Statement, Refusal> {
    statement.try_into().map_err(|error: StatementError| not_claims_but(&error))
}

fn not_claims_but(error: &StatementError) -> Refusal {
    match error {
        StatementError::Subjects(_) => {
            Refusal::new(RefusalCode::ClaimsSubjects, error.to_string(), "attest each file with a statement of its own")
        }
        StatementError::Json(_)
        | StatementError::Form(_)
        | StatementError::Type(_)
        | StatementError::PredicateType(_) => not_claims(error.to_string()),
    }
}

fn not_claims(message: String) -> Refusal {
    Refusal::new(
        RefusalCode::ClaimsType,
        message,
        "attest component claims: `portcullis sign APP.wasm --claims F --key K`",
    )
}

pub(super) fn subject(claimed: &Digest, actual: &Digest) -> Result<(), Refusal> {
    if claimed == actual {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::ClaimsDigest,
        format!("the file is {actual}, the claims were signed for {claimed}"),
        "the file was changed after it was signed, or this bundle belongs to another one: fetch the signed file, or sign this one",
    )
    .detail("claimed", [claimed]))
}

pub(super) fn claims(statement: Statement) -> Result<Claims, Refusal> {
    Claims::from_value(statement.into_predicate()).map_err(|error| {
        Refusal::new(RefusalCode::ClaimsMalformed, error.to_string(), "correct the claims and sign again")
            .detail("problems", error.problems())
    })
}

pub(super) fn times(claims: &Claims, now: OffsetDateTime) -> Result<(), Refusal> {
    let starts = claims.not_before().max(claims.issued_at());
    if now.saturating_add(CLOCK_SKEW) < starts {
        let message = format!("the claims hold from {}, it is {}", timestamp::format(starts), timestamp::format(now));
        return Err(Refusal::new(RefusalCode::TimeNotYet, message, "wait, or check the clock of this machine"));
    }
    if now >= claims.expires_at() { Err(expired(claims.expires_at(), now)) } else { Ok(()) }
}

pub(super) fn expired(at: OffsetDateTime, now: OffsetDateTime) -> Refusal {
    let ago = now - at;
    let message =
        format!("the claims expired at {}, it is {} ({ago} later)", timestamp::format(at), timestamp::format(now));
    Refusal::new(RefusalCode::TimeExpired, message, "sign again with a later expiresAt; the component needs no rebuild")
}

pub(super) fn audience(claims: &Claims, audience: &str) -> Result<(), Refusal> {
    if claims.audience().iter().any(|own| own.as_str() == audience) {
        return Ok(());
    }
    let listed = claims.audience().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(Refusal::new(
        RefusalCode::ClaimsAudience,
        format!("the claims are for {}, this cluster is `{}`", Excerpt(&listed), Excerpt(audience)),
        "sign claims whose `audience` names this cluster",
    ))
}

pub(super) fn revision(claims: &Claims, ctx: &Context<'_>) -> Result<(), Refusal> {
    let (name, revision) = (claims.name(), claims.revision());
    if let Some(floor) = ctx.trust.floor(name, ctx.audience)
        && revision < floor
    {
        return Err(Refusal::new(
            RefusalCode::RevisionFloor,
            format!("revision {revision} of `{name}` is below the floor {floor} of the trust policy"),
            "deploy a newer revision",
        ));
    }
    match (ctx.highest_seen)(name, ctx.audience) {
        Ok(Some(seen)) if revision < seen && !ctx.trust.allows_rollback(claims, ctx.audience) => Err(Refusal::new(
            RefusalCode::RevisionRolledBack,
            format!("revision {revision} of `{name}` is older than revision {seen}, which ran here before"),
            "deploy a newer revision; a deliberate rollback needs an entry in allowRevisions of the signed trust policy",
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(Refusal::new(
            RefusalCode::RevisionUnknown,
            error.to_string(),
            "restore or repair the state directory; until then nothing can be shown not to be rolled back",
        )),
    }
}

pub(super) fn interfaces(bytes: &[u8], claims: &Claims) -> Result<Interfaces, Refusal> {
    let found = read_interfaces(bytes)
        .map_err(|error| Refusal::new(RefusalCode::ClaimsNotComponent, error.to_string(), error.hint()))?;
    let hidden = claims.hidden_imports(&found.imports);
    if hidden.is_empty() {
        return Ok(found);
    }
    let listed = hidden.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(Refusal::new(
        RefusalCode::ClaimsImports,
        format!("the component imports what its claims do not name: {listed}"),
        "add the imports to the claims and sign again, or remove them from the component",
    )
    .detail("imports", hidden))
}
