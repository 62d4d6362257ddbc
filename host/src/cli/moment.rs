//! A time that somebody chose, so that the same input gives the same output: an RFC 3339 text, or `SOURCE_DATE_EPOCH`.

use std::str::FromStr;

use portcullis_signing::timestamp;
use time::OffsetDateTime;

use super::error::CliError;
use crate::clock;
use crate::config::environment;

/// A chosen time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(OffsetDateTime);

impl Moment {
    /// The time given, else that of `SOURCE_DATE_EPOCH`, else now.
    pub fn given_or_now(given: Option<Self>) -> Result<OffsetDateTime, CliError> {
        Ok(Self::given(given)?.unwrap_or_else(clock::now))
    }

    /// The time given, else that of `SOURCE_DATE_EPOCH`, else 1970.
    pub fn given_or_epoch(given: Option<Self>) -> Result<OffsetDateTime, CliError> {
        Ok(Self::given(given)?.unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }

    fn given(given: Option<Self>) -> Result<Option<OffsetDateTime>, CliError> {
        if let Some(Self(at)) = given {
            return Ok(Some(at));
        }
        let Some(text) = environment::read(environment::SOURCE_DATE_EPOCH) else { return Ok(None) };
        let at = text.parse().ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        match at {
            Some(at) => Ok(Some(at)),
            None => Err(CliError::usage("SOURCE_DATE_EPOCH is not a number of seconds since 1970")
                .with_hint("for instance `git log -1 --format=%ct`")),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        timestamp::parse(text).map(Self).map_err(|error| error.to_string())
    }
}
