//! What an authority of the issuer is called and in which state it is: the words of `identity show`, of the journal and of the
//! audit. Decides nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::excerpt::Excerpt;
use crate::limits::MAX_KEY_ID_BYTES;

/// What an authority signs. One key, one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityKind {
    /// X.509-SVIDs.
    X509,
    /// JWT-SVIDs.
    Jwt,
    /// WIT-SVIDs.
    Wit,
}

/// Each kind has two places: one for the authority in use, one for that which comes next or went before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

/// How far an authority is. A slot without one is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityState {
    /// Published, not used yet.
    Prepared,
    /// Signs.
    Active,
    /// Signs no more; its private key is gone. Published until its last SVID ended.
    Old,
    /// Its key may be known to others. Not published: its SVIDs are invalid. Kept to be shown until they would have ended.
    Tainted,
}

/// Names an authority: the subject key id in hexadecimal for X.509, the `kid` for tokens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuthorityId(String);

/// Why a text names no authority. The caller erred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no authority id: 1 to {MAX_KEY_ID_BYTES} characters of a-z, A-Z, 0-9, '-' and '_'")]
pub struct AuthorityIdError(Excerpt);

/// An authority as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityStatus {
    /// What it signs.
    pub kind: AuthorityKind,
    /// Where it stands; `None` when it made room and is only published.
    pub slot: Option<Slot>,
    /// How far it is.
    pub state: AuthorityState,
    /// Its name.
    pub id: AuthorityId,
    /// `ES256` or `RS256`.
    pub algorithm: &'static str,
    /// `file`, `pkcs11`, or `none` when there is no private key any more.
    pub key_place: &'static str,
    /// Whether its key can be used now: false when a token is away.
    pub key_present: bool,
    /// When it was made.
    pub prepared_at: OffsetDateTime,
    /// When it began to sign.
    pub activated_at: Option<OffsetDateTime>,
    /// When it ends.
    pub not_after: OffsetDateTime,
    /// When it is forgotten, for those that sign no more.
    pub published_until: Option<OffsetDateTime>,
}

/// What happened to an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityChange {
    /// Made and published.
    Prepared,
    /// Signs from now on.
    Activated,
    /// Replaced by another.
    Retired,
    /// Its key may be known to others.
    Tainted,
    /// Its last SVID ended, so it was forgotten.
    Pruned,
    /// Its private key was not there any more.
    Lost,
}

/// A change of an authority, for log and audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityEvent {
    /// What it signs.
    pub kind: AuthorityKind,
    /// Where it stands.
    pub slot: Option<Slot>,
    /// Its name.
    pub id: AuthorityId,
    /// What happened.
    pub change: AuthorityChange,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

impl AuthorityKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::X509, Self::Jwt, Self::Wit];

    /// As in `identity rotate --x509`.
    pub fn name(self) -> &'static str {
        match self {
            Self::X509 => "x509",
            Self::Jwt => "jwt",
            Self::Wit => "wit",
        }
    }
}

impl AuthorityState {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Old => "old",
            Self::Tainted => "tainted",
        }
    }

    /// Whether SVIDs of such an authority are valid.
    pub fn is_published(self) -> bool {
        match self {
            Self::Prepared | Self::Active | Self::Old => true,
            Self::Tainted => false,
        }
    }
}

impl AuthorityChange {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Activated => "activated",
            Self::Retired => "retired",
            Self::Tainted => "tainted",
            Self::Pruned => "pruned",
            Self::Lost => "lost",
        }
    }
}

impl Slot {
    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl AuthorityId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AuthorityIdError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "take the id from `portcullis identity show`"
    }
}

impl FromStr for AuthorityId {
    type Err = AuthorityIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if text.is_empty() || text.len() > MAX_KEY_ID_BYTES || !plain {
            return Err(AuthorityIdError(Excerpt::new(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for AuthorityId {
    type Error = AuthorityIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AuthorityId> for String {
    fn from(id: AuthorityId) -> Self {
        id.0
    }
}

impl fmt::Display for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for AuthorityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_key_ids_and_thumbprints() {
        for text in ["00ff", "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s", &"a".repeat(MAX_KEY_ID_BYTES)] {
            assert!(text.parse::<AuthorityId>().is_ok(), "{text}");
        }
        for text in ["", "a b", "a/b", "ä", "..", &"a".repeat(MAX_KEY_ID_BYTES + 1)] {
            assert!(text.parse::<AuthorityId>().is_err(), "{text}");
        }
    }

    #[test]
    fn svids_of_a_tainted_authority_are_the_only_invalid_ones() {
        use AuthorityState::{Active, Old, Prepared, Tainted};
        assert_eq!([Prepared, Active, Old, Tainted].map(AuthorityState::is_published), [true, true, true, false]);
    }
}
