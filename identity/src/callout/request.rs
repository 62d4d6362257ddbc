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
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::callout::forge::{Forge, NOW, at, key, now};

    fn opened(forge: &Forge, payload: &[u8], xkeys: &[&str]) -> Result<Request, RequestError> {
        forge.requests().open(&Received { payload, xkeys }, &mut Replays::new(), now())
    }

    #[test]
    fn what_a_server_asks_is_a_request() {
        let forge = Forge::new();
        let request = forge.changed(|_| ()).unwrap();
        assert_eq!((request.server_id(), request.user_nkey()), (forge.server.public(), forge.user));
        assert_eq!((request.kind(), request.protocol()), (ConnectionKind::Client, Protocol::Nats));
        assert_eq!((request.ip().to_string().as_str(), request.client_id()), ("192.0.2.7", 9));
        assert_eq!((request.server().name.as_str(), request.tls()), ("n1", None));
        assert_eq!(request.expires_at(), at(2));
    }

    #[test]
    fn members_that_are_not_known_are_left_out_and_empty_ones_may_be_missing() {
        let forge = Forge::new();
        let more = forge.changed(|claims| {
            claims["later"] = json!({"a": [1]});
            claims["nats"]["client_info"]["later"] = json!(true);
            claims["nats"]["client_info"]["tags"] = json!(null);
            claims["nats"]["server_id"]["tags"] = json!(null);
            claims["nats"]["client_tls"] = json!({"version": "1.3", "verified_chains": null, "certs": null});
            claims["nats"].as_object_mut().unwrap().remove("connect_opts");
        });
        assert_eq!(more.unwrap().tls(), Some(("1.3", "")));
        for change in [json!({"nonce": 1}), json!({"id": "9"}), json!({"id": -1}), json!([])] {
            let refused = forge.changed(|claims| claims["nats"]["client_info"] = change);
            assert!(matches!(refused, Err(RequestError::Token(NatsJwtError::Claims(_)))));
        }
    }

    #[test]
    fn a_header_without_an_xkey_and_an_xkey_without_a_header_are_refused() {
        let forge = Forge::new();
        let token = forge.sign(&forge.claims());
        let header = forge.server_xkey.public().to_string();
        assert_eq!(opened(&forge, token.as_bytes(), &[]).err(), Some(RequestError::Plain));
        assert_eq!(opened(&forge, &forge.sealed(&token), &[]).err(), Some(RequestError::Plain));
        let version = Some(RequestError::Box(XKeyError::Version));
        assert_eq!(opened(&forge, token.as_bytes(), &[&header]).err(), version);
        let plain = Requests::new(forge.account, None).unwrap();
        let open = |payload: &[u8], xkeys: &[&str]| plain.check(&Received { payload, xkeys }, now());
        assert_eq!(open(&forge.sealed(&token), &[&header]).err(), Some(RequestError::Encrypted));
        assert_eq!(open(token.as_bytes(), &[&header]).err(), Some(RequestError::Encrypted));
        assert!(open(token.as_bytes(), &[]).is_ok());
    }

    #[test]
    fn one_header_names_the_key_that_sealed_and_that_the_server_says_is_its_own() {
        let forge = Forge::new();
        let (payload, header) = (forge.sealed(&forge.sign(&forge.claims())), forge.server_xkey.public().to_string());
        assert_eq!(opened(&forge, &payload, &[&header, &header]).err(), Some(RequestError::Headers));
        let other = Forge::new();
        let theirs = other.server_xkey.public().to_string();
        assert_eq!(opened(&forge, &payload, &[&theirs]).err(), Some(RequestError::Box(XKeyError::Closed)));
        for wrong in ["", "X", &forge.user.to_string(), &forge.server_xkey.seed()] {
            assert!(matches!(opened(&forge, &payload, &[wrong]), Err(RequestError::Header(_))));
        }
        // Sealed with a key of its own by somebody who has a server's request.
        let resealed = other.server_xkey.seal(&forge.ours.public(), forge.sign(&forge.claims()).as_bytes()).unwrap();
        assert_eq!(opened(&forge, &resealed, &[&theirs]).err(), Some(RequestError::ServerXkey));
        let silent = forge.changed(|claims| drop(claims["nats"]["server_id"].as_object_mut().unwrap().remove("xkey")));
        assert_eq!(silent.err(), Some(RequestError::ServerXkey));
    }

    #[test]
    fn the_server_that_signs_is_the_server_that_asks() {
        let forge = Forge::new();
        let other = key(Kind::Server).to_string();
        let refused = forge.changed(|claims| claims["nats"]["server_id"]["id"] = json!(other));
        assert_eq!(refused.err(), Some(RequestError::ServerId));
        let refused = forge.changed(|claims| claims["iss"] = json!(other));
        assert_eq!(refused.err(), Some(RequestError::Token(NatsJwtError::Signature)));
        for kind in [Kind::Account, Kind::User, Kind::Cluster] {
            let mut user = Forge::new();
            user.server = portcullis_nkey::KeyPair::generate(kind).unwrap();
            assert_eq!(user.changed(|_| ()).err(), Some(RequestError::Token(NatsJwtError::Issuer)), "{kind}");
        }
    }

    #[test]
    fn audience_account_type_version_and_header_are_those_of_a_request() {
        let forge = Forge::new();
        for audience in [json!("APP"), json!(""), json!(forge.account.to_string()), json!(null)] {
            let refused = forge.changed(|claims| claims["aud"] = audience);
            assert_eq!(refused.err(), Some(RequestError::Audience));
        }
        let other = key(Kind::Account).to_string();
        assert_eq!(forge.changed(|claims| claims["sub"] = json!(other)).err(), Some(RequestError::Account));
        for (member, value) in
            [("type", json!("user")), ("type", json!(null)), ("version", json!(1)), ("version", json!(3))]
        {
            let refused = forge.changed(|claims| claims["nats"][member] = value);
            assert!(matches!(refused, Err(RequestError::Token(NatsJwtError::Type(_)))), "{member}");
        }
        let claims = forge.claims().to_string();
        for header in [r#"{"typ":"JWT","alg":"ed25519"}"#, r#"{"typ":"JWT","alg":"none"}"#, r#"{"alg":"ed25519-nkey"}"#]
        {
            let refused = forge.send(&forge.sign_text(header, &claims));
            assert_eq!(refused.err(), Some(RequestError::Token(NatsJwtError::Header)), "{header}");
        }
    }

    #[test]
    fn a_request_is_from_now_and_ends_soon() {
        let forge = Forge::new();
        let skew = i64::try_from(CALLOUT_CLOCK_SKEW.as_secs()).unwrap();
        let life = i64::try_from(MAX_CALLOUT_REQUEST_LIFE.as_secs()).unwrap();
        let times = |iat: i64, exp: i64| {
            forge.changed(|claims| (claims["iat"], claims["exp"]) = (json!(NOW + iat), json!(NOW + exp))).map(|_| ())
        };
        assert_eq!(times(-skew, 1 - skew), Ok(()));
        assert_eq!(times(-skew, -skew), Err(RequestError::Expired));
        assert_eq!(times(skew, skew + 1), Ok(()));
        assert_eq!(times(skew + 1, skew + 2), Err(RequestError::NotYet));
        assert_eq!(times(0, life), Ok(()));
        assert_eq!(times(0, life + 1), Err(RequestError::LongLived));
        for (member, error) in [("exp", RequestError::Expired), ("iat", RequestError::NotYet)] {
            let refused = forge.changed(|claims| drop(claims.as_object_mut().unwrap().remove(member)));
            assert_eq!(refused.err(), Some(error), "{member}");
        }
        assert_eq!(forge.changed(|claims| claims["nbf"] = json!(NOW + skew + 1)).err(), Some(RequestError::NotYet));
    }

    #[test]
    fn only_kinds_that_are_meant_are_let_in() {
        let forge = Forge::new();
        let connects = |requests: &Requests, kind: &str, protocol: &str| {
            let mut claims = forge.claims();
            claims["nats"]["client_info"]["kind"] = json!(kind);
            claims["nats"]["client_info"]["type"] = json!(protocol);
            let (payload, header) = (forge.sealed(&forge.sign(&claims)), forge.server_xkey.public().to_string());
            requests.check(&Received { payload: &payload, xkeys: &[&header] }, now()).map(|_| ())
        };
        let (usual, leaf) = (forge.requests(), forge.requests().about([(ConnectionKind::Leafnode, Protocol::Nats)]));
        assert_eq!(connects(&usual, "Client", "nats"), Ok(()));
        assert_eq!(connects(&usual, "Client", "websocket"), Ok(()));
        assert_eq!(connects(&leaf, "Leafnode", ""), Ok(()));
        for (kind, protocol) in
            [("Leafnode", ""), ("Client", "mqtt"), ("Client", ""), ("Router", "nats"), ("client", "nats"), ("", "nats")]
        {
            assert_eq!(connects(&usual, kind, protocol), Err(RequestError::Kind), "{kind} {protocol}");
        }
        assert_eq!(connects(&leaf, "Client", "nats"), Err(RequestError::Kind));
    }

    #[test]
    fn a_connection_from_nowhere_and_a_user_key_of_another_kind_are_refused() {
        let forge = Forge::new();
        for host in ["", "localhost", "192.0.2.7:1", "192.0.2"] {
            let refused = forge.changed(|claims| claims["nats"]["client_info"]["host"] = json!(host));
            assert_eq!(refused.err(), Some(RequestError::Source), "{host}");
        }
        for user in [key(Kind::Account).to_string(), "U".to_owned(), String::new()] {
            let refused = forge.changed(|claims| claims["nats"]["user_nkey"] = json!(user));
            assert!(matches!(refused, Err(RequestError::Token(NatsJwtError::Claims(_)))), "{user}");
        }
    }

    #[test]
    fn a_request_is_taken_once() {
        let forge = Forge::new();
        let (payload, header) = (forge.sealed(&forge.sign(&forge.claims())), forge.server_xkey.public().to_string());
        let message = Received { payload: &payload, xkeys: &[&header] };
        let (requests, mut replays) = (forge.requests(), Replays::new());
        assert!(requests.open(&message, &mut replays, now()).is_ok());
        let again = Some(RequestError::Replay(ReplayError::Again));
        assert_eq!(requests.open(&message, &mut replays, now()).err(), again);
        // The same attempt in another box, signed again.
        let mut claims = forge.claims();
        claims["jti"] = json!("K");
        let payload = forge.sealed(&forge.sign(&claims));
        let message = Received { payload: &payload, xkeys: &[&header] };
        assert_eq!(requests.open(&message, &mut replays, now()).err(), again);
        assert_eq!(requests.check(&message, now()).unwrap().once(&mut replays, now()).err(), again);
        assert_eq!(replays.len(), 1);
    }

    #[test]
    fn what_is_refused_is_not_remembered() {
        let forge = Forge::new();
        let mut replays = Replays::new();
        let mut claims = forge.claims();
        claims["exp"] = json!(NOW - 100);
        let (payload, header) = (forge.sealed(&forge.sign(&claims)), forge.server_xkey.public().to_string());
        let message = Received { payload: &payload, xkeys: &[&header] };
        assert!(forge.requests().open(&message, &mut replays, now()).is_err());
        assert!(replays.is_empty());
    }

    #[test]
    fn the_largest_message_is_looked_at_and_one_more_byte_is_not() {
        let forge = Forge::new();
        let header = forge.server_xkey.public().to_string();
        let largest = vec![b'x'; MAX_NATS_JWT_BYTES + BOX_BYTES];
        let looked_at = Some(RequestError::Box(XKeyError::Version));
        assert_eq!(opened(&forge, &largest, &[&header]).err(), looked_at);
        let more = [largest.as_slice(), b"x"].concat();
        assert_eq!(opened(&forge, &more, &[&header]).err(), Some(RequestError::TooLarge));
    }

    #[test]
    fn no_change_of_a_byte_passes_in_plain_text() {
        let forge = Forge::new();
        let requests = Requests::new(forge.account, None).unwrap();
        let token = forge.sign(&forge.claims());
        for position in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[position] ^= 1;
            let message = Received { payload: &changed, xkeys: &[] };
            assert!(requests.check(&message, now()).is_err(), "at {position}");
        }
    }

    /// Every place in a value.
    fn places(value: &Value, at: &str, into: &mut Vec<String>) {
        let members: Vec<(String, &Value)> = match value {
            Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), value)).collect(),
            Value::Array(list) => list.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
            _ => vec![],
        };
        for (name, value) in members {
            let at = format!("{at}/{name}");
            places(value, &at, into);
            into.push(at);
        }
    }

    #[test]
    fn whatever_is_put_in_whatever_place_a_request_stays_what_it_must_be_or_is_refused() {
        let forge = Forge::new();
        let nobody = crate::callout::forge::trusting(&crate::callout::forge::Domain::new("td-a.test"), &[]);
        let mut places_of = Vec::new();
        let mut whole = forge.claims();
        whole["nats"]["client_tls"] = json!({"version": "1.3", "verified_chains": [["x"]]});
        whole["nats"]["connect_opts"] = json!({"protocol": 1, "auth_token": "x", "nkey": "x", "sig": "x"});
        whole["nats"]["client_info"]["nonce"] = json!("n");
        places(&whole, "", &mut places_of);
        let values = [
            json!(null),
            json!(""),
            json!("x"),
            json!(0),
            json!(-1),
            json!(1.5),
            json!(u64::MAX),
            json!(true),
            json!([]),
            json!({}),
            json!([[]]),
            json!("spiffe://td-a.test/a"),
            json!(key(Kind::Account).to_string()),
            json!(key(Kind::Server).to_string()),
        ];
        let (mut taken, mut refused) = (0, 0);
        for place in &places_of {
            for value in &values {
                let mut claims = whole.clone();
                *claims.pointer_mut(place).unwrap() = value.clone();
                match forge.send(&forge.sign(&claims)) {
                    Err(_) => refused += 1,
                    Ok(request) => {
                        taken += 1;
                        assert_eq!(
                            (request.server_id(), request.user_nkey()),
                            (forge.server.public(), forge.user),
                            "{place} {value}"
                        );
                        assert_eq!(request.server().id, forge.server.public().to_string(), "{place} {value}");
                        assert!(request.expires_at() > now() - CALLOUT_CLOCK_SKEW, "{place} {value}");
                        let proven = request.prove(&nobody, &"callout".parse().unwrap(), now());
                        assert!(proven.is_err(), "{place} {value}: {proven:?}");
                    }
                }
            }
        }
        assert!(taken > 50 && refused > 100, "{taken} {refused}");
    }
}
