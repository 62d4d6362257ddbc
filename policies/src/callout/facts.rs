//! What is known of an attempt to connect, and of the accounts that there are.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use crate::limits::ACCOUNT_BYTES;
use crate::workload::WorkloadId;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionKind {
    /// A client.
    Client,
    /// A leaf node: a server with clients of its own behind it.
    Leafnode,
}

/// What it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionType {
    /// The NATS protocol over TCP.
    Nats,
    /// The NATS protocol over a web socket.
    Websocket,
    /// MQTT.
    Mqtt,
}

/// A kind of credential that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CredentialKind {
    /// An X.509-SVID, whose key the other end of the TLS connection holds.
    X509,
    /// A JWT-SVID: whoever has it can show it.
    Jwt,
}

/// One attempt to connect, with credentials that were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectFacts {
    /// Who.
    pub workload: WorkloadId,
    /// The kind of connection.
    pub kind: ConnectionKind,
    /// What it speaks.
    pub connection: ConnectionType,
    /// Where it comes from, as the server saw it.
    pub ip: IpAddr,
    /// What it showed, all for the same SPIFFE ID.
    pub credentials: BTreeSet<CredentialKind>,
    /// The user nkey that it signed the server's nonce with.
    pub nkey: Option<String>,
    /// Whether its JWT-SVID names that key. If not, it may be anybody's who got hold of the token.
    pub nkey_is_bound: bool,
}

/// The name of an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(String);

/// The text is no name of an account that anybody may be placed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountNameError {
    /// `$G`, or anything else of the server's own.
    #[error("names that begin with $ are the server's own; nobody is ever placed in $G")]
    Reserved,
    /// Not 1 to [`ACCOUNT_BYTES`] plain characters.
    #[error("not the name of an account: 1 to {ACCOUNT_BYTES} letters, digits, dashes, underscores, dots")]
    Shape,
}

/// The accounts that roles may place into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    allowed: BTreeSet<AccountName>,
    system: AccountName,
    system_is_allowed: bool,
}

impl ConnectionKind {
    /// As the server writes it; `None` for what is not known here.
    pub fn from_server(text: &str) -> Option<Self> {
        match text {
            "Client" => Some(Self::Client),
            "Leafnode" => Some(Self::Leafnode),
            _ => None,
        }
    }

    /// The word in roles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Leafnode => "leafnode",
        }
    }
}

impl ConnectionType {
    /// As the server writes it; `None` for what is not known here. Leaf nodes have none: they speak the protocol of servers.
    pub fn from_server(text: &str, kind: ConnectionKind) -> Option<Self> {
        match (text, kind) {
            ("nats", _) | ("", ConnectionKind::Leafnode) => Some(Self::Nats),
            ("websocket", _) => Some(Self::Websocket),
            ("mqtt", _) => Some(Self::Mqtt),
            _ => None,
        }
    }

    /// The word in roles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Websocket => "websocket",
            Self::Mqtt => "mqtt",
        }
    }
}

impl CredentialKind {
    /// The word in roles.
    pub fn name(self) -> &'static str {
        match self {
            Self::X509 => "x509",
            Self::Jwt => "jwt",
        }
    }
}

impl ConnectFacts {
    /// Whether it has shown that it holds a key that a credential names, not just a token.
    pub fn proof(&self) -> bool {
        (self.nkey.is_some() && self.nkey_is_bound) || self.credentials.contains(&CredentialKind::X509)
    }
}

impl AccountName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountName {
    type Err = AccountNameError;

    fn from_str(text: &str) -> Result<Self, AccountNameError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        match text {
            _ if text.starts_with('$') => Err(AccountNameError::Reserved),
            _ if !(1..=ACCOUNT_BYTES).contains(&text.len()) || !text.bytes().all(plain) => Err(AccountNameError::Shape),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for AccountName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Accounts {
    /// The accounts that may be used. `system` is left out even if it is named among them, unless `system_is_allowed`.
    pub fn new(allowed: impl IntoIterator<Item = AccountName>, system: AccountName, system_is_allowed: bool) -> Self {
        Self { allowed: allowed.into_iter().collect(), system, system_is_allowed }
    }

    /// Whether somebody may be placed in it.
    pub fn allows(&self, account: &AccountName) -> bool {
        self.allowed.contains(account) && !self.is_reserved(account)
    }

    /// The names, without those that are reserved.
    pub fn names(&self) -> impl Iterator<Item = &AccountName> {
        self.allowed.iter().filter(|account| !self.is_reserved(account))
    }

    /// Whether it is the system account, by its configured name or the usual one, and that is not allowed.
    pub fn is_reserved(&self, account: &AccountName) -> bool {
        let is_system = *account == self.system || account.as_str().eq_ignore_ascii_case("SYS");
        is_system && !self.system_is_allowed
    }
}
