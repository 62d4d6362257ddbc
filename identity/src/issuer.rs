//! The issuer of one trust domain: it holds every private key of the host and mints SVIDs for the instances that were admitted.
//!
//! Trusts whoever calls [`Issuer::admit`] (the supervisor) about who an instance is. Refuses instances that were not admitted,
//! SPIFFE IDs outside its trust domain or without a path, lifetimes beyond its limits, and every message but a TLS 1.3
//! handshake's. There is no entry database: an identity exists from admission to stop. Time comes in as an argument.
//!
//! Its authorities rotate by overlap ([`Issuer::tick`]); when nobody calls that, an expired authority fails closed.

mod authorities;
mod changes;
#[cfg(test)]
mod crashes;
mod minting;
mod opening;
mod registry;
mod rotation;
mod signing;

use std::path::Path;

use time::OffsetDateTime;

pub use crate::issuer::changes::{Changes, RotationFailure};
pub use crate::issuer::minting::{ExportedX509, IssueError, Minted, X509Svid};
pub use crate::issuer::registry::AdmitError;
pub use crate::issuer::signing::{SignError, signed_message};

use crate::authority::AuthorityKind;
use crate::authority_key::{AuthorityKey, KeyAlgorithm};
use crate::bundle::Bundle;
use crate::host_mac::HostMac;
use crate::issuer::authorities::Authorities;
use crate::issuer::registry::Registry;
use crate::issuer_error::IssuerError;
use crate::issuer_options::IssuerOptions;
use crate::jwt_check::{TokenError, check_jwt};
use crate::jwt_svid::JwtClaims;
use crate::key_scan::KeyScan;
use crate::key_store::KeyStore;
use crate::lifetimes::Lifetimes;
use crate::p256_key::P256Key;
use crate::spare_key::SpareKey;
use crate::trust_domain::TrustDomain;
use crate::wit_svid::{WitClaims, check_wit};
use crate::workload::{InstanceId, Workload};

/// The keys of a trust domain on this host, and the identities they stand behind.
pub struct Issuer {
    trust_domain: TrustDomain,
    authorities: Authorities,
    mac: HostMac,
    registry: Registry,
    svid_epoch: u64,
}

impl Issuer {
    /// Opens the key directory with the default choices beside these lifetimes.
    pub fn open(
        dir: &Path,
        trust_domain: &TrustDomain,
        lifetimes: Lifetimes,
        now: OffsetDateTime,
    ) -> Result<Self, IssuerError> {
        Self::open_with(dir, trust_domain, IssuerOptions::new(lifetimes), now)
    }

    /// Opens the key directory, makes the authorities that are not there and does what is due.
    pub fn open_with(
        dir: &Path,
        trust_domain: &TrustDomain,
        options: IssuerOptions,
        now: OffsetDateTime,
    ) -> Result<Self, IssuerError> {
        opening::open(KeyStore::open(dir)?, trust_domain, options, now)
    }

    /// Whose SVIDs these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The lifetimes in force.
    pub fn lifetimes(&self) -> Lifetimes {
        self.authorities.options.lifetimes
    }

    /// When the X.509 authority that signs ends; the beginning of time when none does.
    pub fn x509_authority_not_after(&self) -> OffsetDateTime {
        self.not_after(AuthorityKind::X509)
    }

    /// When the JWT authority that signs ends; the beginning of time when none does.
    pub fn jwt_authority_not_after(&self) -> OffsetDateTime {
        self.not_after(AuthorityKind::Jwt)
    }

    /// The public keys of the authorities whose SVIDs are valid: prepared, active and old.
    pub fn bundle(&self) -> Bundle {
        self.authorities.published.bundle.clone()
    }

    /// Whether a key should be made ahead ([`SpareKey::generate`]) and handed over, outside of any lock: the next authority
    /// would else make an RSA key while everybody waits.
    pub fn wants_spare_key(&self) -> bool {
        let (options, vault) = (&self.authorities.options, &self.authorities.vault);
        let long = |kind| options.wants(kind) && options.algorithm(kind) == KeyAlgorithm::Rs256;
        AuthorityKind::ALL.into_iter().any(long) && vault.wants_spare()
    }

    /// Keeps a key that was made ahead.
    pub fn keep_spare_key(&mut self, key: SpareKey) {
        if let Ok(mut spare) = self.authorities.vault.spare.lock() {
            *spare = Some(key);
        }
    }

    /// Begins the identity of an instance. An instance that is already admitted is refused.
    pub fn admit(&mut self, workload: Workload) -> Result<(), AdmitError> {
        self.registry.admit(&self.trust_domain, workload)
    }

    /// Ends the identity of an instance and wipes its keys and tokens; whether there was one.
    pub fn stop(&mut self, instance: &InstanceId) -> bool {
        self.registry.stop(instance)
    }

    /// What was admitted as this instance.
    pub fn workload(&self, instance: &InstanceId) -> Option<&Workload> {
        self.registry.workload(instance)
    }

    /// How many instances have an identity.
    pub fn instances(&self) -> usize {
        self.registry.len()
    }

    /// The claims of a token of this trust domain that is valid now and for this audience.
    pub fn validate_jwt(&self, token: &str, audience: &str, now: OffsetDateTime) -> Result<JwtClaims, TokenError> {
        check_jwt(token, audience, &self.authorities.published.jwt, now)
    }

    /// The claims of a WIT-SVID of this trust domain that is valid now. Its sender must still prove that it has the key.
    pub fn validate_wit(&self, token: &str, now: OffsetDateTime) -> Result<WitClaims, TokenError> {
        check_wit(token, &self.authorities.published.wit, now)
    }

    /// A MAC under this host's own secret, separated by purpose.
    pub fn mac(&self, purpose: &str, data: &[u8]) -> [u8; 32] {
        self.mac.mac(purpose, data)
    }

    /// Whether this is the MAC of the data for the purpose, in constant time.
    pub fn verify_mac(&self, purpose: &str, data: &[u8], mac: &[u8]) -> bool {
        self.mac.verify(purpose, data, mac)
    }

    /// A search for every private key that this issuer holds now.
    pub fn key_scan(&self) -> KeyScan {
        let spare = self.authorities.vault.spare.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let keys = || self.authorities.signers.keys();
        let scalars = keys().filter_map(AuthorityKey::scalar).chain(self.registry.keys().map(P256Key::scalar));
        let ahead = spare.iter().flat_map(|spare| spare.0.traces());
        let others = keys().flat_map(|key| key.traces()).chain(ahead).chain([self.mac.secret()]);
        KeyScan::new(scalars, others)
    }

    /// How many of this issuer's private keys lie in these bytes. Pieces of one region overlap by [`KeyScan::OVERLAP`] bytes,
    /// which is the caller's to do; for more than one piece take one [`Issuer::key_scan`].
    pub fn find_keys(&self, haystack: &[u8]) -> usize {
        self.key_scan().count(haystack)
    }

    fn not_after(&self, kind: AuthorityKind) -> OffsetDateTime {
        self.authorities.journal.active(kind).map_or(OffsetDateTime::UNIX_EPOCH, |entry| entry.not_after)
    }
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer")
            .field("trust_domain", &self.trust_domain)
            .field("instances", &self.registry.len())
            .finish_non_exhaustive()
    }
}
