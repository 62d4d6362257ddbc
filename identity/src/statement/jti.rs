//! The name of one statement: a ULID, whose time is the moment of the statement. So names of one signer are ordered by time.

use std::fmt;
use std::str::FromStr;

use time::OffsetDateTime;

/// A ULID in its one canonical text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Jti(u128);

impl Jti {
    /// A name for a statement that is made now, with these random bytes.
    pub fn new(now: OffsetDateTime, random: [u8; 10]) -> Self {
        let millis = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
        let random = random.iter().fold(0_u128, |value, byte| value << 8 | u128::from(*byte));
        Self(u128::from(millis & TIME_MASK) << RANDOM_BITS | random)
    }

    /// The second that it was made in, since 1970.
    pub fn seconds(self) -> i64 {
        i64::try_from((self.0 >> RANDOM_BITS) / 1_000).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Jti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..CHARACTERS).rev().try_for_each(|place| {
            let five = usize::try_from(self.0 >> (5 * place) & 31).unwrap_or_default();
            fmt::Write::write_char(f, ALPHABET.get(five).copied().map_or('0', char::from))
        })
    }
}

impl FromStr for Jti {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // 26 characters hold 130 bits: the first one is at most 7.
        if text.len() != CHARACTERS || !text.starts_with(|first: char| ('0'..='7').contains(&first)) {
            return Err(());
        }
        let value = text.bytes().try_fold(0_u128, |value, byte| {
            let five = ALPHABET.iter().position(|letter| *letter == byte)?;
            Some(value << 5 | u128::try_from(five).ok()?)
        });
        value.map(Self).ok_or(())
    }
}

/// Crockford's.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CHARACTERS: usize = 26;
const RANDOM_BITS: u32 = 80;
const TIME_MASK: u64 = (1 << 48) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_a_ulid_and_only_that_is_read() {
        let now = OffsetDateTime::from_unix_timestamp_nanos(1_469_918_176_385_000_000).unwrap();
        let jti = Jti::new(now, [0xff; 10]);
        // The time of the example of the ULID specification.
        assert_eq!(jti.to_string(), "01ARYZ6S41ZZZZZZZZZZZZZZZZ");
        assert_eq!(jti.to_string().parse(), Ok(jti));
        assert_eq!(jti.seconds(), 1_469_918_176);
        for text in
            ["", "01ARYZ6S41", "01aryz6s41ZZZZZZZZZZZZZZZZ", "81ARYZ6S41ZZZZZZZZZZZZZZZZ", "01ARYZ6S41ZZZZZZZZZZZZZZZU"]
        {
            assert_eq!(text.parse::<Jti>(), Err(()), "{text}");
        }
    }

    #[test]
    fn later_names_are_greater_whatever_the_random_bytes() {
        let at = |ms: i128| OffsetDateTime::from_unix_timestamp_nanos(ms * 1_000_000).unwrap();
        assert!(Jti::new(at(2_000), [0; 10]) > Jti::new(at(1_999), [0xff; 10]));
    }
}
