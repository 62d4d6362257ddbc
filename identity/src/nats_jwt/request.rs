//! What a server asks an auth callout. Servers leave out whatever is empty, so every member is optional here; what must be there
//! is the reader's to demand. Members that are not known are left out: later servers say more.

use std::fmt;

use portcullis_nkey::{Kind, PublicKey};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use time::OffsetDateTime;
use zeroize::{Zeroize, Zeroizing};

use super::token::{NatsJwtError, TokenType};
use super::verified::Verified;

/// A request whose signature is right. Who may ask, and what it is good for, is not decided here.
#[derive(Debug)]
pub struct Request {
    pub(crate) issuer: PublicKey,
    pub(crate) account: PublicKey,
    pub(crate) audience: Option<String>,
    pub(crate) issued_at: Option<OffsetDateTime>,
    pub(crate) expires_at: Option<OffsetDateTime>,
    pub(crate) not_before: Option<OffsetDateTime>,
    pub(crate) user: PublicKey,
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) connect: ConnectOptions,
    pub(crate) tls: Option<Tls>,
}

/// The server that asks, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Server {
    /// Its configured name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Its address.
    #[serde(deserialize_with = "or_default")]
    pub host: String,
    /// Its key, `N..`.
    #[serde(deserialize_with = "or_default")]
    pub id: String,
    /// Its version.
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    /// Its cluster.
    #[serde(deserialize_with = "or_default")]
    pub cluster: String,
    /// Its tags.
    #[serde(deserialize_with = "or_default")]
    pub tags: Vec<String>,
    /// Its key for boxes, `X..`.
    #[serde(deserialize_with = "or_default")]
    pub xkey: String,
}

/// The connection, as the server sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Client {
    /// Where it comes from.
    #[serde(deserialize_with = "or_default")]
    pub host: String,
    /// Its number at the server.
    #[serde(deserialize_with = "or_default")]
    pub id: u64,
    /// What it calls itself; anybody can say anything.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// Its name for itself.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// `Client`, `Leafnode`.
    #[serde(deserialize_with = "or_default")]
    pub kind: String,
    /// `nats`, `websocket`, `mqtt`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub protocol: String,
    /// The id of an MQTT client.
    #[serde(deserialize_with = "or_default")]
    pub mqtt_id: String,
    /// What an nkey has to sign; empty where the server has no use for nkeys.
    #[serde(deserialize_with = "or_default")]
    pub nonce: String,
}

/// What the client sent to be let in. Secrets of others: never shown, wiped when dropped. Passwords, and what a client sends as
/// a NATS JWT, are not even read.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct ConnectOptions {
    #[serde(deserialize_with = "secret")]
    pub(crate) nkey: Zeroizing<String>,
    #[serde(deserialize_with = "secret")]
    pub(crate) sig: Zeroizing<String>,
    #[serde(deserialize_with = "secret")]
    pub(crate) auth_token: Zeroizing<String>,
}

/// The client's TLS, as the server verified it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// The version of TLS.
    #[serde(deserialize_with = "or_default")]
    pub version: String,
    /// The cipher suite.
    #[serde(deserialize_with = "or_default")]
    pub cipher: String,
    /// Paths that the server found, leaf first, in PEM. Empty where it demands no certificates.
    #[serde(deserialize_with = "or_default")]
    pub verified_chains: Vec<Vec<String>>,
}

impl Request {
    /// Reads a request and verifies its signature.
    pub fn parse(token: &str) -> Result<Self, NatsJwtError> {
        #[derive(Deserialize)]
        struct Nats {
            user_nkey: String,
            server_id: Server,
            #[serde(default, deserialize_with = "or_default")]
            client_info: Client,
            #[serde(default, deserialize_with = "or_default")]
            connect_opts: ConnectOptions,
            #[serde(default)]
            client_tls: Option<Tls>,
        }
        let read = Verified::parse(token, TokenType::Request)?;
        // The library would take a list for an object.
        let is_object = |name: &&str| matches!(read.nats.get(*name), None | Some(Value::Null | Value::Object(_)));
        if !["server_id", "client_info", "connect_opts", "client_tls"].iter().all(is_object) {
            return Err(NatsJwtError::Claims("a member is no object"));
        }
        let mut nats = Value::Object(read.nats);
        let claims =
            Nats::deserialize(&nats).map_err(|_| NatsJwtError::Claims("a member is missing or of another type"));
        wipe(&mut nats);
        let claims = claims?;
        let user = PublicKey::parse(&claims.user_nkey, Kind::User)
            .map_err(|_| NatsJwtError::Claims("user_nkey is no user key"))?;
        Ok(Self {
            issuer: read.issuer,
            account: read.subject,
            audience: read.audience,
            issued_at: read.issued_at,
            expires_at: read.expires_at,
            not_before: read.not_before,
            user,
            server: claims.server_id,
            client: claims.client_info,
            connect: claims.connect_opts,
            tls: claims.client_tls,
        })
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectOptions(..)")
    }
}

/// Wipes what the client sent.
fn wipe(nats: &mut Value) {
    for member in nats.get_mut("connect_opts").and_then(Value::as_object_mut).into_iter().flatten() {
        if let (_, Value::String(text)) = member {
            text.zeroize();
        }
    }
}

/// `null` is what Go writes for an empty list.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    or_default(deserializer).map(Zeroizing::new)
}
