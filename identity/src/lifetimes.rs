//! How long authorities and SVIDs live. An SVID never outlives its authority.

use std::time::Duration;

use crate::authority::AuthorityKind;
use crate::issuer_error::IssuerError;
use crate::limits::{
    AUTHORITY_PER_SVID, BUNDLE_REFRESH_HINT, DEFAULT_AUTHORITY_LIFETIME, DEFAULT_JWT_LIFETIME, DEFAULT_X509_LIFETIME,
    MAX_AUTHORITY_LIFETIME, PUBLISHED_HINTS,
};

/// Lifetimes that fit together, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    authority: Duration,
    x509: Duration,
    jwt: Duration,
}

impl Lifetimes {
    /// Checks that an authority lives at least six times as long as any SVID, so that the last sixth of its life, in which it
    /// gives way to the next one, never shortens an SVID; and that SVIDs stay below their longest life.
    pub fn new(authority: Duration, x509: Duration, jwt: Duration) -> Result<Self, IssuerError> {
        let whole = |duration: Duration| Duration::from_secs(duration.as_secs());
        let (authority, x509, jwt) = (whole(authority), whole(x509), whole(jwt));
        if x509.is_zero() || jwt.is_zero() {
            return Err(IssuerError::Lifetimes("an SVID must live at least one second"));
        }
        if x509 > DEFAULT_X509_LIFETIME {
            return Err(IssuerError::Lifetimes("an X.509-SVID must not live longer than one hour"));
        }
        if jwt > DEFAULT_JWT_LIFETIME {
            return Err(IssuerError::Lifetimes("a JWT-SVID must not live longer than five minutes"));
        }
        if authority < x509 * AUTHORITY_PER_SVID || authority < jwt * AUTHORITY_PER_SVID {
            return Err(IssuerError::Lifetimes("an authority must live at least six times as long as its SVIDs"));
        }
        if authority > MAX_AUTHORITY_LIFETIME {
            return Err(IssuerError::Lifetimes("an authority must not live longer than a year"));
        }
        Ok(Self { authority, x509, jwt })
    }

    /// How often others should fetch our bundle: every five minutes, or more often where authorities live so short that one
    /// would otherwise be used before it was fetched several times.
    pub fn refresh_hint(&self) -> Duration {
        // Between prepare (a half left) and activate (a sixth left) lies a third.
        let published = self.authority / 3;
        BUNDLE_REFRESH_HINT.min(published / PUBLISHED_HINTS).max(Duration::from_secs(1))
    }

    /// The longest life of the SVIDs of this kind of authority.
    pub(crate) fn svid(&self, kind: AuthorityKind) -> Duration {
        match kind {
            AuthorityKind::X509 | AuthorityKind::Wit => self.x509,
            AuthorityKind::Jwt => self.jwt,
        }
    }

    /// Of the CA certificate and the JWT key.
    pub fn authority(&self) -> Duration {
        self.authority
    }

    /// Longest of an X.509-SVID.
    pub fn x509(&self) -> Duration {
        self.x509
    }

    /// Longest of a JWT-SVID.
    pub fn jwt(&self) -> Duration {
        self.jwt
    }
}

impl Default for Lifetimes {
    /// 24 hours, 1 hour, 5 minutes.
    fn default() -> Self {
        Self { authority: DEFAULT_AUTHORITY_LIFETIME, x509: DEFAULT_X509_LIFETIME, jwt: DEFAULT_JWT_LIFETIME }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_that_cannot_work_are_refused() {
        let seconds = Duration::from_secs;
        assert!(Lifetimes::new(seconds(21_600), seconds(3600), seconds(300)).is_ok());
        assert!(Lifetimes::new(MAX_AUTHORITY_LIFETIME, seconds(3600), seconds(300)).is_ok());
        for (authority, x509, jwt) in [
            (seconds(21_599), seconds(3600), seconds(300)),
            (seconds(86400), seconds(3601), seconds(300)),
            (seconds(86400), seconds(3600), seconds(301)),
            (seconds(86400), Duration::from_millis(999), seconds(300)),
            (seconds(86400), seconds(3600), seconds(0)),
            (MAX_AUTHORITY_LIFETIME + seconds(1), seconds(3600), seconds(300)),
        ] {
            assert!(Lifetimes::new(authority, x509, jwt).is_err(), "{authority:?} {x509:?} {jwt:?}");
        }
        assert_eq!(Lifetimes::default().refresh_hint(), seconds(300));
        let short = Lifetimes::new(seconds(900), seconds(60), seconds(60)).unwrap();
        assert_eq!(short.refresh_hint(), seconds(60));
        assert_eq!(Lifetimes::new(seconds(6), seconds(1), seconds(1)).unwrap().refresh_hint(), seconds(1));
        let default = Lifetimes::default();
        assert!(Lifetimes::new(default.authority(), default.x509(), default.jwt()).is_ok());
    }
}
