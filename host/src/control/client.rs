//! The operator's end: signs requests, sends them over NATS or HTTPS, and believes an answer only when the host signed it for
//! exactly this request.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use portcullis_identity::mtls::connector;
use portcullis_identity::statement::{Expected, HEADER, Jti, Signers, StatementError, SvidKey, check};
use portcullis_identity::{SpiffeId, TrustBundle};
use prost::Message;

use super::key::{Key, ToSign};
use super::{Method, host_id, inbox, subject, unreached};
use crate::cli::error::{CliError, exit};
use crate::cli::files;
use crate::clock;
use crate::config::cluster::Member;
use crate::config::operator::OperatorConfig;
use crate::limits::{CONFIG_BYTES, CONTROL_REQUEST_BYTES, CONTROL_REQUEST_LIFE, CONTROL_WAIT, NATS_FILE_BYTES};
use crate::nats::{FromFiles, Nats, NatsError};
use crate::rpc::control::{Answer, Refused, answer};

/// An operator with everything that it takes to ask one host.
#[derive(Debug)]
pub struct Client {
    config: OperatorConfig,
    key: Key,
    trust: Arc<TrustBundle>,
    host: String,
    peer: SpiffeId,
    nats: Option<Nats>,
}

/// What came back over the wire, not believed yet.
struct Raw {
    statement: Option<String>,
    payload: Vec<u8>,
}

impl Client {
    /// Reads the operator's file and what it names, and connects where that takes a connection that stays.
    pub async fn open(path: &Path, host: &str) -> Result<Self, CliError> {
        if !portcullis_policies::is_host_name(host) {
            return Err(CliError::usage(format!("`{}` is not the name of a host", host.escape_default()))
                .with_hint("1 to 63 lower-case letters, digits and dashes"));
        }
        let text = files::read_text(path, CONFIG_BYTES, "operator file")?;
        let config = OperatorConfig::parse(&text, path).map_err(|error| {
            CliError::new(exit::CONFIG, "operator.invalid", error.to_string())
                .with_hint("correct the operator file: docs/control-plane.md")
        })?;
        let key = Key::read(&config)?;
        let bundle = files::read_bytes(&config.bundle, CONFIG_BYTES, "bundle")?;
        let trust = TrustBundle::from_json(&config.trust_domain, &bundle).map_err(|error| {
            CliError::new(exit::CONFIG, "operator.bundle", format!("{}: {error}", config.bundle.display()))
                .with_hint("`portcullis identity bundle` on a host prints it")
        })?;
        let peer: SpiffeId = host_id(config.trust_domain.as_str(), host).parse().map_err(CliError::internal)?;
        let mut client = Self { config, key, trust: Arc::new(trust), host: host.to_owned(), peer, nats: None };
        if !client.config.https.contains_key(host) {
            client.nats = Some(client.connect_nats().await?);
        }
        Ok(client)
    }

    /// Asks, and returns the reply of the method. A refusal of the host is an error with the host's own exit code.
    pub async fn call<Q: Message, R: Message + Default>(&self, method: Method, request: &Q) -> Result<R, CliError> {
        let payload = request.encode_to_vec();
        let until = Instant::now() + AGAIN;
        loop {
            match self.once(method, &payload).await? {
                Ok(reply) => return R::decode(reply.as_slice()).map_err(|_| other_release()),
                // A host that was just started cannot know yet what was used before; two requests of one moment may pass each other.
                Err(refused) if AGAIN_AT.contains(&refused.code.as_str()) && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(refused) => return Err(told(&refused)),
            }
        }
    }

    async fn once(&self, method: Method, payload: &[u8]) -> Result<Result<Vec<u8>, Refused>, CliError> {
        let jti: Jti = ulid::Ulid::generate().to_string().parse().map_err(|()| CliError::internal("no ULID"))?;
        let (audience, place) = (self.peer.to_string(), method.place());
        let what = ToSign { audience: &audience, place: &place, life: CONTROL_REQUEST_LIFE, version: None };
        let statement = self.key.sign(what, jti, payload)?;
        let wait = if method == Method::Start { CONTROL_WAIT.0 } else { CONTROL_WAIT.1 };
        let raw = match tokio::time::timeout(wait, self.send(method, &statement, payload, wait)).await {
            Ok(raw) => raw?,
            Err(_) => return Err(unreachable(format!("{} did not answer in time", self.host))),
        };
        self.believe(method, jti, &raw)
    }

    /// The answer, if it is the host's and to this request.
    fn believe(&self, method: Method, asked: Jti, raw: &Raw) -> Result<Result<Vec<u8>, Refused>, CliError> {
        let unproven = |why: String, about: Option<&Refused>| {
            let said = about.map(|refused| format!("; it says: {}: {}", refused.code, refused.message));
            let message = format!("the answer is not proven to be {}'s: {why}{}", self.host, said.unwrap_or_default());
            let hint = about.map(|refused| refused.hint.clone()).filter(|hint| !hint.is_empty());
            let hint = hint.unwrap_or_else(|| {
                "see that trust_domain, bundle and [[member]] of the operator file are those of the host".to_owned()
            });
            CliError::new(exit::SIGNATURE, "host.unproven", message).with_hint(hint)
        };
        let decoded = Answer::decode(raw.payload.as_slice()).ok().and_then(|answer| answer.result);
        let word = match &decoded {
            Some(answer::Result::Refused(refused)) => Some(refused),
            _ => None,
        };
        let Some(statement) = &raw.statement else { return Err(unproven("it is not signed".to_owned(), word)) };
        let me = self.key.issuer();
        let place = method.reply_place();
        let signers = Signers::new(Arc::clone(&self.trust), Member::keys(&self.config.member));
        let statement = check(statement, &raw.payload, &Expected::message(&me, &place), &signers, clock::now());
        let statement = statement.map_err(|error| {
            let hint = unproven_hint(&error, &self.config.bundle);
            unproven(error.to_string(), None).with_hint(hint)
        })?;
        if !self.config.signs_for(&self.host, &self.peer, statement.signer()) {
            return Err(unproven(format!("{} signed it", statement.signer()), None));
        }
        if statement.answers() != Some(asked) {
            return Err(unproven("it answers another request".to_owned(), None));
        }
        match decoded {
            Some(answer::Result::Reply(reply)) => Ok(Ok(reply)),
            Some(answer::Result::Refused(refused)) => Ok(Err(refused)),
            None => Err(other_release()),
        }
    }

    async fn send(&self, method: Method, statement: &str, payload: &[u8], wait: Duration) -> Result<Raw, CliError> {
        match &self.nats {
            Some(nats) => {
                let cluster = self.config.cluster.as_deref().unwrap_or_default();
                let room = super::room(nats);
                if payload.len() > room {
                    let message =
                        format!("the request has {} bytes, and the server of NATS takes {room}", payload.len());
                    return Err(CliError::usage(message).with_hint(
                        "push component and evidence to a registry, ask over HTTPS, or raise max_payload at the server",
                    ));
                }
                let mut headers = async_nats::HeaderMap::new();
                headers.insert(HEADER, statement);
                let subject = subject(cluster, &self.host, method.name());
                let message = nats.request(subject, Some(headers), payload.to_vec(), wait).await.map_err(|error| {
                    let why = unreached::message(&error);
                    unreachable(format!("{} is not reached over NATS: {why}", self.host))
                        .with_hint(unreached::hint(&error))
                })?;
                let statement = message.headers.as_ref().and_then(|headers| headers.get(HEADER));
                let statement = statement.map(|value| value.as_str().to_owned());
                Ok(Raw { statement, payload: message.payload.to_vec() })
            }
            None => self.post(method, statement, payload).await,
        }
    }

    async fn post(&self, method: Method, statement: &str, payload: &[u8]) -> Result<Raw, CliError> {
        let address = self.config.https.get(&self.host).map(String::as_str).unwrap_or_default();
        let Key::Svid(key) = &self.key else { return Err(CliError::usage("HTTPS needs an X.509-SVID")) };
        let failed = |what: &dyn std::fmt::Display| unreachable(format!("{} at {address}: {what}", self.host));
        let signer: Arc<SvidKey> = Arc::clone(key);
        let connector = connector(key.svid(), signer, &self.trust, &self.peer).map_err(|error| failed(&error))?;
        let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let connector = connector.with_protocols(&[b"http/1.1"]);
        let (stream, _) = connector.connect("control", stream).await.map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        tokio::spawn(connection);
        let request = http::Request::post(format!("/control/{}", method.name()))
            .header(http::header::HOST, "control")
            .header(HEADER, statement)
            .body(Full::new(Bytes::from(payload.to_vec())))
            .map_err(CliError::internal)?;
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let (head, body) = response.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(failed(&head.status));
        }
        let body = Limited::new(body, CONTROL_REQUEST_BYTES).collect().await.map_err(|error| failed(&error))?;
        let statement = head.headers.get(HEADER).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        Ok(Raw { statement, payload: body.to_bytes().to_vec() })
    }

    async fn connect_nats(&self) -> Result<Nats, CliError> {
        let Some(nats) = &self.config.nats else {
            return Err(CliError::usage(format!("the operator file names no way to {}", self.host))
                .with_hint("add it under [https], or add [nats]"));
        };
        let ca = nats.tls.ca.as_deref();
        let most = u64::try_from(NATS_FILE_BYTES).unwrap_or(u64::MAX);
        let ca = ca.map(|path| files::read_text(path, most, "NATS CA")).transpose()?;
        let own = self.key.spiffe_id().unwrap_or(&self.peer);
        let settings = inbox::settings(nats, &self.key, own, ca);
        let failed = |error: &NatsError| unreached::unreached("nats.unreachable", error);
        let nats =
            Nats::start(settings, FromFiles::new(nats.host.auth.clone())).await.map_err(|error| failed(&error))?;
        nats.verified(CONTROL_WAIT.1).await.map_err(|error| failed(&error))?;
        Ok(nats)
    }
}

/// Why a host's word proves nothing to an operator who believes the authorities in `bundle`: what to do about it.
pub fn unproven_hint(error: &StatementError, bundle: &Path) -> String {
    match error {
        StatementError::Chain(_) => format!(
            "see that {} has the bundle of each host as it is now: `portcullis identity bundle` on a host prints it",
            bundle.display()
        ),
        StatementError::UnknownKey(_) => {
            "a host that signs with an nkey is named in a [[member]] of the operator file".to_owned()
        }
        StatementError::Expired | StatementError::NotYetValid => error.hint(),
        _ => "somebody who is no host of this cluster may speak there, or on the way: look at the permissions of its NATS account"
            .to_owned(),
    }
}

fn unreachable(message: String) -> CliError {
    CliError::new(exit::TRANSPORT, "host.unreachable", message)
        .with_hint("see that the host is up, and that the operator file names the right way to it")
}

fn other_release() -> CliError {
    CliError::new(exit::TRANSPORT, "host.answer", "the answer cannot be read")
        .with_hint("use the same release on both sides")
}

/// A refusal of the host as an error of the command.
pub fn told(refused: &Refused) -> CliError {
    let exit = u8::try_from(refused.exit_code).unwrap_or(exit::INTERNAL);
    let details = serde_json::json!({ "reference": refused.reference });
    CliError::new(exit, &refused.code, format!("{}: {}", refused.code, refused.message))
        .with_hint(refused.hint.clone())
        .with_details(details)
}

/// Refusals that end by themselves.
const AGAIN_AT: [&str; 2] = ["statement.before-window", "statement.reordered"];
/// How long those are waited for.
const AGAIN: Duration = Duration::from_secs(12);
