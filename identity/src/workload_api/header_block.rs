//! Walks an HPACK header block (RFC 7541 section 6) octet by octet and rewrites `:authority` values in place.
//!
//! The rewritten block is as long as the original one, and so is each string in it, so both ends agree about every table
//! size. Nothing of a block is kept but tables of lengths, and the places of the octets that the Huffman code under way lies in.

use super::authority_value::{AuthorityValue, PLAIN, huffman};
use super::header_table::{AUTHORITY, HeaderTable, Name};
use super::huffman::{END_OF_STRING, Partial};
use crate::limits::HEADER_STRING_BYTES;

/// The walker of one direction of a connection: blocks share the dynamic table.
#[derive(Debug)]
pub(super) struct HeaderBlock {
    table: HeaderTable,
    state: State,
    /// Places of the octets that the Huffman code under way lies in. It has at most 30 bits.
    under_way: Vec<usize>,
    /// Bit of the first of them that the code begins at, 0 to 7.
    first_bit: u8,
}

/// The block cannot be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between two fields.
    Between,
    /// In the octets after the first one of an integer.
    Integer { of: Integer, value: u32, shift: u32 },
    /// Before the length of a string.
    Before(Part),
    /// In a string.
    In(Part, Text),
}

/// What an integer says.
#[derive(Debug, Clone, Copy)]
enum Integer {
    Indexed,
    NameIndex { insert: bool },
    TableSize,
    Length { part: Part, huffman: bool },
}

/// Of a literal field.
#[derive(Debug, Clone, Copy)]
enum Part {
    Name { insert: bool },
    Value { insert: bool, name: Name },
}

/// A string that is under way.
#[derive(Debug, Clone, Copy)]
struct Text {
    /// Octets that are still to come.
    left: u32,
    /// Octets so far, decoded.
    len: u32,
    huffman: Option<Partial>,
    /// So far it is the beginning of `:authority`.
    matches: bool,
    value: AuthorityValue,
}

impl HeaderBlock {
    pub(super) fn new() -> Self {
        Self { table: HeaderTable::new(), state: State::Between, under_way: Vec::new(), first_bit: 0 }
    }

    /// Whether a block may end here.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, State::Between)
    }

    /// The place of the first octet that may still change.
    pub(super) fn first_held(&self) -> Option<usize> {
        self.under_way.first().copied()
    }

    /// The octets moved to the front by so many places.
    pub(super) fn moved(&mut self, by: usize) {
        for place in &mut self.under_way {
            *place = place.saturating_sub(by);
        }
    }

    /// Follows the octet at `at`; earlier ones that are held may change with it.
    pub(super) fn octet(&mut self, octets: &mut [u8], at: usize) -> Result<(), Lost> {
        let octet = *octets.get(at).ok_or(Lost)?;
        self.state = match self.state {
            State::Between => match octet {
                0x80.. => self.integer(Integer::Indexed, octet, 7)?,
                0x40.. => self.integer(Integer::NameIndex { insert: true }, octet, 6)?,
                0x20.. => self.integer(Integer::TableSize, octet, 5)?,
                _ => self.integer(Integer::NameIndex { insert: false }, octet, 4)?,
            },
            State::Integer { of, value, shift } => {
                // RFC 7541 section 5.1; more than four such octets say nothing that would be in range.
                let part = u32::from(octet & 0x7f).checked_shl(shift).filter(|_| shift <= MOST_SHIFT).ok_or(Lost)?;
                let value = value.checked_add(part).ok_or(Lost)?;
                if octet & 0x80 == 0 { self.is(of, value)? } else { State::Integer { of, value, shift: shift + 7 } }
            }
            State::Before(part) => self.integer(Integer::Length { part, huffman: octet & 0x80 != 0 }, octet, 7)?,
            State::In(part, mut text) => {
                text.left = text.left.saturating_sub(1);
                match text.huffman {
                    None => self.plain(part, &mut text, octets, at)?,
                    Some(code) => text.huffman = Some(self.coded(part, &mut text, code, octets, at)?),
                }
                if text.left > 0 { State::In(part, text) } else { self.end(part, text)? }
            }
        };
        Ok(())
    }

    /// The first octet of an integer with so many bits in it.
    fn integer(&mut self, of: Integer, octet: u8, bits: u8) -> Result<State, Lost> {
        let most = u8::MAX >> (8 - bits);
        match octet & most {
            value if value == most => Ok(State::Integer { of, value: u32::from(most), shift: 0 }),
            value => self.is(of, u32::from(value)),
        }
    }

    /// An integer is complete.
    fn is(&mut self, of: Integer, value: u32) -> Result<State, Lost> {
        match (of, value) {
            // An indexed field has the value that it was inserted with, which was rewritten then.
            (Integer::Indexed, index) => self.table.name(index).map(|_| State::Between).ok_or(Lost),
            (Integer::NameIndex { insert }, 0) => Ok(State::Before(Part::Name { insert })),
            (Integer::NameIndex { insert }, index) => {
                let name = self.table.name(index).ok_or(Lost)?;
                Ok(State::Before(Part::Value { insert, name }))
            }
            (Integer::TableSize, size) => self.table.resize(size).then_some(State::Between).ok_or(Lost),
            (Integer::Length { .. }, len) if len > HEADER_STRING_BYTES => Err(Lost),
            (Integer::Length { part, huffman }, left) => {
                let huffman = huffman.then(Partial::default);
                let text = Text { left, len: 0, huffman, matches: true, value: AuthorityValue::default() };
                if left > 0 { Ok(State::In(part, text)) } else { self.end(part, text) }
            }
        }
    }

    fn plain(&self, part: Part, text: &mut Text, octets: &mut [u8], at: usize) -> Result<(), Lost> {
        let octet = octets.get_mut(at).ok_or(Lost)?;
        if !text.takes(part, *octet)? {
            *octet = PLAIN;
        }
        Ok(())
    }

    fn coded(
        &mut self,
        part: Part,
        text: &mut Text,
        mut code: Partial,
        octets: &mut [u8],
        at: usize,
    ) -> Result<Partial, Lost> {
        let octet = *octets.get(at).ok_or(Lost)?;
        if code.has_begun() {
            self.under_way.push(at);
        }
        for bit in 0..8 {
            if !code.has_begun() {
                self.under_way.clear();
                self.under_way.push(at);
                self.first_bit = bit;
            }
            let Some((symbol, bits)) = code.bit(octet & (0x80 >> bit) != 0).map_err(|_| Lost)? else { continue };
            if symbol == END_OF_STRING {
                return Err(Lost);
            }
            let decoded = u8::try_from(symbol).map_err(|_| Lost)?;
            if !text.takes(part, decoded)?
                && let Some(other) = huffman(bits)
            {
                self.overwrite(octets, other, bits)?;
            }
        }
        if !code.has_begun() {
            self.under_way.clear();
        }
        Ok(code)
    }

    /// Puts a code of the same length in the place of the one that ended just now.
    fn overwrite(&self, octets: &mut [u8], code: u32, bits: u8) -> Result<(), Lost> {
        for index in 0..bits {
            let bit = usize::from(self.first_bit) + usize::from(index);
            let place = *self.under_way.get(bit / 8).ok_or(Lost)?;
            let octet = octets.get_mut(place).ok_or(Lost)?;
            let mask = 0x80_u8 >> (bit % 8);
            if code >> (bits - 1 - index) & 1 == 1 { *octet |= mask } else { *octet &= !mask }
        }
        Ok(())
    }

    /// A string is complete.
    fn end(&mut self, part: Part, text: Text) -> Result<State, Lost> {
        if text.huffman.is_some_and(|code| code.has_begun() && !code.is_padding()) {
            return Err(Lost);
        }
        self.under_way.clear();
        match part {
            Part::Name { insert } => {
                let whole = usize::try_from(text.len).is_ok_and(|len| len == AUTHORITY.len());
                let name = Name { is_authority: text.matches && whole, len: text.len };
                Ok(State::Before(Part::Value { insert, name }))
            }
            Part::Value { insert, name } => {
                if insert {
                    self.table.insert(name, text.len);
                }
                Ok(State::Between)
            }
        }
    }
}

impl Text {
    /// Takes the next octet, decoded; whether it may stay.
    fn takes(&mut self, part: Part, octet: u8) -> Result<bool, Lost> {
        let at = usize::try_from(self.len).map_err(|_| Lost)?;
        self.len = self.len.checked_add(1).ok_or(Lost)?;
        match part {
            Part::Name { .. } => {
                self.matches &= AUTHORITY.get(at) == Some(&octet);
                Ok(true)
            }
            Part::Value { name, .. } => Ok(!name.is_authority || self.value.may_stay(octet)),
        }
    }
}

/// Largest shift of an octet of an integer.
const MOST_SHIFT: u32 = 21;
