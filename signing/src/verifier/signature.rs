//! Who signed a piece of evidence: the first question, before anything in it is believed.

use std::sync::{Arc, Mutex};

use time::OffsetDateTime;

use super::{Context, Refusal, RefusalCode};
use crate::bundle::{self, Bundle, Content, Material};
use crate::bytes::ComponentBytes;
use crate::digest::Digest;
use crate::excerpt::Excerpt;
use crate::keyless::{self, KeylessError, Proven, Wanted};
use crate::signer_key::SignerKey;
use crate::svid::{self, SvidError};
use crate::trust::{Known, OidcIdentity, Signer, SignerId, SignerIdentity, Signers, SpiffeIdentity};
use crate::verified::{Certified, Proof};

/// A good signature.
pub(super) struct Signature<'a> {
    pub(super) known: &'a Known,
    pub(super) signer: Signer,
    /// When it was made, where the evidence proves it.
    pub(super) at: Option<OffsetDateTime>,
    pub(super) proof: Proof,
    /// Payload type and payload, exactly as they were verified; absent: the file alone is signed.
    pub(super) envelope: Option<(String, Vec<u8>)>,
}

/// The signer of a bundle.
pub(super) fn of_bundle<'a>(
    bundle: &Bundle,
    bytes: &[u8],
    component: &ComponentBytes,
    signers: &'a Signers,
    ctx: &Context<'_>,
) -> Result<Signature<'a>, Refusal> {
    let envelope = bundle.envelope().map(|envelope| (envelope.payload_type().to_owned(), envelope.payload().to_vec()));
    match bundle.material() {
        Material::Key(hint) => {
            let made = |key: &SignerKey| match bundle.content() {
                Content::Envelope(envelope) => {
                    let message = envelope.signed_bytes();
                    envelope.signatures().iter().any(|signature| key.verify(&message, &signature.sig))
                }
                Content::File(signature) => key.verify(component.bytes(), signature),
            };
            let (known, signer) = by_key(hint, signers, made)?;
            Ok(Signature { known, signer, at: None, proof: Proof::Key, envelope })
        }
        Material::Certificate(leaf) => by_certificate(bundle, leaf, bytes, component, signers, ctx),
        Material::Chain(chain) => by_svid(bundle, chain, component, signers, ctx),
    }
}

/// The signer whose key `made` a signature. A hint selects candidates and proves nothing.
pub(super) fn by_key<'a>(
    hint: &str,
    signers: &'a Signers,
    made: impl Fn(&SignerKey) -> bool,
) -> Result<(&'a Known, Signer), Refusal> {
    let candidates: Vec<(&Known, &SignerKey)> = signers
        .iter()
        .filter_map(|known| Some((known, known.identity().key()?)))
        .filter(|(_, key)| hint.is_empty() || key.matches_hint(hint))
        .collect();
    if let Some((known, _)) = candidates.iter().find(|(_, key)| made(key)) {
        return Ok((known, known.signer(known.identity().id())));
    }
    match candidates.as_slice() {
        [(known, key)] if !hint.is_empty() => Err(Refusal::new(
            RefusalCode::SignatureBad,
            format!("the signature is not that of signer `{}` ({key}) over this content", known.name()),
            "the bundle was changed or damaged after it was signed; copy it again or sign again",
        )
        .detail("signer", [known.name()])),
        _ => Err(unknown_key(hint)),
    }
}

fn unknown_key(hint: &str) -> Refusal {
    let message = if hint.is_empty() {
        "the evidence names no key, and the signature is not that of any signer in the trust policy".to_owned()
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

/// Signers that a certificate may be for, and what is asked of it.
fn wanted<'a>(identity: &'a SignerIdentity, presented: &keyless::Presented) -> Option<(&'a str, Wanted<'a>)> {
    match identity {
        SignerIdentity::Key(_) => None,
        SignerIdentity::Oidc(OidcIdentity { root, issuer, identity, transparency, .. }) => {
            let fits = *issuer == presented.issuer && *identity == presented.identity;
            let wanted = Wanted { issuer, identity: Some(identity), transparency: *transparency };
            fits.then_some((root.as_str(), wanted))
        }
        SignerIdentity::Spiffe(spiffe) => {
            let (root, issuer) = spiffe.root.as_deref().zip(spiffe.issuer.as_deref())?;
            let fits = issuer == presented.issuer && is_spiffe(spiffe, &presented.identity);
            fits.then_some((root, Wanted { issuer, identity: None, transparency: spiffe.transparency }))
        }
    }
}

fn is_spiffe(spiffe: &SpiffeIdentity, id: &str) -> bool {
    let path = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
    path.is_some_and(|(domain, path)| {
        domain == spiffe.trust_domain && path.parse().is_ok_and(|path| spiffe.path.matches(&path))
    })
}

fn by_certificate<'a>(
    bundle: &Bundle,
    leaf: &[u8],
    bytes: &[u8],
    component: &ComponentBytes,
    signers: &'a Signers,
    ctx: &Context<'_>,
) -> Result<Signature<'a>, Refusal> {
    // An X.509-SVID may come as the only certificate, too: it has no OIDC issuer.
    if svid::spiffe_id(leaf).is_ok_and(|id| svid_signers(signers, &id).next().is_some()) {
        return by_svid(bundle, &[leaf.to_vec()], component, signers, ctx);
    }
    let presented = keyless::present(leaf).map_err(|error| refused(&error))?;
    let mut last = None;
    for known in signers.iter() {
        let Some((root, wanted)) = wanted(known.identity(), &presented) else { continue };
        // INVARIANT: the policy was refused if it did not pin the root.
        let Some((root, pinned)) = ctx.trust.sigstore(root) else { continue };
        let proven = root
            .verify(bytes, component.digest(), &wanted, ctx.now)
            .map_err(|error| refused(&error))
            .and_then(|proven| read_alike(bundle, proven))
            .and_then(|proven| demanded(known.identity(), &proven).map(|()| proven));
        match proven {
            Ok(proven) => {
                let held = Arc::new(Mutex::new((known.identity().clone(), pinned)));
                let proof = Proof::Certificate(Certified { bundle: bytes.into(), held });
                let id = match known.identity() {
                    SignerIdentity::Spiffe(_) => SignerId::spiffe(&proven.identity),
                    other => other.id(),
                };
                let signer = known.signer(id);
                return Ok(Signature { known, signer, at: Some(proven.at), proof, envelope: proven.envelope });
            }
            Err(refusal) => last = Some(refusal.detail("signer", [known.name()])),
        }
    }
    Err(last.unwrap_or_else(|| {
        let (identity, issuer) = (Excerpt(&presented.identity), Excerpt(&presented.issuer));
        Refusal::new(
            RefusalCode::SignerUnknown,
            format!("`{identity}` of the issuer `{issuer}` is not in the trust policy, so nothing was checked"),
            "have a trusted signer sign, or add this exact identity and issuer with `portcullis trust add`",
        )
        .detail("identity", [identity])
        .detail("issuer", [issuer])
    }))
}

/// What the library proved is about what was parsed here.
fn read_alike(bundle: &Bundle, proven: Proven) -> Result<Proven, Refusal> {
    let own = bundle.envelope().map(|envelope| (envelope.payload_type(), envelope.payload()));
    if own != proven.envelope.as_ref().map(|(kind, payload)| (kind.as_str(), payload.as_slice())) {
        return Err(refused(&KeylessError::Malformed("two readers of it differ".to_owned())));
    }
    Ok(proven)
}

/// What the library proved fits the policy's further demands.
fn demanded(identity: &SignerIdentity, proven: &Proven) -> Result<(), Refusal> {
    match identity {
        SignerIdentity::Oidc(oidc) => {
            for (name, value) in &oidc.claims {
                let found = proven.ci.get(name.as_str()).map_or("", String::as_str);
                if found != value {
                    return Err(Refusal::new(
                        RefusalCode::SignerUnknown,
                        format!("the certificate says {name} `{}`, the trust policy demands `{value}`", Excerpt(found)),
                        "have the run that the trust policy names sign",
                    ));
                }
            }
        }
        SignerIdentity::Spiffe(spiffe) if !is_spiffe(spiffe, &proven.identity) => {
            return Err(refused(&KeylessError::OtherSigner(Excerpt(&proven.identity).to_string())));
        }
        SignerIdentity::Spiffe(_) | SignerIdentity::Key(_) => {}
    }
    Ok(())
}

/// Whether what made evidence a signer's would do so under the trust policy of `ctx`, where the signer is recognised by
/// `identity`.
pub(super) fn still_proves(
    proof: &Proof,
    identity: &SignerIdentity,
    file: &Digest,
    ctx: &Context<'_>,
) -> Result<(), Refusal> {
    let unproven = |what: &str| {
        let message = format!("{what} is not one of those that the trust policy pins now");
        Err(Refusal::new(RefusalCode::SignatureCertificate, message, "sign again, under an authority that is pinned"))
    };
    match (proof, identity) {
        (Proof::Key, SignerIdentity::Key(_)) => Ok(()),
        (Proof::Svid(authority), SignerIdentity::Spiffe(SpiffeIdentity { trust_domain, root: None, .. })) => {
            match ctx.trust.svids(trust_domain) {
                Some(authorities) if authorities.has(authority) => Ok(()),
                _ => unproven("the authority of the X.509-SVID"),
            }
        }
        (Proof::Certificate(certified), SignerIdentity::Oidc(_) | SignerIdentity::Spiffe(_)) => {
            still_certified(certified, identity, file, ctx)
        }
        _ => unproven("what the signer was recognised by"),
    }
}

fn still_certified(
    certified: &Certified,
    identity: &SignerIdentity,
    file: &Digest,
    ctx: &Context<'_>,
) -> Result<(), Refusal> {
    let failed = || refused(&KeylessError::Failed);
    let name = match identity {
        SignerIdentity::Oidc(oidc) => Some(oidc.root.as_str()),
        SignerIdentity::Spiffe(spiffe) => spiffe.root.as_deref(),
        SignerIdentity::Key(_) => None,
    };
    let (root, pinned) = name.and_then(|name| ctx.trust.sigstore(name)).ok_or_else(failed)?;
    let mut held = certified.held.lock().map_err(|_| failed())?;
    if held.0 == *identity && held.1 == pinned {
        return Ok(());
    }
    let parsed = bundle::parse(&certified.bundle).map_err(|_| failed())?;
    let Material::Certificate(leaf) = parsed.material() else { return Err(failed()) };
    let presented = keyless::present(leaf).map_err(|error| refused(&error))?;
    let (_, wanted) = wanted(identity, &presented)
        .ok_or_else(|| refused(&KeylessError::OtherSigner(Excerpt(&presented.identity).to_string())))?;
    let proven = root.verify(&certified.bundle, file, &wanted, ctx.now).map_err(|error| refused(&error))?;
    demanded(identity, &proven)?;
    *held = (identity.clone(), pinned);
    Ok(())
}

fn svid_signers<'a>(signers: &'a Signers, id: &str) -> impl Iterator<Item = (&'a Known, &'a SpiffeIdentity)> {
    signers.iter().filter_map(move |known| match known.identity() {
        SignerIdentity::Spiffe(spiffe) if spiffe.root.is_none() && is_spiffe(spiffe, id) => Some((known, spiffe)),
        _ => None,
    })
}

fn by_svid<'a>(
    bundle: &Bundle,
    chain: &[Vec<u8>],
    component: &ComponentBytes,
    signers: &'a Signers,
    ctx: &Context<'_>,
) -> Result<Signature<'a>, Refusal> {
    let presented = chain.first().map_or(Err(SvidError::Signature), |leaf| svid::spiffe_id(leaf));
    let presented = presented.map_err(|error| svid_refused(&error))?;
    let Some((known, spiffe)) = svid_signers(signers, &presented).next() else {
        return Err(Refusal::new(
            RefusalCode::SignerUnknown,
            format!("`{}` is not in the trust policy, so nothing was checked", Excerpt(&presented)),
            "have a trusted signer sign, or add the SPIFFE ID and its bundle to the trust policy",
        )
        .detail("identity", [Excerpt(&presented)]));
    };
    let refused = |error: SvidError| svid_refused(&error).detail("signer", [known.name()]);
    let authorities = ctx.trust.svids(&spiffe.trust_domain).ok_or_else(|| refused(SvidError::Signature))?;
    let id = match bundle.content() {
        Content::Envelope(envelope) => {
            let signature = envelope.signatures().first().map_or(&[][..], |signature| &signature.sig);
            authorities.verify_under(chain, &envelope.signed_bytes(), signature, ctx.now)
        }
        Content::File(signature) => authorities.verify_under(chain, component.bytes(), signature, ctx.now),
    };
    let (id, authority) = id.map_err(refused)?;
    let envelope = bundle.envelope().map(|envelope| (envelope.payload_type().to_owned(), envelope.payload().to_vec()));
    let signer = known.signer(SignerId::spiffe(&id));
    Ok(Signature { known, signer, at: None, proof: Proof::Svid(authority), envelope })
}

fn svid_refused(error: &SvidError) -> Refusal {
    let (code, hint) = match error {
        SvidError::Signature => (RefusalCode::SignatureBad, "the bundle was changed after it was signed; sign again"),
        SvidError::Bundle(_) | SvidError::Form(_) | SvidError::Path(_) => (
            RefusalCode::SignatureCertificate,
            "sign again with an X.509-SVID that is valid now, of the trust domain whose bundle is pinned",
        ),
    };
    Refusal::new(code, error.to_string(), hint)
}

fn refused(error: &KeylessError) -> Refusal {
    let (code, hint) = match error {
        KeylessError::Malformed(_) => (RefusalCode::EvidenceMalformed, "the file is damaged; copy it again"),
        KeylessError::Unsupported(_) => (RefusalCode::EvidenceUnsupported, "sign with cosign 3 or actions/attest"),
        KeylessError::Signature(_) => (RefusalCode::SignatureBad, "the bundle was changed after it was signed"),
        KeylessError::Certificate(_) => (
            RefusalCode::SignatureCertificate,
            "sign with an authority in the trusted root that the trust policy pins, or pin its newest one",
        ),
        KeylessError::Log(_) => (RefusalCode::SignatureLog, "sign again; the log's evidence was changed or is missing"),
        KeylessError::Time(_) => (RefusalCode::SignatureTime, "sign again; check the clock of this machine"),
        KeylessError::OtherFile(_) => {
            (RefusalCode::ClaimsDigest, "this bundle belongs to another file, or the file was changed")
        }
        KeylessError::OtherSigner(_) => (RefusalCode::SignerUnknown, "have a trusted signer sign"),
        KeylessError::Failed => (RefusalCode::EvidenceFailed, "this is a defect of portcullis; please report it"),
    };
    Refusal::new(code, error.to_string(), hint)
}
