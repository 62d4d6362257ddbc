//! The runtime's side of the identity process.
//!
//! The identity process decides and audits every issuance; this side can only ask, for an instance that runs here. What
//! is kept is public or short-lived: certificate chains, trust bundles, tokens until half their life. All of it is given up
//! at once when the identity process says so: see [`trust`] and [`tokens`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use portcullis_identity::mtls::{Peer, Svid};
use portcullis_identity::rpc::workloads_client::WorkloadsClient;
use portcullis_identity::rpc::{
    BundleUpdate, ExportX509Request, ExportedX509, FetchX509SvidRequest, MintJwtSvidRequest, SignDataRequest,
    SignedData, ValidJwtSvid, ValidateJwtSvidRequest, WatchBundleRequest, export_x509_reply, fetch_x509_svid_reply,
    mint_jwt_svid_reply, sign_data_reply, validate_jwt_svid_reply,
};
use portcullis_identity::{BundleSet, SpiffeId, TrustDomain};
use time::OffsetDateTime;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::limits::{BUNDLE_UPDATE_BYTES, RPC_TIMEOUT};

mod error;
pub mod following;
pub mod interfaces;
pub mod tokens;
pub mod trust;

pub use self::error::IdentityError;
use self::tokens::{Token, Tokens};
use self::trust::{Trust, Unfit};

/// The way to the identity process. It changes when that process is started again.
#[derive(Debug)]
pub struct IdentityClient {
    trust_domain: TrustDomain,
    channel: ArcSwapOption<Channel>,
    trust: ArcSwapOption<Trust>,
    svids: Mutex<HashMap<String, Held>>,
    tokens: Tokens,
    connection: AtomicU64,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Clone)]
struct Held {
    svid: Arc<Svid>,
    renew_at: OffsetDateTime,
    epoch: u64,
}

/// What became of an SVID whose epoch was over.
#[derive(Debug)]
enum Renewed {
    /// It is there, the same or another one.
    Held,
    /// It is not given any more.
    Refused(IdentityError),
    /// Nobody said.
    Unknown,
}

impl IdentityClient {
    /// A client that is not connected yet.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            channel: ArcSwapOption::empty(),
            trust: ArcSwapOption::empty(),
            svids: Mutex::new(HashMap::new()),
            tokens: Tokens::default(),
            connection: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        }
    }

    /// Uses a new connection from now on; what the old process issued is forgotten.
    pub fn connect(&self, channel: Channel) -> u64 {
        if let Ok(mut svids) = self.svids.lock() {
            svids.clear();
        }
        self.tokens.clear();
        self.channel.store(Some(Arc::new(channel)));
        let connection = self.connection.fetch_add(1, Ordering::AcqRel) + 1;
        self.changes.send_modify(|number| *number += 1);
        connection
    }

    /// Whether a connection, by the number that `connect` gave, is the one in use.
    pub fn is_current(&self, connection: u64) -> bool {
        self.connection.load(Ordering::Acquire) == connection
    }

    /// Sees each new connection and each change of whom is trusted.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Trusts as an update says from now on. What is held and does not fit that is given up. Computes, and does not wait.
    fn take(&self, update: BundleUpdate) -> Result<Arc<Trust>, String> {
        let trust = Arc::new(Trust::parse(&self.trust_domain, update)?);
        self.trust.store(Some(Arc::clone(&trust)));
        self.tokens.clear();
        let held: Vec<(String, Held)> = self
            .svids
            .lock()
            .map(|svids| svids.iter().map(|(instance, held)| (instance.clone(), held.clone())).collect())
            .unwrap_or_default();
        let now = crate::clock::now();
        for (instance, held) in held {
            if trust.check_own(&instance, &held.svid, now).is_err()
                && let Ok(mut svids) = self.svids.lock()
                && svids.get(&instance).is_some_and(|own| Arc::ptr_eq(&own.svid, &held.svid))
            {
                svids.remove(&instance);
            }
        }
        self.changes.send_modify(|number| *number += 1);
        Ok(trust)
    }

    /// Trusts nobody until the identity process says whom: what it said last cannot be read, and may take somebody's trust away.
    fn distrust(&self) {
        self.trust.store(None);
        self.tokens.clear();
        if let Ok(mut svids) = self.svids.lock() {
            svids.clear();
        }
        self.changes.send_modify(|number| *number += 1);
    }

    /// Whom this process trusts now, where the identity process said it yet.
    pub fn trust(&self) -> Option<Arc<Trust>> {
        self.trust.load_full()
    }

    /// The bundles, own and federated, where they came yet.
    pub fn bundles(&self) -> Option<Arc<BundleSet>> {
        self.trust.load().as_ref().map(|trust| Arc::clone(trust.bundles()))
    }

    /// Whether a connection may begin whose handshake was checked under `seen`, which may have been replaced meanwhile.
    pub fn may_begin(&self, seen: Option<&Arc<Trust>>, instance: &str, peer: &Peer) -> Result<(), Unfit> {
        let Some(trust) = self.trust() else { return Err(Unfit::Peer("no trust bundle yet".to_owned())) };
        if trust.is_revoked(instance, &peer.presented().spiffe_id) {
            return Err(Unfit::OwnRevoked);
        }
        if trust.is_revoked_id(peer.spiffe_id()) {
            return Err(Unfit::PeerRevoked);
        }
        if seen.is_some_and(|seen| Arc::ptr_eq(seen, &trust)) {
            return Ok(());
        }
        let now = crate::clock::now();
        trust.check_own(instance, peer.presented(), now).and_then(|()| trust.check_peer(peer, now))
    }

    /// The X.509-SVID of an instance, public part. Renewed at half its life, and when its epoch is over.
    pub async fn svid(&self, instance: &str) -> Result<Arc<Svid>, IdentityError> {
        let now = crate::clock::now();
        let epoch = self.epoch();
        if let Some(held) = self.held(instance).filter(|held| now < held.renew_at && held.epoch >= epoch) {
            return Ok(held.svid);
        }
        let request = FetchX509SvidRequest { instance: instance.to_owned() };
        let reply = self.client()?.fetch_x509_svid(timed(request)).await.map_err(unavailable)?.into_inner();
        let issued = match reply.result {
            Some(fetch_x509_svid_reply::Result::Ok(issued)) => issued,
            Some(fetch_x509_svid_reply::Result::Denied(denied)) => return Err(denied.into()),
            Some(fetch_x509_svid_reply::Result::Failed(failed)) => return Err(failed.into()),
            None => return Err(empty()),
        };
        let not_after = OffsetDateTime::from_unix_timestamp(issued.not_after)
            .map_err(|_| IdentityError::Unavailable("a time out of range".to_owned()))?;
        let spiffe_id: SpiffeId =
            issued.spiffe_id.parse().map_err(|_| IdentityError::Unavailable("a malformed SPIFFE ID".to_owned()))?;
        let svid = Arc::new(Svid { spiffe_id, chain: issued.chain, key_id: issued.key_id, not_after });
        let renew_at = now + (not_after - now) / 2;
        if let Ok(mut svids) = self.svids.lock() {
            svids.insert(instance.to_owned(), Held { svid: Arc::clone(&svid), renew_at, epoch: issued.svid_epoch });
        }
        Ok(svid)
    }

    /// The X.509-SVID of an instance if one is held that may still be shown; asks nobody.
    pub fn held_svid(&self, instance: &str) -> Option<Arc<Svid>> {
        let now = crate::clock::now();
        let svid = self.held(instance).map(|held| held.svid).filter(|svid| now < svid.not_after)?;
        let trust = self.trust.load();
        let revoked = trust.as_ref().is_none_or(|trust| trust.is_revoked(instance, &svid.spiffe_id));
        (!revoked).then_some(svid)
    }

    /// The instances whose X.509-SVID is of an epoch that is over.
    fn overdue(&self) -> Vec<String> {
        let epoch = self.epoch();
        let of = |svids: std::sync::MutexGuard<'_, HashMap<String, Held>>| {
            svids.iter().filter(|(_, held)| held.epoch < epoch).map(|(instance, _)| instance.clone()).collect()
        };
        self.svids.lock().map(of).unwrap_or_default()
    }

    /// Asks anew for an SVID whose epoch is over. One that is refused now is not held any more.
    async fn renewed(&self, instance: &str) -> Renewed {
        let before = self.held(instance);
        let refused = match self.svid(instance).await {
            Ok(_) => return Renewed::Held,
            Err(error) if error.is_refusal() => error,
            Err(_) => return Renewed::Unknown,
        };
        if let Ok(mut svids) = self.svids.lock()
            && svids.get(instance).zip(before).is_some_and(|(now, before)| Arc::ptr_eq(&now.svid, &before.svid))
        {
            svids.remove(instance);
        }
        Renewed::Refused(refused)
    }

    /// Forgets what is held for an instance that stopped.
    pub fn forget(&self, instance: &str) {
        if let Ok(mut svids) = self.svids.lock() {
            svids.remove(instance);
        }
        self.tokens.forget(instance);
    }

    /// A JWT-SVID of an instance: one that is held for these audiences, under this generation of policy, or a new one.
    /// `keep`: what is held is given, and what is issued is held.
    pub async fn jwt(
        &self,
        instance: &str,
        generation: u64,
        audiences: Vec<String>,
        keep: bool,
    ) -> Result<Token, IdentityError> {
        let key = tokens::key(&audiences);
        let now = crate::clock::now();
        // Kept in the moment of a revocation, it is not given all the same.
        let stands = |token: &Token| {
            let trust = self.trust.load();
            trust.as_ref().is_some_and(|trust| !trust.is_revoked_subject(instance, &token.spiffe_id))
        };
        let kept = || self.tokens.get(instance, &key, generation, self.epoch(), now).filter(stands);
        if keep && let Some(token) = kept() {
            return Ok(token);
        }
        let (seen, connection) = (self.trust(), self.connection.load(Ordering::Acquire));
        let request = MintJwtSvidRequest { instance: instance.to_owned(), audiences, ttl_seconds: None };
        let reply = self.client()?.mint_jwt_svid(timed(request)).await.map_err(unavailable)?.into_inner();
        let svid = match reply.result {
            Some(mint_jwt_svid_reply::Result::Ok(svid)) => svid,
            Some(mint_jwt_svid_reply::Result::Denied(denied)) => return Err(denied.into()),
            Some(mint_jwt_svid_reply::Result::Failed(failed)) => return Err(failed.into()),
            None => return Err(empty()),
        };
        let token = Token {
            token: svid.token,
            spiffe_id: svid.spiffe_id,
            expires_at: svid.expires_at,
            generation: svid.policy_generation,
            epoch: svid.svid_epoch,
        };
        // What was trusted may have changed while the answer was on its way: then it is given once and not kept.
        let same = seen.zip(self.trust()).is_some_and(|(seen, now)| Arc::ptr_eq(&seen, &now));
        if keep && same && self.is_current(connection) {
            self.tokens.put(instance, key, token.clone(), now);
        }
        Ok(token)
    }

    /// Has a token checked that an instance received.
    pub async fn validate(
        &self,
        instance: &str,
        token: String,
        audience: String,
    ) -> Result<ValidJwtSvid, IdentityError> {
        let request = ValidateJwtSvidRequest { instance: instance.to_owned(), token, audience };
        let reply = self.client()?.validate_jwt_svid(timed(request)).await.map_err(unavailable)?.into_inner();
        match reply.result {
            Some(validate_jwt_svid_reply::Result::Ok(claims)) => Ok(claims),
            Some(validate_jwt_svid_reply::Result::Denied(denied)) => Err(denied.into()),
            Some(validate_jwt_svid_reply::Result::Failed(failed)) => Err(failed.into()),
            None => Err(empty()),
        }
    }

    /// Has data signed with the key of an instance's X.509-SVID.
    pub async fn sign(&self, instance: &str, purpose: String, data: Vec<u8>) -> Result<SignedData, IdentityError> {
        let request = SignDataRequest { instance: instance.to_owned(), purpose, data };
        let reply = self.client()?.sign_data(timed(request)).await.map_err(unavailable)?.into_inner();
        match reply.result {
            Some(sign_data_reply::Result::Ok(signed)) => Ok(signed),
            Some(sign_data_reply::Result::Denied(denied)) => Err(denied.into()),
            Some(sign_data_reply::Result::Failed(failed)) => Err(failed.into()),
            None => Err(empty()),
        }
    }

    /// An X.509-SVID with its private key, on its way to the guest; nothing of it is kept.
    pub async fn export(&self, instance: &str) -> Result<ExportedX509, IdentityError> {
        let request = ExportX509Request { instance: instance.to_owned() };
        let reply = self.client()?.export_x509(timed(request)).await.map_err(unavailable)?.into_inner();
        match reply.result {
            Some(export_x509_reply::Result::Ok(exported)) => Ok(exported),
            Some(export_x509_reply::Result::Denied(denied)) => Err(denied.into()),
            Some(export_x509_reply::Result::Failed(failed)) => Err(failed.into()),
            None => Err(empty()),
        }
    }

    /// What the identity process says about whom to trust, from the state of now on.
    pub async fn updates(&self) -> Result<tonic::Streaming<BundleUpdate>, IdentityError> {
        let mut client = self.client()?.max_decoding_message_size(BUNDLE_UPDATE_BYTES);
        Ok(client.watch_bundle(WatchBundleRequest {}).await.map_err(unavailable)?.into_inner())
    }

    /// The present connection.
    pub fn channel(&self) -> Option<Channel> {
        self.channel.load_full().map(|channel| channel.as_ref().clone())
    }

    /// A client over the present connection.
    pub fn client(&self) -> Result<WorkloadsClient<Channel>, IdentityError> {
        match self.channel.load_full() {
            Some(channel) => Ok(WorkloadsClient::new(channel.as_ref().clone())),
            None => Err(IdentityError::Unavailable("not connected to the identity process".to_owned())),
        }
    }

    fn epoch(&self) -> u64 {
        self.trust.load().as_ref().map_or(0, |trust| trust.epoch())
    }

    fn held(&self, instance: &str) -> Option<Held> {
        self.svids.lock().ok().and_then(|svids| svids.get(instance).cloned())
    }
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(RPC_TIMEOUT.max(Duration::from_secs(1)));
    request
}

fn unavailable(status: tonic::Status) -> IdentityError {
    IdentityError::Unavailable(status.message().to_owned())
}

fn empty() -> IdentityError {
    IdentityError::Unavailable("an empty reply".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(revoked: &[&str]) -> portcullis_identity::rpc::BundleUpdate {
        portcullis_identity::rpc::BundleUpdate {
            bundle_json: r#"{"keys": []}"#.to_owned(),
            revoked: revoked.iter().map(|id| (*id).to_owned()).collect(),
            ..Default::default()
        }
    }

    /// A client without a connection: whatever it gives was kept.
    fn with_a_kept_token() -> IdentityClient {
        let client = IdentityClient::new("example.org".parse().unwrap());
        client.take(update(&[])).unwrap();
        keep(&client);
        client
    }

    fn keep(client: &IdentityClient) {
        let now = crate::clock::now();
        let token = Token {
            token: "a.b.c".to_owned(),
            spiffe_id: "spiffe://example.org/a".to_owned(),
            expires_at: now.unix_timestamp() + 300,
            generation: 1,
            epoch: 0,
        };
        client.tokens.put("one", tokens::key(&["vault".to_owned()]), token, now);
    }

    async fn given(client: &IdentityClient) -> bool {
        client.jwt("one", 1, vec!["vault".to_owned()], true).await.is_ok()
    }

    #[tokio::test]
    async fn a_token_that_was_kept_in_the_moment_of_a_revocation_is_not_given() {
        let client = with_a_kept_token();
        assert!(given(&client).await);
        client.take(update(&["spiffe://example.org/a"])).unwrap();
        keep(&client);
        assert!(!given(&client).await);
        client.take(update(&["spiffe://example.org/b"])).unwrap();
        keep(&client);
        assert!(given(&client).await, "somebody else's revocation is not ours");
    }

    #[tokio::test]
    async fn nobody_is_trusted_and_nothing_kept_is_given_while_it_is_not_known_whom_to_trust() {
        let client = with_a_kept_token();
        client.distrust();
        assert!(client.trust().is_none() && client.bundles().is_none());
        keep(&client);
        assert!(!given(&client).await);
        client.take(update(&[])).unwrap();
        keep(&client);
        assert!(given(&client).await);
    }
}
