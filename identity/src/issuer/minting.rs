//! Minting: JWT-SVIDs and X.509-SVIDs for admitted instances, from the cache while they are in the first half of their life.
//! Keys of X.509-SVIDs stay here, but for instances that were admitted as exportable.
//!
//! [`Minted::fresh`] tells a new SVID from a cached one: the caller writes its audit record before it hands a fresh one out.

use std::time::Duration;

use ring::rand::SystemRandom;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::Issuer;
use super::registry::{HeldToken, HeldWit, HeldX509, TokenName};
use crate::audience::Audience;
use crate::authority::AuthorityKind;
use crate::authority_key::AuthorityKey;
use crate::hex::hex;
use crate::jwt_svid::JwtSvid;
use crate::limits::{MAX_AUDIENCES, X509_BACKDATE, X509_JITTER_PERCENT};
use crate::secret::Secret;
use crate::spiffe_id::SpiffeId;
use crate::wit_svid::WitSvid;
use crate::workload::{InstanceId, Workload};

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

/// An X.509-SVID with its private key: whoever has it is its subject until it ends.
pub struct ExportedX509 {
    /// The public part.
    pub svid: X509Svid,
    key: Zeroizing<Vec<u8>>,
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
    /// The authority is at its end, or there is none.
    #[error("there is no valid authority for this kind of SVID")]
    AuthorityExpired,
    /// The token that holds the authority's key is away.
    #[error("the key of the authority cannot be reached")]
    KeyUnavailable,
    /// The profile is off. Configuration.
    #[error("this issuer makes no WIT-SVIDs")]
    NoWit,
    /// Only workloads that were admitted so get their keys. The caller erred, or the operator did not want it.
    #[error("the instance {0} was not admitted as one that may have its private key")]
    NotExportable(InstanceId),
    /// A self-check failed, or the system has no randomness: our own error.
    #[error("the SVID could not be made: {0}")]
    Minting(&'static str),
}

impl ExportedX509 {
    /// The private key, unencrypted PKCS#8 in DER. Hand it to its owner only.
    pub fn pkcs8(&self) -> &[u8] {
        &self.key
    }
}

impl std::fmt::Debug for ExportedX509 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExportedX509").field("svid", &self.svid).finish_non_exhaustive()
    }
}

impl IssueError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::UnknownInstance(_) => "an identity exists from admission to stop: start the component again",
            Self::Audiences => "ask for one narrow audience for each peer",
            Self::Lifetime => "ask for a lifetime of whole seconds, or for none to get the default",
            Self::AuthorityExpired => {
                "see `portcullis identity show` and the identity process's log: a new authority could not be made"
            }
            Self::KeyUnavailable => "bring the PKCS#11 token back; it is tried again with each request",
            Self::NoWit => "turn it on with wit_svid = true under [workload_api]",
            Self::NotExportable(_) => "let the host make the TLS connection, or mark the workload as exportable",
            Self::Minting(_) => "see the identity process's log; nothing was handed out",
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
        let wanted = whole_seconds(ttl, self.authorities.options.lifetimes.jwt())?;
        let name = TokenName { audiences, wanted };
        if let Some(svid) = registration.fresh_token(&name, now) {
            return Ok(Minted { svid: svid.clone(), fresh: false });
        }
        let (authority, entry) = self.authorities.token(AuthorityKind::Jwt, now)?;
        let issued_at = second(now)?;
        let expires_at = end(issued_at, wanted, entry.not_after)?;
        let issuer = self.authorities.options.jwt_issuer.as_ref();
        let svid = authority
            .mint(&registration.workload.spiffe_id, &name.audiences, issued_at, expires_at, issuer)
            .map_err(|reason| not_made(authority.key(), reason))?;
        registration.keep_token(name, HeldToken { svid: svid.clone(), authority: entry.id.clone() }, now);
        Ok(Minted { svid, fresh: true })
    }

    /// An X.509-SVID with a key of its own. It lives as long as asked, less up to [`X509_JITTER_PERCENT`] at random, but no
    /// longer than the issuer's limit.
    pub fn x509_svid(
        &mut self,
        instance: &InstanceId,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<X509Svid>, IssueError> {
        let registration =
            self.registry.get_mut(instance).ok_or_else(|| IssueError::UnknownInstance(instance.clone()))?;
        let wanted = whole_seconds(ttl, self.authorities.options.lifetimes.x509())?;
        if let Some(svid) = registration.fresh_x509(wanted, self.svid_epoch, now) {
            return Ok(Minted { svid: svid.clone(), fresh: false });
        }
        let (authority, entry) = self.authorities.x509(now)?;
        let issued_at = second(now)?;
        let not_after = end(issued_at, jittered(wanted)?, entry.not_after)?;
        let not_before = issued_at.checked_sub(signed(X509_BACKDATE)?).ok_or(IssueError::Minting("out of range"))?;
        let minted = authority
            .mint(&registration.workload.spiffe_id, not_before, not_after)
            .map_err(|reason| not_made(authority.key(), reason))?;
        let svid = X509Svid {
            spiffe_id: minted.leaf.spiffe_id,
            chain: vec![minted.der],
            key_id: hex(&minted.leaf.subject_key_id.unwrap_or_default()),
            serial: hex(&minted.leaf.serial),
            not_before,
            not_after,
        };
        let (authority, epoch) = (entry.id.clone(), self.svid_epoch);
        let held = HeldX509 { svid: svid.clone(), key: minted.key, issued_at, wanted, authority, epoch };
        registration.keep_x509(held, now);
        Ok(Minted { svid, fresh: true })
    }

    /// An X.509-SVID together with its private key, for an instance that was admitted as exportable.
    pub fn export_x509(
        &mut self,
        instance: &InstanceId,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<ExportedX509>, IssueError> {
        let workload = self.workload(instance).ok_or_else(|| IssueError::UnknownInstance(instance.clone()))?;
        if !workload.exportable {
            return Err(IssueError::NotExportable(instance.clone()));
        }
        let Minted { svid, fresh } = self.x509_svid(instance, ttl, now)?;
        let key = self.registry.get(instance).and_then(|registration| registration.x509_key(&svid.key_id));
        let key = key.ok_or(IssueError::Minting("its key is gone"))?.key.to_pkcs8();
        Ok(Minted { svid: ExportedX509 { svid, key }, fresh })
    }

    /// A WIT-SVID together with the private key that it is bound to, for an instance that was admitted as exportable.
    pub fn wit_svid(
        &mut self,
        instance: &InstanceId,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Minted<WitSvid>, IssueError> {
        if !self.authorities.options.wit_svid {
            return Err(IssueError::NoWit);
        }
        let registration =
            self.registry.get_mut(instance).ok_or_else(|| IssueError::UnknownInstance(instance.clone()))?;
        if !registration.workload.exportable {
            return Err(IssueError::NotExportable(instance.clone()));
        }
        let wanted = whole_seconds(ttl, self.authorities.options.lifetimes.svid(AuthorityKind::Wit))?;
        if let Some(svid) = registration.fresh_wit(wanted, now) {
            return Ok(Minted { svid: svid.clone(), fresh: false });
        }
        let (authority, entry) = self.authorities.token(AuthorityKind::Wit, now)?;
        let issued_at = second(now)?;
        let expires_at = end(issued_at, jittered(wanted)?, entry.not_after)?;
        let svid = WitSvid::mint(authority, &registration.workload.spiffe_id, issued_at, expires_at)
            .map_err(|reason| not_made(authority.key(), reason))?;
        registration.keep_wit(HeldWit { svid: svid.clone(), wanted, authority: entry.id.clone() });
        Ok(Minted { svid, fresh: true })
    }

    /// Replaces the X.509-SVID of each instance that holds one of an earlier epoch, with the life that it had asked for: all
    /// of them at once, so that they can be recorded at once.
    pub fn remint_x509(&mut self, now: OffsetDateTime) -> Vec<(Workload, Result<X509Svid, IssueError>)> {
        let stale = self.registry.of_earlier_epochs(self.svid_epoch);
        stale
            .into_iter()
            .map(|(workload, wanted)| {
                let minted = self.x509_svid(&workload.instance, wanted, now).map(|minted| minted.svid);
                (workload, minted)
            })
            .collect()
    }
}

/// A signature that a token did not make is not our own error.
fn not_made(key: &AuthorityKey, reason: &'static str) -> IssueError {
    if key.is_away() { IssueError::KeyUnavailable } else { IssueError::Minting(reason) }
}

/// A little less than that, at random.
fn jittered(wanted: Duration) -> Result<Duration, IssueError> {
    let random = Secret::<8>::random(&SystemRandom::new()).ok_or(IssueError::Minting("no randomness"))?;
    let most = wanted.as_secs() * X509_JITTER_PERCENT / 100;
    Ok(wanted - Duration::from_secs(u64::from_le_bytes(*random.expose()) % (most + 1)))
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
        let exportable = false;
        issuer.admit(Workload { instance: instance.clone(), spiffe_id, digest, component, exportable }).unwrap();
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
