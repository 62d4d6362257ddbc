//! From a key directory to an issuer. Persists first, then activates: a key that is in use is on disk, and a bundle that is
//! shown has a sequence that was never shown with another content.
//!
//! A directory of before there was a journal is taken over as it is: its authorities become the active ones.

use serde::Deserialize;
use time::OffsetDateTime;

use super::Issuer;
use super::authorities::Authorities;
use super::changes::Changes;
use super::registry::Registry;
use crate::authority::{AuthorityKind, AuthorityState, Slot};
use crate::authority_key::AuthorityKey;
use crate::host_mac::HostMac;
use crate::issuer_error::IssuerError;
use crate::issuer_options::IssuerOptions;
use crate::journal::{Entry, Journal, KeyName};
use crate::jwt_authority::JwtAuthority;
use crate::key_store::KeyStore;
use crate::limits::{MAX_KEY_FILE_BYTES, X509_BACKDATE};
use crate::rotation_error::RotationError;
use crate::stored_key::KeyKind;
use crate::trust_domain::TrustDomain;
use crate::vault::{JOURNAL_FILE, MAC_FILE, Vault, file_kind, key_of};
use crate::x509_authority::X509Authority;

pub(super) fn open(
    store: KeyStore,
    trust_domain: &TrustDomain,
    options: IssuerOptions,
    now: OffsetDateTime,
) -> Result<Issuer, IssuerError> {
    let now = now.replace_nanosecond(0).map_err(|_| IssuerError::Lifetimes("the time is out of range"))?;
    let vault = Vault::new(store, trust_domain, &options);

    // Everything is read before anything is written: one damaged file leaves the others as they are.
    let mac = match read(&vault, MAC_FILE, KeyKind::Mac, now)? {
        Some(stored) => {
            Some(HostMac::load(&stored).ok_or_else(|| vault.damaged(MAC_FILE, "its key has the wrong length"))?)
        }
        None => None,
    };
    let (journal, taken_over) = match vault.read_journal()? {
        Some(journal) => (journal, false),
        None => (take_over(&vault, &options, now)?, true),
    };
    let latest = now.checked_add(CLOCK_STEP).unwrap_or(now);
    if journal
        .entries
        .iter()
        .any(|entry| entry.prepared_at > latest || entry.activated_at.is_some_and(|at| at > latest))
    {
        return Err(IssuerError::Clock { path: vault.store.path(JOURNAL_FILE) });
    }
    let mut authorities = Authorities::new(trust_domain, options, vault, journal);
    authorities.load_all()?;

    let mac = match mac {
        Some(mac) => mac,
        None => {
            let mac = HostMac::create().ok_or(IssuerError::Creation("no randomness"))?;
            authorities.vault.write(MAC_FILE, mac.stored(trust_domain, now))?;
            mac
        }
    };
    authorities.vault.set_tag(&mac);
    // A start is a new epoch: nobody has the keys of the SVIDs of before.
    let clock = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    let mut next = authorities.journal.clone();
    next.svid_epoch = next.svid_epoch.saturating_add(1).max(clock);
    for entry in &mut next.entries {
        // INVARIANT: raised before the first SVID with the longer life is minted.
        let longest = authorities.options.lifetimes.svid(entry.kind).as_secs();
        entry.longest_svid = entry.longest_svid.max(longest);
    }
    let svid_epoch = next.svid_epoch;
    authorities.commit(next, now)?;
    if taken_over {
        authorities.vault.store.remove(SEQUENCE_FILE)?;
    }
    let mut issuer =
        Issuer { trust_domain: trust_domain.clone(), authorities, mac, registry: Registry::default(), svid_epoch };
    let Changes { failures, .. } = issuer.tick(now);
    let kinds = AuthorityKind::ALL.into_iter().filter(|kind| issuer.authorities.options.wants(*kind));
    let complete = kinds.into_iter().all(|kind| issuer.authorities.journal.active(kind).is_some());
    match failures.into_iter().next() {
        Some(failure) if !complete => Err(match failure.error {
            RotationError::State(error) => error,
            _ => IssuerError::Creation("an authority could not be prepared"),
        }),
        // What failed beside authorities that sign, such as a token that is away, is tried again at each tick.
        _ => Ok(issuer),
    }
}

impl Authorities {
    /// Loads the keys that the journal names and refuses those that are damaged. Keys that are gone or out of reach are the
    /// next tick's.
    fn load_all(&mut self) -> Result<(), IssuerError> {
        for entry in self.journal.entries.clone() {
            match (&entry.key, self.vault.load(&entry)) {
                (_, Ok(Some(key))) => {
                    let signer = self.signer(&entry, key).map_err(|reason| self.vault.damaged(JOURNAL_FILE, reason))?;
                    if signer.id().ok().as_ref() != Some(&entry.id) {
                        return Err(self.vault.damaged(JOURNAL_FILE, "it names an authority otherwise than its key"));
                    }
                    self.signers.insert(entry.id.clone(), signer);
                }
                (Some(KeyName::File(_)), Err(error)) => return Err(error),
                (_, Ok(None) | Err(_)) => {}
            }
        }
        Ok(())
    }
}

fn read(
    vault: &Vault,
    name: &str,
    kind: KeyKind,
    now: OffsetDateTime,
) -> Result<Option<crate::stored_key::StoredKey>, IssuerError> {
    let stored = vault.read(name, kind)?;
    if stored.as_ref().is_some_and(|stored| stored.created_at > now.checked_add(CLOCK_STEP).unwrap_or(now)) {
        return Err(IssuerError::Clock { path: vault.store.path(name) });
    }
    Ok(stored)
}

/// The journal of a directory that has none: empty, or with one authority of each kind as earlier versions kept them.
fn take_over(vault: &Vault, options: &IssuerOptions, now: OffsetDateTime) -> Result<Journal, IssuerError> {
    let mut entries = Vec::new();
    for (kind, name) in [(AuthorityKind::X509, X509_FILE), (AuthorityKind::Jwt, JWT_FILE)] {
        let damaged = |reason| vault.damaged(name, reason);
        let Some(stored) = read(vault, name, file_kind(kind), now)? else { continue };
        let not_after = stored.not_after.ok_or_else(|| damaged("it does not say when it ends"))?;
        let key = key_of(kind, &stored).map_err(damaged)?;
        let (algorithm, public) = (key.algorithm(), key.public());
        let id = id(kind, key, &stored.certificate, &vault.trust_domain, not_after).map_err(damaged)?;
        entries.push(Entry {
            kind,
            slot: Some(Slot::A),
            state: AuthorityState::Active,
            id,
            algorithm,
            key: Some(KeyName::File(name.to_owned())),
            public,
            certificate: stored.certificate,
            prepared_at: stored.created_at,
            activated_at: Some(stored.created_at),
            not_after,
            longest_svid: options.lifetimes.svid(kind).as_secs(),
            published_until: None,
        });
    }
    let sequence = match vault.store.read(SEQUENCE_FILE, MAX_KEY_FILE_BYTES)? {
        Some(bytes) => {
            let record: SequenceRecord = serde_json::from_slice(&bytes)
                .map_err(|_| vault.damaged(SEQUENCE_FILE, "it is not in the expected format"))?;
            record.sequence
        }
        None => 0,
    };
    let (trust_domain, content) = (vault.trust_domain.clone(), String::new());
    Ok(Journal { trust_domain, sequence, content, svid_epoch: 0, entries })
}

/// Checks that key and certificate fit together, and names the authority.
fn id(
    kind: AuthorityKind,
    key: AuthorityKey,
    certificate: &[u8],
    trust_domain: &TrustDomain,
    not_after: OffsetDateTime,
) -> Result<crate::authority::AuthorityId, &'static str> {
    match kind {
        AuthorityKind::X509 => {
            let authority = X509Authority::from_parts(key, certificate, trust_domain)?;
            if authority.certificate().not_after != not_after {
                return Err("its certificate ends at another time than it says");
            }
            authority.id()
        }
        AuthorityKind::Jwt | AuthorityKind::Wit => JwtAuthority::new(key, trust_domain).id(),
    }
}

/// What earlier versions wrote beside the keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SequenceRecord {
    sequence: u64,
    #[serde(rename = "content")]
    _content: String,
}

/// How far a clock may have been set back between two starts; SVIDs are backdated by as much.
const CLOCK_STEP: time::Duration = time::Duration::seconds(X509_BACKDATE.as_secs().cast_signed());

const X509_FILE: &str = "x509-authority.key";
const JWT_FILE: &str = "jwt-authority.key";
const SEQUENCE_FILE: &str = "bundle.json";
