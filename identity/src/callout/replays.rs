//! Each attempt is asked about once: (server, user key) is remembered until the request ends. Full: refused.

use std::collections::{BTreeSet, HashSet};

use portcullis_nkey::PublicKey;
use time::OffsetDateTime;

use crate::limits::{CALLOUT_CLOCK_SKEW, MAX_CALLOUT_REPLAYS};

/// The requests that may not come again.
#[derive(Debug, Default)]
pub struct Replays {
    seen: HashSet<Attempt>,
    by_end: BTreeSet<(OffsetDateTime, Attempt)>,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It came before. Somebody repeats messages.
    #[error("the request came before")]
    Again,
    /// [`MAX_CALLOUT_REPLAYS`] are remembered. Too much comes at once.
    #[error("too many requests are remembered")]
    Full,
}

type Attempt = (PublicKey, PublicKey);

impl Replays {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a request that was not seen yet.
    pub(super) fn take(
        &mut self,
        server: PublicKey,
        user: PublicKey,
        ends: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<(), ReplayError> {
        self.forget(now);
        let attempt = (server, user);
        if self.seen.contains(&attempt) {
            return Err(ReplayError::Again);
        }
        if self.seen.len() >= MAX_CALLOUT_REPLAYS {
            return Err(ReplayError::Full);
        }
        self.seen.insert(attempt);
        self.by_end.insert((ends, attempt));
        Ok(())
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Those that would be refused as ended anyhow.
    fn forget(&mut self, now: OffsetDateTime) {
        while let Some((ends, attempt)) = self.by_end.first().copied() {
            if now < ends + CALLOUT_CLOCK_SKEW {
                return;
            }
            self.by_end.pop_first();
            self.seen.remove(&attempt);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portcullis_nkey::Kind;

    use super::*;

    fn at(seconds: u64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap() + Duration::from_secs(seconds)
    }

    fn key(kind: Kind, index: usize) -> PublicKey {
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&index.to_le_bytes());
        PublicKey::new(kind, bytes)
    }

    #[test]
    fn a_request_is_taken_once_until_it_would_be_refused_as_ended() {
        let mut replays = Replays::new();
        let (server, user) = (key(Kind::Server, 1), key(Kind::User, 1));
        assert_eq!(replays.take(server, user, at(2), at(0)), Ok(()));
        assert_eq!(replays.take(server, user, at(9), at(0)), Err(ReplayError::Again));
        assert_eq!(replays.take(key(Kind::Server, 2), user, at(2), at(0)), Ok(()), "another server");
        let skew = CALLOUT_CLOCK_SKEW.as_secs();
        assert_eq!(replays.take(server, user, at(2), at(1 + skew)), Err(ReplayError::Again));
        assert_eq!(replays.take(server, user, at(60), at(2 + skew)), Ok(()));
        assert_eq!(replays.len(), 1);
    }

    #[test]
    fn the_most_requests_are_remembered_and_one_more_is_refused_until_one_ends() {
        let mut replays = Replays::new();
        let server = key(Kind::Server, 0);
        for index in 0..MAX_CALLOUT_REPLAYS {
            let ends = if index == 0 { at(1) } else { at(30) };
            assert_eq!(replays.take(server, key(Kind::User, index), ends, at(0)), Ok(()));
        }
        let more = key(Kind::User, MAX_CALLOUT_REPLAYS);
        assert_eq!(replays.take(server, more, at(30), at(0)), Err(ReplayError::Full));
        assert_eq!(replays.take(server, key(Kind::User, 5), at(30), at(0)), Err(ReplayError::Again));
        assert_eq!(replays.take(server, more, at(30), at(1) + CALLOUT_CLOCK_SKEW), Ok(()));
        assert_eq!((replays.len(), replays.is_empty()), (MAX_CALLOUT_REPLAYS, false));
    }
}
