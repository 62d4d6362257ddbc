//! Points of small order: public keys that are nobody's. Under such an Ed25519 key anybody can sign; with such an X25519 key
//! the shared secret is known to everybody. Libraries below accept them, so they are listed here.

use crate::text::KEY_BYTES;

/// Whether an Ed25519 public key has an order of at most 8, in whatever encoding.
pub(crate) fn is_small_order_ed25519(key: &[u8; KEY_BYTES]) -> bool {
    listed(key, &ED25519)
}

/// Whether an X25519 public key has an order of at most 8, on the curve or its twist, in whatever encoding.
pub fn is_small_order_x25519(key: &[u8; KEY_BYTES]) -> bool {
    listed(key, &X25519)
}

/// The highest bit is a sign (Ed25519) or ignored (X25519, RFC 7748 section 5).
fn listed(key: &[u8; KEY_BYTES], list: &[[u8; KEY_BYTES]]) -> bool {
    let mut plain = *key;
    if let Some(last) = plain.last_mut() {
        *last &= 0x7f;
    }
    list.contains(&plain)
}

/// `first`, then 30 of `middle`, then `last`.
const fn filled(first: u8, middle: u8, last: u8) -> [u8; KEY_BYTES] {
    let mut bytes = [middle; KEY_BYTES];
    bytes[0] = first;
    bytes[KEY_BYTES - 1] = last;
    bytes
}

/// y = 0, 1, the two of order 8, p - 1, and 0 and 1 again as p and p + 1.
const ED25519: [[u8; KEY_BYTES]; 7] = [
    filled(0, 0, 0),
    filled(1, 0, 0),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    filled(0xec, 0xff, 0x7f),
    filled(0xed, 0xff, 0x7f),
    filled(0xee, 0xff, 0x7f),
];

/// u = 0, 1, the two of order 8, p - 1, and 0 and 1 again as p and p + 1.
const X25519: [[u8; KEY_BYTES]; 7] = [
    filled(0, 0, 0),
    filled(1, 0, 0),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    filled(0xec, 0xff, 0x7f),
    filled(0xed, 0xff, 0x7f),
    filled(0xee, 0xff, 0x7f),
];

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519 as RAW, UnparsedPublicKey};

    use super::*;
    use crate::kind::Kind;
    use crate::public::PublicKey;

    /// R is the neutral point and S is 0: true for every message whose hash the key's order divides.
    const FORGED: [u8; 64] = {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        bytes
    };

    #[test]
    fn a_signature_that_anybody_can_make_is_refused_though_the_library_takes_it() {
        let mut taken = 0;
        for key in ED25519 {
            for sign in [0, 0x80] {
                let mut key = key;
                key[31] |= sign;
                for message in 0..200_u8 {
                    if UnparsedPublicKey::new(&RAW, &key).verify(&[message], &FORGED).is_ok() {
                        taken += 1;
                        assert!(!PublicKey::new(Kind::Server, key).verifies(&[message], &FORGED), "{key:?}");
                    }
                }
            }
        }
        assert!(taken > 200, "the library refuses them itself: this list is not needed any more ({taken})");
    }

    #[test]
    fn listed_keys_are_known_with_either_highest_bit_and_base_points_are_not_listed() {
        for key in X25519 {
            let mut key = key;
            assert!(is_small_order_x25519(&key));
            key[31] |= 0x80;
            assert!(is_small_order_x25519(&key));
        }
        assert!(!is_small_order_x25519(&filled(9, 0, 0)), "the base point");
        assert!(!is_small_order_ed25519(&filled(0x58, 0x66, 0x66)), "the base point");
    }
}
