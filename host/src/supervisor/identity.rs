//! The supervisor's side of the identity process: admits and stops identities, pushes policy, has MACs made.

use std::sync::RwLock;

use portcullis_identity::rpc::authority_client::AuthorityClient;
use portcullis_identity::rpc::{
    AdmitRequest, CacheMacRequest, GetBundleRequest, PolicySource, PushPolicyRequest, ScanChunk, StatusRequest,
    StopRequest, admit_reply, cache_mac_reply, push_policy_reply,
};
use tonic::transport::Channel;

use super::admission::Admitted;
use super::policy::Policy;

/// The connection to the identity process that is up now, if one is.
#[derive(Debug, Default)]
pub struct Identity {
    channel: RwLock<Option<Channel>>,
}

/// Why the identity process did not do it.
#[derive(Debug, thiserror::Error)]
#[error("identity process: {0}")]
pub struct IdentityError(String);

impl Identity {
    /// Uses this connection from now on; `None` while the process is down.
    pub fn set(&self, channel: Option<Channel>) {
        if let Ok(mut slot) = self.channel.write() {
            *slot = channel;
        }
    }

    /// Gives an admitted component its identity.
    pub async fn admit(&self, admitted: &Admitted) -> Result<(), IdentityError> {
        let facts = admitted.facts();
        let request = AdmitRequest {
            instance: facts.instance.clone(),
            spiffe_id: admitted.spiffe_id().to_string(),
            digest: facts.digest.clone(),
            component: facts.name.clone(),
            signer: facts.signer.clone(),
            signer_group: facts.signer_group.clone(),
        };
        match self.client()?.admit(request).await.map_err(failed)?.into_inner().result {
            Some(admit_reply::Result::Ok(_)) => Ok(()),
            Some(admit_reply::Result::Denied(denied)) => Err(IdentityError(format!("denied {}", denied.code))),
            Some(admit_reply::Result::Failed(failed)) => Err(IdentityError(failed.message)),
            None => Err(IdentityError("an empty reply".to_owned())),
        }
    }

    /// Ends an identity.
    pub async fn stop(&self, instance: &str) -> Result<(), IdentityError> {
        self.client()?.stop(StopRequest { instance: instance.to_owned() }).await.map_err(failed)?;
        Ok(())
    }

    /// Swaps the policy that the identity process decides by.
    pub async fn push_policy(&self, policy: &Policy) -> Result<(), IdentityError> {
        let sources = policy.sources().iter().map(|source| PolicySource {
            name: source.name.clone(),
            kind: crate::policy::kind_name(source.kind).to_owned(),
            text: source.text.clone(),
        });
        let request = PushPolicyRequest { generation: policy.generation(), sources: sources.collect() };
        match self.client()?.push_policy(request).await.map_err(failed)?.into_inner().result {
            Some(push_policy_reply::Result::Generation(_)) => Ok(()),
            Some(push_policy_reply::Result::Failed(failed)) => Err(IdentityError(failed.message)),
            None => Err(IdentityError("an empty reply".to_owned())),
        }
    }

    /// A MAC under this host's secret.
    pub async fn mac(&self, purpose: &str, data: &[u8]) -> Result<[u8; 32], IdentityError> {
        let request = CacheMacRequest { purpose: purpose.to_owned(), data: data.to_vec() };
        match self.client()?.cache_mac(request).await.map_err(failed)?.into_inner().result {
            Some(cache_mac_reply::Result::Mac(mac)) => {
                mac.try_into().map_err(|_| IdentityError("a MAC has 32 bytes".to_owned()))
            }
            Some(cache_mac_reply::Result::Failed(failed)) => Err(IdentityError(failed.message)),
            None => Err(IdentityError("an empty reply".to_owned())),
        }
    }

    /// The trust bundle as it is published.
    pub async fn bundle(&self) -> Result<String, IdentityError> {
        Ok(self.client()?.get_bundle(GetBundleRequest {}).await.map_err(failed)?.into_inner().json)
    }

    /// Counts the private keys of the identity process in a stream of bytes.
    pub async fn scan(
        &self,
        chunks: impl tokio_stream::Stream<Item = ScanChunk> + Send + 'static,
    ) -> Result<(u64, u64), IdentityError> {
        let reply = self.client()?.scan_for_keys(chunks).await.map_err(failed)?.into_inner();
        Ok((reply.hits, reply.scanned))
    }

    /// Whether the process answers.
    pub async fn is_up(&self) -> bool {
        match self.client() {
            Ok(mut client) => client.status(StatusRequest {}).await.is_ok(),
            Err(_) => false,
        }
    }

    fn client(&self) -> Result<AuthorityClient<Channel>, IdentityError> {
        let channel = self.channel.read().ok().and_then(|channel| channel.clone());
        let channel = channel.ok_or_else(|| IdentityError("it is not up".to_owned()))?;
        Ok(AuthorityClient::new(channel).max_encoding_message_size(MESSAGE_BYTES))
    }
}

fn failed(status: tonic::Status) -> IdentityError {
    IdentityError(status.message().to_owned())
}

/// Largest message: policies are the large ones.
const MESSAGE_BYTES: usize = 32 << 20;
