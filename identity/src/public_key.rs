//! Public keys of token authorities, ours and foreign ones: read strictly from JSON Web Keys (RFC 7517, RFC 7518 section 6),
//! written as such, named by their thumbprint (RFC 7638), and used to verify with exactly the algorithms that fit them.
//!
//! Refuses coordinates of the wrong length, curves other than P-256 and P-384, and RSA moduli below 2048 or above 8192 bits.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::signature::{RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value};

use crate::jws_algorithm::{JwsAlgorithm, Verification};
use crate::limits::{MAX_RSA_MODULUS_BYTES, MIN_RSA_MODULUS_BYTES};

/// A public key that tokens are verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// Uncompressed point of P-256.
    P256([u8; 65]),
    /// Uncompressed point of P-384.
    P384([u8; 97]),
    /// Big-endian, without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

impl PublicKey {
    /// The key of a JWK; the error says what is wrong with it.
    pub(crate) fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, &'static str> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => {
                point(text("x"), text("y"), 32)?.try_into().map(Self::P256).map_err(|_| LENGTH)
            }
            (Some("EC"), Some("P-384")) => {
                point(text("x"), text("y"), 48)?.try_into().map(Self::P384).map_err(|_| LENGTH)
            }
            (Some("EC"), _) => Err("its curve is neither P-256 nor P-384"),
            (Some("RSA"), _) => {
                Self::rsa(&bytes(text("n"), MAX_RSA_MODULUS_BYTES)?, &bytes(text("e"), MAX_EXPONENT_BYTES)?)
            }
            _ => Err("its key type is neither EC nor RSA"),
        }
    }

    /// An RSA key of these big-endian numbers.
    pub(crate) fn rsa(n: &[u8], e: &[u8]) -> Result<Self, &'static str> {
        if n.len() < MIN_RSA_MODULUS_BYTES
            || n.first().is_none_or(|top| *top < 0x80 && n.len() == MIN_RSA_MODULUS_BYTES)
        {
            return Err("its RSA modulus has less than 2048 bits");
        }
        if n.len() > MAX_RSA_MODULUS_BYTES {
            return Err("its RSA modulus has more than 8192 bits");
        }
        if n.first() == Some(&0) || e.first().is_none_or(|first| *first == 0) || e.len() > MAX_EXPONENT_BYTES {
            return Err("its RSA numbers are not in the shortest form");
        }
        if e == [1] || e.last().is_none_or(|last| last & 1 == 0) {
            return Err("its RSA exponent is even or one");
        }
        Ok(Self::Rsa { n: n.to_vec(), e: e.to_vec() })
    }

    /// The members of the JWK that are the key, in the order of RFC 7638.
    pub(crate) fn members(&self) -> Vec<(&'static str, String)> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let ec = |curve: &str, point: &[u8]| {
            let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
            vec![("crv", curve.to_owned()), ("kty", "EC".to_owned()), ("x", text(x)), ("y", text(y))]
        };
        match self {
            Self::P256(point) => ec("P-256", point),
            Self::P384(point) => ec("P-384", point),
            Self::Rsa { n, e } => vec![("e", text(e)), ("kty", "RSA".to_owned()), ("n", text(n))],
        }
    }

    /// RFC 7638: SHA-256 of the required members in order, in base64url. The same key has the same `kid` after a restart.
    pub(crate) fn thumbprint(&self) -> String {
        // None of the values has a character that JSON escapes.
        let members: Vec<_> = self.members().iter().map(|(name, value)| format!(r#""{name}":"{value}""#)).collect();
        URL_SAFE_NO_PAD.encode(digest(&SHA256, format!("{{{}}}", members.join(",")).as_bytes()))
    }

    /// Whether the signature of the message is by this key with this algorithm. An algorithm of another kind of key: false.
    pub(crate) fn verifies(&self, algorithm: JwsAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm.verification()) {
            (Self::P256(point), Verification::P256(how)) => {
                UnparsedPublicKey::new(how, point).verify(message, signature).is_ok()
            }
            (Self::P384(point), Verification::P384(how)) => {
                UnparsedPublicKey::new(how, point).verify(message, signature).is_ok()
            }
            (Self::Rsa { n, e }, Verification::Rsa(how)) => {
                RsaPublicKeyComponents { n, e }.verify(how, message, signature).is_ok()
            }
            _ => false,
        }
    }

    /// Whether signatures of this algorithm can be made with this kind of key.
    pub(crate) fn fits(&self, algorithm: JwsAlgorithm) -> bool {
        matches!(
            (self, algorithm.verification()),
            (Self::P256(_), Verification::P256(_))
                | (Self::P384(_), Verification::P384(_))
                | (Self::Rsa { .. }, Verification::Rsa(_))
        )
    }
}

fn point(x: Option<&str>, y: Option<&str>, bytes_each: usize) -> Result<Vec<u8>, &'static str> {
    let (x, y) = (bytes(x, bytes_each)?, bytes(y, bytes_each)?);
    if x.len() != bytes_each || y.len() != bytes_each {
        return Err(LENGTH);
    }
    Ok([&[0x04], x.as_slice(), y.as_slice()].concat())
}

fn bytes(text: Option<&str>, most: usize) -> Result<Vec<u8>, &'static str> {
    let text = text.ok_or("a member of its key is missing")?;
    if text.len() > most * 2 {
        return Err("a member of its key is too long");
    }
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "a member of its key is not base64url without padding")
}

const LENGTH: &str = "its coordinates have the wrong length";
/// As `ring`: exponents below 2^33.
const MAX_EXPONENT_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(jwk: &Value) -> Result<PublicKey, &'static str> {
        PublicKey::from_jwk(jwk.as_object().unwrap())
    }

    /// The key of RFC 7517 appendix A.1. Its thumbprint was computed with other software (Python's hashlib).
    fn p256() -> Value {
        json!({"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"})
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        assert_eq!(read(&p256()).unwrap().thumbprint(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
        // RFC 7638 section 3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let rsa = read(&json!({"kty": "RSA", "n": n, "e": "AQAB"})).unwrap();
        assert_eq!(rsa.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn a_key_comes_back_from_its_members() {
        let rsa = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0x80; 256]), "e": "AQAB"});
        for jwk in [p256(), rsa] {
            let key = read(&jwk).unwrap();
            let again: Map<_, _> =
                key.members().into_iter().map(|(name, text)| (name.to_owned(), json!(text))).collect();
            assert_eq!(PublicKey::from_jwk(&again), Ok(key));
        }
    }

    #[test]
    fn malformed_and_weak_keys_are_refused() {
        let short = URL_SAFE_NO_PAD.encode([7; 31]);
        for (name, value) in [
            ("x", json!(short)),
            ("y", json!("=")),
            ("x", json!(7)),
            ("y", Value::Null),
            ("crv", json!("P-521")),
            ("crv", json!("secp256k1")),
            ("kty", json!("OKP")),
            ("kty", json!("oct")),
            ("x", json!("A".repeat(4096))),
        ] {
            let mut jwk = p256();
            jwk[name] = value.clone();
            assert!(read(&jwk).is_err(), "{name} {value}");
        }
        let rsa = |n: &[u8], e: &[u8]| {
            read(&json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e)}))
        };
        assert!(rsa(&[0x80; MIN_RSA_MODULUS_BYTES], &[1, 0, 1]).is_ok());
        assert!(rsa(&[0x7f; MIN_RSA_MODULUS_BYTES], &[1, 0, 1]).is_err());
        assert!(rsa(&[0x80; MIN_RSA_MODULUS_BYTES - 1], &[1, 0, 1]).is_err());
        assert!(rsa(&[0x80; MAX_RSA_MODULUS_BYTES], &[1, 0, 1]).is_ok());
        assert!(rsa(&[0x80; MAX_RSA_MODULUS_BYTES + 1], &[1, 0, 1]).is_err());
        for e in [&[][..], &[0, 3], &[1], &[2], &[1, 1, 1, 1, 1, 1]] {
            assert!(rsa(&[0x80; 256], e).is_err(), "{e:?}");
        }
    }
}
