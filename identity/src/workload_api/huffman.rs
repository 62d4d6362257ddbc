//! The Huffman code of HPACK (RFC 7541 appendix B), one bit at a time.
//!
//! The code is canonical: the lengths of appendix B give the codes. Decoding only; a symbol is written again by [`code_of`],
//! which the rewriting of a symbol by another of the same length needs.

use std::sync::LazyLock;

/// A symbol: an octet, or 256 for the end of the string, which must not be in one.
pub(super) type Symbol = u16;

/// The symbol that must never be decoded.
pub(super) const END_OF_STRING: Symbol = 256;

/// The bits of a symbol that came so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Partial {
    code: u32,
    bits: u8,
}

/// No symbol begins with these bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoSymbol;

impl Partial {
    /// Takes the next bit; gives a symbol, and how many bits it had, where it is the last one of it.
    pub(super) fn bit(&mut self, bit: bool) -> Result<Option<(Symbol, u8)>, NoSymbol> {
        self.code = (self.code << 1) | u32::from(bit);
        self.bits += 1;
        let lookup = TABLE.lengths.get(usize::from(self.bits)).ok_or(NoSymbol)?;
        let Some(index) = self.code.checked_sub(lookup.first_code).filter(|index| *index < lookup.count) else {
            return Ok(None);
        };
        let at = usize::try_from(index).map_err(|_| NoSymbol)?.checked_add(lookup.offset).ok_or(NoSymbol)?;
        let symbol = *TABLE.symbols.get(at).ok_or(NoSymbol)?;
        let bits = self.bits;
        *self = Self::default();
        Ok(Some((symbol, bits)))
    }

    /// Whether these bits may stand at the end of a string: fewer than eight, all ones (RFC 7541 section 5.2).
    pub(super) fn is_padding(self) -> bool {
        self.bits < 8 && self.code == (1 << self.bits) - 1
    }

    /// Whether a symbol has begun.
    pub(super) fn has_begun(self) -> bool {
        self.bits > 0
    }
}

/// The bits of an octet and how many they are.
pub(super) fn code_of(octet: u8) -> (u32, u8) {
    TABLE.codes.get(usize::from(octet)).copied().unwrap_or_default()
}

struct Table {
    /// By number of bits, from 0.
    lengths: Vec<Length>,
    /// In the order of their codes.
    symbols: Vec<Symbol>,
    /// By symbol.
    codes: Vec<(u32, u8)>,
}

#[derive(Default, Clone, Copy)]
struct Length {
    first_code: u32,
    count: u32,
    offset: usize,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut order: Vec<(u8, Symbol)> = (0..).zip(LENGTHS).map(|(symbol, bits)| (bits, symbol)).collect();
    order.sort_unstable();
    let mut lengths = vec![Length::default(); LONGEST + 1];
    let mut codes = vec![(0, 0); LENGTHS.len()];
    let (mut code, mut last) = (0_u32, 0_u8);
    for (at, (bits, symbol)) in order.iter().enumerate() {
        code <<= bits - last;
        last = *bits;
        if let Some(length) = lengths.get_mut(usize::from(*bits)) {
            if length.count == 0 {
                *length = Length { first_code: code, count: 0, offset: at };
            }
            length.count += 1;
        }
        if let Some(slot) = codes.get_mut(usize::from(*symbol)) {
            *slot = (code, *bits);
        }
        code += 1;
    }
    Table { lengths, symbols: order.into_iter().map(|(_, symbol)| symbol).collect(), codes }
});

/// Bits of the longest code.
const LONGEST: usize = 30;
/// RFC 7541 appendix B: the number of bits of each symbol.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_appendix_b() {
        for (octet, code, bits) in [
            (b'0', 0x0, 5),
            (b'a', 0x3, 5),
            (b'%', 0x15, 6),
            (b'-', 0x16, 6),
            (b'.', 0x17, 6),
            (b'/', 0x18, 6),
            (b'B', 0x5d, 7),
            (b'X', 0xfc, 8),
            (b'!', 0x3f8, 10),
            (b'~', 0x1ffd, 13),
            (b'\\', 0x7fff0, 19),
            (0, 0x1ff8, 13),
            (10, 0x3fff_fffc, 30),
            (255, 0x3ff_ffee, 26),
        ] {
            assert_eq!(code_of(octet), (code, bits), "{octet}");
        }
    }

    #[test]
    fn every_octet_is_read_back_from_its_code() {
        for octet in 0..=255_u8 {
            let (code, bits) = code_of(octet);
            let mut partial = Partial::default();
            for at in (0..bits).rev() {
                let read = partial.bit(code >> at & 1 == 1);
                let wanted = (at == 0).then_some((Symbol::from(octet), bits));
                assert_eq!(read, Ok(wanted), "{octet} at {at}");
            }
            assert!(!partial.has_begun());
        }
    }

    #[test]
    fn thirty_ones_are_the_end_of_the_string_and_fewer_than_eight_are_padding() {
        let mut partial = Partial::default();
        for bits in 1..30 {
            assert_eq!(partial.bit(true), Ok(None));
            assert_eq!(partial.is_padding(), bits < 8, "{bits}");
        }
        assert_eq!(partial.bit(true), Ok(Some((END_OF_STRING, 30))));
        let mut zero = Partial::default();
        zero.bit(false).unwrap();
        assert!(!zero.is_padding());
    }
}
