//! Who the host is and whom it trusts: the supervisor's side of what the identity process does for the host itself.
//!
//! Follows the host's X.509-SVID and the bundles for as long as somebody needs them. While the identity process is down, nobody
//! is trusted and nothing is signed.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use portcullis_identity::mtls::{HandshakeSigner, ServedIdentity, Svid};
use portcullis_identity::rpc::own::{
    OwnUpdate, SignHandshakeRequest, SignStatementRequest, WatchRequest, sign_handshake_reply, sign_statement_reply,
};
use portcullis_identity::statement::Jti;
use portcullis_identity::{BundleSet, SpiffeId, TrustBundle, TrustDomain};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::Host;
use super::identity::IdentityError;
use crate::clock;
use crate::limits::SIGN_TIMEOUT;

/// What is known now; follows the identity process once [`follow`] runs.
#[derive(Debug)]
pub struct Own {
    state: watch::Sender<Arc<State>>,
}

/// One state.
#[derive(Debug, Default)]
pub struct State {
    svid: Option<Arc<Svid>>,
    bundles: Option<BundleSet>,
    revoked: HashSet<SpiffeId>,
}

/// What a statement of the host is to say.
#[derive(Debug, Clone)]
pub struct ToSign<'a> {
    /// For whom.
    pub audience: &'a str,
    /// The method, subject or key that it is for.
    pub place: &'a str,
    /// How long it holds.
    pub life: Duration,
    /// The request that it answers.
    pub answers: Option<Jti>,
    /// The version of what it is about.
    pub version: Option<u64>,
}

/// Signs handshakes with the key of the host's SVID, in the identity process.
struct RemoteSigner(Weak<Host>);

impl Default for Own {
    fn default() -> Self {
        Self { state: watch::Sender::new(Arc::default()) }
    }
}

impl Own {
    /// What is known now.
    pub fn now(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// Follows it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }
}

impl State {
    /// Whether there is an X.509-SVID to show now.
    pub fn is_shown(&self, now: time::OffsetDateTime) -> bool {
        self.svid.as_ref().is_some_and(|svid| svid.not_after > now)
    }

    /// Whether the identity process has said whom the host trusts.
    pub fn is_known(&self) -> bool {
        self.bundles.is_some()
    }

    /// The host's SPIFFE ID; `None` while it has no SVID.
    pub fn spiffe_id(&self) -> Option<&SpiffeId> {
        self.svid.as_ref().map(|svid| &svid.spiffe_id)
    }

    /// The bundles of all trust domains that are trusted; none while that is not known.
    pub fn trust(&self) -> Arc<TrustBundle> {
        self.bundles.as_ref().map(|bundles| Arc::clone(bundles.trust())).unwrap_or_default()
    }

    /// Whether a SPIFFE ID is revoked.
    pub fn is_revoked(&self, id: &SpiffeId) -> bool {
        self.revoked.contains(id)
    }

    /// One that knows nothing but who is revoked.
    #[cfg(test)]
    pub fn of_revoked(ids: impl Iterator<Item = SpiffeId>) -> Self {
        Self { revoked: ids.collect(), ..Self::default() }
    }

    fn read(update: OwnUpdate) -> Result<Self, String> {
        let own: TrustDomain = update.trust_domain.parse().map_err(|_| "its trust domain")?;
        let foreign = update.foreign.iter().map(|one| (one.trust_domain.as_str(), one.bundle_json.as_bytes()));
        let bundles =
            BundleSet::parse(&own, update.bundle_json.as_bytes(), foreign).map_err(|error| error.to_string())?;
        let revoked = update.revoked.iter().map(|id| id.parse().map_err(|_| "a revoked ID".to_owned()));
        let svid = match update.spiffe_id.as_str() {
            "" => None,
            id => Some(Arc::new(Svid {
                spiffe_id: id.parse().map_err(|_| "its SPIFFE ID")?,
                chain: update.chain,
                key_id: update.key_id,
                not_after: OffsetDateTime::from_unix_timestamp(update.not_after).map_err(|_| "a time")?,
            })),
        };
        Ok(Self { svid, bundles: Some(bundles), revoked: revoked.collect::<Result<_, _>>()? })
    }
}

impl Host {
    /// Who the host is and whom it trusts.
    pub fn own(&self) -> Arc<State> {
        self.own.now()
    }

    /// What the host presents in a handshake now; `None` while it has nothing valid.
    pub fn served(self: &Arc<Self>) -> Option<ServedIdentity> {
        let svid = self.own().svid.clone().filter(|svid| svid.not_after > clock::now())?;
        Some(ServedIdentity { svid, signer: Arc::new(RemoteSigner(Arc::downgrade(self))) })
    }

    /// A signed statement of the host about a payload.
    pub async fn sign_statement(&self, what: &ToSign<'_>, payload: Vec<u8>) -> Result<String, IdentityError> {
        let request = SignStatementRequest {
            audience: what.audience.to_owned(),
            place: what.place.to_owned(),
            payload,
            life_seconds: what.life.as_secs(),
            answers: what.answers.map(|jti| jti.to_string()).unwrap_or_default(),
            version: what.version,
        };
        let signed = self.identity.own()?.sign_statement(request).await;
        match signed.map_err(|status| IdentityError::internal(status.message()))?.into_inner().result {
            Some(sign_statement_reply::Result::Statement(statement)) => Ok(statement),
            Some(sign_statement_reply::Result::Failed(why)) => Err(IdentityError::internal(why)),
            None => Err(IdentityError::internal("an empty reply")),
        }
    }

    async fn sign_handshake(&self, key_id: String, message: Vec<u8>) -> Result<Vec<u8>, String> {
        let mut client = self.identity.own().map_err(|error| error.to_string())?;
        let reply = client.sign_handshake(SignHandshakeRequest { key_id, message }).await;
        match reply.map_err(|status| status.message().to_owned())?.into_inner().result {
            Some(sign_handshake_reply::Result::Signature(signature)) => Ok(signature),
            Some(sign_handshake_reply::Result::Failed(why)) => Err(why),
            None => Err("an empty reply".to_owned()),
        }
    }
}

/// Follows the identity process until the host stops. Several callers: the first one follows.
pub async fn follow(host: Arc<Host>) {
    while !host.is_stopping() {
        if host.identity_process.wait().await.is_some()
            && let Err(why) = updates(&host).await
        {
            tracing::warn!(why, "it is not known any more who the host is and whom it trusts");
        }
        host.own.state.send_replace(Arc::default());
        tokio::time::sleep(RETRY).await;
    }
}

async fn updates(host: &Host) -> Result<(), String> {
    let mut client = host.identity.own().map_err(|error| error.to_string())?;
    let mut updates = client.watch(WatchRequest {}).await.map_err(|status| status.message().to_owned())?.into_inner();
    while let Some(update) = updates.message().await.map_err(|status| status.message().to_owned())? {
        host.own.state.send_replace(Arc::new(State::read(update)?));
    }
    Ok(())
}

impl HandshakeSigner for RemoteSigner {
    fn sign(&self, key_id: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let host = self.0.upgrade().ok_or("the host is gone")?;
        let (key_id, message) = (key_id.to_owned(), message.to_vec());
        let signing = async move {
            let signed = tokio::time::timeout(SIGN_TIMEOUT, host.sign_handshake(key_id, message)).await;
            signed.map_err(|_| "the identity process did not sign in time".to_owned())?
        };
        // rustls asks synchronously: another thread of the runtime carries the call meanwhile.
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(signing))
    }
}

impl std::fmt::Debug for RemoteSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RemoteSigner")
    }
}

/// Between two attempts.
const RETRY: Duration = Duration::from_millis(200);
