//! How one key is written to disk. Decides nothing but whether the file is what it says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::authority_key::KeyAlgorithm;
use crate::checked_file::{SEAL_BYTES, seal, unseal};
use crate::limits::MAX_KEY_FILE_BYTES;
use crate::trust_domain::TrustDomain;

/// A key of the issuer as it lies on disk.
pub(crate) struct StoredKey {
    pub(crate) kind: KeyKind,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) created_at: OffsetDateTime,
    /// Of the authority, where the file says so: files of before there was a journal.
    pub(crate) not_after: Option<OffsetDateTime>,
    pub(crate) algorithm: KeyAlgorithm,
    /// A P-256 scalar, an RSA key in PKCS#8, or a MAC key.
    pub(crate) secret: Zeroizing<Vec<u8>>,
    /// Uncompressed point; empty for an RSA and for a MAC key.
    pub(crate) public: Vec<u8>,
    /// DER; empty where there is none.
    pub(crate) certificate: Vec<u8>,
}

/// What a key is for. One key, one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyKind {
    X509Authority,
    JwtAuthority,
    WitAuthority,
    Mac,
}

impl StoredKey {
    /// The bytes of the file.
    pub(crate) fn to_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        let private_key = Zeroizing::new(STANDARD.encode(&*self.secret));
        let (public_key, certificate) = (STANDARD.encode(&self.public), STANDARD.encode(&self.certificate));
        let file = KeyFile {
            version: VERSION,
            kind: self.kind,
            trust_domain: self.trust_domain.as_str(),
            created_at: self.created_at.unix_timestamp(),
            not_after: self.not_after.map(OffsetDateTime::unix_timestamp),
            algorithm: self.algorithm,
            private_key: &private_key,
            public_key: &public_key,
            certificate: &certificate,
        };
        // One allocation, so that no copy of the key is left behind by growth.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES));
        serde_json::to_writer(&mut *bytes, &file).ok()?;
        if bytes.len() + SEAL_BYTES > MAX_KEY_FILE_BYTES {
            return None;
        }
        seal(&mut bytes);
        Some(bytes)
    }

    /// Reads the bytes of a file; the error says what is wrong with it.
    pub(crate) fn from_bytes(bytes: &[u8], kind: KeyKind) -> Result<Self, &'static str> {
        let file: KeyFile<'_> =
            serde_json::from_slice(unseal(bytes)?).map_err(|_| "it is not in the expected format")?;
        if file.version != VERSION {
            return Err("it was written by another version");
        }
        if file.kind != kind {
            return Err("it holds a key for another purpose");
        }
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| "its times are out of range");
        // One allocation, so that no copy of the key is left behind by growth.
        let mut secret = Zeroizing::new(vec![0u8; file.private_key.len()]);
        let read = STANDARD.decode_slice(file.private_key, &mut secret).map_err(|_| "its key is not base64")?;
        secret.truncate(read);
        Ok(Self {
            kind,
            trust_domain: file.trust_domain.parse().map_err(|_| "its trust domain is malformed")?,
            created_at: at(file.created_at)?,
            not_after: file.not_after.map(at).transpose()?,
            algorithm: file.algorithm,
            secret,
            public: STANDARD.decode(file.public_key).map_err(|_| "its public key is not base64")?,
            certificate: STANDARD.decode(file.certificate).map_err(|_| "its certificate is not base64")?,
        })
    }
}

/// Borrows the key's text from the buffer that is wiped, so that parsing makes no copy of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile<'a> {
    version: u32,
    kind: KeyKind,
    trust_domain: &'a str,
    created_at: i64,
    not_after: Option<i64>,
    /// Files of before there was a choice do not say it.
    #[serde(default = "es256")]
    algorithm: KeyAlgorithm,
    private_key: &'a str,
    public_key: &'a str,
    certificate: &'a str,
}

fn es256() -> KeyAlgorithm {
    KeyAlgorithm::Es256
}

const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> StoredKey {
        StoredKey {
            kind: KeyKind::Mac,
            trust_domain: "example.org".parse().unwrap(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            not_after: None,
            algorithm: KeyAlgorithm::Es256,
            secret: Zeroizing::new(vec![7; 32]),
            public: Vec::new(),
            certificate: Vec::new(),
        }
    }

    #[test]
    fn a_key_comes_back_as_it_was_written() {
        let read = StoredKey::from_bytes(&stored().to_bytes().unwrap(), KeyKind::Mac).unwrap();
        assert_eq!(*read.secret, vec![7; 32]);
        assert_eq!(read.trust_domain.as_str(), "example.org");
        assert_eq!(read.not_after, None);
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_refused() {
        let bytes = stored().to_bytes().unwrap();
        for end in 0..bytes.len() {
            assert!(StoredKey::from_bytes(&bytes[..end], KeyKind::Mac).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            assert!(StoredKey::from_bytes(&changed, KeyKind::Mac).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn a_key_for_another_purpose_is_refused() {
        let bytes = stored().to_bytes().unwrap();
        assert_eq!(
            StoredKey::from_bytes(&bytes, KeyKind::JwtAuthority).err(),
            Some("it holds a key for another purpose")
        );
    }
}
