//! Names in tokens: accounts, users, tags. What is shown is what is compared, and nothing in them is a wildcard, a separator or
//! a directive of somebody's log.

use std::fmt;
use std::str::FromStr;

use crate::limits::{MAX_NATS_NAME_BYTES, MAX_NATS_TAG_BYTES, MAX_SPIFFE_ID_BYTES};
use crate::spiffe_id::SpiffeId;

/// The name of an account in a server's configuration. Never one of the server's own (`$G`, `$SYS`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(String);

/// The name of a user, as servers show it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(String);

/// A tag `key:value` that a scoped signing key's template is filled with. Its value is one token of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag {
    key: String,
    value: String,
}

/// Why a text is no such name. Whoever wrote it erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Begins with `$`.
    #[error("names of accounts that begin with $ are the server's own")]
    Reserved,
    /// Not plain.
    #[error("an account, role or queue group has 1 to {MAX_NATS_NAME_BYTES} letters, digits, '-', '_' and '.'")]
    Name,
    /// Not printable, or too long.
    #[error("a user's name is printable ASCII without spaces, quotes, backslashes and percent signs")]
    User,
    /// Not two plain lower-case tokens.
    #[error("a tag's key and value have 1 to {MAX_NATS_TAG_BYTES} of a-z, 0-9, '-' and '_'")]
    Tag,
}

impl NameError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Reserved => "place users in an account of your own; nobody is ever placed in $G",
            Self::Name => "rename it, such as APP or trust-domain-a",
            Self::User => "use the SPIFFE ID",
            Self::Tag => {
                "a tag's value becomes one token of a subject: use a plain id, or a hash of what it stands for"
            }
        }
    }
}

impl AccountName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            _ if text.starts_with('$') => Err(NameError::Reserved),
            _ if is_name(text) => Ok(Self(text.to_owned())),
            _ => Err(NameError::Name),
        }
    }
}

impl UserName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'%' | b'\'' | b'`');
        let fits = (1..=MAX_SPIFFE_ID_BYTES).contains(&text.len()) && text.bytes().all(plain);
        if fits { Ok(Self(text.to_owned())) } else { Err(NameError::User) }
    }
}

impl From<&SpiffeId> for UserName {
    fn from(id: &SpiffeId) -> Self {
        // INVARIANT: a SPIFFE ID has none of the characters that a name may not have.
        Self(id.to_string())
    }
}

impl Tag {
    /// The tag of a key and a value.
    pub fn new(key: &str, value: &str) -> Result<Self, NameError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        let fits = |text: &str| (1..=MAX_NATS_TAG_BYTES).contains(&text.len()) && text.bytes().all(plain);
        if fits(key) && fits(value) {
            Ok(Self { key: key.to_owned(), value: value.to_owned() })
        } else {
            Err(NameError::Tag)
        }
    }

    /// Before the colon.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// After the colon.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key, self.value)
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a plain name: of an account, a role, a queue group.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=MAX_NATS_NAME_BYTES).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_accounts_are_refused() {
        for text in ["$G", "$SYS", "$"] {
            assert_eq!(text.parse::<AccountName>(), Err(NameError::Reserved), "{text}");
        }
        for text in ["", "a b", "a*", ">", "a\n", "ä", &"a".repeat(MAX_NATS_NAME_BYTES + 1)] {
            assert_eq!(text.parse::<AccountName>(), Err(NameError::Name), "{text}");
        }
        assert!("a".repeat(MAX_NATS_NAME_BYTES).parse::<AccountName>().is_ok());
        assert_eq!("APP.td-a_1".parse::<AccountName>().unwrap().as_str(), "APP.td-a_1");
    }

    #[test]
    fn a_tag_never_widens_a_subject() {
        for value in ["", "*", ">", "a.b", "a b", "h1:x", "H1", "{{", "ä", &"a".repeat(MAX_NATS_TAG_BYTES + 1)] {
            assert_eq!(Tag::new("host", value), Err(NameError::Tag), "{value}");
            assert_eq!(Tag::new(value, "host"), Err(NameError::Tag), "{value}");
        }
        assert_eq!(Tag::new("host", "h-1_a").unwrap().to_string(), "host:h-1_a");
        assert!(Tag::new("host", &"a".repeat(MAX_NATS_TAG_BYTES)).is_ok());
    }

    #[test]
    fn every_spiffe_id_is_a_users_name_and_no_directive_of_a_log_is() {
        let id: SpiffeId = "spiffe://example.org/ns/a/sa/b_c.d-e".parse().unwrap();
        assert_eq!(id.to_string().parse::<UserName>(), Ok(UserName::from(&id)));
        for text in ["", "a b", "100%d", "a\"", "a\\", "a\n", "ä", &"a".repeat(MAX_SPIFFE_ID_BYTES + 1)] {
            assert_eq!(text.parse::<UserName>(), Err(NameError::User), "{text}");
        }
    }
}
