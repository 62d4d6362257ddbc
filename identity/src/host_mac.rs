//! A keyed MAC under a secret that never leaves this process: HMAC-SHA256 with a key derived for each purpose, so that a MAC
//! made for one purpose says nothing for another.

use ring::hmac::{HMAC_SHA256, Key, sign, verify};
use ring::rand::SystemRandom;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::authority_key::KeyAlgorithm;
use crate::secret::Secret;
use crate::stored_key::{KeyKind, StoredKey};
use crate::trust_domain::TrustDomain;

/// The secret of this host.
#[derive(Debug)]
pub(crate) struct HostMac(Secret<32>);

impl HostMac {
    pub(crate) fn create() -> Option<Self> {
        Secret::random(&SystemRandom::new()).map(Self)
    }

    pub(crate) fn load(stored: &StoredKey) -> Option<Self> {
        Secret::copied(&stored.secret).map(Self)
    }

    pub(crate) fn stored(&self, trust_domain: &TrustDomain, created_at: OffsetDateTime) -> StoredKey {
        StoredKey {
            kind: KeyKind::Mac,
            trust_domain: trust_domain.clone(),
            created_at,
            not_after: None,
            algorithm: KeyAlgorithm::Es256,
            secret: Zeroizing::new(self.0.expose().to_vec()),
            public: Vec::new(),
            certificate: Vec::new(),
        }
    }

    pub(crate) fn mac(&self, purpose: &str, data: &[u8]) -> [u8; 32] {
        let tag = sign(&self.key(purpose), data);
        let mut mac = [0; 32];
        mac.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        mac
    }

    pub(crate) fn verify(&self, purpose: &str, data: &[u8], mac: &[u8]) -> bool {
        verify(&self.key(purpose), data, mac).is_ok()
    }

    pub(crate) fn secret(&self) -> &Secret<32> {
        &self.0
    }

    fn key(&self, purpose: &str) -> Key {
        let root = Key::new(HMAC_SHA256, self.0.expose());
        let mut label = DOMAIN.to_vec();
        label.extend_from_slice(purpose.as_bytes());
        let derived = sign(&root, &label);
        let derived = Zeroizing::new(derived.as_ref().to_vec());
        Key::new(HMAC_SHA256, &derived)
    }
}

const DOMAIN: &[u8] = b"portcullis host mac v1\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_holds_for_its_purpose_data_and_secret_only() {
        let mac = HostMac::create().unwrap();
        let tag = mac.mac("code cache", b"data");
        assert_eq!(tag, mac.mac("code cache", b"data"));
        assert!(mac.verify("code cache", b"data", &tag));
        assert!(!mac.verify("code cache", b"Data", &tag));
        assert!(!mac.verify("code cach", b"edata", &tag));
        assert!(!mac.verify("code cache", b"data", &tag[..31]));
        assert!(!mac.verify("code cache", b"data", &[]));
        assert!(!HostMac::create().unwrap().verify("code cache", b"data", &tag));
    }
}
