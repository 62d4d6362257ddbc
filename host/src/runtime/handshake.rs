//! Signatures in TLS handshakes, made by the identity process.
//!
//! rustls asks for them synchronously, so one thread with a small runtime of its own carries the call, and the thread that
//! does the handshake waits for it, at most [`SIGN_TIMEOUT`]. No private key is ever in this process.

use std::io;
use std::sync::{Arc, mpsc};

use portcullis_identity::mtls::HandshakeSigner;
use portcullis_identity::rpc::workloads_client::WorkloadsClient;
use portcullis_identity::rpc::{SignHandshakeRequest, sign_handshake_reply};
use tonic::transport::Channel;

use super::component::Shared;
use crate::limits::SIGN_TIMEOUT;

/// Signs handshakes of one instance.
#[derive(Debug)]
pub struct RemoteSigner {
    instance: String,
    shared: Arc<Shared>,
    thread: SignerThread,
}

/// The thread that carries the calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SignerThread {
    jobs: tokio::sync::mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    client: WorkloadsClient<Channel>,
    request: SignHandshakeRequest,
    reply: mpsc::SyncSender<Result<Vec<u8>, String>>,
}

impl SignerThread {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (jobs, mut queue) = tokio::sync::mpsc::channel::<Job>(QUEUE);
        std::thread::Builder::new().name("signer".to_owned()).spawn(move || {
            runtime.block_on(async move {
                while let Some(mut job) = queue.recv().await {
                    tokio::spawn(async move {
                        let signed = tokio::time::timeout(SIGN_TIMEOUT, sign(&mut job.client, job.request)).await;
                        let signed =
                            signed.unwrap_or_else(|_| Err("the identity process did not sign in time".to_owned()));
                        let _ = job.reply.try_send(signed);
                    });
                }
            });
        })?;
        Ok(Self { jobs })
    }
}

impl RemoteSigner {
    /// A signer for the SVIDs of `instance`.
    pub fn new(instance: &str, shared: &Arc<Shared>, thread: &SignerThread) -> Self {
        Self { instance: instance.to_owned(), shared: Arc::clone(shared), thread: thread.clone() }
    }
}

impl HandshakeSigner for RemoteSigner {
    fn sign(&self, key_id: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let client = self.shared.identity.client().map_err(|error| format!("{error:?}"))?;
        let request = SignHandshakeRequest {
            instance: self.instance.clone(),
            key_id: key_id.to_owned(),
            message: message.to_vec(),
        };
        let (reply, signed) = mpsc::sync_channel(1);
        let job = Job { client, request, reply };
        self.thread.jobs.try_send(job).map_err(|_| "too many handshakes wait for a signature".to_owned())?;
        let wait =
            || signed.recv_timeout(SIGN_TIMEOUT).map_err(|_| "the identity process did not sign in time".to_owned());
        tokio::task::block_in_place(wait)?
    }
}

async fn sign(client: &mut WorkloadsClient<Channel>, request: SignHandshakeRequest) -> Result<Vec<u8>, String> {
    let reply = client.sign_handshake(request).await.map_err(|status| status.message().to_owned())?;
    match reply.into_inner().result {
        Some(sign_handshake_reply::Result::Signature(signature)) => Ok(signature),
        Some(sign_handshake_reply::Result::Denied(denied)) => Err(format!("denied {}", denied.code)),
        Some(sign_handshake_reply::Result::Failed(failed)) => Err(failed.message),
        None => Err("an empty reply".to_owned()),
    }
}

/// Signatures that may wait at once.
const QUEUE: usize = 1024;
