//! Decides whether a statement is believed. Nothing in its claims is read before its signature is verified.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Deserialize;
use time::OffsetDateTime;

use super::error::StatementError;
use super::jti::Jti;
use super::signers::{Signer, Signers};
use super::{EDDSA, ES256, TYPE, digest_of};
use crate::excerpt::Excerpt;
use crate::limits::{
    LONGEST_KEPT_STATEMENT, LONGEST_REQUEST, MAX_CHAIN_CERTIFICATES, MAX_STATEMENT_BYTES, STATEMENT_CLOCK_SKEW,
};

/// What a reader demands of a statement besides its proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected<'a> {
    audience: &'a str,
    place: &'a str,
    longest: Duration,
}

/// A statement that is believed: only [`check`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    signer: Signer,
    jti: Jti,
    issued_at: i64,
    expires_at: i64,
    answers: Option<Jti>,
    version: Option<u64>,
    sha256: String,
}

impl<'a> Expected<'a> {
    /// A request, a reply or an event: for this audience and this place, for 60 s at most.
    pub fn message(audience: &'a str, place: &'a str) -> Self {
        Self { audience, place, longest: LONGEST_REQUEST }
    }

    /// What is kept in a bucket and read later: for this audience and this place, for years at most.
    pub fn kept(audience: &'a str, place: &'a str) -> Self {
        Self { audience, place, longest: LONGEST_KEPT_STATEMENT }
    }
}

impl Statement {
    /// Who said it.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Its name.
    pub fn jti(&self) -> Jti {
        self.jti
    }

    /// When it was made, in seconds since 1970.
    pub fn issued_at(&self) -> i64 {
        self.issued_at
    }

    /// When it ends, in seconds since 1970.
    pub fn expires_at(&self) -> i64 {
        self.expires_at
    }

    /// The request that it answers.
    pub fn answers(&self) -> Option<Jti> {
        self.answers
    }

    /// The version of what it is about.
    pub fn version(&self) -> Option<u64> {
        self.version
    }

    /// The SHA-256 of its payload in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The same of another signer, by another name.
    #[cfg(test)]
    pub(super) fn renamed(&self, signer: Signer, jti: Jti) -> Self {
        Self { signer, jti, ..self.clone() }
    }
}

/// The statement in this token about this payload, if it is one that this reader may believe now.
///
/// Whether it was seen before is [`Replay`](super::Replay)'s, what its signer may do is policy's.
pub fn check(
    token: &str,
    payload: &[u8],
    expected: &Expected<'_>,
    signers: &Signers,
    now: OffsetDateTime,
) -> Result<Statement, StatementError> {
    if token.len() > MAX_STATEMENT_BYTES {
        return Err(StatementError::TooLarge);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(StatementError::Malformed("it does not have three parts"));
    };
    let signed = token.get(..header.len() + 1 + claims.len()).ok_or(StatementError::Malformed("its parts"))?;
    let signer = verified(&decode(header)?, signed.as_bytes(), &decode(signature)?, signers, now)?;
    let claims: Claims = serde_json::from_slice(&decode(claims)?)
        .map_err(|_| StatementError::Claims("one is missing, unknown or twice"))?;
    judge(claims, signer, payload, expected, now)
}

/// Who signed this.
fn verified(
    header: &[u8],
    signed: &[u8],
    signature: &[u8],
    signers: &Signers,
    now: OffsetDateTime,
) -> Result<Signer, StatementError> {
    let header: Header = serde_json::from_slice(header).map_err(|_| StatementError::Header)?;
    if header.typ != TYPE {
        return Err(StatementError::Header);
    }
    match (header.alg.as_str(), header.x5c, header.kid) {
        (ES256, Some(x5c), None) => {
            if x5c.len() > MAX_CHAIN_CERTIFICATES {
                return Err(crate::mtls::PeerError::LongChain.into());
            }
            // RFC 7515 section 4.1.6: base64, not base64url.
            let chain = x5c.iter().map(|der| STANDARD.decode(der)).collect::<Result<Vec<_>, _>>();
            let leaf = signers.chain(chain.map_err(|_| StatementError::Header)?, now)?;
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &leaf.public_key);
            key.verify(signed, signature).map_err(|_| StatementError::Signature)?;
            Ok(Signer::Svid(leaf.spiffe_id))
        }
        (EDDSA, None, Some(kid)) => {
            let key = signers.key(&kid)?;
            key.verifies(signed, signature).then_some(Signer::Nkey(key)).ok_or(StatementError::Signature)
        }
        _ => Err(StatementError::Header),
    }
}

fn judge(
    claims: Claims,
    signer: Signer,
    payload: &[u8],
    expected: &Expected<'_>,
    now: OffsetDateTime,
) -> Result<Statement, StatementError> {
    if claims.iss != signer.to_string() {
        return Err(StatementError::Issuer(Excerpt::new(&claims.iss)));
    }
    if claims.aud != expected.audience {
        return Err(StatementError::Audience(Excerpt::new(&claims.aud)));
    }
    if claims.sub != expected.place {
        return Err(StatementError::Place(Excerpt::new(&claims.sub)));
    }
    let jti: Jti = claims.jti.parse().map_err(|()| StatementError::Claims("jti is no ULID"))?;
    if jti.seconds() != claims.iat {
        return Err(StatementError::Claims("iat is not the time in jti"));
    }
    let answers = claims.re.map(|re| re.parse::<Jti>()).transpose();
    let answers = answers.map_err(|()| StatementError::Claims("re is no ULID"))?;
    let (skew, longest) = (seconds(STATEMENT_CLOCK_SKEW), seconds(expected.longest));
    let life = claims.exp.checked_sub(claims.iat).filter(|life| *life > 0);
    let life = life.ok_or(StatementError::Claims("exp is not after iat"))?;
    if life > longest {
        return Err(StatementError::TooLong);
    }
    let now = now.unix_timestamp();
    if claims.iat.saturating_sub(skew) > now {
        return Err(StatementError::NotYetValid);
    }
    if claims.exp.saturating_add(skew) <= now {
        return Err(StatementError::Expired);
    }
    if claims.sha256 != digest_of(payload) {
        return Err(StatementError::Payload);
    }
    Ok(Statement {
        signer,
        jti,
        issued_at: claims.iat,
        expires_at: claims.exp,
        answers,
        version: claims.ver,
        sha256: claims.sha256,
    })
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn decode(part: &str) -> Result<Vec<u8>, StatementError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| StatementError::Malformed("a part is not base64url without padding"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    #[serde(default, deserialize_with = "present")]
    x5c: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    jti: String,
    iat: i64,
    exp: i64,
    sha256: String,
    #[serde(default, deserialize_with = "present")]
    re: Option<String>,
    #[serde(default, deserialize_with = "present")]
    ver: Option<u64>,
}

/// A member that is there has a value: `null` is not the same as absent.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}
