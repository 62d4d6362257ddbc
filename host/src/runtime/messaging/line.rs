//! A connection to NATS as components use it: the one that all share, or one of a component's own.
//!
//! Nothing is sent while the server has not said that it takes us for whom we should be. A connection of its own shows the
//! component's X.509-SVID, with the key in the identity process, and is opened anew whenever there is a new one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::{PublishErrorKind, RequestErrorKind};
use async_nats::{Request, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use portcullis_identity::nats_tls::ClientCertificate;
use portcullis_policies::{Subject, SubjectPattern};
use tokio::sync::watch;

use super::{NoLine, is_over, private_token};
use crate::nats::{ConnectSecrets, Credentials, Denied, Nats, NatsError, Settings, State};
use crate::rpc::runtime::{Failure, event::What};
use crate::runtime::component::Loaded;
use crate::runtime::handshake::RemoteSigner;

/// A connection. Cheap to clone.
#[derive(Clone)]
pub struct Line {
    nats: Nats,
    /// What its inboxes for one component begin with.
    inbox: String,
}

/// Why a message was not sent, or no answer came. The component sees this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not connected, or not as whom we should be.
    #[error("no connection to NATS at the moment")]
    Down,
    /// Larger than the server takes.
    #[error("the message is larger than the server takes")]
    TooLarge,
    /// No message can have this subject.
    #[error("no message can have this subject")]
    Subject,
    /// The server has permissions of its own.
    #[error("the server denies it")]
    Denied,
    /// Nobody listens there.
    #[error("nobody answers requests to this subject")]
    NoResponders,
    /// Too late.
    #[error("no answer came in time")]
    TimedOut,
    /// Something else.
    #[error("the connection to NATS failed")]
    Failed,
}

impl Line {
    /// Over a connection that all share.
    pub fn shared(nats: Nats, settings: &Settings, who: &Loaded) -> Self {
        let inbox = format!("{}.{}", settings.inbox_prefix, private_token(&who.spiffe_id().to_string()));
        Self { nats, inbox }
    }

    /// A new inbox: one that nobody else may subscribe to here, and that nobody can guess.
    pub fn new_inbox(&self) -> String {
        format!("{}.{}", self.inbox, ulid::Ulid::generate())
    }

    /// Waits until it stands.
    pub async fn stands(&self) {
        while self.nats.verified(STANDS).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Publishes.
    pub async fn publish(&self, subject: &Subject, reply: Option<&Subject>, body: Bytes) -> Result<(), LineError> {
        self.check()?;
        let client = self.nats.client();
        let subject = subject.to_string();
        let sent = match reply {
            Some(reply) => client.publish_with_reply(subject, reply.to_string(), body).await,
            None => client.publish(subject, body).await,
        };
        sent.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => LineError::TooLarge,
            PublishErrorKind::InvalidSubject => LineError::Subject,
            _ => LineError::Failed,
        })
    }

    /// Publishes, and waits for one message to the inbox.
    pub async fn ask(&self, subject: &Subject, inbox: &str, body: Bytes, within: Duration) -> Result<Bytes, LineError> {
        self.check()?;
        let mut denied = self.nats.denied();
        let request = Request::new().payload(body).inbox(inbox.to_owned()).timeout(Some(within));
        let client = self.nats.client();
        let asked = client.send_request(subject.to_string(), request);
        // What the server denies gets no answer: without this it would look like a slow one.
        let refused = async {
            loop {
                match denied.recv().await {
                    Ok(Denied::Publish { subject: of }) if of == subject.as_str() => return,
                    Ok(Denied::Subscribe { subject: of, .. }) if of == inbox => return,
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let answer = tokio::select! {
            biased;
            answer = asked => answer,
            () = refused => return Err(LineError::Denied),
        };
        answer.map(|message| message.payload).map_err(|error| match error.kind() {
            RequestErrorKind::MaxPayloadExceeded => LineError::TooLarge,
            RequestErrorKind::InvalidSubject => LineError::Subject,
            RequestErrorKind::NoResponders => LineError::NoResponders,
            RequestErrorKind::TimedOut => LineError::TimedOut,
            _ => LineError::Failed,
        })
    }

    /// Subscribes in a queue group. Lives through reconnects.
    pub async fn subscribe(&self, pattern: &SubjectPattern, queue: &str) -> Result<Subscriber, NatsError> {
        self.nats.subscribe(pattern.as_str(), Some(queue)).await
    }

    /// Ends it.
    pub async fn close(&self) {
        self.nats.close().await;
    }

    fn check(&self) -> Result<(), LineError> {
        if matches!(*self.nats.state().borrow(), State::Verified { .. }) { Ok(()) } else { Err(LineError::Down) }
    }
}

impl Line {
    /// The connection of one component: what all of them have in common, but as itself.
    pub async fn of_component(who: &Arc<Loaded>, common: &Settings) -> Result<Self, NoLine> {
        let user = who.spiffe_id().to_string();
        let settings = Settings {
            name: format!("{} {}", common.name, who.name()),
            inbox_prefix: format!("_INBOX_{}", private_token(&user)),
            certificate: true,
            user: Some(user),
            ..common.clone()
        };
        let inbox = settings.inbox_prefix.clone();
        let opened = Nats::start(settings, ComponentSvid::new(who)).await;
        let nats = opened.map_err(|error| {
            tracing::error!(component = who.name(), %error, "a component gets no connection to NATS");
            NoLine::Down
        })?;
        tokio::spawn(report_denials(Arc::downgrade(who), nats.denied()));
        // The first use finds it standing, where that takes no longer than this.
        let _ = nats.verified(STANDS).await;
        Ok(Self { nats, inbox })
    }
}

/// What the server denied to a component's own connection: the host had granted it, so the two disagree, and an operator should look.
async fn report_denials(who: std::sync::Weak<Loaded>, mut denied: tokio::sync::broadcast::Receiver<Denied>) {
    loop {
        let denied = match denied.recv().await {
            Ok(denied) => denied,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        };
        let Some(who) = who.upgrade() else { return };
        let detail = match denied {
            Denied::Publish { subject } => format!("the server denies publishing to {subject}"),
            Denied::Subscribe { subject, .. } => format!("the server denies a subscription to {subject}"),
        };
        tracing::warn!(component = who.name(), detail);
        let what = What::Failure(Failure { kind: "nats-server".to_owned(), detail });
        who.shared().events.report(who.instance(), who.slice().generation(), "M0403", what);
        drop(who);
        tokio::time::sleep(REPORT).await;
    }
}

/// The X.509-SVID of a component.
struct ComponentSvid {
    who: std::sync::Weak<Loaded>,
    changes: watch::Sender<u64>,
}

impl ComponentSvid {
    /// Follows it until the component is over.
    fn new(who: &Arc<Loaded>) -> Arc<Self> {
        let this = Arc::new(Self { who: Arc::downgrade(who), changes: watch::Sender::new(0) });
        let changes = this.changes.clone();
        let weak = Arc::downgrade(who);
        tokio::spawn(async move {
            let mut last: Option<String> = None;
            while let Some(who) = weak.upgrade().filter(|who| !who.is_stopped()) {
                let held = who.shared().identity.held_svid(who.instance()).map(|svid| svid.key_id.clone());
                // Revoked, taken away by its source, or gone: the connection is opened anew, which fails.
                if last != held {
                    if last.is_some() {
                        changes.send_modify(|count| *count = count.wrapping_add(1));
                    }
                    last = held;
                }
                drop(who);
                tokio::time::sleep(LOOK).await;
            }
        });
        this
    }
}

#[async_trait]
impl Credentials for ComponentSvid {
    async fn for_connect(&self, _nonce: &[u8]) -> Result<ConnectSecrets, String> {
        Ok(ConnectSecrets::default())
    }

    async fn certificate(&self) -> Result<ClientCertificate, String> {
        let who = self.who.upgrade().filter(|who| !is_over(who)).ok_or("the component was stopped or revoked")?;
        let grant = who.slice().svid_x509(SVID_TTL_SECONDS).map_err(|denial| {
            format!("policy gives it no X.509-SVID ({}); hint: add identity = [\"x509\"] to its grants", denial.code())
        })?;
        who.note(&grant, || What::Identity(crate::rpc::runtime::IdentityUse { action: "svid.x509".to_owned() }));
        let svid = who.shared().identity.svid(who.instance()).await.map_err(|error| error.to_string())?;
        let signer = Arc::new(RemoteSigner::new(who.instance(), who.shared(), &who.shared().signer));
        Ok(ClientCertificate {
            chain: svid.chain.clone(),
            key_id: svid.key_id.clone(),
            scheme: ECDSA_P256_SHA256,
            signer,
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn problem(&self) -> Option<String> {
        None
    }
}

impl fmt::Debug for ComponentSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ComponentSvid")
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

/// How long a first use waits for a connection.
const STANDS: Duration = Duration::from_secs(5);
/// Pause between two looks at whether it stands.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is looked whether there is a new SVID.
const LOOK: Duration = Duration::from_secs(1);
/// Least time between two reports of what a server denied.
const REPORT: Duration = Duration::from_secs(1);
/// Lifetime that is asked of policy for X.509-SVIDs.
const SVID_TTL_SECONDS: u64 = 3600;
/// The signature scheme of X.509-SVIDs made here (RFC 8446 section 4.2.3).
const ECDSA_P256_SHA256: u16 = 0x0403;
