//! A key that was made ahead: an RSA key takes long to make, and whoever makes one under the issuer's lock has everybody wait.

use std::fmt;

use crate::issuer_error::IssuerError;
use crate::rsa_key::RsaKey;

/// An RSA key for the next authority of JWT-SVIDs that signs with RS256. In memory only until it is used.
pub struct SpareKey(pub(crate) Box<RsaKey>);

impl SpareKey {
    /// Makes one. Takes long.
    pub fn generate() -> Result<Self, IssuerError> {
        RsaKey::generate().map(|key| Self(Box::new(key))).map_err(|_| IssuerError::Creation("no key"))
    }
}

impl fmt::Debug for SpareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpareKey(..)")
    }
}
