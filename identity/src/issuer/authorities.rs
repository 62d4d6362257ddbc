//! The authorities of the trust domain as they stand: the journal that is in force, the private keys of those that sign, and the
//! bundle that follows from it. Every change goes through [`Authorities::commit`]: on disk first, then in force.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::minting::IssueError;
use crate::authority::{AuthorityId, AuthorityKind, AuthorityState, AuthorityStatus};
use crate::authority_key::{AuthorityKey, KeyAlgorithm};
use crate::bundle::{Bundle, X509BundleKey};
use crate::issuer_error::IssuerError;
use crate::issuer_options::{IssuerOptions, KeyPlace};
use crate::journal::{Entry, Journal, KeyName};
use crate::jwt_authority::JwtAuthority;
use crate::jwt_key::{JwtKey, JwtKeys};
use crate::trust_domain::TrustDomain;
use crate::vault::{JOURNAL_FILE, Vault};
use crate::x509_authority::X509Authority;

/// Journal, keys, bundle.
pub(super) struct Authorities {
    pub(super) trust_domain: TrustDomain,
    pub(super) options: IssuerOptions,
    pub(super) vault: Vault,
    pub(super) journal: Journal,
    pub(super) signers: Signers,
    pub(super) published: Published,
    /// Tainted, but the disk does not know yet: they sign nothing and verify nothing.
    pub(super) refused: Vec<AuthorityId>,
    /// The highest sequence that was ever tried: one that may have reached the disk is not used for another content.
    floor: u64,
    /// The last write failed, so the disk may be ahead of what is in force.
    unsettled: bool,
    /// A key that is wanted no more could not be destroyed.
    leftovers: bool,
}

/// The authorities whose private keys are at hand.
#[derive(Default)]
pub(super) struct Signers {
    x509: HashMap<AuthorityId, X509Authority>,
    tokens: HashMap<AuthorityId, JwtAuthority>,
}

/// The public keys of a journal.
pub(super) struct Published {
    pub(super) bundle: Bundle,
    pub(super) jwt: JwtKeys,
    pub(super) wit: JwtKeys,
}

impl Authorities {
    pub(super) fn new(trust_domain: &TrustDomain, options: IssuerOptions, vault: Vault, journal: Journal) -> Self {
        let published = Published::of(&journal, &options, &[]);
        let floor = journal.sequence;
        Self {
            trust_domain: trust_domain.clone(),
            options,
            vault,
            journal,
            signers: Signers::default(),
            published,
            refused: Vec::new(),
            floor,
            unsettled: false,
            leftovers: true,
        }
    }

    /// Puts the next journal in force, if it can be written. Gives it a sequence of its own when its content is another one.
    /// Says whether the bundle changed.
    pub(super) fn commit(&mut self, mut next: Journal, now: OffsetDateTime) -> Result<bool, IssuerError> {
        next.check().map_err(IssuerError::Creation)?;
        next.content = next.fingerprint();
        let changed = next.content != self.journal.content;
        if changed {
            // INVARIANT: no sequence is ever used for two contents. The clock makes it grow even when the state was restored.
            let clock = u64::try_from(now.unix_timestamp()).unwrap_or(0);
            let after = self.floor.max(self.journal.sequence).checked_add(1);
            next.sequence =
                after.ok_or_else(|| self.vault.damaged(JOURNAL_FILE, "its sequence is at its end"))?.max(clock);
            self.floor = next.sequence;
        }
        self.unsettled = true;
        self.vault.write_journal(&next)?;
        self.unsettled = false;
        let before = std::mem::replace(&mut self.journal, next);
        self.signers.keep(&self.journal);
        self.published = Published::of(&self.journal, &self.options, &self.refused);
        for name in before.entries.iter().filter_map(|entry| entry.key.as_ref()) {
            let named = self.journal.entries.iter().any(|entry| entry.key.as_ref() == Some(name));
            // What cannot be destroyed now is swept at the next tick.
            if !named && self.vault.destroy(name).is_err() {
                self.leftovers = true;
            }
        }
        Ok(changed)
    }

    /// Treats an authority as tainted although that could not be written: the bundle is as it was, for its sequence is on
    /// disk, but here it signs nothing and verifies nothing.
    pub(super) fn refuse(&mut self, id: &AuthorityId) {
        if !self.refused.contains(id) {
            self.refused.push(id.clone());
        }
        self.published = Published::of(&self.journal, &self.options, &self.refused);
    }

    /// Brings the disk to what is in force, after a write that failed, and destroys what is wanted no more.
    pub(super) fn settle(&mut self) -> Result<(), IssuerError> {
        if self.unsettled {
            self.vault.write_journal(&self.journal)?;
            self.unsettled = false;
        }
        if self.leftovers {
            self.vault.sweep(&self.journal)?;
            self.leftovers = false;
        }
        Ok(())
    }

    /// A new authority of this kind, not in the journal yet; its key is where it lies for good.
    pub(super) fn make(&self, kind: AuthorityKind, now: OffsetDateTime) -> Result<(Entry, Signer), IssuerError> {
        let life = self.options.lifetimes.authority();
        let not_after = now
            .checked_add(time::Duration::try_from(life).unwrap_or(time::Duration::MAX))
            .ok_or(IssuerError::Lifetimes("the time is out of range"))?;
        let (name, key) = self.vault.make(kind, self.options.algorithm(kind), now)?;
        let made = self.entry(kind, name.clone(), key, now, not_after);
        if made.is_err() {
            // Best effort: what the journal does not name is swept.
            let _ = self.vault.destroy(&name);
        }
        made.map_err(IssuerError::Creation)
    }

    fn entry(
        &self,
        kind: AuthorityKind,
        name: KeyName,
        key: AuthorityKey,
        now: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<(Entry, Signer), &'static str> {
        let (algorithm, public) = (key.algorithm(), key.public());
        let signer = match kind {
            AuthorityKind::X509 => {
                Signer::X509(Box::new(X509Authority::create(key, &self.trust_domain, now, not_after)?))
            }
            AuthorityKind::Jwt | AuthorityKind::Wit => {
                Signer::Token(Box::new(JwtAuthority::new(key, &self.trust_domain)))
            }
        };
        let entry = Entry {
            kind,
            slot: None,
            state: AuthorityState::Prepared,
            id: signer.id()?,
            algorithm,
            key: Some(name),
            public,
            certificate: signer.certificate(),
            prepared_at: now,
            activated_at: None,
            not_after,
            longest_svid: self.options.lifetimes.svid(kind).as_secs(),
            published_until: None,
        };
        Ok((entry, signer))
    }

    /// The signer of this entry, from its key.
    pub(super) fn signer(&self, entry: &Entry, key: AuthorityKey) -> Result<Signer, &'static str> {
        match entry.kind {
            AuthorityKind::X509 => {
                let authority = X509Authority::from_parts(key, &entry.certificate, &self.trust_domain)?;
                if authority.certificate().not_after != entry.not_after {
                    return Err("its certificate ends at another time than it says");
                }
                Ok(Signer::X509(Box::new(authority)))
            }
            AuthorityKind::Jwt | AuthorityKind::Wit => {
                Ok(Signer::Token(Box::new(JwtAuthority::new(key, &self.trust_domain))))
            }
        }
    }

    /// Whether an authority is as the options want new ones to be.
    pub(super) fn is_as_wanted(&self, entry: &Entry) -> bool {
        let place = match (&self.options.keys, &entry.key) {
            (KeyPlace::Disk, Some(KeyName::File(_))) | (KeyPlace::Pkcs11(_), Some(KeyName::Pkcs11(_))) => true,
            (KeyPlace::Disk, Some(KeyName::Pkcs11(_))) | (KeyPlace::Pkcs11(_), Some(KeyName::File(_))) => false,
            (_, None) => true,
        };
        place && entry.algorithm == self.options.algorithm(entry.kind)
    }

    /// The X.509 authority that signs now, and the journal's word on it.
    pub(super) fn x509(&self, now: OffsetDateTime) -> Result<(&X509Authority, &Entry), IssueError> {
        let entry = self.active(AuthorityKind::X509, now)?;
        self.signers.x509.get(&entry.id).map(|signer| (signer, entry)).ok_or(IssueError::KeyUnavailable)
    }

    /// The token authority of this kind that signs now, and the journal's word on it.
    pub(super) fn token(
        &self,
        kind: AuthorityKind,
        now: OffsetDateTime,
    ) -> Result<(&JwtAuthority, &Entry), IssueError> {
        let entry = self.active(kind, now)?;
        self.signers.tokens.get(&entry.id).map(|signer| (signer, entry)).ok_or(IssueError::KeyUnavailable)
    }

    fn active(&self, kind: AuthorityKind, now: OffsetDateTime) -> Result<&Entry, IssueError> {
        let active = self.journal.active(kind).filter(|entry| now < entry.not_after);
        active.filter(|entry| !self.refused.contains(&entry.id)).ok_or(IssueError::AuthorityExpired)
    }

    pub(super) fn statuses(&self) -> Vec<AuthorityStatus> {
        let mut statuses: Vec<_> = self.journal.entries.iter().map(|entry| self.status(entry)).collect();
        statuses.sort_by_key(|status| (status.kind, status.slot.is_none(), status.slot, status.prepared_at));
        statuses
    }

    fn status(&self, entry: &Entry) -> AuthorityStatus {
        AuthorityStatus {
            kind: entry.kind,
            slot: entry.slot,
            state: if self.refused.contains(&entry.id) { AuthorityState::Tainted } else { entry.state },
            id: entry.id.clone(),
            algorithm: match entry.algorithm {
                KeyAlgorithm::Es256 => "ES256",
                KeyAlgorithm::Rs256 => "RS256",
            },
            key_place: match &entry.key {
                Some(KeyName::File(_)) => "file",
                Some(KeyName::Pkcs11(_)) => "pkcs11",
                None => "none",
            },
            key_present: self.signers.has(&entry.id),
            prepared_at: entry.prepared_at,
            activated_at: entry.activated_at,
            not_after: entry.not_after,
            published_until: entry.published_until,
        }
    }
}

/// An authority with its private key.
pub(super) enum Signer {
    X509(Box<X509Authority>),
    Token(Box<JwtAuthority>),
}

impl Signer {
    pub(super) fn id(&self) -> Result<AuthorityId, &'static str> {
        match self {
            Self::X509(authority) => authority.id(),
            Self::Token(authority) => authority.id(),
        }
    }

    fn certificate(&self) -> Vec<u8> {
        match self {
            Self::X509(authority) => authority.certificate().der.clone(),
            Self::Token(_) => Vec::new(),
        }
    }
}

impl Signers {
    pub(super) fn insert(&mut self, id: AuthorityId, signer: Signer) {
        match signer {
            Signer::X509(authority) => drop(self.x509.insert(id, *authority)),
            Signer::Token(authority) => drop(self.tokens.insert(id, *authority)),
        }
    }

    pub(super) fn has(&self, id: &AuthorityId) -> bool {
        self.x509.get(id).is_some_and(|signer| !signer.key().is_away())
            || self.tokens.get(id).is_some_and(|signer| !signer.key().is_away())
    }

    /// Dropping a signer wipes its key.
    fn keep(&mut self, journal: &Journal) {
        let signs = |id: &AuthorityId| journal.entry(id).is_some_and(|entry| entry.key.is_some());
        self.x509.retain(|id, _| signs(id));
        self.tokens.retain(|id, _| signs(id));
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &AuthorityKey> {
        self.x509.values().map(X509Authority::key).chain(self.tokens.values().map(JwtAuthority::key))
    }
}

impl Published {
    fn of(journal: &Journal, options: &IssuerOptions, refused: &[AuthorityId]) -> Self {
        let of = |kind| journal.of(kind).filter(|entry| entry.state.is_published());
        let tokens =
            |kind| of(kind).map(|entry| JwtKey::own(entry.public.clone(), entry.algorithm.jws())).collect::<Vec<_>>();
        let x509 = of(AuthorityKind::X509)
            .map(|entry| X509BundleKey { der: entry.certificate.clone(), public: entry.public.clone() })
            .collect();
        let bundle = Bundle {
            trust_domain: journal.trust_domain.clone(),
            sequence: journal.sequence,
            refresh_hint: options.lifetimes.refresh_hint(),
            x509,
            jwt: tokens(AuthorityKind::Jwt),
            wit: tokens(AuthorityKind::Wit),
        };
        let keys = |keys: &[JwtKey]| {
            let trusted = keys.iter().filter(|key| refused.iter().all(|id| id.as_str() != key.kid()));
            JwtKeys::new(journal.trust_domain.clone(), trusted.cloned().collect())
        };
        Self { jwt: keys(&bundle.jwt), wit: keys(&bundle.wit), bundle }
    }
}
