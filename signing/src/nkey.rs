//! The text form of Ed25519 keys, as NATS nkeys write it: base32 of prefix, 32 bytes and a CRC-16.
//!
//! Written here because the secret half passes through it: every buffer that held a seed is wiped. Exactly one text is
//! accepted for each key; a test compares it with the reference implementation.

use zeroize::{Zeroize, Zeroizing};

/// Bytes of a key or seed.
pub(crate) const KEY_BYTES: usize = 32;

/// Type of a key, as its first five bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix(u8);

/// `A`: account.
pub(crate) const ACCOUNT: Prefix = Prefix(0);
/// `M`: module.
pub(crate) const MODULE: Prefix = Prefix(12 << 3);
/// `O`: operator.
pub(crate) const OPERATOR: Prefix = Prefix(14 << 3);
const SEED: u8 = 18 << 3;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// `A...` or `O...` of a public key.
pub(crate) fn encode_public(prefix: Prefix, key: &[u8; KEY_BYTES]) -> String {
    let mut raw = Vec::with_capacity(1 + KEY_BYTES + 2);
    raw.push(prefix.0);
    raw.extend_from_slice(key);
    raw.extend_from_slice(&crc16(&raw).to_le_bytes());
    base32(&raw)
}

/// `SA...` or `SO...` of a seed.
pub(crate) fn encode_seed(prefix: Prefix, seed: &[u8; KEY_BYTES]) -> Zeroizing<String> {
    let mut raw = Zeroizing::new(Vec::with_capacity(2 + KEY_BYTES + 2));
    raw.push(SEED | prefix.0 >> 5);
    raw.push((prefix.0 & 31) << 3);
    raw.extend_from_slice(seed);
    let crc = crc16(&raw);
    raw.extend_from_slice(&crc.to_le_bytes());
    Zeroizing::new(base32(&raw))
}

/// The prefix and key of a public key's text.
pub(crate) fn decode_public(text: &str) -> Option<(Prefix, [u8; KEY_BYTES])> {
    let raw = unbase32(text, 1 + KEY_BYTES + 2)?;
    let (prefix, key) = checked(&raw)?.split_first()?;
    Some((Prefix(*prefix), key.try_into().ok()?))
}

/// The prefix and seed of a seed's text.
pub(crate) fn decode_seed(text: &str) -> Option<(Prefix, Zeroizing<[u8; KEY_BYTES]>)> {
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
    Some((Prefix((first & 7) << 5 | second >> 3), seed))
}

fn checked(raw: &[u8]) -> Option<&[u8]> {
    let (body, crc) = raw.split_last_chunk::<2>()?;
    (crc16(body) == u16::from_le_bytes(*crc)).then_some(body)
}

fn base32(raw: &[u8]) -> String {
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

    #[test]
    fn texts_are_those_of_the_reference_implementation() {
        for kind in [nkeys::KeyPairType::Account, nkeys::KeyPairType::Operator] {
            for _ in 0..50 {
                let pair = nkeys::KeyPair::new(kind.clone());
                let (public, seed) = (pair.public_key(), pair.seed().unwrap());
                let (prefix, key) = decode_public(&public).unwrap();
                assert_eq!(nkeys::from_public_key(&public).unwrap(), (prefix.0, key));
                assert_eq!(encode_public(prefix, &key), public);
                let (seed_prefix, bytes) = decode_seed(&seed).unwrap();
                assert_eq!(seed_prefix, prefix);
                assert_eq!(nkeys::decode_seed(&seed).unwrap(), (prefix.0, *bytes));
                assert_eq!(*encode_seed(prefix, &bytes), seed);
            }
        }
    }

    #[test]
    fn every_changed_letter_is_refused() {
        let text = encode_public(ACCOUNT, &[7; 32]);
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
        let text = encode_seed(OPERATOR, &[9; 32]);
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
