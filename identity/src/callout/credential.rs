//! Who wants in: what the client showed, checked. A JWT-SVID in `auth_token`, an X.509-SVID in its TLS, or both for one ID.
//!
//! A JWT-SVID is good for whoever has it. It names a key as its own where one of its audiences is `nkey:U..`: then it counts
//! only together with that key's signature over the connection's nonce. A signature by a key that the token does not name
//! proves possession of a key and nothing about the token: [`Proven::holds_key`] is false unless somebody else binds the two.

use std::fmt;

use portcullis_nkey::{Kind, PublicKey};
use time::OffsetDateTime;

use super::chain::{self, ChainError};
use super::nonce::{self, NonceError};
use super::request::Request;
use crate::audience::Audience;
use crate::bundle_set::BundleSet;
use crate::jwt_check::TokenError;
use crate::jwt_svid::JwtClaims;
use crate::spiffe_id::SpiffeId;

/// Who wants in, proven. Only [`Request::prove`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    spiffe_id: SpiffeId,
    not_after: OffsetDateTime,
    jwt: Option<JwtClaims>,
    x509: bool,
    nkey: Option<ProvenNkey>,
}

/// An nkey that signed the nonce of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProvenNkey {
    key: PublicKey,
    bound: bool,
}

/// Why nobody is let in for what was shown. The client erred, or trust is configured otherwise than meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Neither a token nor a certificate. A password, or a NATS JWT, is none here.
    #[error("the client showed neither a JWT-SVID as auth_token nor an X.509-SVID")]
    None,
    /// The token.
    #[error("the client's JWT-SVID: {0}")]
    Token(#[from] TokenError),
    /// The certificates.
    #[error("the client's X.509-SVID: {0}")]
    Chain(#[from] ChainError),
    /// The signature.
    #[error("the client's nkey: {0}")]
    Nonce(#[from] NonceError),
    /// The token names a key whose signature is not there.
    #[error("the client's JWT-SVID is bound to an nkey that did not sign the nonce")]
    NotHolder,
    /// An audience `nkey:..` that is no user key, or two.
    #[error("the client's JWT-SVID is not bound to exactly one user nkey")]
    Binding,
    /// Token and certificate name two.
    #[error("the client's JWT-SVID is of {token}, its X.509-SVID of {certificate}")]
    Disagree {
        /// Whom the token names.
        token: SpiffeId,
        /// Whom the certificate names.
        certificate: SpiffeId,
    },
}

impl CredentialError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::None => {
                "the client must send a JWT-SVID for this callout as its token, or connect over TLS with an X.509-SVID where the server has `verify: true`"
            }
            Self::Token(error) => error.hint(),
            Self::Chain(error) => error.hint(),
            Self::Nonce(error) => error.hint(),
            Self::NotHolder => "the client must sign the nonce with the nkey in its token's audience `nkey:U..`",
            Self::Binding => "request the JWT-SVID with one audience `nkey:U..` at most",
            Self::Disagree { .. } => "the client must show credentials of one workload",
        }
    }

    /// A name for metrics and audit.
    pub fn code(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Token(_) => "token",
            Self::Chain(_) => "chain",
            Self::Nonce(_) => "nonce",
            Self::NotHolder => "not_holder",
            Self::Binding => "binding",
            Self::Disagree { .. } => "disagree",
        }
    }
}

impl Request {
    /// Checks everything that the client showed. `audience`: whom tokens must be for, the callout's own SPIFFE ID or a
    /// configured one.
    pub fn prove(
        &self,
        bundles: &BundleSet,
        audience: &Audience,
        now: OffsetDateTime,
    ) -> Result<Proven, CredentialError> {
        let (options, tls) = self.shown();
        let nkey = nonce::check(options, self.nonce())?;
        let jwt = match options.auth_token.as_str() {
            "" => None,
            token => Some(bundles.check_jwt(token, audience.as_str(), now)?),
        };
        let x509 = tls.map(|tls| chain::check(tls, bundles.trust(), now)).transpose()?.flatten();
        let nkey = nkey.map(|key| ProvenNkey { key, bound: false });
        let nkey = jwt.as_ref().map_or(Ok(nkey), |claims| bound(claims, nkey))?;
        let (spiffe_id, not_after) = match (&jwt, &x509) {
            (None, None) => return Err(CredentialError::None),
            (Some(claims), None) => (claims.spiffe_id(), claims.expires_at()),
            (None, Some((id, not_after))) => (id, *not_after),
            (Some(claims), Some((id, not_after))) if claims.spiffe_id() == id => {
                (id, claims.expires_at().min(*not_after))
            }
            (Some(claims), Some((id, _))) => {
                let (token, certificate) = (claims.spiffe_id().clone(), id.clone());
                return Err(CredentialError::Disagree { token, certificate });
            }
        };
        Ok(Proven { spiffe_id: spiffe_id.clone(), not_after, x509: x509.is_some(), jwt, nkey })
    }
}

/// The key that signed, bound if the token names it; refused if it names another.
fn bound(claims: &JwtClaims, signed: Option<ProvenNkey>) -> Result<Option<ProvenNkey>, CredentialError> {
    let mut named = claims.audiences().iter().filter_map(|audience| audience.as_str().strip_prefix(NKEY_AUDIENCE));
    let Some(text) = named.next() else { return Ok(signed) };
    let key = PublicKey::parse(text, Kind::User).map_err(|_| CredentialError::Binding)?;
    if named.next().is_some() {
        return Err(CredentialError::Binding);
    }
    match signed {
        Some(signed) if signed.key == key => Ok(Some(ProvenNkey { key, bound: true })),
        _ => Err(CredentialError::NotHolder),
    }
}

impl Proven {
    /// Who it is.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// When the first of its credentials ends.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// What its JWT-SVID says, if it showed one.
    pub fn jwt(&self) -> Option<&JwtClaims> {
        self.jwt.as_ref()
    }

    /// Whether it showed an X.509-SVID, whose key is that of its TLS connection.
    pub fn x509(&self) -> bool {
        self.x509
    }

    /// The nkey that signed the connection's nonce.
    pub fn nkey(&self) -> Option<ProvenNkey> {
        self.nkey
    }

    /// Whether it holds a key that a credential names, rather than just a token: the key of its certificate, or the nkey that
    /// its JWT-SVID is bound to.
    pub fn holds_key(&self) -> bool {
        self.x509 || self.nkey.is_some_and(|nkey| nkey.bound)
    }
}

impl ProvenNkey {
    /// The key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// Whether the JWT-SVID names it. If not, it may be anybody's who got hold of the token, unless policy pins it.
    pub fn is_bound(&self) -> bool {
        self.bound
    }
}

impl fmt::Display for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match (&self.jwt, self.x509) {
            (Some(_), true) => "a JWT-SVID and an X.509-SVID",
            (Some(_), false) => "a JWT-SVID",
            _ => "an X.509-SVID",
        };
        write!(f, "{} by {how}", self.spiffe_id)
    }
}

/// Before the nkey in an audience of a JWT-SVID that is bound to it.
const NKEY_AUDIENCE: &str = "nkey:";
