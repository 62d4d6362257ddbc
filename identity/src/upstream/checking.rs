//! Decides whether what an upstream handed over is an SVID of the workload that it is for. Pure: the time, the bundles and the
//! bytes come in.
//!
//! Trusts the bundle of our own trust domain and nothing in the message. Refuses another SPIFFE ID than the one that follows
//! from the verified claims, a chain that the bundle does not verify, a key that is not the leaf's, tokens for other audiences
//! than those asked for.

use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use time::OffsetDateTime;

use super::wire::{HandedJwt, HandedX509};
use crate::audience::Audience;
use crate::bundle_set::BundleSet;
use crate::hex::hex;
use crate::issuer::X509Svid;
use crate::jwt_check::check_jwt;
use crate::jwt_svid::JwtSvid;
use crate::leaf::Leaf;
use crate::limits::MAX_CHAIN_CERTIFICATES;
use crate::p256_key::{P256Key, SignatureForm};
use crate::pkcs8::p256_scalar;
use crate::spiffe_id::SpiffeId;

/// An X.509-SVID with its key, checked.
pub(super) struct HeldKey {
    pub(super) svid: X509Svid,
    pub(super) key: P256Key,
}

/// Why what was handed over is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Nothing at all.
    Nothing,
    /// Only other IDs; the first of them.
    Other(String),
    /// Why it is no SVID.
    Invalid(String),
    /// The bundle does not verify it: the bundle may be on its way.
    Unverified(String),
}

/// The X.509-SVID of this workload among those handed over.
pub(super) fn x509(
    expected: &SpiffeId,
    handed: &[HandedX509],
    bundles: Option<&BundleSet>,
    now: OffsetDateTime,
) -> Result<HeldKey, Unfit> {
    let first = handed.first().ok_or(Unfit::Nothing)?;
    let wanted = expected.to_string();
    let found =
        handed.iter().find(|svid| svid.spiffe_id == wanted).ok_or_else(|| Unfit::Other(first.spiffe_id.clone()))?;
    let invalid = |why: &dyn ToString| Unfit::Invalid(why.to_string());
    let der = found.chain.first().ok_or_else(|| invalid(&"an SVID without a certificate"))?;
    let leaf = Leaf::parse(der).map_err(|error| invalid(&error))?;
    // The name beside the certificate is the upstream's word; the one in it is what peers see.
    if leaf.spiffe_id != *expected {
        return Err(Unfit::Other(leaf.spiffe_id.to_string()));
    }
    let scalar = p256_scalar(&found.pkcs8).map_err(|error| invalid(&error))?;
    let key = P256Key::from_parts(SignatureForm::Asn1, scalar.as_slice(), &leaf.public_key)
        .map_err(|_| invalid(&"the private key is not that of the certificate"))?;
    verify(expected, &found.chain, bundles, now)?;
    let svid = X509Svid {
        spiffe_id: leaf.spiffe_id,
        chain: found.chain.clone(),
        key_id: hex(digest(&SHA256, &leaf.public_key).as_ref()),
        serial: hex(&leaf.serial),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    };
    Ok(HeldKey { svid, key })
}

/// X509-SVID section 5.1: path validation with the authorities of the SVID's own trust domain.
pub(super) fn verify(
    id: &SpiffeId,
    chain: &[Vec<u8>],
    bundles: Option<&BundleSet>,
    now: OffsetDateTime,
) -> Result<(), Unfit> {
    let unverified = |why: &dyn ToString| Unfit::Unverified(why.to_string());
    if chain.len() > MAX_CHAIN_CERTIFICATES {
        return Err(Unfit::Invalid("its chain is too long".to_owned()));
    }
    let document = bundles.and_then(|bundles| bundles.get(id.trust_domain()));
    let roots = document.and_then(|document| document.roots()).ok_or_else(|| unverified(&"there is no bundle yet"))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), crate::mtls::provider())
        .build()
        .map_err(|error| unverified(&error))?;
    let mut certificates = chain.iter().map(|der| CertificateDer::from(der.as_slice()));
    let leaf = certificates.next().ok_or_else(|| unverified(&"an SVID without a certificate"))?;
    let rest: Vec<_> = certificates.collect();
    let seconds = u64::try_from(now.unix_timestamp()).map_err(|error| unverified(&error))?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier.verify_client_cert(&leaf, &rest, at).map(|_| ()).map_err(|error| unverified(&error))
}

/// The JWT-SVID of this workload among those handed over, for these audiences (sorted, without repeats) and no others.
pub(super) fn jwt(
    expected: &SpiffeId,
    audiences: &[Audience],
    handed: Vec<HandedJwt>,
    bundles: Option<&BundleSet>,
    now: OffsetDateTime,
) -> Result<JwtSvid, Unfit> {
    let first = handed.first().ok_or(Unfit::Nothing)?.spiffe_id.clone();
    let wanted = expected.to_string();
    let found = handed.into_iter().find(|svid| svid.spiffe_id == wanted).ok_or(Unfit::Other(first))?;
    let document = bundles.and_then(|bundles| bundles.get(expected.trust_domain()));
    let document = document.ok_or_else(|| Unfit::Unverified("there is no bundle yet".to_owned()))?;
    let audience = audiences.first().ok_or(Unfit::Nothing)?;
    let mut claims =
        check_jwt(&found.token, audience.as_str(), document.jwt_keys(), now).map_err(|error| match error {
            crate::jwt_check::TokenError::UnknownKey(_) => Unfit::Unverified(error.to_string()),
            other => Unfit::Invalid(other.to_string()),
        })?;
    if claims.spiffe_id != *expected {
        return Err(Unfit::Other(claims.spiffe_id.to_string()));
    }
    let mut named = claims.audiences.clone();
    named.sort_unstable();
    named.dedup();
    if named != audiences {
        return Err(Unfit::Invalid("the token is for other audiences than those asked for".to_owned()));
    }
    // What the audit log knows it by, where its issuer gave it no name.
    claims.jti.get_or_insert_with(|| format!("sha256:{}", hex(digest(&SHA256, found.token.as_bytes()).as_ref())));
    claims.issued_at.get_or_insert(now);
    Ok(JwtSvid { token: found.token, claims })
}
