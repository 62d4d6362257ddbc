//! What this process does for the host itself: shows its X.509-SVID, signs its handshakes and its statements, these with the key of
//! the SVID or with an nkey whose seed is read here alone.
//!
//! On the supervisor's socket alone. The header and the claims of a statement are written here, from fields that are checked, so
//! that whoever holds the socket gets statements of this host and nothing else signed.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use portcullis_identity::rpc::own::own_server::Own;
use portcullis_identity::rpc::own::{
    ForeignBundle, OwnUpdate, SignHandshakeReply, SignHandshakeRequest, SignStatementReply, SignStatementRequest,
    WatchRequest, sign_handshake_reply, sign_statement_reply,
};
use portcullis_identity::statement::{Draft, DraftError, Jti, SvidSigner, UserKeyError, UserSeed};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::keeper::Keeper;
use super::own::{self, OwnIdentity};

/// The service for the supervisor.
pub(super) struct ForHost {
    keeper: Arc<Keeper>,
    /// Begins when it is asked for: a host that speaks to nobody has no SVID of its own.
    own: OnceLock<Result<Arc<OwnIdentity>, String>>,
    /// The file with the seed that signs statements instead of the SVID, and the key that it must be of.
    key: Option<(PathBuf, String)>,
}

impl ForHost {
    pub(super) fn new(keeper: Arc<Keeper>, key: Option<(PathBuf, String)>) -> Self {
        Self { keeper, own: OnceLock::new(), key }
    }

    fn own(&self) -> Result<&Arc<OwnIdentity>, String> {
        self.own.get_or_init(|| OwnIdentity::start(&self.keeper)).as_ref().map_err(Clone::clone)
    }

    fn signed(&self, request: &SignStatementRequest) -> Result<String, String> {
        if let Some((path, pinned)) = &self.key {
            // INVARIANT: another key gives a revoked host no voice.
            if own::is_revoked(&self.keeper)? {
                return Err("the host's identity is revoked".to_owned());
            }
            let seed = seed(path, pinned)?;
            let draft = drafted(request, |audience, place, jti, life, payload| {
                Draft::by_nkey(seed.public(), audience, place, jti, life, payload)
            })?;
            return Ok(draft.token(&seed.sign(draft.signing_input().as_bytes())));
        }
        let served = self.own()?.served().ok_or("the host has no X.509-SVID at the moment")?;
        let signer = SvidSigner::new(served.svid.chain.clone()).map_err(|error| error.to_string())?;
        let draft = drafted(request, |audience, place, jti, life, payload| {
            Draft::by_svid(&signer, audience, place, jti, life, payload)
        })?;
        self.own()?.sign_statement(&served.svid.key_id, &draft)
    }
}

/// The seed in a file, read anew each time: it must be of the key that the other hosts pinned for this one.
fn seed(path: &Path, pinned: &str) -> Result<UserSeed, String> {
    let text = crate::nats::secrets::text(path)?;
    let said = |error: UserKeyError| format!("{}: {error}; hint: {}", path.display(), error.hint());
    let seed = UserSeed::parse(text.trim_end()).map_err(said)?;
    match seed.public().to_string() == pinned {
        true => Ok(seed),
        false => Err(format!(
            "{}: it is of another key than {pinned}; hint: see `who` of this host's [[cluster.member]]",
            path.display()
        )),
    }
}

/// What is to be signed, from the fields of a request.
fn drafted(
    request: &SignStatementRequest,
    begin: impl FnOnce(&str, &str, Jti, Duration, &[u8]) -> Result<Draft, DraftError>,
) -> Result<Draft, String> {
    let jti: Jti = ulid::Ulid::generate().to_string().parse().map_err(|()| "no ULID".to_owned())?;
    let life = Duration::from_secs(request.life_seconds);
    let SignStatementRequest { audience, place, payload, answers, version, .. } = request;
    let draft = begin(audience, place, jti, life, payload).map_err(|error| error.to_string())?;
    let draft = match answers.is_empty() {
        true => draft,
        false => draft.answering(answers.parse().map_err(|()| "what it answers has no such name".to_owned())?),
    };
    Ok(version.map_or(draft.clone(), |version| draft.version(version)))
}

#[tonic::async_trait]
impl Own for ForHost {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<OwnUpdate, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let own = Arc::clone(self.own().map_err(Status::unavailable)?);
        let keeper = Arc::clone(&self.keeper);
        let published = keeper.published();
        let stream = futures::stream::unfold((published, None), move |(mut published, last)| {
            let (own, keeper) = (Arc::clone(&own), Arc::clone(&keeper));
            async move {
                loop {
                    published.borrow_and_update();
                    let update = update(&keeper, &own);
                    if last.as_ref() != Some(&update) {
                        return Some((Ok(update.clone()), (published, Some(update))));
                    }
                    // A new SVID is not published: it is looked for.
                    if let Ok(Err(_)) = tokio::time::timeout(LOOK, published.changed()).await {
                        return None;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn sign_handshake(
        &self,
        request: Request<SignHandshakeRequest>,
    ) -> Result<Response<SignHandshakeReply>, Status> {
        let SignHandshakeRequest { key_id, message } = request.into_inner();
        let served = self.own().map(|own| own.served());
        let signed = match served {
            Ok(Some(served)) => served.signer.sign(&key_id, &message),
            Ok(None) => Err("the host has no X.509-SVID at the moment".to_owned()),
            Err(why) => Err(why),
        };
        let result = match signed {
            Ok(signature) => sign_handshake_reply::Result::Signature(signature),
            Err(why) => sign_handshake_reply::Result::Failed(why),
        };
        Ok(Response::new(SignHandshakeReply { result: Some(result) }))
    }

    async fn sign_statement(
        &self,
        request: Request<SignStatementRequest>,
    ) -> Result<Response<SignStatementReply>, Status> {
        let result = match self.signed(&request.into_inner()) {
            Ok(statement) => sign_statement_reply::Result::Statement(statement),
            Err(why) => sign_statement_reply::Result::Failed(why),
        };
        Ok(Response::new(SignStatementReply { result: Some(result) }))
    }
}

fn update(keeper: &Keeper, own: &OwnIdentity) -> OwnUpdate {
    let state = keeper.now_published();
    let served = own.served();
    let svid = served.as_ref().map(|served| served.svid.as_ref());
    let foreign = state.bundles.foreign().map(|document| ForeignBundle {
        trust_domain: document.trust_domain().to_string(),
        bundle_json: document.json().to_owned(),
    });
    OwnUpdate {
        spiffe_id: svid.map(|svid| svid.spiffe_id.to_string()).unwrap_or_default(),
        chain: svid.map(|svid| svid.chain.clone()).unwrap_or_default(),
        key_id: svid.map(|svid| svid.key_id.clone()).unwrap_or_default(),
        not_after: svid.map(|svid| svid.not_after.unix_timestamp()).unwrap_or_default(),
        trust_domain: state.bundles.trust_domain().to_string(),
        bundle_json: state.bundles.own().json().to_owned(),
        foreign: foreign.collect(),
        revoked: state.revoked.spiffe_ids.iter().map(ToString::to_string).collect(),
    }
}

/// How often the host's own SVID is looked at.
const LOOK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use portcullis_identity::rpc::SetRevokedRequest;

    use super::*;
    use crate::roles::identity::rig::Rig;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_revoked_host_signs_nothing_with_a_key_of_its_own_either() {
        let rig = Rig::new().await;
        let pair = portcullis_nkey::KeyPair::generate(portcullis_nkey::Kind::User).unwrap();
        let path = rig.log_path().with_file_name("host.nk");
        std::fs::write(&path, pair.seed().as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let pinned = UserSeed::parse(&pair.seed()).unwrap().public().to_string();
        let host = ForHost::new(Arc::clone(&rig.keeper), Some((path, pinned)));
        let request = SignStatementRequest {
            audience: "cluster:prod".to_owned(),
            place: "portcullis.prod.hb.h1".to_owned(),
            payload: b"{}".to_vec(),
            life_seconds: 30,
            ..SignStatementRequest::default()
        };
        let revoke = |id: &str| {
            let spiffe_ids = vec![id.to_owned()];
            assert!(rig.keeper.set_revoked(SetRevokedRequest { instances: Vec::new(), spiffe_ids }).is_ok());
        };
        assert!(host.signed(&request).is_ok());
        revoke("spiffe://example.org/portcullis/host/other");
        assert!(host.signed(&request).is_ok());
        revoke("spiffe://example.org/portcullis/host");
        assert!(host.signed(&request).unwrap_err().contains("revoked"));
    }
}
