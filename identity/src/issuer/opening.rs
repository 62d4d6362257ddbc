//! From a key directory to an issuer. Persists first, then activates: a key that is in use is on disk, and a bundle that is
//! shown has a sequence that was never shown with another content.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::Issuer;
use super::registry::Registry;
use crate::bundle::{Bundle, JwtBundleKey, X509BundleKey};
use crate::host_mac::HostMac;
use crate::issuer_error::IssuerError;
use crate::jwk::EcCoordinates;
use crate::jwt_authority::JwtAuthority;
use crate::key_store::KeyStore;
use crate::lifetimes::Lifetimes;
use crate::stored_key::{KeyKind, StoredKey};
use crate::trust_domain::TrustDomain;
use crate::x509_authority::X509Authority;

pub(super) fn open(
    dir: &Path,
    trust_domain: &TrustDomain,
    lifetimes: Lifetimes,
    now: OffsetDateTime,
) -> Result<Issuer, IssuerError> {
    let now = now.replace_nanosecond(0).map_err(|_| IssuerError::Lifetimes("the time is out of range"))?;
    let not_after = now
        .checked_add(time::Duration::try_from(lifetimes.authority()).unwrap_or(time::Duration::MAX))
        .ok_or(IssuerError::Lifetimes("the time is out of range"))?;
    let opening = Opening { store: KeyStore::open(dir)?, trust_domain, lifetimes, now };

    let x509 = match opening.read(X509_FILE, KeyKind::X509Authority)? {
        Some(stored) => Some(X509Authority::load(&stored).map_err(|reason| opening.damaged(X509_FILE, reason))?),
        None => None,
    };
    let jwt = match opening.read(JWT_FILE, KeyKind::JwtAuthority)? {
        Some(stored) => Some(JwtAuthority::load(&stored).map_err(|reason| opening.damaged(JWT_FILE, reason))?),
        None => None,
    };
    let mac = match opening.read(MAC_FILE, KeyKind::Mac)? {
        Some(stored) => HostMac::load(&stored),
        None => None,
    };
    // Only when every file was found whole is anything replaced.
    let x509 = match x509.filter(|authority| opening.lasts(authority.certificate().not_after)) {
        Some(authority) => authority,
        None => {
            let authority = X509Authority::create(trust_domain, now, not_after).map_err(IssuerError::Creation)?;
            opening.write(X509_FILE, authority.stored(now))?;
            authority
        }
    };
    let jwt = match jwt.filter(|authority| opening.lasts(authority.not_after())) {
        Some(authority) => authority,
        None => {
            let authority = JwtAuthority::create(trust_domain, not_after).map_err(IssuerError::Creation)?;
            opening.write(JWT_FILE, authority.stored(now))?;
            authority
        }
    };
    let mac = match mac {
        Some(mac) => mac,
        None => {
            let mac = HostMac::create().ok_or(IssuerError::Creation("no randomness"))?;
            opening.write(MAC_FILE, mac.stored(trust_domain, now))?;
            mac
        }
    };
    let mut bundle = Bundle {
        trust_domain: trust_domain.clone(),
        sequence: 0,
        x509: vec![X509BundleKey {
            der: x509.certificate().der.clone(),
            coordinates: EcCoordinates::of(x509.key().public()),
        }],
        jwt: vec![JwtBundleKey { kid: jwt.kid().to_owned(), coordinates: jwt.coordinates().clone() }],
    };
    bundle.sequence = opening.sequence(&bundle)?;
    Ok(Issuer {
        trust_domain: trust_domain.clone(),
        lifetimes,
        x509,
        jwt,
        mac,
        bundle,
        registry: Registry::default(),
        _store: opening.store,
    })
}

struct Opening<'a> {
    store: KeyStore,
    trust_domain: &'a TrustDomain,
    lifetimes: Lifetimes,
    now: OffsetDateTime,
}

impl Opening<'_> {
    fn read(&self, name: &str, kind: KeyKind) -> Result<Option<StoredKey>, IssuerError> {
        let Some(bytes) = self.store.read(name)? else { return Ok(None) };
        let stored = StoredKey::from_bytes(&bytes, kind).map_err(|reason| self.damaged(name, reason))?;
        if stored.trust_domain != *self.trust_domain {
            return Err(IssuerError::ForeignDomain {
                path: self.path(name),
                found: stored.trust_domain.clone(),
                expected: self.trust_domain.clone(),
            });
        }
        if stored.created_at > self.now {
            return Err(IssuerError::Clock { path: self.path(name) });
        }
        Ok(Some(stored))
    }

    fn write(&self, name: &str, stored: Option<StoredKey>) -> Result<(), IssuerError> {
        let bytes = stored.and_then(|stored| stored.to_bytes()).ok_or(IssuerError::Creation("the key file"))?;
        self.store.write(name, &bytes)
    }

    /// Whether an authority that ends then can still give an X.509-SVID its full life.
    fn lasts(&self, not_after: OffsetDateTime) -> bool {
        not_after - self.now >= self.lifetimes.x509()
    }

    /// The sequence of this content: that which it had, or a larger one than any content had before. Without a record it
    /// starts from the clock, so that it grows even when the state was lost.
    fn sequence(&self, bundle: &Bundle) -> Result<u64, IssuerError> {
        let content = bundle.fingerprint();
        let before = match self.store.read(SEQUENCE_FILE)? {
            Some(bytes) => {
                let record: SequenceRecord = serde_json::from_slice(&bytes)
                    .map_err(|_| self.damaged(SEQUENCE_FILE, "it is not in the expected format"))?;
                if record.content == content {
                    return Ok(record.sequence);
                }
                record.sequence
            }
            None => 0,
        };
        let clock = u64::try_from(self.now.unix_timestamp()).unwrap_or(0);
        let sequence =
            before.checked_add(1).ok_or(self.damaged(SEQUENCE_FILE, "its sequence is at its end"))?.max(clock);
        let record = serde_json::to_vec(&SequenceRecord { sequence, content })
            .map_err(|_| IssuerError::Creation("the sequence file"))?;
        self.store.write(SEQUENCE_FILE, &record)?;
        Ok(sequence)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.store.path(name)
    }

    fn damaged(&self, name: &str, reason: &'static str) -> IssuerError {
        IssuerError::Damaged { path: self.path(name), reason }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SequenceRecord {
    sequence: u64,
    content: String,
}

const X509_FILE: &str = "x509-authority.key";
const JWT_FILE: &str = "jwt-authority.key";
const MAC_FILE: &str = "mac.key";
const SEQUENCE_FILE: &str = "bundle.json";
