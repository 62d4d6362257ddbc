//! The issuer of one trust domain: it holds every private key of the host and mints SVIDs for the instances that were admitted.
//!
//! Trusts whoever calls [`Issuer::admit`] (the supervisor) about who an instance is. Refuses instances that were not admitted,
//! SPIFFE IDs outside its trust domain or without a path, lifetimes beyond its limits, and every message but a TLS 1.3
//! handshake's. There is no entry database: an identity exists from admission to stop. Time comes in as an argument.
//!
//! An authority that has less than one X.509-SVID's life left when the issuer is opened is replaced then; while the issuer
//! runs, an expired authority fails closed.

mod minting;
mod opening;
mod registry;

use std::path::Path;

use time::OffsetDateTime;

pub use crate::issuer::minting::{IssueError, Minted, SignError, X509Svid};
pub use crate::issuer::registry::AdmitError;

use crate::bundle::Bundle;
use crate::host_mac::HostMac;
use crate::issuer::registry::Registry;
use crate::issuer_error::IssuerError;
use crate::jwt_authority::JwtAuthority;
use crate::jwt_check::TokenError;
use crate::jwt_svid::JwtClaims;
use crate::key_scan::KeyScan;
use crate::key_store::KeyStore;
use crate::lifetimes::Lifetimes;
use crate::trust_domain::TrustDomain;
use crate::workload::{InstanceId, Workload};
use crate::x509_authority::X509Authority;

/// The keys of a trust domain on this host, and the identities they stand behind.
pub struct Issuer {
    trust_domain: TrustDomain,
    lifetimes: Lifetimes,
    x509: X509Authority,
    jwt: JwtAuthority,
    mac: HostMac,
    bundle: Bundle,
    registry: Registry,
    /// Keeps other processes out for as long as the issuer lives.
    _store: KeyStore,
}

impl Issuer {
    /// Opens the key directory, making keys where there are none or where an authority is at its end.
    pub fn open(
        dir: &Path,
        trust_domain: &TrustDomain,
        lifetimes: Lifetimes,
        now: OffsetDateTime,
    ) -> Result<Self, IssuerError> {
        opening::open(dir, trust_domain, lifetimes, now)
    }

    /// Whose SVIDs these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The lifetimes in force.
    pub fn lifetimes(&self) -> Lifetimes {
        self.lifetimes
    }

    /// When the X.509 authority ends.
    pub fn x509_authority_not_after(&self) -> OffsetDateTime {
        self.x509.certificate().not_after
    }

    /// When the JWT authority ends.
    pub fn jwt_authority_not_after(&self) -> OffsetDateTime {
        self.jwt.not_after()
    }

    /// The public keys.
    pub fn bundle(&self) -> Bundle {
        self.bundle.clone()
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
        if now >= self.jwt.not_after() {
            return Err(TokenError::Expired);
        }
        self.jwt.token_key().check(token, audience, now)
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
        let scalars = [self.x509.key(), self.jwt.key()].into_iter().chain(self.registry.keys());
        KeyScan::new(scalars.map(|key| key.scalar()), [self.mac.secret()].into_iter())
    }

    /// How many of this issuer's private keys lie in these bytes. Pieces of one region overlap by [`KeyScan::OVERLAP`] bytes,
    /// which is the caller's to do; for more than one piece take one [`Issuer::key_scan`].
    pub fn find_keys(&self, haystack: &[u8]) -> usize {
        self.key_scan().count(haystack)
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
