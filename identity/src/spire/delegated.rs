//! The wire of SPIRE's Delegated Identity API (`spire.api.agent.delegatedidentity.v1`).

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Request, Status};
use zeroize::Zeroizing;

use super::dial::{Dial, channel};
use crate::audience::Audience;
use crate::limits::{MAX_UPSTREAM_MESSAGE_BYTES, UPSTREAM_CALL};
use crate::protocols::spire::api::agent::delegatedidentity::v1::delegated_identity_client::DelegatedIdentityClient;
use crate::protocols::spire::api::agent::delegatedidentity::v1::{
    FetchJwtsviDsRequest, SubscribeToJwtBundlesRequest, SubscribeToX509BundlesRequest, SubscribeToX509sviDsRequest,
};
use crate::protocols::spire::api::types::{Selector, Spiffeid};
use crate::source::{SourceKind, Vouched};
use crate::upstream::{ByDomain, HandedJwt, HandedX509, Messages, Wire};

/// The selectors of a component, `type` and `value`, as entries at the SPIRE server name them:
/// `portcullis:component:NAME`, `portcullis:digest:sha256:HEX`, `portcullis:signer:KEY`, `portcullis:signer-group:NAME`. All are
/// sent; an entry matches if each of its selectors is among them. What is not known is left out.
pub fn selectors(vouched: &Vouched) -> Vec<(&'static str, String)> {
    let facts = [
        ("component", &vouched.workload.component),
        ("digest", &vouched.workload.digest),
        ("signer", &vouched.signer),
        ("signer-group", &vouched.signer_group),
    ];
    let known = facts.into_iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| ("portcullis", format!("{name}:{value}"))).collect()
}

#[derive(Debug)]
pub(super) struct Delegated {
    client: DelegatedIdentityClient<Channel>,
}

impl Delegated {
    pub(super) fn new(dial: Arc<dyn Dial>) -> Self {
        let client = DelegatedIdentityClient::new(channel(dial));
        Self { client: client.max_decoding_message_size(MAX_UPSTREAM_MESSAGE_BYTES) }
    }
}

#[async_trait]
impl Wire for Delegated {
    fn kind(&self) -> SourceKind {
        SourceKind::SpireDelegated
    }

    async fn x509(&self, who: &Vouched) -> Result<Messages<Vec<HandedX509>>, Status> {
        let request = SubscribeToX509sviDsRequest { selectors: proto(who)?, pid: 0 };
        let messages = self.client.clone().subscribe_to_x509svi_ds(request).await?.into_inner();
        let handed = messages.map(|message| {
            let svids = message?.x509_svids.into_iter().map(|with_key| {
                let pkcs8 = Zeroizing::new(with_key.x509_svid_key);
                let svid = with_key.x509_svid.unwrap_or_default();
                HandedX509 { spiffe_id: id(svid.id), chain: svid.cert_chain, pkcs8 }
            });
            Ok(svids.collect())
        });
        Ok(Box::pin(handed))
    }

    async fn jwt(&self, who: &Vouched, audiences: &[Audience]) -> Result<Vec<HandedJwt>, Status> {
        let audience = audiences.iter().map(|audience| audience.as_str().to_owned()).collect();
        let mut request = Request::new(FetchJwtsviDsRequest { audience, selectors: proto(who)?, pid: 0 });
        request.set_timeout(UPSTREAM_CALL);
        let reply = self.client.clone().fetch_jwtsvi_ds(request).await?.into_inner();
        let handed =
            reply.svids.into_iter().map(|svid| HandedJwt { spiffe_id: id(svid.id), token: Zeroizing::new(svid.token) });
        Ok(handed.collect())
    }

    async fn x509_bundles(&self) -> Result<Messages<ByDomain>, Status> {
        let messages =
            self.client.clone().subscribe_to_x509_bundles(SubscribeToX509BundlesRequest {}).await?.into_inner();
        Ok(Box::pin(messages.map(|message| Ok(message?.ca_certificates.into_iter().collect()))))
    }

    async fn jwt_bundles(&self) -> Result<Messages<ByDomain>, Status> {
        let messages =
            self.client.clone().subscribe_to_jwt_bundles(SubscribeToJwtBundlesRequest {}).await?.into_inner();
        Ok(Box::pin(messages.map(|message| Ok(message?.bundles.into_iter().collect()))))
    }
}

/// An empty list would ask for what every workload gets.
fn proto(who: &Vouched) -> Result<Vec<Selector>, Status> {
    let all = selectors(who);
    if all.is_empty() {
        return Err(Status::invalid_argument("nothing is known of the component"));
    }
    Ok(all.into_iter().map(|(kind, value)| Selector { r#type: kind.to_owned(), value }).collect())
}

fn id(id: Option<Spiffeid>) -> String {
    id.map(|id| format!("spiffe://{}{}", id.trust_domain, id.path)).unwrap_or_default()
}
