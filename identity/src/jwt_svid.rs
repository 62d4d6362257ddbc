//! A JWT-SVID and what it says. The token is a bearer credential: whoever reads it is its subject until it ends, so it is
//! never printed and is wiped when dropped.

use std::fmt;

use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::audience::Audience;
use crate::spiffe_id::SpiffeId;

/// A minted JWT-SVID.
#[derive(Clone)]
pub struct JwtSvid {
    pub(crate) token: Zeroizing<String>,
    pub(crate) claims: JwtClaims,
}

/// What a valid JWT-SVID says. Comes only out of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtClaims {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) audiences: Vec<Audience>,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) issued_at: Option<OffsetDateTime>,
    pub(crate) jti: Option<String>,
    pub(crate) issuer: Option<String>,
}

impl JwtSvid {
    /// The token in compact serialisation. Hand it to its owner only.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What it says.
    pub fn claims(&self) -> &JwtClaims {
        &self.claims
    }

    /// Its subject.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.claims.spiffe_id
    }

    /// When it ends.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.claims.expires_at
    }

    /// Its id, for the audit.
    pub fn jti(&self) -> &str {
        self.claims.jti.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid").field("token", &"<redacted>").field("claims", &self.claims).finish()
    }
}

impl JwtClaims {
    /// The subject.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// For whom; never empty.
    pub fn audiences(&self) -> &[Audience] {
        &self.audiences
    }

    /// When it ends.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }

    /// When it was made, if it says.
    pub fn issued_at(&self) -> Option<OffsetDateTime> {
        self.issued_at
    }

    /// Its id, if it has one.
    pub fn jti(&self) -> Option<&str> {
        self.jti.as_deref()
    }

    /// The OIDC issuer that it names, if it names one. Nothing is decided by it: a SPIFFE validator goes by the subject.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }
}
