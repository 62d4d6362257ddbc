//! How an issuer is set up. Plain choices of the operator; none weakens what an SVID must be.

use std::path::PathBuf;

use crate::authority::AuthorityKind;
use crate::authority_key::KeyAlgorithm;
use crate::jwt_issuer::JwtIssuer;
use crate::lifetimes::Lifetimes;

/// The choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerOptions {
    /// How long authorities and SVIDs live.
    pub lifetimes: Lifetimes,
    /// What JWT-SVIDs are signed with. After a change the next authority is made at once and used when it was published for
    /// long enough.
    pub jwt_algorithm: JwtAlgorithm,
    /// The `iss` of JWT-SVIDs, where OIDC clients check them.
    pub jwt_issuer: Option<JwtIssuer>,
    /// Whether there is an authority for WIT-SVIDs (a profile that is still incubating).
    pub wit_svid: bool,
    /// Where the keys of new authorities are made.
    pub keys: KeyPlace,
}

/// What JWT-SVIDs are signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JwtAlgorithm {
    /// ECDSA with P-256: small and fast.
    #[default]
    Es256,
    /// RSA with 2048 bits, for checkers that know nothing else, such as AWS STS.
    Rs256,
}

/// Where the private keys of authorities lie.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KeyPlace {
    /// Files of the key directory.
    #[default]
    Disk,
    /// A token behind PKCS#11; the keys never leave it.
    Pkcs11(Pkcs11Options),
}

/// Which token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11Options {
    /// The vendor's library.
    pub module: PathBuf,
    /// The label of the token; exactly one token must have it.
    pub token_label: String,
    /// The file with the user's PIN, for its owner only.
    pub pin_file: PathBuf,
}

impl IssuerOptions {
    /// ES256, keys on disk, no `iss`, no WIT-SVIDs.
    pub fn new(lifetimes: Lifetimes) -> Self {
        let (jwt_algorithm, keys) = (JwtAlgorithm::default(), KeyPlace::default());
        Self { lifetimes, jwt_algorithm, jwt_issuer: None, wit_svid: false, keys }
    }

    /// Whether there is to be an authority of this kind.
    pub(crate) fn wants(&self, kind: AuthorityKind) -> bool {
        match kind {
            AuthorityKind::X509 | AuthorityKind::Jwt => true,
            AuthorityKind::Wit => self.wit_svid,
        }
    }

    /// What a new authority of this kind signs with.
    pub(crate) fn algorithm(&self, kind: AuthorityKind) -> KeyAlgorithm {
        match (kind, self.jwt_algorithm) {
            (AuthorityKind::Jwt, JwtAlgorithm::Rs256) => KeyAlgorithm::Rs256,
            _ => KeyAlgorithm::Es256,
        }
    }
}
