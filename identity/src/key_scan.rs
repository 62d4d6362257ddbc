//! Looks for private keys in bytes that should hold none, such as the memory of another process.
//!
//! Each 32-byte secret is looked for as it is stored (big-endian), reversed (little-endian limbs), and, for P-256 scalars, as
//! `ring` holds them at work: in Montgomery form, little-endian. Text encodings are not looked for. Reads, and decides nothing.

use zeroize::Zeroizing;

use crate::secret::Secret;

/// A prepared search; worth keeping when much is searched. It holds copies of the secrets and wipes them when dropped.
pub struct KeyScan {
    /// Sorted, without repeats.
    patterns: Zeroizing<Vec<[u8; PATTERN_BYTES]>>,
    /// One bit for every first three bytes that a pattern begins with.
    first: Vec<u64>,
}

impl KeyScan {
    /// How many bytes of one piece of memory must be put before the next, so that no key that lies across the border is
    /// missed. With exactly so many none is counted twice.
    pub const OVERLAP: usize = PATTERN_BYTES - 1;

    pub(crate) fn new<'a>(
        scalars: impl Iterator<Item = &'a Secret<32>>,
        others: impl Iterator<Item = &'a Secret<32>>,
    ) -> Self {
        let (scalars, others): (Vec<_>, Vec<_>) = (scalars.collect(), others.collect());
        // One allocation, so that no copy of a key is left behind by growth.
        let mut patterns = Zeroizing::new(Vec::with_capacity(scalars.len() * 3 + others.len() * 2));
        for secret in scalars.iter().chain(&others) {
            patterns.push(*secret.expose());
            patterns.push(reversed(secret.expose()));
        }
        for scalar in &scalars {
            patterns.push(montgomery(scalar.expose()));
        }
        patterns.sort_unstable();
        patterns.dedup();
        let mut first = vec![0u64; 1 << 18];
        for pattern in patterns.iter() {
            let [a, b, c, ..] = pattern;
            let (word, bit) = slot(*a, *b, *c);
            if let Some(bits) = first.get_mut(word) {
                *bits |= bit;
            }
        }
        Self { patterns, first }
    }

    /// A search for the keys of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let mut patterns = Zeroizing::new(Vec::with_capacity(self.patterns.len() + other.patterns.len()));
        patterns.extend_from_slice(&self.patterns);
        patterns.extend_from_slice(&other.patterns);
        patterns.sort_unstable();
        patterns.dedup();
        let first = self.first.iter().zip(&other.first).map(|(one, two)| one | two).collect();
        Self { patterns, first }
    }

    /// How many keys lie in these bytes. Pieces of one region: see [`KeyScan::OVERLAP`].
    pub fn count(&self, haystack: &[u8]) -> usize {
        haystack.windows(PATTERN_BYTES).filter(|window| self.is_key(window)).count()
    }

    fn is_key(&self, window: &[u8]) -> bool {
        let [a, b, c, ..] = window else { return false };
        let (word, bit) = slot(*a, *b, *c);
        if self.first.get(word).is_none_or(|bits| bits & bit == 0) {
            return false;
        }
        self.patterns.binary_search_by(|pattern| pattern.as_slice().cmp(window)).is_ok()
    }
}

impl std::fmt::Debug for KeyScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyScan(..)")
    }
}

fn slot(a: u8, b: u8, c: u8) -> (usize, u64) {
    let at = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    (at >> 6, 1 << (at & 63))
}

fn reversed(bytes: &[u8; PATTERN_BYTES]) -> [u8; PATTERN_BYTES] {
    let mut bytes = *bytes;
    bytes.reverse();
    bytes
}

/// `scalar * 2^256 mod n`, little-endian: the scalar doubled 256 times modulo the order of P-256.
fn montgomery(scalar: &[u8; PATTERN_BYTES]) -> [u8; PATTERN_BYTES] {
    let mut value = Zeroizing::new(reversed(scalar));
    for _ in 0..256 {
        let mut carry = 0u8;
        for byte in value.iter_mut() {
            let top = *byte >> 7;
            *byte = *byte << 1 | carry;
            carry = top;
        }
        let below = value.iter().rev().lt(ORDER.iter());
        if carry == 1 || !below {
            let mut borrow = false;
            for (byte, order) in value.iter_mut().zip(ORDER.iter().rev()) {
                let (less, first) = byte.overflowing_sub(*order);
                let (less, second) = less.overflowing_sub(u8::from(borrow));
                (*byte, borrow) = (less, first | second);
            }
        }
    }
    *value
}

const PATTERN_BYTES: usize = 32;

/// The order of P-256 (FIPS 186-4, D.1.2.3), big-endian.
const ORDER: [u8; PATTERN_BYTES] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(scalar: &[u8; 32], other: &[u8; 32]) -> KeyScan {
        let (scalar, other) = (Secret::copied(scalar).unwrap(), Secret::copied(other).unwrap());
        KeyScan::new([&scalar].into_iter(), [&other].into_iter())
    }

    fn numbered(from: u8) -> [u8; 32] {
        std::array::from_fn(|i| from + i as u8)
    }

    #[test]
    fn planted_keys_are_found_in_both_byte_orders_and_nothing_else() {
        let (scalar, other) = (numbered(1), numbered(100));
        let scan = scan(&scalar, &other);
        let noise = vec![0xa5; 100];
        let haystack =
            [&noise[..], &scalar, &noise, &reversed(&scalar), &other, &reversed(&other), &noise, &numbered(2)].concat();
        assert_eq!(scan.count(&haystack), 4);
        let mut near = scalar;
        near[31] ^= 1;
        assert_eq!(scan.count(&near), 0);
        assert_eq!(scan.count(&[]), 0);
        assert_eq!(scan.count(&scalar[..31]), 0);
    }

    #[test]
    fn with_the_overlap_a_key_across_a_border_is_counted_once() {
        let scalar = numbered(1);
        let scan = scan(&scalar, &numbered(100));
        let memory = [&[9u8; 50][..], &scalar, &[9u8; 50]].concat();
        for border in 0..memory.len() {
            let second = &memory[border.saturating_sub(KeyScan::OVERLAP)..];
            assert_eq!(scan.count(&memory[..border]) + scan.count(second), 1, "border at {border}");
        }
    }

    #[test]
    fn montgomery_form_of_one_is_two_to_the_256_modulo_the_order() {
        // 2^256 - n, from the complement of the order.
        let mut one = [0u8; 32];
        one[31] = 1;
        let mut expected: Vec<u8> = ORDER.iter().rev().map(|b| !b).collect();
        expected[0] += 1;
        assert_eq!(montgomery(&one).to_vec(), expected);
    }
}
