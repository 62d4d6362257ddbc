//! The tables of HPACK (RFC 7541 section 2.3), as far as it matters here: of each entry whether its name is `:authority`,
//! how long the name is, and how much room the entry takes. Values are not kept.

use std::collections::VecDeque;

use crate::limits::HEADER_TABLE_BYTES;

/// The pseudo-header that is looked for.
pub(super) const AUTHORITY: &[u8] = b":authority";

/// A header's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) is_authority: bool,
    pub(super) len: u32,
}

/// The static and the dynamic table of one direction of a connection.
#[derive(Debug)]
pub(super) struct HeaderTable {
    /// The newest first: its index is 62.
    dynamic: VecDeque<(Name, u32)>,
    size: u32,
    capacity: u32,
}

impl HeaderTable {
    pub(super) fn new() -> Self {
        Self { dynamic: VecDeque::new(), size: 0, capacity: HEADER_TABLE_BYTES }
    }

    /// The name at an index, from 1.
    pub(super) fn name(&self, index: u32) -> Option<Name> {
        let at = usize::try_from(index).ok()?.checked_sub(1)?;
        match NAME_LENGTHS.get(at) {
            Some(len) => Some(Name { is_authority: at == 0, len: u32::from(*len) }),
            None => self.dynamic.get(at.checked_sub(NAME_LENGTHS.len())?).map(|(name, _)| *name),
        }
    }

    /// Adds an entry; others, or the entry itself, are evicted (RFC 7541 section 4.4).
    pub(super) fn insert(&mut self, name: Name, value_len: u32) {
        let size = name.len.saturating_add(value_len).saturating_add(ENTRY_OVERHEAD);
        self.shrink_to(self.capacity.saturating_sub(size));
        if size <= self.capacity {
            self.size += size;
            self.dynamic.push_front((name, size));
        }
    }

    /// Follows a dynamic table size update; false where it is over the limit.
    #[must_use]
    pub(super) fn resize(&mut self, capacity: u32) -> bool {
        self.capacity = capacity.min(HEADER_TABLE_BYTES);
        self.shrink_to(self.capacity);
        capacity <= HEADER_TABLE_BYTES
    }

    fn shrink_to(&mut self, most: u32) {
        while self.size > most {
            match self.dynamic.pop_back() {
                Some((_, size)) => self.size = self.size.saturating_sub(size),
                None => self.size = 0,
            }
        }
    }
}

/// RFC 7541 section 4.1.
const ENTRY_OVERHEAD: u32 = 32;
/// RFC 7541 appendix A: the length of each name. The first is `:authority`.
#[rustfmt::skip]
const NAME_LENGTHS: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12,
    6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4,
    8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Name = Name { is_authority: false, len: 8 };
    const OURS: Name = Name { is_authority: true, len: 10 };

    #[test]
    fn static_names_are_those_of_appendix_a() {
        let table = HeaderTable::new();
        let names = [
            (1, ":authority"),
            (2, ":method"),
            (5, ":path"),
            (14, ":status"),
            (15, "accept-charset"),
            (20, "access-control-allow-origin"),
            (31, "content-type"),
            (38, "host"),
            (45, "link"),
            (58, "user-agent"),
            (61, "www-authenticate"),
        ];
        for (index, name) in names {
            let wanted = Name { is_authority: index == 1, len: u32::try_from(name.len()).unwrap() };
            assert_eq!(table.name(index), Some(wanted), "{name}");
        }
        assert_eq!(table.name(0), None);
        assert_eq!(table.name(62), None);
        assert_eq!(table.name(u32::MAX), None);
    }

    #[test]
    fn the_newest_entry_is_the_first_and_the_oldest_goes_first() {
        let mut table = HeaderTable::new();
        table.insert(OURS, 5);
        table.insert(OTHER, 0);
        assert_eq!((table.name(62), table.name(63), table.name(64)), (Some(OTHER), Some(OURS), None));
        assert!(table.resize(40));
        assert_eq!((table.name(62), table.name(63)), (Some(OTHER), None));
        table.insert(OURS, 0);
        assert_eq!(table.name(62), None, "an entry that does not fit empties the table");
        assert!(table.resize(HEADER_TABLE_BYTES));
        table.insert(OURS, 0);
        assert_eq!(table.name(62), Some(OURS));
    }

    #[test]
    fn a_table_larger_than_the_limit_is_refused() {
        let mut table = HeaderTable::new();
        assert!(!table.resize(HEADER_TABLE_BYTES + 1));
        let most = HEADER_TABLE_BYTES / ENTRY_OVERHEAD;
        for _ in 0..2 * most {
            table.insert(Name { is_authority: false, len: 0 }, 0);
        }
        assert_eq!(u32::try_from(table.dynamic.len()), Ok(most));
        table.insert(OTHER, u32::MAX);
        assert!(table.dynamic.is_empty());
    }
}
