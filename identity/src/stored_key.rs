//! How one key is written to disk: a line of JSON and a line with its SHA-256, so that a half-written or damaged file is told
//! from a whole one before its content means anything. The sum is no protection against an owner who forges it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::hex::hex;
use crate::limits::MAX_KEY_FILE_BYTES;
use crate::secret::Secret;
use crate::trust_domain::TrustDomain;

/// A key of the issuer as it lies on disk.
pub(crate) struct StoredKey {
    pub(crate) kind: KeyKind,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) not_after: Option<OffsetDateTime>,
    pub(crate) secret: Secret<32>,
    /// Uncompressed point; empty for a MAC key.
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
    Mac,
}

impl StoredKey {
    /// The bytes of the file.
    pub(crate) fn to_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        let private_key = Zeroizing::new(STANDARD.encode(self.secret.expose()));
        let (public_key, certificate) = (STANDARD.encode(&self.public), STANDARD.encode(&self.certificate));
        let file = KeyFile {
            version: VERSION,
            kind: self.kind,
            trust_domain: self.trust_domain.as_str(),
            created_at: self.created_at.unix_timestamp(),
            not_after: self.not_after.map(OffsetDateTime::unix_timestamp),
            private_key: &private_key,
            public_key: &public_key,
            certificate: &certificate,
        };
        // One allocation, so that no copy of the key is left behind by growth.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES));
        serde_json::to_writer(&mut *bytes, &file).ok()?;
        let sum = hex(digest(&SHA256, &bytes).as_ref());
        bytes.push(b'\n');
        bytes.extend_from_slice(sum.as_bytes());
        bytes.push(b'\n');
        (bytes.len() <= MAX_KEY_FILE_BYTES).then_some(bytes)
    }

    /// Reads the bytes of a file; the error says what is wrong with it.
    pub(crate) fn from_bytes(bytes: &[u8], kind: KeyKind) -> Result<Self, &'static str> {
        let body = bytes.strip_suffix(b"\n").ok_or("it is empty or cut off")?;
        let at = body.iter().rposition(|b| *b == b'\n').ok_or("it is cut off")?;
        let (line, sum) = body.split_at_checked(at).ok_or("it is cut off")?;
        let sum = sum.strip_prefix(b"\n").ok_or("it is cut off")?;
        if hex(digest(&SHA256, line).as_ref()).as_bytes() != sum {
            return Err("its checksum does not match");
        }
        let file: KeyFile<'_> = serde_json::from_slice(line).map_err(|_| "it is not in the expected format")?;
        if file.version != VERSION {
            return Err("it was written by another version");
        }
        if file.kind != kind {
            return Err("it holds a key for another purpose");
        }
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| "its times are out of range");
        let mut secret = Zeroizing::new([0u8; 48]);
        let read =
            STANDARD.decode_slice(file.private_key, secret.as_mut_slice()).map_err(|_| "its key is not base64")?;
        Ok(Self {
            kind,
            trust_domain: file.trust_domain.parse().map_err(|_| "its trust domain is malformed")?,
            created_at: at(file.created_at)?,
            not_after: file.not_after.map(at).transpose()?,
            secret: secret.get(..read).and_then(Secret::copied).ok_or("its key has the wrong length")?,
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
    private_key: &'a str,
    public_key: &'a str,
    certificate: &'a str,
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
            secret: Secret::copied(&[7; 32]).unwrap(),
            public: Vec::new(),
            certificate: Vec::new(),
        }
    }

    #[test]
    fn a_key_comes_back_as_it_was_written() {
        let read = StoredKey::from_bytes(&stored().to_bytes().unwrap(), KeyKind::Mac).unwrap();
        assert_eq!(read.secret.expose(), &[7; 32]);
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
