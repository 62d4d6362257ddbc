//! The single steps of a verdict, in their order. Each knows one reason to refuse and says what to do about it.

use time::OffsetDateTime;

use super::{Context, EVIDENCE_COUNT, Refusal, RefusalCode};
use crate::bundle::{Bundle, BundleError};
use crate::bytes::ComponentBytes;
use crate::claims::Claims;
use crate::component::read_interfaces;
use crate::digest::Digest;
use crate::envelope::Envelope;
use crate::excerpt::Excerpt;
use crate::interface::Interfaces;
use crate::limits::CLOCK_SKEW;
use crate::statement::{PAYLOAD_TYPE, Statement};
use crate::timestamp;
use crate::trust::{Signer, SignerEntry, TrustPolicy};

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
    match evidence.len() {
        0 => Err(no_evidence()),
        1..=EVIDENCE_COUNT => Ok(()),
        count => Err(Refusal::new(
            RefusalCode::EvidenceTooMany,
            format!("there are {count} pieces of evidence, at most {EVIDENCE_COUNT} are looked at"),
            "hand over only the bundles of this component",
        )),
    }
}

pub(super) fn no_evidence() -> Refusal {
    Refusal::new(
        RefusalCode::EvidenceNone,
        "there is no evidence who made this component",
        "sign it with `portcullis sign APP.wasm --claims F --key K`; evidence is looked for in APP.wasm.sigstore.json and --bundle",
    )
}

pub(super) fn evidence(error: BundleError) -> Refusal {
    let code = match error {
        BundleError::MediaType(_) => RefusalCode::EvidenceMediaType,
        BundleError::Keyless | BundleError::NoClaims => RefusalCode::EvidenceUnsupported,
        BundleError::Json(_) | BundleError::Form(_) | BundleError::Envelope(_) | BundleError::Signatures(_) => {
            RefusalCode::EvidenceMalformed
        }
    };
    Refusal::new(code, error.to_string(), error.hint())
}

/// The entry of the trust policy whose key made the signature.
pub(super) fn signature<'a>(bundle: &Bundle, trust: &'a TrustPolicy) -> Result<&'a SignerEntry, Refusal> {
    let hint = bundle.hint();
    let candidates: Vec<&SignerEntry> =
        trust.signers().iter().filter(|entry| hint.is_empty() || entry.key.to_string() == hint).collect();
    let envelope = bundle.envelope();
    let made_it =
        |entry: &&&SignerEntry| envelope.signatures().iter().any(|signature| envelope.verify(signature, &entry.key));
    if let Some(entry) = candidates.iter().find(made_it) {
        return Ok(entry);
    }
    match candidates.as_slice() {
        [entry] if !hint.is_empty() => Err(Refusal::new(
            RefusalCode::SignatureBad,
            format!("the signature is not that of signer `{}` ({}) over this content", entry.name, entry.key),
            "the bundle was changed or damaged after it was signed; copy it again or sign again",
        )
        .detail("signer", [&entry.name])),
        _ => Err(unknown_signer(hint)),
    }
}

fn unknown_signer(hint: &str) -> Refusal {
    let message = if hint.is_empty() {
        "the bundle names no key, and the signature is not that of any signer in the trust policy".to_owned()
    } else {
        let key = Excerpt(hint);
        format!(
            "the key `{key}` is not in the trust policy, so the signature was not checked: nothing is known about it"
        )
    };
    Refusal::new(
        RefusalCode::SignerUnknown,
        message,
        "have a trusted signer sign, or add the key with `portcullis trust add` and sign the policy again",
    )
    .detail("key", [Excerpt(hint)])
}

pub(super) fn statement(envelope: &Envelope) -> Result<Statement, Refusal> {
    let refuse = |message: String| {
        Refusal::new(
            RefusalCode::ClaimsType,
            message,
            "attest component claims: `portcullis sign APP.wasm --claims F --key K`",
        )
    };
    if envelope.payload_type() != PAYLOAD_TYPE {
        return Err(refuse(format!("what is signed is a `{}`, not {PAYLOAD_TYPE}", Excerpt(envelope.payload_type()))));
    }
    Statement::parse(envelope.payload()).map_err(|error| refuse(error.to_string()))
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
    if now >= claims.expires_at() {
        let (at, ago) = (claims.expires_at(), now - claims.expires_at());
        let message =
            format!("the claims expired at {}, it is {} ({ago} later)", timestamp::format(at), timestamp::format(now));
        return Err(Refusal::new(
            RefusalCode::TimeExpired,
            message,
            "sign again with a later expiresAt; the component needs no rebuild",
        ));
    }
    Ok(())
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

pub(super) fn denied(digest: &Digest, signer: &Signer, claims: &Claims, trust: &TrustPolicy) -> Result<(), Refusal> {
    match trust.denied(digest, signer, claims) {
        None => Ok(()),
        Some(what) => Err(Refusal::new(
            RefusalCode::Revoked,
            format!("the trust policy denies {what}"),
            "deploy something that is not revoked; the trust policy's author knows why it is",
        )
        .detail("signer", [signer.name()])),
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
