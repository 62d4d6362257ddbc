//! The host's own identity: `spiffe://TRUST-DOMAIN/portcullis/host`, for what the host itself serves with an X.509-SVID.
//!
//! It comes from this host's authority, or, where components have theirs from a site's SPIRE, from that one's Workload API, which
//! attests the supervisor. It belongs to nobody that was admitted: no component, no policy and no runtime can ask for it or have
//! its key sign anything, and no component may have an ID below `/portcullis/`. Each SVID is on disk in the audit log before it is
//! shown.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_identity::limits::MAX_AUTHORITY_LIFETIME;
use portcullis_identity::mtls::{HandshakeSigner, ServedIdentity, Svid};
use portcullis_identity::source::{IdentitySource, SourceError, Vouched};
use portcullis_identity::statement::Draft;
use portcullis_identity::{
    AdmitError, Audience, AudienceError, InstanceId, JwtSvid, Lifetimes, SpiffeId, TrustDomain, Workload,
};
use serde_json::json;

use super::keeper::Keeper;
use crate::clock;

/// The path of the host's own SPIFFE ID; in a cluster the host's name follows.
pub(super) const PATH: &str = "/portcullis/host";
/// Paths below this are the host's own.
pub(super) const RESERVED: &str = "/portcullis/";
/// The path of the ID that the runtime's connection to NATS has: not the host's, which the runtime may never use.
const RUNTIME_PATH: &str = "/portcullis/data";
/// What the issuer knows the host by. Instances that are admitted have a ULID in their name.
const INSTANCE: &str = "portcullis-host";
/// What it knows the runtime by.
const RUNTIME_INSTANCE: &str = "portcullis-data";

/// The host's X.509-SVID, always current.
pub(super) struct OwnIdentity {
    keeper: Arc<Keeper>,
    source: Arc<dyn IdentitySource>,
    instance: InstanceId,
    spiffe_id: SpiffeId,
    served: Mutex<Option<ServedIdentity>>,
}

/// Signs handshakes for the host itself.
struct OwnSigner {
    source: Arc<dyn IdentitySource>,
    instance: InstanceId,
}

impl OwnIdentity {
    /// Gives the host its identity and keeps it current for as long as the process runs.
    pub(super) fn start(keeper: &Arc<Keeper>) -> Result<Arc<Self>, String> {
        Self::start_as(keeper, INSTANCE, PATH)
    }

    /// The same for the runtime's connection to NATS, with an ID of its own.
    pub(super) fn start_for_runtime(keeper: &Arc<Keeper>) -> Result<Arc<Self>, String> {
        Self::start_as(keeper, RUNTIME_INSTANCE, RUNTIME_PATH)
    }

    fn start_as(keeper: &Arc<Keeper>, name: &str, path: &str) -> Result<Arc<Self>, String> {
        let instance: InstanceId = name.parse().map_err(|_| "the host's own instance id".to_owned())?;
        let source =
            keeper.own_source().ok_or("the identity source of this host has no Workload API for the host itself")?;
        let spiffe_id = id(keeper, source.trust_domain(), path)?;
        let (digest, component) = (String::new(), name.to_owned());
        let workload =
            Workload { instance: instance.clone(), spiffe_id: spiffe_id.clone(), digest, component, exportable: false };
        match source.admit(Vouched { workload, signer: String::new(), signer_group: String::new() }) {
            // Another part of this process began it.
            Ok(()) | Err(SourceError::Admit(AdmitError::AlreadyAdmitted(_))) => {}
            Err(error) => return Err(error.to_string()),
        }
        let own = Arc::new(Self { keeper: Arc::clone(keeper), source, instance, spiffe_id, served: Mutex::new(None) });
        tokio::spawn(Arc::clone(&own).keep());
        Ok(own)
    }

    /// Who the host is.
    pub(super) fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// What to present now; `None` while there is no SVID that is valid, and when the host's ID is revoked.
    pub(super) fn served(&self) -> Option<ServedIdentity> {
        if self.keeper.now_published().revoked.hold(self.instance.as_str(), &self.spiffe_id) {
            return None;
        }
        let served = self.served.lock().ok()?.clone()?;
        (served.svid.not_after > clock::now()).then_some(served)
    }

    /// Signs a statement of the host with the key of this SVID: its token.
    pub(super) fn sign_statement(&self, key_id: &str, draft: &Draft) -> Result<String, String> {
        self.source.sign_statement(&self.instance, key_id, draft).map_err(|error| error.to_string())
    }

    /// A JWT-SVID of the host for these audiences, on disk in the audit log before it leaves.
    pub(super) async fn jwt_svid(&self, audiences: &[&str]) -> Result<JwtSvid, String> {
        let audiences: Vec<Audience> = audiences
            .iter()
            .map(|audience| audience.parse().map_err(|error: AudienceError| error.to_string()))
            .collect::<Result<_, _>>()?;
        if self.keeper.now_published().revoked.hold(self.instance.as_str(), &self.spiffe_id) {
            return Err("the host's identity is revoked".to_owned());
        }
        let life = self.life(|lifetimes| lifetimes.jwt())?;
        let minted = self.source.jwt_svid(&self.instance, &audiences, life, clock::now()).await;
        let svid = minted.map_err(|error| told(&error))?.svid;
        let fields = json!({
            "svid": "jwt",
            "instance": self.instance.as_str(),
            "component": self.instance.as_str(),
            "spiffe_id": svid.spiffe_id().to_string(),
            "audiences": audiences.iter().map(Audience::as_str).collect::<Vec<_>>(),
            "jti": svid.jti(),
            "expires_at": svid.expires_at().unix_timestamp(),
        });
        self.keeper.append("issuance", &ulid::Ulid::generate().to_string(), &fields).await?;
        Ok(svid)
    }

    /// How long one of this host's own authority lives; what a site's SPIRE gives the host lives as long as the site says.
    fn life(&self, of: impl Fn(&Lifetimes) -> Duration) -> Result<Duration, String> {
        if !self.keeper.issues_itself() {
            return Ok(MAX_AUTHORITY_LIFETIME);
        }
        let issuer = self.keeper.issuer.lock().map_err(|_| "poisoned".to_owned())?;
        Ok(of(&issuer.lifetimes()))
    }

    /// Renews at half of each SVID's life and whenever those of before must not be used any more.
    async fn keep(self: Arc<Self>) {
        let mut published = self.keeper.published();
        let mut of_source = self.source.published();
        let mut pause = RETRY_MIN;
        loop {
            let epoch = published.borrow_and_update().svid_epoch;
            let source_epoch = of_source.borrow_and_update().svid_epoch;
            let wait = match self.renew().await {
                Ok(wait) => {
                    pause = RETRY_MIN;
                    wait
                }
                Err(why) => {
                    tracing::error!(why, "the host has no new X.509-SVID of its own");
                    pause = (pause * 2).min(RETRY_MAX);
                    pause
                }
            };
            let timer = tokio::time::sleep(wait);
            tokio::pin!(timer);
            loop {
                tokio::select! {
                    () = &mut timer => break,
                    changed = published.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        if published.borrow_and_update().svid_epoch != epoch {
                            break;
                        }
                    }
                    changed = of_source.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        if of_source.borrow_and_update().svid_epoch != source_epoch {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Has an SVID minted; returns when the next one is due.
    async fn renew(&self) -> Result<Duration, String> {
        let now = clock::now();
        let life = self.life(|lifetimes| lifetimes.x509())?;
        let svid = match self.source.x509_svid(&self.instance, life, now).await {
            Ok(minted) => minted.svid,
            Err(error) => {
                // An outage changes nothing until what is held ends; a refusal does, at once.
                if !matches!(error, SourceError::Unavailable(_) | SourceError::Issue(_))
                    && let Ok(mut served) = self.served.lock()
                {
                    *served = None;
                }
                return Err(told(&error));
            }
        };
        let shown = self.served.lock().map_err(|_| "poisoned".to_owned())?.as_ref().map(|one| one.svid.key_id.clone());
        let left = Duration::try_from(svid.not_after - now).unwrap_or_default();
        if shown.is_some_and(|key_id| key_id == svid.key_id) {
            return Ok((left / 2).max(RETRY_MIN));
        }
        let fields = json!({
            "svid": "x509",
            "instance": self.instance.as_str(),
            "component": self.instance.as_str(),
            "spiffe_id": svid.spiffe_id.to_string(),
            "serial": svid.serial,
            "expires_at": svid.not_after.unix_timestamp(),
        });
        self.keeper.append("issuance", &ulid::Ulid::generate().to_string(), &fields).await?;
        let signer = OwnSigner { source: Arc::clone(&self.source), instance: self.instance.clone() };
        let svid =
            Svid { spiffe_id: svid.spiffe_id, chain: svid.chain, key_id: svid.key_id, not_after: svid.not_after };
        let mut served = self.served.lock().map_err(|_| "poisoned".to_owned())?;
        *served = Some(ServedIdentity { svid: Arc::new(svid), signer: Arc::new(signer) });
        Ok((left / 2).max(RETRY_MIN))
    }
}

fn id(keeper: &Keeper, domain: &TrustDomain, path: &str) -> Result<SpiffeId, String> {
    let host = keeper.host_name.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
    format!("spiffe://{domain}{path}{host}").parse().map_err(|error| format!("the host's own ID: {error}"))
}

/// Whether the host itself is revoked. One that signs with an nkey may have no SVID that would be withheld from it.
pub(super) fn is_revoked(keeper: &Keeper) -> Result<bool, String> {
    let published = keeper.now_published();
    let id = id(keeper, published.bundles.trust_domain(), PATH)?;
    Ok(published.revoked.hold(INSTANCE, &id))
}

/// Why there is none, and what to do about it.
fn told(error: &SourceError) -> String {
    format!("{error}; hint: {}", error.hint())
}

impl HandshakeSigner for OwnSigner {
    fn sign(&self, key_id: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        self.source.sign_handshake(&self.instance, key_id, message).map_err(|error| error.to_string())
    }
}

impl std::fmt::Debug for OwnSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnSigner")
    }
}

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use portcullis_identity::rpc::{AdmitRequest, FetchX509SvidRequest, SignHandshakeRequest};

    use super::*;
    use crate::roles::identity::keeper::Stop;
    use crate::roles::identity::rig::Rig;

    async fn served(own: &OwnIdentity, other_than: &str) -> Option<ServedIdentity> {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if let Some(served) = own.served().filter(|served| served.svid.key_id != other_than) {
                return Some(served);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    fn kind<T>(result: Result<T, Stop>) -> String {
        match result {
            Err(Stop::Failed(failed)) => failed.kind,
            _ => String::new(),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_hosts_svid_is_recorded_and_replaced_when_those_of_before_must_not_be_used() {
        let rig = Rig::new().await;
        tokio::spawn(crate::roles::identity::rotation::follow(Arc::clone(&rig.keeper)));
        let own = OwnIdentity::start(&rig.keeper).unwrap();
        let first = served(&own, "").await.unwrap();
        assert_eq!(first.svid.spiffe_id.to_string(), "spiffe://example.org/portcullis/host");
        let records = rig.records("issuance");
        assert!(
            records.iter().any(|record| record["instance"] == INSTANCE && record["serial"].is_string()),
            "{records:?}"
        );
        rig.keeper.issuer.lock().unwrap().rotate_svids();
        assert!(rig.keeper.publish().is_ok());
        assert!(served(&own, &first.svid.key_id).await.is_some(), "another key");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_host_whose_id_is_revoked_shows_it_to_nobody() {
        let rig = Rig::new().await;
        let own = OwnIdentity::start(&rig.keeper).unwrap();
        assert!(served(&own, "").await.is_some());
        let revoke = |spiffe_ids| {
            let request = portcullis_identity::rpc::SetRevokedRequest { instances: Vec::new(), spiffe_ids };
            assert!(rig.keeper.set_revoked(request).is_ok());
        };
        revoke(vec![own.spiffe_id().to_string()]);
        assert!(own.served().is_none());
        revoke(Vec::new());
        assert!(own.served().is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_else_gets_the_hosts_identity_or_has_its_key_sign() {
        let rig = Rig::new().await;
        let own = OwnIdentity::start(&rig.keeper).unwrap();
        let key_id = served(&own, "").await.unwrap().svid.key_id.clone();
        let fetch = FetchX509SvidRequest { instance: INSTANCE.to_owned() };
        assert_eq!(kind(rig.keeper.mint_x509(fetch).await), "unknown-instance");
        let sign = SignHandshakeRequest { instance: INSTANCE.to_owned(), key_id, message: vec![0; 130] };
        assert_eq!(kind(rig.keeper.sign(sign).await), "unknown-instance");
        for path in [PATH, "/portcullis/", "/portcullis/other"] {
            let request = AdmitRequest {
                instance: "one".to_owned(),
                spiffe_id: format!("spiffe://example.org{path}"),
                ..AdmitRequest::default()
            };
            assert_eq!(kind(rig.keeper.admit(request)), "not-admitted", "{path}");
        }
    }
}
