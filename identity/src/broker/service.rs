//! The calls of the Broker API, for one connection, so for one broker. Reads arguments, asks [`Brokered`], writes answers. The
//! reference is resolved anew for each message of a stream: a workload that ended is not found, and the stream ends.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::allowed::AllowedBroker;
use super::brokered::Brokered;
use super::follow::{Following, Wakers, follow};
use super::pb::api_server::Api;
use super::pb::{
    FetchJwtsvidRequest, FetchJwtsvidResponse, Jwtsvid, SubscribeToJwtBundlesRequest, SubscribeToJwtBundlesResponse,
    SubscribeToX509BundlesRequest, SubscribeToX509BundlesResponse, SubscribeToX509svidRequest,
    SubscribeToX509svidResponse, WorkloadReference, X509svid,
};
use super::reference::{Named, read};
use super::refusal::BrokerRefusal;
use crate::audience::Audience;
use crate::excerpt::Excerpt;
use crate::limits::MAX_AUDIENCES;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;
use crate::workload_api::{Due, KeyedX509, X509Svids};

/// The service of one broker.
pub(super) struct Service<B> {
    pub(super) broker: Option<Arc<AllowedBroker>>,
    pub(super) host: SpiffeId,
    pub(super) brokered: Arc<B>,
    pub(super) wakers: Wakers,
}

/// What a call is about, once its form is checked.
struct Call<B> {
    broker: Arc<AllowedBroker>,
    named: Named,
    brokered: Arc<B>,
}

impl<B> Clone for Call<B> {
    fn clone(&self) -> Self {
        Self { broker: Arc::clone(&self.broker), named: self.named.clone(), brokered: Arc::clone(&self.brokered) }
    }
}

impl<B: Brokered> Service<B> {
    /// SPIFFE_Broker_Endpoint section 4.1, then who asks, then about whom.
    fn call<T>(
        &self,
        request: Request<T>,
        of: impl FnOnce(&mut T) -> Option<WorkloadReference>,
    ) -> Result<(Call<B>, T), BrokerRefusal> {
        let mut values = request.metadata().get_all("broker.spiffe.io").iter();
        match (values.next(), values.next()) {
            (Some(value), None) if value.as_encoded_bytes() == b"true" => {}
            _ => return Err(BrokerRefusal::SecurityHeader),
        }
        let broker = self.broker.as_ref().ok_or(BrokerRefusal::Broker)?;
        let mut message = request.into_inner();
        let named = read(of(&mut message), &self.host)?;
        let call = Call { broker: Arc::clone(broker), named, brokered: Arc::clone(&self.brokered) };
        call.brokered.resolve(&call.broker, &call.named)?;
        Ok((call, message))
    }
}

#[tonic::async_trait]
impl<B: Brokered> Api for Service<B> {
    type SubscribeToX509SVIDStream = Following<SubscribeToX509svidResponse>;

    async fn subscribe_to_x509svid(
        &self,
        request: Request<SubscribeToX509svidRequest>,
    ) -> Result<Response<Self::SubscribeToX509SVIDStream>, Status> {
        let (call, _) = self.call(request, |message| message.reference.take()).map_err(|refusal| refusal.status())?;
        Ok(Response::new(follow(self.wakers.clone(), move || {
            let call = call.clone();
            async move {
                if !call.broker.x509 {
                    let why = Excerpt::new("this broker may not have X.509-SVIDs");
                    return Err(BrokerRefusal::NotEntitled(why));
                }
                let instance = call.brokered.resolve(&call.broker, &call.named)?;
                let Due { answer, again } = call.brokered.x509_svids(&call.broker, &instance).await?;
                Ok(Due { answer: x509_response(answer)?, again })
            }
        })))
    }

    type SubscribeToX509BundlesStream = Following<SubscribeToX509BundlesResponse>;

    async fn subscribe_to_x509_bundles(
        &self,
        request: Request<SubscribeToX509BundlesRequest>,
    ) -> Result<Response<Self::SubscribeToX509BundlesStream>, Status> {
        let (call, _) = self.call(request, |message| message.reference.take()).map_err(|refusal| refusal.status())?;
        Ok(Response::new(follow(self.wakers.clone(), move || {
            let call = call.clone();
            async move {
                let instance = call.brokered.resolve(&call.broker, &call.named)?;
                let bundles = concatenated(call.brokered.x509_bundles(&instance).await?);
                Ok(Due { answer: SubscribeToX509BundlesResponse { crl: Vec::new(), bundles }, again: None })
            }
        })))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<FetchJwtsvidRequest>,
    ) -> Result<Response<FetchJwtsvidResponse>, Status> {
        self.tokens(request).await.map(Response::new).map_err(|refusal| refusal.status())
    }

    type SubscribeToJWTBundlesStream = Following<SubscribeToJwtBundlesResponse>;

    async fn subscribe_to_jwt_bundles(
        &self,
        request: Request<SubscribeToJwtBundlesRequest>,
    ) -> Result<Response<Self::SubscribeToJWTBundlesStream>, Status> {
        let (call, _) = self.call(request, |message| message.reference.take()).map_err(|refusal| refusal.status())?;
        Ok(Response::new(follow(self.wakers.clone(), move || {
            let call = call.clone();
            async move {
                let instance = call.brokered.resolve(&call.broker, &call.named)?;
                let bundles = call.brokered.jwt_bundles(&instance).await?;
                let bundles = bundles.into_iter().map(|(domain, keys)| (name(&domain), keys.into_bytes()));
                Ok(Due { answer: SubscribeToJwtBundlesResponse { bundles: bundles.collect() }, again: None })
            }
        })))
    }
}

impl<B: Brokered> Service<B> {
    async fn tokens(&self, request: Request<FetchJwtsvidRequest>) -> Result<FetchJwtsvidResponse, BrokerRefusal> {
        if *self.wakers.stopping.borrow() {
            return Err(BrokerRefusal::Unavailable("the server ends"));
        }
        let (call, message) = self.call(request, |message| message.reference.take())?;
        if !call.broker.jwt {
            return Err(BrokerRefusal::NotEntitled(Excerpt::new("this broker may not have JWT-SVIDs")));
        }
        let instance = call.brokered.resolve(&call.broker, &call.named)?;
        let audiences = audiences(&message.audience)?;
        let only: Option<SpiffeId> =
            match message.spiffe_id.as_str() {
                "" => None,
                text => Some(text.parse().map_err(|error: crate::spiffe_id::SpiffeIdError| {
                    BrokerRefusal::InvalidArgument(error.to_string())
                })?),
            };
        let tokens = call.brokered.jwt_svids(&call.broker, &instance, audiences, only).await?;
        let svids = tokens.into_iter().map(|token| Jwtsvid {
            spiffe_id: token.spiffe_id.to_string(),
            svid: token.token.to_string(),
            hint: token.hint,
        });
        Ok(FetchJwtsvidResponse { svids: svids.collect() })
    }
}

fn x509_response(answer: X509Svids) -> Result<SubscribeToX509svidResponse, BrokerRefusal> {
    if answer.svids.is_empty() {
        return Err(BrokerRefusal::NotEntitled(Excerpt::new("there is no identity for it")));
    }
    let svids = answer.svids.into_iter().map(|svid: KeyedX509| X509svid {
        spiffe_id: svid.spiffe_id.to_string(),
        x509_svid: svid.chain.concat(),
        x509_svid_key: svid.key.to_vec(),
        bundle: svid.authorities.concat(),
        hint: svid.hint,
    });
    let svids = svids.collect();
    Ok(SubscribeToX509svidResponse { svids, crl: Vec::new(), federated_bundles: concatenated(answer.federated) })
}

fn concatenated(bundles: BTreeMap<TrustDomain, Vec<Vec<u8>>>) -> HashMap<String, Vec<u8>> {
    bundles.into_iter().map(|(domain, authorities)| (name(&domain), authorities.concat())).collect()
}

fn name(domain: &TrustDomain) -> String {
    format!("spiffe://{domain}")
}

fn audiences(texts: &[String]) -> Result<Vec<Audience>, BrokerRefusal> {
    if texts.is_empty() || texts.len() > MAX_AUDIENCES {
        return Err(BrokerRefusal::InvalidArgument(format!(
            "the field audience must have 1 to {MAX_AUDIENCES} values"
        )));
    }
    let parsed = texts.iter().map(|text| text.parse::<Audience>()).collect::<Result<_, _>>();
    parsed.map_err(|error| BrokerRefusal::InvalidArgument(error.to_string()))
}
