//! An RSA key of 2048 bits for JWT-SVIDs whose checkers know RS256 only. The `rsa` crate makes the numbers and does nothing
//! else with them: `ring` signs, in constant time.
//!
//! `ring` does not wipe what it holds and gives no way to do so; what is stored and what is looked for in memory is wiped here.
//! The boundary that holds is the process.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rsa::RsaPrivateKey;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rsa::rand_core::{CryptoRng, Error, RngCore};
use rsa::traits::{PrivateKeyParts, PublicKeyParts};
use zeroize::Zeroizing;

use crate::p256_key::KeyError;
use crate::public_key::PublicKey;
use crate::secret::Secret;

/// A private key with its public part.
pub(crate) struct RsaKey {
    pair: RsaKeyPair,
    public: PublicKey,
    pkcs8: Zeroizing<Vec<u8>>,
    traces: Vec<Secret<32>>,
}

impl RsaKey {
    /// A new key.
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let mut random = Random { failed: false };
        let key = RsaPrivateKey::new(&mut random, MODULUS_BITS).map_err(|_| KeyError)?;
        // INVARIANT: a key whose numbers did not all come from the system's randomness is not used.
        if random.failed {
            return Err(KeyError);
        }
        let document = key.to_pkcs8_der().map_err(|_| KeyError)?;
        Self::from_key(&key, Zeroizing::new(document.as_bytes().to_vec()))
    }

    /// The key of a PKCS#8 document.
    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let key = RsaPrivateKey::from_pkcs8_der(pkcs8).map_err(|_| KeyError)?;
        Self::from_key(&key, Zeroizing::new(pkcs8.to_vec()))
    }

    fn from_key(key: &RsaPrivateKey, pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let public = PublicKey::rsa(&key.n().to_bytes_be(), &key.e().to_bytes_be()).map_err(|_| KeyError)?;
        let pair = RsaKeyPair::from_pkcs8(&pkcs8).map_err(|_| KeyError)?;
        // A prime in memory is the whole key: any 32 bytes of it tell that it is there.
        let traces = key.primes().iter().filter_map(|prime| {
            let bytes = Zeroizing::new(prime.to_bytes_be());
            bytes.get(..32).and_then(Secret::copied)
        });
        Ok(Self { pair, public, traces: traces.collect(), pkcs8 })
    }

    /// RSASSA-PKCS1-v1_5 over the SHA-256 of the message (RFC 7518 section 3.3).
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).map_err(|_| KeyError)?;
        Ok(signature)
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The document to store.
    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Pieces of the private numbers, for the search in memory.
    pub(crate) fn traces(&self) -> &[Secret<32>] {
        &self.traces
    }
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaKey(..)")
    }
}

/// The system's randomness through `ring`. The trait has no way to fail, so a failure is remembered and the key thrown away.
struct Random {
    failed: bool,
}

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        if self.failed || SystemRandom::new().fill(to).is_err() {
            // All ones, so that the search for a prime ends; the key is thrown away.
            self.failed = true;
            to.fill(0xff);
        }
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(to);
        Ok(())
    }
}

impl CryptoRng for Random {}

const MODULUS_BITS: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jws_algorithm::JwsAlgorithm;

    #[test]
    fn a_key_signs_alike_after_it_was_stored_and_only_rs256_verifies() {
        let key = RsaKey::generate().unwrap();
        let again = RsaKey::from_pkcs8(key.pkcs8()).unwrap();
        assert_eq!(again.public(), key.public());
        let signature = again.sign(b"message").unwrap();
        assert!(key.public().verifies(JwsAlgorithm::Rs256, b"message", &signature));
        assert!(!key.public().verifies(JwsAlgorithm::Rs256, b"massage", &signature));
        for other in [JwsAlgorithm::Ps256, JwsAlgorithm::Rs512, JwsAlgorithm::Es256] {
            assert!(!key.public().verifies(other, b"message", &signature));
        }
        assert_eq!(key.traces().len(), 2);
        assert!(RsaKey::from_pkcs8(&key.pkcs8()[1..]).is_err());
        assert_eq!(format!("{key:?}"), "RsaKey(..)");
    }
}
