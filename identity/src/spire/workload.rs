//! The wire of the SPIFFE Workload API: the host's own identity, as the site's agent attests this process.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};
use zeroize::Zeroizing;

use super::dial::{Dial, channel};
use crate::audience::Audience;
use crate::limits::{MAX_UPSTREAM_MESSAGE_BYTES, UPSTREAM_CALL};
use crate::source::{SourceKind, Vouched};
use crate::upstream::{ByDomain, HandedJwt, HandedX509, Messages, Wire, split};
use crate::workload_api::pb::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use crate::workload_api::pb::{JwtBundlesRequest, JwtsvidRequest, X509BundlesRequest, X509svidRequest};

#[derive(Debug, Clone)]
pub(crate) struct WorkloadApi {
    client: SpiffeWorkloadApiClient<Channel>,
}

impl WorkloadApi {
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Self {
        let client = SpiffeWorkloadApiClient::new(channel(dial));
        Self { client: client.max_decoding_message_size(MAX_UPSTREAM_MESSAGE_BYTES) }
    }
}

#[async_trait]
impl Wire for WorkloadApi {
    fn kind(&self) -> SourceKind {
        SourceKind::WorkloadApi
    }

    /// Of this process, whoever is asked for: the engine keeps what fits.
    async fn x509(&self, _: &Vouched) -> Result<Messages<Vec<HandedX509>>, Status> {
        let messages = self.client.clone().fetch_x509svid(with_header(X509svidRequest {})).await?.into_inner();
        let handed = messages.map(|message| {
            let svids = message?.svids.into_iter().map(|mut svid| {
                let pkcs8 = Zeroizing::new(std::mem::take(&mut svid.x509_svid_key));
                // A chain that cannot be parsed is none: the engine says so.
                let chain = split(&svid.x509_svid).unwrap_or_default();
                HandedX509 { spiffe_id: std::mem::take(&mut svid.spiffe_id), chain, pkcs8 }
            });
            Ok(svids.collect())
        });
        Ok(Box::pin(handed))
    }

    async fn jwt(&self, who: &Vouched, audiences: &[Audience]) -> Result<Vec<HandedJwt>, Status> {
        let audience = audiences.iter().map(|audience| audience.as_str().to_owned()).collect();
        let spiffe_id = who.workload.spiffe_id.to_string();
        let mut request = with_header(JwtsvidRequest { audience, spiffe_id });
        request.set_timeout(UPSTREAM_CALL);
        let reply = self.client.clone().fetch_jwtsvid(request).await?.into_inner();
        let handed = reply.svids.into_iter().map(|mut svid| HandedJwt {
            spiffe_id: std::mem::take(&mut svid.spiffe_id),
            token: Zeroizing::new(std::mem::take(&mut svid.svid)),
        });
        Ok(handed.collect())
    }

    async fn x509_bundles(&self) -> Result<Messages<ByDomain>, Status> {
        let messages = self.client.clone().fetch_x509_bundles(with_header(X509BundlesRequest {})).await?.into_inner();
        Ok(Box::pin(messages.map(|message| Ok(message?.bundles.into_iter().collect()))))
    }

    async fn jwt_bundles(&self) -> Result<Messages<ByDomain>, Status> {
        let messages = self.client.clone().fetch_jwt_bundles(with_header(JwtBundlesRequest {})).await?.into_inner();
        Ok(Box::pin(messages.map(|message| Ok(message?.bundles.into_iter().collect()))))
    }
}

/// SPIFFE_Workload_Endpoint section 4.1.
fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}
