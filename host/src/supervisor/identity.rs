//! The supervisor's side of the identity process: admits and stops identities, pushes policy, has MACs made.

use std::sync::RwLock;

use portcullis_identity::rpc::authority_client::AuthorityClient;
use portcullis_identity::rpc::own::own_client::OwnClient;
use portcullis_identity::rpc::{
    self, AdmitRequest, CacheMacRequest, DialWanted, GetBundleRequest, MetricsRequest, OperationReply, PolicySource,
    PushPolicyRequest, RotateRequest, ScanChunk, SetRevokedRequest, ShowRequest, StatusRequest, StopRequest,
    TaintRequest, WatchDialsRequest, admit_reply, cache_mac_reply, operation_reply, push_policy_reply,
};
use tonic::transport::Channel;

use super::admission::Admitted;
use super::policy::Policy;
use crate::identity_report::Rotated;
use crate::policy::Audited;

/// The connection to the identity process that is up now, if one is.
#[derive(Debug, Default)]
pub struct Identity {
    channel: RwLock<Option<Channel>>,
}

/// Why the identity process did not do it.
#[derive(Debug, thiserror::Error)]
#[error("identity process: {message}")]
pub struct IdentityError {
    kind: String,
    message: String,
}

impl IdentityError {
    /// Our fault, or the machine's.
    pub fn internal(message: impl ToString) -> Self {
        Self { kind: "unavailable".to_owned(), message: message.to_string() }
    }

    /// Stable word.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Whether whoever asked erred.
    pub fn is_invalid(&self) -> bool {
        self.kind == "invalid-argument"
    }
}

impl Identity {
    /// Uses this connection from now on; `None` while the process is down.
    pub fn set(&self, channel: Option<Channel>) {
        if let Ok(mut slot) = self.channel.write() {
            *slot = channel;
        }
    }

    /// Gives an admitted component its identity; `exportable`: the operator lets its private key be exported.
    pub async fn admit(&self, admitted: &Admitted, exportable: bool) -> Result<(), IdentityError> {
        let facts = admitted.facts();
        let request = AdmitRequest {
            instance: facts.instance.clone(),
            spiffe_id: admitted.spiffe_id().to_string(),
            digest: facts.digest.clone(),
            component: facts.name.clone(),
            signer: facts.signer.clone(),
            signer_group: facts.signer_group.clone(),
            exportable,
        };
        match self.client()?.admit(request).await.map_err(failed)?.into_inner().result {
            Some(admit_reply::Result::Ok(_)) => Ok(()),
            Some(admit_reply::Result::Denied(denied)) => {
                Err(IdentityError::internal(format!("denied {}", denied.code)))
            }
            Some(admit_reply::Result::Failed(failed)) => {
                Err(IdentityError { kind: failed.kind, message: failed.message })
            }
            None => Err(IdentityError::internal("an empty reply")),
        }
    }

    /// Ends an identity.
    pub async fn stop(&self, instance: &str) -> Result<(), IdentityError> {
        self.client()?.stop(StopRequest { instance: instance.to_owned() }).await.map_err(failed)?;
        Ok(())
    }

    /// Swaps the policy that the identity process decides by.
    pub async fn push_policy(&self, policy: &Policy, audited: &Audited) -> Result<(), IdentityError> {
        let sources = policy.sources().iter().map(|source| PolicySource {
            name: source.name.clone(),
            kind: crate::policy::kind_name(source.kind).to_owned(),
            text: source.text.clone(),
        });
        let audited = audited.iter().map(|(component, until)| rpc::Audited { component: component.to_owned(), until });
        let request = PushPolicyRequest {
            generation: policy.generation(),
            sources: sources.collect(),
            audited: audited.collect(),
        };
        match self.client()?.push_policy(request).await.map_err(failed)?.into_inner().result {
            Some(push_policy_reply::Result::Generation(_)) => Ok(()),
            Some(push_policy_reply::Result::Failed(failed)) => {
                Err(IdentityError { kind: failed.kind, message: failed.message })
            }
            None => Err(IdentityError::internal("an empty reply")),
        }
    }

    /// A MAC under this host's secret.
    pub async fn mac(&self, purpose: &str, data: &[u8]) -> Result<[u8; 32], IdentityError> {
        let request = CacheMacRequest { purpose: purpose.to_owned(), data: data.to_vec() };
        match self.client()?.cache_mac(request).await.map_err(failed)?.into_inner().result {
            Some(cache_mac_reply::Result::Mac(mac)) => {
                mac.try_into().map_err(|_| IdentityError::internal("a MAC has 32 bytes"))
            }
            Some(cache_mac_reply::Result::Failed(failed)) => {
                Err(IdentityError { kind: failed.kind, message: failed.message })
            }
            None => Err(IdentityError::internal("an empty reply")),
        }
    }

    /// The trust bundle as it is published; or, as a bundle map, those of all trust domains that are known.
    pub async fn bundle(&self, federated: bool) -> Result<String, IdentityError> {
        Ok(self.client()?.get_bundle(GetBundleRequest { federated }).await.map_err(failed)?.into_inner().json)
    }

    /// Replaces what is revoked; returns how many identities ended by that.
    pub async fn set_revoked(&self, instances: Vec<String>, spiffe_ids: Vec<String>) -> Result<u64, IdentityError> {
        let request = SetRevokedRequest { instances, spiffe_ids };
        Ok(self.client()?.set_revoked(request).await.map_err(failed)?.into_inner().ended)
    }

    /// Forces new authorities or SVIDs; returns the report.
    pub async fn rotate(&self, request: RotateRequest) -> Result<String, IdentityError> {
        operation(self.client()?.rotate(request).await.map_err(failed)?.into_inner())
    }

    /// Distrusts an authority; returns the report.
    pub async fn taint(&self, request: TaintRequest) -> Result<String, IdentityError> {
        operation(self.client()?.taint(request).await.map_err(failed)?.into_inner())
    }

    /// Authorities, identities, peers, as JSON.
    pub async fn show(&self) -> Result<String, IdentityError> {
        Ok(self.client()?.show(ShowRequest {}).await.map_err(failed)?.into_inner().report_json)
    }

    /// The page of metrics.
    pub async fn metrics(&self) -> Result<String, IdentityError> {
        Ok(self.client()?.metrics(MetricsRequest {}).await.map_err(failed)?.into_inner().text)
    }

    /// What an operator must know, one line each. Nothing where the process does not answer: that is a problem of its own.
    pub async fn problems(&self) -> Vec<String> {
        match self.client() {
            Ok(mut client) => match client.status(StatusRequest {}).await {
                Ok(status) => status.into_inner().problems,
                Err(_) => Vec::new(),
            },
            Err(_) => Vec::new(),
        }
    }

    /// The connections that the process wants.
    pub async fn wanted_dials(&self) -> Result<tonic::Streaming<DialWanted>, IdentityError> {
        Ok(self.client()?.watch_dials(WatchDialsRequest {}).await.map_err(failed)?.into_inner())
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

    /// The channel to the process that is up now.
    pub fn channel(&self) -> Option<Channel> {
        self.channel.read().ok().and_then(|channel| channel.clone())
    }

    /// What the process does for the host itself.
    pub fn own(&self) -> Result<OwnClient<Channel>, IdentityError> {
        let channel = self.channel.read().ok().and_then(|channel| channel.clone());
        let channel = channel.ok_or_else(|| IdentityError::internal("it is not up"))?;
        let client = OwnClient::new(channel).max_encoding_message_size(MESSAGE_BYTES);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES))
    }

    fn client(&self) -> Result<AuthorityClient<Channel>, IdentityError> {
        let channel = self.channel.read().ok().and_then(|channel| channel.clone());
        let channel = channel.ok_or_else(|| IdentityError::internal("it is not up"))?;
        let client = AuthorityClient::new(channel).max_encoding_message_size(MESSAGE_BYTES);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES))
    }
}

fn failed(status: tonic::Status) -> IdentityError {
    IdentityError::internal(status.message())
}

fn operation(reply: OperationReply) -> Result<String, IdentityError> {
    match reply.result {
        Some(operation_reply::Result::ReportJson(json)) => {
            // What another process sends is checked before it is shown.
            let rotated: Rotated = serde_json::from_str(&json).map_err(IdentityError::internal)?;
            serde_json::to_string(&rotated).map_err(IdentityError::internal)
        }
        Some(operation_reply::Result::Failed(failed)) => {
            Err(IdentityError { kind: failed.kind, message: failed.message })
        }
        None => Err(IdentityError::internal("an empty reply")),
    }
}

/// Largest message: policies are the large ones.
const MESSAGE_BYTES: usize = 32 << 20;
