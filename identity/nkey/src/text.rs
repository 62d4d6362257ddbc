//! The text form of keys, as NATS nkeys write it: base32 of prefix, 32 bytes and a CRC-16.
//!
//! Written here because the secret half passes through it: every buffer that held a seed is wiped. Exactly one text is
//! accepted for each key; a test compares it with the reference implementation.

use zeroize::{Zeroize, Zeroizing};

use crate::kind::Kind;

/// Bytes of a key or seed.
pub const KEY_BYTES: usize = 32;
/// Characters of a public key.
pub const PUBLIC_TEXT_BYTES: usize = 56;
/// Characters of a seed.
pub const SEED_TEXT_BYTES: usize = 58;

const SEED: u8 = 18 << 3;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The text of a public key: `A...`, `U...`.
pub fn encode_public(kind: Kind, key: &[u8; KEY_BYTES]) -> String {
    let mut raw = Vec::with_capacity(1 + KEY_BYTES + 2);
    raw.push(kind.byte());
    raw.extend_from_slice(key);
    raw.extend_from_slice(&crc16(&raw).to_le_bytes());
    base32(&raw)
}

/// The text of a seed: `SA...`, `SU...`.
pub fn encode_seed(kind: Kind, seed: &[u8; KEY_BYTES]) -> Zeroizing<String> {
    let mut raw = Zeroizing::new(Vec::with_capacity(2 + KEY_BYTES + 2));
    raw.push(SEED | kind.byte() >> 5);
    raw.push((kind.byte() & 31) << 3);
    raw.extend_from_slice(seed);
    let crc = crc16(&raw);
    raw.extend_from_slice(&crc.to_le_bytes());
    Zeroizing::new(base32(&raw))
}

/// The kind and key of a public key's text.
pub fn decode_public(text: &str) -> Option<(Kind, [u8; KEY_BYTES])> {
    let raw = unbase32(text, 1 + KEY_BYTES + 2)?;
    let (prefix, key) = checked(&raw)?.split_first()?;
    Some((Kind::of(*prefix)?, key.try_into().ok()?))
}

/// The kind and seed of a seed's text.
pub fn decode_seed(text: &str) -> Option<(Kind, Zeroizing<[u8; KEY_BYTES]>)> {
    let raw = unbase32(text, 2 + KEY_BYTES + 2)?;
    let ([first, second], key) = checked(&raw)?.split_first_chunk::<2>()?;
    if first & 0xf8 != SEED || second & 7 != 0 {
        return None;
    }
    let mut seed = Zeroizing::new([0; KEY_BYTES]);
    if key.len() != seed.len() {
        return None;
    }
    seed.copy_from_slice(key);
    Some((Kind::of((first & 7) << 5 | second >> 3)?, seed))
}

fn checked(raw: &[u8]) -> Option<&[u8]> {
    let (body, crc) = raw.split_last_chunk::<2>()?;
    (crc16(body) == u16::from_le_bytes(*crc)).then_some(body)
}

/// Base32 (RFC 4648) without padding, as NATS writes the ids of its tokens too.
pub fn base32(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len().div_ceil(5) * 8);
    let (mut buffer, mut bits) = (0_u16, 0_u32);
    for byte in raw {
        buffer = buffer << 8 | u16::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(letter(buffer >> bits));
            buffer &= (1 << bits) - 1;
        }
    }
    if bits > 0 {
        text.push(letter(buffer << (5 - bits)));
    }
    buffer.zeroize();
    text
}

fn letter(value: u16) -> char {
    ALPHABET.get(usize::from(value & 31)).map_or('A', |letter| char::from(*letter))
}

/// Strict: no padding, no lower case, no bits left over, exactly `length` bytes.
fn unbase32(text: &str, length: usize) -> Option<Zeroizing<Vec<u8>>> {
    if text.len() != (length * 8).div_ceil(5) {
        return None;
    }
    let mut raw = Zeroizing::new(Vec::with_capacity(length));
    let (mut buffer, mut bits) = (0_u16, 0_u32);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        buffer = buffer << 5 | u16::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            raw.push(u8::try_from(buffer >> bits).ok()?);
            buffer &= (1 << bits) - 1;
        }
    }
    (buffer == 0 && raw.len() == length).then_some(raw)
}

/// CRC-16/XMODEM.
fn crc16(data: &[u8]) -> u16 {
    data.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(kind: Kind) -> nkeys::KeyPairType {
        match kind {
            Kind::Account => nkeys::KeyPairType::Account,
            Kind::Cluster => nkeys::KeyPairType::Cluster,
            Kind::Curve => nkeys::KeyPairType::Curve,
            Kind::Module => nkeys::KeyPairType::Module,
            Kind::Operator => nkeys::KeyPairType::Operator,
            Kind::Server => nkeys::KeyPairType::Server,
            Kind::Service => nkeys::KeyPairType::Service,
            Kind::User => nkeys::KeyPairType::User,
        }
    }

    #[test]
    fn texts_are_those_of_the_reference_implementation() {
        for kind in Kind::ALL {
            for _ in 0..50 {
                let pair = nkeys::KeyPair::new(reference(kind));
                let (public, seed) = (pair.public_key(), pair.seed().unwrap());
                let (found, key) = decode_public(&public).unwrap();
                assert_eq!(found, kind);
                assert_eq!(nkeys::from_public_key(&public).unwrap(), (kind.byte(), key));
                assert_eq!(encode_public(kind, &key), public);
                let (found, bytes) = decode_seed(&seed).unwrap();
                assert_eq!(found, kind);
                assert_eq!(nkeys::decode_seed(&seed).unwrap(), (kind.byte(), *bytes));
                assert_eq!(*encode_seed(kind, &bytes), seed);
                assert_eq!((public.len(), seed.len()), (PUBLIC_TEXT_BYTES, SEED_TEXT_BYTES));
            }
        }
    }

    #[test]
    fn kinds_that_nats_does_not_have_are_refused_with_a_right_checksum() {
        for prefix in 0..=u8::MAX {
            let mut raw = vec![prefix];
            raw.extend_from_slice(&[5; KEY_BYTES]);
            raw.extend_from_slice(&crc16(&raw).to_le_bytes());
            assert_eq!(decode_public(&base32(&raw)).map(|(kind, _)| kind), Kind::of(prefix));
            let mut raw = vec![SEED | prefix >> 5, (prefix & 31) << 3];
            raw.extend_from_slice(&[5; KEY_BYTES]);
            raw.extend_from_slice(&crc16(&raw).to_le_bytes());
            assert_eq!(decode_seed(&base32(&raw)).map(|(kind, _)| kind), Kind::of(prefix));
        }
    }

    #[test]
    fn base32_is_that_of_the_rfc_without_padding() {
        let vectors =
            [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foob", "MZXW6YQ"), ("fooba", "MZXW6YTB")];
        for (plain, text) in vectors {
            assert_eq!(base32(plain.as_bytes()), text);
        }
    }

    #[test]
    fn every_changed_letter_is_refused() {
        let text = encode_public(Kind::Account, &[7; 32]);
        assert!(text.starts_with('A'));
        for position in 0..text.len() {
            for letter in ALPHABET.iter().chain(b"a1=") {
                let mut changed = text.clone().into_bytes();
                if changed[position] == *letter {
                    continue;
                }
                changed[position] = *letter;
                assert!(decode_public(&String::from_utf8(changed).unwrap()).is_none());
            }
        }
    }

    #[test]
    fn every_changed_letter_of_a_seed_is_refused() {
        let text = encode_seed(Kind::Operator, &[9; 32]);
        assert!(text.starts_with("SO"));
        for position in 0..text.len() {
            for letter in ALPHABET {
                let mut changed = text.as_bytes().to_vec();
                if changed[position] == *letter {
                    continue;
                }
                changed[position] = *letter;
                assert!(decode_seed(&String::from_utf8(changed).unwrap()).is_none());
            }
        }
    }
}
