//! Requests over the network: believed by their signed statement alone, whatever subject or connection they came on.
//!
//! In this order: the statement (signature, audience, place, time, payload), whether anybody let its signer in at all, whether it
//! was used before, and then policy. What cannot be believed is answered with a word and no signature; every other answer is
//! signed by the host and bound to its request.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_identity::SpiffeId;
use portcullis_identity::statement::{
    Expected, Order, Replay, Signer, Signers, Statement, StatementError, UserKey, check,
};
use portcullis_policies::Operator;
use prost::Message;
use time::OffsetDateTime;
use tokio::sync::Semaphore;

use super::acts::{self, Proof};
use crate::cli::error::exit;
use crate::clock;
use crate::control::Method;
use crate::limits::{CONTROL_CALLS, CONTROL_REQUEST_BYTES, CONTROL_REQUEST_LIFE, CONTROL_STRANGERS};
use crate::rpc::control::{Answer, ListRequest, LogsRequest, StartRequest, StatusRequest, StopRequest, answer};
use crate::supervisor::own::ToSign;
use crate::supervisor::refused::Refused;
use crate::supervisor::{Again, Host};

/// The one dispatcher of all requests over the network.
#[derive(Debug)]
pub struct Remote {
    host: Arc<Host>,
    used: Mutex<Replay>,
    room: Semaphore,
    /// The refusals of this second that went to those whom no entry names.
    strangers: Mutex<(i64, u32)>,
}

/// What a request came over.
#[derive(Debug, Clone, Copy)]
pub enum Over<'a> {
    /// A subject, which proves nothing.
    Nats {
        /// Largest answer that its server takes.
        most: usize,
    },
    /// A TLS connection of this peer: its statement must be its own.
    Https(&'a SpiffeId),
}

impl Over<'_> {
    /// Largest answer that arrives.
    fn most(self) -> usize {
        match self {
            Self::Nats { most } => most,
            Self::Https(_) => CONTROL_REQUEST_BYTES,
        }
    }
}

/// An answer: its statement, where there is one, and its payload.
#[derive(Debug)]
pub struct Answered {
    /// Signed by the host; absent where the request was not believed.
    pub statement: Option<String>,
    /// An [`Answer`].
    pub payload: Vec<u8>,
}

impl Remote {
    /// A dispatcher that remembers from now on what was used.
    pub fn new(host: Arc<Host>) -> Self {
        Self {
            host,
            used: Mutex::new(Replay::new(clock::now())),
            room: Semaphore::new(CONTROL_CALLS),
            strangers: Mutex::default(),
        }
    }

    /// Answers one request.
    pub async fn answer(&self, method: &str, statement: Option<&str>, payload: &[u8], over: Over<'_>) -> Answered {
        let Ok(_place) = self.room.try_acquire() else {
            return unsigned(&refused("control.busy", "too many requests are at work", "ask again in a moment"));
        };
        let believed = Method::named(method)
            .ok_or_else(|| refused("control.method", "there is no such method", "status, list, start, stop or logs"))
            .and_then(|method| Ok((method, self.believe(method, statement, payload, over)?)));
        let (method, (statement, again)) = match believed {
            Ok(believed) => believed,
            Err(refused) => {
                tracing::warn!(code = refused.code, method = %method.escape_debug().take(16).collect::<String>(), "a control message was not believed");
                return unsigned(&refused);
            }
        };
        let result = match self.act(method, &statement, again, payload, over).await {
            Ok(reply) => answer::Result::Reply(reply),
            Err(refused) => answer::Result::Refused(refused.to_rpc()),
        };
        let mut payload = Answer { result: Some(result) }.encode_to_vec();
        if payload.len() > over.most() {
            // Sent as it is, it would arrive nowhere, and nobody would know why.
            let message = format!("the answer has {} bytes, and {} fit this way", payload.len(), over.most());
            let hint =
                "ask for less, `--lines 50` for one; or raise max_payload at the server of NATS, or ask over HTTPS";
            let told = refused("control.answer-too-large", &message, hint).to_rpc();
            payload = Answer { result: Some(answer::Result::Refused(told)) }.encode_to_vec();
        }
        let (audience, place) = (statement.signer().to_string(), method.reply_place());
        let (life, answers) = (CONTROL_REQUEST_LIFE, Some(statement.jti()));
        let what = ToSign { audience: &audience, place: &place, life, answers, version: None };
        match self.host.sign_statement(&what, payload.clone()).await {
            Ok(statement) => Answered { statement: Some(statement), payload },
            Err(error) => {
                tracing::error!(%error, "an answer of the control plane could not be signed");
                unsigned(&refused("control.unsigned", "the host cannot sign its answer", "look at the log of the host"))
            }
        }
    }

    /// The statement of a request, if this host may believe it now; and the same question, to be asked again later.
    fn believe(
        &self,
        method: Method,
        statement: Option<&str>,
        payload: &[u8],
        over: Over<'_>,
    ) -> Result<(Statement, Again), Refused> {
        if payload.len() > CONTROL_REQUEST_BYTES {
            return Err(refused("control.too-large", "the request is too large", "send less evidence"));
        }
        let missing =
            || refused("statement.missing", "the request is not signed", "sign it: see docs/control-plane.md");
        let token = statement.ok_or_else(missing)?;
        let now = clock::now();
        let statement = believed(&self.host, method, token, payload, now)?;
        if let Over::Https(peer) = over
            && statement.signer() != &Signer::Svid(peer.clone())
        {
            let hint = "sign with the SVID that the connection shows";
            return Err(refused("statement.other-peer", "the statement is not of the peer of this connection", hint));
        }
        // It came in time; what is asked again is whether keys, authorities and revocations of later still let it be believed.
        let (host, token, payload) = (Arc::clone(&self.host), token.to_owned(), payload.to_vec());
        let again = Again::new(move || believed(&host, method, &token, &payload, now).map(drop));
        Ok((statement, again))
    }

    async fn act(
        &self,
        method: Method,
        statement: &Statement,
        again: Again,
        payload: &[u8],
        over: Over<'_>,
    ) -> Result<Vec<u8>, Refused> {
        let (host, who) = (&self.host, Operator::Signer(statement.signer().to_string()));
        self.take(method, statement, &who)?;
        let over = match over {
            Over::Nats { .. } => "nats",
            Over::Https(_) => "https",
        };
        let proof = Proof::Statement { jti: statement.jti().to_string(), over, again };
        Ok(match method {
            Method::Status => {
                let request: StatusRequest = decoded(payload)?;
                // Nobody waits inside of a request that holds for a minute.
                let wait_ready_ms = request.wait_ready_ms.min(REMOTE_WAIT_MS);
                acts::status(host, &who, StatusRequest { wait_ready_ms }).await?.encode_to_vec()
            }
            Method::List => {
                let ListRequest {} = decoded(payload)?;
                acts::list(host, &who)?.encode_to_vec()
            }
            Method::Logs => acts::logs(host, &who, decoded::<LogsRequest>(payload)?).await?.encode_to_vec(),
            Method::Start => acts::start(host, &who, decoded::<StartRequest>(payload)?, &proof).await?.encode_to_vec(),
            Method::Stop => acts::stop(host, &who, decoded::<StopRequest>(payload)?, &proof).await?.encode_to_vec(),
        })
    }

    /// Takes a statement, once. Whom no entry names cannot fill the window of those who are named.
    fn take(&self, method: Method, statement: &Statement, who: &Operator) -> Result<(), Refused> {
        let policy = self.host.policy();
        let name = who.name();
        let named = policy.set().operators().iter().any(|entry| entry.who() == name);
        if !named && policy.set().summary().raw_policies == 0 {
            return Err(self.stranger(method, who));
        }
        let order = if method.action().only_shows() { Order::Any } else { Order::Newest };
        let mut used = self.used.lock().map_err(|_| Refused::internal("poisoned"))?;
        used.accept(statement, order, clock::now()).map_err(|error| from_statement(&error))
    }
}

impl Remote {
    /// The refusal of somebody whom no entry names. So many a second are recorded; a flood of them fills no disk.
    fn stranger(&self, method: Method, who: &Operator) -> Refused {
        let Err(denial) = self.host.may(who, method.action(), None) else {
            return Refused::internal("nobody named this operator, and it is allowed");
        };
        let second = clock::now().unix_timestamp();
        let recorded = self.strangers.lock().is_ok_and(|mut strangers| {
            if strangers.0 != second {
                *strangers = (second, 0);
            }
            strangers.1 = strangers.1.saturating_add(1);
            strangers.1 <= CONTROL_STRANGERS
        });
        if recorded { self.host.deny_operator(&denial) } else { self.host.refusal_of_operator(&denial) }
    }
}

/// The statement in a token that came at this time, by the keys, the authorities and the revocations of now.
fn believed(
    host: &Host,
    method: Method,
    token: &str,
    payload: &[u8],
    came: OffsetDateTime,
) -> Result<Statement, Refused> {
    let own = host.own();
    let Some(id) = own.spiffe_id().map(ToString::to_string) else {
        return Err(refused(
            "control.no-identity",
            "the host has no SVID at the moment",
            "look at the log of the host",
        ));
    };
    let policy = host.policy();
    let named: HashSet<&str> = policy.set().operators().iter().map(|entry| entry.who()).collect();
    let keys = named.iter().filter_map(|who| who.parse::<UserKey>().ok());
    let signers = Signers::new(own.trust(), keys);
    let place = method.place();
    let statement = check(token, payload, &Expected::message(&id, &place), &signers, came)
        .map_err(|error| from_statement(&error))?;
    if let Signer::Svid(id) = statement.signer()
        && host.revokes(id)
    {
        return Err(refused("statement.revoked", "the signer is revoked", "sign with an identity that is in force"));
    }
    Ok(statement)
}

fn decoded<T: Message + Default>(payload: &[u8]) -> Result<T, Refused> {
    T::decode(payload).map_err(|_| {
        refused("control.malformed", "the request is no message of its method", "use the same release on both sides")
    })
}

/// A word, and no signature: it is not known who asked.
fn unsigned(refused: &Refused) -> Answered {
    let payload = Answer { result: Some(answer::Result::Refused(refused.to_rpc())) }.encode_to_vec();
    Answered { statement: None, payload }
}

fn from_statement(error: &StatementError) -> Refused {
    let exit = match error {
        StatementError::UnknownKey(_) | StatementError::Chain(_) => UNTRUSTED,
        StatementError::Signature | StatementError::Payload | StatementError::Issuer(_) => exit::SIGNATURE,
        StatementError::Expired | StatementError::NotYetValid | StatementError::TooLong => exit::TIME,
        _ => exit::DENIED,
    };
    Refused {
        exit,
        code: error.code().to_owned(),
        message: error.to_string(),
        hint: error.hint(),
        ..Refused::internal("")
    }
}

fn refused(code: &str, message: &str, hint: &str) -> Refused {
    let (code, message, hint) = (code.to_owned(), message.to_owned(), hint.to_owned());
    Refused { exit: exit::DENIED, code, message, hint, ..Refused::internal("") }
}

/// Untrusted signer.
const UNTRUSTED: u8 = 12;
/// Longest wait for readiness within a request over the network.
const REMOTE_WAIT_MS: u64 = 5_000;
/// How often a way in looks again where it is not up.
pub(super) const LOOK: Duration = Duration::from_millis(200);
