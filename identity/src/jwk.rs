//! P-256 public keys as JSON Web Keys (RFC 7517, RFC 7518 section 6.2) and their thumbprints (RFC 7638).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use crate::p256_key::POINT_BYTES;

/// The coordinates of a public key in base64url.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EcCoordinates {
    pub(crate) x: String,
    pub(crate) y: String,
}

impl EcCoordinates {
    /// The coordinates of an uncompressed point.
    pub(crate) fn of(point: &[u8; POINT_BYTES]) -> Self {
        let encode = |bytes: Option<&[u8]>| URL_SAFE_NO_PAD.encode(bytes.unwrap_or_default());
        Self { x: encode(point.get(1..33)), y: encode(point.get(33..65)) }
    }

    /// RFC 7638: SHA-256 of the required members in order, in base64url. The same key has the same `kid` after a restart.
    pub(crate) fn thumbprint(&self) -> String {
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, self.x, self.y);
        URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 7517 appendix A.1. Its thumbprint was computed with other software (Python's hashlib).
    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        let key = EcCoordinates {
            x: "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4".into(),
            y: "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM".into(),
        };
        assert_eq!(key.thumbprint(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
    }
}
