//! The runtime's side of the identity process, and the identity interfaces that guests see.
//!
//! The identity process decides and audits every issuance; this side can only ask, for an instance that runs here. What
//! is kept is public or short-lived: certificate chains, the trust bundle. Tokens are not kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use portcullis_identity::mtls::Svid;
use portcullis_identity::rpc::workloads_client::WorkloadsClient;
use portcullis_identity::rpc::{
    Denied, Failed, FetchX509SvidRequest, MintJwtSvidRequest, ValidateJwtSvidRequest, WatchBundleRequest,
    fetch_x509_svid_reply, mint_jwt_svid_reply, validate_jwt_svid_reply,
};
use portcullis_identity::{SpiffeId, TrustBundle, TrustDomain};
use portcullis_policies::{Denial, IdentityAction};
use time::OffsetDateTime;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::component::Loaded;
use super::context::Ctx;
use super::wit::portcullis::portcullis::identity as wit;
use super::wit::wasmcloud::wasmcloud::identity::store;
use crate::limits::RPC_TIMEOUT;
use crate::rpc::runtime::{IdentityUse, event::What};

/// The way to the identity process. It changes when that process is started again.
#[derive(Debug)]
pub struct IdentityClient {
    trust_domain: TrustDomain,
    channel: ArcSwapOption<Channel>,
    bundle: ArcSwapOption<Bundle>,
    svids: Mutex<HashMap<String, Held>>,
    connections: watch::Sender<u64>,
}

#[derive(Debug, Clone)]
struct Held {
    svid: Arc<Svid>,
    renew_at: OffsetDateTime,
}

/// The trust bundle of the own trust domain.
#[derive(Debug)]
pub struct Bundle {
    /// The SPIFFE bundle document.
    pub json: String,
    /// Its X.509 authorities, for TLS.
    pub trust: Arc<TrustBundle>,
}

/// Why the identity process gave nothing.
#[derive(Debug, Clone)]
pub enum IdentityError {
    /// Policy said no; it is in the audit log under the reference.
    Denied {
        /// Stable code.
        code: String,
        /// Reference of the audit record.
        reference: String,
    },
    /// The call could not be served.
    Failed {
        /// Stable word.
        kind: String,
        /// For the operator.
        message: String,
    },
    /// The process did not answer.
    Unavailable(String),
}

impl IdentityClient {
    /// A client that is not connected yet.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            channel: ArcSwapOption::empty(),
            bundle: ArcSwapOption::empty(),
            svids: Mutex::new(HashMap::new()),
            connections: watch::Sender::new(0),
        }
    }

    /// Uses a new connection from now on; what the old process issued is forgotten.
    pub fn connect(&self, channel: Channel) -> u64 {
        if let Ok(mut svids) = self.svids.lock() {
            svids.clear();
        }
        self.channel.store(Some(Arc::new(channel)));
        self.connections.send_modify(|number| *number += 1);
        *self.connections.borrow()
    }

    /// Whether a connection, by the number that `connect` gave, is the one in use.
    pub fn is_current(&self, connection: u64) -> bool {
        *self.connections.borrow() == connection
    }

    /// Waits for the next connection.
    pub async fn connected_anew(&self) {
        let mut connections = self.connections.subscribe();
        if connections.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Follows the trust bundle over the present connection until that ends.
    pub async fn follow_bundle(&self) -> Result<(), IdentityError> {
        let mut updates = self.client()?.watch_bundle(WatchBundleRequest {}).await.map_err(unavailable)?.into_inner();
        while let Some(update) = updates.message().await.map_err(unavailable)? {
            match TrustBundle::from_json(&self.trust_domain, update.bundle_json.as_bytes()) {
                Ok(trust) => {
                    self.bundle.store(Some(Arc::new(Bundle { json: update.bundle_json, trust: Arc::new(trust) })));
                }
                Err(error) => {
                    tracing::error!(%error, "the identity process sent a trust bundle that cannot be used; the old one stays")
                }
            }
        }
        Ok(())
    }

    /// The trust bundle, where one came yet.
    pub fn bundle(&self) -> Option<Arc<Bundle>> {
        self.bundle.load_full()
    }

    /// The X.509-SVID of an instance, public part. Renewed at half its life.
    pub async fn svid(&self, instance: &str) -> Result<Arc<Svid>, IdentityError> {
        let now = crate::clock::now();
        if let Some(held) = self.held(instance).filter(|held| now < held.renew_at) {
            return Ok(held.svid);
        }
        let request = FetchX509SvidRequest { instance: instance.to_owned() };
        let reply = self.client()?.fetch_x509_svid(timed(request)).await.map_err(unavailable)?.into_inner();
        let issued = match reply.result {
            Some(fetch_x509_svid_reply::Result::Ok(issued)) => issued,
            Some(fetch_x509_svid_reply::Result::Denied(denied)) => return Err(denied.into()),
            Some(fetch_x509_svid_reply::Result::Failed(failed)) => return Err(failed.into()),
            None => return Err(IdentityError::Unavailable("an empty reply".to_owned())),
        };
        let not_after = OffsetDateTime::from_unix_timestamp(issued.not_after)
            .map_err(|_| IdentityError::Unavailable("a time out of range".to_owned()))?;
        let spiffe_id: SpiffeId =
            issued.spiffe_id.parse().map_err(|_| IdentityError::Unavailable("a malformed SPIFFE ID".to_owned()))?;
        let svid = Arc::new(Svid { spiffe_id, chain: issued.chain, key_id: issued.key_id, not_after });
        let renew_at = now + (not_after - now) / 2;
        if let Ok(mut svids) = self.svids.lock() {
            svids.insert(instance.to_owned(), Held { svid: Arc::clone(&svid), renew_at });
        }
        Ok(svid)
    }

    /// The X.509-SVID of an instance if one is held and still valid; asks nobody.
    pub fn held_svid(&self, instance: &str) -> Option<Arc<Svid>> {
        let now = crate::clock::now();
        self.held(instance).map(|held| held.svid).filter(|svid| now < svid.not_after)
    }

    /// Forgets the SVID of an instance that stopped.
    pub fn forget(&self, instance: &str) {
        if let Ok(mut svids) = self.svids.lock() {
            svids.remove(instance);
        }
    }

    async fn jwt(&self, instance: &str, audiences: Vec<String>) -> Result<wit::jwt::Svid, IdentityError> {
        let request = MintJwtSvidRequest { instance: instance.to_owned(), audiences, ttl_seconds: None };
        let reply = self.client()?.mint_jwt_svid(timed(request)).await.map_err(unavailable)?.into_inner();
        match reply.result {
            Some(mint_jwt_svid_reply::Result::Ok(svid)) => Ok(wit::jwt::Svid {
                token: svid.token,
                spiffe_id: svid.spiffe_id,
                expires_at: u64::try_from(svid.expires_at).unwrap_or_default(),
            }),
            Some(mint_jwt_svid_reply::Result::Denied(denied)) => Err(denied.into()),
            Some(mint_jwt_svid_reply::Result::Failed(failed)) => Err(failed.into()),
            None => Err(IdentityError::Unavailable("an empty reply".to_owned())),
        }
    }

    async fn validate(
        &self,
        instance: &str,
        token: String,
        audience: String,
    ) -> Result<wit::jwt::Claims, IdentityError> {
        let request = ValidateJwtSvidRequest { instance: instance.to_owned(), token, audience };
        let reply = self.client()?.validate_jwt_svid(timed(request)).await.map_err(unavailable)?.into_inner();
        match reply.result {
            Some(validate_jwt_svid_reply::Result::Ok(claims)) => Ok(wit::jwt::Claims {
                spiffe_id: claims.spiffe_id,
                audiences: claims.audiences,
                expires_at: u64::try_from(claims.expires_at).unwrap_or_default(),
            }),
            Some(validate_jwt_svid_reply::Result::Denied(denied)) => Err(denied.into()),
            Some(validate_jwt_svid_reply::Result::Failed(failed)) => Err(failed.into()),
            None => Err(IdentityError::Unavailable("an empty reply".to_owned())),
        }
    }

    fn held(&self, instance: &str) -> Option<Held> {
        self.svids.lock().ok().and_then(|svids| svids.get(instance).cloned())
    }

    /// A client over the present connection.
    pub fn client(&self) -> Result<WorkloadsClient<Channel>, IdentityError> {
        match self.channel.load_full() {
            Some(channel) => Ok(WorkloadsClient::new(channel.as_ref().clone())),
            None => Err(IdentityError::Unavailable("not connected to the identity process".to_owned())),
        }
    }
}

impl wit::types::Host for Ctx {}

impl wit::workload::Host for Ctx {
    async fn spiffe_id(&mut self) -> Result<String, wit::types::Error> {
        allowed(self.who(), IdentityAction::Read)?;
        Ok(self.who().spiffe_id().to_string())
    }
}

impl wit::jwt::Host for Ctx {
    async fn fetch(&mut self, audiences: Vec<String>) -> Result<wit::jwt::Svid, wit::types::Error> {
        if audiences.is_empty() || audiences.len() > AUDIENCES {
            return Err(wit::types::Error::InvalidArgument(format!("audiences: 1 to {AUDIENCES} are taken")));
        }
        if audiences.iter().any(|audience| audience.is_empty() || audience.len() > AUDIENCE_BYTES) {
            return Err(wit::types::Error::InvalidArgument(format!("audiences: each has 1 to {AUDIENCE_BYTES} bytes")));
        }
        let who = Arc::clone(self.who());
        running(&who)?;
        Ok(who.shared().identity.jwt(who.instance(), audiences).await?)
    }

    async fn validate(&mut self, token: String, audience: String) -> Result<wit::jwt::Claims, wit::types::Error> {
        if token.len() > TOKEN_BYTES {
            return Err(wit::types::Error::InvalidArgument(format!("token: at most {TOKEN_BYTES} bytes are taken")));
        }
        if audience.is_empty() || audience.len() > AUDIENCE_BYTES {
            return Err(wit::types::Error::InvalidArgument(format!("audience: has 1 to {AUDIENCE_BYTES} bytes")));
        }
        let who = Arc::clone(self.who());
        running(&who)?;
        Ok(who.shared().identity.validate(who.instance(), token, audience).await?)
    }
}

impl wit::x509::Host for Ctx {
    async fn fetch_chain(&mut self) -> Result<wit::x509::Chain, wit::types::Error> {
        allowed(self.who(), IdentityAction::X509Chain)?;
        let who = Arc::clone(self.who());
        let svid = who.shared().identity.svid(who.instance()).await?;
        Ok(wit::x509::Chain {
            spiffe_id: svid.spiffe_id.to_string(),
            certificates: svid.chain.clone(),
            expires_at: crate::clock::unix_seconds(svid.not_after),
        })
    }
}

impl wit::bundle::Host for Ctx {
    async fn fetch(&mut self) -> Result<String, wit::types::Error> {
        allowed(self.who(), IdentityAction::Read)?;
        match self.who().shared().identity.bundle() {
            Some(bundle) => Ok(bundle.json.clone()),
            None => Err(wit::types::Error::Unavailable("no trust bundle yet".to_owned())),
        }
    }
}

impl wit::peer::Host for Ctx {
    async fn caller(&mut self) -> Option<String> {
        Ctx::caller(self).map(ToString::to_string)
    }
}

impl store::Host for Ctx {
    async fn get(&mut self, audience: String) -> Result<Option<String>, store::Error> {
        if audience.is_empty() || audience.len() > AUDIENCE_BYTES {
            return Err(store::Error::Other(format!("audience: has 1 to {AUDIENCE_BYTES} bytes")));
        }
        let who = Arc::clone(self.who());
        if who.is_stopped() {
            return Err(store::Error::NotFound);
        }
        match who.shared().identity.jwt(who.instance(), vec![audience]).await {
            Ok(svid) => Ok(Some(svid.token)),
            Err(IdentityError::Denied { code, reference }) => {
                Err(store::Error::Other(format!("denied {code}, reference {reference}")))
            }
            Err(IdentityError::Failed { kind, .. }) if kind == "unknown-instance" => Err(store::Error::NotFound),
            Err(IdentityError::Failed { message, .. }) => Err(store::Error::Other(message)),
            Err(IdentityError::Unavailable(why)) => Err(store::Error::Io(why)),
        }
    }
}

/// Decides an action that needs nobody else, and reports a refusal.
fn allowed(who: &Arc<Loaded>, action: IdentityAction) -> Result<(), wit::types::Error> {
    running(who)?;
    let in_force = who.in_force();
    match in_force.identity(action) {
        Some(Ok(_grant)) => Ok(()),
        Some(Err(denial)) => Err(refuse(who, action, denial)),
        None => Err(wit::types::Error::Unavailable("policy has no answer".to_owned())),
    }
}

fn refuse(who: &Arc<Loaded>, action: IdentityAction, denial: &Denial) -> wit::types::Error {
    let what = What::Identity(IdentityUse { action: action.name().to_owned() });
    let code = denial.code().to_string();
    let reference = who.shared().events.report(who.instance(), who.slice().generation(), &code, what);
    wit::types::Error::Denied(wit::types::Refusal { code, reference })
}

fn running(who: &Arc<Loaded>) -> Result<(), wit::types::Error> {
    if who.is_stopped() { Err(wit::types::Error::Unavailable("this instance was stopped".to_owned())) } else { Ok(()) }
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(RPC_TIMEOUT.max(Duration::from_secs(1)));
    request
}

fn unavailable(status: tonic::Status) -> IdentityError {
    IdentityError::Unavailable(status.message().to_owned())
}

impl From<Denied> for IdentityError {
    fn from(denied: Denied) -> Self {
        IdentityError::Denied { code: denied.code, reference: denied.reference }
    }
}

impl From<Failed> for IdentityError {
    fn from(failed: Failed) -> Self {
        IdentityError::Failed { kind: failed.kind, message: failed.message }
    }
}

impl From<IdentityError> for wit::types::Error {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Denied { code, reference } => {
                wit::types::Error::Denied(wit::types::Refusal { code, reference })
            }
            IdentityError::Failed { kind, message } => match kind.as_str() {
                "invalid-token" => wit::types::Error::InvalidToken(message),
                "invalid-argument" => wit::types::Error::InvalidArgument(message),
                _ => wit::types::Error::Unavailable(message),
            },
            IdentityError::Unavailable(why) => wit::types::Error::Unavailable(why),
        }
    }
}

/// Audiences of one JWT-SVID.
const AUDIENCES: usize = 8;
/// Bytes of one audience.
const AUDIENCE_BYTES: usize = 255;
/// Bytes of a token to validate.
const TOKEN_BYTES: usize = 8 << 10;
