//! Reads an unencrypted P-256 private key in PKCS#8 (RFC 5208 with RFC 5915 inside), as agents of SPIRE hand keys out. Gives the
//! scalar and nothing else: that it belongs to a certificate is for whoever makes a pair of both to find out. Refuses other
//! curves and algorithms, anything but DER's definite minimal lengths, and bytes behind the end of a structure that it reads.

use zeroize::Zeroizing;

use crate::p256_key::SCALAR_BYTES;

/// Why bytes are no key that can be used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs8Error {
    /// Over [`MAX_PKCS8_BYTES`](crate::limits::MAX_PKCS8_BYTES), cut, or no PKCS#8.
    #[error("the private key is not PKCS#8")]
    Malformed,
    /// RSA, another curve, ...
    #[error("the private key is not an ECDSA P-256 key")]
    OtherKind,
}

/// The scalar of the key.
pub fn p256_scalar(der: &[u8]) -> Result<Zeroizing<[u8; SCALAR_BYTES]>, Pkcs8Error> {
    if der.len() > crate::limits::MAX_PKCS8_BYTES {
        return Err(Pkcs8Error::Malformed);
    }
    let mut outer = whole(der, SEQUENCE)?;
    if !matches!(next(&mut outer, INTEGER)?, [0] | [1]) {
        return Err(Pkcs8Error::Malformed);
    }
    let algorithm = next(&mut outer, SEQUENCE)?;
    let mut key = whole(next(&mut outer, OCTETS)?, SEQUENCE).map_err(|error| match algorithm {
        EC_P256 => error,
        _ => Pkcs8Error::OtherKind,
    })?;
    if algorithm != EC_P256 {
        return Err(Pkcs8Error::OtherKind);
    }
    if next(&mut key, INTEGER)? != [1] {
        return Err(Pkcs8Error::Malformed);
    }
    let scalar = next(&mut key, OCTETS)?;
    let mut fixed = Zeroizing::new([0; SCALAR_BYTES]);
    if scalar.len() != SCALAR_BYTES {
        return Err(Pkcs8Error::Malformed);
    }
    fixed.copy_from_slice(scalar);
    Ok(fixed)
}

/// The content of the one element that these bytes are.
fn whole(der: &[u8], tag: u8) -> Result<&[u8], Pkcs8Error> {
    let mut rest = der;
    let content = next(&mut rest, tag)?;
    if rest.is_empty() { Ok(content) } else { Err(Pkcs8Error::Malformed) }
}

/// Takes the next element, which has this tag, off the front.
fn next<'a>(rest: &mut &'a [u8], tag: u8) -> Result<&'a [u8], Pkcs8Error> {
    let (length, body) = match rest {
        [found, length @ 0..=0x7f, body @ ..] if *found == tag => (usize::from(*length), body),
        [found, 0x81, length @ 0x80..=0xff, body @ ..] if *found == tag => (usize::from(*length), body),
        [found, 0x82, high @ 1..=0xff, low, body @ ..] if *found == tag => {
            (usize::from(*high) << 8 | usize::from(*low), body)
        }
        _ => return Err(Pkcs8Error::Malformed),
    };
    let (content, behind) = body.split_at_checked(length).ok_or(Pkcs8Error::Malformed)?;
    *rest = behind;
    Ok(content)
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// id-ecPublicKey with prime256v1.
const EC_P256: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_PKCS8_BYTES;

    fn key() -> Vec<u8> {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_der()
    }

    #[test]
    fn the_scalar_of_a_p256_key_is_read() {
        let der = key();
        assert_eq!(p256_scalar(&der).unwrap().as_slice(), &der[36..68]);
    }

    #[test]
    fn every_cut_key_and_every_byte_more_is_refused() {
        let der = key();
        for end in 0..der.len() {
            assert_eq!(p256_scalar(&der[..end]), Err(Pkcs8Error::Malformed), "cut at {end}");
        }
        assert_eq!(p256_scalar(&[der.as_slice(), &[0]].concat()), Err(Pkcs8Error::Malformed));
    }

    #[test]
    fn other_kinds_of_keys_are_refused() {
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_der();
        assert_eq!(p256_scalar(&other), Err(Pkcs8Error::OtherKind));
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_der();
        assert!(p256_scalar(&other).is_err());
    }

    #[test]
    fn a_key_over_the_limit_is_refused() {
        assert_eq!(p256_scalar(&vec![SEQUENCE; MAX_PKCS8_BYTES + 1]), Err(Pkcs8Error::Malformed));
    }
}
