//! Where a connection gets what it shows: from the identity process, or, for commands and services of their own, from files.
//!
//! What is asked for is asked for anew at each connect and not kept.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use portcullis_identity::mtls::HandshakeSigner;
use portcullis_identity::nats_tls::ClientCertificate;
use portcullis_identity::rpc::nats::nats_secrets_client::NatsSecretsClient;
use portcullis_identity::rpc::nats::{
    CertificateRequest, CredentialRequest, SignHandshakeRequest, WatchRequest, certificate_reply, credential_reply,
    sign_handshake_reply,
};
use tokio::sync::watch;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use super::secrets::Secrets;
use crate::clock;
use crate::config::nats::NatsAuth;
use crate::limits::{NATS_CONNECT, NATS_POLL, SIGN_TIMEOUT};

/// What CONNECT says. Empty is left out.
#[derive(Default)]
pub struct ConnectSecrets {
    /// A NATS token (`jwt`).
    pub jwt: Option<Zeroizing<String>>,
    /// A public key, `U...`.
    pub nkey: Option<String>,
    /// Its signature over the nonce.
    pub signature: Option<Vec<u8>>,
    /// A user name.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Zeroizing<String>>,
    /// A token (`auth_token`).
    pub token: Option<Zeroizing<String>>,
}

impl fmt::Debug for ConnectSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectSecrets").field("nkey", &self.nkey).field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a connection shows.
#[async_trait]
pub trait Credentials: Send + Sync + fmt::Debug {
    /// For CONNECT, over the server's nonce.
    async fn for_connect(&self, nonce: &[u8]) -> Result<ConnectSecrets, String>;
    /// For the TLS handshake: the certificate, and who signs for it.
    async fn certificate(&self) -> Result<ClientCertificate, String>;
    /// Grows whenever there is something new to show.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Why something new cannot be shown. What was shown before stands.
    fn problem(&self) -> Option<String>;
}

/// A connection to the identity process, asked for anew each time: the process may have been started again.
pub type IdentityChannel = dyn Fn() -> Option<Channel> + Send + Sync;

/// What the identity process shows for this process.
pub struct FromIdentity {
    channel: Arc<IdentityChannel>,
    changes: watch::Sender<u64>,
    /// Whether the identity process has looked at the secrets yet.
    looked: watch::Sender<bool>,
    problem: Mutex<Option<String>>,
}

impl FromIdentity {
    /// Follows the identity process for as long as it is held.
    pub fn new(channel: Arc<IdentityChannel>) -> Arc<Self> {
        let (changes, looked) = (watch::Sender::new(0), watch::Sender::new(false));
        let this = Arc::new(Self { channel, changes, looked, problem: Mutex::default() });
        let weak = Arc::downgrade(&this);
        tokio::spawn(async move {
            // Of which process and which secrets the last word was.
            let mut last = None;
            while let Some(this) = weak.upgrade() {
                let stream = match this.client() {
                    Ok(mut client) => client.watch(WatchRequest {}).await.ok(),
                    Err(_) => None,
                };
                drop(this);
                if let Some(stream) = stream {
                    let mut stream = stream.into_inner();
                    while let Ok(Some(changed)) = stream.message().await {
                        let Some(this) = weak.upgrade() else { return };
                        let usable = changed.problem.is_empty();
                        if let Ok(mut problem) = this.problem.lock() {
                            *problem = filled(changed.problem);
                        }
                        let now = Some(changed.fingerprint);
                        if last.is_some() && last != now {
                            this.changes.send_modify(|count| *count = count.saturating_add(1));
                        }
                        // What could not be shown yet was not: with it nothing is compared.
                        if last.is_some() || usable {
                            last = now;
                        }
                        this.looked.send_replace(true);
                    }
                }
                // Before the first look nothing can be shown: that is not to wait long.
                tokio::time::sleep(if last.is_some() { NATS_POLL / 4 } else { NATS_POLL / 50 }).await;
            }
        });
        this
    }

    fn client(&self) -> Result<NatsSecretsClient<Channel>, String> {
        let channel = (self.channel)().ok_or("the identity process is not up")?;
        Ok(NatsSecretsClient::new(channel))
    }

    /// Waits for the first look at the secrets. Nothing is shown before it: what changes after it is seen as changed.
    async fn looked(&self) -> Result<(), String> {
        let mut looked = self.looked.subscribe();
        let first = looked.wait_for(|looked| *looked);
        match tokio::time::timeout(NATS_CONNECT, first).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err("the identity process does not answer".to_owned()),
        }
    }
}

#[async_trait]
impl Credentials for FromIdentity {
    async fn for_connect(&self, nonce: &[u8]) -> Result<ConnectSecrets, String> {
        let mut client = self.client()?;
        self.looked().await?;
        let asked = client.credential(CredentialRequest { nonce: nonce.to_vec() });
        let reply =
            tokio::time::timeout(NATS_CONNECT, asked).await.map_err(|_| "the identity process does not answer")?;
        match reply.map_err(|status| status.message().to_owned())?.into_inner().result {
            Some(credential_reply::Result::Ok(ok)) => Ok(ConnectSecrets {
                jwt: filled(ok.jwt).map(Zeroizing::new),
                nkey: filled(ok.nkey),
                signature: Some(ok.signature).filter(|signature| !signature.is_empty()),
                user: filled(ok.user),
                password: filled(ok.password).map(Zeroizing::new),
                token: filled(ok.token).map(Zeroizing::new),
            }),
            Some(credential_reply::Result::Failed(why)) => Err(why),
            None => Err("an empty reply".to_owned()),
        }
    }

    async fn certificate(&self) -> Result<ClientCertificate, String> {
        let mut client = self.client()?;
        self.looked().await?;
        let asked = client.certificate(CertificateRequest {});
        let reply =
            tokio::time::timeout(NATS_CONNECT, asked).await.map_err(|_| "the identity process does not answer")?;
        match reply.map_err(|status| status.message().to_owned())?.into_inner().result {
            Some(certificate_reply::Result::Ok(ok)) => Ok(ClientCertificate {
                chain: ok.chain,
                key_id: ok.key_id,
                scheme: u16::try_from(ok.scheme).map_err(|_| "no such scheme")?,
                signer: Arc::new(RemoteSigner(Arc::clone(&self.channel))),
            }),
            Some(certificate_reply::Result::Failed(why)) => Err(why),
            None => Err("an empty reply".to_owned()),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn problem(&self) -> Option<String> {
        self.problem.lock().ok()?.clone()
    }
}

impl fmt::Debug for FromIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromIdentity")
    }
}

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Has the identity process sign.
struct RemoteSigner(Arc<IdentityChannel>);

impl HandshakeSigner for RemoteSigner {
    fn sign(&self, key_id: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let channel = (self.0)().ok_or("the identity process is not up")?;
        let request = SignHandshakeRequest { key_id: key_id.to_owned(), message: message.to_vec() };
        let signing = async move {
            let mut client = NatsSecretsClient::new(channel);
            let signed = tokio::time::timeout(SIGN_TIMEOUT, client.sign_handshake(request)).await;
            let signed = signed.map_err(|_| "the identity process did not sign in time".to_owned())?;
            match signed.map_err(|status| status.message().to_owned())?.into_inner().result {
                Some(sign_handshake_reply::Result::Signature(signature)) => Ok(signature),
                Some(sign_handshake_reply::Result::Failed(why)) => Err(why),
                None => Err("an empty reply".to_owned()),
            }
        };
        // rustls asks synchronously: another thread of the runtime carries the call meanwhile.
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(signing))
    }
}

impl fmt::Debug for RemoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RemoteSigner")
    }
}

/// Files that this process reads itself: for commands of an operator and for services beside the host. No SVIDs of a host.
#[derive(Debug)]
pub struct FromFiles {
    secrets: Secrets,
    changes: watch::Sender<u64>,
    problem: Mutex<Option<String>>,
}

impl FromFiles {
    /// Follows the files for as long as it is held.
    pub fn new(auth: NatsAuth) -> Arc<Self> {
        let secrets = Secrets::new(auth);
        // Looked at before anything is shown: what changes after that is seen as changed.
        let fingerprint = secrets.fingerprint();
        let usable = secrets.usable(clock::now());
        let mut last = usable.is_ok().then_some(fingerprint);
        let problem = Mutex::new(usable.err());
        let this = Arc::new(Self { secrets, changes: watch::Sender::new(0), problem });
        let weak = Arc::downgrade(&this);
        tokio::spawn(async move {
            while let Some(this) = weak.upgrade() {
                let now = this.secrets.fingerprint();
                // A new secret that cannot be used yet does not end a connection that stands.
                if last != Some(now) {
                    let usable = this.secrets.usable(clock::now());
                    if usable.is_ok() {
                        if last.is_some() {
                            this.changes.send_modify(|count| *count = count.saturating_add(1));
                        }
                        last = Some(now);
                    }
                    if let Ok(mut problem) = this.problem.lock() {
                        *problem = usable.err();
                    }
                }
                drop(this);
                tokio::time::sleep(NATS_POLL).await;
            }
        });
        this
    }
}

#[async_trait]
impl Credentials for FromFiles {
    async fn for_connect(&self, nonce: &[u8]) -> Result<ConnectSecrets, String> {
        self.secrets.credential(nonce, None, clock::now())
    }

    async fn certificate(&self) -> Result<ClientCertificate, String> {
        let key = Arc::new(self.secrets.certificate(clock::now())?);
        let (chain, key_id, scheme) = (key.chain().to_vec(), key.key_id().to_owned(), key.scheme());
        Ok(ClientCertificate { chain, key_id, scheme, signer: Arc::new(LocalSigner(key)) })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn problem(&self) -> Option<String> {
        self.problem.lock().ok()?.clone()
    }
}

/// A key of this process.
#[derive(Debug)]
struct LocalSigner(Arc<portcullis_identity::NatsKey>);

impl HandshakeSigner for LocalSigner {
    fn sign(&self, _: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        self.0.sign(message).map_err(|error| error.to_string())
    }
}
