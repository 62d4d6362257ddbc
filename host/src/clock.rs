//! The one place that reads the wall clock. Everything that decides gets the time as an argument.

use time::OffsetDateTime;

/// The time now, in UTC.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Seconds since 1970-01-01T00:00:00Z; zero for times before that.
pub fn unix_seconds(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp()).unwrap_or_default()
}
