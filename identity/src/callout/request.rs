//! A server asks: the message, taken apart and checked, but for what the client showed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_nkey::{Kind, NkeyError, PublicKey};
use time::OffsetDateTime;

use super::replays::{ReplayError, Replays};
use crate::limits::{CALLOUT_CLOCK_SKEW, MAX_CALLOUT_REQUEST_LIFE, MAX_NATS_JWT_BYTES};
use crate::nats_jwt::{self, ConnectOptions, NatsJwtError, Server, Tls};
use crate::xkey::{XKey, XKeyError};

/// Which requests are for us.
#[derive(Debug)]
pub struct Requests {
    account: PublicKey,
    xkey: Option<Arc<XKey>>,
    kinds: BTreeSet<(ConnectionKind, Protocol)>,
}

/// A message on `$SYS.REQ.USER.AUTH`.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Its bytes.
    pub payload: &'a [u8],
    /// Every value of its header `Nats-Server-Xkey`.
    pub xkeys: &'a [&'a str],
}

/// What connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnectionKind {
    /// A client.
    Client,
    /// A leaf node: a server with clients of its own behind it.
    Leafnode,
}

/// What it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// NATS over TCP.
    Nats,
    /// NATS over a web socket.
    Websocket,
    /// MQTT.
    Mqtt,
}

/// A request that is for us, now and for the first time. Only [`Requests::open`] makes it. One attempt of one client.
#[derive(Debug)]
pub struct Request {
    asked: nats_jwt::Request,
    server_xkey: Option<PublicKey>,
    kind: ConnectionKind,
    protocol: Protocol,
    ip: IpAddr,
    expires_at: OffsetDateTime,
}

/// Why a message is no request for us. Whoever sent it erred; it may be anybody who can publish there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Larger than any request.
    #[error("the message is larger than a request")]
    TooLarge,
    /// In plain text, where an xkey is configured.
    #[error("the request is not encrypted, though an xkey is configured")]
    Plain,
    /// Encrypted, where none is.
    #[error("the request is encrypted, but no xkey is configured")]
    Encrypted,
    /// More than one key, or no curve key.
    #[error("the header Nats-Server-Xkey is no curve key: {0}")]
    Header(NkeyError),
    /// The header is there twice.
    #[error("the header Nats-Server-Xkey is there more than once")]
    Headers,
    /// The box stays closed.
    #[error("the request's box: {0}")]
    Box(#[from] XKeyError),
    /// No token of a server.
    #[error("the request: {0}")]
    Token(#[from] NatsJwtError),
    /// Signed by a key that is not the server's that it is from.
    #[error("the request names another server than the one that signed it")]
    ServerId,
    /// The box is by another key than the server's.
    #[error("the request was sealed by another key than the server says is its own")]
    ServerXkey,
    /// Not for an auth callout.
    #[error("the request's audience is not that of an auth callout")]
    Audience,
    /// For another account's callout.
    #[error("the request is for the callout of another account")]
    Account,
    /// Over, or without an end.
    #[error("the request has ended, or has no end")]
    Expired,
    /// From the future.
    #[error("the request is not from now")]
    NotYet,
    /// Good for longer than [`MAX_CALLOUT_REQUEST_LIFE`].
    #[error("the request is good for longer than any server asks")]
    LongLived,
    /// A kind or protocol that is not known, or not let in here.
    #[error("connections of this kind are not let in")]
    Kind,
    /// No address.
    #[error("the request does not say where the client connects from")]
    Source,
    /// It came before, or too many come.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

impl RequestError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Plain => {
                "set auth_callout.xkey in the server's configuration to the public key of the callout's xkey"
            }
            Self::Encrypted => {
                "give the callout the xkey whose public key is auth_callout.xkey in the server's configuration"
            }
            Self::Box(error) => error.hint(),
            Self::Token(error) => error.hint(),
            Self::Account => {
                "the account of the callout's configuration must be the server's auth_callout.issuer, or in operator mode the callout's account"
            }
            Self::Expired | Self::NotYet => "see that the clocks of the server and the callout agree",
            Self::LongLived => "lower authorization.timeout of the server",
            Self::Kind => "if such connections are meant, name them in the callout's configuration",
            Self::Replay(ReplayError::Full) => "start more replicas of the callout",
            _ => {
                "somebody other than a server may be able to publish in the callout's account: it must have one user only"
            }
        }
    }

    /// A name for metrics and audit.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Plain => "plain",
            Self::Encrypted => "encrypted",
            Self::Header(_) | Self::Headers => "header",
            Self::Box(_) => "box",
            Self::Token(_) => "token",
            Self::ServerId => "server_id",
            Self::ServerXkey => "server_xkey",
            Self::Audience => "audience",
            Self::Account => "account",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::LongLived => "long_lived",
            Self::Kind => "kind",
            Self::Source => "source",
            Self::Replay(ReplayError::Again) => "replayed",
            Self::Replay(ReplayError::Full) => "full",
        }
    }
}

impl Requests {
    /// Requests to this account (`auth_callout.issuer`, or in operator mode the account with the callout), in boxes for this
    /// key, about clients that speak NATS over TCP or a web socket.
    pub fn new(account: PublicKey, xkey: Option<Arc<XKey>>) -> Result<Self, NkeyError> {
        let account = account.require(Kind::Account)?;
        let kinds = [(ConnectionKind::Client, Protocol::Nats), (ConnectionKind::Client, Protocol::Websocket)];
        Ok(Self { account, xkey, kinds: kinds.into() })
    }

    /// About these instead.
    pub fn about(mut self, kinds: impl IntoIterator<Item = (ConnectionKind, Protocol)>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// The request in a message.
    pub fn open(
        &self,
        message: &Received<'_>,
        replays: &mut Replays,
        now: OffsetDateTime,
    ) -> Result<Request, RequestError> {
        let request = self.check(message, now)?;
        // Last, so that only what is right is remembered.
        replays.take(request.asked.issuer, request.asked.user, request.expires_at, now)?;
        Ok(request)
    }

    /// Everything but that it comes for the first time: without a lock, for many at once. [`Request::once`] is what is left.
    pub fn check(&self, message: &Received<'_>, now: OffsetDateTime) -> Result<Request, RequestError> {
        let (asked, server_xkey) = self.unsealed(message)?;
        if asked.server.id != asked.issuer.to_string() {
            return Err(RequestError::ServerId);
        }
        if let Some(key) = server_xkey
            && asked.server.xkey != key.to_string()
        {
            return Err(RequestError::ServerXkey);
        }
        if asked.audience.as_deref() != Some(AUDIENCE) {
            return Err(RequestError::Audience);
        }
        if asked.account != self.account {
            return Err(RequestError::Account);
        }
        let expires_at = check_times(&asked, now)?;
        let (kind, protocol) = connection(&asked.client.kind, &asked.client.protocol)
            .filter(|found| self.kinds.contains(found))
            .ok_or(RequestError::Kind)?;
        let ip = asked.client.host.parse().map_err(|_| RequestError::Source)?;
        Ok(Request { asked, server_xkey, kind, protocol, ip, expires_at })
    }

    fn unsealed(&self, message: &Received<'_>) -> Result<(nats_jwt::Request, Option<PublicKey>), RequestError> {
        if message.payload.len() > MAX_NATS_JWT_BYTES + BOX_BYTES {
            return Err(RequestError::TooLarge);
        }
        let header = match message.xkeys {
            [] => None,
            [one] => Some(*one),
            _ => return Err(RequestError::Headers),
        };
        match (&self.xkey, header) {
            (None, None) => Ok((asked(message.payload)?, None)),
            (None, Some(_)) => Err(RequestError::Encrypted),
            (Some(_), None) => Err(RequestError::Plain),
            (Some(xkey), Some(text)) => {
                let server = PublicKey::parse(text, Kind::Curve).map_err(RequestError::Header)?;
                Ok((asked(&xkey.open(&server, message.payload)?)?, Some(server)))
            }
        }
    }
}

impl Request {
    /// Takes the request if it was not seen before.
    pub fn once(&self, replays: &mut Replays, now: OffsetDateTime) -> Result<(), RequestError> {
        Ok(replays.take(self.asked.issuer, self.asked.user, self.expires_at, now)?)
    }

    /// The server that asks: its key. Whose it is, is not proven.
    pub fn server_id(&self) -> PublicKey {
        self.asked.issuer
    }

    /// What the server says of itself.
    pub fn server(&self) -> &Server {
        &self.asked.server
    }

    /// The key of this attempt.
    pub fn user_nkey(&self) -> PublicKey {
        self.asked.user
    }

    /// The connection's number at the server: with the server's key, what to kick.
    pub fn client_id(&self) -> u64 {
        self.asked.client.id
    }

    /// What the client calls itself. Anybody can say anything: for the audit, escaped and cut.
    pub fn claimed_name(&self) -> &str {
        &self.asked.client.name
    }

    /// What connects.
    pub fn kind(&self) -> ConnectionKind {
        self.kind
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Where it comes from, as the server sees it.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// When nobody waits for an answer any more.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }

    /// The version and cipher suite of the connection's TLS, if it has TLS.
    pub fn tls(&self) -> Option<(&str, &str)> {
        self.asked.tls.as_ref().map(|tls| (tls.version.as_str(), tls.cipher.as_str()))
    }

    pub(super) fn nonce(&self) -> &str {
        &self.asked.client.nonce
    }

    pub(super) fn shown(&self) -> (&ConnectOptions, Option<&Tls>) {
        (&self.asked.connect, self.asked.tls.as_ref())
    }

    pub(super) fn server_xkey(&self) -> Option<PublicKey> {
        self.server_xkey
    }
}

impl ConnectionKind {
    /// The server's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "Client",
            Self::Leafnode => "Leafnode",
        }
    }
}

impl Protocol {
    /// The server's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Websocket => "websocket",
            Self::Mqtt => "mqtt",
        }
    }
}

fn asked(payload: &[u8]) -> Result<nats_jwt::Request, RequestError> {
    let token = std::str::from_utf8(payload).map_err(|_| NatsJwtError::Malformed("it is no text"))?;
    Ok(nats_jwt::Request::parse(token)?)
}

fn check_times(asked: &nats_jwt::Request, now: OffsetDateTime) -> Result<OffsetDateTime, RequestError> {
    let expires_at = asked.expires_at.ok_or(RequestError::Expired)?;
    let issued_at = asked.issued_at.ok_or(RequestError::NotYet)?;
    if now >= expires_at + CALLOUT_CLOCK_SKEW {
        return Err(RequestError::Expired);
    }
    if now < issued_at - CALLOUT_CLOCK_SKEW || asked.not_before.is_some_and(|from| now < from - CALLOUT_CLOCK_SKEW) {
        return Err(RequestError::NotYet);
    }
    if expires_at > issued_at + MAX_CALLOUT_REQUEST_LIFE {
        return Err(RequestError::LongLived);
    }
    Ok(expires_at)
}

/// The server's words; `None` for those that are not known. A leaf node speaks the protocol of servers, which has no name.
fn connection(kind: &str, protocol: &str) -> Option<(ConnectionKind, Protocol)> {
    let kind = match kind {
        "Client" => ConnectionKind::Client,
        "Leafnode" => ConnectionKind::Leafnode,
        _ => return None,
    };
    let protocol = match protocol {
        "nats" => Protocol::Nats,
        "" if kind == ConnectionKind::Leafnode => Protocol::Nats,
        "websocket" => Protocol::Websocket,
        "mqtt" => Protocol::Mqtt,
        _ => return None,
    };
    Some((kind, protocol))
}

const AUDIENCE: &str = "nats-authorization-request";
/// What a box adds: version, nonce and tag.
const BOX_BYTES: usize = 4 + 24 + 16;

#[cfg(test)]
mod tests;
