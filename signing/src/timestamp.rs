//! Times as text: RFC 3339 in UTC, so that two readers can never differ about the zone.

use serde::{Deserialize, Deserializer, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::malformed::Malformed;

/// Reads `2026-11-21T09:30:00Z`.
pub fn parse(text: &str) -> Result<OffsetDateTime, Malformed> {
    let malformed = || Malformed::new("a time", "RFC 3339 in UTC such as 2026-11-21T09:30:00Z", text);
    if !text.ends_with('Z') || text.as_bytes().get(10) != Some(&b'T') {
        return Err(malformed());
    }
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| malformed())
}

/// Writes `2026-11-21T09:30:00Z`. A time outside of the years 0 to 9999 has no such text and gives an empty one, which no reader takes.
pub fn format(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC).format(&Rfc3339).unwrap_or_default()
}

pub(crate) fn serialize<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*at))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// The same for a time that may be absent.
pub(crate) mod option {
    use serde::{Deserialize, Deserializer, Serializer};
    use time::OffsetDateTime;

    pub(crate) fn serialize<S: Serializer>(at: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OffsetDateTime>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| super::parse(&text).map_err(serde::de::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_their_text() {
        for text in ["2026-11-21T09:30:00Z", "1999-12-31T23:59:59Z", "2026-11-21T09:30:00.25Z"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }

    #[test]
    fn other_zones_and_forms_are_refused() {
        for text in
            ["2026-11-21T09:30:00+01:00", "2026-11-21", "2026-11-21 09:30:00Z", "2026-13-21T09:30:00Z", "", "Z", "é"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn extreme_times_do_not_panic() {
        assert_eq!(format(time::PrimitiveDateTime::MIN.assume_utc()), "");
        format(time::PrimitiveDateTime::MAX.assume_utc());
    }
}
