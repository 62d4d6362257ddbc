//! What one connection to NATS shows: certificates, signatures over nonces, secrets of the moment.
//!
//! One of these serves the supervisor, for the connection of the host itself; another serves the runtime, for the runtime's. Each
//! knows its own part of the configuration and nothing of the other's, so neither can be asked for what is the other's. Files are
//! read anew each time. Of what is asked for here only client handshakes and nonces are signed.

mod complaint;

use std::collections::VecDeque;
use std::hash::{Hash as _, Hasher as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use portcullis_identity::rpc::nats::nats_secrets_server::NatsSecrets;
use portcullis_identity::rpc::nats::{
    Certificate, CertificateReply, CertificateRequest, Changed, Credential, CredentialReply, CredentialRequest,
    SignHandshakeReply, SignHandshakeRequest, WatchRequest, certificate_reply, credential_reply, sign_handshake_reply,
};
use portcullis_identity::{NatsKey, is_client_handshake};
use time::OffsetDateTime;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use self::complaint::Complaint;
use super::keeper::Keeper;
use super::own::OwnIdentity;
use crate::clock;
use crate::config::nats::NatsLink;
use crate::limits::NATS_POLL;
use crate::nats::ConnectSecrets;
use crate::nats::secrets::Secrets;

/// The service for one connection.
#[derive(Clone)]
pub(super) struct ForNats(Arc<Inner>);

struct Inner {
    keeper: Arc<Keeper>,
    /// `None`: there is no such connection.
    secrets: Option<Secrets>,
    whose: Whose,
    /// Begins when it is asked for.
    own: OnceLock<Result<Arc<OwnIdentity>, String>>,
    /// Keys of the certificates that were shown last, for the handshakes that are under way.
    shown: Mutex<VecDeque<Arc<NatsKey>>>,
    /// When the JWT-SVID that was shown is to be replaced, and how often that was.
    token: Mutex<(Option<OffsetDateTime>, u64)>,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The host's own.
    Host,
    /// The runtime's.
    Runtime,
}

impl ForNats {
    /// For this part of the configuration.
    pub(super) fn new(keeper: Arc<Keeper>, whose: Whose, link: Option<&NatsLink>) -> Self {
        let secrets = link.map(|link| Secrets::new(link.auth.clone()));
        Self(Arc::new(Inner {
            keeper,
            secrets,
            whose,
            own: OnceLock::new(),
            shown: Mutex::default(),
            token: Mutex::default(),
        }))
    }
}

impl Inner {
    fn secrets(&self) -> Result<&Secrets, String> {
        self.secrets.as_ref().ok_or_else(|| "there is no such connection in the configuration".to_owned())
    }

    fn own(&self) -> Result<&Arc<OwnIdentity>, String> {
        let start = || match self.whose {
            Whose::Host => OwnIdentity::start(&self.keeper),
            Whose::Runtime => OwnIdentity::start_for_runtime(&self.keeper),
        };
        self.own.get_or_init(start).as_ref().map_err(Clone::clone)
    }

    async fn credential(&self, nonce: &[u8]) -> Result<ConnectSecrets, String> {
        let secrets = self.secrets()?;
        let token = match &secrets.auth().jwt_audience {
            Some(audience) => Some(self.jwt_svid(audience, secrets.nkey()?).await?),
            None => None,
        };
        secrets.credential(nonce, token, clock::now())
    }

    /// Beside an nkey it names that key, so that it is worth nothing to whoever gets hold of it without the key.
    async fn jwt_svid(&self, audience: &str, nkey: Option<String>) -> Result<Zeroizing<String>, String> {
        let now = clock::now();
        let bound = nkey.map(|key| format!("nkey:{key}"));
        let audiences: Vec<&str> = std::iter::once(audience).chain(bound.as_deref()).collect();
        let svid = self.own()?.jwt_svid(&audiences).await?;
        let left = svid.expires_at() - now;
        if let Ok(mut token) = self.token.lock() {
            token.0 = Some(now + left * 2 / 3);
        }
        Ok(Zeroizing::new(svid.token().to_owned()))
    }

    fn certificate(&self) -> Result<Certificate, String> {
        let secrets = self.secrets()?;
        if secrets.auth().svid {
            let served = self.own()?.served().ok_or(NO_SVID)?;
            return Ok(Certificate {
                chain: served.svid.chain.clone(),
                key_id: served.svid.key_id.clone(),
                scheme: ECDSA_P256_SHA256,
                not_after: served.svid.not_after.unix_timestamp(),
            });
        }
        let key = Arc::new(secrets.certificate(clock::now())?);
        let certificate = Certificate {
            chain: key.chain().to_vec(),
            key_id: key.key_id().to_owned(),
            scheme: u32::from(key.scheme()),
            not_after: key.not_after().unix_timestamp(),
        };
        let mut shown = self.shown.lock().map_err(|_| "poisoned")?;
        shown.retain(|old| old.key_id() != key.key_id());
        shown.push_back(key);
        while shown.len() > KEYS {
            shown.pop_front();
        }
        Ok(certificate)
    }

    fn sign(&self, request: &SignHandshakeRequest) -> Result<Vec<u8>, String> {
        if !is_client_handshake(&request.message) {
            return Err("only a client's handshakes are signed".to_owned());
        }
        if self.secrets()?.auth().svid {
            return self.own()?.served().ok_or(NO_SVID)?.signer.sign(&request.key_id, &request.message);
        }
        let shown = self.shown.lock().map_err(|_| "poisoned")?;
        let key = shown.iter().find(|key| key.key_id() == request.key_id).ok_or("no such certificate was shown")?;
        key.sign(&request.message).map_err(|error| error.to_string())
    }

    /// Tells what would be shown now from what was before, and says why it cannot be shown.
    fn look(&self) -> (u64, Option<String>) {
        let Some(secrets) = &self.secrets else { return (0, None) };
        let now = clock::now();
        let mut hasher = std::hash::DefaultHasher::new();
        secrets.fingerprint().hash(&mut hasher);
        let mut problem = secrets.usable(now).err();
        if secrets.auth().svid {
            match self.own().map(|own| own.served()) {
                Ok(Some(served)) => served.svid.key_id.hash(&mut hasher),
                Ok(None) => problem = Some(NO_SVID.to_owned()),
                Err(why) => problem = Some(why),
            }
        }
        // Whoever has SVIDs replaced means the token that is shown, too.
        if secrets.auth().jwt_audience.is_some() {
            self.keeper.now_published().svid_epoch.hash(&mut hasher);
        }
        if let Ok(mut token) = self.token.lock() {
            if token.0.is_some_and(|due| due <= now) {
                *token = (None, token.1.wrapping_add(1));
            }
            token.1.hash(&mut hasher);
        }
        (hasher.finish(), problem)
    }
}

#[tonic::async_trait]
impl NatsSecrets for ForNats {
    async fn credential(&self, request: Request<CredentialRequest>) -> Result<Response<CredentialReply>, Status> {
        let result = match self.0.credential(&request.into_inner().nonce).await {
            Ok(mut shown) => credential_reply::Result::Ok(Credential {
                jwt: taken(shown.jwt.take()),
                nkey: shown.nkey.take().unwrap_or_default(),
                signature: shown.signature.take().unwrap_or_default(),
                user: shown.user.take().unwrap_or_default(),
                password: taken(shown.password.take()),
                token: taken(shown.token.take()),
            }),
            Err(why) => credential_reply::Result::Failed(why),
        };
        Ok(Response::new(CredentialReply { result: Some(result) }))
    }

    async fn certificate(&self, _: Request<CertificateRequest>) -> Result<Response<CertificateReply>, Status> {
        // The first SVID is made when it is first asked for.
        let mut certificate = self.0.certificate();
        for _ in 0..FIRST_SVID_LOOKS {
            if certificate.as_ref().is_err_and(|why| why == NO_SVID) {
                tokio::time::sleep(NATS_POLL / 10).await;
                certificate = self.0.certificate();
            }
        }
        let result = match certificate {
            Ok(certificate) => certificate_reply::Result::Ok(certificate),
            Err(why) => certificate_reply::Result::Failed(why),
        };
        Ok(Response::new(CertificateReply { result: Some(result) }))
    }

    async fn sign_handshake(
        &self,
        request: Request<SignHandshakeRequest>,
    ) -> Result<Response<SignHandshakeReply>, Status> {
        let result = match self.0.sign(&request.into_inner()) {
            Ok(signature) => sign_handshake_reply::Result::Signature(signature),
            Err(why) => sign_handshake_reply::Result::Failed(why),
        };
        Ok(Response::new(SignHandshakeReply { result: Some(result) }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<Changed, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let inner = Arc::clone(&self.0);
        let first = (None::<Changed>, Complaint::new(Instant::now()));
        let stream = futures::stream::unfold(first, move |(last, mut complaint)| {
            let inner = Arc::clone(&inner);
            async move {
                loop {
                    let (fingerprint, problem) = inner.look();
                    // What cannot be used is no reason to connect again: what was shown before stands.
                    let fingerprint = match (&problem, &last) {
                        (Some(_), Some(last)) => last.fingerprint,
                        _ => fingerprint,
                    };
                    let now = Changed { fingerprint, problem: problem.unwrap_or_default() };
                    if complaint.is_due(&now.problem, Instant::now()) {
                        tracing::error!(why = now.problem, "what NATS is shown cannot be used");
                    }
                    if last.as_ref() != Some(&now) {
                        return Some((Ok(now.clone()), (Some(now), complaint)));
                    }
                    tokio::time::sleep(NATS_POLL).await;
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

fn taken(secret: Option<Zeroizing<String>>) -> String {
    secret.map(|mut text| std::mem::take(&mut *text)).unwrap_or_default()
}

/// What SVIDs are signed with (RFC 8446 section 4.2.3).
const ECDSA_P256_SHA256: u32 = 0x0403;
/// Keys of certificates that are kept for handshakes under way.
const KEYS: usize = 4;
/// How often the host's first SVID is looked for.
const FIRST_SVID_LOOKS: usize = 20;
const NO_SVID: &str = "the host has no X.509-SVID at the moment";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::nats::NatsAuth;
    use crate::roles::identity::rig::Rig;

    fn link(auth: NatsAuth) -> NatsLink {
        NatsLink { account: "APP".to_owned(), user: None, inbox_prefix: None, auth }
    }

    fn handshake(side: &str) -> Vec<u8> {
        [&[0x20; 64][..], format!("TLS 1.3, {side} CertificateVerify\0").as_bytes(), &[7; 32]].concat()
    }

    async fn shown(nats: &ForNats) -> Result<Certificate, String> {
        let reply = nats.certificate(Request::new(CertificateRequest {})).await.unwrap().into_inner();
        match reply.result.unwrap() {
            certificate_reply::Result::Ok(certificate) => Ok(certificate),
            certificate_reply::Result::Failed(why) => Err(why),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_runtime_gets_an_identity_of_its_own_and_no_signature_of_the_hosts() {
        let rig = Rig::new().await;
        let svid = link(NatsAuth { svid: true, ..NatsAuth::default() });
        let host = ForNats::new(Arc::clone(&rig.keeper), Whose::Host, Some(&svid));
        let runtime = ForNats::new(Arc::clone(&rig.keeper), Whose::Runtime, Some(&svid));
        let (of_host, of_runtime) = (shown(&host).await.unwrap(), shown(&runtime).await.unwrap());
        assert_ne!(of_host.chain, of_runtime.chain);
        assert!(host.0.own().unwrap().spiffe_id().to_string().ends_with("/portcullis/host"));
        assert!(runtime.0.own().unwrap().spiffe_id().to_string().ends_with("/portcullis/data"));
        let sign = |nats: &ForNats, key_id: &str, side: &str| {
            nats.0.sign(&SignHandshakeRequest { key_id: key_id.to_owned(), message: handshake(side) })
        };
        assert!(sign(&host, &of_host.key_id, "client").is_ok());
        assert!(sign(&runtime, &of_runtime.key_id, "client").is_ok());
        assert!(sign(&runtime, &of_host.key_id, "client").is_err(), "the key of the host");
        assert!(sign(&host, &of_host.key_id, "server").is_err(), "a server's handshake");
        let document = SignHandshakeRequest { key_id: of_host.key_id.clone(), message: b"a document".to_vec() };
        assert!(host.0.sign(&document).is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_connection_has_the_secrets_of_its_own_part_of_the_configuration() {
        let rig = Rig::new().await;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "secret of the host\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let token = link(NatsAuth { token: Some(path.clone()), ..NatsAuth::default() });
        let host = ForNats::new(Arc::clone(&rig.keeper), Whose::Host, Some(&token));
        let runtime = ForNats::new(Arc::clone(&rig.keeper), Whose::Runtime, None);
        assert_eq!(host.0.credential(b"nonce").await.unwrap().token.unwrap().as_str(), "secret of the host");
        assert!(runtime.0.credential(b"nonce").await.is_err());
        assert!(shown(&host).await.is_err(), "no certificate is configured");
        assert!(shown(&runtime).await.is_err());
        let (before, problem) = host.0.look();
        assert_eq!(problem, None);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(host.0.look().1.unwrap().contains("others can read it"));
        std::fs::write(&path, "another").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_ne!(host.0.look().0, before);
    }
}
