//! When what a callout logs in with ends. Credentials end on a day that nobody has in mind, and then nobody at all gets in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_identity::nats_jwt::{Creds, TokenType, Verified};
use portcullis_identity::nats_tls::validity;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::connection::Secret;
use super::keys;
use super::service::{CalloutError, Shared};
use crate::cli::files::{read_bytes, read_text};
use crate::config::callout::CalloutConfig;
use crate::limits::{CALLOUT_END_WARNING, CALLOUT_SAY_AGAIN, CONFIG_BYTES};

/// Something that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What: credentials, a certificate.
    pub what: &'static str,
    /// Its file.
    pub path: PathBuf,
    /// When.
    pub at: OffsetDateTime,
    /// How long it lives in all, where that is known.
    life: Option<Duration>,
}

/// How that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It has ended.
    None,
    /// It ends in so many days, and should be made anew.
    Days(i64),
    /// It lives for long, or is a short one that whoever issued it renews.
    Enough,
}

impl End {
    /// How it stands.
    pub fn left(&self, now: OffsetDateTime) -> Left {
        let left = self.at - now;
        // An SVID lives for an hour and is renewed by itself: only what is made by hand is spoken of.
        let is_long = self.life.is_none_or(|life| life >= CALLOUT_END_WARNING * 2);
        match () {
            () if left <= time::Duration::ZERO => Left::None,
            () if is_long && left < CALLOUT_END_WARNING => Left::Days(left.whole_days()),
            () => Left::Enough,
        }
    }

    /// For the operator.
    pub fn text(&self, now: OffsetDateTime) -> String {
        let at = self.at.replace_nanosecond(0).unwrap_or(self.at).format(&Rfc3339).unwrap_or_default();
        let (what, path) = (self.what, self.path.display());
        let end = if what == CREDENTIALS { "end" } else { "ends" };
        match self.left(now) {
            Left::None => format!("the {what} {path} ended at {at}"),
            Left::Days(days) => format!("the {what} {path} {end} in {days} days, at {at}"),
            Left::Enough => format!("the {what} {path} {end} at {at}"),
        }
    }
}

/// What to do about it.
pub const HINT: &str = "put a new one in its place; `portcullis callout renew` does so for what `callout init` wrote";

/// What the credentials that were read at the start say.
pub fn of_secret(path: Option<&Path>, secret: &Secret) -> Option<End> {
    match (path, secret) {
        (Some(path), Secret::Creds(creds)) => of_creds(path, creds),
        _ => None,
    }
}

fn of_creds(path: &Path, creds: &Creds) -> Option<End> {
    Some(End { what: CREDENTIALS, path: path.to_path_buf(), at: creds.expires_at()?, life: None })
}

/// What the files of a configuration say, credentials and certificates. For a look from outside: a running callout has read its
/// secrets, and cannot any more.
pub fn of_files(config: &CalloutConfig) -> Result<Vec<End>, CalloutError> {
    let mut ends = Vec::new();
    for path in
        [Some(&config.login), config.system.as_ref()].into_iter().flatten().filter_map(|login| login.creds.as_ref())
    {
        let text = keys::read(path)?;
        let creds =
            Creds::parse(text.as_bytes()).map_err(|error| CalloutError::file(path, error.to_string(), error.hint()))?;
        ends.extend(of_creds(path, &creds));
    }
    ends.extend(of_tokens(config)?);
    ends.extend(of_certificates(config)?);
    Ok(ends)
}

/// What the tokens say that lie in files of their own: a running callout reads them again.
pub fn of_tokens(config: &CalloutConfig) -> Result<Vec<End>, CalloutError> {
    let logins = [Some(&config.login), config.system.as_ref()].into_iter().flatten();
    let mut ends = Vec::new();
    for path in logins.filter_map(|login| login.jwt.as_ref()) {
        let text = read_text(path, CONFIG_BYTES, "login's JWT")
            .map_err(|error| CalloutError::config(error.message(), error.hint().unwrap_or_default()))?;
        let token = Verified::parse(text.trim(), TokenType::User)
            .map_err(|error| CalloutError::file(path, error.to_string(), error.hint()))?;
        ends.extend(token.expires_at().map(|at| End { what: "JWT", path: path.clone(), at, life: None }));
    }
    Ok(ends)
}

/// What the certificates say that it shows to servers.
pub fn of_certificates(config: &CalloutConfig) -> Result<Vec<End>, CalloutError> {
    let logins = [Some(&config.login), config.system.as_ref()].into_iter().flatten();
    let paths = logins.filter_map(|login| login.certificate.as_ref());
    let paths = paths.chain(config.tls.as_ref().and_then(|tls| tls.certificate.as_ref()));
    let mut ends = Vec::new();
    for path in paths {
        let pem = read_bytes(path, CONFIG_BYTES, "certificate")
            .map_err(|error| CalloutError::config(error.message(), error.hint().unwrap_or_default()))?;
        let (from, at) = validity(&pem)
            .ok_or_else(|| CalloutError::file(path, "has no certificate", "give a PEM file, the certificate first"))?;
        let life = Duration::try_from(at - from).ok();
        ends.push(End { what: "certificate", path: path.clone(), at, life });
    }
    Ok(ends)
}

/// Says so in the log, once a day, for as long as the process runs; the metric follows what is renewed meanwhile.
pub async fn keep_telling(shared: Arc<Shared>, fixed: Vec<End>) {
    let mut told: Option<Instant> = None;
    loop {
        let now = crate::clock::now();
        let mut ends = fixed.clone();
        ends.extend(of_tokens(&shared.config).unwrap_or_default());
        ends.extend(of_certificates(&shared.config).unwrap_or_default());
        shared.counts.ends_at(ends.iter().map(|end| end.at.unix_timestamp()).min());
        if told.is_none_or(|at| at.elapsed() >= DAY) {
            for end in ends.iter().filter(|end| end.left(now) != Left::Enough) {
                tracing::warn!("{}; hint: {HINT}", end.text(now));
            }
            told = Some(Instant::now());
        }
        tokio::time::sleep(CALLOUT_SAY_AGAIN).await;
    }
}

const CREDENTIALS: &str = "credentials";
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_by_hand_is_spoken_of_thirty_days_before_its_end_and_an_svid_is_not() {
        let now = crate::clock::now();
        let end = |left: Duration, life: Option<Duration>| End {
            what: CREDENTIALS,
            path: PathBuf::from("a.creds"),
            at: now + left,
            life,
        };
        let second = Duration::from_secs(1);
        assert_eq!(end(CALLOUT_END_WARNING, None).left(now), Left::Enough);
        assert_eq!(end(CALLOUT_END_WARNING - second, None).left(now), Left::Days(29));
        assert_eq!(end(second, None).left(now), Left::Days(0));
        assert_eq!(end(Duration::ZERO, None).left(now), Left::None);
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(end(second, hour).left(now), Left::Enough);
        assert_eq!(end(Duration::ZERO, hour).left(now), Left::None);
        assert_eq!(end(second, Some(CALLOUT_END_WARNING * 2)).left(now), Left::Days(0));
        assert!(end(second, None).text(now).contains("a.creds end in 0 days, at 2"));
    }
}
