//! The methods of the Workload API (SPIFFE_Workload_API sections 4 to 6): reads requests, asks the caller's [`Entitlement`],
//! writes answers. Decides nothing about rights.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::claims::claims_of;
use super::entitlement::{Due, Entitlement, KeyedX509, X509Svids};
use super::following::{Following, Wakers, follow};
use super::pb::spiffe_workload_api_server::SpiffeWorkloadApi;
use super::pb::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, Witsvid, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
};
use super::refusal::Refusal;
use crate::audience::Audience;
use crate::limits::MAX_AUDIENCES;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// The service of one connection.
pub(super) struct Service<E> {
    entitlement: Arc<E>,
    wakers: Wakers,
}

impl<E: Entitlement> Service<E> {
    pub(super) fn new(entitlement: Arc<E>, wakers: Wakers) -> Self {
        Self { entitlement, wakers }
    }

    fn running(&self) -> Result<(), Refusal> {
        match *self.wakers.stopping.borrow() {
            true => Err(Refusal::Unavailable("the server ends")),
            false => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl<E: Entitlement> SpiffeWorkloadApi for Service<E> {
    type FetchX509SVIDStream = Following<X509svidResponse>;

    async fn fetch_x509svid(&self, _: Request<X509svidRequest>) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let entitlement = Arc::clone(&self.entitlement);
        Ok(Response::new(follow(self.wakers.clone(), move || {
            let entitlement = Arc::clone(&entitlement);
            async move {
                let Due { answer, again } = entitlement.x509_svids().await?;
                Ok(Due { answer: x509_response(answer)?, again })
            }
        })))
    }

    type FetchX509BundlesStream = Following<X509BundlesResponse>;

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let entitlement = Arc::clone(&self.entitlement);
        Ok(Response::new(follow(self.wakers.clone(), move || {
            let entitlement = Arc::clone(&entitlement);
            async move {
                let bundles = concatenated(entitlement.x509_bundles().await?);
                Ok(Due { answer: X509BundlesResponse { crl: Vec::new(), bundles }, again: None })
            }
        })))
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        self.running().map_err(|refusal| refusal.status())?;
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        let audiences = audiences(&audience).map_err(|refusal| refusal.status())?;
        let only = named(&spiffe_id).map_err(|refusal| refusal.status())?;
        let tokens = self.entitlement.jwt_svids(audiences, only).await.map_err(|refusal| refusal.status())?;
        if tokens.is_empty() {
            return Err(Refusal::NoIdentity.status());
        }
        let mut hints = Hints::default();
        let svids = tokens.into_iter().map(|token| Jwtsvid {
            spiffe_id: token.spiffe_id.to_string(),
            svid: token.token.to_string(),
            hint: hints.unique(token.hint),
        });
        Ok(Response::new(JwtsvidResponse { svids: svids.collect() }))
    }

    type FetchJWTBundlesStream = Following<JwtBundlesResponse>;

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let entitlement = Arc::clone(&self.entitlement);
        Ok(Response::new(follow(self.wakers.clone(), move || {
            let entitlement = Arc::clone(&entitlement);
            async move {
                let bundles = entitlement.jwt_bundles().await?;
                let bundles = bundles.into_iter().map(|(domain, keys)| (name(&domain), keys.into_bytes()));
                Ok(Due { answer: JwtBundlesResponse { bundles: bundles.collect() }, again: None })
            }
        })))
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        self.running().map_err(|refusal| refusal.status())?;
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        let audience = parse_audience(&audience).map_err(|refusal| refusal.status())?;
        if svid.is_empty() {
            return Err(Refusal::InvalidArgument("the field svid must not be empty".to_owned()).status());
        }
        let subject = self.entitlement.validate_jwt(&svid, &audience).await.map_err(|refusal| refusal.status())?;
        // The signature was verified: what stands in the token is what its issuer said.
        let claims = claims_of(&svid).map_err(|refusal| refusal.status())?;
        Ok(Response::new(ValidateJwtsvidResponse { spiffe_id: subject.to_string(), claims: Some(claims) }))
    }

    type FetchWITSVIDStream = Following<WitsvidResponse>;

    async fn fetch_witsvid(
        &self,
        request: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        let only = named(&request.into_inner().spiffe_id).map_err(|refusal| refusal.status())?;
        let entitlement = Arc::clone(&self.entitlement);
        let stream = follow(self.wakers.clone(), move || {
            let (entitlement, only) = (Arc::clone(&entitlement), only.clone());
            async move {
                let Due { answer, again } = entitlement.wit_svids(only).await?;
                if answer.is_empty() {
                    return Err(Refusal::NoIdentity);
                }
                let mut hints = Hints::default();
                let svids = answer.into_iter().map(|proof| Witsvid {
                    spiffe_id: proof.spiffe_id.to_string(),
                    wit_svid: proof.token.to_string(),
                    wit_svid_key: proof.key.to_string(),
                    hint: hints.unique(proof.hint),
                });
                Ok(Due { answer: WitsvidResponse { svids: svids.collect() }, again })
            }
        });
        Ok(Response::new(stream))
    }

    type FetchWITBundlesStream = Following<WitBundlesResponse>;

    async fn fetch_wit_bundles(
        &self,
        _: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        let entitlement = Arc::clone(&self.entitlement);
        Ok(Response::new(follow(self.wakers.clone(), move || {
            let entitlement = Arc::clone(&entitlement);
            async move {
                let bundles = entitlement.wit_bundles().await?;
                let bundles = bundles.into_iter().map(|(domain, keys)| (name(&domain), keys));
                Ok(Due { answer: WitBundlesResponse { bundles: bundles.collect() }, again: None })
            }
        })))
    }
}

fn x509_response(answer: X509Svids) -> Result<X509svidResponse, Refusal> {
    // Section 5.2.1: there is at least one.
    if answer.svids.is_empty() {
        return Err(Refusal::NoIdentity);
    }
    let mut hints = Hints::default();
    let svids = answer.svids.into_iter().map(|svid: KeyedX509| X509svid {
        spiffe_id: svid.spiffe_id.to_string(),
        x509_svid: svid.chain.concat(),
        x509_svid_key: svid.key.to_vec(),
        bundle: svid.authorities.concat(),
        hint: hints.unique(svid.hint),
    });
    let svids = svids.collect();
    Ok(X509svidResponse { svids, crl: Vec::new(), federated_bundles: concatenated(answer.federated) })
}

fn concatenated(bundles: BTreeMap<TrustDomain, Vec<Vec<u8>>>) -> HashMap<String, Vec<u8>> {
    bundles.into_iter().map(|(domain, authorities)| (name(&domain), authorities.concat())).collect()
}

/// How maps of bundles are keyed: section 5.2.2.
fn name(domain: &TrustDomain) -> String {
    SpiffeId::of_trust_domain(domain).to_string()
}

/// Section 5.2.1: no two SVIDs of one answer have the same hint; the first keeps it.
#[derive(Default)]
struct Hints(HashSet<String>);

impl Hints {
    fn unique(&mut self, hint: String) -> String {
        if hint.is_empty() || self.0.insert(hint.clone()) { hint } else { String::new() }
    }
}

fn audiences(texts: &[String]) -> Result<Vec<Audience>, Refusal> {
    if texts.is_empty() || texts.len() > MAX_AUDIENCES {
        return Err(Refusal::InvalidArgument(format!("the field audience must have 1 to {MAX_AUDIENCES} values")));
    }
    texts.iter().map(|text| parse_audience(text)).collect()
}

fn parse_audience(text: &str) -> Result<Audience, Refusal> {
    text.parse().map_err(|error: crate::audience::AudienceError| Refusal::InvalidArgument(error.to_string()))
}

/// The identity that is asked for, where one is.
fn named(text: &str) -> Result<Option<SpiffeId>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed: Result<SpiffeId, crate::spiffe_id::SpiffeIdError> = text.parse();
    parsed.map(Some).map_err(|error| Refusal::InvalidArgument(error.to_string()))
}
