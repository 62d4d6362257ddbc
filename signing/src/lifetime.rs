//! How long something is valid: `30d`, `720h`, `90m`, `45s`.

use std::fmt;
use std::str::FromStr;

use time::Duration;

use crate::excerpt::serde_as_text;
use crate::malformed::Malformed;

/// A whole number of seconds, minutes, hours or days; more than zero, at most ten years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime {
    seconds: i64,
}

const MAX_SECONDS: i64 = 10 * 366 * 24 * 3600;
const UNITS: [(char, i64); 4] = [('d', 24 * 3600), ('h', 3600), ('m', 60), ('s', 1)];

impl Lifetime {
    /// As a duration.
    pub fn duration(self) -> Duration {
        Duration::seconds(self.seconds)
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Hours rather than days: `720h` is what trust policies are written with.
        for (unit, seconds) in UNITS.into_iter().skip(1) {
            if self.seconds % seconds == 0 {
                return write!(f, "{}{unit}", self.seconds / seconds);
            }
        }
        write!(f, "{}s", self.seconds)
    }
}

impl FromStr for Lifetime {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let seconds = UNITS.into_iter().find_map(|(unit, seconds)| {
            let number = text.strip_suffix(unit)?;
            if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            number.parse::<i64>().ok()?.checked_mul(seconds)
        });
        match seconds {
            Some(seconds @ 1..=MAX_SECONDS) => Ok(Self { seconds }),
            _ => Err(Malformed::new(
                "a lifetime",
                "a number and d, h, m or s, such as 30d or 720h, at most ten years",
                text,
            )),
        }
    }
}

serde_as_text!(Lifetime);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_and_written() {
        for (text, seconds, again) in
            [("30d", 2_592_000, "720h"), ("720h", 2_592_000, "720h"), ("90m", 5400, "90m"), ("45s", 45, "45s")]
        {
            let lifetime: Lifetime = text.parse().unwrap();
            assert_eq!((lifetime.duration().whole_seconds(), lifetime.to_string().as_str()), (seconds, again));
        }
    }

    #[test]
    fn zero_negative_endless_and_unitless_lifetimes_are_refused() {
        for text in
            ["0s", "-1h", "", "d", "30", "+3d", "3661d", "99999999999999999999d", "9223372036854775807d", "1.5h", "1é"]
        {
            assert!(text.parse::<Lifetime>().is_err(), "{text}");
        }
    }
}
