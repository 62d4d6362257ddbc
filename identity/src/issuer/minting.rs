//! Minting: JWT-SVIDs and X.509-SVIDs for admitted instances, from the cache while they are in the first half of their life,
//! and handshake signatures with the keys of X.509-SVIDs, which never leave.
//!
//! [`Minted::fresh`] tells a new SVID from a cached one: the caller writes its audit record before it hands a fresh one out.

use std::time::Duration;

use time::OffsetDateTime;

use super::Issuer;
use super::registry::{HeldX509, TokenName};
use crate::audience::Audience;
use crate::handshake_message::check_certificate_verify;
use crate::hex::hex;
use crate::jwt_svid::JwtSvid;
use crate::limits::{MAX_AUDIENCES, X509_BACKDATE};
use crate::spiffe_id::SpiffeId;
use crate::workload::InstanceId;

/// An SVID, and whether it was made by this very call.
#[derive(Debug, Clone)]
pub struct Minted<T> {
    /// The SVID.
    pub svid: T,
    /// False when it came from the cache and was recorded before.
    pub fresh: bool,
}

/// The public part of an X.509-SVID. Its key is named by `key_id` and stays in the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Svid {
    /// Whom it names.
    pub spiffe_id: SpiffeId,
    /// DER, leaf first; the authority itself is in the bundle, not here.
    pub chain: Vec<Vec<u8>>,
    /// For [`Issuer::sign_handshake`].
    pub key_id: String,
    /// Hexadecimal, for the audit.
    pub serial: String,
    /// Backdated.
    pub not_before: OffsetDateTime,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// Why an SVID was not minted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Never admitted, or stopped. The caller erred.
    #[error("the instance {0} has no identity on this host")]
    UnknownInstance(InstanceId),
    /// None, or over [`MAX_AUDIENCES`]. The caller erred.
    #[error("a JWT-SVID has 1 to {MAX_AUDIENCES} audiences")]
    Audiences,
    /// Less than a second. The caller erred.
    #[error("an SVID must live at least one second")]
    Lifetime,
    /// The authority is at its end.
    #[error("the authority that signs this kind of SVID expired")]
    AuthorityExpired,
    /// A self-check failed, or the system has no randomness: our own error.
    #[error("the SVID could not be made: {0}")]
    Minting(&'static str),
}

/// Why a handshake was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Never admitted, or stopped.
    #[error("the instance {0} has no identity on this host")]
    UnknownInstance(InstanceId),
    /// Not a key of this instance, or of an SVID that was replaced long ago.
    #[error("the instance has no key of this id")]
    UnknownKey,
    /// Not the content of a TLS 1.3 CertificateVerify.
    #[error("only the content of a TLS 1.3 CertificateVerify is signed")]
    NotAHandshake,
    /// No randomness: our own error.
    #[error("the signature could not be made")]
    Signing,
}

impl IssueError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::UnknownInstance(_) => "an identity exists from admission to stop: start the component again",
            Self::Audiences => "ask for one narrow audience for each peer",
            Self::Lifetime => "ask for a lifetime of whole seconds, or for none to get the default",
            Self::AuthorityExpired => "restart the identity process: it makes new authorities when it starts",
            Self::Minting(_) => "see the identity process's log; nothing was handed out",
        }
    }
}

impl SignError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::UnknownInstance(_) => "an identity exists from admission to stop: start the component again",
            Self::UnknownKey => "fetch the X.509-SVID again and use its key id",
            Self::NotAHandshake => "keys of X.509-SVIDs authenticate TLS 1.3 handshakes and sign nothing else",
            Self::Signing => "see that the system's random source works",
        }
    }
}

impl Issuer {
    /// A JWT-SVID for these audiences. It lives as long as asked, but no longer than the issuer's limit.
    pub fn jwt_svid(
        &mut self,
        instance: &InstanceId,
        audiences: &[Audience],
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<JwtSvid>, IssueError> {
        let registration =
            self.registry.get_mut(instance).ok_or_else(|| IssueError::UnknownInstance(instance.clone()))?;
        let mut audiences = audiences.to_vec();
        audiences.sort_unstable();
        audiences.dedup();
        if audiences.is_empty() || audiences.len() > MAX_AUDIENCES {
            return Err(IssueError::Audiences);
        }
        let wanted = whole_seconds(ttl, self.lifetimes.jwt())?;
        let name = TokenName { audiences, wanted };
        if let Some(svid) = registration.fresh_token(&name, now) {
            return Ok(Minted { svid: svid.clone(), fresh: false });
        }
        let issued_at = second(now)?;
        let expires_at = end(issued_at, wanted, self.jwt.not_after())?;
        let svid = self
            .jwt
            .mint(&registration.workload.spiffe_id, &name.audiences, issued_at, expires_at)
            .map_err(IssueError::Minting)?;
        registration.keep_token(name, svid.clone(), now);
        Ok(Minted { svid, fresh: true })
    }

    /// An X.509-SVID with a key of its own. It lives as long as asked, but no longer than the issuer's limit.
    pub fn x509_svid(
        &mut self,
        instance: &InstanceId,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<X509Svid>, IssueError> {
        let registration =
            self.registry.get_mut(instance).ok_or_else(|| IssueError::UnknownInstance(instance.clone()))?;
        let wanted = whole_seconds(ttl, self.lifetimes.x509())?;
        if let Some(svid) = registration.fresh_x509(wanted, now) {
            return Ok(Minted { svid: svid.clone(), fresh: false });
        }
        let issued_at = second(now)?;
        let not_after = end(issued_at, wanted, self.x509.certificate().not_after)?;
        let not_before = issued_at.checked_sub(signed(X509_BACKDATE)?).ok_or(IssueError::Minting("out of range"))?;
        let minted =
            self.x509.mint(&registration.workload.spiffe_id, not_before, not_after).map_err(IssueError::Minting)?;
        let svid = X509Svid {
            spiffe_id: minted.leaf.spiffe_id,
            chain: vec![minted.der],
            key_id: hex(&minted.leaf.subject_key_id.unwrap_or_default()),
            serial: hex(&minted.leaf.serial),
            not_before,
            not_after,
        };
        let held = HeldX509 { svid: svid.clone(), key: minted.key, issued_at, wanted };
        registration.keep_x509(held, now);
        Ok(Minted { svid, fresh: true })
    }

    /// Signs the content of a TLS 1.3 CertificateVerify (ECDSA P-256, SHA-256, ASN.1 DER) and refuses every other message.
    pub fn sign_handshake(&self, instance: &InstanceId, key_id: &str, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let registration = self.registry.get(instance).ok_or_else(|| SignError::UnknownInstance(instance.clone()))?;
        let held = registration.x509_key(key_id).ok_or(SignError::UnknownKey)?;
        check_certificate_verify(message).map_err(|_| SignError::NotAHandshake)?;
        held.key.sign(message).map_err(|_| SignError::Signing)
    }
}

fn whole_seconds(ttl: Duration, limit: Duration) -> Result<Duration, IssueError> {
    match ttl.min(limit).as_secs() {
        0 => Err(IssueError::Lifetime),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

fn end(from: OffsetDateTime, wanted: Duration, authority: OffsetDateTime) -> Result<OffsetDateTime, IssueError> {
    let end = from.checked_add(signed(wanted)?).ok_or(IssueError::Minting("out of range"))?.min(authority);
    if end <= from { Err(IssueError::AuthorityExpired) } else { Ok(end) }
}

fn signed(duration: Duration) -> Result<time::Duration, IssueError> {
    time::Duration::try_from(duration).map_err(|_| IssueError::Minting("out of range"))
}

fn second(now: OffsetDateTime) -> Result<OffsetDateTime, IssueError> {
    now.replace_nanosecond(0).map_err(|_| IssueError::Minting("out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifetimes::Lifetimes;
    use crate::limits::{MAX_CACHED_TOKENS, MAX_X509_KEYS};
    use crate::workload::Workload;

    #[test]
    fn caches_hold_no_more_than_their_limits_and_drop_what_ends_first() {
        let dir = tempfile::tempdir().unwrap();
        let domain = "example.org".parse().unwrap();
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let mut issuer = Issuer::open(&dir.path().join("state"), &domain, Lifetimes::default(), now).unwrap();
        let instance: InstanceId = "one".parse().unwrap();
        let spiffe_id = "spiffe://example.org/a".parse().unwrap();
        let (digest, component) = (String::new(), String::new());
        issuer.admit(Workload { instance: instance.clone(), spiffe_id, digest, component }).unwrap();
        let mut token = |number: usize, at: OffsetDateTime| {
            let audience = [format!("a{number}").parse().unwrap()];
            issuer.jwt_svid(&instance, &audience, Duration::from_secs(300), at).unwrap().fresh
        };
        for number in 0..MAX_CACHED_TOKENS {
            let later = now + Duration::from_secs(u64::from(number > 0));
            assert!(token(number, later));
        }
        let later = now + Duration::from_secs(1);
        assert!(!token(0, later));
        assert!(token(MAX_CACHED_TOKENS, later), "one too many takes the place of the first");
        assert!(!token(1, later));
        assert!(token(0, later));
        for less in 0..2 * MAX_X509_KEYS as u64 {
            issuer.x509_svid(&instance, Duration::from_secs(3600 - less), now).unwrap();
        }
        assert_eq!(issuer.registry.get(&instance).unwrap().held(), (MAX_X509_KEYS, MAX_CACHED_TOKENS));
    }
}
